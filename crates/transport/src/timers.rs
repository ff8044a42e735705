//! The times of a connection, on one timer.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::deadline::poll_sleep;

/// As good as never, and a time that can be told.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// When `time` is over; `Duration::MAX` is never.
pub(crate) fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or_else(|| now + FAR)
}

/// What there may be a time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timed {
    /// The handshake ends with the client's SETTINGS.
    Settings,
    /// A header block that has begun has to end.
    HeaderBlock,
    /// A call that waits for a handler reaches its deadline.
    Waiting,
    /// A byte has to come, or a PING goes out; then its answer is waited for.
    Keepalive,
    /// No call has been open for long enough.
    Idle,
    /// The connection is old enough.
    Age,
    /// Responses that wait are in the way, and may not have moved for too long.
    SendBacklog,
    /// Calls on a connection that is too old have had their time.
    Grace,
    /// The connection has been shut down and has to send what it has to say.
    Closing,
}

const COUNT: usize = Timed::Closing as usize + 1;

const ALL: [Timed; COUNT] = [
    Timed::Settings,
    Timed::HeaderBlock,
    Timed::Waiting,
    Timed::Keepalive,
    Timed::Idle,
    Timed::Age,
    Timed::SendBacklog,
    Timed::Grace,
    Timed::Closing,
];

/// The times, and the timer. A time that is put off leaves the timer as it is: it finds out when it
/// fires, so that what moves with each call costs no timer.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    at: [Option<Instant>; COUNT],
    /// The first of them.
    next: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom the timer wakes: none if it has to be polled first.
    waker: Option<Waker>,
}

impl Timers {
    /// Sets a time; none is never.
    pub(crate) fn set(&mut self, timed: Timed, at: Option<Instant>) {
        self.at[timed as usize] = at;
        self.next = self.at.iter().flatten().min().copied();
    }

    pub(crate) fn get(&self, timed: Timed) -> Option<Instant> {
        self.at[timed as usize]
    }

    pub(crate) fn is_set(&self, timed: Timed) -> bool {
        self.at[timed as usize].is_some()
    }

    /// Forgets all times.
    pub(crate) fn clear(&mut self) {
        self.at = [None; COUNT];
        self.next = None;
    }

    /// Ready with the first time that has come, which is then forgotten.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Timed> {
        loop {
            let Some(next) = self.next else {
                return Poll::Pending;
            };
            if self.sleep.as_ref().is_none_or(|it| it.deadline() > next) {
                self.rearm(next);
            }
            let Some(sleep) = &mut self.sleep else {
                return Poll::Pending;
            };
            let is_watched = self
                .waker
                .as_ref()
                .is_some_and(|it| it.will_wake(cx.waker()));
            if is_watched && !sleep.is_elapsed() {
                return Poll::Pending;
            }
            // A poll without budget would leave no waker behind.
            let sleep = std::pin::pin!(tokio::task::unconstrained(std::future::poll_fn(|cx| {
                poll_sleep(sleep.as_mut(), cx)
            })));
            if sleep.poll(cx).is_pending() {
                self.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let now = Instant::now();
            let due = |timed: &Timed| self.at[*timed as usize].filter(|at| *at <= now);
            match ALL
                .iter()
                .filter(|it| due(it).is_some())
                .min_by_key(|it| due(it))
            {
                Some(timed) => {
                    self.set(*timed, None);
                    return Poll::Ready(*timed);
                }
                None => self.rearm(next),
            }
        }
    }

    fn rearm(&mut self, at: Instant) {
        self.waker = None;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    fn seconds(seconds: u64) -> Option<Instant> {
        Some(Instant::now() + Duration::from_secs(seconds))
    }

    #[tokio::test(start_paused = true)]
    async fn times_come_in_their_order_wherever_they_were_put_meanwhile() {
        let began = Instant::now();
        let mut timers = Timers::default();
        timers.set(Timed::Age, seconds(30));
        timers.set(Timed::Idle, seconds(5));
        timers.set(Timed::Keepalive, seconds(60));
        // Set, so that the timer runs towards five seconds.
        assert!(
            poll_fn(|cx| Poll::Ready(timers.poll(cx)))
                .await
                .is_pending()
        );
        timers.set(Timed::Idle, seconds(40));
        timers.set(Timed::HeaderBlock, seconds(10));
        timers.set(Timed::HeaderBlock, None);
        for (timed, after) in [(Timed::Age, 30), (Timed::Idle, 40), (Timed::Keepalive, 60)] {
            assert_eq!(poll_fn(|cx| timers.poll(cx)).await, timed);
            assert_eq!(began.elapsed().as_secs(), after, "{timed:?}");
            assert!(!timers.is_set(timed));
        }
        assert!(
            poll_fn(|cx| Poll::Ready(timers.poll(cx)))
                .await
                .is_pending()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_polls_last_is_woken() {
        let mut timers = Timers::default();
        timers.set(Timed::Age, seconds(1));
        let mut first = tokio_waker();
        assert!(timers.poll(&mut Context::from_waker(&first.1)).is_pending());
        let second = tokio_waker();
        assert!(
            timers
                .poll(&mut Context::from_waker(&second.1))
                .is_pending()
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(second.0.0.load(std::sync::atomic::Ordering::SeqCst));
        assert_eq!(
            timers.poll(&mut Context::from_waker(&first.1)),
            Poll::Ready(Timed::Age)
        );
        first.1 = Waker::noop().clone();
    }

    struct Flag(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Flag {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }

    fn tokio_waker() -> (std::sync::Arc<Flag>, Waker) {
        let flag = std::sync::Arc::new(Flag(false.into()));
        (flag.clone(), flag.into())
    }
}
