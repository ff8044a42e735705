//! The connections of a channel: picks one for each call, or waits for one.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;
use trunkline_codec::Status;
use trunkline_transport::{ConnectionStats, Keepalive, catch_panic};

use crate::active_connection::{ActiveConnection, PickExtra, Picked};
use crate::attempts::replay::ReplayBudget;
use crate::attempts::throttle::RetryThrottle;
use crate::balancing::{Choice, PickArgs, PickResult, Picker, Tracking};
use crate::config::{AttemptPolicy, MethodConfig, ServiceConfig};
use crate::connect::Dialer;
use crate::connectivity::{ConnectivityState, ConnectivityWatch};
use crate::control::{ChannelEvent, ControlTask, Events};
use crate::restricted::restricted;
use crate::routing::{ChannelShared, Selector};
use crate::security_level::SecurityLevel;
use crate::settings::ChannelSettings;
use crate::subchannel::Subchannel;
use crate::task::Task;
use crate::waits::{WAITS_ON_MAX, Waits};

/// The connections of a channel.
///
/// Calls read the picker that the control task has published. [`try_ready`](Self::try_ready) returns a connection with
/// a free stream if there is one; [`CallAttempts`](crate::CallAttempts) waits for it.
pub struct Connections {
    shared: Arc<ChannelShared>,
    dialer: Dialer,
    control: Mutex<Option<ControlHandle>>,
    has_service_config: bool,
}

/// A call without a connection.
#[derive(Debug)]
pub(crate) struct Unpicked {
    pub(crate) status: Status,
    /// The picker has dropped the call, which must not be retried.
    pub(crate) is_drop: bool,
}

impl From<Status> for Unpicked {
    fn from(status: Status) -> Self {
        Self {
            status,
            is_drop: false,
        }
    }
}

/// The channel does not know yet whether it has a service config.
#[derive(Clone, Copy, Debug)]
pub struct Unresolved(());

/// The control task of a channel that is not idle.
struct ControlHandle {
    task: Task,
    events: Events,
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

/// The result of a pick for a call that can wait.
enum PickStep {
    Ready(Picked),
    /// Every connection has as many calls as its server allows.
    Full(Vec<Arc<ActiveConnection>>, Option<Choice>),
    /// The next picker may help.
    Wait,
    Failing(Arc<Status>),
    Dropped(Arc<Status>),
}

impl Connections {
    /// Creates the connections of a channel. None is opened before [`connect`](Self::connect) or a call.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if a target cannot be read, or there is none, or the files of TLS cannot be
    /// used.
    pub fn new(options: ChannelSettings) -> Result<Arc<Self>, Status> {
        let settings = options.check()?;
        let dialer = Dialer {
            keepalive: Keepalive::new(settings.limits.http2.keepalive_time),
            client_limits: Arc::new((&*settings.limits).into()),
            limits: settings.limits.clone(),
            connector: settings.connector.clone(),
            tls: settings.tls.clone(),
        };
        let has_service_config = settings.service_config.is_some() || settings.resolves_config();
        Ok(Arc::new(Self {
            has_service_config,
            shared: ChannelShared::new(settings),
            dialer,
            control: Mutex::new(None),
        }))
    }

    /// Returns the highest level that a connection to the targets can have.
    pub fn security_level(&self) -> SecurityLevel {
        self.shared.settings.security_level()
    }

    /// Waits until a connection is open, and opens one if necessary.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if the attempt fails, or the last one has failed and the next one has not started.
    pub async fn connect(&self) -> Result<(), Status> {
        let mut changes = self.shared.changes.subscribe();
        self.shared.was_asked.store(true, Ordering::Relaxed);
        loop {
            changes.borrow_and_update();
            let routing = self.shared.routing.load_full();
            match (self.state(), &routing.picker) {
                (ConnectivityState::Ready, _) => return Ok(()),
                (_, Picker::Fail(status)) => return Err(restricted(status)),
                (ConnectivityState::Idle, _) | (_, Picker::Idle) => self.exit_idle(),
                _ => {}
            }
            changed(&mut changes).await;
        }
    }

    /// Opens a connection if none is open, without waiting for it.
    pub fn request_connection(&self) {
        let is_idle = matches!(self.shared.routing.load().picker, Picker::Idle);
        if is_idle || self.state() == ConnectivityState::Idle {
            self.shared.was_asked.store(true, Ordering::Relaxed);
            self.exit_idle();
        }
    }

