//! Interceptors: code around whole calls, on clients and on servers.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll, Waker};

use tokio::time::Instant;
use trunkline_codec::{Metadata, Status};
use trunkline_transport::Body;

use crate::call::context::{Context, Lent, ReturnedContext};
use crate::call::message_hooks::MessageHooks;
use crate::call::response_metadata::ResponseMetadata;
use crate::call::source::AwaitedHead;

/// The message of a call that has no response, although its interceptors returned Ok.
pub(crate) const OK_WITHOUT_RESPONSE: &str =
    "an interceptor returned Ok for a call that has no response";

/// The future of running interceptors, or of the call inside them.
pub(crate) type Running = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// The call itself, inside its interceptors.
type Innermost = Box<dyn FnOnce(Context) -> Running + Send>;

/// Code that runs around each call of a server, a service or a channel.
///
/// An interceptor is any `async fn(Context, Next) -> Result<()>`, or a closure of that form. It can read
/// and change the request in its [`Context`]. Then it either continues the call with [`Next::run`], which
/// completes with the status of the whole call, or refuses the call by returning an error without running
/// [`Next`]. The result that the interceptor returns becomes the result of the call.
///
/// ```
/// use trunkline::{Context, Next, Result, Status};
///
/// async fn authenticate(mut cx: Context, next: Next) -> Result<()> {
///     match cx.metadata().get("authorization") {
///         Some("Bearer open sesame") => next.run(&mut cx).await,
///         _ => Err(Status::unauthenticated("the token is missing or wrong")),
///     }
/// }
///
/// let server = trunkline::Server::new().intercept(authenticate);
/// ```
///
/// Several interceptors are nested. The one added first is the outermost: it runs first, and its [`Next`]
/// contains the others, which are the inner ones. If the call is cancelled, the future of the interceptor
/// is dropped. On a client, interceptors run once for a call, not for each attempt of a retry or hedging policy.
///
/// # Replacing an error with `Ok`
///
/// If an interceptor returns `Ok` although [`Next::run`] returned an error, a call with a stream of
/// responses ends with OK after the messages that were sent. A call with a single response ends with
/// INTERNAL, because it has no message to return. A call also ends with INTERNAL if its interceptor
/// returns `Ok` before
/// [`Next::run`] has completed.
pub trait Interceptor: Send + Sync + 'static {
    /// Runs around one call, whose result is the result of the returned future.
    fn intercept(&self, cx: Context, next: Next)
    -> impl Future<Output = Result<(), Status>> + Send;
}

