//! The control task: delivers what happens to resolver and balancers, and publishes their pickers.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use trunkline_codec::Status;
use trunkline_transport::catch_panic;

use super::channel_control::ChannelControl;
use super::core::{Core, Delivery, SubchannelNews};
use super::event::{ChannelEvent, Events};
use super::service_configs::ServiceConfigs;
use super::subchannel_watches::WatchEvent;
use super::timers::Timer;
use crate::backoff::{self, Backoff};
use crate::balancing::{Balancer, BalancerConfig, Control, Picker, TimerId, Update};
use crate::config::ServiceConfig;
use crate::connect::Dialer;
use crate::connectivity::ConnectivityState;
use crate::endpoint::Endpoint;
use crate::resolve::resolver::{PushedResolution, Resolution, Resolving, Updates, Verdict};
use crate::routing::{ChannelShared, Routing, Selector};
use crate::subchannel::{SubchannelId, SubchannelReport};

/// Runs a channel from its first call until it falls idle or is dropped.
pub(crate) struct ControlTask {
    core: Core,
    /// The balancer in use.
    current: Option<Running>,
    /// The balancer of another policy, which replaces the current one once it has a connection, or the current one has
    /// none.
    pending: Option<Running>,
    last_generation: u64,
    configs: ServiceConfigs,
    /// What is in force of them.
    selector: Selector,
    resolving: Option<Resolving>,
    /// The pauses after a resolver or a balancer has panicked.
    restart_backoff: Backoff,
    /// Further endpoints are on their way.
    is_partial: bool,
    events: mpsc::UnboundedReceiver<ChannelEvent>,
    reports: mpsc::UnboundedReceiver<(SubchannelId, SubchannelReport)>,
    watched: mpsc::Receiver<WatchEvent>,
    resolved: mpsc::Receiver<PushedResolution>,
    resolved_sender: mpsc::Sender<PushedResolution>,
}

/// A balancer, and what it has published last.
struct Running {
    generation: u64,
    config: BalancerConfig,
    /// `None` after it has panicked.
    balancer: Option<Box<dyn Balancer>>,
    state: ConnectivityState,
    picker: Picker,
}

enum TaskInput {
    Report(SubchannelId, SubchannelReport),
    ChannelEvent(ChannelEvent),
    Watched(WatchEvent),
    Resolved(PushedResolution),
    Timer(TimerId, Timer),
    ResolverPanicked,
    /// The resolver has ended without a resolution.
    ResolverEnded,
}

impl ControlTask {
    /// Creates the task, and the queue of its events.
    pub(crate) fn new(shared: Arc<ChannelShared>, dialer: Dialer) -> (Self, Events) {
        let (events_sender, events) = mpsc::unbounded_channel();
        let (reports_sender, reports) = mpsc::unbounded_channel();
        let (watched_sender, watched) = mpsc::channel(1);
        let (resolved_sender, resolved) = mpsc::channel(1);
        let restart_backoff = Backoff::new(&shared.settings.limits);
        let configs = ServiceConfigs::new(&shared.settings);
        let selector = Selector::of_idle(&shared.settings);
        let task = Self {
            core: Core::new(
                shared,
                dialer,
                events_sender.clone(),
                reports_sender,
                watched_sender,
            ),
            current: None,
            pending: None,
            last_generation: 0,
            configs,
            selector,
            resolving: None,
            restart_backoff,
            is_partial: false,
            events,
            reports,
            watched,
            resolved,
            resolved_sender,
        };
        (task, events_sender)
    }

