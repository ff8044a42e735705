//! Whether the other end is still there, how often one may ask, and how many frames may come that
//! carry nothing: gRFC A8, and what h2 leaves to us.

use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use trunkline::limits::ChannelLimits;
use trunkline::{Channel, Client, Code, Raw, Response, Result, Server, Streaming};
use trunkline_testkit::{
    Fields, Frame, GoAway, Outcome, Probe, RawListener, RawPeer, channel_over, error, flag, kind,
    message, within,
};

const ECHO: &str = "/test.Probe/Echo";
const HOLD: &str = "/test.Probe/Hold";
const CHAT: &str = "/test.Probe/Chat";
const OK: Outcome = Outcome::Answered(200, 0);
const SECOND: Duration = Duration::from_secs(1);

fn server() -> (Server, Probe) {
    let probe = Probe::new();
    (Server::new().add_service(probe.clone()), probe)
}

async fn raw_client(server: Server) -> (RawPeer<DuplexStream>, JoinHandle<()>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let serving = tokio::spawn(server.serve_connection(far));
    (RawPeer::client(near, &[]).await, serving)
}

/// A client of ours whose server is raw.
async fn raw_server(limits: ChannelLimits) -> (Client, RawPeer<DuplexStream>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (channel, peer) = tokio::join!(channel_over(near, limits), RawPeer::server(far, &[]));
    (Client::new(channel.expect("HTTP/2")), peer)
}

fn asking(time: Duration, timeout: Duration) -> ChannelLimits {
    let mut limits = ChannelLimits::default();
    limits.http2.keepalive_time = time;
    limits.http2.keepalive_timeout = timeout;
    limits
}

fn call(client: &Client) -> JoinHandle<Result<Response<Raw>>> {
    let call = client.unary::<Raw, Raw>(Probe::HOLD, Raw(b"x"[..].into()));
    tokio::spawn(call.into_future())
}

fn too_many_pings() -> GoAway {
    GoAway {
        last_stream: 0,
        error: error::ENHANCE_YOUR_CALM,
        text: "too_many_pings".to_owned(),
    }
}

/// Waits until the peer has `pings` of the other end's, from now on without limit in time.
async fn pings(peer: &mut RawPeer<DuplexStream>, pings: usize) {
    while peer.pings().len() < pings {
        // Each wait of a peer is bounded.
        tokio::time::sleep(SECOND / 100).await;
        let _ = tokio::time::timeout(SECOND / 100, peer.try_next_request()).await;
        assert!(!peer.is_closed(), "closed");
    }
}

