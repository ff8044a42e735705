//! Types for channels beyond [`Channel`](crate::Channel): targets, resolvers and the connectivity state.
//!
//! [`Channel::connect`](crate::Channel::connect) and [`Channel::to`](crate::Channel::to) take anything that converts into
//! [`Targets`].

pub use trunkline_channel::{
    AttemptTracker, Attributes, Balancer, BalancerConfig, Choice, ConnectivityState,
    ConnectivityWatch, Control, EndedBy, Endpoint, EndpointWeight, HashKey, LoadReport, Lookup,
    Outcome, Pick, PickArgs, PickResult, Picker, Policies, Policy, PolicyConfig, Resolution,
    Resolver, RoundRobinPicker, RoundRobinPosition, Subchannel, SubchannelId, SubchannelState,
    TargetName, TargetUri, Targets, TimerId, Tracking, Update, Updates, Verdict,
};
