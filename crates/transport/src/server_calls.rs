//! The running calls of a connection: polled in its own task, or in a task for each call.

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

/// The calls that are polled in the connection's task. Waking one costs only its poll, without a task or
/// the lock of a scheduler.
pub(crate) struct ServerCalls<F> {
    waiting: Vec<Option<WaitingCall<F>>>,
    free: Vec<usize>,
    woken: Vec<Arc<CallWaker>>,
    /// Calls that move back from their tasks, because their method has become quick.
    returning: Arc<Mutex<Vec<ServerCall<F>>>>,
    shared: Arc<ConnectionShared>,
    /// The time that handlers, and starting them, have taken in this turn.
    spent: Duration,
    /// The time of the last poll of woken calls in this turn.
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
            waiting: Vec::new(),
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

    /// Begins a turn.
    pub(crate) fn begin_turn(&mut self) {
        self.spent = Duration::ZERO;
        self.clock = None;
    }

    /// Returns the time of the last poll of woken calls in this turn.
    pub(crate) fn clock(&self) -> Option<Instant> {
        self.clock
    }

    /// Returns whether the turn should end so that the connection can write: starting calls has taken twice
    /// the time of `in_place_max`, although further calls run in tasks.
    pub(crate) fn is_overdue(&self) -> bool {
        self.spent > self.in_place_max * 2
    }

    // Way of a unary call, server 7: polls the call once; keeps it if it is pending, or starts a task.
    /// Polls a new call once if its method is quick; most calls then finish. `begun` is the time when the
    /// handler was called. Returns the current time.
    pub(crate) fn begin(&mut self, mut call: ServerCall<F>, begun: Instant) -> Instant {
        if !self.is_for_here(call.poll_budget()) {
            // Calling the handler takes time of the connection, but does not count as a poll of the method.
            let now = self.polled(None, begun);
            // A call that was reset meanwhile does not begin.
            if !call.is_reset() {
                self.give_task(call);
            }
            return now;
        }
        // A pending call is polled again with a real waker, here or in its task.
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

    /// Polls the calls that were woken. Calls beyond the time of the turn, and calls of slow methods, move
    /// to tasks of their own, which other threads can run.
    ///
    /// Returns `false` if handlers have used up the task's tokio budget. The rest then waits for the next
    /// turn.
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
        let Some(entry) = self.waiting.get_mut(waker.index()) else {
            return now;
        };
        // A waker can outlive its call, and another call can have its index.
        let Some(mut waiting) = entry.take_if(|it| it.is_woken_by(waker)) else {
            return now;
        };
        if self.is_for_here(waiting.call.poll_budget()) {
            let mut cx = Context::from_waker(&waiting.waker);
            waiting.call.begin_poll(now);
            let polled = Pin::new(&mut *waiting.call).poll(&mut cx);
            now = self.polled(waiting.call.poll_budget(), now);
            if polled.is_ready() {
                self.free.push(waker.index());
                return now;
            }
        }
        match self.is_for_here(waiting.call.poll_budget()) {
            true => self.waiting[waker.index()] = Some(waiting),
            false => {
                self.free.push(waker.index());
                self.give_task(*waiting.call);
            }
        }
        now
    }

    fn push(&mut self, call: ServerCall<F>) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.waiting.push(None);
            self.waiting.len() - 1
        });
        let identity = CallWaker::new(index, self.shared.clone());
        // The call must be polled once with its waker.
        identity.wake_by_ref();
        self.waiting[index] = Some(WaitingCall {
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
        // A call without a poll budget does not run a handler.
        poll_budget
            .is_none_or(|poll_budget| self.spent < self.in_place_max && poll_budget.is_quick())
    }

    /// Records a poll that began at `begun`. Returns the current time.
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
    /// The list through which the call moves back to its connection, once its method is quick.
    home: Weak<Mutex<Vec<ServerCall<F>>>>,
    /// The quick polls of this call in a row. Several are required, because the call may have moved here for
    /// lack of time in its connection's turn.
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

/// Wakers can outlive the connection; clearing the list breaks their reference cycle with it.
impl<F> Drop for ServerCalls<F> {
    fn drop(&mut self) {
        self.shared.unlist_woken();
    }
}
