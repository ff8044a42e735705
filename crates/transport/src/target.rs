//! Targets: the text that tells a channel where to connect.

use std::fmt;
use std::sync::Arc;

use trunkline_codec::Status;

use crate::address::{Address, after_scheme};
use crate::host_port::{HostPort, percent_decoded};
use crate::proxy::Proxy;

/// The port of a target that names none: the naming document's (grpc/doc/naming.md).
const DEFAULT_PORT: u16 = 443;

/// A server as a client names it.
///
/// The forms are `host:port`, `http://host:port`, `https://host:port`, `unix:/path` (also
/// `unix:///path`), on Linux `unix-abstract:name`, and for connectors `passthrough:///text`. The default port is
/// 80 for `http://` and 443 otherwise. An IPv6 address can have a zone, `[fe80::1%eth0]:port`, or in URI
/// form `[fe80::1%25eth0]:port`. After a scheme, a number is decoded as in a URI; in `host:port` it is
/// not: `%251` is interface 1 after a scheme, and interface 251 without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    kind: TargetKind,
    authority: http::uri::Authority,
    wants_tls: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TargetKind {
    /// The port of it is set.
    Tcp(HostPort, u16),
    /// As `Tcp`, through a proxy.
    Proxied(HostPort, u16, Arc<Proxy>),
    Local(Address),
}

impl Target {
    /// Parses a target.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the text is not a target; the message names the problem and the valid forms.
    pub fn parse(target: &str) -> Result<Self, Status> {
        if let Some(local) = Address::local(target) {
            return Ok(Self {
                kind: TargetKind::Local(local.map_err(|why| invalid(target, &why))?),
                authority: http::uri::Authority::from_static("localhost"),
                wants_tls: None,
            });
        }
        if let Some(text) = after_scheme(target, "passthrough:") {
            return Self::passthrough(text).map_err(|why| invalid(target, &why));
        }
        let (rest, wants_tls, default_port) = match (
            after_scheme(target, "http://"),
            after_scheme(target, "https://"),
        ) {
            (Some(rest), _) => (rest, Some(false), 80),
            (_, Some(rest)) => (rest, Some(true), 443),
            (None, None) => (target, None, DEFAULT_PORT),
        };
        if wants_tls == Some(true) && !cfg!(feature = "__tls") {
            return Err(invalid(
                target,
                "this build has no TLS: enable the feature `tls-ring` or `tls-aws-lc` of trunkline",
            ));
        }
        if let (None, Some((scheme, _))) = (wants_tls, target.split_once("://")) {
            // naming.md, "Name Syntax": a text whose scheme is unknown is a name in DNS.
            return Err(invalid(
                target,
                &format!(
                    "the scheme {scheme:?} is unknown, and a name in DNS is of the form host:port"
                ),
            ));
        }
        let rest = match wants_tls {
            None => rest,
            Some(_) => rest.strip_suffix('/').unwrap_or(rest),
        };
        let host = match wants_tls {
            None => HostPort::parse(rest),
            Some(_) => HostPort::parse_uri(rest),
        };
        let (kind, authority) =
            Self::tcp(host, default_port).map_err(|why| invalid(target, &why))?;
        Ok(Self {
            kind,
            authority,
            wants_tls,
        })
    }

    /// Reads the part behind `passthrough:`, which is not resolved. An IP address with a port needs no connector.
    fn passthrough(text: &str) -> Result<Self, String> {
        let text = match text.strip_prefix("//") {
            None => text,
            Some(rest) => rest
                .strip_prefix('/')
                .ok_or("the text behind // has to begin with /")?,
        };
        let text = String::from_utf8(percent_decoded(text)?);
        let text = text.map_err(|_| "the text is not UTF-8".to_owned())?;
        if text.is_empty() {
            return Err("the text is empty".to_owned());
        }
        let address = match text.parse() {
            Ok(address) => Address::Tcp(address),
            Err(_) => Address::Passthrough(text.clone()),
        };
        // http has no authority with percent-encoding, which naming.md asks for here.
        let authority = text.parse().ok().filter(|_| !text.contains('@'));
        Ok(Self {
            kind: TargetKind::Local(address),
            authority: authority.unwrap_or_else(|| http::uri::Authority::from_static("localhost")),
            wants_tls: None,
        })
    }

