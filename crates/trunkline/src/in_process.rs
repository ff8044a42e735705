//! Calls to a server in the same process.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::oneshot;
use trunkline_channel::SecurityLevel;
use trunkline_codec::{Compressors, Status, head};
use trunkline_transport::{Body, PipeWatch, PipeWriter, pipe};

use crate::call::deadline::{self, Deadline, DeadlineChange};
use crate::client::channel::Channel;
use crate::http_service::{Calling, HttpService};
use crate::server::builder::Server;
use crate::server::router::Router;
use crate::server::router_future::refused;

/// A server that is called without a transport. A task for each call drives the handler, enforces the
/// deadline, and stops if the caller drops the response.
struct InProcess(Router);

impl Channel {
    /// Returns a channel that calls a [`Server`] in the same process, without a socket and without
    /// HTTP/2.
    ///
    /// Layers, interceptors, deadlines, cancellation, metadata and message limits work as they do over a
    /// connection. Calls have neither TLS nor a [`Peer`](crate::Peer), and [`Server::threads`] has no
    /// effect. Each call spawns a task, so calls require a tokio runtime.
    ///
    /// The server's limits apply to requests, and the channel's
    /// [`max_recv_message_size`](Self::max_recv_message_size) applies to responses.
    ///
    /// ```
    /// # use trunkline::{Channel, Client, Code, Method, Raw, Server};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let client = Client::new(Channel::in_process(Server::new()));
    /// let method = Method::new("/helloworld.Greeter/SayHello");
    /// let status = client.unary::<Raw, Raw>(method, Raw::default()).await.unwrap_err();
    /// assert_eq!(status.code(), Code::UNIMPLEMENTED); // The server has no services.
    /// # }
    /// ```
    pub fn in_process(server: impl Into<Server>) -> Self {
        Self::over(Arc::new(InProcess(server.into().into_router())))
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
                .map_err(|_| Status::internal("the task of the call ended without a response"))
        })
    }

    fn security_level(&self) -> SecurityLevel {
        SecurityLevel::PrivacyAndIntegrity
    }
}

async fn run(
    router: Router,
    request: http::Request<Body>,
    mut respond: oneshot::Sender<http::Response<Body>>,
) {
    let size = router.limits().http2.pipe_size;
    let (mut bounds, request) = Bounds::around(request);
    let begun = router.begin(request, None);
    if let DeadlineChange::Replace(deadline) = begun.deadline {
        bounds.deadline = deadline.map(Deadline::new);
    }
    let mut response = begun.response;
    let responded = poll_fn(|cx| {
        if respond.poll_closed(cx).is_ready() {
            return Poll::Ready(None);
        }
        // Polled before the handler, which would report a failure of the sender as its own.
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

/// The events that end a call early: its deadline, and a failure of its request's sender.
struct Bounds {
    deadline: Option<Deadline>,
    /// Completes if the sender fails. Over a connection, this is a reset, which drops the handler even
    /// if it does not read.
    watch: Option<PipeWatch>,
    /// Keeps messages that the handler does not read, so their sender waits until the call ends.
    _requests: Option<Arc<Mutex<Body>>>,
}

impl Bounds {
    fn around(request: http::Request<Body>) -> (Self, http::Request<Body>) {
        let deadline = head::timeout_of(request.headers()).and_then(deadline::after);
        let watch = request.body().watch();
        let (head, body) = request.into_parts();
        let (requests, body) = match body.full_size() {
            Some(_) => (None, body),
            None => {
                let body = Arc::new(Mutex::new(body));
                (Some(body.clone()), Body::new(SharedBody(body)))
            }
        };
        let bounds = Self {
            deadline: deadline.map(Deadline::new),
            watch,
            _requests: requests,
        };
        (bounds, http::Request::from_parts(head, body))
    }

    /// Completes with the final status if the call must end early.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if let Some(watch) = &self.watch
            && let Poll::Ready(status) = watch.poll_failed(cx)
        {
            return Poll::Ready(status);
        }
        let Some(deadline) = &mut self.deadline else {
            return Poll::Pending;
        };
        deadline
            .poll(cx)
            .map(|()| deadline::exceeded(deadline::HANDLING))
    }
}

/// A request body that the call keeps after the handler has dropped it.
struct SharedBody(Arc<Mutex<Body>>);

impl SharedBody {
    fn lock(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl http_body::Body for SharedBody {
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
            // The caller has dropped the response, so the handler is dropped with the body.
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
