//! Who is at the other end of a connection.

use rustls::pki_types::CertificateDer;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};

/// What the TLS handshake of a connection has shown, at the server.
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

    /// The client's certificates, its own first; empty if it has shown none.
    ///
    /// They have been checked against the server's authorities. A session that is resumed has those
    /// that it began with.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The DNS names and URIs, such as SPIFFE's, for which the client's certificate was issued:
    /// its subject alternative names.
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

    /// The name by which the client asked for the server (SNI); none if it used an address.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// `"TLSv1.3"` or `"TLSv1.2"`.
    pub fn version(&self) -> &'static str {
        match self.version {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        }
    }

    /// Whether the client has resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }
}
