//! A call until the head of its response arrives.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;
use trunkline_channel::{Attempt, CallAttempts, Connections, Unsent};
use trunkline_codec::Status;
use trunkline_transport::Body;

use crate::call::intercept::unlocked;
use crate::call::source::AwaitedHead;
use crate::client::backend::{Backend, BackendKind, nowhere};
use crate::client::outgoing::OutgoingCall;
use crate::client::recipe::Recipe;
use crate::http_service::{Calling, HttpService};
use crate::observe::Recorder;

/// A call that has begun, until the head of its response arrives.
#[expect(
    clippy::large_enum_variant,
    reason = "most calls are open at once, and a box would be allocated for each"
)]
pub(crate) enum Opening {
    /// The stream is open.
    Open(Attempt),
    /// The stream is not open yet, or the call has none.
    Waiting {
        /// The mutex is never locked; it makes the owner of a call `Sync`.
        head: Mutex<Calling>,
        /// True after the stream has been opened; `None` for a call without a stream.
        is_open: Option<Arc<AtomicBool>>,
    },
}

/// Whether the caller waits until the stream is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Watched,
    Unwatched,
}

impl Opening {
    // Way of a unary call, client 4: opens the call to a server or a service; keeps what a retry needs.
    /// Opens a stream for a call, below the interceptors: at once, if one is free. Only a call that has
    /// to wait is taken out of `call`.
    pub(crate) fn new(
        backend: &Backend,
        call: &mut OutgoingCall,
        body: Body,
        start: Start,
        recorder: Option<&Arc<Recorder>>,
    ) -> Self {
        let connections = match &backend.kind {
            BackendKind::Server(connections) => connections,
            BackendKind::Service(service) => {
                return Self::of_service(backend, service, call, body, start, recorder);
            }
        };
        if call.config.is_some() && connections.attempt_policy(call.config.as_deref()).is_some() {
            let recipe = Recipe::new(backend.clone(), call.take(), recorder.cloned());
            return Self::with_policy(connections.clone(), recipe, body, start);
        }
        let attempt = recorder.map_or(0, |it| it.attempt_started(false));
        let picked = match &call.credentials {
            None => connections.try_ready(&call.pick_args()),
            // They take time, and need the connection that was picked.
            Some(_) => Ok(None),
        };
        let body = match picked {
            Err(status) => return Self::failed(status),
            Ok(None) => body,
            Ok(Some(picked)) => {
                let head = |origin| backend.request(call, origin);
                match Attempt::send(picked, 0, call.head.deadline, head, body) {
                    Ok(open) => {
                        if let Some(recorder) = recorder {
                            recorder.attempt_opened(attempt, &call.head.metadata);
                        }
                        return Self::Open(open);
                    }
                    Err(Unsent::Body(body)) => *body,
                    Err(Unsent::Failed(status)) => return Self::failed(status),
                }
            }
        };
        let is_open = Arc::new(AtomicBool::new(false));
        let recipe = Recipe::new(backend.clone(), call.take(), recorder.cloned());
        let attempts = CallAttempts::new(connections.clone(), recipe, body, is_open.clone());
        Self::waiting(is_open, attempts.without_policy(attempt))
    }

    /// Makes a call by the retry or hedging policy of its method.
    #[cold]
    fn with_policy(
        connections: Arc<Connections>,
        recipe: Recipe,
        body: Body,
        start: Start,
    ) -> Self {
        let is_open = Arc::new(AtomicBool::new(false));
        let config = recipe.call.config.clone();
        let attempts = CallAttempts::new(connections.clone(), recipe, body, is_open.clone());
        let head = async move {
            match connections.attempt_policy(config.as_deref()) {
                Some(policy) => attempts.with_policy(policy).await,
                None => attempts.without_policy(0).await,
            }
        };
        match start {
            Start::Unwatched => Self::waiting(is_open, head),
            Start::Watched => Self::waiting(is_open.clone(), in_a_task(is_open, head)),
        }
    }

    fn of_service(
        backend: &Backend,
        service: &Arc<dyn HttpService>,
        call: &OutgoingCall,
        body: Body,
        start: Start,
        recorder: Option<&Arc<Recorder>>,
    ) -> Self {
        let origin = nowhere(service.security_level());
        let head = match backend.request(call, origin.clone()) {
            Ok(head) => head,
            Err(status) => return Self::failed(status),
        };
        if let Some(recorder) = recorder {
            let attempt = recorder.attempt_started(false);
            recorder.attempt_opened(attempt, &call.head.metadata);
        }
        let (service, request) = (service.clone(), head.map(|()| body));
        let Some(credentials) = call.credentials.clone() else {
            return Self::called(call_service(service, request, start));
        };
        let request = credentials.added_to(request, origin, call.head.deadline);
        let is_open = Arc::new(AtomicBool::new(false));
        let begun = is_open.clone();
        Self::waiting(is_open, async move {
            let request = request.await?;
            begun.store(true, Ordering::Release);
            call_service(service, request, start).await
        })
    }

    /// Creates a call whose stream is not open. `head` sets `is_open` when it opens the stream.
    pub(crate) fn waiting(
        is_open: Arc<AtomicBool>,
        head: impl Future<Output = Result<http::Response<Body>, Status>> + Send + 'static,
    ) -> Self {
        Self::Waiting {
            head: Mutex::new(Box::pin(head)),
            is_open: Some(is_open),
        }
    }

