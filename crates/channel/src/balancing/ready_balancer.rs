//! The balancer of policies whose calls use any of the endpoints that are connected.

use std::fmt;

use trunkline_codec::{LoadReport, Status};

use super::balancer::{Balancer, Control, SubchannelState, TimerId, Update};
use super::children::{Child, Children, IdleChildren};
use super::pick_first::PickFirst;
use super::picker::Picker;
use crate::connectivity::ConnectivityState;
use crate::endpoint::Endpoint;
use crate::subchannel::{Subchannel, SubchannelId};

/// Makes the pickers of a [`ReadyBalancer`]: the part in which policies with connections to all endpoints differ.
///
/// This policy sends calls with the metadata `canary` to endpoints with an attribute, and other calls to the others:
///
/// ```
/// # mod trunkline { pub use trunkline_channel as balancing; pub use trunkline_channel as channel; }
/// use std::sync::Arc;
/// use trunkline::balancing::{
///     Balancer, Control, MakePicker, Pick, PickArgs, PickResult, Picker, Policy, ReadyBalancer, ReadyEndpoint,
///     RoundRobinPicker,
/// };
///
/// /// The attribute, which a resolver has set.
/// #[derive(Clone)]
/// struct IsCanary;
///
/// struct Canary;
///
/// impl Policy for Canary {
///     fn name(&self) -> &str {
///         "canary"
///     }
///
///     fn build(&self) -> Box<dyn Balancer> {
///         Box::new(ReadyBalancer::new(Canary))
///     }
/// }
///
/// impl MakePicker for Canary {
///     type Data = ();
///
///     fn make_picker(&mut self, ready: &[ReadyEndpoint<'_, ()>], control: &mut dyn Control) -> Picker {
///         let mut picker_of = |is_canary: bool| {
///             let has = |it: &&ReadyEndpoint<'_, ()>| it.endpoint.attributes().get::<IsCanary>().is_some() == is_canary;
///             let subchannels: Vec<_> = ready.iter().filter(has).map(|it| it.subchannel.clone()).collect();
///             RoundRobinPicker::new(subchannels, None, control.random())
///         };
///         let (canary, stable) = (picker_of(true), picker_of(false));
///         Picker::Custom(Arc::new(CanaryPicker { canary, stable }))
///     }
/// }
///
/// struct CanaryPicker {
///     canary: RoundRobinPicker,
///     stable: RoundRobinPicker,
/// }
///
/// impl Pick for CanaryPicker {
///     fn pick(&self, call: &PickArgs<'_>) -> PickResult {
///         let (first, second) = match call.metadata.get("canary") {
///             Some(_) => (&self.canary, &self.stable),
///             None => (&self.stable, &self.canary),
///         };
///         let subchannel = first.pick().or_else(|| second.pick());
///         subchannel.map_or(PickResult::Wait, Into::into)
///     }
/// }
/// ```
pub trait MakePicker: Send + 'static {
    /// The data of the policy about an endpoint, such as a count of calls. They last while the endpoint is in the list.
    /// The methods receive them by shared reference: data that change or that pickers also use, such as counters, are
    /// atomics in an `Arc`.
    type Data: Default + Send;

    /// Receives each update before the endpoints connect. Returns true if the next picker differs from the last one
    /// even if the same endpoints are READY, because the configuration or the attributes of endpoints have changed.
    /// Default: true.
    fn update(&mut self, update: Update<'_>) -> bool {
        let _ = update;
        true
    }

    /// Receives the endpoints that are READY, whenever they can have changed. A policy that needs load reports calls
    /// [`Control::watch_load`] here.
    fn connections_changed(
        &mut self,
        ready: &[ReadyEndpoint<'_, Self::Data>],
        control: &mut dyn Control,
    ) {
        let _ = (ready, control);
    }

    /// Returns the picker of the endpoints that are READY, of which there is at least one, in the order of the list.
    fn make_picker(
        &mut self,
        ready: &[ReadyEndpoint<'_, Self::Data>],
        control: &mut dyn Control,
    ) -> Picker;

    /// Receives a load report of an endpoint that is READY, after [`Control::watch_load`].
    fn load_reported(&mut self, data: &Self::Data, report: &LoadReport, control: &mut dyn Control) {
        let _ = (data, report, control);
    }

    /// Receives a timer that has expired. Return false if this `MakePicker` did not set it: the `ReadyBalancer` has
    /// timers of its own.
    fn timer_expired(&mut self, timer: TimerId, control: &mut dyn Control) -> bool {
        let _ = (timer, control);
        false
    }
}

/// An endpoint that is connected, for [`MakePicker`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ReadyEndpoint<'a, T> {
    /// The endpoint, with the attributes that it had in the last list.
    pub endpoint: &'a Endpoint,
    /// The subchannel of the endpoint's connected address.
    pub subchannel: &'a Subchannel,
    /// The data of the policy.
    pub data: &'a T,
}

