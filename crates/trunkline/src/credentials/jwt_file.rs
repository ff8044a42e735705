//! Tokens from a file that another program renews.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use trunkline_codec::{Metadata, Status};
use trunkline_transport::run_blocking;

use crate::credentials::call_credentials::CallCredentials;
use crate::credentials::call_info::CallInfo;
use crate::credentials::jwt;
use crate::credentials::token::Token;
use crate::credentials::token_cache::TokenCache;

/// The size of a file, in bytes. A larger token does not fit into the head of a request.
const FILE_SIZE_MAX: u64 = 64 * 1024;

/// A JSON Web Token from a file, such as the service account token of a Kubernetes pod (gRFC A97).
///
/// The file is read when the first call needs the token, and again when the token is about to expire, by the rules of
/// [`CachedToken`](crate::credentials::CachedToken). The credentials read `exp` from the token, and do not verify
/// the token, which is the task of the server.
///
/// Calls fail with UNAVAILABLE if the file cannot be read, and with UNAUTHENTICATED if it contains something else than
/// a token with `exp`.
///
/// ```
/// use trunkline::credentials::JwtFile;
///
/// let credentials = JwtFile::new("/var/run/secrets/tokens/orders");
/// ```
#[derive(Clone)]
pub struct JwtFile {
    path: Arc<Path>,
    cache: Arc<TokenCache>,
}

impl JwtFile {
    /// Creates credentials with the token in this file, which is read in the first call.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path: Arc<Path> = path.into().into();
        let read = path.clone();
        Self {
            cache: Arc::new(TokenCache::new(move || load(read.clone()))),
            path,
        }
    }
}

impl CallCredentials for JwtFile {
    async fn metadata(&self, _: &CallInfo) -> Result<Metadata, Status> {
        Ok(self.cache.token().await?.to_metadata())
    }
}

impl fmt::Debug for JwtFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JwtFile").field(&self.path).finish()
    }
}

async fn load(path: Arc<Path>) -> Result<Token, Status> {
    let shown = path.display().to_string();
    let text = run_blocking("trunkline-token", move || read(&path)).await;
    let text = text.and_then(|read| read).map_err(|error| {
        Status::unavailable(format!("cannot read the token file {shown}: {error}"))
            .with_source(error)
    })?;
    jwt::token_of(text.trim())
        .map_err(|why| Status::unauthenticated(format!("the token file {shown}: {why}")))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let size = File::open(path)?
        .take(FILE_SIZE_MAX + 1)
        .read_to_string(&mut text)?;
    match size as u64 > FILE_SIZE_MAX {
        true => Err(io::Error::other(format!(
            "it has more than {FILE_SIZE_MAX} bytes"
        ))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use trunkline_codec::Code;

    use super::*;

    fn jwt(id: &str, expires_in: Duration) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        let claims = format!(r#"{{"jti":"{id}","exp":{}}}"#, (now + expires_in).as_secs());
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    /// A file of a test, removed with it.
    struct TokenFile(PathBuf);

    impl TokenFile {
        fn new(name: &str, text: &str) -> Self {
            let name = format!("trunkline-{name}-{}.jwt", std::process::id());
            let file = Self(std::env::temp_dir().join(name));
            std::fs::write(&file.0, text).expect("a file");
            file
        }
    }

    impl Drop for TokenFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    async fn value(credentials: &JwtFile) -> Result<String, Status> {
        let call = CallInfo::new("localhost", "/a.B/C")?;
        let metadata = credentials.metadata(&call).await?;
        Ok(metadata.get("authorization").unwrap_or_default().to_owned())
    }

    #[tokio::test]
    async fn a_token_is_kept_until_shortly_before_it_expires() {
        let (first, second) = (
            jwt("1", Duration::from_secs(3600)),
            jwt("2", Duration::from_secs(7200)),
        );
        let file = TokenFile::new("kept", &format!("{first}\n"));
        let credentials = JwtFile::new(&file.0);
        assert_eq!(
            value(&credentials).await.expect("a token"),
            format!("Bearer {first}")
        );
        std::fs::write(&file.0, &second).expect("a file");
        assert_eq!(
            value(&credentials).await.expect("a token"),
            format!("Bearer {first}")
        );
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(3600 - 29)).await;
        tokio::time::resume();
        assert_eq!(
            value(&credentials).await.expect("a token"),
            format!("Bearer {second}")
        );
    }

    #[tokio::test]
    async fn a_file_without_a_token_fails_calls() {
        let missing = JwtFile::new("/nowhere/token");
        let status = value(&missing).await.expect_err("no file");
        assert_eq!(status.code(), Code::UNAVAILABLE);
        assert!(
            status
                .message()
                .starts_with("cannot read the token file /nowhere/token: "),
            "{status}"
        );
        for (name, text) in [
            ("word", "sesame"),
            ("no-exp", "e30.e30.c2ln"),
            ("empty", ""),
        ] {
            let file = TokenFile::new(name, text);
            let status = value(&JwtFile::new(&file.0))
                .await
                .expect_err("not a token");
            assert_eq!(status.code(), Code::UNAUTHENTICATED, "{status}");
            assert!(!status.message().contains("sesame"), "{status}");
        }
        let file = TokenFile::new("large", &"a".repeat(64 * 1024 + 1));
        let status = value(&JwtFile::new(&file.0)).await.expect_err("too large");
        assert!(
            status.message().ends_with("it has more than 65536 bytes"),
            "{status}"
        );
    }
}
