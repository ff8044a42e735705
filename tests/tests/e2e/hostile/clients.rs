//! Calls that are not as they should be: each ends on its own stream, runs no handler that it must
//! not run, and leaves the connection to the calls behind it.
//!
//! A raw peer writes them to a server of ours. Where HTTP/2 itself has to close the connection, the
//! call behind comes on a new one.

use bytes::Bytes;
use tokio::net::TcpStream;
use trunkline::{Code, Server};
use trunkline_testkit::{
    Fields, Frame, Outcome, PREFACE, Probe, RawPeer, error, flag, gzip, kind, message,
    message_flagged, prefix, within,
};

use Outcome::{Answered, Closed, GoneAway, Reset};

const ECHO: &str = "/test.Probe/Echo";
const INTERNAL: Outcome = Answered(200, 13);
const OK: Outcome = Answered(200, 0);
const PROTOCOL_ERROR: u32 = error::PROTOCOL_ERROR;
const UNIMPLEMENTED: Outcome = Answered(200, 12);
const UNSUPPORTED_MEDIA_TYPE: Outcome = Answered(415, 2);

/// A call, complete with its end, and what is to come of it.
struct Case {
    name: String,
    head: Fields,
    body: Bytes,
    expected: Outcome,
    handlers: usize,
}

/// A call that the server answers before a handler runs.
fn refused(name: &str, head: Fields, expected: Outcome) -> Case {
    Case {
        name: name.to_owned(),
        head,
        body: message(b"x"),
        expected,
        handlers: 0,
    }
}

/// A call that is unusual and good.
fn served(name: &str, head: Fields) -> Case {
    Case {
        handlers: 1,
        ..refused(name, head, OK)
    }
}

/// A call whose head is good, and whose body is not.
fn with_body(name: &str, body: impl Into<Bytes>, expected: Outcome) -> Case {
    Case {
        body: body.into(),
        ..refused(name, Fields::call(ECHO), expected)
    }
}

struct Served {
    address: String,
    probe: Probe,
}

async fn serve() -> Served {
    let probe = Probe::new();
    let server = Server::new().add_service(probe.clone());
    let server = server.bind("127.0.0.1:0").await.expect("a free port");
    let address = server.local_addr().to_string();
    tokio::spawn(server.serve());
    Served { address, probe }
}

impl Served {
    /// Makes each call on a connection of its own, and a good one behind it.
    async fn check(&self, cases: impl IntoIterator<Item = Case>) {
        for case in cases {
            let mut client = RawPeer::connect(&self.address).await;
            let before = self.probe.counts().called;
            let stream = client.call(&case.head, case.body).await;
            assert_eq!(client.outcome(stream).await, case.expected, "{}", case.name);
            let handlers = self.probe.counts().called - before;
            assert_eq!(handlers, case.handlers, "handlers of: {}", case.name);
            assert_eq!(
                client.stream(stream).count("grpc-status"),
                usize::from(matches!(case.expected, Answered(..))),
                "{}",
                case.name
            );
            let survives = !matches!(case.expected, GoneAway(_) | Closed);
            self.check_alive(client, &case.name, survives).await;
        }
    }

    /// A good call passes, on the same connection if that is to survive.
    async fn check_alive(&self, mut client: RawPeer<TcpStream>, name: &str, survives: bool) {
        if !survives {
            client.until_closed().await;
            client = RawPeer::connect(&self.address).await;
        }
        let stream = client.call(&Fields::call(ECHO), message(b"good")).await;
        assert_eq!(
            client.outcome(stream).await,
            OK,
            "a good call after: {name}"
        );
        assert_eq!(client.stream(stream).messages(), ["good"], "{name}");
        assert_eq!(client.goaway(), None, "{name}");
    }
}

#[tokio::test]
async fn te_may_be_missing_and_may_say_nothing_but_trailers() {
    let head = || Fields::call(ECHO);
    serve()
        .await
        .check([
            served("no te", head().without("te")),
            refused("te: gzip", head().with("te", "gzip"), Reset(PROTOCOL_ERROR)),
            refused("te: empty", head().with("te", ""), Reset(PROTOCOL_ERROR)),
        ])
        .await;
}

