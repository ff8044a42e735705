//! The targets of a channel, as users write them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use trunkline_codec::Status;
use trunkline_transport::{Address, Target};

use super::resolver::AnyResolver;
use super::target_uri::{TargetUri, is_scheme, percent_decoded};

/// The targets of a channel: one server, or a list of equivalent servers in order of preference.
///
/// A target is text or an address. The text has one of these forms, most of which grpc/doc/naming.md defines:
///
/// | text | connects to |
/// | --- | --- |
/// | `host:port`, `dns:///host:port` | a host name or an IP address |
/// | `http://host:port`, `https://host:port` | the same, without and with TLS |
/// | `ipv4:a:port,b:port`, `ipv6:[a]:port,[b]:port` | a list of IP addresses |
/// | `unix:/path` | a Unix socket |
/// | `unix-abstract:name` | a Unix socket in the abstract namespace of Linux |
/// | `scheme:path`, `scheme://authority/path` | what a [`Resolver`](crate::Resolver) with this scheme finds, if the channel has one |
/// | `dns://10.0.0.2:53/host:port` | a host name that this DNS server knows; needs the feature `hickory` |
/// | `passthrough:///text` | whatever the [connector](crate::ChannelSettings::set_connector) makes of the text |
///
/// A target of a `Resolver` must be the only one of its channel. Targets other than `http://` and `https://`
/// use TLS only if the channel has TLS settings. If the port is omitted, it is 80 for `http://` and 443
/// otherwise.
///
/// An IPv6 address can have a zone (interface). In a target with a scheme, write its `%` as `%25`:
/// `http://[fe80::1%25eth0]:80`. Without a scheme, both `%eth0` and `%25eth0` work; but `%251` is the
/// interface with number 251, not 1.
///
/// ```
/// use std::net::SocketAddr;
/// # mod trunkline { pub use trunkline_channel as channel; }
/// use trunkline::channel::Targets;
///
/// let address = SocketAddr::from(([10, 0, 0, 1], 50051));
/// assert_eq!(Targets::from(address).to_string(), "10.0.0.1:50051");
/// assert_eq!(Targets::from("dns:///example.com").to_string(), "dns:///example.com");
/// assert_eq!(Targets::from(["a:1", "b:2"]).to_string(), "a:1, b:2");
/// ```
#[derive(Clone, Debug)]
pub struct Targets(Vec<TargetName>);

/// One target of a list: see [`Targets`].
///
/// ```
/// # mod trunkline { pub use trunkline_channel as channel; pub use trunkline_transport::Address; }
/// use trunkline::Address;
/// use trunkline::channel::{TargetName, Targets};
///
/// let first = Address::Unix(Some("/run/a.sock".into()));
/// let targets = Targets::from([TargetName::from(first), TargetName::from("b:2")]);
/// assert_eq!(targets.to_string(), "unix:/run/a.sock, b:2");
/// ```
#[derive(Clone, Debug)]
pub struct TargetName(Name);

#[derive(Clone, Debug)]
enum Name {
    Text(String),
    /// The address of no socket.
    NoSocket(Address),
}

/// A target, and the DNS server that knows it.
#[derive(Debug)]
pub(crate) struct ParsedTarget {
    pub(crate) target: Arc<Target>,
    /// `None` for those of the system.
    pub(crate) dns_server: Option<SocketAddr>,
}

impl From<Target> for ParsedTarget {
    fn from(target: Target) -> Self {
        Self {
            target: Arc::new(target),
            dns_server: None,
        }
    }
}

impl Targets {
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the list is empty or contains a target that cannot be parsed.
    pub(crate) fn parse(&self) -> Result<Vec<ParsedTarget>, Status> {
        let mut targets = Vec::new();
        for TargetName(name) in &self.0 {
            match name {
                Name::Text(text) => parse_into(text, &mut targets)?,
                Name::NoSocket(address) => {
                    return Err(Status::invalid_argument(format!(
                        "cannot connect to {address}: this address does not name a socket"
                    )));
                }
            }
        }
        match targets.is_empty() {
            false => Ok(targets),
            true => Err(Status::invalid_argument(
                "cannot connect: the list of targets is empty",
            )),
        }
    }
}

impl Targets {
    /// Returns the target in URI form and its resolver, if it has a scheme of `resolvers`. The last resolver counts.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the target is not valid, or is one of several.
    pub(crate) fn uri_for(
        &self,
        resolvers: &[AnyResolver],
    ) -> Result<Option<(TargetUri, AnyResolver)>, Status> {
        for TargetName(name) in &self.0 {
            let Name::Text(text) = name else {
                continue;
            };
            let Some((scheme, _)) = text.split_once(':') else {
                continue;
            };
            let Some(resolver) = resolvers.iter().rev().find(|it| it.has_scheme(scheme)) else {
                continue;
            };
            if self.0.len() > 1 {
                return Err(Status::invalid_argument(format!(
                    "cannot connect to {self}: {text:?} has a resolver, and must be the only target; let the resolver return the other servers"
                )));
            }
            return Ok(Some((TargetUri::parse(text)?, resolver.clone())));
        }
        Ok(None)
    }
}

