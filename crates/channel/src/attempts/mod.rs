//! Attempts: retries and hedges of a call, when they follow and what they send (gRFC A6).

#[cfg_attr(not(test), expect(dead_code, reason = "connected by the channel core"))]
pub(crate) mod decision;
pub(crate) mod policy;
#[cfg_attr(not(test), expect(dead_code, reason = "connected by the channel core"))]
pub(crate) mod pushback;
#[cfg_attr(not(test), expect(dead_code, reason = "connected by the channel core"))]
pub(crate) mod replay;
#[cfg_attr(not(test), expect(dead_code, reason = "connected by the channel core"))]
pub(crate) mod throttle;

pub use policy::{CodeSet, HedgingPolicy, RetryPolicy};
