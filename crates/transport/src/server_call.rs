//! Answers one call: its handler, raced against the peer's reset and the deadline.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, Response, StatusCode, header, response};
use tokio::time::Instant;
use trunkline_codec::Status;
use trunkline_codec::header_list::What;

use crate::body::Body;
use crate::connection_shared::{CallPermit, ConnectionShared};
use crate::deadline::Deadline;
use crate::panics::{Panic, catch_panic, drop_caught};
use crate::poll_budget::PollBudget;
use crate::send::{SendBody, SendError};
use crate::send_backlog::Bound;

/// A call that has been accepted and not answered.
pub(crate) struct AcceptedCall {
    pub(crate) respond: SendResponse<Bytes>,
    pub(crate) since: Instant,
    pub(crate) deadline: Option<Instant>,
    /// Given back when the handler's future is gone, not when the stream is.
    pub(crate) permit: CallPermit,
}

/// A call that is being answered: ready when its handler has ended, or when the stream or the
/// connection has. h2 wakes it then.
pub(crate) struct ServerCall<F> {
    stage: ServerCallStage<F>,
    since: Instant,
    /// It had just begun when its poll did: the time that a handler takes for a poll makes no reset older.
    is_young: bool,
    deadline: Option<Deadline>,
    poll_budget: Option<Arc<PollBudget>>,
    /// Where the response is among those that wait.
    backlog_index: Option<usize>,
    /// Goes last: see [`AcceptedCall`].
    permit: CallPermit,
}

enum ServerCallStage<F> {
    /// Waits for the head of the response.
    Handling(F, SendResponse<Bytes>),
    /// The head has been sent. The handler may still be at work, inside the body.
    Sending(SendBody),
    Over,
}

impl AcceptedCall {
    /// Answers with a status and nothing else.
    pub(crate) fn refuse(mut self, status: Status) {
        let is_young = self.permit.shared().is_young(self.since, Instant::now());
        send_status(&mut self.respond, status, is_young, &self.permit);
    }

    /// Ends the call after a panic that nobody above has caught.
    pub(crate) fn fail(self, panic: &Panic) {
        self.refuse(panicked(panic));
    }
}

impl<F: Future<Output = Response<Body>> + Unpin> ServerCall<F> {
    pub(crate) fn new(
        future: F,
        opened: AcceptedCall,
        poll_budget: Option<Arc<PollBudget>>,
    ) -> Self {
        Self {
            stage: ServerCallStage::Handling(future, opened.respond),
            since: opened.since,
            is_young: true,
            deadline: opened.deadline.map(Deadline::new),
            poll_budget,
            backlog_index: None,
            permit: opened.permit,
        }
    }

    pub(crate) fn poll_budget(&self) -> Option<&PollBudget> {
        self.poll_budget.as_deref()
    }

    pub(crate) fn shared(&self) -> &Arc<ConnectionShared> {
        self.permit.shared()
    }

    /// A poll begins that is not the one with which the call does.
    pub(crate) fn begin_poll(&mut self, now: Instant) {
        if self.is_young {
            self.is_young = self.shared().is_young(self.since, now);
        }
    }

    /// Whether the call is over before its handler has been polled.
    pub(crate) fn is_reset(&mut self) -> bool {
        let ServerCallStage::Handling(_, respond) = &mut self.stage else {
            return false;
        };
        let mut cx = Context::from_waker(Waker::noop());
        let is_reset = respond.poll_reset(&mut cx).is_ready();
        if is_reset {
            self.shared().call_reset(self.is_young);
        }
        is_reset
    }

