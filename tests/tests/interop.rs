//! `trunkline` and other implementations of gRPC understand each other, in both roles.

#![cfg(unix)]

mod interop_ends;

use interop_ends::{our_client_runs, our_server};
use trunkline_tests::cases::CASES;
use trunkline_tests::h2spec;
use trunkline_tests::peers::{Peer, PeerServer, run_client};

/// What our server does not know: load reports, and an encoding that is no default.
const NOT_OURS: [&str; 3] = ["orca_per_rpc", "orca_oob", "deflate"];

fn is_satisfied_with_our_server(client: Peer) {
    let mut all = client.cases();
    all.retain(|case| !NOT_OURS.contains(case));
    assert!(!all.is_empty());
    run_client(client, our_server(), &all);
}

/// All cases of our client but those that the server cannot stand.
fn our_cases(lacks: &[&str]) -> Vec<&'static str> {
    let mut all = [CASES, &["channel_soak"]].concat();
    all.retain(|case| !lacks.contains(case));
    all
}

fn our_client_is_satisfied_with(server: Peer) {
    let Some(running) = PeerServer::start(server) else {
        return;
    };
    our_client_runs(running.port(), &our_cases(&server.lacks()));
    if server != Peer::GoInteropServer {
        // `timeout_on_sleeping_server` may be over before the server hears of the call.
        running.wait_for_cancelled("StreamingInputCall", 1);
        running.wait_for_cancelled("FullDuplexCall", 1);
    }
}

#[test]
fn the_official_go_client_is_satisfied_with_our_server() {
    is_satisfied_with_our_server(Peer::GoInteropClient);
}

#[test]
fn the_go_client_is_satisfied_with_our_server() {
    is_satisfied_with_our_server(Peer::GoClient);
}

#[test]
fn the_python_client_is_satisfied_with_our_server() {
    is_satisfied_with_our_server(Peer::PythonClient);
}

#[test]
fn the_node_client_is_satisfied_with_our_server() {
    is_satisfied_with_our_server(Peer::NodeClient);
}

#[test]
fn our_client_is_satisfied_with_the_official_go_server() {
    our_client_is_satisfied_with(Peer::GoInteropServer);
}

#[test]
fn our_client_is_satisfied_with_the_go_server() {
    our_client_is_satisfied_with(Peer::GoServer);
}

#[test]
fn our_client_is_satisfied_with_the_python_server() {
    our_client_is_satisfied_with(Peer::PythonServer);
}

#[test]
fn our_client_is_satisfied_with_the_node_server() {
    our_client_is_satisfied_with(Peer::NodeServer);
}

#[test]
fn our_client_is_satisfied_with_our_server() {
    our_client_runs(our_server(), &our_cases(&[]));
}

#[test]
fn our_server_conforms_to_http2() {
    let Some(found) = h2spec::server_conformance(our_server()) else {
        return;
    };
    assert_eq!(found.failures, Vec::<String>::new());
    assert!(found.total >= 145, "{} cases", found.total);
    // Our server says how many streams it takes, so that nothing is left to skip.
    assert_eq!(found.skipped, 0);
}

#[test]
fn our_client_conforms_to_http2() {
    let Some(mut found) = h2spec::client_conformance(env!("CARGO_BIN_EXE_conformance-client"))
    else {
        return;
    };
    // Two steps beyond 2^31-1 on a stream whose request is complete: h2 resets it, but not with FLOW_CONTROL_ERROR.
    found
        .failures
        .retain(|failure| !failure.starts_with("6.9.1. 2:"));
    assert_eq!(found.failures, Vec::<String>::new());
    assert!(found.total >= 57, "{} cases", found.total);
}