fn about(elapsed: Duration, seconds: u32) {
    let off = elapsed.abs_diff(seconds * SECOND);
    assert!(off < SECOND / 10, "{elapsed:?} and not {seconds} s");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_loses_its_connection_and_its_handlers_after_80_seconds() {
    let (server, probe) = server();
    let (mut client, serving) = raw_client(server).await;
    client.stop_acknowledging();
    client.call(&Fields::call(HOLD), message(b"x")).await;
    probe.until("a handler", |it| it.running == 1).await;
    let began = Instant::now();
    pings(&mut client, 1).await;
    about(began.elapsed(), 60);
    serving.await.expect("no panic");
    about(began.elapsed(), 80);
    assert_eq!(probe.counts().running, 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_is_asked_a_minute_after_its_last_byte() {
    let (server, _) = server();
    let (mut client, _serving) = raw_client(server).await;
    let stream = client.next_stream();
    client
        .write(&[Frame::headers(stream, &Fields::call(CHAT))])
        .await;
    for (asked, frame) in (1..).zip(idle_frames(5)) {
        tokio::time::sleep(45 * SECOND).await;
        client.write(&[frame]).await;
        let began = Instant::now();
        pings(&mut client, asked).await;
        about(began.elapsed(), 60);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_stays_for_ever() {
    let (server, _) = server();
    let (mut client, _serving) = raw_client(server).await;
    pings(&mut client, 20).await;
    let stream = client.call(&Fields::call(ECHO), message(b"x")).await;
    assert_eq!(client.outcome(stream).await, OK);
}

/// Waits for that long, unless the connection ends.
async fn stays(peer: &mut RawPeer<DuplexStream>, time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        let _ = tokio::time::timeout(3600 * SECOND, peer.try_next_request()).await;
        assert!(!peer.is_closed(), "closed after {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn answers_to_a_servers_pings_use_up_no_budget_in_a_fortnight() {
    let (server, probe) = server();
    let (mut client, _serving) = raw_client(server).await;
    client.call(&Fields::call(HOLD), message(b"x")).await;
    probe.until("a handler", |it| it.running == 1).await;
    stays(&mut client, 14 * 24 * 3600 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn answers_to_a_clients_pings_use_up_no_budget_in_two_days() {
    let (client, mut peer) = raw_server(asking(10 * SECOND, 20 * SECOND)).await;
    let call = call(&client);
    peer.next_full_request().await;
    stays(&mut peer, 2 * 24 * 3600 * SECOND).await;
    assert!(!call.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_server_asks_no_more_often_than_every_second() {
    let (server, _) = server();
    let (mut client, _serving) = raw_client(server.keepalive_time(Duration::ZERO)).await;
    let began = Instant::now();
    pings(&mut client, 1).await;
    about(began.elapsed(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_is_found_also_behind_a_goaway_that_it_has_not_answered() {
    let (server, probe) = server();
    let server = server.max_connection_age(10 * SECOND);
    let (mut client, serving) = raw_client(server).await;
    client.stop_acknowledging();
    client.call(&Fields::call(HOLD), message(b"x")).await;
    let began = Instant::now();
    serving.await.expect("no panic");
    about(began.elapsed(), 80);
    assert_eq!(probe.counts().running, 0);
}

#[tokio::test(start_paused = true)]
async fn calls_on_a_connection_that_is_dead_fail_and_say_that_nothing_was_answered() {
    let (client, mut peer) = raw_server(asking(30 * SECOND, 5 * SECOND)).await;
    peer.stop_acknowledging();
    let began = Instant::now();
    let call = call(&client);
    pings(&mut peer, 1).await;
    about(began.elapsed(), 30);
    let status = call
        .await
        .expect("no panic")
        .expect_err("a dead connection");
    about(began.elapsed(), 35);
    assert_eq!(status.code(), Code::UNAVAILABLE);
    let text = "keepalive: no response to a PING within 5s";
    assert!(status.message().contains(text), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_slow_is_not_dead() {
    let (client, mut peer) = raw_server(asking(10 * SECOND, SECOND)).await;
    peer.stop_acknowledging();
    let call = call(&client);
    let stream = peer.next_full_request().await;
    let response = [
        Frame::headers(stream, &Fields::response()),
        Frame::data(stream, message(b"slow")),
        Frame::headers(stream, &Fields::trailers("0")).ending(),
    ];
    let mut bytes = bytes::BytesMut::new();
    for frame in response {
        frame.write_to(&mut bytes);
    }
    // No PING is answered, and a byte comes in the last moment each time.
    for byte in bytes {
        tokio::time::sleep(10 * SECOND + SECOND * 9 / 10).await;
        peer.write_bytes(&[byte]).await;
    }
    let response = call.await.expect("no panic").expect("a response");
    assert_eq!(response.0, "slow");
}

#[tokio::test(start_paused = true)]
async fn a_client_asks_while_a_call_is_open_and_at_other_times_only_if_it_is_told_to() {
    for without_calls in [false, true] {
        let mut limits = asking(10 * SECOND, 5 * SECOND);
        limits.keepalive_without_calls = without_calls;
        let (client, mut peer) = raw_server(limits).await;
        // Read, and answered.
        for _ in 0..100 {
            tokio::time::sleep(SECOND).await;
            assert!(peer.settle().await);
        }
        assert_eq!(
            peer.pings(),
            [] as [bytes::Bytes; 0],
            "it has heard of the server"
        );
        for _ in 0..100 {
            tokio::time::sleep(SECOND / 4).await;
            let _ = tokio::time::timeout(SECOND / 4, peer.try_next_request()).await;
        }
        assert_eq!(!peer.pings().is_empty(), without_calls);
        let (before, began) = (peer.pings().len(), Instant::now());
        // It has heard nothing for long, and asks with the first call.
        let call = call(&client);
        let stream = peer.next_full_request().await;
        pings(&mut peer, before + 1).await;
        if !without_calls {
            about(began.elapsed(), 0);
        }
        call.abort();
        peer.until_end(stream).await;
    }
}

#[tokio::test(start_paused = true)]
async fn by_default_a_client_never_asks() {
    let (client, mut peer) = raw_server(ChannelLimits::default()).await;
    let _call = call(&client);
    tokio::time::sleep(100_000 * SECOND).await;
    assert!(peer.settle().await);
    assert_eq!(peer.pings(), [] as [bytes::Bytes; 0]);
}

#[tokio::test]
async fn a_channel_leaves_a_dead_connection_and_half_as_often_asks_a_server_that_minds() {
    let listener = RawListener::bind().await;
    let limits = asking(SECOND / 5, SECOND / 5);
    let channel = Channel::to(listener.address()).with_limits(|it| *it = limits);
    let client = Client::new(channel.connect_lazy().expect("an address"));
    let first = call(&client);
    let mut dead = listener.accept().await;
    dead.stop_acknowledging();
    let status = within("the end", first).await.expect("no panic");
    let status = status.expect_err("a dead connection");
    assert!(status.message().contains("keepalive"), "{status}");

    for millis in [400, 800] {
        let next = call(&client);
        let mut peer = listener.accept().await;
        peer.next_full_request().await;
        let goaway = Frame::goaway(1, error::ENHANCE_YOUR_CALM, "too_many_pings");
        peer.write(&[goaway]).await;
        peer.shut_down().await;
        let status = within("the end", next).await.expect("no panic");
        let status = status.expect_err("a server that minds");
        assert_eq!(status.code(), Code::UNAVAILABLE);
        for text in ["too_many_pings", &format!("ask after {millis}ms")] {
            assert!(status.message().contains(text), "{status}");
        }
    }
}

/// Whether the connection goes on after what was sent. What h2 answers may come before the end.
async fn is_kept(client: &mut RawPeer<DuplexStream>) -> bool {
    client.settle().await && client.settle().await
}

/// PING frames, each `pause` after the one before; how many were taken before the connection was ended.
async fn taken(client: &mut RawPeer<DuplexStream>, pause: Duration) -> Option<usize> {
    for sent in 0..10 {
        client.write(&[Frame::ping(7)]).await;
        if !is_kept(client).await {
            assert_eq!(client.goaway().map(|it| &*it.text), Some("too_many_pings"));
            return Some(sent);
        }
        tokio::time::sleep(pause).await;
    }
    None
}

#[tokio::test(start_paused = true)]
async fn pings_that_come_too_soon_are_two_strikes_and_the_third_is_the_end() {
    const MINUTE: Duration = Duration::from_secs(60);
    let hour = 60 * MINUTE;
    type Setting = fn(Server) -> Server;
    let as_it_is: Setting = |server| server;
    let often: Setting = |server| server.permit_keepalive_time(10 * SECOND);
    let always: Setting = |server| {
        let server = server.permit_keepalive_time(10 * SECOND);
        server.permit_keepalive_without_calls()
    };
    // The first comes too soon for none.
    for (setting, has_call, pause, end) in [
        (as_it_is, true, Duration::ZERO, Some(3)),
        (as_it_is, true, 5 * MINUTE - SECOND, Some(3)),
        (as_it_is, true, 5 * MINUTE, None),
        (as_it_is, false, 5 * MINUTE, Some(3)),
        (as_it_is, false, 2 * hour - SECOND, Some(3)),
        (as_it_is, false, 2 * hour, None),
        (often, true, 9 * SECOND, Some(3)),
        (often, true, 10 * SECOND, None),
        (often, false, hour, Some(3)),
        (always, false, 9 * SECOND, Some(3)),
        (always, false, 10 * SECOND, None),
    ] {
        let (server, probe) = server();
        let server = setting(server).keepalive_time(Duration::MAX);
        let (mut client, _serving) = raw_client(server).await;
        if has_call {
            client.call(&Fields::call(HOLD), message(b"x")).await;
            probe.until("a handler", |it| it.running == 1).await;
        }
        let about = format!("call: {has_call}, every {pause:?}");
        assert_eq!(taken(&mut client, pause).await, end, "{about}");
    }
}

#[tokio::test]
async fn pings_that_come_together_are_counted_one_by_one() {
    for (pings, is_end) in [(3, false), (4, true)] {
        let (server, _) = server();
        let (mut client, _serving) = raw_client(server).await;
        client.write(&vec![Frame::ping(1); pings]).await;
        assert_eq!(is_kept(&mut client).await, !is_end, "{pings}");
        if is_end {
            assert_eq!(client.goaway(), Some(&too_many_pings()));
        }
    }
}

#[tokio::test]
async fn a_client_that_measures_the_bandwidth_by_pings_is_not_struck() {
    let (server, _) = server();
    let (mut client, _serving) = raw_client(server).await;
    let chat = client.next_stream();
    client
        .write(&[Frame::headers(chat, &Fields::call(CHAT))])
        .await;
    for sent in 1..=1_000 {
        client.write(&[Frame::data(chat, message(b"x"))]).await;
        client
            .until("the message", |it| it.stream(chat).data_frames == sent)
            .await;
        // As grpc-go and C-core do when data comes.
        client.write(&[Frame::ping(2)]).await;
    }
    for _ in 0..100 {
        let stream = client.call(&Fields::call(ECHO), message(b"x")).await;
        assert_eq!(client.outcome(stream).await, OK);
        client.write(&[Frame::ping(3)]).await;
    }
    assert!(client.settle().await);
    assert_eq!(client.ping_acks().len(), 1_100);
}

/// Frames that carry nothing of a call.
fn idle_frames(n: usize) -> Vec<Frame> {
    let of_each_kind = [
        Frame::new(kind::PING, flag::ACK, 0, vec![0; 8]),
        Frame::new(kind::PRIORITY, 0, 1, vec![0, 0, 0, 0, 1]),
        Frame::new(0xfa, 0, 0, vec![0]),
    ];
    of_each_kind.into_iter().cycle().take(n).collect()
}

#[tokio::test(start_paused = true)]
async fn frames_that_carry_nothing_have_a_budget_and_calls_and_time_add_to_it() {
    let (server, _) = server();
    let server = server.with_limits(|limits| limits.http2.control_frame_budget = 100);
    let (mut client, _serving) = raw_client(server).await;
    // Its SETTINGS, the window and the acknowledgement; to settle is one more.
    let greeted = 3;
    client.write(&idle_frames(100 - greeted - 2)).await;
    assert!(is_kept(&mut client).await, "at the limit");
    // Two frames in, three out, and ten for each of them.
    let call = client.call(&Fields::call(ECHO), message(b"x")).await;
    assert_eq!(client.outcome(call).await, OK);
    client.write(&idle_frames(50 - 2)).await;
    assert!(is_kept(&mut client).await, "at the limit again");
    tokio::time::sleep(SECOND).await;
    client.write(&idle_frames(10 - 1)).await;
    assert!(is_kept(&mut client).await, "at the limit a second later");
    client.write(&idle_frames(1)).await;
    client.until_closed().await;
    let goaway = client.goaway().expect("a reason");
    assert_eq!(goaway.error, error::ENHANCE_YOUR_CALM);
    assert_eq!(goaway.text, "too_many_control_frames");
}

#[tokio::test]
async fn a_server_that_sends_frames_without_end_is_left() {
    let mut limits = ChannelLimits::default();
    limits.http2.control_frame_budget = 100;
    let (client, mut peer) = raw_server(limits).await;
    let call = call(&client);
    peer.next_full_request().await;
    peer.write(&idle_frames(1_000)).await;
    let status = within("the end", call).await.expect("no panic");
    let status = status.expect_err("a flood");
    assert_eq!(status.code(), Code::UNAVAILABLE);
    assert!(
        status.message().contains("control_frame_budget"),
        "{status}"
    );
}

#[tokio::test]
async fn a_reader_that_gives_window_for_each_message_is_not_cut_off() {
    let (server, _) = server();
    let server = server.with_limits(|limits| limits.http2.control_frame_budget = 100);
    let (mut client, _serving) = raw_client(server).await;
    let spell = Fields::call("/test.Probe/Spell");
    let call = client.call(&spell, message(&[b'x'; 5_000])).await;
    for received in 1..=50 {
        client
            .until("responses", |it| {
                it.stream(call).data.len() >= 600 * received
            })
            .await;
        client
            .write(&[
                Frame::window_update(0, 600),
                Frame::window_update(call, 600),
            ])
            .await;
    }
    assert_eq!(client.outcome(call).await, OK);
}

#[tokio::test]
async fn streams_that_stay_open_for_long_are_kept_alive_by_both_ends() {
    let (server, _) = server();
    let server = server
        .with_limits(|limits| limits.http2.keepalive_time = SECOND / 10)
        .permit_keepalive_time(Duration::ZERO);
    let mut limits = asking(SECOND / 10, 10 * SECOND);
    limits.keepalive_without_calls = true;
    let client = Client::new(trunkline_testkit::pair(server, limits).await);
    let call = client.bidi_streaming::<Raw, Raw>(Probe::CHAT);
    let (mut requests, mut responses): (_, Streaming<Raw>) = call.await.expect("a stream");
    for _ in 0..5 {
        tokio::time::sleep(SECOND / 4).await;
        requests.send(Raw(b"x"[..].into())).await.expect("open");
        let response = within("a response", responses.message()).await;
        assert!(response.expect("open").is_some());
    }
}
