//! The subchannels of a channel: connecting, backoff, further connections, loss.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Wake;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use trunkline_codec::{LoadReport, Status};
use trunkline_transport::{Address, Connection};

use super::event::{Attempted, ChannelEvent, Events};
use super::owned_task::OwnedTask;
use super::subchannel_watches::{SubchannelWatches, WatchEvent, WatchStarter};
use super::timers::{ControlTimers, Timer};
use crate::active_connection::{ActiveConnection, UsageCheck};
use crate::attributes::Attributes;
use crate::backoff::{self, Backoff};
use crate::balancing::{SubchannelState, TimerId};
use crate::connect::Dialer;
use crate::connectivity::ConnectivityState;
use crate::limits::ChannelLimits;
use crate::routing::ChannelShared;
use crate::subchannel::{Reports, Subchannel, SubchannelId, WeakSubchannel, least_busy};
use crate::target_address::{OfTarget, TargetAddress};

/// The number of successive connections that can be lost before they have carried a call, until the next one is opened
/// after a pause. A server that stops closes one connection; a server that closes all of them must not cause a busy
/// loop.
const FLAPS_MAX: u32 = 2;

/// A change that a balancer has not been told of.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) generation: u64,
    pub(crate) id: SubchannelId,
    pub(crate) news: SubchannelNews,
}

/// A change of a subchannel, for one of the methods of its balancer.
#[derive(Debug)]
pub(crate) enum SubchannelNews {
    State(SubchannelState),
    Health(SubchannelState),
    Load(LoadReport),
}

/// The subchannels of a channel with their timers, apart from the balancers that use them.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) shared: Arc<ChannelShared>,
    /// Notified when a new resolution is wanted.
    pub(crate) wanted: Arc<Notify>,
    pub(crate) timers: ControlTimers,
    pub(crate) deliveries: VecDeque<Delivery>,
    pub(super) entries: HashMap<SubchannelId, ManagedSubchannel>,
    /// The service whose health counts.
    pub(super) health_service: Option<Arc<str>>,
    pub(super) watch_starter: WatchStarter,
    /// The number of connections of a subchannel, if a service config sets it (gRFC A105).
    max_connections: Option<usize>,
    /// Lets pickers ask for a connection.
    pub(crate) idle_waker: Arc<IdleWaker>,
    dialer: Dialer,
    events: Events,
    reports: Reports,
}

/// Asks the balancers to leave idleness. Requests that the control task has not seen yet count as one.
#[derive(Debug)]
pub(crate) struct IdleWaker {
    events: Events,
    was_asked: AtomicBool,
}

impl IdleWaker {
    /// The control task has seen the request.
    pub(crate) fn reset(&self) {
        // A read as well, so that it sees what a picker has written before its own request.
        self.was_asked.swap(false, Ordering::AcqRel);
    }
}

impl Wake for IdleWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.was_asked.swap(true, Ordering::AcqRel) {
            // The control task is gone if the channel is idle or dropped.
            let _ = self.events.send(ChannelEvent::ExitIdle);
        }
    }
}

/// A subchannel, as the control task sees it.
#[derive(Debug)]
pub(super) struct ManagedSubchannel {
    pub(super) handle: WeakSubchannel,
    /// The balancer that has created it.
    pub(super) generation: u64,
    address: TargetAddress,
    /// Connects the only connection.
    attempt: Option<OwnedTask>,
    /// Connects another connection.
    further: Option<OwnedTask>,
    /// The reason for TRANSIENT_FAILURE.
    failing: Option<Status>,
    backoff: Backoff,
    /// Ends TRANSIENT_FAILURE.
    backoff_timer: Option<TimerId>,
    flaps: u32,
    /// The moment when a connection was last lost, or a further one could not be opened.
    failed: Option<Instant>,
    pub(super) watches: SubchannelWatches,
}

