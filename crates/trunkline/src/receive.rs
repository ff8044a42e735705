//! The receiving half of a call: events out of a body, within the deadline.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Body as _;
use tokio::time::{Instant, Sleep};
use trunkline_codec::{Code, End, Event, Message as Received, Metadata, Reader, Status, frame};
use trunkline_transport::Body;

use crate::intercept::{Chain, unlocked};
use crate::message::Message;
use crate::response::Response;

/// What a call waits for until the head of its reply is there.
pub(crate) type Opening =
    Pin<Box<dyn Future<Output = Result<http::Response<Body>, Status>> + Send>>;

/// The receiving half of a call, on either side; it knows no message type.
pub(crate) struct Receive {
    reader: Reader,
    source: Source,
    deadline: Option<Deadline>,
    /// Set when the stream has been opened.
    is_open: Option<Arc<AtomicBool>>,
    head: Metadata,
    has_head: bool,
    /// Come before it was asked for.
    early: Option<Received>,
    is_compressed: bool,
    end: Option<End>,
    chain: Option<Chain>,
    /// The call has ended, and the interceptors have yet to say what they make of it.
    ending: Option<End>,
}

enum Source {
    /// In a mutex that is never locked: it makes what holds a call `Sync`.
    Opening(Mutex<Opening>),
    Body(Body),
    Ended,
}

struct Deadline {
    at: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Receive {
    /// The requests of a call, on a server. The transport sees to the deadline.
    pub(crate) fn requests(reader: Reader, body: Body) -> Self {
        Self::new(reader, Source::Body(body), None)
    }

    /// The replies of a call, on a client.
    pub(crate) fn replies(reader: Reader, opening: Opening, deadline: Option<Instant>) -> Self {
        Self::new(reader, Source::Opening(Mutex::new(opening)), deadline)
    }

    fn new(reader: Reader, source: Source, deadline: Option<Instant>) -> Self {
        Self {
            reader,
            source,
            deadline: deadline.map(|at| Deadline { at, sleep: None }),
            is_open: None,
            head: Metadata::new(),
            has_head: false,
            early: None,
            is_compressed: false,
            end: None,
            chain: None,
            ending: None,
        }
    }

    pub(crate) fn watch(mut self, is_open: Arc<AtomicBool>) -> Self {
        self.is_open = Some(is_open);
        self
    }

    pub(crate) fn chained(mut self, chain: Chain) -> Self {
        self.chain = Some(chain);
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
            let is_open = self
                .is_open
                .as_ref()
                .is_none_or(|flag| flag.load(Ordering::Acquire));
            match progress.is_ready() || is_open {
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            }
        })
        .await
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

    /// The one message of a reply, and its end.
    pub(crate) async fn only<R: Message>(mut self) -> Result<Response<R>, Status> {
        let message = poll_fn(|cx| self.poll_message(cx)).await?;
        poll_fn(|cx| self.poll_end(cx)).await?;
        // The reader lets no reply end well without its message.
        let message =
            message.ok_or_else(|| Status::unimplemented("the reply ended without a message"))?;
        let reply = R::decode(message.payload)?;
        let trailers = self.end.map(|end| end.trailers).unwrap_or_default();
        Ok(Response::new(
            reply,
            self.head,
            trailers,
            message.compressed,
        ))
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
        match &self.source {
            Source::Body(body) => {
                frame::only_message(body.full_data()?, self.reader.max_message_size())
            }
            Source::Opening(_) | Source::Ended => None,
        }
    }

    /// One event further: ready when there was one.
    fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.end.is_some() {
                return Poll::Ready(());
            }
            if self.ending.is_some() {
                return self.poll_ending(cx);
            }
            if let Some(event) = self.reader.next() {
                match event {
                    Event::Head(head) => {
                        self.head = head;
                        self.has_head = true;
                    }
                    Event::Message(message) => self.early = Some(message),
                    Event::End(end) => {
                        self.finish(end);
                        continue;
                    }
                }
                return Poll::Ready(());
            }
            let polled = self.poll_source(cx);
            // Asked also when there is more: a stream that never pauses ends at its deadline too.
            if let Some(status) = self.poll_deadline(cx, polled) {
                self.reader.fail(status);
            } else if polled.is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn finish(&mut self, mut end: End) {
        // Nothing more is wanted of the stream: if it has not ended, it is reset.
        self.source = Source::Ended;
        if let Err(status) = &end.status
            && status.code() == Code::CANCELLED
            && self
                .deadline
                .as_ref()
                .is_some_and(|deadline| deadline.at <= Instant::now())
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
        match &self.chain {
            None => self.end = Some(end),
            Some(chain) => {
                chain.set_end(end.status.clone());
                self.ending = Some(end);
            }
        }
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
            Poll::Pending => match self.poll_deadline(cx, Poll::Pending) {
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
        self.end = Some(end);
        Poll::Ready(())
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(chain) = &mut self.chain
            && let Poll::Ready(status) = chain.poll(cx)
        {
            self.reader.fail(status);
            return Poll::Ready(());
        }
        match &mut self.source {
            Source::Ended => {
                self.reader.fail(Status::internal("the call has ended"));
                Poll::Ready(())
            }
            Source::Opening(opening) => {
                unlocked(opening)
                    .as_mut()
                    .poll(cx)
                    .map(|opened| match opened {
                        Ok(response) => {
                            let (head, body) = response.into_parts();
                            self.reader.head(head.status, head.headers);
                            self.source = Source::Body(body);
                        }
                        Err(status) => self.reader.fail(status),
                    })
            }
            Source::Body(body) => Pin::new(body).poll_frame(cx).map(|frame| match frame {
                None => self.reader.eof(),
                Some(Err(status)) => self.reader.fail(status),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.reader.data(data),
                    Err(frame) => self
                        .reader
                        .trailers(frame.into_trailers().unwrap_or_default()),
                },
            }),
        }
    }

    /// The status to end with, if the deadline has passed; else `cx` hears of it, if the call is
    /// going to wait.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, polled: Poll<()>) -> Option<Status> {
        let deadline = self.deadline.as_mut()?;
        // The clock is asked, not the timer, which says nothing in a task that has used up its
        // budget.
        if deadline.at > Instant::now() {
            if polled.is_pending() {
                let sleep = deadline
                    .sleep
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.at)));
                if sleep.as_mut().poll(cx).is_ready() {
                    cx.waker().wake_by_ref();
                }
            }
            return None;
        }
        let is_open = self
            .is_open
            .as_ref()
            .is_none_or(|flag| flag.load(Ordering::Acquire));
        let phase = match &self.source {
            Source::Opening(_) if !is_open => "while the call waited for a connection",
            Source::Opening(_) => "while the call waited for the head of the reply",
            Source::Body(_) | Source::Ended => "while the reply was being received",
        };
        Some(Status::deadline_exceeded(format!(
            "the deadline passed {phase}"
        )))
    }

    /// Ends the call, as a reader of its messages wants.
    pub(crate) fn fail(&mut self, status: Status) -> Status {
        self.source = Source::Ended;
        self.end = Some(End {
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
