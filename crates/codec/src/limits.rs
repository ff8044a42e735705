//! Every limit of the framework, a plain number each.

use std::time::Duration;

/// The most bytes of a `grpc-message` that are sent, percent-encoded; a longer one is cut, so that it does not
/// become a header list that the client refuses.
pub(crate) const MAX_STATUS_MESSAGE_SIZE: usize = 8 * 1024;

/// The largest header list that is sent before the peer's SETTINGS have come: what C-core, Java and
/// the gRPC documents take by default.
pub const EARLY_HEADER_LIST_SIZE: u32 = 8 * 1024;

/// Every limit, with its default.
///
/// No field is an `Option`: a limit that could be absent would one day be absent by mistake. To
/// lift a limit, set it to the largest number that the machine can bear.
///
/// ```
/// use trunkline_codec::Limits;
///
/// let mut limits = Limits::default();
/// limits.max_recv_message_size = 16 * 1024 * 1024;
/// assert_eq!(limits.max_concurrent_streams, 100);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// The largest message that is accepted, in bytes, both as it came and after it was inflated.
    /// Default: 4 MiB, as in every other implementation. A larger one ends its call with
    /// RESOURCE_EXHAUSTED. Each open stream may hold that much of a message that is still coming; of a
    /// compressed one, which is restored in steps while the others of its connection may be too, what came
    /// and what has come out of it, and 8 MiB of zstd's window.
    pub max_recv_message_size: usize,
    /// The largest message that is sent, in bytes, before it is compressed. Default: `u32::MAX`,
    /// which is what the length of a message can say.
    pub max_send_message_size: usize,
    /// The largest message, in bytes, that is sent as it is where a channel or a server compresses by
    /// size. Default: 1 KiB, which fits into one packet with its head, so that fewer bytes would be
    /// no fewer packets, while a compressor costs more than the rest of a small call.
    pub compress_above: usize,
    /// The largest request head that a server accepts, in bytes, each field counted with 32 bytes on
    /// top. Default: 16 KiB. A call above it is answered with RESOURCE_EXHAUSTED.
    pub max_header_list_size: u32,
    /// The largest header list that is announced to the peer (SETTINGS_MAX_HEADER_LIST_SIZE), in
    /// bytes counted as above. Default: 32 KiB, so that a client somewhat over
    /// `max_header_list_size` sends its call, and gets a status that it can read. A response head or
    /// trailers above it end their call with RESOURCE_EXHAUSTED; a request head does so by the limit
    /// above.
    pub max_header_list_size_hard: u32,
    /// The largest header list that is sent to a peer that announces no limit, in bytes counted as
    /// above. Default: 64 KiB, which Node.js and other peers on nghttp2 take; those on h2 and on
    /// grpc-go take 16 MiB. A request above it fails with RESOURCE_EXHAUSTED and is not sent, a
    /// response head or trailers are replaced by a status. To a peer that announces a limit, all that
    /// is below that limit is sent.
    pub max_send_header_list_size: u32,
    /// The bytes of header blocks that are read from a connection before the calls in them begin.
    /// Default: 32 KiB. It bounds what heads take in memory before they are looked at.
    pub header_bytes_per_turn: usize,
    /// The most streams a peer may have open on one connection, and the most handlers that run for
    /// it, also when it resets their streams. Default: 100.
    pub max_concurrent_streams: u32,
    /// How many bytes a peer may send on a stream ahead of its reader. Default: 160 KiB, the
    /// connection's window divided by 100 streams, so that streams nobody reads cannot starve their
    /// neighbours. Until the head of a response is taken, a client holds up to 265 times as many bytes
    /// of memory, if the server sends frames of one byte.
    pub initial_window_size: u32,
    /// How many bytes a peer may send on a connection ahead of all readers. Default: 16 MiB.
    pub initial_connection_window_size: u32,
    /// How many bytes a stream may hold for a peer that does not take them, besides the message that
    /// is being sent, of which it may be up to 256 KiB ahead. Default: 64 KiB.
    pub max_send_buffer_size: usize,
    /// The most bytes of responses that wait for the clients of a server to take them. A response counts in
    /// full while more of it than `max_send_buffer_size` waits. Default: 1 GiB. At the limit the connection
    /// that holds the most gives up the response that has not moved for longest, which fails with
    /// RESOURCE_EXHAUSTED, until a 64th of the limit is free.
    pub max_unsent_size: usize,
    /// The most bytes of responses that wait for a client that takes nothing. Default: 64 MiB. At the limit,
    /// and after `unsent_grace`, the responses that have not moved for longest fail with RESOURCE_EXHAUSTED,
    /// and the others go on. A response that waits alone may be larger. For a client that reads there is only
    /// `max_unsent_size`.
    pub max_connection_unsent_size: usize,
    /// The time for which a client may take less than 256 KiB of all that it is sent while more waits for
    /// it than `max_connection_unsent_size`. Default: 20 s, after which a client that does not answer a
    /// PING is gone as well. The time is given again when the client has taken as much.
    pub unsent_grace: Duration,
    /// The longest time in which a client may take less than 256 KiB of a response that waits, while more
    /// than half of one of these limits is in use. Default: 5 min; then the response fails with
    /// RESOURCE_EXHAUSTED. Below that half it may wait for as long as its connection lives.
    pub unsent_timeout: Duration,
    /// The number of streams that may lie reset by the peer before the server has accepted them.
    /// Default: 4,096, which is more than the server reads before it accepts: cancelled calls arrive
    /// together when it was busy elsewhere, and are judged by `reset_budget`.
    pub max_pending_accept_reset_streams: usize,
    /// The number of streams that a client may make a server reset by its mistakes (frames that HTTP/2
    /// does not allow, streams above the limit, DATA for calls that are long over) at once. Default:
    /// 1,000, refilled by `error_resets_per_second`; one more ends the connection with
    /// "too_many_internal_resets".
    pub error_reset_budget: u64,
    /// The same at a client, which counts what arrives for calls that it cancelled long ago.
    /// Default: 65,536.
    pub client_error_reset_budget: u64,
    /// The number by which each second refills `error_reset_budget` and `client_error_reset_budget`.
    /// Default: 1,000.
    pub error_resets_per_second: u64,
    /// The number of calls at once whose heads HTTP/2 does not allow. Default: 10,000, refilled by
    /// `malformed_heads_per_second`; one more ends the connection with "too_many_malformed_heads". No
    /// handler runs for such a call. Honest clients on C-core make them: they put the path of a Unix
    /// socket into `:authority`.
    pub malformed_head_budget: u64,
    /// The number by which each second refills `malformed_head_budget`. Default: 5,000.
    pub malformed_heads_per_second: u64,
    /// The number of streams ended early by this end that are remembered, so that what is still under
    /// way for them is no error. Default: 10,000, some 4 MB.
    pub max_concurrent_reset_streams: usize,
    /// The time for which such a stream is remembered. Default: 1 s, so that 10,000 calls a second can
    /// end early.
    pub reset_stream_duration: Duration,
    /// The number of calls that a client may reset at once without having waited for them: before they
    /// are answered, and within `rapid_reset_time`. Default: 5,000, refilled by `resets_per_second` and
    /// by each call that is answered; one more ends the connection with "too_many_resets". Calls that
    /// are given up later count against `unanswered_reset_budget` alone.
    pub reset_budget: u64,
    /// The number by which each second refills `reset_budget`. Default: 500.
    pub resets_per_second: u64,
    /// The age up to which a call that is reset without an answer counts against `reset_budget`, without
    /// the time that its handler takes for the poll in which the reset is found. Default: 2 ms, less than
    /// deadlines are. A reset that is found when the call is first polled always counts.
    pub rapid_reset_time: Duration,
    /// The number of calls that a client may reset at once before they are answered, whatever their age.
    /// Default: 20,000, refilled by `unanswered_resets_per_second` and by each call that is answered; one
    /// more ends the connection with "too_many_resets".
    pub unanswered_reset_budget: u64,
    /// The number by which each second refills `unanswered_reset_budget`. Default: 10,000, which is what
    /// 50 calls at a time are that are each given up after 5 ms. A client that keeps below it costs no
    /// more than one whose calls are answered, since each of them holds one of
    /// `max_concurrent_streams` until its handler is gone.
    pub unanswered_resets_per_second: u64,
    /// How long a connection may take from being accepted to its first SETTINGS frame, TLS
    /// included. Default: 10 s.
    pub handshake_timeout: Duration,
    /// How long a header block may stay unfinished. Default: 10 s.
    pub header_block_timeout: Duration,
    /// How long a client tries to connect to one address, the handshakes included, and as long again
    /// to resolve a name. Default: 20 s, the minimum that the connection backoff document names.
    pub connect_timeout: Duration,
    /// How long running calls may go on once a server drains. Default: 10 s; orchestrators kill at
    /// 30 s.
    pub drain_grace: Duration,
    /// The longest time that a connection which has said everything waits for its peer to read it and
    /// to close as well, at either end. Default: 30 s, of which what is left of `drain_grace` or
    /// `max_connection_age_grace` may be less. Afterwards it is dropped, and what the peer has not
    /// read is lost. Until then it counts as one of `max_accepted_connections`.
    pub linger_time: Duration,
    /// How long a connection over a byte stream that was brought (`Server::serve_connection`,
    /// `ChannelBuilder::connector`) waits in that time for a peer that sends nothing. Default: 1 s. A
    /// stream may have no way to say that nothing more comes, such as the pipe of a child process, and
    /// its peer then never closes. One that is still reading says so, and starts this time again.
    pub brought_linger_time: Duration,
    /// How many connections a server has at one time. Default: 100,000. At the limit it accepts no
    /// more until one ends: those beyond wait in the kernel's queue, and cost no descriptor. This is
    /// what `Server::max_connections` sets; `max_connections` below is a channel's.
    pub max_accepted_connections: usize,
    /// How old a server lets a connection become, 10 % more or less, before it tells the client to
    /// make another. Default: `Duration::MAX`, which is never.
    pub max_connection_age: Duration,
    /// How long the calls of a connection that has become too old, or idle, may go on. Default:
    /// `Duration::MAX`, until they end.
    pub max_connection_age_grace: Duration,
    /// How long a server keeps a connection on which no call is open. Default: `Duration::MAX`.
    pub max_connection_idle: Duration,
    /// After how long without a byte from its client a server asks for one, by a PING. Default: 60 s,
    /// because a client that is gone holds handlers; `Duration::MAX` is never.
    pub keepalive_time: Duration,
    /// The same at a client. Default: `Duration::MAX`; gRFC A8 has it off.
    pub client_keepalive_time: Duration,
    /// Whether a client asks also when no call is open. Default: false (gRFC A8).
    pub client_keepalive_without_calls: bool,
    /// How long either side waits for a byte after that PING, before it ends the connection. Default:
    /// 20 s.
    pub keepalive_timeout: Duration,
    /// How long a client has to wait between PING frames for a server not to take offence. Default:
    /// 5 min (gRFC A8).
    pub permit_keepalive_time: Duration,
    /// Whether it may send them that often when no call is open; once in two hours otherwise.
    /// Default: false (gRFC A8).
    pub permit_keepalive_without_calls: bool,
    /// How many PING frames may come sooner than that, since the server last sent HEADERS or DATA.
    /// Default: 2 (gRFC A8); one more ends the connection with "too_many_pings".
    pub max_ping_strikes: u32,
    /// The time after which one such PING frame is forgiven, although the server has sent nothing.
    /// Default: 1 day.
    pub ping_strike_time: Duration,
    /// The number of frames that carry nothing of a call (SETTINGS, PING, PRIORITY, WINDOW_UPDATE,
    /// RST_STREAM and unknown ones) that a peer may send ahead of those that are due to what passes on
    /// the connection: ten for each frame of a call in either direction, and one for each KiB that is
    /// sent. Default: 10,000, refilled by `control_frames_per_second`; one more ends the connection with
    /// "too_many_control_frames".
    pub control_frame_budget: u64,
    /// The number by which each second refills `control_frame_budget`. Default: 10.
    pub control_frames_per_second: u64,
    /// The number of DATA frames of fewer than five bytes, which have no room for a message, that a peer
    /// may send ahead of its other frames. Default: 10,000, refilled by `short_data_per_second`; one more
    /// ends the connection with "too_many_data_frames". So does the 101st in the life of a connection
    /// that has padding and nothing else.
    pub short_data_budget: u64,
    /// The number by which each second refills `short_data_budget`. Default: 100.
    pub short_data_per_second: u64,
    /// The number of frames that are read from a peer while it takes nothing of what it is sent, and one
    /// more for each 13 bytes that it takes. Default: 10,000; then nothing is read until it does, so that
    /// answers do not pile up. One that never does is gone for keepalive.
    pub max_unanswered_frames: u64,
    /// The first pause after a failed accept, doubled up to `accept_backoff_max`. Default: 5 ms.
    pub accept_backoff_min: Duration,
    /// The longest pause after a failed accept. Default: 1 s.
    pub accept_backoff_max: Duration,
    /// How many bytes are gathered for one write to a socket. Default: 256 KiB.
    pub write_buffer_size: usize,
    /// How many bytes are read from a socket at once. Default: 64 KiB, from a buffer that a
    /// thread's connections share.
    pub read_buffer_size: usize,
    /// The least number of bytes for which a WINDOW_UPDATE is sent. Default: 32 KiB.
    pub window_update_step: u32,
    /// How many bytes of messages are gathered into one DATA frame while more can be had without
    /// waiting. Default: 16 KiB, the smallest maximal frame.
    pub gather_size: usize,
    /// How many bytes lie between a sender and its body. Default: 64 KiB.
    pub pipe_size: usize,
    /// How many connections a channel has to its server at most. A further one is opened only when
    /// all others are busy. Default: 4, enough to occupy several cores at either end, and few enough
    /// for a server with many clients; 1 keeps to one, and 0 is as good as 1. A server's limit is
    /// `max_accepted_connections`.
    pub max_connections: usize,
    /// How often it is looked whether a further connection has had calls; one that had none since is
    /// closed. Default: 30 s, so that it outlives the lulls between bursts, and a client at rest
    /// comes down to one connection within a minute.
    pub connection_idle_time: Duration,
    /// How many calls a client makes on one connection before another takes its place; those that run
    /// there go on. Default: 1,000,000,000. HTTP/2 has identifiers for 1,073,741,823 streams
    /// (RFC 9113, section 5.1.1).
    pub max_calls_per_connection: u32,
    /// How long no further connection is tried after one could not be opened, or was lost. Default:
    /// 1 s, the first pause of the connection backoff document.
    pub connection_retry_pause: Duration,
    /// From the beginning of a first attempt to connect that has failed to the beginning of the next.
    /// Default: 1 s. This and the three below are those of the connection backoff document.
    pub connect_backoff_base: Duration,
    /// How much longer each pause is than the one before. Default: 1.6.
    pub connect_backoff_multiplier: f64,
    /// By which part of itself a pause may be longer or shorter, at random. Default: 0.2; 0 makes
    /// pauses exact, and more than 1 is as good as 1.
    pub connect_backoff_jitter: f64,
    /// The longest pause, before jitter. Default: 120 s.
    pub connect_backoff_max: Duration,
    /// How long one address may say nothing before the next one is tried beside it. Default: 250 ms
    /// (RFC 8305, section 8).
    pub connect_stagger: Duration,
    /// The least time between two questions for the addresses of a name. Default: 30 s, as in
    /// grpc-go.
    pub resolve_interval: Duration,
    /// How many addresses of a channel are used; those behind them are not. Default: 1,000.
    pub max_addresses: usize,
    /// How often it is looked whether a channel has had calls; one that had none since closes its
    /// connections, and resolves and connects again for the next call. Default: 30 min, as in other
    /// implementations; a channel that is not used falls idle after 30 to 60 min.
    pub channel_idle_time: Duration,
    /// How many calls a client may have on one connection, those that wait for a stream with those
    /// that have one; and how many of a channel may wait, for a connection or for a stream. Default:
    /// 100,000; one more fails at once.
    pub max_queued_calls: usize,
    /// For how long, in one turn, a server's connection polls handlers in its own task; calls behind
    /// those get tasks. Default: 500 us. Zero gives every handler a task of its own.
    pub in_place_max: Duration,
    /// How long one poll of a handler may take for its method to be polled in the connection's task;
    /// fifty times that is forgiven. Default: 100 us, some fifty times what a task costs.
    pub quick_poll_max: Duration,
}

