//! The metadata of a response, as interceptors have it.

use trunkline_codec::Metadata;

/// The metadata of a response, between its handler or its server and the interceptors of the call.
#[derive(Default)]
pub(crate) struct ResponseMetadata {
    pub(crate) head: Metadata,
    pub(crate) trailers: Metadata,
    /// The head has left the server, and cannot be changed.
    pub(crate) is_head_sent: bool,
}

impl ResponseMetadata {
    /// Returns this with the pairs of `other` behind.
    pub(crate) fn followed_by(mut self, other: Self) -> Self {
        append(&mut self.head, other.head);
        append(&mut self.trailers, other.trailers);
        self.is_head_sent |= other.is_head_sent;
        self
    }
}

/// Adds the pairs of `from` behind those of `to`.
pub(crate) fn append(to: &mut Metadata, from: Metadata) {
    match to.is_empty() {
        true => *to = from,
        false => to.extend(from),
    }
}
