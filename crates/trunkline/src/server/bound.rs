//! A server that has its sockets, and serves on them.

use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;

use trunkline_codec::Status;
use trunkline_transport::{Address, Listener, ServerTls, serve, serve_threads};

use crate::server::router::Router;
use crate::server::router_handler::RouterHandler;

/// A server that listens: [`Server::bind`](crate::Server::bind) returns it.
#[derive(Debug)]
pub struct BoundServer {
    /// For each address one, or one for each thread.
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

    /// Returns the address on which the server listens, the first of several. If port 0 was asked for,
    /// it has the port that was free.
    ///
    /// A client connects to it as it is:
    ///
    /// ```no_run
    /// # async fn example(server: trunkline::Server) -> trunkline::Result<()> {
    /// let server = server.bind("127.0.0.1:0").await?;
    /// println!("listening on {}", server.local_addr());
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
    /// INVALID_ARGUMENT if the compressor to [compress](crate::Server::compress) with is unknown, the
    /// files of TLS cannot be used, or [`Server::threads`](crate::Server::threads) is 0;
    /// RESOURCE_EXHAUSTED if the threads cannot be started. An error of one connection ends that
    /// connection only.
    pub async fn serve(self) -> Result<(), Status> {
        self.serve_until(std::future::pending()).await
    }

    /// Serves until `shutdown` is ready, and then drains: the listeners close, clients get a GOAWAY,
    /// and calls that run may finish, within `drain_grace` (10 s), which no client can extend. Calls
    /// that were on their way when the GOAWAY was sent are served.
    /// [`shutdown_signal`](crate::shutdown_signal) is such a future.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
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
            Some(tls) => beside(tls.keep_fresh(), serving).await,
        }
    }
}

/// Drives `other` for as long as `main` takes.
async fn beside<T>(other: impl Future<Output = ()>, main: impl Future<Output = T>) -> T {
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
        .ok_or_else(|| Status::invalid_argument("a server needs a thread: threads(0) leaves none"))
}
