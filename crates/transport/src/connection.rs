//! The server's driver of one connection: accepts calls, runs their handlers, drains and closes.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{PingPong, Reason};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use trunkline_codec::{Status, head};

use crate::body::Body;
use crate::connection_shared::ConnectionShared;
use crate::deadline::DeadlineChange;
use crate::frame_guard::{PeerProtocol, Role};
use crate::http1;
use crate::incoming::{ClientCallResources, IncomingBody};
use crate::keepalive::send_ping;
use crate::limits::ServerLimits;
use crate::linger::{CloseKind, linger};
use crate::net_stream::IoOrigin;
use crate::panics::catch_panic;
use crate::poll_budget::PollBudget;
use crate::send_backlog::ServerSendBacklog;
use crate::server_call::{AcceptedCall, ServerCall};
use crate::server_calls::ServerCalls;
use crate::server_policy::{Action, ServerPolicy};
use crate::timers::after;
use crate::turn::{Engine, Turn};
use crate::wire_io::{ConnectionStats, WireIo};

/// Handles the calls of one connection.
pub trait ConnectionHandler: Send + 'static {
    /// The response to a call. Dropping it drops the handler.
    type Future: Future<Output = Response<Body>> + Send + Unpin + 'static;

    /// Begins a call whose head arrived at `arrived`. It may have waited for a permit since.
    fn call(&mut self, request: Request<Body>, arrived: Instant) -> BegunCall<Self::Future>;

    /// Receives the traffic counts of the connection after its end. Not called if the future of the
    /// connection is dropped.
    fn connection_ended(&self, stats: &ConnectionStats) {
        let _ = stats;
    }
}

/// A call that a [`ConnectionHandler`] has begun.
#[derive(Debug)]
pub struct BegunCall<F> {
    /// The future of the response.
    pub response: F,
    /// The poll budget of the call's method, or `None` if the response is already known.
    pub poll_budget: Option<Arc<PollBudget>>,
    /// The handling of the client's deadline.
    pub deadline: DeadlineChange,
}

/// The phase of a server's shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The server accepts calls.
    Serving,
    /// The server sends GOAWAY, and running calls can finish.
    Draining,
    /// The server ends all calls and connections.
    Stopped,
}

// Way of a unary call, server 2: drives the connection: takes a batch of calls from h2.
/// Serves one connection until it ends, or until `phase` stops it.
///
/// Returns when the connection is closed. Dropping the future closes it immediately, without GOAWAY, and
/// drops the handlers of its calls.
pub async fn serve_connection<IO, H>(
    io: IO,
    handler: H,
    limits: Arc<ServerLimits>,
    phase: watch::Receiver<Phase>,
) -> ConnectionStats
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: ConnectionHandler,
{
    let by = after(limits.handshake_timeout);
    let backlog = ServerSendBacklog::new(&limits);
    serve_accepted(io, IoOrigin::Custom, handler, limits, phase, by, backlog).await
}

/// Serves one connection, like [`serve_connection`], whose client must begin HTTP/2 by `handshake_by`.
/// `backlog` is shared by the connections of the server.
pub(crate) async fn serve_accepted<IO, H>(
    io: IO,
    origin: IoOrigin,
    handler: H,
    limits: Arc<ServerLimits>,
    mut phase: watch::Receiver<Phase>,
    handshake_by: Instant,
    backlog: Arc<ServerSendBacklog>,
) -> ConnectionStats
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: ConnectionHandler,
{
    let wire = WireIo::new(io, Role::Client, &limits.http2);
    let Some(h2) = handshake(&wire, &limits, &mut phase, handshake_by).await else {
        return wire.wire().stats();
    };
    let shared = ConnectionShared::serving(&limits, wire.wire().header_lists(), backlog);
    let mut driver = ServerDriver {
        turn: Turn::new(wire.clone(), shared.clone()),
        policy: ServerPolicy::new(limits.clone(), handshake_by),
        ping: None,
        serving: ServerSession {
            h2,
            calls: ServerCalls::new(shared.clone(), &limits),
            shared,
            handler,
            limits: limits.clone(),
            accepted: Vec::new(),
            calls_accepted: 0,
            is_caught_up: true,
            clock: None,
        },
    };
    let end = driver.run(&mut phase).await;
    let ServerDriver {
        serving,
        turn,
        policy,
        ..
    } = driver;
    let handler = serving.end();
    drop(turn);
    let mut seen_off = pin!(linger(
        wire.clone(),
        origin,
        end,
        &limits.http2,
        policy.closes_by()
    ));
    let mut stopped = pin!(until_stopped(&mut phase));
    poll_fn(|cx| match seen_off.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => stopped.as_mut().poll(cx),
    })
    .await;
    let stats = wire.wire().stats();
    handler.connection_ended(&stats);
    stats
}

