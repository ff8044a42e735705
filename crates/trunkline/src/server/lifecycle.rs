//! How long a server's connections live, and what keeps them alive.

use std::time::Duration;

use crate::server::builder::Server;

/// A server that asks in each turn would do nothing else.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(1);

impl Server {
    /// How many connections the server has at one time; 100,000 by default. At the limit it accepts
    /// no more until one ends. Those beyond wait, in the kernel's queue, for as long as their clients
    /// do.
    #[must_use]
    pub fn max_connections(self, connections: usize) -> Self {
        self.with_limits(|limits| limits.max_connections = connections)
    }

    /// How long calls that run may go on when the server shuts down; 10 s by default.
    #[must_use]
    pub fn drain_grace(self, grace: Duration) -> Self {
        self.with_limits(|limits| limits.drain_grace = grace)
    }

    /// How old a connection may become, up to 10 % more or less; no limit by default. Then the client
    /// is told to make another (GOAWAY), and calls that run may finish: a client that stays connected
    /// for ever never finds the servers that were added meanwhile.
    #[must_use]
    pub fn max_connection_age(self, age: Duration) -> Self {
        self.with_limits(|limits| limits.max_connection_age = age)
    }

    /// How long the calls on a connection that has become too old, or idle, may go on; no limit by
    /// default. Then they end with the connection, and their handlers are dropped.
    #[must_use]
    pub fn max_connection_age_grace(self, grace: Duration) -> Self {
        self.with_limits(|limits| limits.max_connection_age_grace = grace)
    }

    /// How long a connection is kept on which no call is open; no limit by default. Then the client is
    /// told to go (GOAWAY); most connect again when they have something to ask.
    #[must_use]
    pub fn max_connection_idle(self, idle: Duration) -> Self {
        self.with_limits(|limits| limits.max_connection_idle = idle)
    }

    /// After how long without a byte from a client the server asks whether it is there (PING); 60 s
    /// by default, 1 s at least, `Duration::MAX` is never. A client that does not answer within
    /// [`keepalive_timeout`](Self::keepalive_timeout) loses its connection, and handlers that run for
    /// it are dropped.
    #[must_use]
    pub fn keepalive_time(self, time: Duration) -> Self {
        self.with_limits(|limits| limits.http2.keepalive_time = time.max(KEEPALIVE_TIME_MIN))
    }

    /// How long a client that was asked has to answer; 20 s by default. On Linux it is also how long
    /// what was sent may stay without an acknowledgement (TCP_USER_TIMEOUT).
    #[must_use]
    pub fn keepalive_timeout(self, timeout: Duration) -> Self {
        self.with_limits(|limits| limits.http2.keepalive_timeout = timeout)
    }

    /// How often a client with an open call may ask whether the server is there; every 5 minutes by
    /// default. One that does so more often, three times without a response in between, loses its
    /// connection and is told why ("too_many_pings").
    #[must_use]
    pub fn permit_keepalive_time(self, time: Duration) -> Self {
        self.with_limits(|limits| limits.permit_keepalive_time = time)
    }

    /// Permits the same to clients without an open call, who may ask every two hours otherwise.
    #[must_use]
    pub fn permit_keepalive_without_calls(self) -> Self {
        self.with_limits(|limits| limits.permit_keepalive_without_calls = true)
    }
}
