//! The attempts of a call until a server processes it.
//!
//! gRFC A6, "Transparent Retries": a call that was not sent is retried without a limit; a call that the server
//! reports as unprocessed is retried once. Both end when the head of a response arrives. Each attempt has a new
//! head with the remaining time of the deadline. Attempts share a body known in full; a stream is passed to the
//! next attempt if nothing has been read from it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use trunkline_channel::{Connections, Origin, PickArgs, Picked, WaitMode};
use trunkline_codec::{Metadata, Status};
use trunkline_transport::{Body, OpenCall};

use crate::client::backend::Backend;
use crate::client::outgoing::OutgoingCall;
use crate::credentials::AttachedCredentials;
use crate::observe::Recorder;

/// The path of a request without one.
static NO_PATH: PathAndQuery = PathAndQuery::from_static("/");

/// The number of retries of a call that the server has refused.
const REFUSALS_MAX: u32 = 1;

/// All that it takes to make a call, except for its body.
pub(crate) struct Recipe {
    backend: Backend,
    call: OutgoingCall,
    recorder: Option<Arc<Recorder>>,
}

impl Recipe {
    pub(crate) fn new(
        backend: Backend,
        call: OutgoingCall,
        recorder: Option<Arc<Recorder>>,
    ) -> Self {
        Self {
            backend,
            call,
            recorder,
        }
    }
}

/// An attempt whose stream is open.
pub(crate) struct Attempt {
    open: OpenCall,
    /// The body once more, if it is known in full.
    body_copy: Option<Body>,
}

/// An attempt that was not sent.
pub(crate) enum Unsent {
    /// The connection was lost before: the body can go to another.
    Body(Box<Body>),
    Failed(Status),
}

impl Attempt {
    /// Sends a call on the connection that was picked.
    #[inline]
    pub(crate) fn send(
        picked: Picked,
        head: impl FnOnce(Origin) -> Result<http::Request<()>, Status>,
        body: Body,
    ) -> Result<Self, Unsent> {
        let Picked {
            connection, origin, ..
        } = picked;
        let head = head(origin).map_err(Unsent::Failed)?;
        let body_copy = body.try_clone();
        match connection.send(head, body) {
            Ok(open) => Ok(Self { open, body_copy }),
            Err(refused) if refused.is_connection_lost => {
                Err(Unsent::Body(Box::new(body_copy.unwrap_or(refused.body))))
            }
            Err(refused) => Err(Unsent::Failed(refused.status)),
        }
    }

    #[inline]
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<http::Response<Body>, Status>> {
        Pin::new(&mut self.open).poll(cx)
    }

    /// Returns true, after an error, if the call can be made once more.
    pub(crate) fn is_unprocessed(&self) -> bool {
        self.open.is_unprocessed()
    }

    /// The body of a call that the server has not processed; none if a part of it has left.
    async fn into_body(mut self) -> Option<Body> {
        match self.body_copy {
            Some(body) => Some(body),
            None => self.open.take_body().await,
        }
    }
}

