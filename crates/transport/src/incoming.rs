//! Received DATA of one stream, taken from h2 as it arrives.
//!
//! h2 uses about 265 bytes for each DATA frame that it buffers. The connection's task therefore moves the
//! frames immediately into one compact buffer for each stream, and releases window only as the reader
//! takes the bytes. At a client, this begins once the caller has the head of the response.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use http_body::Frame;
use trunkline_codec::Status;

use crate::client_send::RequestHandle;
use crate::connection_shared::{CallPermit, ConnectionShared};
use crate::limits::Http2Limits;
use crate::stream_limit::StreamPermit;
use crate::sync::lock;

/// The size below which chunks are copied together: a small chunk would keep the large read buffer alive
/// that contains it.
const COMPACT_BELOW: usize = 2 * 1024;

/// The receiving half of a stream, shared by its connection's task and its reader.
///
/// It is also the waker that h2 holds for the stream: when DATA arrives, it adds itself to the list of ready
/// streams in [`ConnectionShared`].
pub(crate) struct IncomingStream {
    shared: Arc<ConnectionShared>,
    state: Mutex<IncomingState>,
}

/// The queue of chunks resembles that of `PipeState`, and is a separate type because every step differs: here
/// the chunks come from h2, a lone small chunk is passed on without a copy, and the tail releases its memory
/// when it is read. The pipe encodes messages into its tail, and keeps the rest of its allocation.
#[derive(Default)]
struct IncomingState {
    /// `None` after the stream has ended or its reader was dropped. h2 holds this stream as a waker, so the
    /// reader must take this value to break the reference cycle.
    recv: Option<RecvStream>,
    chunks: VecDeque<Bytes>,
    /// Small chunks that follow those in `chunks`.
    tail: BytesMut,
    end: Option<IncomingEnd>,
    reader: Option<Waker>,
    /// The bytes that the reader has taken and whose window is not released yet.
    unreleased: usize,
    /// At a client, counts the stream against the server's limit until it has ended, read or not.
    stream_permit: Option<StreamPermit>,
    /// The unsent rest of the request, which the end of the response stops.
    request: Option<SendStream<Bytes>>,
    sending: Option<RequestHandle>,
}

enum IncomingEnd {
    Eof,
    Trailers(HeaderMap),
    Failed(Status),
}

/// The content of a stream when its body is created: all of it, or the beginning.
pub(crate) enum ReceivedBody {
    Full {
        data: Bytes,
        trailers: Option<HeaderMap>,
    },
    Open(IncomingBody),
}

