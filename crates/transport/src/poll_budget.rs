//! Measures the polls of a method's handlers, and decides which task polls them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The number of quick polls in a row after which the calls of a method are polled in their connection's
/// task.
pub(crate) const FIRST_TRIAL: u32 = 16;

/// The largest number of quick polls required of a method that is slow from time to time.
const LONGEST_TRIAL: u32 = 128;

/// The tolerated excess of slow polls, in multiples of `quick_poll_max`. It covers preemption by the system,
/// which can take some milliseconds.
const CREDIT: u32 = 50;

/// A record of the poll times of a method's handlers.
///
/// The calls of a method begin in tasks of their own. After some quick polls in a row, its calls are polled in
/// the connection's task, which costs less and delays the other calls only briefly. Slow polls then add to a
/// debt, and quick ones reduce it. If the debt becomes too large, the calls move back to their own tasks, and
/// the method must show twice as many quick polls.
#[derive(Debug)]
pub struct PollBudget {
    /// The number of quick polls still required.
    missing: AtomicU32,
    trial: AtomicU32,
    /// The excess of slow polls minus the savings of quick ones, in microseconds.
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

    /// Records a poll. Concurrent calls can lose a record, which is harmless.
    pub(crate) fn polled(&self, took: Duration, quick_max: Duration) {
        let (missing, debt) = (
            self.missing.load(Ordering::Relaxed),
            self.debt.load(Ordering::Relaxed),
        );
        // Most polls write nothing, and cause no contention.
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
