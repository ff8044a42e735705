//! Calls that a server has not taken are made again, without their caller's noticing, and no call is
//! ever made twice that a server may have taken.

use std::future::IntoFuture;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use trunkline::{
    Channel, Client, Code, Method, Next, Raw, Response, Result, Sender, Status, Streaming,
};
use trunkline_testkit::{
    Fields, Frame, MemoryListener, MemoryNet, RawPeer, error, message, setting, within,
};

const A: &str = "10.0.0.1:1";
const METHOD: Method = Method::new("/test.Raw/Method");

type Peer = RawPeer<DuplexStream>;

fn response(stream: u32) -> Vec<Frame> {
    vec![
        Frame::headers(stream, &Fields::response()),
        Frame::data(stream, message(b"response")),
        Frame::headers(stream, &Fields::trailers("0")).ending(),
    ]
}

/// A channel to raw peers.
fn rig() -> (Channel, MemoryListener) {
    let net = MemoryNet::default();
    let listener = net.listen(A);
    let channel = Channel::to(A).connector(net.connector()).connect_lazy();
    (channel.expect("an address"), listener)
}

fn unary(client: &Client, request: &'static [u8]) -> JoinHandle<Result<Response<Raw>>> {
    let call = client.unary::<Raw, Raw>(METHOD, Raw(request.into()));
    tokio::spawn(call.timeout(Duration::from_secs(100)).into_future())
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// The two ways in which a server says that it has done nothing with a call. Gives the connection on
/// which the next attempt is to come.
async fn refuse(mut peer: Peer, stream: u32, how: &str, listener: &mut MemoryListener) -> Peer {
    match how {
        "REFUSED_STREAM" => {
            peer.write(&[Frame::rst_stream(stream, error::REFUSED_STREAM)])
                .await;
            peer
        }
        _ => {
            let goaway = Frame::goaway(stream - 1, error::NO_ERROR, "going");
            peer.write(&[goaway]).await;
            let next = listener.accept().await;
            drop(peer);
            next
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_server_has_not_taken_is_made_again_once() {
    for how in ["REFUSED_STREAM", "GOAWAY"] {
        for refusals in [0, 1, 2] {
            let (channel, mut listener) = rig();
            let call = unary(&Client::new(channel), b"request");
            let mut peer = listener.accept().await;
            for refusal in 0..refusals {
                let stream = peer.next_full_request().await;
                peer = match (how, refusal) {
                    ("GOAWAY", 1) => {
                        let goaway = Frame::goaway(stream - 1, error::NO_ERROR, "going");
                        peer.write(&[goaway]).await;
                        peer
                    }
                    _ => refuse(peer, stream, how, &mut listener).await,
                };
            }
            let name = format!("{how}, {refusals} times");
            if refusals < 2 {
                let stream = peer.next_full_request().await;
                let request = peer.stream(stream);
                assert_eq!(request.messages(), [&b"request"[..]], "{name}");
                let timeout = request.head.expect("a head").text("grpc-timeout");
                assert_eq!(timeout.as_deref(), Some("100000m"), "{name}");
                peer.write(&response(stream)).await;
                let response = within(&name, call).await.expect("no panic");
                assert_eq!(response.expect("a response").0, "response");
            } else {
                let response = within(&name, call).await.expect("no panic");
                assert_eq!(
                    response.expect_err("refused").code(),
                    Code::UNAVAILABLE,
                    "{name}"
                );
                settle().await;
                assert_eq!(
                    (peer.waiting_requests(), listener.waiting()),
                    (0, 0),
                    "{name}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_server_may_have_taken_is_not_made_again() {
    type Answer = fn(u32) -> Vec<Frame>;
    let cases: [(&str, Answer); 6] = [
        ("a reset", |it| vec![Frame::rst_stream(it, error::CANCEL)]),
        ("an internal error", |it| {
            vec![Frame::rst_stream(it, error::INTERNAL_ERROR)]
        }),
        ("refused behind a head", |it| {
            let head = Frame::headers(it, &Fields::response());
            vec![head, Frame::rst_stream(it, error::REFUSED_STREAM)]
        }),
        ("GOAWAY that covers it", |it| {
            vec![Frame::goaway(it, error::NO_ERROR, "going")]
        }),
        ("GOAWAY that covers it, of an error", |it| {
            vec![Frame::goaway(it, error::ENHANCE_YOUR_CALM, "too much")]
        }),
        ("the end", |_| Vec::new()),
    ];
    for (name, frames) in cases {
        let (channel, mut listener) = rig();
        let client = Client::new(channel);
        let call = unary(&client, b"request");
        let mut peer = listener.accept().await;
        let stream = peer.next_full_request().await;
        peer.write(&frames(stream)).await;
        peer.shut_down().await;
        let status = within(name, call).await.expect("no panic");
        status.expect_err(name);
        settle().await;
        assert_eq!(
            (peer.waiting_requests(), listener.waiting()),
            (0, 0),
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn each_of_many_calls_around_a_goaway_is_served_once() {
    const CALLS: u32 = 40;
    for taken in 0..=CALLS {
        for early in [false, true] {
            let (channel, mut listener) = rig();
            let client = Client::new(channel);
            let calls: Vec<_> = (0..CALLS).map(|_| unary(&client, b"request")).collect();
            let mut peer = listener.accept().await;
            let mut streams = Vec::new();
            for _ in 0..CALLS {
                streams.push(peer.next_full_request().await);
            }
            let last = taken.checked_sub(1).map_or(0, |at| streams[at as usize]);
            if early {
                // As a server does that drains: it closes with the last stream it has taken.
                let first = Frame::goaway((1 << 31) - 1, error::NO_ERROR, "going");
                peer.write(&[first]).await;
            }
            let mut frames = vec![Frame::goaway(last, error::NO_ERROR, "gone")];
            frames.extend(
                streams
                    .iter()
                    .take(taken as usize)
                    .flat_map(|it| response(*it)),
            );
            peer.write(&frames).await;
            if taken < CALLS {
                let mut next = listener.accept().await;
                for _ in taken..CALLS {
                    let stream = next.next_full_request().await;
                    next.write(&response(stream)).await;
                }
                assert_eq!(next.waiting_requests(), 0);
                for call in calls {
                    let response = within("a call", call).await.expect("no panic");
                    response.expect("each is served");
                }
                continue;
            }
            for call in calls {
                let response = within("a call", call).await.expect("no panic");
                response.expect("each is served");
            }
            assert_eq!(listener.waiting(), 0, "all were taken");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_passes_through_interceptors_and_layers_once() {
    let (channel, mut listener) = rig();
    let count = Arc::new(AtomicUsize::new(0));
    let counting = count.clone();
    let layered = Channel::new(channel.clone());
    let intercepted = channel.intercept(move |mut cx: trunkline::Context, next: Next| {
        counting.fetch_add(1, Ordering::Relaxed);
        async move { next.run(&mut cx).await }
    });
    let mut peer = None;
    for channel in [intercepted, layered] {
        let call = unary(&Client::new(channel), b"request");
        if peer.is_none() {
            peer = Some(listener.accept().await);
        }
        let peer = peer.as_mut().expect("it is there");
        let stream = peer.next_full_request().await;
        let before = peer.stream(stream);
        peer.write(&[Frame::rst_stream(stream, error::REFUSED_STREAM)])
            .await;
        let stream = peer.next_full_request().await;
        let after = peer.stream(stream);
        assert_eq!(before.messages(), after.messages());
        peer.write(&response(stream)).await;
        within("the call", call)
            .await
            .expect("no panic")
            .expect("a response");
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn metadata_and_large_messages_are_sent_again_as_they_were() {
    let (channel, mut listener) = rig();
    let large = Raw(vec![7; 300_000].into());
    let call = Client::new(channel).unary::<Raw, Raw>(METHOD, large.clone());
    let call = call
        .metadata("key", "value")
        .metadata_bin("key-bin", [1, 2]);
    let call = tokio::spawn(call.into_future());
    let mut peer = listener.accept().await;
    let stream = peer.next_full_request().await;
    peer.write(&[Frame::rst_stream(stream, error::REFUSED_STREAM)])
        .await;
    let stream = peer.next_full_request().await;
    let request = peer.stream(stream);
    assert_eq!(request.messages(), [&large.0]);
    let head = request.head.expect("a head");
    assert_eq!(
        (head.text("key"), head.text("key-bin")),
        (Some("value".into()), Some("AQI".into()))
    );
    peer.write(&response(stream)).await;
    within("the call", call)
        .await
        .expect("no panic")
        .expect("a response");
}

/// A bidirectional call whose stream is open.
async fn streaming(
    client: &Client,
    listener: &mut MemoryListener,
) -> (Sender<Raw>, Streaming<Raw>, Peer, u32) {
    let call = client.bidi_streaming::<Raw, Raw>(METHOD);
    let call = tokio::spawn(call.into_future());
    let mut peer = listener.accept().await;
    let stream = peer.next_request().await;
    let (sender, responses) = within("the call", call)
        .await
        .expect("no panic")
        .expect("open");
    (sender, responses, peer, stream)
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_requests_is_made_again_if_nothing_was_sent_yet_and_fails_otherwise() {
    for how in ["REFUSED_STREAM", "GOAWAY"] {
        for sends_before in [false, true] {
            let (channel, mut listener) = rig();
            let client = Client::new(channel);
            let (mut sender, mut responses, mut peer, stream) =
                streaming(&client, &mut listener).await;
            if sends_before {
                sender.send(Raw("early".into())).await.expect("it is open");
                peer.until("a message", |it| !it.stream(stream).data.is_empty())
                    .await;
            }
            let reading = tokio::spawn(async move { responses.message().await });
            if sends_before && how == "GOAWAY" {
                let goaway = Frame::goaway(stream - 1, error::NO_ERROR, "going");
                peer.write(&[goaway]).await;
            } else {
                peer = refuse(peer, stream, how, &mut listener).await;
            }
            if sends_before {
                let status: Status = within(how, reading)
                    .await
                    .expect("no panic")
                    .expect_err(how);
                assert_eq!(status.code(), Code::UNAVAILABLE, "{how}: {status}");
                settle().await;
                assert_eq!(
                    (peer.waiting_requests(), listener.waiting()),
                    (0, 0),
                    "{how}"
                );
                continue;
            }
            let stream = peer.next_request().await;
            sender.send(Raw("late".into())).await.expect("it is open");
            sender.finish();
            peer.until_end(stream).await;
            assert_eq!(peer.stream(stream).messages(), [&b"late"[..]], "{how}");
            peer.write(&response(stream)).await;
            let message = within(how, reading)
                .await
                .expect("no panic")
                .expect("a message");
            assert_eq!(message.expect("one").0, "response", "{how}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_begin_around_a_goaway_are_all_served() {
    // Calls are begun in every order around the GOAWAY, which says that none but the first was taken.
    for yields in 0..12 {
        let (channel, mut listener) = rig();
        let client = Client::new(channel);
        let first = unary(&client, b"first");
        let mut peer = listener.accept().await;
        let stream = peer.next_full_request().await;
        let mut frames = vec![Frame::goaway(stream, error::NO_ERROR, "going")];
        frames.extend(response(stream));
        peer.write(&frames).await;
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        let calls: Vec<_> = (0..5).map(|_| unary(&client, b"later")).collect();
        let mut next = listener.accept().await;
        for _ in 0..5 {
            let stream = next.next_full_request().await;
            next.write(&response(stream)).await;
        }
        for call in calls.into_iter().chain([first]) {
            let response = within("a call", call).await.expect("no panic");
            response.expect("each is served");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_response_to_a_large_request_resets_the_stream_and_the_next_call_goes_on() {
    // With its prefix one byte more than usually leaves at once; the server opens no window for it.
    for size in [65_531, 200_000] {
        let (channel, mut listener) = rig();
        let client = Client::new(channel);
        let call = client.unary::<Raw, Raw>(METHOD, Raw(vec![7; size].into()));
        let call = tokio::spawn(call.into_future());
        let no_window = [
            (setting::INITIAL_WINDOW_SIZE, 0),
            (setting::MAX_CONCURRENT_STREAMS, 1),
        ];
        let mut peer = listener.accept_with(&no_window).await;
        let stream = peer.next_request().await;
        peer.write(&response(stream)).await;
        within("the call", call)
            .await
            .expect("no panic")
            .expect("a response");
        let what = "RST_STREAM with NO_ERROR";
        peer.until(what, |it| it.stream(stream).reset == Some(error::NO_ERROR))
            .await;
        assert_eq!(peer.stream(stream).data.len(), 0);
        let next = unary(&client, b"");
        let stream = peer.next_request().await;
        peer.write(&response(stream)).await;
        next.abort();
    }
}

type Calling = Pin<Box<dyn Future<Output = Result<Response<Raw>>> + Send>>;

/// Begins a call in the very moment in which it is woken.
struct BeginsWhenWoken {
    call: Mutex<Option<Calling>>,
    begun: Notify,
}

impl Wake for BeginsWhenWoken {
    fn wake(self: Arc<Self>) {
        let mut call = self.call.lock().expect("no panic");
        let polled = call.as_mut().expect("a call").as_mut();
        let polled = polled.poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "{polled:?}");
        self.begun.notify_one();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_not_lost_between_a_goaway_and_the_client_noticing() {
    let (channel, mut listener) = rig();
    let client = Client::new(channel);
    let call = client.server_streaming::<Raw, Raw>(METHOD, Raw("stream".into()));
    let call = tokio::spawn(call.into_future());
    let mut peer = listener.accept().await;
    let stream = peer.next_full_request().await;
    peer.write(&[Frame::headers(stream, &Fields::response())])
        .await;
    let mut responses = within("the call", call)
        .await
        .expect("no panic")
        .expect("open");
    within("the head", responses.head()).await.expect("a head");
    let unary = client.unary::<Raw, Raw>(METHOD, Raw("request".into()));
    let waker = Arc::new(BeginsWhenWoken {
        call: Mutex::new(Some(unary.into_future())),
        begun: Notify::new(),
    });
    {
        let reading = pin!(responses.message());
        let polled = reading.poll(&mut Context::from_waker(&waker.clone().into()));
        assert!(polled.is_pending());
    }
    // HTTP/2 knows of both when the reader of the message is woken, and the channel of neither.
    let message = Frame::data(stream, message(b"message"));
    let goaway = Frame::goaway(stream, error::NO_ERROR, "going");
    peer.write(&[message, goaway]).await;
    within("the wake", waker.begun.notified()).await;
    let call = waker.call.lock().expect("no panic").take().expect("a call");
    let call = tokio::spawn(call);
    let mut next = listener.accept().await;
    let stream = next.next_full_request().await;
    assert_eq!(next.stream(stream).messages(), [&b"request"[..]]);
    next.write(&response(stream)).await;
    within("the call", call)
        .await
        .expect("no panic")
        .expect("a response");
    assert_eq!(peer.waiting_requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sender_hears_of_the_end_of_its_call_though_nobody_reads_and_nothing_was_sent() {
    let reset = |stream, code| vec![Frame::rst_stream(stream, code)];
    let goaway = |stream| vec![Frame::goaway(stream - 1, error::NO_ERROR, "going")];
    for (how, at_once) in [
        ("CANCEL", true),
        ("connection lost", true),
        ("REFUSED_STREAM", false),
        ("GOAWAY", false),
    ] {
        for sends in [false, true] {
            let (channel, mut listener) = rig();
            let client = Client::new(channel);
            let (mut sender, mut responses, mut peer, stream) =
                streaming(&client, &mut listener).await;
            match how {
                "CANCEL" => peer.write(&reset(stream, error::CANCEL)).await,
                "REFUSED_STREAM" => peer.write(&reset(stream, error::REFUSED_STREAM)).await,
                "GOAWAY" => peer.write(&goaway(stream)).await,
                _ => drop(peer),
            }
            settle().await;
            let began = tokio::time::Instant::now();
            match sends {
                false => within(how, sender.closed()).await,
                true => {
                    let sending =
                        async { while sender.send(Raw(vec![7; 1024].into())).await.is_ok() {} };
                    within(how, sending).await;
                }
            }
            let waited = began.elapsed();
            assert_eq!(waited.is_zero(), at_once, "{how}: {waited:?}");
            assert!(waited <= Duration::from_secs(1), "{how}: {waited:?}");
            let status = within(how, responses.message()).await.expect_err(how);
            let wanted = match how {
                "CANCEL" => Code::CANCELLED,
                _ => Code::UNAVAILABLE,
            };
            assert_eq!(status.code(), wanted, "{how}: {status}");
            assert_eq!(listener.waiting(), 0, "{how}: it is not made again");
        }
    }
}
