//! The sending half of a stream of messages.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
#[cfg(feature = "client")]
use tokio::time::Instant;
use trunkline_codec::{Compressor, Status, frame};
use trunkline_transport::{PipeWriter, ReaderGone, poll_coop};

use crate::call::compression::Compress;
use crate::call::deadline::{self, Deadline};
use crate::call::message::{Message, encode_frame, frame_of, record_sent};
use crate::call::message_hooks::{MessageHooks, hooked_frame};
use crate::call::response_handle::ResponseHandle;
use crate::observe::{MessageSize, Recorder};

/// Messages from this size, in bytes, get their own buffer, which is passed on without a copy.
const OWN_BUFFER_FROM: usize = 8 * 1024;

/// The sending half of a stream of messages: requests on a client, responses on a server.
///
/// On a client, [`finish`](Self::finish) ends the requests. Dropping the sender without it cancels the
/// call, because the request is incomplete. On a server, dropping the sender has no effect; the response
/// ends when the handler returns.
///
/// ```
/// use trunkline::{Request, Result, Sender};
///
/// async fn count(request: Request<u32>, responses: &mut Sender<u32>) -> Result<()> {
///     for number in 1..=*request {
///         responses.send(number).await?;
///     }
///     Ok(())
/// }
/// ```
pub struct Sender<T> {
    pipe: PipeWriter,
    compression: Compression,
    max_size: usize,
    deadline: Option<Deadline>,
    /// Observers or interceptors process each message.
    is_watched: bool,
    takes: PhantomData<fn(T)>,
}

enum Compression {
    /// On a server: the handler controls it through its response.
    Response(ResponseHandle),
    /// On a client: the compressor of the call, if any.
    Call {
        compressor: Option<Arc<dyn Compressor>>,
        /// The size from which the next message is compressed.
        compress_from: usize,
        compress_above: usize,
        recorder: Option<Arc<Recorder>>,
        hooks: Option<Box<MessageHooks>>,
    },
}

impl Compression {
    #[inline]
    fn recorder(&self) -> Option<&Arc<Recorder>> {
        match self {
            Self::Response(response) => response.recorder(),
            Self::Call { recorder, .. } => recorder.as_ref(),
        }
    }

    fn message_hooks(&self) -> Option<&MessageHooks> {
        match self {
            Self::Response(response) => response.message_hooks(),
            Self::Call { hooks, .. } => hooks.as_deref(),
        }
    }

    fn compressor(&self, len: usize) -> Option<&dyn Compressor> {
        match self {
            Self::Response(response) => response.compressor(len),
            Self::Call {
                compressor,
                compress_from,
                ..
            } if len >= *compress_from => compressor.as_deref(),
            Self::Call { .. } => None,
        }
    }
}

impl<T: Message> Sender<T> {
    #[cfg(feature = "client")]
    pub(crate) fn of_call(
        pipe: PipeWriter,
        (compressor, compress): (Option<Arc<dyn Compressor>>, Compress),
        deadline: Option<Instant>,
        limits: &trunkline_codec::MessageLimits,
        recorder: Option<Arc<Recorder>>,
    ) -> Self {
        let compression = Compression::Call {
            compressor,
            compress_from: compress.least_size(limits.compress_above),
            compress_above: limits.compress_above,
            recorder,
            hooks: None,
        };
        Self {
            pipe,
            is_watched: compression.recorder().is_some(),
            compression,
            max_size: limits.max_send_message_size,
            deadline: deadline.map(Deadline::new),
            takes: PhantomData,
        }
    }

    pub(crate) fn of_response(pipe: PipeWriter, response: ResponseHandle, max_size: usize) -> Self {
        Self {
            pipe,
            is_watched: response.recorder().is_some() || response.message_hooks().is_some(),
            compression: Compression::Response(response),
            max_size,
            deadline: None,
            takes: PhantomData,
        }
    }

