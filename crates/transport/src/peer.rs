//! The two ends of a connection, as handlers see them.

use crate::address::Address;
use crate::tls::TlsSession;

/// The two ends of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub(crate) local: Address,
    pub(crate) remote: Address,
    pub(crate) tls: Option<TlsSession>,
}

impl Peer {
    /// The ends of a connection in plaintext, for a test that calls a handler.
    ///
    /// ```
    /// # use trunkline_transport::Peer;
    /// # use std::net::SocketAddr;
    /// let local = SocketAddr::from(([10, 0, 0, 1], 50051));
    /// let remote = SocketAddr::from(([10, 0, 0, 2], 40000));
    /// let peer = Peer::new(local.into(), remote.into());
    /// assert_eq!(peer.remote().to_string(), "10.0.0.2:40000");
    /// ```
    pub fn new(local: Address, remote: Address) -> Self {
        Self {
            local,
            remote,
            tls: None,
        }
    }

    /// A connection with both ends in memory.
    pub fn in_memory() -> Self {
        Self::new(Address::InMemory, Address::InMemory)
    }

    /// This end.
    pub fn local(&self) -> &Address {
        &self.local
    }

    /// The other end.
    pub fn remote(&self) -> &Address {
        &self.remote
    }

    /// What the TLS handshake has shown; none for a connection in plaintext.
    #[cfg(feature = "__tls")]
    pub fn tls(&self) -> Option<&TlsSession> {
        self.tls.as_ref()
    }

    /// The client's certificates, its own first, in DER; none if it has shown none.
    #[cfg(feature = "__tls")]
    pub fn certificates(&self) -> Option<&[rustls::pki_types::CertificateDer<'static>]> {
        let certificates = self.tls.as_ref()?.certificates();
        (!certificates.is_empty()).then_some(certificates)
    }
}
