//! Pushback: a server's word on when, and whether, a further attempt may follow (gRFC A6, "Pushback").

use std::time::Duration;

use http::{HeaderMap, HeaderName};

const GRPC_RETRY_PUSHBACK_MS: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The pushback of a server at the end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// The server leaves the pause to the client.
    Absent,
    /// A further attempt may follow after exactly this pause.
    After(Duration),
    /// No further attempt may follow.
    Never,
}

impl Pushback {
    /// Reads the pushback in trailers, which are the head in a Trailers-Only response. A value that is not a whole
    /// number permits no attempt, and neither do several values.
    pub(crate) fn of(trailers: &HeaderMap) -> Self {
        let mut values = trailers.get_all(GRPC_RETRY_PUSHBACK_MS).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => millis(value.as_bytes())
                .map_or(Self::Never, |ms| Self::After(Duration::from_millis(ms))),
            // A6 does not say which of them counts; waiting too little would harm the server.
            (Some(_), Some(_)) => Self::Never,
        }
    }
}

/// Parses a whole number that is not negative. One that is too large becomes the largest.
fn millis(value: &[u8]) -> Option<u64> {
    let digits = value.strip_prefix(b"+").unwrap_or(value);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number: u64, digit| {
        number
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn pushback(values: &[&[u8]]) -> Pushback {
        let mut trailers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value).expect("a value that HTTP permits");
            trailers.append(GRPC_RETRY_PUSHBACK_MS, value);
        }
        Pushback::of(&trailers)
    }

    #[test]
    fn a_whole_number_is_a_pause_and_all_else_permits_no_attempt() {
        assert_eq!(pushback(&[]), Pushback::Absent);
        let pauses: [(&[u8], u64); 8] = [
            (b"0", 0),
            (b"700", 700),
            (b"0100", 100),
            (b"+100", 100),
            (b"2147483648", 1 << 31),
            (b"18446744073709551615", u64::MAX),
            (b"18446744073709551616", u64::MAX),
            (b"99999999999999999999999999999999", u64::MAX),
        ];
        for (value, ms) in pauses {
            let expected = Pushback::After(Duration::from_millis(ms));
            assert_eq!(pushback(&[value]), expected, "{}", value.escape_ascii());
        }
        let refusals: [&[u8]; 14] = [
            b"", b"-1", b"-0", b"+", b"-", b"++1", b"+-1", b"soon", b"1.5", b"1e3", b"0x10",
            b"1 2", b"1,2", b"\xb2",
        ];
        for value in refusals {
            assert_eq!(
                pushback(&[value]),
                Pushback::Never,
                "{}",
                value.escape_ascii()
            );
        }
    }

    #[test]
    fn several_values_permit_no_attempt() {
        for values in [[&b"300"[..], b"900"], [b"300", b"300"], [b"", b"0"]] {
            assert_eq!(pushback(&values), Pushback::Never);
        }
    }
}
