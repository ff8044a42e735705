//! A client's call of many requests and one response.

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

/// How much is sent, in bytes, before the receiving half is asked whether the call has ended, and what each
/// message counts besides.
const LOOK_EVERY: usize = 1024;
const EACH: usize = 16;

/// A call that sends many requests and gets one response.
///
/// Dropping it cancels the call.
pub struct ClientStream<Q, R> {
    /// None once there are no more requests.
    sender: Option<Sender<Q>>,
    /// What may be sent before the receiving half is asked, in bytes.
    until_look: usize,
    messages: Messages,
    gives: std::marker::PhantomData<fn() -> R>,
}

impl<Q: Message, R: Message> ClientStream<Q, R> {
    pub(crate) fn new(sender: Sender<Q>, messages: Messages) -> Self {
        Self {
            sender: Some(sender),
            until_look: LOOK_EVERY,
            messages,
            gives: std::marker::PhantomData,
        }
    }

    /// Sends a message. Waits while more bytes are on their way than the server takes.
    ///
    /// A server may answer before it has read everything. Nobody listens then, and soon after each `send`
    /// fails: once what it sends has to wait, or is 1 KiB further. [`finish`](Self::finish) has the response.
    ///
    /// # Errors
    ///
    /// The status with which the server, or the deadline, has ended the call. CANCELLED if the server has
    /// ended it with a response: call `finish`. RESOURCE_EXHAUSTED if the message is over
    /// `max_send_message_size`; nothing is sent, and the call goes on. FAILED_PRECONDITION after
    /// [`half_close`](Self::half_close).
    pub async fn send(&mut self, message: Q) -> Result<(), Status> {
        let len = message.encoded_len();
        let is_late = self.sender.as_ref().is_some_and(Sender::has_expired);
        let is_look_due = self.is_look_due(len) || is_late || self.messages.is_cancelled();
        poll_fn(|cx| {
            if is_look_due && self.messages.poll_end(cx).is_ready() {
                return self.poll_told(cx).map(Err);
            }
            let Some(sender) = &mut self.sender else {
                return Poll::Ready(Err(half_closed()));
            };
            match sender.poll_write(&message, len, cx) {
                Poll::Ready(Ok(encoded)) => Poll::Ready(encoded),
                // The receiving half is asked whenever sending has to wait: it hears of the end first.
                Poll::Ready(Err(ReaderGone)) | Poll::Pending => self.poll_told(cx).map(Err),
            }
        })
        .await
    }

    /// Ready when the call has ended, with what a caller is told who sends after that: each further message
    /// the same, at once.
    fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let end = ready!(self.messages.poll_end(cx));
        ready!(poll_coop(cx));
        Poll::Ready(told(end))
    }

    /// Whether to ask the receiving half before a message of `len` bytes is sent: a pipe that has room
    /// says nothing of the end of the call.
    fn is_look_due(&mut self, len: usize) -> bool {
        let left = self.until_look.checked_sub(len.saturating_add(EACH));
        self.until_look = left.unwrap_or(LOOK_EVERY);
        left.is_none()
    }

    /// Sends everything that `messages` yields.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), also while the next message is waited for; what is left of `messages` is
    /// dropped.
    pub async fn send_all(&mut self, messages: impl Stream<Item = Q>) -> Result<(), Status> {
        let mut messages = pin!(messages);
        while let Some(message) = next_of(messages.as_mut(), |cx| self.poll_told(cx)).await? {
            self.send(message).await?;
        }
        Ok(())
    }

    /// Waits for the head of the response, which may come long before the response, and gives its metadata.
    /// Requests can be sent before and after.
    ///
    /// # Errors
    ///
    /// The status with which the call ended, if it ended badly without a head.
    pub async fn head(&mut self) -> Result<&Metadata, Status> {
        poll_fn(|cx| self.messages.poll_head(cx)).await?;
        Ok(self.messages.head())
    }

    /// Says that there are no more messages, without waiting for the response: the half-close of a call.
    /// [`finish`](Self::finish) waits for it. The second time it does nothing.
    pub fn half_close(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.finish();
        }
    }

    /// Says that there are no more messages, and waits for the response.
    ///
    /// # Errors
    ///
    /// The status with which the call ended.
    pub async fn finish(mut self) -> Result<Response<R>, Status> {
        self.half_close();
        poll_fn(|cx| self.messages.poll_only(cx)).await
    }

    /// Cancels the call: its stream is reset with CANCEL at once, and the server drops the handler.
    ///
    /// Nothing more can be sent. [`finish`](Self::finish) returns CANCELLED, whose [`Status::response_metadata`] has
    /// the metadata of the response's head if that had arrived; if the response had arrived completely,
    /// it returns the response. To cancel from elsewhere, see [`CancelHandle`](crate::CancelHandle).
    pub fn cancel(&mut self) {
        self.messages.cancel();
    }

    /// Whether the messages that follow are compressed: see [`Sender::compress`].
    pub fn compress(&mut self, compress: Compress) {
        if let Some(sender) = &mut self.sender {
            sender.compress(compress);
        }
    }
}

/// What a sender is told of the end of its call.
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
