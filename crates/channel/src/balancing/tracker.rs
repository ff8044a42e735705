//! The way back: how an attempt ended, for the balancer that chose its subchannel.

use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use trunkline_codec::{LoadReport, Status};

/// Is told when an attempt starts and how it ends, for example to count the running calls of a subchannel.
///
/// A picker returns a tracker with its [`Choice`](super::Choice). `ended` runs exactly once for each attempt
/// for which `started` has run, whatever ends it. Both run in the task of the call: they must not block.
pub trait AttemptTracker: Send + Sync + 'static {
    /// The attempt has begun on the subchannel that was picked. `token` is that of [`Tracking::new`].
    fn started(&self, token: usize) {
        let _ = token;
    }

    /// The attempt has ended.
    fn ended(&self, token: usize, outcome: &Outcome<'_>);
}

/// The end of an attempt.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome<'a> {
    /// The status of the attempt: `Ok` for OK.
    pub status: Result<(), &'a Status>,
    /// The cause of the end.
    pub ended_by: EndedBy,
    /// The trailers of the response, if the server has sent any. If the whole response is a single HEADERS
    /// frame (Trailers-Only), they are the fields of that frame.
    pub trailers: Option<&'a HeaderMap>,
    /// True if anything of a response has arrived: a head, or more.
    pub has_responded: bool,
    load_report: OnceCell<Option<LoadReport>>,
}

impl<'a> Outcome<'a> {
    /// Creates the outcome of an attempt that ended with `status`, without trailers.
    pub fn new(status: Result<(), &'a Status>, ended_by: EndedBy) -> Self {
        Self {
            status,
            ended_by,
            trailers: None,
            has_responded: false,
            load_report: OnceCell::new(),
        }
    }

    /// Returns the load that the server has reported in the trailers (gRFC A51); `None` if it has reported none, or
    /// one that is malformed. Decodes it once, and only if a tracker asks.
    pub fn load_report(&self) -> Option<&LoadReport> {
        let report = self
            .load_report
            .get_or_init(|| LoadReport::from_trailers(self.trailers?));
        report.as_ref()
    }
}

/// The cause of the end of an attempt.
///
/// Balancers must distinguish a server that fails from a caller that leaves: only the former says something about
/// the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndedBy {
    /// The server: by trailers or by a reset of the stream.
    Server,
    /// The loss of the connection.
    Connection,
    /// The deadline of the call.
    Deadline,
    /// The caller: it cancelled or dropped the call.
    Caller,
    /// Another attempt of the same call, whose response became that of the call: the call was *committed* to it
    /// (gRFC A6).
    OtherAttempt,
    /// This client, before anything was sent.
    NotSent,
}

/// A tracker of one attempt, with the token by which the tracker recognizes it.
///
/// Policies that wrap others add their own tracker around that of the child with [`and`](Self::and).
#[derive(Clone)]
pub struct Tracking {
    tracker: Arc<dyn AttemptTracker>,
    token: usize,
    next: Option<Box<Self>>,
}

impl Tracking {
    /// Creates a tracking by `tracker`. `token` is passed to its methods, so that a tracker needs no allocation for
    /// each call.
    pub fn new(tracker: Arc<dyn AttemptTracker>, token: usize) -> Self {
        Self {
            tracker,
            token,
            next: None,
        }
    }

    /// Adds a further tracker, usually that of a child policy. Both [`started`](AttemptTracker::started) and
    /// [`ended`](AttemptTracker::ended) are called on the trackers of `self` first, and then on those of
    /// `next`.
    #[must_use]
    pub fn and(mut self, next: Option<Self>) -> Self {
        match self.next.take() {
            None => self.next = next.map(Box::new),
            Some(inner) => self.next = Some(Box::new(inner.and(next))),
        }
        self
    }

    /// Tells all trackers that the attempt has started.
    pub fn started(&self) {
        let mut tracking = Some(self);
        while let Some(Self {
            tracker,
            token,
            next,
        }) = tracking
        {
            tracker.started(*token);
            tracking = next.as_deref();
        }
    }

    /// Tells all trackers that the attempt has ended.
    pub fn ended(&self, outcome: &Outcome<'_>) {
        let mut tracking = Some(self);
        while let Some(Self {
            tracker,
            token,
            next,
        }) = tracking
        {
            tracker.ended(*token, outcome);
            tracking = next.as_deref();
        }
    }
}

impl fmt::Debug for Tracking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracking")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_in_the_trailers_is_decoded_once() {
        let mut report = LoadReport::default();
        report.eps = 2.0;
        let mut trailers = HeaderMap::new();
        report.write_to(&mut trailers);
        let mut outcome = Outcome::new(Ok(()), EndedBy::Server);
        outcome.trailers = Some(&trailers);
        let first = outcome.load_report().unwrap();
        assert_eq!(*first, report);
        assert!(std::ptr::eq(first, outcome.load_report().unwrap()));
        let without = Outcome::new(Ok(()), EndedBy::Server);
        assert_eq!(without.load_report(), None);
    }
}
