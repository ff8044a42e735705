//! Heads and trailers larger than their receiver takes: the call that they belong to ends with a status that says so,
//! and its neighbours on the connection never notice. In all four directions, between ends of ours, and against peers
//! that announce another limit, none, or do not keep to ours.

use bytes::{Bytes, BytesMut};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use trunkline::details::DebugInfo;
use trunkline::{
    Channel, Client, Code, Limits, Method, Raw, Reply, Request, Result, Router, Sender, Server,
    Service, Status, Streaming,
};
use trunkline_testkit::{
    Fields, Frame, Outcome, Probe, RawPeer, channel_over, error, flag, kind, message, pair,
    setting, within,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const FILL: Method = Method::new("/test.Large/Fill");
const FILL_STREAM: Method = Method::new("/test.Large/FillStream");
const ECHO: &str = "/test.Probe/Echo";
const HOLD: &str = "/test.Probe/Hold";
const OK: Outcome = Outcome::Answered(200, 0);
const EXHAUSTED: Outcome = Outcome::Answered(200, 8);

/// Answers with as much metadata as it is asked for, in the place that it is asked for.
#[derive(Clone)]
struct Large;

impl Service for Large {
    const NAME: &'static str = "test.Large";

    fn add_to(self, router: &mut Router) {
        let service = std::sync::Arc::new(self);
        router.unary(FILL, &service, |_, request: Request<Raw>| async move {
            fill(&request.0, request.reply())?;
            Ok(Raw("done".into()))
        });
        router.server_streaming(
            FILL_STREAM,
            &service,
            |_, request: Request<Raw>, mut replies: Sender<Raw>| async move {
                if !request.0.starts_with(b"head") {
                    replies.send(Raw("one".into())).await?;
                    tokio::task::yield_now().await;
                }
                fill(&request.0, request.reply())?;
                replies.send(Raw("last".into())).await
            },
        );
    }
}

/// What `WHERE SIZE FIELDS` asks for.
fn fill(wanted: &Bytes, reply: &Reply) -> Result<()> {
    let wanted = String::from_utf8_lossy(wanted).into_owned();
    let mut words = wanted.split(' ');
    let place = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
    let (size, fields): (usize, usize) = (number(), number());
    let not_found = || Status::not_found("no such thing");
    match place {
        "details" => {
            let mut info = DebugInfo::default();
            info.detail = "d".repeat(size);
            return Err(not_found().with_detail(info));
        }
        "message" => return Err(Status::not_found("m".repeat(size))),
        _ => {}
    }
    let mut status = not_found();
    for field in 0..fields {
        let (key, value) = (format!("k{field}"), "v".repeat(size / fields));
        match place {
            "head" | "head-error" => reply.metadata(&key, &value)?,
            "trailers" => reply.trailer(&key, &value)?,
            _ => status.metadata_mut().append(&key, &value).expect("a pair"),
        }
    }
    match place {
        "status" => Err(status),
        "head-error" => Err(not_found()),
        _ => Ok(()),
    }
}

fn wanted(place: &str, size: usize, fields: usize) -> Raw {
    Raw(format!("{place} {size} {fields}").into())
}

/// A call that is open on the connection all the while.
struct Neighbour {
    sender: Sender<Raw>,
    replies: Streaming<Raw>,
}

impl Neighbour {
    async fn of(client: &Client) -> Self {
        let call = client.bidi_streaming::<Raw, Raw>(Probe::CHAT);
        let (sender, replies) = call.await.expect("an open stream");
        let mut neighbour = Self { sender, replies };
        neighbour.check("the beginning").await;
        neighbour
    }

    async fn check(&mut self, after: &str) {
        let round = async {
            self.sender.send(Raw("ping".into())).await?;
            self.replies.message().await
        };
        let reply = within("the neighbour's reply", round).await;
        let reply = reply.unwrap_or_else(|status| panic!("the neighbour after {after}: {status}"));
        assert_eq!(reply.expect("a message").0, "ping", "{after}");
    }
}

fn server() -> (Server, Probe) {
    let probe = Probe::new();
    (Server::new().add(probe.clone()).add(Large), probe)
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

async fn unary(client: &Client, request: Raw) -> Result<()> {
    let call = client.unary::<Raw, Raw>(FILL, request);
    within("a unary call", call.into_future()).await.map(|_| ())
}

/// How many messages came, and how the call ended.
async fn streaming(client: &Client, request: Raw) -> (usize, Result<()>) {
    let mut messages = 0;
    let call = client.server_streaming::<Raw, Raw>(FILL_STREAM, request);
    let ended = within("a stream", async {
        let mut replies = call.await?;
        while replies.message().await?.is_some() {
            messages += 1;
        }
        Ok(())
    });
    let ended = ended.await;
    (messages, ended)
}

#[track_caller]
fn assert_says(result: Result<()>, code: Code, texts: &[&str]) {
    let status = result.expect_err("the call fails");
    assert_eq!(status.code(), code, "{status}");
    for text in texts {
        assert!(status.message().contains(text), "{text:?} in: {status}");
    }
}

// Both ends are ours.

#[tokio::test]
async fn request_metadata_of_40_kb_and_200_kb_fails_its_call_and_no_other() {
    let (server, probe) = server();
    let client = Client::new(pair(server, Limits::default()).await);
    let mut neighbour = Neighbour::of(&client).await;
    let called = probe.counts().called;
    for size in [40_000, 200_000, 2_000_000] {
        for fields in [1, 40] {
            let mut call = client.unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()));
            for field in 0..fields {
                call = call.metadata(&format!("k{field}"), &"v".repeat(size / fields));
            }
            let result = within("the call", call.into_future()).await.map(|_| ());
            assert_says(result, Code::RESOURCE_EXHAUSTED, &["32768", "metadata"]);
            neighbour.check(&format!("{fields} fields of {size}")).await;
        }
    }
    assert_eq!(
        probe.counts().called,
        called,
        "nothing has reached a handler"
    );
}

