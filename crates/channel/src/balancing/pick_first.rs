//! pick_first: all calls go to one address, the first that can be reached (gRFC A61, A62 and A113).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use trunkline_codec::Status;
use trunkline_transport::Address;

use super::balancer::{Balancer, Control, SubchannelState, TimerId, Update};
use super::failure::{no_addresses, none_reached};
use super::picker::Picker;
use super::policy::{BalancerConfig, Policies, Policy, PolicyConfig};
use crate::attributes::Attributes;
use crate::config::json::{JsonField, JsonObject};
use crate::connectivity::ConnectivityState;
use crate::endpoint::Endpoint;
use crate::subchannel::{Subchannel, SubchannelId};

/// The bounds of `connect_stagger` (RFC 8305, section 5).
const STAGGER_MIN: Duration = Duration::from_millis(100);
const STAGGER_MAX: Duration = Duration::from_secs(2);

/// The policy `pick_first`.
#[derive(Debug)]
pub(crate) struct PickFirst;

#[derive(Debug, Default)]
struct PickFirstConfig {
    /// Shuffles the endpoints, each time the resolver returns a list.
    shuffles: bool,
    /// Reports the health of the subchannel in place of its state.
    watches_health: bool,
}

impl PickFirst {
    /// Returns the configuration of a child of a policy that chooses among connections. gRFC A61: such a child reports
    /// the health of its server.
    pub(crate) fn child() -> BalancerConfig {
        let config = PickFirstConfig {
            shuffles: false,
            watches_health: true,
        };
        BalancerConfig::new(Arc::new(Self), Arc::new(config))
    }
}

impl Policy for PickFirst {
    fn name(&self) -> &str {
        "pick_first"
    }

    fn parse(&self, config: &Value, _: &Policies) -> Result<PolicyConfig, Status> {
        let config = JsonObject::document(self.name(), config)?;
        let shuffles = config.optional("shuffleAddressList", JsonField::boolean)?;
        Ok(Arc::new(PickFirstConfig {
            shuffles: shuffles.unwrap_or(false),
            watches_health: false,
        }))
    }

    fn build(&self) -> Box<dyn Balancer> {
        Box::new(PickFirstBalancer {
            entries: Vec::new(),
            progress: Progress::Idle,
            state: ConnectivityState::Idle,
            failure: None,
            watches_health: false,
        })
    }
}

struct PickFirstBalancer {
    /// The addresses, in the order in which a pass tries them.
    entries: Vec<AddressEntry>,
    progress: Progress,
    /// The state that was published last.
    state: ConnectivityState,
    /// The last failure to connect.
    failure: Option<Status>,
    watches_health: bool,
}

/// gRFC A61. Each progress leads to the next one, the last to the first; every progress but the first to `Chosen`.
#[derive(Clone, Copy, Debug)]
enum Progress {
    /// Waits for endpoints, or for a call after the connection was lost.
    Idle,
    /// Starts one address after the other, up to `next`. The timer starts the next one.
    Pass { next: usize, timer: Option<TimerId> },
    /// Every address has failed, and is tried again whenever its backoff permits.
    Retry { failures: usize },
    /// Calls use the subchannel of this entry.
    Chosen(usize),
}

struct AddressEntry {
    address: Address,
    attributes: Attributes,
    subchannel: Option<Subchannel>,
    /// The state of the subchannel.
    state: ConnectivityState,
    failure: Option<Status>,
    /// The health of the server while it is connected, once it is known.
    health: Option<SubchannelState>,
    has_failed_in_pass: bool,
}

impl AddressEntry {
    fn new(address: Address, attributes: Attributes) -> Self {
        Self {
            address,
            attributes,
            subchannel: None,
            state: ConnectivityState::Idle,
            failure: None,
            health: None,
            has_failed_in_pass: false,
        }
    }

    fn is(&self, id: SubchannelId) -> bool {
        self.subchannel.as_ref().is_some_and(|it| it.id() == id)
    }

    /// Connects the subchannel if it is idle, and creates it if needed.
    fn connect(&mut self, watches_health: bool, control: &mut dyn Control) {
        let subchannel = self.subchannel.get_or_insert_with(|| {
            let subchannel = control.create_subchannel(&self.address, &self.attributes);
            if watches_health {
                control.watch_health(&subchannel);
            }
            subchannel
        });
        if self.state == ConnectivityState::Idle {
            control.connect(subchannel);
        }
    }
}

