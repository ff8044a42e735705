//! The budget that tokio lets a task use before the others of its thread get their turn.

use std::pin::pin;
use std::task::{Context, Poll};

/// Takes one unit of what the task may do. Ready if there was one; else `cx` hears of it when the others
/// have had their turn.
///
/// Whatever can be ready again and again has to ask, or a loop around it never lets go of its thread:
/// no timer, and no other branch of a `select!`, is heard.
pub fn poll_coop(cx: &Context<'_>) -> Poll<()> {
    pin!(tokio::task::consume_budget()).poll(&mut Context::from_waker(cx.waker()))
}
