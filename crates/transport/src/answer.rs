//! Answers one call: races its handler against the peer's reset and the deadline.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::Response;
use tokio::time::{Instant, Sleep};
use trunkline_codec::{Encodings, Status, head};

use crate::body::Body;
use crate::hub::Permit;
use crate::send::{SendBody, SendError};

/// A call that has been accepted and not answered.
pub(crate) struct Opened {
    pub(crate) respond: SendResponse<Bytes>,
    pub(crate) deadline: Option<Instant>,
    /// Given back when the handler's future is gone, not when the stream is.
    pub(crate) permit: Permit,
}

/// A call whose head has been sent.
struct Answering {
    send: SendBody,
    deadline: Option<Instant>,
    _permit: Permit,
}

type Outcome = Result<Response<Body>, Infallible>;

/// Polls `future` once where we are, and finishes the call in a task only if it has to wait.
pub(crate) fn in_place<F>(mut future: F, opened: Opened)
where
    F: Future<Output = Outcome> + Send + Unpin + 'static,
{
    // The task that takes over polls again, with its own waker.
    let mut cx = Context::from_waker(Waker::noop());
    match poll_caught(&mut future, &mut cx) {
        Poll::Pending => in_task(future, opened),
        Poll::Ready(None) => opened.fail(),
        Poll::Ready(Some(response)) => {
            drop(future);
            let Some(mut answering) = opened.send_head(response) else {
                return;
            };
            if answering.poll(&mut cx).is_pending() {
                tokio::spawn(answering.run());
            }
        }
    }
}

/// Runs the call in a task of its own. The task ends when the handler does, or when the stream or
/// the connection does: h2 wakes it then.
pub(crate) fn in_task<F>(future: F, opened: Opened)
where
    F: Future<Output = Outcome> + Send + Unpin + 'static,
{
    tokio::spawn(async move {
        if let Some(answering) = opened.wait(future).await {
            answering.run().await;
        }
    });
}

impl Opened {
    /// Waits for the head of the reply. None if the call has ended without one.
    async fn wait<F>(mut self, mut future: F) -> Option<Answering>
    where
        F: Future<Output = Outcome> + Unpin,
    {
        let mut sleep = std::pin::pin!(self.deadline.map(tokio::time::sleep_until));
        let waited = std::future::poll_fn(|cx| {
            if self.respond.poll_reset(cx).is_ready() {
                return Poll::Ready(Waited::PeerGone);
            }
            if let Poll::Ready(response) = poll_caught(&mut future, cx) {
                return Poll::Ready(response.map_or(Waited::Panicked, |response| {
                    Waited::Response(Box::new(response))
                }));
            }
            ready!(poll_deadline(sleep.as_mut(), cx));
            Poll::Ready(Waited::DeadlinePassed)
        })
        .await;
        // Before anything is said, so that what was said is true: the handler is gone.
        drop(future);
        match waited {
            Waited::Response(response) => self.send_head(*response),
            Waited::PeerGone => None,
            Waited::Panicked => {
                self.fail();
                None
            }
            Waited::DeadlinePassed => {
                self.refuse(Status::deadline_exceeded(
                    "the deadline passed while the handler was at work",
                ));
                None
            }
        }
    }

    /// None if the stream is gone.
    fn send_head(mut self, response: Response<Body>) -> Option<Answering> {
        let (head, body) = response.into_parts();
        let is_end = http_body::Body::is_end_stream(&body);
        // PROTOCOL-HTTP2.md, "Responses": Trailers-Only is one HEADERS frame with END_STREAM and
        // nothing behind it.
        let stream = self
            .respond
            .send_response(Response::from_parts(head, ()), is_end)
            .ok()?;
        self.permit.hub().call_completed();
        match is_end {
            true => None,
            false => Some(Answering {
                send: SendBody::new(stream, body),
                deadline: self.deadline,
                _permit: self.permit,
            }),
        }
    }

    /// Answers with a status and nothing else.
    pub(crate) fn refuse(self, status: Status) {
        let mut head = Response::new(Body::empty());
        head::write_response(head.headers_mut(), None, &Encodings::none());
        status.write_to(head.headers_mut());
        self.send_head(head);
    }

    /// What a panic comes to that nobody above has caught: its text is for the server's log,
    /// where the panic hook has put it, and not for the peer.
    pub(crate) fn fail(self) {
        self.refuse(Status::internal("the service panicked"));
    }
}

enum Waited {
    Response(Box<Response<Body>>),
    PeerGone,
    DeadlinePassed,
    Panicked,
}

impl Answering {
    async fn run(mut self) {
        let mut sleep = std::pin::pin!(self.deadline.map(tokio::time::sleep_until));
        let expired = std::future::poll_fn(|cx| {
            if self.poll(cx).is_ready() {
                return Poll::Ready(false);
            }
            // Around everything: a handler inside the body is not polled while the transport waits
            // for window, and nor would be a timer there.
            poll_deadline(sleep.as_mut(), cx).map(|()| true)
        })
        .await;
        if expired {
            self.end(Status::deadline_exceeded(
                "the deadline passed while the reply was being sent",
            ));
        }
    }

    /// Ready when there is nothing more to do for the call.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match catch_unwind(AssertUnwindSafe(|| self.send.poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(()) | Err(SendError::PeerGone))) => {}
            Ok(Poll::Ready(Err(SendError::Body(status)))) => self.end(status),
            Err(_) => self.end(Status::internal("the service panicked")),
        }
        Poll::Ready(())
    }

    /// Ends a reply that has begun: with a status if the peer can still read one, else by a reset.
    fn end(&mut self, status: Status) {
        self.send.drop_body();
        if self.send.is_mid_chunk()
            || self
                .send
                .stream()
                .send_trailers(status.into_trailers())
                .is_err()
        {
            self.send.reset(Reason::CANCEL);
        }
    }
}

fn poll_caught<F: Future<Output = Outcome> + Unpin>(
    future: &mut F,
    cx: &mut Context<'_>,
) -> Poll<Option<Response<Body>>> {
    match catch_unwind(AssertUnwindSafe(|| Pin::new(future).poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(Ok(response))) => Poll::Ready(Some(response)),
        Err(_) => Poll::Ready(None),
    }
}

fn poll_deadline(sleep: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) -> Poll<()> {
    let Some(mut sleep) = sleep.as_pin_mut() else {
        return Poll::Pending;
    };
    match sleep.as_mut().poll(cx) {
        // A timer is silent in a task whose handler has used up its budget.
        Poll::Pending if sleep.deadline() > Instant::now() => Poll::Pending,
        Poll::Pending | Poll::Ready(()) => Poll::Ready(()),
    }
}
