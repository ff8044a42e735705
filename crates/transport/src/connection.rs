//! The server's side of one connection: accepts calls, answers them, drains and ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use trunkline_codec::{Limits, Status, head};

use crate::answer::{Answering, Opened};
use crate::body::Body;
use crate::calls::Calls;
use crate::frame_guard::Sender;
use crate::hub::Hub;
use crate::incoming::{Held, Incoming};
use crate::pace::Pace;
use crate::turn::{Turn, Work, poll_sleep};
use crate::wire_io::WireIo;

/// What answers calls.
pub trait Handler: Send + 'static {
    /// The answer to a call. Dropping it drops what is at work there.
    type Answer: Future<Output = Response<Body>> + Send + Unpin + 'static;

    /// Answers a call, and says which method's [`Pace`] it goes at: none for an answer that is known
    /// already.
    fn call(&mut self, request: Request<Body>) -> (Self::Answer, Option<Arc<Pace>>);
}

/// How far a server's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Calls are accepted.
    Serving,
    /// Clients are told to go elsewhere; calls that run may finish.
    Draining,
    /// Everything ends now.
    Stopped,
}

/// Serves one connection until it ends, or until `phase` says so.
///
/// Returns when the connection is closed. Dropping the future closes it at once; its calls are
/// reset, and their handlers dropped.
pub async fn serve_connection<IO, H>(
    io: IO,
    handler: H,
    limits: Arc<Limits>,
    phase: watch::Receiver<Phase>,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let by = Instant::now() + limits.handshake_timeout;
    serve_shaken(io, handler, limits, phase, by).await;
}

/// As [`serve_connection`]; the client has to have begun HTTP/2 at a given time.
pub(crate) async fn serve_shaken<IO, H>(
    io: IO,
    handler: H,
    limits: Arc<Limits>,
    mut phase: watch::Receiver<Phase>,
    handshake_by: Instant,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let wire = WireIo::new(io, Sender::Client, &limits);
    let Some(h2) = handshake(&wire, &limits, &mut phase, handshake_by).await else {
        return;
    };
    let hub = Hub::new();
    let mut closing = wire.clone();
    let mut driver = Driver {
        turn: Turn::new(wire, hub.clone()),
        serving: Serving {
            h2,
            calls: Calls::new(hub.clone(), &limits),
            hub,
            handler,
            limits,
            accepted: Vec::new(),
        },
        handshake_by,
        timer: None,
    };
    loop {
        let current = *phase.borrow_and_update();
        match current {
            Phase::Serving => {}
            Phase::Draining => driver.serving.h2.graceful_shutdown(),
            Phase::Stopped => {
                // RFC 8446, section 6.1: TLS ends with close_notify, as far as the socket takes it now.
                let mut cx = Context::from_waker(Waker::noop());
                let _ = Pin::new(&mut closing).poll_shutdown(&mut cx);
                return;
            }
        }
        let mut changed = std::pin::pin!(phase.changed());
        let mut watching = true;
        let done = std::future::poll_fn(|cx| {
            if watching && let Poll::Ready(changed) = changed.as_mut().poll(cx) {
                // Without anyone to change it, the phase stays what it is.
                watching = false;
                if changed.is_ok() {
                    return Poll::Ready(false);
                }
            }
            driver.poll(cx).map(|()| true)
        });
        if done.await {
            return;
        }
    }
}

type Engine<IO> = h2::server::Connection<WireIo<IO>, Bytes>;

/// RFC 9113, section 3.4. h2 has no clock: a client that is silent, or slow, is cut off here, or
/// when the server stops.
async fn handshake<IO: AsyncRead + AsyncWrite + Unpin>(
    wire: &WireIo<IO>,
    limits: &Limits,
    phase: &mut watch::Receiver<Phase>,
    by: Instant,
) -> Option<Engine<IO>> {
    let handshake = builder(limits).handshake::<_, Bytes>(wire.clone());
    let mut handshake = std::pin::pin!(handshake);
    let mut stopped = std::pin::pin!(async {
        // Without anyone to change it, the phase stays what it is.
        if phase.wait_for(|it| *it == Phase::Stopped).await.is_err() {
            std::future::pending().await
        }
    });
    let shaken = std::future::poll_fn(|cx| {
        if stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        wire.wire().set_task(cx.waker());
        let poll = handshake.as_mut().poll(cx);
        match wire.wire().poll_send() {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            Poll::Ready(Ok(())) | Poll::Pending => poll.map(Result::ok),
        }
    });
    tokio::time::timeout_at(by, shaken).await.ok().flatten()
}

/// Every limit that h2 enforces, set: what is not said here would be unlimited.
fn builder(limits: &Limits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.max_concurrent_streams)
        .initial_window_size(limits.initial_window_size)
        .initial_connection_window_size(limits.initial_connection_window_size)
        .data_frame_budget(limits.data_frame_budget())
        .max_send_buffer_size(limits.max_send_buffer_size)
        .max_header_list_size(limits.max_header_list_size_hard)
        .max_pending_accept_reset_streams(limits.max_pending_accept_reset_streams)
        .max_local_error_reset_streams(Some(limits.max_local_error_reset_streams))
        .max_concurrent_reset_streams(limits.max_concurrent_reset_streams)
        .reset_stream_duration(limits.reset_stream_duration);
    builder
}

/// A call, and since when it is here: its deadline does not wait for a permit.
type Accepted = (Request<RecvStream>, SendResponse<Bytes>, Instant);

