//! Attempts: retries and hedges of a call, when they follow and what they send (gRFC A6).

#![cfg_attr(not(test), expect(dead_code, reason = "connected by the channel core"))]

pub(crate) mod decision;
pub(crate) mod machine;
pub(crate) mod policy;
pub(crate) mod pushback;
pub(crate) mod replay;
pub(crate) mod throttle;

pub use policy::{CodeSet, HedgingPolicy, RetryPolicy};
