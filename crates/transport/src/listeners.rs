//! A server that listens on several addresses at once.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;

use crate::accept::ConnectionPermits;
use crate::connection::Phase;
use crate::limits::ServerLimits;
use crate::listen::Listener;
use crate::server::{PhaseGuard, Spawner, phase_left, serve_in};
use crate::tls::ServerTls;

// Way of a unary call, server 1: runs a task for each connection, which `accept.rs` takes from the
// kernel; `threads.rs` runs it on threads.
/// Accepts connections on all listeners and serves them until `shutdown` is ready; then lets the
/// calls that run finish, within `limits.drain_grace`.
///
/// Dropping the future closes the listeners and every connection at once. Clients get a GOAWAY if
/// their sockets take it without waiting.
pub async fn serve(
    listeners: Vec<Listener>,
    tls: Option<ServerTls>,
    limits: Arc<ServerLimits>,
    shutdown: impl Future<Output = ()>,
    spawner: Spawner,
) {
    let permits = ConnectionPermits::new(&limits);
    let phase = || PhaseGuard(watch::channel(Phase::Serving).0);
    let listeners = listeners.into_iter().map(|listener| (listener, phase()));
    serve_each(listeners.collect(), tls, limits, permits, shutdown, spawner).await;
}

/// Accepts and serves on each listener, which has a phase of its own, until `shutdown` is ready and the
/// last connection has ended. All share `permits`.
pub(crate) async fn serve_each(
    listeners: Vec<(Listener, PhaseGuard)>,
    tls: Option<ServerTls>,
    limits: Arc<ServerLimits>,
    permits: ConnectionPermits,
    shutdown: impl Future<Output = ()>,
    spawner: Spawner,
) {
    let stop = watch::channel(Phase::Serving).0;
    let mut serving: Vec<_> = listeners
        .into_iter()
        .map(|(listener, phase)| {
            let shutdown = phase_left(stop.subscribe(), Phase::Serving);
            let (tls, limits, permits) = (tls.clone(), limits.clone(), permits.clone());
            let spawner = spawner.clone();
            Box::pin(serve_in(
                listener, tls, limits, permits, phase, shutdown, spawner,
            ))
        })
        .collect();
    let mut shutdown = pin!(shutdown);
    let mut is_stopping = false;
    poll_fn(|cx| {
        if !is_stopping && shutdown.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            stop.send_replace(Phase::Draining);
        }
        serving.retain_mut(|serving| serving.as_mut().poll(cx).is_pending());
        match serving.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}
