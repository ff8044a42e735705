//! weighted_round_robin: calls take all connected endpoints in turn, each as often as its load permits (gRFC A58, A114).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde_json::Value;
use tokio::time::Instant;
use trunkline_codec::{LoadReport, Status};

use super::balancer::{Balancer, Control, TimerId, Update};
use super::load_weight::{LoadWeight, UtilizationMetric, WeightSettings};
use super::picker::{Choice, Pick, PickArgs, PickResult, Picker};
use super::policy::{Policies, Policy, PolicyConfig};
use super::ready_balancer::{MakePicker, ReadyBalancer, ReadyEndpoint};
use super::static_stride::StaticStride;
use super::tracker::{AttemptTracker, Outcome, Tracking};
use crate::config::json::{JsonField, JsonObject};
use crate::subchannel::{Subchannel, SubchannelId};

/// The least time between two updates of the weights (gRFC A58).
const UPDATE_PERIOD_MIN: Duration = Duration::from_millis(100);

/// The policy `weighted_round_robin`.
#[derive(Debug)]
pub(crate) struct WeightedRoundRobin;

#[derive(Clone, Debug, PartialEq)]
struct WeightedConfig {
    /// The period of reports outside of calls. `None`: calls report.
    report_period: Option<Duration>,
    update_period: Duration,
    weights: WeightSettings,
}

impl Policy for WeightedRoundRobin {
    fn name(&self) -> &str {
        "weighted_round_robin"
    }

    fn parse(&self, config: &Value, _: &Policies) -> Result<PolicyConfig, Status> {
        let config = JsonObject::document(self.name(), config)?;
        let duration = |name: &str, default: u64| {
            let set = config.optional(name, JsonField::duration)?;
            Ok::<_, Status>(set.unwrap_or_else(|| Duration::from_secs(default)))
        };
        let reports = config.optional("enableOobLoadReport", JsonField::boolean)?;
        let report_period = duration("oobReportingPeriod", 10)?;
        let penalty =
            config.optional("errorUtilizationPenalty", |field| match field.float()? {
                penalty if penalty >= 0.0 => Ok(penalty),
                _ => Err(field.invalid("a penalty; write 0 or more")),
            })?;
        let metrics = config.optional("metricNamesForComputingUtilization", |field| {
            field.list()?.iter().map(metric).collect()
        })?;
        Ok(Arc::new(WeightedConfig {
            report_period: (reports == Some(true)).then_some(report_period),
            update_period: duration("weightUpdatePeriod", 1)?.max(UPDATE_PERIOD_MIN),
            weights: WeightSettings {
                blackout: duration("blackoutPeriod", 10)?,
                expiration: duration("weightExpirationPeriod", 180)?,
                error_penalty: penalty.unwrap_or(1.0),
                metrics: metrics.unwrap_or_default(),
            },
        }))
    }

    fn build(&self) -> Box<dyn Balancer> {
        Box::new(ReadyBalancer::new(MakeWeighted::default()))
    }
}

fn metric(field: &JsonField<'_>) -> Result<UtilizationMetric, Status> {
    let metric = UtilizationMetric::parse(field.string()?);
    metric.ok_or_else(|| {
        field.invalid("a metric of load reports; write application_utilization, cpu_utilization, mem_utilization, or a name after \"utilization.\" or \"named_metrics.\"")
    })
}

#[derive(Default)]
struct MakeWeighted {
    config: Option<Arc<WeightedConfig>>,
    /// True until the timer follows the configuration.
    is_new_config: bool,
    /// The subchannels that are READY.
    connected: BTreeSet<SubchannelId>,
    /// The period in which these have been asked for reports.
    asked: Option<Duration>,
    /// Begins at random, so that the clients of a server do not all begin with the same endpoint.
    next: Option<Arc<AtomicUsize>>,
    /// The last picker, while an endpoint is READY.
    picker: Option<Arc<WeightedPicker>>,
    /// The next update of its weights, while there is a choice.
    timer: Option<TimerId>,
}

impl MakePicker for MakeWeighted {
    /// The weight begins with the first connection.
    type Data = OnceLock<Arc<LoadWeight>>;

    fn update(&mut self, update: Update<'_>) -> bool {
        match update.config_as::<WeightedConfig>() {
            Some(config) if self.config.as_deref() != Some(config) => {
                self.config = Some(Arc::new(config.clone()));
                self.is_new_config = true;
                true
            }
            _ => false,
        }
    }

