//! From the path of a request to the handler of its method.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::ready;
use std::ptr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service as TowerService;
use trunkline_codec::{Compressors, Expect, Metadata, Reader, Refusal, RequestHead, Status, head};
use trunkline_transport::{
    Body, ConnectionStats, Peer, PollBudget, ServerLimits, catch_panic, pipe,
};

use crate::call::deadline;
use crate::call::head::Head;
use crate::call::hooks::Hooks;
use crate::call::intercept::{Interceptor, Interceptors};
use crate::call::kind::CallKind;
use crate::call::message::Message;
use crate::call::messages::Messages;
use crate::call::method::Method;
use crate::call::observe::{self, Metrics, MetricsSink, Side};
use crate::call::receive::Receive;
use crate::call::request::Request;
use crate::call::response_handle::{Compress, ResponseHandle};
use crate::call::sender::Sender;
use crate::call::streaming::Streaming;
use crate::client::channel::known_encoding;
use crate::server::answer::{self, Answer, Handling};
use crate::server::answering::{Answering, Where, refused};
use crate::server::descriptors::FileDescriptors;
use crate::server::incoming::{Incoming, one_frame};
use crate::server::intercepted::intercepted;
use crate::server::nearest;
use crate::tower::{BoxError, ForeignService, Shared, body_of};

/// A service that can be added to a [`Router`] or a [`Server`](crate::Server). Generated code
/// implements it.
pub trait Service {
    /// The full name: `package.Service`.
    const NAME: &'static str;

    /// The descriptors of the file that defines the service, with all that it imports; by default
    /// none.
    ///
    /// A service that tells of the others shows them to clients: see
    /// [`Router::file_descriptors`].
    const FILE_DESCRIPTORS: &'static FileDescriptors = &FileDescriptors::new(&[], &[]);

    /// Adds the methods.
    fn add_to(self, router: &mut Router);
}

/// Services, by the paths of their methods.
///
/// It is itself a tower service over HTTP types, for requests with any body, so that it can sit in any
/// other HTTP/2 server; then that server has to see to deadlines, by dropping what it no longer waits
/// for. It is cheap to clone.
#[derive(Clone, Default)]
pub struct Router {
    routes: Arc<Routes>,
    peer: Option<Arc<Peer>>,
}

#[derive(Clone, Default)]
struct Routes {
    methods: HashMap<String, Route>,
    services: Vec<&'static str>,
    descriptors: Vec<&'static FileDescriptors>,
    after_each_add: Vec<AfterAdd>,
    checks: Vec<Check>,
    interceptors: Interceptors,
    fallback: Option<Arc<dyn Shared>>,
    /// Of what is not a method of ours.
    foreign_poll_budget: Arc<PollBudget>,
    limits: ServerLimits,
    encodings: Compressors,
    metrics: Metrics,
    hides_names: bool,
    /// The encoding that responses are to be compressed with, and whether it is known.
    compress: Option<String>,
    compresses: bool,
}

/// What a service does when there is another one.
type AfterAdd = Arc<dyn Fn(&mut Router) + Send + Sync>;

/// What a service looks at before the server serves.
type Check = Arc<dyn Fn(&Router) -> Result<(), Status> + Send + Sync>;

/// A method: how many messages each way, and its handler, for which their types are known.
#[derive(Clone)]
struct Route {
    requests: Expect,
    responses: Expect,
    poll_budget: Arc<PollBudget>,
    handle: Arc<dyn Fn(Incoming) -> Handling + Send + Sync>,
}

impl Router {
    /// A router with no services: every call is UNIMPLEMENTED.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service. Methods that are there already are replaced.
    #[must_use]
    pub fn add_service<S: Service>(mut self, service: S) -> Self {
        let routes = self.routes_mut();
        if !routes.services.contains(&S::NAME) {
            routes.services.push(S::NAME);
        }
        let mut known = routes.descriptors.iter();
        if !known.any(|it| ptr::eq(*it, S::FILE_DESCRIPTORS)) {
            routes.descriptors.push(S::FILE_DESCRIPTORS);
        }
        service.add_to(&mut self);
        for after in self.routes.after_each_add.clone() {
            after(&mut self);
        }
        self
    }

