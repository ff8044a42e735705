//! The children of a policy that has one for each endpoint, such as round_robin.

use std::collections::HashMap;
use std::sync::Arc;

use trunkline_codec::Status;

use super::balancer::{Balancer, Control, SubchannelState, TimerId, Update};
use super::event_routes::{ChildControl, ChildId, EventRoutes};
use super::failure::{no_addresses, none_reached};
use super::picker::Picker;
use super::policy::BalancerConfig;
use crate::attributes::Attributes;
use crate::connectivity::ConnectivityState;
use crate::endpoint::{Endpoint, EndpointKey};
use crate::subchannel::{Subchannel, SubchannelId};

/// The fate of children that become IDLE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdleChildren {
    /// They connect again immediately.
    Connect,
    /// They wait for [`Children::connect`], from the start.
    Leave,
}

/// A balancer for each endpoint, in the order of the list. `T` is the data of the parent about an endpoint; they last
/// through updates, as the child does.
///
/// Each event of the parent goes through the method of the same name, which passes it on to the child that it is for.
/// It returns true if a child has published something.
pub(crate) struct Children<T> {
    config: BalancerConfig,
    idle: IdleChildren,
    /// Those of the last resolution.
    attributes: Attributes,
    children: Vec<Child<T>>,
    routes: EventRoutes,
    last_id: u64,
    /// The last failure of a child, or of the resolver if there are no children.
    failure: Option<Arc<Status>>,
}

/// A child, with what it has published last.
pub(crate) struct Child<T> {
    id: ChildId,
    key: EndpointKey,
    endpoint: Endpoint,
    balancer: Box<dyn Balancer>,
    /// False until it receives its endpoint. A child that is left idle receives it when it is to connect.
    has_begun: bool,
    state: ConnectivityState,
    picker: Picker,
    /// The data of the parent about the endpoint.
    pub(crate) data: T,
}

impl<T: Default> Children<T> {
    /// Creates a frame without children. `config` is that of each child.
    pub(crate) fn new(config: BalancerConfig, idle: IdleChildren) -> Self {
        Self {
            config,
            idle,
            attributes: Attributes::default(),
            children: Vec::new(),
            routes: EventRoutes::default(),
            last_id: 0,
            failure: None,
        }
    }

    /// Passes each endpoint to the child with the same addresses, or to a new one, and drops the others. An endpoint
    /// that is in the list twice counts once. After an error of the resolver, the children stay.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if the list is empty, or an endpoint has no address.
    pub(crate) fn update(
        &mut self,
        update: Update<'_>,
        control: &mut dyn Control,
    ) -> Result<(), Status> {
        let endpoints = match update.endpoints {
            Ok(endpoints) => endpoints,
            Err(status) => {
                if self.children.is_empty() {
                    self.failure = Some(Arc::new(status.clone()));
                }
                return Ok(());
            }
        };
        self.attributes = update.attributes.clone();
        let before = std::mem::take(&mut self.children).into_iter();
        let mut before: HashMap<_, _> = before.map(|it| (it.key.clone(), Some(it))).collect();
        let mut used = Ok(());
        for endpoint in endpoints {
            let key = endpoint.key();
            let child = match before.insert(key.clone(), None) {
                Some(None) => continue,
                Some(Some(child)) => child,
                None => self.child(key, endpoint),
            };
            self.children.push(child);
            let last = self.children.len() - 1;
            self.children[last].endpoint = endpoint.clone();
            if self.children[last].has_begun {
                let updated = self.update_child(last, control);
                used = used.and(updated);
            }
        }
        for child in before.into_values().flatten() {
            self.routes.forget(child.id, control);
        }
        if self.children.is_empty() {
            let status = no_addresses(update.note);
            self.failure = Some(Arc::new(status.clone()));
            return Err(status);
        }
        used
    }

    fn child(&mut self, key: EndpointKey, endpoint: &Endpoint) -> Child<T> {
        self.last_id += 1;
        let (state, picker) = match self.idle {
            IdleChildren::Connect => (ConnectivityState::Connecting, Picker::Wait),
            IdleChildren::Leave => (ConnectivityState::Idle, Picker::Idle),
        };
        Child {
            id: ChildId(self.last_id),
            key,
            endpoint: endpoint.clone(),
            balancer: self.config.policy().build(),
            has_begun: self.idle == IdleChildren::Connect,
            state,
            picker,
            data: T::default(),
        }
    }

