//! Types for load balancing policies of your own: policies, balancers, pickers, and trackers of attempts.
//!
//! To select one of the [built-in policies](Policies::builtin), use
//! [`ChannelBuilder::use_policy`](crate::ChannelBuilder::use_policy) or a service config; these types are not needed.
//!
//! A resolver passes [endpoints](crate::channel::Endpoint) to the channel. The channel has one [`Balancer`], which a
//! [`Policy`] has built. The balancer turns endpoints into [`Subchannel`]s, and publishes a [`Picker`] whenever their
//! states change. Each attempt of a call asks the current picker for a subchannel. If the picker returned a
//! [`Tracking`] with it, the tracker is told how the attempt ended.
//!
//! Most policies connect to all endpoints and differ only in the choice among those that are connected. They need no
//! balancer of their own: see [`MakePicker`], with an example.
//!
//! To write any other policy, read in this order: [`Policy`], which has a complete example; [`Balancer`] with
//! [`Update`] and [`Control`]; [`Picker`], and [`Pick`] if none of its other variants is enough. Only some
//! policies need [`AttemptTracker`] (the end of attempts), [`LoadReport`](crate::LoadReport) (the load of
//! servers) or [`Policies`] (children).
//!
//! A policy that contains other policies (its children) receives their requests through a [`Control`] of its own.

/// The crate [`serde_json`](https://docs.rs/serde_json), for the configurations of policies.
pub use trunkline_channel::serde_json;
pub use trunkline_channel::{
    AttemptTracker, Balancer, BalancerConfig, Choice, Control, EndedBy, MakePicker, Outcome, Pick,
    PickArgs, PickResult, Picker, Policies, Policy, PolicyConfig, ReadyBalancer, ReadyEndpoint,
    RoundRobinPicker, RoundRobinPosition, Subchannel, SubchannelId, SubchannelState, TimerId,
    Tracking, Update,
};
