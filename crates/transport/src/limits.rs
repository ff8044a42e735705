//! The limits of connections: those of both ends, those of a server, and those of a client.

use std::time::Duration;

use trunkline_codec::MessageLimits;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const NEVER: Duration = Duration::MAX;

/// The limits of one HTTP/2 connection, at either end.
///
/// Budgets refill with time: a peer may spend a whole budget at once, and the rate per second after
/// that.
///
/// ```
/// let limits = trunkline_transport::Http2Limits::default();
/// assert_eq!(limits.initial_window_size, 160 * 1024);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Http2Limits {
    /// The flow-control window of a stream, in bytes: how far a peer may send ahead of the reader.
    /// Default: 160 KiB, the connection's window divided by 100 streams, so that streams that nobody
    /// reads cannot starve the others. Until a client has taken the head of a response, it holds up
    /// to 265 times as many bytes of memory, if the server sends frames of one byte.
    pub initial_window_size: u32,
    /// The flow-control window of a connection, in bytes: how far a peer may send ahead of all
    /// readers. Default: 16 MiB.
    pub initial_connection_window_size: u32,
    /// The smallest window update, in bytes. Default: 32 KiB. A smaller one costs more frames.
    pub window_update_step: u32,
    /// The largest header list announced to the peer (SETTINGS_MAX_HEADER_LIST_SIZE), in bytes, each
    /// field counted with 32 bytes on top. Default: 32 KiB, which leaves clients room above
    /// [`ServerLimits::max_header_list_size`]: a call somewhat over that arrives, and gets a status
    /// that its client can read. The head or the trailers of a response over this limit end their
    /// call with RESOURCE_EXHAUSTED.
    pub max_header_list_size_hard: u32,
    /// The largest header list sent to a peer that announces no limit, in bytes counted as above.
    /// Default: 64 KiB, which Node.js and other peers on nghttp2 accept; those on h2 and on grpc-go
    /// accept 16 MiB. A larger request fails with RESOURCE_EXHAUSTED and is not sent; the larger
    /// head or trailers of a response are replaced by a status. A peer that announces a limit is
    /// sent everything below that one.
    pub max_send_header_list_size: u32,
    /// The size of the header blocks that are read from a connection before the calls in them begin,
    /// in bytes. Default: 32 KiB. It bounds the memory that unread heads take.
    pub header_bytes_per_turn: usize,
    /// The bytes that a stream holds for a peer that does not take them, in addition to the message
    /// being sent, which may be up to 256 KiB ahead. Default: 64 KiB.
    pub max_send_buffer_size: usize,
    /// The bytes gathered for one write to a socket. Default: 256 KiB.
    pub write_buffer_size: usize,
    /// The bytes read from a socket at once. Default: 64 KiB, from a buffer that the connections of
    /// a thread share.
    pub read_buffer_size: usize,
    /// The bytes of messages gathered into one DATA frame while more can be had without waiting.
    /// Default: 16 KiB, the smallest maximum frame size.
    pub gather_size: usize,
    /// The bytes that wait between a `Sender` and HTTP/2. Default: 64 KiB. At the limit the sender
    /// waits.
    pub pipe_size: usize,
    /// The time without a byte from the peer after which this end sends a PING. Default:
    /// `Duration::MAX`, which is never, at a client (gRFC A8), and 60 s at a server, because the
    /// handlers of a client that is gone keep running.
    pub keepalive_time: Duration,
    /// The time to wait for a byte after that PING. Default: 20 s, after which the connection ends.
    pub keepalive_timeout: Duration,
    /// The number of streams that the mistakes of a peer may make this end reset at once: frames that
    /// HTTP/2 does not allow, streams above the limit, DATA for calls that are long over. Default:
    /// 1,000 at a server, and 65,536 at a client, which counts what arrives for calls that it
    /// cancelled long ago. One more ends the connection with "too_many_internal_resets".
    pub error_reset_budget: u64,
    /// The number added to `error_reset_budget` each second. Default: 1,000.
    pub error_resets_per_second: u64,
    /// The number of streams ended early by this end that are remembered, so that late frames for
    /// them are not an error. Default: 10,000, some 4 MB.
    pub max_concurrent_reset_streams: usize,
    /// The time for which such a stream is remembered. Default: 1 s, so that 10,000 calls a second
    /// can end early.
    pub reset_stream_duration: Duration,
    /// The number of frames without payload (SETTINGS, PING, PRIORITY, WINDOW_UPDATE, RST_STREAM and
    /// unknown ones) that a peer may send ahead of those due to the traffic of the connection: ten
    /// for each frame of a call in either direction, and one for each KiB that is sent. Default:
    /// 10,000. One more ends the connection with "too_many_control_frames".
    pub control_frame_budget: u64,
    /// The number added to `control_frame_budget` each second. Default: 10.
    pub control_frames_per_second: u64,
    /// The number of DATA frames of fewer than five bytes, too short for a message, that a peer may
    /// send ahead of its other frames. Default: 10,000. One more ends the connection with
    /// "too_many_data_frames". So does the 101st frame of a connection that has padding and nothing
    /// else.
    pub short_data_budget: u64,
    /// The number added to `short_data_budget` each second. Default: 100.
    pub short_data_per_second: u64,
    /// The number of frames read from a peer that takes nothing of what it is sent; each 13 bytes
    /// that it takes allow one more. Default: 10,000. At the limit nothing more is read until the
    /// peer takes something, so that responses to its frames do not pile up.
    pub max_unanswered_frames: u64,
    /// The longest time that a connection, once everything is sent, waits for its peer to read it and
    /// to close as well (as SO_LINGER does). Default: 30 s, or the rest of `drain_grace` or of
    /// `max_connection_age_grace`, if that is shorter. At the end the connection is dropped, and
    /// what the peer has not read is lost. Until then it counts as open.
    pub linger_time: Duration,
    /// The part of `linger_time` for which a connection over a caller's byte stream
    /// (`Server::serve_connection`, `ChannelBuilder::connector`) waits for a peer that sends
    /// nothing. Default: 1 s. Such a stream may have no half-close, as the pipe of a child process
    /// has none, and its peer then never closes. Each byte from the peer starts this time again.
    pub custom_io_linger_time: Duration,
}

