//! Load reports apart from calls (ORCA, gRFC A51).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;
use trunkline_codec::{LoadReport, LoadReportRequest, Status};

use crate::call::message::Raw;
use crate::call::method::Method;
use crate::call::request::Request;
use crate::call::sender::Sender;
use crate::server::service::{Methods, Service};

const STREAM_CORE_METRICS: Method =
    Method::new("/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics");

/// The interval of clients that ask for a shorter one, or for none.
const MIN_INTERVAL: Duration = Duration::from_secs(30);

/// The service `xds.service.orca.v3.OpenRcaService`, which reports the load of a server to its clients at intervals, and
/// the handle to set that load (gRFC A51).
///
/// Clients with the policy `weighted_round_robin` and `enableOobLoadReport` ask for these reports. To report the load
/// with each call instead, use [`ResponseHandle::report_load`](crate::ResponseHandle::report_load).
///
/// Clones are cheap and share their state: add one to the server and keep another. A clone can be used from any thread
/// and does not need a runtime. Streams end with UNAVAILABLE when the last clone outside of the server is dropped.
///
/// ```
/// use trunkline::server::LoadReports;
/// use trunkline::{LoadReport, Server};
///
/// # async fn example(greeter: impl trunkline::Service) -> trunkline::Result<()> {
/// let load = LoadReports::new();
/// let server = Server::new().add_service(greeter).add_service(load.clone()).bind("127.0.0.1:50051").await?;
/// // Whenever it is measured:
/// let mut report = LoadReport::default();
/// report.cpu_utilization = 0.4;
/// report.rps_fractional = 250.0;
/// load.set(report);
/// # server.serve().await
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LoadReports {
    load: Arc<watch::Sender<LoadReport>>,
    min_interval: Duration,
}

/// The handler of the service. It does not keep streams open.
#[derive(Debug)]
struct LoadReporter {
    load: watch::Receiver<LoadReport>,
    min_interval: Duration,
}

impl LoadReports {
    /// Creates the service, with a load of zero.
    pub fn new() -> Self {
        Self {
            load: Arc::default(),
            min_interval: MIN_INTERVAL,
        }
    }

    /// Sets the shortest interval between two reports to a client. Default: 30 s. Clients that ask for less, or for no
    /// interval, receive a report at this interval. Call it before the service is added.
    #[must_use]
    pub fn min_interval(mut self, interval: Duration) -> Self {
        self.min_interval = interval;
        self
    }

    /// Sets the load for the following reports.
    pub fn set(&self, report: LoadReport) {
        self.load.send_replace(report);
    }

    /// Changes a part of the load for the following reports. `change` must not use this handle.
    pub fn update(&self, change: impl FnOnce(&mut LoadReport)) {
        self.load.send_modify(change);
    }
}

impl Default for LoadReports {
    fn default() -> Self {
        Self::new()
    }
}

impl Service for LoadReports {
    const NAME: &'static str = "xds.service.orca.v3.OpenRcaService";

    fn add_to(self, methods: &mut Methods) {
        let reporter = Arc::new(LoadReporter {
            load: self.load.subscribe(),
            min_interval: self.min_interval,
        });
        methods.server_streaming(STREAM_CORE_METRICS, &reporter, LoadReporter::stream);
    }
}

impl LoadReporter {
    async fn stream(
        self: Arc<Self>,
        request: Request<Raw>,
        mut responses: Sender<Raw>,
    ) -> Result<(), Status> {
        let request = LoadReportRequest::decode(&request.into_inner().0).ok_or_else(|| {
            Status::invalid_argument("the request is not an OrcaLoadReportRequest")
        })?;
        let interval = request.report_interval.max(self.min_interval);
        let mut load = self.load.clone();
        loop {
            let report = load.borrow().encode();
            responses.send(Raw(Bytes::from(report))).await?;
            if timeout(interval, ended(&mut load)).await.is_ok() {
                return Err(Status::unavailable("the server reports its load no longer"));
            }
        }
    }
}

/// Waits until the last handle is dropped.
async fn ended(load: &mut watch::Receiver<LoadReport>) {
    while load.changed().await.is_ok() {}
}
