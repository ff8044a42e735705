//! The number of attempts at a call, for the status with which it ends.

use std::error::Error;
use std::fmt;

use crate::status::Status;

/// The number of attempts that a client has made at a call (gRFC A6).
///
/// It is an extension of the response of a call with several attempts, and the cause of its status.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::{AttemptsMade, Status};
///
/// let status = AttemptsMade(4).explain(Status::unavailable("too busy"));
/// assert_eq!(format!("{status:?}"), "UNAVAILABLE: too busy (cause: 4 attempts were made)");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptsMade(pub u32);

impl AttemptsMade {
    /// Adds the number to a status as its cause, unless it has one.
    #[must_use]
    pub fn explain(self, status: Status) -> Status {
        match status.source() {
            Some(_) => status,
            None => status.with_source(self),
        }
    }
}

impl fmt::Display for AttemptsMade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} attempts were made", self.0)
    }
}

impl Error for AttemptsMade {}
