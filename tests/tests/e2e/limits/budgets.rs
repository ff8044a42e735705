//! Budgets: what honest peers do never uses them up, however long they stay, and what each is for still
//! ends the connection, with its text.

use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::time::Instant;
use trunkline::limits::{ChannelLimits, Http2Limits};
use trunkline::{Client, Raw, Server};
use trunkline_testkit::{
    Fields, Frame, Outcome, Probe, RawPeer, channel_over, error, kind, message, within,
};

const ECHO: &str = "/test.Probe/Echo";
const HOLD: &str = "/test.Probe/Hold";
const DEAF: &str = "/test.Probe/Deaf";
const CHAT: &str = "/test.Probe/Chat";
const REFUSE: &str = "/test.Probe/Refuse";
const OK: Outcome = Outcome::Answered(200, 0);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn server() -> (Server, Probe) {
    let probe = Probe::new();
    (Server::new().add_service(probe.clone()), probe)
}

async fn raw_client(server: Server) -> RawPeer<DuplexStream> {
    let (near, far) = tokio::io::duplex(1 << 20);
    tokio::spawn(server.serve_connection(far));
    RawPeer::client(near, &[]).await
}

/// A client of ours whose server is raw.
async fn raw_server(limits: ChannelLimits) -> (Client, RawPeer<DuplexStream>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (channel, peer) = tokio::join!(channel_over(near, limits), RawPeer::server(far, &[]));
    (Client::new(channel.expect("HTTP/2")), peer)
}

/// A call that a handler holds.
async fn begin(client: &mut RawPeer<DuplexStream>, path: &str) -> u32 {
    client.call(&Fields::call(path), message(b"x")).await
}

async fn give_up(client: &mut RawPeer<DuplexStream>, call: u32) {
    client
        .write(&[Frame::rst_stream(call, error::CANCEL)])
        .await;
}

/// An upload that goes on after the server has refused it.
async fn upload_refused(client: &mut RawPeer<DuplexStream>, path: &str) {
    let upload = client.next_stream();
    let data = Frame::data(upload, message(b"x"));
    client
        .write(&[Frame::headers(upload, &Fields::call(path)), data.clone()])
        .await;
    client.until_end(upload).await;
    client.write(&[data.clone(), data.clone(), data]).await;
}

async fn is_served(client: &mut RawPeer<DuplexStream>, when: &str) {
    let call = begin(client, ECHO).await;
    assert_eq!(
        client.outcome(call).await,
        OK,
        "{when}: {:?}",
        client.goaway()
    );
}