impl Balancer for PickFirstBalancer {
    fn update(&mut self, update: Update<'_>, control: &mut dyn Control) -> Result<(), Status> {
        let endpoints = match update.endpoints {
            Ok(endpoints) => endpoints,
            Err(status) if self.entries.is_empty() => {
                self.publish_failure(status.clone(), control);
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        let config = update.config_as::<PickFirstConfig>();
        self.watches_health = config.is_some_and(|it| it.watches_health);
        let addresses = match config.is_some_and(|it| it.shuffles) {
            true => ordered(&shuffled(endpoints, control)),
            false => ordered(&endpoints.iter().collect::<Vec<_>>()),
        };
        let was_empty = self.entries.is_empty();
        let chosen = self.replace(addresses);
        if self.entries.is_empty() {
            let status = no_addresses(update.note);
            self.stop_timer(control);
            self.progress = Progress::Idle;
            self.publish_failure(status.clone(), control);
            return Err(status);
        }
        match (self.progress, chosen) {
            (Progress::Chosen(_), Some(at)) => self.progress = Progress::Chosen(at),
            (Progress::Idle, _) if !was_empty => {}
            (Progress::Idle | Progress::Chosen(_), _) => self.begin(control),
            // gRFC A62: TRANSIENT_FAILURE lasts through passes until a subchannel is READY.
            (Progress::Pass { .. } | Progress::Retry { .. }, _) => self.begin_pass(control),
        }
        Ok(())
    }

    fn subchannel_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) {
        use ConnectivityState::{Connecting, Idle, Ready, TransientFailure};
        let Some(at) = self.entries.iter().position(|it| it.is(id)) else {
            return;
        };
        let entry = &mut self.entries[at];
        let before = std::mem::replace(&mut entry.state, state.connectivity);
        if before == Ready {
            entry.health = None;
        }
        if state.connectivity == TransientFailure {
            entry.failure = state.failure.clone();
            entry.has_failed_in_pass = true;
        }
        match (before, state.connectivity) {
            (_, Ready) => self.choose(at, control),
            // A connection that was lost before it was reported leads from CONNECTING to IDLE.
            (Ready, _) | (Connecting, Idle) => self.lose(at, control),
            (_, TransientFailure) => self.fail(at, control),
            (_, Idle) if matches!(self.progress, Progress::Retry { .. }) => {
                self.entries[at].connect(self.watches_health, control);
            }
            _ => {}
        }
    }

    fn health_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) {
        let Some(at) = self.entries.iter().position(|it| it.is(id)) else {
            return;
        };
        self.entries[at].health = Some(state.clone());
        if matches!(self.progress, Progress::Chosen(chosen) if chosen == at) {
            self.publish_chosen(at, control);
        }
    }

    fn timer_expired(&mut self, timer: TimerId, control: &mut dyn Control) {
        match &mut self.progress {
            Progress::Pass { timer: pending, .. } if *pending == Some(timer) => {
                *pending = None;
                self.advance(control);
            }
            _ => {}
        }
    }

    fn exit_idle(&mut self, control: &mut dyn Control) {
        if matches!(self.progress, Progress::Idle) && !self.entries.is_empty() {
            self.begin(control);
        }
    }
}

impl PickFirstBalancer {
    /// Replaces the list, keeps the subchannels to addresses that are still in it, and returns the place of the chosen
    /// one.
    fn replace(&mut self, addresses: Vec<(&Address, &Attributes)>) -> Option<usize> {
        let chosen = match self.progress {
            Progress::Chosen(at) => Some(self.entries[at].address.clone()),
            Progress::Idle | Progress::Pass { .. } | Progress::Retry { .. } => None,
        };
        let before = std::mem::take(&mut self.entries).into_iter();
        let mut before: HashMap<_, _> = before.map(|it| (it.address.clone(), it)).collect();
        let entries = addresses.into_iter().map(|(address, attributes)| {
            let attributes = attributes.clone();
            match before.remove(address) {
                Some(entry) => AddressEntry {
                    attributes,
                    ..entry
                },
                None => AddressEntry::new(address.clone(), attributes),
            }
        });
        self.entries = entries.collect();
        let mut entries = self.entries.iter();
        chosen.and_then(|address| entries.position(|it| it.address == address))
    }

    /// Leaves READY or IDLE, or begins for the first time.
    fn begin(&mut self, control: &mut dyn Control) {
        self.publish(ConnectivityState::Connecting, Picker::Wait, control);
        self.begin_pass(control);
    }

    fn begin_pass(&mut self, control: &mut dyn Control) {
        self.stop_timer(control);
        for entry in &mut self.entries {
            entry.has_failed_in_pass = false;
        }
        self.progress = Progress::Pass {
            next: 0,
            timer: None,
        };
        self.advance(control);
    }

