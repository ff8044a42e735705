//! Where calls go: to a server by a connection, to a router in this process, to any tower service.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, Scheme};
use tower_service::Service;
use trunkline_codec::{Encoding, Encodings, Expect, Limits, Reader, Status, head};
use trunkline_transport::{Body, Target};

use crate::call::{Call, Start};
use crate::connections::Connections;
use crate::deadline;
use crate::foreign::{ForeignService, Shared};
use crate::intercept::{Chain, Interceptor, Interceptors, Link};
use crate::receive::{Opening, Receive};
use crate::router::Router;

/// Calls go here. Concrete, and cheap to clone: clones share their connections.
///
/// There is one connection to the server, and more only when it is busy: see
/// [`ChannelBuilder::max_connections`]. One that has ended is replaced when the next call is made.
/// Calls fail with UNAVAILABLE while the server cannot be reached. The connections close when the
/// last clone is gone and the last call has ended.
#[derive(Clone)]
pub struct Channel {
    backend: Backend,
    interceptors: Interceptors,
    options: Arc<ChannelOptions>,
}

#[derive(Clone)]
enum Backend {
    Server(Arc<Connections>),
    Service(Arc<dyn Shared>),
}

struct ChannelOptions {
    limits: Arc<Limits>,
    encodings: Encodings,
    authority: Authority,
}

/// A channel to be: see [`Channel::to`].
#[derive(Clone, Debug)]
pub struct ChannelBuilder {
    target: String,
    authority: Option<String>,
    limits: Limits,
    encodings: Encodings,
}

impl Channel {
    /// Connects to `host:port`, `http://host:port` or `unix:/path`.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the target cannot be read; UNAVAILABLE if there is no HTTP/2 server
    /// within `connect_timeout` (20 s). The message names the target, the cause and the way out.
    pub async fn connect(target: &str) -> Result<Self, Status> {
        Self::to(target).connect().await
    }