#[tokio::test]
async fn reply_metadata_of_40_kb_and_200_kb_fails_its_call_and_no_other() {
    let (server, _) = server();
    let client = Client::new(pair(server, Limits::default()).await);
    let mut neighbour = Neighbour::of(&client).await;
    for size in [40_000, 200_000, 2_000_000] {
        for fields in [1, 40] {
            let after = format!("{fields} fields of {size}");
            let says = ["response headers", "32768"];
            let result = unary(&client, wanted("head", size, fields)).await;
            assert_says(result, Code::RESOURCE_EXHAUSTED, &says);
            neighbour.check(&after).await;
            let (messages, result) = streaming(&client, wanted("head", size, fields)).await;
            assert_says(result, Code::RESOURCE_EXHAUSTED, &says);
            assert_eq!(messages, 0);
            neighbour.check(&after).await;
        }
    }
}

#[tokio::test]
async fn trailers_of_40_kb_and_200_kb_fail_a_call_that_was_ok_and_no_other() {
    let (server, _) = server();
    let client = Client::new(pair(server, Limits::default()).await);
    let mut neighbour = Neighbour::of(&client).await;
    for size in [40_000, 200_000, 2_000_000] {
        for fields in [1, 40] {
            let after = format!("{fields} fields of {size}");
            let says = ["trailers", "32768"];
            let result = unary(&client, wanted("trailers", size, fields)).await;
            assert_says(result, Code::RESOURCE_EXHAUSTED, &says);
            neighbour.check(&after).await;
            let (messages, result) = streaming(&client, wanted("trailers", size, fields)).await;
            assert_says(result, Code::RESOURCE_EXHAUSTED, &says);
            assert_eq!(messages, 2);
            neighbour.check(&after).await;
        }
    }
}

