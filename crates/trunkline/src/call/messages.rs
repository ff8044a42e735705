//! The messages that come in, their head and their end.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use trunkline_codec::{End, Message as Received, Metadata, Status};

use crate::call::hooks::Hooks;
use crate::call::message::Message;
use crate::call::message_hooks::MessageHooks;
use crate::call::receive::{Receive, Step};
use crate::call::response::Response;

/// The messages of one direction of a call, as they come in; it knows no message type.
pub(crate) struct Messages {
    receive: Receive,
    /// The observer and the interceptors, where there are any: they stand around `receive`.
    hooks: Option<Box<Hooks>>,
    /// Come before it was asked for.
    early: Option<Received>,
    is_compressed: bool,
    end: Option<End>,
}

impl Messages {
    #[inline]
    pub(crate) fn new(receive: Receive, hooks: Option<Hooks>) -> Self {
        Self {
            receive,
            hooks: hooks.map(Box::new),
            early: None,
            is_compressed: false,
            end: None,
        }
    }

    /// Says of which type the messages are, to whoever wants to see them before they are decoded.
    #[inline]
    pub(crate) fn of_type<T: Message>(mut self) -> Self {
        if let Some(hooks) = &mut self.hooks {
            hooks.set_type::<T>();
        }
        self
    }

    /// Sets the hooks of interceptors, on a server.
    pub(crate) fn set_message_hooks(&mut self, message_hooks: MessageHooks) {
        let hooks = match self.hooks.take() {
            Some(hooks) => hooks,
            None => Box::new(Hooks::none()),
        };
        self.hooks.insert(hooks).set_message_hooks(message_hooks);
    }

    /// Takes the hooks for the requests of a client's call, whose stream is open.
    #[inline]
    pub(crate) fn take_request_hooks(&self) -> Option<MessageHooks> {
        self.hooks.as_ref()?.take_request_hooks()
    }

    /// Drives the call until its stream is open, which may be before the server says anything.
    pub(crate) async fn opened(&mut self) -> Result<(), Status> {
        poll_fn(|cx| {
            let progress = self.poll_progress(cx);
            if let Some(End {
                status: Err(status),
                ..
            }) = &self.end
            {
                return Poll::Ready(Err(status.clone()));
            }
            match progress.is_ready() || self.receive.is_open() {
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// The next message; none when the call has ended well.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Received>, Status>> {
        loop {
            if let Some(message) = self.early.take() {
                self.is_compressed = message.compressed;
                return Poll::Ready(Ok(Some(message)));
            }
            if let Some(end) = &self.end {
                return Poll::Ready(end.status.clone().map(|()| None));
            }
            ready!(self.poll_progress(cx));
        }
    }

    /// As `poll_message`, decoded: most messages of a stream where they lie.
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
        if self.early.is_some() || self.end.is_some() {
            return None;
        }
        if let Some(hooks) = &self.hooks
            && !hooks.let_small_messages_pass()
        {
            return None;
        }
        let read = self.receive.read_small(read)?;
        if let Some(hooks) = &self.hooks {
            hooks.message_read();
        }
        self.is_compressed = false;
        Some(read)
    }

    /// Ready when the head is there, or the end.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        loop {
            if self.receive.has_head() {
                return Poll::Ready(Ok(()));
            }
            if let Some(end) = &self.end {
                return Poll::Ready(end.status.clone());
            }
            ready!(self.poll_progress(cx));
        }
    }

    /// Ready when the call has ended. The one message that may come before is kept: this is only
    /// for calls whose reader lets no second one pass.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        loop {
            if let Some(end) = &self.end {
                return Poll::Ready(end.status.clone());
            }
            ready!(self.poll_progress(cx));
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
        let response = R::decode(message.payload).map_err(|status| self.receive.with_head(status));
        if let Some(hooks) = &self.hooks {
            hooks.ended(response.as_ref().map(drop));
        }
        let response = response?;
        let trailers = self.end.take().map(|end| end.trailers).unwrap_or_default();
        let head = self.receive.take_head();
        Ok(Response::received(
            response,
            head,
            trailers,
            message.compressed,
        ))
    }

    /// The one message of a request.
    pub(crate) async fn only_request<Q: Message>(&mut self) -> Result<(Q, bool), Status> {
        if let Some(message) = self.whole_request() {
            return Ok((Q::decode(message.into())?, false));
        }
        if let Some(hooks) = &mut self.hooks {
            hooks.set_type::<Q>();
        }
        let message = poll_fn(|cx| self.poll_message(cx)).await?;
        poll_fn(|cx| self.poll_end(cx)).await?;
        let message =
            message.ok_or_else(|| Status::unimplemented("the request ended without a message"))?;
        Ok((Q::decode(message.payload)?, message.compressed))
    }

    /// The message of a request that has arrived in full, as most have.
    #[inline]
    pub(crate) fn whole_request(&self) -> Option<Bytes> {
        let message = self.receive.whole_request()?;
        if let Some(hooks) = &self.hooks {
            if hooks.has_message_hooks() {
                return None;
            }
            hooks.request_read(&message);
        }
        Some(message)
    }

    /// One event further: ready when there was one.
    fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !ready!(self.poll_step(cx)) {}
        Poll::Ready(())
    }

    /// Takes an event, or what has come; ready with true if it was an event.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.end.is_some() {
            return Poll::Ready(true);
        }
        let step = match &mut self.hooks {
            None => self.receive.poll_step(cx),
            Some(hooks) => hooks.poll_step(&mut self.receive, cx),
        };
        match ready!(step) {
            Step::Data(_) => return Poll::Ready(false),
            Step::Head => {}
            Step::Message(message) => self.early = Some(message),
            Step::End(end) => self.end(end),
        }
        Poll::Ready(true)
    }

    fn end(&mut self, mut end: End) {
        end.status = end.status.map_err(|status| self.receive.with_head(status));
        // A response that is one message has ended well only when that can be read: see `take_only`.
        if let Some(hooks) = &self.hooks
            && !(end.status.is_ok() && self.early.is_some())
        {
            hooks.ended(end.status.as_ref().map(drop));
        }
        self.end = Some(end);
    }

    /// Cancels the call, as its caller wants; what has arrived can still be read.
    pub(crate) fn cancel(&mut self) {
        if self.end.is_none() {
            if let Some(hooks) = &mut self.hooks {
                hooks.cancelled(&self.receive);
            }
            self.receive.cancel();
        }
    }

    /// Returns true once the caller has cancelled the call.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.receive.is_cancelled()
    }

    /// Ends the call, as a reader of its messages wants.
    fn fail(&mut self, status: Status) -> Status {
        self.receive.close();
        let status = self.receive.with_head(status);
        self.end(End {
            status: Err(status.clone()),
            trailers: Metadata::new(),
        });
        status
    }

    /// The metadata of the head; empty until it has come.
    pub(crate) fn head(&self) -> &Metadata {
        self.receive.head()
    }

    pub(crate) fn trailers(&self) -> Option<&Metadata> {
        self.end.as_ref().map(|end| &end.trailers)
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.is_compressed
    }
}
