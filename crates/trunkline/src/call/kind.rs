//! The two sides and the four kinds of a call.

use trunkline_codec::Expect;

/// A side of a call: the client or the server.
///
/// ```
/// use trunkline::{Context, Next, Result, Side};
///
/// async fn trace(mut cx: Context, next: Next) -> Result<()> {
///     if cx.side() == Side::Client {
///         cx.metadata_mut().insert("x-trace", "1")?;
///     }
///     next.run(&mut cx).await
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Side {
    /// The side that makes the call.
    Client,
    /// The side that handles the call.
    Server,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// The kind of a call: a single message or a stream of messages in each direction.
///
/// ```
/// use trunkline::CallKind;
///
/// assert!(CallKind::BidiStreaming.is_client_streaming());
/// assert!(!CallKind::Unary.is_server_streaming());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// One request and one response.
    Unary,
    /// A stream of requests and one response.
    ClientStreaming,
    /// One request and a stream of responses.
    ServerStreaming,
    /// A stream of requests and a stream of responses.
    BidiStreaming,
}

impl CallKind {
    pub(crate) fn new(requests: Expect, responses: Expect) -> Self {
        match (requests, responses) {
            (Expect::One, Expect::One) => Self::Unary,
            (Expect::Many, Expect::One) => Self::ClientStreaming,
            (Expect::One, Expect::Many) => Self::ServerStreaming,
            (Expect::Many, Expect::Many) => Self::BidiStreaming,
        }
    }

    pub(crate) fn responses(self) -> Expect {
        match self.is_server_streaming() {
            true => Expect::Many,
            false => Expect::One,
        }
    }

    /// Returns true if the requests are a stream.
    pub fn is_client_streaming(self) -> bool {
        matches!(self, Self::ClientStreaming | Self::BidiStreaming)
    }

    /// Returns true if the responses are a stream.
    pub fn is_server_streaming(self) -> bool {
        matches!(self, Self::ServerStreaming | Self::BidiStreaming)
    }
}
