//! The calls of a connection that wait: those that its own task polls, and those with a task each.

use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use http::Response;
use tokio::task::coop;
use tokio::time::Instant;

use crate::body::Body;
use crate::connection_shared::{CallWaker, ConnectionShared};
use crate::limits::ServerLimits;
use crate::poll_budget::{FIRST_TRIAL, PollBudget};
use crate::server_call::ServerCall;
use crate::sync::lock;

/// The calls that are polled in the connection's task: one that is woken costs its poll, and
/// neither a task nor the lock of a scheduler.
pub(crate) struct ServerCalls<F> {
    slots: Vec<Option<WaitingCall<F>>>,
    free: Vec<usize>,
    woken: Vec<Arc<CallWaker>>,
    /// Calls whose method has become quick since they got a task.
    returning: Arc<Mutex<Vec<ServerCall<F>>>>,
    shared: Arc<ConnectionShared>,
    /// What handlers, and what calls them, have taken of this turn.
    spent: Duration,
    /// When calls were last polled in this turn.
    clock: Option<Instant>,
    in_place_max: Duration,
    quick_poll_max: Duration,
}

struct WaitingCall<F> {
    call: Box<ServerCall<F>>,
    identity: Arc<CallWaker>,
    waker: Waker,
}

impl<F: Future<Output = Response<Body>> + Send + Unpin + 'static> ServerCalls<F> {
    pub(crate) fn new(shared: Arc<ConnectionShared>, limits: &ServerLimits) -> Self {
        shared.list_woken();
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            woken: Vec::new(),
            returning: Arc::default(),
            shared,
            spent: Duration::ZERO,
            clock: None,
            in_place_max: limits.in_place_max,
            quick_poll_max: limits.quick_poll_max,
        }
    }

    /// A turn begins.
    pub(crate) fn begin_turn(&mut self) {
        self.spent = Duration::ZERO;
        self.clock = None;
    }

    /// When calls were last polled in this turn, because they were woken.
    pub(crate) fn clock(&self) -> Option<Instant> {
        self.clock
    }

    /// Whether the turn should end, so that the connection can write: calls have taken twice what
    /// handlers get, although those behind have been given tasks.
    pub(crate) fn is_overdue(&self) -> bool {
        self.spent > self.in_place_max * 2
    }

    // Way of a unary call, server 7: polls the call once; keeps those that wait, or starts a
    // task for each.
    /// Polls a new call once, here, if its method is quick: most finish. Gives the time when it has
    /// done so; `begun` is when it was called.
    pub(crate) fn begin(&mut self, mut call: ServerCall<F>, begun: Instant) -> Instant {
        if !self.is_for_here(call.poll_budget()) {
            // To be called has taken time as well, of the connection and not of the method's polls.
            let now = self.polled(None, begun);
            // What is over by now is not begun.
            if !call.is_reset() {
                self.give_task(call);
            }
            return now;
        }
        // Whoever takes over polls again, with a waker that wakes it.
        let polled = call.poll_undated(&mut Context::from_waker(Waker::noop()));
        let now = self.polled(call.poll_budget(), begun);
        if polled.is_pending() {
            match self.is_for_here(call.poll_budget()) {
                true => self.push(call),
                false => self.give_task(call),
            }
        }
        now
    }

    /// Polls the calls that were woken. If the turn is used up before, or the method of one turns
    /// out to be slow, they get tasks: other threads can take them, and the connection goes on.
    ///
    /// False if handlers have used up what tokio lets a task do at a time: then the rest waits for
    /// the next turn.
    pub(crate) fn poll_woken(&mut self) -> bool {
        let returning = std::mem::take(&mut *lock(&self.returning));
        for call in returning {
            self.push(call);
        }
        let mut woken = std::mem::take(&mut self.woken);
        self.shared.take_woken(&mut woken);
        if woken.is_empty() {
            self.woken = woken;
            return true;
        }
        let mut now = Instant::now();
        let mut polled = 0;
        for waker in &woken {
            if !coop::has_budget_remaining() {
                break;
            }
            waker.unlist();
            now = self.poll_one(waker, now);
            polled += 1;
        }
        self.clock = Some(now);
        woken.drain(..polled);
        let is_done = woken.is_empty();
        self.woken = woken;
        is_done
    }

    fn poll_one(&mut self, waker: &Arc<CallWaker>, mut now: Instant) -> Instant {
        let Some(entry) = self.slots.get_mut(waker.slot()) else {
            return now;
        };
        // A waker may outlive its call, and the slot have another one by now.
        let Some(mut waiting) = entry.take_if(|it| it.is_woken_by(waker)) else {
            return now;
        };
        if self.is_for_here(waiting.call.poll_budget()) {
            let mut cx = Context::from_waker(&waiting.waker);
            waiting.call.begin_poll(now);
            let polled = Pin::new(&mut *waiting.call).poll(&mut cx);
            now = self.polled(waiting.call.poll_budget(), now);
            if polled.is_ready() {
                self.free.push(waker.slot());
                return now;
            }
        }
        match self.is_for_here(waiting.call.poll_budget()) {
            true => self.slots[waker.slot()] = Some(waiting),
            false => {
                self.free.push(waker.slot());
                self.give_task(*waiting.call);
            }
        }
        now
    }

    fn push(&mut self, call: ServerCall<F>) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let identity = CallWaker::new(slot, self.shared.clone());
        // It has yet to be polled with its waker.
        identity.wake_by_ref();
        self.slots[slot] = Some(WaitingCall {
            call: Box::new(call),
            waker: Waker::from(identity.clone()),
            identity,
        });
    }

    fn give_task(&self, call: ServerCall<F>) {
        tokio::spawn(CallTask {
            call: Some(call),
            home: match self.in_place_max.is_zero() {
                true => Weak::new(),
                false => Arc::downgrade(&self.returning),
            },
            quick_polls: 0,
            quick_poll_max: self.quick_poll_max,
        });
    }

    fn is_for_here(&self, poll_budget: Option<&PollBudget>) -> bool {
        // Without a poll_budget it is not a handler that is polled.
        poll_budget
            .is_none_or(|poll_budget| self.spent < self.in_place_max && poll_budget.is_quick())
    }

    /// Takes note of a poll that began at `begun`; gives the time now.
    fn polled(&mut self, poll_budget: Option<&PollBudget>, begun: Instant) -> Instant {
        let now = Instant::now();
        let took = now.saturating_duration_since(begun);
        self.spent += took;
        if let Some(poll_budget) = poll_budget {
            poll_budget.polled(took, self.quick_poll_max);
        }
        now
    }
}

