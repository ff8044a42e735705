//! TLS at a server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{KeyLogFile, ServerConfig};
use tokio_rustls::TlsAcceptor;
use trunkline_codec::Status;

use super::reload::{Configuration, ReloadableConfig};
use super::session::TlsSession;
use super::settings::{ClientAuth, Contents, Identity, Pem, Settings};
use super::stream::TlsIo;
use super::{ALPN_H2, provider, unusable};
use crate::linger::linger_refused;
use crate::net_stream::NetStream;

/// TLS settings of a server: its certificate, and the client certificates it requires.
///
/// Supports TLS 1.2 and 1.3, for HTTP/2 only. To replace the certificate of a running server, keep a clone of
/// its settings and call [`reload`](Self::reload).
///
/// ```no_run
/// # mod trunkline { pub use trunkline_codec::Status; pub use trunkline_transport as tls; }
/// use std::time::Duration;
/// use trunkline::tls::ServerTls;
///
/// # fn example() -> Result<(), trunkline::Status> {
/// let tls = ServerTls::from_files("server.pem", "server.key")?
///     .client_ca_file("clients.pem")
///     .reload_every(Duration::from_secs(60));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ServerTls(Arc<ReloadableConfig<ServerConfig>>);

impl ServerTls {
    /// Creates settings from a certificate chain in PEM, the server's certificate first, and its private
    /// key.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the PEM is invalid, or the key does not belong to the certificate.
    pub fn from_pem(certificates: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, Status> {
        Self::from_identity(Pem::text(certificates), Pem::text(key))
    }

    /// Creates settings from PEM files with a certificate chain, the server's certificate first, and its
    /// private key. [`reload_every`](Self::reload_every) and [`reload`](Self::reload) read them again.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if a file cannot be read or is invalid, or the key does not belong to the
    /// certificate.
    pub fn from_files(
        certificates: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, Status> {
        Self::from_identity(Pem::file(certificates), Pem::file(key))
    }

    fn from_identity(certificates: Pem, key: Pem) -> Result<Self, Status> {
        let settings = Settings {
            identity: Some(Identity { certificates, key }),
            ..Settings::default()
        };
        let tls = Self(ReloadableConfig::new(settings, None));
        tls.load()?;
        Ok(tls)
    }

    /// Creates settings from a rustls configuration. Its ALPN protocols are replaced by `h2`.
    pub fn from_rustls(config: Arc<ServerConfig>) -> Self {
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Self(ReloadableConfig::new(
            Settings::default(),
            Some(Arc::new(config)),
        ))
    }

    /// Requires clients to present a certificate that one of the certificate authorities in this PEM file has
    /// issued (mTLS). Further calls add authorities.
    ///
    /// The file is read when the server binds an address. If that fails, binding fails.
    pub fn client_ca_file(self, path: impl Into<PathBuf>) -> Self {
        self.with(|settings| settings.authorities.push(Pem::file(path)))
    }

    /// Requires clients to present a certificate that one of the certificate authorities in this PEM text has
    /// issued (mTLS). Further calls add authorities.
    pub fn client_ca_pem(self, authorities: impl AsRef<[u8]>) -> Self {
        self.with(|settings| settings.authorities.push(Pem::text(authorities)))
    }

    /// Accepts clients without a certificate as well. An invalid certificate still fails the handshake;
    /// handlers read a valid one from `Peer::certificates`.
    pub fn client_auth_optional(self) -> Self {
        self.with(|settings| settings.client_auth = ClientAuth::Optional)
    }

    /// Checks all files of these settings (certificate, key and [`client_ca_file`](Self::client_ca_file)) for
    /// changes at this interval. Default: the files are not checked.
    ///
    /// New connections use the changed files once all of them are read and valid, and the key belongs to the
    /// certificate; until then, they use the previous ones. Existing connections do not change.
    pub fn reload_every(self, interval: Duration) -> Self {
        self.with(|settings| settings.reload_every = Some(interval))
    }

    /// Calls `report` with the result each time that the files have changed and were read again. `report` runs
    /// on a separate thread and may block.
    pub fn on_reload(self, report: impl Fn(Result<(), Status>) + Send + Sync + 'static) -> Self {
        self.with(|settings| settings.on_reload = Some(Arc::new(report)))
    }

    /// Writes the secrets of connections to the file named by the environment variable `SSLKEYLOGFILE`,
    /// if it is set. That file allows anyone to decrypt the connections: use it only in tests, for example
    /// with Wireshark.
    pub fn key_log(self) -> Self {
        self.with(|settings| settings.key_log = true)
    }

    /// Reads all files of these settings now (certificate, key and [`client_ca_file`](Self::client_ca_file)).
    /// Blocks the thread until the files are read.
    ///
    /// Clones of these settings, and settings made from them by other methods, such as `reload_every`, are
    /// reloaded with them. New connections of every server that uses any of these settings then use the new
    /// files.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if a file cannot be read or is invalid. New connections then continue to use the
    /// previous ones.
    pub fn reload(&self) -> Result<(), Status> {
        self.0.reload()
    }

    /// Reads the files if they have not been read yet.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if a file cannot be read or is invalid.
    #[doc(hidden)]
    pub fn load(&self) -> Result<(), Status> {
        self.0.current().map(drop)
    }

    /// Checks the files at the interval of [`reload_every`](Self::reload_every), until the future is
    /// dropped. Never completes.
    #[doc(hidden)]
    pub async fn reload_periodically(&self) {
        let Some(every) = self.0.settings.reload_every else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(every).await;
            self.0.reload_if_changed_async().await;
        }
    }

    /// Performs the handshake. Returns `None` if it fails, after sending the client an alert.
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
        // RFC 9113, section 3.3: HTTP/2 over TLS requires ALPN.
        if connection.alpn_protocol() != Some(ALPN_H2) {
            linger_refused(&mut stream).await;
            return None;
        }
        let session = TlsSession::of(connection);
        Some((TlsIo::new(stream).into(), session))
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        Self(self.0.with(change))
    }
}

impl Configuration for ServerConfig {
    fn make(settings: &Settings, contents: &Contents) -> Result<Self, Status> {
        let provider = provider();
        let identity = settings
            .identity(contents, &provider)?
            .ok_or_else(|| Status::invalid_argument("a server requires a certificate: create its TLS settings with ServerTls::from_files or ServerTls::from_pem"))?;
        let clients = match settings.authorities(contents)? {
            None => Arc::new(NoClientAuth),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
                let verifier = match settings.client_auth {
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
        if settings.key_log {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        Ok(config)
    }
}
