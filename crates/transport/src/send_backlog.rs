//! Accounts for the responses buffered for clients that do not read them, for each connection and for the
//! server.
//!
//! A response counts only while it waits with more than `max_send_buffer_size` bytes, and then in full.
//! Streams of small messages, and responses that are sent immediately, are not counted.

use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_codec::Status;

use crate::limits::ServerLimits;
use crate::sync::lock;

/// The bytes that must be sent for a response to count as moving. Bytes passed to h2 ahead count when all of
/// them have been sent: see `SendBody`.
const STEP: usize = 16 * 1024;

/// A client that reads fewer bytes in `send_backlog_grace` counts as not reading.
const LITTLE: u64 = 256 * 1024;

/// The backlog of all connections of a server.
#[derive(Debug)]
pub(crate) struct ServerSendBacklog {
    max: usize,
    bytes: AtomicUsize,
    /// The connections with a waiting response, by the address of their backlog. This lock is taken last.
    connections: Mutex<HashMap<usize, Weak<SendBacklog>>>,
    /// Held while making room, by one task at a time.
    turn: Mutex<()>,
}

/// The backlog of one connection.
#[derive(Debug)]
pub(crate) struct SendBacklog {
    server: Arc<ServerSendBacklog>,
    allowance: usize,
    max: usize,
    grace: Duration,
    timeout: Duration,
    /// The bytes of all waiting responses. Changed under the lock of `waiting`.
    bytes: AtomicUsize,
    waiting: Mutex<WaitingResponses>,
}

#[derive(Debug, Default)]
struct WaitingResponses {
    responses: Vec<Option<WaitingResponse>>,
    /// The server's list contains this connection.
    is_listed: bool,
}

/// The progress of a client while its backlog is full.
#[derive(Debug, Default)]
pub(crate) struct ClientProgress {
    /// The bytes sent when the client last made enough progress.
    sent: u64,
    /// The time for which the backlog has been full since then, without the current period.
    spent: Duration,
    /// The start of the current period in which the backlog is full.
    full_since: Option<Instant>,
}

/// A waiting response.
#[derive(Debug)]
struct WaitingResponse {
    bytes: usize,
    /// The time of its last progress, and its bytes at that time.
    moved: Instant,
    held: usize,
    waker: Waker,
    /// The limit for which the response must fail. Its bytes then no longer count.
    given_up: Option<Bound>,
}

/// The limit for which a response fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    Connection(usize),
    Server(usize),
    Time(Duration),
}

impl Bound {
    /// Returns the status for the client.
    pub(crate) fn status(self) -> Status {
        Status::resource_exhausted(match self {
            Self::Connection(max) => format!(
                "the response was given up: responses fill the connection (max_connection_send_backlog, {max} bytes), and its client takes none of them; read on, or have fewer calls open"
            ),
            Self::Server(max) => format!(
                "the response was given up: responses that clients do not take fill the server (max_send_backlog, {max} bytes); read faster, or have fewer calls open"
            ),
            Self::Time(timeout) => format!(
                "the response was given up: the client has taken next to nothing of it for {timeout:?} (send_backlog_timeout), and others wait"
            ),
        })
    }
}

