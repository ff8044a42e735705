//! The life of a server's connections: how many, for how long, and how the server probes them.

use std::time::Duration;

use crate::server::builder::Server;

/// A server that sends a PING in each turn would do nothing else.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(1);

impl Server {
    /// Sets how many connections the server has at one time; 100,000 by default. At the limit it
    /// accepts the next one when another ends; meanwhile clients wait in the kernel's queue.
    #[must_use]
    pub fn max_connections(self, connections: usize) -> Self {
        self.with_limits(|limits| limits.max_connections = connections)
    }

    /// Sets how long calls may go on after the server has begun to shut down; 10 s by default.
    #[must_use]
    pub fn drain_grace(self, grace: Duration) -> Self {
        self.with_limits(|limits| limits.drain_grace = grace)
    }

    /// Sets the age at which a connection ends, up to 10 % more or less; unlimited by default. The
    /// client gets a GOAWAY and connects again, and calls that run may finish. Without it, clients that
    /// stay connected never discover servers that were added.
    #[must_use]
    pub fn max_connection_age(self, age: Duration) -> Self {
        self.with_limits(|limits| limits.max_connection_age = age)
    }

    /// Sets how long calls may go on after the GOAWAY on a connection that is too old or idle;
    /// unlimited by default. Then they end with the connection, and their handlers are dropped.
    #[must_use]
    pub fn max_connection_age_grace(self, grace: Duration) -> Self {
        self.with_limits(|limits| limits.max_connection_age_grace = grace)
    }

    /// Sets how long the server keeps a connection without open calls; unlimited by default. Then the
    /// client gets a GOAWAY; most connect again for their next call.
    #[must_use]
    pub fn max_connection_idle(self, idle: Duration) -> Self {
        self.with_limits(|limits| limits.max_connection_idle = idle)
    }

    /// Sets how long a client may be silent before the server sends it a PING; 60 s by default, 1 s at
    /// least, never with `Duration::MAX`. If the client does not acknowledge it within
    /// [`keepalive_timeout`](Self::keepalive_timeout), the connection is closed, and the handlers that
    /// run for it are dropped.
    #[must_use]
    pub fn keepalive_time(self, time: Duration) -> Self {
        self.with_limits(|limits| limits.http2.keepalive_time = time.max(KEEPALIVE_TIME_MIN))
    }

    /// Sets how long a client may take to acknowledge a PING; 20 s by default. On Linux this also
    /// bounds how long sent data may stay unacknowledged (TCP_USER_TIMEOUT).
    #[must_use]
    pub fn keepalive_timeout(self, timeout: Duration) -> Self {
        self.with_limits(|limits| limits.http2.keepalive_timeout = timeout)
    }

    /// Sets the shortest time between two PINGs of a client that has an open call; 5 minutes by
    /// default. A client that sends three early ones without a response in between loses its connection
    /// with a GOAWAY that says "too_many_pings".
    #[must_use]
    pub fn permit_keepalive_time(self, time: Duration) -> Self {
        self.with_limits(|limits| limits.permit_keepalive_time = time)
    }

    /// Applies [`permit_keepalive_time`](Self::permit_keepalive_time) also to clients without an open
    /// call; two hours by default.
    #[must_use]
    pub fn permit_keepalive_without_calls(self) -> Self {
        self.with_limits(|limits| limits.permit_keepalive_without_calls = true)
    }
}
