//! The end of an attempt, for the trackers of balancers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;
use trunkline_codec::Status;
use trunkline_transport::{Body, Connection, catch_panic};

use crate::balancing::{EndedBy, Outcome, Tracking};

/// An attempt whose end a tracker learns, exactly once. Dropping it is an end by the caller, or by the deadline if that
/// has passed.
#[derive(Debug)]
pub(crate) struct TrackedAttempt {
    tracking: Option<Tracking>,
    deadline: Option<Instant>,
    has_responded: bool,
}

impl TrackedAttempt {
    pub(crate) fn start(tracking: Tracking, deadline: Option<Instant>) -> Box<Self> {
        told(|| tracking.started());
        Box::new(Self {
            tracking: Some(tracking),
            deadline,
            has_responded: false,
        })
    }

    /// Reports the end, unless it was reported.
    pub(crate) fn end(
        &mut self,
        status: Result<(), &Status>,
        by: EndedBy,
        trailers: Option<&HeaderMap>,
    ) {
        if let Some(tracking) = self.tracking.take() {
            let mut outcome = Outcome::new(status, by);
            outcome.trailers = trailers;
            outcome.has_responded = self.has_responded;
            told(|| tracking.ended(&outcome));
        }
    }

    fn end_by_trailers(&mut self, trailers: &HeaderMap) {
        let status = Status::from_trailers(trailers)
            .unwrap_or_else(|| Err(Status::unknown("the trailers have no status")));
        self.end(status.as_ref().copied(), EndedBy::Server, Some(trailers));
    }

    /// Takes note of the response. Its body reports the end, if it is not the end already.
    #[cold]
    pub(crate) fn responded(
        mut self: Box<Self>,
        response: Result<Response<Body>, Status>,
        connection: Connection,
    ) -> Result<Response<Body>, Status> {
        let mut response = response.inspect_err(|status| {
            self.end(Err(status), failed_by(&connection), None);
        })?;
        self.has_responded = true;
        let headers = response.headers();
        if response.status() != StatusCode::OK {
            let status = match Status::from_trailers(headers) {
                Some(Err(status)) => status,
                Some(Ok(())) | None => Status::from_http_status(response.status()),
            };
            self.end(Err(&status), EndedBy::Server, Some(headers));
        } else if response.body().is_end_stream() {
            self.end_by_trailers(headers);
        } else if let Some((data, trailers)) = response.body_mut().take_full() {
            if let Some(trailers) = &trailers {
                self.end_by_trailers(trailers);
            }
            *response.body_mut() = Body::pieces(data, trailers);
        }
        if self.tracking.is_none() {
            return Ok(response);
        }
        Ok(response.map(|body| {
            Body::new(TrackedBody {
                body,
                attempt: *self,
                connection,
            })
        }))
    }
}

impl Drop for TrackedAttempt {
    fn drop(&mut self) {
        if self.tracking.is_none() {
            return;
        }
        match self.deadline.is_some_and(|it| it <= Instant::now()) {
            true => {
                let status = Status::deadline_exceeded("the deadline of the call passed");
                self.end(Err(&status), EndedBy::Deadline, None);
            }
            false => {
                let status = Status::cancelled("the caller dropped the call");
                self.end(Err(&status), EndedBy::Caller, None);
            }
        }
    }
}

/// Returns the cause of a failure of a stream.
fn failed_by(connection: &Connection) -> EndedBy {
    match connection.has_ended() {
        true => EndedBy::Connection,
        false => EndedBy::Server,
    }
}

/// Runs code of a tracker, which must not end the call by a panic.
fn told(tell: impl FnOnce()) {
    if let Err(panic) = catch_panic(tell) {
        tracing::error!(target: "trunkline::channel", panic = panic.text(), "a tracker of attempts panicked");
    }
}

/// The body of a response whose end is tracked.
struct TrackedBody {
    body: Body,
    attempt: TrackedAttempt,
    connection: Connection,
}

impl http_body::Body for TrackedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.attempt.end_by_trailers(trailers);
                }
            }
            Some(Err(status)) => this
                .attempt
                .end(Err(status), failed_by(&this.connection), None),
            None => {
                let status = Status::internal("the response ended without trailers");
                this.attempt.end(Err(&status), EndedBy::Server, None);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
