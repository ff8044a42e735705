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

use crate::active_connection::{ActiveConnection, Picked};
use crate::balancing::{Choice, PickArgs, PickResult, Picker};
use crate::connect::Dialer;
use crate::connectivity::{ConnectivityState, ConnectivityWatch};
use crate::control::{ChannelEvent, ControlTask, Events};
use crate::restricted::restricted;
use crate::routing::ChannelShared;
use crate::security_level::SecurityLevel;
use crate::settings::ChannelSettings;
use crate::subchannel::Subchannel;
use crate::task::Task;
use crate::waits::{WAITS_ON_MAX, Waits};

/// The connections of a channel.
///
/// Calls read the picker that the control task has published. [`try_ready`](Self::try_ready) returns a connection with
/// a free stream if there is one; [`ready`](Self::ready) waits for it.
pub struct Connections {
    shared: Arc<ChannelShared>,
    dialer: Dialer,
    control: Mutex<Option<ControlHandle>>,
}

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
        Ok(Arc::new(Self {
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
                (_, Picker::Fail(status)) => return Err(Status::clone(status)),
                (_, Picker::Idle) => self.exit_idle(),
                _ => {}
            }
            changed(&mut changes).await;
        }
    }

    /// Opens a connection if none is open, without waiting for it.
    pub fn request_connection(&self) {
        if let Picker::Idle = self.shared.routing.load().picker {
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

    // Way of a unary call, client 5: takes a connection with a free stream.
    /// Picks a connection with a free stream; `None` if the call has to wait for one.
    #[inline]
    pub fn try_ready(&self, call: &PickArgs<'_>) -> Option<Picked> {
        let routing = self.shared.routing.load();
        match &routing.picker {
            Picker::One(subchannel) => subchannel.try_ready(),
            Picker::RoundRobin(turn) => turn.find(Subchannel::try_ready),
            Picker::Custom(_) => match self.step(&routing.picker, call) {
                PickStep::Ready(picked) => Some(picked),
                _ => None,
            },
            Picker::Idle | Picker::Wait | Picker::Fail(_) => None,
        }
    }

    /// Picks a connection with a free stream, open already or new, before `deadline`.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if no connection is open and the last attempt has failed, for calls that do not
    /// wait for ready; DEADLINE_EXCEEDED, with the reason of the last failure; RESOURCE_EXHAUSTED
    /// when `limits.max_queued_calls` are waiting already.
    pub async fn ready(
        &self,
        call: &PickArgs<'_>,
        deadline: Option<Instant>,
        wait_mode: WaitMode,
    ) -> Result<Picked, Status> {
        let Some(deadline) = deadline else {
            return self.find(call, wait_mode).await;
        };
        let mut finding = pin!(self.find(call, wait_mode));
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
        let mut streams = Vec::new();
        for subchannel in self.shared.subchannels() {
            let connections = subchannel.connections();
            let usable = connections.iter().filter(|it| it.is_usable());
            streams.extend(usable.map(|it| it.connection.max_streams()));
        }
        let what = match (streams.len(), &self.shared.routing.load().picker) {
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
                self.shared.settings.limits.max_connections
            ),
        };
        Status::deadline_exceeded(format!(
            "the deadline passed while the call waited for {what}"
        ))
    }

    async fn find(&self, call: &PickArgs<'_>, wait_mode: WaitMode) -> Result<Picked, Status> {
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
                        return ready.map(|picked| with_choice(picked, choice));
                    }
                }
                PickStep::Dropped(status) => return Err(restricted(&status)),
                PickStep::Failing(status) if wait_mode == WaitMode::FailFast => {
                    return Err(restricted(&status));
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
    if let Some(choice) = choice {
        picked.tracking = choice.tracking;
        picked.metadata = choice.metadata;
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
