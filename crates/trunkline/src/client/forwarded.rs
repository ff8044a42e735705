//! Calls of tower layers, which are HTTP requests already.

use std::sync::Arc;

use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderName, Request};
use tokio::time::Instant;
use trunkline_channel::{CallAttempts, CallHead, Connections, Origin, PickArgs, WaitMode};
use trunkline_codec::head::timeout_of;
use trunkline_codec::{Metadata, Status, timeout};
use trunkline_transport::Body;

use crate::call::deadline;
use crate::credentials::AttachedCredentials;

/// The path of a request without one.
static NO_PATH: PathAndQuery = PathAndQuery::from_static("/");

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// A call that is a request already.
struct ForwardedCall {
    parts: Parts,
    metadata: Metadata,
    deadline: Option<Instant>,
    wait_mode: WaitMode,
    credentials: Option<Arc<AttachedCredentials>>,
}

/// Makes a call that is already an HTTP request, by the config of its method.
pub(crate) async fn forward(
    connections: Arc<Connections>,
    credentials: Option<Arc<AttachedCredentials>>,
    request: Request<Body>,
) -> Result<http::Response<Body>, Status> {
    let (parts, body) = request.into_parts();
    let (path, timeout) = (parts.uri.path(), timeout_of(&parts.headers));
    let mut deadline = timeout.and_then(deadline::after);
    let config = match connections.try_select(path) {
        Ok(config) => config,
        Err(_) => {
            let selecting = connections.select(path, deadline, WaitMode::FailFast);
            selecting.await?
        }
    };
    let longest = config.as_ref().and_then(|it| it.timeout);
    deadline = deadline::earlier(deadline, longest.and_then(deadline::after));
    let waits = config.as_ref().is_some_and(|it| it.waits_for_ready(None));
    let call = ForwardedCall {
        metadata: Metadata::from_headers(parts.headers.clone()),
        parts,
        deadline,
        wait_mode: match waits {
            true => WaitMode::WaitForReady,
            false => WaitMode::FailFast,
        },
        credentials,
    };
    let attempts = CallAttempts::new(connections.clone(), call, body, Arc::default());
    let response = async {
        match connections.attempt_policy(config.as_deref()) {
            Some(policy) => attempts.with_policy(policy).await,
            None => attempts.without_policy(0).await,
        }
    };
    let Some(deadline) = deadline else {
        return response.await;
    };
    let response = tokio::time::timeout_at(deadline, response).await;
    response.unwrap_or_else(|_| Err(deadline::exceeded("before the response had a head")))
}

impl CallHead for ForwardedCall {
    fn pick_args(&self) -> PickArgs<'_> {
        PickArgs::new(self.parts.uri.path(), &self.metadata)
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn wait_mode(&self) -> WaitMode {
        self.wait_mode
    }

    fn head(&self, origin: Origin) -> Result<Request<()>, Status> {
        let mut parts = self.parts.clone();
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.scheme = Some(origin.scheme);
        uri.authority = Some(origin.authority);
        parts.uri = Uri::from_parts(uri)
            .map_err(|error| Status::internal(format!("the path of the request: {error}")))?;
        if let Some(timeout) = deadline::remaining(self.deadline) {
            let value = timeout::encode(timeout);
            let _fits = parts.headers.try_insert(GRPC_TIMEOUT, value).is_ok();
        }
        Ok(Request::from_parts(parts, ()))
    }

    async fn credentials(&self, origin: &Origin) -> Result<Option<Metadata>, Status> {
        let Some(credentials) = &self.credentials else {
            return Ok(None);
        };
        let path = self.parts.uri.path_and_query().unwrap_or(&NO_PATH);
        credentials
            .metadata(origin, path, self.deadline)
            .await
            .map(Some)
    }
}
