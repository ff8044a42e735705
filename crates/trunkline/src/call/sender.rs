//! A stream of messages that goes out.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::pin;
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

/// Messages from this size on get a buffer of their own, which is passed on without a copy.
const OWN_BUFFER_FROM: usize = 8 * 1024;

/// The messages that go out: requests on a client, responses on a server.
///
/// On a client, [`finish`](Self::finish) says that there are no more. Dropping it without that
/// cancels the call: half of a request is not a request.
pub struct Sender<T> {
    pipe: PipeWriter,
    compression: Compression,
    max_size: usize,
    deadline: Option<Deadline>,
    /// Observers or interceptors want to know of each message.
    is_watched: bool,
    takes: PhantomData<fn(T)>,
}

enum Compression {
    /// A server's: the handler decides, through its response.
    ResponseHandle(ResponseHandle),
    /// A client's: the call's encoding, used or not.
    Call {
        compressor: Option<Arc<dyn Compressor>>,
        /// From which size on the next message is compressed.
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
            Self::ResponseHandle(response) => response.recorder(),
            Self::Call { recorder, .. } => recorder.as_ref(),
        }
    }

    fn message_hooks(&self) -> Option<&MessageHooks> {
        match self {
            Self::ResponseHandle(response) => response.message_hooks(),
            Self::Call { hooks, .. } => hooks.as_deref(),
        }
    }

    fn compressor(&self, len: usize) -> Option<&dyn Compressor> {
        match self {
            Self::ResponseHandle(response) => response.compressor(len),
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
            compression: Compression::ResponseHandle(response),
            max_size,
            deadline: None,
            takes: PhantomData,
        }
    }

    /// Sets the hooks of interceptors, on a client.
    pub(crate) fn set_message_hooks(&mut self, message_hooks: MessageHooks) {
        if let Compression::Call { hooks, .. } = &mut self.compression {
            *hooks = Some(Box::new(message_hooks));
            self.is_watched = true;
        }
    }

    /// Sends a message. Waits while `pipe_size` bytes (64 KiB) or more wait for HTTP/2 on a client, or
    /// `gather_size` (16 KiB) on a server, counted before the message.
    ///
    /// Messages that are sent without waiting in between leave together. If the future is dropped
    /// the message has not been sent.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED if the message is over `max_send_message_size`; nothing is sent, and the
    /// call goes on. DEADLINE_EXCEEDED if the deadline has passed. CANCELLED if the call has ended and
    /// nobody listens any more: the receiving half has its status.
    pub async fn send(&mut self, message: T) -> Result<(), Status> {
        let len = message.encoded_len();
        poll_fn(|cx| {
            // A pipe with room says nothing of the time.
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

    /// Sends everything that `messages` gives, and returns when it ends.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), also while the next message is waited for; what is left of `messages` is
    /// dropped.
    pub async fn send_all(&mut self, messages: impl Stream<Item = T>) -> Result<(), Status> {
        let mut messages = pin!(messages);
        loop {
            let next = poll_fn(|cx| match messages.as_mut().poll_next(cx) {
                Poll::Ready(next) => Poll::Ready(Ok(next)),
                Poll::Pending => self.poll_ended(cx).map(Err),
            });
            match next.await? {
                Some(message) => self.send(message).await?,
                None => return Ok(()),
            }
        }
    }

    fn poll_send(&mut self, message: &T, len: usize, cx: &Context<'_>) -> Poll<Result<(), Status>> {
        match ready!(self.poll_write(message, len, cx)) {
            Ok(encoded) => Poll::Ready(encoded),
            Err(ReaderGone) => poll_told(self.ended(), cx).map(Err),
        }
    }

    /// Encodes `message`, of `len` bytes, into the pipe when there is room for it. The inner result is
    /// that of the encoding.
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

    /// As [`poll_write`](Self::poll_write), with the size of what was written taken down.
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

/// Ready with what a caller is told who sends after the end of the call: each further message the same,
/// at once.
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
    /// Costs a call without a deadline nothing.
    #[inline]
    pub(crate) fn has_expired(&self) -> bool {
        self.deadline.as_ref().is_some_and(Deadline::has_passed)
    }

    /// Ready once the deadline has passed, with what to tell; else `cx` hears of it.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let deadline = self.deadline.as_mut();
        match deadline.is_some_and(|deadline| deadline.poll(cx).is_ready()) {
            true => poll_told(late(), cx),
            false => Poll::Pending,
        }
    }

    /// Ready when the call has ended or its deadline has passed, with what to tell.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        match self.pipe.poll_closed(cx) {
            Poll::Ready(()) => Poll::Ready(self.ended()),
            Poll::Pending => self.poll_deadline(cx),
        }
    }

    #[cold]
    fn ended(&self) -> Status {
        // Whoever hears of the deadline first, it is not told as a cancel.
        match self.has_expired() {
            true => Status::deadline_exceeded("the deadline passed, and the call has ended"),
            false => Status::cancelled(
                "the call has ended, and nobody listens: the receiving half has its status",
            ),
        }
    }

    /// Says that there are no more messages. On a server this does nothing: there the end is when
    /// the handler returns.
    pub fn finish(self) {
        if let Compression::Call {
            recorder: Some(recorder),
            ..
        } = &self.compression
        {
            recorder.half_closed();
        }
        self.pipe.finish(None);
    }

    /// Whether the messages that follow are compressed. On a client, `On` by default for a call that
    /// was given an encoding with [`Call::compress`](crate::Call::compress), `Auto` for one that has that of its
    /// [channel](crate::ChannelBuilder::compress), and without effect for any other; on a server the
    /// same as [`ResponseHandle::compress`].
    pub fn compress(&mut self, compress: Compress) {
        match &mut self.compression {
            Compression::ResponseHandle(response) => response.compress(compress),
            Compression::Call {
                compress_from,
                compress_above,
                ..
            } => *compress_from = compress.least_size(*compress_above),
        }
    }

    /// Ready when the peer has ended the call or is gone, or when the deadline has passed: nobody takes
    /// what is sent.
    pub async fn closed(&mut self) {
        poll_fn(|cx| self.poll_ended(cx).map(drop)).await;
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}
