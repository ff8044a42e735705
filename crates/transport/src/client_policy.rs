//! The checks of a client after each turn of a connection: keepalive, and limits for the server's frames.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{PingPong, Reason};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::error::status_from_h2;
use crate::frame_guard::FrameGuard;
use crate::keepalive::{Keepalive, KeepaliveAction, KeepaliveTimer, TOO_MANY_PINGS, send_ping};
use crate::limits::ClientLimits;
use crate::server_policy::{Flood, FloodBudgets};
use crate::timers::{Timed, Timers};
use crate::wire_io::WireIo;

/// The policy for one connection of a client.
pub(crate) struct ClientPolicy {
    limits: Arc<ClientLimits>,
    floods: FloodBudgets,
    keepalive: Keepalive,
    /// The keepalive time of this connection.
    time: Duration,
    keepalive_timer: Option<KeepaliveTimer>,
    timers: Timers,
    ping: Option<PingPong>,
}

impl ClientPolicy {
    pub(crate) fn new(limits: Arc<ClientLimits>, keepalive: &Keepalive) -> Self {
        let time = keepalive.time();
        let now = Instant::now();
        let keepalive_timer = KeepaliveTimer::new(time, limits.http2.keepalive_timeout, now);
        let mut timers = Timers::default();
        timers.set(
            Timed::Keepalive,
            keepalive_timer.as_ref().and_then(KeepaliveTimer::next),
        );
        Self {
            floods: FloodBudgets::new(&limits.http2, now),
            keepalive: keepalive.clone(),
            ping: None,
            time,
            keepalive_timer,
            timers,
            limits,
        }
    }

    /// Ready if keepalive has timed out, with the reason for the calls.
    ///
    /// gRFC A8, "Client-side behavior".
    pub(crate) fn poll<IO>(
        &mut self,
        cx: &mut Context<'_>,
        h2: &mut h2::client::Connection<WireIo<IO>, Bytes>,
        bytes: u64,
        open: usize,
    ) -> Poll<String>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(keepalive_timer) = &mut self.keepalive_timer else {
            return Poll::Pending;
        };
        let is_wanted = open > 0 || self.limits.keepalive_without_calls;
        if let Some(next) = keepalive_timer.on_read(bytes, Instant::now) {
            self.timers.set(Timed::Keepalive, Some(next));
        }
        if is_wanted && keepalive_timer.resume() {
            self.timers.set(Timed::Keepalive, keepalive_timer.next());
        }
        loop {
            ready!(self.timers.poll(cx));
            let action = keepalive_timer.on_timer(is_wanted, Instant::now());
            self.timers.set(Timed::Keepalive, keepalive_timer.next());
            match action {
                KeepaliveAction::Wait => {}
                KeepaliveAction::Ping => {
                    if self.ping.is_none() {
                        self.ping = h2.ping_pong();
                    }
                    send_ping(self.ping.as_mut());
                    cx.waker().wake_by_ref();
                }
                KeepaliveAction::TimedOut => {
                    let timeout = self.limits.http2.keepalive_timeout;
                    return Poll::Ready(format!(
                        "keepalive: no response to a PING within {timeout:?}"
                    ));
                }
            }
        }
    }

    /// Returns the kind of frames that the server sends too many of.
    pub(crate) fn flood(&mut self, came: &FrameGuard, sent: &FrameGuard) -> Option<Flood> {
        self.floods.check(came, sent, 0, Instant::now)
    }

    /// Returns the message for the calls of such a connection.
    pub(crate) fn flooded(&self, flood: Flood) -> String {
        let limits = &self.limits.http2;
        match flood {
            Flood::Control => format!(
                "the server sends frames without end that carry nothing; control_frame_budget allows {} more than are due",
                limits.control_frame_budget
            ),
            Flood::Short => format!(
                "the server sends DATA frames without end that have no room for a message; short_data_budget allows {}, and short_data_per_second {} more each second",
                limits.short_data_budget, limits.short_data_per_second
            ),
            Flood::Errors => format!(
                "the server sends frames without end for calls that are over, or that HTTP/2 does not allow; error_reset_budget allows {}, and error_resets_per_second {} more each second",
                limits.error_reset_budget, limits.error_resets_per_second
            ),
        }
    }

    /// What calls are told of an error that ends the connection.
    pub(crate) fn ended(&self, error: &h2::Error) -> String {
        let status = status_from_h2(error);
        // gRFC A8, "Client-side behavior". h2 shows what GOAWAY said in its message alone.
        let is_too_often = error.is_go_away()
            && error.is_remote()
            && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
            && status.message().contains(TOO_MANY_PINGS);
        if !is_too_often || self.keepalive_timer.is_none() {
            return status.message().to_owned();
        }
        self.keepalive.double(self.time);
        format!(
            "{}; keepalive_time is too short for this server: the next connections of this channel ask after {:?}",
            status.message(),
            self.keepalive.time()
        )
    }
}