#[tokio::test]
async fn what_is_no_grpc_content_type_is_answered_with_http_status_415() {
    let head = |value: &str| Fields::call(ECHO).with("content-type", value);
    let not_grpc = [
        "",
        "text/html",
        "application/json",
        "application/grpcx",
        "application/grpc-web",
        "application",
        "image/jpeg",
        "application/octet-stream; application/grpc",
    ];
    let grpc = [
        "application/grpc+proto",
        "application/grpc;charset=utf-8",
        "application/grpc+proto; a=b",
        "Application/GRPC",
    ];
    let server = serve().await;
    let missing = Fields::call(ECHO).without("content-type");
    server
        .check([refused("none", missing, UNSUPPORTED_MEDIA_TYPE)])
        .await;
    server
        .check(not_grpc.map(|value| refused(value, head(value), UNSUPPORTED_MEDIA_TYPE)))
        .await;
    server
        .check(grpc.map(|value| served(value, head(value))))
        .await;
    let thrift = "application/grpc+thrift";
    server
        .check([refused(thrift, head(thrift), UNIMPLEMENTED)])
        .await;
}

#[tokio::test]
async fn a_method_other_than_post_is_answered_with_http_status_405() {
    let methods = ["GET", "PUT", "HEAD", "OPTIONS", "DELETE", "post", "PRI"];
    let cases = methods.map(|method| {
        let head = Fields::call(ECHO).with(":method", method);
        refused(method, head, Answered(405, 2))
    });
    serve().await.check(cases).await;
}

#[tokio::test]
async fn a_path_that_is_not_exactly_that_of_a_method_reaches_none() {
    let path = |path: &str| Fields::call(ECHO).with(":path", path);
    let unknown = [
        "/test.Probe/Nothing",
        "/test.Nothing/Echo",
        "/test.Probe",
        "/",
        "//test.Probe/Echo",
        "/test.Probe//Echo",
        "/test.Probe/Echo/",
        "/x/../test.Probe/Echo",
        "/./test.Probe/Echo",
        "/test.Probe/%45cho",
        "/test%2EProbe/Echo",
        "/test.probe/echo",
        "/TEST.PROBE/ECHO",
        "/test.Probe/Echo?x=1",
        "/test.Probe/Echo?",
        "/test.Probe/Echo;x",
        "/test.Probe\\Echo",
        "*",
    ];
    let no_path = [
        "",
        "test.Probe/Echo",
        "http://localhost/test.Probe/Echo",
        "/test.Probe/Echo\u{1}",
        "/test.Probe/Ec ho",
    ];
    let server = serve().await;
    server
        .check(unknown.map(|text| refused(text, path(text), UNIMPLEMENTED)))
        .await;
    server
        .check(no_path.map(|text| refused(text, path(text), Reset(PROTOCOL_ERROR))))
        .await;
}

#[tokio::test]
async fn pseudo_headers_that_break_the_rules_cost_the_stream_and_hosts_that_differ_the_call() {
    let head = || Fields::call(ECHO);
    let reset = Reset(PROTOCOL_ERROR);
    serve()
        .await
        .check([
            refused("no :method", head().without(":method"), reset),
            refused("no :path", head().without(":path"), reset),
            refused("no :scheme", head().without(":scheme"), reset),
            served("no :authority", head().without(":authority")),
            refused("two :path", head().first(":path", ECHO), reset),
            refused("two :method", head().first(":method", "POST"), reset),
            refused("two :authority", head().first(":authority", "a"), reset),
            refused(
                "late :path",
                head().without(":path").and(":path", ECHO),
                reset,
            ),
            refused(
                ":status in a request",
                head().first(":status", "200"),
                reset,
            ),
            refused(
                "an unknown one",
                head().first(":protocol2", "x"),
                GoneAway(PROTOCOL_ERROR),
            ),
            served("a host", head().and("host", "localhost")),
            refused(
                "two hosts",
                head().and("host", "a").and("host", "b"),
                Answered(400, 13),
            ),
        ])
        .await;
}

