//! The server's side of one connection: accepts calls, answers them, drains and ends.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tower_service::Service;
use trunkline_codec::{Limits, Status, head};

use crate::answer::{self, Opened};
use crate::body::Body;
use crate::frame_guard::Sender;
use crate::hub::Hub;
use crate::incoming::{Held, Incoming};
use crate::turn::Turn;
use crate::wire_io::WireIo;

/// What answers calls: a tower service over [`Body`] that is always ready and never fails.
///
/// `poll_ready` is not asked. What has to wait, waits in the future.
pub trait Handler:
    Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Send + Unpin + 'static,
    > + Send
    + 'static
{
}

impl<S> Handler for S where
    S: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future: Send + Unpin + 'static,
        > + Send
        + 'static
{
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
    mut phase: watch::Receiver<Phase>,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let wire = WireIo::new(io, Sender::Client, &limits);
    let Some(h2) = handshake(&wire, &limits, &mut phase).await else {
        return;
    };
    let hub = Hub::new();
    let mut driver = Driver {
        h2,
        turn: Turn::new(wire, hub.clone()),
        hub,
        handler,
        limits,
        accepted: Vec::new(),
        timer: None,
    };
    loop {
        let current = *phase.borrow_and_update();
        match current {
            Phase::Serving => {}
            Phase::Draining => driver.h2.graceful_shutdown(),
            Phase::Stopped => return,
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
    tokio::time::timeout(limits.handshake_timeout, shaken)
        .await
        .ok()
        .flatten()
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
struct Driver<IO, H> {
    h2: Engine<IO>,
    turn: Turn<IO>,
    hub: Arc<Hub>,
    handler: H,
    limits: Arc<Limits>,
    /// Accepted, and waiting for their first poll, or for a permit.
    accepted: Vec<Accepted>,
    timer: Option<(Timed, Pin<Box<Sleep>>)>,
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
        let Self {
            h2,
            turn,
            hub,
            handler,
            limits,
            accepted,
            ..
        } = self;
        forget_reset(accepted);
        let mut in_place = Duration::ZERO;
        let polled = turn.poll(cx, |cx| {
            // A client that keeps to its limit has no more than this; one that does not must not keep
            // the thread from other connections.
            for _ in 0..limits.max_concurrent_streams.saturating_mul(2).max(1) {
                // A call is begun before the next one is accepted: what it needs is still in the
                // processor's caches. Calls that wait for a permit go first.
                begin(accepted, handler, hub, limits, &mut in_place);
                match h2.poll_accept(cx) {
                    Poll::Ready(Some(Ok(call))) => accepted.push((call.0, call.1, Instant::now())),
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            begin(accepted, handler, hub, limits, &mut in_place);
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        match polled {
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
        if !closing && resets > self.limits.reset_budget + self.hub.completed() {
            // CVE-2023-44487: a reset stream no longer counts against the stream limit.
            return self.cut_off(cx, Reason::ENHANCE_YOUR_CALM);
        }
        if !closing && waits_for != self.timer.as_ref().map(|(timed, _)| *timed) {
            match waits_for {
                None => self.timer = None,
                Some(Timed::HeaderBlock) => {
                    self.start_timer(Timed::HeaderBlock, self.limits.header_block_timeout);
                }
                Some(timed) => self.start_timer(timed, self.limits.handshake_timeout),
            }
        }
        let Some((timed, sleep)) = &mut self.timer else {
            return Poll::Pending;
        };
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        match timed {
            Timed::Closing => Poll::Ready(()),
            Timed::Settings => self.cut_off(cx, Reason::SETTINGS_TIMEOUT),
            Timed::HeaderBlock => self.cut_off(cx, Reason::ENHANCE_YOUR_CALM),
        }
    }

    fn cut_off(&mut self, cx: &Context<'_>, reason: Reason) -> Poll<()> {
        self.h2.abrupt_shutdown(reason);
        self.start_timer(Timed::Closing, self.limits.handshake_timeout);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn start_timer(&mut self, timed: Timed, after: Duration) {
        self.timer = Some((timed, Box::pin(tokio::time::sleep(after))));
    }
}

/// Begins the calls for which there are permits. Most handlers finish at their first poll, here:
/// no task, no wake, and no fight for h2's lock. `in_place` is for how long this turn has polled
/// handlers so far.
fn begin<H: Handler>(
    accepted: &mut Vec<Accepted>,
    handler: &mut H,
    hub: &Arc<Hub>,
    limits: &Arc<Limits>,
    in_place: &mut Duration,
) {
    if accepted.is_empty() {
        return;
    }
    let free = (limits.max_concurrent_streams as usize).saturating_sub(hub.open());
    for (request, respond, since) in accepted.drain(..free.min(accepted.len())) {
        let (parts, recv) = request.into_parts();
        let deadline =
            head::timeout_of(&parts.headers).and_then(|timeout| since.checked_add(timeout));
        let body = Body::arrived(Incoming::arrive(recv, hub, limits, Held::default()));
        let request = Request::from_parts(parts, body);
        let opened = Opened {
            respond,
            deadline,
            permit: hub.permit(),
        };
        if deadline.is_some_and(|at| since < at && at <= Instant::now()) {
            opened.refuse(Status::deadline_exceeded("the call waited for a handler"));
            continue;
        }
        let Ok(future) = catch_unwind(AssertUnwindSafe(|| handler.call(request))) else {
            opened.fail();
            continue;
        };
        if *in_place < limits.in_place_max {
            let begun = Instant::now();
            answer::in_place(future, opened);
            *in_place += begun.elapsed();
        } else {
            answer::in_task(future, opened);
        }
    }
}

/// Handlers of streams that were reset may still be on their way out. Calls wait for their permits;
/// those that were reset meanwhile are forgotten.
fn forget_reset(waiting: &mut Vec<Accepted>) {
    let mut cx = Context::from_waker(Waker::noop());
    waiting.retain_mut(|(_, respond, _)| respond.poll_reset(&mut cx).is_pending());
}
