//! Who is told of calls: a span of `tracing` for each, and a sink for metrics.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::time::Instant;
use tracing::field::{Empty, display};
use trunkline_codec::{Code, Status};
use trunkline_transport::{ConnectionStats, Peer};

use crate::call::head::Head;
use crate::call::response_handle::Handling;

/// What calls without a method of this server are called, so that clients cannot make up names of
/// metrics (gRFC A66, "Metrics", `grpc.method`).
const UNKNOWN_METHOD: &str = "other";

/// Takes the figures of calls: [`Channel::metrics`](crate::Channel::metrics) and
/// [`Server::metrics`](crate::Server::metrics) add one.
///
/// It is called where the call is, and has to be quick: what it does holds up the call. A call has
/// one beginning and one end, in this order, whatever becomes of it.
pub trait MetricsSink: Send + Sync + 'static {
    /// A call has begun: on a client when it is awaited, on a server when its head has arrived.
    /// `method` is as [`CallStats::method`].
    fn call_started(&self, side: Side, method: &str) {
        let _ = (side, method);
    }

    /// A call has ended.
    fn call_ended(&self, call: &CallStats<'_>);

    /// A connection of a server has ended: who was at the other end, and what passed on it. Those of
    /// a channel are asked for: [`Channel::connection_stats`](crate::Channel::connection_stats).
    fn connection_ended(&self, peer: &Peer, stats: &ConnectionStats) {
        let _ = (peer, stats);
    }
}

/// An end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Side {
    /// It makes the call.
    Client,
    /// It answers it.
    Server,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// The figures of a call that has ended.
pub struct CallStats<'a> {
    recorder: &'a Recorder,
    code: Code,
    duration: Duration,
}

impl CallStats<'_> {
    /// The end of the call at which these figures were taken.
    pub fn side(&self) -> Side {
        self.recorder.side
    }

    /// The path of the method, `/package.Service/Method`; `other` for a call that no method of the
    /// server answers.
    pub fn method(&self) -> &str {
        self.recorder.method()
    }

    /// How the call ended, as this side saw it. CANCELLED if the caller let go of it, or, on a
    /// server, if the client or its connection did.
    ///
    /// A deadline passes at both ends at the same time. The client is told DEADLINE_EXCEEDED and
    /// resets the stream; where the reset is there before the server has looked at its own clock,
    /// the server sees CANCELLED.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Messages sent: requests on a client, responses on a server.
    pub fn messages_sent(&self) -> u64 {
        self.recorder.sent.messages.load(Ordering::Relaxed)
    }

    /// Bytes of those messages with their prefixes, compressed if they went so.
    pub fn bytes_sent(&self) -> u64 {
        self.recorder.sent.bytes.load(Ordering::Relaxed)
    }

    /// Messages received.
    pub fn messages_received(&self) -> u64 {
        self.recorder.received.messages.load(Ordering::Relaxed)
    }

    /// Bytes of messages received, with their prefixes, as they came.
    pub fn bytes_received(&self) -> u64 {
        self.recorder.received.bytes.load(Ordering::Relaxed)
    }

    /// From the beginning until the stream was open: a client's wait for a connection, and for a
    /// stream on it. None on a server, and if it never was.
    pub fn time_to_stream(&self) -> Option<Duration> {
        self.recorder.stream.passed()
    }

    /// From the beginning until the head of the response was there: received on a client, made on a
    /// server. None if it never was.
    pub fn time_to_head(&self) -> Option<Duration> {
        self.recorder.head.passed()
    }

    /// From the beginning to the end: on a client until the caller knows it, on a server until the
    /// response is complete, which HTTP/2 may still have to send.
    pub fn duration(&self) -> Duration {
        self.duration
    }
}

impl fmt::Debug for CallStats<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallStats")
            .field("side", &self.side())
            .field("method", &self.method())
            .field("code", &self.code())
            .field("messages_sent", &self.messages_sent())
            .field("bytes_sent", &self.bytes_sent())
            .field("messages_received", &self.messages_received())
            .field("bytes_received", &self.bytes_received())
            .field("time_to_stream", &self.time_to_stream())
            .field("time_to_head", &self.time_to_head())
            .field("duration", &self.duration())
            .finish()
    }
}

/// The sink of a channel or a server, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Metrics(Option<Arc<dyn MetricsSink>>);

impl Metrics {
    pub(crate) fn set(&mut self, sink: impl MetricsSink) {
        self.0 = Some(Arc::new(sink));
    }

    /// A recorder for a call, if anybody wants to know of it. With neither a sink nor a subscriber
    /// this is two comparisons.
    pub(crate) fn record(&self, side: Side, head: Option<&Head>) -> Option<Arc<Recorder>> {
        match self.is_watched() {
            false => None,
            true => Some(Recorder::begin(self.0.clone(), side, head)),
        }
    }

    pub(crate) fn connection_ended(&self, peer: &Peer, stats: &ConnectionStats) {
        if let Some(sink) = &self.0 {
            sink.connection_ended(peer, stats);
        }
    }

    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.0.is_some() || tracing::enabled!(target: "trunkline::call", tracing::Level::INFO)
    }
}

/// Takes down what happens to one call. The halves of a call share it; when it is dropped before
/// the call has ended, somebody has let go of the call.
pub(crate) struct Recorder {
    side: Side,
    /// None if it is not a method of this server.
    path: Option<PathAndQuery>,
    began: Instant,
    sink: Option<Arc<dyn MetricsSink>>,
    span: tracing::Span,
    sent: Traffic,
    received: Traffic,
    stream: Moment,
    head: Moment,
    deadline: Option<Instant>,
    has_ended: AtomicBool,
}

