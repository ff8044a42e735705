//! A bearer token and the moment when it expires.

use std::fmt;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use tokio::time::Instant;
use trunkline_codec::{Metadata, Status};

/// A bearer token, and the moment when it expires. `Debug` does not print the token.
///
/// ```
/// use std::time::Duration;
///
/// use trunkline::credentials::Token;
///
/// let token = Token::new("sesame")?.expires_in(Duration::from_secs(3600));
/// assert!(!format!("{token:?}").contains("sesame"));
/// # Ok::<(), trunkline::Status>(())
/// ```
#[derive(Clone)]
pub struct Token {
    /// The value of `authorization`.
    value: HeaderValue,
    expires: Option<Instant>,
}

impl Token {
    /// Creates a token that does not expire.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the token is empty or not printable ASCII.
    pub fn new(token: &str) -> Result<Self, Status> {
        let is_printable = !token.is_empty() && token.bytes().all(|it| it.is_ascii_graphic());
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let Some(mut value) = value.ok().filter(|_| is_printable) else {
            return Err(Status::invalid_argument(
                "the token is empty, or has characters that are not printable ASCII",
            ));
        };
        value.set_sensitive(true);
        Ok(Self {
            value,
            expires: None,
        })
    }

    /// Returns the token with the time for which it is valid, from now on.
    #[must_use]
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.expires = Instant::now().checked_add(lifetime);
        self
    }

    /// Returns the moment when the token expires; `None` if it does not expire.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.expires
    }

    /// Returns the metadata `authorization: Bearer TOKEN`.
    pub(crate) fn to_metadata(&self) -> Metadata {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, self.value.clone())]);
        Metadata::from_headers(headers)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self
            .expires
            .map(|at| at.saturating_duration_since(Instant::now()));
        f.debug_struct("Token")
            .field("expires_in", &left)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_a_header_cannot_carry_are_refused_and_none_is_printed() {
        for token in ["", "a b", "a\n", "s\u{e9}same"] {
            let status = Token::new(token).expect_err("not a token");
            assert!(!status.message().contains("same"), "{status}");
        }
        let token = Token::new("sesame").expect("a token");
        let metadata = token.to_metadata();
        assert_eq!(metadata.get("authorization"), Some("Bearer sesame"));
        assert!(!format!("{metadata:?} {token:?}").contains("sesame"));
    }
}