impl Default for Http2Limits {
    /// The defaults that both ends share, and a server's where the two differ; keepalive is off.
    fn default() -> Self {
        Self {
            initial_window_size: 160 * KIB as u32,
            initial_connection_window_size: 16 * MIB as u32,
            window_update_step: 32 * KIB as u32,
            max_header_list_size_hard: 32 * KIB as u32,
            max_send_header_list_size: 64 * KIB as u32,
            header_bytes_per_turn: 32 * KIB,
            max_send_buffer_size: 64 * KIB,
            write_buffer_size: 256 * KIB,
            read_buffer_size: 64 * KIB,
            gather_size: 16 * KIB,
            pipe_size: 64 * KIB,
            keepalive_time: NEVER,
            keepalive_timeout: Duration::from_secs(20),
            error_reset_budget: 1_000,
            error_resets_per_second: 1_000,
            max_concurrent_reset_streams: 10_000,
            reset_stream_duration: Duration::from_secs(1),
            control_frame_budget: 10_000,
            control_frames_per_second: 10,
            short_data_budget: 10_000,
            short_data_per_second: 100,
            max_unanswered_frames: 10_000,
            linger_time: Duration::from_secs(30),
            custom_io_linger_time: Duration::from_secs(1),
        }
    }
}

impl Http2Limits {
    /// Returns the most bytes that a connection reads and drops while it lingers: twice the
    /// connection's window.
    ///
    /// One window is what the peer may still have under way as DATA; the other covers frame heads
    /// and frames other than DATA.
    pub fn linger_size(&self) -> usize {
        (self.initial_connection_window_size as usize).saturating_mul(2)
    }

