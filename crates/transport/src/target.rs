//! Addresses: what a client connects to, what a server listens on, who is at the other end.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use trunkline_codec::Status;

use crate::tls::TlsSession;

/// Where a server is, as a client names it.
///
/// Understood are `host:port`, `http://host:port`, `https://host:port` and `unix:/path` (also
/// `unix:///path`). Without a port, `http://` means 80 and `https://` 443.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    place: Place,
    authority: http::uri::Authority,
    wants_tls: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Host name or address, and port.
    Tcp(String, u16),
    Unix(PathBuf),
}

impl Target {
    /// Reads a target as a user writes it.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT naming what is wrong and what is understood.
    pub fn parse(target: &str) -> Result<Self, Status> {
        if let Some(path) = target.strip_prefix("unix:") {
            // The naming document (grpc/doc/naming.md): unix:path, unix:///absolute_path.
            let path = path.strip_prefix("//").unwrap_or(path);
            let authority = http::uri::Authority::from_static("localhost");
            return match path.is_empty() {
                true => Err(invalid(target, "the path is empty")),
                false => Ok(Self {
                    place: Place::Unix(path.into()),
                    authority,
                    wants_tls: None,
                }),
            };
        }
        let (rest, wants_tls, default_port) = if let Some(rest) = target.strip_prefix("http://") {
            (
                rest.strip_suffix('/').unwrap_or(rest),
                Some(false),
                Some(80),
            )
        } else if let Some(rest) = target.strip_prefix("https://") {
            if !cfg!(feature = "__tls") {
                return Err(invalid(
                    target,
                    "this build has no TLS: enable the feature `tls` of trunkline",
                ));
            }
            (
                rest.strip_suffix('/').unwrap_or(rest),
                Some(true),
                Some(443),
            )
        } else {
            (target, None, None)
        };
        if rest.contains("://") {
            return Err(invalid(target, "the scheme is unknown"));
        }
        let authority: http::uri::Authority = rest
            .parse()
            .map_err(|_| invalid(target, "it is not of the form host:port"))?;
        if authority.as_str().contains('@') {
            return Err(invalid(
                target,
                "user names in an address are not supported",
            ));
        }
        let port = authority
            .port_u16()
            .or(default_port)
            .ok_or_else(|| invalid(target, "the port is missing"))?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        if host.is_empty() {
            return Err(invalid(target, "the host is missing"));
        }
        Ok(Self {
            place: Place::Tcp(host.to_owned(), port),
            authority,
            wants_tls,
        })
    }

    /// The address that the target is, if it is one: of IP, or the path of a Unix socket.
    pub fn address(&self) -> Option<Address> {
        match &self.place {
            Place::Tcp(host, port) => {
                let ip = host.parse().ok()?;
                Some(Address::Tcp(SocketAddr::new(ip, *port)))
            }
            Place::Unix(path) => Some(Address::unix(Some(path))),
        }
    }

    /// The host, by name or address, and the port; none for a Unix socket.
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        match &self.place {
            Place::Tcp(host, port) => Some((host, *port)),
            Place::Unix(_) => None,
        }
    }

    /// Whether the target says that there is TLS, by `https://`, or that there is none, by `http://`.
    pub fn wants_tls(&self) -> Option<bool> {
        self.wants_tls
    }

    /// The same target, over TLS.
    #[must_use]
    pub fn over_tls(mut self) -> Self {
        self.wants_tls = Some(true);
        self
    }

    /// What goes into `:authority`, unless a call says otherwise.
    pub fn authority(&self) -> &http::uri::Authority {
        &self.authority
    }
}

fn invalid(target: &str, why: &str) -> Status {
    Status::invalid_argument(format!(
        "cannot connect to {target:?}: {why} (understood are host:port, http://host:port, https://host:port and unix:/path)"
    ))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Tcp(..) => f.write_str(self.authority.as_str()),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The address of one end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// The path of a Unix socket; none for a peer that has not bound its own.
    Unix(Option<PathBuf>),
    /// Neither: an in-memory connection, or one that a user brought.
    InMemory,
}

impl Address {
    /// The IP address and port, if this is TCP.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(addr) => Some(*addr),
            Self::Unix(_) | Self::InMemory => None,
        }
    }

    pub(crate) fn unix(path: Option<&Path>) -> Self {
        Self::Unix(path.map(Path::to_owned))
    }
}

/// As users write targets: `127.0.0.1:50051`, `unix:/path`, `in-memory`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(None) => f.write_str("unix:"),
            Self::InMemory => f.write_str("in-memory"),
        }
    }
}

/// The two ends of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub(crate) local: Address,
    pub(crate) remote: Address,
    pub(crate) tls: Option<TlsSession>,
}

impl Peer {
    /// Both ends in memory.
    pub fn in_memory() -> Self {
        Self {
            local: Address::InMemory,
            remote: Address::InMemory,
            tls: None,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_users_write_them() {
        let tcp = |host: &str, port| Some(Place::Tcp(host.to_owned(), port));
        // Without the feature it is not understood.
        let https = |host, port| tcp(host, port).filter(|_| cfg!(feature = "__tls"));
        let unix = |path: &str| Some(Place::Unix(path.into()));
        for (text, place) in [
            ("localhost:50051", tcp("localhost", 50051)),
            ("127.0.0.1:1", tcp("127.0.0.1", 1)),
            ("[::1]:50051", tcp("::1", 50051)),
            ("http://example.com", tcp("example.com", 80)),
            ("http://example.com:8080/", tcp("example.com", 8080)),
            ("unix:/tmp/a.sock", unix("/tmp/a.sock")),
            ("unix:///tmp/a.sock", unix("/tmp/a.sock")),
            ("unix:a.sock", unix("a.sock")),
            ("https://example.com:8443", https("example.com", 8443)),
            ("https://example.com/", https("example.com", 443)),
            ("localhost", None),
            ("", None),
            (":50051", None),
            ("unix:", None),
            ("ftp://example.com:21", None),
            ("http://user@example.com:1", None),
            ("host:notaport", None),
            ("host:99999", None),
        ] {
            let parsed = Target::parse(text);
            assert_eq!(
                parsed.as_ref().ok().map(|target| target.place.clone()),
                place,
                "{text}"
            );
            if let Err(status) = parsed {
                assert!(status.message().contains("host:port"), "{status}");
                let feature = status.message().contains("enable the feature `tls`");
                assert_eq!(feature, text.starts_with("https://"), "{status}");
            }
        }
    }
}
