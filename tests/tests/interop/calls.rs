//! `trunkline` and other implementations of gRPC understand each other, in both roles.

#![cfg(unix)]

use std::process::Command;
use std::time::Duration;

use tokio::runtime::Runtime;
use trunkline::codec::Zstd;
use trunkline::limits::ChannelLimits;
use trunkline::{Channel, Client, Code, Method, Raw};
use trunkline_tests::cases::{CASES, ORCA_CASES};
use trunkline_tests::h2spec;
use trunkline_tests::interop_ends::{our_client_runs, our_server, our_server_with};
use trunkline_tests::peers::{Peer, PeerServer, peer, run_client};
use trunkline_tests::process::{Failure, Process};
use trunkline_tests::testing::{Empty, Payload, StreamingOutputCallRequest, TestServiceClient};

fn is_satisfied_with_our_server(client: Peer) {
    run_client(client, our_server(), &client.cases());
}

fn our_client_is_satisfied_with(server: Peer) {
    let Some(running) = PeerServer::start(server) else {
        return;
    };
    our_client_runs(running.port(), &server.supported(CASES));
    our_client_runs(running.port(), &server.supported(ORCA_CASES));
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
    let port = our_server();
    our_client_runs(port, CASES);
    our_client_runs(port, ORCA_CASES);
}

/// The case that needs a server with two streams on a connection.
const SCALING: &[&str] = &["max_concurrent_streams_connection_scaling"];

#[test]
fn our_client_opens_another_connection_to_a_server_of_few_streams() {
    our_client_runs(
        our_server_with(|server| server.max_concurrent_streams(2)),
        SCALING,
    );
    for server in [Peer::GoServer, Peer::PythonServer, Peer::NodeServer] {
        let flags = ["--max_concurrent_streams".to_owned(), "2".to_owned()];
        if let Some(running) = PeerServer::start_with(server, &flags) {
            our_client_runs(running.port(), SCALING);
        }
    }
}

/// What becomes of other calls on a connection: each case has one that must outlive thousands.
#[test]
fn a_call_outlives_those_that_are_given_up_and_refused_on_its_connection() {
    for client in [Peer::GoClient, Peer::PythonClient] {
        run_client(client, our_server(), &["given_up", "refused"]);
    }
}

#[test]
fn a_go_client_whose_zstd_writes_nothing_for_nothing_is_satisfied_with_our_server() {
    let port = our_server_with(|server| server.compressor(Zstd::default()));
    run_client(Peer::GoZstdClient, port, &Peer::GoZstdClient.cases());
}

#[test]
fn our_client_reads_the_empty_messages_of_a_go_server_whose_zstd_writes_nothing_for_nothing() {
    let Some(running) = PeerServer::start(Peer::GoZstdServer) else {
        return;
    };
    let target = format!("127.0.0.1:{}", running.port());
    Runtime::new().unwrap().block_on(async {
        let channel = Channel::to(&target).compressor(Zstd::default());
        let client = TestServiceClient::new(channel.connect().await.unwrap());
        let response = client.empty_call(Empty {}).compress("zstd").await.unwrap();
        assert!(response.is_compressed());

        let call = client.full_duplex_call().compress("zstd");
        let (mut requests, mut responses) = call.await.unwrap();
        for size in [1000, 0, 1000] {
            let request = StreamingOutputCallRequest {
                payload: (size > 0).then(|| Payload {
                    body: vec![0; size].into(),
                    ..Payload::default()
                }),
                ..StreamingOutputCallRequest::default()
            };
            requests.send(request).await.unwrap();
            let response = responses.message().await.unwrap().expect("a response");
            assert!(responses.is_compressed());
            assert_eq!(
                response.payload.map_or(0, |payload| payload.body.len()),
                size
            );
        }
        requests.finish();
        assert_eq!(responses.message().await.unwrap(), None);
    });
}

#[test]
fn the_python_client_that_asks_too_often_is_told_and_one_with_its_own_settings_is_not() {
    let Some(program) = peer(Peer::PythonKeepalive) else {
        return;
    };
    let port = our_server().to_string();
    let process = program.start(&["--port", &port], Duration::from_secs(60));
    let lines = process.and_then(Process::finish).unwrap();
    let often = lines.iter().find(|line| line.starts_with("often: "));
    let often = often.expect("the end of the stream").to_lowercase();
    assert!(often.contains("unavailable"), "{often}");
    assert!(
        often.replace('_', " ").contains("too many pings"),
        "{often}"
    );
    assert!(lines.contains(&"default: open".to_owned()), "{lines:?}");
}

