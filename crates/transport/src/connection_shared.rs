//! The state that a connection's task shares with its calls.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tokio::time::Instant;
use trunkline_codec::Status;

use crate::error::status_from_h2;
use crate::header_lists::HeaderLists;
use crate::incoming::IncomingStream;
use crate::limits::ServerLimits;
use crate::send_backlog::{SendBacklog, ServerSendBacklog};
use crate::sync::lock;
use crate::wire_io::ConnectionStats;

const POLLING: u8 = 0b01;
const WOKEN: u8 = 0b10;

/// The state that a connection's task shares with its calls.
///
/// It is also the waker for h2 and the streams. The task can therefore distinguish a wakeup by its calls,
/// for which waiting one turn is worthwhile (see `Turn::poll`), from a wakeup by the socket.
#[derive(Debug)]
pub(crate) struct ConnectionShared {
    task: AtomicWaker,
    state: AtomicU8,
    /// Streams for which h2 has DATA that their readers have not taken yet.
    ready: Mutex<Vec<Arc<IncomingStream>>>,
    /// Calls that have been woken. `None` if the task does not poll calls.
    woken: Mutex<Option<Vec<Arc<CallWaker>>>>,
    open: AtomicUsize,
    /// The bytes, over all streams, that readers have taken and whose window is not released yet.
    unreleased: AtomicUsize,
    answered: AtomicU64,
    /// The age below which a reset without a response counts as rapid.
    rapid_reset_time: Duration,
    rapid_resets: AtomicU64,
    unanswered_resets: AtomicU64,
    /// New calls cannot begin: the peer has sent GOAWAY, or the connection has ended.
    is_leaving: AtomicBool,
    /// At a client: the server has responded to a call.
    has_responded: AtomicBool,
    ended: Mutex<Ended>,
    stats: Mutex<ConnectionStats>,
    header_lists: Arc<HeaderLists>,
    /// At a server: the buffered responses.
    send_backlog: Option<Arc<SendBacklog>>,
}

/// The cause of a wakeup of a connection's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WokenBy {
    Calls,
    Other,
}

impl Wake for ConnectionShared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}

impl ConnectionShared {
    pub(crate) fn new(header_lists: Arc<HeaderLists>) -> Arc<Self> {
        Self::counting(Duration::ZERO, header_lists, None)
    }

