//! The observers of a channel or a server, and the recorder of an observed call.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::time::Instant;
use trunkline_codec::frame::PREFIX_SIZE;
use trunkline_codec::{Metadata, Payload, Status};
use trunkline_transport::{ConnectionStats, Peer, catch_panic};

use crate::call::handling::Handling;
use crate::call::head::Head;
use crate::call::kind::{CallKind, Side};
use crate::observe::call::{CallStart, CallStats};
use crate::observe::event::{CallEvent, Direction, Wants};
use crate::observe::{AnyObserver, CallObserver, ConnectionEnd, Observer, span};

/// The method of a call without a method on the server, so clients cannot invent names of metrics
/// (gRFC A66, "Metrics", `grpc.method`).
const UNKNOWN_METHOD: &str = "other";

/// Set in [`Recorder::telling`] when the call has ended. The lower bits count the events being reported.
const ENDED: u32 = 1 << 31;

/// The number of the next call.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The observers of a channel or a server, in the order in which they were added.
#[derive(Clone, Default)]
pub(crate) struct Observers(Option<Arc<[Arc<dyn AnyObserver>]>>);

/// The properties of a call that begins.
pub(crate) struct Subject<'a> {
    pub(crate) side: Side,
    /// `None` if it is unknown.
    pub(crate) kind: Option<CallKind>,
    pub(crate) is_registered: bool,
    /// `None` for a call that a server refuses.
    pub(crate) head: Option<&'a Head>,
}

impl Observers {
    pub(crate) fn add(&mut self, observer: impl Observer) {
        let added: Arc<dyn AnyObserver> = Arc::new(observer);
        let before = self.all().iter().cloned();
        self.0 = Some(before.chain([added]).collect());
    }

    /// Returns a recorder for a call that is observed. Without an observer and a subscriber this is two
    /// comparisons.
    #[inline]
    pub(crate) fn record(&self, subject: Subject<'_>) -> Option<Arc<Recorder>> {
        match self.is_watched() {
            false => None,
            true => Some(self.begin(&subject)),
        }
    }

    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.0.is_some() || tracing::enabled!(target: "trunkline::call", tracing::Level::INFO)
    }

    pub(crate) fn connection_ended(&self, peer: &Peer, stats: &ConnectionStats) {
        let end = ConnectionEnd {
            peer,
            stats: *stats,
        };
        for observer in self.all() {
            caught(|| observer.connection_ended(&end));
        }
    }

    fn all(&self) -> &[Arc<dyn AnyObserver>] {
        self.0.as_deref().unwrap_or_default()
    }

    #[cold]
    fn begin(&self, subject: &Subject<'_>) -> Arc<Recorder> {
        let head = subject.head;
        let path = head.map(|head| head.path.clone());
        let mut recorder = Recorder {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            side: subject.side,
            kind: subject.kind,
            is_registered: subject.is_registered,
            span: span::of_call(subject.side, path.as_ref(), head.and_then(Head::peer)),
            path,
            started: Instant::now(),
            deadline: head.and_then(|head| head.deadline),
            observers: Vec::new(),
            wants: Wants::ENDS,
            sent: Traffic::default(),
            received: Traffic::default(),
            stream_opened: FirstTime::default(),
            head_done: FirstTime::default(),
            attempts: AtomicU32::new(0),
            current_attempt: AtomicU32::new(0),
            has_ended: AtomicBool::new(false),
            telling: AtomicU32::new(0),
            end: Mutex::new(None),
        };
        let empty = Metadata::new();
        let start = CallStart {
            recorder: &recorder,
            head,
            metadata: head.map_or(&empty, Head::metadata),
        };
        let observers = self.all().iter();
        let observers: Vec<_> = observers
            .filter_map(|it| Observing::new(&**it, &start))
            .collect();
        for observing in &observers {
            recorder.wants = recorder.wants | observing.wants;
        }
        recorder.observers = observers;
        Arc::new(recorder)
    }
}

/// One observer of one call.
struct Observing {
    observer: Box<dyn CallObserver>,
    wants: Wants,
    has_panicked: AtomicBool,
}

