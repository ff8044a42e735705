//! Servers that do not answer as they should: each call ends with one status that says so, nothing
//! hangs, and the calls behind it work.
//!
//! A raw peer plays the server; the client is ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use trunkline::limits::ChannelLimits;
use trunkline::{Channel, Client, Code, Method, Raw, Result, Status, Streaming};
use trunkline_testkit::{
    Fields, Frame, RawListener, RawPeer, channel_over, error, flag, gzip, kind, message,
    message_flagged, prefix, setting, within,
};

const BAD: Method = Method::new("/test.Hostile/Bad");
const GOOD: Method = Method::new("/test.Hostile/Good");

/// What the server sends on a stream whose request has come in full.
type Answer = Box<dyn Fn(u32) -> Vec<Frame> + Send + Sync>;

/// A server that answers calls of [`BAD`] with one answer, always the same, and others as it
/// should.
struct Hostile {
    client: Client,
    connections: Arc<AtomicUsize>,
}

/// What comes of a call whose responses are a stream.
#[derive(Debug, PartialEq)]
struct Streamed {
    messages: Vec<Bytes>,
    code: Code,
}

impl Hostile {
    async fn answering(answer: Answer) -> Self {
        let listener = RawListener::bind().await;
        let address = listener.address();
        let connections = Arc::new(AtomicUsize::new(0));
        let (answer, accepted) = (Arc::new(answer), connections.clone());
        tokio::spawn(async move {
            loop {
                let peer = listener.accept().await;
                accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(play(peer, answer.clone()));
            }
        });
        let channel = Channel::connect(&address).await.expect("an HTTP/2 server");
        Self {
            client: Client::new(channel),
            connections,
        }
    }

    async fn unary(&self) -> Result<Bytes> {
        let call = self.client.unary::<Raw, Raw>(BAD, Raw("x".into()));
        let response = within("a unary call", call.into_future()).await;
        response.map(|response| response.into_inner().0)
    }

    async fn streaming(&self) -> (Streamed, Option<Status>) {
        let call = self.client.server_streaming(BAD, Raw("x".into()));
        within("a streaming call", async {
            match call.await {
                Ok(responses) => read_all(responses).await,
                Err(status) => ended(Vec::new(), Some(status)),
            }
        })
        .await
    }

