//! The `grpc-timeout` header.

use std::fmt;
use std::time::Duration;

use http::HeaderValue;

/// The longest timeout that [`parse`] returns: 100 years.
///
/// The wire format allows 11,408 years, which a clock may not be able to add to now.
pub const MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The largest number the wire has room for.
// PROTOCOL-HTTP2.md, "Requests": TimeoutValue is a positive integer of at most 8 digits.
const MAX_VALUE: u128 = 99_999_999;

/// The units, the finest first, with their length in nanoseconds.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60 * 1_000_000_000),
    (b'H', 60 * 60 * 1_000_000_000),
];

/// The error of a value that is not a `grpc-timeout`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeoutError {
    /// The value has no digits, or more than 8.
    Digits,
    /// A character among the digits is not a digit.
    Character,
    /// The last character is not `H`, `M`, `S`, `m`, `u` or `n`.
    Unit,
}

impl fmt::Display for TimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Digits => "grpc-timeout must have 1 to 8 digits",
            Self::Character => "grpc-timeout contains a character that is not a digit",
            Self::Unit => "grpc-timeout must end in one of H, M, S, m, u, n",
        })
    }
}

impl std::error::Error for TimeoutError {}

/// Returns the header value for `timeout`, in the finest unit that has room for it, rounded up: a
/// server never stops before its client.
///
/// ```
/// use std::time::Duration;
/// use trunkline_codec::timeout;
///
/// assert_eq!(timeout::encode(Duration::from_millis(5)), "5000000n");
/// assert_eq!(timeout::encode(Duration::from_secs(5)), "5000000u");
/// ```
pub fn encode(timeout: Duration) -> HeaderValue {
    let nanos = timeout.as_nanos();
    let (value, unit) = UNITS
        .iter()
        .map(|(unit, length)| (nanos.div_ceil(*length), *unit))
        .find(|(value, _)| *value <= MAX_VALUE)
        .unwrap_or((MAX_VALUE, b'H'));
    let mut text = [0; 9];
    text[8] = unit;
    let mut start = 8;
    let mut rest = u32::try_from(value).expect("the value has at most 8 digits");
    loop {
        start -= 1;
        text[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    HeaderValue::from_bytes(&text[start..]).expect("digits and a letter are a header value")
}

/// Parses the value of a `grpc-timeout` header. Anything above [`MAX`] becomes [`MAX`]; zero is a
/// timeout that has passed already.
///
/// # Errors
///
/// [`TimeoutError`] if `value` is not 1 to 8 digits and a unit; on a server that is INTERNAL.
///
/// ```
/// use std::time::Duration;
/// use trunkline_codec::timeout;
///
/// assert_eq!(timeout::parse(b"250m"), Ok(Duration::from_millis(250)));
/// assert_eq!(timeout::parse(b"250"), Err(timeout::TimeoutError::Unit));
/// ```
pub fn parse(value: &[u8]) -> Result<Duration, TimeoutError> {
    let Some((unit, digits)) = value.split_last() else {
        return Err(TimeoutError::Digits);
    };
    // Cheap first: a value of any length is looked at only so far.
    if digits.len() > 8 {
        return Err(TimeoutError::Digits);
    }
    let mut number: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(TimeoutError::Character);
        }
        number = number * 10 + u64::from(digit - b'0');
    }
    let timeout = match unit {
        b'n' => Duration::from_nanos(number),
        b'u' => Duration::from_micros(number),
        b'm' => Duration::from_millis(number),
        b'S' => Duration::from_secs(number),
        b'M' => Duration::from_secs(number * 60),
        b'H' => Duration::from_secs(number * 60 * 60),
        _ => return Err(TimeoutError::Unit),
    };
    match digits.is_empty() {
        true => Err(TimeoutError::Digits),
        false => Ok(timeout.min(MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_take_the_finest_unit_that_has_room_and_round_up() {
        let table = [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(1), "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_000), "100000u"),
            (Duration::from_nanos(100_000_001), "100001u"),
            (Duration::from_secs(5), "5000000u"),
            (Duration::from_micros(99_999_999), "99999999u"),
            (Duration::from_micros(100_000_000), "100000m"),
            (Duration::from_secs(99_999), "99999000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(99_999_999), "99999999S"),
            (Duration::from_secs(100_000_000), "1666667M"),
            (Duration::from_secs(99_999_999 * 60), "99999999M"),
            (Duration::from_secs(99_999_999 * 60 + 1), "1666667H"),
            (Duration::from_secs(99_999_999 * 3600), "99999999H"),
            (Duration::MAX, "99999999H"),
        ];
        for (timeout, expected) in table {
            assert_eq!(encode(timeout), expected, "{timeout:?}");
        }
    }

    #[test]
    fn what_is_encoded_is_never_shorter_when_it_is_parsed() {
        let mut nanos: u64 = 1;
        while nanos < MAX.as_nanos() as u64 {
            for timeout in [nanos - 1, nanos, nanos + 1].map(Duration::from_nanos) {
                let parsed = parse(encode(timeout).as_bytes()).unwrap();
                // One step of the unit, which has at least 6 digits before it is left.
                let longest = timeout + timeout / 100_000 + Duration::from_nanos(1);
                assert!(
                    (timeout..=longest).contains(&parsed),
                    "{timeout:?}: {parsed:?}"
                );
            }
            nanos = nanos * 3 + 7;
        }
    }

    #[test]
    fn headers_parse_or_fail_as_the_table_says() {
        let ok = |duration| Ok(duration);
        let table: [(&str, Result<Duration, TimeoutError>); 22] = [
            ("0S", ok(Duration::ZERO)),
            ("1H", ok(Duration::from_secs(3600))),
            ("2M", ok(Duration::from_secs(120))),
            ("3S", ok(Duration::from_secs(3))),
            ("4m", ok(Duration::from_millis(4))),
            ("5u", ok(Duration::from_micros(5))),
            ("6n", ok(Duration::from_nanos(6))),
            ("00000001S", ok(Duration::from_secs(1))),
            ("99999999n", ok(Duration::from_nanos(99_999_999))),
            ("876000H", ok(MAX)),
            ("99999999H", ok(MAX)),
            ("000000000S", Err(TimeoutError::Digits)),
            ("123456789n", Err(TimeoutError::Digits)),
            ("", Err(TimeoutError::Digits)),
            ("S", Err(TimeoutError::Digits)),
            ("5", Err(TimeoutError::Unit)),
            ("5s", Err(TimeoutError::Unit)),
            ("5\u{b5}", Err(TimeoutError::Character)),
            ("-5S", Err(TimeoutError::Character)),
            ("+5S", Err(TimeoutError::Character)),
            (" 5S", Err(TimeoutError::Character)),
            ("5 S", Err(TimeoutError::Character)),
        ];
        for (header, expected) in table {
            assert_eq!(parse(header.as_bytes()), expected, "{header:?}");
        }
    }
}
