//! JSON Web Tokens (RFC 7519), which are read without verifying them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use trunkline_channel::serde_json;

use crate::credentials::token::Token;

/// Returns a token in compact form, with the expiry that it contains.
///
/// # Errors
///
/// A description of the problem, without the token.
pub(crate) fn token_of(text: &str) -> Result<Token, &'static str> {
    // RFC 7515, section 7.1: header, claims and signature.
    let parts: Vec<&str> = text.split('.').collect();
    let [_, claims, _] = parts[..] else {
        return Err("it is not a JSON Web Token, which has three parts with a dot between them");
    };
    let claims = URL_SAFE_NO_PAD.decode(claims);
    let claims = claims.map_err(|_| "the claims of the token are not base64url")?;
    let claims: serde_json::Value =
        serde_json::from_slice(&claims).map_err(|_| "the claims of the token are not JSON")?;
    // RFC 7519, section 2: a number of seconds, which can have a fraction.
    let expires = claims["exp"]
        .as_f64()
        .ok_or("the token has no `exp`, the time when it expires")?;
    let expires = Duration::try_from_secs_f64(expires);
    let expires = expires.map_err(|_| "the `exp` of the token is out of range")?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let token = Token::new(text).map_err(|_| "the token is not printable ASCII")?;
    Ok(token.expires_in(expires.saturating_sub(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_is_read_from_the_claims() {
        let with = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        for claims in [
            r#"{"exp":4102444800}"#,
            r#"{"exp":4102444800.5}"#,
            r#"{"exp":1}"#,
            r#"{"exp":1e300}"#,
        ] {
            let is_valid = !claims.contains("e300");
            assert_eq!(token_of(&with(claims)).is_ok(), is_valid, "{claims}");
        }
        for (text, why) in [
            (with(r#"{"exp":"1"}"#), "no `exp`"),
            (with(r#"{"exp":-1}"#), "out of range"),
            (with("[]"), "no `exp`"),
            (with("{"), "not JSON"),
            ("e30.?.c2ln".to_owned(), "not base64url"),
            ("e30.e30".to_owned(), "three parts"),
            ("a.b.c.d".to_owned(), "three parts"),
            (String::new(), "three parts"),
            (with(r#"{"exp":1}"#) + " ", "not printable"),
        ] {
            let error = token_of(&text).expect_err(&text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
