//! The server: from the path of a request to a handler, and the handler at work.

pub(crate) mod answer;
pub(crate) mod answering;
pub(crate) mod builder;
pub(crate) mod descriptors;
pub(crate) mod incoming;
mod intercepted;
mod lifecycle;
mod nearest;
pub(crate) mod router;
#[cfg(feature = "signal")]
pub(crate) mod signal;
