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
    /// The HTTP/2 limits of each connection.
    pub http2: Http2Limits,
    /// The number of connections to one server. Default: 4, enough to use several cores at either end, and few
    /// enough for a server with many clients. Another connection is opened only if each open one is busy: it
    /// has as many calls as the server permits, or 100 if the server permits more. With 1, all calls share one
    /// connection; 0 counts as 1.
    pub max_connections: usize,
    /// The time without a call after which a connection is closed if another one to the same server stays
    /// open. Default: 30 s, checked every 30 s, so an unused channel returns to one connection within a minute.
    pub connection_idle_time: Duration,
    /// The pause before the channel opens an additional connection to a server, after an attempt to open one
    /// has failed or one was lost. Default: 1 s, the first pause in grpc/doc/connection-backoff.md. It does not
    /// apply to the first connection to a server, for which `connect_backoff_base` does.
    pub connection_retry_pause: Duration,
    /// The number of calls made on one connection before another replaces it; running calls continue.
    /// Default: 1,000,000,000. A connection has identifiers for about as many streams, 1,073,741,823
    /// (RFC 9113, section 5.1.1).
    pub max_calls_per_connection: u32,
    /// The limit of two numbers: (1) the calls on one connection, including those that wait for a free stream,
    /// and (2) the calls of the whole channel that wait for a connection or a stream. Default: 100,000 for
    /// each. If either number is reached, further calls fail immediately with RESOURCE_EXHAUSTED.
    pub max_queued_calls: usize,
    /// Also sends keepalive PING frames while no call is open, at the interval of
    /// [`Http2Limits::keepalive_time`]. Default: false (gRFC A8), because servers may disconnect clients that
    /// send PING frames without calls.
    pub keepalive_without_calls: bool,
    /// The time to connect to one address, including the TLS and HTTP/2 handshakes. Default: 20 s, the
    /// minimum in grpc/doc/connection-backoff.md. Also the time to resolve one name.
    pub connect_timeout: Duration,
    /// The time from the start of the first failed connection attempt to the start of the next. Default:
    /// 1 s. This field and the next three are those of grpc/doc/connection-backoff.md.
    pub connect_backoff_base: Duration,
    /// The factor by which the pause between connection attempts grows after each failure. Default: 1.6.
    pub connect_backoff_multiplier: f64,
    /// The fraction by which each pause is shortened or extended at random. Default: 0.2, which means up to
    /// 20 %. Values above 1 count as 1.
    pub connect_backoff_jitter: f64,
    /// The longest pause between connection attempts, before the random change. Default: 120 s.
    pub connect_backoff_max: Duration,
    /// The time after which the next address of a server is tried in parallel if an attempt to connect to
    /// the previous one has neither succeeded nor failed ("Happy Eyeballs"). Default: 250 ms. Values
    /// below 100 ms count as 100 ms, and values above 2 s as 2 s (RFC 8305, sections 5 and 8).
    pub connect_stagger: Duration,
    /// The shortest time between two lookups of a name. Default: 30 s, as in grpc-go.
    pub resolve_interval: Duration,
    /// The number of addresses that a channel uses. Default: 1,000. Further addresses are ignored.
    pub max_addresses: usize,
    /// The number of attempts that a retry or hedging policy makes at a call, including the first. Default: 5
    /// (gRFC A6). A larger `maxAttempts` in a service config counts as this number.
    pub max_attempts: u32,
    /// The bytes of one request that are kept for retries and hedges. Default: 256 KiB, as in grpc-go. They
    /// include the prefixes of messages. A frame of the request's body, which is a piece that was sent at once,
    /// counts as at least 64 bytes.
    ///
    /// A call that sends more is *committed* (gRFC A6) to the attempt that has sent the most: the response of
    /// this attempt becomes that of the call, other attempts are cancelled, and the call is not retried again.
    pub call_retry_buffer_size: usize,
    /// The bytes of all requests of the channel that are kept for retries and hedges. Default: 16 MiB, as in
    /// grpc-java. A call that needs more is committed to one attempt, as described at
    /// [`call_retry_buffer_size`](Self::call_retry_buffer_size).
    pub channel_retry_buffer_size: usize,
    /// The time without a call after which a channel becomes idle: it closes its connections, and resolves
    /// names and connects again for the next call. Default: 30 min, as in other gRPC implementations. This is
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
            call_retry_buffer_size: 256 * 1024,
            channel_retry_buffer_size: 16 << 20,
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