impl<F, Fut> Interceptor for F
where
    F: Fn(Context, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Status>> + Send,
{
    fn intercept(
        &self,
        cx: Context,
        next: Next,
    ) -> impl Future<Output = Result<(), Status>> + Send {
        self(cx, next)
    }
}

trait ErasedInterceptor: Send + Sync {
    fn run(self: Arc<Self>, cx: Context, next: Next) -> Running;
}

impl<I: Interceptor> ErasedInterceptor for I {
    fn run(self: Arc<Self>, cx: Context, next: Next) -> Running {
        Box::pin(async move { self.intercept(cx, next).await })
    }
}

/// Interceptors in order, the outermost first.
#[derive(Clone, Default)]
pub(crate) struct Interceptors(Arc<Vec<Arc<dyn ErasedInterceptor>>>);

impl Interceptors {
    pub(crate) fn push(&mut self, interceptor: impl Interceptor) {
        Arc::make_mut(&mut self.0).push(Arc::new(interceptor));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns these interceptors with `inner` inside them.
    pub(crate) fn and_inside(&self, inner: &Self) -> Self {
        let all = self.0.iter().chain(inner.0.iter());
        Self(Arc::new(all.cloned().collect()))
    }

    /// Runs a call through all interceptors, and then `innermost`.
    pub(crate) fn run(
        &self,
        cx: Context,
        innermost: impl FnOnce(Context) -> Running + Send + 'static,
    ) -> Running {
        Next {
            interceptors: self.clone(),
            at: 0,
            innermost: Box::new(innermost),
        }
        .step(cx)
    }
}

/// The rest of a call, which an interceptor continues with [`run`](Self::run): the inner interceptors,
/// and then the handler on a server or the call itself on a client. Dropping it without running it
/// refuses the call.
///
/// ```
/// use trunkline::{Context, Next, Result};
///
/// async fn log(mut cx: Context, next: Next) -> Result<()> {
///     let end = next.run(&mut cx).await;
///     println!("{}: {end:?}", cx.path());
///     end
/// }
/// ```
pub struct Next {
    interceptors: Interceptors,
    at: usize,
    innermost: Innermost,
}

impl Next {
    /// Continues the call, and waits until it has ended. A call with streams ends after its last message.
    ///
    /// Dropping the future before it completes ends the call: a server drops the handler, and a client
    /// resets the stream with CANCEL. The inner interceptors are dropped, too. The result of the call is
    /// then the error that the interceptor returns.
    ///
    /// # Errors
    ///
    /// The status with which the call ended.
    pub async fn run(self, cx: &mut Context) -> Result<(), Status> {
        let (_lent, next) = Lent::new(cx);
        self.step(next).await
    }

    fn step(mut self, cx: Context) -> Running {
        match self.interceptors.0.get(self.at).cloned() {
            Some(interceptor) => {
                self.at += 1;
                interceptor.run(cx, self)
            }
            None => (self.innermost)(cx),
        }
    }
}

/// The running interceptors of a client's call, whose response the receiving half reads.
pub(crate) struct ClientInterceptors {
    /// The mutex is never locked; it makes the owner of a call `Sync`.
    running: Option<Mutex<Running>>,
    exchange: Arc<Exchange>,
    /// Receives the state of the outermost interceptor's context.
    outermost: ReturnedContext,
}

/// The values that a client's call, inside its interceptors, exchanges with the receiving half.
#[derive(Default)]
pub(crate) struct Exchange(Mutex<ExchangeState>);

#[derive(Default)]
struct ExchangeState {
    response: Option<http::Response<Body>>,
    response_waker: Option<Waker>,
    request_hooks: Option<MessageHooks>,
    response_hooks: Option<MessageHooks>,
    moved_deadline: Option<Instant>,
    end: Option<(Result<(), Status>, ResponseMetadata)>,
    end_waker: Option<Waker>,
}

/// The end of a call, and the metadata of its response.
type RelayedEnd = (Result<(), Status>, ResponseMetadata);

impl Exchange {
    /// Passes the deadline that interceptors have set to the sending half.
    pub(crate) fn set_deadline(&self, deadline: Option<Instant>) {
        self.lock().moved_deadline = deadline;
    }

    /// Passes the hooks of interceptors to the two halves of the call.
    pub(crate) fn set_hooks(
        &self,
        requests: Option<MessageHooks>,
        responses: Option<MessageHooks>,
    ) {
        let mut state = self.lock();
        state.request_hooks = requests;
        state.response_hooks = responses;
    }

    /// Passes the response to the receiving half.
    fn respond(&self, response: http::Response<Body>) {
        let waker = {
            let mut state = self.lock();
            state.response = Some(response);
            state.response_waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn poll_response(&self, cx: &task::Context<'_>) -> Poll<http::Response<Body>> {
        let mut state = self.lock();
        match state.response.take() {
            Some(response) => Poll::Ready(response),
            None => {
                state.response_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Completes when the receiving half has read the end of the call.
    fn poll_end(&self, cx: &task::Context<'_>) -> Poll<RelayedEnd> {
        let mut state = self.lock();
        match state.end.take() {
            Some(end) => Poll::Ready(end),
            None => {
                state.end_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Passes the response to the receiving half, and returns how the call ends there.
    ///
    /// # Errors
    ///
    /// The status of a call that ended before its head.
    pub(crate) async fn relay(
        &self,
        mut head: Box<dyn AwaitedHead>,
        is_open: &AtomicBool,
    ) -> Result<RelayedEnd, Status> {
        let response = poll_fn(|cx| {
            let response = head.poll_head(cx);
            is_open.store(head.is_open(), Ordering::Release);
            match response {
                Poll::Ready(response) => Poll::Ready(response.map(Ok)),
                // The receiving half can end the call before the head arrives, such as at the deadline.
                Poll::Pending => self.poll_end(cx).map(|end| Ok(Err(end))),
            }
        });
        match response.await? {
            Ok(response) => {
                // The head would keep the stream open if nobody reads the body any more.
                drop(head);
                self.respond(response);
                Ok(poll_fn(|cx| self.poll_end(cx)).await)
            }
            Err(end) => Ok(end),
        }
    }

    fn set_end(&self, end: Result<(), Status>, response: ResponseMetadata) {
        let waker = {
            let mut state = self.lock();
            state.end = Some((end, response));
            state.end_waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, ExchangeState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientInterceptors {
    pub(crate) fn new(
        running: Running,
        exchange: Arc<Exchange>,
        outermost: ReturnedContext,
    ) -> Self {
        Self {
            running: Some(Mutex::new(running)),
            exchange,
            outermost,
        }
    }

    /// Drives the interceptors. Completes if they end the call themselves.
    pub(crate) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Status> {
        let Some(running) = &mut self.running else {
            return Poll::Pending;
        };
        unlocked(running).as_mut().poll(cx).map(|end| {
            self.running = None;
            end.err()
                .unwrap_or_else(|| Status::internal(OK_WITHOUT_RESPONSE))
        })
    }

    pub(crate) fn take_request_hooks(&self) -> Option<MessageHooks> {
        self.exchange.lock().request_hooks.take()
    }

    /// Returns true if a response has been passed on and not been taken.
    pub(crate) fn has_response(&self) -> bool {
        self.exchange.lock().response.is_some()
    }

    /// Returns the deadline of the call, if interceptors have changed it.
    pub(crate) fn moved_deadline(&self) -> Option<Instant> {
        self.exchange.lock().moved_deadline
    }

    pub(crate) fn take_response_hooks(&self) -> Option<MessageHooks> {
        self.exchange.lock().response_hooks.take()
    }

    /// Passes the status and the metadata of the call's end to the interceptors.
    pub(crate) fn set_end(&self, end: Result<(), Status>, head: Metadata, trailers: Metadata) {
        let response = ResponseMetadata {
            head,
            trailers,
            is_head_sent: false,
        };
        self.exchange.set_end(end, response);
    }

    /// Completes when the interceptors have ended, with the status that they return; `None` if they had
    /// ended before.
    pub(crate) fn poll_end(
        &mut self,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<(), Status>>> {
        match &mut self.running {
            None => Poll::Ready(None),
            Some(running) => unlocked(running).as_mut().poll(cx).map(|end| {
                self.running = None;
                Some(end)
            }),
        }
    }

    /// Takes the metadata of the response, with the changes of the interceptors, after they have ended. If
    /// they ended before they received the metadata from the server, it follows.
    pub(crate) fn take_response(&self) -> Option<ResponseMetadata> {
        let left = self.outermost.take()?.response;
        Some(match self.exchange.lock().end.take() {
            Some((_, untold)) => left.followed_by(untold),
            None => left,
        })
    }
}

/// Returns the value in a mutex to its only owner.
pub(crate) fn unlocked<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}

impl fmt::Debug for Interceptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Interceptors").field(&self.0.len()).finish()
    }
}
