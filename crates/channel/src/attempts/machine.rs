//! The attempts of a call with a policy, until it is committed to one of them (gRFC A6).
//!
//! One future owns the attempts, their request body and the only timer, so that no two of them can race. In each turn
//! the deadline counts first, then the request body, the ends of attempts, and the next start.
//! A pause of zero needs no timer. Dropping the future cancels all attempts.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Response, StatusCode};
use http_body::Body as _;
use tokio::time::{Instant, Sleep};
use trunkline_codec::{AttemptsMade, Code, Status};
use trunkline_transport::Body;

use super::decision::{AttemptEnd, Decision, EndKind, Schedule};
use super::pushback::Pushback;
use super::replay::{AttemptId, ReplayBody, ReplayBudget, ReplayEvent};
use super::throttle::RetryThrottle;
use crate::backoff;
use crate::balancing::EndedBy;

/// A pause that outlives every call, for clocks that cannot represent a longer one.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Opens the attempts of one call.
pub(crate) trait OpenAttempt: Unpin {
    /// An attempt that has begun. Dropping it resets its stream, on behalf of the caller.
    type Attempt: RunningAttempt;

    /// Begins an attempt: a pick, a head and a stream.
    fn open(&mut self, number: AttemptNumber, body: Body) -> Self::Attempt;
}

/// An attempt that has begun.
pub(crate) trait RunningAttempt {
    /// Ready with the head of the response.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Body>, FailedAttempt>>;

    /// The call goes on with the response of the attempt, or ends as it has.
    fn committed(self);

    /// The attempt has ended with `status`, which does not end the call.
    fn ended(self, status: &Status);

    /// Resets the stream for a reason other than that the caller has dropped the call.
    fn cancel(self, by: EndedBy);
}

/// The place of an attempt among those of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttemptNumber {
    /// The number of earlier attempts, without those that transparent retries have replaced:
    /// `grpc-previous-rpc-attempts`, which the first attempt omits.
    pub(crate) previous: u32,
    /// True if the attempt replaces one that no server has processed.
    pub(crate) is_transparent: bool,
}

/// The end of an attempt without a response.
#[derive(Debug)]
pub(crate) struct FailedAttempt {
    pub(crate) status: Status,
    pub(crate) kind: EndKind,
}

/// The attempts of a call: a future of the head of the response.
///
/// A response with messages commits the call, so its failure is final. The throttle learns of an end with OK as the
/// tracker of the attempt.
pub(crate) struct PolicyAttempts<O: OpenAttempt> {
    opener: O,
    schedule: Schedule,
    throttle: Arc<RetryThrottle>,
    deadline: Option<Instant>,
    running: Vec<CountedAttempt<O::Attempt>>,
    /// The start of the next attempt.
    next: Option<Instant>,
    /// The last end of an attempt that is not the end of the call.
    last: Option<Result<Response<Body>, Status>>,
    body: ReplayBody,
    /// True if the request has exceeded its buffer. The running attempt is the last one.
    is_committed: bool,
    timer: Option<Pin<Box<Sleep>>>,
    opened: u32,
    random: fn() -> f64,
}

struct EndedAttempt<A> {
    attempt: CountedAttempt<A>,
    outcome: Result<Response<Body>, FailedAttempt>,
}

struct CountedAttempt<A> {
    id: AttemptId,
    previous: u32,
    attempt: A,
}

impl<O: OpenAttempt> PolicyAttempts<O> {
    /// Creates the attempts of a call. The first one starts with the first poll.
    pub(crate) fn new(
        opener: O,
        mut schedule: Schedule,
        throttle: Arc<RetryThrottle>,
        deadline: Option<Instant>,
        body: Body,
        budget: &Arc<ReplayBudget>,
    ) -> Self {
        let body = ReplayBody::new(body, budget);
        if !body.fits() {
            schedule.stop();
        }
        Self {
            opener,
            schedule,
            throttle,
            deadline,
            running: Vec::new(),
            next: Some(Instant::now()),
            last: None,
            body,
            is_committed: false,
            timer: None,
            opened: 0,
            random: backoff::random,
        }
    }