impl Core {
    pub(crate) fn new(
        shared: Arc<ChannelShared>,
        dialer: Dialer,
        events: Events,
        reports: Reports,
        watched: mpsc::Sender<WatchEvent>,
    ) -> Self {
        let limits = shared.settings.limits.clone();
        Self {
            shared,
            wanted: Arc::default(),
            timers: ControlTimers::default(),
            deliveries: VecDeque::new(),
            entries: HashMap::new(),
            health_service: None,
            max_connections: None,
            watch_starter: WatchStarter::new(limits, watched),
            idle_waker: Arc::new(IdleWaker {
                events: events.clone(),
                was_asked: AtomicBool::new(false),
            }),
            dialer,
            events,
            reports,
        }
    }

    pub(crate) fn limits(&self) -> &ChannelLimits {
        &self.shared.settings.limits
    }

    pub(crate) fn create(
        &mut self,
        generation: u64,
        address: &Address,
        attributes: &Attributes,
    ) -> Subchannel {
        let id = self.shared.next_subchannel_id();
        let subchannel = Subchannel::new(id, address.clone(), self.reports.clone());
        let target = match attributes.get() {
            Some(OfTarget(target)) => target.clone(),
            None => self.shared.settings.target(),
        };
        let entry = ManagedSubchannel {
            handle: subchannel.downgrade(),
            generation,
            address: TargetAddress {
                address: address.clone(),
                target,
            },
            attempt: None,
            further: None,
            failing: None,
            backoff: Backoff::new(self.limits()),
            backoff_timer: None,
            flaps: 0,
            failed: None,
            watches: SubchannelWatches::default(),
        };
        self.entries.insert(id, entry);
        self.shared.add(&subchannel);
        subchannel
    }

    /// Connects a subchannel that is idle.
    pub(crate) fn connect(&mut self, id: SubchannelId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.state() != ConnectivityState::Idle {
            return;
        }
        let (dialer, events) = (self.dialer.clone(), self.events.clone());
        entry.attempt = Some(entry.dial(id, dialer, events, Attempted::First));
        self.tell(id);
    }

    /// An attempt to connect has ended.
    pub(crate) fn connected(
        &mut self,
        id: SubchannelId,
        started: Instant,
        result: Result<Connection, Status>,
        kind: Attempted,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        match kind {
            Attempted::First => entry.attempt = None,
            Attempted::Further => entry.further = None,
        }
        match (result, kind) {
            (Ok(connection), _) => self.join(id, connection, started),
            (Err(status), Attempted::First) => {
                self.fail(id, status, started);
                self.tell(id);
            }
            (Err(_), Attempted::Further) => {
                entry.failed = Some(Instant::now());
                self.allow_growth(id);
            }
        }
    }

    /// Adds a connection to a subchannel.
    fn join(&mut self, id: SubchannelId, connection: Connection, started: Instant) {
        let (authority, limits) = (
            self.shared.settings.authority.clone(),
            self.shared.settings.limits.clone(),
        );
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let Some(subchannel) = entry.handle.upgrade() else {
            return;
        };
        entry.failing = None;
        // connection-backoff.md: reset after a successful connection. One that is lost before it has been of use was
        // none.
        if entry.flaps == 0 {
            entry.backoff = Backoff::new(&limits);
        }
        let (events, left) = (self.events.clone(), connection.left());
        tokio::spawn(async move {
            left.await;
            let _ = events.send(ChannelEvent::Left(id));
        });
        let origin = entry.address.origin(authority.as_ref());
        let active = ActiveConnection::new(connection, origin, started);
        let mut connections = Vec::clone(&subchannel.connections());
        let is_first = connections.is_empty();
        connections.push(active.clone());
        subchannel.set_connections(connections);
        if !active.is_usable() {
            return self.left(id);
        }
        self.allow_growth(id);
        if is_first {
            self.tell(id);
        } else {
            self.check_surplus_later(id, Arc::downgrade(&active));
            self.shared.wake_calls();
        }
        self.update_watches(id);
    }

    /// Enters TRANSIENT_FAILURE until the pause is over, which is counted from `started`.
    fn fail(&mut self, id: SubchannelId, status: Status, started: Instant) {
        let limits = self.shared.settings.limits.clone();
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let pause = entry.backoff.pause(&limits, backoff::random());
        tracing::debug!(
            target: "trunkline::connection",
            error = status.message(),
            pause_ms = pause.as_millis(),
            "no connection"
        );
        entry.failing = Some(status);
        let timer = started.checked_add(pause);
        let timer = timer.map(|at| self.timers.set(at, Timer::Backoff(id)));
        if let Some(before) = std::mem::replace(&mut entry.backoff_timer, timer) {
            self.timers.cancel(before);
        }
    }

