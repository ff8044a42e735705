//! A handler at work: first the future of a response, then, if it goes on, inside its body.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::time::Instant;
use trunkline_codec::{Code, Compressors, Payload, Status, head};
use trunkline_transport::{Body, BodySource, Panic, PipeReader, catch_panic};

use crate::call::deadline;
use crate::call::observe::{Recorder, code_of};
use crate::call::response_handle::{Handling, Outcome, ResponseHandle, ResponseHead};

/// The answer to a call. Dropping it drops the handler.
///
/// The handler is polled where its response is: polling the body runs it, so that it is suspended
/// while the client gives no window, and dropping the body (reset, disconnect, deadline, shutdown)
/// drops it. There is no channel and no token between them.
pub(crate) struct Answer {
    handler: Option<Handling>,
    response: ResponseHandle,
    /// What the handler sends, if its messages are a stream.
    outbox: Option<PipeReader>,
    /// The one message of the response, if its head went out before it.
    frame: Option<Box<Payload>>,
    /// Sent when everything else is.
    trailers: Option<HeaderMap>,
    deadline: Option<Instant>,
    gather_size: usize,
    /// See [`BodySource::is_waiting`].
    is_waiting: bool,
}

impl Answer {
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
            frame: None,
            trailers: None,
            deadline,
            gather_size,
            is_waiting: false,
        }
    }

    // Way of a unary call, server 9: polls the handler.
    /// Ready with the head of the response when the handler has ended, has sent something, or wants
    /// the head to go out. What is still to come is in the body.
    pub(crate) fn poll_head(
        this: &mut Option<Self>,
        cx: &mut Context<'_>,
    ) -> Poll<http::Response<Body>> {
        let Some(answer) = this else {
            return Poll::Pending;
        };
        // What the handler sends while it is polled is seen without a wake.
        answer.deregister();
        match answer.poll_handler(cx) {
            Poll::Ready(outcome) => {
                let Some(answer) = this.take() else {
                    return Poll::Pending;
                };
                Poll::Ready(answer.into_ended(outcome))
            }
            Poll::Pending => {
                let outbox = answer.outbox.as_ref();
                let has_sent = outbox.is_some_and(|outbox| outbox.register(cx.waker()));
                if !has_sent && !answer.response.is_head_wanted(cx.waker()) {
                    return Poll::Pending;
                }
                let Some(head) = answer.response.take_head_unless_held() else {
                    return Poll::Pending;
                };
                let mut response = answer.response_of(head);
                let Some(answer) = this.take() else {
                    return Poll::Pending;
                };
                *response.body_mut() = Body::from_source(answer);
                Poll::Ready(response)
            }
        }
    }

    fn poll_handler(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
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

    fn head(&self) -> http::Response<Body> {
        self.response_of(self.response.take_head())
    }

    fn response_of(
        &self,
        (metadata, encoding, announced): ResponseHead<'_>,
    ) -> http::Response<Body> {
        if let Some(recorder) = self.response.recorder() {
            recorder.head_seen();
        }
        let mut response = http::Response::new(Body::empty());
        metadata.merge_into(response.headers_mut());
        let announced = announced.unwrap_or_else(Compressors::none);
        head::write_response(response.headers_mut(), encoding, &announced);
        response
    }

    // Way of a unary call, server 12: makes one response of head, message and trailers.
    /// The whole response of a handler that has ended before its head was sent.
    fn into_ended(mut self, outcome: Outcome) -> http::Response<Body> {
        let end = match outcome {
            Ok(Some(frame)) => {
                let mut response = self.head();
                *response.body_mut() = Body::pieces(frame, Some(self.end(Ok(()))));
                return response;
            }
            Ok(None) if self.outbox.is_none() => Err(Status::internal(
                "an interceptor ended the call without running it",
            )),
            Ok(None) => Ok(()),
            Err(status) => Err(status),
        };
        let is_empty = self.deregister() == 0;
        if is_empty && !self.response.close_head() {
            return self.trailers_only(end);
        }
        let mut response = self.head();
        let trailers = self.end(end);
        let data = match is_empty {
            true => Some(Bytes::new()),
            false => self.outbox.as_mut().and_then(PipeReader::take_all),
        };
        *response.body_mut() = match data {
            Some(data) => Body::full(data, Some(trailers)),
            None => {
                self.trailers = Some(trailers);
                Body::from_source(self)
            }
        };
        response
    }

    /// PROTOCOL-HTTP2.md, "Responses": Trailers-Only, all in one header block, for calls that end at
    /// once. It has no place for metadata of the head.
    fn trailers_only(&self, end: Result<(), Status>) -> http::Response<Body> {
        if let Some(recorder) = self.response.recorder() {
            recorder.head_seen();
        }
        self.tell(&end);
        head::trailers_only(end.map_err(Status::redacted), self.response.take_trailers())
    }

    fn end(&self, end: Result<(), Status>) -> HeaderMap {
        self.tell(&end);
        let metadata = self.response.take_trailers();
        match end {
            Ok(()) => Status::ok_trailers(metadata),
            Err(status) => {
                let mut trailers = status.redacted().into_trailers();
                metadata.merge_into(&mut trailers);
                trailers
            }
        }
    }

    fn tell(&self, end: &Result<(), Status>) {
        if let Some(recorder) = self.response.recorder() {
            recorder.end(code_of(end));
        }
    }

    /// Bytes that the handler has sent. Nobody hears of more until they are asked for.
    fn deregister(&self) -> usize {
        self.outbox.as_ref().map_or(0, PipeReader::deregister)
    }

    /// Something to send, and whether there is more; if not, `waker` hears of what a task of the
    /// handler sends, which nobody else would tell us.
    fn take_sent(&mut self, waker: &Waker) -> (Option<Bytes>, bool) {
        match (&mut self.frame, &mut self.outbox) {
            (Some(frame), _) if !frame.is_empty() => (Some(frame.pop()), true),
            (_, Some(outbox)) => outbox.take_or_register(waker),
            (_, None) => (None, false),
        }
    }
}

/// Logs a panic in the span of its call; returns what the client is told.
#[cold]
pub(crate) fn panicked(panic: &Panic, recorder: Option<&Arc<Recorder>>) -> Status {
    let log =
        || tracing::error!(target: "trunkline::call", panic = panic.text(), "a handler panicked");
    match recorder {
        None => log(),
        Some(recorder) => {
            recorder.within(log);
            recorder.end(Code::INTERNAL);
        }
    }
    panic.status("handler")
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Messages gather while the handler can produce them without waiting, up to a frame or so.
        let is_enough = self.deregister() >= self.gather_size && self.outbox.is_some();
        if !is_enough && let Poll::Ready(outcome) = self.poll_handler(cx) {
            let end = outcome.map(|frame| self.frame = frame.map(Box::new));
            self.trailers = Some(self.end(end));
        }
        let (data, has_more) = self.take_sent(cx.waker());
        if let Some(data) = data {
            self.is_waiting = !is_enough && !has_more && self.handler.is_some();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match self.trailers.take() {
            Some(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            None if self.handler.is_some() => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.handler.is_none()
            && self.trailers.is_none()
            && self.frame.as_ref().is_none_or(|frame| frame.is_empty())
            && self.outbox.as_ref().is_none_or(PipeReader::is_empty)
    }
}

impl BodySource for Answer {
    fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    fn buffered(&self, waker: &Waker) -> usize {
        let frame = self.frame.as_ref().map_or(0, |frame| frame.len());
        frame
            + self
                .outbox
                .as_ref()
                .map_or(0, |outbox| outbox.buffered(waker))
    }
}
