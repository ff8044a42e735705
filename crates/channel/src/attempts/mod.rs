//! Attempts: retries and hedges of a call, when they follow and what they send (gRFC A6).

pub(crate) mod attempt;
pub(crate) mod call_head;
pub(crate) mod calls;
pub(crate) mod decision;
pub(crate) mod machine;
pub(crate) mod policy;
pub(crate) mod pushback;
pub(crate) mod replay;
pub(crate) mod throttle;
mod tracked;

pub use attempt::{Attempt, Unsent};
pub use call_head::CallHead;
pub use calls::CallAttempts;
pub use policy::{CodeSet, HedgingPolicy, RetryPolicy};