#[derive(Default)]
struct Traffic {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// When something happened first, in nanoseconds after the beginning; 0 if it has not.
#[derive(Default)]
struct Moment(AtomicU64);

impl Moment {
    fn mark(&self, began: Instant) {
        if self.0.load(Ordering::Relaxed) == 0 {
            let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.0.store(nanos.max(1), Ordering::Relaxed);
        }
    }

    fn passed(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

impl Recorder {
    #[cold]
    fn begin(sink: Option<Arc<dyn MetricsSink>>, side: Side, head: Option<&Head>) -> Arc<Self> {
        let path = head.map(|head| head.path.clone());
        let recorder = Self {
            span: span(side, path.as_ref(), head.and_then(Head::peer)),
            side,
            path,
            began: Instant::now(),
            sink,
            sent: Traffic::default(),
            received: Traffic::default(),
            stream: Moment::default(),
            head: Moment::default(),
            deadline: head.and_then(|head| head.deadline),
            has_ended: AtomicBool::new(false),
        };
        if let Some(sink) = &recorder.sink {
            sink.call_started(side, recorder.method());
        }
        Arc::new(recorder)
    }

    fn method(&self) -> &str {
        self.path
            .as_ref()
            .map_or(UNKNOWN_METHOD, PathAndQuery::as_str)
    }

    /// The span of the call: what is logged inside belongs to it.
    #[cold]
    pub(crate) fn within<T>(&self, run: impl FnOnce() -> T) -> T {
        self.span.in_scope(run)
    }

    /// A message of `bytes`, with its prefix, goes out.
    #[cold]
    pub(crate) fn message_sent(&self, bytes: usize) {
        self.sent.messages.fetch_add(1, Ordering::Relaxed);
        self.sent.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    #[cold]
    pub(crate) fn message_received(&self) {
        self.received.messages.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of messages have come.
    #[cold]
    pub(crate) fn data_received(&self, bytes: usize) {
        self.received
            .bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn stream_opened(&self) {
        self.stream.mark(self.began);
    }

    pub(crate) fn head_seen(&self) {
        self.head.mark(self.began);
    }

    /// What is received has ended, which is the end of the call on a client.
    pub(crate) fn received_all(&self, code: Code) {
        if self.side == Side::Client {
            self.end(code);
        }
    }

    /// Nobody reads any more what is received.
    #[cold]
    pub(crate) fn reader_gone(&self) {
        if self.side == Side::Client {
            self.let_go();
        }
    }

    /// The first end that is told counts.
    pub(crate) fn end(&self, code: Code) {
        if self.has_ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let stats = CallStats {
            recorder: self,
            code,
            duration: self.began.elapsed(),
        };
        self.write_span(&stats);
        if let Some(sink) = &self.sink {
            sink.call_ended(&stats);
        }
    }

    /// Nobody is at work on the call any more: if it has not ended, this is its end.
    pub(crate) fn let_go(&self) {
        let has_passed = self.deadline.is_some_and(|at| at <= Instant::now());
        self.end(match has_passed {
            true => Code::DEADLINE_EXCEEDED,
            false => Code::CANCELLED,
        });
    }

    fn write_span(&self, stats: &CallStats<'_>) {
        let span = &self.span;
        if span.is_disabled() {
            return;
        }
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        span.record("rpc.grpc.status_code", stats.code().as_i32());
        span.record("status", display(stats.code()));
        span.record("sent.messages", stats.messages_sent());
        span.record("sent.bytes", stats.bytes_sent());
        span.record("received.messages", stats.messages_received());
        span.record("received.bytes", stats.bytes_received());
        if let Some(time) = stats.time_to_stream() {
            span.record("stream_us", micros(time));
        }
        if let Some(time) = stats.time_to_head() {
            span.record("head_us", micros(time));
        }
        span.record("total_us", micros(stats.duration()));
    }
}

/// A handler whose call is recorded: it is polled in its span, and a call whose handler is dropped has
/// an end all the same.
#[cold]
pub(crate) fn watch(recorder: Arc<Recorder>, mut handling: Handling) -> Handling {
    Box::pin(async move {
        let mut guard = LetGo(Some(recorder.clone()));
        let outcome = poll_fn(|cx| recorder.within(|| handling.as_mut().poll(cx))).await;
        guard.0.take();
        outcome
    })
}

struct LetGo(Option<Arc<Recorder>>);

impl Drop for LetGo {
    fn drop(&mut self) {
        match &self.0 {
            Some(recorder) if std::thread::panicking() => recorder.end(Code::INTERNAL),
            Some(recorder) => recorder.let_go(),
            None => {}
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Names as in OpenTelemetry's conventions for RPC, where there are any.
fn span(side: Side, path: Option<&PathAndQuery>, peer: Option<&Peer>) -> tracing::Span {
    let path = path.map_or(UNKNOWN_METHOD, PathAndQuery::as_str);
    let (service, method) = path
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .unwrap_or(("", path));
    tracing::info_span!(
        target: "trunkline::call",
        "grpc.call",
        otel.kind = side.name(),
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        peer = peer.map(|peer| display(peer.remote())),
        rpc.grpc.status_code = Empty,
        status = Empty,
        sent.messages = Empty,
        sent.bytes = Empty,
        received.messages = Empty,
        received.bytes = Empty,
        stream_us = Empty,
        head_us = Empty,
        total_us = Empty,
    )
}

/// What an end is called.
pub(crate) fn code_of(end: &Result<(), Status>) -> Code {
    end.as_ref().err().map_or(Code::OK, Status::code)
}
