//! Targets in URI form (grpc/doc/naming.md).

use std::fmt;
use std::sync::Arc;

use trunkline_codec::Status;

/// A target in URI form, `scheme:path` or `scheme://authority/path`, for a [`Resolver`](crate::Resolver).
///
/// ```
/// # mod trunkline { pub use trunkline_channel as channel; pub use trunkline_codec::Status; }
/// # fn main() -> Result<(), trunkline::Status> {
/// use trunkline::channel::TargetUri;
///
/// let target = TargetUri::parse("registry://eu.example.com/orders%20v2")?;
/// assert_eq!(target.scheme(), "registry");
/// assert_eq!(target.authority(), "eu.example.com");
/// assert_eq!(target.path(), b"orders v2");
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TargetUri {
    text: Arc<str>,
    scheme: String,
    authority: String,
    path: Vec<u8>,
}

impl TargetUri {
    /// Parses a target.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the text does not begin with a scheme and a colon, or a `%` in the path is not followed by
    /// two hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let Some((scheme, rest)) = text.split_once(':').filter(|(it, _)| is_scheme(it)) else {
            return Err(Status::invalid_argument(format!(
                "cannot connect to {text:?}: it has no scheme, a letter and then letters, digits, +, - or . before a colon"
            )));
        };
        let (authority, path) = match rest.strip_prefix("//") {
            None => ("", rest),
            Some(rest) => match rest.split_once('/') {
                Some((authority, path)) => (authority, path),
                None => (rest, ""),
            },
        };
        let path = percent_decoded(path).ok_or_else(|| {
            Status::invalid_argument(format!(
                "cannot connect to {text:?}: a % has to be followed by two hexadecimal digits"
            ))
        })?;
        Ok(Self {
            text: text.into(),
            scheme: scheme.to_ascii_lowercase(),
            authority: authority.to_owned(),
            path,
        })
    }

    /// Returns the scheme in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns the authority between `//` and the next `/`; empty if there is none.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the path after percent-decoding, without the slash that ends the authority.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Returns the path as text, with the replacement character for bytes that are not UTF-8.
    pub fn path_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.path)
    }
}

/// Returns true if `text` is a valid scheme (RFC 3986, section 3.1).
pub(crate) fn is_scheme(text: &str) -> bool {
    text.starts_with(|it: char| it.is_ascii_alphabetic())
        && text
            .chars()
            .all(|it| it.is_ascii_alphanumeric() || "+-.".contains(it))
}

/// Returns the bytes for which `text` stands; `None` if a `%` is not followed by two digits.
pub(crate) fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            _ => byte,
        });
    }
    Some(decoded)
}

/// The text that was parsed.
impl fmt::Display for TargetUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TargetUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TargetUri({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_a_scheme_an_authority_and_a_decoded_path() {
        for (text, scheme, authority, path) in [
            ("dns:host:80", "dns", "", "host:80"),
            ("dns:///host", "dns", "", "host"),
            ("DNS://1.1.1.1:53/host", "dns", "1.1.1.1:53", "host"),
            ("unix:/run/a%20b", "unix", "", "/run/a b"),
            ("x+y-z.1:///a/b", "x+y-z.1", "", "a/b"),
            ("x://only", "x", "only", ""),
            ("x:", "x", "", ""),
        ] {
            let uri = TargetUri::parse(text).expect(text);
            let found = (uri.scheme(), uri.authority(), uri.path());
            assert_eq!(found, (scheme, authority, path.as_bytes()), "{text}");
            assert_eq!(uri.to_string(), text);
        }
        for (text, why) in [
            ("", "no scheme"),
            ("host", "no scheme"),
            ("1x:a", "no scheme"),
            ("a b:c", "no scheme"),
            ("x:/100%", "two hexadecimal digits"),
            ("x:/%f", "two hexadecimal digits"),
            ("x:/%+1", "two hexadecimal digits"),
        ] {
            let status = TargetUri::parse(text).expect_err(text);
            assert!(status.message().contains(why), "{status}");
        }
    }
}
