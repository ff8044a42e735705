//! Calls to a router in this process.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use http_body::Body as _;
use tokio::sync::oneshot;
use tower_service::Service as _;
use trunkline_codec::{Encodings, Refusal, Status, timeout};
use trunkline_transport::{Body, PipeWriter, pipe};

use crate::deadline;
use crate::foreign::{Calling, Shared};
use crate::router::Router;

/// A router as something to call. What the transport does for a connection, a task does here for
/// each call: it drives the handler, keeps the deadline, and stops when nobody listens.
pub(crate) struct InProcess {
    router: Router,
}

impl InProcess {
    pub(crate) fn new(router: Router) -> Self {
        Self { router }
    }
}

impl Shared for InProcess {
    fn call(&self, request: http::Request<Body>) -> Calling {
        let router = self.router.clone();
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
    mut router: Router,
    request: http::Request<Body>,
    mut respond: oneshot::Sender<http::Response<Body>>,
) {
    let timeout = request
        .headers()
        .get("grpc-timeout")
        .and_then(|value| timeout::parse(value.as_bytes()).ok());
    let mut sleep = pin!(
        timeout
            .and_then(deadline::after)
            .map(tokio::time::sleep_until)
    );
    let mut expired = pin!(poll_fn(|cx| match sleep.as_mut().as_pin_mut() {
        Some(sleep) => sleep.poll(cx),
        None => Poll::Pending,
    }));
    let size = router.current_limits().pipe_size;
    // Over a connection this is a reset, which drops the handler whether it reads or not.
    let watch = request.body().watch();
    let poll_cancelled = |cx: &mut Context<'_>| match &watch {
        Some(watch) => watch.poll_failed(cx),
        None => Poll::Pending,
    };
    let mut answering = router.call(request);
    let response = poll_fn(|cx| {
        if respond.poll_closed(cx).is_ready() {
            return Poll::Ready(None);
        }
        if poll_cancelled(cx).is_ready() {
            return Poll::Ready(Some(refused(cancelled())));
        }
        if let Poll::Ready(Ok(response)) = Pin::new(&mut answering).poll(cx) {
            return Poll::Ready(Some(response));
        }
        expired.as_mut().poll(cx).map(|()| {
            Some(refused(Status::deadline_exceeded(
                "the deadline passed while the handler was at work",
            )))
        })
    })
    .await;
    drop(answering);
    let Some(response) = response else { return };
    let (head, mut body) = response.into_parts();
    if let Some((data, trailers)) = body.take_full() {
        let _ = respond.send(http::Response::from_parts(head, Body::full(data, trailers)));
        return;
    }
    let (mut writer, reader) = pipe(size);
    if respond
        .send(http::Response::from_parts(head, Body::pipe(reader)))
        .is_err()
    {
        return;
    }
    let cut_off = {
        let mut pumping = pin!(pump(body, &mut writer));
        poll_fn(|cx| {
            if poll_cancelled(cx).is_ready() {
                return Poll::Ready(Some(cancelled()));
            }
            if pumping.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            expired.as_mut().poll(cx).map(|()| {
                Some(Status::deadline_exceeded(
                    "the deadline passed while the reply was being sent",
                ))
            })
        })
        .await
    };
    if let Some(status) = cut_off {
        writer.finish(Some(status.into_trailers()));
    }
}

fn refused(status: Status) -> http::Response<Body> {
    Refusal::Status(status)
        .into_response(&Encodings::none())
        .map(|()| Body::empty())
}

fn cancelled() -> Status {
    Status::cancelled("the sender of the requests was dropped before it had finished")
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