#[tokio::test]
async fn a_status_too_large_to_send_keeps_its_code_and_message_and_says_what_was_left_out() {
    let (server, _) = server();
    let client = Client::new(pair(server, Limits::default()).await);
    let mut neighbour = Neighbour::of(&client).await;
    for size in [40_000, 200_000, 2_000_000] {
        for (place, left_out) in [
            ("details", "details"),
            ("status", "metadata"),
            ("head-error", "metadata"),
        ] {
            let says = ["no such thing", left_out, "32768"];
            let result = unary(&client, wanted(place, size, 1)).await;
            assert_says(result, Code::NOT_FOUND, &says);
            neighbour.check(&format!("{place} of {size}")).await;
            let (messages, result) = streaming(&client, wanted(place, size, 1)).await;
            assert_says(result, Code::NOT_FOUND, &says);
            assert_eq!(messages, usize::from(place != "head-error"));
            neighbour
                .check(&format!("{place} of {size}, in a stream"))
                .await;
        }
    }
    // What fits is not touched.
    let call = client.unary::<Raw, Raw>(FILL, wanted("details", 20_000, 1));
    let status = call.await.expect_err("as asked");
    assert_eq!(status.message(), "no such thing");
    assert_eq!(
        status.detail::<DebugInfo>().expect("it").detail.len(),
        20_000
    );
}

#[tokio::test]
async fn a_call_in_process_has_no_limits_but_that_for_its_request() {
    let router = Router::new().add(Probe::new()).add(Large);
    let client = Client::new(Channel::in_process(router));
    let call = client.unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()));
    let call = call.metadata("k", &"v".repeat(40_000));
    let result = call.await.map(|_| ());
    assert_says(result, Code::RESOURCE_EXHAUSTED, &["16384"]);
    for place in ["head", "trailers"] {
        let result = unary(&client, wanted(place, 200_000, 1)).await;
        result.expect("OK");
    }
}

// A raw client: what a server of ours puts on the wire.

async fn raw_client(settings: &[(u16, u32)]) -> (RawPeer<DuplexStream>, Probe) {
    let (server, probe) = server();
    let (near, far) = tokio::io::duplex(MIB);
    tokio::spawn(server.serve_connection(far));
    (RawPeer::client(near, settings).await, probe)
}

#[tokio::test]
async fn what_a_server_sends_stays_below_what_its_client_announced() {
    for announced in [None, Some(16_384), Some(8_192), Some(4_096), Some(300)] {
        let settings: Vec<_> = announced
            .map(|size| (setting::MAX_HEADER_LIST_SIZE, size))
            .into_iter()
            .collect();
        let (mut client, probe) = raw_client(&settings).await;
        let limit = announced.unwrap_or(65_536) as usize;
        let neighbour = client.call(&Fields::call(HOLD), message(b"x")).await;
        probe.until("the neighbour", |it| it.running == 1).await;
        for (place, code) in [
            ("head", 8),
            ("trailers", 8),
            ("details", 5),
            ("status", 5),
            ("message", 5),
        ] {
            for size in [limit, 40_000, 200_000] {
                for path in ["/test.Large/Fill", "/test.Large/FillStream"] {
                    let name = format!("{place} of {size}, {announced:?}, {path}");
                    let request = message(&wanted(place, size, 1).0);
                    let stream = client.call(&Fields::call(path), request).await;
                    let outcome = client.outcome(stream).await;
                    let received = client.stream(stream);
                    let all = [received.head.clone(), received.trailers.clone()];
                    let sizes: Vec<_> = all.iter().flatten().map(Fields::list_size).collect();
                    assert!(sizes.iter().all(|it| *it < limit), "{name}: {sizes:?}");
                    // Up to 64 KiB is sent to a client that names no limit.
                    if size < limit {
                        continue;
                    }
                    assert_eq!(outcome, Outcome::Answered(200, code), "{name}");
                }
            }
        }
        probe.release(1);
        assert_eq!(client.outcome(neighbour).await, OK, "{announced:?}");
    }
}

