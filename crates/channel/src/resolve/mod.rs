//! Resolution: from the text of a target to endpoints.

pub(crate) mod lookup;
pub(crate) mod names;
pub(crate) mod resolver;
pub(crate) mod target_uri;
pub(crate) mod targets;