#[tokio::test]
async fn fields_that_http2_forbids_are_refused_by_stream_and_bytes_by_connection() {
    let head = || Fields::call(ECHO);
    let reset = Reset(PROTOCOL_ERROR);
    let server = serve().await;
    server
        .check([
            refused("connection", head().and("connection", "close"), reset),
            refused("keep-alive", head().and("keep-alive", "1"), reset),
            refused("upgrade", head().and("upgrade", "h2c"), reset),
            refused(
                "transfer-encoding",
                head().and("transfer-encoding", "chunked"),
                reset,
            ),
            refused(
                "proxy-connection",
                head().and("proxy-connection", "close"),
                reset,
            ),
        ])
        .await;
    for (name, field, value) in [
        ("upper case", "X-Upper", "v"),
        ("a space in a name", "x y", "v"),
        ("an empty name", "", "v"),
        ("CR LF in a value", "x", "a\r\nb: c"),
        ("NUL in a value", "x", "a\0b"),
    ] {
        let case = refused(name, head().and(field, value), GoneAway(PROTOCOL_ERROR));
        server.check([case]).await;
    }
}

#[tokio::test]
async fn metadata_bytes_that_are_no_text_come_back_as_they_were() {
    let server = serve().await;
    let mut client = RawPeer::connect(&server.address).await;
    let head = Fields::call("/test.Probe/Metadata").and("x-high", b"\x80\xff caf\xe9");
    let stream = client.call(&head, message(b"")).await;
    let aborted = Answered(200, Code::ABORTED.as_i32());
    assert_eq!(client.outcome(stream).await, aborted);
    let head = client.stream(stream).head.expect("a head");
    let values: Vec<_> = head.all("x-high").collect();
    assert_eq!(values, [&b"\x80\xff caf\xe9"[..]]);
    server.check_alive(client, "high bytes", true).await;
}

#[tokio::test]
async fn binary_metadata_is_read_with_and_without_padding_and_what_is_no_base64_is_dropped() {
    let server = serve().await;
    let values: [(&[&str], &str); 10] = [
        (&["YWJj"], "[abc]"),
        (&["YWI="], "[ab]"),
        (&["YWI"], "[ab]"),
        (&[""], "[]"),
        (&["YQ==,YWI=,YWJj"], "[a][ab][abc]"),
        (&["YQ,YWI", "YWJj"], "[a][ab][abc]"),
        (&["YQ, YWI"], "[a][ab]"),
        (&["%%%"], ""),
        (&["Y"], ""),
        (&["YWJj", "****"], "[abc]"),
    ];
    for (values, expected) in values {
        let mut client = RawPeer::connect(&server.address).await;
        let mut head = Fields::call("/test.Probe/Binary");
        for value in values {
            head = head.and("trace-bin", value);
        }
        let stream = client.call(&head, message(b"")).await;
        assert_eq!(client.outcome(stream).await, OK, "{values:?}");
        assert_eq!(client.stream(stream).messages(), [expected], "{values:?}");
        server.check_alive(client, "binary metadata", true).await;
    }
}

#[tokio::test]
async fn keys_of_the_protocol_that_a_client_sends_are_ignored_and_never_come_back() {
    let server = serve().await;
    let reserved = [
        ("grpc-status", "5"),
        ("grpc-message", "mine"),
        ("grpc-status-details-bin", "CAU"),
        ("grpc-unknown", "x"),
    ];
    let with_all = |path| {
        let head = Fields::call(path);
        reserved
            .iter()
            .fold(head, |head, (name, value)| head.and(name, value))
    };
    server.check([served("reserved", with_all(ECHO))]).await;
    let mut client = RawPeer::connect(&server.address).await;
    let stream = client
        .call(&with_all("/test.Probe/Metadata"), message(b""))
        .await;
    let aborted = Answered(200, Code::ABORTED.as_i32());
    assert_eq!(client.outcome(stream).await, aborted);
    let received = client.stream(stream);
    assert_eq!(received.count("grpc-status"), 1);
    assert_eq!(received.count("grpc-message"), 1);
    assert_eq!(received.grpc_message(), "as asked");
    assert_eq!(received.count("grpc-status-details-bin"), 0);
    assert_eq!(received.count("content-type"), 1);
    server.check_alive(client, "reserved keys", true).await;
}

