//! A stream of messages that comes in.

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

/// The bytes that [`Streaming::channel`] holds before its sender waits.
const CHANNEL_SIZE: usize = 64 * 1024;

/// The largest message of a stream without a connection: what the prefix of a message can say.
const MESSAGE_SIZE_MAX: usize = u32::MAX as usize;

/// The messages that come in: responses on a client, requests on a server.
///
/// It is also a [`Stream`] of results. On a client, dropping it before its end cancels the call.
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
/// // As a test calls it:
/// let messages = Streaming::from_messages(["a".to_owned(), "b".to_owned()]);
/// assert_eq!(count(Request::new(messages)).await?, 2);
/// # Ok(()) }
/// ```
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

    /// A stream of `messages` that then ends well, for a test that calls a handler.
    ///
    /// The messages are encoded at once and decoded as they are read.
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

    /// A sender, and the stream of what it sends, without a connection: for a test that calls a
    /// handler.
    ///
    /// The test has one end and the handler the other. The messages pass through the same pipe as in
    /// a call, which holds 64 KiB: after that, the sender waits until the stream is read.
    /// [`Sender::finish`] ends the stream; if the sender is dropped before, the stream ends with
    /// CANCELLED, as one whose client has gone.
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

    /// Waits for the next message; none if the stream has ended well.
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
    /// Cancels the call of these responses, on a client: its stream is reset with CANCEL at once, and
    /// the server drops the handler. On a server it ends the requests.
    ///
    /// Messages that had arrived, up to 16 MiB of them, can still be read; then comes CANCELLED, whose
    /// [`Status::response_metadata`] has the metadata of the response's head. A call whose response had arrived
    /// completely ends as the server ended it. Interceptors that still wait for the head are dropped.
    ///
    /// To cancel from elsewhere, see [`CancelHandle`](crate::CancelHandle).
    pub fn cancel(&mut self) {
        self.messages.cancel();
    }

    /// Waits for the head of the response, which may come before the first message, and returns its
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

    /// Returns true if the last message came compressed.
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