/// A balancer that stays connected to all endpoints, like that of `round_robin`. Policies that choose among the READY
/// endpoints can use it. The addresses of an endpoint are tried as by `pick_first`. Endpoints that are not healthy are
/// not READY.
///
/// See [`MakePicker`] for an example.
pub struct ReadyBalancer<P: MakePicker> {
    children: Children<P::Data>,
    picker: P,
    published: Published,
}

/// The last publication. The same one again would only wake the calls that wait.
#[derive(PartialEq)]
enum Published {
    Nothing,
    Wait,
    Failure,
    Ready(Vec<Subchannel>),
}

impl<P: MakePicker> ReadyBalancer<P> {
    /// Creates a balancer that publishes the pickers of `picker`.
    pub fn new(picker: P) -> Self {
        Self {
            children: Children::new(PickFirst::child(), IdleChildren::Connect),
            picker,
            published: Published::Nothing,
        }
    }

    fn publish(&mut self, control: &mut dyn Control) {
        let children = self.children.all().iter();
        let ready = children.filter_map(|it| {
            Some(ReadyEndpoint {
                endpoint: it.endpoint(),
                subchannel: it.ready()?,
                data: &it.data,
            })
        });
        let ready: Vec<_> = ready.collect();
        self.picker.connections_changed(&ready, control);
        match self.children.state() {
            ConnectivityState::Ready => {
                let subchannels = ready.iter().map(|it| it.subchannel.clone());
                let published = Published::Ready(subchannels.collect());
                if self.published != published {
                    self.published = published;
                    let picker = self.picker.make_picker(&ready, control);
                    control.publish(ConnectivityState::Ready, picker);
                }
            }
            // Children that become idle connect again immediately.
            ConnectivityState::Connecting | ConnectivityState::Idle => {
                if self.published != Published::Wait {
                    self.published = Published::Wait;
                    control.publish(ConnectivityState::Connecting, Picker::Wait);
                }
            }
            ConnectivityState::TransientFailure | ConnectivityState::Shutdown => {
                self.published = Published::Failure;
                let picker = Picker::Fail(self.children.failure());
                control.publish(ConnectivityState::TransientFailure, picker);
            }
        }
    }
}

impl<P: MakePicker> fmt::Debug for ReadyBalancer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyBalancer").finish_non_exhaustive()
    }
}

impl<P: MakePicker> Balancer for ReadyBalancer<P> {
    fn update(&mut self, update: Update<'_>, control: &mut dyn Control) -> Result<(), Status> {
        if self.picker.update(update) {
            self.published = Published::Nothing;
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

    fn load_reported(&mut self, id: SubchannelId, report: &LoadReport, control: &mut dyn Control) {
        let is_of = |child: &&Child<P::Data>| child.ready().is_some_and(|it| it.id() == id);
        if let Some(child) = self.children.all().iter().find(is_of) {
            self.picker.load_reported(&child.data, report, control);
        }
    }

    fn timer_expired(&mut self, timer: TimerId, control: &mut dyn Control) {
        if self.picker.timer_expired(timer, control) {
            return;
        }
        if self.children.timer_expired(timer, control) {
            self.publish(control);
        }
    }

    fn exit_idle(&mut self, control: &mut dyn Control) {
        if self.children.exit_idle(control) {
            self.publish(control);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::Policy;
    use super::super::testing::{Rig, endpoints};
    use super::*;
    use crate::endpoint::EndpointWeight;

    /// A policy whose calls use the endpoint with the highest weight.
    #[derive(Clone)]
    struct Heaviest;

    impl Policy for Heaviest {
        fn name(&self) -> &str {
            "heaviest"
        }

        fn build(&self) -> Box<dyn Balancer> {
            Box::new(ReadyBalancer::new(Self))
        }
    }

    impl MakePicker for Heaviest {
        type Data = ();

        fn make_picker(&mut self, ready: &[ReadyEndpoint<'_, ()>], _: &mut dyn Control) -> Picker {
            let heaviest = ready.iter().max_by_key(|it| it.endpoint.weight());
            let heaviest = heaviest.expect("an endpoint is READY");
            Picker::One(heaviest.subchannel.clone())
        }
    }

    #[test]
    fn a_picker_follows_the_attributes_of_endpoints() {
        let mut rig = Rig::new(Heaviest, "{}");
        let weighted = |weights: [u32; 2]| {
            let weighted = endpoints("1 2").into_iter().zip(weights);
            let weighted = weighted.map(|(it, weight)| it.with(EndpointWeight(weight)));
            weighted.collect::<Vec<_>>()
        };
        rig.resolve(Ok(&weighted([1, 2]))).expect("two endpoints");
        for name in ["1", "2"] {
            rig.ready(name);
            rig.health(name, SubchannelState::new(ConnectivityState::Ready));
        }
        assert_eq!(rig.pick().as_deref(), Some("2"));
        rig.resolve(Ok(&weighted([2, 1]))).expect("two endpoints");
        assert_eq!(rig.pick().as_deref(), Some("1"));
    }
}
