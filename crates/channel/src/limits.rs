//! The limits of a channel.

use std::time::Duration;

use trunkline_codec::MessageLimits;
use trunkline_transport::{ClientLimits, Http2Limits};

/// The limits of a channel.
///
/// ```
/// use std::time::Duration;
///
/// # mod trunkline { pub use trunkline_channel as limits; }
/// let mut limits = trunkline::limits::ChannelLimits::default();
/// limits.connect_timeout = Duration::from_secs(5);
/// limits.messages.max_recv_message_size = 16 << 20;
/// limits.http2.initial_window_size = 1 << 20;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelLimits {
    /// The limits for messages.
    pub messages: MessageLimits,
    /// The HTTP/2 limits of each connection, which servers also have.
    pub http2: Http2Limits,
    /// The number of connections to one server. Default: 4, enough to occupy several cores at either
    /// end, and few enough for a server with many clients. Another connection is opened only if all others
    /// are busy. With 1, all calls share one connection; 0 counts as 1.
    pub max_connections: usize,
    /// The time without a call after which an additional connection is closed. Default: 30 s, checked every
    /// 30 s, so an idle client returns to one connection within a minute.
    pub connection_idle_time: Duration,
    /// The pause before another additional connection is tried after one failed or was lost. Default: 1 s,
    /// the first pause in grpc/doc/connection-backoff.md.
    pub connection_retry_pause: Duration,
    /// The number of calls made on one connection before another replaces it; running calls continue. Default: 1,000,000,000. HTTP/2 has identifiers for 1,073,741,823 streams
    /// (RFC 9113, section 5.1.1).
    pub max_calls_per_connection: u32,
    /// A limit that applies twice: to the calls on one connection, including those that wait for a stream,
    /// and to all calls of the channel that wait for a connection or a stream. Default: 100,000. Further
    /// calls fail immediately with RESOURCE_EXHAUSTED.
    pub max_queued_calls: usize,
    /// Sends the PING of [`Http2Limits::keepalive_time`] also while no call is open.
    /// Default: false (gRFC A8).
    pub keepalive_without_calls: bool,
    /// The time to connect to one address, including the TLS and HTTP/2 handshakes, and separately the time
    /// to resolve a name. Default: 20 s, the minimum in grpc/doc/connection-backoff.md.
    pub connect_timeout: Duration,
    /// The time from the start of the first failed connection attempt to the start of the next. Default:
    /// 1 s. This field and the next three are those of grpc/doc/connection-backoff.md.
    pub connect_backoff_base: Duration,
    /// The factor from one pause to the next. Default: 1.6.
    pub connect_backoff_multiplier: f64,
    /// The fraction by which each pause varies at random, in both directions. Default: 0.2. With 0, pauses
    /// are exact; values above 1 count as 1.
    pub connect_backoff_jitter: f64,
    /// The longest pause, before jitter. Default: 120 s.
    pub connect_backoff_max: Duration,
    /// The time without a response from one address after which the next one is tried in parallel ("Happy
    /// Eyeballs"). Default: 250 ms (RFC 8305, section 8).
    pub connect_stagger: Duration,
    /// The least time between two lookups of a name. Default: 30 s, as in grpc-go.
    pub resolve_interval: Duration,
    /// The number of addresses used. Default: 1,000; further addresses are ignored.
    pub max_addresses: usize,
    /// The most attempts at a call by a retry or hedging policy, the first included. Default: 5 (gRFC A6). A larger
    /// `maxAttempts` in a service config counts as this.
    pub max_attempts: u32,
    /// The time without a call after which a channel becomes idle: it closes its connections, and
    /// resolves and connects again for the next call. Default: 30 min, as in other implementations,
    /// checked every 30 min, so an unused channel becomes idle after 30 to 60 min.
    pub channel_idle_time: Duration,
}

impl Default for ChannelLimits {
    fn default() -> Self {
        Self {
            messages: MessageLimits::default(),
            http2: Http2Limits::for_client(),
            max_connections: 4,
            connection_idle_time: Duration::from_secs(30),
            connection_retry_pause: Duration::from_secs(1),
            max_calls_per_connection: 1_000_000_000,
            max_queued_calls: 100_000,
            keepalive_without_calls: false,
            connect_timeout: Duration::from_secs(20),
            connect_backoff_base: Duration::from_secs(1),
            connect_backoff_multiplier: 1.6,
            connect_backoff_jitter: 0.2,
            connect_backoff_max: Duration::from_secs(120),
            connect_stagger: Duration::from_millis(250),
            resolve_interval: Duration::from_secs(30),
            max_addresses: 1_000,
            max_attempts: 5,
            channel_idle_time: Duration::from_secs(30 * 60),
        }
    }
}

impl From<&ChannelLimits> for ClientLimits {
    fn from(limits: &ChannelLimits) -> Self {
        Self {
            http2: limits.http2.clone(),
            keepalive_without_calls: limits.keepalive_without_calls,
            max_queued_calls: limits.max_queued_calls,
            max_calls_per_connection: limits.max_calls_per_connection,
        }
    }
}
