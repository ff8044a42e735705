//! A service with its handlers and its own options.

use std::fmt;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use trunkline_codec::Status;

use crate::call::descriptors::FileDescriptors;
use crate::call::intercept::Interceptor;
use crate::server::options::ServiceOptions;
use crate::server::service::{Methods, Service};

/// The methods of a service, without an implementation. Generated code implements this trait for each
/// service; `S` is the type that implements the handlers.
///
/// ```
/// use std::sync::Arc;
/// use trunkline::server::{Methods, ServiceMethods, ServiceServer};
/// use trunkline::{FileDescriptors, Method, Raw, Request};
///
/// struct EchoMethods;
///
/// impl<S: Send + Sync + 'static> ServiceMethods<S> for EchoMethods {
///     const NAME: &'static str = "test.Echo";
///     const FILE_DESCRIPTORS: &'static FileDescriptors = &FileDescriptors::new(&[], &[]);
///
///     fn add_to(service: &Arc<S>, methods: &mut Methods) {
///         let method = Method::new("/test.Echo/Echo");
///         methods.unary(method, service, |_, request: Request<Raw>| async move {
///             Ok(request.into_inner())
///         });
///     }
/// }
///
/// type EchoServer<S> = ServiceServer<EchoMethods, S>;
/// ```
pub trait ServiceMethods<S> {
    /// The full name; see [`Service::NAME`].
    const NAME: &'static str;

    /// The descriptors; see [`Service::FILE_DESCRIPTORS`].
    const FILE_DESCRIPTORS: &'static FileDescriptors;

    /// Registers each method with `methods`, and with `service` as its implementation.
    fn add_to(service: &Arc<S>, methods: &mut Methods);
}

/// A service that can be added to a [`Server`](crate::Server): the methods `M`, a value of type `S` that
/// implements them, and options for this service. Generated code names it `GreeterServer<S>`, for
/// example.
///
/// ```
/// # mod hello { trunkline::include_proto!("../../proto/helloworld.proto"); }
/// # use hello::{Greeter, GreeterServer, HelloReply, HelloRequest};
/// # use trunkline::{Request, Result, Server};
/// use std::time::Duration;
///
/// struct MyGreeter;
/// # impl Greeter for MyGreeter {
/// #     async fn say_hello(&self, _: Request<HelloRequest>) -> Result<HelloReply> {
/// #         Ok(HelloReply::default())
/// #     }
/// # }
///
/// let greeter = GreeterServer::new(MyGreeter)
///     .max_recv_message_size(64 << 10)
///     .compress("gzip")
///     .max_timeout(Duration::from_secs(10));
/// let server = Server::new().add_service(greeter);
/// ```
///
/// Options that the service does not set are those of the server. Interceptors of the service run in
/// addition to the server's.
///
/// # Timeouts
///
/// The timeouts of a service count from the arrival of the request's head, as a client's timeout does.
/// They can shorten a client's deadline. Only [`min_timeout`](Self::min_timeout) extends it.
///
/// Handlers of calls that the client has reset count until they end. If they and others reach
/// [`Server::max_concurrent_streams`](crate::Server::max_concurrent_streams), further calls wait. A waiting call
/// ends at the client's deadline; without one, it can wait forever. The service's timeout is checked only
/// when the handler can start: if it has passed by then, the call ends without running the handler.
///
/// Timeouts also apply if the service is called through a [`Router`](crate::Router) in another HTTP server, or
/// through a tower layer that changes the path of the request. In these two cases, `min_timeout` extends only
/// the deadline that the handler sees: the call itself still ends at the client's deadline.
pub struct ServiceServer<M, S> {
    service: Arc<S>,
    options: ServiceOptions,
    methods: PhantomData<fn() -> M>,
}

impl<M: ServiceMethods<S>, S> ServiceServer<M, S> {
    /// Creates a service that calls the handlers of `service`: a value, or an `Arc` of one.
    ///
    /// If the program also uses the value itself, pass a clone of its `Arc` to
    /// [`from_arc`](Self::from_arc), which needs no type annotation.
    pub fn new(service: impl Into<Arc<S>>) -> Self {
        Self::from_arc(service.into())
    }

    /// Creates a service that calls the handlers of a shared value.
    pub fn from_arc(service: Arc<S>) -> Self {
        Self {
            service,
            options: ServiceOptions::default(),
            methods: PhantomData,
        }
    }

