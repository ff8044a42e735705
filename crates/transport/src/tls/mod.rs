//! TLS over sockets, by rustls.
//!
//! | module | holds |
//! | --- | --- |
//! | `server`, `client` | the settings of either side, and its handshake |
//! | `material` | certificates, keys and authorities: as files or text, read and understood |
//! | `roots` | the authorities that a client trusts by default |
//! | `store` | the configuration in use, and its renewal when files change |
//! | `session` | who is at the other end |
//! | `stream` | what HTTP/2 reads and writes |
//! | `explain` | what went wrong in a handshake, and what to do about it |

mod client;
mod explain;
mod material;
mod roots;
mod server;
mod session;
mod store;
mod stream;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use trunkline_codec::Status;

pub use client::ClientTls;
pub use server::ServerTls;
pub use session::TlsSession;

/// RFC 9113, section 3.2: the name of HTTP/2 over TLS in ALPN.
const ALPN_H2: &[u8] = b"h2";

/// The provider of cryptography that was compiled in. The one of the process, if it has one, is for
/// those who bring their own configuration.
fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "tls-aws-lc")]
    return Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(not(feature = "tls-aws-lc"))]
    return Arc::new(rustls::crypto::ring::default_provider());
}

/// What is wrong with a configuration as a whole.
fn unusable<E: std::error::Error + Send + Sync + 'static>(error: E) -> Status {
    Status::invalid_argument(format!("the TLS settings cannot be used: {error}")).with_source(error)
}
