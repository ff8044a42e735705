//! The connections of a channel: selects one for each call, or waits for one.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::Poll;

use tokio::sync::watch;
use tokio::time::Instant;
use trunkline_codec::Status;
use trunkline_transport::{
    Address, ClientLimits, ConnectionStats, Keepalive, ReadyConnection, Target,
};

use crate::active_connection::{ActiveConnection, Picked};
use crate::backoff::Backoff;
use crate::connection_group::ConnectionGroup;
use crate::connectivity::{ConnectivityState, ConnectivityWatch};
use crate::limits::ChannelLimits;
use crate::settings::Settings;
use crate::target_address::TargetAddress;
use crate::task::Task;

/// The number of connections that a call waits on at the same time if all are full.
const WAITS_ON_MAX: usize = 16;

/// The connections of a channel.
///
/// Calls take the usable connection with the fewest calls, of the subchannel whose turn it is. If that
/// one is busy, another is opened in the background, and the call does not wait for it. All that a
/// channel knows of connecting is here: [`ready`] returns a connection with a free stream. The tasks
/// between calls are in `maintenance`.
///
/// [`ready`]: Self::ready
#[derive(Debug)]
pub struct Connections {
    pub(crate) settings: Settings,
    /// The part of the limits that each connection keeps to.
    pub(crate) client_limits: Arc<ClientLimits>,
    /// The keepalive interval that all connections share: a server may ask for a longer one.
    pub(crate) keepalive: Keepalive,
    pub(crate) targets: Arc<[Arc<Target>]>,
    pub(crate) state: RwLock<State>,
    /// Which subchannel the next call begins with.
    turn: AtomicUsize,
    /// Calls that wait.
    waiting: AtomicUsize,
    /// A call has waited since it was last looked whether the channel is used.
    pub(crate) was_asked: AtomicBool,
    /// Changes with everything that calls may wait for, but a stream on a connection.
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) connectivity: watch::Sender<ConnectivityState>,
}

#[derive(Debug)]
pub(crate) struct State {
    /// None before names have been resolved.
    pub(crate) subchannels: Vec<ConnectionGroup>,
    /// Which of them have a connection, as of the last change.
    pub(crate) ready: Vec<usize>,
    pub(crate) next_id: u64,
    /// Somebody has asked for a connection since the channel was last idle.
    pub(crate) is_active: bool,
    pub(crate) resolution: Resolution,
    /// The task that lets the channel fall idle.
    pub(crate) idle_task: Option<Task>,
}

/// The state of name resolution.
#[derive(Debug)]
pub(crate) struct Resolution {
    pub(crate) task: Option<Task>,
    /// The last result of each target.
    pub(crate) found: Vec<Vec<Address>>,
    /// The reason for having no address at all.
    pub(crate) failing: Option<Status>,
    /// Some names are still being resolved while the addresses of others are in use: a failure now is not
    /// final.
    pub(crate) is_partial: bool,
    pub(crate) not_before: Option<Instant>,
    pub(crate) backoff: Backoff,
}

/// The choice of a call if no connection is open and the last attempt to connect has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitMode {
    /// The call fails with the reason of that attempt.
    #[default]
    FailFast,
    /// The call waits for the next attempt and all further ones (grpc/doc/wait-for-ready.md).
    WaitForReady,
}

/// The state of the connections for a call that finds no free stream.
enum Availability {
    /// Every connection has as many calls as its server allows. Another may be opened then.
    Full(Vec<Arc<ActiveConnection>>, Option<Instant>),
    Connecting,
    Failing(Status),
}

impl Connections {
    /// Creates the connections of a channel. None is opened before [`connect`](Self::connect) or a call.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if a target cannot be read, or there is none, or the files of TLS cannot be
    /// used.
    pub fn new(mut settings: Settings) -> Result<Arc<Self>, Status> {
        let targets = settings.parse()?;
        let limits = settings.limits.clone();
        let connections = Arc::new(Self {
            keepalive: Keepalive::new(limits.http2.keepalive_time),
            client_limits: Arc::new((&*limits).into()),
            settings,
            state: RwLock::new(State::new(&limits, &targets)),
            targets,
            turn: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            was_asked: AtomicBool::new(false),
            changes: watch::Sender::default(),
            connectivity: watch::Sender::default(),
        });
        connections.use_addresses_of_targets(&mut connections.write());
        Ok(connections)
    }

