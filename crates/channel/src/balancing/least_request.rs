//! least_request_experimental: of a few endpoints chosen at random, a call takes the one with the fewest calls (gRFC A48).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde_json::Value;
use trunkline_codec::Status;

use super::balancer::{Balancer, Control, Update};
use super::picker::{Choice, Pick, PickArgs, PickResult, Picker};
use super::policy::{Policies, Policy, PolicyConfig};
use super::ready_balancer::{MakePicker, ReadyBalancer, ReadyEndpoint};
use super::tracker::{AttemptTracker, Outcome, Tracking};
use crate::config::json::{JsonField, JsonObject};
use crate::subchannel::Subchannel;

const CHOICES_DEFAULT: u64 = 2;
const CHOICES_MIN: u64 = 2;
const CHOICES_MAX: u64 = 10;

/// The policy `least_request_experimental`.
#[derive(Debug)]
pub(crate) struct LeastRequest;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LeastRequestConfig {
    choices: u64,
}

impl Policy for LeastRequest {
    fn name(&self) -> &str {
        "least_request_experimental"
    }

    fn parse(&self, config: &Value, _: &Policies) -> Result<PolicyConfig, Status> {
        let config = JsonObject::document(self.name(), config)?;
        let choices = config.optional("choiceCount", |field: &JsonField<'_>| {
            match field.unsigned()? {
                choices if choices < CHOICES_MIN => Err(field.invalid("at least 2")),
                choices => Ok(choices.min(CHOICES_MAX)),
            }
        })?;
        let choices = choices.unwrap_or(CHOICES_DEFAULT);
        Ok(Arc::new(LeastRequestConfig { choices }))
    }

    fn build(&self) -> Box<dyn Balancer> {
        Box::new(ReadyBalancer::new(MakeLeast {
            choices: CHOICES_DEFAULT,
        }))
    }
}

struct MakeLeast {
    choices: u64,
}

impl MakePicker for MakeLeast {
    type Data = Arc<OpenAttempts>;

    fn update(&mut self, update: Update<'_>) -> bool {
        let before = self.choices;
        if let Some(config) = update.config_as::<LeastRequestConfig>() {
            self.choices = config.choices;
        }
        self.choices != before
    }

