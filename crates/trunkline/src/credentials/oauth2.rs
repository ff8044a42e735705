//! Requests to token endpoints of OAuth 2.0, and their responses (RFC 6749, RFC 8693).

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use trunkline_channel::serde_json::{self, Value};
use trunkline_codec::Status;

use crate::credentials::token::Token;

/// The characters that application/x-www-form-urlencoded encodes.
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'*')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_');
/// The lifetime of tokens whose issuer names none. RFC 6749, section 5.1, leaves it to the client.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);
/// The length of an error description in messages, in characters.
const DESCRIPTION_MAX: usize = 200;

/// A request to the token endpoint of an OAuth 2.0 server, which your HTTP client sends.
///
/// ```
/// use trunkline::credentials::{CachedToken, TokenRequest};
/// use trunkline::http;
///
/// /// Sends the request with the HTTP client of your choice.
/// async fn post(request: http::Request<String>) -> std::io::Result<http::Response<Vec<u8>>> {
///     assert_eq!(request.body(), "grant_type=client_credentials&scope=orders.read");
///     let response = br#"{"access_token":"sesame","token_type":"Bearer","expires_in":3600}"#;
///     Ok(http::Response::new(response.to_vec()))
/// }
///
/// let credentials = CachedToken::new(|| {
///     TokenRequest::client_credentials("https://issuer.example/token", "client", "secret")
///         .scope("orders.read")
///         .send(post)
/// });
/// ```
///
/// `Debug` prints only the URL. A server that is not reached over HTTPS exposes the secret and the token; the request
/// does not check the scheme.
#[derive(Clone)]
pub struct TokenRequest {
    url: String,
    form: String,
    authorization: Option<HeaderValue>,
}

/// The type of a token that is exchanged for another (RFC 8693, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubjectTokenType {
    /// A JSON Web Token.
    Jwt,
    /// An OAuth 2.0 access token.
    AccessToken,
    /// An ID token of OpenID Connect.
    IdToken,
    /// A SAML 2.0 assertion.
    Saml2,
}

impl SubjectTokenType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "urn:ietf:params:oauth:token-type:jwt",
            Self::AccessToken => "urn:ietf:params:oauth:token-type:access_token",
            Self::IdToken => "urn:ietf:params:oauth:token-type:id_token",
            Self::Saml2 => "urn:ietf:params:oauth:token-type:saml2",
        }
    }
}

impl TokenRequest {
    /// Requests a token for the client itself (RFC 6749, section 4.4). The client authenticates with HTTP Basic
    /// authentication.
    pub fn client_credentials(url: &str, client_id: &str, client_secret: &str) -> Self {
        Self::new(url, "client_credentials").client(client_id, client_secret)
    }

    /// Exchanges `subject_token`, such as the token of a workload, for a token of the server (RFC 8693, section 2.1).
    /// Cloud providers call such a server a security token service (STS).
    pub fn exchange(url: &str, subject_token: &str, token_type: SubjectTokenType) -> Self {
        Self::new(url, "urn:ietf:params:oauth:grant-type:token-exchange")
            .parameter("subject_token", subject_token)
            .parameter("subject_token_type", token_type.as_str())
    }

    fn new(url: &str, grant_type: &str) -> Self {
        let request = Self {
            url: url.to_owned(),
            form: String::new(),
            authorization: None,
        };
        request.parameter("grant_type", grant_type)
    }

    /// Sets the identifier and the secret of the client, for HTTP Basic authentication (RFC 6749, section 2.3.1).
    /// This is for [`exchange`](Self::exchange); [`client_credentials`](Self::client_credentials) sets them already.
    #[must_use]
    pub fn client(mut self, client_id: &str, client_secret: &str) -> Self {
        let pair = format!("{}:{}", encoded(client_id), encoded(client_secret));
        // Base64 is always a valid value.
        let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok();
        self.authorization = value.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        self
    }

    /// Sets the requested scopes, separated by spaces.
    #[must_use]
    pub fn scope(self, scope: &str) -> Self {
        self.parameter("scope", scope)
    }