    /// Both kinds of calls, each behind a good one, and whether the connection lived on.
    async fn check(self, name: &str, unary: Code, streamed: &[&'static [u8]], code: Code) {
        let failure = self.unary().await.err();
        let actual = failure.as_ref().map_or(Code::OK, Status::code);
        assert_eq!(actual, unary, "unary: {name}: {failure:?}");
        self.check_alive(name).await;
        let (actual, status) = self.streaming().await;
        let messages = streamed.iter().map(|it| Bytes::from_static(it)).collect();
        let expected = Streamed { messages, code };
        assert_eq!(actual, expected, "streaming: {name}: {status:?}");
        self.check_alive(name).await;
    }

    async fn check_alive(&self, name: &str) {
        let call = self.client.unary::<Raw, Raw>(GOOD, Raw("good".into()));
        let response = within("a good call", call.into_future()).await;
        let response =
            response.unwrap_or_else(|status| panic!("a good call after {name}: {status}"));
        assert_eq!(response.0, "good", "{name}");
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn play(mut peer: RawPeer<TcpStream>, answer: Arc<Answer>) {
    while let Some(stream) = peer.try_next_request().await {
        peer.until_end(stream).await;
        let head = peer.stream(stream).head.expect("a request has a head");
        let frames = match head.text(":path").as_deref() {
            Some("/test.Hostile/Bad") => answer(stream),
            _ => good(stream, b"good"),
        };
        peer.write(&frames).await;
    }
}

async fn read_all(mut responses: Streaming<Raw>) -> (Streamed, Option<Status>) {
    let mut messages = Vec::new();
    loop {
        match responses.message().await {
            Ok(Some(message)) => messages.push(message.0),
            Ok(None) => return ended(messages, None),
            Err(status) => return ended(messages, Some(status)),
        }
    }
}

fn ended(messages: Vec<Bytes>, status: Option<Status>) -> (Streamed, Option<Status>) {
    let code = status.as_ref().map_or(Code::OK, Status::code);
    (Streamed { messages, code }, status)
}

fn head(stream: u32) -> Frame {
    Frame::headers(stream, &Fields::response())
}

fn data(stream: u32, payload: &[u8]) -> Frame {
    Frame::data(stream, message(payload))
}

fn trailers(stream: u32, status: &str) -> Frame {
    Frame::headers(stream, &Fields::trailers(status)).ending()
}

fn good(stream: u32, payload: &[u8]) -> Vec<Frame> {
    vec![head(stream), data(stream, payload), trailers(stream, "0")]
}

fn code(number: i32) -> Code {
    Code::from(number)
}

#[tokio::test]
async fn an_http_response_without_grpc_status_is_a_status_by_the_table_and_its_body_is_not_read() {
    let statuses: [(&str, Code); 14] = [
        ("200", Code::UNKNOWN),
        ("400", Code::INTERNAL),
        ("401", Code::UNAUTHENTICATED),
        ("403", Code::PERMISSION_DENIED),
        ("404", Code::UNIMPLEMENTED),
        ("409", Code::UNKNOWN),
        ("415", Code::UNKNOWN),
        ("429", Code::UNAVAILABLE),
        ("431", Code::INTERNAL),
        ("500", Code::UNKNOWN),
        ("502", Code::UNAVAILABLE),
        ("503", Code::UNAVAILABLE),
        ("504", Code::UNAVAILABLE),
        ("999", Code::UNKNOWN),
    ];
    for (http, code) in statuses {
        let html = Fields::new()
            .and(":status", http)
            .and("content-type", "text/html");
        let bare = html.clone();
        let answer = Box::new(move |stream| vec![Frame::headers(stream, &bare).ending()]);
        let server = Hostile::answering(answer).await;
        server.check(http, code, &[], code).await;
        // The body looks like a message, and is none.
        let answer = Box::new(move |stream| {
            let body = Frame::data(stream, message(b"<html>")).ending();
            vec![Frame::headers(stream, &html), body]
        });
        let server = Hostile::answering(answer).await;
        server.check(http, code, &[], code).await;
    }
}

#[tokio::test]
async fn an_http_error_that_has_a_grpc_status_is_that_status() {
    let answer = Box::new(|stream| {
        let fields = Fields::response()
            .with(":status", "503")
            .and("grpc-status", "7")
            .and("grpc-message", "not you");
        vec![Frame::headers(stream, &fields).ending()]
    });
    let server = Hostile::answering(answer).await;
    let status = server.unary().await.expect_err("an error");
    assert_eq!(
        (status.code(), status.message()),
        (Code::PERMISSION_DENIED, "not you")
    );
}

#[tokio::test]
async fn a_grpc_status_that_is_none_is_unknown_and_never_ok() {
    let statuses: [(&[&str], Code); 9] = [
        (&[], Code::UNKNOWN),
        (&["99"], code(99)),
        (&["x"], Code::UNKNOWN),
        (&["00"], Code::UNKNOWN),
        (&["-1"], Code::UNKNOWN),
        (&["0 "], Code::UNKNOWN),
        (&[""], Code::UNKNOWN),
        (&["0", "0"], Code::UNKNOWN),
        (&["0", "5"], Code::UNKNOWN),
    ];
    for (values, code) in statuses {
        let fields = values
            .iter()
            .fold(Fields::new().and("x-trailer", "1"), |fields, value| {
                fields.and("grpc-status", value)
            });
        let answer = Box::new(move |stream| {
            let trailers = Frame::headers(stream, &fields).ending();
            vec![head(stream), data(stream, b"m"), trailers]
        });
        let server = Hostile::answering(answer).await;
        let name = format!("{values:?}");
        server.check(&name, code, &[b"m"], code).await;
    }
}

#[tokio::test]
async fn a_grpc_message_that_is_broken_is_kept_as_far_as_it_goes() {
    let long = "m".repeat(16 * 1024);
    let messages = [
        ("a%20b", "a b"),
        ("100%", "100%"),
        ("%zz%4", "%zz%4"),
        ("%ff%fe", "\u{fffd}\u{fffd}"),
        ("", ""),
        (&long, &long),
    ];
    for (sent, expected) in messages {
        let fields = Fields::trailers("5").and("grpc-message", sent);
        let answer = Box::new(move |stream| {
            let mut frames = vec![head(stream)];
            frames.extend(Frame::long_headers(stream, &fields));
            frames[1] = frames[1].clone().ending();
            frames
        });
        let server = Hostile::answering(answer).await;
        let status = server.unary().await.expect_err("an error");
        assert_eq!(status.code(), Code::NOT_FOUND, "{sent:.20}");
        assert_eq!(status.message(), expected, "{sent:.20}");
        server.check_alive("a broken message").await;
    }
}

#[tokio::test]
async fn a_response_whose_frames_are_in_the_wrong_order_ends_and_is_never_ok() {
    let cases: Vec<(&str, Answer, &[&'static [u8]], Code)> = vec![
        (
            "no trailers",
            Box::new(|stream| vec![head(stream), data(stream, b"m").ending()]),
            &[b"m"],
            Code::INTERNAL,
        ),
        (
            "an empty DATA frame in the place of trailers",
            Box::new(|stream| {
                let end = Frame::data(stream, "").ending();
                vec![head(stream), data(stream, b"m"), end]
            }),
            &[b"m"],
            Code::INTERNAL,
        ),
        (
            "a head and nothing more",
            Box::new(|stream| vec![head(stream).ending()]),
            &[],
            Code::UNKNOWN,
        ),
        (
            "DATA before the head",
            Box::new(|stream| vec![data(stream, b"m")]),
            &[],
            Code::UNAVAILABLE,
        ),
        (
            "trailers that do not end the stream, and DATA",
            Box::new(|stream| {
                let open = Frame::headers(stream, &Fields::trailers("0"));
                vec![head(stream), data(stream, b"m"), open, data(stream, b"n")]
            }),
            &[b"m"],
            Code::INTERNAL,
        ),
        (
            "two heads",
            Box::new(|stream| vec![head(stream), head(stream), data(stream, b"m")]),
            &[],
            Code::INTERNAL,
        ),
        (
            "a grpc-status of OK in the head, DATA, and no trailers",
            Box::new(|stream| {
                let fields = Fields::response().and("grpc-status", "0");
                let head = Frame::headers(stream, &fields);
                vec![head, data(stream, b"m").ending()]
            }),
            &[b"m"],
            Code::INTERNAL,
        ),
        (
            "a head without :status",
            Box::new(|stream| {
                let fields = Fields::response().without(":status");
                vec![Frame::headers(stream, &fields)]
            }),
            &[],
            Code::INTERNAL,
        ),
    ];
    for (name, answer, messages, code) in cases {
        let server = Hostile::answering(answer).await;
        server.check(name, code, messages, code).await;
    }
}

#[tokio::test]
async fn trailers_win_over_a_grpc_status_in_the_head_when_both_are_there() {
    let answer = Box::new(|stream| {
        let fields = Fields::response().and("grpc-status", "5");
        vec![
            Frame::headers(stream, &fields),
            data(stream, b"m"),
            trailers(stream, "0"),
        ]
    });
    let server = Hostile::answering(answer).await;
    server.check("both", Code::OK, &[b"m"], Code::OK).await;
}

#[tokio::test]
async fn a_reset_is_the_status_of_the_table_wherever_it_comes_before_the_trailers() {
    // PROTOCOL-HTTP2.md, "Errors". It says nothing of 5 and 13.
    let codes = [13, 13, 13, 13, 13, 13, 13, 14, 1, 13, 13, 8, 7, 2];
    for (error, number) in (0..).zip(codes) {
        let code = code(number);
        let before_head: Answer = Box::new(move |stream| vec![Frame::rst_stream(stream, error)]);
        let after_head: Answer =
            Box::new(move |stream| vec![head(stream), Frame::rst_stream(stream, error)]);
        let after_message: Answer = Box::new(move |stream| {
            let reset = Frame::rst_stream(stream, error);
            vec![head(stream), data(stream, b"m"), reset]
        });
        for (name, answer, messages) in [
            ("before the head", before_head, &[][..]),
            ("after the head", after_head, &[][..]),
            ("after the message", after_message, &[&b"m"[..]][..]),
        ] {
            let server = Hostile::answering(answer).await;
            let connections = server.connections.clone();
            let name = format!("{error} {name}");
            // A stream that is reset may lose what was not read before.
            let status = server.unary().await.expect_err("an error");
            assert_eq!(status.code(), code, "{name}: {status}");
            assert!(status.message().contains(&error.to_string()), "{status}");
            let (streamed, _) = server.streaming().await;
            assert_eq!(streamed.code, code, "{name}");
            assert!(streamed.messages.len() <= messages.len(), "{name}");
            server.check_alive(&name).await;
            assert_eq!(connections.load(Ordering::SeqCst), 1, "{name}");
        }
    }
}

#[tokio::test]
async fn a_reset_behind_the_trailers_changes_nothing() {
    for error in 0..=13 {
        for number in [0, 9] {
            let answer = Box::new(move |stream| {
                let trailers = trailers(stream, &number.to_string());
                let reset = Frame::rst_stream(stream, error);
                vec![head(stream), data(stream, b"m"), trailers, reset]
            });
            let server = Hostile::answering(answer).await;
            let name = format!("{error} after {number}");
            server
                .check(&name, code(number), &[b"m"], code(number))
                .await;
        }
    }
}

/// A connection of ours, in memory, to a peer that plays the server.
async fn in_memory(settings: &[(u16, u32)]) -> (Client, RawPeer<tokio::io::DuplexStream>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (channel, peer) = tokio::join!(
        channel_over(near, ChannelLimits::default()),
        RawPeer::server(far, settings)
    );
    let channel = channel.expect("the peer speaks HTTP/2");
    (Client::new(channel), peer)
}

#[tokio::test]
async fn a_status_that_comes_while_the_client_still_sends_is_not_lost_to_the_reset_behind_it() {
    let (client, mut peer) = in_memory(&[]).await;
    for round in 0..1_000 {
        let mut call = client
            .client_streaming::<Raw, Raw>(BAD)
            .await
            .expect("an open stream");
        let _ = call.send(Raw("one".into())).await;
        let stream = peer.next_request().await;
        let fields = Fields::response()
            .and("grpc-status", "7")
            .and("grpc-message", "enough");
        peer.write(&[
            Frame::headers(stream, &fields).ending(),
            Frame::rst_stream(stream, error::NO_ERROR),
        ])
        .await;
        let status = within("the status", call.finish())
            .await
            .expect_err("an error");
        let said = (status.code(), status.message());
        assert_eq!(said, (Code::PERMISSION_DENIED, "enough"), "round {round}");
    }
}

#[tokio::test]
async fn a_response_that_comes_while_the_client_still_sends_is_not_lost_to_the_reset_behind_it() {
    let (client, mut peer) = in_memory(&[]).await;
    for round in 0..100 {
        let call = client
            .client_streaming::<Raw, Raw>(BAD)
            .await
            .expect("an open stream");
        let stream = peer.next_request().await;
        let mut frames = good(stream, b"early");
        frames.push(Frame::rst_stream(stream, error::NO_ERROR));
        peer.write(&frames).await;
        let response = within("the response", call.finish()).await;
        let response = response.unwrap_or_else(|status| panic!("round {round}: {status}"));
        assert_eq!(response.0, "early");
    }
}

#[tokio::test]
async fn messages_trailers_and_the_end_of_the_connection_in_one_segment_arrive_in_order() {
    for number in [0, 5] {
        for keeps_sending in [false, true] {
            let listener = RawListener::bind().await;
            let channel = Channel::to(listener.address())
                .connect_lazy()
                .expect("an address");
            let client = Client::new(channel);
            let server = tokio::spawn(async move {
                let mut peer = listener.accept().await;
                let stream = peer.next_request().await;
                let mut frames = vec![head(stream), data(stream, b"a"), data(stream, b"b")];
                frames.push(trailers(stream, &number.to_string()));
                peer.write(&frames).await;
                peer.shut_down().await;
                peer
            });
            let (streamed, status) = within("the call", async {
                if keeps_sending {
                    let call = client.bidi_streaming::<Raw, Raw>(BAD).await;
                    let (_sender, responses) = call.expect("an open stream");
                    return read_all(responses).await;
                }
                let call = client.server_streaming::<Raw, Raw>(BAD, Raw("x".into()));
                read_all(call.await.expect("an open stream")).await
            })
            .await;
            let expected = Streamed {
                messages: vec!["a".into(), "b".into()],
                code: code(number),
            };
            assert_eq!(streamed, expected, "{keeps_sending} {status:?}");
            drop(server.await);
        }
    }
}

#[tokio::test]
async fn a_unary_response_of_no_message_or_of_two_is_unimplemented() {
    let none = Box::new(|stream| vec![head(stream), trailers(stream, "0")]);
    let server = Hostile::answering(none).await;
    server
        .check("none", Code::UNIMPLEMENTED, &[], Code::OK)
        .await;
    let trailers_only = Box::new(|stream| {
        let fields = Fields::response().and("grpc-status", "0");
        vec![Frame::headers(stream, &fields).ending()]
    });
    let server = Hostile::answering(trailers_only).await;
    server
        .check("Trailers-Only", Code::UNIMPLEMENTED, &[], Code::OK)
        .await;
    let two = Box::new(|stream| {
        let end = trailers(stream, "0");
        vec![head(stream), data(stream, b"a"), data(stream, b"b"), end]
    });
    let server = Hostile::answering(two).await;
    server
        .check("two", Code::UNIMPLEMENTED, &[b"a", b"b"], Code::OK)
        .await;
}

#[tokio::test]
async fn a_message_that_is_too_large_or_cannot_be_restored_ends_its_call_alone() {
    const LIMIT: u32 = 4 * 1024 * 1024;
    let zip = |stream| {
        let fields = Fields::response().and("grpc-encoding", "gzip");
        Frame::headers(stream, &fields)
    };
    let bomb = message_flagged(1, &gzip(&vec![0; LIMIT as usize + 1]));
    let cases: Vec<(&str, Answer, Code)> = vec![
        (
            "a length over the limit, and no message",
            Box::new(|stream| {
                let prefix = prefix(0, LIMIT + 1).to_vec();
                vec![head(stream), Frame::data(stream, prefix)]
            }),
            Code::RESOURCE_EXHAUSTED,
        ),
        (
            "a length of 4 GiB",
            Box::new(|stream| {
                let prefix = prefix(0, u32::MAX).to_vec();
                vec![head(stream), Frame::data(stream, prefix)]
            }),
            Code::RESOURCE_EXHAUSTED,
        ),
        (
            "a message that inflates to more than the limit",
            Box::new(move |stream| {
                let mut frames = vec![zip(stream)];
                frames.extend(Frame::long_data(stream, &bomb));
                frames.push(trailers(stream, "0"));
                frames
            }),
            Code::RESOURCE_EXHAUSTED,
        ),
        (
            "compressed, and no encoding",
            Box::new(|stream| {
                let frame = Frame::data(stream, message_flagged(1, &gzip(b"m")));
                vec![head(stream), frame, trailers(stream, "0")]
            }),
            Code::INTERNAL,
        ),
        (
            "compressed, and not gzip",
            Box::new(move |stream| {
                let frame = Frame::data(stream, message_flagged(1, b"junk"));
                vec![zip(stream), frame, trailers(stream, "0")]
            }),
            Code::INTERNAL,
        ),
        (
            "an encoding that is unknown",
            Box::new(|stream| {
                let fields = Fields::response().and("grpc-encoding", "zebra");
                let head = Frame::headers(stream, &fields);
                vec![head, data(stream, b"m"), trailers(stream, "0")]
            }),
            Code::INTERNAL,
        ),
        (
            "a flag of 2",
            Box::new(|stream| {
                let frame = Frame::data(stream, message_flagged(2, b"m"));
                vec![head(stream), frame, trailers(stream, "0")]
            }),
            Code::INTERNAL,
        ),
        (
            "a message that is cut",
            Box::new(|stream| {
                let frame = Frame::data(stream, message(b"message").slice(..9));
                vec![head(stream), frame, trailers(stream, "0")]
            }),
            Code::INTERNAL,
        ),
    ];
    for (name, answer, code) in cases {
        let server = Hostile::answering(answer).await;
        let connections = server.connections.clone();
        server.check(name, code, &[], code).await;
        assert_eq!(connections.load(Ordering::SeqCst), 1, "{name}");
    }
}

#[tokio::test]
async fn a_stream_is_the_same_however_its_bytes_are_split_and_short_only_where_they_are_cut() {
    let expected: Vec<Bytes> = (b'a'..=b'e').map(|c| Bytes::from(vec![c; 3])).collect();
    let mut wire = BytesMut::new();
    head(1).write_to(&mut wire);
    for payload in &expected {
        data(1, payload).write_to(&mut wire);
    }
    trailers(1, "5").write_to(&mut wire);
    for at in 0..=wire.len() {
        let (streamed, status) = read_split(&wire, at, Then::Rest).await;
        let (messages, code) = (expected.clone(), Code::NOT_FOUND);
        let whole = Streamed { messages, code };
        assert_eq!(streamed, whole, "split at {at}: {status:?}");
        let (streamed, status) = read_split(&wire, at, Then::End).await;
        let came = expected.iter().take(streamed.messages.len());
        assert!(came.eq(&streamed.messages), "cut at {at}: {streamed:?}");
        let code = match at == wire.len() {
            true => Code::NOT_FOUND,
            false => Code::UNAVAILABLE,
        };
        assert_eq!(streamed.code, code, "cut at {at}: {status:?}");
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    Rest,
    End,
}

/// What a call makes of `wire` when its first `at` bytes come first, and then the rest or nothing.
async fn read_split(wire: &[u8], at: usize, then: Then) -> (Streamed, Option<Status>) {
    let (client, mut peer) = in_memory(&[]).await;
    let call = client.server_streaming::<Raw, Raw>(BAD, Raw("x".into()));
    let responses = call.await.expect("an open stream");
    peer.next_full_request().await;
    peer.write_bytes(&wire[..at]).await;
    let reading = tokio::spawn(read_all(responses));
    // One thread: each yield lets the connection and the reader run until they wait.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    match then {
        Then::Rest => peer.write_bytes(&wire[at..]).await,
        Then::End => peer.shut_down().await,
    }
    within("the call", reading).await.expect("no panic")
}

#[tokio::test]
async fn a_connection_that_is_lost_is_unavailable_and_the_message_names_it() {
    let points: [&[u8]; 4] = [b"", b"h", b"hm", b"hmp"];
    for kept in points {
        let answer = |stream| {
            let all = [
                head(stream),
                data(stream, b"m"),
                Frame::data(stream, prefix(0, 9).to_vec()),
            ];
            all[..kept.len()].to_vec()
        };
        for with_goaway in [false, true] {
            let listener = RawListener::bind().await;
            let address = listener.address();
            let channel = Channel::connect(&address);
            let (channel, mut peer) = tokio::join!(channel, listener.accept());
            let client = Client::new(channel.expect("an HTTP/2 server"));
            let call = client.server_streaming::<Raw, Raw>(BAD, Raw("x".into()));
            let responses = call.await.expect("an open stream");
            let stream = peer.next_full_request().await;
            peer.write(&answer(stream)).await;
            if with_goaway {
                let goaway = Frame::goaway(stream, error::INTERNAL_ERROR, "on fire");
                peer.write(&[goaway]).await;
            }
            drop(peer);
            let (streamed, status) = within("the call", read_all(responses)).await;
            let name = format!("{kept:?}, GOAWAY: {with_goaway}");
            assert_eq!(streamed.code, Code::UNAVAILABLE, "{name}: {status:?}");
            let status = status.expect("an error");
            let message = status.message();
            assert!(message.contains("connection"), "{name}: {message}");
            assert!(!with_goaway || message.contains("on fire"), "{message}");
            // The next call finds a new connection.
            let next = client.unary::<Raw, Raw>(GOOD, Raw("x".into()));
            let next = tokio::spawn(next.into_future());
            let mut peer = listener.accept().await;
            let stream = peer.next_full_request().await;
            peer.write(&good(stream, b"again")).await;
            let response = within("the next call", next).await.expect("no panic");
            assert_eq!(response.expect("a response").0, "again", "{name}");
        }
    }
}

#[tokio::test]
async fn a_deadline_is_deadline_exceeded_whatever_the_server_does_about_it() {
    let answers: Vec<(&str, Answer)> = vec![
        ("nothing", Box::new(|_| Vec::new())),
        ("a head", Box::new(|stream| vec![head(stream)])),
        (
            "a message",
            Box::new(|stream| vec![head(stream), data(stream, b"m")]),
        ),
    ];
    for (name, answer) in answers {
        let server = Hostile::answering(answer).await;
        let call = server.client.unary::<Raw, Raw>(BAD, Raw("x".into()));
        let call = call.timeout(Duration::from_millis(40));
        let status = within(name, call.into_future())
            .await
            .expect_err("an error");
        assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{name}: {status}");
        assert!(status.message().contains("while"), "{name}: {status}");
        server.check_alive(name).await;
        assert_eq!(server.connections(), 1);
    }
}

/// Whatever a server says in the place of HTTP/2.
async fn says(bytes: &'static [u8]) -> String {
    let listener = RawListener::bind().await;
    let address = listener.address();
    tokio::spawn(async move {
        loop {
            let mut stream = listener.accept_silent().await;
            let _ = stream.write_all(bytes).await;
            // Held open: the client must not wait for the end.
            tokio::spawn(async move {
                let mut sink = [0; 1024];
                while let Ok(1..) = tokio::io::AsyncReadExt::read(&mut stream, &mut sink).await {}
            });
        }
    });
    address
}

#[tokio::test]
async fn what_is_no_http2_server_is_named_with_its_cause_and_the_way_out() {
    let closed = {
        let listener = RawListener::bind().await;
        listener.address()
    };
    let http1 = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    // RFC 8446, section 6: a fatal alert, unexpected_message.
    let tls = b"\x15\x03\x03\x00\x02\x02\x0a";
    let cases: [(&str, String, &[&str]); 5] = [
        (
            "closed",
            closed,
            &["nothing listens there", "server running"],
        ),
        ("HTTP/1.1", says(http1).await, &["HTTP/1.1", "gRPC port"]),
        ("TLS", says(tls).await, &["TLS", "https"]),
        ("silent", says(b"").await, &["no response within 200ms"]),
        (
            "SSH",
            says(b"SSH-2.0-OpenSSH_9.2\r\n").await,
            &["connection"],
        ),
    ];
    for (name, address, words) in cases {
        let limit = Duration::from_millis(200);
        let channel = Channel::to(&address).connect_timeout(limit).connect();
        let status = within(name, channel).await.expect_err("no HTTP/2");
        check_message(name, &address, &status, words);
        // The same for a call on a channel that connects when it has to.
        let lazy = Channel::to(&address).connect_timeout(limit).connect_lazy();
        let client = Client::new(lazy.expect("an address"));
        let call = client.unary::<Raw, Raw>(GOOD, Raw("x".into()));
        let status = within(name, call.into_future()).await.expect_err("no call");
        check_message(name, &address, &status, words);
    }
}

fn check_message(name: &str, address: &str, status: &Status, words: &[&str]) {
    assert_eq!(status.code(), Code::UNAVAILABLE, "{name}: {status}");
    let message = status.message();
    assert!(!message.contains('\n'), "{name}: {message}");
    for word in words.iter().chain([&address]) {
        assert!(message.contains(word), "{name}: {word:?} in {message:?}");
    }
}

#[tokio::test]
async fn a_call_that_waits_for_a_connection_ends_at_its_own_deadline() {
    let channel = Channel::to(&says(b"").await).connect_lazy();
    let client = Client::new(channel.expect("an address"));
    let call = client.unary::<Raw, Raw>(GOOD, Raw("x".into()));
    let call = call.timeout(Duration::from_millis(50));
    let status = within("the call", call.into_future())
        .await
        .expect_err("an error");
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    assert!(status.message().contains("connection"), "{status}");
}

#[tokio::test]
async fn settings_that_are_not_allowed_are_a_connection_error() {
    let cases = [
        ("MAX_FRAME_SIZE 0", setting::MAX_FRAME_SIZE, 0),
        ("MAX_FRAME_SIZE 2^24", setting::MAX_FRAME_SIZE, 1 << 24),
        (
            "INITIAL_WINDOW_SIZE 2^31",
            setting::INITIAL_WINDOW_SIZE,
            1 << 31,
        ),
        ("ENABLE_PUSH 2", setting::ENABLE_PUSH, 2),
    ];
    for (name, id, value) in cases {
        let (near, far) = tokio::io::duplex(1 << 16);
        let channel = tokio::spawn(channel_over(near, ChannelLimits::default()));
        let mut peer = RawPeer::silent(far);
        peer.write(&[Frame::settings(&[(id, value)])]).await;
        // Whether the connection was taken for good before or not: no call passes.
        let channel = within(name, channel).await.expect("no panic");
        let status = match channel {
            Err(status) => status,
            Ok(channel) => {
                let client = Client::new(channel);
                let call = client.unary::<Raw, Raw>(GOOD, Raw("x".into()));
                let response = within(name, call.into_future()).await;
                response.expect_err("no call passes")
            }
        };
        assert_eq!(status.code(), Code::UNAVAILABLE, "{name}: {status}");
    }
}

#[tokio::test]
async fn with_no_streams_allowed_calls_wait_until_their_deadline_or_until_some_are() {
    let none = [(setting::MAX_CONCURRENT_STREAMS, 0)];
    let (client, mut peer) = in_memory(&none).await;
    assert!(peer.settle().await);
    let call = client.unary::<Raw, Raw>(GOOD, Raw("x".into()));
    let call = call.timeout(Duration::from_millis(50));
    let status = within("the call", call.into_future())
        .await
        .expect_err("an error");
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status}");
    let waiting = client.unary::<Raw, Raw>(GOOD, Raw("x".into()));
    let waiting = tokio::spawn(waiting.into_future());
    assert!(peer.settle().await);
    assert_eq!(peer.waiting_requests(), 0, "a stream that is not allowed");
    let one = [(setting::MAX_CONCURRENT_STREAMS, 1)];
    peer.write(&[Frame::settings(&one)]).await;
    // The call that was given up may still be opened, and is reset then.
    let mut stream = peer.next_full_request().await;
    while peer.stream(stream).reset == Some(error::CANCEL) {
        stream = peer.next_full_request().await;
    }
    peer.write(&good(stream, b"late")).await;
    let response = within("the response", waiting).await.expect("no panic");
    assert_eq!(response.expect("a response").0, "late");
}

#[tokio::test]
async fn a_pushed_stream_is_a_connection_error() {
    let (client, mut peer) = in_memory(&[]).await;
    assert_eq!(peer.setting(setting::ENABLE_PUSH), Some(0));
    let call = client.unary::<Raw, Raw>(BAD, Raw("x".into()));
    let call = tokio::spawn(call.into_future());
    let stream = peer.next_full_request().await;
    let mut promise = BytesMut::from(&2u32.to_be_bytes()[..]);
    promise.extend_from_slice(&Fields::call("/pushed").encode());
    let promise = Frame::new(kind::PUSH_PROMISE, flag::END_HEADERS, stream, promise);
    peer.write(&[promise]).await;
    let status = within("the call", call).await.expect("no panic");
    let status = status.expect_err("an error");
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    peer.until_closed().await;
    let goaway = peer.goaway().expect("a reason");
    assert_eq!(goaway.error, error::PROTOCOL_ERROR);
}

#[tokio::test]
async fn interim_responses_are_passed_over() {
    let answer = Box::new(|stream| {
        let interim = Frame::headers(stream, &Fields::new().and(":status", "103"));
        let mut frames = vec![interim; 100];
        frames.extend(good(stream, b"m"));
        frames
    });
    let server = Hostile::answering(answer).await;
    server.check("103", Code::OK, &[b"m"], Code::OK).await;
}

#[tokio::test]
async fn a_flood_of_pings_is_answered_and_the_call_beside_it_goes_on() {
    let (client, mut peer) = in_memory(&[]).await;
    let call = client.unary::<Raw, Raw>(BAD, Raw("x".into()));
    let call = tokio::spawn(call.into_future());
    let stream = peer.next_full_request().await;
    for _ in 0..100 {
        peer.write(&vec![Frame::ping(7); 100]).await;
    }
    peer.write(&good(stream, b"m")).await;
    let response = within("the call", call).await.expect("no panic");
    assert_eq!(response.expect("a response").0, "m");
    peer.until("10,000 acknowledgements", |it| {
        it.ping_acks().len() >= 10_000
    })
    .await;
    assert!(!peer.is_closed());
}

#[tokio::test]
async fn metadata_of_a_response_is_bounded() {
    let with_metadata = |size: usize| -> Answer {
        Box::new(move |stream| {
            let fields = Fields::response().and("x", vec![b'v'; size]);
            let head = Frame::headers(stream, &fields);
            let trailers = Fields::trailers("0").and("y", vec![b'v'; size]);
            let trailers = Frame::headers(stream, &trailers).ending();
            vec![head, data(stream, b"m"), trailers]
        })
    };
    for size in [8 * 1024, 15 * 1024] {
        let server = Hostile::answering(with_metadata(size)).await;
        let name = format!("{size} bytes");
        server.check(&name, Code::OK, &[b"m"], Code::OK).await;
    }
    let answer = Box::new(move |stream| {
        let fields = Fields::response().and("x", vec![b'v'; 40 * 1024]);
        let mut frames = Frame::long_headers(stream, &fields);
        frames.extend([data(stream, b"m"), trailers(stream, "0")]);
        frames
    });
    let server = Hostile::answering(answer).await;
    let status = server.unary().await.expect_err("an error");
    assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED, "{status}");
    server.check_alive("40 KiB").await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_header_block_without_end_is_cut_off() {
    let answer = Box::new(|stream| {
        let block = Fields::response().and("x", vec![b'v'; 1000]).encode();
        let mut frames = vec![Frame::new(kind::HEADERS, 0, stream, block)];
        let more = Fields::new().and("y", vec![b'v'; 16_000]).encode();
        let more = Frame::new(kind::CONTINUATION, 0, stream, more);
        frames.extend(vec![more; 64]);
        frames
    });
    let server = Hostile::answering(answer).await;
    let status = server.unary().await.expect_err("an error");
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    server.check_alive("an endless header block").await;
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_server_that_takes_nothing_holds_a_sender_until_its_deadline() {
    let (client, mut peer) = in_memory(&[(setting::INITIAL_WINDOW_SIZE, 0)]).await;
    assert!(peer.settle().await);
    let call = client.client_streaming::<Raw, Raw>(BAD);
    let mut call = call
        .timeout(Duration::from_millis(100))
        .await
        .expect("an open stream");
    let mut sent = 0;
    let status = within("sends that wait", async {
        loop {
            match call.send(Raw(Bytes::from_static(&[7; 4096]))).await {
                Ok(()) => sent += 1,
                Err(status) => return status,
            }
        }
    })
    .await;
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status}");
    assert!(sent <= 64, "{sent} messages of 4 KiB wait for window");
    let stream = peer.next_request().await;
    peer.until("the reset", |it| it.stream(stream).reset.is_some())
        .await;
    let received = peer.stream(stream);
    assert_eq!(received.reset, Some(error::CANCEL));
    assert_eq!(received.data.len(), 0);
}

// The negative cases of the gRPC interoperability tests (grpc/grpc, test/http2_test), with the
// sizes that they have.

const LARGE_REQUEST: usize = 271_828;
const LARGE_REPLY: usize = 314_159;

fn large_call(client: &Client) -> tokio::task::JoinHandle<Result<trunkline::Response<Raw>>> {
    let call = client.unary::<Raw, Raw>(BAD, Raw(vec![0; LARGE_REQUEST].into()));
    tokio::spawn(call.into_future())
}

async fn check_large(call: tokio::task::JoinHandle<Result<trunkline::Response<Raw>>>) {
    let response = within("a large response", call).await.expect("no panic");
    assert_eq!(response.expect("a response").0.len(), LARGE_REPLY);
}

async fn reply_large<IO: AsyncRead + AsyncWrite + Unpin>(peer: &mut RawPeer<IO>, stream: u32) {
    assert_eq!(peer.stream(stream).data.len(), LARGE_REQUEST + 5);
    peer.write(&[head(stream)]).await;
    peer.send(stream, message(&[0; LARGE_REPLY])).await;
    peer.write(&[trailers(stream, "0")]).await;
}

#[tokio::test]
async fn interop_goaway_the_second_call_takes_a_new_connection() {
    let listener = RawListener::bind().await;
    let address = listener.address();
    let (channel, mut first) = tokio::join!(Channel::connect(&address), listener.accept());
    let client = Client::new(channel.expect("an HTTP/2 server"));
    let call = large_call(&client);
    let stream = first.next_full_request().await;
    reply_large(&mut first, stream).await;
    first
        .write(&[Frame::goaway(stream, error::NO_ERROR, "")])
        .await;
    check_large(call).await;
    // The client has nothing more to do there, and says so by going.
    first.until_closed().await;
    let call = large_call(&client);
    let mut second = listener.accept().await;
    let stream = second.next_full_request().await;
    reply_large(&mut second, stream).await;
    check_large(call).await;
}

#[tokio::test]
async fn interop_rst_a_reset_without_error_before_the_trailers_is_internal() {
    let half = message(&[0; LARGE_REPLY]).slice(..10_000);
    let whole = message(&[0; 10_000]);
    let cases: [(&str, Bytes); 3] = [
        ("rst_after_header", Bytes::new()),
        ("rst_during_data", half),
        ("rst_after_data", whole),
    ];
    for (name, bytes) in cases {
        let answer = Box::new(move |stream| {
            let data = Frame::data(stream, bytes.clone());
            vec![
                head(stream),
                data,
                Frame::rst_stream(stream, error::NO_ERROR),
            ]
        });
        let server = Hostile::answering(answer).await;
        let status = server.unary().await.expect_err(name);
        assert_eq!(status.code(), Code::INTERNAL, "{name}: {status}");
        assert!(status.message().contains("NO_ERROR"), "{name}: {status}");
        server.check_alive(name).await;
    }
}

#[tokio::test]
async fn interop_ping_every_ping_is_acknowledged() {
    let (client, mut peer) = in_memory(&[]).await;
    let call = large_call(&client);
    let stream = peer.next_full_request().await;
    peer.write(&[Frame::ping(1), head(stream), Frame::ping(2)])
        .await;
    peer.send(stream, message(&[0; LARGE_REPLY])).await;
    peer.write(&[Frame::ping(3), trailers(stream, "0"), Frame::ping(4)])
        .await;
    check_large(call).await;
    peer.until("4 acknowledgements", |it| it.ping_acks().len() == 4)
        .await;
    let acks: Vec<u8> = peer.ping_acks().iter().map(|ack| ack[7]).collect();
    assert_eq!(acks, [1, 2, 3, 4]);
}

#[tokio::test]
async fn interop_max_streams_calls_wait_for_the_one_stream_there_is() {
    let (client, mut peer) = in_memory(&[]).await;
    let first = large_call(&client);
    let stream = peer.next_full_request().await;
    reply_large(&mut peer, stream).await;
    peer.write(&[Frame::settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)])])
        .await;
    check_large(first).await;
    peer.until("the acknowledgement", |it| it.settings_acks() == 2)
        .await;
    let calls: Vec<_> = (0..10).map(|_| large_call(&client)).collect();
    for _ in 0..calls.len() {
        let stream = peer.next_full_request().await;
        assert!(peer.settle().await);
        assert_eq!(peer.waiting_requests(), 0, "two streams at one time");
        reply_large(&mut peer, stream).await;
    }
    for call in calls {
        check_large(call).await;
    }
}