    /// Starts the next address. Those whose backoff from an earlier pass has not ended count as failed.
    fn advance(&mut self, control: &mut dyn Control) {
        self.stop_timer(control);
        let Progress::Pass { next, timer } = &mut self.progress else {
            return;
        };
        let len = self.entries.len();
        for entry in self.entries.iter_mut().skip(*next) {
            *next += 1;
            if entry.state == ConnectivityState::TransientFailure {
                entry.has_failed_in_pass = true;
                self.failure = entry.failure.clone();
                continue;
            }
            entry.has_failed_in_pass = false;
            entry.connect(self.watches_health, control);
            if *next < len {
                let stagger = control.limits().connect_stagger;
                let at = control.now() + stagger.clamp(STAGGER_MIN, STAGGER_MAX);
                *timer = Some(control.set_timer(at));
            }
            return;
        }
        self.end_pass(control);
    }

    /// Ends the pass if every address has failed.
    fn end_pass(&mut self, control: &mut dyn Control) {
        if self.entries.iter().any(|it| !it.has_failed_in_pass) {
            return;
        }
        self.stop_timer(control);
        self.progress = Progress::Retry { failures: 0 };
        self.publish_unreachable(control);
        control.resolve_again();
        for entry in &mut self.entries {
            entry.connect(self.watches_health, control);
        }
    }

    fn fail(&mut self, at: usize, control: &mut dyn Control) {
        self.failure = self.entries[at].failure.clone();
        match &mut self.progress {
            Progress::Pass { next, .. } if at + 1 == *next => self.advance(control),
            Progress::Pass { .. } => self.end_pass(control),
            Progress::Retry { failures } => {
                *failures += 1;
                if *failures >= self.entries.len() {
                    *failures = 0;
                    self.publish_unreachable(control);
                    control.resolve_again();
                }
            }
            Progress::Idle | Progress::Chosen(_) => {}
        }
    }

    fn choose(&mut self, at: usize, control: &mut dyn Control) {
        self.stop_timer(control);
        self.keep_only(at);
        self.progress = Progress::Chosen(at);
        self.publish_chosen(at, control);
    }

    /// The connection is lost. A subchannel that has several (gRFC A105) may connect again by itself, or fail.
    fn lose(&mut self, at: usize, control: &mut dyn Control) {
        self.stop_timer(control);
        self.keep_only(at);
        self.progress = Progress::Idle;
        match self.entries[at].state {
            ConnectivityState::Idle => {
                self.publish(ConnectivityState::Idle, Picker::Idle, control);
            }
            _ => self.begin(control),
        }
        control.resolve_again();
    }

    /// Drops all subchannels but one.
    fn keep_only(&mut self, at: usize) {
        for (other, entry) in self.entries.iter_mut().enumerate() {
            if other != at {
                *entry = AddressEntry::new(entry.address.clone(), entry.attributes.clone());
            }
        }
    }

    fn stop_timer(&mut self, control: &mut dyn Control) {
        if let Progress::Pass { timer, .. } = &mut self.progress
            && let Some(timer) = timer.take()
        {
            control.cancel_timer(timer);
        }
    }

    fn publish_chosen(&mut self, at: usize, control: &mut dyn Control) {
        let entry = &self.entries[at];
        let Some(subchannel) = entry.subchannel.clone() else {
            return;
        };
        let (health, failure) = match &entry.health {
            Some(health) => (health.connectivity, health.failure.clone()),
            None if self.watches_health => (ConnectivityState::Connecting, None),
            None => (ConnectivityState::Ready, None),
        };
        match health {
            ConnectivityState::Ready => {
                self.publish(ConnectivityState::Ready, Picker::One(subchannel), control);
            }
            ConnectivityState::TransientFailure => {
                let address = &entry.address;
                let failure = failure
                    .unwrap_or_else(|| Status::unavailable(format!("{address} is not healthy")));
                self.publish_failure(failure, control);
            }
            ConnectivityState::Idle
            | ConnectivityState::Connecting
            | ConnectivityState::Shutdown => {
                self.publish(ConnectivityState::Connecting, Picker::Wait, control);
            }
        }
    }

    fn publish_unreachable(&mut self, control: &mut dyn Control) {
        let failure = self.failure.clone();
        let failure = failure.unwrap_or_else(|| Status::unavailable("cannot connect"));
        let status = none_reached(self.entries.len(), &failure);
        self.publish_failure(status, control);
    }

    fn publish_failure(&mut self, status: Status, control: &mut dyn Control) {
        let picker = Picker::Fail(Arc::new(status));
        self.publish(ConnectivityState::TransientFailure, picker, control);
    }

    fn publish(&mut self, state: ConnectivityState, picker: Picker, control: &mut dyn Control) {
        let is_known = state == ConnectivityState::Connecting && self.state == state;
        self.state = state;
        if !is_known {
            control.publish(state, picker);
        }
    }
}

