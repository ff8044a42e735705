//! A handler that has been called, and its outcome.

use std::pin::Pin;

use trunkline_codec::{Payload, Status};

/// The outcome of a handler: the one message of its response as a frame, or none if its messages went
/// through a [`Sender`](crate::Sender).
pub(crate) type Outcome = Result<Option<Payload>, Status>;

/// A handler that has been called.
pub(crate) type Handling = Pin<Box<dyn Future<Output = Outcome> + Send>>;