    /// Adds the number of attempts to the end of a call that has made several.
    pub(crate) fn with_count(
        &self,
        response: Result<Response<Body>, Status>,
    ) -> Result<Response<Body>, Status> {
        let made = AttemptsMade(self.opened);
        if self.opened < 2 {
            return response;
        }
        match response {
            Ok(mut response) => {
                response.extensions_mut().insert(made);
                Ok(response)
            }
            Err(status) => Err(made.explain(status)),
        }
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Body>, Status>> {
        loop {
            let now = Instant::now();
            if self.deadline.is_some_and(|deadline| deadline <= now) {
                let status = self.exceeded(cx);
                self.cancel_all(EndedBy::Deadline);
                return Poll::Ready(Err(status));
            }
            if !self.is_committed
                && let Poll::Ready(event) = self.body.poll_event(cx)
            {
                match event {
                    ReplayEvent::Committed(id) => self.commit(id),
                    ReplayEvent::Failed(status) => {
                        self.cancel_all(EndedBy::Caller);
                        return Poll::Ready(Err(status));
                    }
                }
            }
            if let Some(ended) = self.take_ended(cx) {
                match self.after(ended, now) {
                    After::Call(result) => return Poll::Ready(result),
                    After::Attempt => {}
                    After::Yield => {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
            } else if self.next.is_some_and(|next| next <= now) {
                self.start_next(now);
            } else if self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
            if self.running.is_empty()
                && self.next.is_none()
                && let Some(last) = self.last.take()
            {
                return Poll::Ready(last);
            }
        }
    }

    fn start_next(&mut self, now: Instant) {
        self.next = None;
        if self.schedule.permits(&self.throttle) {
            let previous = self.schedule.start();
            self.start(AttemptNumber {
                previous,
                is_transparent: false,
            });
            self.next = self.schedule.overlap().map(|pause| later(now, pause));
        }
    }

    fn start(&mut self, number: AttemptNumber) {
        let id = AttemptId(self.opened);
        self.opened = self.opened.wrapping_add(1);
        let attempt = self.opener.open(number, self.body.open(id));
        self.running.push(CountedAttempt {
            id,
            previous: number.previous,
            attempt,
        });
    }

    /// Removes an attempt that has ended, or received the head of its response.
    fn take_ended(&mut self, cx: &mut Context<'_>) -> Option<EndedAttempt<O::Attempt>> {
        let mut running = self.running.iter_mut().enumerate();
        let (at, outcome) =
            running.find_map(|(at, running)| match running.attempt.poll_head(cx) {
                Poll::Ready(outcome) => Some((at, outcome)),
                Poll::Pending => None,
            })?;
        let attempt = self.running.remove(at);
        Some(EndedAttempt { attempt, outcome })
    }

    fn after(&mut self, ended: EndedAttempt<O::Attempt>, now: Instant) -> After {
        let EndedAttempt { attempt, outcome } = ended;
        let end = match &outcome {
            Ok(response) => AttemptEnd::of_response(response),
            Err(failed) => Some(AttemptEnd {
                code: failed.status.code(),
                kind: failed.kind,
                pushback: Pushback::Absent,
            }),
        };
        let result = outcome.map_err(|failed| failed.status);
        let Some(end) = end else {
            if !self.body.commit(attempt.id) {
                // The attempt that has sent more of the request goes on.
                attempt.attempt.cancel(EndedBy::OtherAttempt);
                return After::Attempt;
            }
            self.cancel_all(EndedBy::OtherAttempt);
            attempt.attempt.committed();
            return After::Call(result);
        };
        if !self.body.close(attempt.id) {
            attempt.attempt.committed();
            return After::Call(result);
        }
        match self.schedule.after(&end, (self.random)(), &self.throttle) {
            Decision::Finish => {
                self.cancel_all(EndedBy::OtherAttempt);
                attempt.attempt.committed();
                return After::Call(result);
            }
            Decision::Repeat => {
                attempt.attempt.ended(&failure_of(&result));
                self.start(AttemptNumber {
                    previous: attempt.previous,
                    is_transparent: true,
                });
                // An attempt that was not sent can fail again at once, without an end: other tasks must run.
                return match end.kind {
                    EndKind::NotSent => After::Yield,
                    EndKind::Dropped | EndKind::Unprocessed | EndKind::Failed => After::Attempt,
                };
            }
            Decision::Next { delay } => self.next = Some(later(now, delay)),
            Decision::Stop => self.next = None,
        }
        attempt.attempt.ended(&failure_of(&result));
        self.last = Some(result);
        After::Attempt
    }

    /// Continues with the only attempt that can send the rest of the request.
    fn commit(&mut self, id: AttemptId) {
        self.is_committed = true;
        self.next = None;
        let others = self.running.extract_if(.., |running| running.id != id);
        others.for_each(|other| other.attempt.cancel(EndedBy::OtherAttempt));
    }

    fn cancel_all(&mut self, by: EndedBy) {
        for running in self.running.drain(..) {
            running.attempt.cancel(by);
        }
    }

    /// Waits for the next start or the deadline. Pending without either.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.next.into_iter().chain(self.deadline).min() else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }

    /// Returns the status of a call whose deadline has passed: the reason of an attempt that has noticed it, such as one
    /// that waits for a connection, and the last failure before.
    fn exceeded(&mut self, cx: &mut Context<'_>) -> Status {
        let noticed = self.take_ended(cx).and_then(|ended| ended.outcome.err());
        let noticed = noticed.map(|failed| failed.status);
        let noticed =
            noticed.filter(|it| it.code() == Code::DEADLINE_EXCEEDED && !it.is_from_peer());
        let reason = noticed.as_ref().map_or(
            "the deadline passed before an attempt of the call had a response",
            Status::message,
        );
        let last = self.last.as_ref().map_or_else(String::new, |last| {
            let end = failure_of(last);
            format!("; the last attempt that ended has failed with {end}")
        });
        Status::deadline_exceeded(format!("{reason}{last}"))
    }
}

/// The consequence of the end of an attempt.
#[expect(
    clippy::large_enum_variant,
    reason = "it is handed on at once, and a box would be allocated for each call"
)]
enum After {
    Call(Result<Response<Body>, Status>),
    Attempt,
    /// As `Attempt`, after a turn of other tasks.
    Yield,
}

impl<O: OpenAttempt> Future for PolicyAttempts<O>
where
    O::Attempt: Unpin,
{
    type Output = Result<Response<Body>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().poll_response(cx)
    }
}

impl AttemptEnd {
    /// Returns the end of an attempt whose response is one: Trailers-Only, or not that of a gRPC server. `None` for a
    /// response with messages or trailers, which commits the call.
    fn of_response(response: &Response<Body>) -> Option<Self> {
        let is_grpc = response.status() == StatusCode::OK;
        if is_grpc && !response.body().is_end_stream() {
            return None;
        }
        let code = match Status::from_trailers(response.headers()) {
            Some(Err(status)) => status.code(),
            Some(Ok(())) if is_grpc => Code::OK,
            Some(Ok(())) | None => Code::from_http_status(response.status()),
        };
        Some(Self {
            code,
            kind: EndKind::Failed,
            pushback: Pushback::of(response.headers()),
        })
    }
}

/// Returns the status of an attempt that has failed.
fn failure_of(end: &Result<Response<Body>, Status>) -> Status {
    match end {
        Err(status) => status.clone(),
        Ok(response) => match Status::from_trailers(response.headers()) {
            Some(Err(status)) => status,
            Some(Ok(())) | None => Status::from_http_status(response.status()),
        },
    }
}

/// Returns the moment after a pause.
fn later(now: Instant, pause: Duration) -> Instant {
    now.checked_add(pause).unwrap_or(now + FOREVER)
}