    fn make_picker(
        &mut self,
        ready: &[ReadyEndpoint<'_, Self::Data>],
        control: &mut dyn Control,
    ) -> Picker {
        let endpoints = ready.iter();
        let endpoints = endpoints.map(|it| (it.subchannel.clone(), it.data.clone()));
        Picker::Custom(Arc::new(LeastPicker {
            endpoints: endpoints.collect(),
            choices: self.choices,
            random: RandomSequence(AtomicU64::new(control.random())),
        }))
    }
}

/// The number of attempts on an endpoint that have started and not ended.
#[derive(Default)]
struct OpenAttempts(AtomicUsize);

impl AttemptTracker for OpenAttempts {
    fn started(&self, _: usize) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn ended(&self, _: usize, _: &Outcome<'_>) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct LeastPicker {
    endpoints: Vec<(Subchannel, Arc<OpenAttempts>)>,
    choices: u64,
    random: RandomSequence,
}

impl Pick for LeastPicker {
    fn pick(&self, _: &PickArgs<'_>) -> PickResult {
        let choices = (0..self.choices).filter_map(|_| {
            let at = self.random.below(self.endpoints.len());
            self.endpoints.get(at)
        });
        // The first of several with as few attempts.
        let least = choices.min_by_key(|(_, attempts)| attempts.0.load(Ordering::Relaxed));
        let Some((subchannel, attempts)) = least else {
            return PickResult::Wait;
        };
        let mut choice = Choice::new(subchannel.clone());
        choice.tracking = Some(Tracking::new(attempts.clone(), 0));
        PickResult::Use(choice)
    }
}

/// Random numbers that calls share without a lock: splitmix64.
struct RandomSequence(AtomicU64);

impl RandomSequence {
    fn below(&self, end: usize) -> usize {
        let mut mixed = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed % (end as u64).max(1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use trunkline_codec::Metadata;

    use super::super::balancer::SubchannelState;
    use super::super::testing::{Rig, name};
    use super::super::tracker::EndedBy;
    use super::*;
    use crate::connectivity::ConnectivityState;

    /// A balancer whose endpoints are connected.
    fn rig(json: &str, list: &str) -> Rig {
        let mut rig = Rig::new(LeastRequest, json);
        rig.update(list);
        for name in list.split(' ') {
            ready(&mut rig, name);
        }
        rig
    }

    fn ready(rig: &mut Rig, name: &str) {
        rig.ready(name);
        rig.health(name, SubchannelState::new(ConnectivityState::Ready));
    }

    /// Starts an attempt, and returns the name of its endpoint and what tracks it.
    fn start(rig: &Rig) -> (String, Tracking) {
        let PickResult::Use(choice) = rig.picked(&Metadata::new()) else {
            panic!("not READY");
        };
        let tracking = choice.tracking.expect("a tracker");
        tracking.started();
        (name(choice.subchannel.address()), tracking)
    }

    fn end(tracking: &Tracking) {
        let status = Status::cancelled("the caller has left");
        tracking.ended(&Outcome::new(Err(&status), EndedBy::Caller));
    }

    #[test]
    fn the_number_of_choices_is_from_2_to_10() {
        let parse = |json: &str| {
            let value = serde_json::from_str(json).expect("JSON");
            let config = LeastRequest.parse(&value, &Policies::default())?;
            let config = config
                .downcast_ref::<LeastRequestConfig>()
                .expect("its own");
            Ok::<_, Status>(config.choices)
        };
        for (json, choices) in [
            ("{}", 2),
            (r#"{"choiceCount": null}"#, 2),
            (r#"{"choiceCount": 2}"#, 2),
            (r#"{"choiceCount": "3"}"#, 3),
            (r#"{"choice_count": 10}"#, 10),
            (r#"{"choiceCount": 11}"#, 10),
        ] {
            assert_eq!(parse(json).expect(json), choices, "{json}");
        }
        for value in ["0", "1", "-1", "2.5", "true", r#""x""#] {
            let json = format!(r#"{{"choiceCount": {value}}}"#);
            let status = parse(&json).expect_err(&json);
            assert!(status.message().starts_with("choiceCount: "), "{status}");
        }
    }

    #[test]
    fn of_two_endpoints_the_one_with_fewer_attempts_is_taken_unless_only_the_other_is_sampled() {
        let rig = rig("{}", "1 2");
        let (busy, _tracking) = start(&rig);
        let mut counts = HashMap::new();
        for _ in 0..4_000 {
            let (name, tracking) = start(&rig);
            end(&tracking);
            *counts.entry(name).or_insert(0) += 1;
        }
        // Both samples are the busy one in a quarter of the picks: 1,000 with a standard deviation of 27.
        let to_busy = counts[&busy];
        assert!((890..=1_110).contains(&to_busy), "{counts:?}");
    }

    #[test]
    fn among_equals_the_picks_are_even() {
        let rig = rig("{}", "1 2 3 4");
        let mut counts = HashMap::new();
        for _ in 0..8_000 {
            let (name, tracking) = start(&rig);
            end(&tracking);
            *counts.entry(name).or_insert(0) += 1;
        }
        let chi_square: f64 = counts
            .values()
            .map(|it| (f64::from(*it) - 2_000.0_f64).powi(2) / 2_000.0)
            .sum();
        // With 3 degrees of freedom, 16.3 is exceeded once in 1,000.
        assert!(counts.len() == 4 && chi_square < 16.3, "{counts:?}");
    }

    #[test]
    fn a_slow_endpoint_has_less_than_a_third_of_an_even_share() {
        let rig = rig("{}", "1 2 3 4 5 6 7 8 9 10");
        // Each pick is a tick of a clock. Calls last 10 ticks, and 200 on the first endpoint.
        let mut running: Vec<(usize, Tracking)> = Vec::new();
        let mut slow = 0;
        let calls = 10_000;
        for now in 0..calls {
            running.retain(|(ends, tracking)| {
                if *ends <= now {
                    end(tracking);
                }
                *ends > now
            });
            let (name, tracking) = start(&rig);
            let is_slow = name == "1";
            slow += usize::from(is_slow);
            running.push((now + if is_slow { 200 } else { 10 }, tracking));
        }
        assert!(slow > 0 && slow < calls / 10 / 3, "{slow} of {calls}");
        running.iter().for_each(|(_, tracking)| end(tracking));
    }

    #[test]
    fn attempts_count_through_changes_of_the_list_and_return_to_0() {
        let mut rig = rig(r#"{"choiceCount": 10}"#, "1 2");
        let mut running = Vec::new();
        // Ten samples find both endpoints in all but one pick of 500.
        while running.iter().filter(|(name, _)| name == "1").count() < 50 {
            running.push(start(&rig));
        }
        rig.update("3 1");
        ready(&mut rig, "3");
        let to_3 = (0..30).filter(|_| {
            let (name, tracking) = start(&rig);
            running.push((name.clone(), tracking));
            name == "3"
        });
        assert!(to_3.count() >= 28);
        for (_, tracking) in running.drain(..) {
            end(&tracking);
        }
        // Both are equal again.
        let (first, tracking) = start(&rig);
        let seconds: Vec<_> = (0..20).map(|_| start(&rig)).collect();
        let count = seconds.iter().filter(|(name, _)| *name == first).count();
        assert!((8..=11).contains(&count), "{count}");
        end(&tracking);
    }

    #[test]
    fn a_new_number_of_choices_counts_at_once() {
        let mut rig = rig("{}", "1 2");
        rig.log();
        rig.update("1 2");
        assert!(rig.log().is_empty());
        rig.config = Rig::new(LeastRequest, r#"{"choiceCount": 5}"#).config;
        rig.update("1 2");
        assert_eq!(rig.log(), ["READY custom"]);
    }
}
