//! Calls of tower layers, which are HTTP requests already.

use std::sync::Arc;

use http::Request;
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use tokio::time::Instant;
use trunkline_channel::{CallAttempts, CallHead, Connections, Origin, PickArgs, WaitMode};
use trunkline_codec::{Metadata, Status};
use trunkline_transport::Body;

use crate::credentials::AttachedCredentials;

/// The path of a request without one.
static NO_PATH: PathAndQuery = PathAndQuery::from_static("/");

/// A call that is a request already.
struct ForwardedCall {
    parts: Parts,
    metadata: Metadata,
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
    let path = parts.uri.path();
    let config = match connections.try_select(path) {
        Ok(config) => config,
        Err(_) => connections.select(path, None, WaitMode::FailFast).await?,
    };
    let waits = config.as_ref().is_some_and(|it| it.waits_for_ready(None));
    let call = ForwardedCall {
        metadata: Metadata::from_headers(parts.headers.clone()),
        parts,
        wait_mode: match waits {
            true => WaitMode::WaitForReady,
            false => WaitMode::FailFast,
        },
        credentials,
    };
    let attempts = CallAttempts::new(connections.clone(), call, body, Arc::default());
    match connections.attempt_policy(config.as_deref()) {
        Some(policy) => attempts.with_policy(policy).await,
        None => attempts.without_policy(0).await,
    }
}

impl CallHead for ForwardedCall {
    fn pick_args(&self) -> PickArgs<'_> {
        PickArgs::new(self.parts.uri.path(), &self.metadata)
    }

    fn deadline(&self) -> Option<Instant> {
        None
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
        Ok(Request::from_parts(parts, ()))
    }

    async fn credentials(&self, origin: &Origin) -> Result<Option<Metadata>, Status> {
        let Some(credentials) = &self.credentials else {
            return Ok(None);
        };
        let path = self.parts.uri.path_and_query().unwrap_or(&NO_PATH);
        credentials.metadata(origin, path, None).await.map(Some)
    }
}
