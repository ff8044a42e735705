//! Replies that wait for clients to take them: how many bytes, of a connection and of a server.
//!
//! Only what a reply holds beyond `max_send_buffer_size` counts, and only while it waits: streams of
//! small messages never come here, nor do replies that leave at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_codec::{Limits, Status};

use crate::hub::lock;

/// How many bytes have to leave for a reply to have moved. What h2 has been given ahead is seen to
/// leave when all of it has: see `SendBody`.
const STEP: usize = 16 * 1024;

/// What the connections of a server hold together.
#[derive(Debug)]
pub(crate) struct ServerUnsent {
    max: usize,
    bytes: AtomicUsize,
    /// Those that have had a reply that waited.
    connections: Mutex<Vec<Weak<Unsent>>>,
}

/// What a connection holds.
#[derive(Debug)]
pub(crate) struct Unsent {
    server: Arc<ServerUnsent>,
    allowance: usize,
    max: usize,
    timeout: Duration,
    /// Of all that wait; changed under the lock.
    bytes: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    replies: Vec<Option<Reply>>,
    /// The server knows of this connection.
    is_listed: bool,
}

/// A reply that waits.
#[derive(Debug)]
struct Reply {
    bytes: usize,
    /// When it last moved, and what it held then.
    moved: Instant,
    held: usize,
    waker: Waker,
    /// It has to end, and its bytes no longer count.
    given_up: Option<Bound>,
}

/// What a reply is given up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    Connection(usize),
    Server(usize),
    Time(Duration),
}

impl Bound {
    /// What the client is told.
    pub(crate) fn status(self) -> Status {
        Status::resource_exhausted(match self {
            Self::Connection(max) => format!(
                "the reply was given up: replies that this client does not take fill the connection (max_connection_unsent_size, {max} bytes); read faster, or have fewer calls open"
            ),
            Self::Server(max) => format!(
                "the reply was given up: replies that clients do not take fill the server (max_unsent_size, {max} bytes); read faster, or have fewer calls open"
            ),
            Self::Time(timeout) => format!(
                "the reply was given up: the client has taken next to nothing of it for {timeout:?} (unsent_timeout), and others wait"
            ),
        })
    }
}

impl ServerUnsent {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            max: limits.max_unsent_size,
            bytes: AtomicUsize::new(0),
            connections: Mutex::default(),
        })
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Gives up replies of the connection that holds the most, until there is room.
    #[cold]
    fn make_room(&self) {
        let mut connections = lock(&self.connections);
        connections.retain(|it| it.strong_count() > 0);
        let connections: Vec<_> = connections.iter().filter_map(Weak::upgrade).collect();
        while self.bytes() > self.max {
            let heaviest = connections
                .iter()
                .max_by_key(|it| it.bytes())
                .filter(|it| it.give_up_oldest(None, Bound::Server(self.max)));
            if heaviest.is_none() {
                break;
            }
        }
    }
}

