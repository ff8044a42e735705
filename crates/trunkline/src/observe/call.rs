//! The beginning and the figures of a call for observers.

use std::fmt;
use std::time::{Duration, Instant};

use trunkline_codec::{Code, Metadata, Status};
use trunkline_transport::Peer;

use crate::call::deadline;
use crate::call::head::Head;
use crate::call::kind::{CallKind, Side};
use crate::observe::recorder::Recorder;

/// A call that begins, as [`Observer::call`](crate::observe::Observer::call) receives it.
///
/// ```
/// use trunkline::observe::{CallObserver, CallStart, Observer};
///
/// struct Log;
///
/// impl Observer for Log {
///     fn call(&self, call: &CallStart<'_>) -> Option<impl CallObserver> {
///         println!("call {} of {}", call.id(), call.method());
///         None::<fn(std::time::Instant, &trunkline::observe::CallEvent<'_>)>
///     }
/// }
/// ```
pub struct CallStart<'a> {
    pub(super) recorder: &'a Recorder,
    pub(super) head: Option<&'a Head>,
    pub(super) metadata: &'a Metadata,
}

impl CallStart<'_> {
    /// Returns the number of the call, which is unique within the process and never 0.
    pub fn id(&self) -> u64 {
        self.recorder.id
    }

    /// Returns the side on which the call is observed: the client or the server.
    pub fn side(&self) -> Side {
        self.recorder.side
    }

    /// Returns the method, `package.Service/Method`, without a leading slash. On a server, it is `other`
    /// if the method does not exist, so that clients cannot create any number of metric names.
    pub fn method(&self) -> &str {
        self.recorder.method()
    }

    /// Returns true if the program defines the method: on a server, if a service has registered it; on a
    /// client, if it was created with [`Method::new`](crate::Method::new) and therefore has a constant path, as
    /// in generated code. It is false for a method whose path is not constant, such as one created from a
    /// `String` at run time.
    pub fn is_registered(&self) -> bool {
        self.recorder.is_registered
    }

    /// Returns the kind of the method. It is `None` if the kind is unknown, on a server that refuses the call.
    pub fn kind(&self) -> Option<CallKind> {
        self.recorder.kind
    }

    /// Returns the local and remote address of the connection on a server. It is always `None` on a client,
    /// where a call begins before a connection is selected, and for calls without a connection, such as
    /// in-process calls.
    pub fn peer(&self) -> Option<&Peer> {
        self.head.and_then(Head::peer)
    }

    /// Returns the metadata of the request: on a server as received, on a client before interceptors change
    /// it. It is empty for a call that the server refuses.
    pub fn metadata(&self) -> &Metadata {
        self.metadata
    }

    /// Returns the time until the deadline: zero if it has passed, `None` if the call has no deadline.
    pub fn time_remaining(&self) -> Option<Duration> {
        deadline::remaining(self.recorder.deadline)
    }

    /// Returns the moment at which the call began. The durations in [`CallStats`] count from this moment.
    pub fn started_at(&self) -> Instant {
        self.recorder.started.into_std()
    }

    /// Returns the `tracing` span of the call, which has not been entered yet. It is disabled if no
    /// subscriber is interested in it.
    pub fn span(&self) -> &tracing::Span {
        &self.recorder.span
    }
}

impl fmt::Debug for CallStart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallStart")
            .field("id", &self.id())
            .field("side", &self.side())
            .field("method", &self.method())
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}

/// Statistics of a call that has ended: its result, its duration, and the number and size of its
/// messages.
///
/// ```
/// use trunkline::observe::{self, CallStats};
///
/// fn log(call: &CallStats<'_>) {
///     println!("{}: {} in {:?}", call.method(), call.code(), call.duration());
/// }
///
/// let server = trunkline::Server::new().observe(observe::on_end(log));
/// ```
pub struct CallStats<'a> {
    pub(super) recorder: &'a Recorder,
    pub(super) error: Option<&'a Status>,
    pub(super) duration: Duration,
}

impl CallStats<'_> {
    /// Returns the number of the call; see [`CallStart::id`].
    pub fn id(&self) -> u64 {
        self.recorder.id
    }

    /// Returns the side on which the call was observed: the client or the server.
    pub fn side(&self) -> Side {
        self.recorder.side
    }

    /// Returns the method, `package.Service/Method` or `other`; see [`CallStart::method`].
    pub fn method(&self) -> &str {
        self.recorder.method()
    }

    /// Returns the kind of the method; see [`CallStart::kind`].
    pub fn kind(&self) -> Option<CallKind> {
        self.recorder.kind
    }

    /// Returns the code with which the call ended on this side. It is CANCELLED if the caller dropped the
    /// call or, on a server, if the client cancelled it or its connection was lost.
    ///
    /// When a deadline passes, the client ends the call with DEADLINE_EXCEEDED and resets the stream. On
    /// the server, the code is usually also DEADLINE_EXCEEDED, but CANCELLED if the reset arrives before
    /// the server has noticed the deadline.
    pub fn code(&self) -> Code {
        self.error.map_or(Code::OK, Status::code)
    }

    /// Returns the status of a failed call on this side, or `None` if the call ended with OK.
    pub fn error(&self) -> Option<&Status> {
        self.error
    }

    /// Returns the number of attempts that a client made: one, and one more for each retry, transparent or by a
    /// retry policy, and for each hedge. It is 0 on a server, and for a call that failed before its first
    /// attempt.
    pub fn attempts(&self) -> u32 {
        self.recorder.attempts()
    }

    /// Returns the number of messages sent: requests on a client, responses on a server.
    pub fn messages_sent(&self) -> u64 {
        self.recorder.sent.messages()
    }

    /// Returns the size in bytes of all messages sent, after compression, including the five-byte prefix
    /// of each message.
    pub fn bytes_sent(&self) -> u64 {
        self.recorder.sent.bytes()
    }

    /// Returns the number of messages received.
    pub fn messages_received(&self) -> u64 {
        self.recorder.received.messages()
    }

    /// Returns the size in bytes of all messages received, before decompression, including the five-byte
    /// prefix of each message. If a message was refused for its size, or only a part of it arrived, the
    /// bytes that arrived are counted.
    pub fn bytes_received(&self) -> u64 {
        self.recorder.received.bytes()
    }

    /// Returns the time until the stream of the call was open. In this time, a client waits for a
    /// connection and a stream. Returns `None` on a server, and if no stream was opened.
    pub fn time_to_stream(&self) -> Option<Duration> {
        self.recorder.stream_opened.after_start()
    }

    /// Returns the time until a client received the head of the response, or a server created it. Returns
    /// `None` if the response had no head.
    pub fn time_to_head(&self) -> Option<Duration> {
        self.recorder.head_done.after_start()
    }

    /// Returns the duration of the call: on a client until the caller receives the end, on a server until
    /// the response is complete. HTTP/2 may still be sending the response then.
    pub fn duration(&self) -> Duration {
        self.duration
    }
}

impl fmt::Debug for CallStats<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallStats")
            .field("id", &self.id())
            .field("side", &self.side())
            .field("method", &self.method())
            .field("code", &self.code())
            .field("attempts", &self.attempts())
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
