//! random_subsetting_experimental: a client uses some of the endpoints, chosen at random (gRFC A68).

use std::sync::Arc;

use serde_json::Value;
use trunkline_codec::{LoadReport, Status};
use xxhash_rust::xxh64::xxh64;

use super::balancer::{Balancer, Control, SubchannelState, TimerId, Update};
use super::graceful_switch::GracefulSwitch;
use super::policy::{BalancerConfig, Policies, Policy, PolicyConfig};
use crate::config::json::JsonObject;
use crate::endpoint::Endpoint;
use crate::subchannel::SubchannelId;

/// The policy `random_subsetting_experimental`.
#[derive(Debug)]
pub(crate) struct RandomSubsetting;

struct SubsettingConfig {
    size: usize,
    child: BalancerConfig,
}

impl Policy for RandomSubsetting {
    fn name(&self) -> &str {
        "random_subsetting_experimental"
    }

    fn parse(&self, config: &Value, policies: &Policies) -> Result<PolicyConfig, Status> {
        let config = JsonObject::document(self.name(), config)?;
        let size = config.required("subsetSize", |field| match field.unsigned()? {
            0 => Err(field.invalid("at least 1")),
            size => Ok(usize::try_from(size).unwrap_or(usize::MAX)),
        })?;
        let child = config.required("childPolicy", |field| {
            policies.choose(&field.path, field.value)
        })?;
        Ok(Arc::new(SubsettingConfig { size, child }))
    }

    fn build(&self) -> Box<dyn Balancer> {
        Box::new(SubsettingBalancer {
            seed: None,
            child: GracefulSwitch::default(),
        })
    }
}

struct SubsettingBalancer {
    /// Makes the choice of this client another than those of others, and the same for each list.
    seed: Option<u64>,
    child: GracefulSwitch,
}

impl Balancer for SubsettingBalancer {
    fn update(&mut self, update: Update<'_>, control: &mut dyn Control) -> Result<(), Status> {
        let Some(config) = update.config_as::<SubsettingConfig>() else {
            return Err(Status::internal(
                "random_subsetting_experimental has the configuration of another policy",
            ));
        };
        let seed = *self.seed.get_or_insert_with(|| control.random());
        let endpoints = update.endpoints.map(|it| subset(it, config.size, seed));
        let update = Update {
            endpoints: endpoints.as_deref().map_err(|status| *status),
            ..update
        };
        self.child.update(&config.child, update, control)
    }

    fn subchannel_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) {
        self.child.subchannel_changed(id, state, control);
    }

    fn health_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) {
        self.child.health_changed(id, state, control);
    }

    fn load_reported(&mut self, id: SubchannelId, report: &LoadReport, control: &mut dyn Control) {
        self.child.load_reported(id, report, control);
    }

    fn timer_expired(&mut self, timer: TimerId, control: &mut dyn Control) {
        self.child.timer_expired(timer, control);
    }

    fn exit_idle(&mut self, control: &mut dyn Control) {
        self.child.exit_idle(control);
    }
}

