//! What a client call of one response gives.

use std::ops::{Deref, DerefMut};

use trunkline_codec::Metadata;

/// A response: the message, and what came with it.
///
/// It derefs to the message.
#[derive(Clone, Debug)]
pub struct Response<T> {
    message: T,
    metadata: Metadata,
    trailers: Metadata,
    is_compressed: bool,
}

impl<T> Response<T> {
    pub(crate) fn new(
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

    /// The message alone.
    pub fn into_inner(self) -> T {
        self.message
    }

    /// What the server sent in the head of its response.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What the server sent behind the message.
    pub fn trailers(&self) -> &Metadata {
        &self.trailers
    }

    /// Whether the message came compressed.
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
