//! Rules of PROTOCOL-HTTP2.md as they are on the wire, frame by frame: what the rows of
//! docs/SPEC.md need and no other test holds.
//!
//! A raw peer is always the other end. Where time matters the clock is paused: it passes only when
//! nothing else is left to do.

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::DuplexStream;
use tokio::sync::oneshot;
use trunkline::limits::ChannelLimits;
use trunkline::server::Methods;
use trunkline::{
    Channel, Client, Code, Compress, Method, Raw, Request, Response, Result, Sender, Server,
    Status, Streaming,
};
use trunkline_testkit::{
    Fields, Frame, Outcome, Probe, RawListener, RawPeer, channel_over, error, flag, gzip, kind,
    message, message_flagged, prefix, setting, within,
};
use trunkline_tests::fixture::{BIDI, CLIENT, Kind, SERVER, UNARY, With, nothing, raw};

use Outcome::{Answered, Reset};

const ECHO: &str = "/test.Probe/Echo";
const SPELL: &str = "/test.Probe/Spell";
const CHAT: &str = "/test.Probe/Chat";
const STALL: &str = "/test.Probe/Stall";
const HOLD: &str = "/test.Probe/Hold";
const DEAF: &str = "/test.Probe/Deaf";
const METADATA: &str = "/test.Probe/Metadata";

const OK: Outcome = Answered(200, 0);
const EXPIRED: Outcome = Answered(200, 4);
const SHORT: Duration = Duration::from_millis(50);

/// A client of ours, and a raw peer that plays its server.
async fn client() -> (Client, RawPeer<DuplexStream>) {
    client_of(&[]).await
}

async fn client_of(settings: &[(u16, u32)]) -> (Client, RawPeer<DuplexStream>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (channel, peer) = tokio::join!(
        channel_over(near, ChannelLimits::default()),
        RawPeer::server(far, settings)
    );
    (Client::new(channel.expect("the peer speaks HTTP/2")), peer)
}

/// A raw client of a server of ours.
async fn raw_client(server: Server, settings: &[(u16, u32)]) -> RawPeer<DuplexStream> {
    let (near, far) = tokio::io::duplex(1 << 20);
    tokio::spawn(server.serve_connection(far));
    RawPeer::client(near, settings).await
}

/// A raw client of a [`Probe`].
async fn probed() -> (Probe, RawPeer<DuplexStream>) {
    let probe = Probe::new();
    let server = Server::new().add_service(probe.clone());
    (probe, raw_client(server, &[]).await)
}

fn trailers(stream: u32, status: &str) -> Frame {
    Frame::headers(stream, &Fields::trailers(status)).ending()
}

fn good(stream: u32, payload: &[u8]) -> Vec<Frame> {
    let head = Frame::headers(stream, &Fields::response());
    vec![
        head,
        Frame::data(stream, message(payload)),
        trailers(stream, "0"),
    ]
}

fn trailers_only(stream: u32, status: &str) -> Frame {
    Frame::headers(stream, &Fields::response().and("grpc-status", status)).ending()
}

/// Fields as text, in their order.
fn lines(fields: &Fields) -> Vec<String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let fields = fields.iter();
    fields
        .map(|(name, value)| format!("{}: {}", text(name), text(value)))
        .collect()
}

/// A call that is open, as its client holds it.
enum Open {
    Unary(Pin<Box<dyn Future<Output = Result<Response<Raw>>> + Send>>),
    Server(Streaming<Raw>),
    Client(trunkline::ClientStream<Raw, Raw>),
    Bidi(Sender<Raw>, Streaming<Raw>),
}

impl Open {
    /// Opens a call; its stream is the next one of the peer.
    async fn new(client: &Client, kind: Kind, timeout: Duration) -> Self {
        let opened = "the stream opens";
        match kind {
            Kind::Unary => {
                let call = client.unary(UNARY, raw("x")).timeout(timeout);
                let mut call = call.into_future();
                // One poll sends the request.
                std::future::poll_fn(|cx| {
                    assert!(call.as_mut().poll(cx).is_pending());
                    std::task::Poll::Ready(())
                })
                .await;
                Self::Unary(call)
            }
            Kind::ServerStreaming => {
                let call = client.server_streaming(SERVER, raw("x")).timeout(timeout);
                Self::Server(call.await.expect(opened))
            }
            Kind::ClientStreaming => {
                let call = client.client_streaming(CLIENT).timeout(timeout);
                Self::Client(call.await.expect(opened))
            }
            Kind::Bidi => {
                let call = client.bidi_streaming(BIDI).timeout(timeout);
                let (sender, responses) = call.await.expect(opened);
                Self::Bidi(sender, responses)
            }
        }
    }

