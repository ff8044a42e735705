//! The foreign peers agree with one another: a disagreement in which `trunkline` has no part is found here, and not by
//! suspecting `trunkline`.

#![cfg(unix)]

use trunkline_tests::capture::Capture;
use trunkline_tests::frames::{Kind, Side};
use trunkline_tests::peers::{Peer, PeerServer, run_client};

const SERVERS: [Peer; 4] = [
    Peer::GoInteropServer,
    Peer::GoServer,
    Peer::PythonServer,
    Peer::NodeServer,
];

/// Whether these two are known to disagree. A server on grpc-go resets a call whose deadline has passed, and when the reset
/// arrives before their own timers, C-core and grpc-js take it for a cancellation.
fn is_known(client: Peer, server: Peer, case: &str) -> bool {
    matches!(client, Peer::PythonClient | Peer::NodeClient)
        && matches!(server, Peer::GoInteropServer | Peer::GoServer)
        && case == "deadline"
}

/// Runs all that both ends know, against every server there is.
fn agrees_with_every_server(client: Peer) {
    for server in SERVERS {
        let Some(running) = PeerServer::start(server) else {
            continue;
        };
        let mut cases = client.cases();
        cases.retain(|case| !server.lacks().contains(case) && !is_known(client, server, case));
        assert!(!cases.is_empty());
        if run_client(client, running.port(), &cases).is_none() {
            return;
        }
    }
}

#[test]
fn the_official_go_client_agrees_with_every_server() {
    agrees_with_every_server(Peer::GoInteropClient);
}

#[test]
fn the_go_client_agrees_with_every_server() {
    agrees_with_every_server(Peer::GoClient);
}

#[test]
fn the_python_client_agrees_with_every_server() {
    agrees_with_every_server(Peer::PythonClient);
}

#[test]
fn the_node_client_agrees_with_every_server() {
    agrees_with_every_server(Peer::NodeClient);
}

#[test]
fn servers_report_the_calls_that_clients_give_up() {
    for server in [Peer::GoServer, Peer::PythonServer, Peer::NodeServer] {
        let Some(running) = PeerServer::start(server) else {
            continue;
        };
        // One call that is answered, one whose deadline passes, one that is cancelled after the first response.
        if run_client(
            Peer::GoClient,
            running.port(),
            &["bidi", "deadline", "cancel"],
        )
        .is_none()
        {
            return;
        }
        running.wait_for_cancelled("FullDuplexCall", 2);
        running.wait_for_cancelled("StreamingOutputCall", 1);
    }
}

#[test]
fn a_client_that_fails_is_a_failure() {
    // Nothing listens on port 1.
    let Some(()) = Peer::GoClient.is_there() else {
        return;
    };
    let outcome = std::panic::catch_unwind(|| run_client(Peer::GoClient, 1, &["empty"]));
    assert!(outcome.is_err());
    let Some(server) = PeerServer::start(Peer::GoServer) else {
        return;
    };
    let outcome =
        std::panic::catch_unwind(|| run_client(Peer::GoClient, server.port(), &["no_such_case"]));
    assert!(outcome.is_err());
}

#[test]
fn a_capture_shows_frames_headers_and_messages() {
    let Some(server) = PeerServer::start(Peer::PythonServer) else {
        return;
    };
    let Some(capture) = Capture::start(server.port()) else {
        return;
    };
    let Some(()) = run_client(
        Peer::NodeClient,
        server.port(),
        &["unary", "status", "compressed"],
    ) else {
        return;
    };
    let recording = capture.finish();
    recording.assert_healthy();

    let frames = recording.frames();
    let request = frames
        .iter()
        .find(|frame| frame.header(":path").is_some())
        .expect("a request was sent");
    assert_eq!((request.from, request.kind), (Side::Client, Kind::Headers));
    assert_eq!(
        request.header(":path"),
        Some("/grpc.testing.TestService/UnaryCall")
    );
    assert_eq!(request.header("te"), Some("trailers"));
    let message = frames
        .iter()
        .flat_map(|frame| &frame.messages)
        .next()
        .expect("a message was sent");
    assert_eq!(message.name, "grpc.testing.SimpleRequest");
    assert_eq!(
        message.field("grpc.testing.SimpleRequest.response_size"),
        Some("314159")
    );
    assert!(!message.compressed);

    // The percent sign of the third message of the case.
    let texts = recording.select(
        "http2.header.name == \"grpc-message\"",
        &["http2.header.value"],
    );
    assert!(
        texts
            .iter()
            .flatten()
            .any(|values| values.ends_with("100%25 of %2541")),
        "{texts:?}"
    );

    // The last call of the case: a stream that is compressed, except for its second message.
    let mut responses = frames
        .iter()
        .filter(|frame| frame.from == Side::Server)
        .flat_map(|frame| &frame.messages)
        .rev();
    let last = [
        responses.next().expect("a response"),
        responses.next().expect("two responses"),
    ];
    assert_eq!(last.map(|message| message.compressed), [false, true]);
}