#[tokio::test]
async fn interop_data_frame_padding_counts_against_the_window_and_is_given_back() {
    for padding in [None, Some(255)] {
        let (client, mut peer) = in_memory(&[]).await;
        let call = large_call(&client);
        let stream = peer.next_full_request().await;
        peer.write(&[head(stream)]).await;
        let bytes = message(&[0; LARGE_REPLY]);
        for chunk in bytes.chunks(5) {
            let frame = match padding {
                None => Frame::data(stream, chunk.to_vec()),
                Some(padding) => Frame::padded_data(stream, chunk, padding),
            };
            let len = frame.payload.len() as i64;
            peer.until("window", |it| it.window(stream) >= len).await;
            peer.write(&[frame]).await;
        }
        peer.write(&[trailers(stream, "0")]).await;
        check_large(call).await;
    }
}

#[tokio::test]
async fn a_stream_of_many_small_messages_that_nobody_reads_does_not_end_the_connection() {
    const MESSAGES: usize = 9_000;
    let (client, mut peer) = in_memory(&[]).await;
    let call = client.server_streaming::<Raw, Raw>(BAD, Raw("x".into()));
    let responses = call.await.expect("an open stream");
    let stream = peer.next_full_request().await;
    peer.write(&[head(stream)]).await;
    for _ in 0..MESSAGES {
        peer.write(&[data(stream, b"xy")]).await;
    }
    peer.write(&[trailers(stream, "0")]).await;
    // All of it has come before any of it is read, and a call beside it passes.
    assert!(peer.settle().await, "{:?}", peer.goaway());
    let beside = client.unary::<Raw, Raw>(GOOD, Raw("x".into()));
    let beside = tokio::spawn(beside.into_future());
    let stream = peer.next_full_request().await;
    peer.write(&good(stream, b"beside")).await;
    let response = within("the call beside", beside).await.expect("no panic");
    assert_eq!(response.expect("a response").0, "beside");
    let (streamed, status) = within("the stream", read_all(responses)).await;
    assert_eq!(streamed.code, Code::OK, "{status:?}");
    assert_eq!(streamed.messages.len(), MESSAGES);
}

#[tokio::test]
async fn a_call_is_told_that_its_server_has_left_though_its_request_cannot_be_sent() {
    let (client, mut peer) = in_memory(&[]).await;
    let call = client.unary::<Raw, Raw>(BAD, Raw(vec![0; 4 << 20].into()));
    let calling = tokio::spawn(call.into_future());
    peer.next_request().await;
    // It says that it is done, and reads no more of what is on its way.
    peer.shut_down().await;
    let ended = within("the end of the call", calling).await;
    let status = ended.expect("no panic").expect_err("there is no response");
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
}
