//! What `trunkline` puts on the wire, seen by Wireshark's dissectors while other implementations are at the other end.

#![cfg(unix)]

use trunkline::bytes::Bytes;
use trunkline::{Channel, Client, Code, Method, Raw};
use trunkline_tests::capture::{Capture, Recording};
use trunkline_tests::frames::{Frame, Kind, Side};
use trunkline_tests::interop_ends::{our_client_runs, our_server};
use trunkline_tests::peers::{Peer, PeerServer, run_client};

/// What a client of this kind and our server say to each other.
fn recorded_at_our_server(client: Peer, cases: &[&str]) -> Option<Recording> {
    let port = our_server();
    let capture = Capture::start(port)?;
    run_client(client, port, cases)?;
    Some(capture.finish())
}

/// What our client and a server of this kind say to each other.
fn recorded_at_our_client(server: Peer, cases: &[&str]) -> Option<Recording> {
    let running = PeerServer::start(server)?;
    let capture = Capture::start(running.port())?;
    our_client_runs(running.port(), cases);
    Some(capture.finish())
}

/// The frames of each call, by the path that opens it.
fn calls<'a>(frames: &'a [Frame], path: &str) -> Vec<Vec<&'a Frame>> {
    let of_call = |first: &'a Frame| {
        let same =
            |frame: &&Frame| frame.connection == first.connection && frame.stream == first.stream;
        frames.iter().filter(same).collect()
    };
    frames
        .iter()
        .filter(|frame| frame.header(":path") == Some(path))
        .map(of_call)
        .collect()
}

fn sent_by<'a>(call: &[&'a Frame], side: Side) -> Vec<&'a Frame> {
    let frames = call.iter().copied();
    frames
        .filter(|frame| frame.from == side && frame.kind != Kind::WindowUpdate)
        .collect()
}

fn kinds(frames: &[&Frame]) -> Vec<(Kind, bool)> {
    frames
        .iter()
        .map(|frame| (frame.kind, frame.end_stream))
        .collect()
}

const UNARY: &str = "/grpc.testing.TestService/UnaryCall";
const FULL_DUPLEX: &str = "/grpc.testing.TestService/FullDuplexCall";

#[test]
fn every_client_gets_well_formed_frames_from_our_server() {
    for client in [Peer::GoClient, Peer::PythonClient, Peer::NodeClient] {
        let cases: Vec<_> = client
            .cases()
            .into_iter()
            .filter(|case| *case != "deflate")
            .collect();
        let Some(recording) = recorded_at_our_server(client, &cases) else {
            continue;
        };
        recording.assert_healthy();
    }
}

#[test]
fn every_server_gets_well_formed_frames_from_our_client() {
    for server in [Peer::GoServer, Peer::PythonServer, Peer::NodeServer] {
        let cases = [
            "large_unary",
            "ping_pong",
            "custom_metadata",
            "details",
            "compressed",
            "cancel_after_first_response",
        ];
        let Some(recording) = recorded_at_our_client(server, &cases) else {
            continue;
        };
        recording.assert_healthy();
    }
}

#[test]
fn our_request_head_has_what_the_protocol_asks_for() {
    let Some(recording) = recorded_at_our_client(Peer::GoServer, &["custom_metadata"]) else {
        return;
    };
    let frames = recording.frames();
    let calls = calls(&frames, UNARY);
    let head = calls[0][0];
    let names: Vec<_> = head.headers.iter().map(|(name, _)| name.as_str()).collect();
    // RFC 9113, 8.3: pseudo-headers come first.
    let pseudo = names
        .iter()
        .take_while(|name| name.starts_with(':'))
        .count();
    assert!(
        names[pseudo..].iter().all(|name| !name.starts_with(':')),
        "{head}"
    );
    // PROTOCOL-HTTP2.md, "Requests".
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("x-grpc-test-echo-initial", "test_initial_metadata_value"),
        // Base64 without padding.
        ("x-grpc-test-echo-trailing-bin", "q6ur"),
    ] {
        assert_eq!(head.header(name), Some(value), "{head}");
    }
    assert!(
        head.header("user-agent")
            .is_some_and(|agent| agent.starts_with("grpc-rust-trunkline/")),
        "{head}"
    );
    let timeout = head
        .header("grpc-timeout")
        .expect("the case sets a timeout");
    let (digits, unit) = timeout.split_at(timeout.len() - 1);
    assert!(
        digits.len() <= 8 && digits.parse::<u32>().is_ok() && "HMSmun".contains(unit),
        "{timeout}"
    );
}

