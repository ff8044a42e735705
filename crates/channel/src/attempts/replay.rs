//! The request body of a call that several attempts send.
//!
//! The body keeps every frame that it has handed to an attempt, so that others can send it again, until the call is
//! committed to one attempt. The survivor then reads the rest from the caller's body, without a copy. Nothing is read
//! ahead: a frame comes from the caller's body when the attempt that is ahead of the others has sent the frame before.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use trunkline_codec::Status;
use trunkline_transport::{Body, PipeWatch};

use crate::limits::ChannelLimits;

/// The bytes that a smaller frame counts: an entry of the list needs memory, too.
const FRAME_MIN: usize = 64;

/// The memory that the calls of a channel may use to send requests again.
#[derive(Debug)]
pub(crate) struct ReplayBudget {
    call_max: usize,
    max: usize,
    used: AtomicUsize,
}

impl ReplayBudget {
    pub(crate) fn new(limits: &ChannelLimits) -> Arc<Self> {
        Arc::new(Self {
            call_max: limits.call_retry_buffer_size,
            max: limits.channel_retry_buffer_size,
            used: AtomicUsize::new(0),
        })
    }

    /// Creates a budget of `max` bytes for all calls, of which each may use `call_max`.
    #[cfg(test)]
    pub(crate) fn with(call_max: usize, max: usize) -> Arc<Self> {
        let mut limits = ChannelLimits::default();
        (
            limits.call_retry_buffer_size,
            limits.channel_retry_buffer_size,
        ) = (call_max, max);
        Self::new(&limits)
    }

