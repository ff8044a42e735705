//! outlier_detection: keeps calls from endpoints that fail more often than others, for some time (gRFC A50, A61).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use trunkline_codec::{LoadReport, Status};
use trunkline_transport::Address;

use super::balancer::{Balancer, Control, SubchannelState, TimerId, Update};
use super::ejection::{
    self, CallCounter, EjectionScope, EjectionSettings, FailurePercentageEjection, Monitored,
    SuccessRateEjection,
};
use super::graceful_switch::GracefulSwitch;
use super::picker::{Pick, PickArgs, PickResult, Picker};
use super::policy::{BalancerConfig, Policies, Policy, PolicyConfig};
use super::tracker::Tracking;
use crate::attributes::Attributes;
use crate::config::json::{JsonField, JsonObject};
use crate::connectivity::ConnectivityState;
use crate::endpoint::{Endpoint, EndpointKey};
use crate::limits::ChannelLimits;
use crate::subchannel::{Subchannel, SubchannelId, WeakSubchannel};

/// The least time between two sweeps.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The policy `outlier_detection_experimental`, which has one child.
#[derive(Debug)]
pub(crate) struct OutlierDetection;

#[derive(Clone, Debug)]
struct OutlierConfig {
    interval: Duration,
    ejection: EjectionSettings,
    child: BalancerConfig,
}

impl Policy for OutlierDetection {
    fn name(&self) -> &str {
        "outlier_detection_experimental"
    }

    fn parse(&self, config: &Value, policies: &Policies) -> Result<PolicyConfig, Status> {
        let config = JsonObject::document(self.name(), config)?;
        let duration = |name: &str, default: u64| {
            let set = config.optional(name, JsonField::duration)?;
            Ok::<_, Status>(set.unwrap_or_else(|| Duration::from_secs(default)))
        };
        let success_rate = config.optional("successRateEjection", |field| {
            let algorithm = field.object()?;
            Ok(SuccessRateEjection {
                stdev_factor: number(&algorithm, "stdevFactor", 1_900)?,
                scope: scope(&algorithm, 100)?,
            })
        })?;
        let failure_percentage = config.optional("failurePercentageEjection", |field| {
            let algorithm = field.object()?;
            Ok(FailurePercentageEjection {
                threshold: percentage(&algorithm, "threshold", 85)?,
                scope: scope(&algorithm, 50)?,
            })
        })?;
        Ok(Arc::new(OutlierConfig {
            interval: duration("interval", 10)?.max(INTERVAL_MIN),
            ejection: EjectionSettings {
                base_time: duration("baseEjectionTime", 30)?,
                max_time: duration("maxEjectionTime", 300)?,
                max_percent: percentage(&config, "maxEjectionPercent", 10)?,
                success_rate,
                failure_percentage,
            },
            child: config.required("childPolicy", |field| {
                policies.choose(&field.path, field.value)
            })?,
        }))
    }

    fn build(&self) -> Box<dyn Balancer> {
        Box::new(OutlierBalancer {
            config: None,
            child: GracefulSwitch::default(),
            keys: Vec::new(),
            endpoints: Vec::new(),
            places: HashMap::new(),
            subchannels: BTreeMap::new(),
            timer: None,
            last_sweep: None,
            published: None,
            is_new: false,
        })
    }
}

fn number(config: &JsonObject<'_>, name: &str, default: u32) -> Result<u32, Status> {
    let number = config.optional(name, JsonField::unsigned)?;
    Ok(number.map_or(default, |it| u32::try_from(it).unwrap_or(u32::MAX)))
}

fn percentage(config: &JsonObject<'_>, name: &str, default: u32) -> Result<u32, Status> {
    let percentage = config.optional(name, |field| match field.unsigned()? {
        percentage @ 0..=100 => Ok(percentage as u32),
        _ => Err(field.invalid("a percentage; write 0 to 100")),
    })?;
    Ok(percentage.unwrap_or(default))
}

fn scope(algorithm: &JsonObject<'_>, request_volume: u32) -> Result<EjectionScope, Status> {
    Ok(EjectionScope {
        enforcement: percentage(algorithm, "enforcementPercentage", 100)?,
        minimum_hosts: number(algorithm, "minimumHosts", 5)?,
        request_volume: number(algorithm, "requestVolume", request_volume)?,
    })
}

