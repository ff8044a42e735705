//! Services, and the methods that they register.

use std::collections::HashMap;
use std::fmt;
use std::ptr;
use std::sync::Arc;

use trunkline_codec::{Expect, Status};
use trunkline_transport::PollBudget;

use crate::call::descriptors::FileDescriptors;
use crate::call::handling::Handling;
use crate::call::message::Message;
use crate::call::method::Method;
use crate::call::request::Request;
use crate::call::sender::Sender;
use crate::call::streaming::Streaming;
use crate::server::encode::one_frame;
use crate::server::options::ServiceOptions;
use crate::server::raw_request::RawRequest;

/// A service that can be added to a [`Server`](crate::Server). Generated code implements this trait with
/// [`ServiceServer`](crate::server::ServiceServer).
///
/// A service without generated code registers its methods itself:
///
/// ```
/// use std::sync::Arc;
/// use trunkline::server::Methods;
/// use trunkline::{Method, Raw, Request, Service};
///
/// struct Echo;
///
/// impl Service for Echo {
///     const NAME: &'static str = "test.Echo";
///
///     fn add_to(self, methods: &mut Methods) {
///         let echo = Arc::new(self);
///         let method = Method::new("/test.Echo/Echo");
///         methods.unary(method, &echo, |_, request: Request<Raw>| async move {
///             Ok(request.into_inner())
///         });
///     }
/// }
/// ```
pub trait Service {
    /// The full name, such as `package.Service`.
    const NAME: &'static str;

    /// The descriptors of the file that defines the service, and of all files that it imports. Default: none.
    /// Generated code uses `FILE_DESCRIPTORS` of the package, which also has the other files of the package.
    ///
    /// Server reflection sends them to clients; see [`Methods::file_descriptors`].
    const FILE_DESCRIPTORS: &'static FileDescriptors = &FileDescriptors::new(&[], &[]);

    /// Registers the methods of this service with `methods`.
    fn add_to(self, methods: &mut Methods);
}

/// A table of all methods of a server, to which services add theirs. A server passes it to
/// [`Service::add_to`].
///
/// ```
/// use trunkline::server::Methods;
///
/// # fn example(greeter: impl trunkline::Service) {
/// let mut methods = Methods::default();
/// methods.add_service(greeter);
/// println!("{:?}", methods.service_names());
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Methods {
    handlers: HashMap<String, MethodHandler>,
    names: Vec<&'static str>,
    descriptors: Vec<&'static FileDescriptors>,
    on_service_added: Vec<OnServiceAdded>,
    checks: Vec<Check>,
    /// The options of the service that is being added.
    options: Option<Arc<ServiceOptions>>,
}

/// A hook, and the options of the service that registered it.
#[derive(Clone)]
struct OnServiceAdded {
    hook: Arc<dyn Fn(&mut Methods) + Send + Sync>,
    options: Option<Arc<ServiceOptions>>,
}

type Check = Arc<dyn Fn(&Methods) -> Result<(), Status> + Send + Sync>;

/// A method: its number of messages in each direction, and its handler, which hides their types.
#[derive(Clone)]
pub(crate) struct MethodHandler {
    pub(crate) requests: Expect,
    pub(crate) responses: Expect,
    pub(crate) poll_budget: Arc<PollBudget>,
    pub(crate) handle: Arc<dyn Fn(RawRequest) -> Handling + Send + Sync>,
    pub(crate) options: Option<Arc<ServiceOptions>>,
}

impl Methods {
    /// Registers a method with one request and one response. It replaces an existing method with the same
    /// path.
    ///
    /// Each call runs `handler` with `service` and the request. If the call is cancelled, the future that
    /// `handler` returned is dropped.
    pub fn unary<S, Q, R, F, Fut>(&mut self, method: Method, service: &Arc<S>, handler: F)
    where
        S: Send + Sync + 'static,
        Q: Message,
        R: Message,
        F: Fn(Arc<S>, Request<Q>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Status>> + Send + 'static,
    {
        let service = service.clone();
        self.insert(&method, Expect::One, Expect::One, move |request| {
            let service = service.clone();
            let (response, max_size) = (request.response.clone(), request.max_send_size);
            // Two futures, because a single one would have the size of both, and a call that waits keeps
            // its future.
            match request.whole() {
                Ok(request) => {
                    let handling = request.map(|request| handler(service, request));
                    Box::pin(async move { one_frame(&handling?.await?, &response, max_size) })
                }
                Err(request) => {
                    let handler = handler.clone();
                    Box::pin(async move {
                        let message = handler(service, request.one().await?).await?;
                        one_frame(&message, &response, max_size)
                    })
                }
            }
        });
    }

    /// Registers a method with one request and many responses, as [`unary`](Self::unary) does.
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
        self.insert(&method, Expect::One, Expect::Many, move |mut request| {
            let (service, handler) = (service.clone(), handler.clone());
            Box::pin(async move {
                let responses = request.responses()?;
                handler(service, Box::new(request).one().await?, responses)
                    .await
                    .map(|()| None)
            })
        });
    }

