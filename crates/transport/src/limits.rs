//! The limits of connections: those of both ends, those of a server, and those of a client.

use std::time::Duration;

use trunkline_codec::MessageLimits;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const NEVER: Duration = Duration::MAX;

/// The limits of one HTTP/2 connection, at either end.
///
/// Some limits are budgets for misbehavior of the peer. A peer can use a whole budget at once; each second, it
/// gets back the number in the field `..._per_second`. If a peer exceeds a budget, this end sends GOAWAY and
/// closes the connection. The debug data of GOAWAY, which is the text that the peer sees, is quoted with each
/// budget.
///
/// ```
/// # mod trunkline { pub use trunkline_transport as limits; }
/// let limits = trunkline::limits::Http2Limits::for_server();
/// assert_eq!(limits.initial_window_size, 160 * 1024);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Http2Limits {
    /// The flow-control window of a stream: the bytes that the peer may send before they are read. Default:
    /// 160 KiB, the connection's window divided by 100 streams, so that streams that are not read do not
    /// block the others. Until a client's caller has received the head of the response, a stream can take more
    /// memory than its window: a server that sends DATA frames of one byte can make it take up to 265 times as
    /// much (41 MiB by default).
    pub initial_window_size: u32,
    /// The flow-control window of a connection: the bytes that the peer may send on all streams together
    /// before they are read. Default: 16 MiB.
    pub initial_connection_window_size: u32,
    /// The bytes that must be read from a stream before a WINDOW_UPDATE frame permits the peer to send as
    /// much again. Default: 32 KiB. With a smaller value, more frames are sent.
    pub window_update_step: u32,
    /// The largest head or trailers that the peer may send, as announced in SETTINGS_MAX_HEADER_LIST_SIZE:
    /// the bytes of the names and values of all fields, and 32 for each field. Default: 32 KiB. On a server,
    /// this is more than [`ServerLimits::max_header_list_size`], so that a call slightly over that limit
    /// still reaches the server, which then returns a status. On a client, a larger head or larger trailers
    /// of a response fail the call with RESOURCE_EXHAUSTED.
    pub max_header_list_size_hard: u32,
    /// The largest head or trailers that are sent to a peer that announces no limit, in bytes counted as for
    /// [`max_header_list_size_hard`](Self::max_header_list_size_hard). Default: 64 KiB, which Node.js and
    /// other peers based on nghttp2 accept; h2 and grpc-go accept 16 MiB. A request with a larger head fails
    /// with RESOURCE_EXHAUSTED and is not sent; a larger head or larger trailers of a response are replaced
    /// by a status. If the peer announces a limit, it applies instead.
    pub max_send_header_list_size: u32,
    /// The bytes of heads that are read from a connection before the calls that they open are started.
    /// Default: 32 KiB. This limits the memory for heads that have not been processed yet.
    pub header_bytes_per_turn: usize,
    /// The bytes that a stream buffers while its peer does not read them, in addition to up to 256 KiB of
    /// the message that is being sent. Default: 64 KiB.
    pub max_send_buffer_size: usize,
    /// The bytes that are collected for one write to a socket. Default: 256 KiB.
    pub write_buffer_size: usize,
    /// The bytes read from a socket at once. Default: 64 KiB. The connections of a thread share one
    /// buffer of this size.
    pub read_buffer_size: usize,
    /// The size in bytes up to which messages of a stream that are ready at the same time are combined into one
    /// DATA frame. Default: 16 KiB, the maximum frame size that every peer accepts. On a server, it is also the
    /// size of the buffer between a `Sender` and its connection.
    pub gather_size: usize,
    /// The bytes of messages that are buffered between a `Sender` or a `ClientStream` and its connection, on a
    /// client. Default: 64 KiB. While the buffer is full, the sender waits. A server uses `gather_size` instead.
    /// Only for in-process calls does a server also use its `pipe_size`, for a second buffer of responses.
    pub pipe_size: usize,
    /// The time without a byte from the peer after which this end sends a PING frame, to check that the
    /// connection still works. Default: on a client `Duration::MAX`, which means never (gRFC A8); on a server
    /// 60 s, because the handlers of a client that has disappeared keep running.
    pub keepalive_time: Duration,
    /// The time to wait for a byte from the peer after that PING frame. Default: 20 s, after which the
    /// connection ends.
    pub keepalive_timeout: Duration,
    /// The budget for streams that this end resets because of errors of the peer: frames that HTTP/2 does
    /// not allow, streams above the limit, and DATA for calls that ended long ago. Default: 1,000 on a server;
    /// 65,536 on a client, where frames for calls that were cancelled long ago count as well. One more ends
    /// the connection with "too_many_internal_resets".
    pub error_reset_budget: u64,
    /// The number added to `error_reset_budget` each second. Default: 1,000.
    pub error_resets_per_second: u64,
    /// The number of streams that this end remembers after it has reset them. Frames for these streams are
    /// ignored, because the peer may have sent them before it received the reset; for other streams, they are
    /// errors. Default: 10,000, which takes about 4 MB.
    pub max_concurrent_reset_streams: usize,
    /// The time for which this end remembers a stream that it has reset. Default: 1 s, so that 10,000 calls
    /// per second can end early.
    pub reset_stream_duration: Duration,
    /// The budget for control frames of the peer (SETTINGS, PING, PRIORITY, WINDOW_UPDATE, RST_STREAM and
    /// unknown types) beyond those that its calls justify. Each HEADERS frame and each DATA frame of five bytes or
    /// more, in either direction, permits the peer ten control frames, and each KiB sent to the peer permits
    /// one more. Only the control frames beyond those use the budget. Default: 10,000. One more ends the
    /// connection with "too_many_control_frames".
    pub control_frame_budget: u64,
    /// The number added to `control_frame_budget` each second. Default: 10.
    pub control_frames_per_second: u64,
    /// The budget for short DATA frames of the peer: those of fewer than five bytes, which cannot contain the
    /// prefix of a message. Each HEADERS frame and each longer DATA frame of the peer permits one short frame;
    /// only those beyond use the budget. Default: 10,000. One more ends the connection with
    /// "too_many_data_frames". A connection also ends so at its 101st DATA frame without data (only padding).
    pub short_data_budget: u64,
    /// The number added to `short_data_budget` each second. Default: 100.
    pub short_data_per_second: u64,
    /// The number of frames that are read from a peer while it does not read from its socket. Default: 10,000.
    /// At the limit, this end stops reading, so that the frames that it sends in response do not accumulate.
    /// Then, for each 13 bytes that the peer reads (the size of RST_STREAM), one more of its frames is read.
    pub max_unanswered_frames: u64,
    /// The longest time for which a closing connection waits, once it has sent everything, for its peer to read
    /// the data and to close as well. Default: 30 s. On a server, the rest of
    /// [`ServerLimits::drain_grace`] or [`ServerLimits::max_connection_age_grace`] applies if it is shorter.
    /// The connection counts as open until then. After this time, it is dropped, and data that the peer has not
    /// read is lost.
    pub linger_time: Duration,
    /// The longest silence of the peer for which a closing connection over a byte stream of the application
    /// (`Server::serve_connection`, `ChannelBuilder::connector`) keeps waiting, within `linger_time`. Default:
    /// 1 s. Each byte from the peer restarts this time. It is short because some byte streams, such as the
    /// pipes of a child process, cannot tell the peer that no more data follows, so it may never close.
    pub custom_io_linger_time: Duration,
}

