//! The state of a channel, and how it is watched.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// The state of a channel (grpc/doc/connectivity-semantics-and-api.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectivityState {
    /// No connection is open or being opened; the next call opens one.
    #[default]
    Idle,
    /// A connection is being opened; calls wait for it.
    Connecting,
    /// Calls can be made immediately.
    Ready,
    /// The last attempt failed; the next one begins after a pause. Calls fail immediately, unless
    /// they wait for ready. The state lasts until there is a connection.
    TransientFailure,
    /// The channel was dropped.
    Shutdown,
}

/// As the documents of gRPC write them: `TRANSIENT_FAILURE`.
impl fmt::Display for ConnectivityState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "IDLE",
            Self::Connecting => "CONNECTING",
            Self::Ready => "READY",
            Self::TransientFailure => "TRANSIENT_FAILURE",
            Self::Shutdown => "SHUTDOWN",
        })
    }
}

/// Watches the state of a channel; does not keep the channel alive.
#[derive(Clone, Debug)]
pub struct ConnectivityWatch {
    states: watch::Receiver<ConnectivityState>,
    /// Of a state that never changes.
    _fixed: Option<Arc<watch::Sender<ConnectivityState>>>,
}

impl ConnectivityWatch {
    pub(crate) fn new(states: watch::Receiver<ConnectivityState>) -> Self {
        Self {
            states,
            _fixed: None,
        }
    }

    /// Creates a watch whose state never changes, such as that of a service in this process.
    pub fn fixed(state: ConnectivityState) -> Self {
        let (sender, states) = watch::channel(state);
        Self {
            states,
            _fixed: Some(Arc::new(sender)),
        }
    }

    /// Returns the current state.
    pub fn state(&self) -> ConnectivityState {
        match self.states.has_changed() {
            Ok(_) => *self.states.borrow(),
            Err(_) => ConnectivityState::Shutdown,
        }
    }

    /// Waits until the state differs from the one last returned, or from that at the start of the watch,
    /// and returns it. Intermediate states may be skipped. Cancel safe. Returns [`ConnectivityState::Shutdown`] immediately if the channel was dropped.
    pub async fn changed(&mut self) -> ConnectivityState {
        match self.states.changed().await {
            Ok(()) => *self.states.borrow_and_update(),
            Err(_) => ConnectivityState::Shutdown,
        }
    }

    /// Waits until the state is `wanted` or the channel is dropped, and returns the last state.
    pub async fn until(&mut self, wanted: ConnectivityState) -> ConnectivityState {
        // The last state of a dropped channel can still be read.
        if self.states.has_changed().is_err() {
            return ConnectivityState::Shutdown;
        }
        match self.states.wait_for(|state| *state == wanted).await {
            Ok(state) => *state,
            Err(_) => ConnectivityState::Shutdown,
        }
    }
}
