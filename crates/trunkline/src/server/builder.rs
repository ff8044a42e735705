//! The builder of a server: its services, layers and options.

use std::fmt;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tower_layer::Layer;
use tower_service::Service as TowerService;
use trunkline_codec::{Compressor, Compressors, Status};
use trunkline_transport::{Body, Listener, Peer, ServerLimits, ServerTls, bind_threads, serve_one};

use crate::call::compression::find_compressor;
use crate::call::intercept::{Interceptor, Interceptors};
use crate::http_service::{BoxError, ErasedService, HttpService, LayeredService};
use crate::observe::{Observer, Observers};
use crate::server::bound::{BoundServer, at_least_one};
use crate::server::listen_addresses::ListenAddresses;
use crate::server::options::CallOptions;
use crate::server::router::{Router, Routes};
use crate::server::router_handler::RouterHandler;
use crate::server::service::{Methods, Service};

/// A gRPC server: services, and the options with which it serves them over HTTP/2.
///
/// [`serve`](Self::serve) listens and serves until its future is dropped. For a graceful shutdown, use
/// [`bind`](Self::bind) and [`BoundServer::serve_until`].
///
/// ```no_run
/// # async fn example(greeter: impl trunkline::Service) -> trunkline::Result<()> {
/// trunkline::Server::new().add_service(greeter).serve("127.0.0.1:50051").await
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Server {
    methods: Methods,
    interceptors: Interceptors,
    observers: Observers,
    limits: ServerLimits,
    compressors: Compressors,
    compress: Option<String>,
    fallback: Option<Arc<dyn HttpService>>,
    hides_names: bool,
    layers: Vec<Arc<dyn Fn(LayeredService) -> LayeredService + Send + Sync>>,
    threads: Option<usize>,
    tls: Option<ServerTls>,
}

impl Server {
    /// Creates a server with default options and without services.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service. Methods that were added earlier with the same paths are replaced.
    #[must_use]
    pub fn add_service<S: Service>(mut self, service: S) -> Self {
        self.methods.add_service(service);
        self
    }

    /// Runs `interceptor` around every call. The interceptor added first is the outermost. Interceptors
    /// run inside the tower [layers](Self::layer).
    #[must_use]
    pub fn intercept(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptors.push(interceptor);
        self
    }

