//! The services of a server, and the handlers of their methods by path.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tower_service::Service as TowerService;
use trunkline_codec::{Expect, Metadata, Reader, Refusal, RequestHead, Status, head};
use trunkline_transport::{
    BegunCall, Body, ConnectionStats, Peer, PollBudget, ServerLimits, catch_panic, pipe,
};

use crate::call::compression::Compress;
use crate::call::deadline::{self, DeadlineChange};
use crate::call::head::Head;
use crate::call::hooks::Hooks;
use crate::call::kind::{CallKind, Side};
use crate::call::messages::Messages;
use crate::call::receive::Receive;
use crate::call::response_handle::ResponseHandle;
use crate::http_service::{BoxError, ErasedService, HttpService, LayeredService, body_of};
use crate::observe::{self, Observers, Subject};
use crate::server::intercepted::intercepted;
use crate::server::options::{CallOptions, Resolved};
use crate::server::raw_request::RawRequest;
use crate::server::router_future::{RouterFuture, RouterState, refused};
use crate::server::running_handler::{RunningHandler, panicked};
use crate::server::service::{MethodHandler, Methods};
use crate::server::unknown_method;

/// The services of a server as a tower service, for use in another HTTP/2 server, such as one of axum or hyper.
/// [`Server::into_router`](crate::Server::into_router) creates it.
///
/// A router accepts an `http::Request` with any body, and is cheap to clone. It applies interceptors,
/// layers, observers and message limits, but no options of connections, such as TLS and keepalive.
///
/// Anything that calls a tower service can use a router. Here, a channel calls it directly, without a
/// connection:
///
/// ```
/// # fn example(greeter: impl trunkline::Service) {
/// use trunkline::{Channel, Server};
///
/// let router = Server::new().add_service(greeter).into_router();
/// let channel = Channel::new(router);
/// # }
/// ```
///
/// **Deadlines.** The router does not enforce the deadlines of clients. At its deadline, a client resets
/// the stream, and the server around the router then drops the future or the body of the response, which
/// drops the handler. The router does enforce the timeouts of services, such as
/// [`ServiceServer::max_timeout`](crate::server::ServiceServer::max_timeout). They count from the moment at which the
/// router is called, and require a tokio runtime with a timer.
#[derive(Clone)]
pub struct Router {
    routes: Arc<Routes>,
    /// The layers of the server, around a router without layers.
    layered: Option<LayeredService>,
    peer: Option<Arc<Peer>>,
}

/// The methods of a server by path, and the options of its calls.
pub(crate) struct Routes {
    methods: HashMap<String, Route>,
    services: Vec<&'static str>,
    /// The options of requests whose path has no method.
    options: Arc<CallOptions>,
    limits: ServerLimits,
    observers: Observers,
    fallback: Option<Arc<dyn HttpService>>,
    /// The poll budget of requests whose path has no method.
    foreign_poll_budget: Arc<PollBudget>,
    hides_names: bool,
    /// True if the timeouts of a service can depend on when a call arrived.
    has_timeouts: bool,
}

/// An extension of requests that pass through layers: the moment at which the head arrived.
#[derive(Clone, Copy)]
struct ArrivalTime(Instant);

struct Route {
    handler: MethodHandler,
    options: Arc<CallOptions>,
}

type Begun = BegunCall<RouterFuture>;

impl Routes {
    pub(crate) fn new(
        methods: &Methods,
        options: CallOptions,
        limits: ServerLimits,
        observers: Observers,
        fallback: Option<Arc<dyn HttpService>>,
        hides_names: bool,
    ) -> Self {
        let options = Arc::new(options);
        let mut resolved = Resolved::new(&options);
        let routes = methods.handlers().iter().map(|(path, handler)| {
            let options = resolved.get(handler.options.as_ref());
            let handler = handler.clone();
            (path.clone(), Route { handler, options })
        });
        let routes: HashMap<_, _> = routes.collect();
        Self {
            has_timeouts: routes.values().any(|it| it.options.timeouts.is_set()),
            methods: routes,
            services: methods.service_names().to_vec(),
            options: options.clone(),
            limits,
            observers,
            fallback,
            foreign_poll_budget: Arc::default(),
            hides_names,
        }
    }
}

impl Router {
    pub(crate) fn new(routes: Routes) -> Self {
        Self {
            routes: Arc::new(routes),
            layered: None,
            peer: None,
        }
    }

    /// Returns this router inside `layer`.
    pub(crate) fn layered(self, layer: impl Fn(LayeredService) -> LayeredService) -> Self {
        let inner = match &self.layered {
            Some(layered) => layered.clone(),
            None => LayeredService::new(ErasedService::new(self.clone())),
        };
        Self {
            layered: Some(layer(inner)),
            ..self
        }
    }

