//! The state of a channel, and how it is watched.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// The state of a channel (grpc/doc/connectivity-semantics-and-api.md).
///
/// ```
/// # mod trunkline { pub use trunkline_channel as channel; }
/// use trunkline::channel::ConnectivityState;
///
/// assert_eq!(ConnectivityState::default(), ConnectivityState::Idle);
/// assert_eq!(ConnectivityState::TransientFailure.to_string(), "TRANSIENT_FAILURE");
/// ```
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
    /// The last attempt to connect failed; the next one begins after a pause. Calls fail immediately, except
    /// those with `wait_for_ready`. The state lasts until a connection is open.
    TransientFailure,
    /// The channel was dropped.
    Shutdown,
}

/// Prints the name in the gRPC documents, such as `TRANSIENT_FAILURE`.
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

/// Watches the state of a channel, without keeping the channel open. `Channel::watch_state` returns it.
///
/// ```
/// # mod trunkline { pub use trunkline_channel as channel; }
/// use trunkline::channel::{ConnectivityState, ConnectivityWatch};
///
/// async fn print_changes(mut watch: ConnectivityWatch) {
///     let mut state = watch.state();
///     while state != ConnectivityState::Shutdown {
///         println!("the channel is {state}");
///         state = watch.changed().await;
///     }
/// }
/// ```
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

    /// Creates a watch whose state never changes, such as that of a channel to a service in this process.
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

    /// Waits until the state changes, and returns the new state. Changes count from the last call of this
    /// method, or else from the creation of the watch. States that last only briefly may be skipped.
    ///
    /// Dropping the future loses no change. Returns [`ConnectivityState::Shutdown`] immediately if the channel
    /// was dropped.
    pub async fn changed(&mut self) -> ConnectivityState {
        match self.states.changed().await {
            Ok(()) => *self.states.borrow_and_update(),
            Err(_) => ConnectivityState::Shutdown,
        }
    }

    /// Waits until the state is `wanted` and returns it. If the channel is dropped, returns
    /// [`ConnectivityState::Shutdown`]. An idle channel does not become READY without a call, or
    /// `Channel::request_connection`.
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