    /// The deadline is around everything: a handler inside the body is not polled while the
    /// transport waits for window, and nor would be a timer there.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.deadline {
            None => Poll::Pending,
            Some(deadline) => deadline.poll(cx),
        }
    }

    /// Polls the call and not its deadline, which a call that does not wait has no use for.
    pub(crate) fn poll_undated(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !matches!(self.stage, ServerCallStage::Over) {
            ready!(self.poll_stage(cx));
        }
        Poll::Ready(())
    }

    // Way of a unary call, server 8: polls the handler, then its response, until reset or deadline.
    /// Ready when there is a new stage.
    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.backlog_index.is_some() && self.is_given_up() {
            return Poll::Ready(());
        }
        match &mut self.stage {
            ServerCallStage::Handling(future, respond) => {
                match catch_panic(|| Pin::new(future).poll(cx)) {
                    Ok(Poll::Pending) if respond.poll_reset(cx).is_pending() => {
                        return Poll::Pending;
                    }
                    Ok(Poll::Pending) => {
                        self.shared().call_reset(self.is_young);
                        self.let_go();
                    }
                    Ok(Poll::Ready(response)) => self.send_head(response),
                    Err(panic) => self.end(panicked(&panic)),
                }
            }
            ServerCallStage::Sending(send) => {
                let lists = self.permit.shared().header_lists();
                match catch_panic(|| send.poll(cx, lists)) {
                    Ok(Poll::Pending) => {
                        let bytes = send.buffered(cx.waker());
                        if bytes == 0 && self.backlog_index.is_none()
                            || !self.update_backlog(bytes, cx)
                        {
                            return Poll::Pending;
                        }
                    }
                    Ok(Poll::Ready(Ok(()) | Err(SendError::PeerGone))) => self.let_go(),
                    Ok(Poll::Ready(Err(SendError::Body(status)))) => self.end(status.redacted()),
                    Err(panic) => self.end(panicked(&panic)),
                }
            }
            ServerCallStage::Over => {}
        }
        Poll::Ready(())
    }

    /// Counts a response that waits with `bytes` bytes. True if it had to be given up for others, and was.
    #[cold]
    fn update_backlog(&mut self, bytes: usize, cx: &Context<'_>) -> bool {
        let Some(backlog) = self.permit.shared().send_backlog() else {
            return false;
        };
        let bound = backlog.update(&mut self.backlog_index, bytes, cx.waker());
        if backlog.is_congested() {
            // The connection has the timer for it.
            self.permit.shared().notify();
        }
        self.give_up(bound)
    }

    /// True if another response needed the room of this one, which has ended therefore.
    #[cold]
    fn is_given_up(&mut self) -> bool {
        let backlog = self.permit.shared().send_backlog();
        let bound = backlog.and_then(|it| it.given_up(self.backlog_index));
        self.give_up(bound)
    }

    fn give_up(&mut self, bound: Option<Bound>) -> bool {
        let Some(bound) = bound else {
            return false;
        };
        // RFC 9113, section 7, of a reset: to the client it is RESOURCE_EXHAUSTED as well.
        self.end_or(bound.status(), Reason::ENHANCE_YOUR_CALM);
        true
    }

    // Way of a unary call, server 15: sends the head.
    fn send_head(&mut self, response: Response<Body>) {
        // Before anything is said, so that what was said is true: the handler is gone, unless it
        // is in the body.
        let ServerCallStage::Handling(future, mut respond) =
            std::mem::replace(&mut self.stage, ServerCallStage::Over)
        else {
            return;
        };
        drop_caught(future);
        let (head, body) = response.into_parts();
        let is_end = http_body::Body::is_end_stream(&body);
        if let Some(size) = self.permit.shared().header_lists().excess_of_head(&head) {
            return self.send_less(size, head, body, respond);
        }
        if let Some(stream) = send_head(&mut respond, head, is_end, self.is_young, &self.permit)
            && !is_end
        {
            self.stage = ServerCallStage::Sending(SendBody::new(stream, body));
        }
    }

    /// Answers with a status in place of a head of `size` bytes, which the client does not take.
    #[cold]
    fn send_less(
        &self,
        size: usize,
        head: response::Parts,
        mut body: Body,
        mut respond: SendResponse<Bytes>,
    ) {
        let http = match is_grpc(&head.headers) || head.status != StatusCode::OK {
            true => head.status,
            false => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let (what, end) = match http_body::Body::is_end_stream(&body) {
            true => (What::TrailersOnly, Some(head.headers)),
            // An error that is known already tells more than the size of the head.
            false => {
                let trailers = body.take_full().and_then(|(_, trailers)| trailers);
                (What::Head, trailers)
            }
        };
        drop_caught(body);
        let lists = self.permit.shared().header_lists();
        let head = lists.in_place_of_head(what, size, end.unwrap_or_default(), http);
        send_head(&mut respond, head, true, self.is_young, &self.permit);
    }

    /// Ends the call with a status of ours, or, if the peer can no longer read one, by a reset.
    fn end(&mut self, status: Status) {
        self.end_or(status, Reason::CANCEL);
    }

    fn end_or(&mut self, status: Status, reason: Reason) {
        match std::mem::replace(&mut self.stage, ServerCallStage::Over) {
            ServerCallStage::Handling(future, mut respond) => {
                drop_caught(future);
                send_status(&mut respond, status, self.is_young, &self.permit);
            }
            ServerCallStage::Sending(mut send) => {
                drop_caught(send.take_body());
                let mut trailers = status.into_trailers();
                self.permit
                    .shared()
                    .header_lists()
                    .fit_trailers(&mut trailers);
                if send.is_mid_chunk() || send.stream().send_trailers(trailers).is_err() {
                    send.reset(reason);
                }
            }
            ServerCallStage::Over => {}
        }
    }
}

