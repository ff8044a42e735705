//! Service configs: parsing, printing, and the choice of a method config.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};
use trunkline_codec::Status;

use super::json::{self, JsonField, JsonObject};
use super::method_config::MethodConfig;
use crate::balancing::{BalancerConfig, Policies};
use crate::limits::ChannelLimits;

/// The most connections to one server that a config can ask for (gRFC A105, "Configuration").
const MAX_CONNECTIONS: u64 = 10;
/// The range of `maxTokens` (gRFC A6, "Throttling Configuration").
const MAX_TOKENS: std::ops::RangeInclusive<u64> = 1..=1_000;

/// The settings of a channel and of the methods that it calls, for example from a resolver.
///
/// It is the JSON form of `grpc.service_config.ServiceConfig` (grpc/doc/service_config.md; gRFCs A2, A6, A21, A24 and
/// A105). Unknown fields are ignored. [`Display`](fmt::Display) writes it as JSON without them.
///
/// ```
/// use std::time::Duration;
///
/// # mod trunkline {
/// #     pub use trunkline_channel as balancing;
/// #     pub use trunkline_channel as channel;
/// #     pub use trunkline_channel as limits;
/// # }
/// use trunkline::balancing::Policies;
/// use trunkline::channel::ServiceConfig;
/// use trunkline::limits::ChannelLimits;
///
/// let json = r#"{"methodConfig": [
///     {"name": [{"service": "shop.v1.Orders"}], "timeout": "5s"},
///     {"name": [{"service": "shop.v1.Orders", "method": "Watch"}]}
/// ]}"#;
/// let limits = ChannelLimits::default();
/// let config = ServiceConfig::parse(json, &Policies::default(), &limits).unwrap();
/// let find = config.method("/shop.v1.Orders/Find").unwrap();
/// assert_eq!(find.timeout, Some(Duration::from_secs(5)));
/// assert_eq!(config.method("/shop.v1.Orders/Watch").unwrap().timeout, None);
/// assert!(config.method("/shop.v1.Stock/Find").is_none());
/// ```
#[derive(Clone, Debug, Default)]
pub struct ServiceConfig {
    balancing: Option<Balancing>,
    /// The key is a path, "/service/", or "" for the default.
    methods: HashMap<Box<str>, Arc<MethodConfig>>,
    retry_throttling: Option<RetryThrottling>,
    health_check_service: Option<String>,
    max_connections: Option<usize>,
}

#[derive(Clone, Debug)]
struct Balancing {
    config: BalancerConfig,
    /// The configuration as it was written, because a parsed one cannot be printed.
    json: Value,
}

/// The budget of a channel for retries and hedges (gRFC A6, "Throttling Retry Attempts and Hedged RPCs").
///
/// ```
/// # mod trunkline {
/// #     pub use trunkline_channel as balancing;
/// #     pub use trunkline_channel as channel;
/// #     pub use trunkline_channel as limits;
/// # }
/// use trunkline::balancing::Policies;
/// use trunkline::channel::ServiceConfig;
/// use trunkline::limits::ChannelLimits;
///
/// let json = r#"{"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}}"#;
/// let limits = ChannelLimits::default();
/// let config = ServiceConfig::parse(json, &Policies::default(), &limits).unwrap();
/// let throttling = config.retry_throttling().unwrap();
/// assert_eq!((throttling.max_tokens, throttling.token_ratio), (10_000, 100));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryThrottling {
    /// The tokens of a full budget, in thousandths: 1,000 to 1,000,000. A failure takes 1,000.
    pub max_tokens: u32,
    /// The tokens that a success returns, in thousandths: 1 or more.
    pub token_ratio: u32,
}

impl ServiceConfig {
    /// Parses a service config, with the load balancing policies of `policies`. A `maxAttempts` above
    /// [`ChannelLimits::max_attempts`] counts as that.
    ///
    /// Logs a warning for settings without the effect that their author may expect: a method config without a name,
    /// a timeout of zero, and a `maxAttempts` above the limit.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the text is not a JSON object, an object in it has a key twice, or a known field has an
    /// invalid value. The message names the field, its value, and what is accepted. No part of the config is valid
    /// then (gRFC A21).
    pub fn parse(
        json: &str,
        policies: &Policies,
        limits: &ChannelLimits,
    ) -> Result<Arc<Self>, Status> {
        let mut warnings = Vec::new();
        let config = Self::read(json, policies, limits, &mut warnings)?;
        for warning in warnings {
            tracing::warn!("service config: {warning}");
        }
        Ok(Arc::new(config))
    }

