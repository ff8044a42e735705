//! The cooperative budget of a tokio task.

use std::pin::pin;
use std::task::{Context, Poll};

/// Takes one unit of the task's tokio budget. Pending if the budget is used up; the task is then woken after
/// the other tasks of its thread have run.
///
/// An operation that can be ready repeatedly must take a unit. Otherwise, a loop around it never yields its
/// thread, and starves timers and the other branches of a `select!`.
pub fn poll_coop(cx: &Context<'_>) -> Poll<()> {
    pin!(tokio::task::consume_budget()).poll(&mut Context::from_waker(cx.waker()))
}
