//! ring_hash: calls with the same hash use the same endpoint, as long as it is connected (gRFC A42, A61, A76).

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use serde_json::Value;
use trunkline_codec::{Metadata, Status};
use xxhash_rust::xxh64::xxh64;

use super::balancer::{Balancer, Control, SubchannelState, TimerId, Update};
use super::children::{Child, Children, IdleChildren};
use super::pick_first::PickFirst;
use super::picker::{Pick, PickArgs, PickResult, Picker};
use super::policy::{Policies, Policy, PolicyConfig};
use super::ring::{self, Ring};
use crate::config::json::{JsonField, JsonObject};
use crate::connectivity::ConnectivityState;
use crate::endpoint::{Endpoint, HashKey};
use crate::subchannel::{Subchannel, SubchannelId};

/// The largest size of a ring that a service config may name (gRFC A42).
const CONFIG_SIZE_MAX: u64 = 8 << 20;

/// The size to which a channel cuts larger ones (gRFC A42). A ring uses 16 bytes for each entry.
const RING_SIZE_MAX: u32 = 4_096;

/// The policy `ring_hash_experimental`.
#[derive(Debug)]
pub(crate) struct RingHash;

#[derive(Clone, Debug, PartialEq)]
struct RingHashConfig {
    min_size: u32,
    max_size: u32,
    /// The metadata key whose values are hashed; `None` if each call has a hash at random.
    header: Option<String>,
}

impl Policy for RingHash {
    fn name(&self) -> &str {
        "ring_hash_experimental"
    }

    fn parse(&self, config: &Value, _: &Policies) -> Result<PolicyConfig, Status> {
        let config = JsonObject::document(self.name(), config)?;
        let size = |field: &JsonField<'_>| match field.unsigned()? {
            size @ 1..=CONFIG_SIZE_MAX => Ok(size as u32),
            _ => Err(field.invalid("the size of a ring; write 1 to 8388608")),
        };
        let min_size = config.optional("minRingSize", size)?.unwrap_or(1_024);
        let max_size = config.optional("maxRingSize", size)?.unwrap_or(4_096);
        if min_size > max_size {
            return Err(Status::invalid_argument(format!(
                "minRingSize: {min_size} is above maxRingSize, {max_size}"
            )));
        }
        let header = config.optional("requestHashHeader", header)?;
        Ok(Arc::new(RingHashConfig {
            min_size: min_size.min(RING_SIZE_MAX),
            max_size: max_size.min(RING_SIZE_MAX),
            header: header.flatten(),
        }))
    }

    fn build(&self) -> Box<dyn Balancer> {
        Box::new(RingHashBalancer {
            children: Children::new(PickFirst::child(), IdleChildren::Leave),
            config: None,
            places: None,
        })
    }
}

/// The key of text metadata in lower case; `None` if it is empty.
fn header(field: &JsonField<'_>) -> Result<Option<String>, Status> {
    let key = field.string()?;
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    match key.bytes().all(fits) && !key.ends_with("-bin") {
        true => Ok((!key.is_empty()).then(|| key.to_owned())),
        false => Err(field.invalid("a key of text metadata; write it in lower case, without -bin")),
    }
}

struct RingHashBalancer {
    /// Each connects when a call asks for it.
    children: Children<()>,
    config: Option<RingHashConfig>,
    places: Option<Arc<RingPlaces>>,
}

/// The places of the endpoints on the ring. They stay while the endpoints, their keys and weights stay.
struct RingPlaces {
    config: RingHashConfig,
    endpoints: Vec<(String, u32)>,
    ring: Ring,
    /// The endpoints that calls ask to connect.
    wanted: Box<[AtomicBool]>,
    /// Hashes for calls without one: the number of them, which is hashed with the seed.
    random_calls: AtomicU64,
    seed: u64,
}

impl Balancer for RingHashBalancer {
    fn update(&mut self, update: Update<'_>, control: &mut dyn Control) -> Result<(), Status> {
        if let Some(config) = update.config_as::<RingHashConfig>() {
            self.config = Some(config.clone());
        }
        let used = self.children.update(update, control);
        self.publish(control);
        used
    }