    fn read(
        json: &str,
        policies: &Policies,
        limits: &ChannelLimits,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Status> {
        let value = json::parse("service config", json)?;
        let config = JsonObject::document("service config", &value)?;
        let scaling = config.optional("connectionScaling", JsonField::object)?;
        let connections =
            scaling.map(|it| it.optional("maxConnectionsPerSubchannel", JsonField::unsigned));
        let health = config.optional("healthCheckConfig", JsonField::object)?;
        let service = health.map(|it| it.optional("serviceName", JsonField::string));
        Ok(Self {
            balancing: Balancing::parse(&config, policies)?,
            methods: parse_methods(&config, limits.max_attempts, warnings)?,
            retry_throttling: config.optional("retryThrottling", RetryThrottling::parse)?,
            health_check_service: service.transpose()?.flatten().map(str::to_owned),
            // Zero is the default of a proto3 field: not set.
            max_connections: connections
                .transpose()?
                .flatten()
                .filter(|set| *set > 0)
                .map(|set| set.min(MAX_CONNECTIONS) as usize),
        })
    }

    /// Returns the load balancing policy with its configuration; `None` leaves the choice to the channel.
    pub fn balancer(&self) -> Option<&BalancerConfig> {
        self.balancing.as_ref().map(|it| &it.config)
    }

    /// Returns the method config for a path, `/service/method`: that of the method, else of its service, else the
    /// default. Nothing is inherited from a wider one. Takes at most three lookups in a hash table.
    pub fn method(&self, path: &str) -> Option<&Arc<MethodConfig>> {
        if self.methods.is_empty() {
            return None;
        }
        let service = path.rfind('/').map_or("", |at| &path[..=at]);
        let mut names = [path, service, ""].into_iter();
        names.find_map(|name| self.methods.get(name))
    }

    /// Returns the budget for retries and hedges; without one, they are not throttled.
    pub fn retry_throttling(&self) -> Option<RetryThrottling> {
        self.retry_throttling
    }

    /// Returns the service whose health the channel watches (gRFC A17). The empty name is the server as a whole;
    /// `None` disables health checks.
    pub fn health_check_service(&self) -> Option<&str> {
        self.health_check_service.as_deref()
    }

    /// Returns the most connections to one server, 1 to 10 (gRFC A105); `None` leaves them to the channel.
    pub fn max_connections(&self) -> Option<usize> {
        self.max_connections
    }
}

impl Balancing {
    fn parse(config: &JsonObject<'_>, policies: &Policies) -> Result<Option<Self>, Status> {
        if let Some(list) = config.field("loadBalancingConfig")? {
            return Self::choose(&list, policies).map(Some);
        }
        // Deprecated, and compared in any case (service_config.proto).
        config.optional("loadBalancingPolicy", |field| {
            let name = field.string()?.to_ascii_lowercase();
            if policies.get(&name).is_none() {
                return Err(field.invalid("the name of a known policy, such as \"round_robin\""));
            }
            let (path, value) = (field.path.clone(), &json!([{ name: {} }]));
            Self::choose(&JsonField { path, value }, policies)
        })
    }