    /// Runs `install` now, and again after each service that is [`add_service`](Self::add_service)ed later: for a
    /// service that tells of all others, so that it need not be added last.
    ///
    /// Such a service calls this in its [`Service::add_to`]. `install` sees what is there by
    /// [`services`](Self::services) and [`file_descriptors`](Self::file_descriptors), and
    /// adds its methods anew, which replaces them. Methods that are added without a service do not
    /// run it. A clone of the router goes its own way from then on.
    pub fn after_each_add(&mut self, install: impl Fn(&mut Self) + Send + Sync + 'static) {
        install(self);
        self.routes_mut().after_each_add.push(Arc::new(install));
    }

    /// Adds a method of one request and one response.
    ///
    /// `service` is handed to `handler` with each call.
    pub fn unary<S, Q, R, F, Fut>(&mut self, method: Method, service: &Arc<S>, handler: F)
    where
        S: Send + Sync + 'static,
        Q: Message,
        R: Message,
        F: Fn(Arc<S>, Request<Q>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Status>> + Send + 'static,
    {
        let service = service.clone();
        self.insert(&method, Expect::One, Expect::One, move |incoming| {
            let service = service.clone();
            let (response, max_size) = (incoming.response.clone(), incoming.max_send_size);
            // Two futures, since one has the size of both: a call that waits holds its own.
            match incoming.whole() {
                Ok(request) => {
                    let handling = request.map(|request| handler(service, request));
                    Box::pin(async move { one_frame(&handling?.await?, &response, max_size) })
                }
                Err(incoming) => {
                    let handler = handler.clone();
                    Box::pin(async move {
                        let message = handler(service, incoming.one().await?).await?;
                        one_frame(&message, &response, max_size)
                    })
                }
            }
        });
    }

    /// Adds a method of one request and many responses.
    pub fn server_streaming<S, Q, R, F, Fut>(
        &mut self,
        method: Method,
        service: &Arc<S>,
        handler: F,
    ) where
        S: Send + Sync + 'static,
        Q: Message,
        R: Message,
        F: Fn(Arc<S>, Request<Q>, Sender<R>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let service = service.clone();
        self.insert(&method, Expect::One, Expect::Many, move |mut incoming| {
            let (service, handler) = (service.clone(), handler.clone());
            Box::pin(async move {
                let responses = incoming.responses()?;
                handler(service, Box::new(incoming).one().await?, responses)
                    .await
                    .map(|()| None)
            })
        });
    }

    /// Adds a method of many requests and one response.
    pub fn client_streaming<S, Q, R, F, Fut>(
        &mut self,
        method: Method,
        service: &Arc<S>,
        handler: F,
    ) where
        S: Send + Sync + 'static,
        Q: Message,
        R: Message,
        F: Fn(Arc<S>, Request<Streaming<Q>>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Status>> + Send + 'static,
    {
        let service = service.clone();
        self.insert(&method, Expect::Many, Expect::One, move |incoming| {
            let (response, max_size) = (incoming.response.clone(), incoming.max_send_size);
            let handling = handler(service.clone(), incoming.many());
            Box::pin(async move { one_frame(&handling.await?, &response, max_size) })
        });
    }

    /// Adds a method of many requests and many responses.
    pub fn bidi_streaming<S, Q, R, F, Fut>(&mut self, method: Method, service: &Arc<S>, handler: F)
    where
        S: Send + Sync + 'static,
        Q: Message,
        R: Message,
        F: Fn(Arc<S>, Request<Streaming<Q>>, Sender<R>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let service = service.clone();
        self.insert(&method, Expect::Many, Expect::Many, move |mut incoming| {
            let responses = incoming.responses();
            let handling = responses.map(|it| handler(service.clone(), incoming.many(), it));
            Box::pin(async move { handling?.await.map(|()| None) })
        });
    }

    /// Runs `interceptor` around every call. One that was added before is further out.
    #[must_use]
    pub fn intercept(mut self, interceptor: impl Interceptor) -> Self {
        self.routes_mut().interceptors.push(interceptor);
        self
    }

    /// Passes requests that are not gRPC to `service`: another method than POST, or another content
    /// type. Without one they are answered with 405 and 415.
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
        self.routes_mut().fallback = Some(Arc::new(ForeignService::new(service)));
        self
    }

    /// The full names of the services, each once, in the order in which they were added.
    pub fn services(&self) -> &[&'static str] {
        &self.routes.services
    }

    /// Returns the descriptors of the services, each once, in the order in which they were added.
    pub fn file_descriptors(&self) -> &[&'static FileDescriptors] {
        &self.routes.descriptors
    }

    /// Runs `check` when a server that has this router is about to serve, once all services are
    /// added; an error is that of [`Server::bind`](crate::Server::bind) and
    /// [`Server::serve`](crate::Server::serve).
    ///
    /// That is for a service that tells of the others and may find that it cannot. A router that is
    /// served in another way, as a tower service or by a channel in process, runs no checks.
    pub fn before_serving(
        &mut self,
        check: impl Fn(&Self) -> Result<(), Status> + Send + Sync + 'static,
    ) {
        self.routes_mut().checks.push(Arc::new(check));
    }

    /// Changes any limit.
    #[must_use]
    pub fn with_limits(mut self, change: impl FnOnce(&mut ServerLimits)) -> Self {
        change(&mut self.routes_mut().limits);
        self
    }

    /// The encodings for compressed messages, both ways, the preferred one first; gzip and deflate by
    /// default.
    #[must_use]
    pub fn encodings(mut self, encodings: Compressors) -> Self {
        self.routes_mut().encodings = encodings;
        self.routes_mut().prefer();
        self
    }

    /// Compresses responses: see [`Server::compress`](crate::Server::compress). With a name that is not
    /// known responses go as they are.
    #[must_use]
    pub fn compress(mut self, encoding: &str) -> Self {
        self.routes_mut().compress = Some(encoding.to_owned());
        self.routes_mut().prefer();
        self
    }

    /// Tells `sink` of every call; see [`MetricsSink`]. One that was set before is replaced.
    #[must_use]
    pub fn metrics(mut self, sink: impl MetricsSink) -> Self {
        self.routes_mut().metrics.set(sink);
        self
    }

    /// Keeps the names of services and methods from those who call what is not there. By default they
    /// are told the one that is near ("did you mean SayHello?"), before any interceptor has seen the
    /// call.
    #[must_use]
    pub fn hide_names(mut self) -> Self {
        self.routes_mut().hides_names = true;
        self
    }

    pub(crate) fn current_limits(&self) -> &ServerLimits {
        &self.routes.limits
    }

    pub(crate) fn current_encodings(&self) -> &Compressors {
        &self.routes.encodings
    }

    /// Whether what the router was told goes together.
    pub(crate) fn check(&self) -> Result<(), Status> {
        if let Some(name) = &self.routes.compress {
            known_encoding("the server", name, &self.routes.encodings)?;
        }
        self.routes.checks.iter().try_for_each(|check| check(self))
    }

    /// The poll_budget of a request's method, as something around this router answers it.
    pub(crate) fn poll_budget(&self, request: &http::Request<Body>) -> Arc<PollBudget> {
        let path = request.uri().path_and_query();
        let route = path.and_then(|path| self.routes.methods.get(path.as_str()));
        route
            .map_or(&self.routes.foreign_poll_budget, |route| &route.poll_budget)
            .clone()
    }

    /// The same router for the calls of one connection.
    pub(crate) fn for_peer(&self, peer: Arc<Peer>) -> Self {
        Self {
            routes: self.routes.clone(),
            peer: Some(peer),
        }
    }

    pub(crate) fn connection_ended(&self, stats: &ConnectionStats) {
        if let Some(peer) = &self.peer {
            self.routes.metrics.connection_ended(peer, stats);
        }
    }

    /// Answers a request, and says at which poll_budget; at none if the answer is known.
    pub(crate) fn answer(
        &self,
        request: http::Request<Body>,
    ) -> (Answering, Option<Arc<PollBudget>>) {
        let routes = &self.routes;
        let (parts, body) = request.into_parts();
        let head = match head::parse_request(
            &parts,
            routes.limits.max_header_list_size,
            &routes.encodings,
        ) {
            Ok(head) => head,
            Err(refusal) => {
                return match (&refusal, &routes.fallback) {
                    (Refusal::Http { .. }, Some(fallback)) => {
                        let calling = fallback.call(http::Request::from_parts(parts, body));
                        let poll_budget = routes.foreign_poll_budget.clone();
                        (Answering(Where::Elsewhere(calling)), Some(poll_budget))
                    }
                    _ if parts.method == http::Method::HEAD => {
                        let bodiless = refused(refusal, &routes.encodings).map(|_| Body::empty());
                        (Answering::known(bodiless), None)
                    }
                    _ => (routes.refuse(refusal), None),
                };
            }
        };
        if head.timeout.is_some_and(|timeout| timeout.is_zero()) {
            let status = Status::deadline_exceeded("the deadline had passed when the call arrived");
            return (routes.refuse(status.into()), None);
        }
        // Exact bytes, query and all: what authorizes a call by its path must see what routes it
        // (CVE-2026-33186).
        let path = parts.uri.path_and_query().cloned();
        let Some((path, route)) =
            path.and_then(|path| routes.methods.get(path.as_str()).map(|route| (path, route)))
        else {
            let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
            return (routes.refuse(routes.unknown(path).into()), None);
        };
        let peer = self
            .peer
            .clone()
            .or_else(|| parts.extensions.get::<Arc<Peer>>().cloned());
        let call_head = Head {
            path,
            metadata: Metadata::from_headers(parts.headers),
            extensions: parts.extensions,
            deadline: head.timeout.and_then(deadline::after),
            peer,
        };
        let answer = routes.begin(route, call_head, head, body);
        (
            Answering(Where::Here(Some(answer))),
            Some(route.poll_budget.clone()),
        )
    }

    fn routes_mut(&mut self) -> &mut Routes {
        Arc::make_mut(&mut self.routes)
    }

    fn insert(
        &mut self,
        method: &Method,
        requests: Expect,
        responses: Expect,
        handle: impl Fn(Incoming) -> Handling + Send + Sync + 'static,
    ) {
        let route = Route {
            requests,
            responses,
            poll_budget: Arc::default(),
            handle: Arc::new(handle),
        };
        self.routes_mut()
            .methods
            .insert(method.path().to_owned(), route);
    }
}

impl<B> TowerService<http::Request<B>> for Router
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Answering {
        self.answer(request.map(body_of)).0
    }
}

