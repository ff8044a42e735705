//! Every limit has a number, and the number is seen: on the wire, or by what happens one below it,
//! at it and one above it. Every defence also lets honest load pass.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::DuplexStream;
use tokio::time::Instant;
use trunkline::limits::ChannelLimits;
use trunkline::{Channel, Client, Code, Raw, Server, Streaming};
use trunkline_testkit::{
    Fields, Frame, Outcome, PREFACE, Probe, RawPeer, error, flag, gzip, kind, message,
    message_flagged, pair, setting, within,
};

const ECHO: &str = "/test.Probe/Echo";
const HOLD: &str = "/test.Probe/Hold";
const OK: Outcome = Outcome::Answered(200, 0);
const EXHAUSTED: Outcome = Outcome::Answered(200, 8);

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A server of ours with a probe in it.
fn server() -> (Server, Probe) {
    let probe = Probe::new();
    (Server::new().add_service(probe.clone()), probe)
}

/// A raw client of `server`, in memory.
async fn raw_client(server: Server) -> RawPeer<DuplexStream> {
    let (near, far) = tokio::io::duplex(MIB);
    tokio::spawn(server.serve_connection(far));
    RawPeer::client(near, &[]).await
}

/// A client of ours.
async fn client(server: Server) -> Client {
    Client::new(pair(server, ChannelLimits::default()).await)
}

fn raw(len: usize) -> Raw {
    Raw(vec![b'x'; len].into())
}

#[tokio::test]
async fn the_limits_of_a_server_are_announced_and_its_windows_are_given() {
    let (server, _) = server();
    let mut client = raw_client(server).await;
    assert!(client.settle().await);
    let settings = [
        (setting::MAX_CONCURRENT_STREAMS, Some(100)),
        (setting::INITIAL_WINDOW_SIZE, Some(163_840)),
        (setting::MAX_HEADER_LIST_SIZE, Some(32_768)),
        // Left as the RFC has them.
        (setting::HEADER_TABLE_SIZE, None),
        (setting::MAX_FRAME_SIZE, None),
    ];
    for (id, value) in settings {
        assert_eq!(client.setting(id), value, "setting {id}");
    }
    // RFC 9113, section 6.9.2: the connection's window begins at 65,535.
    let window = client.window_updates(0) + 65_535;
    assert_eq!(window, 16 * MIB as i64);
}

#[tokio::test]
async fn the_limits_of_a_client_are_announced_and_its_windows_are_given() {
    let (near, far) = tokio::io::duplex(MIB);
    let (channel, mut peer) = tokio::join!(
        trunkline_testkit::channel_over(near, ChannelLimits::default()),
        RawPeer::server(far, &[])
    );
    let channel = channel.expect("the peer speaks HTTP/2");
    assert!(peer.settle().await);
    let settings = [
        (setting::ENABLE_PUSH, Some(0)),
        (setting::INITIAL_WINDOW_SIZE, Some(163_840)),
        (setting::MAX_HEADER_LIST_SIZE, Some(32_768)),
        (setting::MAX_CONCURRENT_STREAMS, None),
    ];
    for (id, value) in settings {
        assert_eq!(peer.setting(id), value, "setting {id}");
    }
    assert_eq!(peer.window_updates(0) + 65_535, 16 * MIB as i64);
    drop(channel);
}

#[tokio::test]
async fn limits_that_are_set_are_those_on_the_wire() {
    let (server, _) = server();
    let server = server.max_concurrent_streams(7).with_limits(|limits| {
        limits.http2.initial_window_size = 70_000;
        limits.http2.initial_connection_window_size = 700_000;
        limits.http2.max_header_list_size_hard = 7_000;
    });
    let mut client = raw_client(server).await;
    assert!(client.settle().await);
    let settings = [
        (setting::MAX_CONCURRENT_STREAMS, 7),
        (setting::INITIAL_WINDOW_SIZE, 70_000),
        (setting::MAX_HEADER_LIST_SIZE, 7_000),
    ];
    for (id, value) in settings {
        assert_eq!(client.setting(id), Some(value), "setting {id}");
    }
    assert_eq!(client.window_updates(0) + 65_535, 700_000);
}

