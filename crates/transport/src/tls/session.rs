//! The results of a TLS handshake.

use rustls::pki_types::CertificateDer;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};

/// The results of the TLS handshake of a server's connection. `Peer::tls` returns them.
///
/// ```
/// # mod trunkline { pub use trunkline_transport::Peer; pub use trunkline_transport as tls; }
/// use trunkline::Peer;
/// use trunkline::tls::TlsSession;
///
/// /// Returns the names in the certificate of a client.
/// fn client_names(peer: &Peer) -> Vec<String> {
///     peer.tls().map(TlsSession::names).unwrap_or_default()
/// }
///
/// assert!(client_names(&Peer::in_memory()).is_empty());
/// ```
#[derive(Clone, Debug)]
pub struct TlsSession {
    certificates: Vec<CertificateDer<'static>>,
    server_name: Option<String>,
    version: Option<ProtocolVersion>,
    is_resumed: bool,
}

impl TlsSession {
    pub(super) fn of(connection: &ServerConnection) -> Self {
        let certificates = connection.peer_certificates().unwrap_or_default();
        Self {
            certificates: certificates
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect(),
            server_name: connection.server_name().map(str::to_owned),
            version: connection.protocol_version(),
            is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// Returns the client's certificate chain, starting with the certificate of the client itself. Empty if
    /// the client presented no certificate.
    ///
    /// The server has checked that one of its certificate authorities issued the certificate. A resumed
    /// session has the certificates of the original one.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// Returns the DNS names and URIs, such as SPIFFE IDs, in the subject alternative names of the
    /// client's certificate.
    pub fn names(&self) -> Vec<String> {
        let Some(certificate) = self.certificates.first() else {
            return Vec::new();
        };
        let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else {
            return Vec::new();
        };
        let (dns, uris) = (certificate.valid_dns_names(), certificate.valid_uri_names());
        dns.chain(uris).map(str::to_owned).collect()
    }

    /// Returns the server name that the client requested (SNI), or `None` if it connected by address.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Returns the protocol version, `"TLSv1.3"` or `"TLSv1.2"`.
    pub fn version(&self) -> &'static str {
        match self.version {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        }
    }

    /// Returns true if the client resumed an earlier TLS session instead of performing a full handshake.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }
}