#[cfg(test)]
mod tests {
    use super::super::policy::{HedgingPolicy, RetryPolicy};
    use super::*;
    use crate::config::AttemptPolicy;
    use bytes::Bytes;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Wake, Waker};
    use trunkline_transport::{PipeWriter, pipe};

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// The end of an attempt in a script.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Event {
        /// A head, after which messages follow.
        Head,
        /// Trailers-Only.
        Trailers(Code),
        /// Trailers-Only UNAVAILABLE with `grpc-retry-pushback-ms`.
        Pushback(i64),
        /// An HTTP response that is not gRPC.
        Http(u16),
        /// No response: the connection was lost, or the pick has failed.
        Failed(EndKind),
        /// No connection before the deadline.
        TooLate,
    }

    const U: Event = Event::Trailers(Code::UNAVAILABLE);
    const I: Event = Event::Trailers(Code::INTERNAL);
    const K: Event = Event::Trailers(Code::OK);
    const H: Event = Event::Head;
    /// REFUSED_STREAM, a lost connection, an attempt that has not left, a dropped pick.
    const R: Event = Event::Failed(EndKind::Unprocessed);
    const X: Event = Event::Failed(EndKind::Failed);
    const L: Event = Event::Failed(EndKind::NotSent);
    const D: Event = Event::Failed(EndKind::Dropped);
    fn u(pushback: i64) -> Event {
        Event::Pushback(pushback)
    }

    impl Event {
        fn outcome(self) -> Result<Response<Body>, FailedAttempt> {
            let mut response = Response::new(Body::empty());
            let headers = response.headers_mut();
            let code = match self {
                Self::Head => return Ok(Response::new(Body::pipe(pipe(1).1))),
                Self::Failed(kind) => {
                    let status = Status::unavailable(format!("{kind:?}"));
                    return Err(FailedAttempt { status, kind });
                }
                Self::TooLate => {
                    let status = Status::deadline_exceeded("waited for a connection");
                    let kind = EndKind::Failed;
                    return Err(FailedAttempt { status, kind });
                }
                Self::Http(status) => {
                    let body = Body::pipe(pipe(1).1);
                    let response = Response::builder().status(status).body(body);
                    return Ok(response.expect("a valid head"));
                }
                Self::Trailers(code) => code,
                Self::Pushback(ms) => {
                    headers.insert("grpc-retry-pushback-ms", ms.into());
                    Code::UNAVAILABLE
                }
            };
            headers.insert("grpc-status", code.as_i32().into());
            Ok(response)
        }
    }

    /// An attempt, as the network sees it.
    struct Stream {
        number: AttemptNumber,
        opened: Instant,
        body: Body,
        event: Option<Event>,
        waker: Option<Waker>,
        end: Option<StreamEnd>,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum StreamEnd {
        Ended,
        Cancelled(EndedBy),
    }

    #[derive(Clone, Default)]
    struct Network {
        streams: Arc<Mutex<Vec<Stream>>>,
    }

    impl Network {
        fn with<T>(&self, at: usize, change: impl FnOnce(&mut Stream) -> T) -> T {
            change(&mut self.streams.lock().expect("no test panics here")[at])
        }

        fn all<T>(&self, of: impl FnMut(&Stream) -> T) -> Vec<T> {
            let streams = self.streams.lock().expect("no test panics here");
            streams.iter().map(of).collect()
        }

        /// The attempts that run, oldest first.
        fn running(&self) -> Vec<usize> {
            let ends = self.all(|stream| stream.end);
            (0..ends.len()).filter(|at| ends[*at].is_none()).collect()
        }

        fn end(&self, at: usize, event: Event) {
            let waker = self.with(at, |stream| {
                stream.event = Some(event);
                stream.waker.take()
            });
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    impl OpenAttempt for Network {
        type Attempt = FakeAttempt;

        fn open(&mut self, number: AttemptNumber, body: Body) -> FakeAttempt {
            let mut streams = self.streams.lock().expect("no test panics here");
            streams.push(Stream {
                number,
                opened: Instant::now(),
                body,
                event: None,
                waker: None,
                end: None,
            });
            FakeAttempt {
                network: self.clone(),
                at: streams.len() - 1,
            }
        }
    }

    struct FakeAttempt {
        network: Network,
        at: usize,
    }

    impl FakeAttempt {
        fn end(&self, end: StreamEnd) {
            self.network.with(self.at, |stream| {
                stream.end.get_or_insert(end);
            });
        }
    }

    impl RunningAttempt for FakeAttempt {
        fn poll_head(
            &mut self,
            cx: &mut Context<'_>,
        ) -> Poll<Result<Response<Body>, FailedAttempt>> {
            let event = self.network.with(self.at, |stream| {
                stream.waker = Some(cx.waker().clone());
                stream.event
            });
            let Some(event) = event else {
                return Poll::Pending;
            };
            self.end(StreamEnd::Ended);
            Poll::Ready(event.outcome())
        }

        fn committed(self) {}

        fn ended(self, _: &Status) {}

        fn cancel(self, by: EndedBy) {
            self.end(StreamEnd::Cancelled(by));
        }
    }

    impl Drop for FakeAttempt {
        fn drop(&mut self) {
            self.end(StreamEnd::Cancelled(EndedBy::Caller));
        }
    }

    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// A call that is polled only after it was woken.
    struct Call {
        network: Network,
        attempts: Option<PolicyAttempts<Network>>,
        woken: Arc<Woken>,
        began: Instant,
        result: Option<(u64, Result<Response<Body>, Status>)>,
    }

    impl Call {
        fn new(schedule: Schedule, deadline: Option<u64>) -> Self {
            Self::with(schedule, deadline, Body::empty(), Arc::default())
        }

        fn with(
            schedule: Schedule,
            deadline: Option<u64>,
            body: Body,
            throttle: Arc<RetryThrottle>,
        ) -> Self {
            let (network, began) = (Network::default(), Instant::now());
            let deadline = deadline.map(|ms| began + MS(ms));
            let budget = ReplayBudget::with(1_000, 10_000);
            let opener = network.clone();
            let mut attempts =
                PolicyAttempts::new(opener, schedule, throttle, deadline, body, &budget);
            attempts.random = || 0.0;
            let mut call = Self {
                network,
                attempts: Some(attempts),
                woken: Arc::new(Woken(AtomicBool::new(true))),
                began,
                result: None,
            };
            call.settle();
            call
        }

        fn settle(&mut self) {
            let waker = Waker::from(self.woken.clone());
            let mut polls = 0;
            while self.woken.0.swap(false, Ordering::Relaxed)
                && let Some(attempts) = &mut self.attempts
            {
                let poll = Pin::new(attempts).poll(&mut Context::from_waker(&waker));
                if let Poll::Ready(result) = poll {
                    self.attempts = None;
                    self.result = Some((self.elapsed(), result));
                }
                polls += 1;
                assert!(polls < 100, "the call wakes itself without end");
            }
        }

        fn elapsed(&self) -> u64 {
            self.began.elapsed().as_millis() as u64
        }

        async fn advance(&mut self, ms: u64) {
            tokio::time::advance(MS(ms)).await;
            self.settle();
        }

        fn end(&mut self, at: usize, event: Event) {
            self.network.end(at, event);
            self.settle();
        }

        /// The code with which the call has ended; OK for a head.
        fn code(&self) -> Option<Code> {
            let (_, result) = self.result.as_ref()?;
            Some(match result {
                Ok(response) => match Status::from_trailers(response.headers()) {
                    Some(Err(status)) => status.code(),
                    Some(Ok(())) => Code::OK,
                    None if response.status() == StatusCode::OK => Code::OK,
                    None => Code::from_http_status(response.status()),
                },
                Err(status) => status.code(),
            })
        }

        fn message(&self) -> String {
            match &self.result {
                Some((_, Err(status))) => status.message().to_owned(),
                _ => String::new(),
            }
        }
    }

    /// Policy P of the scenarios.
    fn policy(max_attempts: u32) -> Schedule {
        Schedule::new(&AttemptPolicy::Retry(RetryPolicy {
            max_attempts,
            initial_backoff: MS(200),
            max_backoff: MS(1_000),
            backoff_multiplier: 2.0,
            retryable_codes: [Code::UNAVAILABLE].into_iter().collect(),
        }))
    }

    fn hedging(max_attempts: u32, delay: u64) -> Schedule {
        Schedule::new(&AttemptPolicy::Hedging(HedgingPolicy {
            max_attempts,
            hedging_delay: MS(delay),
            non_fatal_codes: [Code::UNAVAILABLE].into_iter().collect(),
        }))
    }

    /// Runs a call whose attempts end as in `script`: each with an event, that many milliseconds after its start.
    /// Returns the starts of attempts, with the number of earlier ones, and the end.
    async fn run(
        schedule: Schedule,
        deadline: Option<u64>,
        script: &[(u64, Event)],
    ) -> (Vec<(u64, u32)>, Option<(u64, Code)>) {
        let mut call = Call::new(schedule, deadline);
        for _ in 0..5_000 {
            let mut at = 0;
            while at < call.network.all(|_| ()).len().min(script.len()) {
                let (delay, event) = script[at];
                let is_due = call.network.with(at, |stream| {
                    stream.end.is_none() && stream.opened.elapsed() >= MS(delay)
                });
                if is_due {
                    call.end(at, event);
                }
                at += 1;
            }
            if call.result.is_some() {
                break;
            }
            call.advance(1).await;
        }
        let started = |stream: &Stream| (stream.opened - call.began).as_millis() as u64;
        let starts = call
            .network
            .all(|stream| (started(stream), stream.number.previous));
        let end = call.code().map(|code| {
            let (at, _) = call.result.as_ref().expect("it has a code");
            (*at, code)
        });
        (starts, end)
    }

    const OK: Code = Code::OK;
    const UNAVAILABLE: Code = Code::UNAVAILABLE;
    const DEADLINE_EXCEEDED: Code = Code::DEADLINE_EXCEEDED;

    /// Columns: attempts at most; deadline; ends; starts and `grpc-previous-rpc-attempts`; end of the call.
    type Row<'a> = (
        u32,
        Option<u64>,
        &'a [Event],
        &'a [(u64, u32)],
        Option<(u64, Code)>,
    );

    #[tokio::test(start_paused = true)]
    async fn retries_start_after_backoff_pushback_or_at_once_and_report_their_number() {
        const ONE: &[(u64, u32)] = &[(0, 0)];
        const FOUR: &[(u64, u32)] = &[(0, 0), (200, 1), (600, 2), (1_400, 3)];
        let rows: &[Row<'_>] = &[
            (4, None, &[U, U, K], &FOUR[..3], Some((600, OK))),
            (4, None, &[U, U, H], &FOUR[..3], Some((600, OK))),
            (4, None, &[U; 4], FOUR, Some((1_400, UNAVAILABLE))),
            (4, None, &[I], ONE, Some((0, Code::INTERNAL))),
            // Pushback: exact, at once for zero, and the backoff begins again.
            (4, None, &[u(0), K], &[(0, 0), (0, 1)], Some((0, OK))),
            (
                4,
                None,
                &[u(0), u(0), u(0), u(0)],
                &[(0, 0), (0, 1), (0, 2), (0, 3)],
                Some((0, UNAVAILABLE)),
            ),
            (4, None, &[u(700), K], &[(0, 0), (700, 1)], Some((700, OK))),
            (4, None, &[u(-1)], ONE, Some((0, UNAVAILABLE))),
            (
                4,
                Some(1_000),
                &[u(1 << 31)],
                ONE,
                Some((1_000, DEADLINE_EXCEEDED)),
            ),
            (
                4,
                Some(1_000),
                &[u(i64::MAX)],
                ONE,
                Some((1_000, DEADLINE_EXCEEDED)),
            ),
            (
                5,
                None,
                &[U, U, u(50), U, K],
                &[(0, 0), (200, 1), (600, 2), (650, 3), (850, 4)],
                Some((850, OK)),
            ),
            // Transparent retries.
            (4, None, &[R, K], &[(0, 0), (0, 0)], Some((0, OK))),
            (
                4,
                None,
                &[R, R, K],
                &[(0, 0), (0, 0), (200, 1)],
                Some((200, OK)),
            ),
            (
                4,
                None,
                &[R, U, K],
                &[(0, 0), (0, 0), (200, 1)],
                Some((200, OK)),
            ),
            (
                4,
                None,
                &[U, R, K],
                &[(0, 0), (200, 1), (600, 2)],
                Some((600, OK)),
            ),
            (4, None, &[L, L, L, R, L, K], &[(0, 0); 6], Some((0, OK))),
            (1, None, &[R, R], &[(0, 0); 2], Some((0, UNAVAILABLE))),
            (4, None, &[D], ONE, Some((0, UNAVAILABLE))),
            // A connection that is lost, and responses of proxies.
            (4, None, &[X, K], &[(0, 0), (200, 1)], Some((200, OK))),
            (
                4,
                None,
                &[Event::Http(503), K],
                &[(0, 0), (200, 1)],
                Some((200, OK)),
            ),
            (
                4,
                None,
                &[Event::Http(401)],
                ONE,
                Some((0, Code::UNAUTHENTICATED)),
            ),
            // The deadline.
            (
                4,
                Some(500),
                &[U],
                &FOUR[..2],
                Some((500, DEADLINE_EXCEEDED)),
            ),
            (4, Some(100), &[U], ONE, Some((100, DEADLINE_EXCEEDED))),
            (4, Some(200), &[U], ONE, Some((200, DEADLINE_EXCEEDED))),
            (4, None, &[], ONE, None),
        ];
        for (max, deadline, events, starts, end) in rows {
            let script: Vec<_> = events.iter().map(|event| (0, *event)).collect();
            let found = run(policy(*max), *deadline, &script).await;
            assert_eq!(
                found,
                (starts.to_vec(), *end),
                "{max} {deadline:?} {events:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn hedges_start_after_their_delay_or_a_failure_and_the_first_response_wins() {
        /// Columns: attempts at most and delay; ends; starts; end of the call.
        type Row<'a> = (
            (u32, u64),
            &'a [(u64, Event)],
            &'a [(u64, u32)],
            Option<(u64, Code)>,
        );
        const NEVER: (u64, Event) = (1 << 20, H);
        const FOUR: &[(u64, u32)] = &[(0, 0), (300, 1), (600, 2), (900, 3)];
        let rows: &[Row<'_>] = &[
            (
                (4, 300),
                &[NEVER, NEVER, NEVER, (50, K)],
                FOUR,
                Some((950, OK)),
            ),
            ((4, 300), &[NEVER; 4], FOUR, None),
            (
                (4, 0),
                &[NEVER, NEVER, NEVER, (50, H)],
                &[(0, 0), (0, 1), (0, 2), (0, 3)],
                Some((50, OK)),
            ),
            // A failure that is not fatal starts the next at once, and the delay begins again.
            (
                (4, 300),
                &[(100, U), (0, U), NEVER, (10, K)],
                &[(0, 0), (100, 1), (100, 2), (400, 3)],
                Some((410, OK)),
            ),
            (
                (4, 300),
                &[(0, U); 4],
                &[(0, 0), (0, 1), (0, 2), (0, 3)],
                Some((0, UNAVAILABLE)),
            ),
            (
                (2, 300),
                &[NEVER, (10, I)],
                &FOUR[..2],
                Some((310, Code::INTERNAL)),
            ),
            (
                (2, 300),
                &[(500, I), (10, U)],
                &FOUR[..2],
                Some((500, Code::INTERNAL)),
            ),
            // Pushback sets the next start, and the delay applies again after it.
            (
                (4, 300),
                &[(100, u(700)), NEVER, (10, K)],
                &[(0, 0), (800, 1), (1_100, 2)],
                Some((1_110, OK)),
            ),
            (
                (4, 300),
                &[(900, K), (10, u(-1))],
                &FOUR[..2],
                Some((900, OK)),
            ),
            (
                (4, 300),
                &[(900, U), (10, u(-1))],
                &FOUR[..2],
                Some((900, UNAVAILABLE)),
            ),
            ((4, 300), &[(0, u(-1))], &FOUR[..1], Some((0, UNAVAILABLE))),
            // A refused hedge is replaced once, with its number; a dropped pick stops the policy.
            (
                (2, 300),
                &[NEVER, (10, R), (10, K)],
                &[(0, 0), (300, 1), (310, 1)],
                Some((320, OK)),
            ),
            (
                (2, 300),
                &[(500, K), (10, R), (10, R)],
                &[(0, 0), (300, 1), (310, 1)],
                Some((500, OK)),
            ),
            ((4, 300), &[(900, K), (10, D)], &FOUR[..2], Some((900, OK))),
            ((4, 300), &[(10, D)], &FOUR[..1], Some((10, UNAVAILABLE))),
            (
                (2, 300),
                &[(0, L), (0, L), (0, K)],
                &[(0, 0); 3],
                Some((0, OK)),
            ),
        ];
        for ((max, delay), script, starts, end) in rows {
            let found = run(hedging(*max, *delay), None, script).await;
            assert_eq!(found, (starts.to_vec(), *end), "{max} {delay} {script:?}");
        }
    }
    #[tokio::test(start_paused = true)]
    async fn the_deadline_names_the_last_failure() {
        let mut call = Call::new(policy(4), Some(100));
        call.end(0, X);
        call.advance(99).await;
        assert!(call.result.is_none());
        call.advance(1).await;
        assert!(
            call.message()
                .ends_with("has failed with UNAVAILABLE: Failed"),
            "{}",
            call.message()
        );
        let mut call = Call::new(policy(4), Some(100));
        call.end(0, Event::Http(502));
        call.end(0, H);
        call.advance(100).await;
        let end = Status::from_http_status(StatusCode::BAD_GATEWAY).to_string();
        assert!(call.message().ends_with(&end), "{}", call.message());
        let mut call = Call::new(hedging(2, 10), Some(100));
        call.advance(10).await;
        call.advance(90).await;
        assert!(
            call.message().ends_with("had a response"),
            "{}",
            call.message()
        );
        let deadline = Some(StreamEnd::Cancelled(EndedBy::Deadline));
        assert_eq!(call.network.all(|stream| stream.end), [deadline; 2]);

        // The attempt has its own words for what it waited for.
        let mut call = Call::new(policy(4), Some(300));
        call.end(0, X);
        call.advance(200).await;
        call.network.end(1, Event::TooLate);
        call.woken.0.store(false, Ordering::Relaxed);
        call.advance(100).await;
        let expected = "waited for a connection; the last attempt that ended has failed with UNAVAILABLE: Failed";
        assert_eq!(call.message(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_cancels_the_other_attempts_and_a_dropped_call_all_of_them() {
        let mut call = Call::new(hedging(3, 0), None);
        call.end(1, H);
        let other = Some(StreamEnd::Cancelled(EndedBy::OtherAttempt));
        let ended = Some(StreamEnd::Ended);
        assert_eq!(call.network.all(|stream| stream.end), [other, ended, other]);
        let mut call = Call::new(hedging(3, 0), None);
        call.attempts = None;
        let caller = Some(StreamEnd::Cancelled(EndedBy::Caller));
        assert_eq!(call.network.all(|stream| stream.end), [caller; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_hedge_never_starts_and_the_call_ends_without_it() {
        let throttle = Arc::new(RetryThrottle::full(4_000, 100));
        let mut call = Call::with(hedging(4, 300), None, Body::empty(), throttle.clone());
        call.end(0, u(700));
        assert_eq!(call.code(), None);
        // Other calls fail during the pause.
        throttle.count_failure();
        call.advance(700).await;
        assert_eq!(call.code(), Some(UNAVAILABLE));
        assert_eq!(call.network.all(|_| ()).len(), 1);
        let mut call = Call::with(hedging(4, 300), None, Body::empty(), throttle);
        call.advance(5_000).await;
        assert_eq!(call.network.running(), [0]);
        call.end(0, K);
        assert_eq!(call.code(), Some(OK));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_was_not_sent_lets_other_tasks_run_before_the_next() {
        let mut call = Call::new(policy(4), None);
        call.network.end(0, L);
        let waker = Waker::from(call.woken.clone());
        let attempts = call.attempts.as_mut().expect("it runs");
        let poll = Pin::new(attempts).poll(&mut Context::from_waker(&waker));
        assert!(poll.is_pending() && call.woken.0.load(Ordering::Relaxed));
        assert!(
            call.network.with(1, |stream| stream.waker.is_none()),
            "not polled yet"
        );
    }

    /// A call whose request comes from a pipe, and its writer.
    fn streamed(schedule: Schedule) -> (PipeWriter, Call) {
        let (writer, reader) = pipe(1 << 20);
        let call = Call::with(schedule, None, Body::pipe(reader), Arc::default());
        (writer, call)
    }

    fn sent(call: &Call, at: usize) -> Option<Vec<u8>> {
        let mut cx = Context::from_waker(Waker::noop());
        call.network.with(at, |stream| {
            let mut sent = Vec::new();
            while let Poll::Ready(Some(frame)) =
                http_body::Body::poll_frame(Pin::new(&mut stream.body), &mut cx)
            {
                sent.extend(frame.ok()?.into_data().ok()?);
            }
            Some(sent)
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_sends_what_was_sent_and_then_what_the_caller_writes() {
        let (mut writer, mut call) = streamed(policy(4));
        writer.write(Bytes::from_static(b"one "));
        assert_eq!(sent(&call, 0).expect("it runs"), b"one ");
        call.end(0, U);
        writer.write(Bytes::from_static(b"two "));
        call.advance(200).await;
        assert_eq!(sent(&call, 1).expect("it runs"), b"one two ");
        call.end(1, H);
        writer.write(Bytes::from_static(b"three"));
        writer.finish(None);
        assert_eq!(sent(&call, 1).expect("it won"), b"three");
        assert_eq!((call.code(), sent(&call, 0)), (Some(OK), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_above_its_buffer_ends_the_policy() {
        // Streamed: the attempt that is ahead goes on alone, and its end is that of the call.
        let (mut writer, mut call) = streamed(hedging(3, 300));
        call.advance(300).await;
        writer.write(Bytes::from(vec![7; 1_001]));
        assert_eq!(sent(&call, 1).map(|sent| sent.len()), Some(1_001));
        call.settle();
        let other = Some(StreamEnd::Cancelled(EndedBy::OtherAttempt));
        assert_eq!(call.network.all(|stream| stream.end), [other, None]);
        call.advance(1_000).await;
        assert_eq!(call.network.running(), [1]);
        call.end(1, U);
        assert_eq!(call.code(), Some(UNAVAILABLE));
        // Known in full: only transparent retries follow.
        let large = || Body::full(Bytes::from(vec![7; 1_001]), None);
        for schedule in [policy(4), hedging(4, 0)] {
            let mut call = Call::with(schedule, None, large(), Arc::default());
            call.end(0, R);
            assert_eq!(call.network.running(), [1]);
            assert_eq!(sent(&call, 1).map(|sent| sent.len()), Some(1_001));
            call.end(1, U);
            assert_eq!(call.code(), Some(UNAVAILABLE));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_drops_its_sender_ends_the_call_even_during_a_pause() {
        let (writer, mut call) = streamed(policy(4));
        call.end(0, U);
        drop(writer);
        call.settle();
        assert_eq!(call.code(), Some(Code::CANCELLED));
    }

    /// An event of the enumerated test. Those of attempts meet the oldest or the newest that runs.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Step {
        Attempt(Event),
        /// The next attempt becomes due.
        Timer,
        Cancel,
        Deadline,
    }

    /// The call as the documents describe it, without timers and bodies: the expected state after each step.
    struct Model {
        is_hedging: bool,
        /// Numbers of the attempts that run.
        running: Vec<usize>,
        opened: usize,
        /// Attempts that count: started ones when hedging, failed ones when retrying.
        counted: u32,
        has_repeated: bool,
        /// The time of the next start.
        next: Option<u64>,
        now: u64,
        last: Option<Code>,
        end: Option<Code>,
    }

    impl Model {
        const MAX: u32 = 2;
        const PAUSE: u64 = 200;

        fn new(is_hedging: bool) -> Self {
            let mut model = Self {
                is_hedging,
                running: Vec::new(),
                opened: 0,
                counted: 0,
                has_repeated: false,
                next: None,
                now: 0,
                last: None,
                end: None,
            };
            model.start();
            model
        }

        fn start(&mut self) {
            self.next = None;
            self.open();
            if self.is_hedging {
                self.counted += 1;
                self.next = (self.counted < Self::MAX).then_some(self.now + Self::PAUSE);
            }
        }

        fn open(&mut self) {
            self.running.push(self.opened);
            self.opened += 1;
        }

        fn finish(&mut self, code: Code) {
            self.end = Some(code);
            self.running.clear();
        }

        fn attempt(&mut self, at: usize, event: Event) {
            self.running.retain(|running| *running != at);
            let (code, pause, is_refused) = match event {
                Event::Head => return self.finish(OK),
                Event::Trailers(code) => (code, None, false),
                Event::Pushback(pause) => (UNAVAILABLE, Some(pause), false),
                Event::Failed(kind) => (UNAVAILABLE, None, kind == EndKind::Unprocessed),
                Event::Http(_) | Event::TooLate => unreachable!("not among the events"),
            };
            let was_processed = !self.is_hedging && self.counted > 0;
            if is_refused && !self.has_repeated && !was_processed {
                self.has_repeated = true;
                return self.open();
            }
            self.last = Some(code);
            if code != UNAVAILABLE || !self.is_hedging && pause.is_some_and(|pause| pause < 0) {
                return self.finish(code);
            }
            if !self.is_hedging {
                self.counted += 1;
            }
            let has_more = self.counted < Self::MAX;
            match pause {
                Some(pause) if pause < 0 => {
                    self.counted = Self::MAX;
                    self.next = None;
                }
                Some(pause) if has_more => self.next = Some(self.now + pause as u64),
                None if has_more && self.is_hedging => self.start(),
                None if has_more => self.next = Some(self.now + Self::PAUSE),
                _ => self.next = None,
            }
            if self.running.is_empty() && self.next.is_none() {
                self.finish(code);
            }
        }
    }

    async fn compare(schedule: Schedule, steps: &[Step], newest: u32) {
        let mut model = Model::new(matches!(schedule, Schedule::Hedging(_)));
        let mut call = Call::new(schedule, Some(10_000));
        for (at, step) in steps.iter().enumerate() {
            let of_attempts = match newest & 1 << at {
                0 => model.running.first().copied(),
                _ => model.running.last().copied(),
            };
            match step {
                Step::Attempt(event) => {
                    if let Some(at) = of_attempts {
                        call.end(at, *event);
                        model.attempt(at, *event);
                    }
                }
                Step::Timer => {
                    if let Some(next) = model.next.filter(|_| model.end.is_none()) {
                        call.advance(next - model.now - 1).await;
                        assert_eq!(call.network.all(|_| ()).len(), model.opened, "too early");
                        call.advance(1).await;
                        model.now = next;
                        model.start();
                    }
                }
                Step::Cancel => {
                    call.attempts = None;
                    model.end.get_or_insert(Code::CANCELLED);
                    model.running.clear();
                }
                Step::Deadline => {
                    call.advance(10_000 - model.now).await;
                    model.end.get_or_insert(DEADLINE_EXCEEDED);
                    model.running.clear();
                }
            }
            let context = || format!("{steps:?}, newest {newest:b}, step {at}");
            assert_eq!(call.network.running(), model.running, "{}", context());
            assert_eq!(
                call.network.all(|_| ()).len(),
                model.opened,
                "{}",
                context()
            );
            match (&call.attempts, model.end) {
                (Some(_), end) => assert_eq!(end, None, "{}", context()),
                (None, Some(Code::CANCELLED)) if call.result.is_none() => {}
                (None, end) => assert_eq!(call.code(), end, "{}", context()),
            }
            if model.end.is_some() {
                return;
            }
        }
        panic!("{steps:?}: the call has no end");
    }

    /// Returns every order of up to `most` of `steps`, each before a cancellation and before the deadline.
    fn orders(steps: &[Step], most: usize) -> Vec<Vec<Step>> {
        let mut all = vec![Vec::new()];
        let mut longest = all.clone();
        for _ in 0..most {
            let longer = |order: &Vec<Step>| {
                let order = order.clone();
                let left = steps.iter().filter(|step| !order.contains(step)).copied();
                let left: Vec<Step> = left.collect();
                left.into_iter().map(move |step| {
                    let mut longer = order.clone();
                    longer.push(step);
                    longer
                })
            };
            longest = longest.iter().flat_map(longer).collect();
            all.extend(longest.iter().cloned());
        }
        let ends = [Step::Cancel, Step::Deadline];
        let ended = |order: &Vec<Step>| ends.map(|end| [&order[..], &[end]].concat());
        all.iter().flat_map(ended).collect()
    }

    const HEAD: Step = Step::Attempt(H);
    const TRAILERS: Step = Step::Attempt(U);
    const PUSHBACK: Step = Step::Attempt(Event::Pushback(50));
    const LOST: Step = Step::Attempt(R);
    const COMMON: [Step; 5] = [HEAD, TRAILERS, PUSHBACK, LOST, Step::Timer];
    const RARE: [Step; 3] = [
        Step::Attempt(X),
        Step::Attempt(I),
        Step::Attempt(Event::Pushback(-1)),
    ];

    fn all_orders() -> Vec<Vec<Step>> {
        let all = [&COMMON[..], &RARE].concat();
        [orders(&COMMON, COMMON.len()), orders(&all, 4)].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn every_order_of_events_ends_one_retry_as_the_documents_say() {
        for order in all_orders() {
            compare(policy(2), &order, 0).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_order_of_events_ends_two_hedges_as_the_documents_say() {
        for order in all_orders() {
            for newest in 0..1 << (order.len() - 1) {
                compare(hedging(2, Model::PAUSE), &order, newest).await;
            }
        }
    }
    mod over_connections {
        use super::*;
        use crate::limits::ChannelLimits;
        use std::future::poll_fn;
        use tokio::sync::{mpsc, watch};
        use trunkline_transport::{
            BegunCall, ClientLimits, Connection, ConnectionHandler, DeadlineChange, Keepalive,
            Phase, ServerLimits, serve_connection,
        };

        type Responding = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
        type Heading = Pin<Box<dyn Future<Output = Result<Response<Body>, FailedAttempt>> + Send>>;

        /// A server that reads `cut` bytes of its first request and refuses it, and reads all of the others.
        struct Refusing {
            cut: usize,
            calls: usize,
            received: mpsc::UnboundedSender<Vec<u8>>,
        }

        impl ConnectionHandler for Refusing {
            type Future = Responding;

            fn call(&mut self, request: http::Request<Body>, _: Instant) -> BegunCall<Responding> {
                let is_first = self.calls == 0;
                let most = if is_first { self.cut } else { usize::MAX };
                self.calls += 1;
                let received = self.received.clone();
                let response = async move {
                    let data = read(request.into_body(), most).await;
                    received.send(data).expect("the test waits for it");
                    let code = if is_first { UNAVAILABLE } else { OK };
                    let mut response = Response::new(Body::empty());
                    let headers = response.headers_mut();
                    headers.insert("grpc-status", code.as_i32().into());
                    response
                };
                BegunCall {
                    response: Box::pin(response),
                    poll_budget: None,
                    deadline: DeadlineChange::Keep,
                }
            }
        }

        async fn read(mut body: Body, most: usize) -> Vec<u8> {
            let mut data = Vec::new();
            while data.len() < most {
                let frame = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx));
                match frame.await {
                    Some(frame) => {
                        let frame = frame.expect("the request arrives in full");
                        data.extend(frame.into_data().expect("data"));
                    }
                    None => break,
                }
            }
            data
        }

        struct OneConnection(Connection);

        struct SentAttempt(Heading);

        impl OpenAttempt for OneConnection {
            type Attempt = SentAttempt;

            fn open(&mut self, _: AttemptNumber, body: Body) -> SentAttempt {
                let connection = self.0.clone();
                SentAttempt(Box::pin(async move {
                    let failed = |status| FailedAttempt {
                        status,
                        kind: EndKind::Failed,
                    };
                    let ready = connection.ready().await.map_err(failed)?;
                    let head = http::Request::post("http://server/a.B/C").body(());
                    let open = ready.send(head.expect("a valid head"), body);
                    open.map_err(|refused| failed(refused.status))?
                        .await
                        .map_err(failed)
                }))
            }
        }

        impl RunningAttempt for SentAttempt {
            fn poll_head(
                &mut self,
                cx: &mut Context<'_>,
            ) -> Poll<Result<Response<Body>, FailedAttempt>> {
                self.0.as_mut().poll(cx)
            }

            fn committed(self) {}

            fn ended(self, _: &Status) {}

            fn cancel(self, _: EndedBy) {}
        }

        #[tokio::test(start_paused = true)]
        async fn a_server_that_refuses_a_stream_at_any_point_gets_all_of_it_once_more() {
            const MESSAGE: [u8; 1_005] = [7; 1_005];
            for cut in 0..=10 {
                let (near, far) = tokio::io::duplex(1 << 16);
                let (received, mut requests) = mpsc::unbounded_channel();
                let cut = cut * MESSAGE.len();
                let handler = Refusing {
                    cut,
                    calls: 0,
                    received,
                };
                let (_serving, phase) = watch::channel(Phase::Serving);
                let limits = Arc::new(ServerLimits::default());
                tokio::spawn(serve_connection(far, handler, limits, phase));
                let limits: ClientLimits = (&ChannelLimits::default()).into();
                let (limits, keepalive) = (Arc::new(limits), Keepalive::new(Duration::MAX));
                let connection = Connection::over(near, "server", limits, &keepalive).await;
                let opener = OneConnection(connection.expect("the server speaks HTTP/2"));
                let (mut writer, reader) = pipe(2 * MESSAGE.len());
                let budget = ReplayBudget::with(1 << 18, 1 << 20);
                let body = Body::pipe(reader);
                let call =
                    PolicyAttempts::new(opener, policy(2), Arc::default(), None, body, &budget);
                let writing = tokio::spawn(async move {
                    for _ in 0..10 {
                        poll_fn(|cx| writer.poll_ready(cx))
                            .await
                            .expect("the call runs");
                        writer.write(Bytes::from_static(&MESSAGE));
                        tokio::task::yield_now().await;
                    }
                    writer.finish(None);
                });
                let response = tokio::spawn(call).await.expect("nothing panics");
                let response = response.expect("the second attempt succeeds");
                assert_eq!(response.headers()["grpc-status"], "0", "{cut}");
                writing.await.expect("nothing panics");
                let first = requests.recv().await.expect("two attempts");
                assert!(first.len() >= cut, "{cut}");
                assert_eq!(
                    requests.recv().await.expect("two attempts").len(),
                    10_050,
                    "{cut}"
                );
                assert!(requests.try_recv().is_err());
            }
        }
    }
}
