//! The balancer of policies whose calls use any of the endpoints that are connected.

use std::any::Any;

use trunkline_codec::Status;

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

    /// Makes the picker of the endpoints that are READY, in the order of the list.
    fn make_picker(
        &mut self,
        ready: &[(&Subchannel, &Self::Data)],
        control: &mut dyn Control,
    ) -> Picker;
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
        match self.children.state() {
            ConnectivityState::Ready => self.publish_ready(control),
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

    fn publish_ready(&mut self, control: &mut dyn Control) {
        let ready = |child: &'_ Child<P::Data>| child.ready().cloned();
        let subchannels: Vec<_> = self.children.all().iter().filter_map(ready).collect();
        let published = Published::Ready(subchannels);
        if self.published != published {
            self.published = published;
            let children = self.children.all().iter();
            let ready = children.filter_map(|it| Some((it.ready()?, &it.data)));
            let picker = self.picker.make_picker(&ready.collect::<Vec<_>>(), control);
            control.publish(ConnectivityState::Ready, picker);
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

    fn timer_expired(&mut self, timer: TimerId, control: &mut dyn Control) {
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
