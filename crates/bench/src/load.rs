//! The load generator's loops: closed, where a call follows a reply, and open, where calls come when
//! they come.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::connection::{Connection, Input};
use crate::plan::{Plan, Tally};

/// A server that says nothing for so long, with calls open, will say nothing any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// How to wait for sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all: look again and again.
    Spin,
    /// Until something is there, or this much time has passed; to the millisecond.
    UpTo(Duration),
}

/// Connections to one server, and what they have achieved.
pub(crate) struct Driver {
    poll: Poll,
    events: Events,
    /// All of them; none is ever replaced.
    pub(crate) connections: Vec<Connection>,
    clock: Instant,
    last_input: u64,
    /// What calls have achieved since it was last cleared.
    pub(crate) tally: Tally,
}

impl Driver {
    /// Opens `count` connections and waits for the settings of all.
    ///
    /// # Errors
    ///
    /// What the server, or this machine, did wrong; so with all that follows.
    pub(crate) fn connect(address: SocketAddr, count: usize) -> Result<Self, String> {
        let poll = Poll::new().map_err(|error| format!("epoll: {error}"))?;
        let mut driver = Self {
            poll,
            events: Events::with_capacity(256),
            connections: Vec::new(),
            clock: Instant::now(),
            last_input: 0,
            tally: Tally::new(),
        };
        driver.add(address, count)?;
        Ok(driver)
    }

    /// Opens `count` more connections and waits for their settings.
    pub(crate) fn add(&mut self, address: SocketAddr, count: usize) -> Result<(), String> {
        self.last_input = self.now();
        for _ in 0..count {
            let mut connection = Connection::open(address)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            let token = Token(self.connections.len());
            self.poll
                .registry()
                .register(connection.socket_mut(), token, interest)
                .map_err(|error| format!("epoll: {error}"))?;
            connection.flush()?;
            self.connections.push(connection);
            // One after the other: a thousand at once could fill the server's backlog.
            while !self.connections[token.0].has_settings() {
                self.turn(PAUSE, None)?;
                self.expect_input()?;
            }
        }
        Ok(())
    }

    /// Nanoseconds of this run.
    pub(crate) fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    /// Makes one call of `plan` on each connection in turn, reading its response in full.
    pub(crate) fn check(&mut self, plan: &Plan) -> Result<(), String> {
        let check = Rc::new(plan.as_check());
        for at in 0..self.connections.len() {
            if self.connections[at].reply_len() > 0 {
                continue;
            }
            self.start(at, &check, self.now())?;
            while self.connections[at].open_calls() > 0 {
                self.turn(PAUSE, None)?;
                self.expect_input()?;
            }
        }
        Ok(())
    }

    /// Opens a call that was to begin at `started`.
    pub(crate) fn start(&mut self, at: usize, plan: &Rc<Plan>, started: u64) -> Result<(), String> {
        self.last_input = self.now();
        self.connections[at].start(plan, started);
        self.connections[at].flush()
    }

    /// Keeps `in_flight` calls of `plan` open on every connection from now on, as long as
    /// [`turn`](Self::turn) is told the same.
    pub(crate) fn fill(&mut self, plan: &Rc<Plan>, in_flight: usize) -> Result<(), String> {
        self.last_input = self.now();
        for at in 0..self.connections.len() {
            let allowed = self.connections[at].streams_max();
            if allowed < in_flight {
                return Err(format!(
                    "the server allows {allowed} streams on a connection"
                ));
            }
            self.refill(at, plan, in_flight);
            self.connections[at].flush()?;
        }
        Ok(())
    }

    fn refill(&mut self, at: usize, plan: &Rc<Plan>, in_flight: usize) {
        let now = self.now();
        let connection = &mut self.connections[at];
        while connection.open_timed_calls() < in_flight {
            connection.start(plan, now);
        }
    }

    /// Waits, takes what came, and sends what is due.
    pub(crate) fn turn(
        &mut self,
        wait: Wait,
        refill: Option<(&Rc<Plan>, usize)>,
    ) -> Result<(), String> {
        match wait {
            Wait::Spin if self.connections.len() == 1 => self.serve(0, refill)?,
            _ => {
                let timeout = match wait {
                    Wait::Spin => Duration::ZERO,
                    Wait::UpTo(timeout) => timeout,
                };
                let polled = self.poll.poll(&mut self.events, Some(timeout));
                if let Err(error) = polled
                    && error.kind() != std::io::ErrorKind::Interrupted
                {
                    return Err(format!("epoll: {error}"));
                }
                let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
                for event in &events {
                    self.serve(event.token().0, refill)?;
                }
                self.events = events;
            }
        }
        let is_waiting = self.connections.iter().any(|it| it.open_timed_calls() > 0);
        match is_waiting {
            true => self.expect_input(),
            false => Ok(()),
        }
    }