#[tokio::test]
async fn a_timeout_that_is_malformed_is_internal_and_one_of_zero_has_passed() {
    let head = |value: &str| Fields::call(ECHO).and("grpc-timeout", value);
    let malformed = [
        "",
        "5",
        "S",
        "5X",
        "5s",
        "-1S",
        "+1S",
        "1.5S",
        " 1S",
        "1 S",
        "123456789S",
        "1SS",
        "0x1S",
    ];
    let passed = ["0S", "0n", "00000000H"];
    let good = ["99999999H", "99999999S", "10S", "20000m", "00000010S"];
    let server = serve().await;
    server
        .check(malformed.map(|value| refused(value, head(value), INTERNAL)))
        .await;
    server
        .check(passed.map(|value| refused(value, head(value), Answered(200, 4))))
        .await;
    server
        .check(good.map(|value| served(value, head(value))))
        .await;
}

#[tokio::test]
async fn a_compressed_message_needs_an_encoding_that_is_known_and_bytes_that_are_of_it() {
    let encoding = |name: &str, value: &str, body: Bytes, expected, handlers| Case {
        name: name.to_owned(),
        head: Fields::call(ECHO).and("grpc-encoding", value),
        body,
        expected,
        handlers,
    };
    let zipped = gzip(b"hello hello hello");
    let mut bad_sum = zipped.clone();
    let sum = bad_sum.len() - 8;
    bad_sum[sum] ^= 1;
    let cut = &zipped[..zipped.len() - 9];
    let server = serve().await;
    server
        .check([
            with_body("no encoding", message_flagged(1, &zipped), INTERNAL),
            encoding(
                "identity",
                "identity",
                message_flagged(1, b"x"),
                INTERNAL,
                0,
            ),
            encoding("identity, flag 0", "identity", message(b"x"), OK, 1),
            encoding("gzip", "gzip", message_flagged(1, &zipped), OK, 1),
            encoding("gzip, flag 0", "gzip", message(b"x"), OK, 1),
            encoding(
                "junk",
                "gzip",
                message_flagged(1, b"not gzip at all"),
                INTERNAL,
                0,
            ),
            encoding("nothing", "gzip", message_flagged(1, b""), OK, 1),
            encoding(
                "nothing, identity",
                "identity",
                message_flagged(1, b""),
                INTERNAL,
                0,
            ),
            encoding("cut", "gzip", message_flagged(1, cut), INTERNAL, 0),
            encoding("bad sum", "gzip", message_flagged(1, &bad_sum), INTERNAL, 0),
        ])
        .await;
    let mut client = RawPeer::connect(&server.address).await;
    let head = Fields::call(ECHO).and("grpc-encoding", "zebra");
    let stream = client.call(&head, message_flagged(1, b"x")).await;
    assert_eq!(client.outcome(stream).await, UNIMPLEMENTED);
    let received = client.stream(stream);
    assert!(received.grpc_message().contains("zebra"), "{received:?}");
    let head = received.head.expect("a head");
    assert_eq!(
        head.text("grpc-accept-encoding").as_deref(),
        Some("identity,gzip,deflate")
    );
    server.check_alive(client, "unknown encoding", true).await;
}

#[tokio::test]
async fn a_flag_other_than_0_and_1_is_internal() {
    let flags = [2, 3, 0x7f, 0x80, 0xff];
    let cases = flags.map(|flag| {
        with_body(
            &format!("flag {flag}"),
            message_flagged(flag, b"x"),
            INTERNAL,
        )
    });
    serve().await.check(cases).await;
}