fn parse_into(text: &str, targets: &mut Vec<ParsedTarget>) -> Result<(), Status> {
    let scheme = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme));
    let (scheme, rest) = scheme.unwrap_or(("", text));
    let literals = match scheme.to_ascii_lowercase().as_str() {
        "dns" => {
            targets.push(dns_target(text, rest)?);
            return Ok(());
        }
        "ipv4" => Some(false),
        "ipv6" => Some(true),
        _ => None,
    };
    let Some(is_v6) = literals else {
        targets.push(Target::parse(text)?.into());
        return Ok(());
    };
    // naming.md: `ipv4:address[:port][,address[:port],...]`, and as much for ipv6.
    let list = rest.strip_prefix("///").unwrap_or(rest);
    for part in list.split(',') {
        targets.push(literal(text, part, is_v6)?.into());
    }
    Ok(())
}

/// Parses the part behind `dns:`. naming.md: `dns:[//authority/]host[:port]`, where the authority is a DNS server.
fn dns_target(text: &str, rest: &str) -> Result<ParsedTarget, Status> {
    let (server, name) = match rest.strip_prefix("//") {
        None => ("", rest),
        Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
    };
    let invalid =
        |why: &str| Status::invalid_argument(format!("cannot connect to {text:?}: {why}"));
    // The zone in brackets is decoded with the address.
    let name = match name.contains('[') {
        true => name.into(),
        false => percent_decoded(name)
            .map(|it| String::from_utf8_lossy(&it).into_owned())
            .ok_or_else(|| invalid("a % has to be followed by two hexadecimal digits"))?,
    };
    let dns_server = match server.is_empty() {
        true => None,
        false if cfg!(feature = "hickory") => Some(dns_server(server).ok_or_else(|| {
            invalid("the DNS server has to be an IP address, as in dns://10.0.0.2:53/host:port")
        })?),
        false => {
            return Err(invalid(
                "this build cannot ask a certain DNS server: enable the feature `hickory` of trunkline, write dns:///host:port, or set ChannelBuilder::lookup",
            ));
        }
    };
    Ok(ParsedTarget {
        target: Arc::new(Target::parse_host(text, &name)?),
        dns_server,
    })
}

/// Parses an IP address with or without a port, which is 53 by default.
fn dns_server(text: &str) -> Option<SocketAddr> {
    let unbracketed = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let address = unbracketed.unwrap_or(text).parse().ok();
    let address = address.map(|ip: IpAddr| SocketAddr::new(ip, 53));
    address.or_else(|| text.parse().ok())
}

/// An address of a list; one of IPv6 needs brackets only where a port follows.
fn literal(text: &str, part: &str, is_v6: bool) -> Result<Target, Status> {
    let address = part.split_once('%').map_or(part, |(address, _)| address);
    let target = match is_v6 && address.parse::<Ipv6Addr>().is_ok() {
        true => Target::parse_host(text, &format!("[{part}]")),
        false => Target::parse_host(text, part),
    }?;
    let ip = target.host_and_port().and_then(|(ip, _)| ip.parse().ok());
    match ip.is_some_and(|ip: IpAddr| ip.is_ipv6() == is_v6) {
        true => Ok(target),
        false => {
            let family = if is_v6 { "IPv6" } else { "IPv4" };
            Err(Status::invalid_argument(format!(
                "cannot connect to {text:?}: {part:?} is not an {family} address with a port"
            )))
        }
    }
}

impl<T: Into<TargetName>> From<T> for Targets {
    fn from(target: T) -> Self {
        Self(vec![target.into()])
    }
}

impl<T: Into<TargetName> + Clone> From<&[T]> for Targets {
    fn from(targets: &[T]) -> Self {
        targets.iter().cloned().collect()
    }
}

impl<T: Into<TargetName> + Clone> From<&Vec<T>> for Targets {
    fn from(targets: &Vec<T>) -> Self {
        targets.iter().cloned().collect()
    }
}

impl<T: Into<TargetName> + Clone, const N: usize> From<&[T; N]> for Targets {
    fn from(targets: &[T; N]) -> Self {
        targets.iter().cloned().collect()
    }
}

impl<T: Into<TargetName>, const N: usize> From<[T; N]> for Targets {
    fn from(targets: [T; N]) -> Self {
        targets.into_iter().collect()
    }
}

