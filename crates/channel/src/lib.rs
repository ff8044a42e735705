//! Client channels: names to addresses, addresses to connections, calls to streams.
//!
//! A channel has a list of targets. They are resolved to endpoints, the [`Spread`] makes subchannels
//! of them, and each subchannel has connections to one of its endpoints: with pick_first all
//! endpoints are one subchannel, with round_robin each is its own.
//!
//! | module | contains |
//! | --- | --- |
//! | `targets` | parses targets and lists of them |
//! | `resolver`, `endpoint` | name resolution; an address and the settings of calls to it |
//! | `connector`, `happy_eyeballs` | byte streams of users; the first of several addresses to connect (RFC 8305) |
//! | `policy` | how endpoints become subchannels |
//! | `subchannel`, `active_connection` | the connections to one of several endpoints, with backoff; one connection |
//! | `connections` | selects a connection for each call, or waits for one |
//! | `maintenance` | tasks of a channel: to connect again, to resolve again, to grow, to fall idle |
//! | `backoff`, `connectivity`, `task` | the pauses between attempts; the state of a channel; background tasks |
//! | `config` | service configs, which are JSON |
//! | `limits`, `settings` | every limit of a channel, with its default; the settings of users |
//!
//! Does not know: message types, prost, interceptors, methods, frames of HTTP/2.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod active_connection;
mod attempts;
mod attributes;
mod backoff;
mod balancing;
mod config;
mod connection_group;
mod connections;
mod connectivity;
mod connector;
mod endpoint;
mod happy_eyeballs;
mod limits;
mod load_report;
mod maintenance;
mod protobuf;
mod resolver;
mod settings;
mod spread;
mod subchannel;
mod target_address;
mod targets;
mod task;

pub use active_connection::Picked;
pub use attempts::{CodeSet, HedgingPolicy, RetryPolicy};
pub use attributes::Attributes;
pub use balancing::{
    AttemptTracker, Balancer, BalancerConfig, Choice, Control, EndedBy, Outcome, Pick, PickArgs,
    PickResult, Picker, Policies, Policy, PolicyConfig, SubchannelState, TimerId, Tracking, Turn,
    Update,
};
pub use config::{AttemptPolicy, MethodConfig, RetryThrottling, ServiceConfig};
pub use connections::{Connections, WaitMode};
pub use connectivity::{ConnectivityState, ConnectivityWatch};
pub use endpoint::{Endpoint, EndpointWeight, HashKey};
pub use limits::ChannelLimits;
pub use load_report::{LoadReport, LoadReportRequest};
pub use resolver::Resolver;
pub use settings::Settings;
pub use spread::Spread;
pub use subchannel::{Subchannel, SubchannelId};
pub use target_address::Origin;
pub use targets::{TargetName, Targets};
