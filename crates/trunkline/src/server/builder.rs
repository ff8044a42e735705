//! A server: services, layers and limits, on a socket.

use std::fmt;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tower_layer::Layer;
use tower_service::Service as TowerService;
use trunkline_codec::{Compressor, Compressors, Status};
use trunkline_transport::{
    Address, Body, ConnectionStats, Listener, Peer, PollBudget, ServerLimits, ServerTls, Spawner,
    bind_threads, serve, serve_one, serve_threads,
};

use crate::call::intercept::Interceptor;
use crate::call::observe::MetricsSink;
use crate::server::answering::refused;
use crate::server::router::{Router, Service};
use crate::tower::{BoxError, ForeignService, Shared};

/// Serves services over HTTP/2.
///
/// ```no_run
/// # async fn example(greeter: impl trunkline::Service) -> trunkline::Result<()> {
/// trunkline::Server::new().add_service(greeter).serve("127.0.0.1:50051").await
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Server {
    router: Router,
    layers: Vec<Arc<dyn Fn(Layered) -> Layered + Send + Sync>>,
    threads: Option<usize>,
    tls: Option<ServerTls>,
}

impl Server {
    /// A server with no services.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service.
    #[must_use]
    pub fn add_service<S: Service>(mut self, service: S) -> Self {
        self.router = self.router.add_service(service);
        self
    }

    /// Runs `interceptor` around every call. One that was added before is further out; all are
    /// inside the layers.
    #[must_use]
    pub fn intercept(mut self, interceptor: impl Interceptor) -> Self {
        self.router = self.router.intercept(interceptor);
        self
    }

    /// Tells `sink` of every call: see [`MetricsSink`]. One that was set before is replaced.
    #[must_use]
    pub fn metrics(mut self, sink: impl MetricsSink) -> Self {
        self.router = self.router.metrics(sink);
        self
    }

    /// Keeps the names of services and methods from those who call what is not there: see
    /// [`Router::hide_names`].
    #[must_use]
    pub fn hide_names(mut self) -> Self {
        self.router = self.router.hide_names();
        self
    }

