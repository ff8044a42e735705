//! The settings of a channel.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use trunkline_codec::Status;
use trunkline_transport::{Address, ClientTls, Proxy, Target};

use crate::backoff;
use crate::balancing::{BalancerConfig, Policies, Policy};
use crate::config::ServiceConfig;
use crate::config::config_parser::ConfigParser;
use crate::connector::Connector;
use crate::limits::ChannelLimits;
use crate::proxies::Proxies;
use crate::resolve::dns_config::DnsConfig;
#[cfg(feature = "hickory")]
use crate::resolve::hickory::HickoryLookup;
use crate::resolve::lookup::{AnyLookup, Lookup, System};
use crate::resolve::names::Names;
use crate::resolve::resolver::{AnyResolver, Resolver, Resolving, Updates};
use crate::resolve::target_uri::TargetUri;
use crate::resolve::targets::Targets;
use crate::security_level::SecurityLevel;

/// The settings of a channel, as its builder collects them.
#[derive(Clone, Debug)]
pub struct ChannelSettings {
    /// Where to connect.
    pub targets: Targets,
    /// The limits of the channel.
    pub limits: Arc<ChannelLimits>,
    /// The value of `:authority`, if it is not that of each target.
    pub authority: Option<Authority>,
    /// TLS, for targets of any form but `http://`; those that begin with `https://` have it anyway.
    pub tls: Option<ClientTls>,
    /// Checks the health of servers if a service config says so (gRFC A17).
    pub health_checks: bool,
    /// The service config that is in force while the resolver has none, as JSON.
    pub service_config: Option<String>,
    /// Ignores the service configs of resolvers.
    pub ignore_resolved_service_config: bool,
    /// Makes the attempts of retry and hedging policies. Transparent retries are made in any case.
    pub retries: bool,
    /// The time from one lookup of names to the next while all is well; `None` looks up only after a failure.
    pub resolve_every: Option<Duration>,
    /// Looks for a service config in DNS (gRFC A2).
    pub dns_service_config: bool,
    /// The name of the load balancing policy, and its configuration.
    policy: (String, Value),
    policies: Policies,
    lookup: AnyLookup,
    resolvers: Vec<AnyResolver>,
    connector: Option<Connector>,
    proxies: Proxies,
    /// The first mistake in the options.
    failure: Option<Status>,
}

impl ChannelSettings {
    /// Creates the default settings of a channel to `targets`.
    pub fn new(targets: Targets) -> Self {
        Self {
            targets,
            limits: Arc::new(ChannelLimits::default()),
            authority: None,
            tls: None,
            health_checks: true,
            service_config: None,
            ignore_resolved_service_config: false,
            retries: true,
            resolve_every: None,
            dns_service_config: false,
            policy: (
                "pick_first".to_owned(),
                Value::Object(serde_json::Map::new()),
            ),
            policies: Policies::builtin(),
            lookup: AnyLookup::new(System),
            resolvers: Vec::new(),
            connector: None,
            proxies: Proxies::default(),
            failure: None,
        }
    }

    /// Selects a load balancing policy by its name, with its default configuration.
    pub fn set_policy(&mut self, name: &str) {
        self.policy = (name.to_owned(), Value::Object(serde_json::Map::new()));
    }

    /// Adds a load balancing policy.
    pub fn add_policy(&mut self, policy: impl Policy) {
        if let Err(status) = self.policies.add(Arc::new(policy)) {
            self.failure.get_or_insert(status);
        }
    }

    /// Looks up names with `lookup`, instead of the system.
    pub fn set_lookup(&mut self, lookup: impl Lookup) {
        self.lookup = AnyLookup::new(lookup);
    }

    /// Adds a resolver for targets with its schemes. The last one that was added for a scheme counts.
    pub fn add_resolver(&mut self, resolver: impl Resolver) {
        self.resolvers.push(AnyResolver::new(resolver));
    }