    fn subchannel_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) {
        if self.children.subchannel_changed(id, state, control) {
            self.publish(control);
        }
    }

    fn health_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) {
        if self.children.health_changed(id, state, control) {
            self.publish(control);
        }
    }

    fn timer_expired(&mut self, timer: TimerId, control: &mut dyn Control) {
        if self.children.timer_expired(timer, control) {
            self.publish(control);
        }
    }

    /// Connects the endpoints for which calls have asked, or else the first one if all are idle.
    fn exit_idle(&mut self, control: &mut dyn Control) {
        let wanted = self.places.iter().flat_map(|it| it.wanted.iter());
        let wanted = wanted.map(|it| it.swap(false, Ordering::Relaxed));
        let wanted: Vec<bool> = wanted.collect();
        let mut has_published = false;
        for at in (0..wanted.len()).filter(|at| wanted[*at]) {
            has_published |= self.children.connect(at, control);
        }
        if !wanted.contains(&true) && self.state() == ConnectivityState::Idle {
            has_published |= self.children.connect(0, control);
        }
        if has_published {
            self.publish(control);
        }
    }
}

impl RingHashBalancer {
    fn publish(&mut self, control: &mut dyn Control) {
        self.connect_one_if_failing(control);
        let state = self.state();
        if self.children.all().is_empty() {
            self.places = None;
            control.publish(state, Picker::Fail(self.children.failure()));
            return;
        }
        let Some(places) = self.places(control) else {
            return;
        };
        let children = self.children.all().iter();
        let picker = RingPicker {
            places,
            endpoints: children.map(EndpointState::of).collect(),
            waker: control.waker(),
        };
        control.publish(state, Picker::Custom(Arc::new(picker)));
    }

    // gRFC A42, "Aggregated Connectivity State".
    fn state(&self) -> ConnectivityState {
        let children = self.children.all();
        let count = |state| children.iter().filter(|it| it.state() == state).count();
        let failed = count(ConnectivityState::TransientFailure);
        if count(ConnectivityState::Ready) > 0 {
            ConnectivityState::Ready
        } else if failed >= 2 {
            ConnectivityState::TransientFailure
        } else if count(ConnectivityState::Connecting) > 0 || (failed == 1 && children.len() > 1) {
            ConnectivityState::Connecting
        } else if count(ConnectivityState::Idle) > 0 {
            ConnectivityState::Idle
        } else {
            ConnectivityState::TransientFailure
        }
    }

    /// Connects an idle endpoint if others have failed and none is connecting. In TRANSIENT_FAILURE, calls may never ask
    /// for one: a policy above this one can send them elsewhere.
    fn connect_one_if_failing(&mut self, control: &mut dyn Control) {
        let is_failing = matches!(
            self.state(),
            ConnectivityState::TransientFailure | ConnectivityState::Connecting
        );
        let first = |state: ConnectivityState| {
            let mut children = self.children.all().iter();
            children.position(|it| it.state() == state)
        };
        if let (true, None, Some(idle)) = (
            is_failing,
            first(ConnectivityState::Connecting),
            first(ConnectivityState::Idle),
        ) {
            self.children.connect(idle, control);
        }
    }

    /// Returns the places of the endpoints, which are new if an endpoint, a key, a weight or the configuration has
    /// changed.
    fn places(&mut self, control: &mut dyn Control) -> Option<Arc<RingPlaces>> {
        let config = self.config.clone()?;
        let endpoints = self.children.all().iter().map(Child::endpoint);
        let endpoints: Vec<_> = endpoints.map(|it| (key(it), it.weight())).collect();
        let is_same = |it: &&Arc<RingPlaces>| it.config == config && it.endpoints == endpoints;
        if let Some(places) = self.places.as_ref().filter(is_same) {
            return Some(places.clone());
        }
        let keys = endpoints
            .iter()
            .map(|(key, weight)| (key.as_str(), *weight));
        let ring = Ring::new(&keys.collect::<Vec<_>>(), config.min_size, config.max_size);
        let places = Arc::new(RingPlaces {
            wanted: endpoints.iter().map(|_| AtomicBool::new(false)).collect(),
            config,
            endpoints,
            ring,
            random_calls: AtomicU64::new(0),
            seed: control.random(),
        });
        self.places = Some(places.clone());
        Some(places)
    }
}

