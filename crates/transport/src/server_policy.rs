//! The checks of a server after each turn of a connection that h2 does not make: abuse and time limits.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::Reason;
use tokio::time::Instant;

use crate::budget::{Budget, Surplus, per_second};
use crate::connection_shared::ConnectionShared;
use crate::frame_guard::FrameGuard;
use crate::keepalive::{KeepaliveAction, KeepaliveTimer, PingStrikes, TOO_MANY_PINGS};
use crate::limits::{Http2Limits, ServerLimits};
use crate::send_backlog::{ClientProgress, SendBacklog};
use crate::timers::{Timed, Timers};

/// Frames without anything of a call that are due to one with something of it. A WINDOW_UPDATE for
/// the stream and one for the connection are what most peers send for each DATA frame.
const CONTROL_PER_FRAME: u64 = 10;
/// A peer may cut what it takes into WINDOW_UPDATE frames for a KiB each, however large our frames.
const BYTES_PER_CONTROL: u64 = 1024;

/// The policy for one connection of a server.
#[derive(Debug)]
pub(crate) struct ServerPolicy {
    limits: Arc<ServerLimits>,
    floods: FloodBudgets,
    rapid: Budget,
    unanswered: Budget,
    /// Calls that were reset without an answer, when that was last looked at.
    unanswered_resets: u64,
    heads: Budget,
    /// Calls whose heads h2 has refused: see [`malformed_heads`].
    malformed: u64,
    timers: Timers,
    keepalive_timer: Option<KeepaliveTimer>,
    strikes: PingStrikes,
    progress: ClientProgress,
    /// The header block that the timer is for.
    block: Option<u64>,
    /// How many calls had begun when none was open any more.
    idle: Option<u64>,
    /// The client has been told to go, because of age or idleness.
    is_draining: bool,
    is_closing: bool,
}

/// What the connection has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Answer the calls whose deadlines have passed while they waited for handlers.
    RefuseOverdue,
    /// Give up the responses that the client does not take.
    GiveUpStalled,
    /// Ask whether the client is there.
    Ping,
    /// Tell the client to go elsewhere, and let the calls that run finish.
    Drain,
    /// Shut down, and say why.
    GoAway(Reason, &'static str),
    /// Say goodbye, and end.
    Close,
    /// End at once: nobody listens.
    Abort,
}

impl ServerPolicy {
    pub(crate) fn new(limits: Arc<ServerLimits>, handshake_by: Instant) -> Self {
        let now = Instant::now();
        let keepalive_timer = KeepaliveTimer::new(
            limits.http2.keepalive_time,
            limits.http2.keepalive_timeout,
            now,
        );
        let mut timers = Timers::default();
        timers.set(Timed::Settings, Some(handshake_by));
        if limits.max_connection_age < Duration::MAX {
            // std seeds each of them anew.
            let random = RandomState::new().hash_one(0);
            timers.set(Timed::Age, now.checked_add(limits.connection_age(random)));
        }
        timers.set(
            Timed::Keepalive,
            keepalive_timer.as_ref().and_then(KeepaliveTimer::next),
        );
        Self {
            floods: FloodBudgets::new(&limits.http2, now),
            rapid: Budget::new(
                limits.reset_budget,
                per_second(limits.resets_per_second),
                Surplus::Discarded,
                now,
            ),
            unanswered_resets: 0,
            unanswered: Budget::new(
                limits.unanswered_reset_budget,
                per_second(limits.unanswered_resets_per_second),
                Surplus::Discarded,
                now,
            ),
            heads: Budget::new(
                limits.malformed_head_budget,
                per_second(limits.malformed_heads_per_second),
                Surplus::Discarded,
                now,
            ),
            malformed: 0,
            timers,
            keepalive_timer,
            strikes: PingStrikes::new(&limits, now),
            progress: ClientProgress::default(),
            block: None,
            idle: None,
            is_draining: false,
            is_closing: false,
            limits,
        }
    }

