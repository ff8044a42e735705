//! Accepts connections, each with a task of its own.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::accept::{AcceptBackoff, ConnectionPermit, ConnectionPermits, accept};
use crate::connection::{ConnectionHandler, Phase, serve_accepted, serve_connection};
use crate::limits::ServerLimits;
use crate::listen::{Listener, QUEUE_MAX};
use crate::net_stream::{IoOrigin, NetStream};
use crate::peer::Peer;
use crate::timers::after;
use crate::tls::{ServerTls, TlsSession};
use crate::wire_io::ConnectionStats;

/// Serves one connection until it ends. When `shutdown` is ready, the client is told to go elsewhere,
/// and the calls that run may finish, for `limits.drain_grace` at most.
pub async fn serve_one<IO, H>(
    io: IO,
    handler: H,
    limits: Arc<ServerLimits>,
    shutdown: impl Future<Output = ()>,
) -> ConnectionStats
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: ConnectionHandler,
{
    let (phase, phases) = watch::channel(Phase::Serving);
    let grace = limits.drain_grace;
    let mut serving = std::pin::pin!(serve_connection(io, handler, limits, phases));
    let mut stopping = std::pin::pin!(async {
        shutdown.await;
        phase.send_replace(Phase::Draining);
        tokio::time::sleep(grace).await;
        phase.send_replace(Phase::Stopped);
        std::future::pending::<()>().await;
    });
    std::future::poll_fn(|cx| {
        let _ = stopping.as_mut().poll(cx);
        serving.as_mut().poll(cx)
    })
    .await
}

/// Accepts and serves on one listener, next to others that take of the same permits; who has another handle of the phase
/// sees when the last connection has ended.
pub(crate) async fn serve_in(
    listener: Listener,
    tls: Option<ServerTls>,
    limits: Arc<ServerLimits>,
    permits: ConnectionPermits,
    phase: PhaseGuard,
    shutdown: impl Future<Output = ()>,
    spawner: Spawner,
) {
    let spawn = |(stream, remote), permit| {
        let peer = Peer {
            local: listener.local_addr(),
            remote,
            tls: None,
        };
        (spawner.0)(AcceptedConnection {
            stream,
            peer,
            permit,
            tls: tls.clone(),
            limits: limits.clone(),
            phase: phase.0.subscribe(),
        });
    };
    let mut shutdown = std::pin::pin!(shutdown);
    let mut backoff = AcceptBackoff::new(&limits);
    while let Some(accepted) =
        unless_first(shutdown.as_mut(), accept(&listener, &mut backoff)).await
    {
        // At the limit no more is accepted than one that waits, rather than accepted and closed: the
        // kernel's queue costs no descriptor, and clients that come back at once would cost more than
        // those that wait. The permit is taken behind `accept`, because a thread that nobody connects
        // to must not hold one.
        let permit = unless_first(shutdown.as_mut(), permits.take()).await;
        let is_over = permit.is_none();
        spawn(accepted, permit.unwrap_or_else(|| permits.without()));
        if is_over {
            break;
        }
    }
    // A connection that the kernel has made and nobody accepts is reset, with what its client has
    // begun to say on it: it is served as those that were accepted a moment ago, whether or not there
    // is a permit. The runtime may have to look up first, to know that there is one.
    // Whoever has found a Unix socket is in its queue once its file is gone.
    listener.remove_file();
    tokio::task::yield_now().await;
    for _ in 0..QUEUE_MAX {
        // Without a budget, which would run out before the queue does.
        let accept = tokio::task::unconstrained(accept(&listener, &mut backoff));
        let mut cx = Context::from_waker(Waker::noop());
        match std::pin::pin!(accept).poll(&mut cx) {
            Poll::Ready(accepted) => spawn(accepted, permits.take_now()),
            Poll::Pending => break,
        }
    }
    // The port is free from here on: a new server can have it. A path is free already.
    drop(listener);
    phase.0.send_replace(Phase::Draining);
    let _ = tokio::time::timeout(limits.drain_grace, phase.0.closed()).await;
    phase.0.send_replace(Phase::Stopped);
    phase.0.closed().await;
}

/// A server that is dropped takes its connections with it.
pub(crate) struct PhaseGuard(pub(crate) watch::Sender<Phase>);

impl Drop for PhaseGuard {
    fn drop(&mut self) {
        self.0.send_replace(Phase::Stopped);
    }
}

/// Ready when the server is further than `phase`.
pub(crate) async fn phase_left(mut now: watch::Receiver<Phase>, phase: Phase) {
    let _ = now.wait_for(|now| *now > phase).await;
}

/// What `future` comes to, unless `shutdown` is ready first.
async fn unless_first<T>(
    mut shutdown: Pin<&mut impl Future<Output = ()>>,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| match shutdown.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => future.as_mut().poll(cx).map(Some),
    })
    .await
}

/// A connection that was accepted, and all that it takes to serve it.
struct AcceptedConnection {
    stream: NetStream,
    peer: Peer,
    permit: ConnectionPermit,
    tls: Option<ServerTls>,
    limits: Arc<ServerLimits>,
    phase: watch::Receiver<Phase>,
}

/// Gives each connection its task.
///
/// What there is of a connection, h2 included, is compiled where this is made, and not in every program
/// that serves.
#[derive(Clone)]
pub struct Spawner(Arc<dyn Fn(AcceptedConnection) + Send + Sync>);

impl Spawner {
    /// `handler` makes what answers the calls of one connection, after its TLS handshake if there is one.
    pub fn new<H: ConnectionHandler>(
        handler: impl Fn(Arc<Peer>) -> H + Clone + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |accepted| accepted.spawn(handler.clone())))
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spawner")
    }
}

impl AcceptedConnection {
    fn spawn<H: ConnectionHandler>(self, handler: impl FnOnce(Arc<Peer>) -> H + Send + 'static) {
        let Self {
            stream,
            mut peer,
            permit,
            tls,
            limits,
            phase,
        } = self;
        let has_keepalive = limits.http2.keepalive_time < Duration::MAX;
        stream.set_options(has_keepalive.then_some(limits.http2.keepalive_timeout));
        tokio::spawn(async move {
            let by = after(limits.handshake_timeout);
            let stream = match tls {
                None => stream,
                // In a box: a connection without TLS has no room to keep for its handshake.
                Some(tls) => match Box::pin(tls_handshake(stream, tls, phase.clone(), by)).await {
                    None => return,
                    Some((stream, session)) => {
                        peer.tls = Some(session);
                        stream
                    }
                },
            };
            let (handler, backlog) = (handler(Arc::new(peer)), permit.backlog.clone());
            serve_accepted(
                stream,
                IoOrigin::Socket,
                handler,
                limits,
                phase,
                by,
                backlog,
            )
            .await;
            drop(permit);
        });
    }
}

/// The handshake of TLS is the connection's own business: nobody else waits for it.
async fn tls_handshake(
    stream: NetStream,
    tls: ServerTls,
    phase: watch::Receiver<Phase>,
    by: Instant,
) -> Option<(NetStream, TlsSession)> {
    // Behind a handshake that was under way when the drain began are calls, as on any connection that
    // was accepted before: they are served, and the client is told.
    let stopped = std::pin::pin!(phase_left(phase, Phase::Draining));
    let accepting = tokio::time::timeout_at(by, tls.accept(stream));
    let (stream, session) = unless_first(stopped, accepting).await?.ok()??;
    Some((stream, session))
}
