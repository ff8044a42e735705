//! The receiving half of a call: events out of a body, within the deadline.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use tokio::time::Instant;
use trunkline_codec::{Code, End, Event, Message as Received, Metadata, Reader, Status, frame};
use trunkline_transport::{Body, poll_coop};

use crate::call::deadline::{self, Deadline};
use crate::call::fields::SHARE_FROM;
use crate::call::intercept::Chain;
use crate::call::message::Message;
use crate::call::observe::{Recorder, code_of};
use crate::call::response::Response;
use crate::client::call::Call;
use crate::client::channel::Channel;
use crate::client::opening::Opening;

/// The receiving half of a call, on either side; it knows no message type.
pub(crate) struct Receive {
    reader: Reader,
    source: Source,
    deadline: Option<Deadline>,
    /// At a client the connection has a task of its own, which may bring more while this is read.
    is_client: bool,
    head: Metadata,
    has_head: bool,
    /// Come before it was asked for.
    early: Option<Received>,
    is_compressed: bool,
    end: Option<End>,
    chain: Option<Chain>,
    /// Whoever wants to know of the call; on a client also of its end.
    recorder: Option<Arc<Recorder>>,
    /// The call has ended, and the interceptors have yet to say what they make of it.
    ending: Option<End>,
}

enum Source {
    Opening {
        opening: Opening,
        again: Option<Box<(Channel, Call)>>,
    },
    Body(Body),
    Ended,
}

impl Receive {
    /// The requests of a call, on a server. The transport sees to the deadline.
    pub(crate) fn requests(reader: Reader, body: Body, recorder: Option<Arc<Recorder>>) -> Self {
        let mut receive = Self::new(reader, Source::Body(body), None);
        receive.is_client = false;
        receive.recorder = recorder;
        receive
    }

