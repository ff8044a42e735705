//! Header lists larger than their receiver takes, between `trunkline` and other implementations, in both roles: the call
//! ends with a status, and a stream beside it goes on.

#![cfg(unix)]

use tokio::runtime::Runtime;
use trunkline::limits::ChannelLimits;
use trunkline::{Channel, Code, Result, Sender, Streaming};
use trunkline_tests::interop_ends::our_server;
use trunkline_tests::peers::{Peer, PeerServer, run_client};
use trunkline_tests::test_service::FILL;
use trunkline_tests::testing::{
    Payload, ResponseParameters, SimpleRequest, StreamingOutputCallRequest,
    StreamingOutputCallResponse, TestServiceClient,
};

/// A call that is open all the while.
struct Neighbour {
    sender: Sender<StreamingOutputCallRequest>,
    responses: Streaming<StreamingOutputCallResponse>,
}

impl Neighbour {
    async fn check(&mut self, after: &str) {
        let mut request = StreamingOutputCallRequest::default();
        request.response_parameters.push(ResponseParameters {
            size: 1,
            ..ResponseParameters::default()
        });
        request.payload = Some(Payload::default());
        let sent = self.sender.send(request).await;
        let response = match sent {
            Ok(()) => self.responses.message().await,
            Err(status) => Err(status),
        };
        let response =
            response.unwrap_or_else(|status| panic!("the neighbour, after {after}: {status}"));
        assert!(response.is_some(), "{after}");
    }
}

/// A call to which, or to whose response, `size` bytes of metadata belong.
async fn call(client: &TestServiceClient, place: &str, size: usize) -> Result<()> {
    let call = client.unary_call(SimpleRequest::default());
    let call = match place {
        "request" => call.metadata("filling", &"f".repeat(size)),
        _ => call.metadata(FILL, &format!("{place} {size}")),
    };
    let response = call.await?;
    if place != "request" {
        let filling = match place {
            "initial" => response.metadata().get("filling"),
            _ => response.trailers().get("filling"),
        };
        assert_eq!(filling.map(str::len), Some(size), "{place}: what came");
    }
    Ok(())
}

/// The code of each call of `place` and size; OK only with all that belongs to it.
fn outcomes(server: Peer, limits: ChannelLimits, expected: &[(&str, usize, &[Code])]) {
    let Some(running) = PeerServer::start(server) else {
        return;
    };
    let target = format!("127.0.0.1:{}", running.port());
    Runtime::new().expect("a runtime").block_on(async {
        let channel = Channel::to(&target)
            .with_limits(|it| *it = limits)
            .connect()
            .await;
        let client = TestServiceClient::new(channel.expect("the server listens"));
        let (sender, responses) = client.full_duplex_call().await.expect("an open stream");
        let mut neighbour = Neighbour { sender, responses };
        neighbour.check("the beginning").await;
        for (place, size, codes) in expected {
            let result = call(&client, place, *size).await;
            eprintln!("{place} {size}: {result:?}");
            let code = result.map_or_else(|status| status.code(), |()| Code::OK);
            assert!(codes.contains(&code), "{place} {size}: {code}");
            neighbour.check(&format!("{place} {size}")).await;
        }
    });
}

#[test]
fn a_go_client_loses_no_neighbour_by_large_metadata() {
    run_client(Peer::GoClient, our_server(), &["large_metadata"]);
}

#[test]
fn a_python_client_loses_no_neighbour_by_large_metadata() {
    run_client(Peer::PythonClient, our_server(), &["large_metadata"]);
}

#[test]
fn our_client_loses_no_neighbour_at_a_go_server_by_large_metadata() {
    // grpc-go announces nothing, takes 16 MiB, and keeps to what a client announces.
    let exhausted: &[Code] = &[Code::RESOURCE_EXHAUSTED];
    let its_own: &[Code] = &[Code::RESOURCE_EXHAUSTED, Code::INTERNAL];
    let mut expected = vec![
        ("request", 40_000, &[Code::OK][..]),
        ("request", 200_000, exhausted),
    ];
    for size in [40_000, 200_000] {
        expected.extend(["initial", "trailing", "details"].map(|place| (place, size, its_own)));
    }
    outcomes(Peer::GoServer, ChannelLimits::default(), &expected);
    let mut limits = ChannelLimits::default();
    limits.http2.max_send_header_list_size = 1 << 20;
    limits.http2.max_header_list_size_hard = 1 << 20;
    outcomes(
        Peer::GoServer,
        limits,
        &[
            ("request", 200_000, &[Code::OK]),
            ("initial", 200_000, &[Code::OK]),
            ("trailing", 200_000, &[Code::OK]),
            ("details", 200_000, &[Code::NOT_FOUND]),
        ],
    );
}

#[test]
fn our_client_loses_no_neighbour_at_a_python_server_by_large_metadata() {
    // C-core announces 16 KiB.
    let exhausted: &[Code] = &[Code::RESOURCE_EXHAUSTED];
    let its_own: &[Code] = &[Code::RESOURCE_EXHAUSTED, Code::INTERNAL];
    let mut expected = vec![("request", 4_000, &[Code::OK][..])];
    for size in [40_000, 200_000] {
        expected.push(("request", size, exhausted));
        expected.extend(["initial", "trailing", "details"].map(|place| (place, size, its_own)));
    }
    outcomes(Peer::PythonServer, ChannelLimits::default(), &expected);
}

#[test]
fn our_client_loses_no_neighbour_at_a_node_server_by_large_metadata() {
    // grpc-js announces nothing, and takes 64 KiB.
    outcomes(
        Peer::NodeServer,
        ChannelLimits::default(),
        &[
            ("request", 10_000, &[Code::OK]),
            ("request", 65_000, &[Code::OK]),
            ("request", 200_000, &[Code::RESOURCE_EXHAUSTED]),
        ],
    );
}
