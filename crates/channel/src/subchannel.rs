//! A subchannel: the connections to one address.

use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use trunkline_transport::Address;

use crate::active_connection::ActiveConnection;

/// The connections of a channel to one address.
///
/// A balancer creates subchannels with [`Control::create_subchannel`](crate::Control::create_subchannel), and pickers
/// return them. Cloning is cheap. The subchannel shuts down when the last clone is dropped: its connections close after
/// their last calls.
#[derive(Clone)]
pub struct Subchannel(Arc<Shared>);

/// Identifies a subchannel of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubchannelId(pub u64);

struct Shared {
    id: SubchannelId,
    address: Address,
    connections: ArcSwap<Vec<Arc<ActiveConnection>>>,
}

impl Subchannel {
    /// Creates a subchannel that belongs to no channel and never has a connection, for tests of policies.
    pub fn detached(id: u64, address: Address) -> Self {
        Self(Arc::new(Shared {
            id: SubchannelId(id),
            address,
            connections: ArcSwap::default(),
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

    pub(crate) fn downgrade(&self) -> WeakSubchannel {
        WeakSubchannel(Arc::downgrade(&self.0))
    }
}

/// A subchannel that the holder does not keep from shutting down.
#[derive(Clone)]
pub(crate) struct WeakSubchannel(Weak<Shared>);

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
        let Shared {
            id,
            address,
            connections,
        } = &*self.0;
        f.debug_struct("Subchannel")
            .field("id", &id.0)
            .field("address", &format_args!("{address}"))
            .field("connections", &connections.load().len())
            .finish()
    }
}
