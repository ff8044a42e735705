//! The client's side of a call of many requests and one response.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use trunkline_codec::{Metadata, Status};
use trunkline_transport::{ReaderGone, poll_coop};

use crate::call::compression::Compress;
use crate::call::message::Message;
use crate::call::messages::Messages;
use crate::call::response::Response;
use crate::call::sender::{Sender, next_of};

/// The number of bytes that are sent between checks for the end of the call, and the bytes that each message
/// counts in addition to its size.
const LOOK_EVERY: usize = 1024;
const EACH: usize = 16;

/// A running call that sends many requests and receives one response.
///
/// Dropping it cancels the call.
///
/// ```
/// # async fn example(client: trunkline::Client) -> trunkline::Result<()> {
/// use trunkline::{Method, Raw};
///
/// let method = Method::new("/routeguide.RouteGuide/RecordRoute");
/// let mut call = client.client_streaming::<Raw, Raw>(method).await?;
/// call.send(Raw::default()).await?;
/// let response = call.finish().await?;
/// # Ok(()) }
/// ```
pub struct ClientStream<Q, R> {
    /// `None` after the end of the requests.
    sender: Option<Sender<Q>>,
    /// The number of bytes until the next check for the end of the call.
    until_look: usize,
    messages: Messages,
    response: std::marker::PhantomData<fn() -> R>,
}

impl<Q: Message, R: Message> ClientStream<Q, R> {
    pub(crate) fn new(sender: Sender<Q>, messages: Messages) -> Self {
        Self {
            sender: Some(sender),
            until_look: LOOK_EVERY,
            messages,
            response: std::marker::PhantomData,
        }
    }

    /// Sends a message. If the server reads slowly and too many bytes are queued, waits until it has read
    /// more.
    ///
    /// The server can end the call before it has read all requests, even successfully. `send` notices this at
    /// once while it waits for the server to read. Otherwise, it looks only after each KiB of messages, so up
    /// to 1 KiB can still be sent without an error. [`finish`](Self::finish) returns the result of the call.
    ///
    /// If the future is dropped before it completes, the message is not sent.
    ///
    /// # Errors
    ///
    /// - The status of the call, if the call has failed or its deadline has passed.
    /// - CANCELLED if the server has ended the call successfully; [`finish`](Self::finish) returns the
    ///   response.
    /// - RESOURCE_EXHAUSTED if the message exceeds `max_send_message_size`. The message is not sent, and
    ///   the call continues.
    /// - FAILED_PRECONDITION after [`half_close`](Self::half_close).
    pub async fn send(&mut self, message: Q) -> Result<(), Status> {
        let len = message.encoded_len();
        let is_late = self.sender.as_ref().is_some_and(Sender::has_expired);
        let is_look_due = self.is_look_due(len) || is_late || self.messages.is_cancelled();
        poll_fn(|cx| {
            if is_look_due && self.messages.poll_end::<R>(cx).is_ready() {
                return self.poll_told(cx).map(Err);
            }
            let Some(sender) = &mut self.sender else {
                return Poll::Ready(Err(half_closed()));
            };
            match sender.poll_write(&message, len, cx) {
                Poll::Ready(Ok(encoded)) => Poll::Ready(encoded),
                // The receiving half is polled when sending must wait, because it reads the end first.
                Poll::Ready(Err(ReaderGone)) | Poll::Pending => self.poll_told(cx).map(Err),
            }
        })
        .await
    }

    /// Completes when the call has ended, with the status for all further messages.
    fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let end = ready!(self.messages.poll_end::<R>(cx));
        ready!(poll_coop(cx));
        Poll::Ready(told(end))
    }

    /// Returns true if the receiving half must be polled before a message of `len` bytes is sent. A pipe with
    /// room does not report the end of the call.
    fn is_look_due(&mut self, len: usize) -> bool {
        let left = self.until_look.checked_sub(len.saturating_add(EACH));
        self.until_look = left.unwrap_or(LOOK_EVERY);
        left.is_none()
    }

    /// Sends all messages of the stream `messages`, and completes when `messages` ends.
    ///
    /// # Errors
    ///
    /// The errors of [`send`](Self::send). If the call ends while this method waits for the next message
    /// of `messages`, it returns the error immediately. The remaining messages are dropped.
    pub async fn send_all(&mut self, messages: impl Stream<Item = Q>) -> Result<(), Status> {
        let mut messages = pin!(messages);
        while let Some(message) = next_of(messages.as_mut(), |cx| self.poll_told(cx)).await? {
            self.send(message).await?;
        }
        Ok(())
    }

    /// Waits for the head of the response, which can arrive long before the message, and returns the
    /// metadata in it. Requests can be sent before and after.
    ///
    /// # Errors
    ///
    /// The status of the call, if it failed without a head.
    pub async fn head(&mut self) -> Result<&Metadata, Status> {
        poll_fn(|cx| self.messages.poll_head(cx)).await?;
        Ok(self.messages.head())
    }

    /// Ends the stream of requests without waiting for the response, which [`finish`](Self::finish)
    /// returns. Calling it again has no effect.
    pub fn half_close(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.finish();
        }
    }

    /// Ends the stream of requests, and waits for the response.
    ///
    /// # Errors
    ///
    /// The status with which the call ended.
    pub async fn finish(mut self) -> Result<Response<R>, Status> {
        self.half_close();
        poll_fn(|cx| self.messages.poll_only(cx)).await
    }

    /// Cancels the call. The stream is reset with CANCEL immediately, and the server drops the handler.
    ///
    /// Further messages cannot be sent. [`finish`](Self::finish) returns the response if it had already
    /// arrived completely. Otherwise it returns CANCELLED, and [`Status::response_metadata`] returns the
    /// metadata in the head of the response, if the head had arrived.
    ///
    /// To cancel from another part of the program, use [`CancelHandle`](crate::CancelHandle).
    pub fn cancel(&mut self) {
        self.messages.cancel();
    }

    /// Selects which of the following messages are compressed; see [`Sender::compress`].
    pub fn compress(&mut self, compress: Compress) {
        if let Some(sender) = &mut self.sender {
            sender.compress(compress);
        }
    }
}

/// Returns the status for a caller that sends after the end of its call.
#[cold]
fn told(end: Result<(), Status>) -> Status {
    end.err().unwrap_or_else(|| {
        Status::cancelled("the server has already responded; `finish` returns the response")
    })
}

#[cold]
fn half_closed() -> Status {
    Status::failed_precondition("the requests have ended with `half_close`; no more can be sent")
}

impl<Q, R> fmt::Debug for ClientStream<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientStream").finish_non_exhaustive()
    }
}
