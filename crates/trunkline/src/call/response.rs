//! The response of one message that a client receives.

use std::ops::{Deref, DerefMut};

use trunkline_codec::Metadata;

/// A response with a single message, as a client receives it: the message and its metadata.
///
/// A `Response<T>` dereferences to the message `T`.
///
/// ```
/// use trunkline::Response;
///
/// let mut response = Response::new("Hello!".to_owned());
/// response.metadata_mut().insert("served-by", "a")?;
/// assert_eq!(*response, "Hello!");
/// # Ok::<(), trunkline::codec::MetadataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Response<T> {
    message: T,
    metadata: Metadata,
    trailers: Metadata,
    is_compressed: bool,
}

impl<T> Response<T> {
    /// Creates a response without metadata, for a test that needs no server.
    pub fn new(message: T) -> Self {
        Self::received(message, Metadata::new(), Metadata::new(), false)
    }

    pub(crate) fn received(
        message: T,
        metadata: Metadata,
        trailers: Metadata,
        is_compressed: bool,
    ) -> Self {
        Self {
            message,
            metadata,
            trailers,
            is_compressed,
        }
    }

    /// Returns the message, and drops the metadata.
    pub fn into_inner(self) -> T {
        self.message
    }

    /// Returns the metadata in the head of the response.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Returns a mutable reference to the metadata in the head of the response.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// Returns the metadata in the trailers of the response.
    pub fn trailers(&self) -> &Metadata {
        &self.trailers
    }

    /// Returns a mutable reference to the metadata in the trailers of the response.
    pub fn trailers_mut(&mut self) -> &mut Metadata {
        &mut self.trailers
    }

    /// Returns true if the message was compressed.
    pub fn is_compressed(&self) -> bool {
        self.is_compressed
    }
}

impl<T> Deref for Response<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.message
    }
}

impl<T> DerefMut for Response<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.message
    }
}
