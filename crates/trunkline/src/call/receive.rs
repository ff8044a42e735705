//! The receiving half of a call: the events of a stream, within the deadline.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use tokio::time::Instant;
use trunkline_codec::{
    AttemptsMade, Code, End, Event, Message as Received, Metadata, Reader, Status, frame,
};
use trunkline_transport::{Body, poll_coop};

use crate::call::cancel::{CancelHandle, CancelWatch, cancelled};
use crate::call::deadline::{self, Deadline};
use crate::call::fields::SHARE_FROM;
use crate::call::source::{ArrivedEnd, AwaitedHead, Source};

/// The receiving half of a call, on either side: a reader, the source of its bytes, and the deadline.
///
/// It is independent of message types, observers and interceptors; see [`Messages`](crate::call::messages).
pub(crate) struct Receive {
    reader: Reader,
    source: Source,
    deadline: Option<Deadline>,
    cancelled_by: Option<CancelHandle>,
    is_cancelled: bool,
    /// On a client, another task drives the connection, and can add bytes during a read.
    is_client: bool,
    head: Metadata,
    has_head: bool,
    /// The stream was reset, or its connection was lost.
    has_failed: bool,
    /// The number of attempts of a client's call, if there were several.
    attempts: Option<AttemptsMade>,
}

/// A step of [`Receive::poll_step`].
pub(crate) enum Step {
    /// Bytes of the stream have arrived, including this number of bytes of DATA.
    Data(usize),
    /// The head of the response has arrived; see [`Receive::head`].
    Head,
    Message(Received),
    /// The end, which is the last step.
    End(End),
}

impl Receive {
    /// Receives the requests of a call, on a server. The transport enforces the deadline.
    pub(crate) fn requests(reader: Reader, body: Body) -> Self {
        let mut receive = Self::new(reader, Source::Body(body), None);
        receive.is_client = false;
        receive
    }

    /// Receives the responses of a call, on a client.
    pub(crate) fn responses(
        reader: Reader,
        head: Box<dyn AwaitedHead>,
        deadline: Option<Instant>,
    ) -> Self {
        Self::new(reader, Source::Head(head), deadline.map(Deadline::new))
    }

    /// Receives the responses of a call whose head has arrived.
    pub(crate) fn response(
        reader: Reader,
        response: http::Response<Body>,
        deadline: Option<Deadline>,
    ) -> Self {
        let mut receive = Self::new(reader, Source::Ended, deadline);
        receive.respond(response);
        receive
    }

    /// Receives the status of a call that failed before the head arrived.
    pub(crate) fn failed(reader: Reader, status: Status, deadline: Option<Deadline>) -> Self {
        let mut receive = Self::new(reader, Source::Ended, deadline);
        receive.reader.fail(status);
        receive
    }

    fn new(reader: Reader, source: Source, deadline: Option<Deadline>) -> Self {
        Self {
            reader,
            source,
            deadline,
            cancelled_by: None,
            is_cancelled: false,
            is_client: true,
            head: Metadata::new(),
            has_head: false,
            has_failed: false,
            attempts: None,
        }
    }

    /// Sets the handle that can cancel the call. The handle itself resets the stream.
    pub(crate) fn cancelled_by(mut self, handle: Option<CancelHandle>) -> Self {
        self.cancelled_by = handle;
        self
    }

    /// Resets the stream. The reader returns the part that has arrived, and then CANCELLED. Returns the
    /// number of bytes of DATA in that part.
    pub(crate) fn cancel(&mut self) -> usize {
        self.is_cancelled = true;
        if let Source::Ended = &self.source {
            return 0;
        }
        let mut bytes = 0;
        let arrived = std::mem::replace(&mut self.source, Source::Ended).reset();
        if let Some(head) = arrived.head {
            self.reader.head(head.status, head.headers);
        }
        for frame in arrived.frames {
            bytes += self.read_frame(frame);
        }
        match arrived.end {
            ArrivedEnd::Complete => self.reader.eof(),
            ArrivedEnd::Failed(status) => self.reader.fail(status),
            ArrivedEnd::Reset => self.reader.fail(cancelled()),
        }
        bytes
    }

    /// Returns a watch for the cancellation by the handle of the call, if it has one.
    pub(crate) fn cancel_watch(&self) -> Option<CancelWatch> {
        self.cancelled_by.as_ref().map(CancelHandle::watch)
    }

    /// Returns true for the responses of a client's call.
    pub(crate) fn is_client(&self) -> bool {
        self.is_client
    }

    /// Returns true if the caller has cancelled the call.
    pub(crate) fn is_cancelled(&self) -> bool {
        let by = self.cancelled_by.as_ref();
        self.is_cancelled || by.is_some_and(CancelHandle::is_cancelled)
    }

    /// Returns true while the stream of the call is open.
    pub(crate) fn is_open(&self) -> bool {
        match &self.source {
            Source::Head(head) => head.is_open(),
            Source::Body(_) => true,
            Source::Ended => false,
        }
    }

    /// Returns true until the head or the end of a response arrives.
    pub(crate) fn awaits_head(&self) -> bool {
        matches!(self.source, Source::Head(_))
    }

    pub(crate) fn has_head(&self) -> bool {
        self.has_head
    }

    /// Returns the metadata of the response's head, which is empty until the head arrives.
    pub(crate) fn head(&self) -> &Metadata {
        &self.head
    }

    pub(crate) fn set_head(&mut self, head: Metadata) {
        self.head = head;
    }

    /// Returns true if the stream was reset or its connection was lost.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Returns the compressed size of the last compressed message; see [`Reader::compressed_size`].
    pub(crate) fn compressed_size(&self) -> usize {
        self.reader.compressed_size()
    }