/// Calls for two minutes, 57 a second, each given up `patience` after it began.
async fn outage(client: &mut RawPeer<DuplexStream>, patience: Duration) {
    let began = Instant::now();
    let mut open = std::collections::VecDeque::new();
    for i in 0..57 * 120 {
        tokio::time::sleep_until(began + SECOND / 57 * i).await;
        let now = Instant::now();
        while open.front().is_some_and(|(_, at)| *at + patience <= now) {
            let (call, _) = open.pop_front().expect("there is a front");
            give_up(client, call).await;
        }
        open.push_back((begin(client, HOLD).await, now));
        if patience.is_zero() {
            let (call, _) = open.pop_front().expect("just pushed");
            give_up(client, call).await;
        }
        if i % 57 == 0 {
            assert!(
                client.settle().await,
                "second {}: {:?}",
                i / 57,
                client.goaway()
            );
        }
    }
    for (call, _) in open {
        give_up(client, call).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_in_which_every_call_is_given_up_costs_no_neighbour() {
    for patience in [SECOND, SECOND / 4, SECOND / 1_000, Duration::ZERO] {
        let (server, probe) = server();
        let mut client = raw_client(server).await;
        let neighbour = begin(&mut client, HOLD).await;
        outage(&mut client, patience).await;
        is_served(&mut client, "after the outage").await;
        probe.release(1);
        assert_eq!(client.outcome(neighbour).await, OK, "{patience:?}");
    }
}

/// All that clients do in ten seconds, at 400 calls a second and 250 ms for each, comes together.
#[tokio::test(start_paused = true)]
async fn resets_that_were_held_up_together_with_their_calls_are_no_abuse() {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (server, probe) = server();
    let (is_open, mut gate) = tokio::sync::watch::channel(true);
    tokio::spawn(async move {
        let mut serving = std::pin::pin!(server.serve_connection(far));
        while gate.wait_for(|it| *it).await.is_ok() {
            std::future::poll_fn(|cx| match *gate.borrow() {
                true => serving.as_mut().poll(cx),
                false => std::task::Poll::Ready(()),
            })
            .await;
        }
    });
    let mut client = RawPeer::client(near, &[]).await;
    let neighbour = begin(&mut client, HOLD).await;
    assert!(client.settle().await);
    is_open.send_replace(false);
    for _ in 0..100 {
        for _ in 0..40 {
            let call = begin(&mut client, HOLD).await;
            give_up(&mut client, call).await;
        }
        tokio::time::sleep(SECOND / 10).await;
    }
    is_open.send_replace(true);
    is_served(&mut client, "after the stop").await;
    probe.release(1);
    assert_eq!(client.outcome(neighbour).await, OK);
}

/// Fifty at a time, as behind a proxy, and none is ever answered.
#[tokio::test(start_paused = true)]
async fn a_stream_outlives_fifty_thousand_timeouts_of_others_however_short_they_are() {
    // The most that fit into 5 ms each, for as long as shows that time pays for them.
    for (patience, rounds) in [(SECOND / 200, 1_000), (SECOND / 10, 200)] {
        let (server, probe) = server();
        let mut client = raw_client(server).await;
        let neighbour = begin(&mut client, HOLD).await;
        for _ in 0..rounds {
            let mut calls = Vec::new();
            for _ in 0..50 {
                calls.push(begin(&mut client, HOLD).await);
            }
            tokio::time::sleep(patience).await;
            for call in calls {
                give_up(&mut client, call).await;
            }
            assert!(client.settle().await, "{:?}", client.goaway());
        }
        probe.release(1);
        assert_eq!(client.outcome(neighbour).await, OK);
    }
}

#[tokio::test(start_paused = true)]
async fn four_hundred_refused_uploads_a_second_are_no_abuse() {
    let (server, probe) = server();
    let mut client = raw_client(server).await;
    let neighbour = begin(&mut client, HOLD).await;
    let began = Instant::now();
    for i in 0..400 * 20 {
        tokio::time::sleep_until(began + SECOND / 400 * i).await;
        let path = [REFUSE, "/test.Probe/NoSuchMethod"][i as usize % 2];
        upload_refused(&mut client, path).await;
        assert!(!client.is_closed(), "upload {i}: {:?}", client.goaway());
    }
    assert!(client.settle().await, "{:?}", client.goaway());
    probe.release(1);
    assert_eq!(client.outcome(neighbour).await, OK);
}

#[tokio::test(start_paused = true)]
async fn seven_days_of_honest_load_use_up_no_budget_and_abuse_is_cut_off_after_them_too() {
    const MINUTES: u32 = 7 * 24 * 60;
    let (server, probe) = server();
    let mut client = raw_client(server).await;
    let long_poll = begin(&mut client, HOLD).await;
    for minute in 0..MINUTES {
        let when = format!("minute {minute}");
        // A deadline that passes, at both ends.
        let head = Fields::call(HOLD).and("grpc-timeout", "1S");
        let late = client.call(&head, message(b"x")).await;
        let dropped = begin(&mut client, HOLD).await;
        tokio::time::sleep(SECOND).await;
        give_up(&mut client, dropped).await;
        give_up(&mut client, late).await;
        let path = [REFUSE, "/test.Probe/NoSuchMethod"][minute as usize % 2];
        upload_refused(&mut client, path).await;
        if minute % 10 == 0 {
            is_served(&mut client, &when).await;
            // Keepalive, as often as is permitted.
            client.write(&[Frame::ping(1)]).await;
        }
        if minute == MINUTES / 2 {
            outage(&mut client, SECOND / 4).await;
        }
        tokio::time::sleep(MINUTE - SECOND).await;
        assert!(client.settle().await, "{when}: {:?}", client.goaway());
    }
    probe.release(1);
    assert_eq!(client.outcome(long_poll).await, OK);
    rapid_reset(&mut client, 10_000, "too_many_resets").await;
}

/// Streams that are opened and reset at once, in batches that the pipe holds.
async fn rapid_reset(client: &mut RawPeer<DuplexStream>, streams: usize, text: &str) {
    for _ in 0..streams / 50 {
        let mut frames = Vec::new();
        for _ in 0..50 {
            let stream = client.next_stream();
            frames.push(Frame::headers(stream, &Fields::call(HOLD)));
            frames.push(Frame::data(stream, message(b"x")).ending());
            frames.push(Frame::rst_stream(stream, error::CANCEL));
        }
        client.write(&frames).await;
        client.settle().await;
    }
    assert_cut_off(client, text).await;
}

async fn assert_cut_off(client: &mut RawPeer<DuplexStream>, text: &str) {
    client.until_closed().await;
    let goaway = client.goaway().expect("a reason");
    assert_eq!(goaway.error, error::ENHANCE_YOUR_CALM);
    assert_eq!(goaway.text, text);
}

/// What makes a server reset a stream, and the frames that do it behind a head.
type Mistake = (&'static str, fn(u32) -> Vec<Frame>);

fn mistakes() -> [Mistake; 5] {
    [
        ("a window that is too large", |stream| {
            vec![Frame::window_update(stream, (1 << 31) - 1)]
        }),
        ("trailers that are not the end", |stream| {
            vec![Frame::headers(stream, &Fields::new().and("x", "y"))]
        }),
        ("a stream that depends on itself", |stream| {
            let itself = stream.to_be_bytes();
            let payload = [&itself[..], &[0]].concat();
            vec![Frame::new(kind::PRIORITY, 0, stream, payload)]
        }),
        ("more data than content-length says", |stream| {
            vec![Frame::data(stream, message(b"xyz"))]
        }),
        ("more data than the window takes", |stream| {
            vec![Frame::data(stream, vec![0; 16 * 1024]); 11]
        }),
    ]
}

/// CVE-2025-8671, "MadeYouReset".
#[tokio::test(start_paused = true)]
async fn a_client_that_makes_the_server_reset_streams_is_cut_off() {
    for (mistake, frames) in mistakes() {
        let (server, probe) = server();
        let mut client = raw_client(server).await;
        for _ in 0..300 {
            for _ in 0..20 {
                let stream = client.next_stream();
                let head = match mistake.contains("content-length") {
                    true => Fields::call(DEAF).and("content-length", "1"),
                    false => Fields::call(DEAF),
                };
                client.write(&[Frame::headers(stream, &head)]).await;
                client.write(&frames(stream)).await;
            }
            if !client.settle().await {
                break;
            }
        }
        println!("{mistake}");
        assert_cut_off(&mut client, "too_many_internal_resets").await;
        probe.until("no handlers", |it| it.running == 0).await;
        assert!(probe.counts().peak <= 100, "{:?}", probe.counts());
        assert!(probe.counts().called <= 1_100, "{:?}", probe.counts());
    }
}

/// The same for streams that are long over, or never were.
#[tokio::test(start_paused = true)]
async fn a_client_that_sends_for_streams_that_are_over_is_cut_off() {
    let (server, _) = server();
    let mut client = raw_client(server).await;
    let last = Frame::headers(20_001, &Fields::call(CHAT));
    client.write(&[last]).await;
    for batch in 0..100 {
        let streams = (0..100).map(|i| 2 * (100 * batch + i) + 1);
        let frames: Vec<_> = streams.map(|it| Frame::data(it, "x")).collect();
        client.write(&frames).await;
        if !client.settle().await {
            break;
        }
    }
    assert_cut_off(&mut client, "too_many_internal_resets").await;
}

#[tokio::test(start_paused = true)]
async fn streams_above_the_limit_are_refused_and_refusals_without_end_cut_off() {
    let (server, _) = server();
    let mut client = raw_client(server.max_concurrent_streams(1)).await;
    let held = begin(&mut client, HOLD).await;
    for round in 0.. {
        for _ in 0..50 {
            begin(&mut client, ECHO).await;
        }
        if !client.settle().await {
            break;
        }
        assert!(round < 100, "never cut off");
    }
    assert_eq!(client.stream(held).reset, None);
    assert_cut_off(&mut client, "too_many_internal_resets").await;
}

#[tokio::test(start_paused = true)]
async fn mistakes_now_and_then_are_forgiven_for_seven_days() {
    let (server, probe) = server();
    let mut client = raw_client(server).await;
    let neighbour = begin(&mut client, HOLD).await;
    let (mistakes, began) = (mistakes(), Instant::now());
    for minute in 0..7 * 24 * 60_usize {
        let (mistake, frames) = mistakes[minute % 4];
        let stream = client.next_stream();
        let head = match mistake.contains("content-length") {
            true => Fields::call(DEAF).and("content-length", "1"),
            false => Fields::call(DEAF),
        };
        client.write(&[Frame::headers(stream, &head)]).await;
        client.write(&frames(stream)).await;
        tokio::time::sleep_until(began + MINUTE * minute as u32).await;
        assert!(client.settle().await, "{minute}: {:?}", client.goaway());
    }
    probe.release(1);
    assert_eq!(client.outcome(neighbour).await, OK);
}

/// RUSTSEC-2024-0003: what is not taken must not pile up, whatever it is.
#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_no_responses_is_read_no_further_and_gone_after_80_seconds() {
    let probe = Probe::new();
    let (near, far) = tokio::io::duplex(16 * 1024);
    let serving = tokio::spawn(
        Server::new()
            .add_service(probe.clone())
            .serve_connection(far),
    );
    let mut client = RawPeer::client(near, &[]).await;
    // A response that fills the way back, and is not read.
    let spell = Fields::call("/test.Probe/Spell");
    for _ in 0..20 {
        client.call(&spell, message(&[b'x'; 16_000])).await;
    }
    client
        .write(&[Frame::headers(1_000_001, &Fields::call(CHAT))])
        .await;
    let mut streams = (101..1_000_001).step_by(2);
    // What waits for the socket is no frame yet, so that no budget knows of it.
    let mut frames = 0;
    loop {
        let batch: Vec<_> = streams.by_ref().take(100).collect();
        assert!(!batch.is_empty(), "it is read without end");
        let batch: Vec<_> = batch
            .iter()
            .map(|it| Frame::data(*it, message(b"x")))
            .collect();
        if tokio::time::timeout(SECOND, client.write(&batch))
            .await
            .is_err()
        {
            break;
        }
        frames += batch.len();
    }
    // The pipe has taken some, too.
    assert!((10_000..15_000).contains(&frames), "{frames} frames");
    let began = Instant::now();
    serving.await.expect("no panic");
    assert_eq!(began.elapsed().as_secs(), 79);
    assert_eq!(probe.counts().running, 0);
}

/// Whoever reads on, however slowly, is read on.
#[tokio::test(start_paused = true)]
async fn two_ends_that_send_more_than_the_other_takes_do_not_wait_for_each_other() {
    let (near, far) = tokio::io::duplex(4 * 1024);
    let mut limits = ChannelLimits::default();
    limits.http2.max_unanswered_frames = 10;
    limits.http2.write_buffer_size = 8 * 1024;
    let ours = limits.http2.clone();
    let (server, _) = server();
    let server = server.with_limits(move |limits| limits.http2 = ours);
    tokio::spawn(server.serve_connection(far));
    let channel = channel_over(near, limits).await.expect("HTTP/2");
    let client = Client::new(channel);
    let mut chats = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let chat = client.bidi_streaming::<Raw, Raw>(Probe::CHAT);
        chats.spawn(async move {
            let (mut requests, mut responses) = chat.await.expect("a stream");
            let sending = async {
                for _ in 0..200 {
                    requests.send(Raw(vec![b'x'; 500].into())).await?;
                }
                requests.finish();
                Ok::<_, trunkline::Status>(())
            };
            let receiving = async {
                let mut count = 0;
                while responses.message().await?.is_some() {
                    count += 1;
                }
                Ok::<_, trunkline::Status>(count)
            };
            tokio::try_join!(sending, receiving).expect("no failure").1
        });
    }
    while let Some(count) = within("a chat", chats.join_next()).await {
        assert_eq!(count.expect("no panic"), 200);
    }
}

/// A client ends what a server sends for calls that are over, and says why.
#[tokio::test(start_paused = true)]
async fn a_server_that_sends_for_calls_that_are_over_without_end_is_left() {
    let mut limits = ChannelLimits::default();
    limits.http2.error_reset_budget = 100;
    limits.http2.max_concurrent_reset_streams = 0;
    let (client, mut peer) = raw_server(limits).await;
    let neighbour = client.unary::<Raw, Raw>(Probe::HOLD, Raw(b"x"[..].into()));
    let neighbour = tokio::spawn(neighbour.into_future());
    peer.next_full_request().await;
    let given_up = client.unary::<Raw, Raw>(Probe::HOLD, Raw(b"x"[..].into()));
    let given_up = tokio::spawn(given_up.into_future());
    let call = peer.next_full_request().await;
    given_up.abort();
    peer.until("the reset", |it| it.stream(call).reset.is_some())
        .await;
    let late = Frame::data(call, message(b"x"));
    for at in 1..=100 {
        peer.write(std::slice::from_ref(&late)).await;
        assert!(peer.settle().await, "{at}");
    }
    peer.write(&[late]).await;
    let status = within("the end", neighbour).await.expect("no panic");
    let status = status.expect_err("the connection is gone");
    let message = status.message();
    assert!(message.contains("error_reset_budget"), "{message}");
    assert_cut_off(&mut peer, "too_many_internal_resets").await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_late_for_calls_given_up_is_no_error_in_seven_days() {
    let mut limits = ChannelLimits::default();
    limits.http2.error_reset_budget = 100;
    // As if each were long forgotten.
    limits.http2.max_concurrent_reset_streams = 0;
    let (client, mut peer) = raw_server(limits).await;
    for minute in 0..7 * 24 * 60 {
        let call = client.unary::<Raw, Raw>(Probe::HOLD, Raw(b"x"[..].into()));
        let call = tokio::spawn(call.into_future());
        let stream = peer.next_full_request().await;
        call.abort();
        peer.until("the reset", |it| it.stream(stream).reset.is_some())
            .await;
        let late = Frame::data(stream, message(b"x"));
        peer.write(&[late.clone(), late.clone(), late]).await;
        tokio::time::sleep(MINUTE).await;
        assert!(peer.settle().await, "{minute}: {:?}", peer.goaway());
    }
}

/// A proxy on Jetty sends an empty DATA frame before the trailers of each response, and h2 takes a hundred in
/// the life of a connection.
#[tokio::test(start_paused = true)]
async fn responses_with_an_empty_frame_each_are_no_abuse() {
    let (client, mut peer) = raw_server(ChannelLimits::default()).await;
    let ok = Fields::new().and("grpc-status", "0");
    for at in 0..1_000 {
        let call = client.unary::<Raw, Raw>(Probe::ECHO, Raw(b"x"[..].into()));
        let call = tokio::spawn(call.into_future());
        let stream = peer.next_full_request().await;
        peer.write(&[
            Frame::headers(stream, &Fields::response()),
            Frame::data(stream, message(b"y")),
            Frame::data(stream, ""),
            Frame::headers(stream, &ok).ending(),
        ])
        .await;
        let response = within("a response", call).await.expect("no panic");
        assert!(response.is_ok(), "call {at}: {response:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_with_an_empty_frame_each_are_no_abuse_and_empty_frames_without_end_are() {
    let (server, _) = server();
    let mut client = raw_client(server).await;
    for _ in 0..1_000 {
        let stream = client.next_stream();
        client
            .write(&[
                Frame::headers(stream, &Fields::call(ECHO)),
                Frame::data(stream, ""),
                Frame::data(stream, message(b"x")),
                Frame::data(stream, "").ending(),
            ])
            .await;
        assert_eq!(client.outcome(stream).await, OK, "{:?}", client.goaway());
    }
    for data in ["", "x"] {
        let (server, probe) = self::server();
        let mut client = raw_client(server).await;
        let stream = client.next_stream();
        client
            .write(&[Frame::headers(stream, &Fields::call(DEAF))])
            .await;
        for _ in 0..30 {
            client.write(&vec![Frame::data(stream, data); 500]).await;
            if !client.settle().await {
                break;
            }
        }
        assert_cut_off(&mut client, "too_many_data_frames").await;
        probe.until("no handlers", |it| it.running == 0).await;
    }
}

/// Small frames that come late, at either end, which h2 would count for as long as the connection lives.
#[tokio::test(start_paused = true)]
async fn small_messages_that_come_late_use_up_no_budget() {
    let narrow = |limits: &mut Http2Limits| limits.initial_connection_window_size = 65_535;
    let (server, _) = server();
    let mut client = raw_client(server.with_limits(|it| narrow(&mut it.http2))).await;
    for at in 0..200 {
        let upload = client.next_stream();
        let data = Frame::data(upload, message(b"x"));
        let head = Frame::headers(upload, &Fields::call(REFUSE));
        client.write(&[head, data.clone()]).await;
        client.until_end(upload).await;
        client.write(&vec![data; 100]).await;
        assert!(client.settle().await, "{at}: {:?}", client.goaway());
    }
    let mut limits = ChannelLimits::default();
    narrow(&mut limits.http2);
    let (client, mut peer) = raw_server(limits).await;
    for at in 0..200 {
        let call = client.unary::<Raw, Raw>(Probe::HOLD, Raw(b"x"[..].into()));
        let call = tokio::spawn(call.into_future());
        let stream = peer.next_full_request().await;
        call.abort();
        peer.until("the reset", |it| it.stream(stream).reset.is_some())
            .await;
        peer.write(&vec![Frame::data(stream, message(b"y")); 100])
            .await;
        assert!(peer.settle().await, "{at}: {:?}", peer.goaway());
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_comes_too_soon_once_a_day_is_forgiven_and_one_each_hour_is_not() {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    let (day, never) = (24 * HOUR, Duration::MAX);
    for (pause, forgiven_after, is_kept) in
        [(day, day, true), (day, never, false), (HOUR, day, false)]
    {
        let (server, probe) = server();
        let server = server.with_limits(|limits| limits.ping_strike_time = forgiven_after);
        let mut client = raw_client(server).await;
        // A long poll: for days the server sends nothing.
        let long_poll = begin(&mut client, HOLD).await;
        for _ in 0..7 {
            client.write(&[Frame::ping(1)]).await;
            tokio::time::sleep(SECOND).await;
            client.write(&[Frame::ping(2)]).await;
            let quiet = Instant::now();
            while quiet.elapsed() < pause && client.settle().await {
                tokio::time::sleep(MINUTE).await;
            }
        }
        if is_kept {
            probe.release(1);
            assert_eq!(client.outcome(long_poll).await, OK);
        } else {
            assert_cut_off(&mut client, "too_many_pings").await;
        }
    }
}

/// Measuring the bandwidth, asking whether the other end is there, and a window for each message.
#[tokio::test(start_paused = true)]
async fn seven_days_of_messages_with_the_frames_that_go_with_them_use_up_no_budget() {
    let (server, _) = server();
    let mut client = raw_client(server).await;
    let chat = client.next_stream();
    client
        .write(&[Frame::headers(chat, &Fields::call(CHAT))])
        .await;
    for minute in 1..=7 * 24 * 60_usize {
        client.write(&[Frame::data(chat, message(b"x"))]).await;
        client
            .until("the message", |it| it.stream(chat).data_frames == minute)
            .await;
        client
            .write(&[
                Frame::window_update(0, 6),
                Frame::window_update(chat, 6),
                Frame::ping(1),
                Frame::new(kind::PRIORITY, 0, chat, vec![0, 0, 0, 0, 1]),
                Frame::new(0xfa, 0, 0, vec![0]),
            ])
            .await;
        tokio::time::sleep(MINUTE).await;
        assert!(!client.is_closed(), "{minute}: {:?}", client.goaway());
    }
    is_served(&mut client, "after seven days").await;
}