type ServerEngine<IO> = h2::server::Connection<WireIo<IO>, Bytes>;

/// Performs the handshake of HTTP/2 (RFC 9113, section 3.4). h2 has no timeout for it: silent and slow clients
/// are disconnected here, or when the server stops.
async fn handshake<IO: AsyncRead + AsyncWrite + Unpin>(
    wire: &WireIo<IO>,
    limits: &ServerLimits,
    phase: &mut watch::Receiver<Phase>,
    by: Instant,
) -> Option<ServerEngine<IO>> {
    let handshake = builder(limits).handshake::<_, Bytes>(wire.clone());
    let mut handshake = pin!(handshake);
    let mut stopped = pin!(until_stopped(phase));
    let handshaken = poll_fn(|cx| {
        wire.wire().set_task(cx.waker());
        let poll = handshake.as_mut().poll(cx);
        let mut wire = wire.wire();
        // RFC 9113, section 3.4: the client sends first, without waiting, so the server can wait for its
        // first bytes to detect the protocol.
        if wire.guard().peer_protocol() != PeerProtocol::Http2
            || matches!(poll, Poll::Ready(Err(_)))
        {
            return poll.map(Result::ok);
        }
        match wire.poll_send() {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            Poll::Ready(Ok(())) | Poll::Pending => poll.map(Result::ok),
        }
    });
    let handshaken = async {
        let handshaken = handshaken.await;
        let protocol = wire.wire().guard().peer_protocol();
        // A TLS client detects from the plaintext that this is not TLS.
        if handshaken.is_none() && matches!(protocol, PeerProtocol::Http1 | PeerProtocol::Tls) {
            http1::refuse(wire).await;
        }
        handshaken
    };
    let mut handshaken = pin!(tokio::time::timeout_at(by, handshaken));
    poll_fn(|cx| match stopped.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => handshaken.as_mut().poll(cx).map(|it| it.ok().flatten()),
    })
    .await
}

async fn until_stopped(phase: &mut watch::Receiver<Phase>) {
    // An error means that the sender is dropped, and the phase no longer changes.
    if phase.wait_for(|it| *it == Phase::Stopped).await.is_err() {
        std::future::pending().await
    }
}

/// Returns a builder with every limit that h2 enforces. Limits that are not set here would be unlimited.
fn builder(limits: &ServerLimits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.max_concurrent_streams)
        .initial_window_size(limits.http2.initial_window_size)
        .initial_connection_window_size(limits.http2.initial_connection_window_size)
        // h2 never refills this budget for late frames, so flow control and `ServerPolicy` limit them instead.
        .data_frame_budget(usize::MAX)
        .max_send_buffer_size(limits.http2.max_send_buffer_size)
        .max_header_list_size(limits.http2.decoded_header_list_size())
        .max_pending_accept_reset_streams(limits.max_pending_accept_reset_streams)
        // h2 counts these for as long as the connection lives: see `ServerPolicy`, whose budget refills.
        .max_local_error_reset_streams(None)
        .max_concurrent_reset_streams(limits.http2.max_concurrent_reset_streams)
        .reset_stream_duration(limits.http2.reset_stream_duration);
    builder
}

/// A call that waits for its first poll, or for a permit.
struct PendingCall {
    /// The request, whose body is drained while it waits: h2 uses much memory for each small frame.
    request: Request<Body>,
    respond: SendResponse<Bytes>,
    since: Instant,
    /// The deadline of the call, which also applies while it waits.
    deadline: Option<Instant>,
}

impl PendingCall {
    fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|at| at <= now)
    }

    fn refuse(self, status: Status, shared: &Arc<ConnectionShared>) {
        let accepted = AcceptedCall {
            respond: self.respond,
            since: self.since,
            deadline: self.deadline,
            permit: shared.permit(),
        };
        accepted.refuse(status);
    }
}

/// The fields are in drop order, the engine before the turn: see [`Turn`].
struct ServerDriver<IO, H: ConnectionHandler> {
    serving: ServerSession<IO, H>,
    turn: Turn<IO>,
    policy: ServerPolicy,
    /// Taken from h2 on first use: from then on, h2 registers a waker for each frame.
    ping: Option<PingPong>,
}

