//! The deadline of a call, which the calls of its handler inherit.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_codec::Status;
pub(crate) use trunkline_transport::Deadline;
#[cfg(feature = "server")]
pub(crate) use trunkline_transport::DeadlineChange;

tokio::task_local! {
    static DEADLINE: Option<Instant>;
}

/// Polls a handler in the scope of its call's deadline.
pub(crate) fn within<T>(deadline: Option<Instant>, poll: impl FnOnce() -> T) -> T {
    match (deadline, inherited()) {
        // Most calls: there is no deadline to set or to hide.
        (None, None) => poll(),
        _ => DEADLINE.sync_scope(deadline, poll),
    }
}

/// Returns the deadline of the call whose handler is being polled, if any.
pub(crate) fn inherited() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok().flatten()
}

/// The phase of a call whose handler has not ended; see [`exceeded`].
pub(crate) const HANDLING: &str =
    "while the handler was running; the handler may be slow, or the timeout too short";

/// Returns the moment `timeout` from now, or `None` (no deadline) if the clock cannot represent it.
pub(crate) fn after(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// Returns the moment `timeout` after `start`, or after now without one, or `None` (no deadline) if the
/// clock cannot represent it.
pub(crate) fn since(start: Option<Instant>, timeout: Duration) -> Option<Instant> {
    start.unwrap_or_else(Instant::now).checked_add(timeout)
}

/// Returns the earlier of two deadlines.
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Runs `inside` until the deadline `now`, if interceptors have moved it there from `before`. The caller
/// enforces the deadline `before`.
pub(crate) async fn moved<T>(
    before: Option<Instant>,
    now: Option<Instant>,
    inside: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let Some(at) = now.filter(|_| now != before) else {
        return inside.await;
    };
    tokio::time::timeout_at(at, inside)
        .await
        .unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(
                "the deadline passed; an interceptor had shortened it",
            ))
        })
}

/// Returns the status of a call whose deadline passed in `phase`.
pub(crate) fn exceeded(phase: &str) -> Status {
    Status::deadline_exceeded(format!("the deadline passed {phase}"))
}

/// Returns the time until `deadline`.
pub(crate) fn remaining(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}
