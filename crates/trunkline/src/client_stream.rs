//! A client's call of many requests and one reply.

use std::fmt;
use std::future::poll_fn;
use std::task::Poll;

use futures_core::Stream;
use trunkline_codec::Status;
use trunkline_transport::ReaderGone;

use crate::message::Message;
use crate::receive::Receive;
use crate::reply::Compress;
use crate::response::Response;
use crate::sender::Sender;

/// A call that sends many requests and gets one reply.
///
/// Dropping it cancels the call.
pub struct ClientStream<Q, R> {
    sender: Sender<Q>,
    receive: Receive,
    gives: std::marker::PhantomData<fn() -> R>,
}

impl<Q: Message, R: Message> ClientStream<Q, R> {
    pub(crate) fn new(sender: Sender<Q>, receive: Receive) -> Self {
        Self {
            sender,
            receive,
            gives: std::marker::PhantomData,
        }
    }

    /// Sends a message. Waits while more bytes are on their way than the server takes.
    ///
    /// A server may reply before it has read everything: then messages go nowhere, and
    /// [`finish`](Self::finish) has the reply.
    ///
    /// # Errors
    ///
    /// The status with which the server, or the deadline, has ended the call. RESOURCE_EXHAUSTED
    /// if the message is over `max_send_message_size`; nothing is sent, and the call goes on.
    pub async fn send(&mut self, message: Q) -> Result<(), Status> {
        poll_fn(|cx| match self.sender.poll_write(&message, cx) {
            Poll::Ready(Ok(encoded)) => Poll::Ready(encoded),
            // The receiving half is asked whenever sending has to wait: it hears of the end first.
            Poll::Ready(Err(ReaderGone)) | Poll::Pending => self.receive.poll_end(cx),
        })
        .await
    }

    /// Sends everything that `messages` gives.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn send_all(&mut self, messages: impl Stream<Item = Q>) -> Result<(), Status> {
        let mut messages = std::pin::pin!(messages);
        while let Some(message) = poll_fn(|cx| messages.as_mut().poll_next(cx)).await {
            self.send(message).await?;
        }
        Ok(())
    }

    /// Says that there are no more messages, and waits for the reply.
    ///
    /// # Errors
    ///
    /// The status with which the call ended.
    pub async fn finish(mut self) -> Result<Response<R>, Status> {
        self.sender.finish();
        poll_fn(|cx| self.receive.poll_only(cx)).await
    }

    /// Whether the messages that follow are compressed: see [`Sender::compress`].
    pub fn compress(&mut self, compress: Compress) {
        self.sender.compress(compress);
    }
}

impl<Q, R> fmt::Debug for ClientStream<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientStream").finish_non_exhaustive()
    }
}