    /// Passes its endpoint to a child.
    fn update_child(&mut self, at: usize, control: &mut dyn Control) -> Result<(), Status> {
        let config = self.config.config().clone();
        let attributes = self.attributes.clone();
        let endpoint = self.children[at].endpoint.clone();
        let update = Update {
            endpoints: Ok(std::slice::from_ref(&endpoint)),
            config: &*config,
            attributes: &attributes,
            note: "",
        };
        self.children[at].has_begun = true;
        let mut used = Ok(());
        self.run(at, control, |child, control| {
            used = child.update(update, control);
        });
        used
    }

    pub(crate) fn subchannel_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) -> bool {
        self.child_of(id).is_some_and(|at| {
            self.run(at, control, |child, control| {
                child.subchannel_changed(id, state, control);
            })
        })
    }

    pub(crate) fn health_changed(
        &mut self,
        id: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) -> bool {
        self.child_of(id).is_some_and(|at| {
            self.run(at, control, |child, control| {
                child.health_changed(id, state, control);
            })
        })
    }

    pub(crate) fn timer_expired(&mut self, timer: TimerId, control: &mut dyn Control) -> bool {
        let id = self.routes.take_timer(timer);
        id.and_then(|id| self.position(id)).is_some_and(|at| {
            self.run(at, control, |child, control| {
                child.timer_expired(timer, control);
            })
        })
    }

    /// Connects all children that are idle.
    pub(crate) fn exit_idle(&mut self, control: &mut dyn Control) -> bool {
        let mut has_published = false;
        for at in 0..self.children.len() {
            has_published |= self.connect(at, control);
        }
        has_published
    }

    /// Connects the child at a place of the list if it is idle.
    pub(crate) fn connect(&mut self, at: usize, control: &mut dyn Control) -> bool {
        if self.children[at].state != ConnectivityState::Idle {
            return false;
        }
        if self.children[at].has_begun {
            return self.run(at, control, |child, control| child.exit_idle(control));
        }
        // A child that cannot use its endpoint publishes so.
        let _used = self.update_child(at, control);
        true
    }

    /// Returns the place of the child that has created a subchannel.
    pub(crate) fn child_of(&self, id: SubchannelId) -> Option<usize> {
        self.position(self.routes.of_subchannel(id)?)
    }

    fn position(&self, id: ChildId) -> Option<usize> {
        self.children.iter().position(|it| it.id == id)
    }

    /// Runs `event` on a child, and then connects it if it is to leave IDLE. Returns true if it has published.
    fn run(
        &mut self,
        at: usize,
        control: &mut dyn Control,
        event: impl FnOnce(&mut dyn Balancer, &mut dyn Control),
    ) -> bool {
        let child = &mut self.children[at];
        let mut control = ChildControl {
            control,
            id: child.id,
            routes: &mut self.routes,
            published: None,
        };
        event(&mut *child.balancer, &mut control);
        let is_idle = matches!(control.published, Some((ConnectivityState::Idle, _)));
        if is_idle && self.idle == IdleChildren::Connect {
            child.balancer.exit_idle(&mut control);
        }
        let Some((state, picker)) = control.published else {
            return false;
        };
        if let Picker::Fail(status) = &picker {
            self.failure = Some(status.clone());
        }
        (child.state, child.picker) = (state, picker);
        true
    }

    /// Returns the children, in the order of the list.
    pub(crate) fn all(&self) -> &[Child<T>] {
        &self.children
    }

    /// Returns the state of the policy by that of its children: the first that a child has of READY, CONNECTING, IDLE
    /// and TRANSIENT_FAILURE.
    pub(crate) fn state(&self) -> ConnectivityState {
        const ORDER: [ConnectivityState; 3] = [
            ConnectivityState::Ready,
            ConnectivityState::Connecting,
            ConnectivityState::Idle,
        ];
        let has = |state: &ConnectivityState| self.children.iter().any(|it| it.state == *state);
        let state = ORDER.into_iter().find(has);
        state.unwrap_or(ConnectivityState::TransientFailure)
    }

    /// Returns the reason why no child has a connection.
    pub(crate) fn failure(&self) -> Arc<Status> {
        let failure = self.failure.clone();
        let failure = failure.unwrap_or_else(|| Arc::new(Status::unavailable("cannot connect")));
        match self.children.len() {
            0 | 1 => failure,
            _ => {
                let addresses = self.children.iter().map(|it| it.endpoint.addresses().len());
                Arc::new(none_reached(addresses.sum(), &failure))
            }
        }
    }
}

