//! One connection of a channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tokio::time::Instant;
use trunkline_codec::Metadata;
use trunkline_transport::{Connection, ReadyConnection};

use crate::balancing::Tracking;
use crate::target_address::Origin;

/// A connection with this many calls is busy even if the server allows more: h2 has one lock for
/// all streams of a connection, and TCP one window for all of them. It is what servers commonly
/// allow.
const BUSY_CALLS: usize = 100;

/// The two that check whether calls have taken a connection. Each resets its own mark.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum UsageCheck {
    Connection = 1,
    Channel = 2,
}

/// A connection that is open, and whether calls take it.
#[derive(Debug)]
pub(crate) struct ActiveConnection {
    pub(crate) connection: Connection,
    pub(crate) origin: Origin,
    /// When the attempt began that has made it.
    pub(crate) started: Instant,
    /// A call has taken it since an check last looked: a bit for each.
    taken: AtomicU8,
    /// The number of streams that the channel itself has open.
    watches: AtomicUsize,
}

impl ActiveConnection {
    pub(crate) fn new(connection: Connection, origin: Origin, started: Instant) -> Arc<Self> {
        Arc::new(Self {
            connection,
            origin,
            started,
            taken: AtomicU8::new(0),
            watches: AtomicUsize::new(0),
        })
    }

    pub(crate) fn is_usable(&self) -> bool {
        self.connection.is_usable()
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.connection.open_calls() >= self.connection.max_streams().min(BUSY_CALLS)
    }

    /// A stream to be opened at once, if there is nothing to wait for.
    pub(crate) fn try_ready(&self) -> Option<Picked> {
        self.take();
        let connection = self.connection.try_ready()?;
        Some(self.picked(connection))
    }

    /// Returns the pick of a stream on this connection.
    pub(crate) fn picked(&self, connection: ReadyConnection) -> Picked {
        Picked {
            connection,
            origin: self.origin.clone(),
            extra: None,
        }
    }

    pub(crate) fn take(&self) {
        let all = UsageCheck::Connection as u8 | UsageCheck::Channel as u8;
        self.taken.store(all, Ordering::Relaxed);
    }

    /// Returns true if calls have taken the connection since `check` last asked, or are on it.
    pub(crate) fn was_taken(&self, check: UsageCheck) -> bool {
        let before = self.taken.fetch_and(!(check as u8), Ordering::Relaxed);
        let watches = self.watches.load(Ordering::Relaxed);
        before & check as u8 != 0 || self.connection.open_calls() > watches
    }

    /// Counts a stream of the channel itself, which is not a use of the connection.
    pub(crate) fn count_watch(self: &Arc<Self>) -> WatchCount {
        self.watches.fetch_add(1, Ordering::Relaxed);
        WatchCount(self.clone())
    }
}

/// A stream of the channel itself counts until this is dropped.
#[derive(Debug)]
pub(crate) struct WatchCount(Arc<ActiveConnection>);

impl Drop for WatchCount {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that was picked for an attempt, with a free stream on it.
#[derive(Debug)]
pub struct Picked {
    /// Opens the stream.
    pub connection: ReadyConnection,
    /// The origin for the head of the request.
    pub origin: Origin,
    /// Tracking and metadata. Boxed, because few picks have any, and every call moves this value.
    pub extra: Option<Box<PickExtra>>,
}

/// The part of a pick that only some policies and service configs need.
#[derive(Debug, Default)]
pub struct PickExtra {
    /// Learns how the attempt ends.
    pub tracking: Option<Tracking>,
    /// Metadata that the attempt sends in addition to that of the call.
    pub metadata: Option<Box<Metadata>>,
}
