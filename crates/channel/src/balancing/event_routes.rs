//! The way of subchannels' and timers' events through a policy to the child that they are for.

use std::collections::HashMap;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_transport::Address;

use super::balancer::{Control, TimerId};
use super::picker::Picker;
use crate::attributes::Attributes;
use crate::connectivity::ConnectivityState;
use crate::limits::ChannelLimits;
use crate::subchannel::{Subchannel, SubchannelId, WeakSubchannel};

/// The number of subchannels that are remembered before those that are gone are first looked for.
const PRUNE_FROM: usize = 64;

/// A child of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChildId(pub(crate) u64);

/// The children to which subchannels and timers belong.
#[derive(Default)]
pub(crate) struct EventRoutes {
    subchannels: HashMap<SubchannelId, (ChildId, WeakSubchannel)>,
    /// The number of subchannels at which those that are gone are forgotten.
    prune_at: usize,
    timers: HashMap<TimerId, ChildId>,
}

impl EventRoutes {
    /// Returns the child that has created a subchannel.
    pub(crate) fn of_subchannel(&self, id: SubchannelId) -> Option<ChildId> {
        let (id, _) = self.subchannels.get(&id)?;
        Some(*id)
    }

    /// Returns the child that has set a timer, which has expired.
    pub(crate) fn take_timer(&mut self, timer: TimerId) -> Option<ChildId> {
        self.timers.remove(&timer)
    }

    fn add(&mut self, subchannel: &Subchannel, id: ChildId) {
        if self.subchannels.len() >= self.prune_at {
            self.subchannels
                .retain(|_, (_, subchannel)| subchannel.upgrade().is_some());
            self.prune_at = PRUNE_FROM.max(2 * self.subchannels.len());
        }
        let entry = (id, subchannel.downgrade());
        self.subchannels.insert(subchannel.id(), entry);
    }

    /// Forgets a child, and cancels its timers.
    pub(crate) fn forget(&mut self, id: ChildId, control: &mut dyn Control) {
        self.subchannels.retain(|_, (of, _)| *of != id);
        self.timers.retain(|timer, of| {
            if *of == id {
                control.cancel_timer(*timer);
            }
            *of != id
        });
    }
}

/// The channel, as a child sees it.
pub(crate) struct ChildControl<'a> {
    pub(crate) control: &'a mut dyn Control,
    pub(crate) id: ChildId,
    pub(crate) routes: &'a mut EventRoutes,
    /// The last publication of the child.
    pub(crate) published: Option<(ConnectivityState, Picker)>,
}

impl Control for ChildControl<'_> {
    fn create_subchannel(&mut self, address: &Address, attributes: &Attributes) -> Subchannel {
        let subchannel = self.control.create_subchannel(address, attributes);
        self.routes.add(&subchannel, self.id);
        subchannel
    }

    fn connect(&mut self, subchannel: &Subchannel) {
        self.control.connect(subchannel);
    }

    fn watch_health(&mut self, subchannel: &Subchannel) {
        self.control.watch_health(subchannel);
    }

    fn watch_load(&mut self, subchannel: &Subchannel, interval: Duration) {
        self.control.watch_load(subchannel, interval);
    }

    fn publish(&mut self, state: ConnectivityState, picker: Picker) {
        self.published = Some((state, picker));
    }

    fn set_timer(&mut self, at: Instant) -> TimerId {
        let timer = self.control.set_timer(at);
        self.routes.timers.insert(timer, self.id);
        timer
    }

    fn cancel_timer(&mut self, timer: TimerId) {
        self.routes.timers.remove(&timer);
        self.control.cancel_timer(timer);
    }

    fn resolve_again(&mut self) {
        self.control.resolve_again();
    }

    fn waker(&self) -> Waker {
        self.control.waker()
    }

    fn now(&self) -> Instant {
        self.control.now()
    }

    fn random(&mut self) -> u64 {
        self.control.random()
    }

    fn limits(&self) -> &ChannelLimits {
        self.control.limits()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FakeControl, address};
    use super::*;

    #[test]
    fn subchannels_that_are_gone_are_forgotten() {
        let (mut routes, mut fake) = (EventRoutes::default(), FakeControl::new());
        let mut held = Vec::new();
        for round in 0..1_000 {
            let mut control = ChildControl {
                control: &mut fake,
                id: ChildId(round % 2),
                routes: &mut routes,
                published: None,
            };
            let subchannel = control.create_subchannel(&address("1"), &Attributes::default());
            if round < 10 {
                held.push(subchannel);
            }
        }
        assert!(routes.subchannels.len() <= PRUNE_FROM);
        let of = |held: &Subchannel| routes.of_subchannel(held.id());
        assert!(held.iter().all(|it| of(it).is_some()));
        routes.forget(ChildId(0), &mut fake);
        let even = held.iter().step_by(2);
        assert!(
            even.map(|it| routes.of_subchannel(it.id()))
                .all(|it| it.is_none())
        );
        assert_eq!(routes.of_subchannel(held[1].id()), Some(ChildId(1)));
    }

    #[test]
    fn timers_of_a_child_that_is_gone_are_cancelled() {
        let (mut routes, mut fake) = (EventRoutes::default(), FakeControl::new());
        let now = fake.now;
        let mut timers = Vec::new();
        for id in [ChildId(1), ChildId(2), ChildId(1)] {
            let mut control = ChildControl {
                control: &mut fake,
                id,
                routes: &mut routes,
                published: None,
            };
            timers.push(control.set_timer(now));
        }
        assert_eq!(routes.take_timer(timers[0]), Some(ChildId(1)));
        assert_eq!(routes.take_timer(timers[0]), None);
        fake.timers.remove(&timers[0]);
        routes.forget(ChildId(1), &mut fake);
        assert_eq!(fake.timers.keys().collect::<Vec<_>>(), [&timers[1]]);
        assert_eq!(routes.take_timer(timers[1]), Some(ChildId(2)));
    }
}