#[tokio::test]
async fn a_request_that_ends_inside_a_message_or_its_prefix_is_internal_at_once() {
    let whole = message(b"abc");
    let cuts = 1..whole.len();
    let cases = cuts.map(|cut| with_body(&format!("{cut} bytes"), whole.slice(..cut), INTERNAL));
    serve().await.check(cases).await;
}

#[tokio::test]
async fn a_length_over_the_limit_is_refused_before_the_message_comes() {
    let server = serve().await;
    let limit = 4 * 1024 * 1024;
    for len in [u32::MAX, 1 << 31, limit + 1] {
        for path in [ECHO, "/test.Probe/Count", "/test.Probe/Chat"] {
            let mut client = RawPeer::connect(&server.address).await;
            let stream = client.next_stream();
            client
                .write(&[
                    Frame::headers(stream, &Fields::call(path)),
                    Frame::data(stream, prefix(0, len).to_vec()),
                ])
                .await;
            let exhausted = Answered(200, 8);
            assert_eq!(client.outcome(stream).await, exhausted, "{path} {len}");
            server.check_alive(client, path, true).await;
        }
    }
}

#[tokio::test]
async fn a_unary_request_of_no_message_or_of_two_is_unimplemented() {
    let two = [message(b"a"), message(b"b")].concat();
    let two_empty = [message(b""), message(b"")].concat();
    let one_and_part = [&message(b"a")[..], &prefix(0, 9)].concat();
    let server = serve().await;
    server
        .check([
            with_body("none", Bytes::new(), UNIMPLEMENTED),
            with_body("two", two, UNIMPLEMENTED),
            with_body("two empty ones", two_empty, UNIMPLEMENTED),
            with_body("one and part of another", one_and_part, UNIMPLEMENTED),
        ])
        .await;
    let before = server.probe.counts().called;
    let mut client = RawPeer::connect(&server.address).await;
    for path in [ECHO, "/test.Probe/Spell"] {
        let stream = client.next_stream();
        let head = Frame::headers(stream, &Fields::call(path));
        client.write(&[head.ending()]).await;
        assert_eq!(client.outcome(stream).await, UNIMPLEMENTED, "{path}");
    }
    assert_eq!(server.probe.counts().called, before);
    server.check_alive(client, "no body", true).await;
}

#[tokio::test]
async fn a_message_that_is_no_protobuf_of_its_type_is_internal() {
    // Field 1 of google.protobuf.StringValue is a string; a start of a group is wire type 3.
    let bodies: [(&str, Vec<u8>, Outcome); 8] = [
        ("a text", b"\x0a\x03abc".to_vec(), OK),
        ("nothing", Vec::new(), OK),
        ("an unknown field", b"\x10\x07".to_vec(), OK),
        ("not UTF-8", b"\x0a\x02\xc3\x28".to_vec(), INTERNAL),
        ("a length past the end", b"\x0a\x7fabc".to_vec(), INTERNAL),
        (
            "a length of 2^63",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f".to_vec(),
            INTERNAL,
        ),
        ("a varint without end", vec![0xff; 32], INTERNAL),
        ("1,000,000 groups", vec![0x13; 1_000_000], INTERNAL),
    ];
    let server = serve().await;
    for (name, body, expected) in bodies {
        let mut client = RawPeer::connect(&server.address).await;
        let stream = client.next_stream();
        let head = Frame::headers(stream, &Fields::call("/test.Probe/Text"));
        client.write(&[head]).await;
        client.send(stream, message(&body)).await;
        client.write(&[Frame::data(stream, "").ending()]).await;
        assert_eq!(client.outcome(stream).await, expected, "{name}");
        server.check_alive(client, name, true).await;
    }
}

#[tokio::test]
async fn a_content_length_that_is_wrong_costs_the_stream() {
    let length = |value: &str| Fields::call(ECHO).and("content-length", value);
    let reset = Reset(PROTOCOL_ERROR);
    serve()
        .await
        .check([
            served("right", length("6")),
            refused("short", length("5"), reset),
            refused("long", length("7"), reset),
            refused("negative", length("-6"), reset),
            refused("absurd", length("99999999999999999999999"), reset),
            refused("no number", length("six"), reset),
            refused(
                "two that differ",
                length("6").and("content-length", "7"),
                reset,
            ),
        ])
        .await;
}

