//! The deadline of a call, and the one that a handler's calls inherit.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_codec::Status;
pub(crate) use trunkline_transport::Deadline;

tokio::task_local! {
    static DEADLINE: Option<Instant>;
}

/// Polls a handler in the scope of its call's deadline.
pub(crate) fn within<T>(deadline: Option<Instant>, poll: impl FnOnce() -> T) -> T {
    match (deadline, inherited()) {
        // Most calls: nothing to hide from the handler, and nothing to tell it.
        (None, None) => poll(),
        _ => DEADLINE.sync_scope(deadline, poll),
    }
}

/// The deadline of the call whose handler is being polled, if there is one.
pub(crate) fn inherited() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok().flatten()
}

/// `timeout` from now. None, which is no deadline, if that is further away than the clock goes.
pub(crate) fn after(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// The earlier of two deadlines.
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Bounds what is inside an interceptor that has moved the deadline from `before` to `now`. The
/// one from before is kept further out.
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
                "the deadline passed that an interceptor had set",
            ))
        })
}

/// The end of a call whose deadline passed in `phase`.
pub(crate) fn exceeded(phase: &str) -> Status {
    Status::deadline_exceeded(format!("the deadline passed {phase}"))
}

/// What is left until `deadline`.
pub(crate) fn remaining(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}
