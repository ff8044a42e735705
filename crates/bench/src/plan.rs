//! What a call of the load generator is, and what calls have achieved.

use crate::frames;
use crate::histogram::Histogram;
use crate::messages::{self, Request};
use crate::workloads::Kind;

/// What a call sends and expects.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What the messages are for.
    pub(crate) kind: Kind,
    /// Header block of the connection's first call.
    pub(crate) first: Vec<u8>,
    /// Header block of all others.
    pub(crate) later: Vec<u8>,
    /// The message, behind its prefix.
    pub(crate) message: Vec<u8>,
    /// How often it is sent.
    pub(crate) requests: u32,
    /// Messages of the response.
    pub(crate) replies: u32,
    /// What each of them holds.
    pub(crate) payload: Vec<u8>,
    /// Whether the last message ends the requests.
    pub(crate) half_closes: bool,
    /// Whether the response is kept and read in full.
    pub(crate) collects: bool,
    /// Whether what was received is said to be read.
    pub(crate) returns_window: bool,
    /// Whether it counts.
    pub(crate) is_timed: bool,
}

impl Plan {
    /// The call whose response is read in full before the others begin: short, and complete.
    pub(crate) fn as_check(&self) -> Self {
        Self {
            requests: self.requests.min(3),
            half_closes: true,
            collects: true,
            is_timed: false,
            ..self.clone()
        }
    }

    /// A unary call of this connection that waits, blocks or computes before it is answered.
    pub(crate) fn slow(&self, request: &Request) -> Self {
        let request = Request {
            payload: self.payload.clone(),
            ..request.clone()
        };
        Self {
            message: messages::prefixed(&request),
            is_timed: false,
            ..self.clone()
        }
    }

    /// A server stream beside unary calls, of which nothing is ever said to be read.
    pub(crate) fn unread(&self) -> Self {
        let request = Request {
            payload: self.payload.clone(),
            replies: u32::MAX,
            ..Request::default()
        };
        let block = frames::literal_request(Kind::ServerStream.path());
        Self {
            kind: Kind::ServerStream,
            first: block.clone(),
            later: block,
            message: messages::prefixed(&request),
            replies: u32::MAX,
            returns_window: false,
            is_timed: false,
            ..self.clone()
        }
    }
}

/// What was achieved.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Operations of timed calls, but for server streams.
    pub(crate) operations: u64,
    /// Bytes of DATA of timed calls.
    pub(crate) bytes: u64,
    /// Latencies of timed calls, or of round trips.
    pub(crate) latencies: Histogram,
    /// Calls of any kind that were completed.
    pub(crate) finished: u64,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            operations: 0,
            bytes: 0,
            latencies: Histogram::new(),
            finished: 0,
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.latencies.clear();
        (self.operations, self.bytes, self.finished) = (0, 0, 0);
    }
}
