//! The current picker of a channel, and the state that its calls and its control task share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::balancing::Picker;
use crate::connectivity::ConnectivityState;
use crate::settings::CheckedSettings;
use crate::subchannel::{Subchannel, SubchannelId, WeakSubchannel};

/// The choice for the calls of a channel, published as a whole.
#[derive(Debug)]
pub(crate) struct Routing {
    pub(crate) picker: Picker,
}

/// The part of a channel that its calls and its control task share.
#[derive(Debug)]
pub(crate) struct ChannelShared {
    pub(crate) settings: CheckedSettings,
    /// A call loads it without a lock, and a new one never delays a call.
    pub(crate) routing: ArcSwap<Routing>,
    /// Changes with everything that calls may wait for, apart from a stream on a connection.
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) connectivity: watch::Sender<ConnectivityState>,
    /// The number of calls that wait.
    pub(crate) waiting: AtomicUsize,
    /// True if a call has waited since the control task last checked whether the channel is used.
    pub(crate) was_asked: AtomicBool,
    pub(crate) is_dropped: AtomicBool,
    /// All subchannels, for statistics and messages.
    subchannels: Mutex<HashMap<SubchannelId, WeakSubchannel>>,
}

impl ChannelShared {
    pub(crate) fn new(settings: CheckedSettings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            routing: ArcSwap::from_pointee(Routing {
                picker: Picker::Idle,
            }),
            changes: watch::Sender::default(),
            connectivity: watch::Sender::default(),
            waiting: AtomicUsize::new(0),
            was_asked: AtomicBool::new(false),
            is_dropped: AtomicBool::new(false),
            subchannels: Mutex::default(),
        })
    }

    /// Publishes a picker and the state of the channel, and wakes calls that wait and watches.
    pub(crate) fn publish(&self, state: ConnectivityState, picker: Picker) {
        self.routing.store(Arc::new(Routing { picker }));
        if !self.is_dropped.load(Ordering::Relaxed) {
            self.connectivity.send_if_modified(|before| {
                let is_other = *before != state;
                *before = state;
                is_other
            });
        }
        self.wake_calls();
    }

    /// Wakes calls that wait, after a change that does not concern the picker.
    pub(crate) fn wake_calls(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn add(&self, subchannel: &Subchannel) {
        let mut subchannels = self
            .subchannels
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        subchannels.insert(subchannel.id(), subchannel.downgrade());
    }

    pub(crate) fn remove(&self, id: SubchannelId) {
        let mut subchannels = self
            .subchannels
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        subchannels.remove(&id);
    }

    pub(crate) fn subchannels(&self) -> Vec<Subchannel> {
        let subchannels = self
            .subchannels
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let alive = subchannels.values().filter_map(WeakSubchannel::upgrade);
        alive.collect()
    }
}
