//! Lookups of names by hickory, a DNS client in this process.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use trunkline_codec::Status;
use trunkline_transport::Address;

use super::lookup::Lookup;

/// Looks up names with the DNS client of the crate hickory-resolver, instead of the system's resolver.
///
/// It asks the DNS servers of the system's configuration, knows the hosts file, and keeps addresses for as long as DNS
/// allows (their TTL). It does not know other sources of names that a system may have, such as LDAP or mDNS.
///
/// Channels whose target names a DNS server, such as `dns://10.0.0.2/host:port`, use hickory in any case, and so do
/// channels that look for service configs in DNS and have no lookup of their own.
///
/// ```
/// # mod trunkline { pub use trunkline_channel as channel; pub use trunkline_codec::Status; }
/// # fn example() -> Result<(), trunkline::Status> {
/// use trunkline::channel::HickoryLookup;
///
/// // For ChannelBuilder::lookup.
/// let lookup = HickoryLookup::new()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct HickoryLookup(TokioResolver);

impl HickoryLookup {
    /// Creates a lookup with the configuration of the system, such as `/etc/resolv.conf`, which is read once.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the configuration cannot be read.
    pub fn new() -> Result<Self, Status> {
        let mut builder = TokioResolver::builder_tokio().map_err(unusable)?;
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        builder.build().map(Self).map_err(unusable)
    }

    /// Creates a lookup that asks only the DNS server at `address`.
    pub(crate) fn at(address: SocketAddr) -> Result<Self, Status> {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        let connections = connections.map(|mut it| {
            it.port = address.port();
            it
        });
        let server = NameServerConfig::new(address.ip(), true, connections.into());
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        builder.build().map(Self).map_err(unusable)
    }
}

impl Lookup for HickoryLookup {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<Address>> {
        let found = self.0.lookup_ip(host).await.map_err(failed)?;
        let addresses = found.iter().map(|ip| SocketAddr::new(ip, port));
        Ok(addresses.map(Address::Tcp).collect())
    }

    async fn texts(&self, name: &str) -> io::Result<Vec<String>> {
        let found = match self.0.txt_lookup(name).await {
            Err(error) if error.is_no_records_found() => return Ok(Vec::new()),
            found => found.map_err(failed)?,
        };
        let records = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::TXT(txt) => {
                    let text = txt.txt_data.concat();
                    Some(String::from_utf8_lossy(&text).into_owned())
                }
                _ => None,
            });
        Ok(records.collect())
    }
}

fn failed(error: NetError) -> io::Error {
    io::Error::other(error)
}

fn unusable(error: NetError) -> Status {
    Status::invalid_argument(format!(
        "the configuration of DNS cannot be used: {error}; is /etc/resolv.conf in order?"
    ))
}

impl fmt::Debug for HickoryLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HickoryLookup")
    }
}
