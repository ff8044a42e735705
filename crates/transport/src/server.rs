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

/// Serves one connection until it ends. When `shutdown` completes, the server sends GOAWAY, and running calls
/// can finish for at most `limits.drain_grace`.
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

/// Accepts and serves connections of one listener. Several listeners can share `permits`. The receivers of
/// `phase` are dropped when the last connection has ended.
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
        // At the limit, connections wait in the kernel's queue, which costs no file descriptor. Closing
        // them instead would make clients reconnect immediately, at a higher cost. The permit is taken
        // after `accept`, because an idle thread must not hold one.
        let permit = unless_first(shutdown.as_mut(), permits.take()).await;
        let is_over = permit.is_none();
        spawn(accepted, permit.unwrap_or_else(|| permits.without()));
        if is_over {
            break;
        }
    }
    // Closing the listener would reset the connections in the kernel's queue, which can contain requests.
    // They are accepted and served first, even without a permit. Yielding lets the runtime detect them.
    // After the file of a Unix socket is removed, all of its clients are in the queue.
    listener.remove_file();
    tokio::task::yield_now().await;
    for _ in 0..QUEUE_MAX {
        // Without the tokio budget, which would be used up before the queue is empty.
        let accept = tokio::task::unconstrained(accept(&listener, &mut backoff));
        let mut cx = Context::from_waker(Waker::noop());
        match std::pin::pin!(accept).poll(&mut cx) {
            Poll::Ready(accepted) => spawn(accepted, permits.take_now()),
            Poll::Pending => break,
        }
    }
    // From here on, a new server can bind the port. The path of a Unix socket is already free.
    drop(listener);
    phase.0.send_replace(Phase::Draining);
    let _ = tokio::time::timeout(limits.drain_grace, phase.0.closed()).await;
    phase.0.send_replace(Phase::Stopped);
    phase.0.closed().await;
}

/// Stops the connections of a server when it is dropped.
pub(crate) struct PhaseGuard(pub(crate) watch::Sender<Phase>);

impl Drop for PhaseGuard {
    fn drop(&mut self) {
        self.0.send_replace(Phase::Stopped);
    }
}

/// Waits until the server is in a later phase than `phase`.
pub(crate) async fn phase_left(mut now: watch::Receiver<Phase>, phase: Phase) {
    let _ = now.wait_for(|now| *now > phase).await;
}

/// Returns the output of `future`, or `None` if `shutdown` completes first.
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

/// An accepted connection and everything needed to serve it.
struct AcceptedConnection {
    stream: NetStream,
    peer: Peer,
    permit: ConnectionPermit,
    tls: Option<ServerTls>,
    limits: Arc<ServerLimits>,
    phase: watch::Receiver<Phase>,
}

/// Spawns a task for each connection.
///
/// The code of a connection, including h2, is compiled in the crate that creates the spawner, instead of in
/// every program that serves.
#[derive(Clone)]
pub struct Spawner(Arc<dyn Fn(AcceptedConnection) + Send + Sync>);

impl Spawner {
    /// Creates a spawner. `handler` creates the [`ConnectionHandler`] of a connection, after its TLS handshake
    /// if it has one.
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
                // Boxed, so that a connection without TLS reserves no memory for the handshake.
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

/// Performs the TLS handshake in the task of the connection, where it delays no other connection.
async fn tls_handshake(
    stream: NetStream,
    tls: ServerTls,
    phase: watch::Receiver<Phase>,
    by: Instant,
) -> Option<(NetStream, TlsSession)> {
    // A handshake in progress when the drain begins is completed, and its calls are served, like those of
    // any connection that was accepted earlier.
    let stopped = std::pin::pin!(phase_left(phase, Phase::Draining));
    let accepting = tokio::time::timeout_at(by, tls.accept(stream));
    let (stream, session) = unless_first(stopped, accepting).await?.ok()??;
    Some((stream, session))
}