    /// Runs until the channel falls idle.
    pub(crate) async fn run(mut self) {
        self.publish(ConnectivityState::Connecting, Picker::Wait);
        self.start_resolver();
        self.check_use_later();
        loop {
            self.deliver();
            let next = std::future::poll_fn(|cx| self.poll_next(cx)).await;
            if self.handle(next).is_break() {
                return;
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<TaskInput> {
        if let Poll::Ready(Some((id, report))) = self.reports.poll_recv(cx) {
            return Poll::Ready(TaskInput::Report(id, report));
        }
        if let Poll::Ready(Some(event)) = self.events.poll_recv(cx) {
            return Poll::Ready(TaskInput::ChannelEvent(event));
        }
        if let Poll::Ready((id, timer)) = self.core.timers.poll(cx) {
            return Poll::Ready(TaskInput::Timer(id, timer));
        }
        if let Poll::Ready(Some(watched)) = self.watched.poll_recv(cx) {
            return Poll::Ready(TaskInput::Watched(watched));
        }
        if let Some(resolving) = &mut self.resolving {
            match catch_panic(|| resolving.as_mut().poll(cx)) {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(())) => {
                    self.resolving = None;
                    if self.current.is_none() {
                        return Poll::Ready(TaskInput::ResolverEnded);
                    }
                }
                Err(panic) => {
                    tracing::error!(target: "trunkline::channel", panic = panic.text(), "the resolver panicked");
                    return Poll::Ready(TaskInput::ResolverPanicked);
                }
            }
        }
        match self.resolved.poll_recv(cx) {
            Poll::Ready(Some(resolved)) => Poll::Ready(TaskInput::Resolved(resolved)),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn handle(&mut self, next: TaskInput) -> ControlFlow<()> {
        match next {
            TaskInput::Report(id, SubchannelReport::Busy) => self.core.grow(id),
            TaskInput::Report(id, SubchannelReport::Released) => self.core.released(id),
            TaskInput::ChannelEvent(ChannelEvent::Connected {
                id,
                started,
                result,
                kind,
            }) => self.core.connected(id, started, result, kind),
            TaskInput::ChannelEvent(ChannelEvent::Left(id)) => self.core.left(id),
            TaskInput::ChannelEvent(ChannelEvent::ResetBackoff) => self.core.reset_backoff(),
            TaskInput::ChannelEvent(ChannelEvent::ExitIdle) => {
                self.core.idle_waker.reset();
                self.for_each(|balancer, control| balancer.exit_idle(control));
            }
            TaskInput::Watched(event) => self.core.watched(event),
            TaskInput::Resolved(PushedResolution {
                resolution,
                verdict,
            }) => self.resolved(resolution, verdict),
            TaskInput::ResolverPanicked => self.resolver_failed("the resolver has panicked"),
            TaskInput::ResolverEnded => {
                self.resolver_failed("the resolver has ended without endpoints")
            }
            TaskInput::Timer(id, timer) => return self.expired(id, timer),
        }
        ControlFlow::Continue(())
    }

    fn expired(&mut self, id: TimerId, timer: Timer) -> ControlFlow<()> {
        match timer {
            Timer::Balancer(generation) => {
                self.with(generation, |balancer, control| {
                    balancer.timer_expired(id, control)
                });
            }
            Timer::Backoff(id) => self.core.backoff_ended(id),
            Timer::Growth(id) => self.core.grow(id),
            Timer::Surplus(id, active) => self.core.check_surplus(id, &active),
            Timer::Resolver => self.start_resolver(),
            Timer::Idle if self.was_used() => self.check_use_later(),
            Timer::Idle => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    /// Returns true if a call has used the channel since the last check, or waits for it.
    fn was_used(&self) -> bool {
        let shared = &self.core.shared;
        // A call that found no connection was one all the same.
        let was_asked = shared.was_asked.swap(false, Ordering::Relaxed);
        self.core.was_used() || was_asked || shared.waiting.load(Ordering::Relaxed) > 0
    }

    fn check_use_later(&mut self) {
        if let Some(at) = Instant::now().checked_add(self.core.limits().channel_idle_time) {
            self.core.timers.set(at, Timer::Idle);
        }
    }

    fn start_resolver(&mut self) {
        let settings = &self.core.shared.settings;
        let (sender, parser) = (self.resolved_sender.clone(), settings.parser.clone());
        let updates = Updates::new(sender, self.core.wanted.clone(), parser);
        match catch_panic(|| settings.resolve(updates)) {
            Ok(resolving) => self.resolving = Some(resolving),
            Err(panic) => {
                tracing::error!(target: "trunkline::channel", panic = panic.text(), "the resolver panicked");
                self.resolver_failed("the resolver has panicked");
            }
        }
    }

    /// Drops a resolver that has panicked or ended, and starts it again later. Endpoints that are known stay in use.
    fn resolver_failed(&mut self, why: &str) {
        if let Some(resolving) = self.resolving.take() {
            drop_caught(resolving);
        }
        self.restart_later();
        let status = Status::unavailable(why);
        let _ = self.update(&Resolution::failed(status));
    }

    /// Starts the resolver again after a pause, because user code has panicked or ended. What it finds reaches a new balancer
    /// if the last one has panicked.
    fn restart_later(&mut self) {
        let limits = &self.core.shared.settings.limits;
        let pause = self.restart_backoff.pause(limits, backoff::random());
        if let Some(at) = Instant::now().checked_add(pause) {
            self.core.timers.set(at, Timer::Resolver);
        }
    }

    fn resolved(&mut self, mut resolution: Resolution, verdict: oneshot::Sender<Verdict>) {
        let max = self.core.limits().max_addresses;
        if let Ok(endpoints) = &mut resolution.endpoints {
            endpoints.truncate(max);
        }
        let was_partial = std::mem::replace(&mut self.is_partial, resolution.is_partial);
        let has_failed = self
            .current
            .as_ref()
            .is_some_and(|it| it.state == ConnectivityState::TransientFailure);
        if was_partial && !self.is_partial && has_failed {
            // Not all addresses were known: the balancer begins again with all of them.
            drop_caught(self.current.take());
        }
        let updated = self.update(&resolution);
        let _ = verdict.send(match updated {
            Ok(()) => Verdict::Used,
            Err(status) => Verdict::Refused(status),
        });
    }

    /// Puts a resolution into force: its service config, and its endpoints with the policy that the config selects.
    fn update(&mut self, resolution: &Resolution) -> Result<(), Status> {
        let shared = self.core.shared.clone();
        self.selector = match self.configs.select(resolution) {
            Ok(selector) => selector,
            Err(status) => {
                (self.current, self.pending) = (None, None);
                let picker = Picker::Fail(Arc::new(status.clone()));
                self.publish(ConnectivityState::TransientFailure, picker);
                return Err(status);
            }
        };
        let config = self.selector.config();
        let throttling = config.and_then(ServiceConfig::retry_throttling);
        shared.throttle.reconfigure(throttling);
        let health_service = config.and_then(ServiceConfig::health_check_service);
        self.core.set_health_service(health_service);
        let max_connections = config.and_then(ServiceConfig::max_connections);
        self.core.set_max_connections(max_connections);
        let balancer = config.and_then(ServiceConfig::balancer);
        let config = balancer.unwrap_or(&shared.settings.balancer).clone();
        let generation = self.balancer_for(&config);
        let endpoints: Result<&[Endpoint], &Status> = match &resolution.endpoints {
            Ok(endpoints) => Ok(endpoints),
            Err(status) => Err(status),
        };
        let update = Update {
            endpoints,
            config: &**config.config(),
            attributes: &resolution.attributes,
            note: &resolution.note,
        };
        let updated = self.with(generation, |balancer, control| {
            balancer.update(update, control)
        });
        // The calls have another service config even if the balancer has published nothing.
        self.route();
        updated.unwrap_or(Ok(()))
    }

    /// Returns the generation of the balancer with the policy of `config`: one that runs, or a new one.
    fn balancer_for(&mut self, config: &BalancerConfig) -> u64 {
        let latest = self.pending.as_mut().or(self.current.as_mut());
        if let Some(running) = latest
            && running.config.name() == config.name()
            && running.balancer.is_some()
        {
            running.config = config.clone();
            return running.generation;
        }
        self.last_generation += 1;
        let built = catch_panic(|| config.policy().build());
        let running = Running {
            generation: self.last_generation,
            config: config.clone(),
            balancer: None,
            state: ConnectivityState::Connecting,
            picker: Picker::Wait,
        };
        let is_in_use = self
            .current
            .as_ref()
            .is_some_and(|it| it.balancer.is_some());
        let place = match is_in_use {
            true => &mut self.pending,
            false => &mut self.current,
        };
        let running = place.insert(running);
        match built {
            Ok(balancer) => running.balancer = Some(balancer),
            Err(panic) => {
                running.fail(&panic);
                self.restart_later();
                self.route();
            }
        }
        self.last_generation
    }

    fn running(&mut self, generation: u64) -> Option<&mut Running> {
        let mut all = self.current.iter_mut().chain(&mut self.pending);
        all.find(|it| it.generation == generation)
    }

    /// Calls a method of a balancer, and publishes what it has decided. Returns `None` if the balancer is gone.
    fn with<T>(
        &mut self,
        generation: u64,
        run: impl FnOnce(&mut dyn Balancer, &mut dyn Control) -> T,
    ) -> Option<T> {
        let mut all = self.current.iter_mut().chain(&mut self.pending);
        let running = all.find(|it| it.generation == generation)?;
        let mut control = ChannelControl {
            core: &mut self.core,
            generation,
            published: None,
        };
        let balancer = running.balancer.as_deref_mut()?;
        let returned = catch_panic(|| run(balancer, &mut control));
        let mut has_published = false;
        if let Some((state, picker)) = control.published {
            (running.state, running.picker) = (state, picker);
            has_published = true;
        }
        if let Err(panic) = &returned {
            running.fail(panic);
            self.restart_later();
            has_published = true;
        }
        if has_published {
            self.route();
        }
        returned.ok()
    }

    fn for_each(&mut self, mut run: impl FnMut(&mut dyn Balancer, &mut dyn Control)) {
        let all = [&self.current, &self.pending].map(|it| it.as_ref().map(|it| it.generation));
        for generation in all.into_iter().flatten() {
            self.with(generation, &mut run);
        }
    }

    /// Tells the balancers what has happened to their subchannels, until nothing is left to tell.
    fn deliver(&mut self) {
        while let Some(delivery) = self.core.deliveries.pop_front() {
            let Delivery {
                generation,
                id,
                news,
            } = delivery;
            if self.running(generation).is_none() {
                continue;
            }
            self.with(generation, |balancer, control| match &news {
                SubchannelNews::State(state) => balancer.subchannel_changed(id, state, control),
                SubchannelNews::Health(health) => balancer.health_changed(id, health, control),
                SubchannelNews::Load(report) => balancer.load_reported(id, report, control),
            });
        }
    }

    /// Publishes the picker of the balancer in use, after a change of policy if that is due.
    fn route(&mut self) {
        use ConnectivityState::{Connecting, Ready, TransientFailure};
        if let (Some(current), Some(pending)) = (&self.current, &self.pending)
            && (pending.state != Connecting || current.state != Ready)
        {
            let before = std::mem::replace(&mut self.current, self.pending.take());
            drop_caught(before);
        }
        let Some(current) = &self.current else {
            return;
        };
        let (state, picker) = match current.state {
            TransientFailure if self.is_partial => (Connecting, Picker::Wait),
            state => (state, current.picker.clone()),
        };
        self.publish(state, picker);
    }

    fn publish(&self, state: ConnectivityState, picker: Picker) {
        let selector = self.selector.clone();
        self.core
            .shared
            .publish(state, Routing { selector, picker });
    }
}

impl Running {
    /// Ends the balancer after a panic.
    fn fail(&mut self, panic: &trunkline_transport::Panic) {
        let name = self.config.name().to_owned();
        tracing::error!(target: "trunkline::channel", policy = name, panic = panic.text(), "the load balancing policy panicked");
        if let Some(balancer) = self.balancer.take() {
            drop_caught(balancer);
        }
        self.state = ConnectivityState::TransientFailure;
        self.picker = Picker::Fail(Arc::new(Status::unavailable(format!(
            "the load balancing policy {name} panicked; the log says why"
        ))));
    }
}

/// Drops a value of user code, and logs its panics.
fn drop_caught<T>(value: T) {
    if let Err(panic) = catch_panic(|| drop(value)) {
        tracing::error!(target: "trunkline::channel", panic = panic.text(), "a value of a policy or resolver panicked when it was dropped");
    }
}

/// The next call starts another task.
impl Drop for ControlTask {
    fn drop(&mut self) {
        self.core.shared.forget_subchannels();
        self.selector = Selector::of_idle(&self.core.shared.settings);
        self.publish(ConnectivityState::Idle, Picker::Idle);
    }
}