    /// The backoff of a subchannel is over.
    pub(crate) fn backoff_ended(&mut self, id: SubchannelId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if let Some(timer) = entry.backoff_timer.take() {
            self.timers.cancel(timer);
        }
        if entry.failing.take().is_some() {
            self.tell(id);
        }
    }

    /// Ends all backoff, and begins it from the first pause.
    pub(crate) fn reset_backoff(&mut self) {
        let limits = self.shared.settings.limits.clone();
        let mut failing = Vec::new();
        for (id, entry) in &mut self.entries {
            entry.backoff = Backoff::new(&limits);
            entry.flaps = 0;
            if entry.failing.is_some() {
                failing.push(*id);
            }
        }
        failing.sort();
        for id in failing {
            self.backoff_ended(id);
        }
    }

    /// A connection of a subchannel takes no more calls.
    pub(crate) fn left(&mut self, id: SubchannelId) {
        let limits = self.shared.settings.limits.clone();
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let Some(subchannel) = entry.handle.upgrade() else {
            return;
        };
        let (usable, lost): (Vec<_>, Vec<_>) = Vec::clone(&subchannel.connections())
            .into_iter()
            .partition(|it| it.is_usable());
        let Some(last) = lost.last() else {
            return;
        };
        entry.failed = Some(Instant::now());
        let is_empty = usable.is_empty();
        subchannel.set_connections(usable);
        self.wanted.notify_one();
        if !is_empty {
            self.update_watches(id);
            self.allow_growth(id);
            self.shared.wake_calls();
            return;
        }
        let was_of_use = last.connection.has_responded()
            || last.started.elapsed() >= limits.connect_backoff_base;
        if was_of_use {
            entry.flaps = 0;
            entry.backoff = Backoff::new(&limits);
        } else {
            entry.flaps += 1;
            // A server that takes a connection and closes it again is not asked for each call either.
            if entry.flaps > FLAPS_MAX {
                self.fail(id, last.connection.failure(), last.started);
            }
        }
        self.update_watches(id);
        self.tell(id);
    }

    /// A call has found all connections of a subchannel busy, or the pause before another one is over.
    pub(crate) fn grow(&mut self, id: SubchannelId) {
        let growth = self.growth();
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let Some(subchannel) = entry.handle.upgrade() else {
            return;
        };
        let connections = subchannel.connections();
        let is_busy = least_busy(&connections).is_some_and(|it| it.is_busy());
        let now = Instant::now();
        if is_busy
            && entry
                .grows_at(connections.len(), now, growth)
                .is_some_and(|at| at <= now)
        {
            let (dialer, events) = (self.dialer.clone(), self.events.clone());
            entry.further = Some(entry.dial(id, dialer, events, Attempted::Further));
        }
        self.allow_growth(id);
    }

    /// Sets the number of connections of each subchannel; `None` leaves it to the limits. Connections that are open
    /// stay open until they are surplus.
    pub(crate) fn set_max_connections(&mut self, max_connections: Option<usize>) {
        if max_connections != self.max_connections {
            self.max_connections = max_connections;
            let ids: Vec<_> = self.entries.keys().copied().collect();
            for id in ids {
                self.allow_growth(id);
            }
        }
    }

    /// Returns the number of connections that a subchannel may have, and the pause before another one.
    fn growth(&self) -> (usize, Duration) {
        let limits = self.limits();
        let max_connections = self.max_connections.unwrap_or(limits.max_connections);
        (max_connections, limits.connection_retry_pause)
    }

    /// Lets calls ask for another connection, now or when the pause is over.
    fn allow_growth(&mut self, id: SubchannelId) {
        let growth = self.growth();
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let Some(subchannel) = entry.handle.upgrade() else {
            return;
        };
        let now = Instant::now();
        let grows_at = entry.grows_at(subchannel.connections().len(), now, growth);
        let is_now = grows_at.is_some_and(|at| at <= now);
        subchannel.set_may_grow(is_now);
        if let (false, Some(at)) = (is_now, grows_at) {
            self.timers.set(at, Timer::Growth(id));
        }
    }

