//! What a connection's task shares with the calls on it: one waker, and who asked for it.

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

/// The meeting point of a connection's task and its calls.
///
/// It is the waker that h2 and the streams are given, so that the task can tell "my calls have
/// something to send" from "the socket is ready": the first is worth waiting one turn for (see
/// `Turn::poll`), the second is not.
#[derive(Debug)]
pub(crate) struct ConnectionShared {
    task: AtomicWaker,
    state: AtomicU8,
    /// Streams that h2 has DATA for and that their readers have not taken yet.
    ready: Mutex<Vec<Arc<IncomingStream>>>,
    /// Calls that have been woken, if the task polls calls.
    woken: Mutex<Option<Vec<Arc<CallWaker>>>>,
    open: AtomicUsize,
    /// Bytes that readers have taken, on all streams, and for which the peer has no window yet.
    unreleased: AtomicUsize,
    answered: AtomicU64,
    /// A call that is reset this soon after it began, and has not been answered, was no use to anyone.
    rapid_reset_time: Duration,
    rapid_resets: AtomicU64,
    unanswered_resets: AtomicU64,
    /// No new call can begin: the peer has said GOAWAY, or the connection has ended.
    is_leaving: AtomicBool,
    /// At a client: the server has answered a call.
    has_responded: AtomicBool,
    ended: Mutex<Ended>,
    stats: Mutex<ConnectionStats>,
    header_lists: Arc<HeaderLists>,
    /// At a server: responses that wait.
    send_backlog: Option<Arc<SendBacklog>>,
}

