//! The channel, as its balancers see it.

use std::hash::{BuildHasher, RandomState};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_transport::Address;

use super::core::Core;
use super::timers::Timer;
use crate::attributes::Attributes;
use crate::balancing::{Control, Picker, TimerId};
use crate::connectivity::ConnectivityState;
use crate::limits::ChannelLimits;
use crate::subchannel::Subchannel;

/// The [`Control`] of one call of a balancer's method.
pub(crate) struct ChannelControl<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) generation: u64,
    /// The last publication.
    pub(crate) published: Option<(ConnectivityState, Picker)>,
}

impl Control for ChannelControl<'_> {
    fn create_subchannel(&mut self, address: &Address, attributes: &Attributes) -> Subchannel {
        self.core.create(self.generation, address, attributes)
    }

    fn connect(&mut self, subchannel: &Subchannel) {
        self.core.connect(subchannel.id());
    }

    fn watch_health(&mut self, subchannel: &Subchannel) {
        self.core.watch_health(subchannel.id());
    }

    fn watch_load(&mut self, subchannel: &Subchannel, interval: Duration) {
        self.core.watch_load(subchannel.id(), interval);
    }

    fn publish(&mut self, state: ConnectivityState, picker: Picker) {
        self.published = Some((state, picker));
    }

    fn set_timer(&mut self, at: Instant) -> TimerId {
        self.core.timers.set(at, Timer::Balancer(self.generation))
    }

    fn cancel_timer(&mut self, timer: TimerId) {
        self.core.timers.cancel(timer);
    }

    fn resolve_again(&mut self) {
        self.core.wanted.notify_one();
    }

    fn waker(&self) -> Waker {
        self.core.idle_waker.clone().into()
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn random(&mut self) -> u64 {
        // The keys of each are others, from the system's source.
        RandomState::new().hash_one(())
    }

    fn limits(&self) -> &ChannelLimits {
        self.core.limits()
    }
}
