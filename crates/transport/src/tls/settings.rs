//! Certificates, keys and authorities: their sources, reading them, and parsing them.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use trunkline_codec::Status;

use super::roots::Roots;

/// A callback for the outcome of a reload.
pub(super) type Report = Arc<dyn Fn(Result<(), Status>) + Send + Sync>;

/// The settings from which a configuration is built.
#[derive(Clone, Default)]
pub(super) struct Settings {
    pub(super) identity: Option<Identity>,
    /// The trusted authorities.
    pub(super) authorities: Vec<Pem>,
    /// The list that a client trusts in addition to `authorities`. `None` means the default list if
    /// there are no authorities.
    pub(super) roots: Option<Roots>,
    pub(super) client_auth: ClientAuth,
    pub(super) key_log: bool,
    pub(super) reload_every: Option<Duration>,
    pub(super) on_reload: Option<Report>,
    /// The cached list.
    pub(super) loaded_roots: Arc<OnceLock<Arc<RootCertStore>>>,
}

/// The client certificates that a server with client authorities requires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ClientAuth {
    #[default]
    Required,
    Optional,
}

/// A certificate chain and its private key.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) certificates: Pem,
    pub(super) key: Pem,
}

/// PEM text, or a PEM file.
#[derive(Clone)]
pub(super) enum Pem {
    Text(Arc<[u8]>),
    File {
        path: PathBuf,
        /// The file has been read through this value or a clone of it.
        was_read: Arc<AtomicBool>,
    },
}

/// The contents of all sources, not parsed yet.
#[derive(Hash)]
pub(super) struct Contents {
    identity: Option<(Vec<u8>, Vec<u8>)>,
    authorities: Vec<Vec<u8>>,
}

impl Contents {
    /// Returns a hash to compare contents by, without keeping a second copy of a private key.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

impl Pem {
    pub(super) fn text(pem: impl AsRef<[u8]>) -> Self {
        Self::Text(pem.as_ref().into())
    }

    pub(super) fn file(path: impl Into<PathBuf>) -> Self {
        Self::File {
            path: path.into(),
            was_read: Arc::default(),
        }
    }

    fn read(&self, what: &str) -> Result<Vec<u8>, Status> {
        let (path, was_read) = match self {
            Self::Text(text) => return Ok(text.to_vec()),
            Self::File { path, was_read } => (path, was_read),
        };
        let contents = match was_read.load(Ordering::Relaxed) {
            // The first read accepts files that can be read only once, such as pipes.
            false => std::fs::read(path),
            true => read_again(path),
        };
        was_read.fetch_or(contents.is_ok(), Ordering::Relaxed);
        contents.map_err(|error| {
            let message = format!("cannot read {what} from {self}: {error}");
            Status::invalid_argument(message).with_source(error)
        })
    }
}

/// Reads a file if it is a regular one: opening a FIFO blocks until a writer opens it, and a pipe is empty
/// after the first read.
fn read_again(path: &Path) -> io::Result<Vec<u8>> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_file() {
        return std::fs::read(path);
    }
    let what = match kind.is_dir() {
        true => "a directory",
        false => special(kind),
    };
    Err(io::Error::other(format!(
        "it is {what}, and only regular files can be reloaded; pass PEM from other sources as text"
    )))
}

#[cfg(unix)]
fn special(kind: std::fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn special(_: std::fs::FileType) -> &'static str {
    "not a regular file"
}

/// Names the source in error messages.
impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("the PEM text"),
            Self::File { path, .. } => path.display().fmt(f),
        }
    }
}

impl Settings {
    /// Returns whether all settings that shape the configuration have their defaults.
    pub(super) fn is_blank(&self) -> bool {
        self.identity.is_none()
            && self.authorities.is_empty()
            && self.client_auth == ClientAuth::Required
            && !self.key_log
    }

    pub(super) fn read(&self) -> Result<Contents, Status> {
        let identity = match &self.identity {
            None => None,
            Some(Identity { certificates, key }) => {
                let certificates = certificates.read("the certificate")?;
                Some((certificates, key.read("the private key")?))
            }
        };
        let authorities = self.authorities.iter().map(|pem| pem.read("authorities"));
        Ok(Contents {
            identity,
            authorities: authorities.collect::<Result<_, _>>()?,
        })
    }

