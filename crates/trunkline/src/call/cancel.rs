//! Cancelling of calls that are not dropped.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Frame;
use tokio::runtime::Handle;
use trunkline_codec::Status;
use trunkline_transport::{Body, catch_panic};

use crate::call::source::{Arrived, ArrivedEnd, AwaitedHead, Source};

/// A handle that cancels calls from another part of the program than the one that awaits them.
///
/// Pass the handle to `Call::cancel_with` before the call is awaited. One handle can be used for any
/// number of calls, and clones of the handle cancel the same calls. Dropping the handle does not cancel
/// them.
///
/// ```
/// # use trunkline::{Channel, Client, Code, Method, Raw, Server};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// # let client = Client::new(Channel::in_process(Server::new()));
/// # let method = Method::new("/helloworld.Greeter/SayHello");
/// use trunkline::CancelHandle;
///
/// let handle = CancelHandle::new();
/// let call = client.unary::<Raw, Raw>(method, Raw("".into())).cancel_with(&handle);
/// handle.cancel();
/// assert_eq!(call.await.unwrap_err().code(), Code::CANCELLED);
/// # }
/// ```
#[derive(Clone, Default)]
pub struct CancelHandle(Arc<Mutex<Handles>>);

#[derive(Default)]
struct Handles {
    is_cancelled: bool,
    streams: Vec<Weak<Stream>>,
    /// Woken after the streams have been reset.
    watches: Vec<Weak<Stream>>,
}

impl CancelHandle {
    /// Creates a handle that is not yet used by a call.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels all calls that use this handle, including calls that begin later.
    ///
    /// A call that is open is reset with CANCEL immediately; a call that has not been sent yet is never
    /// sent. A cancelled call ends with CANCELLED. If the head of its response has arrived,
    /// [`Status::response_metadata`] returns the metadata in it. Messages that have already arrived, up to
    /// 16 MiB, can still be read before the call ends.
    ///
    /// If the whole response has already arrived, the call is not affected, and ends with the server's
    /// status.
    pub fn cancel(&self) {
        let streams = {
            let mut handles = self.lock();
            handles.is_cancelled = true;
            let watches = mem::take(&mut handles.watches);
            mem::take(&mut handles.streams).into_iter().chain(watches)
        };
        for stream in streams {
            if let Some(stream) = stream.upgrade() {
                // A panic of one call concerns neither the other calls nor the canceller.
                let _ = catch_panic(move || stream.cancel());
            }
        }
    }

    /// Returns true after [`cancel`](Self::cancel).
    pub fn is_cancelled(&self) -> bool {
        self.lock().is_cancelled
    }

    /// Returns `head`, whose stream, including the body, this handle can reset.
    pub(crate) fn guard(&self, head: Box<dyn AwaitedHead>) -> Box<dyn AwaitedHead> {
        Box::new(GuardedHead(self.stream(Source::Head(head))))
    }

    /// Returns a watch for a call that does not wait for its stream.
    pub(crate) fn watch(&self) -> CancelWatch {
        CancelWatch(self.stream(Source::Ended))
    }

    fn stream(&self, source: Source) -> Arc<Stream> {
        let is_watch = matches!(source, Source::Ended);
        let stream = Arc::new(Stream {
            state: Mutex::new(State {
                stage: Stage::Reading(source),
                is_cancelled: false,
                waker: None,
            }),
            runtime: Handle::try_current().ok(),
        });
        let mut handles = self.lock();
        match handles.is_cancelled {
            true => {
                drop(handles);
                stream.cancel();
            }
            false => {
                let list = match is_watch {
                    true => &mut handles.watches,
                    false => &mut handles.streams,
                };
                if list.len() == list.capacity() {
                    list.retain(|stream| stream.strong_count() > 0);
                }
                list.push(Arc::downgrade(&stream));
            }
        }
        stream
    }

