//! The messages that an end of a call receives, with the head and the end.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::time::Instant;
use trunkline_codec::{End, Message as Received, Metadata, Status};

use crate::call::hooks::Hooks;
use crate::call::intercept::OK_WITHOUT_RESPONSE;
use crate::call::message::Message;
use crate::call::message_hooks::MessageHooks;
use crate::call::receive::{Receive, Step};
use crate::call::response::Response;

/// The received messages of a call, of any type.
pub(crate) struct Messages {
    receive: Receive,
    /// The observer and the interceptors around `receive`, if any.
    hooks: Option<Box<Hooks>>,
    /// A message that arrived before it was requested.
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

    /// Sets the type of the messages for hooks, which run before messages are decoded.
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

    /// Returns the deadline of a client's call whose stream is open, if interceptors have changed it.
    #[inline]
    pub(crate) fn moved_deadline(&self) -> Option<Instant> {
        self.hooks.as_ref()?.moved_deadline()
    }

    /// Drives the call until its stream is open. The server need not have responded.
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

    /// Polls for the next message; `None` after a successful end of the call.
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

    /// Polls for the next message and decodes it; most messages of a stream are decoded in place.
    pub(crate) fn poll_decoded<T: Message>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<T>, Status>> {
        loop {
            if let Some(decoded) = self.read_small(T::decode_slice) {
                match decoded {
                    Ok(message) => return Poll::Ready(Ok(Some(message))),
                    Err(status) => self.fail(status),
                }
                continue;
            }
            if let Some(message) = self.early.take() {
                self.is_compressed = message.compressed;
                match T::decode(message.payload) {
                    Ok(message) => return Poll::Ready(Ok(Some(message))),
                    Err(status) => self.fail(status),
                }
                continue;
            }
            if let Some(end) = &self.end {
                return Poll::Ready(end.status.clone().map(|()| None));
            }
            ready!(self.poll_step(cx));
        }
    }

    /// Decodes the next message in place, if it is small and the next event.
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

    /// Completes when the head has arrived, or the call has ended.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        loop {
            // A request has its head from the start.
            if self.receive.has_head() || self.early.is_some() || !self.receive.is_client() {
                return Poll::Ready(Ok(()));
            }
            if let Some(end) = &self.end {
                return Poll::Ready(end.status.clone());
            }
            ready!(self.poll_progress(cx));
        }
    }

    /// Completes when the call has ended. Keeps at most one message, so the call's reader must not accept
    /// a second one.
    pub(crate) fn poll_end<T: Message>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Status>> {
        loop {
            if let Some(end) = &self.end {
                return Poll::Ready(end.status.clone());
            }
            ready!(self.poll_progress(cx));
            if self.hooks.is_some() {
                self.decode_early::<T>();
            }
        }
    }

    /// Decodes the one message of a response, if interceptors receive its end.
    #[cold]
    fn decode_early<T: Message>(&mut self) {
        let (Some(hooks), Some(message)) = (&mut self.hooks, &mut self.early) else {
            return;
        };
        if self.end.is_some() || !hooks.has_interceptors() || hooks.has_decoded() {
            return;
        }
        match T::decode(std::mem::take(&mut message.payload)) {
            Ok(message) => hooks.set_decoded(message),
            Err(status) => {
                self.early = None;
                self.fail(status);
            }
        }
    }

    /// Polls for the single message of a response, and its end.
    pub(crate) fn poll_only<R: Message>(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<R>, Status>> {
        ready!(self.poll_end::<R>(cx))?;
        Poll::Ready(self.take_only())
    }

    fn take_only<R: Message>(&mut self) -> Result<Response<R>, Status> {
        // The reader never ends a response with OK without its message, but an interceptor can.
        let message = self
            .early
            .take()
            .ok_or_else(|| Status::internal(OK_WITHOUT_RESPONSE))?;
        let decoded = match &mut self.hooks {
            None => None,
            Some(hooks) => hooks.take_decoded::<R>(),
        };
        let response = match decoded {
            Some(decoded) => Ok(decoded),
            None => R::decode(message.payload).map_err(|status| self.receive.with_head(status)),
        };
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

    /// Waits for the single message of a request; the flag is true if it was compressed.
    pub(crate) async fn only_request<Q: Message>(&mut self) -> Result<(Q, bool), Status> {
        if let Some(message) = self.whole_request() {
            return Ok((Q::decode(message.into())?, false));
        }
        if let Some(hooks) = &mut self.hooks {
            hooks.set_type::<Q>();
        }
        let message = poll_fn(|cx| self.poll_message(cx)).await?;
        poll_fn(|cx| self.poll_end::<Q>(cx)).await?;
        let message =
            message.ok_or_else(|| Status::unimplemented("the request ended without a message"))?;
        Ok((Q::decode(message.payload)?, message.compressed))
    }

    /// Returns the message of a request that has arrived in full, as most have.
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

    /// Completes after the next event.
    fn poll_progress(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !ready!(self.poll_step(cx)) {}
        Poll::Ready(())
    }

    /// Takes the next event or received bytes; completes with true if it was an event.
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
        // The outcome of a response of one message is recorded after it is decoded, in `take_only`.
        if let Some(hooks) = &self.hooks
            && !(end.status.is_ok() && self.early.is_some())
        {
            hooks.ended(end.status.as_ref().map(drop));
        }
        self.end = Some(end);
    }

    /// Cancels the call. Messages that have arrived can still be read.
    pub(crate) fn cancel(&mut self) {
        if self.end.is_none() {
            if let Some(hooks) = &mut self.hooks {
                hooks.cancelled(&mut self.receive);
            }
            let arrived = self.receive.cancel();
            if let Some(hooks) = &self.hooks {
                hooks.data_arrived(arrived);
            }
        }
    }

    /// Returns true if the caller has cancelled the call.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.receive.is_cancelled()
    }

    /// Ends the call with `status`, an error of the reader of its messages.
    #[cold]
    fn fail(&mut self, status: Status) {
        self.receive.close();
        let status = self.receive.with_head(status);
        if let Some(hooks) = &mut self.hooks
            && hooks.fail(&self.receive, &status)
        {
            return;
        }
        self.end(End {
            status: Err(status),
            trailers: Metadata::new(),
        });
    }

    /// Returns the metadata of the head, which is empty until the head arrives.
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
