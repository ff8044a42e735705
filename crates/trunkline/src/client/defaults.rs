//! The defaults of a channel for its calls.

use std::time::Duration;

use trunkline_codec::{Metadata, MetadataError, Status};

/// The timeout and the metadata of calls that do not set their own.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallDefaults {
    pub(crate) timeout: Option<Duration>,
    pub(crate) metadata: Metadata,
    /// An error in the defaults. Each call fails with it before anything is sent.
    pub(crate) failure: Option<Status>,
}

impl CallDefaults {
    /// Keeps the first failure.
    pub(crate) fn fail(&mut self, status: Status) {
        self.failure.get_or_insert(status);
    }

    pub(crate) fn add(&mut self, add: impl FnOnce(&mut Metadata) -> Result<(), MetadataError>) {
        if let Err(error) = add(&mut self.metadata) {
            self.fail(error.into());
        }
    }
}
