//! Client channels: names to addresses, addresses to connections, calls to streams.
//!
//! A resolver turns the target of a channel into endpoints. A balancer turns endpoints into subchannels and publishes a
//! picker, with which each call finds its subchannel. Resolver, balancer and the states of subchannels live in one
//! control task; calls only read the picker.
//!
//! | module | contains |
//! | --- | --- |
//! | `resolve` | targets, lookups of names, resolvers of users |
//! | `proxies` | the proxy of each target |
//! | `endpoint`, `attributes` | the servers that a resolver has found |
//! | `balancing` | policies, their balancers and pickers; the way back of outcomes |
//! | `config` | service configs, which are JSON |
//! | `control` | the control task: resolver, balancers, subchannels, timers |
//! | `routing`, `connections`, `waits` | the picker in force; a connection for each call, or the wait for one |
//! | `subchannel`, `active_connection` | the connections to one address; one connection |
//! | `connect`, `connector`, `backoff` | an attempt to connect, byte streams of users, the pauses between attempts |
//! | `attempts` | retries, hedging, throttling |
//! | `security_level`, `restricted` | the protection of a connection; codes that are reserved for applications |
//! | `connectivity` | the state of a channel |
//! | `limits`, `settings` | every limit of a channel, with its default; the settings of users |
//!
//! Does not know: message types, prost, interceptors, methods, frames of HTTP/2.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod active_connection;
mod attempts;
mod attributes;
pub mod backoff;
mod balancing;
mod config;
mod connect;
mod connections;
mod connectivity;
mod connector;
mod control;
mod endpoint;
mod limits;
mod proxies;
mod resolve;
mod restricted;
mod routing;
mod security_level;
mod settings;
mod subchannel;
mod target_address;
mod task;
mod waits;

pub use active_connection::{PickExtra, Picked};
pub use attempts::{Attempt, CallAttempts, CallHead, CodeSet, HedgingPolicy, RetryPolicy, Unsent};
pub use attributes::Attributes;
pub use balancing::{
    AttemptTracker, Balancer, BalancerConfig, Choice, Control, EndedBy, MakePicker, Outcome, Pick,
    PickArgs, PickResult, Picker, Policies, Policy, PolicyConfig, ReadyBalancer, ReadyEndpoint,
    RoundRobinPicker, RoundRobinPosition, SubchannelState, TimerId, Tracking, Update,
};
pub use config::{AttemptPolicy, MethodConfig, RetryThrottling, ServiceConfig};
pub use connections::{Connections, Unresolved, WaitMode};
pub use connectivity::{ConnectivityState, ConnectivityWatch};
pub use endpoint::{Endpoint, EndpointWeight, HashKey};
pub use limits::ChannelLimits;
#[cfg(feature = "hickory")]
#[cfg_attr(docsrs, doc(cfg(feature = "hickory")))]
pub use resolve::hickory::HickoryLookup;
pub use resolve::lookup::Lookup;
pub use resolve::resolver::{Resolution, Resolver, Updates, Verdict};
pub use resolve::target_uri::TargetUri;
pub use resolve::targets::{TargetName, Targets};
pub use restricted::restricted;
pub use security_level::SecurityLevel;
/// JSON values, as [`Policy::parse`] receives them.
pub use serde_json;
pub use settings::ChannelSettings;
pub use subchannel::{Subchannel, SubchannelId};
pub use target_address::Origin;