    /// Checks that the identity can be read and used.
    pub(super) fn check(&self, provider: &CryptoProvider) -> Result<(), Status> {
        self.identity(&self.read()?, provider).map(drop)
    }

    /// Returns the certificate and its key, checked to belong together.
    pub(super) fn identity(
        &self,
        contents: &Contents,
        provider: &CryptoProvider,
    ) -> Result<Option<CertifiedKey>, Status> {
        let (Some(from), Some((certificates, key))) = (&self.identity, &contents.identity) else {
            return Ok(None);
        };
        let certificates = parse_certificates(certificates, &from.certificates)?;
        let key = parse_key(key, &from.key)?;
        let identity = CertifiedKey::from_der(certificates, key, provider).map_err(|error| {
            let (certificates, key) = (&from.certificates, &from.key);
            Status::invalid_argument(match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("the private key in {key} does not belong to the certificate in {certificates}, which must be the first one there")
                }
                error => format!("the certificate in {certificates} cannot be used with the key in {key}: {error}"),
            })
        })?;
        Ok(Some(identity))
    }

    /// Returns the configured authorities, or `None` if there are none.
    pub(super) fn authorities(
        &self,
        contents: &Contents,
    ) -> Result<Option<Arc<RootCertStore>>, Status> {
        match self.authorities.is_empty() {
            true => Ok(None),
            false => Ok(Some(
                self.with_authorities(RootCertStore::empty(), contents)?,
            )),
        }
    }

    /// Returns the authorities that a client trusts. Lists are read once.
    pub(super) fn trusted(&self, contents: &Contents) -> Result<Arc<RootCertStore>, Status> {
        let list = match self.roots {
            None if !self.authorities.is_empty() => Arc::new(RootCertStore::empty()),
            None => self.load_roots(Roots::of_build()?)?,
            Some(roots) => self.load_roots(roots)?,
        };
        match self.authorities.is_empty() {
            true => Ok(list),
            false => self.with_authorities(RootCertStore::clone(&list), contents),
        }
    }

    fn with_authorities(
        &self,
        mut roots: RootCertStore,
        contents: &Contents,
    ) -> Result<Arc<RootCertStore>, Status> {
        for (from, contents) in self.authorities.iter().zip(&contents.authorities) {
            for certificate in parse_certificates(contents, from)? {
                roots.add(certificate).map_err(|error| {
                    let message = format!("an authority in {from} cannot be used: {error}");
                    Status::invalid_argument(message).with_source(error)
                })?;
            }
        }
        Ok(Arc::new(roots))
    }

    fn load_roots(&self, roots: Roots) -> Result<Arc<RootCertStore>, Status> {
        if let Some(loaded) = self.loaded_roots.get() {
            return Ok(loaded.clone());
        }
        let loaded = Arc::new(roots.load()?);
        Ok(self.loaded_roots.get_or_init(|| loaded).clone())
    }
}

fn parse_certificates(text: &[u8], from: &Pem) -> Result<Vec<CertificateDer<'static>>, Status> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(Status::invalid_argument(format!(
            "{from} has no certificate: a \"-----BEGIN CERTIFICATE-----\" section is required"
        ))),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(not_pem(from, &error)),
    }
}

fn parse_key(text: &[u8], from: &Pem) -> Result<PrivateKeyDer<'static>, Status> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound if contains(text, b"ENCRYPTED PRIVATE KEY") => {
            Status::invalid_argument(format!(
                "the private key in {from} is encrypted, which is not supported: decrypt it with `openssl pkey`"
            ))
        }
        pem::Error::NoItemsFound => Status::invalid_argument(format!(
            "{from} has no private key: a \"-----BEGIN PRIVATE KEY-----\" section, or an RSA or EC one, is required"
        )),
        error => not_pem(from, &error),
    })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Names only the source of the text, which may be a private key.
fn not_pem(from: &Pem, error: &pem::Error) -> Status {
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "a section begins with a line that is not PEM",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it is not PEM",
    };
    Status::invalid_argument(format!("{from} cannot be read: {why}"))
}