fn key(endpoint: &Endpoint) -> String {
    match endpoint.attributes().get::<HashKey>() {
        Some(key) if !key.0.is_empty() => key.0.to_string(),
        _ => endpoint
            .addresses()
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
    }
}

struct RingPicker {
    places: Arc<RingPlaces>,
    /// In the order of the list.
    endpoints: Box<[EndpointState]>,
    waker: Waker,
}

enum EndpointState {
    Ready(Subchannel),
    Connecting,
    Idle,
    Failed(Arc<Status>),
}

impl EndpointState {
    fn of(child: &Child<()>) -> Self {
        match (child.state(), child.picker()) {
            (ConnectivityState::Ready, Picker::One(subchannel)) => Self::Ready(subchannel.clone()),
            (_, Picker::Fail(status)) => Self::Failed(status.clone()),
            (ConnectivityState::Idle, _) => Self::Idle,
            _ => Self::Connecting,
        }
    }
}

impl Pick for RingPicker {
    fn pick(&self, call: &PickArgs<'_>) -> PickResult {
        match self.places.hash(call.metadata) {
            Some(hash) => self.pick_by(hash),
            None => self.pick_any(),
        }
    }
}

impl RingPicker {
    /// Picks the first endpoint that has not failed. gRFC A61: it connects if it is idle.
    fn pick_by(&self, hash: u64) -> PickResult {
        for at in self.places.ring.endpoints_from(hash) {
            match &self.endpoints[at] {
                EndpointState::Ready(subchannel) => return subchannel.clone().into(),
                EndpointState::Connecting => return PickResult::Wait,
                EndpointState::Idle => {
                    self.connect(at);
                    return PickResult::Wait;
                }
                EndpointState::Failed(_) => {}
            }
        }
        self.failure(hash)
    }

    /// Picks an endpoint that is connected. gRFC A76: unless one is connecting, an idle one on the way connects.
    fn pick_any(&self) -> PickResult {
        let hash = self.places.random_hash();
        let is_connecting = |it: &EndpointState| matches!(it, EndpointState::Connecting);
        let mut has_asked = self.endpoints.iter().any(is_connecting);
        for at in self.places.ring.endpoints_from(hash) {
            match &self.endpoints[at] {
                EndpointState::Ready(subchannel) => return subchannel.clone().into(),
                EndpointState::Idle if !has_asked => {
                    has_asked = true;
                    self.connect(at);
                }
                EndpointState::Connecting | EndpointState::Idle | EndpointState::Failed(_) => {}
            }
        }
        match has_asked {
            true => PickResult::Wait,
            false => self.failure(hash),
        }
    }

    fn connect(&self, at: usize) {
        if !self.places.wanted[at].swap(true, Ordering::Relaxed) {
            self.waker.wake_by_ref();
        }
    }

    /// The failure of the endpoint to which the hash belongs.
    fn failure(&self, hash: u64) -> PickResult {
        let first = self.places.ring.endpoints_from(hash).next();
        match first.map(|at| &self.endpoints[at]) {
            Some(EndpointState::Failed(status)) => PickResult::Fail(status.clone()),
            _ => PickResult::Wait,
        }
    }
}

impl RingPlaces {
    /// The hash of a call by its metadata. gRFC A76: of all values, joined by commas; without a value there is none.
    fn hash(&self, metadata: &Metadata) -> Option<u64> {
        let mut values = metadata.get_all(self.config.header.as_deref()?);
        let mut joined = Cow::Borrowed(values.next()?);
        for value in values {
            let joined = joined.to_mut();
            joined.push(',');
            joined.push_str(value);
        }
        (!joined.is_empty()).then(|| ring::hash(joined.as_bytes()))
    }

