//! The body of a response whose handler is still running, or whose messages are in several pieces.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use trunkline_codec::{Payload, Status};
use trunkline_transport::{BodySource, PipeReader};

use crate::server::response_end;
use crate::server::running_handler::RunningHandler;

/// A body that runs its handler when it is polled.
pub(crate) struct HandlerBody {
    running: RunningHandler,
    /// The single message of the response, if the head was sent before it.
    frame: Option<Box<Payload>>,
    /// Sent after everything else.
    trailers: Option<HeaderMap>,
    /// See [`BodySource::is_waiting`].
    is_waiting: bool,
}

impl HandlerBody {
    /// Creates the body of a running handler or, with `trailers`, of a handler that has ended.
    pub(crate) fn new(running: RunningHandler, trailers: Option<HeaderMap>) -> Self {
        Self {
            running,
            frame: None,
            trailers,
            is_waiting: false,
        }
    }

    /// Returns data to send, if any, and true if more is available. If there is none, registers
    /// `waker`, because a message that another task of the handler sends does not wake this body
    /// otherwise.
    fn take_sent(&mut self, waker: &Waker) -> (Option<Bytes>, bool) {
        match (&mut self.frame, &mut self.running.outbox) {
            (Some(frame), _) if !frame.is_empty() => (Some(frame.pop()), true),
            (_, Some(outbox)) => outbox.take_or_register(waker),
            (_, None) => (None, false),
        }
    }
}

impl http_body::Body for HandlerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let running = &mut self.running;
        // Messages are collected while the handler produces them without waiting, up to about a frame.
        let is_enough = running.deregister() >= running.gather_size && running.outbox.is_some();
        if !is_enough && let Poll::Ready(outcome) = running.poll(cx) {
            let end = outcome.map(|frame| self.frame = frame.map(Box::new));
            self.trailers = Some(response_end::trailers(&self.running.response, end));
        }
        let (data, has_more) = self.take_sent(cx.waker());
        if let Some(data) = data {
            self.is_waiting = !is_enough && !has_more && !self.running.has_ended();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match self.trailers.take() {
            Some(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            None if self.running.has_ended() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.running.has_ended()
            && self.trailers.is_none()
            && self.frame.as_ref().is_none_or(|frame| frame.is_empty())
            && self
                .running
                .outbox
                .as_ref()
                .is_none_or(PipeReader::is_empty)
    }
}

impl BodySource for HandlerBody {
    fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    fn buffered(&self, waker: &Waker) -> usize {
        let frame = self.frame.as_ref().map_or(0, |frame| frame.len());
        let outbox = self.running.outbox.as_ref();
        frame + outbox.map_or(0, |outbox| outbox.buffered(waker))
    }
}
