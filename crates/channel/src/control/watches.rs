//! The control task's part in watches: which ones run, and what becomes of their responses.

use std::sync::Arc;
use std::time::Duration;

use trunkline_codec::Code;

use super::core::{Core, SubchannelNews};
use super::health;
use super::subchannel_watches::{ServerWatch, WatchEvent};
use crate::connectivity::ConnectivityState;
use crate::subchannel::SubchannelId;
use trunkline_codec::LoadReport;

impl Core {
    /// Reports the health of a subchannel from now on.
    pub(crate) fn watch_health(&mut self, id: SubchannelId) {
        if let Some(entry) = self.entries.get_mut(&id)
            && !entry.watches.wants_health
        {
            entry.watches.wants_health = true;
            self.update_watches(id);
        }
    }

    /// Reports the load of the server of a subchannel from now on, every `interval`, which replaces an earlier one.
    pub(crate) fn watch_load(&mut self, id: SubchannelId, interval: Duration) {
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.watches.load_interval != Some(interval)
        {
            entry.watches.load_interval = Some(interval);
            for connection in &mut entry.watches.connections {
                connection.load.stop();
            }
            self.update_watches(id);
        }
    }

    /// Sets the service whose health counts; `None` ends health checks.
    pub(crate) fn set_health_service(&mut self, service: Option<&str>) {
        let service = service.filter(|_| self.shared.settings.health_checks);
        if service == self.health_service.as_deref() {
            return;
        }
        self.health_service = service.map(Arc::from);
        let mut ids: Vec<_> = self.entries.keys().copied().collect();
        ids.sort();
        for id in ids {
            if let Some(entry) = self.entries.get_mut(&id) {
                for connection in &mut entry.watches.connections {
                    connection.health.stop();
                    connection.reported = None;
                }
            }
            self.update_watches(id);
        }
    }

    /// Starts and ends watches after a change of the connections, or of what is wanted of them.
    pub(super) fn update_watches(&mut self, id: SubchannelId) {
        let service = self.health_service.as_deref();
        if let Some(entry) = self.entries.get_mut(&id) {
            let connections = entry.handle.upgrade().map(|it| it.connections());
            let usable = connections.iter().flat_map(|it| it.iter());
            let usable: Vec<_> = usable.filter(|it| it.is_usable()).cloned().collect();
            entry
                .watches
                .update(id, usable, service, &mut self.watch_starter);
            self.tell_health(id);
        }
    }

    /// A watch has received a response, or has ended.
    pub(crate) fn watched(&mut self, watched: WatchEvent) {
        let WatchEvent {
            subchannel: id,
            watch,
            received,
        } = watched;
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let is_unimplemented =
            matches!(&received, Err(status) if status.code() == Code::UNIMPLEMENTED);
        let connections = &mut entry.watches.connections;
        if let Some(it) = connections.iter_mut().find(|it| it.health.is(watch)) {
            if received.is_err() && !it.active.is_usable() {
                // The loss of the connection is reported as such.
                return;
            }
            let service = self.health_service.as_deref().unwrap_or_default();
            it.reported = Some(health::state(service, &received));
            if is_unimplemented {
                it.health = ServerWatch::Unimplemented;
            }
            self.tell_health(id);
        } else if let Some(it) = connections.iter_mut().find(|it| it.load.is(watch)) {
            if is_unimplemented {
                it.load = ServerWatch::Unimplemented;
                tracing::error!(
                    target: "trunkline::connection",
                    "the server does not implement xds.service.orca.v3.OpenRcaService, so it reports no load"
                );
            }
            // A malformed report is none.
            if let Some(report) = received.ok().and_then(|it| LoadReport::decode(&it)) {
                let generation = entry.generation;
                self.deliver(id, generation, SubchannelNews::Load(report));
            }
        }
    }

    /// Tells the balancer the health of a subchannel that is connected, if it does not know it.
    fn tell_health(&mut self, id: SubchannelId) {
        let checks = self.health_service.is_some();
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let health = entry.watches.health(checks);
        let connectivity = health.as_ref().map(|it| it.connectivity);
        let is_known = entry.watches.told == connectivity
            && connectivity != Some(ConnectivityState::TransientFailure);
        entry.watches.told = connectivity;
        if let (Some(health), false) = (health, is_known) {
            let generation = entry.generation;
            self.deliver(id, generation, SubchannelNews::Health(health));
        }
    }
}
