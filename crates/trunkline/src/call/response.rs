//! The one response of a call, as a client gets it.

use std::ops::{Deref, DerefMut};

use trunkline_codec::Metadata;

/// A response: the message, and what came with it.
///
/// It derefs to the message.
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
    /// A response with this message and no metadata, for a test without a server.
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

    /// Returns the message alone.
    pub fn into_inner(self) -> T {
        self.message
    }

    /// Returns the metadata of the head of the response.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Returns the metadata of the head of the response, to be changed.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// Returns the metadata of the trailers.
    pub fn trailers(&self) -> &Metadata {
        &self.trailers
    }

    /// Returns the metadata of the trailers, to be changed.
    pub fn trailers_mut(&mut self) -> &mut Metadata {
        &mut self.trailers
    }

    /// Returns true if the message came compressed.
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