    /// The responses of a call, on a client. `again` is what it takes to make it again, if the server has
    /// not taken it.
    pub(crate) fn responses(
        reader: Reader,
        opening: Opening,
        again: Option<Box<(Channel, Call)>>,
        deadline: Option<Instant>,
    ) -> Self {
        let source = Source::Opening { opening, again };
        Self::new(reader, source, deadline.map(Deadline::new))
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
            is_client: true,
            head: Metadata::new(),
            has_head: false,
            early: None,
            is_compressed: false,
            end: None,
            chain: None,
            recorder: None,
            ending: None,
        }
    }

    pub(crate) fn chained(mut self, chain: Chain) -> Self {
        self.chain = Some(chain);
        self
    }

    /// Tells `recorder` of the call, on a client.
    pub(crate) fn recorded(mut self, recorder: Option<Arc<Recorder>>) -> Self {
        self.recorder = recorder;
        self
    }

    /// Drives the call until its stream is open, which may be before the server says anything.
    pub(crate) async fn started(&mut self) -> Result<(), Status> {
        poll_fn(|cx| {
            let progress = self.poll_progress(cx);
            if let Some(End {
                status: Err(status),
                ..
            }) = &self.end
            {
                return Poll::Ready(Err(status.clone()));
            }
            match progress.is_ready() || self.is_open() {
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            }
        })
        .await
    }

    fn is_open(&self) -> bool {
        match &self.source {
            Source::Opening { opening, .. } => opening.is_open(),
            Source::Body(_) | Source::Ended => true,
        }
    }

    /// The next message; none when the call has ended well.
    pub(crate) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Received>, Status>> {
        loop {
            if let Some(message) = self.early.take() {
                self.is_compressed = message.compressed;
                return Poll::Ready(Ok(Some(message)));
            }
            if let Some(end) = &self.end {
                return Poll::Ready(end.status.clone().map(|()| None));
            }
            if self.poll_progress(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// As [`poll_message`](Self::poll_message), decoded: most messages of a stream where they lie.
    pub(crate) fn poll_decoded<T: Message>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<T>, Status>> {
        loop {
            if let Some(decoded) = self.read_small(T::decode_slice) {
                return Poll::Ready(self.only_if_read(decoded));
            }
            if let Some(message) = self.early.take() {
                self.is_compressed = message.compressed;
                let decoded = T::decode(message.payload);
                return Poll::Ready(self.only_if_read(decoded));
            }
            if let Some(end) = &self.end {
                return Poll::Ready(end.status.clone().map(|()| None));
            }
            ready!(self.poll_step(cx));
        }
    }

    /// What cannot be read cannot be passed over either: the call ends.
    #[inline]
    fn only_if_read<T>(&mut self, decoded: Result<T, Status>) -> Result<Option<T>, Status> {
        decoded.map(Some).map_err(|status| self.fail(status))
    }

    /// Takes the next message by reading it where it lies, if it is small and the next event.
    #[inline]
    fn read_small<T>(&mut self, read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        if self.early.is_some() || self.end.is_some() || self.ending.is_some() {
            return None;
        }
        let read = self.reader.read_small(SHARE_FROM, read)?;
        if let Some(recorder) = &self.recorder {
            recorder.message_received();
        }
        self.is_compressed = false;
        Some(read)
    }

    /// Ready when the head is there, or the end.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        loop {
            if self.has_head {
                return Poll::Ready(Ok(()));
            }
            if let Some(end) = &self.end {
                return Poll::Ready(end.status.clone());
            }
            if self.poll_progress(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Ready when the call has ended. The one message that may come before is kept: this is only
    /// for calls whose reader lets no second one pass.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        loop {
            if let Some(end) = &self.end {
                return Poll::Ready(end.status.clone());
            }
            if self.poll_progress(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// The one message of a response, and its end.
    pub(crate) fn poll_only<R: Message>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<R>, Status>> {
        ready!(self.poll_end(cx))?;
        Poll::Ready(self.take_only())
    }

    fn take_only<R: Message>(&mut self) -> Result<Response<R>, Status> {
        // The reader lets no response end well without its message.
        let message = self
            .early
            .take()
            .ok_or_else(|| Status::unimplemented("the response ended without a message"))?;
        let response = R::decode(message.payload);
        if let Some(recorder) = &self.recorder {
            recorder.received_all(response.as_ref().map_or_else(Status::code, |_| Code::OK));
        }
        let response = response.map_err(|status| self.with_head(status))?;
        let trailers = self.end.take().map(|end| end.trailers).unwrap_or_default();
        let head = std::mem::take(&mut self.head);
        Ok(Response::new(response, head, trailers, message.compressed))
    }

    /// The one message of a request.
    pub(crate) async fn only_request<Q: Message>(&mut self) -> Result<(Q, bool), Status> {
        if let Some(message) = self.whole_request() {
            return Ok((Q::decode(message.into())?, false));
        }
        let message = poll_fn(|cx| self.poll_message(cx)).await?;
        poll_fn(|cx| self.poll_end(cx)).await?;
        let message =
            message.ok_or_else(|| Status::unimplemented("the request ended without a message"))?;
        Ok((Q::decode(message.payload)?, message.compressed))
    }

    /// The message of a request that has arrived in full, as most have: there is nothing to wait
    /// for, and nothing that the grammar would not let pass.
    pub(crate) fn whole_request(&self) -> Option<Bytes> {
        let Source::Body(body) = &self.source else {
            return None;
        };
        let message = frame::only_message(body.full_data()?, self.reader.max_message_size())?;
        if let Some(recorder) = &self.recorder {
            recorder.data_received(frame::PREFIX_SIZE + message.len());
            recorder.message_received();
        }
        Some(message)
    }

    /// One event further: ready when there was one.
    fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !ready!(self.poll_step(cx)) {}
        Poll::Ready(())
    }

    /// Takes an event, or what has come; ready with whether it was an event.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.end.is_some() {
            return Poll::Ready(true);
        }
        if self.ending.is_some() {
            return self.poll_ending(cx).map(|()| true);
        }
        if let Some(event) = self.reader.next() {
            match event {
                Event::Head(head) => {
                    if let Some(recorder) = &self.recorder {
                        recorder.head_seen();
                    }
                    self.head = head;
                    self.has_head = true;
                }
                Event::Message(message) => {
                    if let Some(recorder) = &self.recorder {
                        recorder.message_received();
                    }
                    self.early = Some(message);
                }
                Event::End(end) => {
                    self.finish(end);
                    return Poll::Ready(false);
                }
            }
            return Poll::Ready(true);
        }
        if self.reader.has_work() {
            // A message that takes long to restore: other calls go on meanwhile.
            cx.waker().wake_by_ref();
            if let Some(status) = self.poll_deadline(cx, false) {
                self.reader.fail(status);
            }
            return Poll::Pending;
        }
        let polled = match self.recorder.clone() {
            None => self.poll_source(cx),
            Some(recorder) => recorder.within(|| self.poll_source(cx)),
        };
        // Asked also when there is more: a stream that never pauses ends at its deadline too.
        if let Some(status) = self.poll_deadline(cx, polled.is_pending()) {
            self.reader.fail(status);
            return Poll::Ready(false);
        }
        polled.map(|()| false)
    }

    fn respond(&mut self, response: http::Response<Body>) {
        let (head, body) = response.into_parts();
        self.reader.head(head.status, head.headers);
        self.source = Source::Body(body);
    }

    /// What the head of the response said is told with the status: of a call of one response there is no
    /// other way to it.
    fn with_head(&self, status: Status) -> Status {
        match !self.head.is_empty() && status.head().is_empty() {
            true => status.with_received_head(self.head.clone()),
            false => status,
        }
    }

    fn finish(&mut self, mut end: End) {
        // Nothing more is wanted of the stream: if it has not ended, it is reset.
        self.source = Source::Ended;
        if let Err(status) = &end.status
            && status.code() == Code::CANCELLED
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
        match &self.chain {
            None => self.end(end),
            Some(chain) => {
                chain.set_end(end.status.clone());
                self.ending = Some(end);
            }
        }
    }

    fn end(&mut self, mut end: End) {
        end.status = end.status.map_err(|status| self.with_head(status));
        // A response that is one message has ended well only when that can be read: see `take_only`.
        if let Some(recorder) = &self.recorder
            && !(end.status.is_ok() && self.early.is_some())
        {
            recorder.received_all(code_of(&end.status));
        }
        self.end = Some(end);
    }

    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(mut end) = self.ending.take() else {
            return Poll::Ready(());
        };
        match self
            .chain
            .as_mut()
            .map_or(Poll::Ready(None), |chain| chain.poll_end(cx))
        {
            Poll::Pending => match self.poll_deadline(cx, true) {
                // What an interceptor waits for does not hold up the call.
                Some(status) => {
                    self.chain = None;
                    end.status = end.status.and(Err(status));
                }
                None => {
                    self.ending = Some(end);
                    return Poll::Pending;
                }
            },
            Poll::Ready(None) => {}
            Poll::Ready(Some(status)) => end.status = status,
        }
        self.end(end);
        Poll::Ready(())
    }

    /// Gives the reader what has come.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(chain) = &mut self.chain
            && let Poll::Ready(status) = chain.poll(cx)
        {
            self.reader.fail(status);
            return Poll::Ready(());
        }
        match &mut self.source {
            Source::Ended => self.reader.fail(Status::internal("the call has ended")),
            Source::Opening { opening, again } => {
                let polled = opening.poll(cx, || again.take().map(|again| *again));
                if let Some(recorder) = &self.recorder
                    && opening.is_open()
                    && !matches!(polled, Poll::Ready(Err(_)))
                {
                    recorder.stream_opened();
                }
                match ready!(polled) {
                    Ok(response) => self.respond(response),
                    Err(status) => self.reader.fail(status),
                }
            }
            Source::Body(_) if self.is_client && poll_coop(cx).is_pending() => {
                return Poll::Pending;
            }
            Source::Body(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                None => self.reader.eof(),
                Some(Err(status)) => self.reader.fail(status),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Some(recorder) = &self.recorder {
                            recorder.data_received(data.len());
                        }
                        self.reader.data(data);
                    }
                    Err(frame) => self
                        .reader
                        .trailers(frame.into_trailers().unwrap_or_default()),
                },
            },
        }
        Poll::Ready(())
    }

    /// The status to end with, if the deadline has passed; else `cx` hears of it, if the call is
    /// going to wait.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, will_wait: bool) -> Option<Status> {
        let deadline = self.deadline.as_mut()?;
        let has_passed = match will_wait {
            true => deadline.poll(cx).is_ready(),
            false => deadline.has_passed(),
        };
        if !has_passed {
            return None;
        }
        let phase = match &self.source {
            Source::Opening { opening, .. } => opening.phase(),
            Source::Body(_) | Source::Ended => {
                "while the response was being received: the timeout bounds the call to the end of its last message; does it need longer?"
            }
        };
        Some(deadline::exceeded(phase))
    }

    /// Ends the call, as a reader of its messages wants.
    pub(crate) fn fail(&mut self, status: Status) -> Status {
        self.source = Source::Ended;
        let status = self.with_head(status);
        self.end(End {
            status: Err(status.clone()),
            trailers: Metadata::new(),
        });
        status
    }

    pub(crate) fn head(&self) -> &Metadata {
        &self.head
    }

    pub(crate) fn trailers(&self) -> Option<&Metadata> {
        self.end.as_ref().map(|end| &end.trailers)
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.is_compressed
    }
}

/// Who lets go of the responses lets go of the call, whatever becomes of its requests.
impl Drop for Receive {
    fn drop(&mut self) {
        if let Some(recorder) = &self.recorder {
            recorder.reader_gone();
        }
    }
}
