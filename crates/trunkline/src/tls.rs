//! TLS for servers and clients, with rustls.
//!
//! Pass a [`ServerTls`] to [`Server::tls`](crate::Server::tls). Clients use TLS for `https://` targets. To trust other
//! certificate authorities than the system does, or to use a client certificate, pass a [`ClientTls`] to
//! [`ChannelBuilder::tls`](crate::ChannelBuilder::tls).

pub use trunkline_transport::{ClientTls, ServerTls, TlsSession, rustls};