/// Returns the `size` endpoints with the lowest hashes of their first addresses.
fn subset(endpoints: &[Endpoint], size: usize, seed: u64) -> Vec<Endpoint> {
    let mut subset = endpoints.to_vec();
    if size < subset.len() {
        subset.sort_by_cached_key(|endpoint| {
            let first = endpoint.addresses().first().map(ToString::to_string);
            xxh64(first.unwrap_or_default().as_bytes(), seed)
        });
        subset.truncate(size);
    }
    subset
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::super::testing::{Random, Rig, endpoints, name};
    use super::*;
    use crate::connectivity::ConnectivityState;

    fn parse(json: &str) -> Result<PolicyConfig, Status> {
        let value = serde_json::from_str(json).expect("JSON");
        RandomSubsetting.parse(&value, &Policies::builtin())
    }

    fn rig(json: &str) -> Rig {
        let config = parse(json).expect("a config");
        Rig::with(BalancerConfig::new(Arc::new(RandomSubsetting), config))
    }

    fn list(numbers: std::ops::RangeInclusive<u32>) -> Vec<Endpoint> {
        let names: Vec<_> = numbers.map(|it| it.to_string()).collect();
        endpoints(&names.join(" "))
    }

    fn names(subset: &[Endpoint]) -> HashSet<String> {
        let names = subset.iter().map(|it| name(&it.addresses()[0]));
        names.collect()
    }

    #[test]
    fn both_fields_are_required() {
        let child = r#"[{"unknown": {}}, {"round_robin": {}}]"#;
        let config = parse(&format!(r#"{{"subsetSize": 3, "childPolicy": {child}}}"#));
        let config = config.expect("a config");
        let config = config.downcast_ref::<SubsettingConfig>().expect("its own");
        assert_eq!((config.size, config.child.name()), (3, "round_robin"));
        for (json, field) in [
            ("{}", "subsetSize"),
            (r#"{"subsetSize": 3}"#, "childPolicy"),
            (&format!(r#"{{"childPolicy": {child}}}"#), "subsetSize"),
            (
                &format!(r#"{{"subsetSize": 0, "childPolicy": {child}}}"#),
                "subsetSize",
            ),
            (
                &format!(r#"{{"subsetSize": -1, "childPolicy": {child}}}"#),
                "subsetSize",
            ),
            (r#"{"subsetSize": 3, "childPolicy": []}"#, "childPolicy"),
            (
                r#"{"subsetSize": 3, "childPolicy": [{"least_request_experimental": {"choiceCount": 1}}]}"#,
                "childPolicy",
            ),
        ] {
            let Err(status) = parse(json) else {
                panic!("{json} is accepted");
            };
            assert!(status.message().starts_with(field), "{json}: {status}");
        }
    }

    #[test]
    fn a_subset_has_its_size_and_a_shorter_list_is_used_whole() {
        let all = list(1..=10);
        for size in 1..12 {
            assert_eq!(subset(&all, size, 7).len(), size.min(10));
        }
        let whole: Vec<_> = subset(&all, 10, 7)
            .iter()
            .map(ToString::to_string)
            .collect();
        let order: Vec<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!(whole, order);
    }

    #[test]
    fn the_choice_is_by_xxh64_of_the_first_address() {
        let all = endpoints("1+9 2+8 3");
        let hash = |it: &Endpoint| xxh64(it.addresses()[0].to_string().as_bytes(), 42);
        // XXH64 itself: the vector of an empty input without a seed.
        assert_eq!(xxh64(b"", 0), 0xef46_db37_51d8_e999);
        let lowest = all.iter().min_by_key(|it| hash(it)).expect("one");
        assert_eq!(subset(&all, 1, 42)[0].to_string(), lowest.to_string());
    }

    #[test]
    fn a_change_of_the_list_changes_the_subset_no_more_than_needed() {
        for seed in 0..200 {
            let all = list(1..=50);
            let before = names(&subset(&all, 10, seed));
            // Without an endpoint of the subset, one other takes its place; without another one, nothing changes.
            for gone in [&all[0], &all[20], &all[49]] {
                let rest: Vec<_> = all.iter().filter(|it| !it.is_same(gone)).cloned().collect();
                let after = names(&subset(&rest, 10, seed));
                let was_used = before.contains(&name(&gone.addresses()[0]));
                let kept = before.intersection(&after).count();
                assert_eq!(kept, if was_used { 9 } else { 10 }, "seed {seed}");
            }
            let after = names(&subset(&list(1..=51), 10, seed));
            assert!(before.intersection(&after).count() >= 9, "seed {seed}");
        }
    }

    #[test]
    fn clients_together_use_all_endpoints_evenly() {
        let all = list(1..=20);
        let mut random = Random(3);
        let mut counts: HashMap<String, u32> = HashMap::new();
        for _ in 0..2_000 {
            for name in names(&subset(&all, 5, random.next())) {
                *counts.entry(name).or_default() += 1;
            }
        }
        // Each endpoint is in a quarter of the subsets. The counts of a subset are not independent, which divides the
        // variance by 1 - 5/20; with 19 degrees of freedom, 43.8 is exceeded once in 1,000.
        let terms = counts.values().map(|it| (f64::from(*it) - 500.0).powi(2));
        let chi_square = terms.sum::<f64>() / 500.0 / (1.0 - 5.0 / 20.0) * (19.0 / 20.0);
        assert!(counts.len() == 20 && chi_square < 43.8, "{chi_square}");
    }

    #[test]
    fn the_child_has_the_subset_and_events_reach_it() {
        let mut rig = rig(r#"{"subsetSize": 2, "childPolicy": [{"round_robin": {}}]}"#);
        rig.update("1 2 3 4 5");
        let live = rig.live();
        let used: Vec<_> = live.split(' ').collect();
        assert_eq!(used.len(), 2);
        for name in &used {
            rig.ready(name);
            rig.health(name, SubchannelState::new(ConnectivityState::Ready));
        }
        assert_eq!(rig.state(), ConnectivityState::Ready);
        let picks: HashSet<_> = (0..4).filter_map(|_| rig.pick()).collect();
        assert_eq!(picks, used.iter().map(ToString::to_string).collect());
        // The same list in another order changes nothing.
        rig.log();
        rig.update("5 4 3 2 1");
        assert!(rig.log().is_empty());
        rig.idle(used[0]);
        assert_eq!(rig.log()[..2], ["resolve", &format!("connect {}", used[0])]);
        // A smaller subset, with another policy.
        let config = r#"{"subsetSize": 1, "childPolicy": [{"pick_first": {}}]}"#;
        rig.config = self::rig(config).config;
        rig.update("1 2 3 4 5");
        assert_eq!(rig.control.live().len(), 3);
    }

    #[test]
    fn an_empty_list_and_an_error_reach_the_child() {
        let mut rig = rig(r#"{"subsetSize": 2, "childPolicy": [{"pick_first": {}}]}"#);
        let failure = Status::unavailable("no such name");
        rig.resolve(Err(&failure)).expect("nothing is refused");
        assert_eq!(rig.log(), ["TRANSIENT_FAILURE no such name"]);
        rig.resolve(Ok(&[])).expect_err("an empty list");
        assert_eq!(rig.log(), ["TRANSIENT_FAILURE no addresses: a note"]);
    }
}
