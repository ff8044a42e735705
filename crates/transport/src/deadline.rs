//! A deadline and its timer.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

/// A moment to wait for. Its timer is created on the first wait.
///
/// Most calls end without waiting, and need no timer.
///
/// ```
/// # use std::future::poll_fn;
/// # use std::time::Duration;
/// # use tokio::time::Instant;
/// # use trunkline_transport::Deadline;
/// # async fn example() {
/// let mut deadline = Deadline::new(Instant::now() + Duration::from_millis(1));
/// poll_fn(|cx| deadline.poll(cx)).await;
/// assert!(deadline.has_passed());
/// # }
/// ```
#[derive(Debug)]
pub struct Deadline {
    at: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// A deadline at this moment.
    pub fn new(at: Instant) -> Self {
        Self { at, sleep: None }
    }

    /// Returns the moment.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Returns whether the moment has passed, without waiting for it.
    pub fn has_passed(&self) -> bool {
        self.at <= Instant::now()
    }

    /// Waits for the moment. Ready immediately if it has passed, even in a task that has used up its tokio
    /// budget, in which tokio's own timers stay pending.
    ///
    /// # Panics
    ///
    /// If it waits outside of a tokio runtime with a timer.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.at)));
        poll_sleep(sleep.as_mut(), cx)
    }
}

/// Waits for `sleep`. Checks the clock as well, because the timer stays pending in a task that has used up its
/// tokio budget.
pub(crate) fn poll_sleep(mut sleep: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    match sleep.as_mut().poll(cx) {
        Poll::Pending if sleep.deadline() > Instant::now() => Poll::Pending,
        Poll::Pending | Poll::Ready(()) => Poll::Ready(()),
    }
}

/// The handling of a deadline that a client has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadlineChange {
    /// The client's deadline remains, if there is one.
    Keep,
    /// This deadline applies instead; with `None`, the call has none.
    Replace(Option<Instant>),
}

impl DeadlineChange {
    /// Returns the deadline of a call whose client has set `asked`.
    #[inline]
    pub fn apply(self, asked: Option<Instant>) -> Option<Instant> {
        match self {
            Self::Keep => asked,
            Self::Replace(deadline) => deadline,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_wakes_whoever_waits_for_it() {
        let began = Instant::now();
        let mut deadline = Deadline::new(began + Duration::from_secs(5));
        assert!(!deadline.has_passed());
        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        assert!(deadline.has_passed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_without_budget_hears_of_a_deadline_that_has_passed() {
        let mut deadline = Deadline::new(Instant::now());
        while tokio::task::coop::has_budget_remaining() {
            let consume = std::pin::pin!(tokio::task::coop::consume_budget());
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let _ = consume.poll(&mut cx);
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(deadline.poll(&mut cx).is_ready());
    }
}
