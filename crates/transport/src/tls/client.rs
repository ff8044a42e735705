//! TLS at a client.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, KeyLogFile};
use tokio_rustls::TlsConnector;
use trunkline_codec::Status;

use super::reload::{Configuration, ReloadableConfig};
use super::roots::Roots;
use super::settings::{Contents, Identity, Pem, Settings};
use super::stream::TlsIo;
use super::{ALPN_H2, explain, provider, unusable};
use crate::net_stream::NetStream;
use crate::target::Target;

/// TLS settings of a channel: the certificate authorities (CAs) it trusts, and its own certificate.
///
/// Supports TLS 1.2 and 1.3, for HTTP/2 only. By default, a channel has no certificate, and the features of
/// the crate determine the authorities that it trusts. A target with `https://` uses these defaults.
///
/// | features | default certificate authorities |
/// | --- | --- |
/// | `tls-native-roots` | those that the operating system trusts |
/// | `tls-webpki-roots` without `tls-native-roots` | Mozilla's list, which is compiled in |
/// | neither | none: connecting fails with INVALID_ARGUMENT unless [`ca_file`](Self::ca_file) or [`ca_pem`](Self::ca_pem) sets some |
///
/// Any crate in the build can enable `tls-native-roots` for all others. A program that must trust only
/// particular authorities should therefore select a list with `native_roots` or `webpki_roots`, or set its
/// own with [`ca_file`](Self::ca_file), [`ca_pem`](Self::ca_pem) or [`from_rustls`](Self::from_rustls).
///
/// ```
/// # mod trunkline { pub use trunkline_transport as tls; }
/// use trunkline::tls::ClientTls;
///
/// let tls = ClientTls::new()
///     .ca_file("ca.pem")
///     .identity_files("client.pem", "client.key");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientTls {
    config: Arc<ReloadableConfig<ClientConfig>>,
    server_name: Option<String>,
}

impl Default for ClientTls {
    fn default() -> Self {
        Self::new()
    }
}

impl ClientTls {
    /// Creates settings that trust the default certificate authorities; see [`ClientTls`].
    ///
    /// With `tls-native-roots`, the certificates that the operating system trusts are read once, for the
    /// first connection. The environment variables `SSL_CERT_FILE` and `SSL_CERT_DIR` override their location.
    pub fn new() -> Self {
        Self::with_roots(None)
    }

    /// Creates settings that trust the authorities that the system trusts, regardless of other features.
    /// [`ca_file`](Self::ca_file) and [`ca_pem`](Self::ca_pem) add further authorities.
    ///
    /// The system's authorities are read only once: when the channel is built if `ca_file` or `ca_pem` adds
    /// others, and for the first connection otherwise. If the system has none, connecting fails with
    /// UNAVAILABLE.
    ///
    /// ```
    /// # mod trunkline { pub use trunkline_transport as tls; }
    /// use trunkline::tls::ClientTls;
    ///
    /// let tls = ClientTls::native_roots().ca_file("internal-ca.pem");
    /// ```
    #[cfg(feature = "tls-native-roots")]
    pub fn native_roots() -> Self {
        Self::with_roots(Some(Roots::Native))
    }

    /// Creates settings that trust the authorities of Mozilla's list, which is compiled in, regardless of
    /// other features. [`ca_file`](Self::ca_file) and [`ca_pem`](Self::ca_pem) add further authorities.
    ///
    /// ```
    /// # mod trunkline { pub use trunkline_transport as tls; }
    /// use trunkline::tls::ClientTls;
    ///
    /// let tls = ClientTls::webpki_roots();
    /// ```
    #[cfg(feature = "tls-webpki-roots")]
    pub fn webpki_roots() -> Self {
        Self::with_roots(Some(Roots::Webpki))
    }

    fn with_roots(roots: Option<Roots>) -> Self {
        let settings = Settings {
            roots,
            ..Settings::default()
        };
        Self {
            config: ReloadableConfig::new(settings, None),
            server_name: None,
        }
    }

    /// Creates settings from a rustls configuration. Its ALPN protocols are replaced by `h2`.
    pub fn from_rustls(config: Arc<ClientConfig>) -> Self {
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Self {
            config: ReloadableConfig::new(Settings::default(), Some(Arc::new(config))),
            server_name: None,
        }
    }

