//! The choice of a proxy for each target (gRFC A1).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use trunkline_transport::{Proxy, Target};

/// The environment variables with the URL of a proxy; the first that is not empty counts. `HTTP_PROXY` is missing,
/// because a client of a CGI program can set it.
const PROXY_VARIABLES: [&str; 3] = ["grpc_proxy", "HTTPS_PROXY", "https_proxy"];
/// The environment variables with the exceptions; the first that is not empty counts.
const EXCEPTION_VARIABLES: [&str; 3] = ["no_grpc_proxy", "NO_PROXY", "no_proxy"];

/// Returns the proxy for a host and a port.
type Choose = dyn Fn(&str, u16) -> Option<Proxy> + Send + Sync;

/// The proxies of a channel.
#[derive(Clone, Default)]
pub(crate) enum Proxies {
    /// Those of the environment.
    #[default]
    Environment,
    /// Those that a function returns for a host and a port.
    Chosen(Arc<Choose>),
    None,
}

impl Proxies {
    pub(crate) fn without_environment_if(self, has_own: bool) -> Self {
        match self {
            Self::Environment if has_own => Self::None,
            proxies => proxies,
        }
    }

    /// Returns the targets, each through its proxy.
    pub(crate) fn apply(&self, targets: Vec<Arc<Target>>) -> Vec<Arc<Target>> {
        let choose: Arc<Choose> = match self {
            Self::None => return targets,
            Self::Chosen(choose) => choose.clone(),
            Self::Environment => {
                let environment = Environment::read(|name| std::env::var(name).ok());
                Arc::new(move |host, port| environment.proxy_for(host, port))
            }
        };
        let through = |target: Arc<Target>| {
            let Some((host, port)) = target.host_and_port() else {
                return target;
            };
            let Some(proxy) = choose(host, port) else {
                return target;
            };
            let target = Arc::unwrap_or_clone(target).through(Arc::new(proxy));
            tracing::debug!(target: "trunkline::channel", to = %target, "uses a proxy");
            Arc::new(target)
        };
        targets.into_iter().map(through).collect()
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment => "Environment",
            Self::Chosen(_) => "Chosen",
            Self::None => "None",
        })
    }
}

/// The proxy of the environment, and its exceptions.
#[derive(Debug)]
struct Environment {
    proxy: Option<Proxy>,
    exceptions: Vec<Exception>,
}

/// Targets without a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    /// The addresses that begin with as many bits of this one.
    Network(IpAddr, u8),
    Host(HostName, Option<u16>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostName {
    Ip(IpAddr),
    /// A domain and all below it.
    Domain(String),
}

impl Environment {
    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: [&str; 3]| {
            let values = names.into_iter().filter_map(&variable);
            let mut values = values.map(|it| it.trim().to_owned());
            values.find(|it| !it.is_empty()).unwrap_or_default()
        };
        let (url, exceptions) = (first(PROXY_VARIABLES), first(EXCEPTION_VARIABLES));
        let proxy = match url.is_empty() {
            true => None,
            false => Proxy::parse(&url)
                .inspect_err(|status| {
                    let reason = status.message();
                    tracing::warn!(target: "trunkline::channel", reason, "the proxy of the environment is ignored");
                })
                .ok(),
        };
        Self {
            proxy,
            exceptions: exceptions.split(',').filter_map(Exception::parse).collect(),
        }
    }

    fn proxy_for(&self, host: &str, port: u16) -> Option<Proxy> {
        let proxy = self.proxy.as_ref()?;
        let host = HostName::parse(host);
        let is_excepted =
            host.is_local() || self.exceptions.iter().any(|it| it.covers(&host, port));
        (!is_excepted).then(|| proxy.clone())
    }
}

impl HostName {
    fn parse(host: &str) -> Self {
        let literal = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        match literal.unwrap_or(host).parse::<IpAddr>() {
            Ok(ip) => Self::Ip(ip.to_canonical()),
            Err(_) => Self::Domain(host.trim_end_matches('.').to_ascii_lowercase()),
        }
    }

    /// Returns true for names and addresses of this machine.
    fn is_local(&self) -> bool {
        match self {
            Self::Ip(ip) => ip.is_loopback() || ip.is_unspecified(),
            Self::Domain(name) => is_below(name, "localhost"),
        }
    }
}

fn is_below(name: &str, domain: &str) -> bool {
    let above = name.strip_suffix(domain);
    above.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl Exception {
    /// Parses an entry of the list; `None` if it is empty or not valid.
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim();
        if entry == "*" {
            return Some(Self::All);
        }
        if let Some((ip, bits)) = entry.split_once('/') {
            let (ip, bits): (IpAddr, u8) = (ip.parse().ok()?, bits.parse().ok()?);
            let max = if ip.is_ipv4() { 32 } else { 128 };
            return (bits <= max).then_some(Self::Network(ip, bits));
        }
        if let Ok(address) = entry.parse::<SocketAddr>() {
            let ip = HostName::Ip(address.ip().to_canonical());
            return Some(Self::Host(ip, Some(address.port())));
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') => (host, Some(port.parse().ok()?)),
            _ => (entry, None),
        };
        let host = host.strip_prefix('*').unwrap_or(host);
        let host = host.strip_prefix('.').unwrap_or(host);
        (!host.is_empty()).then(|| Self::Host(HostName::parse(host), port))
    }

    fn covers(&self, host: &HostName, port: u16) -> bool {
        match (self, host) {
            (Self::All, _) => true,
            (Self::Network(network, bits), HostName::Ip(ip)) => is_in_network(*ip, *network, *bits),
            (Self::Host(_, Some(other)), _) if *other != port => false,
            (Self::Host(HostName::Ip(ip), _), HostName::Ip(host)) => ip == host,
            (Self::Host(HostName::Domain(domain), _), HostName::Domain(name)) => {
                is_below(name, domain)
            }
            (Self::Network(..) | Self::Host(..), _) => false,
        }
    }
}

