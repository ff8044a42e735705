//! Sends a body on a stream under flow control.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as _;
use trunkline_codec::Status;

use crate::body::Body;
use crate::header_lists::HeaderLists;

/// The bytes of a large body that are passed to h2 at a time, once it has capacity. They can exceed its
/// buffer and the window: the bytes are in memory anyway, and the call wakes up less often. One write of
/// the connection has the same size.
const STEP: usize = 256 * 1024;

/// The bytes at the end of a body that are passed to h2 only within its capacity. They can still be
/// withdrawn if the deadline passes, and the trailers follow them directly.
const KEPT_BACK: usize = 64 * 1024;

/// A body on its way out.
#[derive(Debug)]
pub(crate) struct SendBody {
    stream: SendStream<Bytes>,
    body: Body,
    /// A chunk of the body that waits for window. Single chunks need no queue here: h2 queues the frames
    /// of a stream, and the bodies gather small messages (see `PipeState` and `IncomingState`).
    pending: Bytes,
    /// The rest of the current step.
    step: usize,
    /// The bytes passed to h2 since it last had capacity, which it may still buffer.
    ahead: usize,
    /// Part of the body has been passed to h2.
    has_sent: bool,
    /// The last DATA frame carried END_STREAM.
    ended: bool,
    /// Something has been read from the body.
    has_taken: bool,
}

/// The reason why a body was not sent to its end.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The peer reset the stream, or the connection has ended.
    PeerGone,
    /// The body itself failed.
    Body(Status),
}

impl SendBody {
    pub(crate) fn new(stream: SendStream<Bytes>, body: Body) -> Self {
        Self {
            stream,
            body,
            pending: Bytes::new(),
            step: 0,
            ahead: 0,
            has_sent: false,
            ended: false,
            has_taken: false,
        }
    }

    /// Returns whether a chunk has been sent in part: a status now would truncate a message.
    pub(crate) fn is_mid_chunk(&self) -> bool {
        self.has_sent && !self.pending.is_empty()
    }

    /// Returns the bytes buffered because the peer grants no window, or 0 while waiting for the body.
    /// Wakes `waker` if they grow considerably.
    pub(crate) fn buffered(&mut self, waker: &Waker) -> usize {
        match self.pending.is_empty() {
            true => 0,
            false => self.ahead + self.pending.len() + self.body.buffered(waker),
        }
    }

    /// Returns the body if nothing was read from it, for use on another stream.
    pub(crate) fn into_unread(self) -> Option<Body> {
        (!self.has_taken).then_some(self.body)
    }

    /// Takes the body, which can contain a running handler.
    pub(crate) fn take_body(&mut self) -> Body {
        std::mem::take(&mut self.body)
    }

    pub(crate) fn stream(&mut self) -> &mut SendStream<Bytes> {
        &mut self.stream
    }

    // Way of a unary call, server 16: sends message and trailers, under flow control.
    /// Ready when the body and its end have been passed to h2, or the stream has failed.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        header_lists: &HeaderLists,
    ) -> Poll<Result<(), SendError>> {
        let mut is_waiting = false;
        loop {
            while !self.pending.is_empty() {
                ready!(self.poll_send_pending(cx))?;
            }
            if is_waiting {
                return self.poll_reset(cx);
            }
            if self.body.is_end_stream() {
                return Poll::Ready(self.send_end());
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return self.poll_reset(cx),
                Poll::Ready(None) => return Poll::Ready(self.send_end()),
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Err(SendError::Body(status))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.has_taken = true;
                        self.pending = data;
                        is_waiting = self.body.is_waiting();
                    }
                    Err(frame) => {
                        self.has_taken = true;
                        let mut trailers = frame.into_trailers().unwrap_or_default();
                        header_lists.fit_trailers(&mut trailers);
                        return Poll::Ready(
                            self.stream
                                .send_trailers(trailers)
                                .map_err(|_| SendError::PeerGone),
                        );
                    }
                },
            }
        }
    }

    fn poll_send_pending(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let capacity = match self.step {
            0 => ready!(self.poll_capacity(cx))?,
            _ => self.stream.capacity(),
        };
        let n = match capacity >= self.pending.len() {
            true => self.pending.len(),
            false => self.next_step(capacity),
        };
        self.step = self.step.saturating_sub(n);
        if n == 0 {
            return Poll::Ready(Ok(()));
        }
        self.ahead += n;
        self.has_sent = true;
        let chunk = self.pending.split_to(n);
        self.ended = self.pending.is_empty() && self.body.is_end_stream();
        Poll::Ready(
            self.stream
                .send_data(chunk, self.ended)
                .map_err(|_| SendError::PeerGone),
        )
    }

    /// Returns the bytes to send now, if h2's `capacity` does not cover the pending chunk.
    #[cold]
    fn next_step(&mut self, capacity: usize) -> usize {
        if self.step == 0 {
            self.step = STEP;
        }
        // A body that is still being written ends, for this purpose, with its current bytes.
        let left = self.pending.len() + self.body.full_size().unwrap_or(0);
        let ahead = self.step.min(left.saturating_sub(KEPT_BACK));
        if ahead == 0 {
            self.step = 0;
        }
        capacity.max(ahead).min(self.pending.len())
    }

    /// Ready with the capacity when h2 accepts some bytes of the pending chunk.
    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        // Capacity is reserved only while data is pending: an idle stream that holds capacity can block
        // the other streams forever.
        self.stream.reserve_capacity(self.pending.len());
        loop {
            let capacity = self.stream.capacity();
            if capacity > 0 {
                self.ahead = 0;
                return Poll::Ready(Ok(capacity));
            }
            // h2 can also return Ready without any capacity (h2#579).
            match self.stream.poll_capacity(cx) {
                Poll::Pending => {
                    ready!(self.poll_reset(cx))?;
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(SendError::PeerGone)),
            }
        }
    }

    /// Ends the stream without trailers, unless the last DATA frame has done so.
    fn send_end(&mut self) -> Result<(), SendError> {
        if self.ended {
            return Ok(());
        }
        self.stream
            .send_data(Bytes::new(), true)
            .map_err(|_| SendError::PeerGone)
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        match self.stream.poll_reset(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(Err(SendError::PeerGone)),
        }
    }

    pub(crate) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }
}
