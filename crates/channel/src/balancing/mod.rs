//! Load balancing: policies, their balancers, and the pickers that these publish.

pub(crate) mod balancer;
mod builtin;
pub(crate) mod children;
mod ejection;
pub(crate) mod event_routes;
mod failure;
mod graceful_switch;
mod least_request;
mod load_weight;
mod outlier_detection;
mod pick_first;
pub(crate) mod picker;
pub(crate) mod policy;
#[cfg(test)]
mod random_events;
mod random_subsetting;
mod ready_balancer;
mod ring;
mod ring_hash;
mod round_robin;
mod static_stride;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod tracker;
mod weighted_round_robin;

pub use balancer::{Balancer, Control, SubchannelState, TimerId, Update};
pub use picker::{
    Choice, Pick, PickArgs, PickResult, Picker, RoundRobinPicker, RoundRobinPosition,
};
pub use policy::{BalancerConfig, Policies, Policy, PolicyConfig};
pub use ready_balancer::{MakePicker, ReadyBalancer, ReadyEndpoint};
pub use tracker::{AttemptTracker, EndedBy, Outcome, Tracking};