impl Unsent {
    pub(crate) fn new(server: Arc<ServerUnsent>, limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            server,
            allowance: limits.max_send_buffer_size,
            max: limits.max_connection_unsent_size,
            timeout: limits.unsent_timeout,
            bytes: AtomicUsize::new(0),
            waiting: Mutex::default(),
        })
    }

    /// Takes note of a reply that waits with `bytes` bytes in hand, which is at `at` if it is known.
    ///
    /// At the bound of the connection that reply is given up which has not moved for longest, but not
    /// this one; at that of the server, the same of the connection that holds the most. Fails if this
    /// one has to end.
    #[inline]
    pub(crate) fn waits(
        self: &Arc<Self>,
        at: &mut Option<usize>,
        bytes: usize,
        waker: &Waker,
    ) -> Result<(), Bound> {
        match (bytes > self.allowance, at.is_some()) {
            (true, _) => self.note(at, bytes, waker),
            (false, true) => {
                self.forget(at);
                Ok(())
            }
            (false, false) => Ok(()),
        }
    }

    #[cold]
    fn note(
        self: &Arc<Self>,
        at: &mut Option<usize>,
        bytes: usize,
        waker: &Waker,
    ) -> Result<(), Bound> {
        self.list();
        let (here, has_grown) = {
            let mut waiting = lock(&self.waiting);
            let here = *at.get_or_insert_with(|| waiting.add(waker));
            let (before, now) = waiting.update(here, bytes, waker);
            self.count(before, now);
            (here, now > before)
        };
        if has_grown {
            while self.bytes() > self.max
                && self.give_up_oldest(Some(here), Bound::Connection(self.max))
            {}
            if self.server.bytes() > self.server.max {
                self.server.make_room();
            }
        }
        self.given_up(*at).map_or(Ok(()), Err)
    }

    /// Why the reply at `at` has to end, if it has.
    pub(crate) fn given_up(&self, at: Option<usize>) -> Option<Bound> {
        let at = at?;
        lock(&self.waiting).replies.get(at)?.as_ref()?.given_up
    }

    /// A reply has ended, or waits no more.
    pub(crate) fn forget(&self, at: &mut Option<usize>) {
        let Some(at) = at.take() else {
            return;
        };
        let mut waiting = lock(&self.waiting);
        let gone = waiting.replies.get_mut(at).and_then(Option::take);
        self.count(gone.map_or(0, |it| it.bytes), 0);
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether so much waits that replies which do not move are in the way.
    pub(crate) fn is_pressed(&self) -> bool {
        let bytes = self.bytes();
        bytes > 0 && (bytes > self.max / 2 || self.server.bytes() > self.server.max / 2)
    }

    /// Gives up the replies that have not moved for `unsent_timeout`, as long as they are in the way.
    pub(crate) fn give_up_stalled(&self, now: Instant) {
        while self.is_pressed()
            && self.next_stalled().is_some_and(|at| at <= now)
            && self.give_up_oldest(None, Bound::Time(self.timeout))
        {}
    }

    /// When the first reply has not moved for `unsent_timeout`.
    pub(crate) fn next_stalled(&self) -> Option<Instant> {
        let (_, moved) = lock(&self.waiting).oldest(None)?;
        moved.checked_add(self.timeout)
    }

    /// Gives up the reply that has not moved for longest, but not the one at `but`. False if there
    /// is none.
    fn give_up_oldest(&self, but: Option<usize>, bound: Bound) -> bool {
        let waker = {
            let mut waiting = lock(&self.waiting);
            let Some((oldest, _)) = waiting.oldest(but) else {
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

    /// A reply that held `before` bytes holds `now`.
    fn count(&self, before: usize, now: usize) {
        for bytes in [&self.bytes, &self.server.bytes] {
            match now >= before {
                true => bytes.fetch_add(now - before, Ordering::Relaxed),
                false => bytes.fetch_sub(before - now, Ordering::Relaxed),
            };
        }
    }

    /// Lets the server know of this connection, once.
    fn list(self: &Arc<Self>) {
        if !std::mem::replace(&mut lock(&self.waiting).is_listed, true) {
            let mut connections = lock(&self.server.connections);
            if connections.len() == connections.capacity() {
                connections.retain(|it| it.strong_count() > 0);
            }
            connections.push(Arc::downgrade(self));
        }
    }
}

impl Waiting {
    fn add(&mut self, waker: &Waker) -> usize {
        let reply = Reply {
            bytes: 0,
            moved: Instant::now(),
            held: 0,
            waker: waker.clone(),
            given_up: None,
        };
        match self.replies.iter().position(Option::is_none) {
            Some(free) => {
                self.replies[free] = Some(reply);
                free
            }
            None => {
                self.replies.push(Some(reply));
                self.replies.len() - 1
            }
        }
    }

    /// Returns what the reply has held, and what it holds now, of what counts.
    fn update(&mut self, at: usize, bytes: usize, waker: &Waker) -> (usize, usize) {
        let Some(Some(reply)) = self.replies.get_mut(at) else {
            return (0, 0);
        };
        reply.waker.clone_from(waker);
        if reply.given_up.is_some() {
            return (0, 0);
        }
        // The next message of a stream has more, and the one before it has left.
        if bytes > reply.held || reply.held - bytes >= STEP {
            reply.moved = Instant::now();
            reply.held = bytes;
        }
        (std::mem::replace(&mut reply.bytes, bytes), bytes)
    }

    /// The reply that has not moved for longest, and since when.
    fn oldest(&self, but: Option<usize>) -> Option<(usize, Instant)> {
        let replies = self.replies.iter().enumerate();
        replies
            .filter(|(at, _)| Some(*at) != but)
            .filter_map(|(at, reply)| Some((at, reply.as_ref()?)))
            .filter(|(_, reply)| reply.given_up.is_none())
            .map(|(at, reply)| (at, reply.moved))
            .min_by_key(|(_, moved)| *moved)
    }

    fn give_up(&mut self, at: usize, bound: Bound) -> Option<(usize, Waker)> {
        let reply = self.replies.get_mut(at)?.as_mut()?;
        reply.given_up = Some(bound);
        Some((std::mem::take(&mut reply.bytes), reply.waker.clone()))
    }
}
