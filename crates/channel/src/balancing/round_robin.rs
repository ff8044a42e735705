//! round_robin: calls take all connected endpoints in turn (gRFC A61).

use std::sync::Arc;

use super::balancer::{Balancer, Control, Update};
use super::picker::{Picker, RoundRobinPicker, RoundRobinPosition};
use super::policy::Policy;
use super::ready_balancer::{MakePicker, ReadyBalancer, ReadyEndpoint};

/// The policy `round_robin`.
#[derive(Debug)]
pub(crate) struct RoundRobin;

impl Policy for RoundRobin {
    fn name(&self) -> &str {
        "round_robin"
    }

    fn build(&self) -> Box<dyn Balancer> {
        Box::new(ReadyBalancer::new(MakeRoundRobin::default()))
    }
}

#[derive(Default)]
struct MakeRoundRobin {
    /// The position of the last picker, where the next one continues.
    position: Option<Arc<RoundRobinPosition>>,
}

impl MakePicker for MakeRoundRobin {
    type Data = ();

    fn update(&mut self, _: Update<'_>) -> bool {
        false
    }

    fn make_picker(
        &mut self,
        ready: &[ReadyEndpoint<'_, ()>],
        control: &mut dyn Control,
    ) -> Picker {
        let ready: Vec<_> = ready.iter().map(|it| it.subchannel.clone()).collect();
        // At random, so that the clients of a server do not all begin with the same endpoint.
        let picker = RoundRobinPicker::new(ready, self.position.as_deref(), control.random());
        self.position = Some(picker.position().clone());
        Picker::RoundRobin(Arc::new(picker))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use trunkline_codec::Status;

    use super::super::balancer::SubchannelState;
    use super::super::testing::{Random, Rig, refused};
    use super::*;
    use crate::connectivity::ConnectivityState;

    fn rig() -> Rig {
        Rig::new(RoundRobin, "{}")
    }

    /// Connects subchannels, whose servers are healthy.
    fn ready(rig: &mut Rig, names: &str) {
        for name in names.split(' ') {
            rig.ready(name);
            rig.health(name, SubchannelState::new(ConnectivityState::Ready));
        }
    }

    fn picks(rig: &Rig, count: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..count {
            *counts.entry(rig.pick().expect("READY")).or_default() += 1;
        }
        counts
    }

    #[test]
    fn every_endpoint_has_a_connection_and_calls_take_them_in_turn() {
        let mut rig = rig();
        rig.update("1 2 3");
        assert_eq!(
            rig.log(),
            ["connect 1", "connect 2", "connect 3", "CONNECTING wait"]
        );
        ready(&mut rig, "3 1");
        assert_eq!(rig.log(), ["READY 3", "READY 1,3"]);
        ready(&mut rig, "2");
        assert_eq!(rig.log(), ["READY 1,2,3"]);
        let order: String = (0..6).filter_map(|_| rig.pick()).collect();
        assert!("12312312".contains(&order), "{order}");
    }

    #[test]
    fn calls_begin_with_a_random_endpoint() {
        let mut first = BTreeMap::new();
        for seed in 0..400 {
            let mut rig = rig();
            rig.control.random = Random(seed);
            rig.update("1 2 3 4");
            ready(&mut rig, "1 2 3 4");
            *first.entry(rig.pick().expect("READY")).or_insert(0) += 1;
        }
        assert_eq!(first.len(), 4);
        assert!(
            first.values().all(|it| (60..=140).contains(it)),
            "{first:?}"
        );
    }

    #[test]
    fn calls_are_even_within_one_through_changes_of_the_list() {
        let mut rig = rig();
        let mut last = None;
        for list in ["1 2 3", "3 2 1", "1 2 3 4 5", "2 5", "5 6 2 7"] {
            rig.update(list);
            for name in list.split(' ') {
                if rig.state_of(name) != Some(ConnectivityState::Ready) {
                    ready(&mut rig, name);
                }
            }
            // Between changes, a number of calls that leaves a rest.
            let counts = picks(&rig, 4 * list.split(' ').count() + 1);
            let (min, max) = (counts.values().min(), counts.values().max());
            assert_eq!((min, max), (Some(&4), Some(&5)), "{list}: {counts:?}");
            last = Some(counts);
        }
        assert_eq!(last.expect("counts").len(), 4);
    }

    #[test]
    fn a_lost_connection_is_opened_again_at_once_and_the_others_serve_meanwhile() {
        let mut rig = rig();
        rig.update("1 2");
        ready(&mut rig, "1 2");
        rig.log();
        rig.idle("2");
        assert_eq!(rig.log(), ["resolve", "connect 2", "READY 1"]);
        rig.fail("2");
        // Nothing has changed for the calls that wait.
        assert_eq!(rig.log(), ["resolve"]);
        rig.idle("1");
        assert_eq!(rig.log(), ["resolve", "connect 1", "CONNECTING wait"]);
        rig.idle("2");
        assert_eq!(rig.log(), ["connect 2"]);
        ready(&mut rig, "2");
        assert_eq!(rig.log(), ["READY 2"]);
    }

    #[test]
    fn calls_fail_only_if_all_endpoints_have_failed() {
        let mut rig = rig();
        rig.update("1 2");
        rig.log();
        rig.fail("2");
        assert_eq!(rig.log(), ["resolve"]);
        rig.fail("1");
        let failure = "TRANSIENT_FAILURE none of 2 addresses can be reached; the last: 1 refuses";
        assert_eq!(rig.log(), ["resolve", failure]);
        rig.idle("2");
        rig.fail("2");
        let failure = "TRANSIENT_FAILURE none of 2 addresses can be reached; the last: 2 refuses";
        assert_eq!(rig.log(), ["connect 2", "resolve", failure]);
        let mut one = self::rig();
        one.update("1");
        one.fail("1");
        assert_eq!(
            one.log().last().map(String::as_str),
            Some("TRANSIENT_FAILURE 1 refuses")
        );
    }

    #[test]
    fn endpoints_are_recognized_by_their_addresses_in_any_order() {
        let mut rig = rig();
        rig.update("1+2 3");
        ready(&mut rig, "1 3");
        rig.log();
        rig.update("3 2+1 3");
        assert_eq!(rig.log(), ["READY 3,1"]);
        rig.update("3 2+1");
        assert!(rig.log().is_empty());
        // Another set of addresses is another endpoint.
        rig.update("3 1");
        assert_eq!(rig.log(), ["connect 1", "READY 3"]);
        assert_eq!(rig.live(), "1 3");
    }

    #[test]
    fn addresses_of_an_endpoint_are_tried_one_after_the_other() {
        let mut rig = rig();
        rig.update("1+2 3");
        rig.log();
        rig.pass(250);
        assert_eq!(rig.log(), ["connect 2"]);
        ready(&mut rig, "2");
        assert_eq!(rig.log(), ["READY 2"]);
        assert_eq!(rig.live(), "2 3");
    }

    #[test]
    fn endpoints_that_are_gone_leave_no_subchannel_and_no_timer() {
        let mut rig = rig();
        rig.update("1+2 3+4 5");
        assert_eq!(rig.control.timers.len(), 2);
        ready(&mut rig, "5");
        rig.update("1+2");
        assert_eq!(rig.control.timers.len(), 1);
        assert_eq!(rig.live(), "1");
        let status = rig.resolve(Ok(&[])).expect_err("an empty list");
        assert_eq!(status.message(), "no addresses: a note");
        assert_eq!(
            rig.log().last().map(String::as_str),
            Some("TRANSIENT_FAILURE no addresses: a note")
        );
        assert!(rig.control.timers.is_empty());
        assert_eq!(rig.live(), "");
        rig.update("1");
        assert_eq!(rig.log(), ["connect 1", "CONNECTING wait"]);
    }

    #[test]
    fn an_error_of_the_resolver_matters_only_without_a_list() {
        let mut rig = rig();
        let failure = Status::unavailable("no such name");
        rig.resolve(Err(&failure)).expect("nothing is refused");
        assert_eq!(rig.log(), ["TRANSIENT_FAILURE no such name"]);
        rig.update("1");
        ready(&mut rig, "1");
        rig.log();
        rig.resolve(Err(&failure)).expect("nothing is refused");
        assert!(rig.log().is_empty());
    }

    #[test]
    fn an_endpoint_without_addresses_is_told_to_the_resolver_and_the_others_serve() {
        use crate::endpoint::Endpoint;
        let mut rig = rig();
        let list = [
            Endpoint::with_addresses([]),
            super::super::testing::endpoints("1").remove(0),
        ];
        rig.resolve(Ok(&list)).expect_err("no address");
        ready(&mut rig, "1");
        assert_eq!(rig.state(), ConnectivityState::Ready);
    }

    #[test]
    fn an_endpoint_that_is_not_healthy_has_no_calls() {
        let mut rig = rig();
        rig.update("1 2");
        ready(&mut rig, "1 2");
        rig.log();
        let unhealthy = SubchannelState::failed(Status::unavailable("1 is ill"));
        rig.health("1", unhealthy);
        assert_eq!(rig.log(), ["READY 2"]);
        rig.health("1", SubchannelState::new(ConnectivityState::Ready));
        assert_eq!(rig.log(), ["READY 1,2"]);
    }

    /// A model of a channel with eight endpoints, some of which have two addresses.
    #[test]
    fn after_any_events_every_reachable_endpoint_serves_and_no_subchannel_is_left() {
        use ConnectivityState::{Connecting, Idle, Ready, TransientFailure};
        const ALL: [&str; 8] = ["1", "2", "3+13", "4+14", "5", "6+16+26", "7", "v6.8+18"];
        for seed in 0..20 {
            let mut random = Random(seed);
            let mut rig = rig();
            let mut list = String::from("1");
            let mut down: Vec<String> = Vec::new();
            let addresses: Vec<&str> = ALL.iter().flat_map(|it| it.split('+')).collect();
            let step = |rig: &mut Rig, at: usize, down: &[String]| {
                let live = rig.control.live();
                let (id, name, state) = (live[at].id, live[at].name.clone(), live[at].state);
                let next = match (state, down.contains(&name)) {
                    (Connecting, false) => SubchannelState::new(Ready),
                    (Connecting, true) => SubchannelState::failed(refused(&name)),
                    (Ready, true) | (TransientFailure, _) => SubchannelState::new(Idle),
                    _ => return,
                };
                rig.control.change(id, next.clone());
                if next.connectivity == Ready {
                    rig.settle();
                    if rig.control.live().iter().any(|it| it.id == id) {
                        rig.health(&name, next);
                    }
                }
            };
            for _ in 0..10_000 {
                let live = rig.control.live().len();
                match random.below(10) {
                    0 => {
                        let start = random.below(ALL.len());
                        let count = 1 + random.below(ALL.len() - start);
                        list = ALL[start..start + count].join(" ");
                        rig.update_later(&list);
                    }
                    1 => down = vec![addresses[random.below(addresses.len())].to_owned()],
                    2 => rig.pass(random.next() % 300),
                    3..8 if live > 0 => step(&mut rig, random.below(live), &down),
                    _ => {
                        rig.deliver();
                    }
                }
            }
            for _ in 0..20 {
                for at in 0..rig.control.live().len() {
                    if at < rig.control.live().len() {
                        step(&mut rig, at, &down);
                        rig.settle();
                    }
                }
                rig.pass(300);
            }
            let is_up = |it: &&str| it.split('+').any(|it| !down.iter().any(|down| down == it));
            let serving = list.split(' ').filter(is_up).count();
            let counts = picks(&rig, 10 * serving);
            assert_eq!(counts.len(), serving, "seed {seed}: {list}, {down:?}");
            assert!(counts.values().all(|it| *it == 10), "{counts:?}");
            // An endpoint that cannot be reached tries all of its addresses.
            let failing = list.split(' ').filter(|it| !is_up(it));
            let failing: usize = failing.map(|it| it.split('+').count()).sum();
            assert_eq!(rig.control.live().len(), serving + failing, "seed {seed}");
        }
    }
}
