//! JSON Web Tokens of service accounts (RFC 7519, RFC 7523), as the credential cases use them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use trunkline::{Metadata, Result, Status};

/// What a token says about the caller. Signatures are not checked: whoever calls is a test.
#[derive(Debug)]
pub(crate) struct Claims(Value);

impl Claims {
    /// Reads the bearer token in the metadata of a call.
    ///
    /// # Errors
    ///
    /// UNAUTHENTICATED if there is none.
    pub(crate) fn of_call(metadata: &Metadata) -> Result<Self> {
        let value = metadata.get("authorization").unwrap_or_default();
        let claims = value.strip_prefix("Bearer ").and_then(|token| {
            let claims = token.split('.').nth(1)?;
            let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
            serde_json::from_slice(&claims).ok()
        });
        let refused = || Status::unauthenticated("the call has no JSON Web Token");
        claims.map(Self).ok_or_else(refused)
    }

    /// Returns a claim: `iss`, the email address of the service account, or `scope`, what the token permits.
    ///
    /// # Errors
    ///
    /// UNAUTHENTICATED if the token does not make it.
    pub(crate) fn text(&self, name: &str) -> Result<String> {
        let text = self.0[name].as_str().filter(|it| !it.is_empty());
        let refused = || Status::unauthenticated(format!("the token has no {name}"));
        text.map(str::to_owned).ok_or_else(refused)
    }
}
