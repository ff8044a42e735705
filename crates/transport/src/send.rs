//! Sends a body on a stream, as fast as the peer gives window and no faster.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as _;
use trunkline_codec::Status;

use crate::body::Body;
use crate::header_lists::HeaderLists;

/// How much of a large body is given to h2 at a time, in bytes, once it takes some. That may be more
/// than its buffer and the window hold: it is in memory either way, and the call is woken less
/// often. One write of the connection carries as much.
const STEP: usize = 256 * 1024;

/// How much of the end of a body goes to h2 only as far as it takes it, in bytes: what is here can
/// still be taken back when the deadline passes, and trailers leave with it.
const KEPT_BACK: usize = 64 * 1024;

/// A body on its way out.
#[derive(Debug)]
pub(crate) struct SendBody {
    stream: SendStream<Bytes>,
    body: Body,
    /// Taken from the body, and waiting for window.
    pending: Bytes,
    /// What is left of the step that is being given to h2.
    step: usize,
    /// Given to h2 since it last took some: it may still be there, besides what h2 holds anyway.
    ahead: usize,
    /// Something of the body is with h2.
    has_sent: bool,
    /// END_STREAM went out with the last DATA frame.
    ended: bool,
    /// Something has come out of the body.
    has_taken: bool,
}

/// Why a body was not sent to its end.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The peer reset the stream, or the connection is gone. Nobody reads any more.
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

    /// True if part of what was taken from the body is still to be sent, and not all of it: a status
    /// now would cut a message in two.
    pub(crate) fn is_mid_chunk(&self) -> bool {
        self.has_sent && !self.pending.is_empty()
    }

    /// Returns how many bytes are in memory because the peer gives no window, and `waker` hears if that
    /// becomes much more; none while it is the body that is waited for.
    pub(crate) fn buffered(&mut self, waker: &Waker) -> usize {
        match self.pending.is_empty() {
            true => 0,
            false => self.ahead + self.pending.len() + self.body.buffered(waker),
        }
    }

    /// The body, if nothing has come out of it: another stream can have it.
    pub(crate) fn into_unread(self) -> Option<Body> {
        (!self.has_taken).then_some(self.body)
    }

    /// Takes the body out, and the handler that may be inside.
    pub(crate) fn take_body(&mut self) -> Body {
        std::mem::take(&mut self.body)
    }

    pub(crate) fn stream(&mut self) -> &mut SendStream<Bytes> {
        &mut self.stream
    }

    // Way of a unary call, server 16: sends message and trailers, under flow control.
    /// Ready when the body and its end are with h2, or when that has become pointless.
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

    /// How much of what waits goes out now, if h2 takes `capacity` of it, which is not all.
    #[cold]
    fn next_step(&mut self, capacity: usize) -> usize {
        if self.step == 0 {
            self.step = STEP;
        }
        // The end of a body that is still being written is that of what there is.
        let left = self.pending.len() + self.body.full_size().unwrap_or(0);
        let ahead = self.step.min(left.saturating_sub(KEPT_BACK));
        if ahead == 0 {
            self.step = 0;
        }
        capacity.max(ahead).min(self.pending.len())
    }

    /// Ready when h2 takes some of what waits, with how much.
    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        // Reserved only while there is something to send: capacity that an idle stream holds is
        // taken from those that could use it, and can stop them for ever.
        self.stream.reserve_capacity(self.pending.len());
        loop {
            let capacity = self.stream.capacity();
            if capacity > 0 {
                self.ahead = 0;
                return Poll::Ready(Ok(capacity));
            }
            // h2 may also say "ready" with nothing to give (h2#579).
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

    /// An end without trailers, unless it went out with the last DATA frame.
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