    /// Lets `connect` make the byte stream to an address, instead of the system.
    pub fn set_connector<F, Fut, IO>(&mut self, connect: F)
    where
        F: Fn(Address) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.connector = Some(Connector::new(connect));
    }

    /// Chooses the proxy of each target by its host and port, instead of by the environment.
    pub fn set_proxy(
        &mut self,
        choose: impl Fn(&str, u16) -> Option<Proxy> + Send + Sync + 'static,
    ) {
        self.proxies = Proxies::Chosen(Arc::new(choose));
    }

    /// Connects without proxies, whatever the environment says.
    pub fn set_no_proxy(&mut self) {
        self.proxies = Proxies::None;
    }

    /// Checks the settings. Reads the files that TLS needs.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if a target cannot be parsed, the list of targets is empty, TLS is not available, the policy is
    /// unknown or refuses its configuration, or the service config is invalid.
    pub(crate) fn check(self) -> Result<CheckedSettings, Status> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let mut tls = self.tls;
        // Connectors and lookups of the user know where to connect.
        let has_own = self.connector.is_some() || !self.lookup.is_system();
        let proxies = self.proxies.without_environment_if(has_own);
        let (targets, source) = match self.targets.uri_for(&self.resolvers)? {
            None => {
                let parsed = self.targets.parse()?;
                let lookup = match self.lookup.is_system() && self.dns_service_config {
                    true => lookup_with_texts()?,
                    false => self.lookup,
                };
                let lookups = parsed.iter().map(|it| match it.dns_server {
                    None => Ok(lookup.clone()),
                    Some(server) => lookup_at(server),
                });
                let lookups: Vec<_> = lookups.collect::<Result<_, _>>()?;
                let targets = proxies.apply(parsed.into_iter().map(|it| it.target).collect());
                let targets: Arc<[_]> = with_tls(targets, &mut tls)?.into();
                let passthrough = targets
                    .iter()
                    .find(|it| matches!(it.address(), Some(Address::Passthrough(_))));
                if let (Some(target), None) = (passthrough, &self.connector) {
                    return Err(Status::invalid_argument(format!(
                        "cannot connect to {target}: only a connector knows what it is; set ChannelBuilder::connector"
                    )));
                }
                let is_proxied = targets.iter().any(|it| it.is_proxied());
                let dns_config = match self.dns_service_config && !is_proxied {
                    true => dns_config(&self.targets, &targets, &lookups)?,
                    false => None,
                };
                let source = EndpointSource::Names(targets.clone(), lookups.into(), dns_config);
                (targets, source)
            }
            Some((uri, resolver)) => {
                let authority = resolver.authority(&uri)?;
                let target = Target::parse_host(&uri.to_string(), authority.as_str())?;
                let targets = with_tls(vec![Arc::new(target)], &mut tls)?;
                (targets.into(), EndpointSource::Resolver(uri, resolver))
            }
        };
        let (name, config) = self.policy;
        let list = serde_json::json!([{ name: config }]);
        let balancer = self.policies.choose("load balancing policy", &list)?;
        let parser = Arc::new(ConfigParser {
            policies: self.policies,
            limits: self.limits.clone(),
        });
        let service_config = self.service_config.map(|json| parser.parse(&json));
        Ok(CheckedSettings {
            balancer,
            parser,
            service_config: service_config.transpose()?,
            ignores_resolved_config: self.ignore_resolved_service_config,
            makes_retries: self.retries,
            shown: self.targets,
            targets,
            limits: self.limits,
            authority: self.authority,
            health_checks: self.health_checks,
            resolve_every: self.resolve_every,
            tls,
            source,
            connector: self.connector,
        })
    }
}

/// Returns the lookup that asks the DNS server at an address.
#[cfg(feature = "hickory")]
fn lookup_at(server: SocketAddr) -> Result<AnyLookup, Status> {
    Ok(AnyLookup::new(HickoryLookup::at(server)?))
}

/// Returns where the service config in DNS is found; `None` if the target has none.
fn dns_config(
    shown: &Targets,
    targets: &[Arc<Target>],
    lookups: &[AnyLookup],
) -> Result<Option<DnsConfig>, Status> {
    let ([target], [lookup]) = (targets, lookups) else {
        return Err(Status::invalid_argument(format!(
            "cannot connect to {shown}: a list of targets has no service config in DNS; name one target, or set ChannelBuilder::service_config"
        )));
    };
    Ok(DnsConfig::new(target, lookup.clone(), backoff::random()))
}

/// Returns the lookup of channels that look for service configs and have no lookup of their own.
#[cfg(feature = "hickory")]
fn lookup_with_texts() -> Result<AnyLookup, Status> {
    Ok(AnyLookup::new(HickoryLookup::new()?))
}

