//! A server: services, layers and limits, on a socket.

use std::fmt;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tower_layer::Layer;
use tower_service::Service as TowerService;
use trunkline_codec::{Compressor, Compressors, Status};
use trunkline_transport::{Body, Listener, Peer, ServerLimits, ServerTls, bind_threads, serve_one};

use crate::call::compression::known_compressor;
use crate::call::intercept::{Interceptor, Interceptors};
use crate::http_service::{BoxError, ErasedService, HttpService, LayeredService};
use crate::observe::{Observer, Observers};
use crate::server::bound::{BoundServer, at_least_one};
use crate::server::listen_addresses::ListenAddresses;
use crate::server::options::CallOptions;
use crate::server::router::{Router, Routes};
use crate::server::router_handler::RouterHandler;
use crate::server::service::{Methods, Service};

/// Serves services over HTTP/2.
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
    /// A server with no services.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service.
    #[must_use]
    pub fn add_service<S: Service>(mut self, service: S) -> Self {
        self.methods.add_service(service);
        self
    }

    /// Runs `interceptor` around every call, inside the layers. The one added first is the outermost.
    #[must_use]
    pub fn intercept(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptors.push(interceptor);
        self
    }

    /// Adds an observer of every call and connection; see [`observe`](crate::observe). Observers that were added
    /// before are told first.
    #[must_use]
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.observers.add(observer);
        self
    }

    /// Tells callers of an unknown service or method no names. By default the status names a similar
    /// one ("did you mean SayHello?"), before any interceptor runs.
    #[must_use]
    pub fn hide_names(mut self) -> Self {
        self.hides_names = true;
        self
    }

    /// Puts a tower layer around all services. The layer added first is the outermost.
    ///
    /// Layers that are added one by one are always ready for each other. A layer that depends on
    /// the readiness of another, as load shedding depends on a limit, has to be added together with it:
    /// a stack of tower's `ServiceBuilder` is a layer.
    ///
    /// The text of a layer's error becomes the message of an UNAVAILABLE status, unless the error is a
    /// [`Status`] itself.
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

    /// Passes requests that are not gRPC to `service`: those with another HTTP method than POST, or
    /// another content type. By default they are refused with 405 and 415.
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

    /// Sets the largest message that the server receives, in bytes after decompression; 4 MiB by
    /// default.
    #[must_use]
    pub fn max_recv_message_size(self, bytes: usize) -> Self {
        self.with_limits(|limits| limits.messages.max_recv_message_size = bytes)
    }

    /// Sets the largest message that the server sends, in bytes before compression; 4 GiB by default.
    #[must_use]
    pub fn max_send_message_size(self, bytes: usize) -> Self {
        self.with_limits(|limits| limits.messages.max_send_message_size = bytes)
    }

    /// Sets how many calls a client may have open on one connection, which is also how many handlers
    /// run for the connection; 100 by default.
    #[must_use]
    pub fn max_concurrent_streams(self, streams: u32) -> Self {
        self.with_limits(|limits| limits.max_concurrent_streams = streams)
    }

    /// Changes any limit.
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

    /// Serves on `threads` threads of its own, each with a single-threaded runtime and, on Linux, a
    /// listening socket. By default a server runs on the runtime that awaits it.
    ///
    /// A connection stays on the thread that accepted it. Its handlers and the tasks that they spawn
    /// run there as well, so nothing passes between cores. That suits many connections with short
    /// handlers. The kernel distributes connections by their addresses: a few may share a thread while
    /// another thread has none, and they never move. A handler that computes delays all connections
    /// of its thread: use `tokio::task::spawn_blocking`; `block_in_place` does not work there.
    ///
    /// The threads are called `trunkline-0` and so on. They start when the bound server serves, and
    /// share the services, interceptors and layers. The future of [`BoundServer::serve`] can be
    /// awaited on any runtime. When it completes, the threads have ended, and with them all tasks that
    /// handlers left there. Dropping the future ends each thread at its next pause, so the port may
    /// stay in use for a moment. The threads share a single listener on a Unix socket, and one that
    /// was passed to [`on`](Self::on).
    ///
    /// With 0, `bind` and `serve` return INVALID_ARGUMENT.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Serves over TLS, on TCP and on Unix sockets. [`serve_connection`](Self::serve_connection)
    /// ignores it.
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

    /// Adds a compressor for messages, after those that the server has; gzip and deflate by default.
    /// It replaces one of the same name.
    #[must_use]
    pub fn compressor(mut self, compressor: impl Compressor + 'static) -> Self {
        self.compressors = self.compressors.with(compressor);
        self
    }

    /// Neither accepts nor sends compressed messages.
    #[must_use]
    pub fn no_compression(mut self) -> Self {
        self.compressors = Compressors::none();
        self
    }

    /// Compresses responses with the compressor of that name, such as `gzip`; they are sent as they
    /// are by default.
    ///
    /// For a client that does not accept it, the server takes the first other compressor that both
    /// know. A message is compressed if it has more than [`compress_above`](Self::compress_above)
    /// bytes and gets smaller. A handler can override this for its call:
    /// [`ResponseHandle::compress`](crate::ResponseHandle::compress).
    ///
    /// With an unknown name, `bind` and `serve` return INVALID_ARGUMENT.
    #[must_use]
    pub fn compress(mut self, name: &str) -> Self {
        self.compress = Some(name.to_owned());
        self
    }

    /// Sets the largest message, in bytes, that the server sends uncompressed although it compresses;
    /// 1 KiB by default. With 0, every message that gets smaller is compressed.
    #[must_use]
    pub fn compress_above(self, bytes: usize) -> Self {
        self.with_limits(|limits| limits.messages.compress_above = bytes)
    }

    /// Listens on an address, or on several, and serves without end: [`bind`](Self::bind) and then
    /// [`BoundServer::serve`].
    ///
    /// Dropping the future closes the listeners and all connections. Clients get a GOAWAY if their
    /// sockets take it without waiting.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub async fn serve(self, addresses: impl Into<ListenAddresses>) -> Result<(), Status> {
        self.bind(addresses).await?.serve().await
    }

    /// Listens on an address, or on each of a list. An address is text, `host:port`, `unix:/path`, or
    /// on Linux `unix-abstract:name`; or a `SocketAddr`, or an [`Address`](crate::Address). Port 0
    /// takes a free one. An IPv6 address may have a zone: `[fe80::1%eth0]:port`.
    ///
    /// The server accepts connections once the result serves. Its limits are for all addresses
    /// together.
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
    /// INVALID_ARGUMENT if an address is malformed or the list is empty, the files of TLS cannot be
    /// used, or the name of the compressor is unknown; UNAVAILABLE if an address cannot be used. The message names the
    /// address, the cause and the way out.
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

    /// Serves on a socket that listens already.
    pub fn on(self, listener: Listener) -> BoundServer {
        self.listening(vec![vec![listener]])
    }

    /// Serves one connection that is open already, such as one end of an in-memory pair, until it
    /// ends. It runs where it is awaited; [`threads`](Self::threads) has no effect.
    ///
    /// At the end the stream is shut down (`poll_shutdown`), and then read until the client closes it
    /// or sends nothing for `Http2Limits::custom_io_linger_time` (1 s): the stream need not support
    /// half-closing.
    ///
    /// Dropping the future closes the connection at once, without a GOAWAY.
    pub async fn serve_connection<IO>(self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.serve_connection_until(io, std::future::pending())
            .await;
    }

    /// Serves one connection, as [`serve_connection`](Self::serve_connection), until `shutdown` is
    /// ready. Then the client gets a GOAWAY, and calls that run may finish, within `drain_grace`
    /// (10 s).
    pub async fn serve_connection_until<IO>(self, io: IO, shutdown: impl Future<Output = ()>)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let limits = Arc::new(self.limits.clone());
        let peer = Arc::new(Peer::in_memory());
        let handler = RouterHandler::new(&self.into_router(), peer);
        serve_one(io, handler, limits, shutdown).await;
    }

    /// Returns the services as a tower service, for any other HTTP/2 server.
    ///
    /// It has the layers, interceptors and limits of messages; what belongs to connections, such as
    /// TLS, threads and keepalive, is the other server's business.
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

    /// Checks that the options fit together.
    fn check(&self) -> Result<(), Status> {
        if let Some(name) = &self.compress {
            known_compressor("the server", name, &self.compressors)?;
        }
        for handler in self.methods.handlers().values() {
            if let Some(options) = &handler.options {
                options.check(&self.compressors)?;
            }
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