fn is_in_network(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    let differs = match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            let differs = ip.to_bits() ^ network.to_bits();
            differs
                .checked_shr(32 - u32::from(bits))
                .unwrap_or(0)
                .into()
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => {
            let differs = ip.to_bits() ^ network.to_bits();
            differs.checked_shr(128 - u32::from(bits)).unwrap_or(0)
        }
        _ => return false,
    };
    differs == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::read(|name| {
            let found = variables.iter().find(|(it, _)| *it == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_first_variable_that_is_not_empty_counts() {
        let all = [
            ("grpc_proxy", "http://a:1"),
            ("HTTPS_PROXY", "http://b:2"),
            ("https_proxy", "c:3"),
            ("HTTP_PROXY", "http://d:4"),
            ("http_proxy", "http://e:5"),
            ("all_proxy", "http://f:6"),
        ];
        let empty = [("grpc_proxy", " "), ("HTTPS_PROXY", "http://b:2")];
        let socks = [("HTTPS_PROXY", "socks5://b:2")];
        for (variables, proxy) in [
            (&all[..], Some("a:1")),
            (&all[1..], Some("b:2")),
            (&all[2..], Some("c:3")),
            (&all[3..], None),
            (&empty[..], Some("b:2")),
            (&socks[..], None),
            (&[], None),
        ] {
            let chosen = environment(variables).proxy_for("example.com", 443);
            assert_eq!(
                chosen.map(|it| it.to_string()).as_deref(),
                proxy,
                "{variables:?}"
            );
        }
        let proxy = ("grpc_proxy", "http://a:1");
        for (name, other) in [("no_grpc_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")] {
            let both = environment(&[proxy, (name, "x"), (other, "example.com")]);
            assert!(both.proxy_for("example.com", 443).is_some(), "{name}");
        }
    }

    #[test]
    fn exceptions_are_hosts_with_their_subdomains_addresses_networks_and_ports() {
        for (exceptions, without_proxy, with_proxy) in [
            (
                "",
                "localhost:1 LOCALHOST.:1 a.localhost:1 127.0.0.1:1 127.9.9.9:1 [::1]:1 [::ffff:127.0.0.1]:1 0.0.0.0:1",
                "notlocalhost:1 localhost.com:1 10.0.0.1:1 [::2]:1",
            ),
            (
                "foo.com",
                "foo.com:1 FOO.com.:2 a.foo.com:1 b.a.foo.com:1",
                "barfoo.com:1 foo.com.uk:1 com:1",
            ),
            (".foo.com", "foo.com:1 a.foo.com:1", "barfoo.com:1"),
            ("*.foo.com", "foo.com:1 a.foo.com:1", "barfoo.com:1"),
            ("foo.com:80", "foo.com:80 a.foo.com:80", "foo.com:81"),
            ("*", "foo.com:1 10.0.0.1:1 [2001::1]:1", ""),
            ("*,foo.com", "bar.com:1", ""),
            ("10.0.0.1", "10.0.0.1:1", "10.0.0.2:1 10.0.0.1.com:1"),
            ("10.0.0.1:80", "10.0.0.1:80", "10.0.0.1:81"),
            (
                "2001::1,[2001::2],[2001::3]:80",
                "[2001::1]:1 [2001::2]:1 [2001::3]:80",
                "[2001::3]:81 [2001::4]:1",
            ),
            (
                "10.0.0.0/8",
                "10.255.0.1:1 [::ffff:10.0.0.1]:1",
                "11.0.0.1:1 a.10.0.0.0:1 [a00::]:1",
            ),
            ("10.0.0.1/32", "10.0.0.1:1", "10.0.0.2:1"),
            ("0.0.0.0/0", "8.8.8.8:1", "[2001::1]:1"),
            ("2001::/16", "[2001:ffff::1]:1", "[2002::1]:1 32.1.0.0:1"),
            ("::/0", "[2001::1]:1", "8.8.8.8:1"),
            (" foo.com , bar.com,,", "foo.com:1 bar.com:1", "baz.com:1"),
            (
                "10.0.0.0/33,foo.com:x,.,a/b,:80",
                "",
                "10.0.0.1:1 foo.com:1 a:80",
            ),
        ] {
            let environment = environment(&[("https_proxy", "p:1"), ("no_proxy", exceptions)]);
            for (targets, is_proxied) in [(without_proxy, false), (with_proxy, true)] {
                for target in targets.split_whitespace() {
                    let (host, port) = target.rsplit_once(':').expect("a port");
                    let port = port.parse().expect("a number");
                    let proxy = environment.proxy_for(host, port);
                    assert_eq!(proxy.is_some(), is_proxied, "{target} with {exceptions:?}");
                }
            }
        }
    }
}
