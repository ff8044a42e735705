//! The balancer of policies whose calls use any of the endpoints that are connected.

use std::any::Any;

use trunkline_codec::{LoadReport, Status};

use super::balancer::{Balancer, Control, SubchannelState, TimerId, Update};
use super::children::{Child, Children, IdleChildren};
use super::pick_first::PickFirst;
use super::picker::Picker;
use crate::connectivity::ConnectivityState;
use crate::subchannel::{Subchannel, SubchannelId};

/// The part in which such policies differ: the picker.
pub(crate) trait MakePicker: Send + 'static {
    /// The data of an endpoint, which last while it is in the list.
    type Data: Default + Send;

    /// Receives the configuration of each update. Returns true if the picker must be made again.
    fn configure(&mut self, config: &(dyn Any + Send + Sync)) -> bool {
        let _ = config;
        false
    }

    /// Receives the endpoints that are READY, whenever they can have changed.
    fn connections_changed(
        &mut self,
        ready: &[(&Subchannel, &Self::Data)],
        control: &mut dyn Control,
    ) {
        let _ = (ready, control);
    }

    /// Makes the picker of the endpoints that are READY, in the order of the list.
    fn make_picker(
        &mut self,
        ready: &[(&Subchannel, &Self::Data)],
        control: &mut dyn Control,
    ) -> Picker;

    /// Receives a load report of an endpoint that is READY.
    fn load_reported(&mut self, data: &Self::Data, report: &LoadReport, control: &mut dyn Control) {
        let _ = (data, report, control);
    }

    /// Receives a timer: false if another part of the balancer has set it.
    fn timer_expired(&mut self, timer: TimerId, control: &mut dyn Control) -> bool {
        let _ = (timer, control);
        false
    }
}

/// A balancer with a pick_first for each endpoint, all of which stay connected.
pub(crate) struct ReadyBalancer<P: MakePicker> {
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
    pub(crate) fn new(picker: P) -> Self {
        Self {
            children: Children::new(PickFirst::child(), IdleChildren::Connect),
            picker,
            published: Published::Nothing,
        }
    }

    fn publish(&mut self, control: &mut dyn Control) {
        let children = self.children.all().iter();
        let ready = children.filter_map(|it| Some((it.ready()?, &it.data)));
        let ready: Vec<_> = ready.collect();
        self.picker.connections_changed(&ready, control);
        match self.children.state() {
            ConnectivityState::Ready => {
                let subchannels = ready.iter().map(|(it, _)| (*it).clone());
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

impl<P: MakePicker> Balancer for ReadyBalancer<P> {
    fn update(&mut self, update: Update<'_>, control: &mut dyn Control) -> Result<(), Status> {
        if self.picker.configure(update.config) {
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
