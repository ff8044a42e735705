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

/// A request that a handler receives: the message or the [stream](crate::Streaming) of messages, the
/// metadata, the deadline and the peer.
///
/// It dereferences to the message.
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
    /// Creates a request with only this message, for a test that calls a handler.
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

    /// Sets the path of the method, `/package.Service/Method`; `/` by default.
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

    /// Sets the two ends of the connection; without a connection by default.
    #[must_use]
    pub fn with_peer(mut self, peer: Peer) -> Self {
        self.head.peer = Some(Arc::new(peer));
        self
    }

    /// Sets the deadline to `timeout` from now; without a deadline by default. A handler that a test calls
    /// is not dropped at the deadline.
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

    /// Returns the message, and drops the rest.
    pub fn into_inner(self) -> T {
        self.message
    }

    /// Returns the client's metadata, without the keys of the protocol.
    pub fn metadata(&self) -> &Metadata {
        self.head.metadata()
    }

    /// Returns the client's metadata for changes.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.head.metadata
    }

    /// Returns the path of the method, `/package.Service/Method`.
    pub fn path(&self) -> &str {
        self.head.path()
    }

    /// Returns the two ends of the connection, or `None` for a call without a connection.
    pub fn peer(&self) -> Option<&Peer> {
        self.head.peer()
    }

    /// Returns the time until the call's deadline: zero if it has passed, `None` if there is none.
    ///
    /// At the deadline, the future of the handler is dropped. Calls that the handler makes inherit the
    /// deadline.
    pub fn time_remaining(&self) -> Option<Duration> {
        self.head.time_remaining()
    }

    /// Returns the values that interceptors and layers pass to the handler.
    pub fn extensions(&self) -> &http::Extensions {
        self.head.extensions()
    }

    /// Returns the response of this call, to set its metadata, trailers and compression.
    pub fn response(&self) -> &ResponseHandle {
        &self.response
    }

    /// Converts the message with `map`, and keeps the rest.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Request<U> {
        Request {
            message: map(self.message),
            head: self.head,
            response: self.response,
            is_compressed: self.is_compressed,
        }
    }

    /// Returns the extensions for changes.
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
