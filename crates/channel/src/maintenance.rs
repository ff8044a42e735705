//! The tasks of a channel between calls: to connect again, to resolve again, to grow, to fall idle.
//!
//! All of it runs in tasks that hold the channel weakly, and decides under the lock of its state.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use trunkline_codec::Status;
use trunkline_transport::{Connection, Target};

use crate::active_connection::{ActiveConnection, UsageCheck};
use crate::backoff::{self, Backoff};
use crate::connection_group::ConnectionGroup;
use crate::connections::{Connections, Resolution, State};
use crate::connectivity::ConnectivityState;
use crate::happy_eyeballs::HappyEyeballs;
use crate::limits::ChannelLimits;
use crate::resolver::{Answer, AnyResolver, endpoints};
use crate::target_address::TargetAddress;
use crate::task::Task;

type ConnectResult = Result<(TargetAddress, Connection), Status>;

impl Connections {
    /// Forgets connections that take no more calls, and opens others where they are missing.
    pub(crate) fn maintain(self: &Arc<Self>) {
        self.maintain_in(&mut self.write());
    }

    pub(crate) fn maintain_in(self: &Arc<Self>, state: &mut State) {
        let limits = &*self.settings.limits;
        let (mut has_lost, mut has_grown) = (false, false);
        for subchannel in &mut state.subchannels {
            let lost = !subchannel.take_lost(limits).is_empty();
            has_lost |= lost;
            let is_to_connect =
                self.settings.policy.stays_connected() || subchannel.failing.is_some();
            if state.is_active && is_to_connect {
                has_grown |= self.attempt(subchannel);
            }
            if subchannel.is_too_small(limits) {
                self.grow(subchannel);
            }
        }
        if has_lost {
            self.resolve(state);
        }
        if has_lost || has_grown {
            self.tell(state);
        }
    }

    /// Asks for a connection where there is none.
    pub(crate) fn start(self: &Arc<Self>, state: &mut State) {
        state.is_active = true;
        let mut has_begun = false;
        for subchannel in &mut state.subchannels {
            has_begun |= self.attempt(subchannel);
        }
        if state.subchannels.is_empty() {
            has_begun |= self.resolve(state);
        }
        if !state.idle_task.as_ref().is_some_and(Task::is_running) {
            let (weak, time) = (Arc::downgrade(self), self.settings.limits.channel_idle_time);
            state.idle_task = Task::spawn(&self.changes, async move {
                loop {
                    tokio::time::sleep(time).await;
                    match weak.upgrade() {
                        Some(connections) if !connections.fall_idle() => {}
                        Some(_) | None => return,
                    }
                }
            });
        }
        if has_begun {
            self.tell(state);
        }
    }