    /// Adds an observer of every call and connection; see [`observe`](crate::observe). Observers are
    /// notified in the order in which they were added.
    #[must_use]
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.observers.add(observer);
        self
    }

    /// Hides the names of services and methods from clients that call an unknown one. By default, the
    /// status suggests a similar name ("did you mean SayHello?"), even if an interceptor would refuse the
    /// client.
    #[must_use]
    pub fn hide_names(mut self) -> Self {
        self.hides_names = true;
        self
    }

    /// Adds a tower layer around all services. The layer added first is the outermost.
    ///
    /// If a layer returns an error that is not a [`Status`], the client receives UNAVAILABLE with the
    /// text of the error.
    ///
    /// Readiness (`poll_ready`) does not pass between layers that are added separately: a layer does not see
    /// that one inside it is not ready. Some layers need that: load shedding, for example, refuses requests
    /// while a concurrency limit is not ready. Combine such layers with tower's `ServiceBuilder`, and add them as
    /// one layer.
    #[must_use]
    pub fn layer<L, B>(mut self, layer: L) -> Self
    where
        L: Layer<LayeredService> + Send + Sync + 'static,
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
            LayeredService::new(ErasedService::new(layer.layer(service)))
        }));
        self
    }

    /// Passes requests that are not gRPC to `service`: requests with an HTTP method other than POST, or
    /// with another content type. By default, the server refuses them with HTTP status 405 or 415.
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
        self.fallback = Some(Arc::new(ErasedService::new(service)));
        self
    }

    /// Limits the size of messages that the server receives, in bytes both as received and after decompression.
    /// Default: 4 MiB. A larger message ends its call with RESOURCE_EXHAUSTED.
    #[must_use]
    pub fn max_recv_message_size(self, bytes: usize) -> Self {
        self.with_limits(|limits| limits.messages.max_recv_message_size = bytes)
    }

    /// Limits the size of messages that the server sends, in bytes before compression. Default: 4 GiB. A larger
    /// message is not sent. If it is the only response, the call ends with RESOURCE_EXHAUSTED; in a stream,
    /// [`Sender::send`](crate::Sender::send) returns that error, and the handler can continue.
    #[must_use]
    pub fn max_send_message_size(self, bytes: usize) -> Self {
        self.with_limits(|limits| limits.messages.max_send_message_size = bytes)
    }

    /// Limits the number of calls that a client can have open on one connection, and the number of
    /// handlers that run for the connection. Default: 100.
    #[must_use]
    pub fn max_concurrent_streams(self, streams: u32) -> Self {
        self.with_limits(|limits| limits.max_concurrent_streams = streams)
    }

    /// Changes any of the [limits](crate::limits).
    ///
    /// ```
    /// # use std::time::Duration;
    /// let server = trunkline::Server::new()
    ///     .with_limits(|limits| limits.http2.linger_time = Duration::from_secs(2));
    /// ```
    #[must_use]
    pub fn with_limits(mut self, change: impl FnOnce(&mut ServerLimits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// Serves on this many dedicated threads. Default: the server runs on the runtime that awaits it.
    ///
    /// Each thread has a single-threaded tokio runtime and, on Linux, its own listening socket. A
    /// connection stays on the thread that accepted it, and so do its handlers and the tasks that they
    /// spawn. No work moves between cores, which suits many connections with short handlers. The threads
    /// share the services, interceptors and layers.
    ///
    /// **Restrictions.** A handler that computes for a long time delays all connections of its thread;
    /// move such work to `tokio::task::spawn_blocking`. `tokio::task::block_in_place` does not work on
    /// these threads. The kernel assigns each connection to a thread by its addresses, regardless of
    /// load, so one thread can have several connections while another has none.
    ///
    /// **Start and end.** The threads are named `trunkline-0`, `trunkline-1` and so on. They start when
    /// [`BoundServer::serve`] is first polled, which can be on any runtime. When that future completes, the threads have ended, with
    /// all tasks that handlers spawned on them. If it is dropped, each thread ends as soon as its current
    /// task yields, so the port can stay in use for a moment.
    ///
    /// Without a socket for each thread, as on a Unix socket, with a listener passed to [`on`](Self::on),
    /// or on systems other than Linux, the threads share one listener.
    ///
    /// If `threads` is 0, `bind` and `serve` return INVALID_ARGUMENT.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Serves over TLS, on TCP and on Unix sockets. Default: without TLS.
    /// [`serve_connection`](Self::serve_connection) ignores this option.
    ///
    /// ```no_run
    /// # async fn example(greeter: impl trunkline::Service) -> trunkline::Result<()> {
    /// use trunkline::tls::ServerTls;
    /// use trunkline::Server;
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

    /// Adds a compressor, which the server prefers less than the existing ones. A compressor of the same
    /// name is replaced. Default: gzip and deflate.
    #[must_use]
    pub fn compressor(mut self, compressor: impl Compressor + 'static) -> Self {
        self.compressors = self.compressors.with(compressor);
        self
    }

    /// Removes all compressors, so the server neither accepts nor sends compressed messages.
    #[must_use]
    pub fn no_compression(mut self) -> Self {
        self.compressors = Compressors::none();
        self
    }

    /// Compresses responses with the compressor `name`, such as `gzip`. `identity` disables compression.
    /// Default: `identity`.
    ///
    /// A message is compressed if it has more than [`compress_above`](Self::compress_above) bytes and
    /// compression makes it smaller. If a client does not accept the selected compressor, the server uses
    /// the first of its other compressors that the client accepts. A handler can override the selection
    /// for its call with
    /// [`ResponseHandle::compress`](crate::ResponseHandle::compress).
    ///
    /// If the server has no compressor of that name, `bind` and `serve` return INVALID_ARGUMENT.
    #[must_use]
    pub fn compress(mut self, name: &str) -> Self {
        self.compress = Some(name.to_owned());
        self
    }

    /// Sets the size, in bytes, up to which messages are not compressed. Default: 1 KiB. With 0, every
    /// message that compression makes smaller is compressed.
    #[must_use]
    pub fn compress_above(self, bytes: usize) -> Self {
        self.with_limits(|limits| limits.messages.compress_above = bytes)
    }

    /// Listens on one or more addresses and serves until the future is dropped. This is
    /// [`bind`](Self::bind) followed by [`BoundServer::serve`].
    ///
    /// Dropping the future closes the listeners and all connections. The server then tries to send a
    /// GOAWAY frame to each client, but does not wait for it.
    ///
    /// # Errors
    ///
    /// The errors of [`bind`](Self::bind) and of [`BoundServer::serve`].
    pub async fn serve(self, addresses: impl Into<ListenAddresses>) -> Result<(), Status> {
        self.bind(addresses).await?.serve().await
    }

    /// Listens on an address, or on each address of a list.
    ///
    /// An address is text (`host:port`, `unix:/path`, or on Linux `unix-abstract:name`), a `SocketAddr`, or an
    /// [`Address`](crate::Address). Port 0 selects a free port. An IPv6 address can contain a zone:
    /// `[fe80::1%eth0]:port`. The file of a Unix socket and its lock file are handled as by
    /// [`Listener::bind`](crate::server::Listener::bind).
    ///
    /// The server accepts connections while the returned [`BoundServer`] serves. Its limits apply to all
    /// addresses together.
    ///
    /// ```no_run
    /// # async fn example(greeter: impl trunkline::Service) -> trunkline::Result<()> {
    /// let server = trunkline::Server::new().add_service(greeter);
    /// let server = server.bind(["127.0.0.1:0", "unix:/run/greeter.sock"]).await?;
    /// let first = server.local_addr();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if an address is malformed, the list is empty, the TLS files cannot be used, a selected
    /// compressor does not exist, or [`threads`](Self::threads) is 0. UNAVAILABLE if the server cannot listen
    /// on an address. The message contains the address, the cause and a way to resolve it. A service can add
    /// checks with [`Methods::before_serving`], whose errors are also returned.
    pub async fn bind(self, addresses: impl Into<ListenAddresses>) -> Result<BoundServer, Status> {
        let addresses = addresses.into();
        self.check()?;
        if let Some(tls) = &self.tls {
            tls.load()?;
        }
        let mut listeners = Vec::new();
        for address in addresses.texts()? {
            listeners.push(match self.threads {
                None => vec![Listener::bind(address).await?],
                Some(threads) => bind_threads(address, at_least_one(threads)?).await?,
            });
        }
        Ok(self.listening(listeners))
    }

    /// Uses a socket that already listens instead of binding an address. The options of the server are
    /// checked when the returned [`BoundServer`] serves.
    pub fn on(self, listener: Listener) -> BoundServer {
        self.listening(vec![vec![listener]])
    }

    /// Serves one connection that is already open, such as one end of an in-memory pair, until it ends.
    /// The connection runs in the task that awaits the future; [`threads`](Self::threads) has no effect.
    ///
    /// When the connection ends, the server shuts the stream down (`poll_shutdown`). It then reads until
    /// the client closes the stream or sends nothing for `Http2Limits::custom_io_linger_time` (default: 1
    /// s). A stream without half-close never shows that the client has closed it; the time limit ends the
    /// wait.
    ///
    /// Dropping the future closes the connection immediately, without a GOAWAY frame.
    pub async fn serve_connection<IO>(self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.serve_connection_until(io, std::future::pending())
            .await;
    }

    /// Serves one connection, as [`serve_connection`](Self::serve_connection) does, until `shutdown`
    /// completes. Then the client receives a GOAWAY frame, and running calls can continue for
    /// [`drain_grace`](Self::drain_grace) (default: 10 s).
    pub async fn serve_connection_until<IO>(self, io: IO, shutdown: impl Future<Output = ()>)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let limits = Arc::new(self.limits.clone());
        let peer = Arc::new(Peer::in_memory());
        let handler = RouterHandler::new(&self.into_router(), peer);
        serve_one(io, handler, limits, shutdown).await;
    }

    /// Returns the services as a tower service, for use in another HTTP/2 server.
    ///
    /// The router applies the layers, interceptors, observers and message limits of this server. Options
    /// of connections, such as TLS, threads and keepalive, have no effect, because the other server
    /// handles the connections.
    pub fn into_router(self) -> Router {
        let compress = self.compress.as_deref();
        let options = CallOptions::new(
            self.interceptors,
            &self.limits.messages,
            self.compressors,
            compress,
        );
        let router = Router::new(Routes::new(
            &self.methods,
            options,
            self.limits,
            self.observers,
            self.fallback,
            self.hides_names,
        ));
        let layers = self.layers.iter().rev();
        layers.fold(router, |router, layer| router.layered(&**layer))
    }

    /// Checks that the selected compressors exist, and runs the checks of services.
    fn check(&self) -> Result<(), Status> {
        let handlers = self.methods.handlers().values();
        let of_services =
            handlers.filter_map(|handler| handler.options.as_ref()?.compress.as_ref());
        for name in self.compress.iter().chain(of_services) {
            find_compressor("the server", name, &self.compressors)
                .map_err(Status::invalid_argument)?;
        }
        self.methods.check()
    }

    fn listening(self, listeners: Vec<Vec<Listener>>) -> BoundServer {
        let checked = self.check();
        let (threads, tls) = (self.threads, self.tls.clone());
        BoundServer::new(listeners, threads, tls, self.into_router(), checked)
    }
}

impl From<Server> for Router {
    fn from(server: Server) -> Self {
        server.into_router()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("methods", &self.methods)
            .field("layers", &self.layers.len())
            .field("threads", &self.threads)
            .finish()
    }
}