struct OutlierBalancer {
    config: Option<OutlierConfig>,
    child: GracefulSwitch,
    /// The endpoints of the last list, each at the same place in both.
    keys: Vec<EndpointKey>,
    endpoints: Vec<Monitored>,
    /// The places of endpoints by their addresses.
    places: HashMap<Address, usize>,
    subchannels: BTreeMap<SubchannelId, MonitoredSubchannel>,
    /// The next sweep, while calls are counted.
    timer: Option<TimerId>,
    last_sweep: Option<Instant>,
    /// The last publication of the child.
    published: Option<(ConnectivityState, Picker)>,
    /// True while that, or what is counted for it, is not published yet.
    is_new: bool,
}

/// A subchannel of the child, with the states that the channel has reported.
struct MonitoredSubchannel {
    subchannel: WeakSubchannel,
    address: Address,
    is_ready: bool,
    /// True if the child has asked for the health, so that an ejection is reported as a change of it (gRFC A61).
    watches_health: bool,
    /// The health, once it is known.
    health: Option<SubchannelState>,
}

impl Balancer for OutlierBalancer {
    fn update(&mut self, update: Update<'_>, control: &mut dyn Control) -> Result<(), Status> {
        let Some(config) = update.config_as::<OutlierConfig>() else {
            return Err(Status::internal("outlier_detection has no configuration"));
        };
        let ejected = self.ejected();
        if let Ok(endpoints) = update.endpoints {
            self.replace_endpoints(endpoints);
        }
        self.configure(config.clone(), control);
        let mut used = Ok(());
        self.run(control, |child, control| {
            used = child.update(&config.child, update, control);
        });
        self.report_changes(&ejected, control);
        self.publish(control);
        used
    }

    fn subchannel_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) {
        let ejection = self.ejection(id);
        let Some(subchannel) = self.subchannels.get_mut(&id) else {
            return;
        };
        subchannel.is_ready = state.connectivity == ConnectivityState::Ready;
        if !subchannel.is_ready {
            subchannel.health = None;
        }
        let hides = subchannel.is_ready && !subchannel.watches_health;
        let seen = ejection.filter(|_| hides);
        let seen = seen.as_ref().unwrap_or(state);
        self.run(control, |child, control| {
            child.subchannel_changed(id, seen, control)
        });
        self.publish(control);
    }

    fn health_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) {
        if let Some(subchannel) = self.subchannels.get_mut(&id) {
            subchannel.health = Some(state.clone());
            self.report(id, control);
            self.publish(control);
        }
    }

    fn load_reported(&mut self, id: SubchannelId, report: &LoadReport, control: &mut dyn Control) {
        self.run(control, |child, control| {
            child.load_reported(id, report, control)
        });
        self.publish(control);
    }

    fn timer_expired(&mut self, timer: TimerId, control: &mut dyn Control) {
        if self.timer == Some(timer) {
            self.sweep(control);
        } else {
            self.run(control, |child, control| {
                child.timer_expired(timer, control)
            });
        }
        self.publish(control);
    }

    fn exit_idle(&mut self, control: &mut dyn Control) {
        self.run(control, |child, control| child.exit_idle(control));
        self.publish(control);
    }
}

impl OutlierBalancer {
    /// Takes a list of endpoints. Those that were in the last one keep their calls and ejections.
    fn replace_endpoints(&mut self, endpoints: &[Endpoint]) {
        let keys = std::mem::take(&mut self.keys);
        let monitored = std::mem::take(&mut self.endpoints).into_iter().map(Some);
        let mut before: HashMap<_, _> = keys.iter().cloned().zip(monitored).collect();
        self.places.clear();
        for endpoint in endpoints {
            let key = endpoint.key();
            let monitored = match before.insert(key.clone(), None) {
                Some(None) => continue,
                Some(Some(monitored)) => monitored,
                None => Monitored::default(),
            };
            for address in endpoint.addresses() {
                let place = self.places.entry(address.clone());
                place.or_insert(self.keys.len());
            }
            self.keys.push(key);
            self.endpoints.push(monitored);
        }
        self.is_new |= self.keys != keys;
    }