    /// Trusts the certificate authorities in this PEM file instead of the default ones. Further calls add
    /// authorities.
    ///
    /// The file is read when the channel is built. If that fails, building the channel fails.
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        self.with(|settings| settings.authorities.push(Pem::file(path)))
    }

    /// Trusts the certificate authorities in this PEM text instead of the default ones. Further calls add
    /// authorities.
    pub fn ca_pem(self, authorities: impl AsRef<[u8]>) -> Self {
        self.with(|settings| settings.authorities.push(Pem::text(authorities)))
    }

    /// Presents a certificate to servers that request one (mTLS), from PEM files with a certificate chain,
    /// the client's certificate first, and its private key.
    pub fn identity_files(self, certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let (certificates, key) = (Pem::file(certificates), Pem::file(key));
        self.with(|settings| settings.identity = Some(Identity { certificates, key }))
    }

    /// Presents a certificate to servers that request one (mTLS), from a certificate chain in PEM, the
    /// client's certificate first, and its private key.
    pub fn identity_pem(self, certificates: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        let (certificates, key) = (Pem::text(certificates), Pem::text(key));
        self.with(|settings| settings.identity = Some(Identity { certificates, key }))
    }

    /// Sets the name for which the server's certificate must be valid, and which the client sends in the
    /// handshake (SNI). Default: the host of the target; for a target with a `Resolver`, the host in the value
    /// of its `authority` method; `localhost` for a Unix socket. `ChannelBuilder::authority` does not change
    /// this name.
    pub fn server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.to_owned());
        self
    }

    /// Checks all files of these settings (certificate, key and [`ca_file`](Self::ca_file)) for changes before
    /// a new connection, at most once per `interval`. Default: the files are not checked. The system's
    /// authorities are not read again.
    ///
    /// New connections use the changed files once all of them are read and valid; until then, they use the
    /// previous ones. Existing connections do not change. A new connection waits at most 1 s for the check.
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

    /// Reads all files of these settings now (certificate, key and [`ca_file`](Self::ca_file)). Blocks the thread
    /// until the files are read.
    ///
    /// Clones of these settings, and settings made from them by other methods, such as `server_name`, are reloaded
    /// with them. New connections of every channel that uses any of these settings then use the new files.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if a file cannot be read or is invalid. New connections then continue to use the
    /// previous ones.
    pub fn reload(&self) -> Result<(), Status> {
        self.config.reload()
    }

    /// Returns the settings for a channel to `target`: `given`, or the defaults if the target has
    /// `https://`. Reads the files.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if a file or the server name is invalid, or if `given` is set for a target with
    /// `http://`.
    #[doc(hidden)]
    pub fn for_target(target: &Target, given: Option<Self>) -> Result<Option<Self>, Status> {
        let tls = match (target.wants_tls(), given) {
            (Some(false), None) | (None, None) => return Ok(None),
            (Some(false), Some(_)) => {
                return Err(Status::invalid_argument(format!(
                    "http://{target} is plaintext, and the channel has TLS settings: use https://"
                )));
            }
            (Some(true), None) => Self::new(),
            (Some(true) | None, Some(given)) => given,
        };
        tls.name_of(target)?;
        let settings = &tls.config.settings;
        match tls.config.trusts_only_roots() {
            // Reading the system's authorities is slow, so that is left to the first connection.
            true => {
                settings.roots.map_or_else(Roots::of_build, Ok)?;
                settings.check(&provider())?;
            }
            false => drop(tls.config.current()?),
        }
        Ok(Some(tls))
    }

    /// Performs the handshake over a socket that is connected to `target`. Error messages name the server
    /// `called`.
    pub(crate) async fn secure(
        &self,
        socket: NetStream,
        called: &str,
        target: &Target,
    ) -> Result<NetStream, Status> {
        let (name, config) = (self.name_of(target)?, self.config.current_async().await?);
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
                "{name:?} is not a valid server name: {error}; use a DNS name or an IP address"
            ))
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        self.config = self.config.with(change);
        self
    }
}

impl Configuration for ClientConfig {
    fn make(settings: &Settings, contents: &Contents) -> Result<Self, Status> {
        let provider = provider();
        let identity = settings.identity(contents, &provider)?;
        let roots = settings.trusted(contents)?;
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
        if settings.key_log {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        Ok(config)
    }
}

#[cfg(all(test, feature = "tls-webpki-roots"))]
mod tests {
    use super::*;

    #[test]
    fn mozillas_list_is_trusted_if_it_is_selected_whatever_the_default_is() {
        let settings = &ClientTls::webpki_roots().config.settings;
        let contents = settings.read().expect("no files");
        let trusted = settings.trusted(&contents).expect("a list");
        assert_eq!(trusted.roots, webpki_roots::TLS_SERVER_ROOTS);
    }
}