/// Returns the endpoints in a random order, in which heavier ones tend to be earlier (gRFC A113).
fn shuffled<'a>(endpoints: &'a [Endpoint], control: &mut dyn Control) -> Vec<&'a Endpoint> {
    let keys = endpoints.iter().map(|endpoint| {
        // The key is u^(1/weight) with u between 0 and 1; its logarithm has the same order, and never underflows.
        let random = (control.random() >> 11) as f64 + 0.5;
        let key = (random / (1u64 << 53) as f64).ln() / f64::from(endpoint.weight());
        (key, endpoint)
    });
    let mut keys: Vec<_> = keys.collect();
    keys.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    keys.into_iter().map(|(_, endpoint)| endpoint).collect()
}

/// Returns each address once, with families in turn, the first one's first (RFC 8305, section 4).
fn ordered<'a>(endpoints: &[&'a Endpoint]) -> Vec<(&'a Address, &'a Attributes)> {
    let mut known = HashSet::new();
    let mut families: Vec<(Family, VecDeque<_>)> = Vec::new();
    for endpoint in endpoints {
        for address in endpoint.addresses() {
            if !known.insert(address) {
                continue;
            }
            let family = Family::of(address);
            let entry = (address, endpoint.attributes());
            match families.iter_mut().find(|(it, _)| *it == family) {
                Some((_, addresses)) => addresses.push_back(entry),
                None => families.push((family, VecDeque::from([entry]))),
            }
        }
    }
    let mut ordered = Vec::with_capacity(known.len());
    while ordered.len() < known.len() {
        ordered.extend(families.iter_mut().filter_map(|(_, it)| it.pop_front()));
    }
    ordered
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
    Other,
}

