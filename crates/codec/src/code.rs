//! Status codes.

use std::fmt;
use std::str::FromStr;

use http::{HeaderValue, StatusCode};

/// A gRPC status code.
///
/// The type is a struct with constants, not an enum: a code with an unknown number keeps its number when
/// it is received, logged and passed on.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::Code;
///
/// assert_eq!(Code::NOT_FOUND.name(), Some("NOT_FOUND"));
/// assert_eq!(Code::from(5), Code::NOT_FOUND);
/// assert_eq!(Code::from(99).to_string(), "code 99");
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Hash)]
pub struct Code(i32);

/// The names of the codes, by number.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The codes as they are on the wire, by number: a call ends without formatting a number.
const DIGITS: [&str; 17] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
];

impl Code {
    /// The call succeeded.
    pub const OK: Self = Self(0);
    /// The call was cancelled, usually by its caller.
    pub const CANCELLED: Self = Self(1);
    /// The cause of the error is not known.
    pub const UNKNOWN: Self = Self(2);
    /// The request is invalid, regardless of the state of the server.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// The deadline passed before the call ended.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// The requested entity does not exist.
    pub const NOT_FOUND: Self = Self(5);
    /// The entity to be created already exists.
    pub const ALREADY_EXISTS: Self = Self(6);
    /// The caller is identified, but does not have permission for the call.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// A quota or a limit was reached.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// The system is not in the state that the call requires. A retry fails as well until that state is
    /// changed.
    pub const FAILED_PRECONDITION: Self = Self(9);
    /// The call was aborted, usually because of a conflict, such as that of two transactions. Retrying the
    /// whole transaction may help.
    pub const ABORTED: Self = Self(10);
    /// The call went past a valid range, such as reading past the end of a file.
    pub const OUT_OF_RANGE: Self = Self(11);
    /// The server does not have this method, or does not support it in this form.
    pub const UNIMPLEMENTED: Self = Self(12);
    /// An internal error: an invariant is broken, or the peer violated the protocol.
    pub const INTERNAL: Self = Self(13);
    /// The service is currently unavailable. A retry with backoff may help.
    pub const UNAVAILABLE: Self = Self(14);
    /// Data is lost or corrupted and cannot be recovered.
    pub const DATA_LOSS: Self = Self(15);
    /// The caller has not proved its identity.
    pub const UNAUTHENTICATED: Self = Self(16);

    /// The codes of the gRPC documents, in the order of their numbers.
    ///
    /// ```
    /// # use trunkline_codec as trunkline;
    /// use trunkline::Code;
    ///
    /// assert_eq!(Code::ALL.len(), 17);
    /// assert_eq!(Code::ALL[5], Code::NOT_FOUND);
    /// ```
    pub const ALL: [Self; 17] = {
        let mut all = [Self::OK; NAMES.len()];
        let mut at = 0;
        while at < all.len() {
            all[at] = Self(at as i32);
            at += 1;
        }
        all
    };

    /// Returns the number of the code.
    #[inline]
    pub const fn as_i32(self) -> i32 {
        self.0
    }