    /// Looks at what has come and what was sent. `accepted` is how many calls h2 has given, and `clock` the
    /// time of this turn, if it is known.
    pub(crate) fn check(
        &mut self,
        came: &FrameGuard,
        sent: &FrameGuard,
        accepted: u64,
        shared: &ConnectionShared,
        clock: Option<Instant>,
    ) -> Option<Action> {
        if self.is_closing {
            return None;
        }
        let clock = || clock.unwrap_or_else(Instant::now);
        let malformed = malformed_heads(came, sent, accepted);
        if malformed > self.malformed {
            self.malformed = malformed;
            if self.heads.is_overdrawn(malformed, || 0, clock) {
                return Some(Action::GoAway(
                    Reason::ENHANCE_YOUR_CALM,
                    "too_many_malformed_heads",
                ));
            }
        }
        if let Some(flood) = self.floods.check(came, sent, self.malformed, clock) {
            return Some(Action::GoAway(Reason::ENHANCE_YOUR_CALM, flood.text()));
        }
        let resets = shared.unanswered_resets();
        if resets != self.unanswered_resets && self.are_too_many(resets, shared, clock) {
            return Some(Action::GoAway(Reason::ENHANCE_YOUR_CALM, "too_many_resets"));
        }
        if self.strikes.are_new(came.pings()) {
            let (pings, sent, has_calls) = (came.pings(), sent.carrying(), shared.open() > 0);
            let limits = &self.limits;
            if self.strikes.judge(pings, sent, has_calls, limits, clock()) {
                return Some(Action::GoAway(Reason::ENHANCE_YOUR_CALM, TOO_MANY_PINGS));
            }
        }
        if came.settings() > 0 && self.timers.is_set(Timed::Settings) {
            self.timers.set(Timed::Settings, None);
        }
        if came.header_block() != self.block {
            self.block = came.header_block();
            let end = self
                .block
                .and_then(|_| clock().checked_add(self.limits.header_block_timeout));
            self.timers.set(Timed::HeaderBlock, end);
        }
        if let Some(keepalive_timer) = &mut self.keepalive_timer
            && let Some(next) = keepalive_timer.on_read(came.bytes(), clock)
        {
            self.timers.set(Timed::Keepalive, Some(next));
        }
        if self.limits.max_connection_idle < Duration::MAX && !self.is_draining {
            self.update_idle_timer(came.heads(), shared.open());
        }
        None
    }

    /// CVE-2023-44487: a reset stream no longer counts against the stream limit.
    #[cold]
    fn are_too_many(
        &mut self,
        resets: u64,
        shared: &ConnectionShared,
        clock: impl Fn() -> Instant,
    ) -> bool {
        self.unanswered_resets = resets;
        let (rapid, answered) = (shared.rapid_resets(), || shared.responses());
        self.rapid.is_overdrawn(rapid, answered, &clock)
            || self.unanswered.is_overdrawn(resets, answered, clock)
    }

    /// gRFC A9: a connection is idle from the end of its last call on.
    fn update_idle_timer(&mut self, begun: u64, open: usize) {
        let idle = (open == 0).then_some(begun);
        if idle != self.idle {
            self.idle = idle;
            let end =
                idle.and_then(|_| Instant::now().checked_add(self.limits.max_connection_idle));
            self.timers.set(Timed::Idle, end);
        }
    }

    /// The first deadline of the calls that wait for handlers; none if none waits.
    pub(crate) fn set_waiting(&mut self, first: Option<Instant>) {
        if first.is_some() || self.timers.is_set(Timed::Waiting) {
            self.timers.set(Timed::Waiting, first);
        }
    }

    /// From now on only the end is waited for.
    pub(crate) fn close(&mut self) {
        self.is_closing = true;
        self.timers.clear();
        let end = Instant::now().checked_add(self.limits.handshake_timeout);
        self.timers.set(Timed::Closing, end);
    }

    /// When the connection has to be over, if it has been told to end.
    pub(crate) fn closes_by(&self) -> Option<Instant> {
        let times = [Timed::Grace, Timed::Closing].map(|timed| self.timers.get(timed));
        times.into_iter().flatten().min()
    }

    /// Responses that do not move are given up when their time is over, if they are in the way. `sent` is how
    /// many bytes have been sent.
    #[inline]
    pub(crate) fn check_send_backlog(&mut self, backlog: &SendBacklog, sent: u64) {
        if backlog.is_congested() || self.progress.has_started() {
            self.check_congested(backlog, sent);
        }
    }

    #[cold]
    fn check_congested(&mut self, backlog: &SendBacklog, sent: u64) {
        let full_by = self.progress.check(backlog, sent);
        let next = match backlog.is_congested() {
            true => full_by.into_iter().chain(backlog.next_stalled()).min(),
            false => None,
        };
        self.timers.set(Timed::SendBacklog, next);
    }

