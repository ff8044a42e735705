//! Policies by name, and their configurations.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use trunkline_codec::Status;

use super::balancer::Balancer;
use crate::config::json::shown;

/// The parsed configuration of a policy.
pub type PolicyConfig = Arc<dyn Any + Send + Sync>;

/// A load balancing policy: a named kind of [`Balancer`], which `ChannelBuilder::use_policy` and service configs select
/// by its name. `ChannelBuilder::policy` adds one to a channel.
///
/// A policy that connects to all endpoints, and uses the first in the list that is connected:
///
/// ```
/// # mod trunkline {
/// #     pub use trunkline_channel as balancing;
/// #     pub use trunkline_channel as channel;
/// #     pub use trunkline_codec::Status;
/// # }
/// use std::sync::Arc;
///
/// use trunkline::Status;
/// use trunkline::balancing::serde_json::Value;
/// use trunkline::balancing::{
///     Balancer, Control, Picker, Policies, Policy, PolicyConfig, Subchannel, SubchannelId, SubchannelState, Update,
/// };
/// use trunkline::channel::ConnectivityState;
///
/// struct FirstReady;
///
/// impl Policy for FirstReady {
///     fn name(&self) -> &str {
///         "first_ready"
///     }
///
///     fn parse(&self, _: &Value, _: &Policies) -> Result<PolicyConfig, Status> {
///         Ok(Arc::new(())) // It has no configuration.
///     }
///
///     fn build(&self) -> Box<dyn Balancer> {
///         Box::new(FirstReadyBalancer::default())
///     }
/// }
///
/// #[derive(Default)]
/// struct FirstReadyBalancer(Vec<(Subchannel, SubchannelState)>);
///
/// impl Balancer for FirstReadyBalancer {
///     fn update(&mut self, update: Update<'_>, control: &mut dyn Control) -> Result<(), Status> {
///         let endpoints = match update.endpoints {
///             Err(status) if self.0.is_empty() => {
///                 let picker = Picker::Fail(Arc::new(status.clone()));
///                 control.publish(ConnectivityState::TransientFailure, picker);
///                 return Err(status.clone());
///             }
///             Err(status) => return Err(status.clone()),
///             Ok(endpoints) => endpoints,
///         };
///         // Subchannels to addresses that are still in the list are kept, with their connections.
///         let mut before = std::mem::take(&mut self.0);
///         for endpoint in endpoints {
///             for address in endpoint.addresses() {
///                 let kept = before.iter().position(|(it, _)| it.address() == address);
///                 self.0.push(match kept {
///                     Some(at) => before.swap_remove(at),
///                     None => {
///                         let subchannel = control.create_subchannel(address, endpoint.attributes());
///                         control.connect(&subchannel);
///                         (subchannel, SubchannelState::new(ConnectivityState::Connecting))
///                     }
///                 });
///             }
///         }
///         self.publish(control);
///         match self.0.is_empty() {
///             true => Err(Status::unavailable("the list of endpoints is empty")),
///             false => Ok(()),
///         }
///     }
///
///     fn subchannel_changed(&mut self, id: SubchannelId, state: &SubchannelState, control: &mut dyn Control) {
///         let Some((subchannel, last)) = self.0.iter_mut().find(|(it, _)| it.id() == id) else {
///             return;
///         };
///         // A subchannel is IDLE after it has lost its connection, and after the pause that follows a failure.
///         if state.connectivity == ConnectivityState::Idle {
///             control.connect(subchannel);
///         }
///         // A failure counts until the subchannel is READY, so that calls do not wait for each new attempt.
///         let is_trying = matches!(state.connectivity, ConnectivityState::Idle | ConnectivityState::Connecting);
///         if last.failure.is_none() || !is_trying {
///             *last = state.clone();
///         }
///         self.publish(control);
///     }
///
///     fn exit_idle(&mut self, _: &mut dyn Control) {} // It is never idle.
/// }
///
/// impl FirstReadyBalancer {
///     fn publish(&self, control: &mut dyn Control) {
///         let mut subchannels = self.0.iter();
///         let ready = subchannels.find(|(_, it)| it.connectivity == ConnectivityState::Ready);
///         let failures: Option<Vec<_>> = self.0.iter().map(|(_, it)| it.failure.clone()).collect();
///         let (state, picker) = match (ready, failures) {
///             (Some((subchannel, _)), _) => (ConnectivityState::Ready, Picker::One(subchannel.clone())),
///             (None, None) => (ConnectivityState::Connecting, Picker::Wait),
///             (None, Some(failures)) => {
///                 let last = failures.last().cloned();
///                 let status = last.unwrap_or_else(|| Status::unavailable("the list of endpoints is empty"));
///                 (ConnectivityState::TransientFailure, Picker::Fail(Arc::new(status)))
///             }
///         };
///         control.publish(state, picker);
///     }
/// }
///
/// # fn main() -> Result<(), Status> {
/// let mut policies = Policies::builtin();
/// policies.add(Arc::new(FirstReady))?;
/// # Ok(()) }
/// ```
pub trait Policy: Send + Sync + 'static {
    /// Returns the name, as a service config writes it.
    fn name(&self) -> &str;

    /// Parses the configuration, a JSON object. Policies with children parse those with `policies`. Default: ignores
    /// the configuration, and returns `()`.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT that names the field and its value. The channel then refuses the whole service config.
    fn parse(&self, config: &Value, policies: &Policies) -> Result<PolicyConfig, Status> {
        let _ = (config, policies);
        Ok(Arc::new(()))
    }

    /// Creates a balancer, whose first update follows.
    fn build(&self) -> Box<dyn Balancer>;
}

