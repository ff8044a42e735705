//! A call as observers know it: when it begins, and when it has ended.

use std::fmt;
use std::time::{Duration, Instant};

use trunkline_codec::{Code, Metadata, Status};
use trunkline_transport::Peer;

use crate::call::deadline;
use crate::call::head::Head;
use crate::call::kind::{CallKind, Side};
use crate::observe::recorder::Recorder;

/// A call that begins.
pub struct CallStart<'a> {
    pub(super) recorder: &'a Recorder,
    pub(super) head: Option<&'a Head>,
    pub(super) metadata: &'a Metadata,
}

impl CallStart<'_> {
    /// The number of the call: unique within the process, and never 0.
    pub fn id(&self) -> u64 {
        self.recorder.id
    }

    /// The end of the call that is observed.
    pub fn side(&self) -> Side {
        self.recorder.side
    }

    /// The method: `package.Service/Method`, without a slash in front; `other` on a server for a call that
    /// none of its methods handles, so that clients cannot invent names.
    pub fn method(&self) -> &str {
        self.recorder.method()
    }

    /// True if the name of the method is known to the program: on a server a method of its services, on a
    /// client one whose path is [known at compile time](crate::Method::new), as in generated code.
    pub fn is_registered(&self) -> bool {
        self.recorder.is_registered
    }

    /// The kind of the method; none if it is not known, because the server refuses the call or a channel
    /// forwards it for a tower service.
    pub fn kind(&self) -> Option<CallKind> {
        self.recorder.kind
    }

    /// The two ends of the connection, on a server; none on a client, which has not chosen one yet, and for
    /// calls without a connection.
    pub fn peer(&self) -> Option<&Peer> {
        self.head.and_then(Head::peer)
    }

    /// The metadata of the request: on a server as it was received, on a client before interceptors have
    /// changed it. Empty for a call that the server refuses.
    pub fn metadata(&self) -> &Metadata {
        self.metadata
    }

    /// The time left until the deadline; zero if it has passed, none without a deadline.
    pub fn time_remaining(&self) -> Option<Duration> {
        deadline::remaining(self.recorder.deadline)
    }

    /// The moment at which the call began, from which all times in [`CallStats`] count.
    pub fn started_at(&self) -> Instant {
        self.recorder.started.into_std()
    }

    /// The span of the call for `tracing`, which has not been entered yet; disabled if no subscriber wants it.
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

/// The figures of a call that has ended.
pub struct CallStats<'a> {
    pub(super) recorder: &'a Recorder,
    pub(super) error: Option<&'a Status>,
    pub(super) duration: Duration,
}

impl CallStats<'_> {
    /// The number of the call, as [`CallStart::id`].
    pub fn id(&self) -> u64 {
        self.recorder.id
    }

    /// The end of the call at which these figures were taken.
    pub fn side(&self) -> Side {
        self.recorder.side
    }

    /// The method, as [`CallStart::method`]: `package.Service/Method`, or `other`.
    pub fn method(&self) -> &str {
        self.recorder.method()
    }

    /// The kind of the method, as [`CallStart::kind`].
    pub fn kind(&self) -> Option<CallKind> {
        self.recorder.kind
    }

    /// The code with which the call ended, as this side saw it. CANCELLED if the caller dropped the call, or,
    /// on a server, if the client cancelled it or its connection was lost.
    ///
    /// A deadline passes at both ends at the same time. The client ends with DEADLINE_EXCEEDED and resets the
    /// stream; if the reset arrives before the server has read its own clock, the server sees CANCELLED.
    pub fn code(&self) -> Code {
        self.error.map_or(Code::OK, Status::code)
    }

    /// The status of a call that failed, as this side saw it; none if the call ended with OK.
    pub fn error(&self) -> Option<&Status> {
        self.error
    }

    /// Attempts of the client at the call, transparent ones included; 0 on a server, and on a client for a call
    /// that failed before the first.
    pub fn attempts(&self) -> u32 {
        self.recorder.attempts()
    }

    /// Messages sent: requests on a client, responses on a server.
    pub fn messages_sent(&self) -> u64 {
        self.recorder.sent.messages()
    }

    /// Bytes of those messages as they were sent, after compression, with the five bytes in front of each.
    pub fn bytes_sent(&self) -> u64 {
        self.recorder.sent.bytes()
    }

    /// Messages received.
    pub fn messages_received(&self) -> u64 {
        self.recorder.received.messages()
    }

    /// Bytes of messages received, before they were decompressed, with the five bytes in front of each. It
    /// includes messages that were received in part, or refused for their size.
    pub fn bytes_received(&self) -> u64 {
        self.recorder.received.bytes()
    }

    /// The time from the beginning until the stream was open: a client's wait for a connection, and for a
    /// stream on it. None on a server, and if there never was one.
    pub fn time_to_stream(&self) -> Option<Duration> {
        self.recorder.stream_opened.after_start()
    }

    /// The time from the beginning until the head of the response was received by a client, or made by a
    /// server. None if there never was one.
    pub fn time_to_head(&self) -> Option<Duration> {
        self.recorder.head_done.after_start()
    }

    /// The time from the beginning to the end: on a client until the caller is told, on a server until the
    /// response is complete, which HTTP/2 may still have to send.
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
