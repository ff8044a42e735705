//! The request that a handler receives.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use trunkline_codec::Metadata;
use trunkline_transport::Peer;

use crate::call::deadline;
use crate::call::head::Head;
use crate::call::message::Message;
use crate::call::response_handle::ResponseHandle;

/// A request as a handler receives it: the message or the [stream](crate::Streaming) of messages, the
/// metadata, the deadline and the addresses of the connection.
///
/// A `Request<T>` dereferences to the message `T`.
///
/// ```
/// use trunkline::{Request, Result, Status};
///
/// async fn say_hello(request: Request<String>) -> Result<String> {
///     if request.metadata().get("authorization").is_none() {
///         return Err(Status::unauthenticated("a token is needed"));
///     }
///     Ok(format!("Hello {}!", request.trim()))
/// }
/// ```
#[derive(Debug)]
pub struct Request<T> {
    message: T,
    head: Head,
    response: ResponseHandle,
    is_compressed: bool,
}

impl<T> Request<T> {
    /// Creates a request that contains only `message`, for a test that calls a handler.
    ///
    /// ```
    /// use std::time::Duration;
    /// use trunkline::{Peer, Request};
    ///
    /// let mut request = Request::new("you".to_owned())
    ///     .with_path("/helloworld.Greeter/SayHello")
    ///     .with_peer(Peer::in_memory())
    ///     .with_timeout(Duration::from_secs(1));
    /// request.metadata_mut().insert("authorization", "Bearer sesame")?;
    /// assert_eq!(*request, "you");
    /// # Ok::<(), trunkline::codec::MetadataError>(())
    /// ```
    pub fn new(message: T) -> Self {
        let head = Head {
            path: PathAndQuery::from_static("/"),
            metadata: Metadata::new(),
            extensions: http::Extensions::new(),
            deadline: None,
            peer: None,
        };
        let response = ResponseHandle::new(None, 0, None);
        Self::received(message, head, response, false)
    }

    /// Sets the path of the method, `/package.Service/Method`. Default: `/`.
    ///
    /// # Panics
    ///
    /// Panics if `path` is not a valid path, for example because it contains a space.
    #[must_use]
    pub fn with_path(mut self, path: &str) -> Self {
        let path = path.parse::<PathAndQuery>();
        self.head.path = path.expect("the path of a method is /package.Service/Method");
        self
    }

    /// Sets the local and remote address of the connection. Default: the request has no connection.
    #[must_use]
    pub fn with_peer(mut self, peer: Peer) -> Self {
        self.head.peer = Some(Arc::new(peer));
        self
    }

    /// Sets the deadline to `timeout` from now. Default: the request has no deadline.
    ///
    /// The deadline is visible to the handler and inherited by its calls. A handler that a test calls
    /// directly is not dropped at the deadline.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.head.deadline = deadline::after(timeout);
        self
    }

    pub(crate) fn received(
        message: T,
        head: Head,
        response: ResponseHandle,
        is_compressed: bool,
    ) -> Self {
        Self {
            message,
            head,
            response,
            is_compressed,
        }
    }

    /// Returns the message, and drops metadata and everything else.
    pub fn into_inner(self) -> T {
        self.message
    }

    /// Returns the metadata that the client sent, without the keys that gRPC itself uses, such as
    /// `grpc-timeout`.
    pub fn metadata(&self) -> &Metadata {
        self.head.metadata()
    }

    /// Returns a mutable reference to the metadata that the client sent.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.head.metadata
    }

    /// Returns the path of the method, `/package.Service/Method`.
    pub fn path(&self) -> &str {
        self.head.path()
    }

    /// Returns the local and remote address of the connection, or `None` for a call without a connection,
    /// such as an in-process call.
    pub fn peer(&self) -> Option<&Peer> {
        self.head.peer()
    }

    /// Returns the time until the call's deadline: zero if it has passed, `None` if the call has no
    /// deadline.
    ///
    /// At the deadline, the future of the handler is dropped. Calls that the handler makes inherit the
    /// deadline.
    pub fn time_remaining(&self) -> Option<Duration> {
        self.head.time_remaining()
    }

    /// Returns the extensions: values of any type that interceptors and layers pass to the handler. They
    /// are never sent.
    pub fn extensions(&self) -> &http::Extensions {
        self.head.extensions()
    }

    /// Returns a handle to the response of this call, which sets its metadata, trailers and compression.
    pub fn response(&self) -> &ResponseHandle {
        &self.response
    }

    /// Converts the message with `map`, and keeps metadata and everything else.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Request<U> {
        Request {
            message: map(self.message),
            head: self.head,
            response: self.response,
            is_compressed: self.is_compressed,
        }
    }

    /// Returns a mutable reference to the extensions.
    pub fn extensions_mut(&mut self) -> &mut http::Extensions {
        self.head.extensions_mut()
    }
}

impl<T: Message> Request<T> {
    /// Returns true if the message was compressed. For a stream of messages, use
    /// [`Streaming::is_compressed`](crate::Streaming::is_compressed).
    pub fn is_compressed(&self) -> bool {
        self.is_compressed
    }
}

impl<T> Deref for Request<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.message
    }
}

impl<T> DerefMut for Request<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.message
    }
}
