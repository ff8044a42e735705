//! The calls of a connection that wait: those that its own task polls, and those with a task each.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use http::Response;
use tokio::task::coop;
use tokio::time::Instant;

use crate::answer::Answering;
use crate::body::Body;
use crate::hub::{Hub, lock};
use crate::limits::ServerLimits;
use crate::poll_budget::{FIRST_TRIAL, PollBudget};

/// The calls that are polled in the connection's task: one that is woken costs its poll, and
/// neither a task nor the lock of a scheduler.
pub(crate) struct Calls<F> {
    slots: Vec<Option<Waiting<F>>>,
    free: Vec<usize>,
    woken: Vec<Arc<CallWaker>>,
    /// Calls whose method has become quick since they got a task.
    returning: Arc<Mutex<Vec<Answering<F>>>>,
    hub: Arc<Hub>,
    /// What handlers, and what calls them, have taken of this turn.
    spent: Duration,
    /// When calls were last polled in this turn.
    clock: Option<Instant>,
    in_place_max: Duration,
    quick_poll_max: Duration,
}

struct Waiting<F> {
    answering: Box<Answering<F>>,
    identity: Arc<CallWaker>,
    waker: Waker,
}

/// Puts a call on the hub's list, once, and wakes the connection's task.
#[derive(Debug)]
pub(crate) struct CallWaker {
    slot: usize,
    hub: Arc<Hub>,
    is_listed: AtomicBool,
}

impl Wake for CallWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_listed.swap(true, Ordering::AcqRel) {
            self.hub.call_woken(self.clone());
        }
    }
}

impl<F: Future<Output = Response<Body>> + Send + Unpin + 'static> Calls<F> {
    pub(crate) fn new(hub: Arc<Hub>, limits: &ServerLimits) -> Self {
        hub.list_woken();
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            woken: Vec::new(),
            returning: Arc::default(),
            hub,
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
    pub(crate) fn begin(&mut self, mut answering: Answering<F>, begun: Instant) -> Instant {
        if !self.is_for_here(answering.poll_budget()) {
            // To be called has taken time as well, of the connection and not of the method's polls.
            let now = self.polled(None, begun);
            // What is over by now is not begun.
            if !answering.is_reset() {
                self.give_task(answering);
            }
            return now;
        }
        // Whoever takes over polls again, with a waker that wakes it.
        let polled = answering.poll_undated(&mut Context::from_waker(Waker::noop()));
        let now = self.polled(answering.poll_budget(), begun);
        if polled.is_pending() {
            match self.is_for_here(answering.poll_budget()) {
                true => self.push(answering),
                false => self.give_task(answering),
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
        for answering in returning {
            self.push(answering);
        }
        let mut woken = std::mem::take(&mut self.woken);
        self.hub.take_woken(&mut woken);
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
            waker.is_listed.store(false, Ordering::Release);
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
        let Some(place) = self.slots.get_mut(waker.slot) else {
            return now;
        };
        // A waker may outlive its call, and the slot have another one by now.
        let Some(mut waiting) = place.take_if(|it| it.is_woken_by(waker)) else {
            return now;
        };
        if self.is_for_here(waiting.answering.poll_budget()) {
            let mut cx = Context::from_waker(&waiting.waker);
            waiting.answering.begin_poll(now);
            let polled = Pin::new(&mut *waiting.answering).poll(&mut cx);
            now = self.polled(waiting.answering.poll_budget(), now);
            if polled.is_ready() {
                self.free.push(waker.slot);
                return now;
            }
        }
        match self.is_for_here(waiting.answering.poll_budget()) {
            true => self.slots[waker.slot] = Some(waiting),
            false => {
                self.free.push(waker.slot);
                self.give_task(*waiting.answering);
            }
        }
        now
    }

    fn push(&mut self, answering: Answering<F>) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let identity = Arc::new(CallWaker {
            slot,
            hub: self.hub.clone(),
            is_listed: AtomicBool::new(false),
        });
        // It has yet to be polled with its waker.
        identity.wake_by_ref();
        self.slots[slot] = Some(Waiting {
            answering: Box::new(answering),
            waker: Waker::from(identity.clone()),
            identity,
        });
    }

    fn give_task(&self, answering: Answering<F>) {
        tokio::spawn(Task {
            answering: Some(answering),
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

impl<F> Waiting<F> {
    fn is_woken_by(&self, waker: &Arc<CallWaker>) -> bool {
        Arc::ptr_eq(&self.identity, waker)
    }
}

/// A call in a task of its own.
struct Task<F> {
    answering: Option<Answering<F>>,
    /// Where the call goes when its method is quick; gone with the connection.
    home: Weak<Mutex<Vec<Answering<F>>>>,
    /// Those of this call, in a row. Not at once back to where there may have been no time.
    quick_polls: u32,
    quick_poll_max: Duration,
}

impl<F: Future<Output = Response<Body>> + Unpin> Future for Task<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(answering) = &mut this.answering else {
            return Poll::Ready(());
        };
        let begun = Instant::now();
        answering.begin_poll(begun);
        let polled = Pin::new(&mut *answering).poll(cx);
        let Some(poll_budget) = answering.poll_budget() else {
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
            let hub = answering.hub().clone();
            lock(&home).extend(this.answering.take());
            hub.wake();
            return Poll::Ready(());
        }
        polled
    }
}

/// A waker may outlive the connection; the list must not keep it.
impl<F> Drop for Calls<F> {
    fn drop(&mut self) {
        self.hub.unlist_woken();
    }
}
