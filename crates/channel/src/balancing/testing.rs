//! A channel without connections or a clock, for tests of policies.

#![cfg(test)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use trunkline_codec::{LoadReport, Metadata, Status};
use trunkline_transport::Address;

use super::balancer::{Balancer, Control, SubchannelState, TimerId, Update};
use super::picker::{PickArgs, PickResult, Picker};
use super::policy::{BalancerConfig, Policies, Policy};
use crate::attributes::Attributes;
use crate::connectivity::ConnectivityState;
use crate::endpoint::Endpoint;
use crate::limits::ChannelLimits;
use crate::subchannel::{Subchannel, SubchannelId, WeakSubchannel};

/// The address named `name`: `7` is 10.0.0.7, `v6.7` is fd00::7.
pub(crate) fn address(name: &str) -> Address {
    match name.strip_prefix("v6.") {
        Some(number) => {
            let last = number.parse().expect("a number");
            Address::Tcp(([0xfd00, 0, 0, 0, 0, 0, 0, last], 80).into())
        }
        None => {
            let number: u16 = name.parse().expect("a number");
            let [high, low] = number.to_be_bytes();
            Address::Tcp(([10, 0, high, low], 80).into())
        }
    }
}

/// The name of an address that [`address`] has returned.
pub(crate) fn name(address: &Address) -> String {
    match address.tcp().expect("TCP").ip() {
        std::net::IpAddr::V4(ip) => {
            let [_, _, high, low] = ip.octets();
            u16::from_be_bytes([high, low]).to_string()
        }
        std::net::IpAddr::V6(ip) => format!("v6.{}", ip.segments()[7]),
    }
}

/// The endpoints of a list such as `1 2 3+4`, the last of which has two addresses.
pub(crate) fn endpoints(list: &str) -> Vec<Endpoint> {
    let addresses = |it: &str| it.split('+').map(address).collect::<Vec<_>>();
    list.split_whitespace()
        .map(|it| Endpoint::with_addresses(addresses(it)))
        .collect()
}

/// A seeded generator: splitmix64.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }
}

/// A subchannel that a balancer has created.
pub(crate) struct Created {
    pub(crate) id: SubchannelId,
    pub(crate) subchannel: WeakSubchannel,
    pub(crate) name: String,
    /// The state, of which the balancer may not know yet.
    pub(crate) state: ConnectivityState,
    pub(crate) watches_health: bool,
    pub(crate) load_interval: Option<Duration>,
}

/// Records what a balancer asks for. A subchannel that is asked to connect becomes CONNECTING; tests say what follows.
pub(crate) struct FakeControl {
    pub(crate) now: Instant,
    pub(crate) random: Random,
    pub(crate) limits: ChannelLimits,
    pub(crate) created: Vec<Created>,
    pub(crate) timers: BTreeMap<TimerId, Instant>,
    /// Changes of states that the balancer has not received yet.
    pub(crate) queue: VecDeque<(SubchannelId, SubchannelState)>,
    pub(crate) published: Option<(ConnectivityState, Picker)>,
    woken: Arc<Woken>,
    last_id: u64,
    log: Vec<String>,
}

