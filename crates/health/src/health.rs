//! What users set, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use trunkline::{FileDescriptors, Router, Service};

use crate::service::Answers;
use crate::statuses::{Phase, Statuses};
use crate::v1::HealthServer;
use crate::v1::health_check_response::ServingStatus;

/// How a server and its services are, and the service that tells it.
///
/// All start as SERVING. A service of the server to which it is added has the status of the server
/// until it gets one of its own. The empty name, `""`, is that of the server as a whole.
///
/// It is cheap to clone, and all clones are the same: one goes into the server, one stays with who
/// knows how things are. It works on any runtime, and from any thread.
#[derive(Clone, Debug)]
pub struct Health {
    statuses: Arc<watch::Sender<Statuses>>,
}

impl Health {
    /// The server is SERVING.
    pub fn new() -> Self {
        Self {
            statuses: Arc::new(watch::Sender::new(Statuses::new())),
        }
    }

    /// The service, or with `""` the server, takes calls.
    ///
    /// A name that no server has is known from now on.
    pub fn set_serving(&self, service: &str) {
        self.set(service, ServingStatus::Serving);
    }

    /// The service, or with `""` the server, takes no calls now. Calls that come are answered
    /// nonetheless: this tells clients, balancers and probes.
    pub fn set_not_serving(&self, service: &str) {
        self.set(service, ServingStatus::NotServing);
    }

    /// Takes a service out: from now on it is not known. `""` stays.
    pub fn clear(&self, service: &str) {
        self.statuses.send_modify(|it| it.forget(service));
    }

    /// What is told of a service now, or with `""` of the server; none if it is not known.
    pub fn status(&self, service: &str) -> Option<ServingStatus> {
        self.statuses.borrow().of(service)
    }

    /// From now on everything is NOT_SERVING, whatever is set, until [`resume`](Self::resume).
    ///
    /// Those who watch are told and stay. [`shutdown_on`](Self::shutdown_on) is for a server that
    /// ends.
    pub fn shutdown(&self) {
        self.statuses
            .send_modify(|it| it.phase = it.phase.max(Phase::ShuttingDown));
    }

    /// Ends a [`shutdown`](Self::shutdown): everything is as it was set last, before or meanwhile.
    pub fn resume(&self) {
        self.statuses.send_modify(|it| it.phase = Phase::Serving);
    }

    /// Waits for `signal`, says NOT_SERVING for `notice`, and is ready when the server should end:
    /// for `serve_until`.
    ///
    /// `notice` is what balancers and probes take to see it and to send their calls elsewhere; the
    /// server goes on meanwhile. Afterwards streams that watch are ended with UNAVAILABLE, so that
    /// they do not hold up the end until the grace has passed. If the future is dropped after the
    /// signal, everything stays NOT_SERVING.
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

    fn know_all_of(&self, router: &Router) {
        self.statuses.send_modify(|statuses| {
            for service in router.services() {
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

/// Adds `grpc.health.v1.Health`, and takes note of all services that the router has and gets.
impl Service for Health {
    const NAME: &'static str = <HealthServer<Answers> as Service>::NAME;
    const FILE_DESCRIPTORS: &'static FileDescriptors =
        <HealthServer<Answers> as Service>::FILE_DESCRIPTORS;

    fn add_to(self, router: &mut Router) {
        HealthServer(Answers::new(self.statuses.clone())).add_to(router);
        router.after_each_add(move |router| self.know_all_of(router));
    }
}
