//! The control task of a channel: it owns the resolver, the balancers, the subchannels and their timers.
//!
//! Calls do not wait for it. They read the picker that it publishes, and tell it only if they find no connection.

mod channel_control;
mod core;
mod event;
mod health;
mod owned_task;
mod service_configs;
mod subchannel_watches;
mod task;
mod timers;
mod watch;
mod watches;

pub(crate) use event::{ChannelEvent, Events};
pub(crate) use task::ControlTask;