#[tokio::test]
async fn a_message_is_cut_only_when_there_is_nothing_else_to_leave_out() {
    let (mut client, _) = raw_client(&[(setting::MAX_HEADER_LIST_SIZE, 2_000)]).await;
    for (place, message_size, expected) in [
        // The note fits, and the message is what is left of the room.
        ("message 4000 1", 1_500..2_000, "mmmm"),
        ("details 4000 1", 20..300, "no such thing"),
        ("status 4000 1", 20..300, "no such thing"),
    ] {
        let stream = client
            .call(&Fields::call("/test.Large/Fill"), message(place.as_bytes()))
            .await;
        let outcome = client.outcome(stream).await;
        assert_eq!(outcome, Outcome::Answered(200, 5), "{place}");
        let text = client.stream(stream).grpc_message();
        assert!(text.starts_with(expected), "{place}: {text}");
        assert!(
            message_size.contains(&text.len()),
            "{place}: {}",
            text.len()
        );
        assert_eq!(client.stream(stream).count("grpc-status-details-bin"), 0);
    }
}

#[tokio::test]
async fn a_limit_that_a_client_changes_counts_from_then_on() {
    let (mut client, _) = raw_client(&[]).await;
    let request = message(&wanted("trailers", 10_000, 1).0);
    for (announce, expected) in [
        (None, OK),
        (Some(8_192), EXHAUSTED),
        (None, EXHAUSTED),
        (Some(12_000), OK),
    ] {
        let pairs: Vec<_> = announce
            .map(|size| (setting::MAX_HEADER_LIST_SIZE, size))
            .into_iter()
            .collect();
        client.write(&[Frame::settings(&pairs)]).await;
        let head = Fields::call("/test.Large/Fill");
        let stream = client.call(&head, request.clone()).await;
        assert_eq!(client.outcome(stream).await, expected, "{announce:?}");
    }
}

#[tokio::test]
async fn request_heads_of_40_kb_and_200_kb_are_answered_with_a_status_and_their_neighbour_lives() {
    let (mut client, probe) = raw_client(&[]).await;
    let neighbour = client.call(&Fields::call(HOLD), message(b"x")).await;
    probe.until("the neighbour", |it| it.running == 1).await;
    let http = Fields::call(ECHO).with("content-type", "text/plain");
    for (size, head, expected) in [
        (40_000, Fields::call(ECHO), EXHAUSTED),
        (100_000, Fields::call(ECHO), EXHAUSTED),
        (200_000, Fields::call(ECHO), EXHAUSTED),
        (200_000, http, Outcome::Answered(415, 2)),
        // Above what HTTP/2 decodes there is nobody to say more.
        (300_000, Fields::call(ECHO), Outcome::Http(431)),
    ] {
        for fields in [1, 40] {
            let mut head = head.clone();
            for _ in 0..fields {
                head = head.and("k", "v".repeat(size / fields));
            }
            let stream = client.next_stream();
            let mut frames = Frame::long_headers(stream, &head);
            frames.push(Frame::data(stream, message(b"x")).ending());
            client.write(&frames).await;
            let outcome = client.outcome(stream).await;
            assert_eq!(outcome, expected, "{fields} fields of {size}");
            if expected == EXHAUSTED {
                let text = client.stream(stream).grpc_message();
                assert!(text.contains("16384"), "{text}");
            }
        }
    }
    assert_eq!(probe.counts().called, 1, "none has reached a handler");
    probe.release(1);
    assert_eq!(client.outcome(neighbour).await, OK);
}

