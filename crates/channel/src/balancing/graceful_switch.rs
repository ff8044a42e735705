//! The one child of a policy, which another one can replace without a pause.

use trunkline_codec::{LoadReport, Status};

use super::balancer::{Balancer, Control, SubchannelState, TimerId, Update};
use super::event_routes::{ChildControl, ChildId, EventRoutes};
use super::picker::Picker;
use super::policy::BalancerConfig;
use crate::connectivity::ConnectivityState;
use crate::subchannel::SubchannelId;

/// A child whose policy can change. A new child connects while the old one serves, and takes its place once it has left
/// CONNECTING, or the old one is not READY.
///
/// Each event of the parent goes through the method of the same name.
#[derive(Default)]
pub(crate) struct GracefulSwitch {
    current: Option<SwitchChild>,
    next: Option<SwitchChild>,
    routes: EventRoutes,
    last_id: u64,
}

struct SwitchChild {
    id: ChildId,
    policy: String,
    balancer: Box<dyn Balancer>,
    state: ConnectivityState,
    picker: Picker,
}

impl GracefulSwitch {
    /// Passes `update` to the child with the policy of `config`, and with that configuration.
    ///
    /// # Errors
    ///
    /// That of the child.
    pub(crate) fn update(
        &mut self,
        config: &BalancerConfig,
        update: Update<'_>,
        control: &mut dyn Control,
    ) -> Result<(), Status> {
        let latest = self.next.as_ref().or(self.current.as_ref());
        let id = match latest.filter(|it| it.policy == config.name()) {
            Some(latest) => latest.id,
            None => self.start(config, control),
        };
        let update = Update {
            config: &**config.config(),
            ..update
        };
        let mut used = Ok(());
        self.run(Some(id), control, |child, control| {
            used = child.update(update, control);
        });
        used
    }

    fn start(&mut self, config: &BalancerConfig, control: &mut dyn Control) -> ChildId {
        self.last_id += 1;
        let id = ChildId(self.last_id);
        let child = SwitchChild {
            id,
            policy: config.name().to_owned(),
            balancer: config.policy().build(),
            state: ConnectivityState::Connecting,
            picker: Picker::Wait,
        };
        match &self.current {
            None => self.current = Some(child),
            Some(_) => {
                if let Some(before) = self.next.replace(child) {
                    self.routes.forget(before.id, control);
                }
            }
        }
        id
    }