#[test]
fn our_unary_call_is_a_head_and_a_message_that_ends_the_stream() {
    let Some(recording) = recorded_at_our_client(Peer::PythonServer, &["custom_metadata"]) else {
        return;
    };
    let frames = recording.frames();
    let call = &calls(&frames, UNARY)[0];
    let sent = kinds(&sent_by(call, Side::Client));
    assert_eq!(
        sent,
        [(Kind::Headers, false), (Kind::Data, true)],
        "{}",
        recording.listing()
    );
}

#[test]
fn a_cancelled_call_is_reset_with_cancel() {
    let Some(recording) =
        recorded_at_our_client(Peer::PythonServer, &["cancel_after_first_response"])
    else {
        return;
    };
    let frames = recording.frames();
    let call = &calls(&frames, FULL_DUPLEX)[0];
    let last = *sent_by(call, Side::Client)
        .last()
        .expect("the call was sent");
    assert_eq!(
        (last.kind, last.field("rst_stream.error")),
        (Kind::RstStream, Some("8")),
        "{}",
        recording.listing()
    );
}

#[test]
fn our_responses_end_in_one_head_of_trailers_or_are_nothing_else() {
    let Some(recording) = recorded_at_our_server(Peer::PythonClient, &["unary", "status"]) else {
        return;
    };
    let frames = recording.frames();
    let calls = calls(&frames, UNARY);
    let good = sent_by(&calls[0], Side::Server);
    assert_eq!(good[0].header(":status"), Some("200"));
    assert_eq!(good[0].header("content-type"), Some("application/grpc"));
    let trailers = good.last().expect("a response");
    assert_eq!(
        (
            trailers.kind,
            trailers.end_stream,
            trailers.header("grpc-status")
        ),
        (Kind::Headers, true, Some("0"))
    );
    assert!(
        good[1..good.len() - 1]
            .iter()
            .all(|frame| frame.kind == Kind::Data && !frame.end_stream)
    );

    // PROTOCOL-HTTP2.md, "Responses": Trailers-Only is one head, which ends the stream.
    for call in &calls[1..] {
        let bad = sent_by(call, Side::Server);
        assert_eq!(
            (bad[0].kind, bad[0].end_stream),
            (Kind::Headers, true),
            "{}",
            recording.listing()
        );
        for name in [":status", "content-type", "grpc-status", "grpc-message"] {
            assert!(bad[0].header(name).is_some(), "{}", bad[0]);
        }
        assert!(
            bad[1..].iter().all(|frame| frame.kind == Kind::RstStream),
            "{}",
            recording.listing()
        );
    }
    let message = calls[2][..]
        .iter()
        .find_map(|frame| frame.header("grpc-message"));
    let special =
        "%09%0Atest with whitespace%0D%0Aand Unicode BMP %E2%98%BA and non-BMP %F0%9F%98%88%09%0A";
    assert_eq!(message, Some(special));
}

#[test]
fn messages_of_a_mixed_stream_are_compressed_one_by_one() {
    let Some(recording) = recorded_at_our_server(Peer::GoClient, &["server_compressed_streaming"])
    else {
        return;
    };
    let frames = recording.frames();
    let calls = calls(&frames, "/grpc.testing.TestService/StreamingOutputCall");
    let sent = sent_by(&calls[0], Side::Server);
    assert_eq!(sent[0].header("grpc-encoding"), Some("gzip"));
    let flags: Vec<_> = sent
        .iter()
        .flat_map(|frame| &frame.messages)
        .map(|message| message.compressed)
        .collect();
    assert_eq!(flags, [true, false]);
}

#[test]
fn a_malformed_message_is_noticed() {
    let port = our_server();
    let Some(capture) = Capture::start(port) else {
        return;
    };
    // Field 3 of length 127, of which nothing follows.
    let garbage = Raw(Bytes::from_static(&[0x1a, 0x7f]));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let outcome = runtime.block_on(async {
        let channel = Channel::connect(&format!("127.0.0.1:{port}")).await?;
        Client::new(channel)
            .unary::<Raw, Raw>(Method::new(UNARY), garbage)
            .await
    });
    assert_eq!(
        outcome.expect_err("the server cannot read it").code(),
        Code::INTERNAL
    );
    let recording = capture.finish();
    assert!(std::panic::catch_unwind(|| recording.assert_healthy()).is_err());
}
