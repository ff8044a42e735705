//! Types for channels beyond [`Channel`](crate::Channel): targets, resolvers, and the connectivity state.
//!
//! [`Channel::connect`](crate::Channel::connect) and [`Channel::to`](crate::Channel::to) take anything that converts into
//! [`Targets`]. [`Lookup`] and [`Resolver`] are for names of your own; [`balancing`](crate::balancing) has the types of
//! load balancing policies.

pub use trunkline_channel::{
    Attributes, ConnectivityState, ConnectivityWatch, Endpoint, EndpointWeight, HashKey, Lookup,
    Resolution, Resolver, TargetName, TargetUri, Targets, Updates, Verdict,
};
