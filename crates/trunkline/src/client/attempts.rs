//! What a channel does with a call until a server has taken it.
//!
//! gRFC A6, "Transparent Retries": a call of which nothing has left is made again as often as it
//! takes; one that has reached the server, which says that it has done nothing with it, once. Both
//! only before the head of a response is there. The head is made anew for each attempt, with what is
//! left of the deadline; a body that is known in full is shared between them, and one that is a
//! stream goes to the next attempt if nothing has been taken out of it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use trunkline_channel::{Connections, Origin, Picked, WaitMode};
use trunkline_codec::{Metadata, Status};
use trunkline_transport::{Body, OpenCall, RefusedRequest};

use crate::client::call::Call;
use crate::client::channel::Channel;
use crate::client::opening::Opening;
use crate::observe::Recorder;

/// How often a call is made again that the server has refused.
const REFUSALS_MAX: u32 = 1;

/// A call whose stream is open, and its body once more, if that is known in full.
pub(crate) struct Attempt {
    open: OpenCall,
    body: Option<Body>,
}

// Way of a unary call, client 5: writes the head of the request; keeps what it takes to make the call
// again.
/// Opens the stream of a call: at once, if one is free. Only a call that has to wait is taken out of
/// `call`.
pub(crate) fn begin<T>(
    channel: &Channel,
    connections: &Arc<Connections>,
    call: &mut Call<T>,
    body: Body,
    recorder: Option<&Arc<Recorder>>,
) -> Opening {
    if let Some(recorder) = recorder {
        recorder.attempt_started();
    }
    let Some(ready) = connections.try_ready() else {
        return wait(channel, connections, call.take(), body, recorder);
    };
    let (connection, origin) = ready.into_parts();
    let head = match channel.request(call, origin) {
        Ok(head) => head,
        Err(status) => return Opening::failed(status),
    };
    let spare = body.try_clone();
    match connection.send(head, body) {
        Ok(open) => {
            if let Some(recorder) = recorder {
                recorder.attempt_opened(&call.head.metadata);
            }
            Opening::Open(Attempt { open, body: spare })
        }
        Err(refused) => match not_sent(*refused) {
            Ok(body) => {
                let body = spare.unwrap_or(body);
                wait(channel, connections, call.take(), body, recorder)
            }
            Err(status) => Opening::failed(status),
        },
    }
}

/// Waits for a stream that can be opened, and opens it.
fn wait(
    channel: &Channel,
    connections: &Arc<Connections>,
    call: Call,
    body: Body,
    recorder: Option<&Arc<Recorder>>,
) -> Opening {
    let is_open = Arc::new(AtomicBool::new(false));
    let attempts = Attempts::new(body, is_open.clone(), recorder.cloned());
    let running = attempts.run(channel.clone(), connections.clone(), call);
    Opening::waiting(is_open, running)
}

/// Makes a call that is an HTTP request already.
pub(crate) async fn forward(
    connections: Arc<Connections>,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, Status> {
    let (parts, body) = request.into_parts();
    let head = |origin: Origin| {
        let mut parts = parts.clone();
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.scheme = Some(origin.scheme);
        uri.authority = Some(origin.authority);
        parts.uri = http::Uri::from_parts(uri)
            .map_err(|error| Status::internal(format!("the path of the request: {error}")))?;
        Ok(http::Request::from_parts(parts, ()))
    };
    let mut attempts = Attempts::new(body, Arc::default(), None);
    loop {
        let ready = connections.ready(None, WaitMode::FailFast).await?;
        if let Some(response) = attempts.make(ready, head, &Metadata::new()).await {
            return response;
        }
    }
}

/// The attempts of a call whose stream is not open.
struct Attempts {
    body: Body,
    refusals: u32,
    is_open: Arc<AtomicBool>,
    recorder: Option<Arc<Recorder>>,
}

impl Attempts {
    fn new(body: Body, is_open: Arc<AtomicBool>, recorder: Option<Arc<Recorder>>) -> Self {
        Self {
            body,
            refusals: 0,
            is_open,
            recorder,
        }
    }

    async fn run(
        mut self,
        channel: Channel,
        connections: Arc<Connections>,
        call: Call,
    ) -> Result<http::Response<Body>, Status> {
        loop {
            if let Some(recorder) = &self.recorder {
                recorder.attempt_started();
            }
            let ready = connections.ready(call.head.deadline, call.options.wait_mode);
            let ready = match ready.await {
                Ok(ready) => ready,
                Err(status) => {
                    // A caller that tries again at once, and again, leaves its thread to what would
                    // mend it.
                    tokio::task::consume_budget().await;
                    return Err(status);
                }
            };
            // The server is told what is left of the deadline now.
            let head = |origin| channel.request(&call, origin);
            if let Some(response) = self.make(ready, head, &call.head.metadata).await {
                return response;
            }
        }
    }

    /// One attempt; none if there is to be another.
    async fn make(
        &mut self,
        ready: Picked,
        head: impl Fn(Origin) -> Result<http::Request<()>, Status>,
        metadata: &Metadata,
    ) -> Option<Result<http::Response<Body>, Status>> {
        let (connection, origin) = ready.into_parts();
        let head = match head(origin) {
            Ok(head) => head,
            Err(status) => return Some(Err(status)),
        };
        let spare = self.body.try_clone();
        let mut open = match connection.send(head, std::mem::take(&mut self.body)) {
            Ok(open) => open,
            Err(refused) => match not_sent(*refused) {
                Ok(body) => {
                    self.body = spare.unwrap_or(body);
                    return None;
                }
                Err(status) => return Some(Err(status)),
            },
        };
        self.is_open.store(true, Ordering::Release);
        if let Some(recorder) = &self.recorder {
            recorder.attempt_opened(metadata);
        }
        let response = (&mut open).await;
        if response.is_ok() || !open.is_unprocessed() || self.refusals >= REFUSALS_MAX {
            return Some(response);
        }
        match untouched(spare, open).await {
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

impl Attempt {
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<http::Response<Body>, Status>> {
        Pin::new(&mut self.open).poll(cx)
    }

    /// After an error: whether the call can be made again.
    pub(crate) fn is_unprocessed(&self) -> bool {
        self.open.is_unprocessed()
    }

    /// The call again, which has failed with `status`.
    pub(crate) fn again(
        self,
        channel: Channel,
        call: Call,
        status: Status,
        recorder: Option<Arc<Recorder>>,
    ) -> Opening {
        let is_open = Arc::new(AtomicBool::new(false));
        Opening::waiting(is_open.clone(), async move {
            let body = untouched(self.body, self.open).await;
            let (Some(body), Some(connections)) = (body, channel.connections().cloned()) else {
                return Err(status);
            };
            if let Some(recorder) = &recorder {
                recorder.attempt_ended(Some(&status));
            }
            let mut attempts = Attempts::new(body, is_open, recorder);
            attempts.refusals = 1;
            attempts.run(channel, connections, call).await
        })
    }
}

/// The body of a call that was not sent, if it can go to another connection.
fn not_sent(refused: RefusedRequest) -> Result<Body, Status> {
    match refused.is_connection_lost {
        true => Ok(refused.body),
        false => Err(refused.status),
    }
}

/// The body of a call that the server has not taken, as it was.
async fn untouched(spare: Option<Body>, mut open: OpenCall) -> Option<Body> {
    match spare {
        Some(body) => Some(body),
        None => open.take_body().await,
    }
}