#[tokio::test]
async fn one_hundred_streams_are_served_and_the_next_is_refused_alone() {
    let (server, probe) = server();
    let mut client = raw_client(server).await;
    // Before the client acknowledges anything: the limit holds all the same.
    client.stop_acknowledging();
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(client.call(&Fields::call(HOLD), message(b"x")).await);
    }
    probe.until("100 handlers", |it| it.running == 100).await;
    let refused = client.call(&Fields::call(HOLD), message(b"x")).await;
    let outcome = client.outcome(refused).await;
    assert_eq!(outcome, Outcome::Reset(error::REFUSED_STREAM));
    probe.release(100);
    for stream in streams {
        assert_eq!(client.outcome(stream).await, OK);
    }
    let next = client.call(&Fields::call(ECHO), message(b"x")).await;
    assert_eq!(client.outcome(next).await, OK);
    assert_eq!(probe.counts().peak, 100);
}

#[tokio::test]
async fn calls_beyond_the_streams_of_a_connection_wait_at_the_client_and_are_served() {
    let (server, probe) = server();
    let client = client(server.max_concurrent_streams(2)).await;
    let calls: Vec<_> = (0..20)
        .map(|_| tokio::spawn(client.unary::<Raw, Raw>(Probe::HOLD, raw(1)).into_future()))
        .collect();
    probe.until("2 handlers", |it| it.running == 2).await;
    probe.release(20);
    for call in calls {
        let response = within("a call that waited", call).await.expect("no panic");
        assert_eq!(response.expect("a response").0, "x");
    }
    assert_eq!((probe.counts().peak, probe.counts().called), (2, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_for_which_there_is_no_permit_wait_and_are_served() {
    let (server, probe) = server();
    let mut client = raw_client(server.max_concurrent_streams(2)).await;
    // Handlers that cannot be dropped keep their permits when their streams are gone.
    for _ in 0..2 {
        let head = Fields::call("/test.Probe/Block");
        client.call(&head, message(b"x")).await;
    }
    probe.until("2 handlers", |it| it.running == 2).await;
    client
        .write(&[
            Frame::rst_stream(1, error::CANCEL),
            Frame::rst_stream(3, error::CANCEL),
        ])
        .await;
    assert!(client.settle().await);
    // To HTTP/2 there is room; there are no permits.
    let waiting = client.call(&Fields::call(ECHO), message(b"x")).await;
    let also_waiting = client.call(&Fields::call(ECHO), message(b"x")).await;
    assert!(client.settle().await);
    assert_eq!(probe.counts().called, 2);
    probe.release(2);
    assert_eq!(client.outcome(waiting).await, OK);
    assert_eq!(client.outcome(also_waiting).await, OK);
    assert_eq!((probe.counts().peak, probe.counts().called), (2, 4));
}

#[tokio::test]
async fn a_message_of_4_mib_passes_and_one_byte_more_does_not() {
    let (server, probe) = server();
    check_message_limit(server, 4 * MIB, None).await;
    probe.until("no handlers", |it| it.running == 0).await;
}

#[tokio::test]
async fn a_compressed_message_at_the_limit_passes_and_one_byte_more_does_not() {
    let (server, probe) = server();
    let server = server.max_recv_message_size(64 * KIB);
    check_message_limit(server, 64 * KIB, Some("gzip")).await;
    probe.until("no handlers", |it| it.running == 0).await;
}

async fn check_message_limit(server: Server, limit: usize, encoding: Option<&str>) {
    let client = client(server).await;
    for (len, code) in [
        (limit - 1, Code::OK),
        (limit, Code::OK),
        (limit + 1, Code::RESOURCE_EXHAUSTED),
    ] {
        let call = client.unary::<Raw, Raw>(Probe::ECHO, raw(len));
        let call = match encoding {
            None => call,
            Some(name) => call.compress(name),
        };
        match within("the call", call.into_future()).await {
            Ok(response) => assert_eq!((response.0.len(), Code::OK), (len, code)),
            Err(status) => {
                assert_eq!(status.code(), code, "{len}: {status}");
                assert!(status.message().contains(&limit.to_string()), "{status}");
            }
        }
        check_second_message(&client, len, code, encoding).await;
    }
}

async fn check_second_message(client: &Client, len: usize, code: Code, encoding: Option<&str>) {
    let call = client.bidi_streaming::<Raw, Raw>(Probe::CHAT);
    let call = match encoding {
        None => call,
        Some(name) => call.compress(name),
    };
    let (mut sender, mut responses) = call.await.expect("an open stream");
    sender.send(raw(1)).await.expect("the first");
    let first = within("the first", responses.message()).await;
    assert_eq!(first.expect("a response").expect("a message").0, "x");
    let second = within("the second", async {
        let _ = sender.send(raw(len)).await;
        responses.message().await
    });
    match second.await {
        Ok(message) => {
            let message = message.expect("a message");
            assert_eq!((message.0.len(), Code::OK), (len, code));
        }
        Err(status) => assert_eq!(status.code(), code, "{len}: {status}"),
    }
}

#[tokio::test]
async fn a_client_takes_responses_up_to_its_own_limit() {
    let (server, _) = server();
    let mut limits = ChannelLimits::default();
    limits.messages.max_recv_message_size = 10_000;
    // A channel's limits for messages are its own; the connection's are in `pair`.
    let bound = server.bind("127.0.0.1:0").await.expect("a free port");
    let address = bound.local_addr().to_string();
    tokio::spawn(bound.serve());
    let channel = Channel::to(&address)
        .with_limits(|it| *it = limits)
        .connect()
        .await;
    let client = Client::new(channel.expect("our server"));
    for (len, code) in [
        (9_999, Code::OK),
        (10_000, Code::OK),
        (10_001, Code::RESOURCE_EXHAUSTED),
    ] {
        let call = client.unary::<Raw, Raw>(Probe::ECHO, raw(len));
        let response = within("the call", call.into_future()).await;
        let actual = response.map_or_else(|status| status.code(), |_| Code::OK);
        assert_eq!(actual, code, "{len}");
    }
}

#[tokio::test]
async fn a_message_inflates_to_the_limit_and_no_further() {
    let (server, _) = server();
    let small = server.clone().max_recv_message_size(64 * KIB);
    let mut at_default = raw_client(server).await;
    let mut at_64_kib = raw_client(small).await;
    for (len, expected) in [
        (64 * KIB - 1, OK),
        (64 * KIB, OK),
        (64 * KIB + 1, EXHAUSTED),
        (4 * MIB, EXHAUSTED),
    ] {
        let outcome = send_zeros(&mut at_64_kib, len).await;
        assert_eq!(outcome, expected, "64 KiB: {len}");
    }
    for (len, expected) in [(4 * MIB, OK), (4 * MIB + 1, EXHAUSTED)] {
        let outcome = send_zeros(&mut at_default, len).await;
        assert_eq!(outcome, expected, "4 MiB: {len}");
    }
}

/// Sends one message of `len` zero bytes, which is short in gzip.
async fn send_zeros(client: &mut RawPeer<DuplexStream>, len: usize) -> Outcome {
    let zipped = message_flagged(1, &gzip(&vec![0; len]));
    assert!(zipped.len() <= len / 50, "{}", zipped.len());
    let head = Fields::call("/test.Probe/Count").and("grpc-encoding", "gzip");
    let stream = client.next_stream();
    client.write(&[Frame::headers(stream, &head)]).await;
    client.send(stream, zipped).await;
    client.write(&[Frame::data(stream, "").ending()]).await;
    client.outcome(stream).await
}

#[tokio::test]
async fn a_header_list_over_16_kib_is_a_status_and_over_256_kib_an_http_error() {
    let (server, probe) = server();
    let mut client = raw_client(server).await;
    // RFC 9113, section 6.5.2: 32 bytes for each field on top.
    let sized = |size: usize| {
        let fields = Fields::call(ECHO);
        let rest = size - fields.list_size() - "x".len() - 32;
        fields.and("x", vec![b'v'; rest])
    };
    for (size, expected) in [
        (16 * KIB - 1, OK),
        (16 * KIB, OK),
        (16 * KIB + 1, EXHAUSTED),
        (24 * KIB, EXHAUSTED),
        // What is announced is no limit to what is decoded, so that a call is told its size.
        (32 * KIB + 1, EXHAUSTED),
        (256 * KIB - 1, EXHAUSTED),
        // To h2 the limit itself is over it.
        (256 * KIB, Outcome::Http(431)),
        (320 * KIB, Outcome::Http(431)),
    ] {
        let before = probe.counts().called;
        let head = sized(size);
        assert_eq!(head.list_size(), size);
        let stream = client.next_stream();
        client.write(&Frame::long_headers(stream, &head)).await;
        client
            .write(&[Frame::data(stream, message(b"x")).ending()])
            .await;
        assert_eq!(client.outcome(stream).await, expected, "{size}");
        let handlers = probe.counts().called - before;
        assert_eq!(handlers, usize::from(expected == OK), "{size}");
        // The connection lives, and its header compression has not lost its state.
        let stream = client.call(&Fields::call(ECHO), message(b"x")).await;
        assert_eq!(client.outcome(stream).await, OK, "after {size}");
    }
}

#[tokio::test]
async fn a_header_block_of_352_kib_costs_its_call_and_a_longer_one_the_connection() {
    for (size, fields, survives) in [
        (352 * KIB, 1, true),
        (352 * KIB, 40, true),
        (352 * KIB + 1, 1, false),
    ] {
        let (server, _) = server();
        let mut client = raw_client(server).await;
        let mut head = Fields::call(ECHO);
        while head.iter().count() < 6 + fields {
            head = head.and("k", vec![b'v'; size / fields - 1_000]);
        }
        // The length of a value takes 1 to 4 bytes.
        let rest = size - head.encode().len();
        let filled = (4..8).map(|less| head.clone().and("r", vec![b'v'; rest - less]));
        let head = filled.rev().find(|it| it.encode().len() == size);
        let frames = Frame::long_headers(1, &head.expect("the size"));
        client.write(&frames).await;
        let expected = match survives {
            true => Outcome::Http(431),
            false => Outcome::GoneAway(error::ENHANCE_YOUR_CALM),
        };
        assert_eq!(client.outcome(1).await, expected, "{size} in {fields}");
    }
}

#[tokio::test]
async fn resets_that_outrun_the_budget_end_the_connection_and_those_at_it_do_not() {
    for ((resets, survives), is_wide) in [(999, true), (1_000, true), (1_001, false)]
        .into_iter()
        .flat_map(|it| [(it, false), (it, true)])
    {
        let (server, probe) = server();
        let server = server.with_limits(move |limits| {
            let (budget, refill) = match is_wide {
                false => (&mut limits.reset_budget, &mut limits.resets_per_second),
                true => (
                    &mut limits.unanswered_reset_budget,
                    &mut limits.unanswered_resets_per_second,
                ),
            };
            (*budget, *refill) = (1_000, 1);
            limits.rapid_reset_time = Duration::from_secs(60);
        });
        let mut client = raw_client(server).await;
        for at in 0..resets {
            let stream = client.next_stream();
            client
                .write(&[
                    Frame::headers(stream, &Fields::call(HOLD)),
                    Frame::data(stream, message(b"x")).ending(),
                    Frame::rst_stream(stream, error::CANCEL),
                ])
                .await;
            // The pipe holds so many.
            if at % 50 == 49 {
                client.settle().await;
            }
        }
        if survives {
            let stream = client.call(&Fields::call(ECHO), message(b"x")).await;
            assert_eq!(client.outcome(stream).await, OK, "{resets} resets");
            assert_eq!(client.goaway(), None, "{resets} resets");
        } else {
            client.until_closed().await;
            let goaway = client.goaway().expect("a reason");
            assert_eq!(goaway.error, error::ENHANCE_YOUR_CALM, "{resets} resets");
            assert_eq!(goaway.text, "too_many_resets");
        }
        probe.until("no handlers", |it| it.running == 0).await;
        assert!(probe.counts().peak <= 100, "{:?}", probe.counts());
    }
}

#[tokio::test]
async fn resets_before_a_call_is_accepted_end_the_connection_in_the_end() {
    let (server, probe) = server();
    let mut client = raw_client(server).await;
    let mut frames = Vec::new();
    for _ in 0..10_000 {
        let stream = client.next_stream();
        frames.push(Frame::headers(stream, &Fields::call(HOLD)));
        frames.push(Frame::rst_stream(stream, error::CANCEL));
    }
    client.write(&frames).await;
    client.until_closed().await;
    let goaway = client.goaway().expect("a reason");
    assert_eq!(goaway.error, error::ENHANCE_YOUR_CALM);
    assert_eq!(goaway.text, "too_many_resets");
    probe.until("no handlers", |it| it.running == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_cancels_of_calls_that_got_a_response_never_end_the_connection() {
    // Debug builds take ten times as long for a call.
    const CALLS: usize = if cfg!(debug_assertions) {
        10_000
    } else {
        100_000
    };
    const AT_ONCE: usize = 50;
    let (server, probe) = server();
    let client = client(server).await;
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..CALLS / AT_ONCE {
                    let call = client.server_streaming::<Raw, Raw>(Probe::STALL, raw(1));
                    let mut responses: Streaming<Raw> = call.await?;
                    responses.message().await?;
                    // The call goes on; dropping it is the cancel.
                }
                Ok::<_, trunkline::Status>(())
            })
        })
        .collect();
    for worker in workers {
        let worked = tokio::time::timeout(Duration::from_secs(60), worker).await;
        worked
            .expect("the calls end")
            .expect("no panic")
            .expect("no call fails");
    }
    probe.until("no handlers", |it| it.running == 0).await;
    assert_eq!(probe.counts().called, CALLS);
    assert!(probe.counts().peak <= 100, "{:?}", probe.counts());
}

#[tokio::test]
async fn a_client_that_does_not_shake_hands_is_cut_off_in_time() {
    let settings = {
        let mut bytes = bytes::BytesMut::from(&PREFACE[..]);
        Frame::settings(&[]).write_to(&mut bytes);
        bytes.freeze()
    };
    let half = settings.slice(..12);
    let no_settings = settings.slice(..24);
    let half_settings = settings.slice(..30);
    for (name, bytes) in [
        ("silent", Bytes::new()),
        ("half a preface", half),
        ("no SETTINGS", no_settings),
        ("half of SETTINGS", half_settings),
    ] {
        let (server, _) = server();
        let limit = Duration::from_millis(50);
        let server = server.with_limits(|limits| limits.handshake_timeout = limit);
        let (near, far) = tokio::io::duplex(MIB);
        let serving = tokio::spawn(server.serve_connection(far));
        let mut client = RawPeer::silent(near);
        let began = Instant::now();
        client.write_bytes(&bytes).await;
        client.until_closed().await;
        assert!(began.elapsed() >= limit, "{name}: {:?}", began.elapsed());
        within(name, serving).await.expect("no panic");
    }
}

#[tokio::test(start_paused = true)]
async fn the_handshake_has_10_seconds_by_default() {
    let (server, _) = server();
    let (near, far) = tokio::io::duplex(MIB);
    let began = Instant::now();
    let serving = tokio::spawn(server.serve_connection(far));
    serving.await.expect("no panic");
    assert_eq!(began.elapsed().as_secs(), 10);
    drop(near);
}

#[tokio::test]
async fn a_header_block_that_stalls_is_cut_off_in_time() {
    let (server, probe) = server();
    let limit = Duration::from_millis(50);
    let server = server.with_limits(|limits| limits.header_block_timeout = limit);
    let mut client = raw_client(server).await;
    let held = client.call(&Fields::call(HOLD), message(b"x")).await;
    probe.until("a handler", |it| it.running == 1).await;
    let stream = client.next_stream();
    let began = Instant::now();
    client
        .write(&[Frame::headers(stream, &Fields::call(ECHO)).unfinished()])
        .await;
    client.until_closed().await;
    assert!(began.elapsed() >= limit, "{:?}", began.elapsed());
    let goaway = client.goaway().expect("a reason");
    assert_eq!(goaway.error, error::ENHANCE_YOUR_CALM);
    assert!(!client.stream(held).is_ended);
    probe.until("no handlers", |it| it.running == 0).await;
}

#[tokio::test]
async fn a_header_block_that_comes_in_time_is_no_reason_to_cut_off() {
    let (server, _) = server();
    let mut client = raw_client(server).await;
    let stream = client.next_stream();
    let block = Fields::call(ECHO).encode();
    let (first, second) = (block.slice(..20), block.slice(20..));
    client
        .write(&[Frame::new(kind::HEADERS, 0, stream, first)])
        .await;
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    client
        .write(&[
            Frame::new(kind::CONTINUATION, flag::END_HEADERS, stream, second),
            Frame::data(stream, message(b"x")).ending(),
        ])
        .await;
    assert_eq!(client.outcome(stream).await, OK);
}

#[tokio::test(start_paused = true)]
async fn each_header_block_has_the_time_of_one_however_they_follow_each_other() {
    let (server, _) = server();
    let mut client = raw_client(server).await;
    let block = Fields::call(ECHO).encode();
    let (first, second) = (block.slice(..20), block.slice(20..));
    let mut last = None;
    for _ in 0..4 {
        let stream = client.next_stream();
        // The end of one and the beginning of the next come together.
        let mut frames = Vec::from_iter(last.map(|stream| {
            Frame::new(
                kind::CONTINUATION,
                flag::END_HEADERS,
                stream,
                second.clone(),
            )
        }));
        frames.push(Frame::new(kind::HEADERS, 0, stream, first.clone()));
        client.write(&frames).await;
        last = Some(stream);
        tokio::time::sleep(Duration::from_secs(9)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    client.until_closed().await;
    let goaway = client.goaway().expect("a reason");
    assert_eq!(
        (goaway.last_stream, goaway.error),
        (5, error::ENHANCE_YOUR_CALM)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_call_that_waits_for_a_permit_is_told_at_its_deadline_although_none_comes() {
    let (server, probe) = server();
    let mut client = raw_client(server.max_concurrent_streams(1)).await;
    let blocked = Fields::call("/test.Probe/Block");
    let blocked = client.call(&blocked, message(b"x")).await;
    probe.until("a handler", |it| it.running == 1).await;
    client
        .write(&[Frame::rst_stream(blocked, error::CANCEL)])
        .await;
    for timeout in ["50m", "0n"] {
        let head = Fields::call(ECHO).and("grpc-timeout", timeout);
        let late = client.call(&head, message(b"x")).await;
        let code = i32::from(Code::DEADLINE_EXCEEDED);
        assert_eq!(client.outcome(late).await, Outcome::Answered(200, code));
    }
    assert_eq!((probe.counts().running, probe.counts().called), (1, 1));
    probe.release(1);
}

#[tokio::test]
async fn a_limit_may_be_the_largest_number_there_is() {
    let (server, _) = server();
    let server = server.with_limits(|limits| {
        limits.handshake_timeout = Duration::MAX;
        limits.reset_budget = u64::MAX;
        limits.unanswered_reset_budget = u64::MAX;
        limits.http2.control_frame_budget = u64::MAX;
    });
    let mut client = raw_client(server).await;
    for _ in 0..3 {
        let call = client.call(&Fields::call(ECHO), message(b"x")).await;
        assert_eq!(client.outcome(call).await, Outcome::Answered(200, 0));
    }
}

#[tokio::test]
async fn continuation_frames_without_end_are_cut_off() {
    let (server, probe) = server();
    for payload in [Bytes::new(), Fields::new().and("x", [b'v'; 1000]).encode()] {
        let mut client = raw_client(server.clone()).await;
        let stream = client.next_stream();
        client
            .write(&[Frame::headers(stream, &Fields::call(ECHO)).unfinished()])
            .await;
        let more = Frame::new(kind::CONTINUATION, 0, stream, payload);
        // Each write fits the pipe; the server stops reading when it has had enough.
        client.write(&vec![more; 500]).await;
        client.until_closed().await;
        let goaway = client.goaway().expect("a reason");
        assert_ne!(goaway.error, error::NO_ERROR);
    }
    assert_eq!(probe.counts().called, 0);
}

#[tokio::test]
async fn nine_thousand_small_messages_that_nobody_reads_all_arrive() {
    const MESSAGES: usize = 9_000;
    let (server, probe) = server();
    let mut client = raw_client(server).await;
    let stream = client.next_stream();
    let head = Fields::call("/test.Probe/Deaf");
    client.write(&[Frame::headers(stream, &head)]).await;
    // 7 bytes each, and a frame for each: 63,000 bytes, within the window.
    let small = Frame::data(stream, message(b"xy"));
    for _ in 0..MESSAGES / 100 {
        client.write(&vec![small.clone(); 100]).await;
    }
    client.write(&[Frame::data(stream, "").ending()]).await;
    assert!(client.settle().await, "{:?}", client.goaway());
    probe.until("the handler", |it| it.running == 1).await;
    probe.release(1);
    assert_eq!(client.outcome(stream).await, OK);
    assert_eq!(client.stream(stream).messages(), [MESSAGES.to_string()]);
    assert_eq!(client.goaway(), None);
}

#[tokio::test]
async fn streams_that_nobody_reads_do_not_stop_a_call_beside_them() {
    let (server, probe) = server();
    let mut client = raw_client(server).await;
    assert!(client.settle().await);
    // 99 streams filled to the last byte of their windows.
    let mut deaf = Vec::new();
    for _ in 0..99 {
        let stream = client.next_stream();
        let head = Fields::call("/test.Probe/Deaf");
        client.write(&[Frame::headers(stream, &head)]).await;
        let window = usize::try_from(client.window(stream)).expect("window for a new stream");
        assert_eq!(window, 163_840);
        client.send(stream, message(&vec![0; window - 5])).await;
        deaf.push(stream);
    }
    let body = message(&vec![b'x'; 100 * KIB]);
    let stream = client.next_stream();
    client
        .write(&[Frame::headers(stream, &Fields::call(ECHO))])
        .await;
    client.send(stream, body).await;
    client.write(&[Frame::data(stream, "").ending()]).await;
    assert_eq!(client.outcome(stream).await, OK);
    // Whoever reads in the end gets everything.
    probe.release(99);
    for stream in deaf {
        client.write(&[Frame::data(stream, "").ending()]).await;
        assert_eq!(client.outcome(stream).await, OK);
        assert_eq!(client.stream(stream).messages(), ["1"]);
    }
}

#[tokio::test]
async fn the_window_of_a_connection_comes_back_when_its_calls_have_ended() {
    let (server, probe) = server();
    let mut client = raw_client(server).await;
    assert!(client.settle().await);
    for round in 0..200 {
        let stream = client.next_stream();
        let head = Fields::call("/test.Probe/Deaf");
        client.write(&[Frame::headers(stream, &head)]).await;
        client.send(stream, message(&vec![0; 150_000])).await;
        // Given up while all of it lies unread.
        client
            .write(&[Frame::rst_stream(stream, error::CANCEL)])
            .await;
        assert!(client.settle().await, "round {round}");
    }
    probe.until("no handlers", |it| it.running == 0).await;
    // 30 MB have gone through a window of 16 MiB; a call at full width passes.
    let stream = client.next_stream();
    client
        .write(&[Frame::headers(stream, &Fields::call(ECHO))])
        .await;
    client.send(stream, message(&vec![0; 4 * MIB])).await;
    client.write(&[Frame::data(stream, "").ending()]).await;
    assert_eq!(client.outcome(stream).await, OK);
}

#[tokio::test]
async fn empty_frames_never_leave_a_server() {
    let (server, _) = server();
    let mut client = raw_client(server).await;
    for path in ["/test.Probe/Spell", ECHO] {
        for body in [&b""[..], b"x", &[7; 40_000]] {
            let stream = client.next_stream();
            client
                .write(&[Frame::headers(stream, &Fields::call(path))])
                .await;
            client.send(stream, message(body)).await;
            client.write(&[Frame::data(stream, "").ending()]).await;
            assert_eq!(client.outcome(stream).await, OK);
            assert_eq!(client.stream(stream).empty_frames, 0, "{path}");
        }
    }
}
