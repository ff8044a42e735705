//! A handler that has been called, until it ends.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;
use trunkline_codec::Status;
use trunkline_transport::{Panic, PipeReader, catch_panic};

use crate::call::deadline;
use crate::call::handling::{Handling, Outcome};
use crate::call::response_handle::ResponseHandle;
use crate::observe::Recorder;

/// A handler at work. Dropping it drops the handler.
///
/// It is polled where its response is: polling the body of the response runs it, so that it is
/// suspended while the client grants no window, and dropping the body (reset, disconnect, deadline,
/// shutdown) drops it. There is no channel and no token between them.
pub(crate) struct RunningHandler {
    handler: Option<Handling>,
    pub(crate) response: ResponseHandle,
    /// The messages that the handler sends, if they are a stream.
    pub(crate) outbox: Option<PipeReader>,
    deadline: Option<Instant>,
    /// The bytes that gather while the handler sends without waiting.
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
            gather_size,
        }
    }

    // Way of a unary call, server 10: polls the handler in the scope of its deadline.
    /// Runs the handler. Pending for ever once it has ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(handler) = &mut self.handler else {
            return Poll::Pending;
        };
        let polled = catch_panic(|| deadline::within(self.deadline, || handler.as_mut().poll(cx)));
        let outcome = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => outcome,
            Err(panic) => Err(panicked(&panic, self.response.recorder())),
        };
        self.handler = None;
        Poll::Ready(outcome)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.handler.is_none()
    }

    /// The bytes that the handler has sent and nobody has taken. Nobody hears of more until they are
    /// asked for.
    pub(crate) fn deregister(&self) -> usize {
        self.outbox.as_ref().map_or(0, PipeReader::deregister)
    }

    /// Returns true if the head has to go out although the handler goes on: it has sent something, or
    /// wants the head to be sent. If not, `waker` hears of it.
    pub(crate) fn wants_head(&self, waker: &Waker) -> bool {
        let outbox = self.outbox.as_ref();
        outbox.is_some_and(|outbox| outbox.register(waker)) || self.response.is_head_wanted(waker)
    }
}

/// Logs a panic in the span of its call; returns what the client is told.
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