    /// Ready when the time for something has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Action> {
        loop {
            let action = match ready!(self.timers.poll(cx)) {
                Timed::Settings => Action::GoAway(Reason::SETTINGS_TIMEOUT, "no SETTINGS"),
                Timed::HeaderBlock => {
                    Action::GoAway(Reason::ENHANCE_YOUR_CALM, "a header block takes too long")
                }
                Timed::Waiting => Action::RefuseOverdue,
                Timed::Keepalive => match self.keepalive_action() {
                    Some(action) => action,
                    None => continue,
                },
                // gRFC A9: what is too old or idle is told, and its calls have the grace.
                Timed::Idle | Timed::Age => {
                    self.begin_grace();
                    Action::Drain
                }
                Timed::SendBacklog => Action::GiveUpStalled,
                Timed::Grace => Action::Close,
                Timed::Closing => Action::Abort,
            };
            return Poll::Ready(action);
        }
    }

    /// There is one grace: what a client does meanwhile, such as new calls, puts it off no more.
    fn begin_grace(&mut self) {
        self.is_draining = true;
        self.timers.set(Timed::Idle, None);
        self.timers.set(Timed::Age, None);
        let end = Instant::now().checked_add(self.limits.max_connection_age_grace);
        self.timers.set(Timed::Grace, end);
    }

    fn keepalive_action(&mut self) -> Option<Action> {
        let keepalive_timer = self.keepalive_timer.as_mut()?;
        let action = keepalive_timer.on_timer(true, Instant::now());
        self.timers.set(Timed::Keepalive, keepalive_timer.next());
        match action {
            KeepaliveAction::Wait => None,
            KeepaliveAction::Ping => Some(Action::Ping),
            // gRFC A9: the connection is closed, and with it what runs for a client that is gone.
            KeepaliveAction::TimedOut => Some(Action::Abort),
        }
    }
}

/// Counts the calls that h2 has refused because it cannot read their heads, such as an `:authority` with a
/// path in it: it resets them with PROTOCOL_ERROR, and tells nobody. They are those that were begun and
/// not accepted, without those above the limit for streams.
#[inline]
fn malformed_heads(came: &FrameGuard, sent: &FrameGuard, accepted: u64) -> u64 {
    if sent.protocol_resets() == 0 {
        return 0;
    }
    let known = accepted + sent.refused_resets();
    let malformed = came.begun().saturating_sub(known);
    malformed.min(sent.protocol_resets())
}

/// The budgets that either end has.
#[derive(Debug)]
pub(crate) struct FloodBudgets {
    control: Budget,
    errors: Budget,
    /// The part of `errors` that the peer has spent.
    mistakes: u64,
    short: Budget,
}

/// A thing that a peer does too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    /// It sends frames that carry nothing.
    Control,
    /// It makes this end reset streams.
    Errors,
    /// It cuts what it sends into pieces.
    Short,
}

impl Flood {
    /// The text of GOAWAY.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Control => "too_many_control_frames",
            Self::Errors => "too_many_internal_resets",
            Self::Short => "too_many_data_frames",
        }
    }
}

impl FloodBudgets {
    pub(crate) fn new(limits: &Http2Limits, now: Instant) -> Self {
        Self {
            // What calls pay for may come long after them: a client may let megabytes lie before it takes
            // them, and then returns window for each piece.
            control: Budget::new(
                limits.control_frame_budget,
                per_second(limits.control_frames_per_second),
                Surplus::Carried,
                now,
            ),
            errors: Budget::new(
                limits.error_reset_budget,
                per_second(limits.error_resets_per_second),
                Surplus::Discarded,
                now,
            ),
            mistakes: 0,
            short: Budget::new(
                limits.short_data_budget,
                per_second(limits.short_data_per_second),
                Surplus::Discarded,
                now,
            ),
        }
    }

    /// `malformed` is how many of the resets that were sent are counted elsewhere.
    #[inline]
    pub(crate) fn check(
        &mut self,
        came: &FrameGuard,
        sent: &FrameGuard,
        malformed: u64,
        clock: impl Fn() -> Instant,
    ) -> Option<Flood> {
        // CVE-2025-8671: a stream that we are made to reset no longer counts against the stream limit.
        let mistakes = sent.error_resets().saturating_sub(malformed);
        self.mistakes = self.mistakes.max(mistakes);
        if self.errors.is_overdrawn(self.mistakes, || 0, &clock) {
            return Some(Flood::Errors);
        }
        // h2 keeps more for a frame than is in one of these. Its own budget for them is used up by those
        // that come late, for calls that are over, and never given back.
        if self
            .short
            .is_overdrawn(came.short(), || came.carrying(), &clock)
        {
            return Some(Flood::Short);
        }
        // It is a ratio, because honest peers send these frames for what passes. Time passes as well: an
        // idle connection is kept alive by frames that carry nothing.
        let due = || {
            let due = CONTROL_PER_FRAME * (came.carrying() + sent.carrying());
            due + sent.bytes() / BYTES_PER_CONTROL
        };
        let control = came.frames() - came.carrying() - came.short();
        self.control
            .is_overdrawn(control, due, clock)
            .then_some(Flood::Control)
    }
}
