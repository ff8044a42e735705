//! `test_backend_metrics_load_balancer`, the policy of the cases of load reports: pick_first, which notes the load that each
//! call's server has reported.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;
use trunkline::balancing::serde_json::{Value, json};
use trunkline::balancing::{
    AttemptTracker, Balancer, BalancerConfig, Control, Outcome, Pick, PickArgs, PickResult, Picker,
    Policies, Policy, PolicyConfig, Subchannel, SubchannelId, SubchannelState, TimerId, Tracking,
    Update,
};
use trunkline::channel::{Attributes, ConnectivityState};
use trunkline::limits::ChannelLimits;
use trunkline::{Address, LoadReport, Result, Status};

/// The interval of reports on streams of their own, by the official contract.
const INTERVAL: Duration = Duration::from_secs(1);

/// The loads that a channel's policy has seen.
#[derive(Clone, Debug, Default)]
pub struct LoadLog(Arc<Mutex<Loads>>);

#[derive(Debug, Default)]
struct Loads {
    /// Of servers that report it apart from calls.
    servers: BTreeMap<SubchannelId, LoadReport>,
    last_call: Option<LoadReport>,
}

impl LoadLog {
    /// Returns the load that the server of the last call has reported: with the call, or else apart from calls. `None` if it
    /// has reported none.
    pub fn of_last_call(&self) -> Option<LoadReport> {
        self.with(|loads| loads.last_call.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Loads) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The policy, which notes the loads in a log.
#[derive(Clone, Debug, Default)]
pub struct BackendMetrics(pub LoadLog);

impl BackendMetrics {
    /// The name of the policy.
    pub const NAME: &'static str = "test_backend_metrics_load_balancer";
}

impl Policy for BackendMetrics {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn parse(&self, _: &Value, policies: &Policies) -> Result<PolicyConfig> {
        let child = policies.choose("child", &json!([{"pick_first": {}}]))?;
        Ok(Arc::new(child))
    }

    fn build(&self) -> Box<dyn Balancer> {
        Box::new(BackendMetricsBalancer {
            log: self.0.clone(),
            child: None,
        })
    }
}

struct BackendMetricsBalancer {
    log: LoadLog,
    /// `None` before the first update.
    child: Option<Box<dyn Balancer>>,
}

impl BackendMetricsBalancer {
    /// Passes an event on to the child.
    fn run(
        &mut self,
        control: &mut dyn Control,
        event: impl FnOnce(&mut dyn Balancer, &mut dyn Control),
    ) {
        let log = &self.log;
        if let Some(child) = &mut self.child {
            event(&mut **child, &mut LoggingControl { log, control });
        }
    }
}

impl Balancer for BackendMetricsBalancer {
    fn update(&mut self, update: Update<'_>, control: &mut dyn Control) -> Result<()> {
        let config = update.config_as::<BalancerConfig>();
        let config = config.ok_or_else(|| Status::internal("another policy's configuration"))?;
        let log = &self.log;
        let child = self.child.get_or_insert_with(|| config.policy().build());
        let update = Update {
            config: &**config.config(),
            ..update
        };
        child.update(update, &mut LoggingControl { log, control })
    }

    fn subchannel_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) {
        self.run(control, |child, control| {
            child.subchannel_changed(id, state, control);
        });
    }

    fn health_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) {
        self.run(control, |child, control| {
            child.health_changed(id, state, control);
        });
    }

    fn load_reported(&mut self, id: SubchannelId, report: &LoadReport, _: &mut dyn Control) {
        self.log
            .with(|loads| loads.servers.insert(id, report.clone()));
    }

    fn timer_expired(&mut self, timer: TimerId, control: &mut dyn Control) {
        self.run(control, |child, control| {
            child.timer_expired(timer, control);
        });
    }

    fn exit_idle(&mut self, control: &mut dyn Control) {
        self.run(control, |child, control| child.exit_idle(control));
    }
}

/// The control of the child: asks each subchannel for its load, and wraps the pickers.
struct LoggingControl<'a> {
    log: &'a LoadLog,
    control: &'a mut dyn Control,
}

impl Control for LoggingControl<'_> {
    fn create_subchannel(&mut self, address: &Address, attributes: &Attributes) -> Subchannel {
        let subchannel = self.control.create_subchannel(address, attributes);
        self.control.watch_load(&subchannel, INTERVAL);
        subchannel
    }

    fn publish(&mut self, state: ConnectivityState, picker: Picker) {
        let log = self.log.clone();
        let picker = match state {
            ConnectivityState::Ready => Picker::Custom(Arc::new(LoggingPicker { picker, log })),
            _ => picker,
        };
        self.control.publish(state, picker);
    }

    fn connect(&mut self, subchannel: &Subchannel) {
        self.control.connect(subchannel);
    }

    fn watch_health(&mut self, subchannel: &Subchannel) {
        self.control.watch_health(subchannel);
    }

    fn watch_load(&mut self, subchannel: &Subchannel, interval: Duration) {
        self.control.watch_load(subchannel, interval);
    }

    fn set_timer(&mut self, at: Instant) -> TimerId {
        self.control.set_timer(at)
    }

    fn cancel_timer(&mut self, timer: TimerId) {
        self.control.cancel_timer(timer);
    }

    fn resolve_again(&mut self) {
        self.control.resolve_again();
    }

    fn waker(&self) -> Waker {
        self.control.waker()
    }

    fn now(&self) -> Instant {
        self.control.now()
    }

    fn random(&mut self) -> u64 {
        self.control.random()
    }

    fn limits(&self) -> &ChannelLimits {
        self.control.limits()
    }
}

struct LoggingPicker {
    picker: Picker,
    log: LoadLog,
}

impl Pick for LoggingPicker {
    fn pick(&self, call: &PickArgs<'_>) -> PickResult {
        let mut result = self.picker.pick(call);
        if let PickResult::Use(choice) = &mut result {
            let tracker = LoadTracker {
                server: choice.subchannel.id(),
                log: self.log.clone(),
            };
            let tracking = Tracking::new(Arc::new(tracker), 0);
            choice.tracking = Some(tracking.and(choice.tracking.take()));
        }
        result
    }
}

struct LoadTracker {
    server: SubchannelId,
    log: LoadLog,
}

impl AttemptTracker for LoadTracker {
    fn ended(&self, _: usize, outcome: &Outcome<'_>) {
        // Some servers send an empty report with each call.
        let of_call = outcome
            .load_report()
            .filter(|it| **it != LoadReport::default());
        self.log.with(|loads| {
            let of_server = loads.servers.get(&self.server);
            loads.last_call = of_call.or(of_server).cloned();
        });
    }
}