    /// Ends the pauses between attempts to connect: those that wait begin immediately.
    pub fn reset_backoff(&self) {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &*control {
            // A task that is gone has no backoff.
            let _ = handle.events.send(ChannelEvent::ResetBackoff);
        }
    }

    /// Returns the statistics of each open connection.
    pub fn stats(&self) -> Vec<ConnectionStats> {
        let mut stats = Vec::new();
        for subchannel in self.shared.subchannels() {
            let connections = subchannel.connections();
            stats.extend(connections.iter().map(|it| it.connection.stats()));
        }
        stats
    }

    /// Returns the current state of the channel.
    pub fn state(&self) -> ConnectivityState {
        *self.shared.connectivity.borrow()
    }

    /// Returns a watch on the state of the channel.
    pub fn watch_state(&self) -> ConnectivityWatch {
        ConnectivityWatch::new(self.shared.connectivity.subscribe())
    }

    /// Returns true if calls may have a method config; if not, none has one ever.
    #[inline]
    pub fn has_service_config(&self) -> bool {
        self.has_service_config
    }

    /// Returns the method config in force for a path, which a call selects once. `Err` if the resolver has not reported
    /// yet whether there is one: the call waits with [`select`](Self::select).
    pub fn try_select(&self, path: &str) -> Result<Option<Arc<MethodConfig>>, Unresolved> {
        match &self.shared.routing.load().selector {
            Selector::Unresolved => Err(Unresolved(())),
            Selector::Plain => Ok(None),
            Selector::Table(config) => Ok(config.method(path).cloned()),
        }
    }

    /// Returns the method config for a path after the resolver has reported, before `deadline`.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if the resolver has no valid service config, for calls that do not wait for ready; DEADLINE_EXCEEDED;
    /// RESOURCE_EXHAUSTED if too many calls wait (`max_queued_calls`).
    pub async fn select(
        &self,
        path: &str,
        deadline: Option<Instant>,
        wait_mode: WaitMode,
    ) -> Result<Option<Arc<MethodConfig>>, Status> {
        self.before(deadline, self.find_config(path, wait_mode))
            .await
    }

    async fn find_config(
        &self,
        path: &str,
        wait_mode: WaitMode,
    ) -> Result<Option<Arc<MethodConfig>>, Status> {
        let mut changes = self.shared.changes.subscribe();
        let _waiting = self.wait()?;
        self.shared.was_asked.store(true, Ordering::Relaxed);
        loop {
            changes.borrow_and_update();
            if let Ok(selected) = self.try_select(path) {
                return Ok(selected);
            }
            match &self.shared.routing.load().picker {
                Picker::Fail(status) if wait_mode == WaitMode::FailFast => {
                    return Err(restricted(status));
                }
                Picker::Idle => self.exit_idle(),
                _ => {}
            }
            changed(&mut changes).await;
        }
    }

    // Way of a unary call, client 5: takes a connection with a free stream.
    /// Picks a connection with a free stream; `None` if the call has to wait for one.
    ///
    /// # Errors
    ///
    /// The status of a picker that drops the call.
    #[inline]
    pub fn try_ready(&self, call: &PickArgs<'_>) -> Result<Option<Picked>, Status> {
        let routing = self.shared.routing.load();
        let picked = match &routing.picker {
            Picker::One(subchannel) => subchannel.try_ready(),
            Picker::RoundRobin(turn) => turn.find(Subchannel::try_ready),
            Picker::Custom(_) => match self.step(&routing.picker, call) {
                PickStep::Ready(picked) => Some(picked),
                // A picker must not be asked twice whether it drops a call.
                PickStep::Dropped(status) => return Err(restricted(&status)),
                _ => None,
            },
            Picker::Idle | Picker::Wait | Picker::Fail(_) => None,
        };
        Ok(match self.has_service_config {
            true => picked.map(|it| self.with_throttle(it)),
            false => picked,
        })
    }

    /// Picks a connection with a free stream, open already or new, before `deadline`.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if no connection is open and the last attempt has failed, for calls that do not
    /// wait for ready; DEADLINE_EXCEEDED, with the reason of the last failure; RESOURCE_EXHAUSTED
    /// when `limits.max_queued_calls` are waiting already.
    pub(crate) async fn ready(
        &self,
        call: &PickArgs<'_>,
        deadline: Option<Instant>,
        wait_mode: WaitMode,
    ) -> Result<Picked, Unpicked> {
        let picked = self.before(deadline, self.find(call, wait_mode)).await?;
        Ok(self.with_throttle(picked))
    }