    /// Returns the largest header list that HTTP/2 decodes, in bytes: eight times
    /// `max_header_list_size_hard`, and at least 256 KiB. A larger request is answered with HTTP
    /// status 431. A header block of four times that, or one that takes 1.25 times that on the wire,
    /// ends the connection.
    ///
    /// A list above the announced limit is refused after it was decoded, so that the call can be told
    /// its size, and the other calls on the connection do not notice. Eight is what it takes to
    /// recognize trailers that HTTP/2 has cut by the size of their block: see
    /// [`suspect_header_block`](Self::suspect_header_block).
    pub fn decoded_header_list_size(&self) -> u32 {
        const LEAST: u32 = 256 * 1024;
        self.max_header_list_size_hard.saturating_mul(8).max(LEAST)
    }

    /// Returns the size on the wire, in bytes, from which on a header block is too large, whatever
    /// is left of it.
    ///
    /// h2 silently drops the fields of trailers that go beyond
    /// [`decoded_header_list_size`](Self::decoded_header_list_size). If what it keeps is within the
    /// announced limit, the first dropped field has the size of the difference: more than fits into
    /// a table of HPACK, so that it is a literal, of which each byte takes 5 bits at least
    /// (RFC 7541, appendix B). No list within the limit takes as much: a byte has 30 bits at most.
    pub fn suspect_header_block(&self) -> usize {
        /// The 32 bytes that each field is counted on top, and lengths.
        const OVERHEAD: usize = 64;
        let dropped = self.decoded_header_list_size() - self.max_header_list_size_hard;
        (dropped as usize / 8)
            .saturating_mul(5)
            .saturating_sub(OVERHEAD)
    }
}