    fn counting(
        rapid_reset_time: Duration,
        header_lists: Arc<HeaderLists>,
        send_backlog: Option<Arc<SendBacklog>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            task: AtomicWaker::default(),
            state: AtomicU8::default(),
            ready: Mutex::default(),
            woken: Mutex::default(),
            open: AtomicUsize::default(),
            unreleased: AtomicUsize::default(),
            answered: AtomicU64::default(),
            rapid_reset_time,
            rapid_resets: AtomicU64::default(),
            unanswered_resets: AtomicU64::default(),
            is_leaving: AtomicBool::default(),
            has_responded: AtomicBool::default(),
            ended: Mutex::default(),
            stats: Mutex::default(),
            header_lists,
            send_backlog,
        })
    }

    /// Returns the limits for header lists.
    pub(crate) fn header_lists(&self) -> &HeaderLists {
        &self.header_lists
    }

    /// Creates the state of a server's connection, which counts rapid resets and buffered responses.
    pub(crate) fn serving(
        limits: &ServerLimits,
        header_lists: Arc<HeaderLists>,
        backlog: Arc<ServerSendBacklog>,
    ) -> Arc<Self> {
        let backlog = Some(SendBacklog::new(backlog, limits));
        Self::counting(limits.rapid_reset_time, header_lists, backlog)
    }

    /// Returns the buffered responses, at a server.
    pub(crate) fn send_backlog(&self) -> Option<&Arc<SendBacklog>> {
        self.send_backlog.as_ref()
    }

    /// Marks the connection as woken by a call and wakes its task. A task that is being polled checks the
    /// mark before it returns instead.
    pub(crate) fn notify(&self) {
        let before = self.state.fetch_or(WOKEN, Ordering::SeqCst);
        if before & (POLLING | WOKEN) == 0 {
            self.task.wake();
        }
    }

    /// Begins a poll of the task, whose waker is `waker`.
    pub(crate) fn begin_poll(&self, waker: &Waker) -> WokenBy {
        self.task.register(waker);
        match self.state.swap(POLLING, Ordering::SeqCst) & WOKEN {
            0 => WokenBy::Other,
            _ => WokenBy::Calls,
        }
    }

    /// Ends a poll of the task. Returns `false` if a call has woken the task meanwhile, and the poll must
    /// continue.
    pub(crate) fn try_end_poll(&self) -> bool {
        self.state
            .compare_exchange(POLLING, 0, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Clears the wakeups by calls during this poll.
    pub(crate) fn clear_woken(&self) {
        self.state.store(POLLING, Ordering::SeqCst);
    }

    /// Ends a poll of a task that has woken itself, regardless of wakeups by calls.
    pub(crate) fn end_poll(&self) {
        self.state.store(0, Ordering::SeqCst);
    }

    /// Adds `stream` to the ready streams. Called by h2, under its lock, when the stream has data.
    pub(crate) fn stream_ready(&self, stream: Arc<IncomingStream>) {
        lock(&self.ready).push(stream);
        self.notify();
    }

    /// Swaps the list of ready streams with `empty`, whose allocation is reused.
    pub(crate) fn take_ready(&self, empty: &mut Vec<Arc<IncomingStream>>) {
        std::mem::swap(&mut *lock(&self.ready), empty);
    }

    /// Starts to list the calls that are woken.
    pub(crate) fn list_woken(&self) {
        *lock(&self.woken) = Some(Vec::new());
    }

    /// Stops listing the calls that are woken, and clears the list.
    pub(crate) fn unlist_woken(&self) {
        let list = lock(&self.woken).take();
        drop(list);
    }

    pub(crate) fn call_woken(&self, waker: Arc<CallWaker>) {
        if let Some(list) = &mut *lock(&self.woken) {
            list.push(waker);
        }
        self.notify();
    }

    /// Appends the calls that were woken to `calls`.
    pub(crate) fn take_woken(&self, calls: &mut Vec<Arc<CallWaker>>) {
        if let Some(list) = &mut *lock(&self.woken) {
            match calls.is_empty() {
                true => std::mem::swap(list, calls),
                false => calls.append(list),
            }
        }
    }

    /// Returns the number of open calls, each of which has a handler or a caller.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Returns the number of calls whose response has begun, over the life of the connection.
    pub(crate) fn responses(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(crate) fn count_response(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of calls reset without a response while they were young.
    pub(crate) fn rapid_resets(&self) -> u64 {
        self.rapid_resets.load(Ordering::Relaxed)
    }

    /// Returns the number of calls reset without a response.
    pub(crate) fn unanswered_resets(&self) -> u64 {
        self.unanswered_resets.load(Ordering::Acquire)
    }

    /// Returns whether a call accepted at `since` is younger than `rapid_reset_time`.
    pub(crate) fn is_young(&self, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) < self.rapid_reset_time
    }

    /// Counts a call that was reset without a response.
    #[cold]
    pub(crate) fn call_reset(&self, is_young: bool) {
        if is_young {
            self.rapid_resets.fetch_add(1, Ordering::Relaxed);
        }
        // Readers check this counter first.
        self.unanswered_resets.fetch_add(1, Ordering::Release);
    }

    /// Counts a call as open until the permit is dropped.
    pub(crate) fn permit(self: &Arc<Self>) -> CallPermit {
        self.open.fetch_add(1, Ordering::Relaxed);
        CallPermit {
            shared: self.clone(),
        }
    }

    /// Counts bytes that a reader has taken. Returns the unreleased bytes of all streams.
    pub(crate) fn taken(&self, bytes: usize) -> usize {
        self.unreleased.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    /// Counts bytes whose window has been released.
    pub(crate) fn released(&self, bytes: usize) {
        self.unreleased.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_leaving(&self) {
        self.is_leaving.store(true, Ordering::Release);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Acquire)
    }

    pub(crate) fn set_responded(&self) {
        // Loaded first: the calls of a connection end on several threads, and stores would contend for the
        // cache line.
        if !self.has_responded() {
            self.has_responded.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn has_responded(&self) -> bool {
        self.has_responded.load(Ordering::Relaxed)
    }

    /// Sets the status of the ended connection. The first one wins: later ones are consequences of it.
    pub(crate) fn set_ended(&self, status: Status) {
        self.set_leaving();
        let waiting = {
            let mut ended = lock(&self.ended);
            ended.status.get_or_insert(status);
            std::mem::take(&mut ended.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Returns the [`failure`](Self::failure), in a task other than the connection's. Waits for the cause:
    /// h2 fails the streams of a broken socket before the connection's task sets the status.
    pub(crate) fn poll_failure(&self, error: &h2::Error, cx: &Context<'_>) -> Poll<Status> {
        if error.is_io() {
            let mut ended = lock(&self.ended);
            if ended.status.is_none() {
                if !ended.waiting.iter().any(|it| it.will_wake(cx.waker())) {
                    ended.waiting.push(cx.waker().clone());
                }
                drop(ended);
                self.notify();
                return Poll::Pending;
            }
        }
        Poll::Ready(self.failure(error))
    }

    /// Returns whether a call waits for the status of the ended connection.
    pub(crate) fn is_end_awaited(&self) -> bool {
        !lock(&self.ended).waiting.is_empty()
    }

    /// Returns the status of a failed stream: the status of its connection if that has ended, which is more
    /// specific than the error of h2.
    pub(crate) fn failure(&self, error: &h2::Error) -> Status {
        let status = status_from_h2(error);
        match error.is_reset() {
            true => status,
            false => self.ended().unwrap_or(status),
        }
    }

    /// Returns the traffic of the connection after its end.
    pub(crate) fn stats(&self) -> ConnectionStats {
        *lock(&self.stats)
    }

    pub(crate) fn set_stats(&self, stats: ConnectionStats) {
        *lock(&self.stats) = stats;
    }

    /// Returns the status of the connection if it has ended.
    pub(crate) fn ended(&self) -> Option<Status> {
        lock(&self.ended).status.clone()
    }
}

/// The waker of a call that the connection's task polls: adds the call to the list of woken calls, once, and
/// wakes the task.
#[derive(Debug)]
pub(crate) struct CallWaker {
    index: usize,
    shared: Arc<ConnectionShared>,
    is_listed: AtomicBool,
}

impl CallWaker {
    pub(crate) fn new(index: usize, shared: Arc<ConnectionShared>) -> Arc<Self> {
        Arc::new(Self {
            index,
            shared,
            is_listed: AtomicBool::new(false),
        })
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Allows the call to be listed again. Called before the call is polled.
    pub(crate) fn unlist(&self) {
        self.is_listed.store(false, Ordering::Release);
    }
}

impl Wake for CallWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_listed.swap(true, Ordering::AcqRel) {
            self.shared.call_woken(self.clone());
        }
    }
}

/// The end of a connection.
#[derive(Debug, Default)]
struct Ended {
    status: Option<Status>,
    /// The tasks that wait for the status.
    waiting: Vec<Waker>,
}

/// Counts one open call. A server holds it until the handler's future is dropped.
#[derive(Debug)]
pub(crate) struct CallPermit {
    shared: Arc<ConnectionShared>,
}

impl CallPermit {
    pub(crate) fn shared(&self) -> &Arc<ConnectionShared> {
        &self.shared
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
        // Wakes a connection that drains, or that has calls waiting for a permit.
        self.shared.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Arc<ConnectionShared> {
        ConnectionShared::new(Arc::new(HeaderLists::new(
            &crate::limits::Http2Limits::for_server(),
            crate::frame_guard::Role::Client,
        )))
    }

    #[test]
    fn a_call_that_asks_during_a_poll_keeps_the_task_from_resting() {
        let shared = shared();
        assert_eq!(shared.begin_poll(Waker::noop()), WokenBy::Other);
        shared.notify();
        assert!(!shared.try_end_poll());
        shared.clear_woken();
        assert!(shared.try_end_poll());
    }

    #[test]
    fn a_call_that_asks_between_polls_is_named_as_the_cause() {
        let shared = shared();
        shared.notify();
        assert_eq!(shared.begin_poll(Waker::noop()), WokenBy::Calls);
        assert!(shared.try_end_poll());
        assert_eq!(shared.begin_poll(Waker::noop()), WokenBy::Other);
    }

    #[test]
    fn a_permit_counts_until_it_is_dropped() {
        let shared = shared();
        let permit = shared.permit();
        assert_eq!(shared.open(), 1);
        drop(permit);
        assert_eq!(shared.open(), 0);
    }
}