impl Limits {
    /// The most bytes that a connection which has said everything reads, and drops, of a peer that goes
    /// on sending: twice the connection's window.
    ///
    /// Once is what the peer may still have on its way as DATA; the other is for the heads of
    /// frames and for what carries no DATA.
    pub fn linger_size(&self) -> usize {
        (self.initial_connection_window_size as usize).saturating_mul(2)
    }

    /// The largest header list that HTTP/2 decodes: eight times `max_header_list_size_hard`, and 256 KiB
    /// at least. Above it a request is answered with HTTP status 431. A header block of four times
    /// that, or one that takes 1.25 times that on the wire, ends the connection.
    ///
    /// A list above the announced limit is refused after it was decoded, so that the call can be told
    /// its size, and the other calls on the connection do not notice. Eight is what it takes to
    /// recognize trailers that HTTP/2 has cut by the size of their block: see
    /// [`suspect_header_block`](Self::suspect_header_block).
    pub fn decoded_header_list_size(&self) -> u32 {
        const LEAST: u32 = 256 * 1024;
        self.max_header_list_size_hard.saturating_mul(8).max(LEAST)
    }

    /// The bytes on the wire from which on a header block is too large, whatever is left of it.
    ///
    /// h2 drops the fields of trailers that go beyond
    /// [`decoded_header_list_size`](Self::decoded_header_list_size), without a word. If what it keeps
    /// is within the announced limit, the first of those has the size of the difference: more than
    /// fits into a table of HPACK, so that it is a literal, of which each byte takes 5 bits at least
    /// (RFC 7541, appendix B). No list within the limit takes as much: a byte has 30 bits at most.
    pub fn suspect_header_block(&self) -> usize {
        /// The 32 bytes that each field is counted on top, and lengths.
        const OVERHEAD: usize = 64;
        let dropped = self.decoded_header_list_size() - self.max_header_list_size_hard;
        (dropped as usize / 8)
            .saturating_mul(5)
            .saturating_sub(OVERHEAD)
    }

