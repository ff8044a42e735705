//! A request, as a handler gets it.

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

/// A request: the message, or the stream of messages, and what came with it.
///
/// It derefs to the message.
#[derive(Debug)]
pub struct Request<T> {
    message: T,
    head: Head,
    response: ResponseHandle,
    is_compressed: bool,
}

impl<T> Request<T> {
    /// A request with this message and nothing else, for a test that calls a handler.
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

    /// This request to the method with that path, `/package.Service/Method`; `/` by default.
    ///
    /// # Panics
    ///
    /// If `path` cannot be the path of a method, such as one with a space.
    #[must_use]
    pub fn with_path(mut self, path: &str) -> Self {
        let path = path.parse::<PathAndQuery>();
        self.head.path = path.expect("the path of a method is /package.Service/Method");
        self
    }

    /// This request over a connection between these ends; over none by default.
    #[must_use]
    pub fn with_peer(mut self, peer: Peer) -> Self {
        self.head.peer = Some(Arc::new(peer));
        self
    }

    /// This request with a deadline `timeout` from now; without one by default. A handler that a test
    /// calls is not dropped at the deadline.
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

    /// Returns the message alone.
    pub fn into_inner(self) -> T {
        self.message
    }

    /// Returns the client's metadata, without the keys that belong to the protocol.
    pub fn metadata(&self) -> &Metadata {
        self.head.metadata()
    }

    /// Returns the client's metadata, to be changed.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.head.metadata
    }

    /// Returns the path of the method: `/package.Service/Method`.
    pub fn path(&self) -> &str {
        self.head.path()
    }

    /// Returns the two ends of the connection; none for a call that came without a connection.
    pub fn peer(&self) -> Option<&Peer> {
        self.head.peer()
    }

    /// Returns the time left until the call's deadline: zero if it has passed, none without a
    /// deadline.
    ///
    /// When it passes, the handler's future is dropped. Calls made in the handler inherit it.
    pub fn time_remaining(&self) -> Option<Duration> {
        self.head.time_remaining()
    }

    /// Returns the values that interceptors and layers have left for the handler.
    pub fn extensions(&self) -> &http::Extensions {
        self.head.extensions()
    }

    /// Returns the response of this call, to set its metadata, trailers and compression.
    pub fn response(&self) -> &ResponseHandle {
        &self.response
    }

    /// Converts the message; the rest stays as it is.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Request<U> {
        Request {
            message: map(self.message),
            head: self.head,
            response: self.response,
            is_compressed: self.is_compressed,
        }
    }

    /// Returns the same values, to be changed.
    pub fn extensions_mut(&mut self) -> &mut http::Extensions {
        self.head.extensions_mut()
    }
}

impl<T: Message> Request<T> {
    /// Returns true if the message came compressed. For a stream of messages see
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