/// The limits of a server.
///
/// ```
/// use std::time::Duration;
///
/// let mut limits = trunkline_transport::ServerLimits::default();
/// limits.handshake_timeout = Duration::from_secs(5);
/// limits.messages.max_recv_message_size = 16 << 20;
/// limits.http2.keepalive_time = Duration::from_secs(30);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerLimits {
    /// The limits for messages.
    pub messages: MessageLimits,
    /// The limits of each connection that clients have as well.
    pub http2: Http2Limits,
    /// The number of connections at one time. Default: 100,000. At the limit the server accepts no
    /// more until one ends: those beyond wait in the kernel's queue, and cost no descriptor.
    pub max_connections: usize,
    /// The number of streams that a client may have open on one connection, and of the handlers that
    /// run for it, also if the client resets their streams. Default: 100.
    pub max_concurrent_streams: u32,
    /// The largest request head that is accepted, in bytes, each field counted with 32 bytes on top.
    /// Default: 16 KiB. A call with a larger one fails with RESOURCE_EXHAUSTED.
    /// [`Http2Limits::max_header_list_size_hard`] is the limit that clients are told.
    pub max_header_list_size: u32,
    /// The time from the moment a connection is accepted to its first SETTINGS frame, TLS included.
    /// Default: 10 s, after which the connection ends.
    pub handshake_timeout: Duration,
    /// The time for which a header block may stay unfinished. Default: 10 s, after which the
    /// connection ends.
    pub header_block_timeout: Duration,
    /// The time for which running calls may go on once the server drains. Default: 10 s;
    /// orchestrators kill at 30 s.
    pub drain_grace: Duration,
    /// The age of a connection, 10 % more or less, at which the client is told to open another.
    /// Default: `Duration::MAX`, which is never.
    pub max_connection_age: Duration,
    /// The time for which the calls of a connection that is too old, or idle, may go on. Default:
    /// `Duration::MAX`, until they end.
    pub max_connection_age_grace: Duration,
    /// The time for which a connection without an open call is kept. Default: `Duration::MAX`.
    pub max_connection_idle: Duration,
    /// The least time between the PING frames of a client. Default: 5 min (gRFC A8). A PING that
    /// comes sooner is a strike.
    pub permit_keepalive_time: Duration,
    /// Permission to send PING frames as often while no call is open. Default: false (gRFC A8), which
    /// permits one in two hours.
    pub permit_keepalive_without_calls: bool,
    /// The number of strikes since the server last sent HEADERS or DATA. Default: 2 (gRFC A8). One
    /// more ends the connection with "too_many_pings".
    pub max_ping_strikes: u32,
    /// The time after which a strike is forgiven although the server has sent nothing. Default:
    /// 1 day.
    pub ping_strike_time: Duration,
    /// The most bytes of responses that wait for all clients to take them. A response counts in full
    /// while more of it than [`Http2Limits::max_send_buffer_size`] waits. Default: 1 GiB. At the
    /// limit the connection that holds the most gives up the response that has not moved for longest,
    /// which fails with RESOURCE_EXHAUSTED, until a 64th of the limit is free.
    pub max_unsent_size: usize,
    /// The most bytes of responses that wait for one client that takes nothing. Default: 64 MiB. At
    /// the limit, and after `unsent_grace`, the responses that have not moved for longest fail with
    /// RESOURCE_EXHAUSTED, and the others go on. A response that waits alone may be larger. A client
    /// that reads is bounded by `max_unsent_size` only.
    pub max_connection_unsent_size: usize,
    /// The time for which a client may take less than 256 KiB of all that it is sent while more than
    /// `max_connection_unsent_size` waits for it. Default: 20 s, after which a client that does not
    /// answer a PING is gone as well. The time starts again when the client has taken as much.
    pub unsent_grace: Duration,
    /// The time in which a client has to take 256 KiB of a response that waits, while more than half
    /// of one of these limits is in use. Default: 5 min, after which the response fails with
    /// RESOURCE_EXHAUSTED. Below that half it may wait for as long as its connection lives.
    pub unsent_timeout: Duration,
    /// The number of streams that a client has reset before the server accepted them. Default: 4,096,
    /// which is more than the server reads before it accepts: cancelled calls arrive together if it
    /// was busy elsewhere, and are judged by `reset_budget`.
    pub max_pending_accept_reset_streams: usize,
    /// The number of calls at once whose heads HTTP/2 does not allow. Default: 10,000. One more ends
    /// the connection with "too_many_malformed_heads". No handler runs for such a call. Honest
    /// clients on C-core make them: they put the path of a Unix socket into `:authority`.
    pub malformed_head_budget: u64,
    /// The number added to `malformed_head_budget` each second. Default: 5,000.
    pub malformed_heads_per_second: u64,
    /// The number of calls that a client may reset at once without waiting for them: before they are
    /// answered, and within `rapid_reset_time`. Default: 5,000; each call that is answered adds one.
    /// One more ends the connection with "too_many_resets". Calls that are given up later count
    /// against `unanswered_reset_budget` alone.
    pub reset_budget: u64,
    /// The number added to `reset_budget` each second. Default: 500.
    pub resets_per_second: u64,
    /// The age up to which a call that is reset without an answer counts against `reset_budget`,
    /// without the time that its handler takes for the poll in which the reset is found. Default:
    /// 2 ms, less than deadlines are. A reset that is found as the call is first polled always counts.
    pub rapid_reset_time: Duration,
    /// The number of calls that a client may reset at once before they are answered, whatever their
    /// age. Default: 20,000; each call that is answered adds one. One more ends the connection with
    /// "too_many_resets".
    pub unanswered_reset_budget: u64,
    /// The number added to `unanswered_reset_budget` each second. Default: 10,000, the rate of 50
    /// concurrent calls that are each given up after 5 ms. A client that stays below it costs no more
    /// than one whose calls are answered, since each call holds one of `max_concurrent_streams` until
    /// its handler is gone.
    pub unanswered_resets_per_second: u64,
    /// The first pause after a failed accept. Default: 5 ms; each further one is twice as long.
    pub accept_backoff_min: Duration,
    /// The longest pause after a failed accept. Default: 1 s.
    pub accept_backoff_max: Duration,
    /// The time, in one turn, for which a connection polls handlers in its own task. Default: 500 us;
    /// calls behind those get tasks. Zero gives every handler a task of its own.
    pub in_place_max: Duration,
    /// The time that one poll of a handler may take for its method to be polled in the task of the
    /// connection. Default: 100 us, some fifty times the cost of a task. A total of fifty times that
    /// is forgiven.
    pub quick_poll_max: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            messages: MessageLimits::default(),
            http2: Http2Limits {
                keepalive_time: Duration::from_secs(60),
                ..Http2Limits::default()
            },
            max_connections: 100_000,
            max_concurrent_streams: 100,
            max_header_list_size: 16 * KIB as u32,
            handshake_timeout: Duration::from_secs(10),
            header_block_timeout: Duration::from_secs(10),
            drain_grace: Duration::from_secs(10),
            max_connection_age: NEVER,
            max_connection_age_grace: NEVER,
            max_connection_idle: NEVER,
            permit_keepalive_time: Duration::from_secs(300),
            permit_keepalive_without_calls: false,
            max_ping_strikes: 2,
            ping_strike_time: Duration::from_secs(24 * 60 * 60),
            max_unsent_size: 1024 * MIB,
            max_connection_unsent_size: 64 * MIB,
            unsent_grace: Duration::from_secs(20),
            unsent_timeout: Duration::from_secs(300),
            max_pending_accept_reset_streams: 4_096,
            malformed_head_budget: 10_000,
            malformed_heads_per_second: 5_000,
            reset_budget: 5_000,
            resets_per_second: 500,
            rapid_reset_time: Duration::from_millis(2),
            unanswered_reset_budget: 20_000,
            unanswered_resets_per_second: 10_000,
            accept_backoff_min: Duration::from_millis(5),
            accept_backoff_max: Duration::from_secs(1),
            in_place_max: Duration::from_micros(500),
            quick_poll_max: Duration::from_micros(100),
        }
    }
}

