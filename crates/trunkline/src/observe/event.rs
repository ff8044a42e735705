//! The events of a call, and which of them an observer wants.

use std::ops::BitOr;

use trunkline_codec::{Metadata, Payload, Status};

use crate::observe::call::CallStats;

/// The kinds of events that a [`CallObserver`](crate::observe::CallObserver) wants, joined with `|`.
///
/// Each kind includes [`ENDS`](Self::ENDS).
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
    /// The end of the call: [`CallEvent::Ended`], which every observer is told.
    pub const ENDS: Self = Self(0);
    /// The attempts of a client: [`CallEvent::AttemptStarted`], [`CallEvent::AttemptOpened`],
    /// [`CallEvent::AttemptEnded`].
    pub const ATTEMPTS: Self = Self(1);
    /// Metadata: [`CallEvent::Head`] and [`CallEvent::Trailers`].
    pub const HEADS: Self = Self(1 << 1);
    /// Messages, with their sizes: [`CallEvent::Message`] and [`CallEvent::HalfClosed`].
    pub const MESSAGES: Self = Self(1 << 2);
    /// Messages with their bytes. Each message that is sent is encoded a second time for it.
    pub const PAYLOADS: Self = Self(Self::MESSAGES.0 | 1 << 3);
    /// Everything, the bytes of messages included.
    pub const ALL: Self = Self(u8::MAX);

    /// True if everything in `other` is wanted.
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

/// A direction of a call, as the observed side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Direction {
    /// Sent by this side: requests on a client, responses on a server.
    Sent,
    /// Received by this side.
    Received,
}

/// An event of a call. Both sides have the same events, except that only a client makes attempts.
///
/// New kinds and new fields may be added: match with `_` and `..`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum CallEvent<'a> {
    /// A client begins an attempt: it waits for a connection, and for a stream on it.
    #[non_exhaustive]
    AttemptStarted {
        /// The number of the attempt, from 1.
        attempt: u32,
        /// True for a transparent retry: the server has not processed the attempt before.
        is_transparent: bool,
    },
    /// The attempt has a stream, and its head is on the way to the server.
    #[non_exhaustive]
    AttemptOpened {
        /// The number of the attempt, from 1.
        attempt: u32,
    },
    /// The head of the request or of the response. A client sends one for each attempt, after its interceptors
    /// have run.
    #[non_exhaustive]
    Head {
        /// Sent or received.
        direction: Direction,
        /// The metadata of the head.
        metadata: &'a Metadata,
    },
    /// A message: told when it was encoded, or when it was decompressed. A message that a transparent retry
    /// sends again is told once; a message that is refused for its size is not told.
    #[non_exhaustive]
    Message {
        /// Sent or received.
        direction: Direction,
        /// The number of the message in its direction, from 0.
        number: u64,
        /// The size of the encoded message in bytes, before compression.
        size: usize,
        /// The size of the message in bytes as it travels, without the five bytes in front of it.
        wire_size: usize,
        /// True if the message travels compressed.
        is_compressed: bool,
        /// The encoded message, before compression; none unless [`Wants::PAYLOADS`] was wanted.
        payload: Option<&'a Payload>,
    },
    /// The client has no more requests.
    #[non_exhaustive]
    HalfClosed {
        /// Sent by a client, received by a server.
        direction: Direction,
    },
    /// The trailers, sent by a server and received by a client. A response that fails at once has no head, and its
    /// metadata is here.
    #[non_exhaustive]
    Trailers {
        /// Sent or received.
        direction: Direction,
        /// The metadata of the trailers, without the status.
        metadata: &'a Metadata,
    },
    /// A client's attempt has ended, before interceptors have changed its status.
    #[non_exhaustive]
    AttemptEnded {
        /// The number of the attempt, from 1.
        attempt: u32,
        /// The status of an attempt that failed; none for OK.
        error: Option<&'a Status>,
    },
    /// The call has ended. This is the last event, and it is told exactly once.
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
