//! The receiving half of a call: events out of a stream, within the deadline.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use tokio::time::Instant;
use trunkline_codec::{Code, End, Event, Message as Received, Metadata, Reader, Status, frame};
use trunkline_transport::{Body, poll_coop};

use crate::call::cancel::{CancelHandle, cancelled};
use crate::call::deadline::{self, Deadline};
use crate::call::fields::SHARE_FROM;
use crate::call::source::{ArrivedEnd, AwaitedHead, Source};

/// The receiving half of a call, on either side: a reader, where its bytes come from, and until when.
///
/// It knows no message type, no observer and no interceptor: see [`Messages`](crate::call::messages).
pub(crate) struct Receive {
    reader: Reader,
    source: Source,
    deadline: Option<Deadline>,
    cancelled_by: Option<CancelHandle>,
    is_cancelled: bool,
    /// At a client the connection has a task of its own, which may bring more while this is read.
    is_client: bool,
    head: Metadata,
    has_head: bool,
    /// The stream was reset, or its connection was lost.
    has_failed: bool,
}

/// A step of [`Receive::poll_step`].
pub(crate) enum Step {
    /// Bytes of the stream have come, this many of them DATA.
    Data(usize),
    /// The head of the response has come: see [`Receive::head`].
    Head,
    Message(Received),
    /// The end, and nothing after it.
    End(End),
}

impl Receive {
    /// The requests of a call, on a server. The transport sees to the deadline.
    pub(crate) fn requests(reader: Reader, body: Body) -> Self {
        let mut receive = Self::new(reader, Source::Body(body), None);
        receive.is_client = false;
        receive
    }

    /// The responses of a call, on a client.
    pub(crate) fn responses(
        reader: Reader,
        head: Box<dyn AwaitedHead>,
        deadline: Option<Instant>,
    ) -> Self {
        Self::new(reader, Source::Head(head), deadline.map(Deadline::new))
    }

    /// The responses of a call whose head is there.
    pub(crate) fn response(
        reader: Reader,
        response: http::Response<Body>,
        deadline: Option<Deadline>,
    ) -> Self {
        let mut receive = Self::new(reader, Source::Ended, deadline);
        receive.respond(response);
        receive
    }

