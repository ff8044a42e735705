//! TLS over sockets, by rustls.
//!
//! | module | holds |
//! | --- | --- |
//! | `server`, `client` | the public settings of each end, and its handshake |
//! | `settings` | certificates, keys and authorities: reads and parses files and text |
//! | `reload` | the configuration in use, and reloading it when files change |
//! | `roots` | the authorities that a client trusts by default |
//! | `session` | the client's certificates and other results of a handshake |
//! | `stream` | the byte stream that HTTP/2 reads and writes |
//! | `explain` | error messages for failed handshakes |

mod client;
mod explain;
mod reload;
mod roots;
mod server;
mod session;
mod settings;
mod stream;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use trunkline_codec::Status;

pub use client::ClientTls;
pub use server::ServerTls;
pub use session::TlsSession;

/// The ALPN name of HTTP/2 over TLS (RFC 9113, section 3.2).
const ALPN_H2: &[u8] = b"h2";

/// Returns the cryptography provider that was compiled in. A process-wide default provider applies only to
/// configurations that users build with rustls.
fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "tls-aws-lc")]
    return Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(not(feature = "tls-aws-lc"))]
    return Arc::new(rustls::crypto::ring::default_provider());
}

/// Returns the status for settings that rustls rejects as a whole.
fn unusable<E: std::error::Error + Send + Sync + 'static>(error: E) -> Status {
    Status::invalid_argument(format!("the TLS settings cannot be used: {error}")).with_source(error)
}