/// The resolver of the system knows only addresses.
#[cfg(not(feature = "hickory"))]
fn lookup_with_texts() -> Result<AnyLookup, Status> {
    Err(Status::invalid_argument(
        "service configs in DNS need the feature `hickory` of trunkline, or a lookup with `texts`: see ChannelBuilder::lookup",
    ))
}

/// Targets name no DNS server in a build without the feature.
#[cfg(not(feature = "hickory"))]
fn lookup_at(server: SocketAddr) -> Result<AnyLookup, Status> {
    let _ = server;
    Ok(AnyLookup::new(System))
}

/// Returns the targets, each with or without TLS.
fn with_tls(
    targets: Vec<Arc<Target>>,
    tls: &mut Option<ClientTls>,
) -> Result<Vec<Arc<Target>>, Status> {
    let given = tls.is_some();
    let mut checked = Vec::with_capacity(targets.len());
    for target in targets {
        // The targets with TLS share the default settings.
        let asks = given || target.wants_tls() == Some(true);
        let settings = ClientTls::for_target(&target, tls.clone().filter(|_| asks))?;
        checked.push(match settings.is_some() {
            true => Arc::new(Arc::unwrap_or_clone(target).over_tls()),
            false => target,
        });
        *tls = tls.take().or(settings);
    }
    Ok(checked)
}

/// The settings of a channel, checked.
#[derive(Debug)]
pub(crate) struct CheckedSettings {
    /// The targets as the user has written them.
    pub(crate) shown: Targets,
    /// All targets; at least one.
    pub(crate) targets: Arc<[Arc<Target>]>,
    pub(crate) limits: Arc<ChannelLimits>,
    pub(crate) authority: Option<Authority>,
    pub(crate) tls: Option<ClientTls>,
    pub(crate) health_checks: bool,
    pub(crate) resolve_every: Option<Duration>,
    pub(crate) connector: Option<Connector>,
    /// The policy, unless a service config selects another.
    pub(crate) balancer: BalancerConfig,
    pub(crate) parser: Arc<ConfigParser>,
    /// The service config that is in force while the resolver has none.
    pub(crate) service_config: Option<Arc<ServiceConfig>>,
    ignores_resolved_config: bool,
    pub(crate) makes_retries: bool,
    source: EndpointSource,
}

/// Where endpoints come from.
#[derive(Debug)]
enum EndpointSource {
    /// Targets, and how to look up each.
    Names(Arc<[Arc<Target>]>, Arc<[AnyLookup]>, Option<DnsConfig>),
    Resolver(TargetUri, AnyResolver),
}

impl CheckedSettings {
    /// Returns the target of endpoints that name none.
    pub(crate) fn target(&self) -> Arc<Target> {
        self.targets[0].clone()
    }

    /// Returns the highest level that a connection to the targets can have.
    pub(crate) fn security_level(&self) -> SecurityLevel {
        match &self.source {
            // The resolver may find Unix sockets.
            EndpointSource::Resolver(..) => SecurityLevel::PrivacyAndIntegrity,
            EndpointSource::Names(targets, lookups, _) => {
                let levels = targets.iter().zip(lookups.iter()).map(|(target, lookup)| {
                    // So may a lookup of the user. That of the system finds addresses of TCP.
                    let found = match lookup.is_system() {
                        true => Address::Tcp(SocketAddr::from(([0, 0, 0, 0], 0))),
                        false => Address::InMemory,
                    };
                    SecurityLevel::of(&target.address().unwrap_or(found), target)
                });
                levels.max().unwrap_or_default()
            }
        }
    }

    /// Returns true if the resolver can find service configs, and the channel uses them.
    pub(crate) fn resolves_config(&self) -> bool {
        let can_have_one = match &self.source {
            EndpointSource::Names(_, _, dns_config) => dns_config.is_some(),
            EndpointSource::Resolver(..) => true,
        };
        can_have_one && !self.ignores_resolved_config
    }

    /// Returns the future that resolves the targets.
    pub(crate) fn resolve(&self, updates: Updates) -> Resolving {
        match &self.source {
            EndpointSource::Names(targets, lookups, dns_config) => {
                let names = Names::new(
                    targets.clone(),
                    lookups.clone(),
                    self.limits.clone(),
                    self.resolve_every,
                    dns_config.clone(),
                );
                Box::pin(names.run(updates))
            }
            EndpointSource::Resolver(uri, resolver) => resolver.start(uri, updates),
        }
    }
}