    /// Wakes waiting calls and watchers after a change.
    fn tell(&self, state: &mut State) {
        let ready = state
            .subchannels
            .iter()
            .enumerate()
            .filter(|(_, it)| it.is_ready());
        state.ready = ready.map(|(at, _)| at).collect();
        let now = state.connectivity();
        self.connectivity.send_if_modified(|before| {
            let is_other = *before != now;
            *before = now;
            is_other
        });
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn happy_eyeballs(&self) -> HappyEyeballs {
        HappyEyeballs {
            limits: self.settings.limits.clone(),
            client_limits: self.client_limits.clone(),
            connector: self.settings.connector.clone(),
            tls: self.settings.tls.clone(),
            keepalive: self.keepalive.clone(),
        }
    }

    /// Begins to connect, unless there is a connection, or somebody does: false then.
    fn attempt(self: &Arc<Self>, subchannel: &mut ConnectionGroup) -> bool {
        if subchannel.is_ready() || subchannel.is_attempting() {
            return false;
        }
        let (weak, id, happy_eyeballs) =
            (Arc::downgrade(self), subchannel.id, self.happy_eyeballs());
        subchannel.attempt = Task::spawn(&self.changes, keep_connecting(weak, id, happy_eyeballs));
        subchannel.attempt.is_some()
    }

    /// Returns the endpoints of the next attempt of a subchannel, and the moment when it may begin.
    fn plan(&self, id: u64) -> Option<(Arc<[TargetAddress]>, Option<Instant>)> {
        let mut state = self.write();
        let subchannel = state.subchannel(id)?;
        Some((subchannel.endpoints.clone(), subchannel.not_before))
    }

    /// An attempt has ended; whether there is to be another.
    fn attempted(self: &Arc<Self>, id: u64, started: Instant, connected: ConnectResult) -> bool {
        let mut state = self.write();
        let Some(subchannel) = state.subchannel(id) else {
            return false;
        };
        let joined = match connected {
            Ok((endpoint, connection)) => {
                subchannel.attempt = None;
                Some(self.join(subchannel, endpoint, connection, started))
            }
            Err(status) => {
                subchannel.fail(status, started, &self.settings.limits);
                None
            }
        };
        if joined.is_none() {
            self.resolve(&mut state);
        }
        self.tell(&mut state);
        drop(state);
        let has_failed = joined.is_none();
        joined.map(tokio::spawn);
        has_failed
    }

    /// Adds a connection, and returns the future that watches it. The caller spawns it after it has
    /// released the lock: a runtime that shuts down drops it immediately, which takes the lock again.
    fn join(
        self: &Arc<Self>,
        subchannel: &mut ConnectionGroup,
        endpoint: TargetAddress,
        connection: Connection,
        started: Instant,
    ) -> impl Future<Output = ()> + Send + use<> {
        let is_further = !subchannel.open.is_empty();
        let origin = endpoint.origin(self.settings.authority.as_ref());
        let left = connection.left();
        let limits = &self.settings.limits;
        let active = subchannel.join(connection, endpoint, origin, started, limits);
        look_after(
            Lost(Arc::downgrade(self)),
            is_further.then(|| Arc::downgrade(&active)),
            limits.connection_idle_time,
            left,
        )
    }

    /// Opens another connection to the same endpoint, in addition to the open ones.
    fn grow(self: &Arc<Self>, subchannel: &mut ConnectionGroup) {
        let Some(endpoint) = subchannel.least_busy().map(|it| it.endpoint.clone()) else {
            return;
        };
        let (weak, id, happy_eyeballs) =
            (Arc::downgrade(self), subchannel.id, self.happy_eyeballs());
        subchannel.further = Task::spawn(&self.changes, async move {
            let started = Instant::now();
            let connected = happy_eyeballs.run(&[endpoint]).await;
            if let Some(connections) = weak.upgrade() {
                connections.has_grown(id, started, connected);
            }
        });
    }

    fn has_grown(self: &Arc<Self>, id: u64, started: Instant, connected: ConnectResult) {
        let mut state = self.write();
        let Some(subchannel) = state.subchannel(id) else {
            return;
        };
        subchannel.further = None;
        let joined = match connected {
            Ok((endpoint, connection)) => {
                Some(self.join(subchannel, endpoint, connection, started))
            }
            Err(_) => {
                subchannel.fail_further();
                None
            }
        };
        self.tell(&mut state);
        drop(state);
        joined.map(tokio::spawn);
    }

    /// Closes a connection that no call has taken since this was last asked, unless it is the only
    /// one: false if it stays.
    fn close_if_idle(&self, active: &Arc<ActiveConnection>) -> bool {
        if active.was_taken(UsageCheck::Connection) {
            return false;
        }
        let mut state = self.write();
        for subchannel in &mut state.subchannels {
            if subchannel.usable().count() > 1 {
                // A call that has just chosen it holds it, and is not disturbed.
                subchannel.open.retain(|it| !Arc::ptr_eq(it, active));
            }
        }
        let mut open = state.subchannels.iter().flat_map(|it| &it.open);
        !open.any(|it| Arc::ptr_eq(it, active))
    }

    /// Closes all connections, if no call has taken one since this was last asked, nor waits for
    /// one: false if they stay.
    fn fall_idle(self: &Arc<Self>) -> bool {
        let limits = &*self.settings.limits;
        let mut state = self.write();
        // A call that found no connection was one all the same.
        let was_asked = self.was_asked.swap(false, Ordering::Relaxed);
        let mut was_taken = was_asked || self.changes.receiver_count() > 0;
        for active in state.subchannels.iter().flat_map(|it| &it.open) {
            was_taken |= active.was_taken(UsageCheck::Channel);
        }
        if was_taken {
            return false;
        }
        state.is_active = false;
        state.idle_task = None;
        state.resolution = Resolution::new(limits, &self.targets);
        let closed: Vec<_> = state
            .subchannels
            .iter_mut()
            .flat_map(|subchannel| subchannel.fall_idle(limits))
            .collect();
        if self.has_names() {
            state.subchannels.clear();
        }
        self.tell(&mut state);
        drop(state);
        drop(closed);
        true
    }

    fn has_names(&self) -> bool {
        self.targets.iter().any(|it| it.address().is_none())
    }

    /// Targets that are addresses are used as they are, and need no task.
    pub(crate) fn use_addresses_of_targets(&self, state: &mut State) {
        if self.has_names() {
            return;
        }
        let endpoints = endpoints(&self.targets, &state.resolution.found);
        self.replace(state, endpoints);
    }

    /// Replaces the endpoints with `endpoints`, and returns true if a connection to them is
    /// wanted now. Connections to those that are still there stay; calls on others go on to their
    /// ends.
    fn replace(&self, state: &mut State, mut endpoints: Vec<TargetAddress>) -> bool {
        let limits = &*self.settings.limits;
        endpoints.truncate(limits.max_addresses);
        let mut before = std::mem::take(&mut state.subchannels);
        let is_wanted = before.is_empty()
            || self.settings.policy.stays_connected()
            || before
                .iter()
                .any(|it| it.state() != ConnectivityState::Idle);
        for endpoints in self.settings.policy.subchannels(endpoints) {
            if let Some(at) = before.iter().position(|it| it.has_only(&endpoints)) {
                // DNS servers like to give the same addresses in another order.
                let mut subchannel = before.remove(at);
                subchannel.endpoints = endpoints.into();
                state.subchannels.push(subchannel);
                continue;
            }
            let mut subchannel = state.new_subchannel(endpoints, limits);
            for before in &mut before {
                subchannel.take_over(before);
                if !self.settings.policy.stays_connected() {
                    // The subchannel continues as another one: see `ConnectionGroup::failing`.
                    subchannel.failing = before.failing.take();
                }
            }
            state.subchannels.push(subchannel);
        }
        is_wanted && state.is_active
    }

    /// Asks for the addresses of names, as soon as that may be done again: false if somebody does.
    fn resolve(self: &Arc<Self>, state: &mut State) -> bool {
        let is_under_way = state.resolution.task.as_ref().is_some_and(Task::is_running);
        if is_under_way || !state.is_active || !self.has_names() {
            return false;
        }
        let (weak, resolver) = (Arc::downgrade(self), self.settings.resolver.clone());
        let (targets, limits) = (self.targets.clone(), self.settings.limits.clone());
        let resolving = keep_resolving(weak, resolver, targets, limits);
        state.resolution.task = Task::spawn(&self.changes, resolving);
        state.resolution.task.is_some()
    }

    /// Uses the addresses that are known.
    fn use_found(self: &Arc<Self>, state: &mut State) {
        let endpoints = endpoints(&self.targets, &state.resolution.found);
        if !endpoints.is_empty() {
            state.resolution.failing = None;
            if self.replace(state, endpoints) {
                for subchannel in &mut state.subchannels {
                    self.attempt(subchannel);
                }
            }
        }
        self.tell(state);
    }

    /// All names have been asked for since `started`; whether some of it failed, which is to be tried
    /// again.
    fn resolved(self: &Arc<Self>, started: Instant, failure: Option<Status>) -> bool {
        let limits = &*self.settings.limits;
        let mut state = self.write();
        let has_failed = failure.is_some();
        if std::mem::take(&mut state.resolution.is_partial) {
            for subchannel in &mut state.subchannels {
                subchannel.begin_anew();
            }
        }
        match failure {
            None => {
                state.resolution.task = None;
                state.resolution.backoff = Backoff::new(limits);
                state.resolution.not_before = started.checked_add(limits.resolve_interval);
            }
            Some(status) => {
                // The naming document leaves it to the resolver; grpc-go and grpc-core pause here as
                // between attempts to connect.
                // The other names wait no longer than else for one that never has an address.
                let pause = state.resolution.backoff.pause(limits, backoff::random());
                let pause = match state.subchannels.is_empty() {
                    true => pause,
                    false => pause.min(limits.resolve_interval),
                };
                state.resolution.not_before = started.checked_add(pause);
                state.resolution.failing = Some(status);
            }
        }
        self.use_found(&mut state);
        has_failed
    }
}

/// Asks for the addresses of names until each has some. What fails is asked for again after a pause,
/// and what did not once its interval is over.
async fn keep_resolving(
    weak: Weak<Connections>,
    resolver: AnyResolver,
    targets: Arc<[Arc<Target>]>,
    limits: Arc<ChannelLimits>,
) {
    let mut due: Vec<Option<Instant>> = vec![None; targets.len()];
    loop {
        let Some(not_before) = weak.upgrade().map(|it| it.read().resolution.not_before) else {
            return;
        };
        if let Some(at) = not_before {
            sleep_until(at).await;
        }
        let started = Instant::now();
        let mut asked = JoinSet::new();
        for (at, target) in targets.iter().cloned().enumerate() {
            if due[at].is_none_or(|due| due <= started) {
                resolver.ask(&mut asked, (at, target), limits.connect_timeout);
            }
        }
        let mut answering = pin!(take_answers(&weak, &mut asked, |at| {
            due[at] = started.checked_add(limits.resolve_interval);
        }));
        // A slow name does not delay the results of the others.
        let failure = match timeout(limits.connect_stagger, &mut answering).await {
            Ok(failure) => failure,
            Err(_) => {
                if let Some(connections) = weak.upgrade() {
                    let mut state = connections.write();
                    let found = &state.resolution.found;
                    state.resolution.is_partial = found.iter().any(Vec::is_empty);
                    connections.use_found(&mut state);
                }
                answering.await
            }
        };
        match weak.upgrade() {
            Some(connections) if connections.resolved(started, failure) => {}
            Some(_) | None => return,
        }
    }
}

/// Stores the addresses as they arrive, and returns the reason if some did not.
async fn take_answers(
    weak: &Weak<Connections>,
    asked: &mut JoinSet<Answer>,
    mut has_answered: impl FnMut(usize),
) -> Option<Status> {
    let mut failure = None;
    while let Some(answer) = asked.join_next().await {
        let Ok(Answer { at, addresses }) = answer else {
            failure = Some(Status::unavailable("the resolver has panicked"));
            continue;
        };
        match (addresses, weak.upgrade()) {
            (Err(status), _) => failure = Some(status),
            (Ok(addresses), connections) => {
                connections?.write().resolution.found[at] = addresses;
                has_answered(at);
            }
        }
    }
    failure
}

/// Connects until there is a connection, with pauses.
async fn keep_connecting(weak: Weak<Connections>, id: u64, happy_eyeballs: HappyEyeballs) {
    loop {
        let Some((endpoints, not_before)) = weak.upgrade().and_then(|it| it.plan(id)) else {
            return;
        };
        if let Some(at) = not_before {
            sleep_until(at).await;
        }
        let started = Instant::now();
        let connected = happy_eyeballs.run(&endpoints).await;
        match weak.upgrade() {
            Some(connections) if connections.attempted(id, started, connected) => {}
            Some(_) | None => return,
        }
    }
}

/// Reports to the channel that it has lost a connection, even if the task is dropped with its runtime.
struct Lost(Weak<Connections>);

impl Drop for Lost {
    fn drop(&mut self) {
        if let Some(connections) = self.0.upgrade() {
            connections.maintain();
        }
    }
}

/// Waits until a connection takes no more calls. Closes it if it is one of several, and idle.
async fn look_after(
    lost: Lost,
    further: Option<Weak<ActiveConnection>>,
    idle_time: std::time::Duration,
    left: impl Future<Output = ()>,
) {
    let mut left = pin!(left);
    let Some(further) = further else {
        return left.await;
    };
    while timeout(idle_time, &mut left).await.is_err() {
        let (Some(connections), Some(active)) = (lost.0.upgrade(), further.upgrade()) else {
            return;
        };
        if connections.close_if_idle(&active) {
            return;
        }
    }
}