impl<T> Child<T> {
    /// Returns the endpoint, with the attributes that it had in the last list.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn state(&self) -> ConnectivityState {
        self.state
    }

    pub(crate) fn picker(&self) -> &Picker {
        &self.picker
    }

    /// Returns the subchannel of a child that is READY, if the child is a pick_first.
    pub(crate) fn ready(&self) -> Option<&Subchannel> {
        match &self.picker {
            Picker::One(subchannel) => Some(subchannel),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pick_first::PickFirst;
    use super::super::testing::{FakeControl, endpoints};
    use super::*;
    use crate::attributes::Attributes;

    fn children(idle: IdleChildren) -> Children<u32> {
        Children::new(PickFirst::child(), idle)
    }

    fn update(children: &mut Children<u32>, list: &str, control: &mut FakeControl) {
        let update = Update {
            endpoints: Ok(&endpoints(list)),
            config: &(),
            attributes: &Attributes::default(),
            note: "",
        };
        children.update(update, control).expect("it is used");
    }

    /// Delivers all changes of states to the children.
    fn settle(children: &mut Children<u32>, control: &mut FakeControl) {
        while let Some((id, state)) = control.queue.pop_front() {
            children.subchannel_changed(id, &state, control);
        }
    }

    #[test]
    fn data_of_an_endpoint_last_as_long_as_it_is_in_the_list() {
        let (mut children, mut control) = (children(IdleChildren::Connect), FakeControl::new());
        update(&mut children, "1 2+3", &mut control);
        children.children[1].data = 7;
        update(&mut children, "3+2 1", &mut control);
        let data = |children: &Children<u32>| -> Vec<_> {
            children.all().iter().map(|it| it.data).collect()
        };
        assert_eq!(data(&children), [7, 0]);
        update(&mut children, "1", &mut control);
        update(&mut children, "1 2+3", &mut control);
        assert_eq!(data(&children), [0, 0]);
    }

    #[test]
    fn idle_children_wait_or_connect_again_as_their_parent_wants() {
        for (idle, state) in [
            (IdleChildren::Connect, ConnectivityState::Connecting),
            (IdleChildren::Leave, ConnectivityState::Idle),
        ] {
            let (mut children, mut control) = (children(idle), FakeControl::new());
            update(&mut children, "1 2", &mut control);
            let is_left = idle == IdleChildren::Leave;
            assert_eq!(control.live().is_empty(), is_left);
            assert_eq!(children.exit_idle(&mut control), is_left);
            settle(&mut children, &mut control);
            let id = control.live()[0].id;
            assert_eq!(children.child_of(id), Some(0));
            for state in [ConnectivityState::Ready, ConnectivityState::Idle] {
                control.change(id, SubchannelState::new(state));
                settle(&mut children, &mut control);
            }
            assert_eq!(children.all()[0].state(), state);
            assert_eq!(children.connect(0, &mut control), is_left);
            assert!(!children.exit_idle(&mut control));
            assert_eq!(children.all()[0].state(), ConnectivityState::Connecting);
        }
    }

    #[test]
    fn the_state_is_the_best_of_the_children() {
        use ConnectivityState::{Connecting, Idle, Ready, TransientFailure};
        let (mut children, mut control) = (children(IdleChildren::Leave), FakeControl::new());
        assert_eq!(children.state(), TransientFailure);
        update(&mut children, "1 2 3", &mut control);
        for (states, state) in [
            ([TransientFailure, Idle, Connecting], Connecting),
            ([TransientFailure, Idle, TransientFailure], Idle),
            ([Connecting, Ready, Idle], Ready),
            ([TransientFailure; 3], TransientFailure),
        ] {
            for (child, state) in children.children.iter_mut().zip(states) {
                child.state = state;
            }
            assert_eq!(children.state(), state, "{states:?}");
        }
    }
}