    /// How the call ends for its client, whose sender does not finish.
    async fn end(self) -> Status {
        let end = match self {
            Self::Unary(call) => call.await.map(|_| ()),
            Self::Server(mut responses) => responses.message().await.map(|_| ()),
            Self::Bidi(_sender, mut responses) => responses.message().await.map(|_| ()),
            Self::Client(mut stream) => loop {
                if let Err(status) = stream.send(raw(vec![0; 10_000])).await {
                    break Err(status);
                }
            },
        };
        end.expect_err("the call does not end well")
    }
}

const HOUR: Duration = Duration::from_secs(3600);

// Requests

#[tokio::test(start_paused = true)]
async fn a_request_begins_with_its_call_definition_and_custom_metadata_comes_behind() {
    let (client, mut peer) = client().await;
    let ours = concat!(
        "user-agent: grpc-rust-trunkline/",
        env!("CARGO_PKG_VERSION")
    );
    for (agent, expected) in [(None, ours), (Some("mine/1"), "user-agent: mine/1")] {
        let mut call = client
            .unary::<Raw, Raw>(UNARY, raw("x"))
            .metadata("b", "1")
            .metadata("a", "2")
            .metadata("b", "3")
            .timeout(Duration::from_secs(1))
            .compress("gzip");
        if let Some(agent) = agent {
            call = call.metadata("user-agent", agent);
        }
        let call = tokio::spawn(call.into_future());
        let stream = peer.next_full_request().await;
        let mut head = lines(&peer.stream(stream).head.expect("a head"));
        // Reserved names first; their order among themselves is free.
        head[..4].sort();
        let expected = [
            ":authority: localhost",
            ":method: POST",
            ":path: /test.Fixture/Unary",
            ":scheme: http",
            "grpc-timeout: 1000000u",
            "te: trailers",
            "content-type: application/grpc",
            "grpc-encoding: gzip",
            "grpc-accept-encoding: identity,gzip,deflate",
            expected,
            "b: 1",
            "b: 3",
            "a: 2",
        ];
        assert_eq!(head, expected);
        peer.write(&good(stream, b"")).await;
        within("the response", call)
            .await
            .expect("no panic")
            .expect("a response");
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_sent_in_eight_digits_rounded_up_and_not_at_all_without_a_deadline() {
    let (client, mut peer) = client().await;
    let timeouts = [
        (None, None),
        (Some(Duration::from_nanos(99_999_999)), Some("99999999n")),
        (Some(Duration::from_nanos(100_000_001)), Some("100001u")),
        (Some(3 * HOUR + Duration::from_nanos(1)), Some("10800001m")),
        (Some(100_000_000 * HOUR), Some("99999999H")),
    ];
    for (timeout, expected) in timeouts {
        let mut call = client.unary::<Raw, Raw>(UNARY, raw("x"));
        if let Some(timeout) = timeout {
            call = call.timeout(timeout);
        }
        let call = tokio::spawn(call.into_future());
        let stream = peer.next_full_request().await;
        let head = peer.stream(stream).head.expect("a head");
        assert_eq!(head.text("grpc-timeout").as_deref(), expected);
        peer.write(&good(stream, b"")).await;
        within("the response", call)
            .await
            .expect("no panic")
            .expect("a response");
    }
}

#[tokio::test]
async fn the_authority_is_that_of_the_target_unless_another_is_set() {
    let listener = RawListener::bind().await;
    let address = listener.address();
    for (set, expected) in [
        (None, address.as_str()),
        (Some("virtual.example:7"), "virtual.example:7"),
    ] {
        let mut channel = Channel::to(&address);
        if let Some(authority) = set {
            channel = channel.authority(authority);
        }
        let (channel, mut peer) = tokio::join!(channel.connect(), listener.accept());
        let client = Client::new(channel.expect("an HTTP/2 server"));
        let _open = Open::new(&client, Kind::Unary, HOUR).await;
        let stream = peer.next_full_request().await;
        let head = peer.stream(stream).head.expect("a head");
        assert_eq!(head.text(":authority").as_deref(), Some(expected));
        assert_eq!(head.all("host").count(), 0);
    }
}

#[tokio::test]
async fn a_request_ends_with_its_last_data_frame_or_an_empty_one_and_no_other_is_empty() {
    let (client, mut peer) = client().await;
    for (len, frames) in [
        (0, 1),
        (1, 1),
        (16_384 - 5, 1),
        (16_384 - 4, 2),
        // In pieces: the prefix is a frame of its own.
        (16_384, 2),
        (60_000, 5),
    ] {
        let call = client.unary::<Raw, Raw>(UNARY, raw(vec![7; len]));
        let _call = tokio::spawn(call.into_future());
        let stream = peer.next_full_request().await;
        let received = peer.stream(stream);
        assert_eq!(received.data, message(&vec![7; len]), "{len}");
        let counted = (received.data_frames, received.empty_frames);
        assert_eq!(counted, (frames, 0), "{len}");
    }
    for messages in [&[][..], &[""], &["", "", ""], &["a", "bc"]] {
        let call = client.client_streaming::<Raw, Raw>(CLIENT);
        let mut call = call.await.expect("an open stream");
        let stream = peer.next_request().await;
        for text in messages {
            call.send(raw(*text)).await.expect("an open stream");
        }
        let len: usize = messages
            .iter()
            .map(|text| message(text.as_bytes()).len())
            .sum();
        peer.until("the messages", |it| it.stream(stream).data.len() == len)
            .await;
        let sent = peer.stream(stream);
        assert!(!sent.is_ended, "{messages:?}");
        let _call = tokio::spawn(call.finish());
        peer.until_end(stream).await;
        let received = peer.stream(stream);
        assert_eq!(received.messages(), messages, "{messages:?}");
        assert_eq!(received.empty_frames, 0, "{messages:?}");
        // The end is in a DATA frame of its own, and not in the head.
        assert_eq!(received.data_frames, sent.data_frames + 1, "{messages:?}");
        assert_eq!(received.trailers, None, "{messages:?}");
        assert_eq!(received.reset, None, "{messages:?}");
    }
}

#[tokio::test]
async fn binary_metadata_leaves_without_padding_and_in_order() {
    let (client, mut peer) = client().await;
    let call = client
        .unary::<Raw, Raw>(UNARY, raw("x"))
        .metadata_bin("trace-bin", [0])
        .metadata_bin("trace-bin", [0xff, 0xef])
        .metadata_bin("trace-bin", [])
        .metadata("text", "two words");
    let _call = tokio::spawn(call.into_future());
    let stream = peer.next_full_request().await;
    let head = peer.stream(stream).head.expect("a head");
    let values: Vec<_> = head.all("trace-bin").collect();
    assert_eq!(values, ["AA", "/+8", ""]);
    assert_eq!(head.text("text").as_deref(), Some("two words"));

    let server = Server::new().add_service(With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
            request.response().metadata_bin("head-bin", [0])?;
            request.response().trailer_bin("end-bin", [0xff, 0xef])?;
            request.response().trailer_bin("end-bin", [1])?;
            Ok(request.into_inner())
        });
    }));
    let mut client = raw_client(server, &[]).await;
    let stream = client
        .call(&Fields::call(UNARY.path()), message(b"x"))
        .await;
    assert_eq!(client.outcome(stream).await, OK);
    let received = client.stream(stream);
    let head = received.head.expect("a head");
    assert_eq!(head.text("head-bin").as_deref(), Some("AA"));
    let expected = ["grpc-status: 0", "end-bin: /+8", "end-bin: AQ"];
    assert_eq!(lines(&received.trailers.expect("trailers")), expected);
}

