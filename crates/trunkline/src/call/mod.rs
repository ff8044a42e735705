//! The parts that both ends of a call share: its head, its messages in both directions, and its interceptors.

pub(crate) mod cancel;
pub(crate) mod compression;
pub(crate) mod context;
pub(crate) mod deadline;
pub(crate) mod descriptors;
pub(crate) mod fields;
pub(crate) mod handling;
pub(crate) mod head;
pub(crate) mod hooks;
pub(crate) mod intercept;
pub(crate) mod kind;
pub(crate) mod message;
pub(crate) mod message_hooks;
pub(crate) mod messages;
pub(crate) mod method;
pub(crate) mod receive;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod response_handle;
pub(crate) mod response_metadata;
pub(crate) mod sender;
pub(crate) mod source;
pub(crate) mod streaming;
