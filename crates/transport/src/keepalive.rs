//! Keepalive, and enforcement against peers that send too many PING frames: gRFC A8.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::Instant;

use crate::budget::{Budget, Surplus};
use crate::limits::ServerLimits;

/// The debug data of GOAWAY for a client that sends too many PING frames.
///
/// gRFC A8, "Server Enforcement".
pub(crate) const TOO_MANY_PINGS: &str = "too_many_pings";

/// gRFC A8, "Server Enforcement": how often a client may ask while it has no call.
const PERMITTED_WITHOUT_CALLS: Duration = Duration::from_secs(2 * 60 * 60);

/// The keepalive interval of a channel's connections. The channel passes it to each connection that it
/// opens; clones share it.
#[derive(Clone, Debug)]
pub struct Keepalive(Arc<AtomicU64>);

impl Keepalive {
    /// Keepalive after `time` without a byte; `Duration::MAX` is never.
    pub fn new(time: Duration) -> Self {
        let millis = time.as_millis();
        Self(Arc::new(AtomicU64::new(
            u64::try_from(millis).unwrap_or(u64::MAX),
        )))
    }

    /// Returns the time without a byte from the server after which a new connection sends a PING.
    pub fn time(&self) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            u64::MAX => Duration::MAX,
            millis => Duration::from_millis(millis),
        }
    }

    /// gRFC A8, "Client-side behavior": a server that has said "too_many_pings" is asked half as often from then
    /// on. `time` is what the connection kept to that was told: others of the channel may have been
    /// told for the same reason.
    pub(crate) fn double(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.0
            .fetch_max(millis.saturating_mul(2), Ordering::Relaxed);
    }
}

/// The keepalive state of one connection.
///
/// ```text
///             no byte for `time`             no byte for `timeout`
/// active ----------------------> ping sent ---------------> gone
///     ^                            |
///     +----------- a byte ---------+
/// ```
#[derive(Debug)]
pub(crate) struct KeepaliveTimer {
    time: Duration,
    timeout: Duration,
    /// Bytes that had come when it was last looked.
    bytes: u64,
    /// gRFC A8: the time is measured from the last byte that was read.
    last_read: Instant,
    state: KeepaliveState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeepaliveState {
    Active,
    /// There is no call that could want to know.
    Dormant,
    PingSent,
}

/// What a keepalive_timer comes to when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeepaliveAction {
    /// All is well.
    Wait,
    /// A PING has to go out.
    Ping,
    /// The peer has not answered.
    TimedOut,
}

impl KeepaliveTimer {
    /// None if nobody is ever asked.
    pub(crate) fn new(time: Duration, timeout: Duration, now: Instant) -> Option<Self> {
        (time < Duration::MAX).then_some(Self {
            time,
            timeout,
            bytes: 0,
            last_read: now,
            state: KeepaliveState::Active,
        })
    }

    /// Takes note of the bytes that have come in all; gives its next time, if that is an earlier one
    /// now. `now` is asked only if something has come.
    pub(crate) fn on_read(&mut self, bytes: u64, now: impl FnOnce() -> Instant) -> Option<Instant> {
        if bytes == self.bytes {
            return None;
        }
        self.bytes = bytes;
        self.last_read = now();
        if self.state != KeepaliveState::PingSent {
            return None;
        }
        self.state = KeepaliveState::Active;
        self.next()
    }

    /// When [`on_timer`](Self::on_timer) wants to be called.
    pub(crate) fn next(&self) -> Option<Instant> {
        match self.state {
            KeepaliveState::Active => self.last_read.checked_add(self.time),
            KeepaliveState::PingSent => Instant::now().checked_add(self.timeout),
            KeepaliveState::Dormant => None,
        }
    }

    /// Its time has come. `is_wanted` says whether anyone wants to know.
    pub(crate) fn on_timer(&mut self, is_wanted: bool, now: Instant) -> KeepaliveAction {
        let due = self.last_read.checked_add(self.time);
        match self.state {
            KeepaliveState::PingSent => return KeepaliveAction::TimedOut,
            _ if due.is_none_or(|due| now < due) => self.state = KeepaliveState::Active,
            _ if !is_wanted => self.state = KeepaliveState::Dormant,
            _ => {
                self.state = KeepaliveState::PingSent;
                return KeepaliveAction::Ping;
            }
        }
        KeepaliveAction::Wait
    }

    /// Somebody wants to know again: true if nobody did.
    pub(crate) fn resume(&mut self) -> bool {
        let was_dormant = self.state == KeepaliveState::Dormant;
        if was_dormant {
            self.state = KeepaliveState::Active;
        }
        was_dormant
    }
}

