//! A server that listens on several addresses at once.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;

use crate::accept::Places;
use crate::connection::Phase;
use crate::limits::ServerLimits;
use crate::listen::Listener;
use crate::server::{PhaseGuard, Spawner, left, serve_in};
use crate::tls::ServerTls;

/// Accepts and serves on each listener, which has a phase of its own, until `shutdown` is ready and the
/// last connection has ended. All share `places`.
pub(crate) async fn serve_each(
    listeners: Vec<(Listener, PhaseGuard)>,
    tls: Option<ServerTls>,
    limits: Arc<ServerLimits>,
    places: Places,
    shutdown: impl Future<Output = ()>,
    spawner: Spawner,
) {
    let stop = watch::channel(Phase::Serving).0;
    let mut serving: Vec<_> = listeners
        .into_iter()
        .map(|(listener, phase)| {
            let shutdown = left(stop.subscribe(), Phase::Serving);
            let (tls, limits, places) = (tls.clone(), limits.clone(), places.clone());
            let spawner = spawner.clone();
            Box::pin(serve_in(
                listener, tls, limits, places, phase, shutdown, spawner,
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