impl ServerSendBacklog {
    pub(crate) fn new(limits: &ServerLimits) -> Arc<Self> {
        Arc::new(Self {
            max: limits.max_send_backlog,
            bytes: AtomicUsize::new(0),
            connections: Mutex::default(),
            turn: Mutex::default(),
        })
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Fails responses of the connections with the largest backlogs until a 64th of the limit is free, so that
    /// further growth does not have to search all connections again immediately.
    #[cold]
    fn make_room(&self) {
        let _turn = lock(&self.turn);
        if self.bytes() <= self.max {
            return;
        }
        let connections: Vec<_> = {
            let connections = lock(&self.connections);
            connections.values().filter_map(Weak::upgrade).collect()
        };
        let weights = connections.iter().enumerate();
        let mut heaviest: BinaryHeap<_> = weights.map(|(at, it)| (it.bytes(), at)).collect();
        while self.bytes() > self.max - self.max / 64
            && let Some((_, at)) = heaviest.pop()
        {
            let connection = &connections[at];
            if connection.give_up_oldest(Bound::Server(self.max)) {
                heaviest.push((connection.bytes(), at));
            }
        }
    }
}

impl SendBacklog {
    pub(crate) fn new(server: Arc<ServerSendBacklog>, limits: &ServerLimits) -> Arc<Self> {
        Arc::new(Self {
            server,
            allowance: limits.http2.max_send_buffer_size,
            max: limits.max_connection_send_backlog,
            grace: limits.send_backlog_grace,
            timeout: limits.send_backlog_timeout,
            bytes: AtomicUsize::new(0),
            waiting: Mutex::default(),
        })
    }

    /// Records that a response waits with `bytes` bytes. `at` is its index if it is already recorded.
    ///
    /// At the limit of the server, fails responses of the connection with the largest backlog. The limit of the
    /// connection is enforced by its [`ClientProgress`]. Returns the limit if this response must fail.
    #[inline]
    pub(crate) fn update(
        self: &Arc<Self>,
        at: &mut Option<usize>,
        bytes: usize,
        waker: &Waker,
    ) -> Option<Bound> {
        match (bytes > self.allowance, at.is_some()) {
            (true, _) => self.note(at, bytes, waker),
            (false, true) => {
                self.remove(at);
                None
            }
            (false, false) => None,
        }
    }

    #[cold]
    fn note(
        self: &Arc<Self>,
        at: &mut Option<usize>,
        bytes: usize,
        waker: &Waker,
    ) -> Option<Bound> {
        let has_grown = {
            let mut waiting = lock(&self.waiting);
            let here = *at.get_or_insert_with(|| waiting.add(waker));
            let (before, now) = waiting.update(here, bytes, waker);
            self.count(before, now);
            if !std::mem::replace(&mut waiting.is_listed, true) {
                let it = Arc::downgrade(self);
                lock(&self.server.connections).insert(self.key(), it);
            }
            now > before
        };
        if has_grown && self.server.bytes() > self.server.max {
            self.server.make_room();
        }
        self.given_up(*at)
    }

    /// Returns the limit for which the response at `at` must fail, if any.
    pub(crate) fn given_up(&self, at: Option<usize>) -> Option<Bound> {
        let at = at?;
        lock(&self.waiting).responses.get(at)?.as_ref()?.given_up
    }

    /// Removes a response that has ended or no longer waits.
    pub(crate) fn remove(&self, at: &mut Option<usize>) {
        let Some(at) = at.take() else {
            return;
        };
        let mut waiting = lock(&self.waiting);
        let gone = waiting.responses.get_mut(at).and_then(Option::take);
        self.count(gone.map_or(0, |it| it.bytes), 0);
        if self.bytes() == 0 && std::mem::take(&mut waiting.is_listed) {
            lock(&self.server.connections).remove(&self.key());
        }
    }

    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns whether more than half of a limit is in use, so that stalled responses must fail.
    pub(crate) fn is_congested(&self) -> bool {
        let bytes = self.bytes();
        bytes > 0 && (bytes > self.max / 2 || self.server.bytes() > self.server.max / 2)
    }

    /// Returns whether the backlog exceeds the limit for a client that does not read.
    fn is_full(&self) -> bool {
        self.bytes() > self.max
    }

    /// Fails responses until the backlog is within its limit, or only one response is left, which can be
    /// larger.
    #[cold]
    fn give_up_excess(&self) {
        while self.is_full()
            && lock(&self.waiting).left().nth(1).is_some()
            && self.give_up_oldest(Bound::Connection(self.max))
        {}
    }