#[test]
fn our_client_asks_a_go_server_that_minds_half_as_often_each_time() {
    let Some(running) = PeerServer::start(Peer::GoServer) else {
        return;
    };
    // grpc-go permits one PING every five minutes, and takes two that come sooner.
    let mut limits = ChannelLimits::default();
    limits.http2.keepalive_time = Duration::from_millis(100);
    let target = format!("127.0.0.1:{}", running.port());
    Runtime::new().unwrap().block_on(async {
        let channel = Channel::to(&target)
            .with_limits(|it| *it = limits)
            .connect()
            .await
            .unwrap();
        let client = Client::new(channel);
        const CALL: Method = Method::new("/grpc.testing.TestService/FullDuplexCall");
        for millis in [200, 400] {
            let call = client.bidi_streaming::<Raw, Raw>(CALL);
            let (_requests, mut responses) = call.timeout(Duration::from_secs(20)).await.unwrap();
            let status = responses.message().await.expect_err("a server that minds");
            assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
            for text in ["too_many_pings", &format!("ask after {millis}ms")] {
                assert!(status.message().contains(text), "{status}");
            }
        }
    });
}

/// Runs a program of this package to its end, and gives what it wrote.
fn runs(arguments: &[String]) -> Result<Vec<String>, Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_interop-client"));
    command.args(arguments);
    Process::start("our interop client", command, Duration::from_secs(60))?.finish()
}

#[test]
fn our_programs_run_every_case_with_the_flags_of_the_contract() {
    let mut server = Command::new(env!("CARGO_BIN_EXE_interop-server"));
    server.args(["--port=0", "--use_tls=false"]);
    let server = Process::start("our interop server", server, Duration::from_secs(120)).unwrap();
    let port = server.wait_for_line("port ", Duration::from_secs(30));
    let port = port.unwrap();
    let flags = |case: &str, more: &[&str]| -> Vec<String> {
        let common = [
            "--server_host=127.0.0.1".to_owned(),
            format!("--server_port={port}"),
            "--server_host_override=foo.test.google.fr".to_owned(),
            "--additional_metadata=a:b;c:d".to_owned(),
            format!("--test_case={case}"),
            "--soak_per_iteration_max_acceptable_latency_ms=20000".to_owned(),
            "--soak_overall_timeout_seconds=50".to_owned(),
        ];
        let more = more.iter().map(|flag| (*flag).to_owned());
        common.into_iter().chain(more).collect()
    };
    let lines = runs(&flags("all", &[])).unwrap();
    for case in CASES {
        assert!(lines.contains(&format!("ok {case}")), "{lines:#?}");
    }

    let balancer = r#"--service_config_json={"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}"#;
    for case in ORCA_CASES {
        let lines = runs(&flags(case, &[balancer])).unwrap();
        assert_eq!(lines, [format!("ok {case}")]);
    }
    // The policy is what brings the reports.
    assert!(runs(&flags("orca_per_rpc", &[])).is_err());

    let soak = [
        "--soak_iterations=5",
        "--soak_num_threads=2",
        "--soak_request_size=7",
        "--soak_response_size=9",
        "--soak_min_time_ms_between_rpcs=1",
    ];
    for case in ["rpc_soak", "channel_soak"] {
        let lines = runs(&flags(case, &soak)).unwrap();
        let told = lines.iter().filter(|line| {
            line.starts_with("soak iteration: ")
                && line.ends_with(&format!(" peer: 127.0.0.1:{port} succeeded"))
        });
        assert_eq!(told.count(), 5, "{lines:#?}");
    }
    // Nobody is done at once, and nobody is this fast.
    for limit in [
        "--soak_overall_timeout_seconds=0",
        "--soak_per_iteration_max_acceptable_latency_ms=0",
    ] {
        assert!(runs(&flags("rpc_soak", &[limit])).is_err(), "{limit}");
    }
    assert!(runs(&flags("no_such_case", &[])).is_err());
    assert!(runs(&flags("empty_unary", &["--use_tls"])).is_err());
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
