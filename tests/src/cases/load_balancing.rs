//! Cases of load balancing: which server a call reaches, over which connection, and the loads that servers report.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::TIMEOUT;
use super::expect::{Mismatch, Outcome, check, output_request};
use crate::backend_metrics::LoadLog;
use crate::test_service::load_report;
use crate::testing::{
    BoolValue, SimpleRequest, StreamingOutputCallRequest, TestOrcaReport, TestServiceClient,
};

/// How long a report may take until it arrives.
const REPORT: Duration = Duration::from_secs(30);
/// The pause between two looks at the reports.
const PAUSE: Duration = Duration::from_millis(100);

/// All calls reach one server.
pub(crate) async fn pick_first_unary(client: &TestServiceClient) -> Outcome {
    let request = SimpleRequest {
        response_size: 1,
        fill_server_id: true,
        ..SimpleRequest::default()
    };
    let mut first = None;
    for _ in 0..100 {
        let response = client.unary_call(request.clone()).timeout(TIMEOUT).await?;
        let server = response.into_inner().server_id;
        check("whether the server has an id", &server.is_empty(), &false)?;
        check(
            "the server",
            &server,
            first.get_or_insert_with(|| server.clone()),
        )?;
    }
    Ok(())
}

/// A connection takes two streams: the third call opens another.
pub(crate) async fn max_concurrent_streams_connection_scaling(
    client: &TestServiceClient,
) -> Outcome {
    let mut request = output_request(0, &[1]);
    request.response_parameters[0].fill_peer_socket_address = Some(BoolValue { value: true });
    let mut open = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..3 {
        let (mut requests, mut responses) = client.full_duplex_call().timeout(TIMEOUT).await?;
        requests.send(request.clone()).await?;
        let response = responses.message().await?;
        peers.push(response.unwrap_or_default().peer_socket_address);
        open.push((requests, responses));
    }
    check("whether the address is known", &peers[0].is_empty(), &false)?;
    let is_first: Vec<_> = peers.iter().map(|peer| *peer == peers[0]).collect();
    check(
        "which calls are on the first connection",
        &is_first,
        &vec![true, true, false],
    )?;
    for (requests, mut responses) in open {
        requests.finish();
        check("after the half-close", &responses.message().await?, &None)?;
    }
    Ok(())
}

/// The load comes in the trailers of the call.
pub(crate) async fn orca_per_rpc(client: &TestServiceClient, loads: &LoadLog) -> Outcome {
    let mut wanted = report(0.8210, 0.5847, 0.30499);
    wanted.request_cost.insert("cost".to_owned(), 3456.32);
    let request = SimpleRequest {
        orca_per_query_report: Some(wanted.clone()),
        ..SimpleRequest::default()
    };
    client.unary_call(request).timeout(TIMEOUT).await?;
    check(
        "the load of the call",
        &loads.of_last_call(),
        &Some(load_report(&wanted)),
    )
}

/// The load comes on a stream of its own, and goes with the calls that follow.
pub(crate) async fn orca_oob(client: &TestServiceClient, loads: &LoadLog) -> Outcome {
    // Holds the load of the server for as long as it is open.
    let (mut requests, mut responses) = client.full_duplex_call().timeout(REPORT * 3).await?;
    for wanted in [
        report(0.8210, 0.5847, 0.30499),
        report(0.29309, 0.2, 0.2039),
    ] {
        let request = StreamingOutputCallRequest {
            orca_oob_report: Some(wanted.clone()),
            ..output_request(0, &[1])
        };
        requests.send(request).await?;
        check("a response", &responses.message().await?.is_some(), &true)?;
        let expected = Some(load_report(&wanted));
        let until = Instant::now() + REPORT;
        loop {
            client
                .unary_call(SimpleRequest::default())
                .timeout(TIMEOUT)
                .await?;
            let load = loads.of_last_call();
            if load == expected {
                break;
            }
            if Instant::now() > until {
                return Err(Mismatch::new(format!(
                    "the load of the server: expected {expected:?}, got {load:?}"
                )));
            }
            sleep(PAUSE).await;
        }
    }
    requests.finish();
    check("after the half-close", &responses.message().await?, &None)
}

fn report(cpu: f64, memory: f64, util: f64) -> TestOrcaReport {
    TestOrcaReport {
        cpu_utilization: cpu,
        memory_utilization: memory,
        utilization: [("util".to_owned(), util)].into(),
        ..TestOrcaReport::default()
    }
}
