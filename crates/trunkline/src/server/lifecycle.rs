//! The options of a server's connections: their number, their age, and keepalive.

use std::time::Duration;

use crate::server::builder::Server;

/// The shortest keepalive time: PING frames must not occupy a server.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(1);

impl Server {
    /// Limits the number of open connections. Default: 100,000. At the limit, the server accepts the next
    /// connection when another ends. Until then, new clients wait in a queue of the operating system.
    #[must_use]
    pub fn max_connections(self, connections: usize) -> Self {
        self.with_limits(|limits| limits.max_connections = connections)
    }

    /// Sets how long running calls can continue after a graceful shutdown begins. When the time is over,
    /// their connections close and their handlers are dropped. Default: 10 s.
    #[must_use]
    pub fn drain_grace(self, grace: Duration) -> Self {
        self.with_limits(|limits| limits.drain_grace = grace)
    }

    /// Sets the age at which the server closes a connection, varied at random by up to 10 %. Default:
    /// unlimited.
    ///
    /// The client receives a GOAWAY frame and reconnects, while running calls can finish on the old
    /// connection. Without this limit, clients that stay connected never use servers that are added
    /// later.
    #[must_use]
    pub fn max_connection_age(self, age: Duration) -> Self {
        self.with_limits(|limits| limits.max_connection_age = age)
    }

    /// Sets how long calls can continue on a connection that has reached its [maximum
    /// age](Self::max_connection_age). When the time is over, the connection closes and the handlers of these
    /// calls are dropped. Default: unlimited.
    ///
    /// A client may begin a call just as the server closes its idle connection
    /// ([`max_connection_idle`](Self::max_connection_idle)), before GOAWAY arrives. This limit applies to such
    /// calls, too.
    #[must_use]
    pub fn max_connection_age_grace(self, grace: Duration) -> Self {
        self.with_limits(|limits| limits.max_connection_age_grace = grace)
    }

    /// Sets how long the server keeps a connection without open calls. When the time is over, the
    /// client receives a GOAWAY frame; most clients reconnect for their next call. Default: unlimited.
    #[must_use]
    pub fn max_connection_idle(self, idle: Duration) -> Self {
        self.with_limits(|limits| limits.max_connection_idle = idle)
    }

    /// Sets how long a client can be silent before the server sends a PING. Default: 60 s. Minimum: 1 s.
    /// `Duration::MAX` disables keepalive.
    ///
    /// If the client sends nothing within [`keepalive_timeout`](Self::keepalive_timeout) of the PING, the
    /// server closes the connection and drops the handlers of its calls.
    #[must_use]
    pub fn keepalive_time(self, time: Duration) -> Self {
        self.with_limits(|limits| limits.http2.keepalive_time = time.max(KEEPALIVE_TIME_MIN))
    }

    /// Sets how long a client can remain silent after a PING: any byte from it is enough, not only the
    /// acknowledgment. Default: 20 s. On Linux, this also limits how long sent data can remain unacknowledged
    /// (TCP_USER_TIMEOUT).
    #[must_use]
    pub fn keepalive_timeout(self, timeout: Duration) -> Self {
        self.with_limits(|limits| limits.http2.keepalive_timeout = timeout)
    }

    /// Sets the minimum interval between PING frames from a client that has an open call. Default: 5
    /// minutes.
    ///
    /// If a client sends three PING frames too early, and the server sends no response in between, the
    /// server closes the connection with a GOAWAY frame that contains "too_many_pings".
    #[must_use]
    pub fn permit_keepalive_time(self, time: Duration) -> Self {
        self.with_limits(|limits| limits.permit_keepalive_time = time)
    }

    /// Permits clients without an open call to send PING frames as often as clients with one; see
    /// [`permit_keepalive_time`](Self::permit_keepalive_time). Default: clients without an open call can send a PING
    /// every two hours.
    #[must_use]
    pub fn permit_keepalive_without_calls(self) -> Self {
        self.with_limits(|limits| limits.permit_keepalive_without_calls = true)
    }
}
