//! Certificates, keys and authorities: where they are, what was read there, what it means.

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

use super::roots;

/// What is told of a reload that has been tried.
pub(super) type Report = Arc<dyn Fn(Result<(), Status>) + Send + Sync>;

/// Everything that a configuration is made from.
#[derive(Clone, Default)]
pub(super) struct Material {
    pub(super) identity: Option<Identity>,
    /// Whose certificates are trusted. At a client, none means the default roots.
    pub(super) authorities: Vec<Pem>,
    pub(super) client_auth: ClientAuth,
    pub(super) key_log: bool,
    pub(super) reload_every: Option<Duration>,
    pub(super) on_reload: Option<Report>,
    /// See [`roots`].
    pub(super) default_roots: Arc<OnceLock<Arc<RootCertStore>>>,
}

/// Whether clients have to show a certificate, at a server that has authorities for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ClientAuth {
    #[default]
    Required,
    Optional,
}

/// A certificate with those that lead to its authority, and its key.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) certificates: Pem,
    pub(super) key: Pem,
}

/// PEM, or where it is.
#[derive(Clone)]
pub(super) enum Pem {
    Text(Arc<[u8]>),
    File {
        path: PathBuf,
        /// By whoever has a clone of this.
        was_read: Arc<AtomicBool>,
    },
}

/// What was read, not yet understood.
#[derive(Hash)]
pub(super) struct Contents {
    identity: Option<(Vec<u8>, Vec<u8>)>,
    authorities: Vec<Vec<u8>>,
}

impl Contents {
    /// Tells contents apart, without a second copy of a private key.
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
            // It may be what can be read once, such as a pipe.
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

/// Reads a file that has an end, and is there: to open a FIFO waits for somebody who writes, and a pipe
/// that was read is empty.
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
        "it is {what}, and a file that is read again has to be a regular one; the functions that take PEM take it from elsewhere"
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

/// As messages say it.
impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("the PEM text"),
            Self::File { path, .. } => path.display().fmt(f),
        }
    }
}

impl Material {
    /// Whether it says nothing about the configuration itself.
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

    /// Whether what there is can be used.
    pub(super) fn check(&self, provider: &CryptoProvider) -> Result<(), Status> {
        self.identity(&self.read()?, provider).map(drop)
    }

    /// The certificate and its key, which belong together.
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
                    format!("the private key in {key} does not belong to the certificate in {certificates}, which has to be the first one there")
                }
                error => format!("the certificate in {certificates} cannot be used with the key in {key}: {error}"),
            })
        })?;
        Ok(Some(identity))
    }

    /// The authorities that were named; none if none were.
    pub(super) fn authorities(
        &self,
        contents: &Contents,
    ) -> Result<Option<Arc<RootCertStore>>, Status> {
        if self.authorities.is_empty() {
            return Ok(None);
        }
        let mut roots = RootCertStore::empty();
        for (from, contents) in self.authorities.iter().zip(&contents.authorities) {
            for certificate in parse_certificates(contents, from)? {
                roots.add(certificate).map_err(|error| {
                    let message = format!("an authority in {from} cannot be used: {error}");
                    Status::invalid_argument(message).with_source(error)
                })?;
            }
        }
        Ok(Some(Arc::new(roots)))
    }

    /// The authorities for a client that was given none, read once.
    pub(super) fn default_roots(&self) -> Result<Arc<RootCertStore>, Status> {
        if let Some(roots) = self.default_roots.get() {
            return Ok(roots.clone());
        }
        let roots = roots::load()?;
        Ok(self.default_roots.get_or_init(|| Arc::new(roots)).clone())
    }
}

fn parse_certificates(text: &[u8], from: &Pem) -> Result<Vec<CertificateDer<'static>>, Status> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(Status::invalid_argument(format!(
            "there is no certificate in {from}: it needs \"-----BEGIN CERTIFICATE-----\""
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
            "there is no private key in {from}: it needs \"-----BEGIN PRIVATE KEY-----\", or an RSA or EC one"
        )),
        error => not_pem(from, &error),
    })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Says no more of the text than where it is: it may be a private key.
fn not_pem(from: &Pem, error: &pem::Error) -> Status {
    let why = match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end",
        pem::Error::IllegalSectionStart { .. } => "a section begins with a line that is not PEM",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it is not PEM",
    };
    Status::invalid_argument(format!("{from} cannot be read: {why}"))
}
