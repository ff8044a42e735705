//! Pickers: immutable values that choose a subchannel for each attempt.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use trunkline_codec::{Metadata, Status};

use super::tracker::Tracking;
use crate::subchannel::{Subchannel, SubchannelId};

/// The choice of a balancer for the calls that follow, until it publishes another.
#[derive(Clone)]
pub enum Picker {
    /// No connection is wanted yet: a call asks the balancer to leave idleness, and waits.
    Idle,
    /// Calls wait until another picker is published.
    Wait,
    /// Calls without wait-for-ready fail with the status, whose code is restricted as for [`PickResult::Fail`];
    /// the others wait for another picker.
    Fail(Arc<Status>),
    /// All calls use one subchannel.
    One(Subchannel),
    /// Calls use several subchannels in turn.
    RoundRobin(Arc<RoundRobinPicker>),
    /// The code of a policy chooses.
    Custom(Arc<dyn Pick>),
}

/// Chooses a subchannel for each attempt of a call.
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
    /// The call fails with the status, unless it waits for ready; it then waits for the next picker. The codes
    /// INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE and DATA_LOSS
    /// are reserved for applications (gRFC A54): the call then fails with INTERNAL, and its message contains
    /// the original code.
    Fail(Arc<Status>),
    /// The call fails with the status, even if it waits for ready, and is never retried. Its code is restricted
    /// as for [`Fail`](Self::Fail).
    Drop(Arc<Status>),
}

/// A subchannel that was chosen for an attempt.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The subchannel.
    pub subchannel: Subchannel,
    /// The tracker that is told how the attempt ends, if the picker needs to know.
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
pub struct RoundRobinPicker {
    subchannels: Box<[Subchannel]>,
    position: Arc<RoundRobinPosition>,
}

/// The position of a [`RoundRobinPicker`]. It does not keep the subchannels alive.
#[derive(Debug)]
pub struct RoundRobinPosition {
    ids: Box<[SubchannelId]>,
    first: usize,
    next: AtomicUsize,
}

impl RoundRobinPicker {
    /// Creates a picker of `subchannels`. `before` is the position of the previous picker: the new one continues there,
    /// so that a change of the list favors no subchannel. Without a previous picker, or if no call has used it, the new
    /// one begins with the subchannel whose index is `random` modulo their number.
    pub fn new(
        subchannels: impl Into<Box<[Subchannel]>>,
        before: Option<&RoundRobinPosition>,
        random: u64,
    ) -> Self {
        let subchannels = subchannels.into();
        let ids: Box<[_]> = subchannels.iter().map(Subchannel::id).collect();
        let continued = before.and_then(|it| it.continued(&ids));
        let first = continued.unwrap_or(random as usize);
        let position = RoundRobinPosition {
            ids,
            first,
            next: AtomicUsize::new(first),
        };
        Self {
            subchannels,
            position: Arc::new(position),
        }
    }

    /// Calls `try_one` with one subchannel after another, beginning with the one whose turn it is, until it
    /// returns a value, and returns that. Each subchannel that was tried has had its turn: the next call of
    /// this method begins with the one after it. So the turns of a subchannel that `try_one` refuses go to
    /// the others evenly, and not all to the one after it.
    #[inline]
    pub fn find<T>(&self, mut try_one: impl FnMut(&Subchannel) -> Option<T>) -> Option<T> {
        let (next, len) = (&self.position.next, self.subchannels.len());
        (0..len).find_map(|_| {
            let at = next.fetch_add(1, Ordering::Relaxed) % len;
            try_one(&self.subchannels[at])
        })
    }

    /// Returns the subchannel whose turn it is; `None` if there are none.
    pub fn pick(&self) -> Option<Subchannel> {
        self.find(|it| Some(it.clone()))
    }

    /// Returns the position, for the picker that follows this one.
    pub fn position(&self) -> &Arc<RoundRobinPosition> {
        &self.position
    }

    /// Returns all subchannels.
    pub fn subchannels(&self) -> &[Subchannel] {
        &self.subchannels
    }
}

impl RoundRobinPosition {
    /// Returns the place in `ids` of the first subchannel, from the next one on, that is still there.
    fn continued(&self, ids: &[SubchannelId]) -> Option<usize> {
        let (next, len) = (self.next.load(Ordering::Relaxed), self.ids.len());
        if next == self.first {
            return None;
        }
        let mut following = (0..len).map(|at| self.ids[next.wrapping_add(at) % len]);
        following.find_map(|id| ids.iter().position(|it| *it == id))
    }
}

impl Picker {
    /// Chooses a subchannel as a call does, for policies that wrap the picker of a child.
    ///
    /// [`Idle`](Self::Idle) must not be wrapped. For a call, it means to wake the balancer and wait; this
    /// method only returns [`PickResult::Wait`], and wakes nothing. If a child publishes `Idle`, publish
    /// `Idle`, too.
    pub fn pick(&self, call: &PickArgs<'_>) -> PickResult {
        match self {
            Self::Idle | Self::Wait => PickResult::Wait,
            Self::Fail(status) => PickResult::Fail(status.clone()),
            Self::One(subchannel) => subchannel.clone().into(),
            Self::RoundRobin(turn) => turn.pick().map_or(PickResult::Wait, Into::into),
            Self::Custom(pick) => pick.pick(call),
        }
    }
}

impl fmt::Debug for Picker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("Idle"),
            Self::Wait => f.write_str("Wait"),
            Self::Fail(status) => f.debug_tuple("Fail").field(status).finish(),
            Self::One(subchannel) => f.debug_tuple("One").field(subchannel).finish(),
            Self::RoundRobin(turn) => f
                .debug_tuple("RoundRobin")
                .field(&turn.subchannels)
                .finish(),
            Self::Custom(_) => f.write_str("Custom"),
        }
    }
}