    /// Takes a configuration: begins or ends to count, and sets the timer.
    fn configure(&mut self, config: OutlierConfig, control: &mut dyn Control) {
        let before = self.config.replace(config.clone());
        let before = before.as_ref();
        let counted = before.is_some_and(|it| it.ejection.counts());
        let counts = config.ejection.counts();
        if counted != counts {
            self.endpoints.iter_mut().for_each(Monitored::reset);
            self.last_sweep = counts.then(|| control.now());
            self.is_new = true;
        }
        // gRFC A50: a new interval begins with the last sweep.
        if counted != counts || before.is_some_and(|it| it.interval != config.interval) {
            if let Some(timer) = self.timer.take() {
                control.cancel_timer(timer);
            }
            let next = self.last_sweep.map(|last| last + config.interval);
            self.timer = next.map(|at| control.set_timer(at));
        }
    }

    fn sweep(&mut self, control: &mut dyn Control) {
        let Some(config) = &self.config else {
            return;
        };
        let (settings, now) = (config.ejection.clone(), control.now());
        self.timer = Some(control.set_timer(now + config.interval));
        self.last_sweep = Some(now);
        let ejected = self.ejected();
        ejection::sweep(&mut self.endpoints, &settings, now, &mut || {
            control.random()
        });
        self.report_changes(&ejected, control);
    }

    /// Returns the subchannels of endpoints that are ejected.
    fn ejected(&self) -> BTreeSet<SubchannelId> {
        let ids = self.subchannels.iter();
        let ejected = ids.filter(|(_, it)| self.endpoint(it).is_some_and(Monitored::is_ejected));
        ejected.map(|(id, _)| *id).collect()
    }

    fn endpoint(&self, subchannel: &MonitoredSubchannel) -> Option<&Monitored> {
        self.endpoints.get(*self.places.get(&subchannel.address)?)
    }

    /// Returns the state of a subchannel whose endpoint is ejected.
    fn ejection(&self, id: SubchannelId) -> Option<SubchannelState> {
        let subchannel = self.subchannels.get(&id)?;
        let is_ejected = self.endpoint(subchannel)?.is_ejected();
        is_ejected.then(|| {
            let address = &subchannel.address;
            SubchannelState::failed(Status::unavailable(format!(
                "{address} is ejected by outlier detection: too many of its calls have failed"
            )))
        })
    }

    /// Reports to the child which subchannels are ejected now, or no longer.
    fn report_changes(&mut self, before: &BTreeSet<SubchannelId>, control: &mut dyn Control) {
        for id in self.ejected().symmetric_difference(before) {
            self.report(*id, control);
        }
    }

    /// Reports the health of a subchannel, or its state if the child has not asked for the health, unless the subchannel
    /// is not connected.
    fn report(&mut self, id: SubchannelId, control: &mut dyn Control) {
        let ejection = self.ejection(id);
        let Some(subchannel) = self.subchannels.get(&id) else {
            return;
        };
        if !subchannel.watches_health {
            if subchannel.is_ready {
                let ready = SubchannelState::new(ConnectivityState::Ready);
                let state = ejection.unwrap_or(ready);
                self.run(control, |child, control| {
                    child.subchannel_changed(id, &state, control)
                });
            }
        } else if let Some(health) = subchannel.health.clone() {
            let health = ejection.unwrap_or(health);
            self.run(control, |child, control| {
                child.health_changed(id, &health, control)
            });
        }
    }

    /// Runs `event` on the child.
    fn run(
        &mut self,
        control: &mut dyn Control,
        event: impl FnOnce(&mut GracefulSwitch, &mut dyn Control),
    ) {
        let mut control = OutlierControl {
            control,
            subchannels: &mut self.subchannels,
            published: None,
        };
        event(&mut self.child, &mut control);
        if control.published.is_some() {
            self.published = control.published;
            self.is_new = true;
        }
    }

