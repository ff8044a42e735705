//! The name of a method, as generated code holds it.

use std::borrow::Cow;
use std::fmt;

/// The path of a method: `/package.Service/Method`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Method(Cow<'static, str>);

impl Method {
    /// A method whose path is known at compile time.
    pub const fn new(path: &'static str) -> Self {
        Self(Cow::Borrowed(path))
    }

    /// The path, as it goes into `:path`.
    pub fn path(&self) -> &str {
        &self.0
    }

    pub(crate) fn to_path_and_query(
        &self,
    ) -> Result<http::uri::PathAndQuery, http::uri::InvalidUri> {
        match &self.0 {
            Cow::Borrowed(path) => http::uri::PathAndQuery::from_maybe_shared(
                bytes::Bytes::from_static(path.as_bytes()),
            ),
            Cow::Owned(path) => path.parse(),
        }
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
