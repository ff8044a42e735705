//! The server's current limit for the open streams of a connection, at a client.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use crate::sync::lock;

/// A queue in which calls wait, in order, until the server allows another stream.
///
/// h2 has such a queue as well, but still sends HEADERS and RST_STREAM for a call that is cancelled while it
/// waits there.
#[derive(Debug)]
pub(crate) struct StreamLimit {
    free: Semaphore,
    /// Written under the lock of `state`, read by every call that chooses a connection.
    limit: AtomicUsize,
    state: Mutex<StreamLimitState>,
    /// Never has a permit. Waiting for one means waiting for the end of the connection.
    closed: Semaphore,
}

#[derive(Debug, Default)]
struct StreamLimitState {
    /// The permits to discard when they are returned, after the limit was lowered below the number in use.
    debt: usize,
}

/// The permission to open one stream. Dropping it releases the stream for the next call.
#[derive(Debug)]
pub(crate) struct StreamPermit(Arc<StreamLimit>);

impl StreamLimit {
    /// Creates a limit of zero, which applies until the server's SETTINGS arrive.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            free: Semaphore::new(0),
            limit: AtomicUsize::new(0),
            state: Mutex::default(),
            closed: Semaphore::new(0),
        })
    }

    /// Sets the limit from the server's SETTINGS_MAX_CONCURRENT_STREAMS.
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

    /// Returns the server's current limit.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Returns a permit if one is free and no call waits for it.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<StreamPermit> {
        self.free.try_acquire().ok()?.forget();
        Some(StreamPermit(self.clone()))
    }

    /// Waits for a permit. Returns `None` if the connection has ended. Dropping the future leaves the queue.
    pub(crate) async fn take(self: &Arc<Self>) -> Option<StreamPermit> {
        self.free.acquire().await.ok()?.forget();
        Some(StreamPermit(self.clone()))
    }

    /// Fails all waiting and future calls, because the connection has ended.
    pub(crate) fn close(&self) {
        self.free.close();
        self.closed.close();
    }

    /// Waits until [`close`](Self::close) is called.
    pub(crate) async fn until_closed(&self) {
        // Acquiring fails when the semaphore is closed.
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

    /// Takes a permit if there is one, by either way.
    fn try_take(streams: &Arc<StreamLimit>) -> Option<StreamPermit> {
        if let Some(permit) = streams.try_take() {
            drop(permit);
            let take = std::pin::pin!(streams.take());
            let poll = take.poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(poll, Poll::Ready(Some(_))), "both ways agree");
        }
        streams.try_take()
    }

    #[test]
    fn as_many_slots_are_given_as_the_limit_says_now() {
        let streams = StreamLimit::new();
        assert!(try_take(&streams).is_none());
        streams.set_limit(2);
        let (a, b) = (try_take(&streams), try_take(&streams));
        assert!(a.is_some() && b.is_some() && try_take(&streams).is_none());
        streams.set_limit(1);
        drop(a);
        assert!(
            try_take(&streams).is_none(),
            "one is still in use, and there is only one"
        );
        drop(b);
        let c = try_take(&streams);
        assert!(c.is_some() && try_take(&streams).is_none());
        streams.set_limit(0);
        streams.set_limit(2);
        let d = try_take(&streams);
        assert!(d.is_some() && try_take(&streams).is_none());
    }

    #[test]
    fn a_call_that_stops_waiting_takes_nothing() {
        let streams = StreamLimit::new();
        {
            let mut waiting = std::pin::pin!(streams.take());
            assert!(
                waiting
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
            );
            streams.set_limit(1);
            assert!(streams.try_take().is_none(), "the call that waits has it");
        }
        assert!(try_take(&streams).is_some());
    }

    #[test]
    fn nobody_waits_for_a_connection_that_has_ended() {
        let streams = StreamLimit::new();
        streams.close();
        let mut take = std::pin::pin!(streams.take());
        let poll = take.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(poll, Poll::Ready(None)));
    }
}