    pub(crate) fn subchannel_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) {
        let of = self.routes.of_subchannel(id);
        self.run(of, control, |child, control| {
            child.subchannel_changed(id, state, control);
        });
    }

    pub(crate) fn health_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) {
        let of = self.routes.of_subchannel(id);
        self.run(of, control, |child, control| {
            child.health_changed(id, state, control);
        });
    }

    pub(crate) fn load_reported(
        &mut self,
        id: SubchannelId,
        report: &LoadReport,
        control: &mut dyn Control,
    ) {
        let of = self.routes.of_subchannel(id);
        self.run(of, control, |child, control| {
            child.load_reported(id, report, control);
        });
    }

    pub(crate) fn timer_expired(&mut self, timer: TimerId, control: &mut dyn Control) {
        let of = self.routes.take_timer(timer);
        self.run(of, control, |child, control| {
            child.timer_expired(timer, control);
        });
    }

    pub(crate) fn exit_idle(&mut self, control: &mut dyn Control) {
        let of = self.current.as_ref().map(|it| it.id);
        self.run(of, control, |child, control| child.exit_idle(control));
    }

    /// Runs `event` on a child, and publishes what follows.
    fn run(
        &mut self,
        id: Option<ChildId>,
        control: &mut dyn Control,
        event: impl FnOnce(&mut dyn Balancer, &mut dyn Control),
    ) {
        let mut children = self.current.iter_mut().chain(&mut self.next);
        let Some(child) = children.find(|it| Some(it.id) == id) else {
            return;
        };
        let mut child_control = ChildControl {
            control,
            id: child.id,
            routes: &mut self.routes,
            published: None,
        };
        event(&mut *child.balancer, &mut child_control);
        let published = child_control.published;
        let has_published = published.is_some();
        if let Some((state, picker)) = published {
            (child.state, child.picker) = (state, picker);
        }
        let is_next = self.next.as_ref().is_some_and(|it| Some(it.id) == id);
        if self.switch(control) || (has_published && !is_next) {
            self.publish(control);
        }
    }

    /// Lets the next child take over if it is time: false if not.
    fn switch(&mut self, control: &mut dyn Control) -> bool {
        use ConnectivityState::{Connecting, Ready};
        let is_serving = self.current.as_ref().is_some_and(|it| it.state == Ready);
        let is_time = |next: &mut SwitchChild| !is_serving || next.state != Connecting;
        let Some(next) = self.next.take_if(is_time) else {
            return false;
        };
        if let Some(before) = self.current.replace(next) {
            self.routes.forget(before.id, control);
        }
        true
    }

    fn publish(&self, control: &mut dyn Control) {
        if let Some(child) = &self.current {
            control.publish(child.state, child.picker.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::least_request::LeastRequest;
    use super::super::pick_first::PickFirst;
    use super::super::policy::{Policies, Policy};
    use super::super::round_robin::RoundRobin;
    use super::super::testing::{Rig, refused};
    use super::*;

    /// A policy with one child, whose configuration is that child's.
    struct Parent;

    impl Policy for Parent {
        fn name(&self) -> &str {
            "parent"
        }

        fn parse(
            &self,
            _: &serde_json::Value,
            _: &Policies,
        ) -> Result<super::super::policy::PolicyConfig, Status> {
            Ok(Arc::new(child(PickFirst)))
        }

        fn build(&self) -> Box<dyn Balancer> {
            Box::new(GracefulSwitch::default())
        }
    }

    fn child(policy: impl Policy) -> BalancerConfig {
        let config = policy.parse(&serde_json::json!({}), &Policies::default());
        BalancerConfig::new(Arc::new(policy), config.expect("a config"))
    }

    impl Balancer for GracefulSwitch {
        fn update(&mut self, update: Update<'_>, control: &mut dyn Control) -> Result<(), Status> {
            let config = update.config_as::<BalancerConfig>().expect("a child");
            Self::update(self, config, update, control)
        }

        fn subchannel_changed(
            &mut self,
            id: SubchannelId,
            state: &SubchannelState,
            control: &mut dyn Control,
        ) {
            Self::subchannel_changed(self, id, state, control);
        }

        fn health_changed(
            &mut self,
            id: SubchannelId,
            state: &SubchannelState,
            control: &mut dyn Control,
        ) {
            Self::health_changed(self, id, state, control);
        }

        fn timer_expired(&mut self, timer: TimerId, control: &mut dyn Control) {
            Self::timer_expired(self, timer, control);
        }

        fn exit_idle(&mut self, control: &mut dyn Control) {
            Self::exit_idle(self, control);
        }
    }

    fn rig() -> Rig {
        Rig::new(Parent, "{}")
    }

    /// Changes the policy of the child.
    fn switch(rig: &mut Rig, policy: impl Policy, list: &str) {
        rig.config = BalancerConfig::new(Arc::new(Parent), Arc::new(child(policy)));
        rig.update(list);
    }

    /// Moves the newest subchannel, which is not the only one to its address.
    fn newest(rig: &mut Rig, state: &SubchannelState) {
        let id = rig.control.live().last().expect("one").id;
        rig.control.change(id, state.clone());
        rig.settle();
        let balancer = &mut rig.balancer;
        balancer.health_changed(id, state, &mut rig.control);
    }

    #[test]
    fn a_new_policy_takes_over_once_it_is_ready() {
        let mut rig = rig();
        rig.update("1");
        rig.ready("1");
        rig.log();
        switch(&mut rig, RoundRobin, "1");
        assert_eq!(rig.log(), ["connect 1"]);
        assert_eq!(rig.pick().as_deref(), Some("1"));
        assert_eq!(rig.live(), "1 1");
        newest(&mut rig, &SubchannelState::new(ConnectivityState::Ready));
        assert_eq!(rig.log(), ["READY 1"]);
        assert_eq!(rig.live(), "1");
        // Events of the new child go on.
        rig.idle("1");
        assert_eq!(rig.log(), ["resolve", "connect 1", "CONNECTING wait"]);
    }

    #[test]
    fn a_new_policy_takes_over_once_it_has_failed_or_the_old_one_is_not_ready() {
        let mut failed = rig();
        failed.update("1");
        failed.ready("1");
        switch(&mut failed, RoundRobin, "1");
        failed.log();
        newest(&mut failed, &SubchannelState::failed(refused("1")));
        assert_eq!(failed.log(), ["resolve", "TRANSIENT_FAILURE 1 refuses"]);
        assert_eq!(failed.live(), "1");

        let mut lost = rig();
        lost.update("1 2");
        lost.ready("1");
        switch(&mut lost, RoundRobin, "2");
        assert_eq!(lost.live(), "1 2");
        lost.log();
        lost.idle("1");
        assert_eq!(lost.log(), ["resolve", "CONNECTING wait"]);
        assert_eq!(lost.live(), "2");

        let mut connecting = rig();
        connecting.update("1 2");
        assert_eq!(connecting.control.timers.len(), 1);
        connecting.log();
        switch(&mut connecting, RoundRobin, "3");
        assert_eq!(connecting.log(), ["connect 3", "CONNECTING wait"]);
        assert_eq!(connecting.live(), "3");
        assert!(connecting.control.timers.is_empty());
    }

    #[test]
    fn the_last_of_several_policies_takes_over() {
        let mut rig = rig();
        rig.update("1");
        rig.ready("1");
        switch(&mut rig, RoundRobin, "2");
        switch(&mut rig, LeastRequest, "3");
        assert_eq!(rig.live(), "1 3");
        rig.log();
        newest(&mut rig, &SubchannelState::new(ConnectivityState::Ready));
        assert_eq!(rig.log(), ["READY custom"]);
        assert_eq!(rig.live(), "3");
    }

    #[test]
    fn a_list_for_the_same_policy_reaches_the_latest_child() {
        let mut rig = rig();
        rig.update("1");
        rig.ready("1");
        switch(&mut rig, RoundRobin, "1");
        rig.log();
        rig.update("2");
        assert_eq!(rig.log(), ["connect 2"]);
        assert_eq!(rig.live(), "1 2");
    }
}
