//! The path of a method.

use std::borrow::Cow;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use http::uri::{InvalidUri, PathAndQuery};

/// The maximum number of paths that a channel keeps.
const PATHS_MAX: usize = 64;

/// The path of a method, `/package.Service/Method`.
///
/// ```
/// use trunkline::Method;
///
/// const SAY_HELLO: Method = Method::new("/helloworld.Greeter/SayHello");
/// assert_eq!(SAY_HELLO.path(), "/helloworld.Greeter/SayHello");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Method(Cow<'static, str>);

impl Method {
    /// Creates a method with a constant path. The path is not checked here: calls with an invalid path
    /// fail.
    pub const fn new(path: &'static str) -> Self {
        Self(Cow::Borrowed(path))
    }

    /// Returns the path, which is sent as `:path`.
    pub fn path(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_static(&self) -> bool {
        matches!(self.0, Cow::Borrowed(_))
    }

    fn to_path_and_query(&self) -> Result<PathAndQuery, InvalidUri> {
        match &self.0 {
            Cow::Borrowed(path) => {
                PathAndQuery::from_maybe_shared(bytes::Bytes::from_static(path.as_bytes()))
            }
            Cow::Owned(path) => path.parse(),
        }
    }
}

/// The parsed paths of constant methods, kept from their first call because a client calls few methods
/// often.
#[derive(Debug, Default)]
pub(crate) struct Paths(RwLock<Vec<PathAndQuery>>);

impl Paths {
    pub(crate) fn of(&self, method: &Method) -> Result<PathAndQuery, InvalidUri> {
        let Cow::Borrowed(path) = method.0 else {
            return method.to_path_and_query();
        };
        let known = |paths: &[PathAndQuery]| {
            // A parsed path shares the text of its method, so equal addresses mean equal text.
            let is_it = |known: &&PathAndQuery| std::ptr::eq(known.as_str(), path);
            paths.iter().find(is_it).cloned()
        };
        if let Some(known) = known(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(known);
        }
        let read = method.to_path_and_query()?;
        let mut paths = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if paths.len() < PATHS_MAX && known(&paths).is_none() {
            paths.push(read.clone());
        }
        Ok(read)
    }
}

impl From<String> for Method {
    fn from(path: String) -> Self {
        Self(Cow::Owned(path))
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(paths: &Paths) -> usize {
        paths.0.read().unwrap().len()
    }

    #[test]
    fn a_path_that_is_kept_is_the_path_of_its_method() {
        let paths = Paths::default();
        for _ in 0..2 {
            for path in ["/a.B/C", "/a.B/", "/a.B/D"] {
                assert_eq!(paths.of(&Method::new(path)).unwrap(), path);
            }
        }
        assert_eq!(kept(&paths), 3);
        assert!(paths.of(&Method::new("/ ")).is_err());
        let made = Method::from(String::from("/a.B/C"));
        assert_eq!(paths.of(&made).unwrap(), "/a.B/C");
        assert_eq!(kept(&paths), 3);
    }

    #[test]
    fn a_channel_keeps_a_bounded_number_of_paths() {
        const TEXT: &str =
            "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        let paths = Paths::default();
        for len in 1..=PATHS_MAX + 1 {
            let method = Method::new(&TEXT[..len]);
            assert_eq!(paths.of(&method).unwrap(), &TEXT[..len]);
            assert_eq!(kept(&paths), len.min(PATHS_MAX));
        }
    }
}
