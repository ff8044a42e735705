//! A server on threads of its own.

use std::io;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use trunkline_codec::Status;

use crate::accept::ConnectionPermits;
use crate::connection::Phase;
use crate::limits::ServerLimits;
use crate::listen::{Listener, ListenerHandle};
use crate::listeners::serve_each;
use crate::server::{PhaseGuard, Spawner, phase_left};
use crate::tls::ServerTls;

/// How long the connections on a thread of a server that was dropped have to say goodbye. Each does so
/// in one turn, and waits for nobody.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// Listens on `address` for [`serve_threads`].
///
/// # Errors
///
/// As [`Listener::bind`], also when another server listens there that shares its port.
pub async fn bind_threads(address: &str, threads: NonZeroUsize) -> Result<Vec<Listener>, Status> {
    Listener::bind_threads(address, threads).await
}

/// Accepts and serves connections on `threads` threads, each with a runtime of its own, until
/// `shutdown` is ready; then lets the calls that run finish, for `limits.drain_grace` at most.
///
/// `listeners` has a list for each address. The threads are called `trunkline-0` and so on; each takes
/// one listener of each list in turn, and shares it if there are fewer than threads. A connection stays on the thread that has accepted it. Returns when all
/// threads are done. Dropping the future ends them as soon as each looks up from its work, with
/// their connections and with what handlers have spawned there.
///
/// # Errors
///
/// RESOURCE_EXHAUSTED if a thread cannot be started; the others are then ended.
pub async fn serve_threads(
    listeners: Vec<Vec<Listener>>,
    tls: Option<ServerTls>,
    threads: NonZeroUsize,
    limits: Arc<ServerLimits>,
    shutdown: impl Future<Output = ()>,
    spawner: Spawner,
) -> Result<(), Status> {
    let phase = PhaseGuard(watch::channel(Phase::Serving).0);
    let permits = ConnectionPermits::new(&limits);
    let (failed, mut failures) = mpsc::channel(1);
    for at in 0..threads.get() {
        let sockets = listeners
            .iter()
            .filter_map(|list| list.get(at % list.len().max(1)))
            .map(|listener| listener.try_handle().map_err(cannot_start))
            .collect::<Result<Vec<_>, _>>()?;
        let (tls, limits, permits) = (tls.clone(), limits.clone(), permits.clone());
        let (phase, spawner, failed) = (phase.0.subscribe(), spawner.clone(), failed.clone());
        let thread = move || {
            if let Err(error) = run(sockets, tls, limits, permits, phase, spawner) {
                let _ = failed.try_send(cannot_start(error));
            }
        };
        std::thread::Builder::new()
            .name(format!("trunkline-{at}"))
            .spawn(thread)
            .map_err(cannot_start)?;
    }
    // The threads have handles of their own, and let go of them when they end.
    drop((listeners, failed));
    let mut shutdown = pin!(shutdown);
    let failure = std::future::poll_fn(|cx| match failures.poll_recv(cx) {
        Poll::Ready(failure) => Poll::Ready(Err(failure)),
        Poll::Pending => shutdown.as_mut().poll(cx).map(Ok),
    });
    if let Err(failure) = failure.await {
        return Err(failure.unwrap_or_else(|| Status::internal("all threads have panicked")));
    }
    phase.0.send_replace(Phase::Draining);
    failures.recv().await.map_or(Ok(()), Err)
}

/// One thread's work.
fn run(
    sockets: Vec<ListenerHandle>,
    tls: Option<ServerTls>,
    limits: Arc<ServerLimits>,
    permits: ConnectionPermits,
    phase: watch::Receiver<Phase>,
    spawner: Spawner,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let shutdown = phase_left(phase.clone(), Phase::Serving);
        let here: Vec<_> = sockets
            .iter()
            .map(|_| watch::channel(Phase::Serving).0)
            .collect();
        {
            let listeners = sockets
                .into_iter()
                .zip(&here)
                .map(|(socket, here)| Ok((socket.listen()?, PhaseGuard(here.clone()))))
                .collect::<io::Result<Vec<_>>>()?;
            let serving = serve_each(listeners, tls, limits, permits, shutdown, spawner);
            let mut serving = pin!(serving);
            let mut stopped = pin!(phase_left(phase, Phase::Draining));
            std::future::poll_fn(|cx| match stopped.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => serving.as_mut().poll(cx),
            })
            .await;
        }
        // Connections of a server that was dropped say goodbye before their runtime ends.
        let _ = tokio::time::timeout(GOODBYE_TIME, async {
            for here in &here {
                here.closed().await;
            }
        })
        .await;
        Ok(())
    });
    // A handler's blocking work may go on; nobody waits for it any more.
    runtime.shutdown_background();
    served
}

fn cannot_start(error: io::Error) -> Status {
    let message = format!("cannot start a thread of the server: {error}");
    Status::resource_exhausted(message).with_source(error)
}
