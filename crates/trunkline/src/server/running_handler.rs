//! A handler from its call to its end.

use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::time::Instant;
use trunkline_codec::Status;
use trunkline_transport::{Panic, PipeReader, catch_panic};

use crate::call::deadline::{self, Deadline};
use crate::call::handling::{Handling, Outcome};
use crate::call::response_handle::ResponseHandle;
use crate::observe::Recorder;

/// A running handler. Dropping it drops the handler.
///
/// Polling the body of the response polls the handler, so the handler is suspended while the client
/// grants no window. Dropping the body (reset, disconnect, deadline, shutdown) drops the handler. There
/// is no channel and no token between them.
pub(crate) struct RunningHandler {
    handler: Option<Handling>,
    pub(crate) response: ResponseHandle,
    /// The messages that the handler sends, if they are a stream.
    pub(crate) outbox: Option<PipeReader>,
    deadline: Option<Instant>,
    /// A deadline that nothing outside enforces.
    enforced: Option<Deadline>,
    /// The number of bytes to collect while the handler sends without waiting.
    pub(crate) gather_size: usize,
}

impl RunningHandler {
    pub(crate) fn new(
        handler: Handling,
        response: ResponseHandle,
        outbox: Option<PipeReader>,
        deadline: Option<Instant>,
        gather_size: usize,
    ) -> Self {
        Self {
            handler: Some(handler),
            response,
            outbox,
            deadline,
            enforced: None,
            gather_size,
        }
    }

    /// Makes the handler end at `deadline` with DEADLINE_EXCEEDED, even if its caller waits longer.
    pub(crate) fn enforce(&mut self, deadline: Instant) {
        self.enforced = Some(Deadline::new(deadline));
    }

    // Way of a unary call, server 10: polls the handler in the scope of its deadline.
    /// Polls the handler. Remains pending after the handler has ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(handler) = &mut self.handler else {
            return Poll::Pending;
        };
        let polled = catch_panic(|| deadline::within(self.deadline, || handler.as_mut().poll(cx)));
        let outcome = match polled {
            Ok(Poll::Pending) => match &mut self.enforced {
                None => return Poll::Pending,
                Some(deadline) => {
                    ready!(deadline.poll(cx));
                    Err(deadline::exceeded(deadline::HANDLING))
                }
            },
            Ok(Poll::Ready(outcome)) => outcome,
            Err(panic) => Err(panicked(&panic, self.response.recorder())),
        };
        self.handler = None;
        Poll::Ready(outcome)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.handler.is_none()
    }

    /// Returns the number of bytes that the handler has sent and that the body has not taken, and removes
    /// the registered waker.
    pub(crate) fn deregister(&self) -> usize {
        self.outbox.as_ref().map_or(0, PipeReader::deregister)
    }

    /// Returns true if the head must be sent while the handler runs: the handler has sent a message, or
    /// has requested the head. Otherwise registers `waker`.
    pub(crate) fn wants_head(&self, waker: &Waker) -> bool {
        let outbox = self.outbox.as_ref();
        outbox.is_some_and(|outbox| outbox.register(waker)) || self.response.is_head_wanted(waker)
    }
}

/// Logs a panic in the span of its call, and returns the status for the client.
#[cold]
pub(crate) fn panicked(panic: &Panic, recorder: Option<&Arc<Recorder>>) -> Status {
    let log =
        || tracing::error!(target: "trunkline::call", panic = panic.text(), "a handler panicked");
    let status = panic.status("handler");
    match recorder {
        None => log(),
        Some(recorder) => {
            recorder.within(log);
            recorder.end(Some(&status));
        }
    }
    status
}