/// What woke a connection's task.
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

    /// The sizes that header lists may have.
    pub(crate) fn header_lists(&self) -> &HeaderLists {
        &self.header_lists
    }

    /// A server's: it counts calls that are given up as they begin.
    pub(crate) fn serving(
        limits: &ServerLimits,
        header_lists: Arc<HeaderLists>,
        backlog: Arc<ServerSendBacklog>,
    ) -> Arc<Self> {
        let backlog = Some(SendBacklog::new(backlog, limits));
        Self::counting(limits.rapid_reset_time, header_lists, backlog)
    }

    /// At a server: responses that wait.
    pub(crate) fn send_backlog(&self) -> Option<&Arc<SendBacklog>> {
        self.send_backlog.as_ref()
    }

    /// Marks the connection as woken by a call, and wakes its task unless it is being polled now,
    /// in which case it looks again before it returns.
    pub(crate) fn notify(&self) {
        let before = self.state.fetch_or(WOKEN, Ordering::SeqCst);
        if before & (POLLING | WOKEN) == 0 {
            self.task.wake();
        }
    }

    /// The task starts a poll. `waker` is the task's own.
    pub(crate) fn begin_poll(&self, waker: &Waker) -> WokenBy {
        self.task.register(waker);
        match self.state.swap(POLLING, Ordering::SeqCst) & WOKEN {
            0 => WokenBy::Other,
            _ => WokenBy::Calls,
        }
    }

    /// The task wants to return: false if a call has asked for it since, so that it must go on.
    pub(crate) fn try_end_poll(&self) -> bool {
        self.state
            .compare_exchange(POLLING, 0, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Forgets that a call has asked for the task while it was polled.
    pub(crate) fn clear_woken(&self) {
        self.state.store(POLLING, Ordering::SeqCst);
    }

    /// The task returns although calls may have asked for it: it has woken itself.
    pub(crate) fn end_poll(&self) {
        self.state.store(0, Ordering::SeqCst);
    }

    /// Called by h2, under its lock, when `stream` has something to read.
    pub(crate) fn stream_ready(&self, stream: Arc<IncomingStream>) {
        lock(&self.ready).push(stream);
        self.notify();
    }

    /// Swaps the list of ready streams with `spare`, which must be empty.
    pub(crate) fn take_ready(&self, spare: &mut Vec<Arc<IncomingStream>>) {
        std::mem::swap(&mut *lock(&self.ready), spare);
    }

    /// From now on calls that are woken are listed.
    pub(crate) fn list_woken(&self) {
        *lock(&self.woken) = Some(Vec::new());
    }

    /// Forgets the calls that were woken, and those that will be.
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

    /// Moves the calls that were woken behind `calls`.
    pub(crate) fn take_woken(&self, calls: &mut Vec<Arc<CallWaker>>) {
        if let Some(list) = &mut *lock(&self.woken) {
            match calls.is_empty() {
                true => std::mem::swap(list, calls),
                false => calls.append(list),
            }
        }
    }

    /// Calls that are open now: a handler, or a caller, is there for each.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Calls whose response has begun, since the connection began.
    pub(crate) fn responses(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(crate) fn count_response(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls that were reset without an answer as soon as they had begun.
    pub(crate) fn rapid_resets(&self) -> u64 {
        self.rapid_resets.load(Ordering::Relaxed)
    }

    /// Calls that were reset without an answer, at any time.
    pub(crate) fn unanswered_resets(&self) -> u64 {
        self.unanswered_resets.load(Ordering::Acquire)
    }

    /// True if a call that was accepted at `since` has just begun.
    pub(crate) fn is_young(&self, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) < self.rapid_reset_time
    }

    /// A call was reset without an answer.
    #[cold]
    pub(crate) fn call_reset(&self, is_young: bool) {
        if is_young {
            self.rapid_resets.fetch_add(1, Ordering::Relaxed);
        }
        // This is what is looked at.
        self.unanswered_resets.fetch_add(1, Ordering::Release);
    }

    /// Takes a permit, given back when it is dropped.
    pub(crate) fn permit(self: &Arc<Self>) -> CallPermit {
        self.open.fetch_add(1, Ordering::Relaxed);
        CallPermit {
            shared: self.clone(),
        }
    }

    /// Counts bytes that a reader has taken; gives how many there are on all streams.
    pub(crate) fn taken(&self, bytes: usize) -> usize {
        self.unreleased.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    /// The peer has window again for bytes that were taken.
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
        // Asked first: a connection's calls end on several threads, which would take the line from
        // each other.
        if !self.has_responded() {
            self.has_responded.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn has_responded(&self) -> bool {
        self.has_responded.load(Ordering::Relaxed)
    }

    /// The first reason wins: what follows is its consequence.
    pub(crate) fn set_ended(&self, status: Status) {
        self.set_leaving();
        let waiting = {
            let mut ended = lock(&self.ended);
            ended.status.get_or_insert(status);
            std::mem::take(&mut ended.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// As [`failure`](Self::failure), for another task than the connection's: h2 tells its streams
    /// that the socket has failed before that task knows why.
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

    /// Whether a call waits to be told why its connection has failed.
    pub(crate) fn is_end_awaited(&self) -> bool {
        !lock(&self.ended).waiting.is_empty()
    }

    /// Why a stream failed: what ended its connection tells more than what h2 says afterwards.
    pub(crate) fn failure(&self, error: &h2::Error) -> Status {
        let status = status_from_h2(error);
        match error.is_reset() {
            true => status,
            false => self.ended().unwrap_or(status),
        }
    }

    /// What has passed on the connection, once it has ended.
    pub(crate) fn stats(&self) -> ConnectionStats {
        *lock(&self.stats)
    }

    pub(crate) fn set_stats(&self, stats: ConnectionStats) {
        *lock(&self.stats) = stats;
    }

    /// Why the connection has ended, if it has.
    pub(crate) fn ended(&self) -> Option<Status> {
        lock(&self.ended).status.clone()
    }
}

/// Puts a call on the shared's list, once, and wakes the connection's task.
#[derive(Debug)]
pub(crate) struct CallWaker {
    slot: usize,
    shared: Arc<ConnectionShared>,
    is_listed: AtomicBool,
}

impl CallWaker {
    pub(crate) fn new(slot: usize, shared: Arc<ConnectionShared>) -> Arc<Self> {
        Arc::new(Self {
            slot,
            shared,
            is_listed: AtomicBool::new(false),
        })
    }

    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// The call is about to be polled: it is listed again when it is woken.
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

/// How a connection has ended.
#[derive(Debug, Default)]
struct Ended {
    status: Option<Status>,
    /// Calls that want to know.
    waiting: Vec<Waker>,
}

/// One open call. On a server it is held until the handler's future is gone.
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
        // A call that waits for a permit, and a connection that drains, look again.
        self.shared.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Arc<ConnectionShared> {
        ConnectionShared::new(Arc::new(HeaderLists::new(
            &crate::limits::Http2Limits::default(),
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