impl<T: Into<TargetName>> From<Vec<T>> for Targets {
    fn from(targets: Vec<T>) -> Self {
        targets.into_iter().collect()
    }
}

impl<T: Into<TargetName>> FromIterator<T> for Targets {
    fn from_iter<I: IntoIterator<Item = T>>(targets: I) -> Self {
        Self(targets.into_iter().map(Into::into).collect())
    }
}

impl From<&str> for TargetName {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<&String> for TargetName {
    fn from(text: &String) -> Self {
        text.clone().into()
    }
}

impl From<&&str> for TargetName {
    fn from(text: &&str) -> Self {
        (*text).into()
    }
}

impl From<String> for TargetName {
    fn from(text: String) -> Self {
        Self(Name::Text(text))
    }
}

impl From<SocketAddr> for TargetName {
    fn from(address: SocketAddr) -> Self {
        address.to_string().into()
    }
}

impl From<&SocketAddr> for TargetName {
    fn from(address: &SocketAddr) -> Self {
        (*address).into()
    }
}

impl From<&Address> for TargetName {
    fn from(address: &Address) -> Self {
        match address {
            Address::Unix(None) | Address::InMemory => Self(Name::NoSocket(address.clone())),
            _ => address.to_string().into(),
        }
    }
}

impl From<Address> for TargetName {
    fn from(address: Address) -> Self {
        (&address).into()
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Name::Text(text) => f.write_str(text),
            Name::NoSocket(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, target) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}{target}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_schemes_of_the_naming_document_are_read() {
        for (targets, wanted) in [
            (Targets::from("a:1"), Some("a:1")),
            (Targets::from(["a:1", "b:2"]), Some("a:1 b:2")),
            (Targets::from(vec!["a:1".to_owned()]), Some("a:1")),
            (Targets::from("dns:a:1"), Some("a:1")),
            (Targets::from("dns:///a:1"), Some("a:1")),
            (Targets::from("dns:a"), Some("a:443")),
            (
                Targets::from("dns:///[fe80::1%25lo]"),
                Some("[fe80::1%lo]:443"),
            ),
            (
                Targets::from(["dns:[fe80::1%251]", "ipv6:fe80::2%251", "[fe80::3%251]"]),
                Some("[fe80::1%1]:443 [fe80::2%1]:443 [fe80::3%251]:443"),
            ),
            (
                Targets::from("ipv4:1.2.3.4,1.2.3.5:6"),
                Some("1.2.3.4:443 1.2.3.5:6"),
            ),
            (Targets::from("ipv4:///1.2.3.4"), Some("1.2.3.4:443")),
            (
                Targets::from("ipv6:[::1],::2,fe80::3%25lo,[fe80::4%lo]:5"),
                Some("[::1]:443 [::2]:443 [fe80::3%lo]:443 [fe80::4%lo]:5"),
            ),
            (
                Targets::from("ipv4:1.2.3.4:5,1.2.3.5:6"),
                Some("1.2.3.4:5 1.2.3.5:6"),
            ),
            (
                Targets::from("ipv6:[::1]:5,[::2]:6"),
                Some("[::1]:5 [::2]:6"),
            ),
            (
                Targets::from(["unix:/a", "http://b:2"]),
                Some("unix:/a b:2"),
            ),
            (
                Targets::from(SocketAddr::from(([1, 2, 3, 4], 5))),
                Some("1.2.3.4:5"),
            ),
            (
                Targets::from(&[Address::Tcp("[::1]:5".parse().unwrap())]),
                Some("[::1]:5"),
            ),
            (
                Targets::from(&Address::Unix(Some("/a b".into()))),
                Some("unix:/a b"),
            ),
            (Targets::from(Address::Unix(None)), None),
            (Targets::from([&Address::InMemory]), None),
            (Targets::from("dns:unix:/a"), None),
            (Targets::from("dns:http://a"), None),
            (Targets::from("ipv4:a:1"), None),
            (Targets::from("ipv4:[::1]:1"), None),
            (Targets::from("ipv6:1.2.3.4:1"), None),
            (Targets::from("ipv4:1.2.3.4:70000"), None),
            (Targets::from("ipv4:1.2.3.4:5,"), None),
            (Targets::from("ipv4:unix:/a"), None),
            (Targets::from(["a:1", "unix:"]), None),
            (Targets::from(Vec::<String>::new()), None),
        ] {
            let parsed = targets.parse();
            let names = parsed.as_ref().ok().map(|parsed| {
                let names: Vec<_> = parsed.iter().map(|it| it.target.to_string()).collect();
                names.join(" ")
            });
            assert_eq!(names.as_deref(), wanted, "{targets}");
            if let Err(status) = parsed {
                assert!(status.message().starts_with("cannot connect"), "{status}");
            }
        }
    }
}