    /// Fails the responses without progress for `send_backlog_timeout`, while more than half of a limit is in
    /// use.
    pub(crate) fn give_up_stalled(&self, now: Instant) {
        while self.is_congested()
            && self.next_stalled().is_some_and(|at| at <= now)
            && self.give_up_oldest(Bound::Time(self.timeout))
        {}
    }

    /// Returns the time at which the first response will have made no progress for `send_backlog_timeout`.
    pub(crate) fn next_stalled(&self) -> Option<Instant> {
        let (_, moved) = lock(&self.waiting).oldest()?;
        moved.checked_add(self.timeout)
    }

    /// Fails the response without progress for longest. Returns `false` if no response waits.
    fn give_up_oldest(&self, bound: Bound) -> bool {
        let waker = {
            let mut waiting = lock(&self.waiting);
            let Some((oldest, _)) = waiting.oldest() else {
                return false;
            };
            let given_up = waiting.give_up(oldest, bound);
            given_up.map(|(bytes, waker)| {
                self.count(bytes, 0);
                waker
            })
        };
        waker.map(Waker::wake).is_some()
    }

    /// Replaces `before` bytes of a response by `now` bytes in the totals.
    fn count(&self, before: usize, now: usize) {
        for bytes in [&self.bytes, &self.server.bytes] {
            match now >= before {
                true => bytes.fetch_add(now - before, Ordering::Relaxed),
                false => bytes.fetch_sub(before - now, Ordering::Relaxed),
            };
        }
    }
}

impl Drop for SendBacklog {
    fn drop(&mut self) {
        if lock(&self.waiting).is_listed {
            lock(&self.server.connections).remove(&self.key());
        }
    }
}

impl ClientProgress {
    /// Checks a connection on which `sent` bytes have been sent. Fails the excess responses if the client has
    /// read next to nothing while the backlog was full, for `send_backlog_grace` in total. Returns the time of
    /// the next check.
    ///
    /// The time restarts only when the client makes progress. A client that reads never loses responses
    /// here, even if some of them wait for long: h2 and the windows decide which response moves.
    pub(crate) fn check(&mut self, backlog: &SendBacklog, sent: u64) -> Option<Instant> {
        let is_full = backlog.is_full();
        if !is_full && self.full_since.is_none() {
            return None;
        }
        let now = Instant::now();
        if sent - self.sent >= LITTLE {
            *self = Self {
                sent,
                ..Self::default()
            };
        }
        if !is_full {
            let full = self.full_since.take().map(|since| now - since);
            self.spent += full.unwrap_or_default();
            return None;
        }
        let left = backlog.grace.saturating_sub(self.spent);
        let by = self.full_since.get_or_insert(now).checked_add(left)?;
        if by <= now {
            backlog.give_up_excess();
            return None;
        }
        Some(by)
    }

    /// Returns whether a period of full backlog is being measured, which requires further checks.
    pub(crate) fn has_started(&self) -> bool {
        self.full_since.is_some()
    }
}

impl WaitingResponses {
    fn add(&mut self, waker: &Waker) -> usize {
        let response = WaitingResponse {
            bytes: 0,
            moved: Instant::now(),
            held: 0,
            waker: waker.clone(),
            given_up: None,
        };
        match self.responses.iter().position(Option::is_none) {
            Some(free) => {
                self.responses[free] = Some(response);
                free
            }
            None => {
                self.responses.push(Some(response));
                self.responses.len() - 1
            }
        }
    }

    /// Updates a response. Returns its counted bytes before and after.
    fn update(&mut self, at: usize, bytes: usize, waker: &Waker) -> (usize, usize) {
        let Some(Some(response)) = self.responses.get_mut(at) else {
            return (0, 0);
        };
        response.waker.clone_from(waker);
        if response.given_up.is_some() {
            return (0, 0);
        }
        // More bytes mean that the previous message has been sent and the next one begins.
        if bytes > response.held || response.held - bytes >= STEP {
            response.moved = Instant::now();
            response.held = bytes;
        }
        (std::mem::replace(&mut response.bytes, bytes), bytes)
    }

