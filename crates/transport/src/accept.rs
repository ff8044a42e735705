//! Accepts connections from the kernel's queue, up to the limit of the server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::address::Address;
use crate::limits::ServerLimits;
use crate::listen::Listener;
use crate::net_stream::NetStream;
use crate::send_backlog::ServerSendBacklog;

/// Accepts the next connection. Retries after errors, with a pause.
pub(crate) async fn accept(
    listener: &Listener,
    backoff: &mut AcceptBackoff,
) -> (NetStream, Address) {
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                backoff.reset();
                return accepted;
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(
                    target: "trunkline::connection",
                    %error,
                    pause_ms = backoff.next.as_millis(),
                    "cannot accept a connection; trying again after a pause"
                );
                backoff.wait().await;
            }
        }
    }
}

/// The connection permits and the send backlog of a server, shared by clones.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionPermits {
    connections: Arc<Semaphore>,
    backlog: Arc<ServerSendBacklog>,
}

/// The permit of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    /// `None` if the connection does not count against the limit.
    _permit: Option<OwnedSemaphorePermit>,
    pub(crate) backlog: Arc<ServerSendBacklog>,
}

impl ConnectionPermits {
    pub(crate) fn new(limits: &ServerLimits) -> Self {
        let permits = limits.max_connections.min(Semaphore::MAX_PERMITS);
        Self {
            connections: Arc::new(Semaphore::new(permits)),
            backlog: ServerSendBacklog::new(limits),
        }
    }

    /// Waits for a permit.
    pub(crate) async fn take(&self) -> ConnectionPermit {
        // Fails only if the semaphore is closed, which never happens.
        let permit = self.connections.clone().acquire_owned().await.ok();
        self.with(permit)
    }

    /// Returns a permit that counts against the limit, or one that does not if none is free.
    pub(crate) fn take_now(&self) -> ConnectionPermit {
        self.with(self.connections.clone().try_acquire_owned().ok())
    }

    /// Returns a permit that does not count against the limit.
    pub(crate) fn without(&self) -> ConnectionPermit {
        self.with(None)
    }

    fn with(&self, permit: Option<OwnedSemaphorePermit>) -> ConnectionPermit {
        ConnectionPermit {
            _permit: permit,
            backlog: self.backlog.clone(),
        }
    }
}

/// Returns whether an error concerns only the connection that was accepted, not the listener.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// The pauses after failed accepts. Without them, the loop would spin while file descriptors or memory are
/// exhausted.
pub(crate) struct AcceptBackoff {
    next: Duration,
    min: Duration,
    max: Duration,
}

impl AcceptBackoff {
    pub(crate) fn new(limits: &ServerLimits) -> Self {
        Self {
            next: limits.accept_backoff_min,
            min: limits.accept_backoff_min,
            max: limits.accept_backoff_max,
        }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_the_limit_and_begin_anew_after_a_success() {
        let mut backoff = AcceptBackoff::new(&ServerLimits::default());
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let began = Instant::now();
            backoff.wait().await;
            pauses.push(began.elapsed().as_millis());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        backoff.reset();
        let began = Instant::now();
        backoff.wait().await;
        assert_eq!(began.elapsed().as_millis(), 5);
    }

    #[test]
    fn a_connection_that_ended_before_it_was_accepted_is_no_reason_to_pause() {
        for kind in [
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::Interrupted,
        ] {
            assert!(is_about_one_connection(&kind.into()), "{kind}");
        }
        // EMFILE: no descriptor is left, and none will be at the next call.
        let out_of_descriptors = io::Error::from_raw_os_error(24);
        assert!(!is_about_one_connection(&out_of_descriptors));
    }
}