    /// A channel with settings of its own.
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
    pub fn to(target: &str) -> ChannelBuilder {
        ChannelBuilder {
            target: target.to_owned(),
            authority: None,
            limits: Limits::default(),
            encodings: Encodings::default(),
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
            encodings: Encodings::default(),
            authority: Authority::from_static("localhost"),
        };
        Self {
            backend,
            interceptors: Interceptors::default(),
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

    pub(crate) fn encodings(&self) -> &Encodings {
        &self.options.encodings
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.options.limits
    }

    fn is_connected(&self) -> bool {
        match &self.backend {
            Backend::Server(connections) => connections.is_connected(),
            Backend::Service(_) => true,
        }
    }

    /// Begins a call. Nothing is sent before the receiving half is polled.
    pub(crate) fn start(self, call: Call, body: Body, expect: Expect, start: Start) -> Receive {
        let max_size = self.options.limits.max_recv_message_size;
        let reader = Reader::response(expect, max_size, self.options.encodings.clone());
        let deadline = call.head.deadline;
        // A call that has to wait for a connection says so if its deadline passes meanwhile.
        let is_watched = start == Start::Watched || !self.is_connected();
        let is_open = is_watched.then(|| Arc::new(AtomicBool::new(false)));
        let receive = |opening| {
            let receive = Receive::replies(reader, opening, deadline);
            match is_open.clone() {
                Some(is_open) => receive.watch(is_open),
                None => receive,
            }
        };
        if self.interceptors.is_empty() {
            return receive(self.open(call, body, is_open.clone()));
        }
        let link = Arc::new(Link::default());
        let (inmost_link, inmost_open) = (link.clone(), is_open.clone());
        let interceptors = self.interceptors.clone();
        let running = interceptors.run(call, move |call| {
            Box::pin(async move {
                let moved_to = call.head.deadline;
                let inside = async {
                    inmost_link.respond(self.open(call, body, inmost_open).await?);
                    poll_fn(|cx| inmost_link.poll_end(cx)).await
                };
                deadline::moved(deadline, moved_to, inside).await
            })
        });
        let waiting = link.clone();
        let opening = Box::pin(async move { Ok(poll_fn(|cx| waiting.poll_response(cx)).await) });
        receive(opening).chained(Chain::new(running, link))
    }

    /// Sends the request, and waits for the head of the reply.
    fn open(self, call: Call, body: Body, is_open: Option<Arc<AtomicBool>>) -> Opening {
        Box::pin(async move {
            match &self.backend {
                Backend::Server(connections) => {
                    let connection = connections.ready(call.head.deadline).await?;
                    // The server is told what is left of the deadline now.
                    let request = self.request(call, body)?;
                    // The stream is opened when the call is first polled, which is next.
                    if let Some(is_open) = is_open {
                        is_open.store(true, Ordering::Release);
                    }
                    connection.call(request).await
                }
                Backend::Service(service) => {
                    let request = self.request(call, body)?;
                    let Some(is_open) = is_open else {
                        return service.call(request).await;
                    };
                    // Nobody but the caller drives a tower service, and the caller of a stream may
                    // be busy with its other half.
                    let service = service.clone();
                    let mut task =
                        AbortOnDrop(tokio::spawn(async move { service.call(request).await }));
                    is_open.store(true, Ordering::Release);
                    (&mut task.0).await.unwrap_or_else(|error| {
                        Err(Status::internal(format!("the service failed: {error}")))
                    })
                }
            }
        })
    }

    fn request(&self, call: Call, body: Body) -> Result<http::Request<Body>, Status> {
        let timeout = call.head.time_remaining();
        if timeout == Some(Duration::ZERO) {
            return Err(Status::deadline_exceeded(
                "the deadline passed before the call was sent",
            ));
        }
        let options = &*self.options;
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(options.authority.clone());
        uri.path_and_query = Some(call.head.path);
        let uri = http::Uri::from_parts(uri)
            .map_err(|error| Status::internal(format!("the path of the method: {error}")))?;
        let mut request = http::Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = uri;
        call.head.metadata.merge_into(request.headers_mut());
        *request.extensions_mut() = call.head.extensions;
        head::write_request(
            request.headers_mut(),
            timeout,
            call.options.encoding.as_deref(),
            &options.encodings,
        );
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

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let channel = self.clone();
        Box::pin(async move {
            let connections = match &channel.backend {
                Backend::Service(service) => return service.call(request).await,
                Backend::Server(connections) => connections,
            };
            let mut uri = std::mem::take(request.uri_mut()).into_parts();
            uri.scheme = Some(Scheme::HTTP);
            uri.authority = Some(channel.options.authority.clone());
            *request.uri_mut() = http::Uri::from_parts(uri)
                .map_err(|error| Status::internal(format!("the path of the request: {error}")))?;
            connections.ready(None).await?.call(request).await
        })
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
    /// INVALID_ARGUMENT if the target, or the authority, cannot be read.
    pub fn connect_lazy(self) -> Result<Channel, Status> {
        let target = Target::parse(&self.target)?;
        let authority = match self.authority {
            None => target.authority().clone(),
            Some(text) => text
                .parse()
                .map_err(|_| Status::invalid_argument(format!("{text:?} is no authority")))?,
        };
        let limits = Arc::new(self.limits);
        Ok(Channel {
            backend: Backend::Server(Connections::new(target, limits.clone())),
            interceptors: Interceptors::default(),
            options: Arc::new(ChannelOptions {
                limits,
                encodings: self.encodings,
                authority,
            }),
        })
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

    /// Adds an encoding for messages, behind those that there are; gzip is there by default.
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

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = match &self.backend {
            Backend::Server(connections) => connections.target().to_string(),
            Backend::Service(_) => "a service in this process".to_owned(),
        };
        f.debug_tuple("Channel").field(&to).finish()
    }
}
