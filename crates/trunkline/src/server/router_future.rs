//! The future that a router returns.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::Instant;
use trunkline_codec::{Compressors, Refusal};
use trunkline_transport::Body;

use crate::http_service::Calling;
use crate::server::response_head;
use crate::server::running_handler::RunningHandler;

/// The future of a [`Router`](crate::Router)'s response. It completes when the head of the response is
/// known.
///
/// The handler runs while this future is polled, and then while the body of the response is polled.
/// Dropping either of them before its end drops the handler.
///
/// ```
/// # async fn example(router: trunkline::Router, request: http::Request<trunkline::tower::Body>) {
/// use tower_service::Service;
/// use trunkline::tower::RouterFuture;
///
/// let mut router = router;
/// let response: RouterFuture = router.call(request);
/// let Ok(response) = response.await;
/// # }
/// ```
pub struct RouterFuture(pub(crate) RouterState);

pub(crate) enum RouterState {
    Known(Option<Box<http::Response<Body>>>),
    Handler(Option<RunningHandler>),
    Fallback(Calling),
    Layers(Calling),
}

pub(crate) fn refused(refusal: Refusal, compressors: &Compressors) -> http::Response<Body> {
    let (response, trailers) = refusal.into_response(compressors);
    response.map(|text| Body::full(text.into(), trailers))
}

impl RouterFuture {
    pub(crate) fn known(response: http::Response<Body>) -> Self {
        Self(RouterState::Known(Some(Box::new(response))))
    }

    /// Makes the handler end at `deadline`, even if the caller of the router waits longer.
    pub(crate) fn enforce(&mut self, deadline: Instant) {
        if let RouterState::Handler(Some(running)) = &mut self.0 {
            running.enforce(deadline);
        }
    }

    // Way of a unary call, server 9: waits until the handler ends or sends its head.
    #[inline]
    pub(crate) fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<http::Response<Body>> {
        match &mut self.0 {
            RouterState::Known(response) => match response.take() {
                Some(response) => Poll::Ready(*response),
                None => Poll::Pending,
            },
            RouterState::Handler(running) => poll_handler(running, cx),
            RouterState::Fallback(calling) => calling.as_mut().poll(cx).map(|response| {
                response.unwrap_or_else(|status| {
                    let refusal = Refusal::Http {
                        status: http::StatusCode::INTERNAL_SERVER_ERROR,
                        message: status.message().to_owned(),
                    };
                    refused(refusal, &Compressors::none())
                })
            }),
            RouterState::Layers(calling) => calling.as_mut().poll(cx).map(|response| {
                response.unwrap_or_else(|status| {
                    refused(status.redacted().into(), &Compressors::none())
                })
            }),
        }
    }
}

/// Polls the handler. Completes with the head of the response if the handler has ended, has sent a
/// message, or has requested that the head be sent. The body contains the rest of the response.
fn poll_handler(
    running: &mut Option<RunningHandler>,
    cx: &mut Context<'_>,
) -> Poll<http::Response<Body>> {
    let Some(handler) = running else {
        return Poll::Pending;
    };
    // Messages that the handler sends during the poll are read below, so they need not wake the task.
    handler.deregister();
    let response = match handler.poll(cx) {
        Poll::Ready(outcome) => running
            .take()
            .map(|handler| response_head::ended(handler, outcome)),
        Poll::Pending if handler.wants_head(cx.waker()) => response_head::begun(running),
        Poll::Pending => None,
    };
    response.map_or(Poll::Pending, Poll::Ready)
}

impl Future for RouterFuture {
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_response(cx).map(Ok)
    }
}

impl fmt::Debug for RouterFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterFuture").finish_non_exhaustive()
    }
}