    /// Closes an additional connection that no call has taken since the last check.
    pub(crate) fn check_surplus(&mut self, id: SubchannelId, active: &Weak<ActiveConnection>) {
        let (Some(entry), Some(checked)) = (self.entries.get(&id), active.upgrade()) else {
            return;
        };
        let Some(subchannel) = entry.handle.upgrade() else {
            return;
        };
        let mut connections = Vec::clone(&subchannel.connections());
        if !connections.iter().any(|it| Arc::ptr_eq(it, &checked)) {
            return;
        }
        let is_only = connections.iter().filter(|it| it.is_usable()).count() < 2;
        if checked.was_taken(UsageCheck::Connection) || is_only {
            self.check_surplus_later(id, active.clone());
            return;
        }
        // A call that has just chosen it holds it, and is not disturbed.
        connections.retain(|it| !Arc::ptr_eq(it, &checked));
        subchannel.set_connections(connections);
        self.update_watches(id);
        self.allow_growth(id);
    }

    fn check_surplus_later(&mut self, id: SubchannelId, active: Weak<ActiveConnection>) {
        if let Some(at) = Instant::now().checked_add(self.limits().connection_idle_time) {
            self.timers.set(at, Timer::Surplus(id, active));
        }
    }

    /// The last handle of a subchannel was dropped.
    pub(crate) fn released(&mut self, id: SubchannelId) {
        self.entries.remove(&id);
        self.shared.remove(id);
    }

    /// Returns true if calls have taken a connection since the last check, or are on one.
    pub(crate) fn was_used(&self) -> bool {
        let subchannels = self.entries.values().filter_map(|it| it.handle.upgrade());
        // Every connection is asked, because each resets its own mark.
        subchannels.fold(false, |was_used, subchannel| {
            let connections = subchannel.connections();
            connections.iter().fold(was_used, |was_used, it| {
                it.was_taken(UsageCheck::Channel) || was_used
            })
        })
    }

    /// Tells the balancer the state of a subchannel.
    fn tell(&mut self, id: SubchannelId) {
        if let Some(entry) = self.entries.get(&id) {
            let state = SubchannelState {
                connectivity: entry.state(),
                failure: entry.failing.clone(),
            };
            self.deliver(id, entry.generation, SubchannelNews::State(state));
        }
    }

    pub(super) fn deliver(&mut self, id: SubchannelId, generation: u64, news: SubchannelNews) {
        self.deliveries.push_back(Delivery {
            generation,
            id,
            news,
        });
    }
}

impl ManagedSubchannel {
    fn state(&self) -> ConnectivityState {
        let subchannel = self.handle.upgrade();
        if subchannel.is_some_and(|it| it.connections().iter().any(|it| it.is_usable())) {
            ConnectivityState::Ready
        } else if self.failing.is_some() {
            ConnectivityState::TransientFailure
        } else if self.attempt.is_some() {
            ConnectivityState::Connecting
        } else {
            ConnectivityState::Idle
        }
    }

    /// Starts an attempt to connect, whose end is an event.
    fn dial(&self, id: SubchannelId, dialer: Dialer, events: Events, kind: Attempted) -> OwnedTask {
        let (to, started) = (self.address.clone(), Instant::now());
        let task = tokio::spawn(async move {
            let result = dialer.connect(to).await;
            let _ = events.send(ChannelEvent::Connected {
                id,
                started,
                result,
                kind,
            });
        });
        OwnedTask::new(&task)
    }

    /// Returns the moment when another connection may be opened; `None` if none is open, if as many as allowed are, or
    /// if one is under way.
    fn grows_at(
        &self,
        open: usize,
        now: Instant,
        (max, pause): (usize, Duration),
    ) -> Option<Instant> {
        if open == 0 || open >= max || self.further.is_some() {
            return None;
        }
        match self.failed {
            None => Some(now),
            Some(at) => at.checked_add(pause),
        }
    }
}