impl Observing {
    fn new(observer: &dyn AnyObserver, start: &CallStart<'_>) -> Option<Self> {
        let observing = caught(|| {
            let observer = observer.call(start)?;
            Some((observer.wants(), observer))
        });
        let (wants, observer) = observing??;
        Some(Self {
            observer,
            wants,
            has_panicked: AtomicBool::new(false),
        })
    }

    fn tell(&self, at: Instant, event: &CallEvent<'_>) {
        if !self.wants.contains(event.kind()) || self.has_panicked.load(Ordering::Relaxed) {
            return;
        }
        let event = match event {
            CallEvent::Message {
                direction,
                number,
                size,
                wire_size,
                is_compressed,
                payload: Some(_),
            } if !self.wants.contains(Wants::PAYLOADS) => &CallEvent::Message {
                direction: *direction,
                number: *number,
                size: *size,
                wire_size: *wire_size,
                is_compressed: *is_compressed,
                payload: None,
            },
            event => event,
        };
        if caught(|| self.observer.event(at.into_std(), event)).is_none() {
            self.has_panicked.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs code of an observer, and catches panics, which must not end the connection and its other calls.
fn caught<T>(run: impl FnOnce() -> T) -> Option<T> {
    catch_panic(run)
        .inspect_err(|panic| {
            tracing::error!(target: "trunkline::call", panic = panic.text(), "an observer panicked");
        })
        .ok()
}

/// The recorder of one call, shared by the halves of the call. Dropping it before the end of the call records that
/// the call was dropped.
pub(crate) struct Recorder {
    pub(super) id: u64,
    pub(super) side: Side,
    pub(super) kind: Option<CallKind>,
    pub(super) is_registered: bool,
    /// `None` if the server has no such method.
    path: Option<PathAndQuery>,
    pub(super) started: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) span: tracing::Span,
    observers: Vec<Observing>,
    /// Wanted by any of the observers.
    wants: Wants,
    pub(super) sent: Traffic,
    pub(super) received: Traffic,
    pub(super) stream_opened: FirstTime,
    pub(super) head_done: FirstTime,
    /// The number of the last attempt; 0 before the first.
    attempts: AtomicU32,
    /// The number of the attempt whose end the receiving half reports; 0 without one.
    current_attempt: AtomicU32,
    /// Set by the first end that is reported; later ends are ignored.
    has_ended: AtomicBool,
    telling: AtomicU32,
    /// The end, until other threads have reported their events.
    end: Mutex<Option<End>>,
}

struct End {
    error: Option<Status>,
    at: Instant,
}

/// The messages and bytes of one direction.
#[derive(Default)]
pub(super) struct Traffic {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Traffic {
    pub(super) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the number of the message.
    fn add_message(&self) -> u64 {
        self.messages.fetch_add(1, Ordering::Relaxed)
    }

    fn add_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The time from the start of the call to the first occurrence of an event, in nanoseconds; 0 before that.
#[derive(Default)]
pub(super) struct FirstTime(AtomicU64);

impl FirstTime {
    fn record(&self, started: Instant) {
        if self.0.load(Ordering::Relaxed) == 0 {
            let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.0.store(nanos.max(1), Ordering::Relaxed);
        }
    }

    pub(super) fn after_start(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

/// The sizes of a message, in bytes, without its prefix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageSize {
    /// Before compression.
    pub(crate) size: usize,
    /// On the wire.
    pub(crate) wire_size: usize,
    pub(crate) is_compressed: bool,
}

impl MessageSize {
    /// Returns the sizes of a message of `size` bytes that is encoded in `frame`.
    #[cold]
    pub(crate) fn of_frame(size: usize, frame: &Payload) -> Self {
        let prefix = frame.pieces().next();
        Self {
            size,
            wire_size: frame.len().saturating_sub(PREFIX_SIZE),
            is_compressed: prefix.is_some_and(|prefix| prefix.first() == Some(&1)),
        }
    }

    /// Returns the sizes of an uncompressed message.
    pub(crate) fn plain(size: usize) -> Self {
        Self {
            size,
            wire_size: size,
            is_compressed: false,
        }
    }
}

impl Recorder {
    pub(super) fn method(&self) -> &str {
        self.path.as_ref().map_or(UNKNOWN_METHOD, |path| {
            let path = path.as_str();
            path.strip_prefix('/').unwrap_or(path)
        })
    }

    pub(super) fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Returns true if an observer receives each message.
    pub(crate) fn wants_messages(&self) -> bool {
        self.wants.contains(Wants::MESSAGES)
    }

    /// Returns true if an observer receives the bytes of messages.
    pub(crate) fn wants_payloads(&self) -> bool {
        self.wants.contains(Wants::PAYLOADS)
    }

    /// Runs code in the span of the call, so its log events belong to the call.
    #[cold]
    pub(crate) fn within<T>(&self, run: impl FnOnce() -> T) -> T {
        self.span.in_scope(run)
    }

    /// Records that a message was encoded to be sent.
    #[cold]
    pub(crate) fn message_sent(&self, message: MessageSize, payload: Option<&Payload>) {
        self.sent.add_bytes(PREFIX_SIZE + message.wire_size);
        let number = self.sent.add_message();
        self.tell_message(Direction::Sent, number, message, payload);
    }

    /// Records that a message was received and decompressed. Its bytes were counted on arrival.
    #[cold]
    pub(crate) fn message_received(&self, message: MessageSize, payload: Option<&Payload>) {
        let number = self.received.add_message();
        self.tell_message(Direction::Received, number, message, payload);
    }

    fn tell_message(
        &self,
        direction: Direction,
        number: u64,
        message: MessageSize,
        payload: Option<&Payload>,
    ) {
        self.tell(&CallEvent::Message {
            direction,
            number,
            size: message.size,
            wire_size: message.wire_size,
            is_compressed: message.is_compressed,
            payload,
        });
    }

    /// Records bytes of messages on arrival.
    #[cold]
    pub(crate) fn data_received(&self, bytes: usize) {
        self.received.add_bytes(bytes);
    }

    /// Records a new attempt, and returns its number.
    #[cold]
    pub(crate) fn attempt_started(&self, is_transparent: bool) -> u32 {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        self.current_attempt.store(attempt, Ordering::Relaxed);
        self.tell(&CallEvent::AttemptStarted {
            attempt,
            is_transparent,
        });
        attempt
    }

    /// Records that an attempt has a stream and has sent its head.
    #[cold]
    pub(crate) fn attempt_opened(&self, attempt: u32, metadata: &Metadata) {
        self.stream_opened.record(self.started);
        self.tell(&CallEvent::AttemptOpened { attempt });
        self.head_sent(metadata);
    }

    /// Records the end of an attempt that is not the end of the call.
    #[cold]
    pub(crate) fn attempt_ended(&self, attempt: u32, error: &Status) {
        let _is_other =
            self.current_attempt
                .compare_exchange(attempt, 0, Ordering::Relaxed, Ordering::Relaxed);
        let error = Some(error);
        self.tell(&CallEvent::AttemptEnded { attempt, error });
    }

    /// Takes note of the attempt whose response is that of the call.
    #[cold]
    pub(crate) fn attempt_committed(&self, attempt: u32) {
        self.current_attempt.store(attempt, Ordering::Relaxed);
    }

    /// Records the end of the attempt that is the end of the call, if there is one.
    fn last_attempt_ended(&self, error: Option<&Status>) {
        let attempt = self.current_attempt.swap(0, Ordering::Relaxed);
        if attempt > 0 {
            self.tell(&CallEvent::AttemptEnded { attempt, error });
        }
    }

    /// Records the head that this side sends.
    #[cold]
    pub(crate) fn head_sent(&self, metadata: &Metadata) {
        if self.side == Side::Server {
            self.head_done.record(self.started);
        }
        self.tell(&CallEvent::Head {
            direction: Direction::Sent,
            metadata,
        });
    }

    /// Records the head that this side has received.
    #[cold]
    pub(crate) fn head_received(&self, metadata: &Metadata) {
        if self.side == Side::Client {
            self.head_done.record(self.started);
        }
        self.tell(&CallEvent::Head {
            direction: Direction::Received,
            metadata,
        });
    }

    /// Records the trailers that a server sends, which replace a head that was not sent.
    #[cold]
    pub(crate) fn trailers_sent(&self, metadata: &Metadata) {
        self.head_done.record(self.started);
        self.tell(&CallEvent::Trailers {
            direction: Direction::Sent,
            metadata,
        });
    }

    /// Records the end of the received stream: the half-close on a server, the end of the attempt on a client.
    #[cold]
    pub(crate) fn receive_ended(&self, error: Option<&Status>, trailers: Option<&Metadata>) {
        match self.side {
            Side::Server if error.is_none() => self.half_closed(),
            Side::Server => {}
            Side::Client => {
                if let Some(metadata) = trailers {
                    self.tell(&CallEvent::Trailers {
                        direction: Direction::Received,
                        metadata,
                    });
                }
                self.last_attempt_ended(error);
            }
        }
    }

    /// Records the end of the requests.
    #[cold]
    pub(crate) fn half_closed(&self) {
        self.tell(&CallEvent::HalfClosed {
            direction: match self.side {
                Side::Client => Direction::Sent,
                Side::Server => Direction::Received,
            },
        });
    }

    /// Records that the receiving half was dropped.
    #[cold]
    pub(crate) fn receiver_dropped(&self) {
        if self.side == Side::Client {
            self.dropped();
        }
    }

    /// Records the end of a client's call, unless it has ended.
    #[cold]
    pub(crate) fn client_ended(&self, error: Option<&Status>) {
        if self.side == Side::Client {
            self.end(error);
        }
    }

    /// Records that the call was dropped, which ends it if it has not ended.
    #[cold]
    pub(crate) fn dropped(&self) {
        if self.has_ended.load(Ordering::Relaxed) {
            return;
        }
        let has_passed = self.deadline.is_some_and(|at| at <= Instant::now());
        self.end(Some(&match has_passed {
            true => Status::deadline_exceeded("the deadline passed, and the call was dropped"),
            false => Status::cancelled("the call was dropped before it had ended"),
        }));
    }

    /// Records the end of the call, unless it has already ended.
    #[cold]
    pub(crate) fn end(&self, error: Option<&Status>) {
        if self.has_ended.swap(true, Ordering::Relaxed) {
            return;
        }
        self.last_attempt_ended(error);
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(End {
            error: error.cloned(),
            at: Instant::now(),
        });
        if self.telling.fetch_or(ENDED, Ordering::AcqRel) == 0 {
            self.tell_end();
        }
    }

    /// Reports an event to the observers that want it, unless the call has ended. No lock is held, because an
    /// observer can drop the call. An end that occurs meanwhile is reported after the event.
    fn tell(&self, event: &CallEvent<'_>) {
        if !self.wants.contains(event.kind()) {
            return;
        }
        if self.telling.fetch_add(1, Ordering::AcqRel) & ENDED == 0 {
            let at = Instant::now();
            for observing in &self.observers {
                observing.tell(at, event);
            }
        }
        if self.telling.fetch_sub(1, Ordering::AcqRel) == ENDED + 1 {
            self.tell_end();
        }
    }

    fn tell_end(&self) {
        let end = self
            .end
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(End { error, at }) = end else {
            return;
        };
        let stats = CallStats {
            recorder: self,
            error: error.as_ref(),
            duration: at.saturating_duration_since(self.started),
        };
        span::record_end(&self.span, &stats);
        for observing in &self.observers {
            observing.tell(at, &CallEvent::Ended(&stats));
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.dropped();
    }
}

/// Polls the handler of a recorded call in the span of the call. Dropping the handler records the end of the call.
#[cold]
pub(crate) fn observed(recorder: Arc<Recorder>, mut handling: Handling) -> Handling {
    Box::pin(async move {
        let mut guard = EndOnDrop(Some(recorder.clone()));
        let outcome = poll_fn(|cx| recorder.within(|| handling.as_mut().poll(cx))).await;
        guard.0.take();
        outcome
    })
}

/// Records the end of a call whose handler is dropped before it returns.
struct EndOnDrop(Option<Arc<Recorder>>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        match &self.0 {
            Some(recorder) if std::thread::panicking() => {
                recorder.end(Some(&Status::internal("the handler panicked")));
            }
            Some(recorder) => recorder.dropped(),
            None => {}
        }
    }
}
