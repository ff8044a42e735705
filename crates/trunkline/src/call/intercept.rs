//! Interceptors: code around whole calls, the same on both sides.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll, Waker};

use trunkline_codec::{Metadata, Status};
use trunkline_transport::Body;

use crate::call::context::{Context, Lent, ReturnedContext};
use crate::call::message_hooks::MessageHooks;
use crate::call::response_metadata::ResponseMetadata;

/// Interceptors and what they run around, at work.
pub(crate) type Running = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// The call itself, inside its interceptors.
type Innermost = Box<dyn FnOnce(Context) -> Running + Send>;

/// Code that runs around every call, of every kind.
///
/// Any `async fn(Context, Next) -> Result<()>`, or closure of that shape, is one. It reads and changes
/// the request in its [`Context`]; it goes on with [`Next::run`], which is ready when the whole call
/// has ended, with its status; or it returns a status of its own, and the call does not happen. The
/// caller gets the result that the interceptor returns.
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
/// An interceptor that was added first is the outermost. If the call is cancelled, its future is
/// dropped.
pub trait Interceptor: Send + Sync + 'static {
    /// Runs around one call.
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

    /// Returns these interceptors, with `inner` further in.
    #[expect(dead_code, reason = "for interceptors of single services")]
    pub(crate) fn around(&self, inner: &Self) -> Self {
        match (self.is_empty(), inner.is_empty()) {
            (true, _) => inner.clone(),
            (_, true) => self.clone(),
            (false, false) => Self(Arc::new(self.0.iter().chain(&*inner.0).cloned().collect())),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These, and `inner` inside them.
    pub(crate) fn and_inside(&self, inner: &Self) -> Self {
        let all = self.0.iter().chain(inner.0.iter());
        Self(Arc::new(all.cloned().collect()))
    }

    /// Runs a call through all of them, and then through `innermost`.
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

/// The interceptors further in, and the call itself.
///
/// See [`Interceptor`] for an example.
pub struct Next {
    interceptors: Interceptors,
    at: usize,
    innermost: Innermost,
}

impl Next {
    /// Goes on with the call, and waits until it has ended: after the last message of a stream.
    ///
    /// The call is at most once gone on with. Dropping the future drops what runs further in: on a
    /// server the handler, on a client the call, which is reset.
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

/// The interceptors of a client's call, around a response that is read elsewhere.
pub(crate) struct ClientInterceptors {
    /// In a mutex that is never locked: it makes what holds a call `Sync`.
    running: Option<Mutex<Running>>,
    exchange: Arc<Exchange>,
    /// Where the context of the outermost interceptor ends up.
    outermost: ReturnedContext,
}

/// The values that pass between a client's call below its interceptors and the receiving half.
#[derive(Default)]
pub(crate) struct Exchange(Mutex<ExchangeState>);

#[derive(Default)]
struct ExchangeState {
    response: Option<http::Response<Body>>,
    response_waker: Option<Waker>,
    request_hooks: Option<MessageHooks>,
    response_hooks: Option<MessageHooks>,
    end: Option<(Result<(), Status>, ResponseMetadata)>,
    end_waker: Option<Waker>,
}

impl Exchange {
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
    pub(crate) fn respond(&self, response: http::Response<Body>) {
        let mut state = self.lock();
        state.response = Some(response);
        if let Some(waker) = state.response_waker.take() {
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

    /// Ready once the receiving half knows the end of the call.
    pub(crate) fn poll_end(
        &self,
        cx: &task::Context<'_>,
    ) -> Poll<(Result<(), Status>, ResponseMetadata)> {
        let mut state = self.lock();
        match state.end.take() {
            Some(end) => Poll::Ready(end),
            None => {
                state.end_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn set_end(&self, end: Result<(), Status>, response: ResponseMetadata) {
        let mut state = self.lock();
        state.end = Some((end, response));
        if let Some(waker) = state.end_waker.take() {
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

    /// Drives the interceptors. Ready when they have ended the call by themselves.
    pub(crate) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Status> {
        let Some(running) = &mut self.running else {
            return Poll::Pending;
        };
        unlocked(running).as_mut().poll(cx).map(|end| {
            self.running = None;
            end.err().unwrap_or_else(|| {
                Status::internal("an interceptor ended the call without running it")
            })
        })
    }

    pub(crate) fn take_request_hooks(&self) -> Option<MessageHooks> {
        self.exchange.lock().request_hooks.take()
    }

    pub(crate) fn take_response_hooks(&self) -> Option<MessageHooks> {
        self.exchange.lock().response_hooks.take()
    }

    /// Tells the interceptors how the call has ended, and with what metadata.
    pub(crate) fn set_end(&self, end: Result<(), Status>, head: Metadata, trailers: Metadata) {
        let response = ResponseMetadata {
            head,
            trailers,
            is_head_sent: false,
        };
        self.exchange.set_end(end, response);
    }

    /// Ready when the interceptors have ended, with the end that they make of the call's; none if they
    /// had ended before.
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

    /// Takes the metadata of the response as the interceptors have left it, once they have ended.
    pub(crate) fn take_response(&self) -> Option<ResponseMetadata> {
        self.outermost.take().map(|state| state.response)
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
