//! Accepts, and gives each connection its task.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, watch};
use trunkline_codec::Limits;

use crate::accept::{Backoff, Places, accept};
use crate::connection::{Handler, Phase, serve_connection, serve_shaken};
use crate::keepalive;
use crate::listen::{Listener, QUEUE_MAX};
use crate::net_stream::NetStream;
use crate::target::Peer;
use crate::timers::after;
use crate::tls::ServerTls;
use crate::wire_io::ConnectionStats;

/// Accepts connections and serves them until `shutdown` is ready; then lets the calls that run
/// finish, for `limits.drain_grace` at most.
///
/// `handler` makes what answers the calls of one connection, after its TLS handshake if there is
/// `tls`. Dropping the future closes the listener and every connection at once; clients are told
/// (GOAWAY) as far as their sockets take it.
pub async fn serve<H: Handler>(
    listener: Listener,
    tls: Option<ServerTls>,
    limits: Arc<Limits>,
    shutdown: impl Future<Output = ()>,
    handler: impl FnMut(Arc<Peer>) -> H + Clone + Send + 'static,
) {
    let places = Places::new(&limits);
    let phase = PhaseGuard(watch::channel(Phase::Serving).0);
    serve_in(listener, tls, limits, places, phase, shutdown, handler).await;
}

/// Serves one connection until it ends. When `shutdown` is ready, the client is told to go elsewhere,
/// and the calls that run may finish, for `limits.drain_grace` at most.
pub async fn serve_one<IO, H>(
    io: IO,
    handler: H,
    limits: Arc<Limits>,
    shutdown: impl Future<Output = ()>,
) -> ConnectionStats
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
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

/// As [`serve`], beside others that take of the same places; who has another handle of the phase
/// sees when the last connection has ended.
pub(crate) async fn serve_in<H: Handler>(
    listener: Listener,
    tls: Option<ServerTls>,
    limits: Arc<Limits>,
    places: Places,
    phase: PhaseGuard,
    shutdown: impl Future<Output = ()>,
    handler: impl FnMut(Arc<Peer>) -> H + Clone + Send + 'static,
) {
    let spawn = |(stream, remote), place| {
        let peer = Peer {
            local: listener.local_addr(),
            remote,
            tls: None,
        };
        let phase = phase.0.subscribe();
        spawn(
            stream,
            peer,
            place,
            tls.clone(),
            handler.clone(),
            &limits,
            phase,
        );
    };
    let mut shutdown = std::pin::pin!(shutdown);
    let mut backoff = Backoff::new(&limits);
    while let Some(accepted) = before(shutdown.as_mut(), accept(&listener, &mut backoff)).await {
        // At the limit no more is accepted than one that waits, rather than accepted and closed: the
        // kernel's queue costs no descriptor, and clients that come back at once would cost more than
        // those that wait. The place is taken behind `accept`, because a thread that nobody connects
        // to must not hold one.
        let place = before(shutdown.as_mut(), places.take()).await;
        let is_over = place.is_none();
        spawn(accepted, place.flatten());
        if is_over {
            break;
        }
    }
    // A connection that the kernel has made and nobody accepts is reset, with what its client has
    // begun to say on it: it is served as those that were accepted a moment ago, whether or not there
    // is a place. The runtime may have to look up first, to know that there is one.
    // Whoever has found a Unix socket is in its queue once its file is gone.
    listener.remove_file();
    tokio::task::yield_now().await;
    for _ in 0..QUEUE_MAX {
        // Without a budget, which would run out before the queue does.
        let accept = tokio::task::unconstrained(accept(&listener, &mut backoff));
        let mut cx = Context::from_waker(Waker::noop());
        match std::pin::pin!(accept).poll(&mut cx) {
            Poll::Ready(accepted) => spawn(accepted, places.try_take()),
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
pub(crate) async fn left(mut now: watch::Receiver<Phase>, phase: Phase) {
    let _ = now.wait_for(|now| *now > phase).await;
}

/// What `future` comes to, unless `shutdown` is ready first.
async fn before<T>(
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

fn spawn<H: Handler>(
    stream: NetStream,
    peer: Peer,
    place: Option<OwnedSemaphorePermit>,
    tls: Option<ServerTls>,
    mut handler: impl FnMut(Arc<Peer>) -> H + Send + 'static,
    limits: &Arc<Limits>,
    phase: watch::Receiver<Phase>,
) {
    let limits = limits.clone();
    if let NetStream::Tcp(stream) = &stream {
        // Writes are gathered before they reach the socket: waiting for more only costs time.
        let _ = stream.set_nodelay(true);
        if limits.keepalive_time < Duration::MAX {
            keepalive::set_user_timeout(stream, limits.keepalive_timeout);
        }
    }
    match (tls, stream) {
        (Some(tls), stream) => {
            tokio::spawn(async move {
                let _place = place;
                serve_tls(stream, tls, peer, handler, limits, phase).await;
            });
        }
        (None, NetStream::Tcp(stream)) => {
            let handler = handler(Arc::new(peer));
            tokio::spawn(async move {
                let _place = place;
                serve_connection(stream, handler, limits, phase).await;
            });
        }
        (None, stream) => {
            let handler = handler(Arc::new(peer));
            tokio::spawn(async move {
                let _place = place;
                serve_connection(stream, handler, limits, phase).await;
            });
        }
    }
}

/// The handshake is the connection's own business: nobody else waits for it.
async fn serve_tls<H: Handler>(
    stream: NetStream,
    tls: ServerTls,
    mut peer: Peer,
    mut handler: impl FnMut(Arc<Peer>) -> H,
    limits: Arc<Limits>,
    phase: watch::Receiver<Phase>,
) {
    let by = after(limits.handshake_timeout);
    // Behind a handshake that was under way when the drain began are calls, as on any connection that
    // was accepted before: they are served, and the client is told.
    let stopped = std::pin::pin!(left(phase.clone(), Phase::Draining));
    let accepting = tokio::time::timeout_at(by, tls.accept(stream));
    let accepted = before(stopped, accepting).await;
    let Some(Ok(Some((stream, session)))) = accepted else {
        return;
    };
    peer.tls = Some(session);
    serve_shaken(stream, handler(Arc::new(peer)), limits, phase, by).await;
}