#[tokio::test]
async fn a_compressed_message_has_the_flag_and_its_head_names_the_encoding() {
    let (client, mut peer) = client().await;
    for (encoding, flag) in [(None, 0), (Some("gzip"), 1)] {
        let mut call = client.unary::<Raw, Raw>(UNARY, raw(vec![7; 1000]));
        if let Some(encoding) = encoding {
            call = call.compress(encoding);
        }
        let _call = tokio::spawn(call.into_future());
        let stream = peer.next_full_request().await;
        let received = peer.stream(stream);
        assert_eq!(received.data[0], flag);
        let head = received.head.expect("a head");
        assert_eq!(head.text("grpc-encoding").as_deref(), encoding);
    }

    let server = Server::new().add_service(With(|methods: &mut Methods| {
        methods.bidi_streaming(
            BIDI,
            &nothing(),
            |_, mut requests: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
                responses.compress(Compress::On);
                while let Some(request) = requests.message().await? {
                    responses.send(request).await?;
                    // The head still names the encoding: each message says for itself.
                    responses.compress(Compress::Off);
                }
                Ok(())
            },
        );
    }));
    let mut client = raw_client(server, &[]).await;
    for (accepts, encoding, flag) in [
        (None, None, 0),
        (Some("identity"), None, 0),
        (Some("br,gzip"), Some("gzip"), 1),
    ] {
        let mut head = Fields::call(BIDI.path()).and("grpc-encoding", "gzip");
        if let Some(accepts) = accepts {
            head = head.and("grpc-accept-encoding", accepts);
        }
        // Each message is compressed for itself, or not at all.
        let body = [message_flagged(1, &gzip(&[b'1'; 100])), message(b"two")].concat();
        let stream = client.call(&head, body).await;
        assert_eq!(client.outcome(stream).await, OK, "{accepts:?}");
        let received = client.stream(stream);
        assert_eq!(received.data[0], flag, "{accepts:?}");
        let messages = received.messages();
        assert_eq!(messages[1], "two", "{accepts:?}");
        let second = received.data.len() - messages[1].len() - prefix(0, 0).len();
        assert_eq!(received.data[second], 0, "{accepts:?}");
        let head = received.head.expect("a head");
        assert_eq!(
            head.text("grpc-encoding").as_deref(),
            encoding,
            "{accepts:?}"
        );
    }
}