    /// Puts a tower layer around all services. A layer that was added before is further out.
    ///
    /// Layers that were added one by one are always ready for each other. One that asks whether
    /// another is ready, as load shedding asks a limit, is added together with it: a stack of tower's
    /// `ServiceBuilder` is a layer.
    ///
    /// What a layer's error says becomes the message of an UNAVAILABLE status, unless it is a
    /// [`Status`] itself.
    #[must_use]
    pub fn layer<L, B>(mut self, layer: L) -> Self
    where
        L: Layer<Layered> + Send + Sync + 'static,
        L::Service: TowerService<http::Request<Body>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as TowerService<http::Request<Body>>>::Future: Send,
        <L::Service as TowerService<http::Request<Body>>>::Error: Into<BoxError>,
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        self.layers.push(Arc::new(move |service| {
            Layered(Arc::new(ForeignService::new(layer.layer(service))))
        }));
        self
    }

    /// Passes requests that are not gRPC to `service`: see [`Router::fallback`].
    #[must_use]
    pub fn fallback<S, B>(mut self, service: S) -> Self
    where
        S: TowerService<http::Request<Body>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        self.router = self.router.fallback(service);
        self
    }

    /// The largest message taken from a client, in bytes, also after inflating; 4 MiB by default.
    #[must_use]
    pub fn max_recv_message_size(self, bytes: usize) -> Self {
        self.with_limits(|limits| limits.messages.max_recv_message_size = bytes)
    }

    /// The largest message sent, in bytes before compression; 4 GiB by default.
    #[must_use]
    pub fn max_send_message_size(self, bytes: usize) -> Self {
        self.with_limits(|limits| limits.messages.max_send_message_size = bytes)
    }

    /// Calls that a client may have open on one connection, and handlers that run for it; 100 by
    /// default.
    #[must_use]
    pub fn max_concurrent_streams(self, streams: u32) -> Self {
        self.with_limits(|limits| limits.max_concurrent_streams = streams)
    }

    /// Changes any limit.
    #[must_use]
    pub fn with_limits(mut self, change: impl FnOnce(&mut ServerLimits)) -> Self {
        self.router = self.router.with_limits(change);
        self
    }

    /// Serves on `threads` threads of its own, each with a single-threaded runtime and, on Linux, a
    /// listening socket. By default a server runs on the runtime that awaits it.
    ///
    /// A connection stays on the thread that has accepted it, and its handlers run there, also what
    /// they spawn: nothing passes between cores. That suits many connections with short handlers.
    /// The kernel spreads connections by their addresses, and so a few of them may share a thread
    /// while another has none, and nothing moves them. A handler that computes holds up all
    /// connections of its thread: `tokio::task::spawn_blocking` is for that, and `block_in_place`
    /// does not work there.
    ///
    /// The threads are called `trunkline-0` and so on. They begin when the bound server serves, and
    /// share the services, interceptors and layers. The future of [`BoundServer::serve`] can be
    /// awaited on any runtime; when it is done, so are the threads, and tasks that handlers have
    /// left there end with them. Dropping it ends them too, each as soon as it looks up from its
    /// work: the port may be taken for a moment longer. Unix sockets, and those that listened
    /// before ([`on`](Self::on)), are shared: the threads accept on the one that there is.
    ///
    /// With 0, to bind and to serve fail with INVALID_ARGUMENT.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Serves over TLS, on TCP and on Unix sockets. Connections that are there already
    /// ([`serve_connection`](Self::serve_connection)) are served as they are.
    ///
    /// ```no_run
    /// # async fn example(greeter: impl trunkline::Service) -> trunkline::Result<()> {
    /// use trunkline::{Server, ServerTls};
    ///
    /// let tls = ServerTls::from_files("server.pem", "server.key")?;
    /// Server::new().tls(tls).add_service(greeter).serve("0.0.0.0:50051").await
    /// # }
    /// ```
    #[cfg(feature = "__tls")]
    #[must_use]
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Adds an encoding for messages, behind those that there are, or in the place of one of the same
    /// name; gzip and deflate are there by default.
    #[must_use]
    pub fn compressor(mut self, compressor: impl Compressor + 'static) -> Self {
        let encodings = self.router.current_encodings().clone().with(compressor);
        self.router = self.router.encodings(encodings);
        self
    }

    /// Takes no compressed messages, and sends none.
    #[must_use]
    pub fn no_compression(mut self) -> Self {
        self.router = self.router.encodings(Compressors::none());
        self
    }

    /// Compresses responses with the encoding of that name, such as `gzip`, or, for a client that does
    /// not accept it, with the first other one that both know, as far as they have more than
    /// [`compress_above`](Self::compress_above) bytes and get smaller by it. A handler can say
    /// otherwise: [`ResponseHandle::compress`](crate::ResponseHandle::compress).
    ///
    /// With a name that the server does not know, to bind and to serve fail with INVALID_ARGUMENT.
    #[must_use]
    pub fn compress(mut self, encoding: &str) -> Self {
        self.router = self.router.compress(encoding);
        self
    }

    /// The largest message, in bytes, that is sent as it is although the server compresses; 1 KiB by
    /// default. With 0 every message is compressed that gets smaller by it.
    #[must_use]
    pub fn compress_above(self, bytes: usize) -> Self {
        self.with_limits(|limits| limits.messages.compress_above = bytes)
    }

    /// Listens on `host:port` or `unix:/path`, and serves for ever.
    ///
    /// Dropping the future closes the listener and all connections; clients are told (GOAWAY), as far
    /// as that goes without waiting.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub async fn serve(self, address: &str) -> Result<(), Status> {
        self.bind(address).await?.serve().await
    }

    /// Listens on `host:port` (port 0 takes a free one), `unix:/path`, or on Linux
    /// `unix-abstract:name`; connections are accepted once the result serves. An IPv6 address may have
    /// a zone: `[fe80::1%eth0]:port`.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the address cannot be read, the files of TLS cannot be used, or the encoding
    /// to [compress](Self::compress) with is not known; UNAVAILABLE if it cannot be listened on. The
    /// message names the address, the cause and the way out.
    pub async fn bind(self, address: &str) -> Result<BoundServer, Status> {
        self.router.check()?;
        if let Some(tls) = &self.tls {
            tls.load()?;
        }
        let listeners = match self.threads {
            None => vec![Listener::bind(address).await?],
            Some(threads) => bind_threads(address, at_least_one(threads)?).await?,
        };
        Ok(self.listening(listeners))
    }

    /// Serves on a socket that listens already.
    pub fn on(self, listener: Listener) -> BoundServer {
        self.listening(vec![listener])
    }

    /// Serves one connection that is there already, such as one end of an in-memory pair, until it
    /// ends; on the runtime that awaits it, whatever [`threads`](Self::threads) says.
    ///
    /// At the end the stream is shut down (`poll_shutdown`) and read until the client closes it, or
    /// sends nothing for `Http2Limits::custom_io_linger_time` (1 s): it need not be able to half-close.
    ///
    /// Dropping the future closes it at once, and without a word to the client.
    pub async fn serve_connection<IO>(self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.serve_connection_until(io, std::future::pending())
            .await;
    }

    /// As [`serve_connection`](Self::serve_connection) until `shutdown` is ready. Then the client is
    /// told to go elsewhere (GOAWAY), and calls that run may finish, for `drain_grace` (10 s) at most.
    pub async fn serve_connection_until<IO>(self, io: IO, shutdown: impl Future<Output = ()>)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let limits = Arc::new(self.router.current_limits().clone());
        let handler = self.into_handler().for_peer(Arc::new(Peer::in_memory()));
        serve_one(io, handler, limits, shutdown).await;
    }

    fn listening(self, listeners: Vec<Listener>) -> BoundServer {
        BoundServer {
            listeners,
            threads: self.threads,
            tls: self.tls.clone(),
            handler: self.into_handler(),
        }
    }

    pub(crate) fn into_handler(self) -> Handler {
        let router = self.router;
        let layered = self.layers.iter().rev().fold(None, |inner, layer| {
            Some(layer(inner.unwrap_or_else(|| {
                Layered(Arc::new(ForeignService::new(router.clone())))
            })))
        });
        Handler { router, layered }
    }
}

