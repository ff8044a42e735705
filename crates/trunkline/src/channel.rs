//! Where calls go: to a server by a connection, to a router in this process, to any tower service.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, InvalidUri, PathAndQuery, Scheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;
use trunkline_channel::{
    Connections, ConnectivityState, Origin, Policy, Resolver, Settings, StateWatch, Targets,
};
use trunkline_codec::head::ClientFields;
use trunkline_codec::{Encoding, Encodings, Expect, Limits, Reader, Status};
use trunkline_transport::{Address, Body, ClientTls, ConnectionStats};

use crate::attempts;
use crate::call::{Call, Start};
use crate::deadline;
use crate::foreign::{Calling, ForeignService, Shared};
use crate::intercept::{Chain, Interceptor, Interceptors, Link};
use crate::method::{Method, Paths};
use crate::observe::{Metrics, MetricsSink, Recorder, Side};
use crate::opening::Opening;
use crate::receive::Receive;
use crate::router::Router;

/// gRFC A8, "Client-side behavior": a client must not ask more often.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(10);

/// Calls go here. Concrete, and cheap to clone: clones share their connections.
///
/// There is one connection to the server, and more only when it is busy: see
/// [`ChannelBuilder::max_connections`]. With a list of targets, or a name of several addresses,
/// [`ChannelBuilder::pick_first`] and [`ChannelBuilder::round_robin`] say which of them are called.
///
/// A connection that has ended is replaced when the next call is made. If that fails it is tried
/// again after a pause, which grows from 1 s to 120 s (`connect_backoff_base` and what follows it in
/// [`Limits`]); meanwhile calls fail with UNAVAILABLE and the reason, unless they
/// [wait for ready](Call::wait_for_ready). A call that the server has not taken, because it was
/// closing the connection or refused the stream, is made again without the caller's noticing.
///
/// The connections close when the last clone is gone and the last call has ended, and when there was
/// no call for `channel_idle_time` (30 min); then the next call connects.
#[derive(Clone)]
pub struct Channel {
    backend: Backend,
    interceptors: Interceptors,
    metrics: Metrics,
    options: Arc<ChannelOptions>,
}

#[derive(Clone)]
enum Backend {
    Server(Arc<Connections>),
    Service(Arc<dyn Shared>),
}

struct ChannelOptions {
    limits: Arc<Limits>,
    /// What is the same in the head of each request.
    fields: ClientFields,
    paths: Paths,
    /// What messages are compressed with unless their call says otherwise.
    compress: Option<Arc<dyn Encoding>>,
}

/// A channel to be: see [`Channel::to`].
#[derive(Clone, Debug)]
pub struct ChannelBuilder {
    settings: Settings,
    authority: Option<String>,
    limits: Limits,
    encodings: Encodings,
    compress: Option<String>,
}

impl Channel {
    /// Connects to `host:port`, `http://host:port`, `https://host:port` or `unix:/path`.
    ///
    /// `https://` is TLS, checked against the authorities that the system trusts; for others, and for
    /// a certificate of the client's own, see [`ChannelBuilder::tls`].
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the target cannot be read; UNAVAILABLE if there is no HTTP/2 server
    /// within `connect_timeout` (20 s). The message names the target, the cause and the way out.
    pub async fn connect(target: &str) -> Result<Self, Status> {
        Self::to(target).connect().await
    }

    /// A channel with settings of its own, to one target or to a list: see [`Targets`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline::Result<()> {
    /// let channel = trunkline::Channel::to("localhost:50051")
    ///     .connect_timeout(Duration::from_secs(1))
    ///     .max_recv_message_size(16 << 20)
    ///     .connect_lazy()?;
    /// # Ok(()) }
    /// ```
    pub fn to(targets: impl Into<Targets>) -> ChannelBuilder {
        ChannelBuilder {
            settings: Settings::new(targets.into()),
            authority: None,
            limits: Limits::default(),
            encodings: Encodings::default(),
            compress: None,
        }
    }

