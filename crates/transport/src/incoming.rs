//! The DATA of one stream, drained from h2 as it arrives.
//!
//! h2 keeps some 265 bytes for each DATA frame left inside it. So the connection's task takes them
//! out at once, into one compacted buffer a stream, and gives window back only as the reader takes
//! the bytes. A client's call is drained from when the head of its response has been taken.

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

/// Chunks below this are copied together, so that a small one does not keep the large buffer alive
/// in which it came.
const COMPACT_BELOW: usize = 2 * 1024;

/// The incoming half of a stream, as its connection's task and its reader share it.
///
/// It is the waker that h2 has for the stream: DATA for it puts it on the shared's list.
pub(crate) struct IncomingStream {
    shared: Arc<ConnectionShared>,
    state: Mutex<IncomingState>,
}

#[derive(Default)]
struct IncomingState {
    /// None once the stream has ended or its reader is gone. h2 holds our waker, and so us: the
    /// reader must take this out to break the circle.
    recv: Option<RecvStream>,
    chunks: VecDeque<Bytes>,
    /// Small chunks behind those in `chunks`.
    tail: BytesMut,
    end: Option<IncomingEnd>,
    reader: Option<Waker>,
    /// Bytes the reader has taken for which the peer has no window yet.
    unreleased: usize,
    /// A client's stream counts against the server's limit until it has ended, read or not.
    slot: Option<StreamPermit>,
    /// The rest of the other half that is to be sent, which the end of this one stops, read or not.
    request: Option<SendStream<Bytes>>,
    sending: Option<RequestHandle>,
}

enum IncomingEnd {
    Eof,
    Trailers(HeaderMap),
    Failed(Status),
}

/// What a stream holds as it is handed over: all of it, or the beginning.
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
    /// Takes everything that h2 has for this stream. Called by the connection's task.
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
                    replied(request, self.sending.take());
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
            // The rest needs no window: the peer has nothing more to send.
            drop(self.close(shared));
            self.slot = None;
        }
    }

    fn push(&mut self, chunk: Bytes) {
        // h2 charges the window even for what is only padding.
        if chunk.is_empty() {
            return;
        }
        // A chunk that is alone is handed on as it lies.
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

    /// Gives window back in steps: a WINDOW_UPDATE for every frame costs more than it brings. What
    /// many streams hold back together must not use up the connection's.
    fn release(&mut self, taken: usize, shared: &ConnectionShared, (own, all): (usize, usize)) {
        let Some(recv) = &mut self.recv else { return };
        self.unreleased += taken;
        if shared.taken(taken) >= all || self.unreleased >= own {
            // An error means that the stream has ended meanwhile, and needs no window.
            let _ = recv.flow_control().release_capacity(self.unreleased);
            shared.released(std::mem::take(&mut self.unreleased));
        }
    }

    /// Takes the stream out. h2 gives back the window of what it has delivered.
    fn close(&mut self, shared: &ConnectionShared) -> Option<RecvStream> {
        shared.released(std::mem::take(&mut self.unreleased));
        self.recv.take()
    }
}

/// What a client's call holds while its incoming half is read.
#[derive(Debug, Default)]
pub(crate) struct ClientCallResources {
    /// A client's open call. A server's permit goes with the handler instead.
    pub(crate) permit: Option<CallPermit>,
    pub(crate) slot: Option<StreamPermit>,
    /// The task that sends the other half.
    pub(crate) sending: Option<RequestHandle>,
    /// The other half of a large request that h2 has all of: part of it may be there still.
    pub(crate) request: Option<SendStream<Bytes>>,
}

/// The response has come to its end: nobody waits for the rest of the request, and it stays here. The
/// stream then counts no longer, at either end. If all has left, nobody hears of this.
#[inline]
fn replied(request: Option<SendStream<Bytes>>, sending: Option<RequestHandle>) {
    // PROTOCOL-HTTP2.md, "Early Server Closure": RST_STREAM with NO_ERROR.
    if let Some(mut request) = request {
        request.send_reset(Reason::NO_ERROR);
    }
    if let Some(sending) = sending {
        let _ = sending.stop.send(Reason::NO_ERROR);
    }
}

/// The reader's end of a stream's incoming half. Dropping it tells h2 that nobody reads on: if
/// nothing else holds the stream, it is reset.
pub(crate) struct IncomingBody {
    stream: Arc<IncomingStream>,
    /// From how many bytes on window is given back: those of the stream, and of all.
    steps: (usize, usize),
    _permit: Option<CallPermit>,
}

impl fmt::Debug for IncomingBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingBody").finish_non_exhaustive()
    }
}

impl IncomingBody {
    /// Looks at what h2 has for the stream: a request or a response that has arrived in full, in one
    /// piece, needs no buffer and no waker.
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
            // Pending also if there is more data.
            false => recv.poll_trailers(&mut cx),
        };
        let mut failed = None;
        if let Poll::Ready(Ok(trailers)) = end {
            replied(resources.request.take(), resources.sending.take());
            let lists = shared.header_lists();
            match lists.check_trailers(trailers.as_ref(), &recv) {
                Ok(()) => return ReceivedBody::Full { data, trailers },
                Err(status) => failed = Some(IncomingEnd::Failed(status)),
            }
        }
        let mut state = IncomingState {
            recv: failed.is_none().then_some(recv),
            end: failed,
            slot: resources.slot.take(),
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
            // What the end says, it says once.
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
        // Dropped outside our lock: this takes h2's, under which h2 may call our waker.
        let _dropped = {
            let mut state = lock(&self.stream.state);
            state.slot = None;
            let recv = state.close(&self.stream.shared);
            (recv, state.request.take(), state.sending.take())
        };
    }
}
