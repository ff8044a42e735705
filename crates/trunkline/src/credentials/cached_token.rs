//! Tokens that code of the user fetches.

use std::fmt;
use std::sync::Arc;

use trunkline_codec::{Metadata, Status};

use crate::credentials::call_credentials::CallCredentials;
use crate::credentials::call_info::CallInfo;
use crate::credentials::token::Token;
use crate::credentials::token_cache::TokenCache;

/// A bearer token that a function fetches when it is needed, and that all calls share. Cloning is cheap; clones share
/// the token.
///
/// At most one fetch runs at a time, in a task of its own. Calls wait for it only while there is no usable token:
///
/// - A token is used until 30 s before it expires; one with a lifetime of less than 1 min is used for half of it.
/// - In the minute before a token is no longer used, the first call starts a fetch, while calls continue to use the
///   token.
/// - After a failed fetch, the next one starts after a pause, which grows from 1 s to 120 s. Calls without a usable
///   token fail with the status of the failed fetch until then.
/// - A fetch fails with UNAVAILABLE after 20 s. It is not dropped with the call that started it, but with the last
///   clone of the credentials.
///
/// A token without an expiry is fetched once.
///
/// ```
/// use std::time::Duration;
///
/// use trunkline::credentials::{CachedToken, Token};
///
/// let credentials = CachedToken::new(|| async {
///     let (token, seconds) = ("sesame", 3600); // From the service that issues tokens.
///     Ok(Token::new(token)?.expires_in(Duration::from_secs(seconds)))
/// });
/// ```
///
/// [`TokenRequest`](crate::credentials::TokenRequest) has an example with OAuth 2.0.
#[derive(Clone)]
pub struct CachedToken(Arc<TokenCache>);

impl CachedToken {
    /// Creates credentials with a function that fetches a token. It is not called before the first call.
    ///
    /// Calls fail with the status that the function returns, as described in
    /// [`CallCredentials::metadata`].
    pub fn new<F, Fut>(fetch: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Token, Status>> + Send + 'static,
    {
        Self(Arc::new(TokenCache::new(fetch)))
    }
}

impl CallCredentials for CachedToken {
    async fn metadata(&self, _: &CallInfo) -> Result<Metadata, Status> {
        Ok(self.0.token().await?.to_metadata())
    }
}

impl fmt::Debug for CachedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CachedToken(..)")
    }
}
