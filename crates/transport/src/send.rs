//! Sends a body on a stream, as fast as the peer gives window and no faster.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as _;
use trunkline_codec::Status;

use crate::body::Body;

/// How much of what waits is given to h2 at a time, in bytes, once it takes some. That may be more
/// than its buffer and the window hold: it is in memory either way, and h2 asks for less of it less
/// often. What one write of the connection carries.
const STEP: usize = 256 * 1024;

/// A body on its way out.
#[derive(Debug)]
pub(crate) struct SendBody {
    stream: SendStream<Bytes>,
    body: Body,
    /// Taken from the body, and waiting for window.
    pending: Bytes,
    /// END_STREAM went out with the last DATA frame.
    ended: bool,
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
            ended: false,
        }
    }

    /// Whether part of what was taken from the body is still to be sent: a status now would cut a
    /// message in two.
    pub(crate) fn is_mid_chunk(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Lets go of the body, and of the handler that may be inside.
    pub(crate) fn drop_body(&mut self) {
        self.body = Body::empty();
    }

    pub(crate) fn stream(&mut self) -> &mut SendStream<Bytes> {
        &mut self.stream
    }

    /// Ready when the body and its end are with h2, or when that has become pointless.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
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
                        self.pending = data;
                        is_waiting = self.body.is_waiting();
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
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
        // Reserved only while there is something to send: capacity that an idle stream holds is
        // taken from those that could use it, and can stop them for ever.
        self.stream.reserve_capacity(self.pending.len());
        while self.stream.capacity() == 0 {
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
        let n = self.stream.capacity().max(STEP).min(self.pending.len());
        let chunk = self.pending.split_to(n);
        self.ended = self.pending.is_empty() && self.body.is_end_stream();
        Poll::Ready(
            self.stream
                .send_data(chunk, self.ended)
                .map_err(|_| SendError::PeerGone),
        )
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
