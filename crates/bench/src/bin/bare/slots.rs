//! Calls that wait, and which of them h2 has something for.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// Indices of the slots that were woken. Only the connection's task touches it, since all of h2's
/// wakes come out of its own polls; the lock is never fought for.
type Woken = Arc<Mutex<Vec<usize>>>;

pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<usize>,
    woken: Woken,
}

/// The waker outlives the call: a slot makes one in its life.
pub(crate) struct Slot<T> {
    pub(crate) call: Option<T>,
    waker: Waker,
    state: Arc<SlotWaker>,
}

struct SlotWaker {
    at: usize,
    queued: AtomicBool,
    woken: Woken,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Plain load and store: there is one task.
        if !self.queued.load(Relaxed) {
            self.queued.store(true, Relaxed);
            let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
            woken.push(self.at);
        }
    }
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            woken: Woken::default(),
        }
    }

    /// Takes a call in, to be polled by the slot that it says.
    pub(crate) fn insert(&mut self, call: T) -> usize {
        let at = self.free.pop().unwrap_or_else(|| {
            let state = Arc::new(SlotWaker {
                at: self.slots.len(),
                queued: AtomicBool::new(false),
                woken: self.woken.clone(),
            });
            self.slots.push(Slot {
                call: None,
                waker: Waker::from(state.clone()),
                state,
            });
            self.slots.len() - 1
        });
        self.slots[at].call = Some(call);
        at
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Swaps those that were woken into `into`, which is empty.
    pub(crate) fn take_woken(&self, into: &mut Vec<usize>) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut *woken, into);
    }

    /// The call in slot `at`, and its waker; none if it has ended since it was woken.
    pub(crate) fn woken_call(&mut self, at: usize) -> Option<(&mut T, &Waker)> {
        let slot = &mut self.slots[at];
        slot.state.queued.store(false, Relaxed);
        slot.call.as_mut().map(|call| (call, &slot.waker))
    }

    pub(crate) fn remove(&mut self, at: usize) -> Option<T> {
        self.free.push(at);
        self.slots[at].call.take()
    }
}
