//! Heads and trailers larger than their receiver takes: the call that they belong to ends with a status that says so,
//! and its neighbours on the connection never notice. Between ends of ours, in all four directions; and at a server of ours,
//! with raw clients that announce another limit, none, or do not keep to ours.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::DuplexStream;
use trunkline::details::DebugInfo;
use trunkline::limits::ChannelLimits;
use trunkline::server::Methods;
use trunkline::tower::Body;
use trunkline::{
    Channel, Client, Code, Method, Raw, Request, ResponseHandle, Result, Sender, Server, Service,
    Status, Streaming,
};
use trunkline_testkit::{
    Fields, Frame, Outcome, Probe, RawPeer, error, flag, message, pair, setting, within,
};

/// Bytes of metadata that are more than 32 KiB.
const SIZES: [usize; 3] = [40_000, 200_000, 2_000_000];
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

    fn add_to(self, methods: &mut Methods) {
        let service = std::sync::Arc::new(self);
        methods.unary(FILL, &service, |_, request: Request<Raw>| async move {
            fill(&request.0, request.response())?;
            Ok(Raw("done".into()))
        });
        methods.server_streaming(
            FILL_STREAM,
            &service,
            |_, request: Request<Raw>, mut responses: Sender<Raw>| async move {
                if !request.0.starts_with(b"head") {
                    responses.send(Raw("one".into())).await?;
                    tokio::task::yield_now().await;
                }
                fill(&request.0, request.response())?;
                responses.send(Raw("last".into())).await
            },
        );
    }
}

/// What `WHERE SIZE FIELDS` asks for.
fn fill(wanted: &Bytes, response: &ResponseHandle) -> Result<()> {
    let wanted = String::from_utf8_lossy(wanted).into_owned();
    let mut words = wanted.split(' ');
    let place = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
    let (size, fields): (usize, usize) = (number(), number());
    let not_found = || Status::not_found("no such thing");
    match place {
        "details" => {
            return Err(not_found().with_detail(DebugInfo::new("d".repeat(size))));
        }
        "message" => return Err(Status::not_found("m".repeat(size))),
        _ => {}
    }
    let mut status = not_found();
    for field in 0..fields {
        let (key, value) = (format!("k{field}"), "v".repeat(size / fields));
        match place {
            "head" | "head-error" => response.metadata(&key, &value)?,
            "trailers" => response.trailer(&key, &value)?,
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
    responses: Streaming<Raw>,
}

impl Neighbour {
    async fn of(client: &Client) -> Self {
        let call = client.bidi_streaming::<Raw, Raw>(Probe::CHAT);
        let (sender, responses) = call.await.expect("an open stream");
        let mut neighbour = Self { sender, responses };
        neighbour.check("the beginning").await;
        neighbour
    }

    async fn check(&mut self, after: &str) {
        let round = async {
            self.sender.send(Raw("ping".into())).await?;
            self.responses.message().await
        };
        let response = within("the neighbour's response", round).await;
        let response =
            response.unwrap_or_else(|status| panic!("the neighbour after {after}: {status}"));
        assert_eq!(response.expect("a message").0, "ping", "{after}");
    }
}

fn server() -> (Server, Probe) {
    let probe = Probe::new();
    (
        Server::new().add_service(probe.clone()).add_service(Large),
        probe,
    )
}

/// A client, a stream of it that has to go on, and the probe of its server.
async fn connected() -> (Client, Neighbour, Probe) {
    let (server, probe) = server();
    let client = Client::new(pair(server, ChannelLimits::default()).await);
    let neighbour = Neighbour::of(&client).await;
    (client, neighbour, probe)
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
        let mut responses = call.await?;
        while responses.message().await?.is_some() {
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
    let (client, mut neighbour, probe) = connected().await;
    let called = probe.counts().called;
    for size in SIZES {
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

/// Makes calls whose response is too large at one place, in one field and in many: each fails, and no other.
async fn each_size_fails_its_call(place: &str, says: &[&str], messages: usize) {
    let (client, mut neighbour, _) = connected().await;
    for size in SIZES {
        for fields in [1, 40] {
            let after = format!("{fields} fields of {size}");
            let result = unary(&client, wanted(place, size, fields)).await;
            assert_says(result, Code::RESOURCE_EXHAUSTED, says);
            neighbour.check(&after).await;
            let (came, result) = streaming(&client, wanted(place, size, fields)).await;
            assert_says(result, Code::RESOURCE_EXHAUSTED, says);
            assert_eq!(came, messages);
            neighbour.check(&after).await;
        }
    }
}

#[tokio::test]
async fn response_metadata_of_40_kb_and_200_kb_fails_its_call_and_no_other() {
    each_size_fails_its_call("head", &["response headers", "32768"], 0).await;
}

#[tokio::test]
async fn trailers_of_40_kb_and_200_kb_fail_a_call_that_was_ok_and_no_other() {
    each_size_fails_its_call("trailers", &["trailers", "32768"], 2).await;
}

#[tokio::test]
async fn a_status_too_large_to_send_keeps_its_code_and_message_and_says_what_was_left_out() {
    let (client, mut neighbour, _) = connected().await;
    for size in SIZES {
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
    let server = Server::new().add_service(Probe::new()).add_service(Large);
    let client = Client::new(Channel::in_process(server));
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

/// Answers what is not gRPC with a head of 100 KB.
#[derive(Clone)]
struct LargeHttp;

impl tower_service::Service<http::Request<Body>> for LargeHttp {
    type Response = http::Response<String>;
    type Error = Infallible;
    type Future = Ready<std::result::Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let response = http::Response::builder()
            .status(if request.uri().path() == "/gone" {
                410
            } else {
                200
            })
            .header("content-type", "text/plain")
            .header("k", "v".repeat(100_000));
        ready(Ok(response.body("text".to_owned()).expect("a response")))
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_and_no_grpc_is_an_http_error() {
    let (near, far) = tokio::io::duplex(MIB);
    let server = Server::new().add_service(Large).fallback(LargeHttp);
    tokio::spawn(server.serve_connection(far));
    let mut client = RawPeer::client(near, &[]).await;
    for (path, status) in [("/page", 500), ("/gone", 410)] {
        let head = Fields::call(path).with(":method", "GET");
        let head = head.with("content-type", "text/plain");
        let stream = client.call(&head, "").await;
        let outcome = client.outcome(stream).await;
        assert_eq!(outcome, Outcome::Answered(status, 8), "{path}");
    }
}

#[tokio::test]
async fn trailers_of_a_request_that_are_too_large_fail_it_and_no_other() {
    let (mut client, probe) = raw_client(&[]).await;
    let neighbour = client.call(&Fields::call(HOLD), message(b"x")).await;
    probe.until("the neighbour", |it| it.running == 1).await;
    for (size, expected) in [
        (30_000, OK),
        (40_000, EXHAUSTED),
        (200_000, EXHAUSTED),
        (300_000, EXHAUSTED),
    ] {
        let stream = client.next_stream();
        let trailers = Fields::new().and("k", "v".repeat(size));
        let mut trailers = Frame::long_headers(stream, &trailers);
        trailers[0].flags |= flag::END_STREAM;
        let head = Frame::headers(stream, &Fields::call(ECHO));
        client
            .write(&[head, Frame::data(stream, message(b"x"))])
            .await;
        client.write(&trailers).await;
        assert_eq!(client.outcome(stream).await, expected, "{size}");
    }
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
    let server = Server::new()
        .add_service(probe.clone())
        .max_concurrent_streams(1);
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