    /// A channel to services in this process, with no socket and no HTTP/2 in between.
    ///
    /// Everything else is as over a connection: deadlines, cancellation, metadata, limits. It must
    /// be called in a tokio runtime; each call has a task there.
    ///
    /// Of a [`Server`](crate::Server) it takes the services and the interceptors. Its tower layers are
    /// for sockets: what has to hold in process as well, authorization above all, is an interceptor.
    pub fn in_process(router: impl Into<Router>) -> Self {
        Self::over(Backend::Service(Arc::new(
            crate::in_process::InProcess::new(router.into()),
        )))
    }

    /// A channel over any tower service: a load balancer, a recorder, another channel's layers.
    ///
    /// What the service's error says becomes the message of an UNAVAILABLE status, unless it is a
    /// [`Status`] itself.
    pub fn new<S, B>(service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + 'static,
    {
        Self::over(Backend::Service(Arc::new(ForeignService::new(service))))
    }

    fn over(backend: Backend) -> Self {
        let options = ChannelOptions {
            limits: Arc::new(Limits::default()),
            fields: ClientFields::new(Encodings::default()),
            paths: Paths::default(),
            compress: None,
        };
        Self {
            backend,
            interceptors: Interceptors::default(),
            metrics: Metrics::default(),
            options: Arc::new(options),
        }
    }

    /// This channel with an interceptor around every call made on it. One that was added before is
    /// further out. Other clones do not have it.
    #[must_use]
    pub fn intercept(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptors.push(interceptor);
        self
    }

    /// This channel, telling `sink` of every call made on it: see [`MetricsSink`]. One that was set
    /// before is replaced. Other clones do not have it.
    #[must_use]
    pub fn metrics(mut self, sink: impl MetricsSink) -> Self {
        self.metrics.set(sink);
        self
    }

    /// Whether a call on this channel needs no more than its head, its messages and its deadline.
    pub(crate) fn is_plain(&self) -> bool {
        self.interceptors.is_empty() && !self.metrics.is_watched()
    }

    pub(crate) fn recorder<T>(&self, call: &Call<T>) -> Option<Arc<Recorder>> {
        self.metrics.record(Side::Client, Some(&call.head))
    }

    /// Whether calls can be made now. A channel in this process is always ready, and so is one over a
    /// tower service, which is not asked.
    pub fn state(&self) -> ConnectivityState {
        match &self.backend {
            Backend::Server(connections) => connections.state(),
            Backend::Service(_) => ConnectivityState::Ready,
        }
    }

    /// The state, to be watched. The watch does not keep the channel alive.
    pub fn watch_state(&self) -> StateWatch {
        match &self.backend {
            Backend::Server(connections) => connections.watch_state(),
            Backend::Service(_) => StateWatch::fixed(ConnectivityState::Ready),
        }
    }

    /// What has passed so far on each connection that the channel has now, in no order; nothing for a
    /// channel in this process or over a tower service.
    pub fn connection_stats(&self) -> Vec<ConnectionStats> {
        self.connections().map_or_else(Vec::new, |it| it.stats())
    }

    /// Has an idle channel connect, and does not wait for it. It must be called in a tokio runtime.
    pub fn request_connection(&self) {
        if let Backend::Server(connections) = &self.backend {
            connections.request_connection();
        }
    }

    pub(crate) fn encodings(&self) -> &Encodings {
        self.options.fields.encodings()
    }

    #[inline]
    pub(crate) fn compresses_with(&self) -> Option<&Arc<dyn Encoding>> {
        self.options.compress.as_ref()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.options.limits
    }

    pub(crate) fn path_of(&self, method: &Method) -> Result<PathAndQuery, InvalidUri> {
        self.options.paths.of(method)
    }

    pub(crate) fn reader(&self, expect: Expect) -> Reader {
        let max_size = self.limits().max_recv_message_size;
        Reader::response(expect, max_size, self.encodings().clone())
    }

    /// Begins a call, in the poll of who waits for it.
    pub(crate) fn start(
        self,
        mut call: Call,
        body: Body,
        expect: Expect,
        start: Start,
        recorder: Option<Arc<Recorder>>,
    ) -> Receive {
        let (reader, deadline) = (self.reader(expect), call.head.deadline);
        if self.interceptors.is_empty() {
            let opening = self.open(&mut call, body, start);
            let again = Some(Box::new((self, call)));
            return Receive::replies(reader, opening, again, deadline).recorded(recorder);
        }
        let (link, is_open) = (Arc::new(Link::default()), Arc::new(AtomicBool::new(false)));
        let (inmost_link, inmost_open) = (link.clone(), is_open.clone());
        let interceptors = self.interceptors.clone();
        let running = interceptors.run(call, move |mut call| {
            Box::pin(async move {
                let moved_to = call.head.deadline;
                let inside = async {
                    let mut opening = self.open(&mut call, body, start);
                    let response = poll_fn(|cx| {
                        let again = || Some((self.clone(), call.take()));
                        let response = opening.poll(cx, again);
                        inmost_open.store(opening.is_open(), Ordering::Release);
                        response
                    });
                    inmost_link.respond(response.await?);
                    poll_fn(|cx| inmost_link.poll_end(cx)).await
                };
                deadline::moved(deadline, moved_to, inside).await
            })
        });
        let waiting = link.clone();
        let response = async move { Ok(poll_fn(|cx| waiting.poll_response(cx)).await) };
        Receive::replies(reader, Opening::waiting(is_open, response), None, deadline)
            .chained(Chain::new(running, link))
            .recorded(recorder)
    }

    /// Opens a stream for the call, below the interceptors: at once, if one is free.
    pub(crate) fn open<T>(&self, call: &mut Call<T>, body: Body, start: Start) -> Opening {
        match &self.backend {
            Backend::Server(connections) => attempts::begin(self, connections, call, body),
            Backend::Service(service) => match self.request(call, nowhere()) {
                Ok(head) => {
                    let request = head.map(|()| body);
                    Opening::called(call_service(service.clone(), request, start))
                }
                Err(status) => Opening::failed(status),
            },
        }
    }

    /// The connections, if the channel has any.
    pub(crate) fn connections(&self) -> Option<&Arc<Connections>> {
        match &self.backend {
            Backend::Server(connections) => Some(connections),
            Backend::Service(_) => None,
        }
    }

    /// The head of the request, which may be made more than once.
    pub(crate) fn request<T>(
        &self,
        call: &Call<T>,
        origin: Origin,
    ) -> Result<http::Request<()>, Status> {
        let timeout = call.head.time_remaining();
        if timeout == Some(Duration::ZERO) {
            return Err(Status::deadline_exceeded(
                "the deadline passed before the call was sent",
            ));
        }
        let options = &*self.options;
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(origin.scheme);
        uri.authority = Some(origin.authority);
        uri.path_and_query = Some(call.head.path.clone());
        let uri = http::Uri::from_parts(uri)
            .map_err(|error| Status::internal(format!("the path of the method: {error}")))?;
        let mut request = http::Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = uri;
        *request.extensions_mut() = call.head.extensions.clone();
        let (headers, encoding) = (request.headers_mut(), call.options.encoding.as_deref());
        if !call.head.metadata.is_empty() {
            call.head.metadata.clone().merge_into(headers);
        }
        options.fields.write(headers, timeout, encoding);
        Ok(request)
    }
}

/// The channel below its interceptors, for tower's layers: what [`Channel::new`] makes of the
/// layered service is a channel again.
///
/// It is always ready; requests go to the channel's own authority, whatever theirs is.
impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match &self.backend {
            Backend::Service(service) => service.call(request),
            Backend::Server(connections) => {
                Box::pin(attempts::forward(connections.clone(), request))
            }
        }
    }
}

