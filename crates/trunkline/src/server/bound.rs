//! A server with its listeners.

use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;

use trunkline_codec::Status;
use trunkline_transport::{Address, Listener, ServerTls, serve, serve_threads};

use crate::server::router::Router;
use crate::server::router_handler::RouterHandler;

/// A server that listens, returned by [`Server::bind`](crate::Server::bind) and
/// [`Server::on`](crate::Server::on).
///
/// It accepts connections while it serves; until then, clients wait in the kernel's queue. Dropping it
/// closes the listeners.
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

    /// Returns the address on which the server listens, or the first of several. For port 0, it contains
    /// the port that the system selected.
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

    /// Serves without end. Dropping the future closes the listeners and all connections.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if a [selected compressor](crate::Server::compress) does not exist, the TLS
    /// files cannot be used, or [`Server::threads`](crate::Server::threads) is 0; RESOURCE_EXHAUSTED
    /// if the threads cannot be started. The [checks](crate::server::Methods::before_serving) of
    /// services can return other errors. An error on one connection ends only that connection.
    pub async fn serve(self) -> Result<(), Status> {
        self.serve_until(std::future::pending()).await
    }

    /// Serves until `shutdown` completes, and then drains: the listeners close, clients receive a
    /// GOAWAY, and running calls can finish within [`Server::drain_grace`](crate::Server::drain_grace)
    /// (10 s by default), which no client can extend. Calls that were in flight when the GOAWAY was
    /// sent are served. [`shutdown_signal`](crate::shutdown_signal) returns a suitable future.
    ///
    /// Dropping the future closes the listeners and all connections.
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
