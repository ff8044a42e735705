//! A service with its handlers, and what it says of its calls for itself.

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

/// The table of a service's methods, which generated code writes: how each is registered with
/// handlers of the type `S`.
pub trait ServiceMethods<S> {
    /// As [`Service::NAME`].
    const NAME: &'static str;

    /// As [`Service::FILE_DESCRIPTORS`].
    const FILE_DESCRIPTORS: &'static FileDescriptors;

    /// Registers the methods with the handlers of `service`.
    fn add_to(service: &Arc<S>, methods: &mut Methods);
}

/// A service with its handlers and options of its own: `GreeterServer<S>` in generated code is one.
///
/// Options that are not set are those of the [`Server`](crate::Server).
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
pub struct ServiceServer<M, S> {
    service: Arc<S>,
    options: ServiceOptions,
    methods: PhantomData<fn() -> M>,
}

impl<M: ServiceMethods<S>, S> ServiceServer<M, S> {
    /// A service with the handlers of `service`.
    ///
    /// A program that keeps handlers for itself as well passes a clone of their `Arc` to
    /// [`from_arc`](Self::from_arc), which needs no type annotation.
    pub fn new(service: impl Into<Arc<S>>) -> Self {
        Self::from_arc(service.into())
    }

    /// A service with handlers that are shared.
    pub fn from_arc(service: Arc<S>) -> Self {
        Self {
            service,
            options: ServiceOptions::default(),
            methods: PhantomData,
        }
    }

    /// Runs `interceptor` around every call of this service, inside the server's interceptors. The
    /// one added first is the outermost.
    #[must_use]
    pub fn intercept(mut self, interceptor: impl Interceptor) -> Self {
        self.options.interceptors.push(interceptor);
        self
    }

    /// Sets the largest message that this service receives, in bytes after decompression.
    #[must_use]
    pub fn max_recv_message_size(mut self, bytes: usize) -> Self {
        self.options.max_recv_message_size = Some(bytes);
        self
    }

    /// Sets the largest message that this service sends, in bytes before compression.
    #[must_use]
    pub fn max_send_message_size(mut self, bytes: usize) -> Self {
        self.options.max_send_message_size = Some(bytes);
        self
    }

    /// Compresses the responses of this service with the compressor of that name, such as `gzip`:
    /// see [`Server::compress`](crate::Server::compress). `identity` sends them as they are.
    ///
    /// The server has to know the compressor: if it does not, `bind` and `serve` return
    /// INVALID_ARGUMENT.
    #[must_use]
    pub fn compress(mut self, name: &str) -> Self {
        self.options.compress = Some(name.to_owned());
        self
    }

    /// Sets the largest message, in bytes, that this service sends uncompressed although it
    /// compresses.
    #[must_use]
    pub fn compress_above(mut self, bytes: usize) -> Self {
        self.options.compress_above = Some(bytes);
        self
    }

    /// Sets the timeout of calls whose client sends none; unlimited by default.
    ///
    /// When it has passed, the handler is dropped and the client gets DEADLINE_EXCEEDED, as at a
    /// deadline of its own.
    #[must_use]
    pub fn default_timeout(mut self, timeout: Duration) -> Self {
        self.options.timeouts.default = Some(timeout);
        self
    }

    /// Raises shorter timeouts of clients to this one; 0 by default.
    ///
    /// A client ends its call at its own deadline nonetheless, which drops the handler: this is for
    /// clients that send a timeout and then wait longer than it. A timeout that has passed before the
    /// call arrives ends the call at once.
    #[must_use]
    pub fn min_timeout(mut self, timeout: Duration) -> Self {
        self.options.timeouts.min = Some(timeout);
        self
    }

    /// Cuts longer timeouts of clients to this one, and bounds calls that have none; unlimited by
    /// default. It wins over [`min_timeout`](Self::min_timeout) and
    /// [`default_timeout`](Self::default_timeout).
    ///
    /// When it has passed, the handler is dropped and the client gets DEADLINE_EXCEEDED, before its
    /// own deadline.
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

/// Returns the future of a handler that is not implemented: it is ready with UNIMPLEMENTED, which
/// names `method` (`package.Service/Method`).
///
/// Generated code calls it in the bodies that `trunkline_build::Config::default_bodies` asks for.
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
