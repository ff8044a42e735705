//! Types for channels beyond [`Channel`](crate::Channel): targets, resolvers, service configs, and the connectivity state.
//!
//! [`Channel::connect`](crate::Channel::connect) and [`Channel::to`](crate::Channel::to) take anything that converts into
//! [`Targets`]. [`Lookup`] and [`Resolver`] are for names of your own; [`balancing`](crate::balancing) has the types of
//! load balancing policies.

#[cfg(feature = "hickory")]
#[cfg_attr(docsrs, doc(cfg(feature = "hickory")))]
pub use trunkline_channel::HickoryLookup;
pub use trunkline_channel::{
    AttemptPolicy, Attributes, CodeSet, ConnectivityState, ConnectivityWatch, Endpoint,
    EndpointWeight, HashKey, HedgingPolicy, Lookup, MethodConfig, Resolution, Resolver,
    RetryPolicy, RetryThrottling, ServiceConfig, TargetName, TargetUri, Targets, Updates, Verdict,
};
pub use trunkline_transport::Proxy;