    pub(crate) fn limits(&self) -> &ServerLimits {
        &self.routes.limits
    }

    /// Returns this router for the calls of one connection.
    pub(crate) fn for_peer(&self, peer: Arc<Peer>) -> Self {
        Self {
            peer: Some(peer),
            ..self.clone()
        }
    }

    pub(crate) fn connection_ended(&self, stats: &ConnectionStats) {
        if let Some(peer) = &self.peer {
            self.routes.observers.connection_ended(peer, stats);
        }
    }

    /// Begins to serve a request whose head arrived at `arrived`; now, if `None`.
    #[inline]
    pub(crate) fn begin(&self, request: http::Request<Body>, arrived: Option<Instant>) -> Begun {
        match &self.layered {
            None => self.routes.begin(request, self.peer.as_ref(), arrived),
            Some(layered) => self.begin_layered(layered, request, arrived),
        }
    }

    /// Begins a call behind layers. The router inside them enforces the timeouts of the service. This
    /// applies them as well, because a layer and its body may not be polled, and to raise a deadline.
    fn begin_layered(
        &self,
        layered: &LayeredService,
        mut request: http::Request<Body>,
        arrived: Option<Instant>,
    ) -> Begun {
        let path = request.uri().path_and_query();
        let route = path.and_then(|path| self.routes.methods.get(path.as_str()));
        let poll_budget = route.map_or(&self.routes.foreign_poll_budget, |route| {
            &route.handler.poll_budget
        });
        let poll_budget = Some(poll_budget.clone());
        let changed = route
            .filter(|route| route.options.timeouts.is_set())
            .and_then(|route| {
                let asked = head::timeout_of(request.headers());
                route.options.timeouts.change(asked)
            });
        let deadline = changed.map_or(DeadlineChange::Keep, |timeout| {
            DeadlineChange::Replace(deadline::since(arrived, timeout))
        });
        if self.routes.has_timeouts
            && let Some(arrived) = arrived
        {
            request.extensions_mut().insert(ArrivalTime(arrived));
        }
        if let Some(peer) = &self.peer {
            request.extensions_mut().insert(peer.clone());
        }
        let response = RouterFuture(RouterState::Layers(layered.start(request)));
        Begun {
            response,
            poll_budget,
            deadline,
        }
    }
}

impl<B> TowerService<http::Request<B>> for Router
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = RouterFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> RouterFuture {
        let begun = self.begin(request.map(body_of), None);
        let mut response = begun.response;
        if let DeadlineChange::Replace(Some(deadline)) = begun.deadline {
            response.enforce(deadline);
        }
        response
    }
}

impl Routes {
    // Way of a unary call, server 5: parses the head and finds the method of the path.
    fn begin(
        &self,
        request: http::Request<Body>,
        peer: Option<&Arc<Peer>>,
        arrived: Option<Instant>,
    ) -> Begun {
        let (parts, body) = request.into_parts();
        // The exact bytes, including a query: code that authorizes a call by its path must see the path
        // that routes it (CVE-2026-33186).
        let path = parts.uri.path_and_query();
        let route = path.and_then(|path| Some((path, self.methods.get(path.as_str())?)));
        let options = route.map_or(&self.options, |(_, route)| &route.options);
        let head = match head::parse_request(
            &parts,
            self.limits.max_header_list_size,
            &options.compressors,
        ) {
            Ok(head) => head,
            Err(refusal) => return self.refuse_head(refusal, options, parts, body),
        };
        if head.timeout.is_some_and(|timeout| timeout.is_zero()) {
            let status = Status::deadline_exceeded("the deadline passed before the call arrived");
            return self.refuse(status.into(), options);
        }
        let Some((path, route)) = route else {
            return self.refuse(self.unknown(path).into(), options);
        };
        let changed = options.timeouts.change(head.timeout);
        let arrived = match changed {
            Some(_) => arrived.or_else(|| parts.extensions.get().map(|ArrivalTime(at)| *at)),
            None => arrived,
        };
        let deadline = changed
            .or(head.timeout)
            .and_then(|timeout| deadline::since(arrived, timeout));
        if changed.is_some() && arrived.is_some() && deadline.is_some_and(|at| at <= Instant::now())
        {
            let status = deadline::exceeded("before the handler began");
            return self.refuse(status.into(), options);
        }
        let call_head = Head {
            path: path.clone(),
            peer: peer
                .cloned()
                .or_else(|| parts.extensions.get::<Arc<Peer>>().cloned()),
            metadata: Metadata::from_headers(parts.headers),
            extensions: parts.extensions,
            deadline,
        };
        let running = self.run(route, call_head, head, body);
        Begun {
            response: RouterFuture(RouterState::Handler(Some(running))),
            poll_budget: Some(route.handler.poll_budget.clone()),
            deadline: match changed {
                None => DeadlineChange::Keep,
                Some(_) => DeadlineChange::Replace(deadline),
            },
        }
    }

