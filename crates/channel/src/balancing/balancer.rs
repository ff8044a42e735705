//! Balancers: state machines that make pickers of endpoints and of the states of subchannels.

use std::any::Any;
use std::task::Waker;

use tokio::time::Instant;
use trunkline_codec::{LoadReport, Status};
use trunkline_transport::Address;

use super::picker::Picker;
use crate::attributes::Attributes;
use crate::connectivity::ConnectivityState;
use crate::endpoint::Endpoint;
use crate::limits::ChannelLimits;
use crate::subchannel::{Subchannel, SubchannelId};

/// Decides to which endpoints a channel connects, and which of the connections a call uses.
///
/// A balancer is a pure state machine: it does no I/O, and time and randomness come from [`Control`]. All its
/// methods are called by one task of the channel, never at the same time. What it decides, it publishes as a
/// [`Picker`]. If a method panics, the channel goes into TRANSIENT_FAILURE with a status that names the policy,
/// and the next resolution starts a new balancer.
///
/// If a service config selects another policy, the channel builds a new balancer while the old one still
/// serves. The new one takes over once it is no longer CONNECTING, or at once if the old one is not READY. The
/// old balancer is then dropped, and its picker serves no further attempts. Its subchannels shut down with
/// their last clones; calls that run on them continue. A balancer is also dropped when its channel becomes idle
/// or is dropped.
///
/// [`Policy`](super::Policy) has a complete example.
pub trait Balancer: Send {
    /// Receives a result of the resolver: at the start, and whenever the result or the configuration changes.
    ///
    /// # Errors
    ///
    /// A status if the endpoints cannot be used, for example because the list is empty. The resolver is told, and
    /// looks again after a pause.
    fn update(&mut self, update: Update<'_>, control: &mut dyn Control) -> Result<(), Status>;

    /// Receives the new state of a subchannel that this balancer has created and still holds.
    fn subchannel_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    );

    /// Receives the health of a subchannel for which the balancer has called [`Control::watch_health`].
    fn health_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) {
        let _ = (id, state, control);
    }

    /// Receives a report of the load of a server for which the balancer has called [`Control::watch_load`].
    fn load_reported(&mut self, id: SubchannelId, report: &LoadReport, control: &mut dyn Control) {
        let _ = (id, report, control);
    }

    /// Receives the expiry of a timer that the balancer has set with [`Control::set_timer`].
    fn timer_expired(&mut self, timer: TimerId, control: &mut dyn Control) {
        let _ = (timer, control);
    }

    /// Receives the request of a call, or of the user of the channel, for a connection while the balancer is
    /// idle (it has published [`Picker::Idle`]).
    fn exit_idle(&mut self, control: &mut dyn Control);
}

/// A result of the resolver, with the configuration of the policy.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// The endpoints, or the reason why the resolver has none. Endpoints received before an error stay in use.
    pub endpoints: Result<&'a [Endpoint], &'a Status>,
    /// The configuration that [`Policy::parse`](super::Policy::parse) has returned.
    pub config: &'a (dyn Any + Send + Sync),
    /// Attributes of the resolution as a whole.
    pub attributes: &'a Attributes,
    /// A note of the resolver, which a balancer appends to the message of its error if the list of endpoints is
    /// empty. Empty if the resolver has none.
    pub note: &'a str,
}

impl<'a> Update<'a> {
    /// Returns the configuration as the type that the policy's `parse` has made; `None` if it is another.
    pub fn config_as<T: 'static>(&self) -> Option<&'a T> {
        self.config.downcast_ref()
    }
}

/// The state of a subchannel, with the reason for TRANSIENT_FAILURE.
#[derive(Clone, Debug)]
pub struct SubchannelState {
    /// The state.
    pub connectivity: ConnectivityState,
    /// The last failure to connect; set in TRANSIENT_FAILURE.
    pub failure: Option<Status>,
}

impl SubchannelState {
    /// Creates a state without a failure.
    pub fn new(connectivity: ConnectivityState) -> Self {
        Self {
            connectivity,
            failure: None,
        }
    }

    /// Creates the state TRANSIENT_FAILURE.
    pub fn failed(status: Status) -> Self {
        Self {
            connectivity: ConnectivityState::TransientFailure,
            failure: Some(status),
        }
    }
}

/// Identifies a timer of a balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId(pub u64);

/// The handle with which a balancer acts on its channel: it creates subchannels, sets timers, and publishes its
/// state.
///
/// A policy can contain other policies, its *children*: outlier_detection, for example, adds its rules to a
/// child policy. Such a policy builds a balancer for each child, and passes it a `Control` of its own instead
/// of that of the channel. So it receives what the child publishes or asks for, and can change it before it
/// passes it on.
pub trait Control {
    /// Creates a subchannel to `address` in state IDLE. It shuts down when the last clone is dropped, so a
    /// balancer keeps a clone for as long as it wants the connection; pickers that contain a clone keep it,
    /// too.
    fn create_subchannel(&mut self, address: &Address, attributes: &Attributes) -> Subchannel;

    /// Asks an idle subchannel to connect. In other states this has no effect.
    fn connect(&mut self, subchannel: &Subchannel);

    /// Asks for the health of a subchannel (gRFC A17). [`Balancer::health_changed`] reports it each time the
    /// subchannel becomes READY, and then each change until the connection is lost.
    ///
    /// Servers are asked for their health if the service config of the channel has a `healthCheckConfig` with a
    /// `serviceName`. Otherwise, the reported health is always READY.
    fn watch_health(&mut self, subchannel: &Subchannel);

    /// Asks the server of a subchannel for load reports outside of calls (gRFC A51), at least every `interval`.
    fn watch_load(&mut self, subchannel: &Subchannel, interval: std::time::Duration);

    /// Publishes the state of the balancer and its picker. Calls that wait pick again.
    fn publish(&mut self, state: ConnectivityState, picker: Picker);

    /// Sets a timer, which expires once.
    fn set_timer(&mut self, at: Instant) -> TimerId;

    /// Removes a timer. It does not expire afterwards.
    fn cancel_timer(&mut self, timer: TimerId);

    /// Asks the resolver to look again, as soon as its pause permits.
    fn resolve_again(&mut self);

    /// Returns a waker with which a picker asks for [`Balancer::exit_idle`], from any thread. All wakes before
    /// the call of `exit_idle` count as one; a later wake causes another call.
    fn waker(&self) -> Waker;

    /// Returns the current time.
    fn now(&self) -> Instant;

    /// Returns a random number.
    fn random(&mut self) -> u64;

    /// Returns the limits of the channel.
    fn limits(&self) -> &ChannelLimits;
}
