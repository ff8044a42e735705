//! The future of a handler, and its outcome.

use std::pin::Pin;

use trunkline_codec::{Payload, Status};

/// The outcome of a handler: the single message of its response as a frame, or `None` if its messages
/// were sent through a [`Sender`](crate::Sender).
pub(crate) type Outcome = Result<Option<Payload>, Status>;

/// The future of a handler that has been called.
pub(crate) type Handling = Pin<Box<dyn Future<Output = Outcome> + Send>>;