    /// Adds the name of a service that the token is for.
    #[must_use]
    pub fn audience(self, audience: &str) -> Self {
        self.parameter("audience", audience)
    }

    /// Adds a parameter to the body, which is an HTML form, such as `resource` or `actor_token`.
    #[must_use]
    pub fn parameter(mut self, name: &str, value: &str) -> Self {
        let separator = if self.form.is_empty() { "" } else { "&" };
        self.form += &format!("{separator}{}={}", encoded(name), encoded(value));
        self
    }

    /// Returns the HTTP request: POST with a form.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the URL is not valid.
    pub fn into_http(self) -> Result<http::Request<String>, Status> {
        let request = http::Request::post(&self.url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        let request = match self.authorization {
            None => request,
            Some(authorization) => request.header(AUTHORIZATION, authorization),
        };
        request.body(self.form).map_err(|error| {
            Status::invalid_argument(format!("the token endpoint {:?}: {error}", self.url))
        })
    }

    /// Sends the request with `post`, and reads the token from the response.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if `post` fails, or the HTTP status is 408, 429, or 500 and above. UNAUTHENTICATED if the server
    /// refuses the request or does not respond with a bearer token. INTERNAL if the URL is not valid.
    pub async fn send<F, Fut, B, E>(self, post: F) -> Result<Token, Status>
    where
        F: FnOnce(http::Request<String>) -> Fut,
        Fut: Future<Output = Result<http::Response<B>, E>>,
        B: AsRef<[u8]>,
        E: fmt::Display,
    {
        let url = self.url.clone();
        let request = self
            .into_http()
            .map_err(|status| Status::internal(status.message()))?;
        let response = post(request).await.map_err(|error| {
            Status::unavailable(format!("cannot get a token from {url}: {error}"))
        })?;
        let (head, body) = response.into_parts();
        token_of(head.status, body.as_ref()).map_err(|(is_temporary, why)| {
            let message = format!("no token from {url}: {why}");
            match is_temporary {
                true => Status::unavailable(message),
                false => Status::unauthenticated(message),
            }
        })
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequest")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, FORM)
        .to_string()
        .replace("%20", "+")
}

/// Reads a response of RFC 6749, sections 5.1 and 5.2. The error is a description without tokens, and whether a later
/// request may succeed.
fn token_of(status: http::StatusCode, body: &[u8]) -> Result<Token, (bool, String)> {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    if !status.is_success() {
        let is_temporary = matches!(status.as_u16(), 408 | 429 | 500..);
        let mut why = format!("HTTP status {}", status.as_u16());
        for detail in ["error", "error_description"] {
            if let Some(text) = json[detail].as_str() {
                let text = text
                    .chars()
                    .filter(|it| !it.is_control())
                    .take(DESCRIPTION_MAX);
                why.extend(": ".chars().chain(text));
            }
        }
        return Err((is_temporary, why));
    }
    // RFC 8693, section 2.2.1: N_A if the type does not apply.
    let kind = json["token_type"].as_str().unwrap_or("Bearer");
    if !kind.eq_ignore_ascii_case("bearer") && !kind.eq_ignore_ascii_case("n_a") {
        return Err((false, "the type of the token is not Bearer".to_owned()));
    }
    let Some(token) = json["access_token"].as_str() else {
        return Err((false, "the response has no access_token".to_owned()));
    };
    let token = Token::new(token).map_err(|status| (false, status.message().to_owned()))?;
    let lifetime = match &json["expires_in"] {
        // Some servers send the number as text.
        Value::String(text) => text.parse().ok(),
        value => value.as_f64(),
    };
    let lifetime = lifetime.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok(token.expires_in(lifetime.unwrap_or(DEFAULT_LIFETIME)))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;
    use trunkline_codec::Code;

    use super::*;

    #[test]
    fn a_request_is_a_form_with_basic_authentication() {
        let request = TokenRequest::client_credentials("https://a/token", "a b", "s:%")
            .scope("x y")
            .parameter("resource", "https://b/?c=\u{e9}");
        assert_eq!(
            format!("{request:?}"),
            r#"TokenRequest { url: "https://a/token", .. }"#
        );
        let request = request.into_http().expect("a request");
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "https://a/token");
        // a+b:s%3A%25
        assert_eq!(request.headers()["authorization"], "Basic YStiOnMlM0ElMjU=");
        assert!(request.headers()["authorization"].is_sensitive());
        assert_eq!(
            request.body(),
            "grant_type=client_credentials&scope=x+y&resource=https%3A%2F%2Fb%2F%3Fc%3D%C3%A9"
        );
        let request = TokenRequest::exchange("https://a/token", "e30.e30.", SubjectTokenType::Jwt)
            .audience("b")
            .into_http()
            .expect("a request");
        assert_eq!(
            request.body(),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=e30.e30.\
             &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&audience=b"
        );
        assert!(!request.headers().contains_key("authorization"));
        let status = TokenRequest::exchange("a b", "", SubjectTokenType::Jwt).into_http();
        assert_eq!(
            status.expect_err("not a URL").code(),
            Code::INVALID_ARGUMENT
        );
    }

    async fn send(status: u16, body: &str) -> Result<Token, Status> {
        let response = http::Response::builder()
            .status(status)
            .body(body.to_owned());
        let response = response.expect("a response");
        TokenRequest::client_credentials("https://a/token", "a", "secret")
            .send(|_| std::future::ready(Ok::<_, &str>(response)))
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn responses_with_a_token_are_read() {
        for (body, seconds) in [
            (
                r#"{"access_token":"t","token_type":"bearer","expires_in":60}"#,
                60,
            ),
            (
                r#"{"access_token":"t","token_type":"N_A","expires_in":"61"}"#,
                61,
            ),
            (r#"{"access_token":"t","token_type":"Bearer"}"#, 300),
            (r#"{"access_token":"t","expires_in":-1}"#, 300),
        ] {
            let token = send(200, body).await.expect(body);
            let left = token.expires().expect("a lifetime") - Instant::now();
            assert_eq!(left, Duration::from_secs(seconds), "{body}");
            assert_eq!(token.to_metadata().get("authorization"), Some("Bearer t"));
        }
    }

    #[tokio::test]
    async fn responses_without_a_token_are_errors_without_secrets() {
        let refused = r#"{"error":"invalid_client","error_description":"unknown\nclient"}"#;
        for (status, body, code, why) in [
            (
                401,
                refused,
                Code::UNAUTHENTICATED,
                "HTTP status 401: invalid_client: unknownclient",
            ),
            (400, "<html>", Code::UNAUTHENTICATED, "HTTP status 400"),
            (429, "", Code::UNAVAILABLE, "HTTP status 429"),
            (503, "", Code::UNAVAILABLE, "HTTP status 503"),
            (
                200,
                "{}",
                Code::UNAUTHENTICATED,
                "the response has no access_token",
            ),
            (
                200,
                "sesame",
                Code::UNAUTHENTICATED,
                "the response has no access_token",
            ),
            (
                200,
                r#"{"access_token":"sesame","token_type":"mac"}"#,
                Code::UNAUTHENTICATED,
                "the type of the token is not Bearer",
            ),
            (
                200,
                r#"{"access_token":"sesame\n"}"#,
                Code::UNAUTHENTICATED,
                "the token is empty, or has characters that are not printable ASCII",
            ),
        ] {
            let failed = send(status, body).await.expect_err(body);
            assert_eq!(failed.code(), code, "{failed}");
            assert_eq!(
                failed.message(),
                format!("no token from https://a/token: {why}")
            );
        }
        let failed = TokenRequest::client_credentials("https://a/token", "a", "secret")
            .send(|_| std::future::ready(Err::<http::Response<String>, _>("no route")))
            .await
            .expect_err("not sent");
        assert_eq!(failed.code(), Code::UNAVAILABLE);
        assert_eq!(
            failed.message(),
            "cannot get a token from https://a/token: no route"
        );
    }
}
