//! How long the handlers of a method keep the thread, from one await to the next.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Quick polls that a method has to show before its calls are polled where their connection is.
pub(crate) const FIRST_TRIAL: u32 = 16;

/// A method that is slow now and then is not tried for longer than this: one poll in two hundred that
/// is slow, because the system has taken the thread away, should not keep it in tasks for ever.
const LONGEST_TRIAL: u32 = 128;

/// What is known about a method's handlers: whether they give the thread back quickly.
///
/// The calls of a method begin in tasks of their own. After some polls, each of them quick, the
/// method has earned its place: its calls are polled in the connection's task, which costs less and
/// holds up the others of the connection for no longer than that. One slow poll, and the method has to show twice as many quick ones.
#[derive(Debug)]
pub struct Pace {
    /// Quick polls still to be shown.
    missing: AtomicU32,
    trial: AtomicU32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            missing: AtomicU32::new(FIRST_TRIAL),
            trial: AtomicU32::new(FIRST_TRIAL),
        }
    }
}

impl Pace {
    pub(crate) fn is_quick(&self) -> bool {
        self.missing.load(Ordering::Relaxed) == 0
    }

    /// Takes note of a poll. Threads that do so at once may lose a note, which harms nothing.
    pub(crate) fn polled(&self, took: Duration, quick_max: Duration) {
        let missing = self.missing.load(Ordering::Relaxed);
        if took > quick_max {
            let trial = self.trial.load(Ordering::Relaxed);
            self.missing.store(trial, Ordering::Relaxed);
            let next = trial.saturating_mul(2).min(LONGEST_TRIAL);
            self.trial.store(next, Ordering::Relaxed);
        } else if missing > 0 {
            self.missing.store(missing - 1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_micros(100);

    /// Quick polls until the method is quick.
    fn trial_of(pace: &Pace) -> u32 {
        let mut polls = 0;
        while !pace.is_quick() {
            pace.polled(MAX, MAX);
            polls += 1;
        }
        polls
    }

    #[test]
    fn a_method_earns_its_place_and_loses_it_for_longer_each_time() {
        let pace = Pace::default();
        assert_eq!(trial_of(&pace), FIRST_TRIAL);
        pace.polled(MAX, MAX);
        assert!(pace.is_quick(), "a poll at the limit is quick");
        let trials = std::iter::repeat_with(|| {
            pace.polled(MAX + Duration::from_nanos(1), MAX);
            trial_of(&pace)
        });
        let trials: Vec<u32> = trials.take(9).collect();
        assert_eq!(trials, [16, 32, 64, 128, 128, 128, 128, 128, 128]);
    }
}
