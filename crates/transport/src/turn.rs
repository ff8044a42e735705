//! One turn of a connection's task, the same for servers and clients.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection_shared::{ConnectionShared, WokenBy};
use crate::incoming::IncomingStream;
use crate::wire_io::WireIo;

/// The rounds of a turn after which the other tasks of the thread run.
const ROUNDS_MAX: usize = 8;

/// The state of a connection's task, except its HTTP/2 engine. The engine must be dropped first: it notifies
/// its streams while it is dropped, and this type passes the notifications to their readers.
#[derive(Debug)]
pub(crate) struct Turn<IO> {
    wire: WireIo<IO>,
    shared: Arc<ConnectionShared>,
    /// `shared` as a waker, which the engine gets instead of the task's own.
    waker: Waker,
    ready: Vec<Arc<IncomingStream>>,
    stepped_back: bool,
}

/// The HTTP/2 engine that a turn drives, and its calls.
pub(crate) trait Engine {
    /// The result of the connection.
    type Output;

    /// Reads and writes HTTP/2 frames. Ready when the connection has ended.
    fn poll_engine(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output>;

    /// Returns whether all calls that h2 has received were accepted.
    fn is_caught_up(&self) -> bool {
        true
    }

    /// Polls the calls of the connection's task after their data was delivered. Returns `false` if the turn
    /// must end although more calls are ready.
    fn poll_calls(&mut self) -> bool {
        true
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Turn<IO> {
    pub(crate) fn new(wire: WireIo<IO>, shared: Arc<ConnectionShared>) -> Self {
        let waker = Waker::from(shared.clone());
        Self {
            wire,
            shared,
            waker,
            ready: Vec::new(),
            stepped_back: false,
        }
    }

    /// Runs until neither HTTP/2 nor a call can make progress, and sends the output in one write.
    pub(crate) fn poll<W: Engine>(
        &mut self,
        cx: &Context<'_>,
        work: &mut W,
    ) -> Poll<io::Result<W::Output>> {
        let woken_by = self.shared.begin_poll(cx.waker());
        // On tokio's multi-thread runtime a call that has finished wakes this task into the
        // worker's LIFO slot: it would run at once, with one response to send. Stepping back once
        // lets the calls that are already queued finish first, and one write carries them all. With
        // one call open there is nobody to wait for.
        if woken_by == WokenBy::Calls && self.shared.open() > 1 && !self.stepped_back {
            self.stepped_back = true;
            self.shared.end_poll();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.stepped_back = false;
        self.wire.wire().begin_turn(cx.waker(), work.is_caught_up());
        for _ in 0..ROUNDS_MAX {
            if let Poll::Ready(end) = work.poll_engine(&mut Context::from_waker(&self.waker)) {
                let _ = self.wire.wire().poll_send();
                return Poll::Ready(Ok(end));
            }
            self.hand_out();
            if !work.poll_calls() {
                break;
            }
            if self.shared.try_end_poll() {
                return self.send(work);
            }
            self.shared.clear_woken();
        }
        self.shared.end_poll();
        cx.waker().wake_by_ref();
        self.send(work)
    }

    #[inline]
    fn send<W: Engine>(&self, work: &mut W) -> Poll<io::Result<W::Output>> {
        let sent = self.wire.wire().poll_send();
        match sent {
            Poll::Ready(Err(error)) => Self::cut_short(&self.waker, work, error),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    #[cold]
    fn cut_short<W: Engine>(
        waker: &Waker,
        work: &mut W,
        error: io::Error,
    ) -> Poll<io::Result<W::Output>> {
        // The peer takes nothing more. What it said before it left, such as why, is still in the
        // socket, and tells more than this error does.
        Poll::Ready(match work.poll_engine(&mut Context::from_waker(waker)) {
            Poll::Ready(end) => Ok(end),
            Poll::Pending => Err(error),
        })
    }
}

impl<IO> Turn<IO> {
    pub(crate) fn wire(&self) -> &WireIo<IO> {
        &self.wire
    }

    pub(crate) fn shared(&self) -> &Arc<ConnectionShared> {
        &self.shared
    }

    fn hand_out(&mut self) {
        self.shared.take_ready(&mut self.ready);
        for stream in self.ready.drain(..) {
            stream.drain();
        }
    }
}

/// What came last, and the end, are still to be read, by readers that nobody else would wake.
impl<IO> Drop for Turn<IO> {
    fn drop(&mut self) {
        self.hand_out();
    }
}