    fn random_hash(&self) -> u64 {
        let number = self.random_calls.fetch_add(1, Ordering::Relaxed);
        xxh64(&number.to_le_bytes(), self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::BalancerConfig;
    use super::super::testing::{Rig, endpoints, refused};
    use super::*;
    use crate::endpoint::EndpointWeight;

    const READY: ConnectivityState = ConnectivityState::Ready;
    const CONNECTING: ConnectivityState = ConnectivityState::Connecting;
    const IDLE: ConnectivityState = ConnectivityState::Idle;
    const FAILED: ConnectivityState = ConnectivityState::TransientFailure;

    fn parse(json: &str) -> Result<RingHashConfig, Status> {
        let value: Value = serde_json::from_str(json).unwrap();
        let config = RingHash.parse(&value, &Policies::default())?;
        Ok(config.downcast_ref::<RingHashConfig>().unwrap().clone())
    }

    fn rig(list: &str) -> Rig {
        let mut rig = Rig::new(RingHash, r#"{"requestHashHeader": "key"}"#);
        rig.update(list);
        rig
    }

    fn metadata(values: &[&str]) -> Metadata {
        let mut metadata = Metadata::new();
        for value in values {
            metadata.append("key", value).unwrap();
        }
        metadata
    }

    /// The names of endpoints in the order in which a call with a hash tries them.
    fn order(list: &str, hash: u64) -> Vec<String> {
        let listed = endpoints(list);
        let keys: Vec<_> = listed.iter().map(key).collect();
        let keys: Vec<_> = keys.iter().map(|it| (it.as_str(), 1)).collect();
        let names: Vec<&str> = list.split(' ').collect();
        let mut order: Vec<String> = Vec::new();
        for at in Ring::new(&keys, 1_024, 4_096).endpoints_from(hash) {
            if !order.iter().any(|it| it == names[at]) {
                order.push(names[at].to_owned());
            }
        }
        order
    }

    /// The metadata of a call that belongs to an endpoint.
    fn call_to(list: &str, name: &str) -> Metadata {
        let mut keys = (0..).map(|it: u32| it.to_string());
        let key = keys.find(|it| order(list, ring::hash(it.as_bytes()))[0] == name);
        metadata(&[&key.unwrap()])
    }

    /// Asks for an endpoint, as a call does that belongs to it.
    fn ask(rig: &mut Rig, list: &str, name: &str) {
        assert_eq!(rig.pick_with(&call_to(list, name)), None);
        assert!(rig.wake());
    }

    fn connect(rig: &mut Rig, list: &str, name: &str) {
        ask(rig, list, name);
        rig.ready(name);
        rig.health(name, SubchannelState::new(READY));
    }

    #[test]
    fn sizes_and_header_are_checked_and_sizes_cut_to_the_limit() {
        let config = |min_size, max_size, header: Option<&str>| RingHashConfig {
            min_size,
            max_size,
            header: header.map(str::to_owned),
        };
        for (json, expected) in [
            ("{}", config(1_024, 4_096, None)),
            (
                r#"{"minRingSize": 1, "max_ring_size": "1"}"#,
                config(1, 1, None),
            ),
            (
                r#"{"minRingSize": 8388608, "maxRingSize": 8388608}"#,
                config(4_096, 4_096, None),
            ),
            (r#"{"requestHashHeader": ""}"#, config(1_024, 4_096, None)),
            (
                r#"{"requestHashHeader": "x-key_1.b"}"#,
                config(1_024, 4_096, Some("x-key_1.b")),
            ),
        ] {
            assert_eq!(parse(json).unwrap(), expected, "{json}");
        }
        for json in [
            r#"{"minRingSize": 0}"#,
            r#"{"maxRingSize": 0}"#,
            r#"{"maxRingSize": 8388609}"#,
            r#"{"minRingSize": -1}"#,
            r#"{"minRingSize": 4097}"#,
            r#"{"maxRingSize": 1023}"#,
            r#"{"minRingSize": 10, "maxRingSize": 9}"#,
            r#"{"requestHashHeader": 5}"#,
            r#"{"requestHashHeader": "x-bin"}"#,
            r#"{"requestHashHeader": "Key"}"#,
            r#"{"requestHashHeader": ":path"}"#,
            r#"{"requestHashHeader": "a b"}"#,
        ] {
            assert!(parse(json).is_err(), "{json}");
        }
    }

    #[test]
    fn an_endpoint_connects_when_a_call_belongs_to_it_and_keeps_its_calls() {
        let list = "1 2 3";
        let mut rig = rig(list);
        assert_eq!((rig.state(), rig.live().as_str()), (IDLE, ""));
        assert!(!rig.wake());
        ask(&mut rig, list, "2");
        assert_eq!((rig.state(), rig.live().as_str()), (CONNECTING, "2"));
        let call = call_to(list, "2");
        assert_eq!(rig.pick_with(&call), None);
        assert!(!rig.wake(), "it connects already");
        rig.ready("2");
        rig.health("2", SubchannelState::new(READY));
        assert_eq!(rig.state(), READY);
        for _ in 0..1_000 {
            assert_eq!(rig.pick_with(&call).as_deref(), Some("2"));
        }
        // Calls that belong elsewhere do not use it.
        ask(&mut rig, list, "1");
        assert_eq!((rig.state(), rig.live().as_str()), (READY, "1 2"));
        // A connection that is lost is opened again by the next call.
        rig.idle("2");
        assert_eq!(rig.state(), CONNECTING);
        rig.log();
        ask(&mut rig, list, "2");
        assert!(rig.log().contains(&"connect 2".to_owned()));
    }

    #[test]
    fn all_values_of_the_header_are_hashed_joined_by_commas() {
        let list = "1 2 3 4 5 6 7 8 9";
        let mut rig = rig(list);
        for name in list.split(' ') {
            connect(&mut rig, list, name);
        }
        for (values, joined) in [
            (&["alice"][..], "alice"),
            (&["alice", "bob"], "alice,bob"),
            (&["alice,bob"], "alice,bob"),
            (&["", "bob"], ",bob"),
        ] {
            let owner = &order(list, ring::hash(joined.as_bytes()))[0];
            let picked = rig.pick_with(&metadata(values));
            assert_eq!(picked.as_ref(), Some(owner), "{values:?}");
        }
        // Without a value, each call has a hash of its own.
        for call in [metadata(&[]), metadata(&[""])] {
            let picked = (0..100).filter_map(|_| rig.pick_with(&call));
            let picked: std::collections::BTreeSet<_> = picked.collect();
            assert_eq!(picked.len(), 9);
        }
    }

    #[test]
    fn calls_pass_endpoints_that_have_failed_in_the_order_of_the_ring() {
        let list = "1 2 3";
        let mut rig = rig(list);
        let call = call_to(list, "1");
        let hash = ring::hash(call.get("key").unwrap().as_bytes());
        let order = order(list, hash);
        assert_eq!(order[0], "1");
        ask(&mut rig, list, "1");
        rig.fail("1");
        // One of several has failed: another connects without a call, and calls wait.
        assert_eq!(rig.state(), CONNECTING);
        assert_eq!(rig.live(), "1 2");
        assert_eq!(rig.pick_with(&call), None);
        rig.wake();
        let next = order[1].clone();
        if next != "2" {
            assert_eq!(rig.live(), "1 2 3");
        }
        rig.ready(&next);
        rig.health(&next, SubchannelState::new(READY));
        assert_eq!(rig.pick_with(&call), Some(next));
    }

    #[test]
    fn calls_fail_with_the_failure_of_their_own_endpoint_if_all_have_failed() {
        let list = "1 2 3";
        let mut rig = rig(list);
        ask(&mut rig, list, "1");
        rig.fail("1");
        rig.fail("2");
        // In TRANSIENT_FAILURE, the last one connects as well.
        assert_eq!((rig.state(), rig.live().as_str()), (FAILED, "1 2 3"));
        assert_eq!(rig.pick_with(&call_to(list, "2")), None);
        rig.fail("3");
        assert_eq!(rig.state(), FAILED);
        for name in ["1", "2", "3"] {
            match rig.picked(&call_to(list, name)) {
                PickResult::Fail(status) => {
                    assert_eq!(status.message(), refused(name).message());
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(rig.picked(&Metadata::new()), PickResult::Fail(_)));
        // One that comes back serves all.
        rig.idle("3");
        rig.ready("3");
        rig.health("3", SubchannelState::new(READY));
        assert_eq!(rig.state(), READY);
        for name in ["1", "2", "3"] {
            assert_eq!(rig.pick_with(&call_to(list, name)).as_deref(), Some("3"));
        }
    }

    #[test]
    fn a_call_without_a_hash_uses_what_is_connected_and_one_idle_endpoint_connects() {
        let list = "1 2 3";
        let mut rig = rig(list);
        let call = Metadata::new();
        // All are idle: one connects.
        assert_eq!(rig.pick(), None);
        assert!(rig.wake());
        let first = rig.live();
        assert_eq!((rig.state(), first.len()), (CONNECTING, 1));
        assert_eq!(rig.pick(), None);
        assert!(!rig.wake(), "one is connecting");
        rig.ready(&first);
        rig.health(&first, SubchannelState::new(READY));
        // Calls use it at once, even those whose hash leads to an idle endpoint, which then connects.
        let mut has_asked = false;
        for _ in 0..100 {
            assert_eq!(rig.pick_with(&call).as_ref(), Some(&first));
            if !has_asked {
                has_asked = rig.wake();
            }
        }
        assert!(has_asked);
        assert_eq!(rig.live().split(' ').count(), 2);
    }

    #[test]
    fn an_endpoint_alone_is_in_the_state_of_the_policy() {
        let mut rig = rig("1");
        assert_eq!(rig.state(), IDLE);
        ask(&mut rig, "1", "1");
        assert_eq!(rig.state(), CONNECTING);
        rig.fail("1");
        assert_eq!(rig.state(), FAILED);
        rig.idle("1");
        assert_eq!(rig.state(), FAILED, "until it is connected");
        rig.ready("1");
        rig.health("1", SubchannelState::new(READY));
        assert_eq!(rig.state(), READY);
        rig.idle("1");
        assert_eq!(rig.state(), IDLE);
    }

    #[test]
    fn a_user_connects_one_endpoint() {
        let mut rig = rig("1 2 3");
        rig.exit_idle();
        assert_eq!((rig.state(), rig.live().as_str()), (CONNECTING, "1"));
        rig.exit_idle();
        assert_eq!(rig.live(), "1");
    }

    #[test]
    fn endpoints_that_are_gone_are_dropped_and_an_idle_one_takes_over_the_connecting() {
        let mut rig = rig("1 2 3");
        ask(&mut rig, "1 2 3", "3");
        rig.fail("3");
        assert_eq!(rig.live(), "1 3");
        // 1, which was connecting, is gone; 2 connects in its stead.
        rig.update("2 3");
        assert_eq!((rig.state(), rig.live().as_str()), (CONNECTING, "2 3"));
        let empty = rig.resolve(Ok(&[])).unwrap_err();
        assert_eq!(empty.message(), "no addresses: a note");
        assert_eq!((rig.state(), rig.live().as_str()), (FAILED, ""));
        assert!(matches!(rig.picked(&Metadata::new()), PickResult::Fail(_)));
        rig.update("2 3");
        assert_eq!((rig.state(), rig.live().as_str()), (IDLE, ""));
    }

    #[test]
    fn weights_and_hash_keys_place_endpoints() {
        let policy: Arc<dyn Policy> = Arc::new(RingHash);
        let config = parse(r#"{"minRingSize": 100, "requestHashHeader": "key"}"#).unwrap();
        let config = BalancerConfig::new(policy, Arc::new(config));
        let mut rig = Rig::with(config);
        let [one, two] = <[Endpoint; 2]>::try_from(endpoints("1 2")).unwrap();
        let share_of_two = |rig: &mut Rig, endpoints: &[Endpoint]| {
            rig.resolve(Ok(endpoints)).unwrap();
            for call in 0..100 {
                rig.pick_with(&metadata(&[&call.to_string()]));
            }
            if rig.wake() {
                for name in ["1", "2"] {
                    rig.ready(name);
                    rig.health(name, SubchannelState::new(READY));
                }
            }
            let calls = (0..1_000).map(|it: u32| metadata(&[&it.to_string()]));
            let picked = calls.filter_map(|it| rig.pick_with(&it));
            picked.filter(|it| it == "2").count()
        };
        let even = share_of_two(&mut rig, &[one.clone(), two.clone()]);
        assert!((350..650).contains(&even), "{even}");
        // 9 of 10 entries.
        let heavy = two.clone().with(EndpointWeight(9));
        let heavy = share_of_two(&mut rig, &[one.clone(), heavy]);
        assert!((820..970).contains(&heavy), "{heavy}");
        // With the same key, the first in the list has all.
        let key = HashKey("same".into());
        let same = share_of_two(&mut rig, &[one.with(key.clone()), two.with(key)]);
        assert_eq!(same, 0);
    }
}
