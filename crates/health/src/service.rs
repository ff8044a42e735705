//! The methods Check, List and Watch.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;
use trunkline::{Request, Result, Sender, Status};

use crate::statuses::{Phase, Statuses};
use crate::v1::health_check_response::ServingStatus;
use crate::v1::{
    Health, HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};

/// The most statuses that List returns, including that of the whole server.
const LIST_MAX: usize = 100;

/// The longest name that can be watched, in bytes: a stream keeps it for as long as it lives.
const WATCHED_NAME_MAX: usize = 1_000;

/// The handlers of the health service.
#[derive(Debug)]
pub(crate) struct HealthHandlers {
    statuses: Arc<watch::Sender<Statuses>>,
}

impl HealthHandlers {
    pub(crate) fn new(statuses: Arc<watch::Sender<Statuses>>) -> Self {
        Self { statuses }
    }
}

impl Health for HealthHandlers {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<HealthCheckResponse> {
        // health-checking.md, "Service Definition": a name that is not registered is NOT_FOUND.
        let status = self.statuses.borrow().of(&request.service);
        status
            .map(response)
            .ok_or_else(|| Status::not_found("the server knows no service of that name"))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<HealthListResponse> {
        let all = self.statuses.borrow();
        // health.proto, "List": more than 100 services are RESOURCE_EXHAUSTED.
        if all.len() > LIST_MAX {
            return Err(Status::resource_exhausted(format!(
                "there are {} statuses, and a list has {LIST_MAX} at most; ask for each with Check",
                all.len()
            )));
        }
        let statuses = all.names().filter_map(|name| {
            let status = all.of(name)?;
            Some((name.to_owned(), response(status)))
        });
        let statuses: HashMap<_, _> = statuses.collect();
        Ok(HealthListResponse { statuses })
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
        responses: &mut Sender<HealthCheckResponse>,
    ) -> Result<()> {
        let service = request.into_inner().service;
        if service.len() > WATCHED_NAME_MAX {
            return Err(Status::invalid_argument(format!(
                "the name has {} bytes, and one that is watched {WATCHED_NAME_MAX} at most",
                service.len()
            )));
        }
        // It holds the latest status only: slow readers miss earlier ones, and nothing is queued.
        let mut changes = self.statuses.subscribe();
        let mut told = None;
        loop {
            let (status, phase) = {
                let statuses = changes.borrow_and_update();
                (statuses.of(&service), statuses.phase)
            };
            // health.proto, "Watch": for an unknown service SERVICE_UNKNOWN, and the call goes on.
            let status = status.unwrap_or(ServingStatus::ServiceUnknown);
            if told != Some(status) {
                responses.send(response(status)).await?;
                told = Some(status);
            }
            // health.proto, "Watch": whatever the status but UNIMPLEMENTED, clients try again later.
            if phase == Phase::Ended || changes.changed().await.is_err() {
                return Err(Status::unavailable("the server is shutting down"));
            }
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}