    /// A new connection begins the blackout again, and is asked for reports.
    fn connections_changed(
        &mut self,
        ready: &[ReadyEndpoint<'_, Self::Data>],
        control: &mut dyn Control,
    ) {
        if std::mem::take(&mut self.is_new_config) || ready.len() < 2 {
            self.stop_timer(control);
        }
        if ready.is_empty() {
            self.picker = None;
        }
        let now = control.now();
        let period = self.config.as_ref().and_then(|it| it.report_period);
        for it in ready {
            let (subchannel, weight) = (it.subchannel, it.data);
            let weight = weight.get_or_init(|| Arc::new(LoadWeight::new(now)));
            let is_new = !self.connected.contains(&subchannel.id());
            if is_new {
                weight.restart_blackout();
            }
            if let Some(period) = period.filter(|_| is_new || self.asked != period) {
                control.watch_load(subchannel, period);
            }
        }
        self.connected = ready.iter().map(|it| it.subchannel.id()).collect();
        self.asked = period;
    }

    fn make_picker(
        &mut self,
        ready: &[ReadyEndpoint<'_, Self::Data>],
        control: &mut dyn Control,
    ) -> Picker {
        let Some(config) = self.config.clone() else {
            return Picker::Wait;
        };
        let start = || Arc::new(AtomicUsize::new(control.random() as usize));
        let weights = ready.iter().filter_map(|it| it.data.get().cloned());
        let picker = Arc::new(WeightedPicker {
            subchannels: ready.iter().map(|it| it.subchannel.clone()).collect(),
            next: self.next.get_or_insert_with(start).clone(),
            schedule: ArcSwapOption::empty(),
            loads: Arc::new(EndpointLoads {
                weights: weights.collect(),
                config,
            }),
        });
        picker.reschedule(control.now());
        self.picker = Some(picker.clone());
        if ready.len() > 1 && self.timer.is_none() {
            self.start_timer(control);
        }
        Picker::Custom(picker)
    }

    fn load_reported(&mut self, data: &Self::Data, report: &LoadReport, control: &mut dyn Control) {
        if let (Some(weight), Some(config)) = (data.get(), &self.config)
            && config.report_period.is_some()
        {
            weight.report(report, &config.weights, control.now());
        }
    }

    fn timer_expired(&mut self, timer: TimerId, control: &mut dyn Control) -> bool {
        let is_own = self.timer.take_if(|it| *it == timer).is_some();
        if let (true, Some(picker)) = (is_own, &self.picker) {
            picker.reschedule(control.now());
            self.start_timer(control);
        }
        is_own
    }
}

impl MakeWeighted {
    fn start_timer(&mut self, control: &mut dyn Control) {
        let period = self.config.as_ref().map(|it| it.update_period);
        self.timer = period.map(|it| control.set_timer(control.now() + it));
    }

    fn stop_timer(&mut self, control: &mut dyn Control) {
        if let Some(timer) = self.timer.take() {
            control.cancel_timer(timer);
        }
    }
}

/// The endpoints that are READY, by weight.
struct WeightedPicker {
    subchannels: Vec<Subchannel>,
    next: Arc<AtomicUsize>,
    /// Empty while too few weights are known: calls then use the subchannels in turn.
    schedule: ArcSwapOption<StaticStride>,
    loads: Arc<EndpointLoads>,
}

/// The weights of the endpoints of a picker. A token is the place of an endpoint.
struct EndpointLoads {
    weights: Vec<Arc<LoadWeight>>,
    config: Arc<WeightedConfig>,
}

impl WeightedPicker {
    /// Takes the weights as they are now.
    fn reschedule(&self, now: Instant) {
        let EndpointLoads { weights, config } = &*self.loads;
        let weights = weights.iter().map(|it| it.usable(&config.weights, now));
        let weights: Vec<f64> = weights.collect();
        let schedule = StaticStride::new(&weights, self.next.clone());
        self.schedule.store(schedule.map(Arc::new));
    }
}

impl Pick for WeightedPicker {
    fn pick(&self, _: &PickArgs<'_>) -> PickResult {
        let at = match &*self.schedule.load() {
            Some(schedule) => schedule.next(),
            None => self.next.fetch_add(1, Ordering::Relaxed) % self.subchannels.len().max(1),
        };
        let Some(subchannel) = self.subchannels.get(at) else {
            return PickResult::Wait;
        };
        let mut choice = Choice::new(subchannel.clone());
        if self.loads.config.report_period.is_none() {
            choice.tracking = Some(Tracking::new(self.loads.clone(), at));
        }
        PickResult::Use(choice)
    }
}

impl AttemptTracker for EndpointLoads {
    fn ended(&self, token: usize, outcome: &Outcome<'_>) {
        if let (Some(report), Some(weight)) = (outcome.load_report(), self.weights.get(token)) {
            weight.report(report, &self.config.weights, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::HeaderMap;
    use trunkline_codec::Metadata;

    use super::super::balancer::SubchannelState;
    use super::super::testing::{Rig, endpoints, name};
    use super::super::tracker::EndedBy;
    use super::*;
    use crate::connectivity::ConnectivityState;

    const READY: ConnectivityState = ConnectivityState::Ready;

    fn parse(json: &str) -> Result<WeightedConfig, Status> {
        let value: Value = serde_json::from_str(json).unwrap();
        let config = WeightedRoundRobin.parse(&value, &Policies::default())?;
        Ok(config.downcast_ref::<WeightedConfig>().unwrap().clone())
    }

    fn up(rig: &mut Rig, name: &str) {
        rig.ready(name);
        rig.health(name, SubchannelState::new(READY));
    }

    /// A balancer whose endpoints are READY.
    fn rig(json: &str, list: &str) -> Rig {
        let mut rig = Rig::new(WeightedRoundRobin, json);
        rig.update(list);
        for name in list.split(' ') {
            up(&mut rig, name);
        }
        rig
    }

    /// Lets time pass, for the balancer and for the trackers of calls.
    async fn pass(rig: &mut Rig, seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        rig.pass(seconds * 1_000);
        rig.control.now = Instant::now();
    }

    /// A report by which a server has this weight: 100 queries each second at a utilization of 100 / weight.
    fn report(weight: f64) -> LoadReport {
        let mut report = LoadReport::default();
        report.application_utilization = 100.0 / weight;
        report.rps_fractional = 100.0;
        report
    }

    /// Makes calls, in whose trailers each server reports the weight that is its name, and counts them.
    fn calls(rig: &Rig, count: usize) -> BTreeMap<String, usize> {
        let mut calls = BTreeMap::new();
        for _ in 0..count {
            let PickResult::Use(choice) = rig.picked(&Metadata::new()) else {
                panic!("a call has no subchannel");
            };
            let name = name(choice.subchannel.address());
            let mut trailers = HeaderMap::new();
            report(name.parse().unwrap()).write_to(&mut trailers);
            let status = Status::unavailable("a failed call counts as well");
            let mut outcome = Outcome::new(Err(&status), EndedBy::Server);
            outcome.trailers = Some(&trailers);
            if let Some(tracking) = choice.tracking {
                tracking.ended(&outcome);
            }
            *calls.entry(name).or_default() += 1;
        }
        calls
    }

    /// Checks that each server has a share of the calls by its weight, which is its name, within 3 %.
    fn check_weighted(calls: &BTreeMap<String, usize>) {
        let weight = |name: &String| name.parse::<f64>().unwrap();
        let sum: f64 = calls.keys().map(weight).sum();
        let count: usize = calls.values().sum();
        for (name, calls_of_one) in calls {
            let expected = count as f64 * weight(name) / sum;
            let error = (*calls_of_one as f64 - expected).abs() / expected;
            assert!(error < 0.03, "{calls:?}");
        }
    }

    fn check_even(calls: &BTreeMap<String, usize>) {
        let (least, most) = (calls.values().min(), calls.values().max());
        assert!(most.unwrap() - least.unwrap() <= 1, "{calls:?}");
    }

    #[test]
    fn the_configuration_has_the_defaults_and_rules_of_the_specification() {
        let seconds = Duration::from_secs;
        let default = WeightedConfig {
            report_period: None,
            update_period: seconds(1),
            weights: WeightSettings {
                blackout: seconds(10),
                expiration: seconds(180),
                error_penalty: 1.0,
                metrics: Vec::new(),
            },
        };
        assert_eq!(parse("{}").unwrap(), default);
        let all = r#"{
            "enableOobLoadReport": true, "oobReportingPeriod": "5s", "blackoutPeriod": "0s",
            "weightExpirationPeriod": "60s", "weightUpdatePeriod": "0.099s", "errorUtilizationPenalty": 0,
            "metricNamesForComputingUtilization": ["cpu_utilization", "named_metrics.a.b"]
        }"#;
        let expected = WeightedConfig {
            report_period: Some(seconds(5)),
            update_period: Duration::from_millis(100),
            weights: WeightSettings {
                blackout: seconds(0),
                expiration: seconds(60),
                error_penalty: 0.0,
                metrics: vec![
                    UtilizationMetric::Cpu,
                    UtilizationMetric::Named("a.b".to_owned()),
                ],
            },
        };
        assert_eq!(parse(all).unwrap(), expected);
        let of_calls = r#"{"enableOobLoadReport": false, "oobReportingPeriod": "5s"}"#;
        assert_eq!(parse(of_calls).unwrap(), default);
        for json in [
            r#"{"errorUtilizationPenalty": -1}"#,
            r#"{"errorUtilizationPenalty": "NaN"}"#,
            r#"{"blackoutPeriod": "-1s"}"#,
            r#"{"weightUpdatePeriod": 1}"#,
            r#"{"enableOobLoadReport": "true"}"#,
            r#"{"metricNamesForComputingUtilization": "cpu_utilization"}"#,
            r#"{"metricNamesForComputingUtilization": [5]}"#,
            r#"{"metricNamesForComputingUtilization": ["cpu"]}"#,
        ] {
            assert!(parse(json).is_err(), "{json}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_follow_the_reports_of_calls_after_the_blackout() {
        let mut rig = rig("{}", "1 2 4");
        check_even(&calls(&rig, 30));
        rig.log();
        pass(&mut rig, 9).await;
        check_even(&calls(&rig, 30));
        pass(&mut rig, 1).await;
        check_weighted(&calls(&rig, 7_000));
        assert!(
            rig.log().is_empty(),
            "waiting calls are not woken for new weights"
        );
        // Without reports, the weights expire after 180 s.
        pass(&mut rig, 179).await;
        let PickResult::Use(_) = rig.picked(&Metadata::new()) else {
            panic!("no subchannel");
        };
        pass(&mut rig, 1).await;
        check_even(&calls(&rig, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reconnected_endpoint_has_the_mean_weight_for_the_blackout() {
        let mut rig = rig("{}", "1 2 6");
        calls(&rig, 30);
        pass(&mut rig, 10).await;
        check_weighted(&calls(&rig, 9_000));
        rig.idle("6");
        check_weighted(&calls(&rig, 3_000));
        up(&mut rig, "6");
        // The mean of 1 and 2 is 1.5: a third of all.
        let mean = calls(&rig, 9_000);
        assert!((2_910..3_090).contains(&mean["6"]), "{mean:?}");
        pass(&mut rig, 10).await;
        check_weighted(&calls(&rig, 9_000));
    }

    #[tokio::test(start_paused = true)]
    async fn weights_last_through_updates_of_the_list() {
        let mut rig = rig("{}", "1 2");
        calls(&rig, 30);
        pass(&mut rig, 10).await;
        rig.update("3 2 1");
        check_weighted(&calls(&rig, 3_000));
        up(&mut rig, "3");
        // Its weight is unknown, and the mean of 1 and 2.
        let mean = calls(&rig, 9_000);
        assert!((2_910..3_090).contains(&mean["3"]), "{mean:?}");
        // An error of the resolver changes nothing.
        let error = Status::unavailable("no DNS");
        rig.resolve(Err(&error)).unwrap();
        pass(&mut rig, 10).await;
        check_weighted(&calls(&rig, 6_000));
    }

    #[tokio::test(start_paused = true)]
    async fn fewer_than_two_weights_are_plain_turns() {
        let mut rig = rig(r#"{"blackoutPeriod": "0s"}"#, "1 2 4");
        // Only the first server reports.
        let PickResult::Use(choice) = rig.picked(&Metadata::new()) else {
            panic!("no subchannel");
        };
        let status = Status::unavailable("");
        let mut trailers = HeaderMap::new();
        report(9.0).write_to(&mut trailers);
        let mut outcome = Outcome::new(Err(&status), EndedBy::Server);
        outcome.trailers = Some(&trailers);
        choice.tracking.unwrap().ended(&outcome);
        pass(&mut rig, 1).await;
        let picks = (0..30).filter_map(|_| rig.pick());
        let mut even = BTreeMap::new();
        for name in picks {
            *even.entry(name).or_default() += 1;
        }
        check_even(&even);
        // A server alone needs no timer.
        rig.idle("1");
        assert_eq!(rig.control.timers.len(), 1);
        rig.idle("2");
        assert_eq!(rig.control.timers.len(), 0);
        assert_eq!(rig.pick().as_deref(), Some("4"));
    }

    #[tokio::test(start_paused = true)]
    async fn with_reports_outside_of_calls_those_of_calls_are_ignored() {
        let json =
            r#"{"enableOobLoadReport": true, "oobReportingPeriod": "3s", "blackoutPeriod": "2s"}"#;
        let mut rig = rig(json, "1 2 4");
        let period = Some(Duration::from_secs(3));
        assert!(
            rig.control
                .live()
                .iter()
                .all(|it| it.load_interval == period)
        );
        let PickResult::Use(choice) = rig.picked(&Metadata::new()) else {
            panic!("no subchannel");
        };
        assert!(choice.tracking.is_none());
        let report_all = |rig: &mut Rig| {
            for name in ["1", "2", "4"] {
                rig.report_load(name, &report(name.parse().unwrap()));
            }
        };
        report_all(&mut rig);
        check_even(&calls(&rig, 30));
        pass(&mut rig, 2).await;
        check_weighted(&calls(&rig, 7_000));
        // Each new connection is asked.
        rig.idle("1");
        for created in rig.control.live() {
            created.load_interval = None;
        }
        up(&mut rig, "1");
        let asked = rig
            .control
            .live()
            .iter()
            .filter(|it| it.load_interval == period);
        let asked: Vec<_> = asked.map(|it| it.name.clone()).collect();
        assert_eq!(asked, ["1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_configuration_applies_at_once() {
        let mut rig = rig("{}", "1 2 4");
        calls(&rig, 30);
        pass(&mut rig, 1).await;
        let policy: Arc<dyn Policy> = Arc::new(WeightedRoundRobin);
        let config = r#"{"blackoutPeriod": "1s", "weightUpdatePeriod": "20s"}"#;
        let config = Arc::new(parse(config).unwrap());
        rig.config = super::super::policy::BalancerConfig::new(policy, config);
        rig.update("1 2 4");
        check_weighted(&calls(&rig, 7_000));
        let times: Vec<_> = rig.control.timers.values().collect();
        assert_eq!(times, [&(rig.control.now + Duration::from_secs(20))]);
    }

    #[test]
    fn without_a_connection_calls_wait_or_fail_with_the_last_failure() {
        let mut rig = Rig::new(WeightedRoundRobin, "{}");
        rig.update("1 2");
        assert_eq!(rig.state(), ConnectivityState::Connecting);
        rig.fail("1");
        rig.fail("2");
        assert_eq!(rig.state(), ConnectivityState::TransientFailure);
        let PickResult::Fail(status) = rig.picked(&Metadata::new()) else {
            panic!("not failed");
        };
        let expected = "none of 2 addresses can be reached; the last: 2 refuses";
        assert_eq!(status.message(), expected);
        rig.idle("1");
        up(&mut rig, "1");
        rig.idle("2");
        up(&mut rig, "2");
        assert_eq!((rig.state(), rig.control.timers.len()), (READY, 1));
        rig.resolve(Ok(&endpoints(""))).unwrap_err();
        assert_eq!((rig.live().as_str(), rig.control.timers.len()), ("", 0));
    }

    #[test]
    fn sixteen_threads_pick_by_weight() {
        let config = Arc::new(parse(r#"{"blackoutPeriod": "0s"}"#).unwrap());
        let now = Instant::now();
        let names = ["1", "2", "4"];
        let weights = names.map(|name| {
            let weight = LoadWeight::new(now);
            weight.report(&report(name.parse().unwrap()), &config.weights, now);
            Arc::new(weight)
        });
        let subchannels = endpoints("1 2 4").into_iter().enumerate();
        let subchannels =
            subchannels.map(|(at, it)| Subchannel::detached(at as u64, it.addresses()[0].clone()));
        let picker = WeightedPicker {
            subchannels: subchannels.collect(),
            next: Arc::default(),
            schedule: ArcSwapOption::empty(),
            loads: Arc::new(EndpointLoads {
                weights: weights.into(),
                config,
            }),
        };
        picker.reschedule(now);
        let counts = names.map(|_| AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let metadata = Metadata::new();
                    for _ in 0..7_000 {
                        let PickResult::Use(choice) =
                            picker.pick(&PickArgs::new("/s/m", &metadata))
                        else {
                            panic!("no subchannel");
                        };
                        let at = choice.subchannel.id().0 as usize;
                        counts[at].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let counts = names.iter().zip(&counts);
        let counts = counts.map(|(name, it)| ((*name).to_owned(), it.load(Ordering::Relaxed)));
        check_weighted(&counts.collect());
    }
}
