//! The events of a call, and their selection by an observer.

use std::ops::BitOr;

use trunkline_codec::{Metadata, Payload, Status};

use crate::observe::call::CallStats;

/// The kinds of events that a [`CallObserver`](crate::observe::CallObserver) wants to receive. Combine
/// kinds with `|`.
///
/// Every value includes [`ENDS`](Self::ENDS).
///
/// ```
/// use trunkline::observe::Wants;
///
/// let wants = Wants::HEADS | Wants::MESSAGES;
/// assert!(wants.contains(Wants::HEADS) && !wants.contains(Wants::ATTEMPTS));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wants(u8);

impl Wants {
    /// The end of the call, [`CallEvent::Ended`], which every observer receives.
    pub const ENDS: Self = Self(0);
    /// The attempts of a client: [`CallEvent::AttemptStarted`], [`CallEvent::AttemptOpened`],
    /// [`CallEvent::AttemptEnded`].
    pub const ATTEMPTS: Self = Self(1);
    /// Metadata: [`CallEvent::Head`] and [`CallEvent::Trailers`].
    pub const HEADS: Self = Self(1 << 1);
    /// Messages, with their sizes: [`CallEvent::Message`] and [`CallEvent::HalfClosed`].
    pub const MESSAGES: Self = Self(1 << 2);
    /// The same events as [`MESSAGES`](Self::MESSAGES), but with the bytes of the messages. Each sent
    /// message is then encoded once more.
    pub const PAYLOADS: Self = Self(Self::MESSAGES.0 | 1 << 3);
    /// All events, including the bytes of messages.
    pub const ALL: Self = Self(u8::MAX);

    /// Returns true if all kinds in `other` are included.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Wants {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The direction of a message, a head or trailers, as the observed side sees it.
///
/// ```
/// use trunkline::observe::{CallEvent, Direction};
///
/// fn is_sent_message(event: &CallEvent<'_>) -> bool {
///     matches!(event, CallEvent::Message { direction: Direction::Sent, .. })
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Direction {
    /// Sent by this side: requests on a client, responses on a server.
    Sent,
    /// Received by this side.
    Received,
}

/// An event of a call. Both sides report the same events, except that only a client reports attempts.
///
/// Later versions can add kinds and fields, so match with `_` and `..`:
///
/// ```
/// use trunkline::observe::CallEvent;
///
/// fn print(event: &CallEvent<'_>) {
///     match event {
///         CallEvent::Message { number, size, .. } => println!("message {number}: {size} bytes"),
///         CallEvent::Ended(call) => println!("{}", call.code()),
///         _ => {}
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum CallEvent<'a> {
    /// A client begins an attempt: one try to make the call on a connection. It now waits for a
    /// connection and a stream.
    #[non_exhaustive]
    AttemptStarted {
        /// The number of the attempt, from 1.
        attempt: u32,
        /// True for a transparent retry: the server has not processed the previous attempt.
        is_transparent: bool,
    },
    /// The attempt has a stream, and its head is being sent to the server.
    #[non_exhaustive]
    AttemptOpened {
        /// The number of the attempt, from 1.
        attempt: u32,
    },
    /// The head of the request or of the response was sent or received. A client sends one for each
    /// attempt, with the changes that interceptors made to the metadata before
    /// [`Next::run`](crate::Next::run).
    #[non_exhaustive]
    Head {
        /// Sent or received.
        direction: Direction,
        /// The metadata of the head.
        metadata: &'a Metadata,
    },
    /// A message was encoded, or was received and decompressed.
    ///
    /// A message that a further attempt sends again, in a retry or a hedge, is reported only once. A message
    /// that is refused for its size is not reported.
    #[non_exhaustive]
    Message {
        /// Sent or received.
        direction: Direction,
        /// The position of the message in its direction, starting at 0.
        number: u64,
        /// The size of the encoded message in bytes, before compression.
        size: usize,
        /// The size of the message as it is transmitted, in bytes, without its five-byte prefix.
        wire_size: usize,
        /// True if the message is transmitted compressed.
        is_compressed: bool,
        /// The encoded message, uncompressed, if the observer wants [`Wants::PAYLOADS`].
        payload: Option<&'a Payload>,
    },
    /// The client has ended the stream of requests.
    #[non_exhaustive]
    HalfClosed {
        /// Sent by a client, received by a server.
        direction: Direction,
    },
    /// The trailers were sent by a server or received by a client. A response that fails immediately has
    /// only trailers and no head; the trailers then contain all metadata.
    #[non_exhaustive]
    Trailers {
        /// Sent or received.
        direction: Direction,
        /// The metadata of the trailers, without the status.
        metadata: &'a Metadata,
    },
    /// A client's attempt has ended. Interceptors can still change its status.
    #[non_exhaustive]
    AttemptEnded {
        /// The number of the attempt, from 1.
        attempt: u32,
        /// The status of a failed attempt, or `None` if the attempt ended with OK.
        error: Option<&'a Status>,
    },
    /// The call has ended. This is the last event, and it is reported exactly once.
    Ended(&'a CallStats<'a>),
}

impl CallEvent<'_> {
    pub(super) fn kind(&self) -> Wants {
        match self {
            Self::AttemptStarted { .. }
            | Self::AttemptOpened { .. }
            | Self::AttemptEnded { .. } => Wants::ATTEMPTS,
            Self::Head { .. } | Self::Trailers { .. } => Wants::HEADS,
            Self::Message { .. } | Self::HalfClosed { .. } => Wants::MESSAGES,
            Self::Ended(_) => Wants::ENDS,
        }
    }
}