/// Has h2 send a PING. It sends none while another is not answered: the shutdown's, or one of ours that
/// the peer has passed over; then that one is the question.
pub(crate) fn send_ping(ping: Option<&mut PingPong>) {
    if let Some(ping) = ping {
        // The answer to the one before, which h2 keeps until it is asked for.
        let _ = ping.poll_pong(&mut Context::from_waker(Waker::noop()));
        let _ = ping.send_ping(Ping::opaque());
    }
}

/// The PING strikes of a client.
#[derive(Debug)]
pub(crate) struct PingStrikes {
    pings: u64,
    /// Strikes there have ever been, and how many of them were forgiven.
    strikes: u64,
    forgiven: u64,
    budget: Budget,
    /// When the last PING came.
    last: Option<Instant>,
    /// Frames of calls that had been sent then.
    sent: u64,
}

impl PingStrikes {
    pub(crate) fn new(limits: &ServerLimits, now: Instant) -> Self {
        let (burst, interval) = (limits.max_ping_strikes.into(), limits.ping_strike_time);
        Self {
            pings: 0,
            strikes: 0,
            forgiven: 0,
            budget: Budget::new(burst, interval, Surplus::Discarded, now),
            last: None,
            sent: 0,
        }
    }

    /// Returns true if PING frames have arrived that were not judged yet.
    pub(crate) fn are_new(&self, pings: u64) -> bool {
        pings != self.pings
    }

    /// Judges the PING frames that have come since the last time, `pings` being all of them and
    /// `sent` the frames of calls that this end has sent. True if it is enough.
    ///
    /// gRFC A8, "Server Enforcement": one that comes too soon is a strike, and whatever the server
    /// sends of a call forgives all: clients measure the bandwidth by PING frames as data comes.
    pub(crate) fn judge(
        &mut self,
        pings: u64,
        sent: u64,
        has_calls: bool,
        limits: &ServerLimits,
        now: Instant,
    ) -> bool {
        let new = pings - std::mem::replace(&mut self.pings, pings);
        let permitted = match has_calls || limits.permit_keepalive_without_calls {
            true => limits.permit_keepalive_time,
            false => limits.permit_keepalive_time.max(PERMITTED_WITHOUT_CALLS),
        };
        let last = self.last.replace(now);
        if std::mem::replace(&mut self.sent, sent) != sent {
            self.forgiven = self.strikes;
        } else if last.is_some_and(|at| now.saturating_duration_since(at) < permitted) {
            self.strikes += 1;
        }
        if !permitted.is_zero() {
            // The others have come together with the first.
            self.strikes += new.saturating_sub(1);
        }
        self.budget
            .is_overdrawn(self.strikes, || self.forgiven, || now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    #[test]
    fn what_a_server_minds_doubles_once_for_all_connections_that_were_told() {
        let keepalive = Keepalive::new(Duration::MAX);
        assert_eq!(keepalive.time(), Duration::MAX);
        let keepalive = Keepalive::new(10 * SECOND);
        let clone = keepalive.clone();
        clone.double(10 * SECOND);
        clone.double(10 * SECOND);
        assert_eq!(keepalive.time(), 20 * SECOND);
        keepalive.double(Duration::MAX);
        assert_eq!(keepalive.time(), Duration::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_is_quiet_asks_and_ends() {
        let began = Instant::now();
        let mut keepalive_timer =
            KeepaliveTimer::new(10 * SECOND, 2 * SECOND, began).expect("it is on");
        assert_eq!(keepalive_timer.next(), Some(began + 10 * SECOND));
        assert_eq!(keepalive_timer.on_read(7, || began + 4 * SECOND), None);
        assert_eq!(
            keepalive_timer.on_timer(true, began + 10 * SECOND),
            KeepaliveAction::Wait
        );
        assert_eq!(keepalive_timer.next(), Some(began + 14 * SECOND));
        assert_eq!(
            keepalive_timer.on_timer(true, began + 14 * SECOND),
            KeepaliveAction::Ping
        );
        assert_eq!(
            keepalive_timer.on_read(7, || unreachable!("nothing has come")),
            None
        );
        let next = keepalive_timer.on_read(8, || began + 15 * SECOND);
        assert_eq!(next, Some(began + 25 * SECOND));
        assert_eq!(
            keepalive_timer.on_timer(false, began + 25 * SECOND),
            KeepaliveAction::Wait
        );
        assert_eq!(keepalive_timer.next(), None, "nobody wants to know");
        assert!(keepalive_timer.resume() && !keepalive_timer.resume());
        assert_eq!(
            keepalive_timer.on_timer(true, began + 30 * SECOND),
            KeepaliveAction::Ping
        );
        assert_eq!(
            keepalive_timer.on_timer(true, began + 32 * SECOND),
            KeepaliveAction::TimedOut
        );
        assert!(KeepaliveTimer::new(Duration::MAX, SECOND, began).is_none());
    }
}
