//! A subchannel: the connections to one address.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use trunkline_transport::Address;

use crate::active_connection::{ActiveConnection, Picked};

/// The connections of a channel to one address.
///
/// A balancer creates subchannels with [`Control::create_subchannel`](crate::Control::create_subchannel), and
/// pickers return them. Cloning is cheap. The subchannel shuts down when the last clone is dropped: its
/// connections close after their last calls.
///
/// A subchannel has one address, and an [`Endpoint`](crate::Endpoint) can have several. The policy decides
/// which of them it tries, with a subchannel for each: pick_first tries one after another, and the other
/// built-in policies have a pick_first for each endpoint.
///
/// ```
/// # mod trunkline { pub use trunkline_channel as balancing; pub use trunkline_transport::Address; }
/// use trunkline::Address;
/// use trunkline::balancing::Subchannel;
///
/// let address = Address::Tcp(([10, 0, 0, 1], 50051).into());
/// let subchannel = Subchannel::detached(1, address.clone());
/// assert_eq!(subchannel.address(), &address);
/// ```
#[derive(Clone)]
pub struct Subchannel(Arc<SubchannelShared>);

/// Identifies a subchannel of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubchannelId(pub u64);

/// A message of a subchannel to the control task of its channel. Each subchannel has at most one of each kind in the
/// queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubchannelReport {
    /// A call has found all connections busy.
    Busy,
    /// The last handle was dropped.
    Released,
}

pub(crate) type Reports = mpsc::UnboundedSender<(SubchannelId, SubchannelReport)>;

struct SubchannelShared {
    id: SubchannelId,
    address: Address,
    connections: ArcSwap<Vec<Arc<ActiveConnection>>>,
    reports: Option<Reports>,
    /// True while another connection could be opened and no call has asked for it.
    may_grow: AtomicBool,
}

impl Subchannel {
    pub(crate) fn new(id: SubchannelId, address: Address, reports: Reports) -> Self {
        Self::with(id, address, Some(reports))
    }

    /// Creates a subchannel that belongs to no channel and never has a connection, for tests of policies.
    pub fn detached(id: u64, address: Address) -> Self {
        Self::with(SubchannelId(id), address, None)
    }

    fn with(id: SubchannelId, address: Address, reports: Option<Reports>) -> Self {
        Self(Arc::new(SubchannelShared {
            id,
            address,
            connections: ArcSwap::default(),
            reports,
            may_grow: AtomicBool::new(false),
        }))
    }

    /// Returns the identifier, which no other subchannel of the channel ever has.
    pub fn id(&self) -> SubchannelId {
        self.0.id
    }

    /// Returns the address.
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// Returns the least busy connection if a stream can be opened on it immediately. Asks for another connection if
    /// all are busy.
    #[inline]
    pub(crate) fn try_ready(&self) -> Option<Picked> {
        let connections = self.0.connections.load();
        let active = least_busy(&connections)?;
        if active.is_busy() {
            self.ask_for_more();
        }
        active.try_ready()
    }

    /// Asks for another connection, if one could be opened.
    pub(crate) fn ask_for_more(&self) {
        if self.0.may_grow.load(Ordering::Relaxed) && self.0.may_grow.swap(false, Ordering::Relaxed)
        {
            self.report(SubchannelReport::Busy);
        }
    }

    /// Returns all open connections, including those that take no more calls.
    pub(crate) fn connections(&self) -> Arc<Vec<Arc<ActiveConnection>>> {
        self.0.connections.load_full()
    }

    pub(crate) fn set_connections(&self, connections: Vec<Arc<ActiveConnection>>) {
        self.0.connections.store(Arc::new(connections));
    }

    /// Sets whether calls may ask for another connection.
    pub(crate) fn set_may_grow(&self, may_grow: bool) {
        self.0.may_grow.store(may_grow, Ordering::Relaxed);
    }

    pub(crate) fn downgrade(&self) -> WeakSubchannel {
        WeakSubchannel(Arc::downgrade(&self.0))
    }

    fn report(&self, report: SubchannelReport) {
        self.0.report(report);
    }
}

/// Returns the connection with the fewest calls of those that are not busy, or else of all that are usable.
pub(crate) fn least_busy(connections: &[Arc<ActiveConnection>]) -> Option<&Arc<ActiveConnection>> {
    connections
        .iter()
        .filter(|it| it.is_usable())
        .min_by_key(|it| (it.is_busy(), it.connection.open_calls()))
}

impl SubchannelShared {
    fn report(&self, report: SubchannelReport) {
        if let Some(reports) = &self.reports {
            // The control task is gone if the channel is idle or dropped.
            let _ = reports.send((self.id, report));
        }
    }
}

impl fmt::Debug for SubchannelShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SubchannelShared").field(&self.id.0).finish()
    }
}

impl Drop for SubchannelShared {
    fn drop(&mut self) {
        self.report(SubchannelReport::Released);
    }
}

/// A subchannel that the holder does not keep from shutting down.
#[derive(Clone, Debug)]
pub(crate) struct WeakSubchannel(Weak<SubchannelShared>);

impl WeakSubchannel {
    pub(crate) fn upgrade(&self) -> Option<Subchannel> {
        self.0.upgrade().map(Subchannel)
    }
}

impl PartialEq for Subchannel {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Subchannel {}

impl fmt::Debug for Subchannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SubchannelShared { id, address, .. } = &*self.0;
        f.debug_struct("Subchannel")
            .field("id", &id.0)
            .field("address", &format_args!("{address}"))
            .field("connections", &self.0.connections.load().len())
            .finish()
    }
}
