//! A subchannel: the connections to one of several endpoints.

use std::sync::Arc;

use tokio::time::Instant;
use trunkline_codec::Status;
use trunkline_transport::Connection;

use crate::active_connection::{ActiveConnection, Picked};
use crate::backoff::{self, Backoff};
use crate::connectivity::ConnectivityState;
use crate::limits::ChannelLimits;
use crate::target_address::{Origin, TargetAddress};
use crate::task::Task;

/// The number of successive connections that can be lost before they have carried a call, until the next
/// one is opened after a pause. A server that stops closes one connection; a server that closes all of them
/// must not cause a busy loop.
const FLAPS_MAX: u32 = 2;

/// Connections to one endpoint, the first one of the subchannel that could be reached. There is one
/// connection, and up to `max_connections` if it is busy.
#[derive(Debug)]
pub(crate) struct ConnectionGroup {
    /// Unique in the channel; assigns attempts to subchannels.
    pub(crate) id: u64,
    pub(crate) endpoints: Arc<[TargetAddress]>,
    pub(crate) open: Vec<Arc<ActiveConnection>>,
    /// Connects, with pauses, until a connection is open.
    pub(crate) attempt: Option<Task>,
    /// Opens a connection in addition to others.
    pub(crate) further: Option<Task>,
    /// The reason for which no connection is open. gRFC A62: it stays until one is.
    pub(crate) failing: Option<Status>,
    /// The moment when the next attempt may begin.
    pub(crate) not_before: Option<Instant>,
    backoff: Backoff,
    flaps: u32,
    /// The moment when a connection was last lost, or a further one could not be opened.
    failed: Option<Instant>,
}

impl ConnectionGroup {
    pub(crate) fn new(id: u64, endpoints: Vec<TargetAddress>, limits: &ChannelLimits) -> Self {
        Self {
            id,
            endpoints: endpoints.into(),
            open: Vec::new(),
            attempt: None,
            further: None,
            failing: None,
            not_before: None,
            backoff: Backoff::new(limits),
            flaps: 0,
            failed: None,
        }
    }

    /// Forgets failed attempts: not all addresses were known.
    pub(crate) fn begin_anew(&mut self) {
        self.failing = None;
        self.not_before = None;
    }

    pub(crate) fn state(&self) -> ConnectivityState {
        if self.is_ready() {
            ConnectivityState::Ready
        } else if self.failing.is_some() {
            ConnectivityState::TransientFailure
        } else if self.is_attempting() {
            ConnectivityState::Connecting
        } else {
            ConnectivityState::Idle
        }
    }

    /// Returns true if these are the subchannel's endpoints, in any order.
    pub(crate) fn has_only(&self, endpoints: &[TargetAddress]) -> bool {
        self.endpoints.len() == endpoints.len()
            && endpoints.iter().all(|it| self.endpoints.contains(it))
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.open.iter().any(|it| it.is_usable())
    }

    pub(crate) fn is_attempting(&self) -> bool {
        self.attempt.as_ref().is_some_and(Task::is_running)
    }

    pub(crate) fn usable(&self) -> impl Iterator<Item = &Arc<ActiveConnection>> {
        self.open.iter().filter(|it| it.is_usable())
    }

    pub(crate) fn least_busy(&self) -> Option<&Arc<ActiveConnection>> {
        self.usable()
            .min_by_key(|it| (it.is_busy(), it.connection.open_calls()))
    }

    /// Returns the least busy connection if a stream can be opened on it immediately. Sets
    /// `needs_maintenance` if the subchannel has lost a connection, or needs another.
    pub(crate) fn try_ready(
        &self,
        limits: &ChannelLimits,
        needs_maintenance: &mut bool,
    ) -> Option<Picked> {
        let active = self.least_busy()?;
        if !self.open.iter().all(|it| it.is_usable()) || self.wants_more(active, limits) {
            *needs_maintenance = true;
        }
        active.try_ready()
    }

    fn wants_more(&self, least_busy: &ActiveConnection, limits: &ChannelLimits) -> bool {
        least_busy.is_busy() && self.grows_at(limits).is_some_and(|at| at <= Instant::now())
    }