/// True once a picker has asked the balancer to leave idleness.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl FakeControl {
    pub(crate) fn new() -> Self {
        Self {
            now: Instant::now(),
            random: Random(1),
            limits: ChannelLimits::default(),
            created: Vec::new(),
            timers: BTreeMap::new(),
            queue: VecDeque::new(),
            published: None,
            woken: Arc::default(),
            last_id: 0,
            log: Vec::new(),
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The subchannels that somebody holds.
    pub(crate) fn live(&mut self) -> &mut Vec<Created> {
        self.created.retain(|it| it.subchannel.upgrade().is_some());
        &mut self.created
    }

    fn created(&mut self, id: SubchannelId) -> &mut Created {
        let mut created = self.created.iter_mut();
        created.find(|it| it.id == id).expect("a live subchannel")
    }

    /// Changes the state of a subchannel, and tells the balancer later.
    pub(crate) fn change(&mut self, id: SubchannelId, state: SubchannelState) {
        self.created(id).state = state.connectivity;
        self.queue.push_back((id, state));
    }
}

impl Control for FakeControl {
    fn create_subchannel(&mut self, address: &Address, _: &Attributes) -> Subchannel {
        let id = self.next_id();
        let subchannel = Subchannel::detached(id, address.clone());
        self.created.push(Created {
            id: SubchannelId(id),
            subchannel: subchannel.downgrade(),
            name: name(address),
            state: ConnectivityState::Idle,
            watches_health: false,
            load_interval: None,
        });
        subchannel
    }

    fn connect(&mut self, subchannel: &Subchannel) {
        if self.created(subchannel.id()).state == ConnectivityState::Idle {
            self.log
                .push(format!("connect {}", name(subchannel.address())));
            let connecting = SubchannelState::new(ConnectivityState::Connecting);
            self.change(subchannel.id(), connecting);
        }
    }

    fn watch_health(&mut self, subchannel: &Subchannel) {
        self.created(subchannel.id()).watches_health = true;
    }

    fn watch_load(&mut self, subchannel: &Subchannel, interval: Duration) {
        self.created(subchannel.id()).load_interval = Some(interval);
    }

    fn publish(&mut self, state: ConnectivityState, picker: Picker) {
        self.log.push(format!("{state} {}", shown(&picker)));
        self.published = Some((state, picker));
    }

    fn set_timer(&mut self, at: Instant) -> TimerId {
        let timer = TimerId(self.next_id());
        self.timers.insert(timer, at);
        timer
    }

    fn cancel_timer(&mut self, timer: TimerId) {
        let was_set = self.timers.remove(&timer).is_some();
        assert!(was_set, "{timer:?} is cancelled twice, or late");
    }

    fn resolve_again(&mut self) {
        self.log.push("resolve".to_owned());
    }

    fn waker(&self) -> Waker {
        self.woken.clone().into()
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn random(&mut self) -> u64 {
        self.random.next()
    }

    fn limits(&self) -> &ChannelLimits {
        &self.limits
    }
}

fn shown(picker: &Picker) -> String {
    let names = |them: &[Subchannel]| -> String {
        let names: Vec<_> = them.iter().map(|it| name(it.address())).collect();
        names.join(",")
    };
    match picker {
        Picker::Idle => "idle".to_owned(),
        Picker::Wait => "wait".to_owned(),
        Picker::Fail(status) => status.message().to_owned(),
        Picker::One(subchannel) => names(std::slice::from_ref(subchannel)),
        Picker::RoundRobin(turn) => names(turn.subchannels()),
        Picker::Custom(_) => "custom".to_owned(),
    }
}

/// A balancer and its channel.
pub(crate) struct Rig {
    pub(crate) balancer: Box<dyn Balancer>,
    pub(crate) control: FakeControl,
    pub(crate) config: BalancerConfig,
}

impl Rig {
    /// A balancer of `policy` with the configuration `json`.
    pub(crate) fn new(policy: impl Policy, json: &str) -> Self {
        let value: Value = serde_json::from_str(json).expect("JSON");
        let config = policy
            .parse(&value, &Policies::default())
            .expect("a config");
        Self::with(BalancerConfig::new(Arc::new(policy), config))
    }

    pub(crate) fn with(config: BalancerConfig) -> Self {
        Self {
            balancer: config.policy().build(),
            control: FakeControl::new(),
            config,
        }
    }

    /// Passes on a result of the resolver, and delivers all changes of states that follow.
    pub(crate) fn resolve(
        &mut self,
        endpoints: Result<&[Endpoint], &Status>,
    ) -> Result<(), Status> {
        let used = self.resolve_later(endpoints);
        self.settle();
        used
    }

    fn resolve_later(&mut self, endpoints: Result<&[Endpoint], &Status>) -> Result<(), Status> {
        let update = Update {
            endpoints,
            config: &**self.config.config(),
            attributes: &Attributes::default(),
            note: "a note",
        };
        self.balancer.update(update, &mut self.control)
    }

    /// Passes on endpoints, as [`endpoints`] reads them.
    pub(crate) fn update(&mut self, list: &str) {
        self.resolve(Ok(&endpoints(list))).expect("it is used");
    }

    /// Passes on endpoints while changes of states are still under way.
    pub(crate) fn update_later(&mut self, list: &str) {
        let used = self.resolve_later(Ok(&endpoints(list)));
        used.expect("it is used");
    }

    /// Delivers all changes of states.
    pub(crate) fn settle(&mut self) {
        while self.deliver() {}
    }

    /// Delivers the next change of a state: false if there is none.
    pub(crate) fn deliver(&mut self) -> bool {
        let Some((id, state)) = self.control.queue.pop_front() else {
            return false;
        };
        if self.control.live().iter().any(|it| it.id == id) {
            let control = &mut self.control;
            self.balancer.subchannel_changed(id, &state, control);
        }
        true
    }

    /// The one live subchannel to the address named `name`.
    pub(crate) fn id(&mut self, name: &str) -> SubchannelId {
        let mut live = self.control.live().iter().filter(|it| it.name == name);
        let id = live.next().unwrap_or_else(|| panic!("no {name}")).id;
        assert!(live.next().is_none(), "{name} has two subchannels");
        id
    }

    /// The state of the first live subchannel to the address named `name`.
    pub(crate) fn state_of(&mut self, name: &str) -> Option<ConnectivityState> {
        let mut live = self.control.live().iter();
        live.find(|it| it.name == name).map(|it| it.state)
    }

    pub(crate) fn change(&mut self, name: &str, state: SubchannelState) {
        let id = self.id(name);
        self.control.change(id, state);
        self.settle();
    }

    pub(crate) fn set(&mut self, name: &str, state: ConnectivityState) {
        self.change(name, SubchannelState::new(state));
    }

    pub(crate) fn ready(&mut self, name: &str) {
        self.set(name, ConnectivityState::Ready);
    }

    pub(crate) fn idle(&mut self, name: &str) {
        self.set(name, ConnectivityState::Idle);
    }

    /// Fails an attempt to connect, with the message `NAME refuses`.
    pub(crate) fn fail(&mut self, name: &str) {
        self.change(name, SubchannelState::failed(refused(name)));
    }

    pub(crate) fn health(&mut self, name: &str, state: SubchannelState) {
        let id = self.id(name);
        assert!(self.control.created(id).watches_health, "{name}");
        self.balancer.health_changed(id, &state, &mut self.control);
        self.settle();
    }

    pub(crate) fn report_load(&mut self, name: &str, report: &LoadReport) {
        let id = self.id(name);
        self.balancer.load_reported(id, report, &mut self.control);
        self.settle();
    }

    pub(crate) fn exit_idle(&mut self) {
        self.exit_idle_later();
        self.settle();
    }

    /// Calls `exit_idle` if a picker has asked for it: false if none has.
    pub(crate) fn wake(&mut self) -> bool {
        let is_woken = self.control.woken.0.swap(false, Ordering::Relaxed);
        if is_woken {
            self.exit_idle();
        }
        is_woken
    }

    pub(crate) fn exit_idle_later(&mut self) {
        self.balancer.exit_idle(&mut self.control);
    }

    /// Lets `ms` milliseconds pass; timers expire at their moments.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.control.now + Duration::from_millis(ms);
        loop {
            let timers = self.control.timers.iter();
            let next = timers.map(|(timer, at)| (*at, *timer)).min();
            let Some((at, timer)) = next.filter(|(at, _)| *at <= end) else {
                break;
            };
            self.control.now = at.max(self.control.now);
            self.control.timers.remove(&timer);
            self.balancer.timer_expired(timer, &mut self.control);
            self.settle();
        }
        self.control.now = end;
    }

    /// What the balancer has asked for since this was last called.
    pub(crate) fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.control.log)
    }

    /// The addresses of the live subchannels, sorted.
    pub(crate) fn live(&mut self) -> String {
        let live = self.control.live().iter();
        let mut names: Vec<_> = live.map(|it| it.name.clone()).collect();
        names.sort();
        names.join(" ")
    }

    /// The state that was last published.
    pub(crate) fn state(&self) -> ConnectivityState {
        let published = self.control.published.as_ref();
        published.map_or(ConnectivityState::Idle, |(state, _)| *state)
    }

    /// Picks as a call without metadata does; `None` if the picker uses no subchannel.
    pub(crate) fn pick(&self) -> Option<String> {
        self.pick_with(&Metadata::new())
    }

    pub(crate) fn pick_with(&self, metadata: &Metadata) -> Option<String> {
        match self.picked(metadata) {
            PickResult::Use(choice) => Some(name(choice.subchannel.address())),
            PickResult::Wait | PickResult::Fail(_) | PickResult::Drop(_) => None,
        }
    }

    pub(crate) fn picked(&self, metadata: &Metadata) -> PickResult {
        match &self.control.published {
            None => PickResult::Wait,
            Some((_, picker)) => picker.pick(&PickArgs::new("/s/m", metadata)),
        }
    }
}

/// The failure of an attempt to connect to the address named `name`.
pub(crate) fn refused(name: &str) -> Status {
    Status::unavailable(format!("{name} refuses"))
}