    /// Reads `host[:port]`, a part of the URI `target`, which messages name. Without a port it is 443.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn parse_host(target: &str, host: &str) -> Result<Self, Status> {
        let (kind, authority) = Self::tcp(HostPort::parse_uri(host), DEFAULT_PORT)
            .map_err(|why| invalid(target, &why))?;
        Ok(Self {
            kind,
            authority,
            wants_tls: None,
        })
    }

    fn tcp(
        host: Result<HostPort, String>,
        default_port: u16,
    ) -> Result<(TargetKind, http::uri::Authority), String> {
        let mut host = host?;
        let authority = host.authority();
        let authority = authority.parse();
        let authority = authority.map_err(|_| "it is not of the form host:port".to_owned())?;
        let port = *host.port.get_or_insert(default_port);
        Ok((TargetKind::Tcp(host, port), authority))
    }

    /// Returns the same target through a proxy, which resolves its name. Unix sockets have no proxy.
    #[must_use]
    pub fn through(mut self, proxy: Arc<Proxy>) -> Self {
        self.kind = match self.kind {
            TargetKind::Tcp(host, port) | TargetKind::Proxied(host, port, _) => {
                TargetKind::Proxied(host, port, proxy)
            }
            TargetKind::Local(address) => TargetKind::Local(address),
        };
        self
    }

    /// Returns true if connections go through a proxy.
    pub fn is_proxied(&self) -> bool {
        matches!(self.kind, TargetKind::Proxied(..))
    }

    /// Returns the proxy, and the server as the request for a tunnel names it.
    pub(crate) fn tunnel(&self) -> Option<(&Proxy, String)> {
        match &self.kind {
            TargetKind::Proxied(host, _, proxy) => Some((&**proxy, host.authority())),
            TargetKind::Tcp(..) | TargetKind::Local(_) => None,
        }
    }

    /// Returns the host to connect to, which is the proxy if there is one, and its port.
    fn next_host(&self) -> Option<(&HostPort, u16)> {
        match &self.kind {
            TargetKind::Tcp(host, port) => Some((host, *port)),
            TargetKind::Proxied(_, _, proxy) => Some((&proxy.host, proxy.port)),
            TargetKind::Local(_) => None,
        }
    }

    /// Returns the host to look up and its port: that of the proxy if there is one. `None` for a Unix socket.
    pub fn lookup_host(&self) -> Option<(&str, u16)> {
        let (host, port) = self.next_host()?;
        Some((&host.host, port))
    }

    /// Returns the address to connect to if no lookup is needed: an IP address or a Unix socket.
    pub fn address(&self) -> Option<Address> {
        match &self.kind {
            TargetKind::Local(address) => Some(address.clone()),
            TargetKind::Tcp(..) | TargetKind::Proxied(..) => {
                let (host, port) = self.next_host()?;
                host.address(port).map(Address::Tcp)
            }
        }
    }

    /// Returns the host, a name or an address, and the port; `None` for a Unix socket.
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        match &self.kind {
            TargetKind::Tcp(host, port) | TargetKind::Proxied(host, port, _) => {
                Some((&host.host, *port))
            }
            TargetKind::Local(_) => None,
        }
    }

    /// Returns the IPv6 address with its zone, if it has one. Only the system can resolve the number of an
    /// interface: see [`lookup`](crate::lookup).
    pub fn zoned_host(&self) -> Option<String> {
        let (host, _) = self.next_host()?;
        host.zone.is_some().then(|| host.to_resolve())
    }

    /// Returns true for `https://`, false for `http://`, and `None` for other targets.
    pub fn wants_tls(&self) -> Option<bool> {
        self.wants_tls
    }

    /// Returns the same target with TLS.
    #[must_use]
    pub fn over_tls(mut self) -> Self {
        self.wants_tls = Some(true);
        self
    }

    /// Returns the default `:authority`, without a zone, which is meaningful on this machine only.
    pub fn authority(&self) -> &http::uri::Authority {
        &self.authority
    }
}

fn invalid(target: &str, why: &str) -> Status {
    Status::invalid_argument(format!(
        "cannot connect to {target:?}: {why} (understood are host:port, http://host:port, https://host:port, dns:///host:port, ipv4:address:port, ipv6:[address]:port, unix:/path, unix-abstract:name and passthrough:///text)"
    ))
}

