//! The metadata of a response for interceptors.

use trunkline_codec::Metadata;

/// The metadata of a response, which a handler or a server exchanges with the interceptors of the call.
#[derive(Default)]
pub(crate) struct ResponseMetadata {
    pub(crate) head: Metadata,
    pub(crate) trailers: Metadata,
    /// The server has sent the head, which cannot be changed.
    pub(crate) is_head_sent: bool,
}

impl ResponseMetadata {
    /// Returns this metadata followed by the pairs of `other`.
    pub(crate) fn followed_by(mut self, other: Self) -> Self {
        append(&mut self.head, other.head);
        append(&mut self.trailers, other.trailers);
        self.is_head_sent |= other.is_head_sent;
        self
    }
}

/// Appends the pairs of `from` to `to`.
pub(crate) fn append(to: &mut Metadata, from: Metadata) {
    match to.is_empty() {
        true => *to = from,
        false => to.extend(from),
    }
}
