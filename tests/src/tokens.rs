//! JSON Web Tokens of service accounts (RFC 7519, RFC 7523), as the credential cases use them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use trunkline::Metadata;

/// What a token says about the caller. Signatures are not checked: whoever calls is a test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    /// The email address of the service account.
    pub(crate) issuer: String,
    /// What the token permits.
    pub(crate) scope: String,
}

impl Claims {
    /// Reads the bearer token in the metadata of a call; empty if there is none.
    pub(crate) fn of_call(metadata: &Metadata) -> Self {
        let value = metadata.get("authorization").unwrap_or_default();
        let token = value.strip_prefix("Bearer ").unwrap_or_default();
        Self::of_token(token).unwrap_or_default()
    }

    fn of_token(token: &str) -> Option<Self> {
        let claims = token.split('.').nth(1)?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let text = |name: &str| claims[name].as_str().unwrap_or_default().to_owned();
        Some(Self {
            issuer: text("iss"),
            scope: text("scope"),
        })
    }
}
