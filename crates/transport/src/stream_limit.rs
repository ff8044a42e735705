//! The streams that a client may have open on a connection: the server's limit, as it is now.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use crate::sync::lock;

/// Calls wait here, in order, until the server allows another stream.
///
/// h2 would take them all and open their streams later, but a call that is given up while it waits
/// there still goes out, as HEADERS and a reset.
#[derive(Debug)]
pub(crate) struct StreamLimit {
    free: Semaphore,
    /// Written under the lock of `state`, read by every call that chooses a connection.
    limit: AtomicUsize,
    state: Mutex<StreamLimitState>,
    /// Never has a permit: who waits for one hears that the connection takes no more calls.
    closed: Semaphore,
}

#[derive(Debug, Default)]
struct StreamLimitState {
    /// StreamLimit that are to be given back and not taken again: the limit was lowered below what was
    /// in use.
    debt: usize,
}

/// A stream that may be open. Dropping it lets the next call have its own.
#[derive(Debug)]
pub(crate) struct StreamPermit(Arc<StreamLimit>);

impl StreamLimit {
    /// None are free before the server has said how many there are.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            free: Semaphore::new(0),
            limit: AtomicUsize::new(0),
            state: Mutex::default(),
            closed: Semaphore::new(0),
        })
    }

    /// What the server's SETTINGS_MAX_CONCURRENT_STREAMS is from now on.
    pub(crate) fn set_limit(&self, limit: usize) {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        let mut state = lock(&self.state);
        let before = self.limit.swap(limit, Ordering::Relaxed);
        if limit > before {
            let more = limit - before;
            let forgiven = more.min(state.debt);
            state.debt -= forgiven;
            self.free.add_permits(more - forgiven);
        } else {
            let fewer = before - limit;
            state.debt += fewer - self.free.forget_permits(fewer);
        }
    }

    /// What the server's limit is now.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// A slot, if one is free and nobody waits for it.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<StreamPermit> {
        self.free.try_acquire().ok()?.forget();
        Some(StreamPermit(self.clone()))
    }

    /// Waits for a slot; none if the connection has ended. Dropping the future leaves no trace.
    pub(crate) async fn take(self: &Arc<Self>) -> Option<StreamPermit> {
        self.free.acquire().await.ok()?.forget();
        Some(StreamPermit(self.clone()))
    }

    /// The connection has ended: nobody waits any more.
    pub(crate) fn close(&self) {
        self.free.close();
        self.closed.close();
    }

    /// Waits until nobody can have a slot any more.
    pub(crate) async fn until_closed(&self) {
        // An error is what it waits for.
        let _ = self.closed.acquire().await;
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        match state.debt.checked_sub(1) {
            Some(debt) => state.debt = debt,
            None => self.0.free.add_permits(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    /// Takes a slot if there is one, by either way.
    fn try_take(slots: &Arc<StreamLimit>) -> Option<StreamPermit> {
        if let Some(slot) = slots.try_take() {
            drop(slot);
            let take = std::pin::pin!(slots.take());
            let poll = take.poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(poll, Poll::Ready(Some(_))), "both ways agree");
        }
        slots.try_take()
    }

    #[test]
    fn as_many_slots_are_given_as_the_limit_says_now() {
        let slots = StreamLimit::new();
        assert!(try_take(&slots).is_none());
        slots.set_limit(2);
        let (a, b) = (try_take(&slots), try_take(&slots));
        assert!(a.is_some() && b.is_some() && try_take(&slots).is_none());
        slots.set_limit(1);
        drop(a);
        assert!(
            try_take(&slots).is_none(),
            "one is still in use, and there is only one"
        );
        drop(b);
        let c = try_take(&slots);
        assert!(c.is_some() && try_take(&slots).is_none());
        slots.set_limit(0);
        slots.set_limit(2);
        let d = try_take(&slots);
        assert!(d.is_some() && try_take(&slots).is_none());
    }

    #[test]
    fn a_call_that_stops_waiting_takes_nothing() {
        let slots = StreamLimit::new();
        {
            let mut waiting = std::pin::pin!(slots.take());
            assert!(
                waiting
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
            );
            slots.set_limit(1);
            assert!(slots.try_take().is_none(), "the call that waits has it");
        }
        assert!(try_take(&slots).is_some());
    }

    #[test]
    fn nobody_waits_for_a_connection_that_has_ended() {
        let slots = StreamLimit::new();
        slots.close();
        let mut take = std::pin::pin!(slots.take());
        let poll = take.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(poll, Poll::Ready(None)));
    }
}