    fn try_reserve(&self, bytes: usize) -> bool {
        let add = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.max);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_ok()
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The bytes of one call, which return to the budget when they are dropped.
#[derive(Debug)]
struct Reserved {
    budget: Arc<ReplayBudget>,
    bytes: usize,
}

impl Reserved {
    fn try_add(&mut self, bytes: usize) -> bool {
        let fits = self.bytes.saturating_add(bytes) <= self.budget.call_max
            && self.budget.try_reserve(bytes);
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    fn remove(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.budget.release(bytes);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

/// Identifies an attempt of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttemptId(pub(crate) u32);

/// The request body of a call, from which each attempt has a body of its own.
///
/// Dropping it before the call is committed fails the bodies of all attempts.
#[derive(Debug)]
pub(crate) struct ReplayBody(ReplayKind);

enum ReplayKind {
    /// Known in full: attempts share its bytes. `None` after the commit.
    Full(Option<(Body, Reserved)>),
    Streamed {
        shared: Arc<ReplayShared>,
        watch: Option<PipeWatch>,
    },
}

/// An event of the request body that decides the call.
#[derive(Debug)]
pub(crate) enum ReplayEvent {
    /// The request has exceeded its buffer, and the attempt that has sent most of it is the only one that can go on.
    Committed(AttemptId),
    /// The caller's body has failed.
    Failed(Status),
}

impl ReplayBody {
    pub(crate) fn new(body: Body, budget: &Arc<ReplayBudget>) -> Self {
        let reserved = Reserved {
            budget: budget.clone(),
            bytes: 0,
        };
        Self(match body.full_size() {
            Some(size) => {
                let mut reserved = reserved;
                reserved.try_add(size);
                ReplayKind::Full(Some((body, reserved)))
            }
            None => ReplayKind::Streamed {
                watch: body.watch(),
                shared: Arc::new(ReplayShared {
                    state: Mutex::new(ReplayState {
                        source: Some(body),
                        frames: VecDeque::new(),
                        dropped: 0,
                        reserved,
                        end: None,
                        readers: Vec::new(),
                        committed: None,
                        owner: None,
                    }),
                    waiting: Arc::default(),
                }),
            },
        })
    }

    /// Returns true if the policy of the call can send the body more than once: false if it is known in full, and
    /// exceeds the buffer.
    pub(crate) fn fits(&self) -> bool {
        match &self.0 {
            ReplayKind::Full(Some((body, reserved))) => body.full_size() == Some(reserved.bytes),
            ReplayKind::Full(None) => false,
            ReplayKind::Streamed { .. } => true,
        }
    }

    /// Returns the body of an attempt, from the beginning.
    pub(crate) fn open(&self, id: AttemptId) -> Body {
        match &self.0 {
            ReplayKind::Full(Some((body, _))) => body.try_clone().unwrap_or_default(),
            ReplayKind::Full(None) => Body::empty(),
            ReplayKind::Streamed { shared, .. } => {
                shared.lock().readers.push((id, 0));
                Body::new(ReplayReader {
                    id,
                    shared: shared.clone(),
                    rest: None,
                    is_over: false,
                })
            }
        }
    }

    /// Takes note of the end of an attempt. Returns false if the call is committed to it, so that none can follow.
    pub(crate) fn close(&self, id: AttemptId) -> bool {
        match &self.0 {
            ReplayKind::Full(kept) => kept.is_some(),
            ReplayKind::Streamed { shared, .. } => {
                let mut state = shared.lock();
                if state.committed == Some(id) {
                    return false;
                }
                state.readers.retain(|(reader, _)| *reader != id);
                true
            }
        }
    }

    /// Commits the call to an attempt, and frees what it does not need. Returns false if the call is committed to
    /// another.
    pub(crate) fn commit(&mut self, id: AttemptId) -> bool {
        match &mut self.0 {
            ReplayKind::Full(kept) => {
                *kept = None;
                true
            }
            ReplayKind::Streamed { shared, .. } => {
                let mut state = shared.lock();
                if state.committed.is_none() {
                    state.commit(id);
                }
                state.committed == Some(id)
            }
        }
    }

    /// Ready when the body itself decides the call.
    pub(crate) fn poll_event(&self, cx: &mut Context<'_>) -> Poll<ReplayEvent> {
        let ReplayKind::Streamed { shared, watch } = &self.0 else {
            return Poll::Pending;
        };
        // Between two attempts nobody reads, and the failure would be noticed only by the next one.
        if let Some(watch) = watch
            && let Poll::Ready(status) = watch.poll_failed(cx)
        {
            return Poll::Ready(ReplayEvent::Failed(status));
        }
        let mut state = shared.lock();
        if let Some(ReplayEnd::Failed(status)) = &state.end {
            return Poll::Ready(ReplayEvent::Failed(status.clone()));
        }
        if let Some(id) = state.committed {
            return Poll::Ready(ReplayEvent::Committed(id));
        }
        state.owner = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for ReplayBody {
    fn drop(&mut self) {
        if let ReplayKind::Streamed { shared, .. } = &self.0 {
            let mut state = shared.lock();
            if state.committed.is_none() {
                state.clear();
            }
        }
    }
}

struct ReplayShared {
    state: Mutex<ReplayState>,
    /// Apart from the state, because the caller's body can wake them while it is polled.
    waiting: Arc<WaitingReaders>,
}

struct ReplayState {
    /// The caller's body, until it ends, or the attempt to which the call is committed takes it.
    source: Option<Body>,
    /// The frames that attempts can still need.
    frames: VecDeque<Bytes>,
    /// The number of frames that were dropped before these.
    dropped: usize,
    reserved: Reserved,
    end: Option<ReplayEnd>,
    /// The running attempts, and the number of frames that each has taken.
    readers: Vec<(AttemptId, usize)>,
    committed: Option<AttemptId>,
    owner: Option<Waker>,
}

#[derive(Clone)]
enum ReplayEnd {
    HalfClose,
    Trailers(HeaderMap),
    Failed(Status),
}

/// The next part of the body for an attempt.
enum Part {
    Data(Bytes),
    End(ReplayEnd),
    /// The attempt reads the rest itself.
    Rest(Body),
}

impl ReplayShared {
    fn lock(&self) -> MutexGuard<'_, ReplayState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_next(&self, id: AttemptId, cx: &Context<'_>) -> Poll<Part> {
        let mut state = self.lock();
        if let Some(part) = state.next_kept(id) {
            return Poll::Ready(part);
        }
        // The caller's body has one waker, and several attempts can wait for it.
        self.waiting.add(id, cx.waker());
        let waker = Waker::from(self.waiting.clone());
        let part = ready!(state.poll_source(id, &mut Context::from_waker(&waker)));
        let owner = match state.committed.is_some() || state.has_failed() {
            true => state.owner.take(),
            false => None,
        };
        drop(state);
        self.waiting.remove(id);
        self.waiting.wake_by_ref();
        if let Some(owner) = owner {
            owner.wake();
        }
        Poll::Ready(part)
    }
}

impl ReplayState {
    /// Returns the next part without the caller's body, if possible.
    fn next_kept(&mut self, id: AttemptId) -> Option<Part> {
        let Some((_, taken)) = self.readers.iter_mut().find(|(reader, _)| *reader == id) else {
            let status = Status::cancelled("another attempt of the call has won");
            return Some(Part::End(ReplayEnd::Failed(status)));
        };
        if let Some(data) = self.frames.get(*taken - self.dropped).cloned() {
            *taken += 1;
            if self.committed.is_some() {
                self.drop_frames(1);
            }
            return Some(Part::Data(data));
        }
        if let Some(end) = &self.end {
            return Some(Part::End(end.clone()));
        }
        match self.committed {
            Some(_) => Some(Part::Rest(self.source.take().unwrap_or_default())),
            None => None,
        }
    }

    /// Takes the next frame from the caller's body, for the attempt that has taken all before it.
    fn poll_source(&mut self, id: AttemptId, cx: &mut Context<'_>) -> Poll<Part> {
        let source = self.source.get_or_insert_default();
        let frame = ready!(Pin::new(&mut *source).poll_frame(cx));
        let is_last = source.is_end_stream();
        let end = match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => {
                self.keep(id, &data);
                if is_last {
                    self.end = Some(ReplayEnd::HalfClose);
                    self.source = None;
                }
                return Poll::Ready(Part::Data(data));
            }
            Some(Ok(Err(frame))) => ReplayEnd::Trailers(frame.into_trailers().unwrap_or_default()),
            None => ReplayEnd::HalfClose,
            Some(Err(status)) => ReplayEnd::Failed(status),
        };
        self.source = None;
        Poll::Ready(Part::End(self.end.insert(end).clone()))
    }

    /// Keeps a frame that `id` has taken from the caller's body. If it does not fit, the call is committed to `id`: no
    /// other attempt has taken more.
    fn keep(&mut self, id: AttemptId, data: &Bytes) {
        if !self.reserved.try_add(cost(data)) {
            return self.commit(id);
        }
        self.frames.push_back(data.clone());
        for (_, taken) in self.readers.iter_mut().filter(|(reader, _)| *reader == id) {
            *taken += 1;
        }
    }

    fn commit(&mut self, id: AttemptId) {
        self.committed = Some(id);
        self.readers.retain(|(reader, _)| *reader == id);
        match self.readers.first() {
            Some((_, taken)) => self.drop_frames(*taken - self.dropped),
            // The attempt has sent all, or the server needs no more.
            None => self.clear(),
        }
    }

    fn drop_frames(&mut self, count: usize) {
        self.dropped += count;
        let bytes = self.frames.drain(..count).map(|frame| cost(&frame)).sum();
        self.reserved.remove(bytes);
    }

    fn clear(&mut self) {
        self.readers.clear();
        self.drop_frames(self.frames.len());
        self.source = None;
    }

    fn has_failed(&self) -> bool {
        matches!(self.end, Some(ReplayEnd::Failed(_)))
    }

    fn is_at_end(&self, id: AttemptId) -> bool {
        let mut readers = self.readers.iter();
        matches!(self.end, Some(ReplayEnd::HalfClose))
            && readers
                .any(|(reader, taken)| *reader == id && *taken == self.dropped + self.frames.len())
    }
}

/// Returns the bytes that a frame counts.
fn cost(frame: &Bytes) -> usize {
    frame.len().max(FRAME_MIN)
}

/// The attempts that wait for the caller's body.
#[derive(Default)]
struct WaitingReaders(Mutex<Vec<(AttemptId, Waker)>>);

impl WaitingReaders {
    fn lock(&self) -> MutexGuard<'_, Vec<(AttemptId, Waker)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, id: AttemptId, waker: &Waker) {
        let mut waiting = self.lock();
        waiting.retain(|(reader, _)| *reader != id);
        waiting.push((id, waker.clone()));
    }

    fn remove(&self, id: AttemptId) {
        self.lock().retain(|(reader, _)| *reader != id);
    }
}

impl Wake for WaitingReaders {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let waiting = std::mem::take(&mut *self.lock());
        for (_, waker) in waiting {
            waker.wake();
        }
    }
}

/// The request body of one attempt.
struct ReplayReader {
    id: AttemptId,
    shared: Arc<ReplayShared>,
    /// The caller's body, after the commit to this attempt.
    rest: Option<Body>,
    is_over: bool,
}

impl http_body::Body for ReplayReader {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if self.rest.is_none() {
            match ready!(self.shared.poll_next(self.id, cx)) {
                Part::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Part::Rest(rest) => self.rest = Some(rest),
                Part::End(end) => {
                    self.is_over = true;
                    return Poll::Ready(match end {
                        ReplayEnd::HalfClose => None,
                        ReplayEnd::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
                        ReplayEnd::Failed(status) => Some(Err(status)),
                    });
                }
            }
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.rest {
            Some(rest) => rest.is_end_stream(),
            None => self.is_over || self.shared.lock().is_at_end(self.id),
        }
    }
}

impl Drop for ReplayReader {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.readers.retain(|(reader, _)| *reader != self.id);
        if state.committed == Some(self.id) {
            state.clear();
        }
    }
}

impl fmt::Debug for ReplayKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(Some(_)) => "Full",
            Self::Full(None) => "Committed",
            Self::Streamed { .. } => "Streamed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use trunkline_codec::Code;
    use trunkline_transport::{PipeWriter, pipe};

