//! The options of a server's connections: their number, their age, and keepalive.

use std::time::Duration;

use crate::server::builder::Server;

/// The shortest keepalive time: PING frames must not occupy a server.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(1);

impl Server {
    /// Limits the number of open connections; 100,000 by default. At the limit, the server accepts the
    /// next connection when another ends; until then, clients wait in the kernel's queue.
    #[must_use]
    pub fn max_connections(self, connections: usize) -> Self {
        self.with_limits(|limits| limits.max_connections = connections)
    }

    /// Sets how long running calls can continue after a graceful shutdown begins; 10 s by default. Then
    /// they end with their connections, and their handlers are dropped.
    #[must_use]
    pub fn drain_grace(self, grace: Duration) -> Self {
        self.with_limits(|limits| limits.drain_grace = grace)
    }

    /// Sets the age at which the server closes a connection, varied by up to 10 %; unlimited by
    /// default. The client receives a GOAWAY and reconnects, and running calls can finish. Without
    /// this limit, clients that stay connected never discover added servers.
    #[must_use]
    pub fn max_connection_age(self, age: Duration) -> Self {
        self.with_limits(|limits| limits.max_connection_age = age)
    }

    /// Sets how long calls can continue after the GOAWAY on a connection that has reached its maximum
    /// age or idle time; unlimited by default. Then they end with the connection, and their handlers
    /// are dropped.
    #[must_use]
    pub fn max_connection_age_grace(self, grace: Duration) -> Self {
        self.with_limits(|limits| limits.max_connection_age_grace = grace)
    }

    /// Sets how long the server keeps a connection without open calls; unlimited by default. Then the
    /// client receives a GOAWAY; most clients reconnect for their next call.
    #[must_use]
    pub fn max_connection_idle(self, idle: Duration) -> Self {
        self.with_limits(|limits| limits.max_connection_idle = idle)
    }

    /// Sets how long a client can be silent before the server sends a PING; 60 s by default, at least
    /// 1 s. `Duration::MAX` disables keepalive. If the client does not acknowledge the PING within
    /// [`keepalive_timeout`](Self::keepalive_timeout), the server closes the connection and drops its
    /// handlers.
    #[must_use]
    pub fn keepalive_time(self, time: Duration) -> Self {
        self.with_limits(|limits| limits.http2.keepalive_time = time.max(KEEPALIVE_TIME_MIN))
    }

    /// Sets how long a client has to acknowledge a PING; 20 s by default. On Linux, this also limits
    /// how long sent data can remain unacknowledged (TCP_USER_TIMEOUT).
    #[must_use]
    pub fn keepalive_timeout(self, timeout: Duration) -> Self {
        self.with_limits(|limits| limits.http2.keepalive_timeout = timeout)
    }

    /// Sets the minimum interval between PING frames of a client that has an open call; 5 minutes by
    /// default. If a client sends three PING frames too early, without a response in between, the
    /// server closes the connection with a GOAWAY whose debug data is "too_many_pings".
    #[must_use]
    pub fn permit_keepalive_time(self, time: Duration) -> Self {
        self.with_limits(|limits| limits.permit_keepalive_time = time)
    }

    /// Applies [`permit_keepalive_time`](Self::permit_keepalive_time) also to clients without an open
    /// call. By default their minimum interval is two hours.
    #[must_use]
    pub fn permit_keepalive_without_calls(self) -> Self {
        self.with_limits(|limits| limits.permit_keepalive_without_calls = true)
    }
}