/// With its port, also where it was not written.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            TargetKind::Tcp(host, _) => host.fmt(f),
            TargetKind::Proxied(host, _, proxy) => write!(f, "{host} (through the proxy {proxy})"),
            TargetKind::Local(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::UNIX_NAME_MAX;

    /// A target as it is shown, the address that it is, and its authority.
    fn read(text: &str) -> Result<(String, Option<String>, String), Status> {
        let target = Target::parse(text)?;
        let address = target.address().map(|it| it.to_string());
        Ok((target.to_string(), address, target.authority().to_string()))
    }

    #[test]
    fn targets_are_read_as_users_write_them() {
        let long = format!("unix:/{}", "a".repeat(UNIX_NAME_MAX));
        for (text, shown, address, authority) in [
            ("localhost:50051", "localhost:50051", "", "localhost:50051"),
            ("LocalHost", "LocalHost:443", "", "LocalHost"),
            ("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1"),
            ("10.0.0.1", "10.0.0.1:443", "10.0.0.1:443", "10.0.0.1"),
            ("[::1]:50051", "[::1]:50051", "[::1]:50051", "[::1]:50051"),
            ("[::1]", "[::1]:443", "[::1]:443", "[::1]"),
            ("[fe80::1%lo]:5", "[fe80::1%lo]:5", "", "[fe80::1]:5"),
            ("[fe80::1%25lo]:5", "[fe80::1%lo]:5", "", "[fe80::1]:5"),
            (
                "[fe80::1%7]:5",
                "[fe80::1%7]:5",
                "[fe80::1%7]:5",
                "[fe80::1]:5",
            ),
            ("http://[fe80::1%25lo]", "[fe80::1%lo]:80", "", "[fe80::1]"),
            (
                "[fe80::1%251]:5",
                "[fe80::1%251]:5",
                "[fe80::1%251]:5",
                "[fe80::1]:5",
            ),
            (
                "http://[fe80::1%251]:5",
                "[fe80::1%1]:5",
                "[fe80::1%1]:5",
                "[fe80::1]:5",
            ),
            ("http://example.com", "example.com:80", "", "example.com"),
            ("http://a.b:8080/", "a.b:8080", "", "a.b:8080"),
            (
                "unix:/tmp/a.sock",
                "unix:/tmp/a.sock",
                "unix:/tmp/a.sock",
                "localhost",
            ),
            (
                "unix:///tmp/a.sock",
                "unix:/tmp/a.sock",
                "unix:/tmp/a.sock",
                "localhost",
            ),
            ("unix:a.sock", "unix:a.sock", "unix:a.sock", "localhost"),
            (
                "unix:/a%20b%25",
                "unix:/a b%25",
                "unix:/a b%25",
                "localhost",
            ),
            (
                &long[..long.len() - 1],
                &long[..long.len() - 1],
                &long[..long.len() - 1],
                "localhost",
            ),
        ] {
            let address = (!address.is_empty()).then(|| address.to_owned());
            let expected = (shown.to_owned(), address, authority.to_owned());
            assert_eq!(read(text).expect("a target"), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_target_is_said() {
        let long = format!("unix:/{}", "a".repeat(UNIX_NAME_MAX));
        let too_long = format!("the path has {} bytes", UNIX_NAME_MAX + 1);
        for (text, why) in [
            ("", "the host is missing"),
            (":50051", "the host is missing"),
            (
                "localhost:70000",
                "the port 70000 is out of range: the largest is 65535",
            ),
            ("http://localhost:70000", "the port 70000 is out of range"),
            ("[::1]:70000", "the port 70000 is out of range"),
            ("host:notaport", "the port \"notaport\" is not a number"),
            ("a b:1", "it is not of the form host:port"),
            ("100%:1", "it is not of the form host:port"),
            ("localhost:1/path", "the port \"1/path\" is not a number"),
            ("localhost/path", "it is not of the form host:port"),
            (
                "ftp://example.com:21",
                "the scheme \"ftp\" is unknown, and a name in DNS is of the form host:port",
            ),
            ("passthrough:", "the text is empty"),
            (
                "passthrough://host",
                "the text behind // has to begin with /",
            ),
            (
                "http://user@example.com:1",
                "user names in an address are not supported",
            ),
            ("unix:", "the path is empty"),
            ("unix://", "a path behind // has to begin with /"),
            ("unix://a.sock", "a path behind // has to begin with /"),
            (
                "unix:/100%",
                "a % has to be followed by two hexadecimal digits",
            ),
            ("unix:%00a", "the path has a NUL byte"),
            (&long, &too_long),
        ] {
            let status = read(text).expect_err("no target");
            let message = status.message();
            assert!(
                message.starts_with(&format!("cannot connect to {text:?}: ")),
                "{message}"
            );
            assert!(message.contains(why), "{why}: {message}");
            assert!(message.contains("understood are host:port"), "{message}");
        }
    }

    #[test]
    fn https_is_understood_where_there_is_tls() {
        for (text, shown) in [
            ("https://example.com:8443", "example.com:8443"),
            ("https://example.com/", "example.com:443"),
            ("https://[fe80::1%25lo]:1", "[fe80::1%lo]:1"),
            ("https://[fe80::1%lo]", "[fe80::1%lo]:443"),
        ] {
            match (cfg!(feature = "__tls"), read(text)) {
                (true, read) => assert_eq!(read.expect("a target").0, shown),
                (false, read) => {
                    let status = read.expect_err("there is no TLS");
                    assert!(
                        status
                            .message()
                            .contains("enable the feature `tls-ring` or `tls-aws-lc` of trunkline"),
                        "{status}"
                    );
                }
            }
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn a_socket_without_a_file_is_named_by_bytes() {
        for (text, name) in [
            ("unix-abstract:greeter", Ok(&b"greeter"[..])),
            ("unix-abstract:%00a%ffb%25", Ok(b"\0a\xffb%")),
            ("unix-abstract:///greeter", Ok(b"/greeter")),
            ("unix-abstract:", Err("the name is empty")),
            (
                "unix-abstract://greeter",
                Err("a name behind // has to begin with /"),
            ),
        ] {
            match (name, Target::parse(text)) {
                (Ok(name), parsed) => {
                    let target = parsed.expect("a target");
                    let address = Address::UnixAbstract(name.to_owned());
                    assert_eq!(target.address(), Some(address.clone()));
                    assert_eq!(target.authority(), "localhost");
                    assert_eq!(Address::local(&target.to_string()), Some(Ok(address)));
                }
                (Err(why), parsed) => {
                    let status = parsed.expect_err("no target");
                    assert!(status.message().contains(why), "{status}");
                }
            }
        }
    }
}
