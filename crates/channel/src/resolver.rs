//! From the names of targets to addresses.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::JoinSet;
use trunkline_codec::Status;
use trunkline_transport::{Address, Target};

use crate::endpoint::Endpoint;

/// Where the addresses of a name come from; the system's resolver by default.
///
/// It is asked when the channel first connects, and again when a connection is lost or cannot be
/// made, not more often than every 30 s (`resolve_interval`). What it gives replaces what there was:
/// connections to addresses that are still there stay. If it fails, what there was is kept.
///
/// Any `Fn(String, u16)` that gives a future of addresses is one:
///
/// ```
/// use trunkline_channel::Resolver;
/// use trunkline_transport::Address;
///
/// async fn fixed(_host: String, port: u16) -> std::io::Result<Vec<Address>> {
///     Ok(vec![Address::Tcp(([127, 0, 0, 1], port).into())])
/// }
///
/// fn takes(_: impl Resolver) {}
/// takes(fixed);
/// ```
pub trait Resolver: Send + Sync + 'static {
    /// The addresses of `host`, in the order in which they are to be tried. Targets that are
    /// addresses already do not come here. Each call has `connect_timeout` (20 s).
    ///
    /// # Errors
    ///
    /// What it says goes into the message of calls that fail for want of an address.
    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<Address>>> + Send;
}

impl<F, Fut> Resolver for F
where
    F: Fn(String, u16) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = io::Result<Vec<Address>>> + Send,
{
    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<Address>>> + Send {
        self(host.to_owned(), port)
    }
}

/// The resolver of the system.
#[derive(Debug)]
pub(crate) struct System;

impl Resolver for System {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<Address>> {
        let found = tokio::net::lookup_host((host, port)).await?;
        Ok(found.map(Address::Tcp).collect())
    }
}

type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<Address>>> + Send>>;

trait Erased: Send + Sync {
    fn resolve(self: Arc<Self>, host: String, port: u16) -> Resolving;
}

impl<R: Resolver> Erased for R {
    fn resolve(self: Arc<Self>, host: String, port: u16) -> Resolving {
        Box::pin(async move { Resolver::resolve(&*self, &host, port).await })
    }
}

#[derive(Clone)]
pub(crate) struct AnyResolver(Arc<dyn Erased>);

impl AnyResolver {
    pub(crate) fn new(resolver: impl Resolver) -> Self {
        Self(Arc::new(resolver))
    }

    /// The endpoints of all targets, in their order; of those that have any, if others fail.
    pub(crate) async fn endpoints(&self, targets: &[Arc<Target>]) -> Result<Vec<Endpoint>, Status> {
        // In tasks: names are asked for side by side, and a resolver that panics only fails.
        let mut tasks = JoinSet::new();
        let mut found: Vec<Vec<Address>> = targets
            .iter()
            .map(|target| target.address().into_iter().collect())
            .collect();
        for (at, target) in targets.iter().enumerate() {
            if let (None, Some((host, port))) = (target.address(), target.host_and_port()) {
                let resolving = self.0.clone().resolve(host.to_owned(), port);
                tasks.spawn(async move { (at, resolving.await) });
            }
        }
        let mut failure = None;
        while let Some(joined) = tasks.join_next().await {
            match joined {
                Ok((at, Ok(addresses))) => found[at] = interleaved(addresses),
                Ok((at, Err(error))) => failure = Some(does_not_resolve(&targets[at], error)),
                Err(_) => failure = Some(Status::unavailable("the resolver has panicked")),
            }
        }
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for (target, addresses) in targets.iter().zip(found) {
            for address in addresses {
                let target = target.clone();
                let endpoint = Endpoint { address, target };
                if !endpoints.contains(&endpoint) {
                    endpoints.push(endpoint);
                }
            }
        }
        match endpoints.is_empty() {
            false => Ok(endpoints),
            true => Err(failure.unwrap_or_else(|| {
                Status::unavailable(format!(
                    "cannot connect to {}: the name has no address",
                    targets.first().map(ToString::to_string).unwrap_or_default()
                ))
            })),
        }
    }
}

fn does_not_resolve(target: &Target, error: io::Error) -> Status {
    let host = target.host_and_port().map_or("", |(host, _)| host);
    Status::unavailable(format!(
        "cannot connect to {target}: the name {host} does not resolve: {error}; is it spelled right, and is the DNS server reachable?"
    ))
    .with_source(error)
}

/// RFC 8305, section 4: the families take turns, so that one that does not work here holds up no
/// more than one attempt.
fn interleaved(addresses: Vec<Address>) -> Vec<Address> {
    let family = |address: &Address| match address.tcp().map(|it| it.ip()) {
        Some(IpAddr::V4(_)) => 4,
        Some(IpAddr::V6(_)) => 6,
        None => 0,
    };
    let Some(first) = addresses.first().map(family) else {
        return addresses;
    };
    let (one, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|it| family(it) == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut all = Vec::with_capacity(one.len() + other.len());
    loop {
        let pair = (one.next(), other.next());
        if let (None, None) = pair {
            return all;
        }
        all.extend(pair.0);
        all.extend(pair.1);
    }
}

impl fmt::Debug for AnyResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Address> {
        let parsed = texts.iter().map(|text| text.parse().expect("an address"));
        parsed.map(Address::Tcp).collect()
    }

    #[test]
    fn the_families_of_addresses_take_turns_in_their_order() {
        for (before, after) in [
            (&[][..], &[][..]),
            (&["1.0.0.1:1", "1.0.0.2:1"], &["1.0.0.1:1", "1.0.0.2:1"]),
            (
                &["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1"],
                &["[::1]:1", "1.0.0.1:1", "[::2]:1", "[::3]:1"],
            ),
            (
                &["1.0.0.1:1", "1.0.0.2:1", "[::1]:1", "[::2]:1", "[::3]:1"],
                &["1.0.0.1:1", "[::1]:1", "1.0.0.2:1", "[::2]:1", "[::3]:1"],
            ),
        ] {
            assert_eq!(interleaved(addresses(before)), addresses(after));
        }
    }

    #[tokio::test]
    async fn one_name_that_does_not_resolve_leaves_the_others_and_addresses_never_ask() {
        let resolver = AnyResolver::new(|host: String, port: u16| async move {
            match host.as_str() {
                "two" => Ok(addresses(&["1.0.0.1:1", "1.0.0.2:1", "1.0.0.1:1"])),
                "none" => Ok(Vec::new()),
                "panics" => panic!("in the resolver"),
                _ => Err(io::Error::other(format!("no {host} {port}"))),
            }
        });
        for (targets, wanted) in [
            (&["two:1"][..], Ok(2)),
            (&["lost:7", "two:1", "panics:1", "none:1"], Ok(2)),
            (&["127.0.0.1:5", "[::1]:5", "unix:/x", "127.0.0.1:5"], Ok(3)),
            (
                &["lost:7"],
                Err("the name lost does not resolve: no lost 7"),
            ),
            (
                &["none:1"],
                Err("cannot connect to none:1: the name has no address"),
            ),
            (&["panics:1"], Err("the resolver has panicked")),
        ] {
            let parsed: Vec<_> = targets
                .iter()
                .map(|text| Arc::new(Target::parse(text).expect("a target")))
                .collect();
            match (resolver.endpoints(&parsed).await, wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found.len(), wanted, "{targets:?}"),
                (Err(status), Err(words)) => {
                    assert!(status.message().contains(words), "{status}");
                }
                (found, _) => panic!("{targets:?}: {found:?}"),
            }
        }
    }
}