/// What a call says that goes to no server.
fn nowhere() -> Origin {
    Origin {
        scheme: Scheme::HTTP,
        authority: Authority::from_static("localhost"),
    }
}

/// Calls a service that is no connection.
fn call_service(service: Arc<dyn Shared>, request: http::Request<Body>, start: Start) -> Calling {
    match start {
        Start::Unwatched => service.call(request),
        // Nobody but the caller drives a tower service, and the caller of a stream may be busy with
        // its other half.
        Start::Watched => Box::pin(async move {
            let mut task = AbortOnDrop(tokio::spawn(async move { service.call(request).await }));
            (&mut task.0).await.unwrap_or_else(|error| {
                Err(Status::internal(format!("the service failed: {error}")))
            })
        }),
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ChannelBuilder {
    /// Connects now.
    ///
    /// # Errors
    ///
    /// As [`Channel::connect`].
    pub async fn connect(self) -> Result<Channel, Status> {
        let channel = self.connect_lazy()?;
        if let Backend::Server(connections) = &channel.backend {
            connections.connect().await?;
        }
        Ok(channel)
    }

    /// Connects when the first call is made.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the target, or the authority, cannot be read, the files of TLS cannot be
    /// used, or the encoding to [compress](Self::compress) with is not known.
    pub fn connect_lazy(self) -> Result<Channel, Status> {
        let mut settings = self.settings;
        if let Some(text) = self.authority {
            let authority = text.parse();
            settings.authority = Some(
                authority
                    .map_err(|_| Status::invalid_argument(format!("{text:?} is no authority")))?,
            );
        }
        let compress = match &self.compress {
            None => None,
            Some(name) => Some(known_encoding("the channel", name, &self.encodings)?),
        };
        let limits = Arc::new(self.limits);
        settings.limits = limits.clone();
        Ok(Channel {
            backend: Backend::Server(Connections::new(settings)?),
            interceptors: Interceptors::default(),
            metrics: Metrics::default(),
            options: Arc::new(ChannelOptions {
                limits,
                fields: ClientFields::new(self.encodings),
                paths: Paths::default(),
                compress,
            }),
        })
    }

    /// Uses TLS with these settings, for a target of any form but `http://`.
    ///
    /// ```no_run
    /// # async fn example() -> trunkline::Result<()> {
    /// use trunkline::{Channel, ClientTls};
    ///
    /// let channel = Channel::to("https://localhost:50051")
    ///     .tls(ClientTls::new().ca_file("ca.pem"))
    ///     .connect()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    #[cfg(any(feature = "tls", feature = "aws-lc-rs"))]
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.settings.tls = Some(tls);
        self
    }

    /// Calls go to one address, the first that can be reached. This is the default.
    #[must_use]
    pub fn pick_first(mut self) -> Self {
        self.settings.policy = Policy::PickFirst;
        self
    }

    /// Keeps a connection to every address, and lets calls take those that can be used in turn.
    #[must_use]
    pub fn round_robin(mut self) -> Self {
        self.settings.policy = Policy::RoundRobin;
        self
    }

    /// Asks `resolver` for the addresses of names, and not the system.
    #[must_use]
    pub fn resolver(mut self, resolver: impl Resolver) -> Self {
        self.settings.set_resolver(resolver);
        self
    }

    /// Lets `connect` make the byte stream to an address: in memory, through a proxy, with faults.
    /// HTTP/2 is spoken over it as over a socket.
    ///
    /// ```
    /// # async fn example() -> trunkline::Result<()> {
    /// use tokio::net::TcpStream;
    /// use trunkline::{Address, Channel};
    ///
    /// let channel = Channel::to("127.0.0.1:50051").connector(|address: Address| async move {
    ///     let address = address.tcp().ok_or(std::io::ErrorKind::Unsupported)?;
    ///     TcpStream::connect(address).await
    /// });
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn connector<F, Fut, IO>(mut self, connect: F) -> Self
    where
        F: Fn(Address) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.settings.set_connector(connect);
        self
    }

    /// Bounds resolving, connecting and the handshake together; 20 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.limits.connect_timeout = timeout;
        self
    }

    /// How many connections the channel has to its server at most; 4 by default, and there is always
    /// one: 0 is as good as 1.
    ///
    /// A further one is opened when each that there is has as many calls as the server allows, or
    /// 100 if it allows more: all calls of a connection share one lock and one TCP stream. No call
    /// waits for it, and none fails if it cannot be opened; that is tried again after a pause
    /// (`connection_retry_pause`). Calls go to the connection with the fewest calls, and one that no
    /// call needs is closed after a while (`connection_idle_time`), except for the last.
    ///
    /// Calls of one channel may thus reach the server on different connections, and, through a load
    /// balancer, different servers. With 1, all calls share one connection, and those above the
    /// server's limit wait.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.max_connections = connections;
        self
    }

    /// After how long without a byte from the server a connection with an open call asks whether it is
    /// there (PING); never by default, and every 10 s at most: a shorter time is taken as 10 s (gRFC
    /// A8). Without an answer within [`keepalive_timeout`](Self::keepalive_timeout) the connection
    /// ends: its calls fail with UNAVAILABLE, and the next call makes another.
    ///
    /// A server may find it too often: most permit every 5 minutes. It then ends the connection
    /// ("too_many_pings"), and the next ones of this channel wait twice as long.
    #[must_use]
    pub fn keepalive_time(mut self, time: Duration) -> Self {
        self.limits.client_keepalive_time = time.max(KEEPALIVE_TIME_MIN);
        self
    }

    /// How long a server that was asked has to answer; 20 s by default. On Linux it is also how long
    /// what was sent may stay without an acknowledgement (TCP_USER_TIMEOUT).
    #[must_use]
    pub fn keepalive_timeout(mut self, timeout: Duration) -> Self {
        self.limits.keepalive_timeout = timeout;
        self
    }

    /// Asks also while no call is open, so that the next call finds a connection that works. Servers
    /// permit that less often.
    #[must_use]
    pub fn keepalive_without_calls(mut self) -> Self {
        self.limits.client_keepalive_without_calls = true;
        self
    }

    /// The largest message taken from the server, in bytes, also after inflating; 4 MiB by default.
    #[must_use]
    pub fn max_recv_message_size(mut self, bytes: usize) -> Self {
        self.limits.max_recv_message_size = bytes;
        self
    }

    /// The largest message sent, in bytes before compression; 4 GiB by default.
    #[must_use]
    pub fn max_send_message_size(mut self, bytes: usize) -> Self {
        self.limits.max_send_message_size = bytes;
        self
    }

    /// What goes into `:authority` in the place of the target's own.
    #[must_use]
    pub fn authority(mut self, authority: &str) -> Self {
        self.authority = Some(authority.to_owned());
        self
    }

    /// Compresses the requests of all calls with the encoding of that name, such as `gzip`, as far as
    /// they have more than [`compress_above`](Self::compress_above) bytes and get smaller by it. A
    /// call can say otherwise: [`Call::compress`].
    ///
    /// The server has to know the encoding; if it does not, all calls that were compressed fail with
    /// UNIMPLEMENTED. A name that the channel does not know fails
    /// [`connect_lazy`](Self::connect_lazy) with INVALID_ARGUMENT.
    #[must_use]
    pub fn compress(mut self, encoding: &str) -> Self {
        self.compress = Some(encoding.to_owned());
        self
    }

    /// The largest message, in bytes, that is sent as it is although the channel compresses; 1 KiB by
    /// default. With 0 every message is compressed that gets smaller by it.
    #[must_use]
    pub fn compress_above(mut self, bytes: usize) -> Self {
        self.limits.compress_above = bytes;
        self
    }

    /// Adds an encoding for messages, behind those that there are, or in the place of one of the same
    /// name; gzip and deflate are there by default.
    #[must_use]
    pub fn encoding(mut self, encoding: impl Encoding + 'static) -> Self {
        self.encodings = self.encodings.with(encoding);
        self
    }

    /// Takes no compressed messages, and sends none.
    #[must_use]
    pub fn no_encodings(mut self) -> Self {
        self.encodings = Encodings::none();
        self
    }

    /// All limits at once.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

pub(crate) fn known_encoding(
    who: &str,
    name: &str,
    encodings: &Encodings,
) -> Result<Arc<dyn Encoding>, Status> {
    let unknown = || Status::invalid_argument(unknown_encoding(who, name, encodings));
    encodings.find(name).cloned().ok_or_else(unknown)
}

/// What is wrong with the name of an encoding, and what would do.
pub(crate) fn unknown_encoding(who: &str, name: &str, encodings: &Encodings) -> String {
    let known = encodings.accept_header();
    format!(
        "{who} knows no encoding {name:?}, only {known:?}; `encoding` adds one, and zstd needs the feature of its name"
    )
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = match &self.backend {
            Backend::Server(connections) => connections.to_string(),
            Backend::Service(_) => "a service in this process".to_owned(),
        };
        f.debug_tuple("Channel").field(&to).finish()
    }
}
