//! A call, as its attempts see it.

use http::Request;
use tokio::time::Instant;
use trunkline_codec::{Metadata, Status};

use crate::balancing::PickArgs;
use crate::connections::WaitMode;
use crate::target_address::Origin;

/// Makes the heads of a call's attempts, and learns when attempts begin and end.
pub trait CallHead: Send + Sync + 'static {
    /// Returns what a picker has of the call.
    fn pick_args(&self) -> PickArgs<'_>;

    /// Returns the deadline of the call.
    fn deadline(&self) -> Option<Instant>;

    /// Returns whether the call waits while the channel cannot connect.
    fn wait_mode(&self) -> WaitMode;

    /// Makes the head of an attempt, with the time that remains.
    ///
    /// # Errors
    ///
    /// The status of an attempt that cannot be sent.
    fn head(&self, origin: Origin) -> Result<Request<()>, Status>;

    /// Returns metadata that an attempt on a connection to `origin` sends in addition, such as credentials.
    ///
    /// # Errors
    ///
    /// The status of an attempt that cannot be sent.
    fn credentials(
        &self,
        origin: &Origin,
    ) -> impl Future<Output = Result<Option<Metadata>, Status>> + Send;

    /// An attempt begins. Returns its number, from 1.
    fn attempt_started(&self, is_transparent: bool) -> u32 {
        let _ = is_transparent;
        0
    }

    /// The attempt has a stream, and has sent its head.
    fn attempt_opened(&self, attempt: u32) {
        let _ = attempt;
    }

    /// The attempt has ended, and is not the end of the call.
    fn attempt_ended(&self, attempt: u32, error: &Status) {
        let _ = (attempt, error);
    }

    /// The call continues with the response of the attempt.
    fn attempt_committed(&self, attempt: u32) {
        let _ = attempt;
    }
}