    fn lock(&self) -> MutexGuard<'_, Handles> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle")
            .field("is_cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

/// Returns `head`, whose stream `cancel` can reset, if there is one.
pub(crate) fn guarded(
    head: Box<dyn AwaitedHead>,
    cancel: Option<&CancelHandle>,
) -> Box<dyn AwaitedHead> {
    match cancel {
        None => head,
        Some(cancel) => cancel.guard(head),
    }
}

/// Returns the status of a call that its caller has cancelled.
#[cold]
pub(crate) fn cancelled() -> Status {
    Status::cancelled("the call was cancelled by the caller")
}

/// The stream of a call, shared by its reader and a handle.
struct Stream {
    state: Mutex<State>,
    /// The runtime of the call, because dropped timers and tasks can require it.
    runtime: Option<Handle>,
}

struct State {
    stage: Stage,
    is_cancelled: bool,
    waker: Option<Waker>,
}

enum Stage {
    Reading(Source),
    /// The stream is being polled, without the lock, because the poll can cancel the call.
    Busy,
    Reset(Arrived),
}

impl Stream {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancel(&self) {
        let source = {
            let mut state = self.lock();
            state.is_cancelled = true;
            match mem::replace(&mut state.stage, Stage::Busy) {
                Stage::Reading(source) => source,
                stage => return state.stage = stage,
            }
        };
        let arrived = self.reset(source);
        let waker = {
            let mut state = self.lock();
            state.stage = Stage::Reset(arrived);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Resets the source. This polls it once, and it may be a service of the user, which may panic.
    fn reset(&self, source: Source) -> Arrived {
        let _runtime = self.runtime.as_ref().map(Handle::enter);
        catch_panic(|| source.reset()).unwrap_or_else(|panic| {
            tracing::error!(target: "trunkline::call", panic = panic.text(), "a call panicked as it was cancelled");
            Arrived::failed(panicked())
        })
    }

    /// Polls the source without the lock. If it panics, the call ends.
    fn poll_source<T>(&self, poll: impl FnOnce() -> T) -> T {
        catch_panic(poll).unwrap_or_else(|panic| {
            self.lock().stage = Stage::Reset(Arrived::failed(panicked()));
            panic.resume()
        })
    }

    /// Polls the stream, or takes from the part that had arrived before the reset. `poll` also returns
    /// the rest of the stream.
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Source, &mut Context<'_>) -> (Source, Poll<T>),
        take: impl FnOnce(&mut Arrived) -> T,
    ) -> Poll<T> {
        let source = {
            let mut state = self.lock();
            match mem::replace(&mut state.stage, Stage::Busy) {
                Stage::Reading(source) => {
                    state.waker = Some(cx.waker().clone());
                    source
                }
                Stage::Busy => {
                    state.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Stage::Reset(mut arrived) => {
                    let taken = take(&mut arrived);
                    state.stage = Stage::Reset(arrived);
                    return Poll::Ready(taken);
                }
            }
        };
        let (source, polled) = self.poll_source(|| poll(source, cx));
        let mut state = self.lock();
        if !state.is_cancelled {
            state.stage = Stage::Reading(source);
            return polled;
        }
        drop(state);
        let mut arrived = self.reset(source);
        let polled = match polled {
            Poll::Ready(polled) => polled,
            Poll::Pending => take(&mut arrived),
        };
        self.lock().stage = Stage::Reset(arrived);
        Poll::Ready(polled)
    }
}

#[cold]
fn panicked() -> Status {
    Status::internal("the call panicked; the log of this process says why")
}

/// A watch of one call for the cancellation by its handle.
pub(crate) struct CancelWatch(Arc<Stream>);

impl CancelWatch {
    /// Ready after the handle has cancelled its calls.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        match state.is_cancelled {
            true => Poll::Ready(()),
            false => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The head of a response whose stream a handle can reset.
struct GuardedHead(Arc<Stream>);

impl GuardedHead {
    fn with_body(&self, head: http::response::Parts) -> http::Response<Body> {
        http::Response::from_parts(head, Body::new(GuardedBody(self.0.clone())))
    }
}

impl AwaitedHead for GuardedHead {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<http::Response<Body>, Status>> {
        let polled = self.0.poll(
            cx,
            |source, cx| {
                let Source::Head(mut head) = source else {
                    return (source, Poll::Ready(Err(cancelled())));
                };
                match head.poll_head(cx) {
                    Poll::Pending => (Source::Head(head), Poll::Pending),
                    Poll::Ready(Err(status)) => (Source::Ended, Poll::Ready(Err(status))),
                    Poll::Ready(Ok(response)) => {
                        let (head, body) = response.into_parts();
                        (Source::Body(body), Poll::Ready(Ok(head)))
                    }
                }
            },
            |arrived| match arrived.head.take() {
                Some(head) => Ok(head),
                None => Err(match mem::replace(&mut arrived.end, ArrivedEnd::Reset) {
                    ArrivedEnd::Failed(status) => status,
                    ArrivedEnd::Complete | ArrivedEnd::Reset => cancelled(),
                }),
            },
        );
        polled.map_ok(|head| self.with_body(head))
    }

    fn is_open(&self) -> bool {
        match &self.0.lock().stage {
            Stage::Reading(Source::Head(head)) => head.is_open(),
            Stage::Reading(Source::Body(_) | Source::Ended) | Stage::Busy => true,
            Stage::Reset(arrived) => arrived.head.is_some(),
        }
    }

    fn phase(&self) -> &'static str {
        match &self.0.lock().stage {
            Stage::Reading(Source::Head(head)) => head.phase(),
            Stage::Reading(_) | Stage::Busy | Stage::Reset(_) => "while the call was cancelled",
        }
    }
}

/// The body of a response whose stream a handle can reset.
struct GuardedBody(Arc<Stream>);

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll(
            cx,
            |source, cx| {
                let Source::Body(mut body) = source else {
                    return (source, Poll::Ready(Some(Err(cancelled()))));
                };
                let polled = Pin::new(&mut body).poll_frame(cx);
                match &polled {
                    // A body is not polled after its end.
                    Poll::Ready(None | Some(Err(_))) => (Source::Ended, polled),
                    _ => (Source::Body(body), polled),
                }
            },
            |arrived| match arrived.frames.pop_front() {
                Some(frame) => Some(Ok(frame)),
                None => match &arrived.end {
                    ArrivedEnd::Complete => None,
                    ArrivedEnd::Failed(status) => Some(Err(status.clone())),
                    ArrivedEnd::Reset => Some(Err(cancelled())),
                },
            },
        )
    }
}
