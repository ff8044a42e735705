//! The attempts of a call on the connections of a channel, until the head of its response arrives.
//!
//! gRFC A6, "Transparent Retries": a call that was not sent is retried without a limit; a call that the server
//! reports as unprocessed is retried once. Calls with a policy are retried by that as well. Attempts share a body known
//! in full; without a policy, a stream is passed to the next attempt if nothing has been read from it.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use http::Response;
use trunkline_codec::Status;
use trunkline_transport::Body;

use super::attempt::{Attempt, Unsent};
use super::call_head::CallHead;
use super::decision::{EndKind, Schedule};
use super::machine::{AttemptNumber, FailedAttempt, OpenAttempt, PolicyAttempts, RunningAttempt};
use crate::balancing::EndedBy;
use crate::config::AttemptPolicy;
use crate::connections::{Connections, Unpicked};

/// The number of retries of a call that the server has refused.
const REFUSALS_MAX: u32 = 1;

/// The attempts of a call whose stream is not open.
pub struct CallAttempts<C> {
    connections: Arc<Connections>,
    call: C,
    body: Body,
    /// True after a stream was opened.
    is_open: Arc<AtomicBool>,
}

impl<C: CallHead> CallAttempts<C> {
    /// Creates the attempts of a call. `is_open` is set when the first stream is open.
    pub fn new(
        connections: Arc<Connections>,
        call: C,
        body: Body,
        is_open: Arc<AtomicBool>,
    ) -> Self {
        Self {
            connections,
            call,
            body,
            is_open,
        }
    }

    /// Makes transparent retries of an attempt that has failed with `status`, unprocessed.
    ///
    /// # Errors
    ///
    /// The status of the last attempt.
    pub async fn again(
        mut self,
        failed: Attempt,
        status: Status,
    ) -> Result<Response<Body>, Status> {
        let Some(body) = failed.into_body().await else {
            return Err(status);
        };
        self.body = body;
        self.call.attempt_ended(1, &status);
        let attempt = self.call.attempt_started(true);
        self.run(attempt, 1).await
    }

    /// Waits for a stream that can be opened, and opens it, until there is a response. `attempt` is the number of the
    /// attempt, which has started.
    ///
    /// # Errors
    ///
    /// The status of the last attempt.
    pub async fn without_policy(self, attempt: u32) -> Result<Response<Body>, Status> {
        self.run(attempt, 0).await
    }

    async fn run(mut self, mut attempt: u32, mut refusals: u32) -> Result<Response<Body>, Status> {
        loop {
            let opened = open(&self.connections, &self.call, attempt, 0, self.body).await;
            let mut open = match opened {
                Ok(open) => open,
                Err(Unopened::NotSent(body)) => {
                    self.body = *body;
                    continue;
                }
                Err(Unopened::Failed(failed)) => return Err(failed.status),
            };
            self.is_open.store(true, Ordering::Release);
            let response = poll_fn(|cx| open.poll(cx)).await;
            let Err(status) = &response else {
                return response;
            };
            if !open.is_unprocessed() || refusals >= REFUSALS_MAX {
                return response;
            }
            let Some(body) = open.into_body().await else {
                return response;
            };
            self.body = body;
            refusals += 1;
            self.call.attempt_ended(attempt, status);
            attempt = self.call.attempt_started(true);
        }
    }

    /// Makes the attempts of a policy.
    ///
    /// # Errors
    ///
    /// The status of the last attempt, or DEADLINE_EXCEEDED.
    pub async fn with_policy(self, policy: &AttemptPolicy) -> Result<Response<Body>, Status> {
        let (deadline, schedule) = (self.call.deadline(), Schedule::new(policy));
        let (throttle, budget) = self.connections.retry_state();
        let opener = Opener {
            connections: self.connections,
            call: Arc::new(self.call),
            is_open: self.is_open,
        };
        let body = self.body;
        let mut attempts = PolicyAttempts::new(opener, schedule, throttle, deadline, body, &budget);
        let response = (&mut attempts).await;
        attempts.with_count(response)
    }
}

/// An attempt without a stream.
enum Unopened {
    /// The connection was lost before anything was sent.
    NotSent(Box<Body>),
    Failed(FailedAttempt),
}

impl From<Unopened> for FailedAttempt {
    fn from(unopened: Unopened) -> Self {
        match unopened {
            Unopened::NotSent(_) => Self {
                status: Status::unavailable("the connection was lost before the call was sent"),
                kind: EndKind::NotSent,
            },
            Unopened::Failed(failed) => failed,
        }
    }
}

