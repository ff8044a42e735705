//! The path of a call.

use std::fmt;

/// A path that can name a method: `/package.Service/Method`, byte for byte.
///
/// A path that does not parse never reaches a method, nor does one that is only equivalent to a
/// method's path under the rules of URIs: paths are not decoded or normalized, and have no query.
/// Authorization and routing therefore see the same bytes.
///
/// ```
/// use trunkline_codec::Path;
///
/// let path = Path::parse("/routeguide.RouteGuide/GetFeature").unwrap();
/// assert_eq!(path.service(), "routeguide.RouteGuide");
/// assert_eq!(path.method(), "GetFeature");
/// assert!(Path::parse("routeguide.RouteGuide/GetFeature").is_none());
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Hash)]
pub struct Path<'a> {
    text: &'a str,
    /// The position of the second slash.
    slash: usize,
}

impl<'a> Path<'a> {
    /// Parses a path with its query, if it has one; `None` if it cannot name a method.
    #[inline]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (service, method) = text.strip_prefix('/')?.split_once('/')?;
        (is_segment(service) && is_segment(method)).then_some(Self {
            text,
            slash: service.len() + 1,
        })
    }

    /// Returns the full name of the service, such as `routeguide.RouteGuide`.
    #[inline]
    pub fn service(&self) -> &'a str {
        &self.text[1..self.slash]
    }

    /// Returns the name of the method, such as `GetFeature`.
    #[inline]
    pub fn method(&self) -> &'a str {
        &self.text[self.slash + 1..]
    }

    /// Returns the whole path, with its first slash.
    #[inline]
    pub fn as_str(&self) -> &'a str {
        self.text
    }
}

/// Visible ASCII but what has a meaning in a URI: a `%` would decode to something else, a `.` alone
/// would vanish.
fn is_segment(segment: &str) -> bool {
    let plain =
        |byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'/' | b'?' | b'#' | b'%' | b'\\');
    !matches!(segment, "" | "." | "..") && segment.bytes().all(plain)
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text)
    }
}

impl fmt::Debug for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_two_names_behind_two_slashes_and_nothing_else() {
        let table = [
            ("/a.B/C", Some(("a.B", "C"))),
            ("/B/C", Some(("B", "C"))),
            ("/a-b.B_1/C.d", Some(("a-b.B_1", "C.d"))),
            ("/A.b/c", Some(("A.b", "c"))),
            ("", None),
            ("/", None),
            ("//", None),
            ("*", None),
            ("a.B/C", None),
            ("/a.B", None),
            ("/a.B/", None),
            ("//C", None),
            ("//a.B/C", None),
            ("/a.B//C", None),
            ("/a.B/C/", None),
            ("/a/B/C", None),
            ("/./C", None),
            ("/a.B/..", None),
            ("/a.B/C?", None),
            ("/a.B/C?x=1", None),
            ("/a.B/C#x", None),
            ("/a.B/%43", None),
            ("/a.B/C\\", None),
            ("/a.B/C\0", None),
            ("/a.B/C ", None),
            ("/a.B/C\u{7f}", None),
            ("/a.B/\u{e9}", None),
            ("http://host/a.B/C", None),
        ];
        for (text, expected) in table {
            let parsed = Path::parse(text);
            assert_eq!(
                parsed.map(|path| (path.service(), path.method())),
                expected,
                "{text:?}"
            );
            assert!(parsed.is_none_or(|path| path.as_str() == text && path.to_string() == text));
        }
    }
}