    /// Lets the throttle of retries learn how an attempt ends, if there is one.
    fn with_throttle(&self, mut picked: Picked) -> Picked {
        if self.shared.throttle.is_configured() {
            let throttle = Tracking::new(self.shared.throttle.clone(), 0);
            let extra = picked.extra.get_or_insert_default();
            extra.tracking = Some(throttle.and(extra.tracking.take()));
        }
        picked
    }

    /// Returns the throttle of retries, and the memory for requests that are sent again.
    pub(crate) fn retry_state(&self) -> (Arc<RetryThrottle>, Arc<ReplayBudget>) {
        let shared = &self.shared;
        (shared.throttle.clone(), shared.replay_budget.clone())
    }

    /// Returns the policy for further attempts of calls with this method config, unless the channel makes none.
    pub fn attempt_policy<'a>(
        &self,
        config: Option<&'a MethodConfig>,
    ) -> Option<&'a AttemptPolicy> {
        let policy = config?.attempts.as_ref();
        policy.filter(|_| self.shared.settings.makes_retries)
    }

    /// Waits for what a call finds, until its deadline.
    async fn before<T, E: From<Status>>(
        &self,
        deadline: Option<Instant>,
        finding: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let Some(deadline) = deadline else {
            return finding.await;
        };
        let mut finding = pin!(finding);
        let mut passed = pin!(tokio::time::sleep_until(deadline));
        // The call has its deadline anyway; here it knows what it waited for. The call asks the clock,
        // which is ahead of the timer, and so does this.
        poll_fn(|cx| match finding.as_mut().poll(cx) {
            Poll::Pending if deadline <= Instant::now() => Poll::Ready(Err(self.too_late().into())),
            Poll::Pending => passed
                .as_mut()
                .poll(cx)
                .map(|()| Err(self.too_late().into())),
            found @ Poll::Ready(_) => found,
        })
        .await
    }

    /// Returns the status of a call that waited until its deadline: the reason and the way out.
    #[cold]
    fn too_late(&self) -> Status {
        let mut streams = Vec::new();
        for subchannel in self.shared.subchannels() {
            let connections = subchannel.connections();
            let usable = connections.iter().filter(|it| it.is_usable());
            streams.extend(usable.map(|it| it.connection.max_streams()));
        }
        let routing = self.shared.routing.load();
        let config = routing.selector.config();
        let max_connections = config
            .and_then(ServiceConfig::max_connections)
            .unwrap_or(self.shared.settings.limits.max_connections);
        let what = match (streams.len(), &routing.picker) {
            (0, Picker::Fail(status)) => {
                format!("a connection; the last attempt: {}", status.message())
            }
            (0, _) => format!(
                "a connection to {}: the server has not responded yet; the address may be wrong, or the timeout too short",
                self.shared.settings.target()
            ),
            (connections, _) => format!(
                "a stream: all streams that the server allows were in use (streams: {}, connections: {connections}, max_connections: {}); end calls sooner, or raise max_connections of the channel",
                streams.iter().sum::<usize>(),
                max_connections
            ),
        };
        Status::deadline_exceeded(format!(
            "the deadline passed while the call waited for {what}"
        ))
    }

    async fn find(&self, call: &PickArgs<'_>, wait_mode: WaitMode) -> Result<Picked, Unpicked> {
        let mut changes = self.shared.changes.subscribe();
        let (mut waiting, mut waits, mut waits_for) = (None, Waits::default(), None);
        self.shared.was_asked.store(true, Ordering::Relaxed);
        loop {
            changes.borrow_and_update();
            let routing = self.shared.routing.load_full();
            let step = self.step(&routing.picker, call);
            if let PickStep::Ready(picked) = step {
                return Ok(picked);
            }
            if waiting.is_none() {
                waiting = Some(self.wait()?);
            }
            match step {
                PickStep::Full(connections, choice) => {
                    let id = choice.as_ref().map(|it| it.subchannel.id());
                    if waits_for != id {
                        (waits, waits_for) = (Waits::default(), id);
                    }
                    waits.extend(connections);
                    drop(routing);
                    if let Some(ready) = waits.stream(&mut changes).await {
                        return Ok(with_choice(ready?, choice));
                    }
                }
                PickStep::Dropped(status) => {
                    return Err(Unpicked {
                        status: restricted(&status),
                        is_drop: true,
                    });
                }
                PickStep::Failing(status) if wait_mode == WaitMode::FailFast => {
                    return Err(restricted(&status).into());
                }
                PickStep::Ready(_) | PickStep::Failing(_) | PickStep::Wait => {
                    if let Picker::Idle = routing.picker {
                        self.exit_idle();
                    }
                    drop(routing);
                    changed(&mut changes).await;
                }
            }
        }
    }

    /// Picks with `picker`.
    fn step(&self, picker: &Picker, call: &PickArgs<'_>) -> PickStep {
        match picker {
            Picker::Idle | Picker::Wait => PickStep::Wait,
            Picker::Fail(status) => PickStep::Failing(status.clone()),
            Picker::One(subchannel) => match subchannel.try_ready() {
                Some(picked) => PickStep::Ready(picked),
                None => full(std::slice::from_ref(subchannel), None),
            },
            Picker::RoundRobin(turn) => match turn.find(Subchannel::try_ready) {
                Some(picked) => PickStep::Ready(picked),
                None => full(turn.subchannels(), None),
            },
            Picker::Custom(pick) => match catch_panic(|| pick.pick(call)) {
                Ok(PickResult::Use(choice)) => match choice.subchannel.try_ready() {
                    Some(picked) => PickStep::Ready(with_choice(picked, Some(choice))),
                    None => full(
                        std::slice::from_ref(&choice.subchannel.clone()),
                        Some(choice),
                    ),
                },
                Ok(PickResult::Wait) => PickStep::Wait,
                Ok(PickResult::Fail(status)) => PickStep::Failing(status),
                Ok(PickResult::Drop(status)) => PickStep::Dropped(status),
                Err(panic) => {
                    tracing::error!(target: "trunkline::channel", panic = panic.text(), "the picker panicked");
                    PickStep::Dropped(Arc::new(panic.status("picker")))
                }
            },
        }
    }

    /// Counts a call that waits, on whatever it waits for.
    fn wait(&self) -> Result<Waiting<'_>, Status> {
        let before = self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.shared.waiting);
        let max = self.shared.settings.limits.max_queued_calls;
        match before < max {
            true => Ok(waiting),
            false => Err(Status::resource_exhausted(format!(
                "{max} calls of this channel already wait for a connection or a stream; make fewer calls at a time, or raise max_queued_calls of the channel"
            ))),
        }
    }

    /// Starts the control task, or tells it that a connection is wanted. Without a runtime, nothing happens.
    fn exit_idle(&self) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &*control
            && handle.task.is_running()
            && handle.events.send(ChannelEvent::ExitIdle).is_ok()
        {
            return;
        }
        if Handle::try_current().is_err() {
            return;
        }
        let (task, events) = ControlTask::new(self.shared.clone(), self.dialer.clone());
        let task = Task::spawn(&self.shared.changes, task.run());
        *control = task.map(|task| ControlHandle { task, events });
    }
}

