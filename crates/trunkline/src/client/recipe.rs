//! A call, as its attempts see it.

use std::sync::Arc;

use http::Request;
use tokio::time::Instant;
use trunkline_channel::{CallHead, Origin, PickArgs, WaitMode};
use trunkline_codec::{Metadata, Status};

use crate::client::backend::Backend;
use crate::client::outgoing::OutgoingCall;
use crate::observe::Recorder;

/// All that it takes to make a call, except for its body.
pub(crate) struct Recipe {
    pub(crate) backend: Backend,
    pub(crate) call: OutgoingCall,
    recorder: Option<Arc<Recorder>>,
}

impl Recipe {
    pub(crate) fn new(
        backend: Backend,
        call: OutgoingCall,
        recorder: Option<Arc<Recorder>>,
    ) -> Self {
        Self {
            backend,
            call,
            recorder,
        }
    }
}

impl CallHead for Recipe {
    fn pick_args(&self) -> PickArgs<'_> {
        self.call.pick_args()
    }

    fn deadline(&self) -> Option<Instant> {
        self.call.head.deadline
    }

    fn wait_mode(&self) -> WaitMode {
        self.call.wait_mode()
    }

    fn head(&self, origin: Origin) -> Result<Request<()>, Status> {
        self.backend.request(&self.call, origin)
    }

    async fn credentials(&self, origin: &Origin) -> Result<Option<Metadata>, Status> {
        let Some(credentials) = &self.call.credentials else {
            return Ok(None);
        };
        let head = &self.call.head;
        let metadata = credentials.metadata(origin, &head.path, head.deadline);
        metadata.await.map(Some)
    }

    fn attempt_started(&self, is_transparent: bool) -> u32 {
        let recorder = self.recorder.as_ref();
        recorder.map_or(0, |it| it.attempt_started(is_transparent))
    }

    fn attempt_opened(&self, attempt: u32) {
        if let Some(recorder) = &self.recorder {
            recorder.attempt_opened(attempt, &self.call.head.metadata);
        }
    }

    fn attempt_ended(&self, attempt: u32, error: &Status) {
        if let Some(recorder) = &self.recorder {
            recorder.attempt_ended(attempt, error);
        }
    }

    fn attempt_committed(&self, attempt: u32) {
        if let Some(recorder) = &self.recorder {
            recorder.attempt_committed(attempt);
        }
    }
}
