//! How long the handlers of a method keep the thread, from one await to the next.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Quick polls in a row that a method has to show before its calls are polled where their
/// connection is.
pub(crate) const FIRST_TRIAL: u32 = 16;

/// A method that is slow now and then is not tried for longer than this.
const LONGEST_TRIAL: u32 = 128;

/// How often `quick_poll_max` a method may be over it, all in all, before it loses its place: what a
/// system takes of a thread now and then, some milliseconds, is not the method's.
const CREDIT: u32 = 50;

/// What is known about a method's handlers: whether they give the thread back quickly.
///
/// The calls of a method begin in tasks of their own. After some polls, each of them quick, the
/// method has earned its place: its calls are polled in the connection's task, which costs less and
/// holds up the others of the connection for no longer than that. A poll that is slow is put on its
/// account, and each quick one takes something off; when there is too much, the method has to show
/// twice as many quick ones.
#[derive(Debug)]
pub struct PollBudget {
    /// Quick polls still to be shown.
    missing: AtomicU32,
    trial: AtomicU32,
    /// By how much slow polls were over, less what quick ones have taken off, in microseconds.
    debt: AtomicU32,
}

impl Default for PollBudget {
    fn default() -> Self {
        Self {
            missing: AtomicU32::new(FIRST_TRIAL),
            trial: AtomicU32::new(FIRST_TRIAL),
            debt: AtomicU32::new(0),
        }
    }
}

impl PollBudget {
    pub(crate) fn is_quick(&self) -> bool {
        self.missing.load(Ordering::Relaxed) == 0
    }

    /// Takes note of a poll. Threads that do so at once may lose a note, which harms nothing.
    pub(crate) fn polled(&self, took: Duration, quick_max: Duration) {
        let (missing, debt) = (
            self.missing.load(Ordering::Relaxed),
            self.debt.load(Ordering::Relaxed),
        );
        // Most polls: nothing is written that other threads read.
        if took > quick_max || missing > 0 || debt > 0 {
            self.note(took, quick_max, missing, debt);
        }
    }

    #[cold]
    fn note(&self, took: Duration, quick_max: Duration, missing: u32, debt: u32) {
        let trial = self.trial.load(Ordering::Relaxed);
        if missing > 0 {
            let left = match took > quick_max {
                true => trial,
                false => missing - 1,
            };
            return self.missing.store(left, Ordering::Relaxed);
        }
        let debt = debt
            .saturating_add(micros(took))
            .saturating_sub(micros(quick_max));
        if debt <= micros(quick_max).saturating_mul(CREDIT) {
            return self.debt.store(debt, Ordering::Relaxed);
        }
        self.debt.store(0, Ordering::Relaxed);
        self.missing.store(trial, Ordering::Relaxed);
        let next = trial.saturating_mul(2).min(LONGEST_TRIAL);
        self.trial.store(next, Ordering::Relaxed);
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_micros(100);
    const TOO_MUCH: Duration = Duration::from_micros(100 * (CREDIT as u64 + 1) + 1);

    /// Quick polls until the method is quick.
    fn trial_of(poll_budget: &PollBudget) -> u32 {
        let mut polls = 0;
        while !poll_budget.is_quick() {
            poll_budget.polled(MAX, MAX);
            polls += 1;
        }
        polls
    }

    #[test]
    fn a_method_earns_its_place_by_quick_polls_in_a_row() {
        let poll_budget = PollBudget::default();
        for _ in 1..FIRST_TRIAL {
            poll_budget.polled(MAX, MAX);
        }
        poll_budget.polled(MAX + Duration::from_nanos(1), MAX);
        assert_eq!(trial_of(&poll_budget), FIRST_TRIAL);
    }

    #[test]
    fn a_method_loses_its_place_for_longer_each_time() {
        let poll_budget = PollBudget::default();
        assert_eq!(trial_of(&poll_budget), FIRST_TRIAL);
        let trials = std::iter::repeat_with(|| {
            poll_budget.polled(TOO_MUCH, MAX);
            trial_of(&poll_budget)
        });
        let trials: Vec<u32> = trials.take(6).collect();
        assert_eq!(trials, [16, 32, 64, 128, 128, 128]);
    }

    #[test]
    fn a_slow_poll_is_forgiven_up_to_the_credit_and_quick_ones_make_up_for_it() {
        let poll_budget = PollBudget::default();
        trial_of(&poll_budget);
        for _ in 0..3 {
            poll_budget.polled(TOO_MUCH - Duration::from_micros(1), MAX);
            assert!(poll_budget.is_quick(), "at the credit");
            for _ in 0..CREDIT {
                poll_budget.polled(Duration::ZERO, MAX);
            }
        }
        poll_budget.polled(TOO_MUCH - Duration::from_micros(1), MAX);
        poll_budget.polled(MAX + Duration::from_micros(1), MAX);
        assert!(!poll_budget.is_quick(), "above the credit");
    }

    #[test]
    fn a_method_that_is_a_little_slow_each_time_loses_its_place() {
        let poll_budget = PollBudget::default();
        trial_of(&poll_budget);
        let mut polls = 0;
        while poll_budget.is_quick() {
            poll_budget.polled(2 * MAX, MAX);
            polls += 1;
        }
        assert_eq!(polls, CREDIT + 1);
    }
}