    /// Publishes what the child has published, with a picker that counts.
    fn publish(&mut self, control: &mut dyn Control) {
        if !std::mem::take(&mut self.is_new) {
            return;
        }
        self.subchannels
            .retain(|_, it| it.subchannel.upgrade().is_some());
        let Some((state, picker)) = self.published.clone() else {
            return;
        };
        let counts = self.config.as_ref().is_some_and(|it| it.ejection.counts());
        let picker = match picker {
            Picker::One(_) | Picker::RoundRobin(_) | Picker::Custom(_) if counts => {
                let calls = self.subchannels.iter();
                let calls =
                    calls.filter_map(|(id, it)| Some((*id, self.endpoint(it)?.calls.clone())));
                let calls = calls.collect();
                Picker::Custom(Arc::new(CountingPicker { picker, calls }))
            }
            picker => picker,
        };
        control.publish(state, picker);
    }
}

/// Picks as the child does, and counts the calls of each endpoint.
struct CountingPicker {
    picker: Picker,
    calls: HashMap<SubchannelId, Arc<CallCounter>>,
}

impl Pick for CountingPicker {
    fn pick(&self, call: &PickArgs<'_>) -> PickResult {
        let mut result = self.picker.pick(call);
        if let PickResult::Use(choice) = &mut result
            && let Some(calls) = self.calls.get(&choice.subchannel.id())
        {
            let tracking = Tracking::new(calls.clone(), 0);
            choice.tracking = Some(tracking.and(choice.tracking.take()));
        }
        result
    }
}

/// The channel, as the child sees it.
struct OutlierControl<'a> {
    control: &'a mut dyn Control,
    subchannels: &'a mut BTreeMap<SubchannelId, MonitoredSubchannel>,
    published: Option<(ConnectivityState, Picker)>,
}