/// The engine goes before the turn: see [`Turn`].
struct Driver<IO, H: Handler> {
    serving: Serving<IO, H>,
    turn: Turn<IO>,
    /// When the client's SETTINGS have to be here.
    handshake_by: Instant,
    timer: Option<(Timed, Pin<Box<Sleep>>)>,
}

/// What a turn drives.
struct Serving<IO, H: Handler> {
    h2: Engine<IO>,
    hub: Arc<Hub>,
    handler: H,
    limits: Arc<Limits>,
    /// Accepted, and waiting for their first poll, or for a permit.
    accepted: Vec<Accepted>,
    /// Begun, and waiting.
    calls: Calls<H::Answer>,
}

/// What the connection's one timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timed {
    /// The handshake ends with the client's SETTINGS.
    Settings,
    /// A header block that has begun has to end.
    HeaderBlock,
    /// The connection has been shut down and has to send what it has to say.
    Closing,
}

impl<IO: AsyncRead + AsyncWrite + Unpin, H: Handler> Driver<IO, H> {
    /// Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        forget_reset(&mut self.serving.accepted);
        self.serving.calls.begin_turn();
        match self.turn.poll(cx, &mut self.serving) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => self.keep_watch(cx),
        }
    }

    /// What h2 does not see to: abuse by resets, and time.
    fn keep_watch(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (resets, waits_for) = {
            let wire = self.turn.wire().wire();
            let guard = wire.guard();
            let waits_for = match (guard.settings(), guard.in_header_block()) {
                (0, _) => Some(Timed::Settings),
                (_, true) => Some(Timed::HeaderBlock),
                (_, false) => None,
            };
            (guard.resets(), waits_for)
        };
        let closing = matches!(self.timer, Some((Timed::Closing, _)));
        if !closing && resets > self.serving.limits.reset_budget + self.serving.hub.completed() {
            // CVE-2023-44487: a reset stream no longer counts against the stream limit.
            return self.cut_off(cx, Reason::ENHANCE_YOUR_CALM);
        }
        if !closing && waits_for != self.timer.as_ref().map(|(timed, _)| *timed) {
            match waits_for {
                None => self.timer = None,
                Some(Timed::HeaderBlock) => {
                    self.start_timer(Timed::HeaderBlock, self.serving.limits.header_block_timeout);
                }
                Some(timed) => {
                    let left = self.handshake_by.saturating_duration_since(Instant::now());
                    self.start_timer(timed, left);
                }
            }
        }
        let Some((timed, sleep)) = &mut self.timer else {
            return Poll::Pending;
        };
        ready!(poll_sleep(sleep.as_mut(), cx));
        match timed {
            Timed::Closing => Poll::Ready(()),
            Timed::Settings => self.cut_off(cx, Reason::SETTINGS_TIMEOUT),
            Timed::HeaderBlock => self.cut_off(cx, Reason::ENHANCE_YOUR_CALM),
        }
    }

    fn cut_off(&mut self, cx: &Context<'_>, reason: Reason) -> Poll<()> {
        self.serving.h2.abrupt_shutdown(reason);
        self.start_timer(Timed::Closing, self.serving.limits.handshake_timeout);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn start_timer(&mut self, timed: Timed, after: Duration) {
        self.timer = Some((timed, Box::pin(tokio::time::sleep(after))));
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, H: Handler> Work for Serving<IO, H> {
    type End = ();

    fn poll_engine(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.accepted.is_empty() {
            // These have waited for a permit, and go first.
            self.begin(Instant::now());
        }
        // A client that keeps to its limit has no more than this; one that does not must not keep
        // the thread from other connections.
        for _ in 0..self.limits.max_concurrent_streams.saturating_mul(2).max(1) {
            if self.calls.is_overdue() {
                break;
            }
            match self.h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    // A call is begun before the next one is accepted: what it needs is still in
                    // the processor's caches.
                    let now = Instant::now();
                    self.accepted.push((request, respond, now));
                    self.begin(now);
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_calls(&mut self) -> bool {
        self.calls.poll_woken()
    }
}

impl<IO, H: Handler> Serving<IO, H> {
    /// Begins the calls for which there are permits.
    fn begin(&mut self, mut now: Instant) {
        let free = (self.limits.max_concurrent_streams as usize).saturating_sub(self.hub.open());
        for (request, respond, since) in self.accepted.drain(..free.min(self.accepted.len())) {
            let (parts, recv) = request.into_parts();
            let deadline =
                head::timeout_of(&parts.headers).and_then(|timeout| since.checked_add(timeout));
            let body = Incoming::arrive(recv, &self.hub, &self.limits, Held::default());
            let request = Request::from_parts(parts, Body::arrived(body));
            let opened = Opened {
                respond,
                deadline,
                permit: self.hub.permit(),
            };
            if deadline.is_some_and(|at| since < at && at <= now) {
                opened.refuse(Status::deadline_exceeded("the call waited for a handler"));
                continue;
            }
            let handler = &mut self.handler;
            match catch_unwind(AssertUnwindSafe(|| handler.call(request))) {
                Ok((answer, pace)) => {
                    now = self.calls.begin(Answering::new(answer, opened, pace), now);
                }
                Err(_) => opened.fail(),
            }
        }
    }
}

/// Handlers of streams that were reset may still be on their way out. Calls wait for their permits;
/// those that were reset meanwhile are forgotten.
fn forget_reset(waiting: &mut Vec<Accepted>) {
    let mut cx = Context::from_waker(Waker::noop());
    waiting.retain_mut(|(_, respond, _)| respond.poll_reset(&mut cx).is_pending());
}
