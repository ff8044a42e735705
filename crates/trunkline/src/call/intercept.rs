//! Interceptors: code around whole calls, the same on both sides.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use trunkline_codec::Status;
use trunkline_transport::Body;

use crate::client::call::Call;

type Running = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;
type Inmost = Box<dyn FnOnce(Call) -> Running + Send>;

/// Code that runs around every call, of every kind.
///
/// Any `async fn(Call, Next) -> Result<()>`, or closure of that shape, is one. It may look at the
/// call and change its metadata; it goes on with [`Next::run`], which is ready when the whole call
/// has ended, and says how; or it returns a status, and the call does not happen. What it returns
/// is what the caller sees.
///
/// ```
/// use trunkline::{Call, Next, Result, Status};
///
/// async fn authenticate(call: Call, next: Next) -> Result<()> {
///     match call.head().metadata().get("authorization") {
///         Some("Bearer open sesame") => next.run(call).await,
///         _ => Err(Status::unauthenticated("the token is missing or wrong")),
///     }
/// }
///
/// let server = trunkline::Server::new().intercept(authenticate);
/// ```
///
/// An interceptor that was added first is the outermost. When the call is cancelled, its future is
/// dropped.
pub trait Interceptor: Send + Sync + 'static {
    /// Runs around one call.
    fn intercept(&self, call: Call, next: Next) -> impl Future<Output = Result<(), Status>> + Send;
}

impl<F, Fut> Interceptor for F
where
    F: Fn(Call, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Status>> + Send,
{
    fn intercept(&self, call: Call, next: Next) -> impl Future<Output = Result<(), Status>> + Send {
        self(call, next)
    }
}

trait Erased: Send + Sync {
    fn run(self: Arc<Self>, call: Call, next: Next) -> Running;
}

impl<I: Interceptor> Erased for I {
    fn run(self: Arc<Self>, call: Call, next: Next) -> Running {
        Box::pin(async move { self.intercept(call, next).await })
    }
}

/// Interceptors in order, the outermost first.
#[derive(Clone, Default)]
pub(crate) struct Interceptors(Arc<Vec<Arc<dyn Erased>>>);

impl Interceptors {
    pub(crate) fn push(&mut self, interceptor: impl Interceptor) {
        Arc::make_mut(&mut self.0).push(Arc::new(interceptor));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs `call` through all of them, and then through `inmost`.
    pub(crate) fn run(
        &self,
        call: Call,
        inmost: impl FnOnce(Call) -> Running + Send + 'static,
    ) -> Running {
        Next {
            interceptors: self.clone(),
            at: 0,
            inmost: Box::new(inmost),
        }
        .step(call)
    }
}

/// The rest of a call, as an interceptor sees it.
pub struct Next {
    interceptors: Interceptors,
    at: usize,
    inmost: Inmost,
}

impl Next {
    /// Goes on with the call, and waits until it has ended.
    ///
    /// # Errors
    ///
    /// The status with which it ended.
    pub async fn run(self, mut call: Call) -> Result<(), Status> {
        call.check()?;
        self.step(call).await
    }

    fn step(mut self, call: Call) -> Running {
        match self.interceptors.0.get(self.at).cloned() {
            Some(interceptor) => {
                self.at += 1;
                interceptor.run(call, self)
            }
            None => (self.inmost)(call),
        }
    }
}

/// The interceptors of a client's call, around a response that is read elsewhere.
pub(crate) struct Chain {
    /// In a mutex that is never locked: it makes what holds a call `Sync`.
    running: Option<Mutex<Running>>,
    link: Arc<Link>,
}

/// Between the inmost end of a chain and the receiving half of the call.
#[derive(Default)]
pub(crate) struct Link(Mutex<LinkState>);

#[derive(Default)]
struct LinkState {
    response: Option<http::Response<Body>>,
    response_waker: Option<Waker>,
    end: Option<Result<(), Status>>,
    end_waker: Option<Waker>,
}

impl Link {
    /// The inmost end gives the response to the receiving half.
    pub(crate) fn respond(&self, response: http::Response<Body>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.response = Some(response);
        if let Some(waker) = state.response_waker.take() {
            waker.wake();
        }
    }

    pub(crate) fn poll_response(&self, cx: &Context<'_>) -> Poll<http::Response<Body>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.response.take() {
            Some(response) => Poll::Ready(response),
            None => {
                state.response_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The inmost end waits until the receiving half has seen the end of the call.
    pub(crate) fn poll_end(&self, cx: &Context<'_>) -> Poll<Result<(), Status>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.end.take() {
            Some(end) => Poll::Ready(end),
            None => {
                state.end_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn set_end(&self, end: Result<(), Status>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.end = Some(end);
        if let Some(waker) = state.end_waker.take() {
            waker.wake();
        }
    }
}

impl Chain {
    pub(crate) fn new(running: Running, link: Arc<Link>) -> Self {
        Self {
            running: Some(Mutex::new(running)),
            link,
        }
    }

    /// Drives the interceptors. Ready when they have ended the call by themselves.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
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

    /// Tells the interceptors how the call has ended.
    pub(crate) fn set_end(&self, end: Result<(), Status>) {
        self.link.set_end(end);
    }

    /// Ready with what the interceptors make of the end.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(), Status>>> {
        match &mut self.running {
            None => Poll::Ready(None),
            Some(running) => unlocked(running).as_mut().poll(cx).map(|end| {
                self.running = None;
                Some(end)
            }),
        }
    }
}

/// What a mutex holds, for its only owner.
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