impl From<Router> for Server {
    /// A server of these services, with the router's interceptors and limits, and no layers.
    fn from(router: Router) -> Self {
        Self {
            router,
            ..Self::default()
        }
    }
}

/// A server that listens.
#[derive(Debug)]
pub struct BoundServer {
    /// One, or one for each thread; all at the same address.
    listeners: Vec<Listener>,
    threads: Option<usize>,
    tls: Option<ServerTls>,
    handler: Handler,
}

impl BoundServer {
    /// Where it listens: with port 0, this tells which port it is.
    pub fn local_addr(&self) -> Address {
        let first = self.listeners.first();
        first.map_or(Address::InMemory, Listener::local_addr)
    }

    /// Serves for ever. Dropping the future closes the listener and all connections.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the encoding to [compress](Server::compress) with is not known, or the files
    /// of TLS cannot be used; with [`Server::threads`] also if there should be none, and
    /// RESOURCE_EXHAUSTED if they cannot be started. What goes wrong with one connection ends that
    /// connection.
    pub async fn serve(self) -> Result<(), Status> {
        self.serve_until(std::future::pending()).await
    }

    /// Serves until `shutdown` is ready. Then the listener is closed, clients are told to go
    /// elsewhere (GOAWAY), and calls that run may finish, for `drain_grace` (10 s) at most; no client
    /// can hold it up longer. Calls that were under way to the server when it said so are served.
    /// [`shutdown_signal`](crate::shutdown_signal) is such a future.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    pub async fn serve_until(self, shutdown: impl Future<Output = ()>) -> Result<(), Status> {
        self.handler.router.check()?;
        let limits = Arc::new(self.handler.router.current_limits().clone());
        let Self {
            mut listeners,
            threads,
            tls,
            handler,
        } = self;
        if let Some(tls) = &tls {
            tls.load()?;
        }
        let (fresh, spawner) = (tls.clone(), handler.spawner());
        let serving = async {
            if let Some(threads) = threads {
                let threads = at_least_one(threads)?;
                return serve_threads(listeners, tls, threads, limits, shutdown, spawner).await;
            }
            if let Some(listener) = listeners.pop() {
                serve(listener, tls, limits, shutdown, spawner).await;
            }
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

fn at_least_one(threads: usize) -> Result<NonZeroUsize, Status> {
    NonZeroUsize::new(threads)
        .ok_or_else(|| Status::invalid_argument("a server needs a thread: threads(0) leaves none"))
}

/// What answers the calls of a server.
#[derive(Clone, Debug)]
pub(crate) struct Handler {
    router: Router,
    layered: Option<Layered>,
}

impl Handler {
    pub(crate) fn limits(&self) -> &ServerLimits {
        self.router.current_limits()
    }

    /// Answers a call that comes from no connection.
    pub(crate) fn answer(&self, request: http::Request<Body>) -> PeerAnswer {
        match &self.layered {
            None => PeerAnswer::Router(self.router.answer(request).0),
            Some(layered) => PeerAnswer::Layered(layered.0.call(request)),
        }
    }

    /// What serves connections. It is compiled here, once, and not with each program.
    fn spawner(self) -> Spawner {
        Spawner::new(move |peer| self.for_peer(peer))
    }

    fn for_peer(&self, peer: Arc<Peer>) -> PeerHandler {
        PeerHandler {
            router: self.router.for_peer(peer.clone()),
            layered: self.layered.clone().map(|layered| (layered, peer)),
        }
    }
}

/// What answers the calls of one connection.
struct PeerHandler {
    router: Router,
    layered: Option<(Layered, Arc<Peer>)>,
}

impl trunkline_transport::ConnectionHandler for PeerHandler {
    type Future = PeerAnswer;

    fn call(&mut self, mut request: http::Request<Body>) -> (PeerAnswer, Option<Arc<PollBudget>>) {
        let Some((layered, peer)) = &self.layered else {
            let (answering, poll_budget) = self.router.answer(request);
            return (PeerAnswer::Router(answering), poll_budget);
        };
        let poll_budget = self.router.poll_budget(&request);
        request.extensions_mut().insert(peer.clone());
        (
            PeerAnswer::Layered(layered.0.call(request)),
            Some(poll_budget),
        )
    }

    fn connection_ended(&self, stats: &ConnectionStats) {
        self.router.connection_ended(stats);
    }
}

pub(crate) enum PeerAnswer {
    Router(crate::server::answering::Answering),
    Layered(crate::tower::Calling),
}

impl Future for PeerAnswer {
    type Output = http::Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Router(answering) => answering.poll_response(cx),
            Self::Layered(calling) => calling.as_mut().poll(cx).map(|response| {
                response.unwrap_or_else(|status| refused(status.into(), &Compressors::none()))
            }),
        }
    }
}

/// The service that a tower layer is put around: see [`Server::layer`].
#[derive(Clone)]
pub struct Layered(Arc<dyn Shared>);

impl TowerService<http::Request<Body>> for Layered {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

impl fmt::Debug for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered").finish_non_exhaustive()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("router", &self.router)
            .field("layers", &self.layers.len())
            .field("threads", &self.threads)
            .finish()
    }
}