    /// Returns the name of the code in the gRPC documents, such as `"NOT_FOUND"`; `None` for an
    /// unknown number.
    pub fn name(self) -> Option<&'static str> {
        NAMES.get(usize::try_from(self.0).ok()?).copied()
    }

    /// Returns the code for the HTTP status of a response without a `grpc-status`
    /// (grpc/doc/http-grpc-status-mapping.md).
    pub fn from_http_status(status: StatusCode) -> Self {
        // http-grpc-status-mapping.md. 200 without grpc-status is UNKNOWN as well.
        match status.as_u16() {
            400 | 431 => Self::INTERNAL,
            401 => Self::UNAUTHENTICATED,
            403 => Self::PERMISSION_DENIED,
            404 => Self::UNIMPLEMENTED,
            429 | 502 | 503 | 504 => Self::UNAVAILABLE,
            _ => Self::UNKNOWN,
        }
    }

    /// Returns the code for the HTTP/2 error code of an RST_STREAM frame (PROTOCOL-HTTP2.md, "Errors").
    pub fn from_http2_error(reason: u32) -> Self {
        // PROTOCOL-HTTP2.md, "Errors". STREAM_CLOSED (5) has no mapping there, and a call must end
        // all the same; numbers that the table does not have are UNKNOWN.
        match reason {
            0..=6 | 9 | 10 => Self::INTERNAL,
            7 => Self::UNAVAILABLE,
            8 => Self::CANCELLED,
            11 => Self::RESOURCE_EXHAUSTED,
            12 => Self::PERMISSION_DENIED,
            _ => Self::UNKNOWN,
        }
    }

    /// Returns the code in the value of a `grpc-status` header, or UNKNOWN if the value is not a decimal
    /// number, or has leading zeros. A number without a name is kept.
    #[inline]
    pub fn from_header(value: &[u8]) -> Self {
        // PROTOCOL-HTTP2.md, "Responses": a decimal-encoded integer as an ASCII string, without any
        // leading zeros.
        match value {
            [digit @ b'0'..=b'9'] => Self(i32::from(digit - b'0')),
            [b'1'..=b'9', ..] => Self::from_digits(value).unwrap_or(Self::UNKNOWN),
            _ => Self::UNKNOWN,
        }
    }

    fn from_digits(digits: &[u8]) -> Option<Self> {
        digits
            .iter()
            .try_fold(0i32, |number, digit| {
                digit.is_ascii_digit().then_some(())?;
                number.checked_mul(10)?.checked_add(i32::from(digit - b'0'))
            })
            .map(Self)
    }

    /// The value of the `grpc-status` header. A negative number, which the wire has no form for,
    /// is sent as UNKNOWN.
    pub(crate) fn to_header(self) -> HeaderValue {
        let Ok(number) = u32::try_from(self.0) else {
            return HeaderValue::from_static(DIGITS[2]);
        };
        match DIGITS.get(number as usize) {
            Some(digits) => HeaderValue::from_static(digits),
            None => HeaderValue::from(number),
        }
    }
}

/// Reads the name of a code, such as `NOT_FOUND`, as [`name`](Code::name) returns it.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::Code;
///
/// assert_eq!("NOT_FOUND".parse(), Ok(Code::NOT_FOUND));
/// assert!("not found".parse::<Code>().is_err());
/// assert!("5".parse::<Code>().is_err());
/// ```
impl FromStr for Code {
    type Err = ParseCodeError;

    fn from_str(name: &str) -> Result<Self, ParseCodeError> {
        let known = Self::ALL.into_iter().zip(NAMES);
        let mut named = known.filter(|(_, known)| *known == name);
        named
            .next()
            .map(|(code, _)| code)
            .ok_or_else(|| ParseCodeError {
                name: name.chars().take(ParseCodeError::SHOWN).collect(),
            })
    }
}

/// The error returned when a code name is unknown.
///
/// ```
/// # use trunkline_codec as trunkline;
/// let error = "CANCELED".parse::<trunkline::Code>().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     r#""CANCELED" is not a status code; use a name such as NOT_FOUND, in capitals"#,
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseCodeError {
    name: Box<str>,
}

impl ParseCodeError {
    /// The characters of the text that the message repeats.
    const SHOWN: usize = 40;
}

impl fmt::Display for ParseCodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a status code; use a name such as NOT_FOUND, in capitals",
            self.name
        )
    }
}

impl std::error::Error for ParseCodeError {}

impl From<i32> for Code {
    #[inline]
    fn from(number: i32) -> Self {
        Self(number)
    }
}

impl From<Code> for i32 {
    #[inline]
    fn from(code: Code) -> Self {
        code.0
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "code {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_number_and_its_name() {
        let table = [
            (Code::OK, 0, "OK"),
            (Code::CANCELLED, 1, "CANCELLED"),
            (Code::UNKNOWN, 2, "UNKNOWN"),
            (Code::INVALID_ARGUMENT, 3, "INVALID_ARGUMENT"),
            (Code::DEADLINE_EXCEEDED, 4, "DEADLINE_EXCEEDED"),
            (Code::NOT_FOUND, 5, "NOT_FOUND"),
            (Code::ALREADY_EXISTS, 6, "ALREADY_EXISTS"),
            (Code::PERMISSION_DENIED, 7, "PERMISSION_DENIED"),
            (Code::RESOURCE_EXHAUSTED, 8, "RESOURCE_EXHAUSTED"),
            (Code::FAILED_PRECONDITION, 9, "FAILED_PRECONDITION"),
            (Code::ABORTED, 10, "ABORTED"),
            (Code::OUT_OF_RANGE, 11, "OUT_OF_RANGE"),
            (Code::UNIMPLEMENTED, 12, "UNIMPLEMENTED"),
            (Code::INTERNAL, 13, "INTERNAL"),
            (Code::UNAVAILABLE, 14, "UNAVAILABLE"),
            (Code::DATA_LOSS, 15, "DATA_LOSS"),
            (Code::UNAUTHENTICATED, 16, "UNAUTHENTICATED"),
        ];
        for (code, number, name) in table {
            assert_eq!((code.as_i32(), code.name()), (number, Some(name)));
            assert_eq!(code.to_header(), number.to_string());
            assert_eq!(Code::from_header(number.to_string().as_bytes()), code);
            assert_eq!(name.parse(), Ok(code));
            assert_eq!(Code::ALL[number as usize], code);
        }
        assert_eq!(Code::ALL.len(), table.len());
    }