    fn expect_input(&self) -> Result<(), String> {
        if self.now() - self.last_input > PATIENCE.as_nanos() as u64 {
            return Err(format!("no byte from the server for {PATIENCE:?}"));
        }
        Ok(())
    }

    fn serve(&mut self, at: usize, refill: Option<(&Rc<Plan>, usize)>) -> Result<(), String> {
        let connection = &mut self.connections[at];
        let clock = self.clock;
        let now = || clock.elapsed().as_nanos() as u64;
        loop {
            let input = connection.read(now, &mut self.tally)?;
            if input != Input::Nothing {
                self.last_input = now();
            }
            if input != Input::More {
                break;
            }
        }
        if let Some((plan, in_flight)) = refill {
            self.refill(at, plan, in_flight);
        }
        self.connections[at].flush()
    }

    /// Lets the open timed calls end, for `patience` at most.
    pub(crate) fn drain(&mut self, patience: Duration) -> Result<(), String> {
        let end = self.now() + patience.as_nanos() as u64;
        while self.connections.iter().any(|it| it.open_timed_calls() > 0) {
            if self.now() > end {
                return Err(format!("calls that are not answered within {patience:?}"));
            }
            self.turn(PAUSE, None)?;
        }
        Ok(())
    }
}

/// Between two looks at the clock.
pub(crate) const PAUSE: Wait = Wait::UpTo(Duration::from_millis(50));

/// When calls of an open loop come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrivals {
    /// One every so many nanoseconds.
    Steady(f64),
    /// As independent users would call: exponential times between, with this mean in nanoseconds.
    Poisson(f64),
}

/// Sends calls when they are due, whether or not earlier ones were answered.
pub(crate) struct OpenLoop {
    arrivals: Arrivals,
    next: f64,
    random: Random,
    connection: usize,
    /// Due, with no stream free for them.
    waiting: VecDeque<u64>,
    /// The longest that the generator itself was late with a call for which there was a stream.
    pub(crate) latest: u64,
}

impl OpenLoop {
    /// Begins at `now`.
    pub(crate) fn new(arrivals: Arrivals, seed: u64, now: u64) -> Self {
        Self {
            arrivals,
            next: now as f64,
            random: Random::new(seed),
            connection: 0,
            waiting: VecDeque::new(),
            latest: 0,
        }
    }

    /// Sends what is due, and takes one turn that ends when the next is.
    pub(crate) fn turn(&mut self, driver: &mut Driver, plan: &Rc<Plan>) -> Result<(), String> {
        let now = driver.now();
        let is_behind = !self.waiting.is_empty();
        while self.next <= now as f64 {
            self.waiting.push_back(self.next as u64);
            self.next += match self.arrivals {
                Arrivals::Steady(mean) => mean,
                Arrivals::Poisson(mean) => -self.random.share().ln() * mean,
            };
        }
        let count = driver.connections.len();
        let mut touched = 0;
        for _ in 0..self.waiting.len() {
            let found = (0..count)
                .map(|step| (self.connection + step) % count)
                .find(|at| driver.connections[*at].has_room());
            let (Some(at), Some(due)) = (found, self.waiting.front()) else {
                break;
            };
            driver.connections[at].start(plan, *due);
            if !is_behind {
                self.latest = self.latest.max(now.saturating_sub(*due));
            }
            self.waiting.pop_front();
            self.connection = (at + 1) % count;
            touched += 1;
        }
        for step in 1..=touched.min(count) {
            let at = (self.connection + count - step) % count;
            driver.connections[at].flush()?;
        }
        driver.turn(self.wait(driver.now()), None)
    }

    /// epoll waits whole milliseconds, so the last two are spun.
    fn wait(&self, now: u64) -> Wait {
        let left = (self.next as u64).saturating_sub(now);
        match left {
            0..3_000_000 => Wait::Spin,
            _ => Wait::UpTo(Duration::from_millis(left / 1_000_000 - 2)),
        }
    }
}

/// Numbers that are random enough for arrivals and orders, and the same for the same seed
/// (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// From a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0, up to 1.
    pub(crate) fn share(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Puts `items` in a new order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_have_the_mean_that_was_asked_for() {
        let mut random = Random::new(7);
        let count = 100_000;
        let sum: f64 = (0..count).map(|_| -random.share().ln()).sum();
        let mean = sum / f64::from(count);
        assert!((0.98..1.02).contains(&mean), "{mean}");
    }

    #[test]
    fn every_order_comes_and_the_same_seed_gives_the_same() {
        let mut seen = std::collections::HashSet::new();
        let mut random = Random::new(1);
        for _ in 0..200 {
            let mut items = [1, 2, 3];
            random.shuffle(&mut items);
            seen.insert(items);
        }
        assert_eq!(seen.len(), 6);
        assert_eq!(Random::new(5).next(), Random::new(5).next());
    }
}