    const A: AttemptId = AttemptId(0);
    const B: AttemptId = AttemptId(1);

    /// A body that a pipe fills, in a budget that has room for `call_max` bytes of each call, and `max` of all.
    fn piped(call_max: usize, max: usize) -> (PipeWriter, ReplayBody, Arc<ReplayBudget>) {
        let (writer, reader) = pipe(1 << 20);
        let budget = ReplayBudget::with(call_max, max);
        let body = ReplayBody::new(Body::pipe(reader), &budget);
        (writer, body, budget)
    }

    fn poll(body: &mut Body) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    /// Takes a frame of data that is ready.
    fn take(body: &mut Body) -> Bytes {
        match poll(body) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().expect("data"),
            other => panic!("no data: {other:?}"),
        }
    }

    fn is_at_end(body: &mut Body) -> bool {
        matches!(poll(body), Poll::Ready(None))
    }

    /// Takes all data up to the half-close.
    fn rest(body: &mut Body) -> Vec<u8> {
        let mut data = Vec::new();
        while let Poll::Ready(Some(frame)) = poll(body) {
            let frame = frame.expect("nothing fails here");
            data.extend(frame.into_data().expect("data"));
        }
        assert!(is_at_end(body) && body.is_end_stream());
        data
    }

    fn failure(body: &mut Body) -> Code {
        match poll(body) {
            Poll::Ready(Some(Err(status))) => status.code(),
            other => panic!("no failure: {other:?}"),
        }
    }

    fn event(body: &ReplayBody) -> Option<ReplayEvent> {
        match body.poll_event(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => Some(event),
            Poll::Pending => None,
        }
    }

    fn message(number: usize) -> Bytes {
        Bytes::from(vec![number as u8; 5 + number])
    }

    /// One attempt ends after it has sent `cut` of ten messages, of which the caller has written `written` by then.
    #[test]
    fn the_next_attempt_sends_each_message_once_in_order_from_every_cut_point() {
        for written in 0..=10 {
            for cut in 0..=written {
                let (mut writer, body, _) = piped(1 << 18, 1 << 20);
                let mut first = body.open(A);
                for number in 0..written {
                    writer.write(message(number));
                    if number < cut {
                        assert_eq!(take(&mut first), message(number));
                    }
                }
                assert!(body.close(A));
                let mut second = body.open(B);
                let mut sent = Vec::new();
                for number in written..=10 {
                    while let Poll::Ready(Some(Ok(frame))) = poll(&mut second) {
                        sent.extend(frame.into_data().expect("data"));
                    }
                    match number {
                        10 => writer.finish(None),
                        _ => writer.write(message(number)),
                    }
                }
                let all: Vec<u8> = (0..10).flat_map(message).collect();
                assert_eq!(sent, all, "{written} {cut}");
                assert!(is_at_end(&mut second) && second.is_end_stream());
                assert_eq!(failure(&mut first), Code::CANCELLED);
            }
        }
    }

    /// Three attempts, whose steps a sequence of numbers mixes with the writes of the caller and one commit.
    #[test]
    fn attempts_that_overlap_send_the_same_whatever_their_order() {
        let all: Vec<u8> = (0..10).flat_map(message).collect();
        for seed in 0..2_000_u64 {
            let (mut writer, mut body, budget) = piped(1 << 18, 1 << 20);
            let mut bodies: Vec<_> = (0..3).map(|id| body.open(AttemptId(id))).collect();
            let mut sent = [Vec::new(), Vec::new(), Vec::new()];
            let (mut number, mut written, mut winner) = (seed, 0, None);
            for step in 0..100 {
                // Constants of Knuth's generator (MMIX).
                number = number
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                match (number >> 33) % 5 {
                    3 if written < 10 => {
                        writer.write(message(written));
                        written += 1;
                    }
                    3 => writer.finish(None),
                    4 if step > 20 && winner.is_none() => {
                        let id = (number >> 40) as usize % 3;
                        assert!(body.commit(AttemptId(id as u32)));
                        winner = Some(id);
                    }
                    id @ 0..3 if winner.is_none_or(|winner| winner == id as usize) => {
                        let id = id as usize;
                        if let Poll::Ready(Some(frame)) = poll(&mut bodies[id]) {
                            let frame = frame.expect("nothing fails here");
                            sent[id].extend(frame.into_data().expect("data"));
                        }
                    }
                    _ => {}
                }
            }
            (written..10).for_each(|number| writer.write(message(number)));
            writer.finish(None);
            for (id, body) in bodies.iter_mut().enumerate() {
                if winner.is_some_and(|winner| winner != id) {
                    assert!(matches!(poll(body), Poll::Ready(None | Some(Err(_)))));
                    continue;
                }
                sent[id].extend(rest(body));
                assert_eq!(sent[id], all, "seed {seed}, attempt {id}");
            }
            drop((body, bodies));
            assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        }
    }
    #[test]
    fn a_request_that_exceeds_its_buffer_commits_the_attempt_that_is_ahead() {
        for (call_max, max) in [(300, 10_000), (10_000, 300)] {
            let (mut writer, mut body, budget) = piped(call_max, max);
            let (mut first, mut second) = (body.open(A), body.open(B));
            for _ in 0..3 {
                writer.write(Bytes::from_static(&[7; 100]));
                take(&mut second);
            }
            assert_eq!(take(&mut first), [7; 100][..]);
            assert!(event(&body).is_none(), "300 bytes fit");
            writer.write(Bytes::from_static(&[8; 1]));
            assert_eq!(take(&mut second), [8; 1][..]);
            assert!(matches!(event(&body), Some(ReplayEvent::Committed(B))));
            assert_eq!(budget.used.load(Ordering::Relaxed), 0);
            assert_eq!(failure(&mut first), Code::CANCELLED);
            assert!(!body.commit(A) && body.commit(B));
            assert!(
                !body.close(B),
                "none can follow the attempt that is committed"
            );
            drop((first, body));
            writer.write(Bytes::from_static(&[9; 1]));
            writer.finish(None);
            assert_eq!(rest(&mut second), [9]);
        }
    }

    #[test]
    fn a_small_frame_counts_as_64_bytes() {
        let (mut writer, body, budget) = piped(1_000, 1_000);
        let mut first = body.open(A);
        for kept in 1..=15 {
            writer.write(Bytes::from_static(&[7; 5]));
            assert_eq!(take(&mut first).len(), 5);
            assert_eq!(budget.used.load(Ordering::Relaxed), 64 * kept);
        }
        writer.write(Bytes::from_static(&[7; 5]));
        take(&mut first);
        assert!(matches!(event(&body), Some(ReplayEvent::Committed(A))));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn after_the_commit_nothing_is_kept_but_the_frames_that_the_winner_has_not_sent() {
        let (mut writer, mut body, budget) = piped(1_000, 1_000);
        let (mut first, mut second) = (body.open(A), body.open(B));
        for _ in 0..3 {
            writer.write(Bytes::from_static(&[7; 100]));
            take(&mut first);
        }
        take(&mut second);
        let used = || budget.used.load(Ordering::Relaxed);
        assert_eq!(used(), 300);
        assert!(body.commit(B));
        assert_eq!(used(), 200);
        take(&mut second);
        assert_eq!(used(), 100);
        take(&mut second);
        assert_eq!(used(), 0);
        writer.write(Bytes::from_static(&[8; 500]));
        assert_eq!(take(&mut second).len(), 500);
        assert_eq!(used(), 0);
    }

    #[test]
    fn a_call_that_is_over_frees_its_buffer_and_its_writer() {
        for commits in [false, true] {
            let (mut writer, mut body, budget) = piped(1_000, 1_000);
            let mut first = body.open(A);
            writer.write(Bytes::from_static(&[7; 10]));
            take(&mut first);
            match commits {
                true => {
                    assert!(body.commit(A));
                    drop(first);
                    assert!(writer.is_closed());
                    drop(body);
                }
                // A connection can keep the body of an attempt for a moment.
                false => {
                    drop(body);
                    assert!(writer.is_closed());
                    assert_eq!(failure(&mut first), Code::CANCELLED);
                }
            }
            assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn nothing_is_read_before_an_attempt_asks_for_it() {
        let (reader, watch, mut writer) = {
            let (writer, reader) = pipe(10);
            let body = Body::pipe(reader);
            let watch = body.watch().expect("it is a pipe");
            (body, watch, writer)
        };
        let body = ReplayBody::new(reader, &ReplayBudget::with(1_000, 1_000));
        writer.write(Bytes::from_static(&[7; 10]));
        let (mut first, mut second) = (body.open(A), body.open(B));
        let cx = Context::from_waker(Waker::noop());
        assert!(!watch.is_empty() && writer.poll_ready(&cx).is_pending());
        take(&mut first);
        assert!(watch.is_empty() && writer.poll_ready(&cx).is_ready());
        writer.write(Bytes::from_static(&[7; 10]));
        take(&mut second);
        assert!(
            !watch.is_empty(),
            "the second attempt sends what the first has sent"
        );
    }

    #[test]
    fn a_failure_of_the_body_fails_the_call_and_all_attempts() {
        for reads in [false, true] {
            let (mut writer, body, _) = piped(1_000, 1_000);
            let (mut first, mut second) = (body.open(A), body.open(B));
            writer.write(Bytes::from_static(&[7; 10]));
            assert!(event(&body).is_none());
            drop(writer);
            if reads {
                take(&mut first);
                assert_eq!(failure(&mut first), Code::CANCELLED);
                take(&mut second);
                assert_eq!(failure(&mut second), Code::CANCELLED);
            }
            let Some(ReplayEvent::Failed(status)) = event(&body) else {
                panic!("no failure")
            };
            assert!(status.message().contains("Sender was dropped"));
        }
    }

    struct CountedWaker(AtomicU32);

    impl Wake for CountedWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn all_attempts_that_wait_for_a_frame_are_woken_and_the_owner_by_an_overflow() {
        let (mut writer, body, _) = piped(100, 100);
        let wakers: [_; 3] = std::array::from_fn(|_| Arc::new(CountedWaker(AtomicU32::new(0))));
        let [first, second, owner] = wakers.each_ref().map(|waker| Waker::from(waker.clone()));
        let mut bodies = [body.open(A), body.open(B)];
        for (body, waker) in bodies.iter_mut().zip([&first, &second]) {
            let mut cx = Context::from_waker(waker);
            assert!(Pin::new(&mut *body).poll_frame(&mut cx).is_pending());
            assert!(Pin::new(body).poll_frame(&mut cx).is_pending());
        }
        assert!(
            body.poll_event(&mut Context::from_waker(&owner))
                .is_pending()
        );
        let counts = || {
            wakers
                .each_ref()
                .map(|waker| waker.0.load(Ordering::Relaxed))
        };
        writer.write(Bytes::from_static(&[7; 100]));
        assert_eq!(counts(), [1, 1, 0]);
        take(&mut bodies[0]);
        assert_eq!(counts(), [1, 1, 0]);
        writer.write(Bytes::from_static(&[7; 100]));
        take(&mut bodies[0]);
        assert_eq!(counts(), [1, 1, 1]);
    }

    #[test]
    fn a_waiting_attempt_goes_on_when_another_takes_the_frame_and_when_it_is_committed() {
        let (mut writer, mut body, _) = piped(1_000, 1_000);
        let waker = Arc::new(CountedWaker(AtomicU32::new(0)));
        let (mut first, mut second) = (body.open(A), body.open(B));
        let wait = |body: &mut Body| {
            let waker = Waker::from(waker.clone());
            Pin::new(body)
                .poll_frame(&mut Context::from_waker(&waker))
                .is_pending()
        };
        assert!(wait(&mut first));
        writer.write(Bytes::from_static(&[7; 10]));
        take(&mut second);
        assert_eq!(waker.0.load(Ordering::Relaxed), 1);
        take(&mut first);
        assert!(wait(&mut first));
        assert!(body.commit(A));
        writer.write(Bytes::from_static(&[8; 10]));
        assert_eq!(waker.0.load(Ordering::Relaxed), 2);
        assert_eq!(take(&mut first), [8; 10][..]);
    }

    #[test]
    fn a_body_that_is_known_in_full_is_shared_and_counts() {
        let budget = ReplayBudget::with(10, 15);
        let used = || budget.used.load(Ordering::Relaxed);
        let data = Bytes::from_static(&[7; 10]);
        let mut body = ReplayBody::new(Body::full(data.clone(), None), &budget);
        assert!(body.fits() && used() == 10);
        for id in [A, B] {
            assert_eq!(take(&mut body.open(id)).as_ptr(), data.as_ptr());
        }
        let more = ReplayBody::new(Body::full(data, None), &budget);
        assert!(!more.fits() && used() == 10, "the channel has room for 15");
        assert_eq!(take(&mut more.open(A)).len(), 10);
        assert!(body.close(A) && body.commit(B) && used() == 0);
        let large = ReplayBody::new(Body::full(Bytes::from_static(&[7; 11]), None), &budget);
        assert!(!large.fits() && used() == 0);
    }
}