    #[test]
    fn a_header_that_is_no_plain_number_is_unknown_and_only_zero_is_ok() {
        let table: [(&str, i32); 16] = [
            ("0", 0),
            ("16", 16),
            ("17", 17),
            ("99", 99),
            ("2147483647", i32::MAX),
            ("2147483648", 2),
            ("99999999999999999999", 2),
            ("", 2),
            ("00", 2),
            ("01", 2),
            ("x", 2),
            ("-1", 2),
            ("+0", 2),
            (" 0", 2),
            ("0 ", 2),
            ("1x", 2),
        ];
        for (header, expected) in table {
            assert_eq!(
                Code::from_header(header.as_bytes()).as_i32(),
                expected,
                "{header:?}"
            );
        }
    }

    #[test]
    fn only_a_whole_name_in_capitals_is_read_as_a_code() {
        for text in [
            "",
            "0",
            "5",
            "not_found",
            "NOT FOUND",
            "NOT_FOUND ",
            "code 99",
            "CANCELED",
        ] {
            let error = text.parse::<Code>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is not")), "{error}");
        }
        let long = "X".repeat(1_000).parse::<Code>().unwrap_err();
        assert!(long.to_string().len() < 200, "{long}");
    }

    #[test]
    fn unknown_numbers_survive_and_negative_ones_have_no_form_on_the_wire() {
        assert_eq!(Code::from(99).to_header(), "99");
        assert_eq!(Code::from(-1).to_header(), "2");
        assert_eq!(Code::from(-1).name(), None);
        assert_eq!(
            format!("{:?} {}", Code::from(99), Code::ABORTED),
            "code 99 ABORTED"
        );
    }

    #[test]
    fn http_statuses_map_as_the_document_says() {
        let table = [
            (200, Code::UNKNOWN),
            (400, Code::INTERNAL),
            (401, Code::UNAUTHENTICATED),
            (403, Code::PERMISSION_DENIED),
            (404, Code::UNIMPLEMENTED),
            (405, Code::UNKNOWN),
            (409, Code::UNKNOWN),
            (412, Code::UNKNOWN),
            (413, Code::UNKNOWN),
            (415, Code::UNKNOWN),
            (429, Code::UNAVAILABLE),
            (431, Code::INTERNAL),
            (500, Code::UNKNOWN),
            (502, Code::UNAVAILABLE),
            (503, Code::UNAVAILABLE),
            (504, Code::UNAVAILABLE),
            (505, Code::UNKNOWN),
            (999, Code::UNKNOWN),
        ];
        for (status, code) in table {
            assert_eq!(
                Code::from_http_status(StatusCode::from_u16(status).unwrap()),
                code,
                "{status}"
            );
        }
    }

    #[test]
    fn http2_errors_map_as_the_document_says() {
        let table = [
            (0, Code::INTERNAL),
            (1, Code::INTERNAL),
            (2, Code::INTERNAL),
            (3, Code::INTERNAL),
            (4, Code::INTERNAL),
            (5, Code::INTERNAL),
            (6, Code::INTERNAL),
            (7, Code::UNAVAILABLE),
            (8, Code::CANCELLED),
            (9, Code::INTERNAL),
            (10, Code::INTERNAL),
            (11, Code::RESOURCE_EXHAUSTED),
            (12, Code::PERMISSION_DENIED),
            (13, Code::UNKNOWN),
            (u32::MAX, Code::UNKNOWN),
        ];
        for (reason, code) in table {
            assert_eq!(Code::from_http2_error(reason), code, "{reason}");
        }
    }
}