    pub(crate) fn take_head(&mut self) -> Metadata {
        std::mem::take(&mut self.head)
    }

    /// Returns the message of a request that has arrived in full, as most have, and that is valid.
    #[inline]
    pub(crate) fn whole_request(&self) -> Option<Bytes> {
        match &self.source {
            Source::Body(body) => {
                frame::only_message(body.full_data()?, self.reader.max_message_size())
            }
            Source::Head(_) | Source::Ended => None,
        }
    }

    /// Decodes the next message in place, if it is small and the next event.
    #[inline]
    pub(crate) fn read_small<T>(&mut self, read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        self.reader.read_small(SHARE_FROM, read)
    }

    /// Takes the next event from the received bytes, or receives more bytes.
    #[inline]
    pub(crate) fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Some(step) = self.next_step() {
            return Poll::Ready(step);
        }
        if self.reader.has_work() {
            // The message takes long to decompress, so yield to other calls.
            cx.waker().wake_by_ref();
            if let Some(status) = self.poll_deadline(cx, false) {
                self.reader.fail(status);
            }
            return Poll::Pending;
        }
        let polled = self.poll_source(cx);
        // Checked even if bytes have arrived, so a stream that never pauses ends at its deadline too.
        if let Some(status) = self.poll_deadline(cx, polled.is_pending()) {
            self.reader.fail(status);
            return Poll::Ready(Step::Data(0));
        }
        polled.map(Step::Data)
    }

    /// Returns the next event of the received bytes.
    #[inline]
    pub(crate) fn next_step(&mut self) -> Option<Step> {
        Some(match self.reader.next()? {
            Event::Message(message) => Step::Message(message),
            Event::Head(head) => {
                self.head = head;
                self.has_head = true;
                Step::Head
            }
            Event::End(end) => Step::End(self.finish(end)),
        })
    }

    fn respond(&mut self, response: http::Response<Body>) {
        let (head, body) = response.into_parts();
        self.attempts = head.extensions.get().copied();
        self.reader.head(head.status, head.headers);
        self.source = Source::Body(body);
    }

    /// Adds the metadata of the response's head to a status. A failed call of one response has no other way
    /// to return it.
    pub(crate) fn with_head(&self, status: Status) -> Status {
        match !self.head.is_empty() && status.response_metadata().is_empty() {
            true => status.with_response_metadata(self.head.clone()),
            false => status,
        }
    }

    fn finish(&mut self, mut end: End) -> End {
        self.close();
        if let Err(status) = &end.status
            && status.code() == Code::CANCELLED
            && !self.is_cancelled()
            && self.deadline.as_ref().is_some_and(Deadline::has_passed)
        {
            // The server, whose clock is slightly ahead, has cancelled the call at the deadline.
            // PROTOCOL-HTTP2.md, "Client Cancellation": the status is created here, without the
            // trailers.
            end = End {
                status: Err(Status::deadline_exceeded(
                    "the deadline passed; the server cancelled the call",
                )),
                trailers: Metadata::new(),
            };
        }
        end.status = end.status.map_err(|status| {
            let status = self.with_head(status);
            match self.attempts {
                Some(made) => made.explain(status),
                None => status,
            }
        });
        end
    }

    /// Drops the stream, which resets it if it has not ended.
    pub(crate) fn close(&mut self) {
        self.source = Source::Ended;
    }

    /// Ends the call with `status`, after the messages that have arrived.
    pub(crate) fn fail(&mut self, status: Status) {
        self.reader.fail(status);
    }

    /// Passes the next part of the stream to the reader; completes with its number of bytes of DATA.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        match &mut self.source {
            Source::Ended => self.reader.fail(Status::internal("the call has ended")),
            Source::Head(head) => match ready!(head.poll_head(cx)) {
                Ok(response) => self.respond(response),
                Err(status) => {
                    self.fail_stream(status);
                    self.close();
                }
            },
            Source::Body(_) if self.is_client && poll_coop(cx).is_pending() => {
                return Poll::Pending;
            }
            Source::Body(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                None => {
                    self.reader.eof();
                    self.close();
                }
                Some(Err(status)) => {
                    self.fail_stream(status);
                    self.close();
                }
                Some(Ok(frame)) => return Poll::Ready(self.read_frame(frame)),
            },
        }
        Poll::Ready(0)
    }

    /// Passes a frame to the reader, and returns its number of bytes of DATA.
    #[inline]
    fn read_frame(&mut self, frame: Frame<Bytes>) -> usize {
        match frame.into_data() {
            Ok(data) => {
                let len = data.len();
                self.reader.data(data);
                len
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                self.reader.trailers(trailers);
                0
            }
        }
    }

    #[cold]
    fn fail_stream(&mut self, status: Status) {
        self.has_failed = true;
        self.reader.fail(status);
    }

    /// Returns the final status if the deadline has passed. Otherwise registers `cx` for the deadline if
    /// `will_wait`.
    pub(crate) fn poll_deadline(
        &mut self,
        cx: &mut Context<'_>,
        will_wait: bool,
    ) -> Option<Status> {
        let deadline = self.deadline.as_mut()?;
        let has_passed = match will_wait {
            true => deadline.poll(cx).is_ready(),
            false => deadline.has_passed(),
        };
        if !has_passed {
            return None;
        }
        let phase = match &self.source {
            Source::Head(head) => head.phase(),
            Source::Body(_) | Source::Ended => {
                "while the response was being received; the timeout covers the call up to its last message, and may be too short"
            }
        };
        Some(deadline::exceeded(phase))
    }
}