impl Wake for IncomingStream {
    fn wake(self: Arc<Self>) {
        let shared = self.shared.clone();
        shared.stream_ready(self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.clone().wake();
    }
}

impl fmt::Debug for IncomingStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl IncomingStream {
    /// Takes all data that h2 has for this stream. Called by the connection's task.
    pub(crate) fn drain(self: &Arc<Self>) {
        let reader = {
            let mut state = lock(&self.state);
            state.drain(&self.shared, &Waker::from(self.clone()));
            match state.is_readable() {
                true => state.reader.take(),
                false => None,
            }
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl IncomingState {
    fn drain(&mut self, shared: &ConnectionShared, waker: &Waker) {
        let mut cx = Context::from_waker(waker);
        while let Some(recv) = &mut self.recv {
            let end = match recv.poll_data(&mut cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(chunk))) => {
                    self.push(chunk);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => Err(error),
                Poll::Ready(None) => match recv.poll_trailers(&mut cx) {
                    Poll::Pending => return,
                    Poll::Ready(end) => end,
                },
            };
            let request = self.request.take();
            let end = match end {
                Ok(trailers) => {
                    let lists = shared.header_lists();
                    let checked = lists.check_trailers(trailers.as_ref(), recv);
                    finish_request(request, self.sending.take());
                    match checked {
                        Ok(()) => trailers.map_or(IncomingEnd::Eof, IncomingEnd::Trailers),
                        Err(status) => IncomingEnd::Failed(status),
                    }
                }
                Err(error) => {
                    let status = shared.failure(&error);
                    IncomingEnd::Failed(match &self.sending {
                        Some(sending) => sending.failure.or(status),
                        None => status,
                    })
                }
            };
            self.end = Some(end);
            // The peer sends nothing more, so the remaining bytes need no window.
            drop(self.close(shared));
            self.stream_permit = None;
        }
    }

    fn push(&mut self, chunk: Bytes) {
        // Frames with only padding have no data; h2 accounts for their window.
        if chunk.is_empty() {
            return;
        }
        // A lone chunk is passed on without a copy.
        if chunk.len() < COMPACT_BELOW && !(self.chunks.is_empty() && self.tail.is_empty()) {
            self.tail.extend_from_slice(&chunk);
            return;
        }
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        self.chunks.push_back(chunk);
    }

    fn pop(&mut self) -> Option<Bytes> {
        if let Some(chunk) = self.chunks.pop_front() {
            return Some(chunk);
        }
        match self.tail.is_empty() {
            true => None,
            false => Some(std::mem::take(&mut self.tail).freeze()),
        }
    }

    fn is_readable(&self) -> bool {
        self.end.is_some() || !self.chunks.is_empty() || !self.tail.is_empty()
    }

    /// Releases window in steps, because a WINDOW_UPDATE for every frame is expensive. The limit over all
    /// streams keeps the unreleased bytes from using up the connection's window.
    fn release(&mut self, taken: usize, shared: &ConnectionShared, (own, all): (usize, usize)) {
        let Some(recv) = &mut self.recv else { return };
        self.unreleased += taken;
        if shared.taken(taken) >= all || self.unreleased >= own {
            // An error means that the stream has ended and needs no window.
            let _ = recv.flow_control().release_capacity(self.unreleased);
            shared.released(std::mem::take(&mut self.unreleased));
        }
    }

    /// Takes the stream. Dropping it makes h2 release the window of the delivered bytes.
    fn close(&mut self, shared: &ConnectionShared) -> Option<RecvStream> {
        shared.released(std::mem::take(&mut self.unreleased));
        self.recv.take()
    }
}

/// The resources that a client's call holds until its response is read.
#[derive(Debug, Default)]
pub(crate) struct ClientCallResources {
    /// Counts the open call at a client. A server's handler holds its permit instead.
    pub(crate) permit: Option<CallPermit>,
    pub(crate) stream_permit: Option<StreamPermit>,
    /// The task that sends the request.
    pub(crate) sending: Option<RequestHandle>,
    /// The sending half of a large request that was passed to h2, which may still buffer part of it.
    pub(crate) request: Option<SendStream<Bytes>>,
}

/// Stops sending the request after the response has ended, so that the stream no longer counts at either
/// end. Has no effect if all of the request has been sent.
#[inline]
fn finish_request(request: Option<SendStream<Bytes>>, sending: Option<RequestHandle>) {
    // PROTOCOL-HTTP2.md, "Early Server Closure": RST_STREAM with NO_ERROR.
    if let Some(mut request) = request {
        request.send_reset(Reason::NO_ERROR);
    }
    if let Some(sending) = sending {
        let _ = sending.stop.send(Reason::NO_ERROR);
    }
}

/// The reader of a stream's receiving half. Dropping it resets the stream, unless something else holds the
/// stream.
pub(crate) struct IncomingBody {
    stream: Arc<IncomingStream>,
    /// The unreleased bytes at which window is released: of this stream, and of all streams.
    steps: (usize, usize),
    _permit: Option<CallPermit>,
}

impl fmt::Debug for IncomingBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingBody").finish_non_exhaustive()
    }
}

impl IncomingBody {
    /// Creates the body of a stream. A request or response that has arrived in full, in one chunk, needs no
    /// buffer and no waker.
    pub(crate) fn arrive(
        mut recv: RecvStream,
        shared: &Arc<ConnectionShared>,
        limits: &Http2Limits,
        mut resources: ClientCallResources,
    ) -> ReceivedBody {
        let mut cx = Context::from_waker(Waker::noop());
        let mut data = Bytes::new();
        if let Poll::Ready(Some(Ok(chunk))) = recv.poll_data(&mut cx) {
            data = chunk;
        }
        let end = match recv.is_end_stream() {
            true => Poll::Ready(Ok(None)),
            // Also pending if more data follows.
            false => recv.poll_trailers(&mut cx),
        };
        let mut failed = None;
        if let Poll::Ready(Ok(trailers)) = end {
            finish_request(resources.request.take(), resources.sending.take());
            let lists = shared.header_lists();
            match lists.check_trailers(trailers.as_ref(), &recv) {
                Ok(()) => return ReceivedBody::Full { data, trailers },
                Err(status) => failed = Some(IncomingEnd::Failed(status)),
            }
        }
        let mut state = IncomingState {
            recv: failed.is_none().then_some(recv),
            end: failed,
            stream_permit: resources.stream_permit.take(),
            request: resources.request.take(),
            sending: resources.sending.take(),
            ..IncomingState::default()
        };
        state.push(data);
        state.drain(shared, Waker::noop());
        if let Some(IncomingEnd::Eof | IncomingEnd::Trailers(_)) = state.end
            && state.chunks.len() < 2
            && state.tail.is_empty()
        {
            let trailers = match state.end {
                Some(IncomingEnd::Trailers(map)) => Some(map),
                _ => None,
            };
            return ReceivedBody::Full {
                data: state.chunks.pop_front().unwrap_or_default(),
                trailers,
            };
        }
        let stream = Arc::new(IncomingStream {
            shared: shared.clone(),
            state: Mutex::new(state),
        });
        stream.drain();
        let own = limits
            .window_update_step
            .min(limits.initial_window_size / 2);
        let steps = (
            own as usize,
            limits.initial_connection_window_size as usize / 4,
        );
        ReceivedBody::Open(Self {
            stream,
            steps,
            _permit: resources.permit,
        })
    }

    pub(crate) fn poll_frame(
        &self,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut state = lock(&self.stream.state);
        let Some(chunk) = state.pop() else {
            // Trailers and errors are returned once.
            return match state.end.replace(IncomingEnd::Eof) {
                Some(IncomingEnd::Eof) => Poll::Ready(None),
                Some(IncomingEnd::Trailers(map)) => Poll::Ready(Some(Ok(Frame::trailers(map)))),
                Some(IncomingEnd::Failed(status)) => Poll::Ready(Some(Err(status))),
                None => {
                    state.end = None;
                    match &mut state.reader {
                        Some(reader) => reader.clone_from(cx.waker()),
                        none => *none = Some(cx.waker().clone()),
                    }
                    Poll::Pending
                }
            };
        };
        state.release(chunk.len(), &self.stream.shared, self.steps);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    pub(crate) fn is_end(&self) -> bool {
        let state = lock(&self.stream.state);
        matches!(state.end, Some(IncomingEnd::Eof))
            && state.chunks.is_empty()
            && state.tail.is_empty()
    }
}

impl Drop for IncomingBody {
    fn drop(&mut self) {
        // Dropped outside of this lock: dropping takes the lock of h2, which may call this waker under it.
        let _dropped = {
            let mut state = lock(&self.stream.state);
            state.stream_permit = None;
            let recv = state.close(&self.stream.shared);
            (recv, state.request.take(), state.sending.take())
        };
    }
}