impl Control for OutlierControl<'_> {
    fn create_subchannel(&mut self, address: &Address, attributes: &Attributes) -> Subchannel {
        let subchannel = self.control.create_subchannel(address, attributes);
        let monitored = MonitoredSubchannel {
            subchannel: subchannel.downgrade(),
            address: address.clone(),
            is_ready: false,
            watches_health: false,
            health: None,
        };
        self.subchannels.insert(subchannel.id(), monitored);
        subchannel
    }

    fn connect(&mut self, subchannel: &Subchannel) {
        self.control.connect(subchannel);
    }

    fn watch_health(&mut self, subchannel: &Subchannel) {
        if let Some(monitored) = self.subchannels.get_mut(&subchannel.id()) {
            monitored.watches_health = true;
        }
        self.control.watch_health(subchannel);
    }

    fn watch_load(&mut self, subchannel: &Subchannel, interval: Duration) {
        self.control.watch_load(subchannel, interval);
    }

    fn publish(&mut self, state: ConnectivityState, picker: Picker) {
        self.published = Some((state, picker));
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use trunkline_codec::Metadata;

    use super::super::testing::{Rig, name};
    use super::super::tracker::{EndedBy, Outcome};
    use super::*;

    const READY: ConnectivityState = ConnectivityState::Ready;

    /// Ejects endpoints of whose calls more than 85 % fail.
    const STRICT: &str = r#"{
        "maxEjectionPercent": 100,
        "failurePercentageEjection": {"minimumHosts": 1, "requestVolume": 5},
        "childPolicy": [{"round_robin": {}}]
    }"#;
    const OFF: &str = r#"{"childPolicy": [{"round_robin": {}}]}"#;

    fn parse(json: &str) -> Result<BalancerConfig, Status> {
        let value: Value = serde_json::from_str(json).unwrap();
        let policy: Arc<dyn Policy> = Arc::new(OutlierDetection);
        let config = policy.parse(&value, &Policies::builtin())?;
        Ok(BalancerConfig::new(policy, config))
    }

    fn up(rig: &mut Rig, name: &str) {
        rig.ready(name);
        rig.health(name, SubchannelState::new(READY));
    }

    /// A balancer whose endpoints are READY.
    fn rig(json: &str, list: &str) -> Rig {
        let mut rig = Rig::with(parse(json).unwrap());
        rig.update(list);
        for name in list.split(' ') {
            up(&mut rig, name);
        }
        rig
    }

    fn configure(rig: &mut Rig, json: &str, list: &str) {
        rig.config = parse(json).unwrap();
        rig.update(list);
    }

    /// Makes calls, of which those to `failing` fail, and counts them by server.
    fn calls(rig: &Rig, count: usize, failing: &str) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        for _ in 0..count {
            let PickResult::Use(choice) = rig.picked(&Metadata::new()) else {
                panic!("a call has no subchannel");
            };
            let name = name(choice.subchannel.address());
            let failure = Status::internal("it failed");
            let status = match name == failing {
                true => Err(&failure),
                false => Ok(()),
            };
            if let Some(tracking) = choice.tracking {
                tracking.ended(&Outcome::new(status, EndedBy::Server));
            }
            *calls.entry(name).or_default() += 1;
        }
        calls
    }

    /// The servers that calls use.
    fn servers(rig: &Rig) -> String {
        let names: BTreeSet<_> = (0..50).filter_map(|_| rig.pick()).collect();
        let names: Vec<_> = names.into_iter().collect();
        names.join(" ")
    }

    #[test]
    fn the_configuration_has_the_defaults_and_rules_of_the_specification() {
        let config = |json: &str| {
            let config = parse(json)?;
            Ok::<_, Status>(
                config
                    .config()
                    .downcast_ref::<OutlierConfig>()
                    .unwrap()
                    .clone(),
            )
        };
        let seconds = Duration::from_secs;
        let off = config(OFF).unwrap();
        let settings = EjectionSettings {
            base_time: seconds(30),
            max_time: seconds(300),
            max_percent: 10,
            success_rate: None,
            failure_percentage: None,
        };
        assert_eq!((off.interval, &off.ejection), (seconds(10), &settings));
        assert_eq!(off.child.name(), "round_robin");
        let on = r#"{"successRateEjection": {}, "failurePercentageEjection": {}, "childPolicy": [{"round_robin": {}}]}"#;
        let on = config(on).unwrap().ejection;
        let scope = |request_volume| EjectionScope {
            enforcement: 100,
            minimum_hosts: 5,
            request_volume,
        };
        let (success_rate, failure_percentage) =
            (on.success_rate.unwrap(), on.failure_percentage.unwrap());
        assert_eq!(
            (success_rate.stdev_factor, success_rate.scope),
            (1_900, scope(100))
        );
        assert_eq!(
            (failure_percentage.threshold, failure_percentage.scope),
            (85, scope(50))
        );
        let short = r#"{"interval": "0s", "childPolicy": [{"unknown": {}}, {"pick_first": {}}]}"#;
        let short = config(short).unwrap();
        assert_eq!(short.interval, Duration::from_millis(100));
        assert_eq!(short.child.name(), "pick_first");
        for fields in [
            r#""maxEjectionPercent": 101"#,
            r#""maxEjectionPercent": -1"#,
            r#""interval": "-1s""#,
            r#""baseEjectionTime": "x""#,
            r#""maxEjectionTime": 5"#,
            r#""successRateEjection": 5"#,
            r#""successRateEjection": {"stdevFactor": -1}"#,
            r#""successRateEjection": {"enforcementPercentage": 101}"#,
            r#""failurePercentageEjection": {"threshold": 101}"#,
            r#""failurePercentageEjection": {"minimumHosts": 1.5}"#,
        ] {
            let json = format!(r#"{{{fields}, "childPolicy": [{{"round_robin": {{}}}}]}}"#);
            assert!(config(&json).is_err(), "{json}");
        }
        for json in [
            "{}",
            r#"{"childPolicy": []}"#,
            r#"{"childPolicy": [{"unknown": {}}]}"#,
            r#"{"childPolicy": [{"pick_first": {"shuffleAddressList": 1}}]}"#,
        ] {
            assert!(config(json).is_err(), "{json}");
        }
    }

    #[test]
    fn an_endpoint_that_fails_is_left_out_after_an_interval_and_returns() {
        // The defaults, with calls enough for the success rate: one of five is 2 deviations below the mean.
        let json = r#"{"successRateEjection": {}, "childPolicy": [{"round_robin": {}}]}"#;
        let mut rig = rig(json, "1 2 3 4 5");
        calls(&rig, 500, "3");
        assert_eq!(servers(&rig), "1 2 3 4 5");
        rig.pass(10_000);
        assert_eq!(servers(&rig), "1 2 4 5");
        assert_eq!(rig.live(), "1 2 3 4 5", "its connection stays");
        rig.pass(39_999);
        assert_eq!(servers(&rig), "1 2 4 5");
        // Ejected at 10 s for 30 s: the sweep at 40 s is not after that, the one at 50 s is.
        rig.pass(1);
        assert_eq!(servers(&rig), "1 2 3 4 5");
    }

    #[test]
    fn all_endpoints_can_be_ejected_and_calls_then_fail_with_the_reason() {
        let mut rig = rig(STRICT, "1");
        calls(&rig, 5, "1");
        rig.pass(10_000);
        assert_eq!(rig.state(), ConnectivityState::TransientFailure);
        let PickResult::Fail(status) = rig.picked(&Metadata::new()) else {
            panic!("not failed");
        };
        let expected =
            "10.0.0.1:80 is ejected by outlier detection: too many of its calls have failed";
        assert_eq!(status.message(), expected);
        rig.pass(40_000);
        assert_eq!(servers(&rig), "1");
    }

    #[test]
    fn an_ejection_lasts_through_a_new_connection_and_hides_the_health() {
        let mut rig = rig(STRICT, "1 2");
        calls(&rig, 20, "1");
        rig.pass(10_000);
        rig.idle("1");
        up(&mut rig, "1");
        assert_eq!(servers(&rig), "2");
        let ill = SubchannelState::failed(Status::unavailable("1 is ill"));
        rig.health("1", ill);
        rig.health(
            "2",
            SubchannelState::failed(Status::unavailable("2 is ill")),
        );
        let PickResult::Fail(_) = rig.picked(&Metadata::new()) else {
            panic!("not failed");
        };
        rig.pass(40_000);
        assert_eq!(
            rig.state(),
            ConnectivityState::TransientFailure,
            "1 is still ill"
        );
        rig.health("1", SubchannelState::new(READY));
        assert_eq!(servers(&rig), "1");
    }

    #[test]
    fn the_addresses_of_an_endpoint_are_counted_and_ejected_as_one() {
        let json = STRICT.replace(r#""requestVolume": 5"#, r#""requestVolume": 20"#);
        let mut rig = Rig::with(parse(&json).unwrap());
        rig.update("1+2 3");
        up(&mut rig, "1");
        up(&mut rig, "3");
        calls(&rig, 20, "1");
        // The connection to the first address is lost, and the second takes over.
        rig.idle("1");
        rig.fail("1");
        up(&mut rig, "2");
        assert_eq!(servers(&rig), "2 3");
        calls(&rig, 20, "2");
        rig.pass(10_000);
        assert_eq!(servers(&rig), "3", "ten calls to each address are enough");
        rig.idle("2");
        rig.fail("2");
        up(&mut rig, "1");
        assert_eq!(servers(&rig), "3");
        // With the addresses in another order, it is the same endpoint.
        rig.update("3 2+1");
        assert_eq!(servers(&rig), "3");
        rig.pass(40_000);
        assert_eq!(servers(&rig), "1 3");
    }

    #[test]
    fn an_endpoint_that_leaves_the_list_is_forgotten() {
        let mut rig = rig(STRICT, "1 2");
        calls(&rig, 20, "1");
        rig.pass(10_000);
        assert_eq!(servers(&rig), "2");
        rig.update("2");
        rig.update("1 2");
        up(&mut rig, "1");
        assert_eq!(servers(&rig), "1 2");
    }

    #[test]
    fn without_an_algorithm_nothing_is_counted() {
        let mut rig = rig(OFF, "1 2");
        assert!(rig.control.timers.is_empty());
        assert!(matches!(
            rig.control.published,
            Some((_, Picker::RoundRobin(_)))
        ));
        // Counting begins.
        configure(&mut rig, STRICT, "1 2");
        calls(&rig, 20, "1");
        rig.pass(10_000);
        assert_eq!(servers(&rig), "2");
        // It ends, and with it all ejections.
        configure(&mut rig, OFF, "1 2");
        assert!(rig.control.timers.is_empty());
        assert_eq!(servers(&rig), "1 2");
        assert!(matches!(
            rig.control.published,
            Some((_, Picker::RoundRobin(_)))
        ));
        // Calls before the end do not count when it begins again.
        configure(&mut rig, STRICT, "1 2");
        rig.pass(10_000);
        assert_eq!(servers(&rig), "1 2");
    }

    #[test]
    fn a_new_interval_begins_with_the_last_sweep() {
        let mut rig = rig(STRICT, "1 2");
        rig.pass(10_000);
        rig.pass(4_000);
        let next = |rig: &Rig| *rig.control.timers.values().next().unwrap() - rig.control.now;
        assert_eq!(next(&rig), Duration::from_secs(6));
        configure(&mut rig, STRICT, "1 2");
        assert_eq!(next(&rig), Duration::from_secs(6));
        let slower = STRICT.replacen('{', r#"{"interval": "15s","#, 1);
        configure(&mut rig, &slower, "1 2");
        assert_eq!(next(&rig), Duration::from_secs(11));
        assert_eq!(rig.control.timers.len(), 1);
    }

    /// pick_first does not watch health at the top, so it is told that the connection failed, and moves on.
    #[test]
    fn a_child_that_does_not_watch_health_loses_an_ejected_subchannel() {
        let json = STRICT.replace("round_robin", "pick_first");
        let mut rig = Rig::with(parse(&json).unwrap());
        rig.update("1 2");
        rig.ready("1");
        calls(&rig, 5, "1");
        rig.pass(10_000);
        rig.ready("2");
        assert_eq!((rig.pick().as_deref(), rig.state()), (Some("2"), READY));
    }

    #[test]
    fn another_child_policy_takes_over() {
        let mut rig = rig(STRICT, "1 2");
        let json = STRICT.replace("round_robin", "pick_first");
        configure(&mut rig, &json, "1 2");
        assert_eq!(
            rig.live(),
            "1 1 2",
            "the old one serves until the new one is connected"
        );
        assert_eq!(servers(&rig), "1 2");
        let newest = rig.control.live().last().unwrap().id;
        rig.control.change(newest, SubchannelState::new(READY));
        rig.settle();
        assert_eq!((rig.live().as_str(), servers(&rig).as_str()), ("1", "1"));
        // It is counted as well.
        calls(&rig, 5, "1");
        rig.pass(10_000);
        assert_eq!(servers(&rig), "");
    }

    #[test]
    fn the_trackers_of_the_child_learn_the_ends_of_calls_as_well() {
        let json = STRICT.replace("round_robin", "weighted_round_robin");
        let mut rig = rig(
            &json.replace(r#"n": {}"#, r#"n": {"blackoutPeriod": "0s"}"#),
            "1 2",
        );
        let mut load = LoadReport::default();
        for _ in 0..10 {
            let PickResult::Use(choice) = rig.picked(&Metadata::new()) else {
                panic!("no subchannel");
            };
            let weight: f64 = name(choice.subchannel.address()).parse().unwrap();
            (load.application_utilization, load.rps_fractional) = (0.5, weight);
            let mut trailers = http::HeaderMap::new();
            load.write_to(&mut trailers);
            let mut outcome = Outcome::new(Ok(()), EndedBy::Server);
            outcome.trailers = Some(&trailers);
            choice.tracking.unwrap().ended(&outcome);
        }
        rig.pass(1_000);
        // By weight, a third and two thirds.
        assert_eq!(calls(&rig, 30, "")["2"], 20);
    }

    #[test]
    fn errors_of_the_resolver_and_empty_lists_reach_the_child() {
        let mut rig = rig(STRICT, "1 2");
        let error = Status::unavailable("no DNS");
        rig.resolve(Err(&error)).unwrap();
        assert_eq!(servers(&rig), "1 2");
        let empty = rig.resolve(Ok(&[])).unwrap_err();
        assert_eq!(empty.message(), "no addresses: a note");
        assert_eq!(rig.live(), "");
    }
}