impl ServerLimits {
    /// Returns the age that one connection may reach: `max_connection_age`, 10 % more or less,
    /// chosen by `random`, which may be any number.
    ///
    /// gRFC A9, "Implementation": without jitter, clients that a restart has brought together would
    /// come back together each time.
    pub fn connection_age(&self, random: u64) -> Duration {
        let spread = (random % 2_001) as u32;
        let tenth = self.max_connection_age / 10;
        // 0 to 2,000 thousandths of a tenth, above nine tenths.
        (self.max_connection_age - tenth).saturating_add(tenth / 1_000 * spread)
    }
}

/// The limits of a client's connection, which a channel derives from its own.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// The limits that servers have as well.
    pub http2: Http2Limits,
    /// Permission to send the PING of keepalive also while no call is open.
    pub keepalive_without_calls: bool,
    /// The number of calls that have a stream of the connection, or wait for one. One more fails.
    pub max_queued_calls: usize,
    /// The number of calls after which a connection takes no more.
    pub max_calls_per_connection: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_window_covers_the_windows_of_all_streams() {
        let limits = ServerLimits::default();
        let streams =
            u64::from(limits.max_concurrent_streams) * u64::from(limits.http2.initial_window_size);
        assert!(streams <= u64::from(limits.http2.initial_connection_window_size));
    }

    #[test]
    fn the_hard_header_limit_leaves_room_above_the_soft_one() {
        let limits = ServerLimits::default();
        assert_eq!(limits.max_header_list_size, 16_384);
        assert_eq!(limits.http2.max_header_list_size_hard, 32_768);
    }

    #[test]
    fn a_block_that_is_suspect_is_above_the_limit_and_one_that_was_cut_is_suspect() {
        let mut limits = Http2Limits::default();
        assert_eq!(limits.decoded_header_list_size(), 256 * 1024);
        for hard in [1_000, 32_768, 1 << 20, 1 << 28, u32::MAX] {
            limits.max_header_list_size_hard = hard;
            let decoded = limits.decoded_header_list_size();
            let suspect = limits.suspect_header_block() as u64;
            if hard < u32::MAX / 8 {
                // 30 bits for each byte.
                assert!(suspect * 8 / 30 > u64::from(hard), "{hard}");
            }
            let cut = u64::from(decoded - hard).max(32);
            assert!(suspect < (cut - 32) * 5 / 8 || cut == 32, "{hard}");
        }
    }

    #[test]
    fn an_age_is_ten_percent_more_or_less_and_never_is_never() {
        let mut limits = ServerLimits::default();
        assert!(limits.connection_age(u64::MAX) > Duration::from_secs(u64::MAX / 2));
        limits.max_connection_age = Duration::from_secs(100);
        for (random, seconds) in [(0, 90), (1_000, 100), (2_000, 110), (2_001, 90)] {
            assert_eq!(
                limits.connection_age(random),
                Duration::from_secs(seconds),
                "{random}"
            );
        }
    }
}