    /// Bounds the sending by a deadline that interceptors have set, on a client.
    #[cfg(feature = "client")]
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = Some(Deadline::new(deadline));
    }

    /// Sets the hooks of interceptors, on a client.
    pub(crate) fn set_message_hooks(&mut self, message_hooks: MessageHooks) {
        if let Compression::Call { hooks, .. } = &mut self.compression {
            *hooks = Some(Box::new(message_hooks));
            self.is_watched = true;
        }
    }

    /// Sends a message. Messages that are sent without waiting in between are written to the connection
    /// together.
    ///
    /// If the peer reads slowly, sent messages are queued. Once the queue contains `pipe_size` bytes on a
    /// client (default: 64 KiB), or `gather_size` bytes on a server (default: 16 KiB), `send` waits until the
    /// queue has become shorter. Both sizes can be changed: see
    /// [`Http2Limits::pipe_size`](crate::limits::Http2Limits::pipe_size) and
    /// [`Http2Limits::gather_size`](crate::limits::Http2Limits::gather_size). The queue of
    /// [`Streaming::channel`](crate::Streaming::channel), for tests, has 64 KiB.
    ///
    /// If the future is dropped before it completes, the message is not sent.
    ///
    /// # Errors
    ///
    /// - RESOURCE_EXHAUSTED if the message exceeds `max_send_message_size`. The message is not sent, and the
    ///   call continues. A handler that returns this error with `?` ends the call with it.
    /// - DEADLINE_EXCEEDED if the deadline has passed.
    /// - CANCELLED if the call has ended. On a client, the status of the call is returned by its
    ///   [`Streaming`](crate::Streaming).
    pub async fn send(&mut self, message: T) -> Result<(), Status> {
        let len = message.encoded_len();
        poll_fn(|cx| {
            // The pipe does not check the deadline while it has room.
            if self.has_expired() {
                return poll_told(late(), cx).map(Err);
            }
            match self.poll_send(&message, len, cx) {
                Poll::Pending => self.poll_deadline(cx).map(Err),
                sent @ Poll::Ready(_) => sent,
            }
        })
        .await
    }

    /// Sends all messages of the stream `messages`, and completes when `messages` ends.
    ///
    /// # Errors
    ///
    /// The errors of [`send`](Self::send). If the call ends or its deadline passes while this method
    /// waits for the next message of `messages`, it returns the error immediately. The remaining messages
    /// are dropped.
    pub async fn send_all(&mut self, messages: impl Stream<Item = T>) -> Result<(), Status> {
        let mut messages = pin!(messages);
        while let Some(message) = next_of(messages.as_mut(), |cx| self.poll_ended(cx)).await? {
            self.send(message).await?;
        }
        Ok(())
    }

    fn poll_send(&mut self, message: &T, len: usize, cx: &Context<'_>) -> Poll<Result<(), Status>> {
        match ready!(self.poll_write(message, len, cx)) {
            Ok(encoded) => Poll::Ready(encoded),
            Err(ReaderGone) => poll_told(self.ended(), cx).map(Err),
        }
    }

    /// Encodes `message`, of `len` bytes, into the pipe when it has room. The inner result is that of the
    /// encoding.
    pub(crate) fn poll_write(
        &mut self,
        message: &T,
        len: usize,
        cx: &Context<'_>,
    ) -> Poll<Result<Result<(), Status>, ReaderGone>> {
        let (compressor, max_size) = (self.compression.compressor(len), self.max_size);
        if self.is_watched && self.compression.message_hooks().is_some() {
            ready!(self.pipe.poll_ready(cx))?;
            return Poll::Ready(Ok(self.write_hooked(message, len)));
        }
        if len < OWN_BUFFER_FROM {
            if self.is_watched {
                return self.poll_write_recorded(message, len, cx);
            }
            let mut encoded = Ok(());
            let written = self.pipe.poll_write_with(cx, |buffer| {
                encoded = encode_frame(message, len, compressor, max_size, buffer);
            });
            return written.map_ok(|()| encoded);
        }
        ready!(self.pipe.poll_ready(cx))?;
        let frame = frame_of(message, len, compressor, max_size);
        Poll::Ready(Ok(frame.map(|frame| {
            if let Some(recorder) = self.compression.recorder() {
                record_sent(recorder, message, MessageSize::of_frame(len, &frame));
            }
            self.pipe.write_pieces(frame);
        })))
    }

    /// Encodes `message` into a pipe that has room, after the hooks of interceptors have run.
    #[cold]
    fn write_hooked(&mut self, message: &T, len: usize) -> Result<(), Status> {
        let (compressor, max_size) = (self.compression.compressor(len), self.max_size);
        let hooks = self.compression.message_hooks();
        let frame = hooked_frame(hooks, message, len, compressor, max_size)?;
        if let Some(recorder) = self.compression.recorder() {
            record_sent(recorder, message, MessageSize::of_frame(len, &frame));
        }
        self.pipe.write_pieces(frame);
        Ok(())
    }

    /// Encodes `message` as [`poll_write`](Self::poll_write) does, and records its size.
    #[cold]
    fn poll_write_recorded(
        &mut self,
        message: &T,
        len: usize,
        cx: &Context<'_>,
    ) -> Poll<Result<Result<(), Status>, ReaderGone>> {
        let (compressor, max_size) = (self.compression.compressor(len), self.max_size);
        let (mut encoded, mut size) = (Ok(()), None);
        let written = self.pipe.poll_write_with(cx, |buffer| {
            let start = buffer.len();
            encoded = encode_frame(message, len, compressor, max_size, buffer);
            size = buffer.get(start).map(|&flag| MessageSize {
                size: len,
                wire_size: buffer.len() - start - frame::PREFIX_SIZE,
                is_compressed: flag == 1,
            });
        });
        if let (Some(recorder), Some(size)) = (self.compression.recorder(), size) {
            record_sent(recorder, message, size);
        }
        written.map_ok(|()| encoded)
    }
}