/// The HTTP/2 engine of a server and its calls.
struct ServerSession<IO, H: ConnectionHandler> {
    h2: ServerEngine<IO>,
    shared: Arc<ConnectionShared>,
    handler: H,
    limits: Arc<ServerLimits>,
    /// Accepted calls that wait for their first poll, or for a permit.
    accepted: Vec<PendingCall>,
    /// The number of calls that h2 has accepted.
    calls_accepted: u64,
    /// h2 had no more calls when it was last polled.
    is_caught_up: bool,
    /// The arrival of the last call in this turn.
    clock: Option<Instant>,
    /// Running calls.
    calls: ServerCalls<H::Future>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin, H: ConnectionHandler> ServerDriver<IO, H> {
    /// Serves until the connection ends, or `phase` stops it.
    async fn run(&mut self, phase: &mut watch::Receiver<Phase>) -> CloseKind {
        loop {
            let current = *phase.borrow_and_update();
            match current {
                Phase::Serving => {}
                Phase::Draining => self.serving.h2.graceful_shutdown(),
                Phase::Stopped => {
                    self.leave();
                    // RFC 8446, section 6.1: TLS ends with close_notify, if the socket takes it now.
                    let mut closing = self.turn.wire().clone();
                    let mut cx = Context::from_waker(Waker::noop());
                    let _ = Pin::new(&mut closing).poll_shutdown(&mut cx);
                    return CloseKind::Immediate;
                }
            }
            let mut changed = pin!(phase.changed());
            let mut watching = true;
            let done = poll_fn(|cx| {
                if watching && let Poll::Ready(changed) = changed.as_mut().poll(cx) {
                    // An error means that the sender is dropped, and the phase no longer changes.
                    watching = false;
                    if changed.is_ok() {
                        return Poll::Ready(None);
                    }
                }
                self.poll(cx).map(Some)
            });
            if let Some(end) = done.await {
                return end;
            }
        }
    }

    /// Ready when the connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CloseKind> {
        forget_reset(&mut self.serving.accepted, &self.serving.shared);
        self.serving.calls.begin_turn();
        self.serving.clock = None;
        match self.turn.poll(cx, &mut self.serving) {
            Poll::Ready(Ok(())) => Poll::Ready(CloseKind::Graceful),
            Poll::Ready(Err(_)) => Poll::Ready(CloseKind::Immediate),
            Poll::Pending => self.keep_watch(cx).map(|()| CloseKind::Immediate),
        }
    }

    /// Enforces limits and timeouts that h2 does not.
    fn keep_watch(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let ServerSession {
            shared,
            accepted,
            calls,
            ..
        } = &self.serving;
        let clock = calls.clock().or(self.serving.clock);
        let mut seen = {
            let wire = self.turn.wire().wire();
            self.policy.check(
                wire.guard(),
                wire.sent(),
                self.serving.calls_accepted,
                shared,
                clock,
            )
        };
        if let Some(backlog) = shared.send_backlog() {
            let sent = self.turn.wire().wire().sent().bytes();
            self.policy.check_send_backlog(backlog, sent);
        }
        self.policy
            .set_waiting(accepted.iter().filter_map(|it| it.deadline).min());
        loop {
            let action = match seen.take() {
                Some(action) => action,
                None => ready!(self.policy.poll(cx)),
            };
            if self.perform(action).is_ready() {
                return Poll::Ready(());
            }
            // h2 needs another turn to act.
            cx.waker().wake_by_ref();
        }
    }

    /// Ready when the connection has ended.
    fn perform(&mut self, action: Action) -> Poll<()> {
        let ServerSession { h2, .. } = &mut self.serving;
        match action {
            Action::RefuseOverdue => self.serving.refuse_overdue(Instant::now()),
            Action::GiveUpStalled => {
                if let Some(backlog) = self.serving.shared.send_backlog() {
                    backlog.give_up_stalled(Instant::now());
                }
            }
            Action::Drain => h2.graceful_shutdown(),
            Action::Ping => {
                if self.ping.is_none() {
                    self.ping = h2.ping_pong();
                }
                send_ping(self.ping.as_mut());
            }
            Action::GoAway(reason, why) => {
                self.turn.wire().wire().set_goaway_debug_data(why);
                h2.abrupt_shutdown(reason);
                self.policy.close();
            }
            Action::Close => {
                self.leave();
                return Poll::Ready(());
            }
            Action::Abort => return Poll::Ready(()),
        }
        Poll::Pending
    }

