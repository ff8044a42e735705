//! Types for channels beyond [`Channel`](crate::Channel): targets, resolvers and the connectivity state.
//!
//! [`Channel::connect`](crate::Channel::connect) and [`Channel::to`](crate::Channel::to) take anything that converts into
//! [`Targets`].

pub use trunkline_channel::{ConnectivityState, ConnectivityWatch, Resolver, TargetName, Targets};
