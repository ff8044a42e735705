//! Tokens that do not change.

use trunkline_codec::{Metadata, Status};

use crate::credentials::call_credentials::CallCredentials;
use crate::credentials::call_info::CallInfo;
use crate::credentials::token::Token;

/// A bearer token that does not change (RFC 6750): each call sends `authorization: Bearer TOKEN`.
///
/// ```
/// use trunkline::credentials::BearerToken;
///
/// let token = BearerToken::new("sesame")?;
/// assert_eq!(format!("{token:?}"), "BearerToken(..)");
/// # Ok::<(), trunkline::Status>(())
/// ```
#[derive(Clone)]
pub struct BearerToken(Token);

impl BearerToken {
    /// Creates credentials with this token.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the token is empty or not printable ASCII.
    pub fn new(token: &str) -> Result<Self, Status> {
        Token::new(token).map(Self)
    }
}

impl CallCredentials for BearerToken {
    async fn metadata(&self, _: &CallInfo) -> Result<Metadata, Status> {
        Ok(self.0.to_metadata())
    }
}

impl std::fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BearerToken(..)")
    }
}
