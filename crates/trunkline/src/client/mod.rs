//! The client: channels, and calls from the builder to the response.

pub(crate) mod backend;
pub(crate) mod call;
pub(crate) mod channel;
pub(crate) mod channel_builder;
pub(crate) mod client_stream;
pub(crate) mod defaults;
pub(crate) mod forwarded;
pub(crate) mod opening;
pub(crate) mod outgoing;
pub(crate) mod recipe;
pub(crate) mod streams;
pub(crate) mod stub;
pub(crate) mod unary;
