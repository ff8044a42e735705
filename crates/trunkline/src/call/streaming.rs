//! A stream of messages that comes in.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use trunkline_codec::{Metadata, Status};

use crate::call::message::Message;
use crate::call::messages::Messages;

/// The messages that come in: responses on a client, requests on a server.
///
/// It is also a [`Stream`] of results. On a client, dropping it before its end cancels the call.
pub struct Streaming<T> {
    messages: Messages,
    /// The end has been given out as an item of the `Stream`.
    is_told: bool,
    gives: PhantomData<fn() -> T>,
}

impl<T: Message> Streaming<T> {
    pub(crate) fn new(messages: Messages) -> Self {
        Self {
            messages,
            is_told: false,
            gives: PhantomData,
        }
    }

    /// The next message; none when the stream has ended well.
    ///
    /// No message is lost if the future is dropped.
    ///
    /// # Errors
    ///
    /// On a client the status with which the call ended, whoever ended it; from then on always the
    /// same. On a server what is wrong with the request: RESOURCE_EXHAUSTED for a message over
    /// `max_recv_message_size`, INTERNAL for one that cannot be read.
    pub async fn message(&mut self) -> Result<Option<T>, Status> {
        poll_fn(|cx| self.messages.poll_decoded(cx)).await
    }
}

impl<T> Streaming<T> {
    /// Waits for the head of the response, which may come before the first message, and gives its
    /// metadata. On a server there is no head to wait for: see `Request::metadata`.
    ///
    /// # Errors
    ///
    /// The status with which the call ended, if it ended badly without a head.
    pub async fn head(&mut self) -> Result<&Metadata, Status> {
        poll_fn(|cx| self.messages.poll_head(cx)).await?;
        Ok(self.messages.head())
    }

    /// The trailers of the response, once the stream has ended.
    pub fn trailers(&self) -> Option<&Metadata> {
        self.messages.trailers()
    }

    /// Whether the last message came compressed.
    pub fn is_compressed(&self) -> bool {
        self.messages.is_compressed()
    }
}

impl<T: Message> Stream for Streaming<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // A `Stream` says an error once, and then that it is over.
        if self.is_told {
            return Poll::Ready(None);
        }
        let next = self.messages.poll_decoded(cx).map(Result::transpose);
        self.is_told = matches!(next, Poll::Ready(Some(Err(_)) | None));
        next
    }
}

impl<T> fmt::Debug for Streaming<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaming").finish_non_exhaustive()
    }
}
