//! The receiving half of a stream of messages.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use trunkline_codec::{Expect, Metadata, Reader, Status};
use trunkline_transport::{Body, PipeReader, pipe};

use crate::call::message::{Message, frame_of};
use crate::call::messages::Messages;
use crate::call::receive::Receive;
use crate::call::response_handle::ResponseHandle;
use crate::call::sender::Sender;

/// The number of bytes that [`Streaming::channel`] holds before its sender waits.
const CHANNEL_SIZE: usize = 64 * 1024;

/// The largest message of a stream without a connection, which is the largest that a prefix can express.
const MESSAGE_SIZE_MAX: usize = u32::MAX as usize;

/// The receiving half of a stream of messages: responses on a client, requests on a server.
///
/// It also implements [`Stream`](https://docs.rs/futures-core/0.3/futures_core/stream/trait.Stream.html),
/// whose items are results. On a client, dropping it before its end cancels the call.
///
/// ```
/// use trunkline::{Request, Result, Streaming};
///
/// async fn count(mut requests: Request<Streaming<String>>) -> Result<u64> {
///     let mut count = 0;
///     while let Some(_message) = requests.message().await? {
///         count += 1;
///     }
///     Ok(count)
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// // In a test:
/// let messages = Streaming::from_messages(["a".to_owned(), "b".to_owned()]);
/// assert_eq!(count(Request::new(messages)).await?, 2);
/// # Ok(()) }
/// ```
pub struct Streaming<T> {
    messages: Messages,
    /// The end has been returned as an item of the `Stream`.
    is_told: bool,
    message: PhantomData<fn() -> T>,
}

impl<T: Message> Streaming<T> {
    pub(crate) fn new(messages: Messages) -> Self {
        Self {
            messages,
            is_told: false,
            message: PhantomData,
        }
    }

    /// Creates a stream of `messages` that ends successfully, for a test that calls a handler.
    pub fn from_messages(messages: impl IntoIterator<Item = T>) -> Self {
        let (mut writer, reader) = pipe(usize::MAX);
        for message in messages {
            match frame_of(&message, message.encoded_len(), None, MESSAGE_SIZE_MAX) {
                Ok(frame) => writer.write_pieces(frame),
                Err(status) => writer.fail(status),
            }
        }
        writer.finish(None);
        Self::of_pipe(reader)
    }

    /// Creates a sender and a stream of its messages, without a connection, for a test that calls a
    /// handler.
    ///
    /// The test uses one of them and the handler the other. As in a call, sent messages are queued until they
    /// are read, and [`Sender::send`] waits while the queue contains 64 KiB or more, the size of a client's
    /// queue by default. [`Sender::finish`] ends the stream. If the sender is dropped without it, the stream
    /// ends with CANCELLED, as if the client had disconnected.
    ///
    /// ```
    /// use trunkline::{Request, Result, Sender, Streaming};
    ///
    /// async fn spell(request: Request<String>, responses: &mut Sender<String>) -> Result<()> {
    ///     for letter in request.chars() {
    ///         responses.send(letter.to_string()).await?;
    ///     }
    ///     Ok(())
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
    /// let (mut sender, mut responses) = Streaming::channel();
    /// spell(Request::new("hi".to_owned()), &mut sender).await?;
    /// sender.finish();
    /// assert_eq!(responses.message().await?.as_deref(), Some("h"));
    /// assert_eq!(responses.message().await?.as_deref(), Some("i"));
    /// assert_eq!(responses.message().await?, None);
    /// # Ok(()) }
    /// ```
    pub fn channel() -> (Sender<T>, Self) {
        let (writer, reader) = pipe(CHANNEL_SIZE);
        let response = ResponseHandle::new(None, 0, None);
        let sender = Sender::of_response(writer, response, MESSAGE_SIZE_MAX);
        (sender, Self::of_pipe(reader))
    }

    fn of_pipe(reader: PipeReader) -> Self {
        let messages = Reader::request(Expect::Many, MESSAGE_SIZE_MAX, None);
        let receive = Receive::requests(messages, Body::pipe(reader));
        Self::new(Messages::new(receive, None))
    }

    /// Waits for the next message. Returns `None` at the end of a stream that has ended successfully.
    ///
    /// Dropping the future does not lose a message.
    ///
    /// # Errors
    ///
    /// On a client, the status with which the call ended, whichever side ended it. Every further call of
    /// this method returns the same status.
    ///
    /// On a server, the error in the request, such as RESOURCE_EXHAUSTED for a message that exceeds
    /// `max_recv_message_size`, or INTERNAL for a message that cannot be decoded.
    pub async fn message(&mut self) -> Result<Option<T>, Status> {
        poll_fn(|cx| self.messages.poll_decoded(cx)).await
    }
}

impl<T> Streaming<T> {
    /// Cancels the call on a client. The stream is reset with CANCEL immediately, and the server drops
    /// the handler. On a server, this method only ends the stream of requests.
    ///
    /// Messages that have already arrived, up to 16 MiB, can still be read. Then the stream ends with
    /// CANCELLED, and [`Status::response_metadata`] returns the metadata in the head of the response, if
    /// the head has arrived. If the whole response has already arrived, the stream ends with the server's
    /// status instead.
    ///
    /// If the head has not arrived, the interceptors of the channel do not run to their end; their
    /// futures are dropped.
    ///
    /// To cancel from another part of the program, use [`CancelHandle`](crate::CancelHandle).
    pub fn cancel(&mut self) {
        self.messages.cancel();
    }

    /// Waits for the head of the response, which can arrive before the first message, and returns the
    /// metadata in it. On a server, use [`Request::metadata`](crate::Request::metadata) instead.
    ///
    /// # Errors
    ///
    /// The status of the call, if it failed without a head.
    pub async fn head(&mut self) -> Result<&Metadata, Status> {
        poll_fn(|cx| self.messages.poll_head(cx)).await?;
        Ok(self.messages.head())
    }

    /// Returns the metadata in the trailers of the response after the end of the stream, and `None`
    /// before.
    pub fn trailers(&self) -> Option<&Metadata> {
        self.messages.trailers()
    }

    /// Returns true if the last message was compressed.
    pub fn is_compressed(&self) -> bool {
        self.messages.is_compressed()
    }
}

impl<T: Message> Stream for Streaming<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // A `Stream` returns an error once, and then `None`.
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