    /// Creates a call without a stream.
    pub(crate) fn called(head: Calling) -> Self {
        Self::Waiting {
            head: Mutex::new(head),
            is_open: None,
        }
    }

    /// Creates a call that has failed.
    pub(crate) fn failed(status: Status) -> Self {
        Self::called(Box::pin(std::future::ready(Err(status))))
    }

    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Open(_) => true,
            Self::Waiting { is_open, .. } => is_open
                .as_ref()
                .is_none_or(|flag| flag.load(Ordering::Acquire)),
        }
    }

    /// Describes the phase of the call for error messages.
    pub(crate) fn phase(&self) -> &'static str {
        match self.is_open() {
            true => {
                "while the call waited for the head of the response: the server has the call but has not responded yet; it may be slow, or the timeout too short"
            }
            false => "while the call waited for a connection, or for a stream on it",
        }
    }

    /// `recipe` is asked for if the server has not processed the call, which is then made once more.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        recipe: impl FnOnce() -> Option<Recipe>,
    ) -> Poll<Result<http::Response<Body>, Status>> {
        match self {
            Self::Waiting { head, .. } => unlocked(head).as_mut().poll(cx),
            Self::Open(attempt) => match ready!(attempt.poll(cx)) {
                Err(status) if attempt.is_unprocessed() => match recipe() {
                    Some(recipe) => self.poll_retry(cx, recipe, status),
                    None => Poll::Ready(Err(status)),
                },
                response => Poll::Ready(response),
            },
        }
    }

    #[cold]
    fn poll_retry(
        &mut self,
        cx: &mut Context<'_>,
        recipe: Recipe,
        status: Status,
    ) -> Poll<Result<http::Response<Body>, Status>> {
        let ended = Self::failed(Status::internal("the call has ended"));
        if let Self::Open(failed) = std::mem::replace(self, ended) {
            let Some(connections) = recipe.backend.connections().cloned() else {
                return Poll::Ready(Err(status));
            };
            let is_open = Arc::new(AtomicBool::new(false));
            let attempts = CallAttempts::new(connections, recipe, Body::empty(), is_open.clone());
            *self = Self::waiting(is_open, attempts.again(failed, status));
        }
        self.poll(cx, || None)
    }
}

impl AwaitedHead for Opening {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<http::Response<Body>, Status>> {
        self.poll(cx, || None)
    }

    fn is_open(&self) -> bool {
        self.is_open()
    }

    fn phase(&self) -> &'static str {
        self.phase()
    }
}

/// A call whose head is awaited, and what it takes to make the call once more.
pub(crate) struct Repeatable {
    opening: Opening,
    recipe: Option<Recipe>,
}

impl Repeatable {
    /// Opens a stream for a call, below the interceptors.
    pub(crate) fn begin(
        backend: Backend,
        mut call: OutgoingCall,
        body: Body,
        start: Start,
        recorder: Option<Arc<Recorder>>,
    ) -> Box<dyn AwaitedHead> {
        let opening = Opening::new(&backend, &mut call, body, start, recorder.as_ref());
        let recipe = Recipe::new(backend, call, recorder);
        Box::new(Self {
            opening,
            recipe: Some(recipe),
        })
    }
}

impl AwaitedHead for Repeatable {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<http::Response<Body>, Status>> {
        self.opening.poll(cx, || self.recipe.take())
    }

    fn is_open(&self) -> bool {
        self.opening.is_open()
    }

    fn phase(&self) -> &'static str {
        self.opening.phase()
    }
}

/// Calls a service that has no connection.
fn call_service(
    service: Arc<dyn HttpService>,
    request: http::Request<Body>,
    start: Start,
) -> Calling {
    match start {
        Start::Unwatched => service.call(request),
        // Nobody but the caller drives a tower service, and the caller of a stream may be busy with
        // its other half.
        Start::Watched => Box::pin(async move {
            let mut task = AbortOnDrop(tokio::spawn(async move { service.call(request).await }));
            (&mut task.0).await.unwrap_or_else(|error| {
                Err(Status::internal(format!("the service failed: {error}")))
            })
        }),
    }
}

/// Makes the attempts of a call in a task, because the caller of a stream may be busy with its other half. The future
/// wakes its owner when the stream is open as well.
async fn in_a_task(
    is_open: Arc<AtomicBool>,
    head: impl Future<Output = Result<http::Response<Body>, Status>> + Send + 'static,
) -> Result<http::Response<Body>, Status> {
    let (sender, opened) = oneshot::channel::<()>();
    let mut sender = Some(sender);
    let mut head = Box::pin(head);
    let mut task = AbortOnDrop(tokio::spawn(poll_fn(move |cx| {
        let head = head.as_mut().poll(cx);
        if head.is_ready() || is_open.load(Ordering::Acquire) {
            drop(sender.take());
        }
        head
    })));
    // The end of the sender is the signal.
    let mut opened = Some(opened);
    poll_fn(|cx| {
        if let Some(it) = &mut opened
            && Pin::new(it).poll(cx).is_ready()
        {
            opened = None;
        }
        Pin::new(&mut task.0).poll(cx)
    })
    .await
    .unwrap_or_else(|error| Err(Status::internal(format!("the call failed: {error}"))))
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
