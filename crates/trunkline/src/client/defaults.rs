//! The defaults of a channel for its calls.

use std::sync::Arc;
use std::time::Duration;

use trunkline_codec::{Metadata, MetadataError, Status};

use crate::credentials::AttachedCredentials;

/// The timeout, the metadata and the credentials of calls, to which calls can add their own.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallDefaults {
    pub(crate) timeout: Option<Duration>,
    pub(crate) metadata: Metadata,
    pub(crate) credentials: Option<Arc<AttachedCredentials>>,
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