    /// Runs `interceptor` around every call of this service, inside the server's interceptors. The
    /// interceptor added first is the outermost.
    #[must_use]
    pub fn intercept(mut self, interceptor: impl Interceptor) -> Self {
        self.options.interceptors.push(interceptor);
        self
    }

    /// Limits the size of messages that this service receives, in bytes both as received and after
    /// decompression. Default: the limit of the server.
    #[must_use]
    pub fn max_recv_message_size(mut self, bytes: usize) -> Self {
        self.options.max_recv_message_size = Some(bytes);
        self
    }

    /// Limits the size of messages that this service sends, in bytes before compression. Default: the
    /// limit of the server.
    #[must_use]
    pub fn max_send_message_size(mut self, bytes: usize) -> Self {
        self.options.max_send_message_size = Some(bytes);
        self
    }

    /// Compresses the responses of this service with the compressor `name`, such as `gzip`. `identity`
    /// disables compression. Default: the selection of [`Server::compress`](crate::Server::compress),
    /// which also describes the rules.
    ///
    /// If the server has no compressor of that name, `bind` and `serve` return INVALID_ARGUMENT.
    #[must_use]
    pub fn compress(mut self, name: &str) -> Self {
        self.options.compress = Some(name.to_owned());
        self
    }

    /// Sets the size, in bytes, up to which messages of this service are not compressed. Default: the
    /// size that the server uses.
    #[must_use]
    pub fn compress_above(mut self, bytes: usize) -> Self {
        self.options.compress_above = Some(bytes);
        self
    }

    /// Sets the timeout of calls whose client sends none. Default: unlimited.
    ///
    /// After the timeout, the handler is dropped and the client receives DEADLINE_EXCEEDED, as it does at
    /// a deadline of its own.
    #[must_use]
    pub fn default_timeout(mut self, timeout: Duration) -> Self {
        self.options.timeouts.default = Some(timeout);
        self
    }

    /// Raises shorter timeouts of clients to `timeout`. Default: 0, which raises none.
    ///
    /// A client still ends its call at its own deadline, which drops the handler. The option is therefore
    /// useful only for clients that wait longer than the timeout that they send. A call whose client
    /// sends a timeout of 0 ends immediately.
    #[must_use]
    pub fn min_timeout(mut self, timeout: Duration) -> Self {
        self.options.timeouts.min = Some(timeout);
        self
    }

    /// Reduces longer timeouts of clients to `timeout`, and sets the timeout of calls without one.
    /// Default: unlimited. It takes precedence over [`min_timeout`](Self::min_timeout) and
    /// [`default_timeout`](Self::default_timeout).
    ///
    /// After the timeout, the handler is dropped and the client receives DEADLINE_EXCEEDED, before the
    /// client's own deadline.
    #[must_use]
    pub fn max_timeout(mut self, timeout: Duration) -> Self {
        self.options.timeouts.max = Some(timeout);
        self
    }
}

impl<M: ServiceMethods<S>, S> Service for ServiceServer<M, S> {
    const NAME: &'static str = M::NAME;
    const FILE_DESCRIPTORS: &'static FileDescriptors = M::FILE_DESCRIPTORS;

    fn add_to(self, methods: &mut Methods) {
        methods.with_options(self.options, |methods| M::add_to(&self.service, methods));
    }
}

/// Returns a future that completes with UNIMPLEMENTED, for a handler that is not written yet. The message
/// contains `method` (`package.Service/Method`).
///
/// Generated code calls it in the default bodies of handlers, which
/// `trunkline_build::Config::default_bodies` adds.
///
/// ```
/// assert!(trunkline::server::unimplemented::<()>("helloworld.Greeter/SayHello").into_inner().is_err());
/// ```
pub fn unimplemented<R>(method: &str) -> Ready<Result<R, Status>> {
    ready(Err(Status::unimplemented(format!(
        "{method} is not implemented by this server"
    ))))
}

impl<M, S> Clone for ServiceServer<M, S> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            options: self.options.clone(),
            methods: PhantomData,
        }
    }
}

impl<M: ServiceMethods<S>, S> fmt::Debug for ServiceServer<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceServer")
            .field("service", &M::NAME)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
