//! Attempts: retries and hedges of a call, when they follow and what they send (gRFC A6).

pub(crate) mod policy;

pub use policy::{CodeSet, HedgingPolicy, RetryPolicy};