impl Routes {
    /// Puts the encoding first that responses are to be compressed with.
    fn prefer(&mut self) {
        if let Some(name) = &self.compress {
            self.compresses = self.encodings.find(name).is_some();
            self.encodings = std::mem::take(&mut self.encodings).prefer(name);
        }
    }

    fn begin(&self, route: &Route, head: Head, request: RequestHead, body: Body) -> Answer {
        let (deadline, gather_size) = (head.deadline, self.limits.http2.gather_size);
        let recorder = self.metrics.record(Side::Server, Some(&head));
        let response = ResponseHandle::new(
            request.reply_encoding,
            self.limits.messages.compress_above,
            recorder.clone(),
        );
        if self.compresses {
            response.compress(Compress::Auto);
        }
        // compression.md, "Compression Method Asymmetry Between Peers": who gets messages in an encoding
        // that it has not named to the peer names it in the response.
        if request.encoding.is_some() {
            response.announce(&self.encodings);
        }
        let reader = Reader::request(
            route.requests,
            self.limits.messages.max_recv_message_size,
            request.encoding,
        );
        let (writer, outbox) = match route.responses {
            Expect::One => (None, None),
            Expect::Many => {
                let (writer, reader) = pipe(gather_size);
                (Some(writer), Some(reader))
            }
        };
        let incoming = Incoming {
            head,
            response: response.clone(),
            messages: Messages::new(Receive::requests(reader, body), Hooks::new(recorder, None)),
            writer,
            max_send_size: self.limits.messages.max_send_message_size,
        };
        let handling = match self.interceptors.is_empty() {
            true => catch_panic(|| deadline::within(deadline, || (route.handle)(incoming)))
                .unwrap_or_else(|panic| {
                    Box::pin(ready(Err(answer::panicked(&panic, response.recorder()))))
                }),
            false => {
                let kind = CallKind::new(route.requests, route.responses);
                intercepted(&self.interceptors, kind, incoming, route.handle.clone())
            }
        };
        let handling = match response.recorder() {
            None => handling,
            Some(recorder) => observe::watch(recorder.clone(), handling),
        };
        Answer::new(handling, response, outbox, deadline, gather_size)
    }

    fn refuse(&self, refusal: Refusal) -> Answering {
        if let Some(recorder) = self.metrics.record(Side::Server, None) {
            recorder.end(refusal.code());
        }
        Answering::known(refused(refusal, &self.encodings))
    }

    fn unknown(&self, path: &str) -> Status {
        if self.hides_names {
            return nearest::unnamed(path);
        }
        let paths = self.methods.keys().map(String::as_str);
        nearest::unknown(path, &self.services, paths)
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("services", &self.routes.services)
            .finish_non_exhaustive()
    }
}