// Responses

#[tokio::test]
async fn a_response_is_a_head_messages_and_trailers_that_alone_have_the_status() {
    let (_probe, mut client) = probed().await;
    for (path, body, messages) in [
        (ECHO, &b"x"[..], &["x"][..]),
        (SPELL, b"ab", &["a", "b"]),
        (CHAT, b"", &[""]),
    ] {
        let stream = client.call(&Fields::call(path), message(body)).await;
        assert_eq!(client.outcome(stream).await, OK, "{path}");
        assert!(client.settle().await);
        let received = client.stream(stream);
        assert_eq!(received.messages(), messages, "{path}");
        let head = received.head.expect("a head");
        let expected = [":status: 200", "content-type: application/grpc"];
        assert_eq!(lines(&head), expected, "{path}");
        let trailers = received.trailers.expect("trailers");
        assert_eq!(lines(&trailers), ["grpc-status: 0"], "{path}");
        // Both ends have said END_STREAM: there is nothing to reset.
        assert_eq!(received.reset, None, "{path}");
    }
}

#[tokio::test]
async fn trailers_only_is_one_header_block_with_the_end_and_nothing_behind_it() {
    let (_probe, mut client) = probed().await;
    let call = Fields::call;
    let expired = call(ECHO).and("grpc-timeout", "0n");
    for (name, head, http, status) in [
        ("an unknown method", call("/test.Probe/No"), "200", "12"),
        ("a handler's error", call(METADATA), "200", "10"),
        ("a deadline that has passed", expired, "200", "4"),
        ("no messages", call(SPELL), "200", "0"),
    ] {
        // An empty message: what spells it has nothing to send.
        let stream = client.call(&head, message(b"")).await;
        client.until_end(stream).await;
        assert!(client.settle().await);
        let received = client.stream(stream);
        assert!(received.is_ended, "{name}");
        assert_eq!(received.trailers, None, "{name}");
        assert_eq!(received.data_frames, 0, "{name}");
        assert_eq!(received.reset, None, "{name}");
        let head = received.head.expect("a head");
        let named = |field: &str| head.text(field).unwrap_or_default();
        assert_eq!(named(":status"), http, "{name}");
        assert_eq!(named("content-type"), "application/grpc", "{name}");
        assert_eq!(named("grpc-status"), status, "{name}");
        assert_eq!(head.all("grpc-status").count(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_response_that_is_no_protobuf_of_its_type_is_internal() {
    let (client, mut peer) = client().await;
    let bodies: [(&[u8], Option<&str>); 3] = [
        (b"\x0a\x02hi", Some("hi")),
        (b"\x0a\x7fhi", None),
        (b"\x0a\x02\xc3\x28", None),
    ];
    for (body, expected) in bodies {
        // `String` is google.protobuf.StringValue.
        let call = client.unary::<String, String>(UNARY, String::new());
        let call = tokio::spawn(call.into_future());
        let stream = peer.next_full_request().await;
        peer.write(&good(stream, body)).await;
        let response = within("the response", call).await.expect("no panic");
        match (response, expected) {
            (Ok(response), Some(text)) => assert_eq!(*response, text),
            (Err(status), None) => assert_eq!(status.code(), Code::INTERNAL, "{status}"),
            (response, _) => panic!("{body:?}: {response:?}"),
        }
    }
}

// HTTP2 transport mapping

#[tokio::test]
async fn a_call_is_sent_once_whatever_becomes_of_it() {
    let (client, mut peer) = client().await;
    for (name, answer) in [
        (
            "REFUSED_STREAM",
            Frame::rst_stream(0, error::REFUSED_STREAM),
        ),
        ("UNAVAILABLE", trailers_only(0, "14")),
    ] {
        let call = client.unary::<Raw, Raw>(UNARY, raw("x"));
        let call = tokio::spawn(call.into_future());
        let stream = peer.next_full_request().await;
        peer.write(&[Frame { stream, ..answer }]).await;
        let status = within(name, call).await.expect("no panic");
        let status = status.expect_err("an error");
        assert_eq!(status.code(), Code::UNAVAILABLE, "{name}");
        assert!(peer.settle().await);
        assert_eq!(peer.waiting_requests(), 0, "{name}: sent again");
    }
}

#[tokio::test]
async fn a_client_resets_without_error_when_the_response_ends_before_the_request() {
    let (client, mut peer) = client().await;
    for (name, is_trailers_only, status) in [
        ("Trailers-Only", true, "7"),
        ("Trailers-Only, OK", true, "0"),
        ("trailers", false, "7"),
        ("trailers, OK", false, "0"),
    ] {
        let call = client.bidi_streaming::<Raw, Raw>(BIDI);
        let (mut sender, mut responses) = call.await.expect("an open stream");
        sender.send(raw("x")).await.expect("an open stream");
        let stream = peer.next_request().await;
        peer.write(&match is_trailers_only {
            true => vec![trailers_only(stream, status)],
            false => {
                let head = Frame::headers(stream, &Fields::response());
                vec![head, trailers(stream, status)]
            }
        })
        .await;
        let end = within(name, responses.message()).await;
        let code = end.map_or_else(|status| status.code(), |_| Code::OK);
        assert_eq!(code.as_i32().to_string(), status, "{name}");
        peer.until_end(stream).await;
        let received = peer.stream(stream);
        assert_eq!(received.reset, Some(error::NO_ERROR), "{name}");
        // The sender is there still, and hears of it.
        within(name, sender.closed()).await;
    }
    // A call whose both halves have ended is not reset.
    let call = client.unary::<Raw, Raw>(UNARY, raw("x"));
    let call = tokio::spawn(call.into_future());
    let stream = peer.next_full_request().await;
    peer.write(&good(stream, b"")).await;
    within("the response", call)
        .await
        .expect("no panic")
        .expect("a response");
    assert!(peer.settle().await);
    assert_eq!(peer.stream(stream).reset, None);
}

#[tokio::test]
async fn a_reset_ends_both_directions_of_a_call() {
    let (client, mut peer) = client().await;
    let call = client.bidi_streaming::<Raw, Raw>(BIDI);
    let (mut sender, mut responses) = call.await.expect("an open stream");
    let stream = peer.next_request().await;
    peer.write(&[
        Frame::headers(stream, &Fields::response()),
        Frame::rst_stream(stream, error::INTERNAL_ERROR),
    ])
    .await;
    let status = within("the responses", responses.message()).await;
    assert_eq!(status.expect_err("an error").code(), Code::INTERNAL);
    within("the sender", sender.closed()).await;
    assert!(sender.send(raw("x")).await.is_err());
    assert!(peer.settle().await);
    assert_eq!(peer.stream(stream).data_frames, 0);
}

#[tokio::test]
async fn more_data_than_the_window_allows_costs_the_stream_and_is_internal() {
    // RFC 9113, section 6.9.1. The window of a stream is 160 KiB, and nobody reads.
    let too_much = |stream| -> Vec<Frame> {
        let first = Frame::data(stream, prefix(0, 1 << 20).to_vec());
        let more = std::iter::repeat_with(|| Frame::data(stream, vec![0; 16_384]));
        std::iter::once(first).chain(more.take(11)).collect()
    };
    let (client, mut peer) = client().await;
    let call = client.server_streaming::<Raw, Raw>(SERVER, raw("x"));
    let mut responses = call.await.expect("an open stream");
    let stream = peer.next_full_request().await;
    let head = Frame::headers(stream, &Fields::response());
    peer.write(&[&[head][..], &too_much(stream)].concat()).await;
    peer.until("RST_STREAM", |it| it.stream(stream).reset.is_some())
        .await;
    let reset = peer.stream(stream).reset;
    assert_eq!(reset, Some(error::FLOW_CONTROL_ERROR));
    let status = within("the status", responses.message()).await;
    assert_eq!(status.expect_err("an error").code(), Code::INTERNAL);
    assert_eq!(peer.goaway(), None);

    let (probe, mut client) = probed().await;
    let stream = client.next_stream();
    let head = Frame::headers(stream, &Fields::call(DEAF));
    client
        .write(&[&[head][..], &too_much(stream)].concat())
        .await;
    let outcome = client.outcome(stream).await;
    assert_eq!(outcome, Reset(error::FLOW_CONTROL_ERROR));
    probe.until("no handler", |it| it.running == 0).await;
    let next = client.call(&Fields::call(ECHO), message(b"x")).await;
    assert_eq!(client.outcome(next).await, OK);
}

// Client cancellation

#[tokio::test]
async fn a_client_that_drops_a_call_resets_it_with_cancel() {
    let (client, mut peer) = client().await;
    for kind in Kind::ALL {
        for has_head in [false, true] {
            let open = Open::new(&client, kind, HOUR).await;
            let stream = peer.next_request().await;
            if has_head {
                let head = Frame::headers(stream, &Fields::response());
                peer.write(&[head]).await;
            }
            assert!(peer.settle().await);
            drop(open);
            peer.until("RST_STREAM", |it| it.stream(stream).reset.is_some())
                .await;
            let reset = peer.stream(stream).reset;
            assert_eq!(reset, Some(error::CANCEL), "{kind:?} {has_head}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_deadline_passes_resets_the_call_with_cancel() {
    // So little window that a sender soon has to wait, and time can pass.
    let (client, mut peer) = client_of(&[(setting::INITIAL_WINDOW_SIZE, 100)]).await;
    for kind in Kind::ALL {
        for has_head in [false, true] {
            let open = Open::new(&client, kind, SHORT).await;
            let stream = peer.next_request().await;
            if has_head {
                let head = Frame::headers(stream, &Fields::response());
                peer.write(&[head]).await;
            }
            let reading = tokio::spawn(open.end());
            peer.until("RST_STREAM", |it| it.stream(stream).reset.is_some())
                .await;
            let reset = peer.stream(stream).reset;
            assert_eq!(reset, Some(error::CANCEL), "{kind:?} {has_head}");
            let status = within("the status", reading).await.expect("no panic");
            assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{kind:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cancelled_behind_the_deadline_is_deadline_exceeded_with_nothing_of_the_trailers() {
    let (client, mut peer) = client().await;
    let reset = |stream| Frame::rst_stream(stream, error::CANCEL);
    let status = |stream| {
        let fields = Fields::response()
            .and("grpc-status", "1")
            .and("grpc-message", "theirs")
            .and("x-theirs", "1");
        Frame::headers(stream, &fields).ending()
    };
    let answers: [(&str, &dyn Fn(u32) -> Frame); 2] =
        [("RST_STREAM", &reset), ("a status", &status)];
    for (name, answer) in answers {
        for (waited, expected) in [
            (Duration::ZERO, Code::CANCELLED),
            (SHORT * 2, Code::DEADLINE_EXCEEDED),
        ] {
            let call = client.server_streaming::<Raw, Raw>(SERVER, raw("x"));
            let mut responses = call.timeout(SHORT).await.expect("an open stream");
            let stream = peer.next_full_request().await;
            peer.write(&[answer(stream)]).await;
            assert!(peer.settle().await);
            tokio::time::advance(waited).await;
            let status = responses.message().await.expect_err("an error");
            assert_eq!(status.code(), expected, "{name}");
            if expected == Code::DEADLINE_EXCEEDED {
                assert!(!status.message().contains("theirs"), "{name}: {status}");
                assert!(!status.is_from_peer(), "{name}: {status:?}");
                assert!(status.metadata().is_empty(), "{name}: {status:?}");
                let trailers = responses.trailers().expect("the call has ended");
                assert!(trailers.is_empty(), "{name}: {trailers:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_at_the_deadline_says_so_or_resets_with_cancel_inside_a_message() {
    let timed = |path| Fields::call(path).and("grpc-timeout", "50m");
    let probe = Probe::new();
    let server = Server::new().add_service(probe.clone());
    let mut client = raw_client(server, &[(setting::INITIAL_WINDOW_SIZE, 100)]).await;
    // Before the head, behind it, and in the middle of a message for which there is no window.
    for (path, len, expected) in [
        (HOLD, 1, EXPIRED),
        (STALL, 1, EXPIRED),
        (ECHO, 1_000, Reset(error::CANCEL)),
        (STALL, 1_000, Reset(error::CANCEL)),
    ] {
        let stream = client.call(&timed(path), message(&vec![7; len])).await;
        assert_eq!(client.outcome(stream).await, expected, "{path} {len}");
        probe.until("no handler", |it| it.running == 0).await;
    }
    // A large message, of which more is with h2 than there is window for.
    for path in [ECHO, STALL] {
        let stream = client.next_stream();
        let head = Fields::call(path).and("grpc-timeout", "500m");
        client.write(&[Frame::headers(stream, &head)]).await;
        client.send(stream, message(&[7; 200_000])).await;
        client.write(&[Frame::data(stream, "").ending()]).await;
        assert_eq!(client.outcome(stream).await, Reset(error::CANCEL), "{path}");
        assert_eq!(client.stream(stream).data.len(), 100, "{path}");
        probe.until("no handler", |it| it.running == 0).await;
    }
    // A request that has not ended either.
    let stream = client.next_stream();
    client.write(&[Frame::headers(stream, &timed(DEAF))]).await;
    assert_eq!(client.outcome(stream).await, EXPIRED);
    client
        .until("RST_STREAM", |it| it.stream(stream).reset.is_some())
        .await;
    assert_eq!(client.stream(stream).reset, Some(error::NO_ERROR));
    probe.until("no handler", |it| it.running == 0).await;
}

// Connection management

#[tokio::test]
async fn a_server_that_drains_says_goaway_around_a_ping_and_closes_behind_its_last_call() {
    let probe = Probe::new();
    let server = Server::new().add_service(probe.clone());
    let server = server.bind("127.0.0.1:0").await.expect("a free port");
    let address = server.local_addr().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_until(async {
        let _ = stopped.await;
    }));
    let mut client = RawPeer::connect(&address).await;
    let running = client.call(&Fields::call(HOLD), message(b"a")).await;
    probe.until("a handler", |it| it.running == 1).await;
    client.stop_acknowledging();
    stop.send(()).expect("the server runs");

    client
        .until("the warning", |it| {
            it.goaway().is_some() && !it.pings().is_empty()
        })
        .await;
    let warning = client.goaway().expect("GOAWAY").clone();
    assert_eq!(warning.error, error::NO_ERROR);
    assert_eq!(warning.last_stream, (1 << 31) - 1);
    // What was under way when the warning was sent is served.
    let late = client.call(&Fields::call(HOLD), message(b"b")).await;
    probe.until("2 handlers", |it| it.running == 2).await;
    assert_eq!(client.goaway(), Some(&warning));

    let payload = client.pings()[0].clone();
    let ack = Frame::new(kind::PING, flag::ACK, 0, payload);
    client.write(&[ack]).await;
    client
        .until("GOAWAY", |it| it.goaway() != Some(&warning))
        .await;
    let goaway = client.goaway().expect("GOAWAY").clone();
    assert_eq!((goaway.last_stream, goaway.error), (late, error::NO_ERROR));
    // What comes behind the last stream is not served.
    client.call(&Fields::call(HOLD), message(b"c")).await;
    assert!(client.settle().await);
    assert_eq!(probe.counts().called, 2);

    probe.release(2);
    for stream in [running, late] {
        assert_eq!(client.outcome(stream).await, OK);
    }
    client.until_closed().await;
    drop(client);
    within("the server", serving)
        .await
        .expect("no panic")
        .expect("no error");
}

#[tokio::test]
async fn a_call_that_a_stopping_server_cuts_off_is_unavailable() {
    let probe = Probe::new();
    let server = Server::new()
        .add_service(probe.clone())
        .with_limits(|limits| limits.drain_grace = SHORT);
    let server = server.bind("127.0.0.1:0").await.expect("a free port");
    let address = server.local_addr().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_until(async {
        let _ = stopped.await;
    }));
    let client = Client::new(Channel::connect(&address).await.expect("our server"));
    let call = client.unary::<Raw, Raw>(Probe::HOLD, raw("x"));
    let call = tokio::spawn(call.into_future());
    probe.until("a handler", |it| it.running == 1).await;
    stop.send(()).expect("the server runs");
    let status = within("the call", call).await.expect("no panic");
    let status = status.expect_err("an error");
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    within("the server", serving)
        .await
        .expect("no panic")
        .expect("no error");
    assert_eq!(probe.counts().running, 0);
}

#[tokio::test]
async fn a_stream_above_the_last_of_a_goaway_is_unavailable_and_those_below_go_on() {
    let (client, mut peer) = client().await;
    let mut calls = Vec::new();
    for _ in 0..3 {
        let call = client.unary::<Raw, Raw>(UNARY, raw("x"));
        calls.push(tokio::spawn(call.into_future()));
        peer.next_full_request().await;
    }
    peer.write(&[Frame::goaway(3, error::NO_ERROR, "")]).await;
    let above = calls.pop().expect("the third");
    let status = within("the third", above).await.expect("no panic");
    let status = status.expect_err("an error");
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    for (stream, call) in [1, 3].into_iter().zip(calls) {
        peer.write(&good(stream, b"still")).await;
        let response = within("a call below", call).await.expect("no panic");
        assert_eq!(response.expect("a response").0, "still");
    }
}

#[tokio::test]
async fn a_ping_comes_back_with_its_own_bytes() {
    let (_probe, mut client) = probed().await;
    let payloads = [0, 1, u64::MAX, 0x0123_4567_89ab_cdef];
    for payload in payloads {
        client.write(&[Frame::ping(payload)]).await;
    }
    client
        .until("the answers", |it| it.ping_acks().len() == payloads.len())
        .await;
    let expected = payloads.map(u64::to_be_bytes);
    assert_eq!(client.ping_acks(), expected.each_ref().map(|it| &it[..]));
}

/// The path of a method keeps its case on its way out.
#[tokio::test]
async fn a_path_is_sent_as_it_is_written() {
    let (client, mut peer) = client().await;
    for path in ["/a.b.C/d", "/A.B.c/D", "/C/d_1"] {
        let call = client.unary::<Raw, Raw>(Method::new(path), raw("x"));
        let _call = tokio::spawn(call.into_future());
        let stream = peer.next_full_request().await;
        let head = peer.stream(stream).head.expect("a head");
        assert_eq!(head.text(":path").as_deref(), Some(path));
    }
}
