//! The limits of messages, connections, servers and channels.
//!
//! Whatever a peer can make grow has a limit with a default. Limits of servers are fields of
//! [`ServerLimits`], and limits of channels are fields of [`ChannelLimits`]. Both contain [`MessageLimits`] and
//! [`Http2Limits`]. Change them with [`Server::with_limits`] and [`ChannelBuilder::with_limits`]:
//!
//! ```
//! use trunkline::limits::{ChannelLimits, ServerLimits};
//! use trunkline::{Channel, Server};
//!
//! let server = Server::new().with_limits(|limits: &mut ServerLimits| {
//!     limits.max_connections = 1_000;
//!     limits.http2.initial_window_size = 1 << 20;
//! });
//! let channel = Channel::to("localhost:50051").with_limits(|limits: &mut ChannelLimits| {
//!     limits.max_addresses = 10;
//!     limits.messages.max_recv_message_size = 16 << 20;
//! });
//! ```
//!
//! [`Server::with_limits`]: crate::Server::with_limits
//! [`ChannelBuilder::with_limits`]: crate::ChannelBuilder::with_limits

#[cfg(feature = "client")]
pub use trunkline_channel::ChannelLimits;
pub use trunkline_codec::MessageLimits;
pub use trunkline_transport::{Http2Limits, ServerLimits};
