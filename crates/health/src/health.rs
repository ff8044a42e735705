//! The handle that users set statuses with, and the shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use trunkline::FileDescriptors;
use trunkline::Service;
use trunkline::server::Methods;

use crate::service::HealthHandlers;
use crate::statuses::{Phase, Statuses};
use crate::v1::HealthServer;
use crate::v1::health_check_response::ServingStatus;

/// The health service of a server, and the handle to set its statuses.
///
/// The server has a status, and so has each of its services. At first, everything is SERVING. The status of
/// a service equals that of the server until you set it. The empty name, `""`, stands for the server.
///
/// Clones are cheap and share their state: add one to the server and keep another to change the status.
/// A clone can be used from any thread and does not need a runtime.
///
/// ```
/// use trunkline_health::{Health, ServingStatus};
///
/// let health = Health::new();
/// health.set_not_serving("helloworld.Greeter");
/// assert_eq!(health.status("helloworld.Greeter"), Some(ServingStatus::NotServing));
/// assert_eq!(health.status(""), Some(ServingStatus::Serving));
/// ```
#[derive(Clone, Debug)]
pub struct Health {
    statuses: Arc<watch::Sender<Statuses>>,
}

impl Health {
    /// Creates a health service that reports SERVING.
    pub fn new() -> Self {
        Self {
            statuses: Arc::new(watch::Sender::new(Statuses::new())),
        }
    }

    /// Sets the status of `service`, or of the whole server for `""`, to SERVING.
    ///
    /// The name need not be that of a service of the server: clients can then ask for any name that you set.
    pub fn set_serving(&self, service: &str) {
        self.set(service, ServingStatus::Serving);
    }

    /// Sets the status of `service`, or of the whole server for `""`, to NOT_SERVING.
    ///
    /// Clients, load balancers and probes read this status. The server continues to handle calls.
    pub fn set_not_serving(&self, service: &str) {
        self.set(service, ServingStatus::NotServing);
    }

    /// Removes the status of `service`, so that the name is unknown. The status of `""` cannot be removed.
    pub fn clear(&self, service: &str) {
        self.statuses.send_modify(|it| it.forget(service));
    }

    /// Returns the current status of `service`, or of the whole server for `""`; `None` if the name is
    /// unknown.
    pub fn status(&self, service: &str) -> Option<ServingStatus> {
        self.statuses.borrow().of(service)
    }

    /// Reports NOT_SERVING for everything until [`resume`](Self::resume), regardless of what is set.
    ///
    /// `Watch` streams receive the change and stay open. For a server that shuts down, use
    /// [`shutdown_on`](Self::shutdown_on).
    pub fn shutdown(&self) {
        self.statuses
            .send_modify(|it| it.phase = it.phase.max(Phase::ShuttingDown));
    }

    /// Ends a [`shutdown`](Self::shutdown): every status is again the one that was set last, before or
    /// during the shutdown.
    pub fn resume(&self) {
        self.statuses.send_modify(|it| it.phase = Phase::Serving);
    }

    /// Waits for `signal`, reports NOT_SERVING, and completes after `notice`. Pass the future to
    /// `BoundServer::serve_until`, which then shuts the server down.
    ///
    /// Set `notice` to the time that load balancers and probes need to notice the change; the server
    /// continues to serve in the meantime. Afterwards, `Watch` streams end with UNAVAILABLE; otherwise, the
    /// server would wait for them for the full `drain_grace`. If the future is dropped after the signal,
    /// everything stays NOT_SERVING.
    ///
    /// ```no_run
    /// # async fn example(greeter: impl trunkline::Service) -> trunkline::Result<()> {
    /// # async fn terminated() {}
    /// use std::time::Duration;
    /// use trunkline::Server;
    /// use trunkline_health::Health;
    ///
    /// let health = Health::new();
    /// let server = Server::new().add_service(greeter).add_service(health.clone()).bind("127.0.0.1:50051").await?;
    /// server.serve_until(health.shutdown_on(terminated(), Duration::from_secs(5))).await
    /// # }
    /// ```
    pub async fn shutdown_on(self, signal: impl Future<Output = ()>, notice: Duration) {
        signal.await;
        self.shutdown();
        if !notice.is_zero() {
            tokio::time::sleep(notice).await;
        }
        self.statuses.send_modify(|it| it.phase = Phase::Ended);
    }

    fn set(&self, service: &str, status: ServingStatus) {
        self.statuses.send_modify(|it| it.set(service, status));
    }

    fn know_all_of(&self, methods: &Methods) {
        self.statuses.send_modify(|statuses| {
            for service in methods.service_names() {
                statuses.know(service);
            }
        });
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

/// Adds `grpc.health.v1.Health`, which covers all services of the server, including those added later.
impl Service for Health {
    const NAME: &'static str = <HealthServer<HealthHandlers> as Service>::NAME;
    const FILE_DESCRIPTORS: &'static FileDescriptors =
        <HealthServer<HealthHandlers> as Service>::FILE_DESCRIPTORS;

    fn add_to(self, methods: &mut Methods) {
        HealthServer::new(HealthHandlers::new(self.statuses.clone())).add_to(methods);
        methods.on_service_added(move |methods| self.know_all_of(methods));
    }
}