#[tokio::test]
async fn a_hundred_heads_of_200_kb_at_once_cost_no_more_than_their_calls() {
    let (mut client, _) = raw_client(&[]).await;
    let head = Fields::call(ECHO).and("k", "v".repeat(200_000));
    let mut streams = Vec::new();
    for _ in 0..100 {
        let stream = client.next_stream();
        let mut frames = Frame::long_headers(stream, &head);
        frames.push(Frame::data(stream, message(b"x")).ending());
        client.write(&frames).await;
        streams.push(stream);
    }
    for stream in streams {
        assert_eq!(client.outcome(stream).await, EXHAUSTED);
    }
    let stream = client.call(&Fields::call(ECHO), message(b"x")).await;
    assert_eq!(client.outcome(stream).await, OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_large_head_does_not_wait_for_a_permit() {
    let probe = Probe::new();
    let (near, far) = tokio::io::duplex(MIB);
    let server = Server::new().add(probe.clone()).max_concurrent_streams(1);
    tokio::spawn(server.serve_connection(far));
    let mut client = RawPeer::client(near, &[]).await;
    // A handler that cannot be dropped keeps its permit when its stream is gone.
    let head = Fields::call("/test.Probe/Block");
    let blocking = client.call(&head, message(b"x")).await;
    probe.until("the handler", |it| it.running == 1).await;
    client
        .write(&[Frame::rst_stream(blocking, error::CANCEL)])
        .await;
    assert!(client.settle().await);
    let stream = client.next_stream();
    let large = Fields::call(ECHO).and("k", "v".repeat(40_000));
    client.write(&Frame::long_headers(stream, &large)).await;
    assert_eq!(client.outcome(stream).await, EXHAUSTED);
    let text = client.stream(stream).grpc_message();
    assert!(text.contains("32768"), "{text}");
    probe.release(1);
}

// A raw server: what a client of ours puts on the wire, and makes of what comes.

/// A server that answers the path /test.Raw/KIND with what `answer` makes of it, and all others as it should.
type Answer = fn(u32, &str) -> Vec<Frame>;

async fn raw_server(
    settings: &'static [(u16, u32)],
    limits: Limits,
    answer: Answer,
) -> (Channel, JoinHandle<Vec<usize>>) {
    let (near, far) = tokio::io::duplex(MIB);
    let playing = tokio::spawn(async move {
        let mut peer = RawPeer::server(far, settings).await;
        let mut sizes = Vec::new();
        while let Some(stream) = peer.try_next_request().await {
            let head = peer.stream(stream).head.expect("a request has a head");
            sizes.push(head.list_size());
            let path = head.text(":path").unwrap_or_default();
            // These requests have no end.
            if !["/test.Raw/Neighbour", "/test.Raw/Upload"].contains(&&*path) {
                peer.until_end(stream).await;
            }
            let frames = match path.strip_prefix("/test.Raw/") {
                Some("Neighbour") => vec![
                    Frame::headers(stream, &Fields::reply()),
                    Frame::data(stream, message(b"early")),
                ],
                Some("Upload") => {
                    let end = Fields::trailers("5").and("grpc-message", "early");
                    let end = end.and("k", "v".repeat(200_000));
                    let mut frames = vec![Frame::headers(stream, &Fields::reply())];
                    let end = Frame::long_headers(stream, &end);
                    frames.extend(end);
                    frames[1].flags |= flag::END_STREAM;
                    frames
                }
                Some("Release") => neighbours_end(stream),
                Some(kind) => answer(stream, kind),
                None => Vec::new(),
            };
            peer.write(&frames).await;
        }
        sizes
    });
    let channel = channel_over(near, limits).await;
    (channel.expect("the peer speaks HTTP/2"), playing)
}

/// The end of the neighbour, whose stream is the first, and of the call that asks for it.
fn neighbours_end(stream: u32) -> Vec<Frame> {
    vec![
        Frame::data(1, message(b"late")),
        Frame::headers(1, &Fields::trailers("0")).ending(),
        Frame::headers(stream, &Fields::reply()),
        Frame::data(stream, message(b"x")),
        Frame::headers(stream, &Fields::trailers("0")).ending(),
    ]
}

const NEIGHBOUR: Method = Method::new("/test.Raw/Neighbour");
const RELEASE: Method = Method::new("/test.Raw/Release");

/// Opens a neighbour, has `calls` made, and finds it alive.
async fn beside_a_neighbour(channel: &Channel, calls: impl AsyncFnOnce(&Client)) {
    let client = Client::new(channel.clone());
    let call = client.bidi_streaming::<Raw, Raw>(NEIGHBOUR);
    let (_sender, mut replies) = call.await.expect("an open stream");
    let early = within("the neighbour", replies.message()).await;
    assert_eq!(early.expect("it is open").expect("a message").0, "early");
    calls(&client).await;
    let release = client.unary::<Raw, Raw>(RELEASE, Raw("x".into()));
    within("a good call", release.into_future())
        .await
        .expect("the connection lives");
    let late = within("the neighbour", replies.message()).await;
    assert_eq!(late.expect("it lives").expect("a message").0, "late");
}

async fn call_raw(client: &Client, path: &'static str) -> Result<()> {
    let call = client.unary::<Raw, Raw>(Method::new(path), Raw("x".into()));
    let unary = within("a call", call.into_future()).await.map(|_| ());
    let call = client.server_streaming::<Raw, Raw>(Method::new(path), Raw("x".into()));
    let streamed = within("a stream", async {
        let mut replies = call.await?;
        while replies.message().await?.is_some() {}
        Ok::<(), Status>(())
    });
    let codes = [&unary, &streamed.await].map(|it| it.as_ref().err().map(Status::code));
    assert_eq!(codes[0], codes[1], "unary and streaming: {path}");
    unary
}

#[tokio::test]
async fn a_request_larger_than_its_server_announced_is_not_sent_and_takes_no_stream() {
    const SETTINGS: &[(u16, u32)] = &[
        (setting::MAX_HEADER_LIST_SIZE, 8_192),
        (setting::MAX_CONCURRENT_STREAMS, 2),
    ];
    let answer: Answer = |stream, _| neighbours_end(stream)[2..].to_vec();
    let (channel, playing) = raw_server(SETTINGS, Limits::default(), answer).await;
    beside_a_neighbour(&channel, async |client| {
        for _ in 0..100 {
            for size in [8_000, 40_000, 200_000] {
                let call = client.unary::<Raw, Raw>(Method::new("/test.Raw/Any"), Raw("x".into()));
                let call = call.metadata("k", &"v".repeat(size));
                let result = within("the call", call.into_future()).await.map(|_| ());
                let says = ["8192", "SETTINGS_MAX_HEADER_LIST_SIZE"];
                assert_says(result, Code::RESOURCE_EXHAUSTED, &says);
            }
        }
        let call = client.unary::<Raw, Raw>(Method::new("/test.Raw/Any"), Raw("x".into()));
        let call = call.metadata("k", &"v".repeat(7_000));
        within("what fits", call.into_future()).await.expect("OK");
    })
    .await;
    drop(channel);
    let sizes = within("the end of the server", playing)
        .await
        .expect("no panic");
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size < 8_192), "{sizes:?}");
}

