//! Load reports of servers: with calls, and apart from them.

use std::time::Duration;

use tokio::time::Instant;
use trunkline::server::{LoadReports, Methods};
use trunkline::{Channel, Client, Code, LoadReport, Method, Raw, Request, Result, Server, Service};

const CALL: Method = Method::new("/test.Busy/Call");
const STREAM_CORE_METRICS: Method =
    Method::new("/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics");

/// Reports its load with each call.
struct Busy;

impl Service for Busy {
    const NAME: &'static str = "test.Busy";

    fn add_to(self, methods: &mut Methods) {
        let service = std::sync::Arc::new(self);
        methods.unary(CALL, &service, |_, request: Request<Raw>| async move {
            request.response().report_load(&load(0.1));
            // The last report counts.
            request.response().report_load(&load(0.7));
            Ok(request.into_inner())
        });
    }
}

fn load(utilization: f64) -> LoadReport {
    let mut report = LoadReport::default();
    report.cpu_utilization = utilization;
    report
}

/// An `OrcaLoadReportRequest` with this interval.
fn every(seconds: u8) -> Raw {
    Raw(match seconds {
        0 => Vec::new(),
        _ => vec![0x0a, 2, 0x08, seconds],
    }
    .into())
}

#[tokio::test]
async fn a_handler_reports_the_load_in_the_trailers_of_its_call() -> Result<()> {
    let client = Client::new(Channel::in_process(Server::new().add_service(Busy)));
    let response = client.unary::<Raw, Raw>(CALL, every(0)).await?;
    let report = response.trailers().get_bin(LoadReport::TRAILER);
    let report = report.expect("one value, the last report");
    assert_eq!(LoadReport::decode(&report), Some(load(0.7)));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn reports_come_at_the_interval_of_the_client_but_not_more_often_than_the_server_allows()
-> Result<()> {
    for (min, asked, interval) in [
        (None, 0, 30),
        (None, 10, 30),
        (None, 60, 60),
        (Some(2), 1, 2),
    ] {
        let mut reports = LoadReports::new();
        if let Some(min) = min {
            reports = reports.min_interval(Duration::from_secs(min));
        }
        let server = Server::new().add_service(reports.clone());
        let client = Client::new(Channel::in_process(server));
        reports.set(load(0.2));
        let call = client.server_streaming::<Raw, Raw>(STREAM_CORE_METRICS, every(asked));
        let mut stream = call.await?;
        let began = Instant::now();
        for (at, utilization) in [(0, 0.2), (1, 0.4), (2, 0.4)] {
            let report = stream.message().await?.expect("a report");
            assert_eq!(LoadReport::decode(&report.0), Some(load(utilization)));
            assert_eq!(began.elapsed().as_secs(), at * interval, "{min:?} {asked}");
            reports.update(|it| it.cpu_utilization = 0.4);
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn streams_of_reports_end_with_the_last_handle() -> Result<()> {
    let reports = LoadReports::new();
    let server = Server::new().add_service(reports.clone());
    let client = Client::new(Channel::in_process(server));
    let call = client.server_streaming::<Raw, Raw>(STREAM_CORE_METRICS, every(0));
    let mut stream = call.await?;
    stream.message().await?.expect("a report");
    drop(reports);
    let status = stream.message().await.expect_err("the end");
    assert_eq!(status.code(), Code::UNAVAILABLE);
    Ok(())
}

#[tokio::test]
async fn a_malformed_request_for_reports_is_invalid() {
    let server = Server::new().add_service(LoadReports::new());
    let client = Client::new(Channel::in_process(server));
    let malformed = Raw(vec![0x0a, 9].into());
    let call = client.server_streaming::<Raw, Raw>(STREAM_CORE_METRICS, malformed);
    let ended = match call.await {
        Ok(mut stream) => stream.message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    assert_eq!(ended.expect_err("the end").code(), Code::INVALID_ARGUMENT);
}
