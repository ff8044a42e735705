//! The head of a call, as handlers and interceptors see it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::time::Instant;
use trunkline_codec::Metadata;
use trunkline_transport::Peer;

use crate::call::deadline;

/// The head of a call: the method, the metadata, the deadline, and who is at the other end.
pub struct Head {
    pub(crate) path: PathAndQuery,
    pub(crate) metadata: Metadata,
    pub(crate) extensions: http::Extensions,
    pub(crate) deadline: Option<Instant>,
    pub(crate) peer: Option<Arc<Peer>>,
}

impl Head {
    /// The path of the method: `/package.Service/Method`.
    pub fn path(&self) -> &str {
        self.path.as_str()
    }

    /// The client's metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The client's metadata, to be changed: on a client before it is sent, on a server before the
    /// handler sees it.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// What is left until the deadline; zero if it has passed, none if there is none.
    pub fn time_remaining(&self) -> Option<Duration> {
        deadline::remaining(self.deadline)
    }

    /// The two ends of the connection, on a server; none on a client, where it is not chosen yet,
    /// and for a call that came by no connection.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_deref()
    }

    /// Values that layers, interceptors and handlers leave for each other.
    pub fn extensions(&self) -> &http::Extensions {
        &self.extensions
    }

    /// The same, to be changed.
    pub fn extensions_mut(&mut self) -> &mut http::Extensions {
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
