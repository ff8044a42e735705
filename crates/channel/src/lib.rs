//! Where the calls of a client go: names to addresses, addresses to connections, calls to streams.
//!
//! A channel has a list of targets. They are resolved to endpoints, the [`Policy`] makes groups of
//! them, and each group has connections to one of its endpoints: with pick_first all endpoints are
//! one group, with round_robin each is its own.
//!
//! | module | holds |
//! | --- | --- |
//! | `targets` | what users write |
//! | `resolver`, `endpoint` | names to addresses; an address and what calls to it are told |
//! | `connector`, `race` | byte streams of users; the attempt that is first (RFC 8305) |
//! | `limits` | every limit of a channel, with its default |
//! | `policy` | how endpoints become groups |
//! | `group`, `member` | the connections to one of several endpoints, and its back-off; one connection |
//! | `connections` | which connection a call takes, and what it waits for |
//! | `upkeep` | what happens beside calls: connecting again, resolving again, growing, falling idle |
//! | `backoff`, `connectivity`, `task` | the pauses between attempts; the state of a channel; what runs beside calls |
//!
//! Does not know: message types, prost, interceptors, what a method is. It sees no frame of HTTP/2.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod connections;
mod connectivity;
mod connector;
mod endpoint;
mod group;
mod limits;
mod member;
mod policy;
mod race;
mod resolver;
mod settings;
mod targets;
mod task;
mod upkeep;

pub use connections::{Connections, Patience, Ready};
pub use connectivity::{ConnectivityState, StateWatch};
pub use endpoint::Origin;
pub use limits::ChannelLimits;
pub use policy::Policy;
pub use resolver::Resolver;
pub use settings::Settings;
pub use targets::Targets;