/// Makes a call that is already an HTTP request.
pub(crate) async fn forward(
    connections: Arc<Connections>,
    credentials: Option<Arc<AttachedCredentials>>,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, Status> {
    let (parts, body) = request.into_parts();
    let head = |origin: Origin, credentials: Metadata| {
        let mut parts = parts.clone();
        credentials.merge_into(&mut parts.headers);
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.scheme = Some(origin.scheme);
        uri.authority = Some(origin.authority);
        parts.uri = http::Uri::from_parts(uri)
            .map_err(|error| Status::internal(format!("the path of the request: {error}")))?;
        Ok(http::Request::from_parts(parts, ()))
    };
    let path = parts.uri.path_and_query().unwrap_or(&NO_PATH);
    let mut attempts = Attempts::new(body, Arc::default(), None);
    let metadata = Metadata::from_headers(parts.headers.clone());
    let call = PickArgs::new(parts.uri.path(), &metadata);
    loop {
        let picked = connections.ready(&call, None, WaitMode::FailFast).await?;
        let credentials = match &credentials {
            None => Metadata::new(),
            Some(it) => it.metadata(&picked.origin, path, None).await?,
        };
        let head = |origin| head(origin, credentials);
        if let Some(response) = attempts.make(picked, head, &Metadata::new()).await {
            return response;
        }
    }
}

/// Makes a call once more that has failed with `status`, unprocessed; sets `is_open` when the stream is open.
pub(crate) async fn retry(
    failed: Attempt,
    recipe: Recipe,
    status: Status,
    is_open: Arc<AtomicBool>,
) -> Result<http::Response<Body>, Status> {
    let body = failed.into_body().await;
    let (Some(body), Some(connections)) = (body, recipe.backend.connections().cloned()) else {
        return Err(status);
    };
    if let Some(recorder) = &recipe.recorder {
        recorder.attempt_ended(Some(&status));
    }
    let mut attempts = Attempts::new(body, is_open, recipe.recorder.clone());
    attempts.refusals = 1;
    attempts.run(recipe, connections).await
}

/// The attempts of a call whose stream is not open.
pub(crate) struct Attempts {
    body: Body,
    refusals: u32,
    is_open: Arc<AtomicBool>,
    recorder: Option<Arc<Recorder>>,
}

impl Attempts {
    pub(crate) fn new(
        body: Body,
        is_open: Arc<AtomicBool>,
        recorder: Option<Arc<Recorder>>,
    ) -> Self {
        Self {
            body,
            refusals: 0,
            is_open,
            recorder,
        }
    }

    /// Waits for a stream that can be opened, and opens it, until there is a response.
    pub(crate) async fn run(
        mut self,
        Recipe { backend, call, .. }: Recipe,
        connections: Arc<Connections>,
    ) -> Result<http::Response<Body>, Status> {
        loop {
            if let Some(recorder) = &self.recorder {
                recorder.attempt_started();
            }
            let args = call.pick_args();
            let picked = connections.ready(&args, call.head.deadline, call.wait_mode);
            let picked = match picked.await {
                Ok(picked) => picked,
                Err(status) => {
                    // A caller that retries in a loop must yield to the tasks that connect.
                    tokio::task::consume_budget().await;
                    return Err(status);
                }
            };
            let (origin, path) = (&picked.origin, &call.head.path);
            let credentials = match &call.credentials {
                None => Metadata::new(),
                Some(it) => it.metadata(origin, path, call.head.deadline).await?,
            };
            // The head contains the time that remains until the deadline.
            let head = |origin| {
                let mut head = backend.request(&call, origin)?;
                credentials.merge_into(head.headers_mut());
                Ok(head)
            };
            if let Some(response) = self.make(picked, head, &call.head.metadata).await {
                return response;
            }
        }
    }

    /// Makes one attempt; returns `None` if another must follow.
    async fn make(
        &mut self,
        picked: Picked,
        head: impl FnOnce(Origin) -> Result<http::Request<()>, Status>,
        metadata: &Metadata,
    ) -> Option<Result<http::Response<Body>, Status>> {
        let mut attempt = match Attempt::send(picked, head, std::mem::take(&mut self.body)) {
            Ok(attempt) => attempt,
            Err(Unsent::Body(body)) => {
                self.body = *body;
                return None;
            }
            Err(Unsent::Failed(status)) => return Some(Err(status)),
        };
        self.is_open.store(true, Ordering::Release);
        if let Some(recorder) = &self.recorder {
            recorder.attempt_opened(metadata);
        }
        let response = poll_fn(|cx| attempt.poll(cx)).await;
        if response.is_ok() || !attempt.is_unprocessed() || self.refusals >= REFUSALS_MAX {
            return Some(response);
        }
        match attempt.into_body().await {
            Some(body) => {
                self.body = body;
                self.refusals += 1;
                if let Some(recorder) = &self.recorder {
                    recorder.attempt_ended(response.as_ref().err());
                }
                None
            }
            None => Some(response),
        }
    }
}