    /// The responses of a call that has failed before their head came.
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
        }
    }

    /// Takes the handle that may cancel the call, which resets the stream by itself.
    pub(crate) fn cancelled_by(mut self, handle: Option<CancelHandle>) -> Self {
        self.cancelled_by = handle;
        self
    }

    /// Resets the stream. What has arrived of it comes out, and then CANCELLED.
    pub(crate) fn cancel(&mut self) {
        self.is_cancelled = true;
        let arrived = std::mem::replace(&mut self.source, Source::Ended).reset();
        if let Some(head) = arrived.head {
            self.reader.head(head.status, head.headers);
        }
        for frame in arrived.frames {
            match frame.into_data() {
                Ok(data) => self.reader.data(data),
                Err(frame) => self
                    .reader
                    .trailers(frame.into_trailers().unwrap_or_default()),
            }
        }
        match arrived.end {
            ArrivedEnd::Complete => self.reader.eof(),
            ArrivedEnd::Failed(status) => self.reader.fail(status),
            ArrivedEnd::Reset => self.reader.fail(cancelled()),
        }
    }

    /// Returns true once the caller has cancelled the call.
    pub(crate) fn is_cancelled(&self) -> bool {
        let by = self.cancelled_by.as_ref();
        self.is_cancelled || by.is_some_and(CancelHandle::is_cancelled)
    }

    /// Returns true once the stream of the call is open, until it is closed.
    pub(crate) fn is_open(&self) -> bool {
        match &self.source {
            Source::Head(head) => head.is_open(),
            Source::Body(_) => true,
            Source::Ended => false,
        }
    }

    /// Returns true until the head of a response has come, or its end.
    pub(crate) fn awaits_head(&self) -> bool {
        matches!(self.source, Source::Head(_))
    }

    pub(crate) fn has_head(&self) -> bool {
        self.has_head
    }

    /// The metadata of the head of the response; empty until it has come.
    pub(crate) fn head(&self) -> &Metadata {
        &self.head
    }

    pub(crate) fn set_head(&mut self, head: Metadata) {
        self.head = head;
    }

    /// Returns true if the stream was reset, or its connection was lost.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// The size at which the last compressed message came: see [`Reader::compressed_size`].
    pub(crate) fn compressed_size(&self) -> usize {
        self.reader.compressed_size()
    }

    pub(crate) fn take_head(&mut self) -> Metadata {
        std::mem::take(&mut self.head)
    }

    /// The message of a request that has arrived in full, as most have: there is nothing to wait
    /// for, and nothing that the grammar would not let pass.
    #[inline]
    pub(crate) fn whole_request(&self) -> Option<Bytes> {
        match &self.source {
            Source::Body(body) => {
                frame::only_message(body.full_data()?, self.reader.max_message_size())
            }
            Source::Head(_) | Source::Ended => None,
        }
    }

    /// Takes the next message by reading it where it lies, if it is small and the next event.
    #[inline]
    pub(crate) fn read_small<T>(&mut self, read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        self.reader.read_small(SHARE_FROM, read)
    }

    /// Takes an event out of what has come, or takes what comes.
    #[inline]
    pub(crate) fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Some(step) = self.next_step() {
            return Poll::Ready(step);
        }
        if self.reader.has_work() {
            // A message that takes long to restore: other calls go on meanwhile.
            cx.waker().wake_by_ref();
            if let Some(status) = self.poll_deadline(cx, false) {
                self.reader.fail(status);
            }
            return Poll::Pending;
        }
        let polled = self.poll_source(cx);
        // Asked also when there is more: a stream that never pauses ends at its deadline too.
        if let Some(status) = self.poll_deadline(cx, polled.is_pending()) {
            self.reader.fail(status);
            return Poll::Ready(Step::Data(0));
        }
        polled.map(Step::Data)
    }

    /// The next event of what has come.
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
        self.reader.head(head.status, head.headers);
        self.source = Source::Body(body);
    }

    /// Adds what the head of the response said to a status: of a call of one response there is no other
    /// way to it.
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
            // The server, whose clock runs a little ahead, has cancelled the call at the deadline.
            // PROTOCOL-HTTP2.md, "Client Cancellation": the failure is made here, and nothing of
            // the trailers goes into it.
            end = End {
                status: Err(Status::deadline_exceeded(
                    "the deadline passed; the server cancelled the call",
                )),
                trailers: Metadata::new(),
            };
        }
        end.status = end.status.map_err(|status| self.with_head(status));
        end
    }

    /// Lets go of the stream: if it has not ended, it is reset.
    pub(crate) fn close(&mut self) {
        self.source = Source::Ended;
    }

    /// Ends the call with `status`, after the messages that have come.
    pub(crate) fn fail(&mut self, status: Status) {
        self.reader.fail(status);
    }

    /// Gives the reader what has come; ready with the bytes of messages in it.
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
                None => self.reader.eof(),
                Some(Err(status)) => self.fail_stream(status),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let len = data.len();
                        self.reader.data(data);
                        return Poll::Ready(len);
                    }
                    Err(frame) => self
                        .reader
                        .trailers(frame.into_trailers().unwrap_or_default()),
                },
            },
        }
        Poll::Ready(0)
    }

    #[cold]
    fn fail_stream(&mut self, status: Status) {
        self.has_failed = true;
        self.reader.fail(status);
    }

    /// The status to end with, if the deadline has passed; else `cx` hears of it, if the call is
    /// going to wait.
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
                "while the response was being received: the timeout bounds the call to the end of its last message; does it need longer?"
            }
        };
        Some(deadline::exceeded(phase))
    }
}
