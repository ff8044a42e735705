//! TLS at a server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{KeyLogFile, ServerConfig};
use tokio_rustls::TlsAcceptor;
use trunkline_codec::Status;

use super::material::{ClientAuth, Contents, Identity, Material, Pem};
use super::session::TlsSession;
use super::store::{Configuration, Store};
use super::stream::TlsIo;
use super::{ALPN_H2, provider, unusable};
use crate::linger::linger_refused;
use crate::net_stream::NetStream;

/// TLS for a server: its certificate, and whether clients have to show theirs.
///
/// TLS 1.2 and 1.3, and HTTP/2 only. Clones share what is in use, so that
/// [`reload`](Self::reload) on one that was kept renews the certificate of the server that has the
/// other, also if that was given further settings meanwhile.
///
/// ```no_run
/// # use std::time::Duration;
/// # use trunkline_transport::ServerTls;
/// # fn example() -> Result<(), trunkline_codec::Status> {
/// let tls = ServerTls::from_files("server.pem", "server.key")?
///     .client_ca_file("clients.pem")
///     .reload_every(Duration::from_secs(60));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ServerTls(Arc<Store<ServerConfig>>);

impl ServerTls {
    /// A certificate in PEM, followed by those that lead to its authority, and its private key.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if they cannot be read, or do not belong together.
    pub fn from_pem(certificates: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, Status> {
        Self::from_identity(Pem::text(certificates), Pem::text(key))
    }

    /// As [`from_pem`](Self::from_pem), from files, which [`reload_every`](Self::reload_every) and
    /// [`reload`](Self::reload) read again.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if they cannot be read, or do not belong together.
    pub fn from_files(
        certificates: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, Status> {
        Self::from_identity(Pem::file(certificates), Pem::file(key))
    }

    fn from_identity(certificates: Pem, key: Pem) -> Result<Self, Status> {
        let material = Material {
            identity: Some(Identity { certificates, key }),
            ..Material::default()
        };
        let tls = Self(Store::new(material, None));
        tls.load()?;
        Ok(tls)
    }

    /// A configuration of rustls as it is, but for ALPN, which is `h2`.
    pub fn from_rustls(config: Arc<ServerConfig>) -> Self {
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Self(Store::new(Material::default(), Some(Arc::new(config))))
    }

    /// Takes only clients whose certificate is from one of the authorities in this file (mTLS).
    /// Several files add up.
    ///
    /// The file is read when the server binds, which is where its errors are.
    pub fn client_ca_file(self, path: impl Into<PathBuf>) -> Self {
        self.with(|material| material.authorities.push(Pem::file(path)))
    }

    /// As [`client_ca_file`](Self::client_ca_file), with authorities in PEM.
    pub fn client_ca_pem(self, authorities: impl AsRef<[u8]>) -> Self {
        self.with(|material| material.authorities.push(Pem::text(authorities)))
    }

    /// Takes clients without a certificate as well. One that shows a certificate shows a good one;
    /// handlers see it in `Peer::certificates`.
    pub fn client_auth_optional(self) -> Self {
        self.with(|material| material.client_auth = ClientAuth::Optional)
    }

    /// Looks every `interval` whether files have changed, and uses what they say from then on, for
    /// new connections; those that there are go on. There is no such interval by default.
    ///
    /// All that is new is read and checked before it is used: that it can be read, and that the key
    /// belongs to the certificate. Until then the last good one stays in use.
    pub fn reload_every(self, interval: Duration) -> Self {
        self.with(|material| material.reload_every = Some(interval))
    }

    /// Calls `report` after each reload that was tried because files have changed, from a thread
    /// that may block.
    pub fn on_reload(self, report: impl Fn(Result<(), Status>) + Send + Sync + 'static) -> Self {
        self.with(|material| material.on_reload = Some(Arc::new(report)))
    }

    /// Writes the secrets of connections to the file that the environment variable `SSLKEYLOGFILE`
    /// names, if it is set. Who has that file can read everything: it is for Wireshark, in tests.
    pub fn key_log(self) -> Self {
        self.with(|material| material.key_log = true)
    }

    /// Reads the files now, and uses what they say for new connections, of all servers that have a
    /// clone of this, or what settings on a clone of it have made. Blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if they cannot be used; then what was in use stays in use.
    pub fn reload(&self) -> Result<(), Status> {
        self.0.reload()
    }

    /// Reads the files, unless that has been done.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if they cannot be used.
    pub fn load(&self) -> Result<(), Status> {
        self.0.current().map(drop)
    }

    /// Reads files again as [`reload_every`](Self::reload_every) says, for as long as this is
    /// awaited.
    pub async fn keep_fresh(&self) {
        let Some(every) = self.0.material.reload_every else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(every).await;
            self.0.refresh_aside().await;
        }
    }

    /// The handshake. None if it fails; the client is told why.
    pub(crate) async fn accept(&self, socket: NetStream) -> Option<(NetStream, TlsSession)> {
        let config = self.0.current().ok()?;
        let accepted = TlsAcceptor::from(config).accept(socket).into_fallible();
        let mut stream = match accepted.await {
            Ok(stream) => stream,
            Err((error, mut socket)) => {
                tracing::debug!(target: "trunkline::connection", %error, "a TLS handshake failed");
                linger_refused(&mut socket).await;
                return None;
            }
        };
        let (_, connection) = stream.get_ref();
        // RFC 9113, section 3.3: HTTP/2 over TLS is chosen by ALPN, and by nothing else.
        if connection.alpn_protocol() != Some(ALPN_H2) {
            linger_refused(&mut stream).await;
            return None;
        }
        let session = TlsSession::of(connection);
        Some((TlsIo::new(stream).into(), session))
    }

    fn with(self, change: impl FnOnce(&mut Material)) -> Self {
        Self(self.0.with(change))
    }
}

impl Configuration for ServerConfig {
    fn make(material: &Material, contents: &Contents) -> Result<Self, Status> {
        let provider = provider();
        let identity = material
            .identity(contents, &provider)?
            .ok_or_else(|| Status::invalid_argument("a server needs a certificate"))?;
        let clients = match material.authorities(contents)? {
            None => Arc::new(NoClientAuth),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
                let verifier = match material.client_auth {
                    ClientAuth::Required => verifier,
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                };
                verifier.build().map_err(unusable)?
            }
        };
        let mut config = Self::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        if material.key_log {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        Ok(config)
    }
}