/// Waits for the next message to be sent, or with it for the end of the call, which is an error.
pub(crate) async fn next_of<S: Stream>(
    mut messages: Pin<&mut S>,
    mut poll_ended: impl FnMut(&mut Context<'_>) -> Poll<Status>,
) -> Result<Option<S::Item>, Status> {
    poll_fn(|cx| match messages.as_mut().poll_next(cx) {
        Poll::Ready(next) => Poll::Ready(Ok(next)),
        Poll::Pending => poll_ended(cx).map(Err),
    })
    .await
}

/// Completes with the status for a caller that sends after the end of the call, the same for each message.
/// Yields if the task has used up its budget.
#[cold]
fn poll_told(status: Status, cx: &Context<'_>) -> Poll<Status> {
    ready!(poll_coop(cx));
    Poll::Ready(status)
}

#[cold]
fn late() -> Status {
    deadline::exceeded("before the next message was sent")
}

impl<T> Sender<T> {
    /// Returns true if the deadline has passed. Does not read the clock for a call without a deadline.
    #[inline]
    pub(crate) fn has_expired(&self) -> bool {
        self.deadline.as_ref().is_some_and(Deadline::has_passed)
    }

    /// Completes with the status for the caller when the deadline has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let deadline = self.deadline.as_mut();
        match deadline.is_some_and(|deadline| deadline.poll(cx).is_ready()) {
            true => poll_told(late(), cx),
            false => Poll::Pending,
        }
    }

    /// Completes with the status for the caller when the call has ended or its deadline has passed.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        match self.pipe.poll_closed(cx) {
            Poll::Ready(()) => Poll::Ready(self.ended()),
            Poll::Pending => self.poll_deadline(cx),
        }
    }

    #[cold]
    fn ended(&self) -> Status {
        // An end at the deadline is never reported as cancelled, regardless of the side that ended the call.
        match self.has_expired() {
            true => Status::deadline_exceeded("the deadline passed, and the call has ended"),
            false => Status::cancelled("the call has ended; its receiving half returns the status"),
        }
    }

    /// Ends the stream of requests on a client (half-close). On a server, this has no effect, because the
    /// response ends when the handler returns.
    ///
    /// If an interceptor has rejected a message of the request (see
    /// [`Context::on_request_message`](crate::Context::on_request_message)), the request is incomplete. A client then
    /// resets the stream instead.
    pub fn finish(self) {
        if let Compression::Call {
            recorder, hooks, ..
        } = &self.compression
        {
            if let Some(status) = hooks.as_ref().and_then(|hooks| hooks.rejected()) {
                return self.pipe.fail(status);
            }
            if let Some(recorder) = recorder {
                recorder.half_closed();
            }
        }
        self.pipe.finish(None);
    }

    /// Selects which of the following messages are compressed.
    ///
    /// - On a server, this is the same as [`ResponseHandle::compress`].
    /// - On a client, the default is [`Compress::On`] if the call has a compressor of its own
    ///   ([`Call::compress`](crate::Call::compress)), and [`Compress::Auto`] if it uses the compressor of
    ///   its channel ([`ChannelBuilder::compress`](crate::ChannelBuilder::compress)). Without a
    ///   compressor, the method has no effect.
    pub fn compress(&mut self, compress: Compress) {
        match &mut self.compression {
            Compression::Response(response) => response.compress(compress),
            Compression::Call {
                compress_from,
                compress_above,
                ..
            } => *compress_from = compress.least_size(*compress_above),
        }
    }

    /// Waits until messages can no longer be delivered, because the peer has ended the call or
    /// disconnected, or because the deadline has passed.
    pub async fn closed(&mut self) {
        poll_fn(|cx| self.poll_ended(cx).map(drop)).await;
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}
