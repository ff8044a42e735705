//! The calls that the channel itself makes on the connections of a subchannel: health checks and load reports.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use trunkline_codec::{LoadReportRequest, Status};

use super::health;
use super::owned_task::OwnedTask;
use super::watch::{WatchRequest, watch};
use crate::active_connection::ActiveConnection;
use crate::balancing::SubchannelState;
use crate::connectivity::ConnectivityState;
use crate::limits::ChannelLimits;
use crate::subchannel::SubchannelId;

/// A response of a watch, or its end, for the control task.
#[derive(Debug)]
pub(crate) struct WatchEvent {
    pub(super) subchannel: SubchannelId,
    pub(super) watch: u64,
    pub(super) received: Result<Bytes, Status>,
}

/// The watches of a subchannel.
#[derive(Debug, Default)]
pub(super) struct SubchannelWatches {
    pub(super) wants_health: bool,
    /// The shortest interval of load reports that was asked for.
    pub(super) load_interval: Option<Duration>,
    pub(super) connections: Vec<ConnectionWatches>,
    /// The health that the balancer knows.
    pub(super) told: Option<ConnectivityState>,
}

/// The watches of a connection.
#[derive(Debug)]
pub(super) struct ConnectionWatches {
    pub(super) active: Arc<ActiveConnection>,
    pub(super) health: ServerWatch,
    /// The last health that the server has reported.
    pub(super) reported: Option<SubchannelState>,
    pub(super) load: ServerWatch,
}

#[derive(Debug)]
pub(super) enum ServerWatch {
    Off,
    /// Ends when the task is dropped.
    Runs(
        u64,
        #[expect(dead_code, reason = "held, not read")] OwnedTask,
    ),
    /// The server does not know the method, and is not asked again on this connection.
    Unimplemented,
}

/// Starts watches.
#[derive(Debug)]
pub(super) struct WatchStarter {
    limits: Arc<ChannelLimits>,
    /// Short, because a server that reports faster than the control task works is to wait for the window of its stream.
    to: mpsc::Sender<WatchEvent>,
    last: u64,
}

impl SubchannelWatches {
    pub(super) fn update(
        &mut self,
        id: SubchannelId,
        usable: Vec<Arc<ActiveConnection>>,
        service: Option<&str>,
        starter: &mut WatchStarter,
    ) {
        self.connections
            .retain(|it| usable.iter().any(|active| Arc::ptr_eq(active, &it.active)));
        for active in usable {
            if !self
                .connections
                .iter()
                .any(|it| Arc::ptr_eq(&it.active, &active))
            {
                self.connections.push(ConnectionWatches {
                    active,
                    health: ServerWatch::Off,
                    reported: None,
                    load: ServerWatch::Off,
                });
            }
        }
        let health = service.filter(|_| self.wants_health).map(health::request);
        let load = self.load_interval.map(load_request);
        for connection in &mut self.connections {
            let ConnectionWatches {
                active,
                health: health_watch,
                load: load_watch,
                ..
            } = connection;
            for (watch, request) in [(health_watch, &health), (load_watch, &load)] {
                if let (ServerWatch::Off, Some(request)) = (&*watch, request) {
                    *watch = starter.start(id, active.clone(), request.clone());
                }
            }
        }
    }

    /// Returns the health of the subchannel, which is that of its healthiest connection; `None` without a connection,
    /// or if the balancer does not want to know it.
    pub(super) fn health(&self, checks: bool) -> Option<SubchannelState> {
        let states = self
            .connections
            .iter()
            .map(|it| match (&it.health, &it.reported) {
                (ServerWatch::Unimplemented, _) => SubchannelState::new(ConnectivityState::Ready),
                _ if !checks => SubchannelState::new(ConnectivityState::Ready),
                (_, Some(reported)) => reported.clone(),
                (_, None) => SubchannelState::new(ConnectivityState::Connecting),
            });
        let best = states.min_by_key(|it| match it.connectivity {
            ConnectivityState::Ready => 0,
            ConnectivityState::Connecting => 1,
            _ => 2,
        });
        best.filter(|_| self.wants_health)
    }
}

impl ServerWatch {
    pub(super) fn is(&self, watch: u64) -> bool {
        matches!(self, Self::Runs(it, _) if *it == watch)
    }

    pub(super) fn stop(&mut self) {
        if let Self::Runs(..) = self {
            *self = Self::Off;
        }
    }
}

impl WatchStarter {
    pub(super) fn new(limits: Arc<ChannelLimits>, to: mpsc::Sender<WatchEvent>) -> Self {
        Self {
            limits,
            to,
            last: 0,
        }
    }

    fn start(
        &mut self,
        subchannel: SubchannelId,
        active: Arc<ActiveConnection>,
        request: WatchRequest,
    ) -> ServerWatch {
        self.last += 1;
        let (to, limits, number) = (self.to.clone(), self.limits.clone(), self.last);
        let task = tokio::spawn(watch(active, request, limits, move |received| {
            let to = to.clone();
            let watched = WatchEvent {
                subchannel,
                watch: number,
                received,
            };
            async move {
                // The control task is gone if the channel is idle or dropped, and with it this one.
                let _ = to.send(watched).await;
            }
        }));
        ServerWatch::Runs(number, OwnedTask::new(&task))
    }
}

/// Returns the call for load reports every `interval`.
fn load_request(interval: Duration) -> WatchRequest {
    let mut request = LoadReportRequest::default();
    request.report_interval = interval;
    WatchRequest {
        path: "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics",
        message: request.encode(),
    }
}