#[tokio::test]
async fn to_a_server_that_announces_nothing_up_to_64_kib_is_sent_or_what_the_limit_says() {
    let answer: Answer = |stream, _| neighbours_end(stream)[2..].to_vec();
    for (limits, fits, not) in [
        (Limits::default(), 65_000, 65_536),
        (
            limits(|limits| limits.max_send_header_list_size = 1_000_000),
            999_000,
            1_000_000,
        ),
    ] {
        let (channel, playing) = raw_server(&[], limits, answer).await;
        beside_a_neighbour(&channel, async |client| {
            let call = |size: usize| {
                let call = client.unary::<Raw, Raw>(Method::new("/test.Raw/Any"), Raw("x".into()));
                call.metadata("k", &"v".repeat(size)).into_future()
            };
            within("what fits", call(fits)).await.expect("OK");
            let result = within("what does not", call(not)).await.map(|_| ());
            let says = ["max_send_header_list_size", &not.to_string()];
            assert_says(result, Code::RESOURCE_EXHAUSTED, &says);
        })
        .await;
        drop(channel);
        let sizes = within("the end", playing).await.expect("no panic");
        assert_eq!(sizes.len(), 3, "{sizes:?}");
    }
}

/// What `first-40000-1` and the like stand for: trailers of 40,000 bytes in one field, behind the status.
fn large_trailers(stream: u32, kind: &str) -> Vec<Frame> {
    let large = |start: Fields, size: &str, fields: &str| {
        let (size, fields): (usize, usize) = (number(size), number(fields));
        (0..fields).fold(start, |all, _| all.and("k", "v".repeat(size / fields)))
    };
    let words: Vec<_> = kind.split('-').collect();
    let end = |fields: &Fields| {
        let mut frames = Frame::long_headers(stream, fields);
        frames[0].flags |= flag::END_STREAM;
        frames
    };
    let head = Frame::headers(stream, &Fields::reply());
    let data = Frame::data(stream, message(b"x"));
    match words[..] {
        ["first", code, size, fields] => {
            let trailers = Fields::trailers(code).and("grpc-message", "as asked");
            [vec![head, data], end(&large(trailers, size, fields))].concat()
        }
        ["last", code, size, fields] => {
            let trailers = large(Fields::new(), size, fields).and("grpc-status", code);
            [vec![head, data], end(&trailers)].concat()
        }
        ["only", code, size, fields] => end(&large(
            Fields::reply().and("grpc-status", code),
            size,
            fields,
        )),
        ["head", size, fields] => {
            let mut frames = Frame::long_headers(stream, &large(Fields::reply(), size, fields));
            frames.push(data);
            frames.extend(end(&Fields::trailers("0")));
            frames
        }
        ["interim", size, fields] => {
            let interim = large(Fields::new().and(":status", "103"), size, fields);
            let mut frames = Frame::long_headers(stream, &interim);
            frames.extend([head, data]);
            frames.extend(end(&Fields::trailers("0")));
            frames
        }
        ["repeated", code, times] => {
            let block = repeated(code, number(times));
            let trailers = Frame::new(kind::HEADERS, flag::END_HEADERS, stream, block).ending();
            vec![head, data, trailers]
        }
        _ => panic!("no such kind: {kind}"),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// Trailers in which a field of 4,000 bytes is repeated by its number in the table: RFC 7541, sections 6.2.1 and 6.1.
fn repeated(code: &str, times: usize) -> Bytes {
    let mut block = BytesMut::from(&Fields::new().and("k", "v".repeat(4_000)).encode()[..]);
    block[0] = 0x40;
    block.extend(std::iter::repeat_n(0x80 | 62, times));
    block.extend_from_slice(&Fields::trailers(code).encode());
    block.freeze()
}

#[tokio::test]
async fn trailers_larger_than_ours_are_resource_exhausted_wherever_their_status_stands() {
    let (channel, _playing) = raw_server(&[], Limits::default(), large_trailers).await;
    beside_a_neighbour(&channel, async |client| {
        for (path, says) in [
            ("/test.Raw/first-0-40000-1", &["40", "trailers"][..]),
            ("/test.Raw/first-5-40000-40", &["NOT_FOUND: as asked"]),
            ("/test.Raw/last-0-40000-1", &["400"]),
            ("/test.Raw/last-5-40000-40", &["NOT_FOUND"]),
            ("/test.Raw/first-0-200000-1", &["200"]),
            ("/test.Raw/last-0-200000-40", &["20"]),
            // HTTP/2 decodes no more than 256 KiB, and says nothing of the rest.
            ("/test.Raw/first-0-300000-1", &["300"]),
            ("/test.Raw/last-0-300000-1", &["300"]),
            ("/test.Raw/first-5-300000-40", &["NOT_FOUND"]),
            ("/test.Raw/last-0-300000-40", &[]),
            ("/test.Raw/only-0-40000-1", &["40"]),
            ("/test.Raw/only-5-200000-1", &["NOT_FOUND"]),
            ("/test.Raw/only-5-300000-1", &["300"]),
            ("/test.Raw/repeated-0-10", &["44"]),
            ("/test.Raw/repeated-5-80", &[]),
        ] {
            let says = [says, &["32768", "max_header_list_size_hard"]].concat();
            let result = call_raw(client, path).await;
            assert!(result.is_err(), "{path}");
            assert_says(result, Code::RESOURCE_EXHAUSTED, &says);
        }
        for path in ["/test.Raw/first-0-32000-1", "/test.Raw/repeated-0-6"] {
            call_raw(client, path).await.expect(path);
        }
    })
    .await;
}

#[tokio::test]
async fn a_reply_head_larger_than_ours_is_resource_exhausted() {
    let (channel, _playing) = raw_server(&[], Limits::default(), large_trailers).await;
    beside_a_neighbour(&channel, async |client| {
        for (path, size) in [
            ("/test.Raw/head-40000-1", "40"),
            ("/test.Raw/head-40000-40", "41"),
            ("/test.Raw/head-200000-1", "200"),
            ("/test.Raw/head-300000-1", "300"),
        ] {
            let says = [size, "response headers", "32768"];
            assert_says(
                call_raw(client, path).await,
                Code::RESOURCE_EXHAUSTED,
                &says,
            );
        }
        call_raw(client, "/test.Raw/head-32000-1")
            .await
            .expect("OK");
        // An interim head is not read, and may be as large as HTTP/2 decodes.
        for path in ["/test.Raw/interim-40000-1", "/test.Raw/interim-200000-40"] {
            call_raw(client, path).await.expect(path);
        }
    })
    .await;
}

#[tokio::test]
async fn an_upload_ends_with_trailers_that_are_too_large() {
    let (channel, _playing) = raw_server(&[], Limits::default(), |_, _| Vec::new()).await;
    beside_a_neighbour(&channel, async |client| {
        let call = client.client_streaming::<Raw, Raw>(Method::new("/test.Raw/Upload"));
        let mut stream = call.await.expect("an open stream");
        let refused = within("the end of the upload", async {
            while stream.send(Raw("x".into())).await.is_ok() {
                tokio::task::yield_now().await;
            }
            stream.finish().await.map(|_| ())
        });
        let says = ["trailers", "NOT_FOUND: early", "32768"];
        assert_says(refused.await, Code::RESOURCE_EXHAUSTED, &says);
    })
    .await;
}

#[tokio::test]
async fn the_limit_for_what_comes_is_exact() {
    let answer: Answer = |stream, kind| {
        let size = number(kind.rsplit('-').next().unwrap_or_default());
        let (head, trailers) = (Fields::reply(), Fields::trailers("0"));
        let fill = |fields: Fields| {
            let value = size - fields.list_size() - "k".len() - 32;
            fields.and("k", "v".repeat(value))
        };
        let (head, trailers) = match kind.starts_with("head") {
            true => (fill(head), trailers),
            false => (head, fill(trailers)),
        };
        vec![
            Frame::headers(stream, &head),
            Frame::data(stream, message(b"x")),
            Frame::headers(stream, &trailers).ending(),
        ]
    };
    let limits = limits(|limits| limits.max_header_list_size_hard = 5_000);
    let (channel, _playing) = raw_server(&[], limits, answer).await;
    beside_a_neighbour(&channel, async |client| {
        for fits in ["/test.Raw/head-5000", "/test.Raw/trailers-5000"] {
            call_raw(client, fits).await.expect(fits);
        }
        for not in ["/test.Raw/head-5001", "/test.Raw/trailers-5001"] {
            let result = call_raw(client, not).await;
            assert_says(result, Code::RESOURCE_EXHAUSTED, &["5001", "5000"]);
        }
    })
    .await;
}