impl<F> WaitingCall<F> {
    fn is_woken_by(&self, waker: &Arc<CallWaker>) -> bool {
        Arc::ptr_eq(&self.identity, waker)
    }
}

/// A call in a task of its own.
struct CallTask<F> {
    call: Option<ServerCall<F>>,
    /// Where the call goes when its method is quick; gone with the connection.
    home: Weak<Mutex<Vec<ServerCall<F>>>>,
    /// Those of this call, in a row. Not at once back to where there may have been no time.
    quick_polls: u32,
    quick_poll_max: Duration,
}

impl<F: Future<Output = Response<Body>> + Unpin> Future for CallTask<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(call) = &mut this.call else {
            return Poll::Ready(());
        };
        let begun = Instant::now();
        call.begin_poll(begun);
        let polled = Pin::new(&mut *call).poll(cx);
        let Some(poll_budget) = call.poll_budget() else {
            return polled;
        };
        let took = begun.elapsed();
        poll_budget.polled(took, this.quick_poll_max);
        this.quick_polls = match took <= this.quick_poll_max {
            true => this.quick_polls.saturating_add(1),
            false => 0,
        };
        if polled.is_pending()
            && this.quick_polls >= FIRST_TRIAL
            && poll_budget.is_quick()
            && let Some(home) = this.home.upgrade()
        {
            let shared = call.shared().clone();
            lock(&home).extend(this.call.take());
            shared.wake();
            return Poll::Ready(());
        }
        polled
    }
}

/// A waker may outlive the connection; the list must not keep it.
impl<F> Drop for ServerCalls<F> {
    fn drop(&mut self) {
        self.shared.unlist_woken();
    }
}
