//! The two ends of a connection, as handlers see them.

use crate::address::Address;
use crate::tls::TlsSession;

/// The two ends of a connection: their addresses, and the results of the TLS handshake.
///
/// ```
/// # mod trunkline { pub use trunkline_transport::Peer; }
/// use std::net::SocketAddr;
/// use trunkline::Peer;
///
/// let local = SocketAddr::from(([10, 0, 0, 1], 50051));
/// let remote = SocketAddr::from(([10, 0, 0, 2], 40000));
/// let peer = Peer::new(local.into(), remote.into());
/// assert_eq!(peer.remote().to_string(), "10.0.0.2:40000");
/// ```
#[derive(Clone, Debug)]
pub struct Peer {
    pub(crate) local: Address,
    pub(crate) remote: Address,
    pub(crate) tls: Option<TlsSession>,
}

impl Peer {
    /// Creates the two ends of a connection without TLS, for tests that call a handler.
    pub fn new(local: Address, remote: Address) -> Self {
        Self {
            local,
            remote,
            tls: None,
        }
    }

    /// Creates the two ends of an in-memory connection.
    pub fn in_memory() -> Self {
        Self::new(Address::InMemory, Address::InMemory)
    }

    /// Returns the address of this end.
    pub fn local(&self) -> &Address {
        &self.local
    }

    /// Returns the address of the other end.
    pub fn remote(&self) -> &Address {
        &self.remote
    }

    /// Returns the results of the TLS handshake, or `None` for a connection without TLS.
    #[cfg(feature = "__tls")]
    pub fn tls(&self) -> Option<&TlsSession> {
        self.tls.as_ref()
    }

    /// Returns the client's certificate chain in DER, starting with the certificate of the client itself.
    /// Returns `None` if the client presented no certificate, and on a connection without TLS.
    #[cfg(feature = "__tls")]
    pub fn certificates(&self) -> Option<&[rustls::pki_types::CertificateDer<'static>]> {
        let certificates = self.tls.as_ref()?.certificates();
        (!certificates.is_empty()).then_some(certificates)
    }
}