impl<F> ServerCall<F> {
    fn let_go(&mut self) {
        drop_caught(std::mem::replace(&mut self.stage, ServerCallStage::Over));
    }
}

impl<F> Drop for ServerCall<F> {
    fn drop(&mut self) {
        self.let_go();
        if self.backlog_index.is_some()
            && let Some(backlog) = self.permit.shared().send_backlog()
        {
            backlog.remove(&mut self.backlog_index);
        }
    }
}

impl<F: Future<Output = Response<Body>> + Unpin> Future for ServerCall<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_undated(cx).is_ready() {
            return Poll::Ready(());
        }
        ready!(self.poll_deadline(cx));
        let doing = match self.stage {
            ServerCallStage::Handling(..) => {
                "the handler was running; the handler may be slow, or the timeout too short"
            }
            ServerCallStage::Sending(_) | ServerCallStage::Over => {
                "the response was being sent; the client may not read it, or the timeout may be too short"
            }
        };
        self.end(Status::deadline_exceeded(format!(
            "the deadline passed while {doing}"
        )));
        Poll::Ready(())
    }
}

/// None if the stream is gone.
fn send_head(
    respond: &mut SendResponse<Bytes>,
    head: response::Parts,
    is_end: bool,
    is_young: bool,
    permit: &CallPermit,
) -> Option<SendStream<Bytes>> {
    // PROTOCOL-HTTP2.md, "Responses": Trailers-Only is one HEADERS frame with END_STREAM and
    // nothing behind it.
    match respond.send_response(Response::from_parts(head, ()), is_end) {
        Ok(stream) => {
            permit.shared().count_response();
            Some(stream)
        }
        Err(_) => {
            permit.shared().call_reset(is_young);
            None
        }
    }
}

fn send_status(
    respond: &mut SendResponse<Bytes>,
    status: Status,
    is_young: bool,
    permit: &CallPermit,
) {
    let (mut head, ()) = status.into_response().into_parts();
    let lists = permit.shared().header_lists();
    if let Some(size) = lists.excess_of_head(&head) {
        head = lists.in_place_of_head(What::TrailersOnly, size, head.headers, head.status);
    }
    send_head(respond, head, true, is_young, permit);
}

fn is_grpc(head: &HeaderMap) -> bool {
    head.get(header::CONTENT_TYPE)
        .is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"))
}

fn panicked(panic: &Panic) -> Status {
    panic.status("service")
}