    /// Waits until a connection is open, and opens one if necessary.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if the attempt fails, or the last one has failed and the next one has not started.
    pub async fn connect(self: &Arc<Self>) -> Result<(), Status> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            match self.availability() {
                Availability::Full(..) => return Ok(()),
                Availability::Failing(status) => return Err(status),
                Availability::Connecting => self.changed(&mut changes).await,
            }
        }
    }

    /// Opens a connection if none is open, without waiting for it.
    pub fn request_connection(self: &Arc<Self>) {
        self.availability();
    }

    /// Returns the statistics of each open connection.
    pub fn stats(&self) -> Vec<ConnectionStats> {
        let state = self.read();
        let active = state
            .subchannels
            .iter()
            .flat_map(|subchannel| &subchannel.open);
        active.map(|it| it.connection.stats()).collect()
    }

    /// Returns the current state of the channel.
    pub fn state(&self) -> ConnectivityState {
        self.read().connectivity()
    }

    /// Returns a watch on the state of the channel.
    pub fn watch_state(&self) -> ConnectivityWatch {
        ConnectivityWatch::new(self.connectivity.subscribe())
    }

    // Way of a unary call, client 5: takes a connection with a free stream.
    /// Picks a connection with a free stream; `None` if the call has to wait for one.
    pub fn try_ready(self: &Arc<Self>) -> Option<Picked> {
        let limits = &*self.settings.limits;
        let state = self.read();
        let mut needs_maintenance = false;
        let ready = match &state.subchannels[..] {
            [only] => only.try_ready(limits, &mut needs_maintenance),
            subchannels => {
                let (turn, count) = (self.turn.fetch_add(1, Ordering::Relaxed), state.ready.len());
                (0..count).find_map(|at| {
                    let at = state.ready[turn.wrapping_add(at) % count];
                    subchannels[at].try_ready(limits, &mut needs_maintenance)
                })
            }
        };
        drop(state);
        if needs_maintenance {
            self.maintain();
        }
        ready
    }

    /// Picks a connection with a free stream, open already or new, before `deadline`.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if no connection is open and the last attempt has failed, for calls that do not
    /// wait for ready; DEADLINE_EXCEEDED, with the reason of the last failure; RESOURCE_EXHAUSTED
    /// when `limits.max_queued_calls` are waiting already.
    pub async fn ready(
        self: &Arc<Self>,
        deadline: Option<Instant>,
        wait_mode: WaitMode,
    ) -> Result<Picked, Status> {
        let Some(deadline) = deadline else {
            return self.find(wait_mode).await;
        };
        let mut finding = pin!(self.find(wait_mode));
        let mut passed = pin!(tokio::time::sleep_until(deadline));
        // The call has its deadline anyway; here it knows what it waited for. The call asks the clock,
        // which is ahead of the timer, and so does this.
        poll_fn(|cx| match finding.as_mut().poll(cx) {
            Poll::Pending if deadline <= Instant::now() => Poll::Ready(Err(self.too_late())),
            Poll::Pending => passed.as_mut().poll(cx).map(|()| Err(self.too_late())),
            found @ Poll::Ready(_) => found,
        })
        .await
    }

    /// Returns the status of a call that waited until its deadline: the reason and the way out.
    #[cold]
    fn too_late(&self) -> Status {
        let state = self.read();
        let streams: Vec<usize> = state
            .subchannels
            .iter()
            .flat_map(ConnectionGroup::usable)
            .map(|it| it.connection.max_streams())
            .collect();
        let what = match (streams.len(), state.failure()) {
            (0, Some(status)) => format!("a connection; the last attempt: {}", status.message()),
            (0, None) => format!(
                "a connection to {}: the server has not responded yet; the address may be wrong, or the timeout too short",
                self.targets
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default()
            ),
            (connections, _) => format!(
                "a stream: all streams that the server allows were in use (streams: {}, connections: {connections}, max_connections: {}); end calls sooner, or raise max_connections of the channel",
                streams.iter().sum::<usize>(),
                self.settings.limits.max_connections
            ),
        };
        Status::deadline_exceeded(format!(
            "the deadline passed while the call waited for {what}"
        ))
    }

    async fn find(self: &Arc<Self>, wait_mode: WaitMode) -> Result<Picked, Status> {
        let mut changes = self.changes.subscribe();
        let (mut waiting, mut waits) = (None, Waits::default());
        self.was_asked.store(true, Ordering::Relaxed);
        loop {
            changes.borrow_and_update();
            if let Some(ready) = self.try_ready() {
                return Ok(ready);
            }
            if waiting.is_none() {
                waiting = Some(self.wait()?);
            }
            match self.availability() {
                Availability::Full(active, grows_at) => {
                    waits.extend(active);
                    if let Some(ready) = waits.stream(grows_at, &mut changes).await {
                        return ready;
                    }
                }
                Availability::Failing(status) if wait_mode == WaitMode::FailFast => {
                    return Err(status);
                }
                Availability::Failing(_) | Availability::Connecting => {
                    self.changed(&mut changes).await
                }
            }
        }
    }

    /// Counts a call that waits, on whatever it waits for.
    fn wait(&self) -> Result<Waiting<'_>, Status> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        let max = self.settings.limits.max_queued_calls;
        match before < max {
            true => Ok(waiting),
            false => Err(Status::resource_exhausted(format!(
                "{max} calls of this channel already wait for a connection or a stream; make fewer calls at a time, or raise max_queued_calls of the channel"
            ))),
        }
    }

    async fn changed(&self, changes: &mut watch::Receiver<u64>) {
        // An error would mean that the channel was dropped, which the caller holds.
        let _ = changes.changed().await;
    }

    /// Returns the state of the connections for a call, and begins to connect if nothing is under way.
    fn availability(self: &Arc<Self>) -> Availability {
        let limits = &*self.settings.limits;
        let mut state = self.write();
        self.maintain_in(&mut state);
        let mut active: Vec<Arc<ActiveConnection>> = state
            .subchannels
            .iter()
            .flat_map(ConnectionGroup::usable)
            .cloned()
            .collect();
        if !active.is_empty() {
            active.sort_by_key(|it| it.connection.open_calls());
            active.truncate(WAITS_ON_MAX);
            let grows_at = state
                .subchannels
                .iter()
                .filter_map(|it| it.grows_at(limits))
                .min();
            return Availability::Full(active, grows_at);
        }
        self.start(&mut state);
        match (state.connectivity(), state.failure()) {
            (ConnectivityState::TransientFailure, Some(status)) => Availability::Failing(status),
            _ => Availability::Connecting,
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits for a stream on several connections. It counts on one of them, is given the
/// first stream that is free, and leaves no trace on the others.
#[derive(Default)]
struct Waits(Vec<Wait>);

struct Wait {
    active: Arc<ActiveConnection>,
    stream: Pin<Box<dyn Future<Output = Result<ReadyConnection, Status>> + Send>>,
}

impl Waits {
    /// Goes on waiting where it does already, so that the call keeps its turn, and on others of
    /// `active_connection` as well.
    fn extend(&mut self, active: Vec<Arc<ActiveConnection>>) {
        self.0.retain(|it| it.active.is_usable());
        for active in active {
            let is_waited_on = self.0.iter().any(|it| Arc::ptr_eq(&it.active, &active));
            if is_waited_on || self.0.len() >= WAITS_ON_MAX {
                continue;
            }
            let is_counted = self.0.is_empty();
            if is_counted {
                active.take();
            }
            let waits = active.clone();
            let stream = Box::pin(async move {
                let connection = &waits.connection;
                match is_counted {
                    true => connection.ready().await,
                    false => {
                        let ready = connection.ready_uncounted().await;
                        ready.ok_or_else(|| connection.failure())
                    }
                }
            });
            self.0.push(Wait { active, stream });
        }
    }

    /// None if there is another choice now.
    async fn stream(
        &mut self,
        grows_at: Option<Instant>,
        changes: &mut watch::Receiver<u64>,
    ) -> Option<Result<Picked, Status>> {
        let mut changed = pin!(changes.changed());
        let mut growth = pin!(async {
            match grows_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        });
        poll_fn(|cx| {
            for at in 0..self.0.len() {
                let Wait { active, stream } = &mut self.0[at];
                let ready = match stream.as_mut().poll(cx) {
                    Poll::Pending => continue,
                    Poll::Ready(Ok(connection)) => Some(Ok(Picked {
                        connection,
                        origin: active.origin.clone(),
                    })),
                    // The server has closed this one while the call waited. It has not begun, and can
                    // begin elsewhere.
                    Poll::Ready(Err(_)) if !active.is_usable() => None,
                    Poll::Ready(Err(status)) => Some(Err(status)),
                };
                self.0.swap_remove(at);
                return Poll::Ready(ready);
            }
            match changed.as_mut().poll(cx).is_ready() || growth.as_mut().poll(cx).is_ready() {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        })
        .await
    }
}

/// A call that waits counts until this is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl State {
    fn new(limits: &ChannelLimits, targets: &[Arc<Target>]) -> Self {
        Self {
            subchannels: Vec::new(),
            ready: Vec::new(),
            next_id: 0,
            is_active: false,
            resolution: Resolution::new(limits, targets),
            idle_task: None,
        }
    }

    /// gRFC A62 and the documents of the policies: of several, the best counts, and an attempt is
    /// better than a failure.
    pub(crate) fn connectivity(&self) -> ConnectivityState {
        use ConnectivityState::{Connecting, Idle, Ready, TransientFailure};
        if self.subchannels.is_empty() {
            return match &self.resolution {
                Resolution {
                    failing: Some(_), ..
                } => TransientFailure,
                it if it.task.as_ref().is_some_and(Task::is_running) => Connecting,
                _ => Idle,
            };
        }
        let states: Vec<_> = self
            .subchannels
            .iter()
            .map(ConnectionGroup::state)
            .collect();
        let best = [Ready, Connecting, TransientFailure];
        let found = best.into_iter().find(|it| states.contains(it));
        match found.unwrap_or(Idle) {
            TransientFailure if self.resolution.has_more_to_come() => Connecting,
            state => state,
        }
    }

    /// Returns the reason for which no connection is open.
    pub(crate) fn failure(&self) -> Option<Status> {
        let failing: Vec<_> = self
            .subchannels
            .iter()
            .filter_map(|it| it.failing.as_ref())
            .collect();
        match failing[..] {
            [] => self.resolution.failing.clone(),
            [only] => Some(only.clone()),
            [.., last] => Some(Status::unavailable(format!(
                "none of {} addresses can be reached; the last: {}",
                failing.len(),
                last.message()
            ))),
        }
    }

    pub(crate) fn subchannel(&mut self, id: u64) -> Option<&mut ConnectionGroup> {
        self.subchannels.iter_mut().find(|it| it.id == id)
    }

    pub(crate) fn new_subchannel(
        &mut self,
        endpoints: Vec<TargetAddress>,
        limits: &ChannelLimits,
    ) -> ConnectionGroup {
        self.next_id += 1;
        ConnectionGroup::new(self.next_id, endpoints, limits)
    }
}

impl Resolution {
    fn has_more_to_come(&self) -> bool {
        self.is_partial && self.task.as_ref().is_some_and(Task::is_running)
    }

    pub(crate) fn new(limits: &ChannelLimits, targets: &[Arc<Target>]) -> Self {
        let known = targets.iter().map(|it| it.address());
        Self {
            task: None,
            found: known.map(|it| it.into_iter().collect()).collect(),
            failing: None,
            is_partial: false,
            not_before: None,
            backoff: Backoff::new(limits),
        }
    }
}

/// The targets, as the user wrote them.
impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.targets.fmt(f)
    }
}
