//! The signals that request a process to end.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(windows)]
use tokio::signal::windows::{CtrlC, ctrl_c};

/// Returns a future that completes when the process receives SIGTERM, which orchestrators send, or SIGINT
/// (Ctrl-C); on Windows, Ctrl-C. Pass it to
/// [`BoundServer::serve_until`](crate::BoundServer::serve_until).
///
/// ```no_run
/// # async fn example(greeter: impl trunkline::Service) -> trunkline::Result<()> {
/// let server = trunkline::Server::new().add_service(greeter).bind("0.0.0.0:50051").await?;
/// server.serve_until(trunkline::shutdown_signal()).await
/// # }
/// ```
///
/// The function installs signal handlers when it is called, not when the future is first polled.
/// Afterwards, the two signals no longer end the process. So a second signal does not shorten a graceful
/// shutdown, which takes at most
/// [`Server::drain_grace`](crate::Server::drain_grace). To exit at the second signal, wait for it. Each future
/// completes at the first signal after the call that returned it:
///
/// ```no_run
/// # async fn example(server: trunkline::BoundServer) -> trunkline::Result<()> {
/// let first = trunkline::shutdown_signal();
/// let second = async {
///     trunkline::shutdown_signal().await;
///     trunkline::shutdown_signal().await;
/// };
/// tokio::select! {
///     served = server.serve_until(first) => served,
///     () = second => Ok(()), // The server is dropped, and all calls with it.
/// }
/// # }
/// ```
///
/// If the system refuses to install a handler, the future never completes, and the signals still end the
/// process.
///
/// # Panics
///
/// Panics outside a tokio runtime, or in a runtime without I/O.
pub fn shutdown_signal() -> impl Future<Output = ()> + Send + 'static {
    let signals = listen();
    async move {
        let Ok(mut signals) = signals else {
            return std::future::pending().await;
        };
        poll_fn(|cx| {
            let came = signals.iter_mut().any(|it| it.poll_recv(cx).is_ready());
            if came { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[cfg(unix)]
fn listen() -> io::Result<[Signal; 2]> {
    Ok([
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    ])
}

#[cfg(windows)]
fn listen() -> io::Result<[CtrlC; 1]> {
    Ok([ctrl_c()?])
}
