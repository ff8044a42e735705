//! A budget for events that a peer causes.

use std::time::Duration;

use tokio::time::Instant;

/// A budget that refills over time. Its inputs are counters that only grow: the events that a peer has
/// caused, and the credit that it has earned by useful traffic. It has no timer, and reads the clock only
/// after new events.
///
/// Time repays debt but does not accumulate as credit. The time since the last check repays all events since
/// then, because a delayed connection processes the events of a longer time at once.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The largest permitted debt.
    burst: i64,
    /// The nanoseconds that repay one event.
    interval: u64,
    surplus: Surplus,
    /// The balance, negative for a debt.
    balance: i64,
    spent: u64,
    earned: u64,
    /// The moment up to which time has repaid debt.
    paid_until: Instant,
}

/// The use of credit in excess of the debt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surplus {
    /// The credit pays for later events.
    Carried,
    Discarded,
}

impl Budget {
    /// Creates a budget for `burst` events at once, and one event per `interval` in the long run.
    pub(crate) fn new(burst: u64, interval: Duration, surplus: Surplus, now: Instant) -> Self {
        Self {
            burst: signed(burst),
            interval: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX),
            surplus,
            balance: 0,
            spent: 0,
            earned: 0,
            paid_until: now,
        }
    }

    /// Returns whether the peer has overdrawn the budget. `spent` and `earned` are totals over the life of the
    /// connection.
    #[inline]
    pub(crate) fn is_overdrawn(
        &mut self,
        spent: u64,
        earned: impl FnOnce() -> u64,
        now: impl FnOnce() -> Instant,
    ) -> bool {
        // Most turns spend nothing, and cost one comparison.
        spent != self.spent && self.charge(spent, earned(), now())
    }

    #[inline(never)]
    fn charge(&mut self, spent: u64, earned: u64, now: Instant) -> bool {
        let new = signed(spent.wrapping_sub(std::mem::replace(&mut self.spent, spent)));
        let income = signed(earned.wrapping_sub(std::mem::replace(&mut self.earned, earned)));
        self.balance = self.balance.saturating_add(income).saturating_sub(new);
        self.pay(now);
        self.balance < -self.burst
    }

    fn pay(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.paid_until).as_nanos();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let paid = signed(elapsed.checked_div(self.interval).unwrap_or(u64::MAX));
        if self.balance.saturating_add(paid) < 0 {
            self.balance += paid;
            self.paid_until += Duration::from_nanos(self.interval.saturating_mul(paid as u64));
            return;
        }
        self.paid_until = now;
        if self.balance < 0 || self.surplus == Surplus::Discarded {
            self.balance = 0;
        }
    }
}

/// Returns the interval of `rate` events per second. More than one per nanosecond is unlimited.
pub(crate) fn per_second(rate: u64) -> Duration {
    Duration::from_nanos(1_000_000_000_u64.checked_div(rate).unwrap_or(u64::MAX))
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Spends what each step says, at its second, until it is overdrawn; returns at which step.
    fn overdrawn_at(
        budget: &mut Budget,
        began: Instant,
        steps: &[(f64, u64, u64)],
    ) -> Option<usize> {
        let (mut spent, mut earned) = (budget.spent, budget.earned);
        steps.iter().position(|(second, more, income)| {
            spent += more;
            earned += income;
            budget.is_overdrawn(spent, || earned, || began + SECOND.mul_f64(*second))
        })
    }

    #[test]
    fn a_budget_allows_its_burst_and_then_what_time_pays_for() {
        let began = Instant::now();
        for (steps, end) in [
            (&[(0.0, 100, 0)][..], None),
            (&[(0.0, 101, 0)], Some(0)),
            (&[(0.0, 100, 0), (0.1, 1, 0), (0.1, 1, 0)], Some(2)),
            // Fractions are not lost, however often it is looked.
            (
                &[(0.0, 100, 0), (0.05, 0, 0), (0.06, 1, 0), (0.1, 0, 0)],
                Some(2),
            ),
            (&[(0.0, 95, 0), (0.05, 1, 0), (0.1, 5, 0)], None),
            // What was held up for ten seconds is paid for by them, and by no others.
            (&[(10.0, 200, 0)], None),
            (&[(10.0, 201, 0)], Some(0)),
            (&[(10.0, 1, 0), (10.0, 100, 0)], None),
            (&[(10.0, 1, 0), (10.0, 101, 0)], Some(1)),
            (&[(0.0, 100, 0), (1e9, 1, 0), (1e9, 100, 0)], None),
            (&[(0.0, 100, 0), (1e9, 1, 0), (1e9, 101, 0)], Some(2)),
        ] {
            let mut budget = Budget::new(100, per_second(10), Surplus::Discarded, began);
            assert_eq!(overdrawn_at(&mut budget, began, steps), end, "{steps:?}");
        }
    }

    #[test]
    fn earnings_pay_debts_and_are_kept_or_lost() {
        let began = Instant::now();
        for (steps, lost, kept) in [
            (&[(0.0, 100, 0), (0.0, 50, 50)][..], None, None),
            (&[(0.0, 1, 1_000), (0.0, 101, 0)], Some(1), None),
            (&[(0.0, 1, 1_000), (0.0, 1_100, 0)], Some(1), Some(1)),
            (&[(0.0, 1_099, 1_000)], None, None),
        ] {
            for (surplus, end) in [(Surplus::Discarded, lost), (Surplus::Carried, kept)] {
                let mut budget = Budget::new(100, per_second(10), surplus, began);
                assert_eq!(overdrawn_at(&mut budget, began, steps), end, "{steps:?}");
            }
        }
    }

    #[test]
    fn a_rate_that_is_kept_to_for_seven_days_never_overdraws_and_twice_that_soon_does() {
        let began = Instant::now();
        let mut budget = Budget::new(100, per_second(10), Surplus::Discarded, began);
        let mut spent = 0;
        for second in 1..=7 * 24 * 3600 {
            spent += 10;
            assert!(!budget.is_overdrawn(spent, || 0, || began + second * SECOND));
        }
        let end = began + 7 * 24 * 3600 * SECOND;
        let cut = (1..).find(|second| {
            spent += 20;
            budget.is_overdrawn(spent, || 0, || end + *second * SECOND)
        });
        assert_eq!(cut, Some(11));
    }

    #[test]
    fn numbers_at_their_ends_are_no_trouble() {
        let began = Instant::now();
        for (burst, rate) in [(u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX)] {
            let mut budget = Budget::new(burst, per_second(rate), Surplus::Carried, began);
            assert!(!budget.is_overdrawn(u64::MAX / 4, || u64::MAX / 4, || began));
            assert!(!budget.is_overdrawn(u64::MAX / 2, || u64::MAX, || began + SECOND));
        }
        let mut none = Budget::new(0, per_second(0), Surplus::Discarded, began);
        assert!(none.is_overdrawn(1, || 0, || began + 1_000 * SECOND));
    }
}