    /// Iterates over the responses that have not failed.
    fn left(&self) -> impl Iterator<Item = (usize, &WaitingResponse)> {
        let responses = self.responses.iter().enumerate();
        responses
            .filter_map(|(at, response)| Some((at, response.as_ref()?)))
            .filter(|(_, response)| response.given_up.is_none())
    }

    /// Returns the response without progress for longest, and the time of its last progress.
    fn oldest(&self) -> Option<(usize, Instant)> {
        let moved = self.left().map(|(at, response)| (at, response.moved));
        moved.min_by_key(|(_, moved)| *moved)
    }

    fn give_up(&mut self, at: usize, bound: Bound) -> Option<(usize, Waker)> {
        let response = self.responses.get_mut(at)?.as_mut()?;
        response.given_up = Some(bound);
        Some((std::mem::take(&mut response.bytes), response.waker.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn server(change: impl FnOnce(&mut ServerLimits)) -> (Arc<ServerSendBacklog>, ServerLimits) {
        let mut limits = ServerLimits::default();
        change(&mut limits);
        (ServerSendBacklog::new(&limits), limits)
    }

    fn listed(server: &ServerSendBacklog) -> usize {
        lock(&server.connections).len()
    }

    #[test]
    fn a_server_knows_of_the_connections_for_which_something_waits_and_of_no_others() {
        let (server, limits) = server(|_| ());
        let connections = [(); 3].map(|()| SendBacklog::new(server.clone(), &limits));
        let mut places = connections.each_ref().map(|_| [None, None]);
        for _ in 0..2 {
            for (connection, places) in connections.iter().zip(&mut places) {
                for at in places {
                    assert!(connection.update(at, MIB, Waker::noop()).is_none());
                }
            }
            assert_eq!((listed(&server), server.bytes()), (3, 6 * MIB));
            for (connection, places) in connections.iter().zip(&mut places) {
                // One leaves, and of the other so little is left that it does not count.
                connection.remove(&mut places[0]);
                assert!(
                    connection
                        .update(&mut places[1], 10, Waker::noop())
                        .is_none()
                );
            }
            assert_eq!((listed(&server), server.bytes()), (0, 0));
        }
        let mut at = None;
        let [first, ..] = connections;
        assert!(first.update(&mut at, MIB, Waker::noop()).is_none());
        drop(first);
        assert_eq!(listed(&server), 0);
    }

    #[test]
    fn at_the_bound_of_a_server_a_64th_becomes_free_and_the_heaviest_gives_way_first() {
        let (server, limits) = server(|it| it.max_send_backlog = 64 * MIB);
        let [light, heavy] = [(); 2].map(|()| SendBacklog::new(server.clone(), &limits));
        let mut places = vec![None; 300];
        let quarter = MIB / 4;
        for at in &mut places[..40] {
            assert!(light.update(at, quarter, Waker::noop()).is_none());
        }
        let (mut least, mut full) = (usize::MAX, None);
        for at in &mut places[40..] {
            assert!(heavy.update(at, quarter, Waker::noop()).is_none());
            assert!(server.bytes() <= 64 * MIB);
            if let Some(bytes) = full
                .replace(server.bytes())
                .filter(|it| *it > server.bytes())
            {
                least = least.min(server.bytes());
                assert!(bytes > 64 * MIB - quarter);
            }
        }
        assert_eq!(least, 63 * MIB);
        assert_eq!(light.bytes(), 40 * quarter);
        assert!(places[..40].iter().all(|at| light.given_up(*at).is_none()));
        let given_up = |at: &Option<usize>| heavy.given_up(*at);
        let bound = Some(Bound::Server(64 * MIB));
        assert_eq!(given_up(&places[40]), bound);
        assert_eq!(given_up(&places[299]), None);
    }
}
