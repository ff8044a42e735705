//! TLS for servers and clients, with rustls.
//!
//! Servers take a [`ServerTls`] in [`Server::tls`](crate::Server::tls). Clients use TLS for `https://` targets; for private
//! authorities and client certificates, they take a [`ClientTls`] in
//! [`ChannelBuilder::tls`](crate::ChannelBuilder::tls).

pub use trunkline_transport::{ClientTls, ServerTls, TlsSession, rustls};
