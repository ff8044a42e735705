//! A server with its listeners.

use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;

use trunkline_codec::Status;
use trunkline_transport::{Address, Listener, ServerTls, serve, serve_threads};

use crate::server::router::Router;
use crate::server::router_handler::RouterHandler;

/// A server that listens, but does not yet accept connections. [`Server::bind`](crate::Server::bind) and
/// [`Server::on`](crate::Server::on) return it.
///
/// Clients that connect before the server serves wait in a queue of the operating system. Dropping the
/// server closes the listeners.
///
/// ```no_run
/// # async fn example(server: trunkline::Server) -> trunkline::Result<()> {
/// let server = server.bind("127.0.0.1:0").await?;
/// println!("listening on {}", server.local_addr());
/// server.serve_until(trunkline::shutdown_signal()).await
/// # }
/// ```
#[derive(Debug)]
pub struct BoundServer {
    /// One list for each address: a single listener, or one for each thread.
    listeners: Vec<Vec<Listener>>,
    threads: Option<usize>,
    tls: Option<ServerTls>,
    router: Router,
    /// The result of the server's checks.
    checked: Result<(), Status>,
}

impl BoundServer {
    pub(crate) fn new(
        listeners: Vec<Vec<Listener>>,
        threads: Option<usize>,
        tls: Option<ServerTls>,
        router: Router,
        checked: Result<(), Status>,
    ) -> Self {
        Self {
            listeners,
            threads,
            tls,
            router,
            checked,
        }
    }

    /// Returns the address on which the server listens, or the first of several. If the server was bound
    /// to port 0, the address contains the port that the system selected.
    ///
    /// Channels accept the address as a target:
    ///
    /// ```no_run
    /// # async fn example(server: trunkline::Server) -> trunkline::Result<()> {
    /// let server = server.bind("127.0.0.1:0").await?;
    /// let channel = trunkline::Channel::to(server.local_addr());
    /// # Ok(()) }
    /// ```
    pub fn local_addr(&self) -> Address {
        let first = self.local_addrs().into_iter().next();
        first.unwrap_or(Address::InMemory)
    }

    /// Returns all addresses on which the server listens, in the order in which they were passed.
    pub fn local_addrs(&self) -> Vec<Address> {
        let each = self.listeners.iter().filter_map(|list| list.first());
        each.map(Listener::local_addr).collect()
    }

    /// Accepts and serves connections until the future is dropped, which closes the listeners and all
    /// connections.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if a [selected compressor](crate::Server::compress) does not exist, the TLS files
    /// cannot be used, or [`Server::threads`](crate::Server::threads) is 0; RESOURCE_EXHAUSTED if the threads
    /// cannot be started. A service can add checks with
    /// [`Methods::before_serving`](crate::server::Methods::before_serving), whose errors are also returned. An
    /// error on one connection ends only that connection.
    pub async fn serve(self) -> Result<(), Status> {
        self.serve_until(std::future::pending()).await
    }

    /// Serves until `shutdown` completes, for example [`shutdown_signal`](crate::shutdown_signal), and
    /// then shuts down gracefully:
    ///
    /// - The listeners close.
    /// - Each client receives a GOAWAY frame, after which it makes no more calls on the connection. Calls
    ///   that it sent before the frame reached it are served.
    /// - Running calls can continue for [`Server::drain_grace`](crate::Server::drain_grace) (default: 10
    ///   s). Then their handlers are dropped, and the connections close.
    ///
    /// The future completes after the last call, at the latest after that time. Dropping the future
    /// closes the listeners and all connections immediately.
    ///
    /// # Errors
    ///
    /// The errors of [`serve`](Self::serve).
    pub async fn serve_until(self, shutdown: impl Future<Output = ()>) -> Result<(), Status> {
        let Self {
            listeners,
            threads,
            tls,
            router,
            checked,
        } = self;
        checked?;
        let limits = Arc::new(router.limits().clone());
        if let Some(tls) = &tls {
            tls.load()?;
        }
        let (fresh, spawner) = (tls.clone(), RouterHandler::spawner(router));
        let serving = async {
            if let Some(threads) = threads {
                let threads = at_least_one(threads)?;
                return serve_threads(listeners, tls, threads, limits, shutdown, spawner).await;
            }
            let listeners = listeners.into_iter().flatten().collect();
            serve(listeners, tls, limits, shutdown, spawner).await;
            Ok(())
        };
        match fresh {
            None => serving.await,
            Some(tls) => alongside(tls.reload_periodically(), serving).await,
        }
    }
}

/// Drives `other` until `main` completes.
async fn alongside<T>(other: impl Future<Output = ()>, main: impl Future<Output = T>) -> T {
    let (mut other, mut main) = (pin!(other), pin!(main));
    let mut is_over = false;
    poll_fn(|cx| {
        is_over = is_over || other.as_mut().poll(cx).is_ready();
        main.as_mut().poll(cx)
    })
    .await
}

pub(crate) fn at_least_one(threads: usize) -> Result<NonZeroUsize, Status> {
    NonZeroUsize::new(threads)
        .ok_or_else(|| Status::invalid_argument("cannot serve on 0 threads; use at least 1"))
}