impl Family {
    fn of(address: &Address) -> Self {
        match address.tcp() {
            Some(address) if address.is_ipv4() => Self::V4,
            Some(_) => Self::V6,
            None => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Random, Rig, address, endpoints, name, refused};
    use super::*;
    use crate::endpoint::EndpointWeight;

    fn rig() -> Rig {
        Rig::new(PickFirst, "{}")
    }

    /// A balancer as a policy with children has it.
    fn child() -> Rig {
        Rig::with(PickFirst::child())
    }

    #[test]
    fn the_configuration_has_one_field() {
        let parse = |json: &str| {
            let value = serde_json::from_str(json).expect("JSON");
            let config = PickFirst.parse(&value, &Policies::default())?;
            let config = config.downcast_ref::<PickFirstConfig>().expect("its own");
            Ok::<_, Status>(config.shuffles)
        };
        for (json, shuffles) in [
            ("{}", false),
            (r#"{"other": 1}"#, false),
            (r#"{"shuffleAddressList": null}"#, false),
            (r#"{"shuffleAddressList": false}"#, false),
            (r#"{"shuffleAddressList": true}"#, true),
            (r#"{"shuffle_address_list": true}"#, true),
        ] {
            assert_eq!(parse(json).expect(json), shuffles, "{json}");
        }
        for json in [
            r#"{"shuffleAddressList": "true"}"#,
            r#"{"shuffleAddressList": 1}"#,
        ] {
            let status = parse(json).expect_err(json);
            assert!(
                status.message().starts_with("shuffleAddressList: "),
                "{status}"
            );
        }
    }

    #[test]
    fn the_first_address_is_connected_at_once_and_chosen() {
        let mut rig = rig();
        rig.update("1");
        assert_eq!(rig.log(), ["CONNECTING wait", "connect 1"]);
        rig.ready("1");
        assert_eq!(rig.log(), ["READY 1"]);
        assert_eq!(rig.pick().as_deref(), Some("1"));
    }

    #[test]
    fn the_next_address_starts_after_250_ms_or_a_failure_and_the_first_that_is_ready_stays() {
        let mut rig = rig();
        rig.update("1 2 3 4");
        assert_eq!(rig.log(), ["CONNECTING wait", "connect 1"]);
        rig.pass(249);
        assert!(rig.log().is_empty());
        rig.pass(1);
        assert_eq!(rig.log(), ["connect 2"]);
        rig.fail("2");
        assert_eq!(rig.log(), ["connect 3"]);
        // The timer has begun again with the third.
        rig.pass(249);
        assert!(rig.log().is_empty());
        rig.pass(1);
        assert_eq!(rig.log(), ["connect 4"]);
        assert!(rig.control.timers.is_empty());
        rig.ready("3");
        assert_eq!(rig.log(), ["READY 3"]);
        assert_eq!(rig.live(), "3");
    }

    #[test]
    fn the_stagger_is_bounded() {
        for (setting, wait) in [(0, 100), (700, 700), (9_000, 2_000)] {
            let mut rig = rig();
            rig.control.limits.connect_stagger = Duration::from_millis(setting);
            rig.update("1 2");
            rig.pass(wait - 1);
            assert_eq!(rig.live(), "1", "{setting}");
            rig.pass(1);
            assert_eq!(rig.live(), "1 2", "{setting}");
        }
    }

    #[test]
    fn a_failure_of_an_earlier_address_starts_nothing() {
        let mut rig = rig();
        rig.update("1 2 3");
        rig.pass(250);
        rig.log();
        rig.fail("1");
        assert!(rig.log().is_empty());
        rig.pass(250);
        assert_eq!(rig.log(), ["connect 3"]);
    }

    #[test]
    fn one_address_fails_with_its_own_status_and_several_with_their_number() {
        let mut one = rig();
        one.update("1");
        one.log();
        one.fail("1");
        assert_eq!(one.log(), ["TRANSIENT_FAILURE 1 refuses", "resolve"]);
        let mut two = rig();
        two.update("1 2");
        two.log();
        two.fail("1");
        two.fail("2");
        let message = "none of 2 addresses can be reached; the last: 2 refuses";
        assert_eq!(
            two.log(),
            [
                "connect 2",
                &format!("TRANSIENT_FAILURE {message}"),
                "resolve"
            ]
        );
    }

    #[test]
    fn after_a_pass_each_address_connects_whenever_its_backoff_ends() {
        let mut rig = rig();
        rig.update("1 2");
        rig.fail("1");
        // The backoff of the first ends before the second has failed.
        rig.idle("1");
        rig.log();
        rig.fail("2");
        let failure = "TRANSIENT_FAILURE none of 2 addresses can be reached; the last: 2 refuses";
        assert_eq!(rig.log(), [failure, "resolve", "connect 1"]);
        rig.idle("2");
        assert_eq!(rig.log(), ["connect 2"]);
        // CONNECTING is not reported, and every second failure asks the resolver.
        rig.fail("1");
        assert!(rig.log().is_empty());
        rig.idle("1");
        rig.fail("1");
        let failure = "TRANSIENT_FAILURE none of 2 addresses can be reached; the last: 1 refuses";
        assert_eq!(rig.log(), ["connect 1", failure, "resolve"]);
        rig.ready("2");
        assert_eq!(rig.log(), ["READY 2"]);
        assert_eq!(rig.live(), "2");
    }

    #[test]
    fn a_lost_connection_leads_to_idle_and_a_call_to_a_pass_from_the_top() {
        let mut rig = rig();
        rig.update("1 2");
        rig.fail("1");
        rig.ready("2");
        rig.log();
        rig.idle("2");
        assert_eq!(rig.log(), ["IDLE idle", "resolve"]);
        rig.pass(60_000);
        rig.update("1 2");
        assert!(rig.log().is_empty());
        rig.exit_idle();
        assert_eq!(rig.log(), ["CONNECTING wait", "connect 1"]);
        rig.exit_idle();
        assert!(rig.log().is_empty());
        rig.pass(250);
        assert_eq!(rig.log(), ["connect 2"]);
    }

    #[test]
    fn an_idle_balancer_uses_a_new_list_for_the_next_call() {
        let mut rig = rig();
        rig.update("1");
        rig.ready("1");
        rig.idle("1");
        rig.log();
        rig.update("2 3");
        assert!(rig.log().is_empty());
        assert_eq!(rig.live(), "");
        rig.exit_idle();
        assert_eq!(rig.log(), ["CONNECTING wait", "connect 2"]);
    }

    #[test]
    fn a_connection_that_is_lost_before_it_is_reported_leads_to_idle() {
        let mut rig = rig();
        rig.update("1 2");
        rig.log();
        rig.idle("1");
        assert_eq!(rig.log(), ["IDLE idle", "resolve"]);
        assert!(rig.control.timers.is_empty());
    }

    #[test]
    fn a_chosen_subchannel_that_connects_again_or_fails_begins_a_pass() {
        let mut rig = rig();
        rig.update("1 2");
        rig.ready("1");
        rig.log();
        rig.set("1", ConnectivityState::Connecting);
        assert_eq!(rig.log(), ["CONNECTING wait", "resolve"]);
        rig.ready("1");
        assert_eq!(rig.log(), ["READY 1"]);
        rig.fail("1");
        assert_eq!(rig.log(), ["CONNECTING wait", "connect 2", "resolve"]);
        rig.fail("2");
        let failure = "TRANSIENT_FAILURE none of 2 addresses can be reached; the last: 2 refuses";
        assert_eq!(rig.log(), [failure, "resolve"]);
        rig.idle("1");
        assert_eq!(rig.log(), ["connect 1"]);
    }

    #[test]
    fn an_address_that_is_connected_stays_if_the_new_list_has_it() {
        let mut rig = rig();
        rig.update("1 2");
        rig.ready("1");
        rig.log();
        for list in ["2 1", "3+1 4", "1"] {
            rig.update(list);
            assert!(rig.log().is_empty(), "{list}");
            assert_eq!(rig.live(), "1", "{list}");
        }
        rig.update("2 3");
        assert_eq!(rig.log(), ["CONNECTING wait", "connect 2"]);
        assert_eq!(rig.live(), "2");
    }

    #[test]
    fn an_empty_list_drops_everything_and_a_new_one_begins_again() {
        for is_ready in [false, true] {
            let mut rig = rig();
            rig.update("1 2");
            if is_ready {
                rig.ready("1");
            }
            rig.log();
            let status = rig.resolve(Ok(&[])).expect_err("an empty list");
            assert_eq!(status.message(), "no addresses: a note");
            assert_eq!(rig.log(), ["TRANSIENT_FAILURE no addresses: a note"]);
            assert!(rig.control.timers.is_empty());
            assert_eq!(rig.live(), "");
            rig.exit_idle();
            assert!(rig.log().is_empty());
            // This failure does not last until READY.
            rig.update("1");
            assert_eq!(rig.log(), ["CONNECTING wait", "connect 1"]);
        }
    }

    #[test]
    fn an_error_of_the_resolver_matters_only_without_a_list() {
        let mut rig = rig();
        let failure = Status::unavailable("no such name");
        rig.resolve(Err(&failure)).expect("nothing is refused");
        assert_eq!(rig.log(), ["TRANSIENT_FAILURE no such name"]);
        rig.update("1");
        assert_eq!(rig.log(), ["CONNECTING wait", "connect 1"]);
        rig.resolve(Err(&failure)).expect("nothing is refused");
        assert!(rig.log().is_empty());
        rig.ready("1");
        assert_eq!(rig.log(), ["READY 1"]);
    }

    #[test]
    fn an_address_in_backoff_counts_as_failed_and_one_that_connects_as_started() {
        let mut rig = rig();
        rig.update("1 2 3");
        rig.fail("1");
        rig.log();
        // The first is in backoff, the second connects.
        rig.update("1 2 4");
        assert!(rig.log().is_empty());
        rig.pass(250);
        assert_eq!(rig.log(), ["connect 4"]);
        rig.fail("2");
        rig.fail("4");
        let failure = "TRANSIENT_FAILURE none of 3 addresses can be reached; the last: 4 refuses";
        assert_eq!(rig.log(), [failure, "resolve"]);
        // gRFC A62: a new list does not end TRANSIENT_FAILURE, though its new address is tried at once.
        rig.update("1 2 5");
        assert_eq!(rig.log(), ["connect 5"]);
        rig.update("2 1");
        let failure = "TRANSIENT_FAILURE none of 2 addresses can be reached; the last: 1 refuses";
        assert_eq!(rig.log(), [failure, "resolve"]);
    }

    #[test]
    fn an_attempt_that_ends_during_a_change_of_the_list_counts_in_the_new_pass() {
        let mut rig = rig();
        rig.update("1 2");
        let id = rig.id("1");
        rig.log();
        // The failure is in the queue while the list changes.
        rig.control
            .change(id, SubchannelState::failed(refused("1")));
        rig.update_later("3 1");
        rig.settle();
        assert_eq!(rig.log(), ["connect 3"]);
        rig.fail("3");
        let failure = "TRANSIENT_FAILURE none of 2 addresses can be reached; the last: 1 refuses";
        assert_eq!(rig.log(), [failure, "resolve"]);
    }

    #[test]
    fn an_attempt_of_a_pass_counts_though_one_before_it_has_failed() {
        let mut rig = rig();
        rig.update("1 2");
        rig.pass(250);
        rig.update("3 2");
        // The attempt of the earlier pass fails, and its backoff ends before the new pass has come to it.
        rig.fail("2");
        rig.idle("2");
        rig.pass(250);
        rig.log();
        rig.fail("3");
        assert!(rig.log().is_empty());
        rig.fail("2");
        let failure = "TRANSIENT_FAILURE none of 2 addresses can be reached; the last: 2 refuses";
        assert_eq!(rig.log(), [failure, "resolve"]);
    }

    #[test]
    fn addresses_are_tried_once_each_with_families_in_turn() {
        for (list, order) in [
            ("1 2 v6.1 v6.2", "1 v6.1 2 v6.2"),
            ("v6.1 v6.2 v6.3 1", "v6.1 1 v6.2 v6.3"),
            ("1 1+2 2 1", "1 2"),
            ("3 2 1", "3 2 1"),
            ("1+v6.1 2+v6.2", "1 v6.1 2 v6.2"),
        ] {
            let endpoints = endpoints(list);
            let ordered = ordered(&endpoints.iter().collect::<Vec<_>>());
            let names: Vec<_> = ordered.iter().map(|(it, _)| name(it)).collect();
            assert_eq!(names.join(" "), order, "{list}");
        }
        let unix = Address::Unix(Some("/a".into()));
        let mixed = [unix.clone(), address("1"), unix.clone(), address("2")];
        let mixed = Endpoint::with_addresses(mixed);
        let ordered = ordered(&[&mixed]);
        let ordered: Vec<_> = ordered.into_iter().map(|(it, _)| it.clone()).collect();
        assert_eq!(ordered, [unix, address("1"), address("2")]);
    }

    #[test]
    fn shuffling_puts_each_endpoint_first_equally_often_or_by_its_weight() {
        let mut rig = Rig::new(PickFirst, r#"{"shuffleAddressList": true}"#);
        let rounds = 6_000;
        for weights in [[1, 1, 1, 1, 1], [1, 2, 3, 4, 10]] {
            let mut list = endpoints("1+2 3 4 5 6");
            for (endpoint, weight) in list.iter_mut().zip(weights) {
                *endpoint = endpoint.clone().with(EndpointWeight(weight));
            }
            let mut first = HashMap::new();
            for _ in 0..rounds {
                let shuffled = shuffled(&list, &mut rig.control);
                *first.entry(name(&shuffled[0].addresses()[0])).or_insert(0) += 1;
            }
            let sum: u32 = weights.iter().sum();
            let terms = ["1", "3", "4", "5", "6"].iter().zip(weights);
            let chi_square: f64 = terms
                .map(|(name, weight)| {
                    let expected = f64::from(rounds) * f64::from(weight) / f64::from(sum);
                    (f64::from(first[*name]) - expected).powi(2) / expected
                })
                .sum();
            // With 4 degrees of freedom, 18.5 is exceeded once in 1,000.
            assert!(chi_square < 18.5, "{chi_square}: {first:?}");
        }
        // Within an endpoint, the order stays.
        for _ in 0..100 {
            let shuffled = shuffled(&endpoints("1+2 3"), &mut rig.control)
                .into_iter()
                .cloned()
                .collect::<Vec<_>>();
            let ordered = ordered(&shuffled.iter().collect::<Vec<_>>());
            let names: Vec<_> = ordered.iter().map(|(it, _)| name(it)).collect();
            assert!(["1 2 3", "3 1 2"].contains(&&*names.join(" ")), "{names:?}");
        }
    }

    #[test]
    fn shuffled_lists_reach_the_pass() {
        let mut rig = Rig::new(PickFirst, r#"{"shuffleAddressList": true}"#);
        let mut first = HashSet::new();
        for _ in 0..50 {
            rig.update("1 2 3");
            first.insert(rig.live());
            let _ = rig.resolve(Ok(&[]));
        }
        assert_eq!(first.len(), 3, "{first:?}");
    }

    #[test]
    fn below_another_policy_the_health_of_the_chosen_subchannel_is_reported() {
        let state = SubchannelState::new;
        let mut rig = child();
        rig.update("1 2");
        rig.fail("1");
        rig.fail("2");
        rig.idle("2");
        rig.log();
        // A connection ends TRANSIENT_FAILURE, and calls wait until the health is known.
        rig.ready("2");
        assert_eq!(rig.log(), ["CONNECTING wait"]);
        rig.health("2", state(ConnectivityState::Ready));
        assert_eq!(rig.log(), ["READY 2"]);
        let unhealthy = Status::unavailable("2 is ill");
        rig.health("2", SubchannelState::failed(unhealthy));
        assert_eq!(rig.log(), ["TRANSIENT_FAILURE 2 is ill"]);
        rig.health("2", state(ConnectivityState::Connecting));
        assert_eq!(rig.log(), ["CONNECTING wait"]);
        rig.health("2", state(ConnectivityState::TransientFailure));
        assert_eq!(rig.log(), ["TRANSIENT_FAILURE 10.0.0.2:80 is not healthy"]);
        // The list can change meanwhile.
        rig.update("2 3");
        assert!(rig.log().is_empty());
        rig.health("2", state(ConnectivityState::Ready));
        assert_eq!(rig.log(), ["READY 2"]);
        // The next connection has a health of its own.
        rig.idle("2");
        rig.exit_idle();
        assert_eq!(
            rig.log(),
            ["IDLE idle", "resolve", "CONNECTING wait", "connect 2"]
        );
        rig.ready("2");
        assert!(rig.log().is_empty());
        rig.health("2", state(ConnectivityState::Ready));
        assert_eq!(rig.log(), ["READY 2"]);
    }

    #[test]
    fn health_that_is_known_before_the_state_is_not_lost() {
        let mut rig = child();
        rig.update("1");
        rig.health("1", SubchannelState::new(ConnectivityState::Ready));
        rig.ready("1");
        assert_eq!(rig.log(), ["CONNECTING wait", "connect 1", "READY 1"]);
    }

    #[test]
    fn at_the_top_health_is_not_watched() {
        let mut rig = rig();
        rig.update("1");
        assert!(!rig.control.live()[0].watches_health);
    }

    /// A list changes at each point of a pass: the new list is tried in full, and a live address is found.
    #[test]
    fn a_list_can_change_at_every_point_of_a_pass() {
        // Each character is a step: a failure of the address started last, or 250 ms.
        for steps in ["", "t", "f", "tt", "tf", "ft", "ff", "fff", "tff", "fft"] {
            for list in ["1 2 3", "3 2 1", "4 1", "2 4", "4 5 6", "3"] {
                let mut rig = rig();
                rig.update("1 2 3");
                let mut started = 1;
                for step in steps.chars() {
                    match step {
                        't' => rig.pass(250),
                        _ => rig.fail(&started.to_string()),
                    }
                    started = (started + 1).min(3);
                }
                rig.update(list);
                let context = format!("{steps:?} {list:?}");
                let last = list.split(' ').next_back().expect("an address");
                // All addresses but the last refuse, and each backoff ends.
                for _ in 0..10 {
                    for name in list.split(' ') {
                        match rig.state_of(name) {
                            Some(ConnectivityState::Connecting) if name != last => rig.fail(name),
                            Some(ConnectivityState::TransientFailure) => rig.idle(name),
                            _ => {}
                        }
                    }
                    rig.pass(250);
                }
                let state = rig.state_of(last);
                assert_eq!(state, Some(ConnectivityState::Connecting), "{context}");
                rig.ready(last);
                assert_eq!(rig.state(), ConnectivityState::Ready, "{context}");
                assert_eq!(rig.live(), last, "{context}");
            }
        }
    }

    /// A model of a channel with eight addresses, of which each can go up and down.
    #[test]
    fn after_any_events_a_reachable_address_is_reached_and_no_subchannel_is_left() {
        use ConnectivityState::{Connecting, Idle, Ready, TransientFailure};
        for seed in 0..50 {
            let mut random = Random(seed);
            let mut rig = rig();
            let mut list = String::from("1");
            let mut up = [false; 9];
            let number = |name: &str| name.parse::<usize>().expect("a number");
            // Moves the subchannel at a place on by one state, as the network would.
            let step = |rig: &mut Rig, at: usize, up: &[bool; 9]| {
                let live = rig.control.live();
                let (id, name) = (live[at].id, live[at].name.clone());
                let next = match (live[at].state, up[number(&name)]) {
                    (Connecting, true) => SubchannelState::new(Ready),
                    (Connecting, false) => SubchannelState::failed(refused(&name)),
                    (Ready, false) | (TransientFailure, _) => SubchannelState::new(Idle),
                    _ => return,
                };
                rig.control.change(id, next);
            };
            for _ in 0..10_000 {
                let live = rig.control.live().len();
                match random.below(10) {
                    0 => {
                        let count = 1 + random.below(4);
                        let names = (0..count).map(|_| (1 + random.below(8)).to_string());
                        list = names.collect::<Vec<_>>().join(" ");
                        rig.update_later(&list);
                    }
                    1 => up[1 + random.below(8)] ^= true,
                    2 => rig.pass(random.next() % 300),
                    3 => rig.exit_idle_later(),
                    4..7 if live > 0 => step(&mut rig, random.below(live), &up),
                    _ => {
                        rig.deliver();
                    }
                }
                let live = rig.control.live();
                assert!(live.len() <= 8 + 1, "{}", live.len());
            }
            // With one address up, it is reached, and only its subchannel remains.
            let names: Vec<&str> = list.split(' ').collect();
            let wanted = names[random.below(names.len())];
            up = [false; 9];
            up[number(wanted)] = true;
            for _ in 0..40 {
                rig.exit_idle();
                for at in 0..rig.control.live().len() {
                    if at < rig.control.live().len() {
                        step(&mut rig, at, &up);
                        rig.settle();
                    }
                }
                rig.pass(300);
            }
            assert_eq!(rig.pick().as_deref(), Some(wanted), "seed {seed}, {list}");
            assert_eq!(rig.live(), wanted, "seed {seed}");
            assert!(rig.control.timers.is_empty());
        }
    }
}
