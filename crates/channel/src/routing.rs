//! The current picker of a channel, and the state that its calls and its control task share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::attempts::replay::ReplayBudget;
use crate::attempts::throttle::RetryThrottle;
use crate::balancing::Picker;
use crate::config::ServiceConfig;
use crate::connectivity::ConnectivityState;
use crate::settings::CheckedSettings;
use crate::subchannel::{Subchannel, SubchannelId, WeakSubchannel};

/// The choice for the calls of a channel, published as a whole.
#[derive(Debug)]
pub(crate) struct Routing {
    pub(crate) selector: Selector,
    pub(crate) picker: Picker,
}

/// The choice of a method config for each call.
#[derive(Clone, Debug)]
pub(crate) enum Selector {
    /// The resolver can have a service config and has not reported yet: calls wait.
    Unresolved,
    /// No service config is in force.
    Plain,
    /// The config that is in force.
    Table(Arc<ServiceConfig>),
}

/// The part of a channel that its calls and its control task share.
#[derive(Debug)]
pub(crate) struct ChannelShared {
    pub(crate) settings: CheckedSettings,
    /// A call loads it without a lock, and a new one never delays a call.
    pub(crate) routing: ArcSwap<Routing>,
    /// Throttles retries. Outlives changes of the service config, and idleness.
    pub(crate) throttle: Arc<RetryThrottle>,
    pub(crate) replay_budget: Arc<ReplayBudget>,
    /// Changes with everything that calls may wait for, apart from a stream on a connection.
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) connectivity: watch::Sender<ConnectivityState>,
    /// The number of calls that wait.
    pub(crate) waiting: AtomicUsize,
    /// True if a call has waited since the control task last checked whether the channel is used.
    pub(crate) was_asked: AtomicBool,
    pub(crate) is_dropped: AtomicBool,
    last_subchannel: AtomicU64,
    /// All subchannels, for statistics and messages.
    subchannels: Mutex<HashMap<SubchannelId, WeakSubchannel>>,
}

impl ChannelShared {
    pub(crate) fn new(settings: CheckedSettings) -> Arc<Self> {
        let selector = Selector::of_idle(&settings);
        let throttle = Arc::<RetryThrottle>::default();
        throttle.reconfigure(selector.config().and_then(ServiceConfig::retry_throttling));
        Arc::new(Self {
            replay_budget: ReplayBudget::new(&settings.limits),
            throttle,
            settings,
            routing: ArcSwap::from_pointee(Routing {
                selector,
                picker: Picker::Idle,
            }),
            changes: watch::Sender::default(),
            connectivity: watch::Sender::default(),
            waiting: AtomicUsize::new(0),
            was_asked: AtomicBool::new(false),
            is_dropped: AtomicBool::new(false),
            last_subchannel: AtomicU64::new(0),
            subchannels: Mutex::default(),
        })
    }

    /// Publishes the choice for calls and the state of the channel, and wakes calls that wait and watches.
    pub(crate) fn publish(&self, state: ConnectivityState, routing: Routing) {
        self.routing.store(Arc::new(routing));
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

    /// Returns an identifier that no other subchannel of the channel has, before or after it was idle.
    pub(crate) fn next_subchannel_id(&self) -> SubchannelId {
        SubchannelId(1 + self.last_subchannel.fetch_add(1, Ordering::Relaxed))
    }

    /// Forgets the subchannels of a control task that ends. Those that calls still use end with the calls.
    pub(crate) fn forget_subchannels(&self) {
        self.lock_subchannels().clear();
    }

    pub(crate) fn add(&self, subchannel: &Subchannel) {
        self.lock_subchannels()
            .insert(subchannel.id(), subchannel.downgrade());
    }

    pub(crate) fn remove(&self, id: SubchannelId) {
        self.lock_subchannels().remove(&id);
    }

    pub(crate) fn subchannels(&self) -> Vec<Subchannel> {
        let subchannels = self.lock_subchannels();
        let alive = subchannels.values().filter_map(WeakSubchannel::upgrade);
        alive.collect()
    }

    fn lock_subchannels(&self) -> MutexGuard<'_, HashMap<SubchannelId, WeakSubchannel>> {
        self.subchannels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Selector {
    /// Returns what is in force while the channel resolves nothing.
    pub(crate) fn of_idle(settings: &CheckedSettings) -> Self {
        match settings.resolves_config() {
            true => Self::Unresolved,
            false => Self::default_of(settings),
        }
    }

    /// Returns what is in force without a config of the resolver.
    pub(crate) fn default_of(settings: &CheckedSettings) -> Self {
        match &settings.service_config {
            Some(config) => Self::Table(config.clone()),
            None => Self::Plain,
        }
    }

    /// Returns the service config, if one is in force.
    pub(crate) fn config(&self) -> Option<&ServiceConfig> {
        match self {
            Self::Table(config) => Some(config),
            Self::Plain | Self::Unresolved => None,
        }
    }
}