impl Http2Limits {
    /// Returns the defaults of a server, as in `ServerLimits::default().http2`.
    pub fn for_server() -> Self {
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
            keepalive_time: Duration::from_secs(60),
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

    /// Returns the defaults of a client, as in `ChannelLimits::default().http2`. They differ from those of a
    /// server in `keepalive_time` and `error_reset_budget`.
    pub fn for_client() -> Self {
        Self {
            keepalive_time: NEVER,
            error_reset_budget: 65_536,
            ..Self::for_server()
        }
    }

    /// Returns the number of bytes that a connection reads and discards while it lingers: twice the
    /// connection's window.
    ///
    /// One window covers DATA that the peer has already sent; the other covers frame headers and frames
    /// other than DATA.
    #[doc(hidden)]
    pub fn linger_size(&self) -> usize {
        (self.initial_connection_window_size as usize).saturating_mul(2)
    }

    /// Returns the largest header list that h2 decodes, in bytes: eight times
    /// `max_header_list_size_hard`, and at least 256 KiB. A larger request head is rejected with HTTP
    /// status 431. A header block of four times that size, or of 1.25 times that size on the wire, ends
    /// the connection.
    ///
    /// A list above the announced limit is decoded before it is rejected: the error can then contain its
    /// size, and other calls on the connection are not affected. The factor of eight is needed to
    /// recognize trailers that h2 has truncated, by the size of their block: see
    /// [`suspect_header_block`](Self::suspect_header_block).
    #[doc(hidden)]
    pub fn decoded_header_list_size(&self) -> u32 {
        const LEAST: u32 = 256 * 1024;
        self.max_header_list_size_hard.saturating_mul(8).max(LEAST)
    }

    /// Returns the smallest size on the wire, in bytes, of a header block that exceeds the limit even if
    /// the decoded fields do not.
    ///
    /// h2 silently drops the fields of trailers beyond
    /// [`decoded_header_list_size`](Self::decoded_header_list_size). If the remaining fields are within the
    /// announced limit, the first dropped field is at least as large as the difference. That is more than
    /// an HPACK table holds, so the field is a literal, with at least 5 bits for each byte (RFC 7541,
    /// appendix B). A list within the limit takes fewer bytes on the wire: at most 30 bits for each byte.
    #[doc(hidden)]
    pub fn suspect_header_block(&self) -> usize {
        /// The 32 additional bytes of each field, and length prefixes.
        const OVERHEAD: usize = 64;
        let dropped = self.decoded_header_list_size() - self.max_header_list_size_hard;
        (dropped as usize / 8)
            .saturating_mul(5)
            .saturating_sub(OVERHEAD)
    }
}

/// The limits of a server.
///
/// Fields that are called a budget work as in [`Http2Limits`].
///
/// ```
/// use std::time::Duration;
///
/// # mod trunkline { pub use trunkline_transport as limits; }
/// let mut limits = trunkline::limits::ServerLimits::default();
/// limits.handshake_timeout = Duration::from_secs(5);
/// limits.messages.max_recv_message_size = 16 << 20;
/// limits.http2.keepalive_time = Duration::from_secs(30);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerLimits {
    /// The limits for messages.
    pub messages: MessageLimits,
    /// The HTTP/2 limits of each connection.
    pub http2: Http2Limits,
    /// The number of open connections. Default: 100,000. At the limit, the server stops accepting until
    /// one ends. Further connections wait in the kernel's queue, without a file descriptor.
    pub max_connections: usize,
    /// The number of streams that a client can have open on one connection. Default: 100. It also limits
    /// the running handlers of the connection, including those of streams that the client has reset.
    pub max_concurrent_streams: u32,
    /// The largest accepted head of a request: the bytes of the names and values of all fields, and 32 for
    /// each field. Default: 16 KiB. A call with a larger head fails with RESOURCE_EXHAUSTED. The limit
    /// announced to clients is [`Http2Limits::max_header_list_size_hard`].
    pub max_header_list_size: u32,
    /// The time from accepting a connection to its first SETTINGS frame, including the TLS handshake.
    /// Default: 10 s, after which the connection ends.
    pub handshake_timeout: Duration,
    /// The time in which a client must complete a head or trailers that it has begun to send. Default: 10 s,
    /// after which the connection ends.
    pub header_block_timeout: Duration,
    /// The time for which running calls can continue once the server shuts down and accepts no further calls
    /// (the grace period of a drain). When the time is over, their connections close and their handlers are
    /// dropped. Default: 10 s, less than the 30 s after which Kubernetes kills a process.
    pub drain_grace: Duration,
    /// The age at which the server sends GOAWAY on a connection, so that the client opens another one. It
    /// varies at random by up to 10 % for each connection. Default: `Duration::MAX`, which means never.
    pub max_connection_age: Duration,
    /// The time for which calls can continue on a connection that has reached `max_connection_age`. A client may
    /// begin a call just as the server closes its idle connection (`max_connection_idle`), before GOAWAY arrives.
    /// This limit applies to such calls, too. When the time is over, the connection closes and the handlers of
    /// its calls are dropped. Default: `Duration::MAX`, which means unlimited.
    pub max_connection_age_grace: Duration,
    /// The time without an open call after which a connection is closed. Default: `Duration::MAX`, which
    /// means never.
    pub max_connection_idle: Duration,
    /// The shortest permitted time between two PING frames of a client if the server has sent neither HEADERS
    /// nor DATA in between. Default: 5 min (gRFC A8). A PING frame that arrives sooner is a strike;
    /// [`max_ping_strikes`](Self::max_ping_strikes) limits their number.
    pub permit_keepalive_time: Duration,
    /// Applies `permit_keepalive_time` also while no call is open. Default: false (gRFC A8): without an open
    /// call, one PING frame in two hours is permitted.
    pub permit_keepalive_without_calls: bool,
    /// The number of strikes that a client can have: PING frames that arrive sooner than
    /// `permit_keepalive_time` permits. Default: 2 (gRFC A8). The next strike ends the connection with
    /// "too_many_pings". If the server has sent HEADERS or DATA since the previous PING frame, the count
    /// restarts from zero.
    pub max_ping_strikes: u32,
    /// The time after which a PING frame that was sent too early no longer counts, even if the server has
    /// sent nothing since. Default: 1 day.
    pub ping_strike_time: Duration,
    /// The bytes of responses that are buffered because clients do not read them, for all clients together.
    /// Default: 1 GiB. A response counts, in full, while more than [`Http2Limits::max_send_buffer_size`] of
    /// it is buffered. At the limit, responses of the connection with the most buffered bytes fail with
    /// RESOURCE_EXHAUSTED, starting with the one that has made no progress for longest, until 1/64 of the
    /// limit is free.
    pub max_send_backlog: usize,
    /// The bytes of responses that are buffered for one connection whose client does not read. Default:
    /// 64 MiB. If they stay above the limit for `send_backlog_grace`, the responses that have made no progress
    /// for longest fail with RESOURCE_EXHAUSTED, and the others continue. A single response of more than 64 MiB
    /// is possible, as long as the client keeps reading it. A client that keeps reading is limited only by
    /// `max_send_backlog`.
    pub max_connection_send_backlog: usize,
    /// The time in which a client must read 256 KiB while more than `max_connection_send_backlog` is
    /// buffered for it. Default: 20 s, the time after which keepalive also ends the connection of a client
    /// that does not respond to a PING. Each 256 KiB that the client reads restarts this time.
    pub send_backlog_grace: Duration,
    /// The time in which a client must read 256 KiB of a buffered response while more than half of
    /// `max_send_backlog` or `max_connection_send_backlog` is in use. Default: 5 min, after which the response
    /// fails with RESOURCE_EXHAUSTED. At other times, a response can wait for as long as its connection is
    /// open.
    pub send_backlog_timeout: Duration,
    /// The number of calls that a client can start and reset before the server has looked at them. Default:
    /// 4,096, more than the server reads at once: if the server is busy, many cancelled calls can arrive
    /// together. They also count against `reset_budget`.
    pub max_pending_accept_reset_streams: usize,
    /// The budget for calls with heads that HTTP/2 does not allow. Default: 10,000. One more ends the
    /// connection with "too_many_malformed_heads". No handler runs for such a call. Some clients send them
    /// unintentionally: those based on the C implementation of gRPC put the path of a Unix socket into
    /// `:authority`.
    pub malformed_head_budget: u64,
    /// The number added to `malformed_head_budget` each second. Default: 5,000.
    pub malformed_heads_per_second: u64,
    /// The budget for rapid resets: calls that a client resets within `rapid_reset_time` of their start and
    /// before their response begins. Default: 5,000; each response adds one. One more rapid reset ends the
    /// connection with "too_many_resets". Resets of calls that are older than `rapid_reset_time` count only
    /// against `unanswered_reset_budget`.
    pub reset_budget: u64,
    /// The number added to `reset_budget` each second. Default: 500.
    pub resets_per_second: u64,
    /// The age up to which a call that is reset without a response counts against `reset_budget`. Default: 2
    /// ms, shorter than usual deadlines.
    ///
    /// The age is measured up to the start of the handler's most recent poll, so a slow poll does not make a call
    /// older. A reset wakes the handler: the age of a call that waits, for example for I/O, includes the wait.
    pub rapid_reset_time: Duration,
    /// The budget for calls that a client resets before their responses begin, regardless of their age.
    /// Default: 20,000; each response adds one. One more ends the connection with "too_many_resets".
    pub unanswered_reset_budget: u64,
    /// The number added to `unanswered_reset_budget` each second. Default: 10,000, the rate of 50
    /// concurrent calls that are each cancelled after 5 ms. Such a client takes no more of the server than one
    /// that waits for its responses, because each call counts against `max_concurrent_streams` until its
    /// handler has ended.
    pub unanswered_resets_per_second: u64,
    /// The pause after the server fails to accept a connection, for example because the process has too many
    /// open files. Default: 5 ms. Each further pause is twice as long.
    pub accept_backoff_min: Duration,
    /// The longest pause after the server fails to accept a connection. Default: 1 s.
    pub accept_backoff_max: Duration,
    /// The time that the task of a connection spends on polling handlers each time it runs. Default: 500 us.
    /// Handlers that it does not reach in this time run in tasks of their own. With zero, every handler runs
    /// in its own task.
    pub in_place_max: Duration,
    /// The time up to which a poll of a handler is considered short. For each method, the server keeps a sum,
    /// never below zero: each poll adds the time by which it was longer than this value, or subtracts the time by
    /// which it was shorter. Once the sum exceeds fifty times the value (5 ms by default), later calls of the
    /// method run in tasks of their own instead of in the task of the connection. Default: 100 us, about fifty
    /// times the cost of a task.
    pub quick_poll_max: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            messages: MessageLimits::default(),
            http2: Http2Limits::for_server(),
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
            max_send_backlog: 1024 * MIB,
            max_connection_send_backlog: 64 * MIB,
            send_backlog_grace: Duration::from_secs(20),
            send_backlog_timeout: Duration::from_secs(300),
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
    /// Returns the maximum age of one connection: `max_connection_age` with 10 % jitter, derived from
    /// `random`, which can be any number.
    ///
    /// gRFC A9, "Implementation": without jitter, clients that connected together after a restart would
    /// reconnect together each time.
    #[doc(hidden)]
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
    /// The HTTP/2 limits, which servers also have.
    pub http2: Http2Limits,
    /// Sends keepalive PING frames also while no call is open.
    pub keepalive_without_calls: bool,
    /// The number of calls that have a stream of the connection or wait for one. One more fails.
    pub max_queued_calls: usize,
    /// The number of calls after which a connection accepts no more.
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
        let mut limits = Http2Limits::for_server();
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