    /// Registers a method with many requests and one response, as [`unary`](Self::unary) does.
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
        self.insert(&method, Expect::Many, Expect::One, move |request| {
            let (response, max_size) = (request.response.clone(), request.max_send_size);
            let handling = handler(service.clone(), request.many());
            Box::pin(async move { one_frame(&handling.await?, &response, max_size) })
        });
    }

    /// Registers a method with many requests and many responses, as [`unary`](Self::unary) does.
    pub fn bidi_streaming<S, Q, R, F, Fut>(&mut self, method: Method, service: &Arc<S>, handler: F)
    where
        S: Send + Sync + 'static,
        Q: Message,
        R: Message,
        F: Fn(Arc<S>, Request<Streaming<Q>>, Sender<R>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let service = service.clone();
        self.insert(&method, Expect::Many, Expect::Many, move |mut request| {
            let responses = request.responses();
            let handling = responses.map(|it| handler(service.clone(), request.many(), it));
            Box::pin(async move { handling?.await.map(|()| None) })
        });
    }

    /// Adds another service from within [`Service::add_to`]. Server reflection, for example, adds its two
    /// versions in this way.
    ///
    /// The options of the outer service also apply to the added service, unless that is a
    /// [`ServiceServer`](crate::server::ServiceServer), which has its own options.
    pub fn add_service<S: Service>(&mut self, service: S) {
        if !self.names.contains(&S::NAME) {
            self.names.push(S::NAME);
        }
        let mut known = self.descriptors.iter();
        if !known.any(|it| ptr::eq(*it, S::FILE_DESCRIPTORS)) {
            self.descriptors.push(S::FILE_DESCRIPTORS);
        }
        service.add_to(self);
        for added in self.on_service_added.clone() {
            self.set_options_while(added.options, |methods| (added.hook)(methods));
        }
    }

    /// Returns the full names of the services, each once, in the order in which they were added.
    pub fn service_names(&self) -> &[&'static str] {
        &self.names
    }

    /// Returns the descriptors of the services, each once, in the order in which the services were added.
    pub fn file_descriptors(&self) -> &[&'static FileDescriptors] {
        &self.descriptors
    }

    /// Runs `hook` immediately, and again whenever a service is added. A service that describes all other
    /// services, such as those of the crates [`trunkline-health`](https://docs.rs/trunkline-health) and
    /// [`trunkline-reflection`](https://docs.rs/trunkline-reflection), can use it to learn of services that are
    /// added later.
    ///
    /// The hook can read [`service_names`](Self::service_names) and
    /// [`file_descriptors`](Self::file_descriptors). It can also register methods of its own service again, to
    /// replace them; options of that service still apply to them.
    ///
    /// Only [`add_service`](Self::add_service) and [`Server::add_service`](crate::Server::add_service)
    /// run the hook. A method that is registered without a service does not.
    pub fn on_service_added(&mut self, hook: impl Fn(&mut Self) + Send + Sync + 'static) {
        hook(self);
        self.on_service_added.push(OnServiceAdded {
            hook: Arc::new(hook),
            options: self.options.clone(),
        });
    }

    /// Adds a check that runs after all services have been added, before the server serves. If `check` returns
    /// an error, the server does not start: [`Server::bind`](crate::Server::bind) and
    /// [`Server::serve`](crate::Server::serve) return the error. The crate
    /// [`trunkline-reflection`](https://docs.rs/trunkline-reflection), for example, checks that the descriptors
    /// of all services agree.
    ///
    /// The check does not run for a [`Router`](crate::Router) or an in-process channel.
    pub fn before_serving(
        &mut self,
        check: impl Fn(&Self) -> Result<(), Status> + Send + Sync + 'static,
    ) {
        self.checks.push(Arc::new(check));
    }

    /// Registers methods with `options`.
    pub(crate) fn with_options(
        &mut self,
        options: ServiceOptions,
        register: impl FnOnce(&mut Self),
    ) {
        self.set_options_while(Some(Arc::new(options)), register);
    }

    fn set_options_while(
        &mut self,
        options: Option<Arc<ServiceOptions>>,
        register: impl FnOnce(&mut Self),
    ) {
        let outer = std::mem::replace(&mut self.options, options);
        register(self);
        self.options = outer;
    }

    /// Runs the checks that services registered.
    pub(crate) fn check(&self) -> Result<(), Status> {
        self.checks.iter().try_for_each(|check| check(self))
    }

    pub(crate) fn handlers(&self) -> &HashMap<String, MethodHandler> {
        &self.handlers
    }

    fn insert(
        &mut self,
        method: &Method,
        requests: Expect,
        responses: Expect,
        handle: impl Fn(RawRequest) -> Handling + Send + Sync + 'static,
    ) {
        let handler = MethodHandler {
            requests,
            responses,
            poll_budget: Arc::default(),
            handle: Arc::new(handle),
            options: self.options.clone(),
        };
        self.handlers.insert(method.path().to_owned(), handler);
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Methods")
            .field("services", &self.names)
            .finish_non_exhaustive()
    }
}
