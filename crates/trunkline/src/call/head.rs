//! The head of a call for handlers and interceptors.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::time::Instant;
use trunkline_codec::Metadata;
use trunkline_transport::Peer;

use crate::call::deadline;

/// The head of a call: the method, the metadata, the deadline and the peer.
pub(crate) struct Head {
    pub(crate) path: PathAndQuery,
    pub(crate) metadata: Metadata,
    pub(crate) extensions: http::Extensions,
    pub(crate) deadline: Option<Instant>,
    pub(crate) peer: Option<Arc<Peer>>,
}

impl Head {
    /// Returns the path of the method, `/package.Service/Method`.
    pub(crate) fn path(&self) -> &str {
        self.path.as_str()
    }

    /// Returns the client's metadata.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Returns the client's metadata for changes: on a client before it is sent, on a server before the
    /// handler receives it.
    pub(crate) fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// Returns the time until the deadline: zero if it has passed, `None` if there is none.
    pub(crate) fn time_remaining(&self) -> Option<Duration> {
        deadline::remaining(self.deadline)
    }

    /// Returns the two ends of the connection, on a server; `None` on a client, and for a call without a
    /// connection.
    pub(crate) fn peer(&self) -> Option<&Peer> {
        self.peer.as_deref()
    }

    /// Returns the values that layers, interceptors and handlers pass to each other.
    pub(crate) fn extensions(&self) -> &http::Extensions {
        &self.extensions
    }

    /// Returns the extensions for changes.
    pub(crate) fn extensions_mut(&mut self) -> &mut http::Extensions {
        &mut self.extensions
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("path", &self.path())
            .field("metadata", &self.metadata)
            .field("time_remaining", &self.time_remaining())
            .finish_non_exhaustive()
    }
}
