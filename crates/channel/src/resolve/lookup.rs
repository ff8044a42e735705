//! Name resolution: the names of targets, and their addresses.

use std::any::TypeId;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use trunkline_codec::Status;
use trunkline_transport::{Address, Target, lookup};

/// Resolves the host names of targets to addresses. Default: the resolver of the operating system.
///
/// The channel resolves a name when it first connects, and again after a connection is lost or cannot be
/// opened, at most every 30 s (`resolve_interval`). The new addresses replace the previous ones; connections
/// to addresses that stay in the list remain open. If resolution fails, the channel keeps the previous
/// addresses and tries again after growing pauses, the same as between attempts to connect
/// (`connect_backoff_base`).
///
/// A channel with several names resolves them in parallel. A slow or failing name delays connections to the
/// others by at most 250 ms (`connect_stagger`).
///
/// Any function or closure with the parameters `(String, u16)`, host and port, that returns a future of
/// addresses is a lookup:
///
/// ```
/// # mod trunkline { pub use trunkline_channel as channel; pub use trunkline_transport::Address; }
/// use trunkline::Address;
/// use trunkline::channel::Lookup;
///
/// async fn fixed(_host: String, port: u16) -> std::io::Result<Vec<Address>> {
///     Ok(vec![Address::Tcp(([127, 0, 0, 1], port).into())])
/// }
///
/// fn takes(_: impl Lookup) {}
/// takes(fixed);
/// ```
pub trait Lookup: Send + Sync + 'static {
    /// Returns the addresses of `host`, in order of preference. The channel tries IPv6 and IPv4 addresses
    /// alternately. This method is not called for targets that are addresses already. A call that takes
    /// longer than `connect_timeout` (20 s) fails; its future is then dropped.
    ///
    /// # Errors
    ///
    /// If no address is known, calls fail with UNAVAILABLE and a message that contains the text of the error.
    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<Address>>> + Send;

    /// Returns the texts of the TXT records of `name`, the strings of each joined; none if the name has no such
    /// records. Called only for channels that look for service configs in DNS, with a name that begins with
    /// `_grpc_config.`. Default: an error, because this lookup knows no such records.
    ///
    /// # Errors
    ///
    /// An error leaves the service config as it is. It does not affect the addresses.
    fn texts(&self, name: &str) -> impl Future<Output = io::Result<Vec<String>>> + Send {
        let _ = name;
        async { Err(io::ErrorKind::Unsupported.into()) }
    }
}

impl<F, Fut> Lookup for F
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

impl Lookup for System {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<Address>> {
        let found = lookup(host, port).await?;
        Ok(found.into_iter().map(Address::Tcp).collect())
    }
}

type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<Address>>> + Send>>;

type FindingTexts = Pin<Box<dyn Future<Output = io::Result<Vec<String>>> + Send>>;

trait ErasedLookup: Send + Sync {
    fn resolve(self: Arc<Self>, host: String, port: u16) -> Resolving;
    fn texts(self: Arc<Self>, name: String) -> FindingTexts;
    fn is_system(&self) -> bool;
}

impl<L: Lookup> ErasedLookup for L {
    fn resolve(self: Arc<Self>, host: String, port: u16) -> Resolving {
        Box::pin(async move { Lookup::resolve(&*self, &host, port).await })
    }

    fn texts(self: Arc<Self>, name: String) -> FindingTexts {
        Box::pin(async move { Lookup::texts(&*self, &name).await })
    }

    fn is_system(&self) -> bool {
        TypeId::of::<L>() == TypeId::of::<System>()
    }
}

#[derive(Clone)]
pub(crate) struct AnyLookup(Arc<dyn ErasedLookup>);

impl AnyLookup {
    pub(crate) fn new(lookup: impl Lookup) -> Self {
        Self(Arc::new(lookup))
    }

    /// Returns true for the resolver of the system, which returns addresses of TCP only.
    pub(crate) fn is_system(&self) -> bool {
        self.0.is_system()
    }

    /// Returns the texts of the TXT records of a name.
    pub(crate) async fn texts(&self, name: &str) -> io::Result<Vec<String>> {
        self.0.clone().texts(name.to_owned()).await
    }