/// Picks a connection, and opens a stream on it.
async fn open<C: CallHead>(
    connections: &Connections,
    call: &C,
    attempt: u32,
    previous: u32,
    body: Body,
) -> Result<Attempt, Unopened> {
    let mut args = call.pick_args();
    args.previous_attempts = previous;
    let deadline = call.deadline();
    let picked = match connections.ready(&args, deadline, call.wait_mode()).await {
        Ok(picked) => picked,
        Err(Unpicked { status, is_drop }) => {
            // A caller that retries in a loop must yield to the tasks that connect.
            tokio::task::consume_budget().await;
            let kind = match is_drop {
                true => EndKind::Dropped,
                false => EndKind::Failed,
            };
            return Err(Unopened::Failed(FailedAttempt { status, kind }));
        }
    };
    let failed = |status| {
        let kind = EndKind::Failed;
        Unopened::Failed(FailedAttempt { status, kind })
    };
    let credentials = call.credentials(&picked.origin).await.map_err(failed)?;
    let head = |origin| {
        let mut head = call.head(origin)?;
        if let Some(metadata) = credentials {
            metadata.merge_into(head.headers_mut());
        }
        Ok(head)
    };
    match Attempt::send(picked, previous, deadline, head, body) {
        Ok(open) => {
            call.attempt_opened(attempt);
            Ok(open)
        }
        Err(Unsent::Body(body)) => Err(Unopened::NotSent(body)),
        Err(Unsent::Failed(status)) => Err(failed(status)),
    }
}

/// Opens the attempts of a policy.
struct Opener<C> {
    connections: Arc<Connections>,
    call: Arc<C>,
    is_open: Arc<AtomicBool>,
}

impl<C: CallHead> OpenAttempt for Opener<C> {
    type Attempt = PolicyAttempt<C>;

    fn open(&mut self, number: AttemptNumber, body: Body) -> PolicyAttempt<C> {
        let (connections, call) = (self.connections.clone(), self.call.clone());
        let attempt = call.attempt_started(number.is_transparent);
        let opening =
            async move { open(&connections, &*call, attempt, number.previous, body).await };
        PolicyAttempt {
            call: self.call.clone(),
            attempt,
            is_open: self.is_open.clone(),
            stage: Stage::Opening(Box::pin(opening)),
            is_reported: false,
        }
    }
}

/// An attempt of a policy.
struct PolicyAttempt<C: CallHead> {
    call: Arc<C>,
    /// The number of the attempt, for observers.
    attempt: u32,
    is_open: Arc<AtomicBool>,
    stage: Stage,
    /// Observers know how it has ended, or need not know.
    is_reported: bool,
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly all attempts become the large one, and a box would be allocated for each"
)]
enum Stage {
    Opening(Pin<Box<dyn Future<Output = Result<Attempt, Unopened>> + Send>>),
    Open(Attempt),
}

impl<C: CallHead> PolicyAttempt<C> {
    fn report(&mut self, error: &Status) {
        if !std::mem::replace(&mut self.is_reported, true) {
            self.call.attempt_ended(self.attempt, error);
        }
    }
}

impl<C: CallHead> RunningAttempt for PolicyAttempt<C> {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Body>, FailedAttempt>> {
        if let Stage::Opening(opening) = &mut self.stage {
            match ready!(opening.as_mut().poll(cx)) {
                Ok(open) => {
                    self.stage = Stage::Open(open);
                    self.is_open.store(true, Ordering::Release);
                }
                Err(unopened) => return Poll::Ready(Err(unopened.into())),
            }
        }
        let Stage::Open(open) = &mut self.stage else {
            return Poll::Pending;
        };
        let response = ready!(open.poll(cx));
        Poll::Ready(response.map_err(|status| FailedAttempt {
            status,
            kind: match open.is_unprocessed() {
                true => EndKind::Unprocessed,
                false => EndKind::Failed,
            },
        }))
    }

    fn committed(mut self) {
        self.is_reported = true;
        self.call.attempt_committed(self.attempt);
    }

    fn ended(mut self, status: &Status) {
        self.report(status);
    }

    fn cancel(mut self, by: EndedBy) {
        let status = match by {
            EndedBy::Deadline => Status::deadline_exceeded("the deadline of the call passed"),
            _ => Status::cancelled("the client has ended the attempt"),
        };
        if let Stage::Open(open) = &mut self.stage {
            open.end(&status, by);
        }
        self.report(&status);
    }
}

impl<C: CallHead> Drop for PolicyAttempt<C> {
    fn drop(&mut self) {
        self.report(&Status::cancelled("the caller dropped the call"));
    }
}

impl<C> fmt::Debug for CallAttempts<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallAttempts").finish_non_exhaustive()
    }
}