/// Returns the step of a call for which no connection of `subchannels` has a free stream.
fn full(subchannels: &[Subchannel], choice: Option<Choice>) -> PickStep {
    let mut usable = Vec::new();
    for subchannel in subchannels {
        subchannel.ask_for_more();
        let connections = subchannel.connections();
        usable.extend(connections.iter().filter(|it| it.is_usable()).cloned());
    }
    if usable.is_empty() {
        // The control task learns of the loss as well, and publishes another picker.
        return PickStep::Wait;
    }
    usable.sort_by_key(|it| it.connection.open_calls());
    usable.truncate(WAITS_ON_MAX);
    PickStep::Full(usable, choice)
}

fn with_choice(mut picked: Picked, choice: Option<Choice>) -> Picked {
    if let Some(choice) = choice
        && (choice.tracking.is_some() || choice.metadata.is_some())
    {
        picked.extra = Some(Box::new(PickExtra {
            tracking: choice.tracking,
            metadata: choice.metadata,
        }));
    }
    picked
}

async fn changed(changes: &mut watch::Receiver<u64>) {
    // An error would mean that the channel was dropped, which the caller holds.
    let _ = changes.changed().await;
}

/// A call that waits counts until this is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.shared.is_dropped.store(true, Ordering::Relaxed);
        self.shared
            .connectivity
            .send_replace(ConnectivityState::Shutdown);
    }
}

/// The targets, as the user wrote them.
impl fmt::Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.settings.shown.fmt(f)
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connections")
            .field(&self.to_string())
            .finish()
    }
}