    fn run(&self, route: &Route, head: Head, request: RequestHead, body: Body) -> RunningHandler {
        let options = &*route.options;
        let (deadline, gather_size) = (head.deadline, self.limits.http2.gather_size);
        let recorder = self.observers.record(Subject {
            side: Side::Server,
            kind: Some(CallKind::new(
                route.handler.requests,
                route.handler.responses,
            )),
            is_registered: true,
            head: Some(&head),
        });
        if let Some(recorder) = &recorder {
            recorder.head_received(&head.metadata);
        }
        let response = ResponseHandle::new(
            request.response_compressor,
            options.compress_above,
            recorder.clone(),
        );
        if options.compresses {
            response.compress(Compress::Auto);
        }
        // compression.md, "Compression Method Asymmetry Between Peers": a server that receives
        // compressed messages announces its compressors in the response.
        if request.compressor.is_some() {
            response.announce(&options.compressors);
        }
        let reader = Reader::request(
            route.handler.requests,
            options.max_recv_message_size,
            request.compressor,
        );
        let (writer, outbox) = match route.handler.responses {
            Expect::One => (None, None),
            Expect::Many => {
                let (writer, reader) = pipe(gather_size);
                (Some(writer), Some(reader))
            }
        };
        let request = RawRequest {
            head,
            response: response.clone(),
            messages: Messages::new(Receive::requests(reader, body), Hooks::new(recorder, None)),
            writer,
            max_send_size: options.max_send_message_size,
        };
        let handling = match options.interceptors.is_empty() {
            true => catch_panic(|| deadline::within(deadline, || (route.handler.handle)(request)))
                .unwrap_or_else(|panic| {
                    Box::pin(ready(Err(panicked(&panic, response.recorder()))))
                }),
            false => {
                let kind = CallKind::new(route.handler.requests, route.handler.responses);
                let handle = route.handler.handle.clone();
                intercepted(&options.interceptors, kind, request, handle)
            }
        };
        let handling = match response.recorder() {
            None => handling,
            Some(recorder) => observe::observed(recorder.clone(), handling),
        };
        RunningHandler::new(handling, response, outbox, deadline, gather_size)
    }

    fn refuse_head(
        &self,
        refusal: Refusal,
        options: &CallOptions,
        parts: http::request::Parts,
        body: Body,
    ) -> Begun {
        if let (Refusal::Http { .. }, Some(fallback)) = (&refusal, &self.fallback) {
            let calling = fallback.call(http::Request::from_parts(parts, body));
            return Begun {
                response: RouterFuture(RouterState::Fallback(calling)),
                poll_budget: Some(self.foreign_poll_budget.clone()),
                deadline: DeadlineChange::Keep,
            };
        }
        if parts.method != http::Method::HEAD {
            return self.refuse(refusal, options);
        }
        let bodiless = refused(refusal, &options.compressors).map(|_| Body::empty());
        Begun {
            response: RouterFuture::known(bodiless),
            poll_budget: None,
            deadline: DeadlineChange::Keep,
        }
    }

    fn refuse(&self, refusal: Refusal, options: &CallOptions) -> Begun {
        let subject = Subject {
            side: Side::Server,
            kind: None,
            is_registered: false,
            head: None,
        };
        if let Some(recorder) = self.observers.record(subject) {
            recorder.end(Some(&refusal_status(&refusal)));
        }
        Begun {
            response: RouterFuture::known(refused(refusal, &options.compressors)),
            poll_budget: None,
            deadline: DeadlineChange::Keep,
        }
    }

    fn unknown(&self, path: Option<&http::uri::PathAndQuery>) -> Status {
        let path = path.map_or("", |path| path.as_str());
        if self.hides_names {
            return unknown_method::unknown_unnamed(path);
        }
        let paths = self.methods.keys().map(String::as_str);
        unknown_method::unknown(path, &self.services, paths)
    }
}

/// Returns the status of a refused call, for observers.
#[cold]
fn refusal_status(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::Status(status) | Refusal::Compressor(status) => status.clone(),
        Refusal::Http { message, .. } => Status::new(refusal.code(), message),
        _ => Status::new(refusal.code(), "the call was refused"),
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("services", &self.routes.services)
            .finish_non_exhaustive()
    }
}