/// A policy that a service config or a parent policy has selected, with its configuration.
#[derive(Clone)]
pub struct BalancerConfig {
    policy: Arc<dyn Policy>,
    config: PolicyConfig,
}

impl BalancerConfig {
    /// Creates the choice of `policy` with a configuration that its `parse` has returned.
    pub fn new(policy: Arc<dyn Policy>, config: PolicyConfig) -> Self {
        Self { policy, config }
    }

    /// Returns the policy.
    pub fn policy(&self) -> &Arc<dyn Policy> {
        &self.policy
    }

    /// Returns the configuration.
    pub fn config(&self) -> &PolicyConfig {
        &self.config
    }

    /// Returns the name of the policy.
    pub fn name(&self) -> &str {
        self.policy.name()
    }
}

/// The policies that a channel knows, by name. [`Policies::default`] has no policies; see
/// [`builtin`](Self::builtin) for those of gRPC.
#[derive(Clone, Default)]
pub struct Policies(BTreeMap<String, Arc<dyn Policy>>);

impl Policies {
    /// Creates a registry of policies, all of which have different names.
    pub(crate) fn of(policies: impl IntoIterator<Item = Arc<dyn Policy>>) -> Self {
        let named = policies.into_iter().map(|it| (it.name().to_owned(), it));
        Self(named.collect())
    }

    /// Adds a policy.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if a policy of this name exists, or the name is empty.
    pub fn add(&mut self, policy: Arc<dyn Policy>) -> Result<(), Status> {
        let name = policy.name().to_owned();
        if name.is_empty() {
            return Err(Status::invalid_argument(
                "a load balancing policy needs a name",
            ));
        }
        if self.0.contains_key(&name) {
            return Err(Status::invalid_argument(format!(
                "a load balancing policy named {name:?} exists already; choose another name"
            )));
        }
        self.0.insert(name, policy);
        Ok(())
    }

    /// Returns the policy with this name. Names are compared exactly.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Policy>> {
        self.0.get(name)
    }

    /// Returns the choice of a `loadBalancingConfig`: the first entry whose policy is known. Later entries are not
    /// looked at.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the value is not a list of objects with one key each, no policy is known, or the policy
    /// refuses its configuration. `field` is the name by which error messages refer to `list`.
    pub fn choose(&self, field: &str, list: &Value) -> Result<BalancerConfig, Status> {
        let Value::Array(entries) = list else {
            return Err(Status::invalid_argument(format!(
                "{field}: {} is not a list of policies",
                shown(list)
            )));
        };
        for entry in entries {
            let mut only = entry.as_object().into_iter().flatten();
            let (Some((name, config)), None) = (only.next(), only.next()) else {
                return Err(Status::invalid_argument(format!(
                    "{field}: {} is not an object with one key, the name of a policy",
                    shown(entry)
                )));
            };
            let Some(policy) = self.get(name) else {
                continue;
            };
            if !config.is_object() {
                return Err(Status::invalid_argument(format!(
                    "{field}: the configuration of {name} is {}, not an object",
                    shown(config)
                )));
            }
            let parsed = policy.parse(config, self).map_err(|status| {
                Status::invalid_argument(format!("{field}.{name}: {}", status.message()))
            })?;
            return Ok(BalancerConfig::new(policy.clone(), parsed));
        }
        let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
        Err(Status::invalid_argument(format!(
            "{field}: {} names no known policy (known are {})",
            shown(list),
            known.join(", ")
        )))
    }
}

impl fmt::Debug for BalancerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BalancerConfig").field(&self.name()).finish()
    }
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