    /// Asks for the addresses of a target that is a name. In a task: names are asked for side by side,
    /// and a resolver that panics only fails.
    pub(crate) fn ask(
        &self,
        asked: &mut JoinSet<Answer>,
        (at, target): (usize, Arc<Target>),
        timeout: Duration,
    ) {
        let (None, Some((host, port))) = (target.address(), target.lookup_host()) else {
            return;
        };
        let resolving = match target.zoned_host() {
            None => self.0.clone().resolve(host.to_owned(), port),
            Some(zoned) => Self::new(System).0.resolve(zoned, port),
        };
        asked.spawn(async move {
            let resolved = tokio::time::timeout(timeout, resolving).await;
            let addresses = match resolved {
                Ok(Ok(addresses)) if addresses.is_empty() => Err(Status::unavailable(format!(
                    "cannot connect to {target}: the name has no addresses"
                ))),
                Ok(Ok(addresses)) => Ok(interleaved(addresses)),
                Ok(Err(error)) => Err(does_not_resolve(&target, error)),
                Err(_) => Err(Status::unavailable(format!(
                    "cannot connect to {target}: the name does not resolve: no response within {timeout:?}; is the DNS server reachable?"
                ))),
            };
            Answer { at, addresses }
        });
    }
}

/// The result of resolving the name of a target.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The place of the target among all.
    pub(crate) at: usize,
    pub(crate) addresses: Result<Vec<Address>, Status>,
}

fn does_not_resolve(target: &Target, error: io::Error) -> Status {
    if let Some(zoned) = target.zoned_host() {
        return Status::unavailable(format!(
            "cannot connect to {target}: the system does not accept {zoned}: {error}; does this machine have an interface of that name, and is the address link-local?"
        ))
        .with_source(error);
    }
    let host = target.lookup_host().map_or("", |(host, _)| host);
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

impl fmt::Debug for AnyLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
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

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_system_says_what_a_zone_is_and_no_other_resolver_is_asked() {
        let lookup = AnyLookup::new(|_: String, _: u16| async move { panic!("it was asked") });
        for (text, expected) in [
            ("[fe80::1%lo]:5", Ok("[fe80::1%1]:5")),
            ("[fe80::1%25lo]:5", Ok("[fe80::1%1]:5")),
            (
                "[fe80::1%none]:5",
                Err("does this machine have an interface of that name"),
            ),
        ] {
            let target = Arc::new(Target::parse(text).expect("a target"));
            let mut asked = JoinSet::new();
            lookup.ask(&mut asked, (0, target), Duration::from_secs(20));
            let answer = asked.join_next().await.expect("it is asked");
            match (answer.expect("no panic").addresses, expected) {
                (Ok(found), Ok(address)) => assert_eq!(found, addresses(&[address])),
                (Err(status), Err(words)) => assert!(status.message().contains(words), "{status}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[tokio::test]
    async fn names_are_asked_side_by_side_and_each_fails_for_itself() {
        let lookup = AnyLookup::new(|host: String, port: u16| async move {
            match host.as_str() {
                "two" => Ok(addresses(&["1.0.0.1:1", "1.0.0.2:1", "1.0.0.1:1"])),
                "none" => Ok(Vec::new()),
                "panics" => panic!("in the resolver"),
                "silent" => std::future::pending().await,
                _ => Err(io::Error::other(format!("no {host} {port}"))),
            }
        });
        for (targets, wanted, failures) in [
            (&["two:1"][..], 2, &[][..]),
            (
                &["127.0.0.1:5", "[::1]:5", "unix:/x", "127.0.0.1:5"],
                3,
                &[],
            ),
            (
                &[
                    "lost:7",
                    "two:1",
                    "panics:1",
                    "silent:1",
                    "2.0.0.1:1",
                    "none:1",
                ],
                3,
                &[
                    "cannot connect to none:1: the name has no addresses",
                    "cannot connect to silent:1: the name does not resolve: no response within 1ms",
                    "the name lost does not resolve: no lost 7",
                ],
            ),
        ] {
            let parsed: Vec<_> = targets
                .iter()
                .map(|text| Arc::new(Target::parse(text).expect("a target")))
                .collect();
            let addresses = parsed.iter().map(|it| it.address());
            let mut found: Vec<Vec<_>> = addresses.map(|it| it.into_iter().collect()).collect();
            let mut asked = JoinSet::new();
            for (at, target) in parsed.iter().cloned().enumerate() {
                lookup.ask(&mut asked, (at, target), Duration::from_millis(1));
            }
            let mut messages = Vec::new();
            while let Some(answer) = asked.join_next().await {
                match answer.map(|it| (it.at, it.addresses)) {
                    Ok((at, Ok(addresses))) => found[at] = addresses,
                    Ok((_, Err(status))) => messages.push(status.message().to_owned()),
                    Err(error) => assert!(error.is_panic()),
                }
            }
            let known: std::collections::HashSet<_> = found.iter().flatten().collect();
            assert_eq!(known.len(), wanted, "{targets:?}");
            assert_eq!(messages.len(), failures.len(), "{messages:?}");
            for words in failures {
                assert!(messages.iter().any(|it| it.contains(words)), "{messages:?}");
            }
        }
    }
}