    fn choose(list: &JsonField<'_>, policies: &Policies) -> Result<Self, Status> {
        let config = policies.choose(&list.path, list.value)?;
        let entries = list.value.as_array().into_iter().flatten();
        let json = entries.filter_map(|entry| entry.get(config.name())).next();
        let json = json.cloned().unwrap_or_default();
        Ok(Self { config, json })
    }
}

impl RetryThrottling {
    // A6, "Throttling Configuration".
    fn parse(field: &JsonField<'_>) -> Result<Self, Status> {
        let throttling = field.object()?;
        let max_tokens = throttling.required("maxTokens", |field| {
            let tokens = field.unsigned().ok().filter(|it| MAX_TOKENS.contains(it));
            tokens.ok_or_else(|| field.invalid("a whole number from 1 to 1000"))
        })?;
        let token_ratio = throttling.required("tokenRatio", |field| {
            let ratio = milli(field.float()?).filter(|ratio| *ratio > 0);
            ratio.ok_or_else(|| field.invalid("a number of 0.001 or more"))
        })?;
        Ok(Self {
            max_tokens: max_tokens as u32 * 1_000,
            token_ratio,
        })
    }
}

/// Returns thousandths, without the digits beyond them: "decimal places beyond 3 are ignored" (A6).
fn milli(number: f64) -> Option<u32> {
    // The digits, because 1.001 * 1000 is less than 1001.
    let text = number.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    if whole.starts_with('-') {
        return None;
    }
    let digits = format!("{whole}{fraction:0<3.3}");
    Some(digits.parse().unwrap_or(u32::MAX))
}

fn parse_methods(
    config: &JsonObject<'_>,
    max_attempts: u32,
    warnings: &mut Vec<String>,
) -> Result<HashMap<Box<str>, Arc<MethodConfig>>, Status> {
    let mut methods = HashMap::new();
    let entries = config.optional("methodConfig", JsonField::list)?;
    for entry in entries.into_iter().flatten() {
        let method = entry.object()?;
        let names = method
            .optional("name", JsonField::list)?
            .unwrap_or_default();
        if names.is_empty() {
            warnings.push(format!(
                "{}.name: missing, so the entry applies to no method; write [{{}}] for all methods",
                entry.path
            ));
        }
        let settings = Arc::new(MethodConfig::parse(&method, max_attempts, warnings)?);
        for name in names {
            let key = parse_name(&name)?;
            if methods.insert(key.into(), settings.clone()).is_some() {
                let (path, shown) = (name.path, json::shown(name.value));
                return Err(Status::invalid_argument(format!(
                    "{path}: {shown} is already named; keep one of the entries"
                )));
            }
        }
    }
    Ok(methods)
}

/// Returns the key of a name in the table of methods.
fn parse_name(field: &JsonField<'_>) -> Result<String, Status> {
    let name = field.object()?;
    let service = name.optional("service", JsonField::string)?;
    let method = name.optional("method", JsonField::string)?;
    match (service.unwrap_or_default(), method.unwrap_or_default()) {
        ("", "") => Ok(String::new()),
        ("", _) => Err(field.invalid("the name of a method; add its service")),
        (service, method) => Ok(format!("/{service}/{method}")),
    }
}

fn name_json(key: &str) -> Value {
    let (service, method) = key.rsplit_once('/').unwrap_or_default();
    match (service.strip_prefix('/').unwrap_or_default(), method) {
        ("", _) => json!({}),
        (service, "") => json!({ "service": service }),
        (service, method) => json!({ "service": service, "method": method }),
    }
}

/// Writes the config as JSON. Two configs with equal effects, and equal configurations of their policies, are equal.
impl fmt::Display for ServiceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut config = BTreeMap::new();
        if let Some(Balancing { config: it, json }) = &self.balancing {
            config.insert("loadBalancingConfig", json!([{ it.name(): json }]));
        }
        if !self.methods.is_empty() {
            let sorted: BTreeMap<_, _> = self.methods.iter().collect();
            let entries = sorted.into_iter().map(|(key, method)| {
                let mut entry = method.to_json();
                entry.insert("name".to_owned(), json!([name_json(key)]));
                entry
            });
            config.insert("methodConfig", entries.collect());
        }
        if let Some(RetryThrottling {
            max_tokens,
            token_ratio,
        }) = self.retry_throttling
        {
            let ratio = f64::from(token_ratio) / 1_000.0;
            let throttling = json!({ "maxTokens": max_tokens / 1_000, "tokenRatio": ratio });
            config.insert("retryThrottling", throttling);
        }
        if let Some(service) = &self.health_check_service {
            config.insert("healthCheckConfig", json!({ "serviceName": service }));
        }
        if let Some(set) = self.max_connections {
            let scaling = json!({ "maxConnectionsPerSubchannel": set });
            config.insert("connectionScaling", scaling);
        }
        write!(f, "{}", json!(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(json: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        let limits = ChannelLimits::default();
        ServiceConfig::read(json, &Policies::default(), &limits, &mut warnings).unwrap();
        warnings
    }

    #[test]
    fn settings_without_the_effect_that_one_expects_are_warned_about() {
        let retry = |attempts: u32| {
            format!(
                r#""retryPolicy": {{"maxAttempts": {attempts}, "initialBackoff": "1s", "maxBackoff": "1s",
                    "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}"#
            )
        };
        let table = [
            (r#""name": [{}], "timeout": "1s""#.to_owned(), None),
            (
                r#""timeout": "1s""#.to_owned(),
                Some("methodConfig[0].name: missing, so the entry applies to no method"),
            ),
            (
                r#""name": []"#.to_owned(),
                Some("methodConfig[0].name: missing"),
            ),
            (
                r#""name": [{}], "timeout": "0s""#.to_owned(),
                Some("methodConfig[0].timeout: 0s is ignored"),
            ),
            (format!(r#""name": [{{}}], {}"#, retry(5)), None),
            (
                format!(r#""name": [{{}}], {}"#, retry(6)),
                Some(
                    "methodConfig[0].retryPolicy.maxAttempts: 6 is above the limit of the channel, and counts as 5",
                ),
            ),
            (
                r#""name": [{}], "hedgingPolicy": {"maxAttempts": 5000000000}"#.to_owned(),
                Some("methodConfig[0].hedgingPolicy.maxAttempts: 5000000000 is above"),
            ),
        ];
        for (method, expected) in table {
            let found = warnings(&format!(r#"{{"methodConfig": [{{{method}}}]}}"#));
            assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{found}");
            }
        }
    }

    #[test]
    fn thousandths_are_exact_and_digits_behind_them_ignored() {
        for number in 0..=1_000_000 {
            assert_eq!(milli(f64::from(number) / 1_000.0), Some(number));
        }
        let table = [
            (0.0009, Some(0)),
            (0.1259, Some(125)),
            (1e-300, Some(0)),
            (4_294_967.295, Some(u32::MAX)),
            (4_294_967.296, Some(u32::MAX)),
            (1e300, Some(u32::MAX)),
            (-0.001, None),
            (-1e-300, None),
        ];
        for (number, expected) in table {
            assert_eq!(milli(number), expected, "{number}");
        }
    }
}
