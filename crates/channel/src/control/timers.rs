//! The timers of a control task.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::active_connection::ActiveConnection;
use crate::balancing::TimerId;
use crate::subchannel::SubchannelId;

/// The purpose of a timer.
#[derive(Clone, Debug)]
pub(crate) enum Timer {
    /// A balancer has set it: its generation.
    Balancer(u64),
    /// The backoff of a subchannel ends.
    Backoff(SubchannelId),
    /// The pause of a subchannel before another connection ends.
    Growth(SubchannelId),
    /// An additional connection is checked for use.
    Surplus(SubchannelId, Weak<ActiveConnection>),
    /// The resolver starts again.
    Resolver,
    /// The channel is checked for use.
    Idle,
}

/// ControlTimers in the order in which they expire. The runtime has one timer for all.
#[derive(Debug, Default)]
pub(crate) struct ControlTimers {
    due: BTreeMap<(Instant, u64), Timer>,
    set: HashMap<u64, Instant>,
    last: u64,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl ControlTimers {
    pub(crate) fn set(&mut self, at: Instant, timer: Timer) -> TimerId {
        self.last += 1;
        self.due.insert((at, self.last), timer);
        self.set.insert(self.last, at);
        TimerId(self.last)
    }

    pub(crate) fn cancel(&mut self, TimerId(id): TimerId) {
        if let Some(at) = self.set.remove(&id) {
            self.due.remove(&(at, id));
        }
    }

    /// Completes when a timer expires, and removes it.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(TimerId, Timer)> {
        let Some((&(at, id), _)) = self.due.first_key_value() else {
            return Poll::Pending;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        ready!(sleep.as_mut().poll(cx));
        self.set.remove(&id);
        match self.due.remove(&(at, id)) {
            Some(timer) => Poll::Ready((TimerId(id), timer)),
            None => Poll::Pending,
        }
    }
}