    /// Returns true if another connection should be opened.
    pub(crate) fn is_too_small(&self, limits: &ChannelLimits) -> bool {
        self.least_busy()
            .is_some_and(|active| self.wants_more(active, limits))
    }

    /// Returns the moment when another connection may be opened; `None` if none is open, if as many as
    /// allowed are, or if one is under way.
    pub(crate) fn grows_at(&self, limits: &ChannelLimits) -> Option<Instant> {
        let is_under_way = self.further.as_ref().is_some_and(Task::is_running);
        if self.open.is_empty() || self.open.len() >= limits.max_connections || is_under_way {
            return None;
        }
        match self.failed {
            None => Some(Instant::now()),
            Some(at) => at.checked_add(limits.connection_retry_pause),
        }
    }

    /// A connection is there: the only one, or another.
    pub(crate) fn join(
        &mut self,
        connection: Connection,
        endpoint: TargetAddress,
        origin: Origin,
        started: Instant,
        limits: &ChannelLimits,
    ) -> Arc<ActiveConnection> {
        self.failing = None;
        self.not_before = None;
        // connection-backoff.md: reset after a successful connection. One that is lost before it has
        // been of use was none.
        if self.flaps == 0 {
            self.backoff = Backoff::new(limits);
        }
        let active = ActiveConnection::new(connection, endpoint, origin, started);
        self.open.push(active.clone());
        active
    }

    /// Records that an attempt that began at `started` has failed: the next one follows a pause.
    pub(crate) fn fail(&mut self, status: Status, started: Instant, limits: &ChannelLimits) {
        let pause = self.backoff.pause(limits, backoff::random());
        tracing::debug!(
            target: "trunkline::connection",
            error = status.message(),
            pause_ms = pause.as_millis(),
            "no connection"
        );
        self.failing = Some(status);
        self.not_before = started.checked_add(pause);
    }

    /// Another connection could not be opened.
    pub(crate) fn fail_further(&mut self) {
        self.failed = Some(Instant::now());
    }

    /// Takes out the connections that take no more calls.
    pub(crate) fn take_lost(&mut self, limits: &ChannelLimits) -> Vec<Arc<ActiveConnection>> {
        let (usable, lost) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|it: &Arc<ActiveConnection>| it.is_usable());
        self.open = usable;
        let lost: Vec<Arc<ActiveConnection>> = lost;
        if let Some(last) = lost.last() {
            // A server that takes a connection and closes it again is not asked for each call
            // either.
            self.failed = Some(Instant::now());
            if self.open.is_empty() {
                self.lose(last, limits);
            }
        }
        lost
    }

    /// The last connection is lost.
    fn lose(&mut self, active: &ActiveConnection, limits: &ChannelLimits) {
        let was_of_use = active.connection.has_responded()
            || active.started.elapsed() >= limits.connect_backoff_base;
        if was_of_use {
            self.flaps = 0;
            self.backoff = Backoff::new(limits);
            return;
        }
        self.flaps += 1;
        if self.flaps > FLAPS_MAX {
            self.fail(active.connection.failure(), active.started, limits);
        }
    }

    /// Takes over the connections of `before` to this subchannel's endpoints.
    pub(crate) fn take_over(&mut self, before: &mut Self) {
        let (ours, others) = std::mem::take(&mut before.open)
            .into_iter()
            .partition(|it: &Arc<ActiveConnection>| self.endpoints.contains(&it.endpoint));
        before.open = others;
        let ours: Vec<Arc<ActiveConnection>> = ours;
        self.open.extend(ours);
    }

    /// Resets the subchannel to its initial state, and returns its connections.
    pub(crate) fn fall_idle(&mut self, limits: &ChannelLimits) -> Vec<Arc<ActiveConnection>> {
        let fresh = Self::new(self.id, Vec::new(), limits);
        let before = std::mem::replace(self, fresh);
        self.endpoints = before.endpoints.clone();
        before.open
    }
}
