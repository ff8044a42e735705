//! Calls to a server in this process.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::oneshot;
use trunkline_codec::{Compressors, Status, head};
use trunkline_transport::{Body, PipeFailure, PipeWriter, pipe};

use crate::call::deadline::{self, Deadline};
use crate::http_service::{Calling, HttpService};
use crate::server::router::Router;
use crate::server::router_future::refused;

/// A server as something to call. What the transport does for a connection, a task does here for
/// each call: it drives the handler, keeps the deadline, and stops when nobody listens.
pub(crate) struct InProcess(Router);

impl InProcess {
    pub(crate) fn new(router: Router) -> Self {
        Self(router)
    }
}

impl HttpService for InProcess {
    fn call(&self, request: http::Request<Body>) -> Calling {
        let router = self.0.clone();
        Box::pin(async move {
            let (respond, response) = oneshot::channel();
            tokio::spawn(run(router, request, respond));
            response
                .await
                .map_err(|_| Status::internal("the call's task has ended without a response"))
        })
    }
}

async fn run(
    router: Router,
    request: http::Request<Body>,
    mut respond: oneshot::Sender<http::Response<Body>>,
) {
    let size = router.limits().http2.pipe_size;
    let (mut bounds, request) = Bounds::around(request);
    let begun = router.begin(request);
    if let Some(deadline) = begun.deadline {
        bounds.deadline = Some(Deadline::new(deadline));
    }
    let mut response = begun.response;
    let responded = poll_fn(|cx| {
        if respond.poll_closed(cx).is_ready() {
            return Poll::Ready(None);
        }
        // Before the handler, which would take a sender's failure for one of its own.
        if let Poll::Ready(status) = bounds.poll(cx) {
            return Poll::Ready(Some(refused(status.into(), &Compressors::none())));
        }
        response.poll_response(cx).map(Some)
    })
    .await;
    drop(response);
    let Some(response) = responded else { return };
    let (head, body) = response.into_parts();
    if body.full_size().is_some() {
        let _ = respond.send(http::Response::from_parts(head, body));
        return;
    }
    let (mut writer, reader) = pipe(size);
    let response = http::Response::from_parts(head, Body::pipe(reader));
    if respond.send(response).is_err() {
        return;
    }
    let cut_off = {
        let mut pumping = pin!(pump(body, &mut writer));
        poll_fn(|cx| match bounds.poll(cx) {
            Poll::Ready(status) => Poll::Ready(Some(status)),
            Poll::Pending => pumping.as_mut().poll(cx).map(|()| None),
        })
        .await
    };
    if let Some(status) = cut_off {
        writer.finish(Some(status.into_trailers()));
    }
}

/// The bounds of a call: its deadline, and a sender that cancels it, or sends what nobody reads.
struct Bounds {
    deadline: Option<Deadline>,
    /// Over a connection this is a reset, which drops the handler whether it reads or not.
    watch: Option<PipeFailure>,
    /// Requests that the handler does not read wait, and so does their sender, for as long as the call
    /// lives.
    _requests: Option<Arc<Mutex<Body>>>,
}

impl Bounds {
    fn around(request: http::Request<Body>) -> (Self, http::Request<Body>) {
        let deadline = head::timeout_of(request.headers()).and_then(deadline::after);
        let watch = request.body().failure();
        let (head, body) = request.into_parts();
        let (requests, body) = match body.full_size() {
            Some(_) => (None, body),
            None => {
                let body = Arc::new(Mutex::new(body));
                (Some(body.clone()), Body::new(Kept(body)))
            }
        };
        let bounds = Self {
            deadline: deadline.map(Deadline::new),
            watch,
            _requests: requests,
        };
        (bounds, http::Request::from_parts(head, body))
    }

    /// Ready, with the status to end with, when the call is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if let Some(watch) = &self.watch
            && let Poll::Ready(status) = watch.poll_failed(cx)
        {
            return Poll::Ready(status);
        }
        let Some(deadline) = &mut self.deadline else {
            return Poll::Pending;
        };
        deadline.poll(cx).map(|()| {
            Status::deadline_exceeded(
                "the deadline passed while the handler was at work: is it slow, or the timeout short?",
            )
        })
    }
}

/// Requests that a handler may let go of, and the call still has.
struct Kept(Arc<Mutex<Body>>);

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl http_body::Body for Kept {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut *self.lock()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().size_hint()
    }
}

async fn pump(mut body: Body, writer: &mut PipeWriter) {
    loop {
        let frame = poll_fn(|cx| {
            // Nobody reads any more: the handler is dropped with the body.
            if writer.poll_closed(cx).is_ready() {
                return Poll::Ready(None);
            }
            match writer.poll_ready(cx) {
                Poll::Ready(Ok(())) => Pin::new(&mut body).poll_frame(cx),
                Poll::Ready(Err(_)) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        match frame {
            None => return writer.finish(None),
            Some(Err(status)) => return writer.fail(status),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => writer.write(data),
                Err(frame) => return writer.finish(frame.into_trailers().ok()),
            },
        }
    }
}
