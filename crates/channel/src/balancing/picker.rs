//! Pickers: immutable values that choose a subchannel for each attempt.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use trunkline_codec::{Metadata, Status};

use super::tracker::Tracking;
use crate::subchannel::Subchannel;

/// The choice of a balancer for the calls that follow, until it publishes another.
#[derive(Clone)]
pub enum Picker {
    /// No connection is wanted yet: a call asks the balancer to leave idleness, and waits.
    Idle,
    /// Calls wait until another picker is published.
    Wait,
    /// Fail-fast calls fail with the status; calls that wait for ready wait.
    Fail(Arc<Status>),
    /// All calls use one subchannel.
    One(Subchannel),
    /// Calls use several subchannels in turn.
    Turn(Arc<Turn>),
    /// The code of a policy chooses.
    Custom(Arc<dyn Pick>),
}

/// Chooses a subchannel for an attempt.
///
/// It runs in the task of the call, for each attempt, and must neither block nor do any I/O. A panic fails the call
/// with INTERNAL.
pub trait Pick: Send + Sync + 'static {
    /// Chooses a subchannel, or says why the call cannot have one now.
    fn pick(&self, call: &PickArgs<'_>) -> PickResult;
}

/// The attempt for which a subchannel is picked.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PickArgs<'a> {
    /// The path of the method, `/package.Service/Method`.
    pub path: &'a str,
    /// The metadata of the request.
    pub metadata: &'a Metadata,
    /// The number of earlier attempts of the same call that reached a server.
    pub previous_attempts: u32,
}

impl<'a> PickArgs<'a> {
    /// Creates the arguments of a first attempt.
    pub fn new(path: &'a str, metadata: &'a Metadata) -> Self {
        Self {
            path,
            metadata,
            previous_attempts: 0,
        }
    }
}

/// The result of a pick.
#[derive(Clone, Debug)]
pub enum PickResult {
    /// The attempt uses this subchannel. If the subchannel has just lost its connection, the call waits for the
    /// next picker and picks again.
    Use(Choice),
    /// The call waits for the next picker.
    Wait,
    /// The call fails, unless it waits for ready. Its code is restricted by gRFC A54.
    Fail(Arc<Status>),
    /// The call fails, even if it waits for ready, and is never retried.
    Drop(Arc<Status>),
}

/// A subchannel that was chosen for an attempt.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The subchannel.
    pub subchannel: Subchannel,
    /// Learns how the attempt ends.
    pub tracking: Option<Tracking>,
    /// Metadata that the attempt sends in addition to that of the call. Boxed, because few policies have any.
    pub metadata: Option<Box<Metadata>>,
}

impl Choice {
    /// Creates the choice of a subchannel, without a tracker or metadata.
    pub fn new(subchannel: Subchannel) -> Self {
        Self {
            subchannel,
            tracking: None,
            metadata: None,
        }
    }
}

impl From<Subchannel> for PickResult {
    fn from(subchannel: Subchannel) -> Self {
        Self::Use(Choice::new(subchannel))
    }
}

/// Subchannels that calls use in turn: the picker of round_robin.
#[derive(Debug)]
pub struct Turn {
    subchannels: Box<[Subchannel]>,
    next: Arc<AtomicUsize>,
}

impl Turn {
    /// Creates a picker of `subchannels`. It continues where `next` stands, which the pickers before and after it
    /// share, so that an update does not favor the first subchannel.
    pub fn new(subchannels: impl Into<Box<[Subchannel]>>, next: Arc<AtomicUsize>) -> Self {
        Self {
            subchannels: subchannels.into(),
            next,
        }
    }

    /// Returns all subchannels, beginning with the one whose turn it is.
    #[inline]
    pub fn from_next(&self) -> impl Iterator<Item = &Subchannel> {
        let len = self.subchannels.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed) % len.max(1);
        let (before, after) = self.subchannels.split_at(first);
        after.iter().chain(before)
    }

    /// Returns all subchannels.
    pub fn subchannels(&self) -> &[Subchannel] {
        &self.subchannels
    }
}

impl fmt::Debug for Picker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("Idle"),
            Self::Wait => f.write_str("Wait"),
            Self::Fail(status) => f.debug_tuple("Fail").field(status).finish(),
            Self::One(subchannel) => f.debug_tuple("One").field(subchannel).finish(),
            Self::Turn(turn) => f.debug_tuple("Turn").field(&turn.subchannels).finish(),
            Self::Custom(_) => f.write_str("Custom"),
        }
    }
}
