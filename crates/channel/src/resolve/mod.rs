//! Resolution: from the text of a target to endpoints.

pub(crate) mod dns_config;
#[cfg(feature = "hickory")]
pub(crate) mod hickory;
pub(crate) mod lookup;
pub(crate) mod names;
pub(crate) mod resolver;
#[cfg(test)]
mod target_syntax;
pub(crate) mod target_uri;
pub(crate) mod targets;
