//! TLS at a client.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, KeyLogFile};
use tokio_rustls::TlsConnector;
use trunkline_codec::Status;

use super::material::{Contents, Identity, Material, Pem};
use super::store::{Configuration, Store};
use super::stream::TlsIo;
use super::{ALPN_H2, explain, provider, roots, unusable};
use crate::net_stream::NetStream;
use crate::target::Target;

/// TLS for a channel: whom it trusts, and who it is.
///
/// TLS 1.2 and 1.3, and HTTP/2 only. Without further settings it trusts the authorities that the
/// system trusts, and has no certificate; `https://` alone means just that.
///
/// ```
/// # use trunkline_transport::ClientTls;
/// let tls = ClientTls::new()
///     .ca_file("ca.pem")
///     .identity_files("client.pem", "client.key");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientTls {
    store: Arc<Store<ClientConfig>>,
    server_name: Option<String>,
}

impl Default for ClientTls {
    fn default() -> Self {
        Self::new()
    }
}

impl ClientTls {
    /// Trusts the authorities that the system trusts. They are read once, when the first connection
    /// is made; the environment variables `SSL_CERT_FILE` and `SSL_CERT_DIR` say where, if they are
    /// set.
    pub fn new() -> Self {
        Self {
            store: Store::new(Material::default(), None),
            server_name: None,
        }
    }

    /// A configuration of rustls as it is, but for ALPN, which is `h2`.
    pub fn from_rustls(config: Arc<ClientConfig>) -> Self {
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Self {
            store: Store::new(Material::default(), Some(Arc::new(config))),
            server_name: None,
        }
    }

    /// Trusts the authorities in this file (PEM) in the place of the system's. Several files add up.
    ///
    /// Files are read when the channel is made, which is where their errors are.
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        self.with(|material| material.authorities.push(Pem::file(path)))
    }

    /// As [`ca_file`](Self::ca_file), with authorities in PEM.
    pub fn ca_pem(self, authorities: impl AsRef<[u8]>) -> Self {
        self.with(|material| material.authorities.push(Pem::text(authorities)))
    }

    /// Shows a certificate to servers that ask for one (mTLS): PEM files with the certificate,
    /// followed by those that lead to its authority, and with its private key.
    pub fn identity_files(self, certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let (certificates, key) = (Pem::file(certificates), Pem::file(key));
        self.with(|material| material.identity = Some(Identity { certificates, key }))
    }

    /// As [`identity_files`](Self::identity_files), with PEM.
    pub fn identity_pem(self, certificates: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        let (certificates, key) = (Pem::text(certificates), Pem::text(key));
        self.with(|material| material.identity = Some(Identity { certificates, key }))
    }

    /// The name that the server's certificate has to be valid for, and that the server is asked for
    /// (SNI), in the place of the host in the target. A Unix socket's is `localhost`.
    pub fn server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.to_owned());
        self
    }

    /// Before a new connection, looks whether files have changed, if that was not done within
    /// `interval`; connections that there are go on. There is no such interval by default.
    ///
    /// All that is new is read and checked before it is used; until then the last good one stays in
    /// use. A connection does not wait longer than 1 s for files that are slow to read.
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

    /// Reads the files now, and uses what they say for new connections, of all channels that have a
    /// clone of this, or what settings on a clone of it have made. Blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if they cannot be used; then what was in use stays in use.
    pub fn reload(&self) -> Result<(), Status> {
        self.store.reload()
    }

    /// What a channel to `target` uses: what it was given, or the default where the target asks for
    /// TLS. Reads what files there are.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the files or the name cannot be used, or the target is `http://`.
    pub fn for_target(target: &Target, given: Option<Self>) -> Result<Option<Self>, Status> {
        let tls = match (target.wants_tls(), given) {
            (Some(false), None) | (None, None) => return Ok(None),
            (Some(false), Some(_)) => {
                return Err(Status::invalid_argument(format!(
                    "http://{target} is plaintext, and the channel was given TLS settings: use https://"
                )));
            }
            (Some(true), None) => Self::new(),
            (Some(true) | None, Some(given)) => given,
        };
        tls.name_of(target)?;
        match tls.store.uses_default_roots() {
            // The system's authorities take a moment to read: the first connection reads them.
            true => {
                roots::check()?;
                tls.store.material.check(&provider())?;
            }
            false => drop(tls.store.current()?),
        }
        Ok(Some(tls))
    }

    /// The handshake over a socket that is connected to `target`.
    pub(crate) async fn secure(
        &self,
        socket: NetStream,
        called: &str,
        target: &Target,
    ) -> Result<NetStream, Status> {
        let (name, config) = (self.name_of(target)?, self.store.renewed().await?);
        let connecting = TlsConnector::from(config).connect(name.clone(), socket);
        let stream = connecting
            .await
            .map_err(|error| explain::on_connect(called, &name, error))?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
            let message = format!("cannot connect to {called}: {}", explain::NO_H2);
            return Err(Status::unavailable(message));
        }
        Ok(TlsIo::new(stream).into())
    }

    fn name_of(&self, target: &Target) -> Result<ServerName<'static>, Status> {
        let name = match (&self.server_name, target.host_and_port()) {
            (Some(name), _) => name,
            (None, Some((host, _))) => host,
            (None, None) => "localhost",
        };
        ServerName::try_from(name.to_owned()).map_err(|error| {
            Status::invalid_argument(format!(
                "{name:?} is no name that a certificate can have: {error}"
            ))
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Material)) -> Self {
        self.store = self.store.with(change);
        self
    }
}

impl Configuration for ClientConfig {
    fn make(material: &Material, contents: &Contents) -> Result<Self, Status> {
        let provider = provider();
        let identity = material.identity(contents, &provider)?;
        let roots = match material.authorities(contents)? {
            Some(roots) => roots,
            None => material.default_roots()?,
        };
        let builder = Self::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_cert_resolver(Arc::new(
                rustls::sign::SingleCertAndKey::from(identity),
            )),
        };
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        if material.key_log {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        Ok(config)
    }
}