#[tokio::test]
async fn frames_after_the_end_of_a_request_never_make_a_second_call() {
    let server = serve().await;
    let head = Fields::call(ECHO);
    let again = |stream| Frame::headers(stream, &Fields::call(ECHO)).ending();
    let trailers = |stream, fields: Fields| Frame::headers(stream, &fields);
    let opening = |stream| Frame::headers(stream, &Fields::call("/test.Probe/Count"));
    let extra = Fields::new().and("x-trailer", "1");
    type Script<'a> = &'a dyn Fn(u32) -> Vec<Frame>;
    let scripts: [(&str, Script<'_>, usize); 6] = [
        (
            "DATA after the end",
            &|stream| {
                let whole = Frame::data(stream, message(b"x")).ending();
                vec![Frame::headers(stream, &head), whole.clone(), whole]
            },
            1,
        ),
        (
            "HEADERS after the end",
            &|stream| {
                let whole = Frame::data(stream, message(b"x")).ending();
                vec![Frame::headers(stream, &head), whole, again(stream)]
            },
            1,
        ),
        (
            "trailers that do not end the stream",
            &|stream| {
                let data = Frame::data(stream, message(b"x"));
                vec![opening(stream), trailers(stream, extra.clone()), data]
            },
            1,
        ),
        (
            "pseudo-headers in trailers",
            &|stream| {
                let bad = Fields::new().and(":path", ECHO);
                vec![opening(stream), trailers(stream, bad).ending()]
            },
            1,
        ),
        (
            "a second head in place of trailers",
            &|stream| vec![opening(stream), again(stream)],
            1,
        ),
        (
            "DATA on a stream that was never opened",
            &|stream| vec![Frame::data(stream + 10, message(b"x")).ending()],
            0,
        ),
    ];
    for (name, script, calls) in scripts {
        let mut client = RawPeer::connect(&server.address).await;
        let before = server.probe.counts().called;
        let stream = client.next_stream();
        client.write(&script(stream)).await;
        let survives = client.settle().await && client.goaway().is_none();
        if survives && calls > 0 {
            let outcome = client.outcome(stream).await;
            assert!(
                matches!(outcome, Reset(_)) || outcome == OK,
                "{name}: {outcome:?}"
            );
        }
        let called = server.probe.counts().called - before;
        assert!(called <= calls, "{name}: {called} handlers");
        server.check_alive(client, name, survives).await;
        server
            .probe
            .until("no handlers", |it| it.running == 0)
            .await;
    }
}

#[tokio::test]
async fn trailers_of_a_request_end_it_and_do_no_harm() {
    let server = serve().await;
    let mut client = RawPeer::connect(&server.address).await;
    let stream = client.next_stream();
    client
        .write(&[
            Frame::headers(stream, &Fields::call(ECHO)),
            Frame::data(stream, message(b"x")),
            Frame::headers(stream, &Fields::trailers("7")).ending(),
        ])
        .await;
    assert_eq!(client.outcome(stream).await, OK);
    server.check_alive(client, "request trailers", true).await;
}

#[tokio::test]
async fn an_error_before_the_request_ends_is_a_status_and_then_a_reset_without_error() {
    let server = serve().await;
    for (path, code) in [("/test.Probe/Refuse", 7), ("/test.Probe/Nothing", 12)] {
        let mut client = RawPeer::connect(&server.address).await;
        let stream = client.next_stream();
        client
            .write(&[
                Frame::headers(stream, &Fields::call(path)),
                Frame::data(stream, message(b"one")),
            ])
            .await;
        assert_eq!(client.outcome(stream).await, Answered(200, code), "{path}");
        client
            .until("RST_STREAM", |it| it.stream(stream).reset.is_some())
            .await;
        let reset = client.stream(stream).reset;
        assert_eq!(reset, Some(error::NO_ERROR), "{path}");
        // What was under way when the client heard of it.
        let late = Frame::data(stream, message(b"two"));
        client.write(&[late.clone(), late.ending()]).await;
        server.check_alive(client, path, true).await;
    }
}

#[tokio::test]
async fn a_panic_is_internal_on_its_stream_and_its_neighbours_go_on() {
    let server = serve().await;
    let mut client = RawPeer::connect(&server.address).await;
    let held = client
        .call(&Fields::call("/test.Probe/Hold"), message(b"neighbour"))
        .await;
    server
        .probe
        .until("the neighbour", |it| it.running == 1)
        .await;
    for path in ["/test.Probe/Panic", "/test.Probe/PanicLate"] {
        let stream = client.call(&Fields::call(path), message(b"x")).await;
        assert_eq!(client.outcome(stream).await, INTERNAL, "{path}");
        let received = client.stream(stream);
        assert!(
            !received.grpc_message().contains("a test wants"),
            "the text of a panic is not for peers: {}",
            received.grpc_message()
        );
    }
    server.probe.release(1);
    assert_eq!(client.outcome(held).await, OK);
    assert_eq!(client.stream(held).messages(), ["neighbour"]);
    server.check_alive(client, "panics", true).await;
}

#[tokio::test]
async fn frames_that_break_http2_end_the_connection_with_a_reason() {
    let head = |stream| Frame::headers(stream, &Fields::call(ECHO));
    // For some of them the RFC names a code that tells more; h2 says PROTOCOL_ERROR.
    let (protocol, size) = (error::PROTOCOL_ERROR, error::FRAME_SIZE_ERROR);
    let flow = error::FLOW_CONTROL_ERROR;
    let bad_block = Frame::new(kind::HEADERS, flag::END_HEADERS, 1, vec![0xff; 8]);
    let padding = Frame::new(kind::DATA, flag::PADDED, 1, vec![200, 0, 0]);
    let enable_push = Frame::settings(&[(2, 7)]);
    let cases: Vec<(&str, Vec<Frame>, u32)> = vec![
        ("stream 0", vec![head(0)], protocol),
        ("an even stream", vec![head(2)], protocol),
        (
            "a stream that falls",
            vec![head(5).ending(), head(3)],
            protocol,
        ),
        (
            "SETTINGS on a stream",
            vec![Frame::new(kind::SETTINGS, 0, 1, "")],
            protocol,
        ),
        (
            "SETTINGS of 5 bytes",
            vec![Frame::new(kind::SETTINGS, 0, 0, "12345")],
            protocol,
        ),
        (
            "an ACK with content",
            vec![Frame::new(kind::SETTINGS, 1, 0, "123456")],
            protocol,
        ),
        ("ENABLE_PUSH 7", vec![enable_push], protocol),
        (
            "a window of 2^31",
            vec![Frame::settings(&[(4, 1 << 31)])],
            protocol,
        ),
        (
            "PING of 7 bytes",
            vec![Frame::new(kind::PING, 0, 0, "1234567")],
            protocol,
        ),
        (
            "PING on a stream",
            vec![Frame::new(kind::PING, 0, 1, "12345678")],
            protocol,
        ),
        (
            "WINDOW_UPDATE of 0",
            vec![Frame::window_update(0, 0)],
            protocol,
        ),
        (
            "WINDOW_UPDATE past 2^31",
            vec![Frame::window_update(0, (1 << 31) - 1)],
            flow,
        ),
        (
            "RST_STREAM on stream 0",
            vec![Frame::rst_stream(0, 8)],
            protocol,
        ),
        (
            "RST_STREAM on an idle stream",
            vec![Frame::rst_stream(9, 8)],
            protocol,
        ),
        (
            "PUSH_PROMISE from a client",
            vec![Frame::new(5, 4, 1, "\0\0\0\x02")],
            protocol,
        ),
        (
            "CONTINUATION out of nowhere",
            vec![Frame::new(9, 4, 1, "")],
            protocol,
        ),
        (
            "PING inside a header block",
            vec![head(1).unfinished(), Frame::ping(1)],
            protocol,
        ),
        ("a header block of junk", vec![bad_block], protocol),
        ("padding past the end", vec![head(1), padding], protocol),
        (
            "a frame of 16,385 bytes",
            vec![head(1), Frame::data(1, vec![0; 16_385])],
            size,
        ),
    ];
    let server = serve().await;
    for (name, frames, error) in cases {
        let mut client = RawPeer::connect(&server.address).await;
        client.write(&frames).await;
        client.until_closed().await;
        let goaway = client
            .goaway()
            .unwrap_or_else(|| panic!("no GOAWAY: {name}"));
        assert_eq!(goaway.error, error, "{name}");
        server.check_alive(client, name, false).await;
    }
    assert_eq!(server.probe.counts().running, 0);
}

#[tokio::test]
async fn frames_and_settings_that_are_unknown_are_passed_over() {
    let server = serve().await;
    let mut client = RawPeer::connect(&server.address).await;
    client
        .write(&[
            Frame::new(0xfe, 0xff, 0, "whatever"),
            Frame::settings(&[(0xfe03, 1)]),
            Frame::new(kind::PING, flag::ACK, 0, "unasked!"),
            Frame::new(kind::PRIORITY, 0, 1, "\0\0\0\0\x10"),
        ])
        .await;
    server.check_alive(client, "unknown frames", true).await;
}

#[tokio::test]
async fn a_call_in_single_bytes_and_padding_is_served() {
    let server = serve().await;
    let mut client = RawPeer::connect(&server.address).await;
    let stream = client.next_stream();
    let block = Fields::call(ECHO).encode();
    let (first, rest) = block.split_at(1);
    client
        .write(&[
            Frame::new(kind::HEADERS, 0, stream, first.to_vec()),
            Frame::new(kind::CONTINUATION, flag::END_HEADERS, stream, rest.to_vec()),
        ])
        .await;
    for byte in message(b"drip") {
        client
            .write(&[Frame::padded_data(stream, &[byte], 255)])
            .await;
    }
    client.write(&[Frame::data(stream, "").ending()]).await;
    assert_eq!(client.outcome(stream).await, OK);
    assert_eq!(client.stream(stream).messages(), ["drip"]);
    server.check_alive(client, "single bytes", true).await;
}

#[tokio::test]
async fn the_last_stream_id_there_is_can_be_used() {
    let server = serve().await;
    let mut client = RawPeer::connect(&server.address).await;
    let stream = (1 << 31) - 1;
    client
        .write(&[
            Frame::headers(stream, &Fields::call(ECHO)),
            Frame::data(stream, message(b"last")).ending(),
        ])
        .await;
    assert_eq!(client.outcome(stream).await, OK);
}

#[tokio::test]
async fn a_client_that_shuts_its_side_is_gone_and_its_handlers_with_it() {
    let server = serve().await;
    let mut client = RawPeer::connect(&server.address).await;
    let stream = client
        .call(&Fields::call("/test.Probe/Hold"), message(b"bye"))
        .await;
    server.probe.until("a handler", |it| it.running == 1).await;
    client.shut_down().await;
    assert_eq!(client.outcome(stream).await, Closed);
    server.probe.until("no handler", |it| it.running == 0).await;
}

#[tokio::test]
async fn what_does_not_begin_as_http2_is_closed_and_starts_nothing() {
    let server = serve().await;
    let mut swapped = *PREFACE;
    swapped[20] = b'X';
    let junk: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
        &[0; 64],
        &swapped,
    ];
    for bytes in junk {
        let mut client = RawPeer::silent(RawPeer::dial(&server.address).await);
        client.write_bytes(bytes).await;
        within("junk", client.until_closed()).await;
    }
    // Each cut of the preface, and then the client goes.
    for cut in 0..PREFACE.len() {
        let mut client = RawPeer::silent(RawPeer::dial(&server.address).await);
        client.write_bytes(&PREFACE[..cut]).await;
        client.shut_down().await;
        client.until_closed().await;
    }
    let client = RawPeer::connect(&server.address).await;
    server.check_alive(client, "junk", true).await;
}
