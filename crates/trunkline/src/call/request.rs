//! What a handler is given.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use trunkline_codec::Metadata;
use trunkline_transport::Peer;

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
    pub(crate) fn new(
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

    /// The message alone.
    pub fn into_inner(self) -> T {
        self.message
    }

    /// What the client sent as metadata. Keys that belong to the protocol are not shown.
    pub fn metadata(&self) -> &Metadata {
        self.head.metadata()
    }

    /// The path of the method: `/package.Service/Method`.
    pub fn path(&self) -> &str {
        self.head.path()
    }

    /// The two ends of the connection; none for a call that came by no connection.
    pub fn peer(&self) -> Option<&Peer> {
        self.head.peer()
    }

    /// What is left until the call's deadline; zero if it has passed, none if there is none.
    ///
    /// When it passes, the handler's future is dropped. Calls made in the handler inherit it.
    pub fn time_remaining(&self) -> Option<Duration> {
        self.head.time_remaining()
    }

    /// What interceptors and layers have left for the handler.
    pub fn extensions(&self) -> &http::Extensions {
        self.head.extensions()
    }

    /// The head and the trailers of the response.
    pub fn response(&self) -> &ResponseHandle {
        &self.response
    }

    /// The same request around another message.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Request<U> {
        Request {
            message: map(self.message),
            head: self.head,
            response: self.response,
            is_compressed: self.is_compressed,
        }
    }

    /// Puts something where [`extensions`](Self::extensions) finds it.
    pub fn extensions_mut(&mut self) -> &mut http::Extensions {
        self.head.extensions_mut()
    }
}

impl<T: Message> Request<T> {
    /// Whether the message came compressed. A stream of messages says it of each:
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