    /// How old one connection may become: `max_connection_age`, and up to 10 % more or less, as
    /// `random` says, which may be any number.
    ///
    /// gRFC A9, "Implementation": without jitter, the clients that a restart has brought together
    /// would come back together each time.
    pub fn connection_age(&self, random: u64) -> Duration {
        let spread = (random % 2_001) as u32;
        let tenth = self.max_connection_age / 10;
        // 0 to 2,000 thousandths of a tenth, above nine tenths.
        (self.max_connection_age - tenth).saturating_add(tenth / 1_000 * spread)
    }
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

impl Limits {
    const DEFAULT: Self = Self {
        max_recv_message_size: 4 * MIB,
        max_send_message_size: u32::MAX as usize,
        compress_above: KIB,
        max_header_list_size: 16 * KIB as u32,
        max_header_list_size_hard: 32 * KIB as u32,
        max_send_header_list_size: 64 * KIB as u32,
        header_bytes_per_turn: 32 * KIB,
        max_concurrent_streams: 100,
        initial_window_size: 160 * KIB as u32,
        initial_connection_window_size: 16 * MIB as u32,
        max_send_buffer_size: 64 * KIB,
        max_unsent_size: 1024 * MIB,
        max_connection_unsent_size: 64 * MIB,
        unsent_grace: Duration::from_secs(20),
        unsent_timeout: Duration::from_secs(300),
        max_pending_accept_reset_streams: 4_096,
        error_reset_budget: 1_000,
        client_error_reset_budget: 65_536,
        error_resets_per_second: 1_000,
        malformed_head_budget: 10_000,
        malformed_heads_per_second: 5_000,
        max_concurrent_reset_streams: 10_000,
        reset_stream_duration: Duration::from_secs(1),
        reset_budget: 5_000,
        resets_per_second: 500,
        rapid_reset_time: Duration::from_millis(2),
        unanswered_reset_budget: 20_000,
        unanswered_resets_per_second: 10_000,
        handshake_timeout: Duration::from_secs(10),
        header_block_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(20),
        drain_grace: Duration::from_secs(10),
        linger_time: Duration::from_secs(30),
        brought_linger_time: Duration::from_secs(1),
        max_accepted_connections: 100_000,
        max_connection_age: Duration::MAX,
        max_connection_age_grace: Duration::MAX,
        max_connection_idle: Duration::MAX,
        keepalive_time: Duration::from_secs(60),
        client_keepalive_time: Duration::MAX,
        client_keepalive_without_calls: false,
        keepalive_timeout: Duration::from_secs(20),
        permit_keepalive_time: Duration::from_secs(300),
        permit_keepalive_without_calls: false,
        max_ping_strikes: 2,
        ping_strike_time: Duration::from_secs(24 * 60 * 60),
        control_frame_budget: 10_000,
        control_frames_per_second: 10,
        short_data_budget: 10_000,
        short_data_per_second: 100,
        max_unanswered_frames: 10_000,
        accept_backoff_min: Duration::from_millis(5),
        accept_backoff_max: Duration::from_secs(1),
        write_buffer_size: 256 * KIB,
        read_buffer_size: 64 * KIB,
        window_update_step: 32 * KIB as u32,
        gather_size: 16 * KIB,
        pipe_size: 64 * KIB,
        max_connections: 4,
        connection_idle_time: Duration::from_secs(30),
        max_calls_per_connection: 1_000_000_000,
        connection_retry_pause: Duration::from_secs(1),
        connect_backoff_base: Duration::from_secs(1),
        connect_backoff_multiplier: 1.6,
        connect_backoff_jitter: 0.2,
        connect_backoff_max: Duration::from_secs(120),
        connect_stagger: Duration::from_millis(250),
        resolve_interval: Duration::from_secs(30),
        max_addresses: 1_000,
        channel_idle_time: Duration::from_secs(30 * 60),
        max_queued_calls: 100_000,
        in_place_max: Duration::from_micros(500),
        quick_poll_max: Duration::from_micros(100),
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_window_covers_the_windows_of_all_streams() {
        let limits = Limits::default();
        let streams =
            u64::from(limits.max_concurrent_streams) * u64::from(limits.initial_window_size);
        assert!(streams <= u64::from(limits.initial_connection_window_size));
    }

    #[test]
    fn the_hard_header_limit_leaves_room_above_the_soft_one() {
        let limits = Limits::default();
        assert_eq!(limits.max_header_list_size, 16_384);
        assert_eq!(limits.max_header_list_size_hard, 32_768);
    }

    #[test]
    fn a_block_that_is_suspect_is_above_the_limit_and_one_that_was_cut_is_suspect() {
        let mut limits = Limits::default();
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
        let mut limits = Limits::default();
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