    /// Sends GOAWAY if the socket accepts it without waiting.
    fn leave(&mut self) {
        self.serving.h2.abrupt_shutdown(Reason::NO_ERROR);
        let mut cx = Context::from_waker(Waker::noop());
        let _ = self.serving.h2.poll_closed(&mut cx);
        let _ = self.turn.wire().wire().poll_send();
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, H: ConnectionHandler> Engine for ServerSession<IO, H> {
    type Output = ();

    fn poll_engine(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.accepted.is_empty() {
            // These have waited for a permit and begin first.
            self.begin(Instant::now());
        }
        // A client within its limit has no more calls than this. One that exceeds it must not keep the thread
        // from serving other connections.
        for _ in 0..self.limits.max_concurrent_streams.saturating_mul(2).max(1) {
            if self.calls.is_overdue() {
                break;
            }
            match self.h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    // A call begins before the next one is accepted, while its data is in the CPU caches.
                    let now = Instant::now();
                    self.clock = Some(now);
                    self.calls_accepted += 1;
                    let timeout = head::timeout_of(request.headers());
                    let (parts, recv) = request.into_parts();
                    let body = IncomingBody::arrive(
                        recv,
                        &self.shared,
                        &self.limits.http2,
                        ClientCallResources::default(),
                    );
                    let call = PendingCall {
                        deadline: timeout.and_then(|timeout| now.checked_add(timeout)),
                        request: Request::from_parts(parts, Body::arrived(body)),
                        respond,
                        since: now,
                    };
                    // Most calls can begin immediately, and skip the list of waiting calls.
                    if self.accepted.is_empty() && self.free() > 0 {
                        self.begin_one(call, now);
                    } else {
                        self.accepted.push(call);
                        self.begin(now);
                        self.refuse_large();
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => {
                    self.is_caught_up = true;
                    return Poll::Pending;
                }
            }
        }
        self.is_caught_up = false;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }

    fn poll_calls(&mut self) -> bool {
        self.calls.poll_woken()
    }
}

impl<IO, H: ConnectionHandler> ServerSession<IO, H> {
    /// Ends the remaining calls, and returns the handler.
    fn end(self) -> H {
        let Self { h2, handler, .. } = self;
        drop(h2);
        handler
    }

    /// Returns the number of free permits.
    fn free(&self) -> usize {
        (self.limits.max_concurrent_streams as usize).saturating_sub(self.shared.open())
    }

    // Way of a unary call, server 3: takes a permit, creates the body of the request, passes the call on.
    /// Begins waiting calls while permits are free.
    fn begin(&mut self, mut now: Instant) {
        let free = self.free().min(self.accepted.len());
        let mut accepted = std::mem::take(&mut self.accepted);
        for call in accepted.drain(..free) {
            now = self.begin_one(call, now);
        }
        self.accepted = accepted;
    }

    /// Begins a call. Returns the current time.
    fn begin_one(&mut self, call: PendingCall, now: Instant) -> Instant {
        // A call that did not wait begins even if its deadline has passed: its handler is then dropped.
        let is_late = call.since < now && call.is_late(now);
        let mut accepted = AcceptedCall {
            respond: call.respond,
            since: call.since,
            deadline: call.deadline,
            permit: self.shared.permit(),
        };
        if is_late {
            accepted.refuse(waited());
            return now;
        }
        let handler = &mut self.handler;
        match catch_panic(|| handler.call(call.request, call.since)) {
            Ok(begun) => {
                accepted.deadline = begun.deadline.apply(accepted.deadline);
                let call = ServerCall::new(begun.response, accepted, begun.poll_budget);
                self.calls.begin(call, now)
            }
            Err(panic) => {
                accepted.fail(&panic);
                now
            }
        }
    }
}

impl<IO, H: ConnectionHandler> ServerSession<IO, H> {
    /// Refuses the last accepted call if it must wait and its head is too large to be kept.
    fn refuse_large(&mut self) {
        let Some(last) = self.accepted.last() else {
            return;
        };
        if let Err(status) = self.shared.header_lists().check_waiting(&last.request)
            && let Some(call) = self.accepted.pop()
        {
            call.refuse(status, &self.shared);
        }
    }

    /// Refuses the calls whose deadlines have passed while they waited for a permit.
    fn refuse_overdue(&mut self, now: Instant) {
        for call in self.accepted.extract_if(.., |it| it.is_late(now)) {
            call.refuse(waited(), &self.shared);
        }
    }
}

fn waited() -> Status {
    Status::deadline_exceeded("the deadline passed while the call waited for a handler")
}

/// Removes waiting calls that were reset. Calls wait for permits while handlers of reset streams still run.
fn forget_reset(waiting: &mut Vec<PendingCall>, shared: &ConnectionShared) {
    if waiting.is_empty() {
        return;
    }
    let mut cx = Context::from_waker(Waker::noop());
    for call in waiting.extract_if(.., |it| it.respond.poll_reset(&mut cx).is_ready()) {
        shared.call_reset(shared.is_young(call.since, Instant::now()));
    }
}
