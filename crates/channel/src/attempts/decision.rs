//! The decision whether a further attempt follows one that has ended, and when (gRFC A6).
//!
//! These are pure functions of the attempts of one call. Clock, random numbers and bodies are elsewhere.

use std::time::Duration;

use trunkline_codec::Code;

use super::policy::{CodeSet, HedgingPolicy, RetryPolicy};
use super::pushback::Pushback;
use super::throttle::RetryThrottle;
use crate::config::AttemptPolicy;

/// The fraction by which a backoff varies at random, in both directions (A6 as amended in 2024).
const JITTER: f64 = 0.2;

/// The end of an attempt before its call was committed to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttemptEnd {
    pub(crate) code: Code,
    pub(crate) kind: EndKind,
    pub(crate) pushback: Pushback,
}

/// The point that an attempt had reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndKind {
    /// The picker has dropped it.
    Dropped,
    /// Nothing of it has left this process.
    NotSent,
    /// The server reports that it has not processed it: REFUSED_STREAM, or a GOAWAY with a lower stream.
    Unprocessed,
    /// The server can have processed it, or the pick or the credentials have failed.
    Failed,
}

/// The consequence of the end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The call ends as the attempt has, and attempts that still run are cancelled.
    Finish,
    /// The attempt is made again, without a pause and without counting (A6, "Transparent Retries").
    Repeat,
    /// A further attempt starts after `delay`.
    Next { delay: Duration },
    /// No further attempt starts. The call ends with the last of those that run.
    Stop,
}

/// The attempts of one call, by the policy of its method.
#[derive(Debug)]
pub(crate) enum Schedule {
    Retry(RetrySchedule),
    Hedging(HedgingSchedule),
}

/// One attempt after the other.
#[derive(Debug)]
pub(crate) struct RetrySchedule {
    policy: RetryPolicy,
    /// The attempts that have ended and count.
    failed: u32,
    /// The backoffs since the beginning, or since the last pushback.
    backoffs: u32,
    has_repeated: bool,
}

/// Attempts that overlap.
#[derive(Debug)]
pub(crate) struct HedgingSchedule {
    policy: HedgingPolicy,
    /// The attempts that have started and count.
    started: u32,
    is_stopped: bool,
    has_repeated: bool,
}

impl Schedule {
    pub(crate) fn new(policy: &AttemptPolicy) -> Self {
        match policy {
            AttemptPolicy::Retry(policy) => Self::retry(policy.clone()),
            AttemptPolicy::Hedging(policy) => Self::hedging(policy.clone()),
        }
    }

    pub(crate) fn retry(policy: RetryPolicy) -> Self {
        Self::Retry(RetrySchedule {
            policy,
            failed: 0,
            backoffs: 0,
            has_repeated: false,
        })
    }

    pub(crate) fn hedging(policy: HedgingPolicy) -> Self {
        Self::Hedging(HedgingSchedule {
            policy,
            started: 0,
            is_stopped: false,
            has_repeated: false,
        })
    }

    /// Counts an attempt that starts. Returns the number of earlier attempts, for `grpc-previous-rpc-attempts`.
    pub(crate) fn start(&mut self) -> u32 {
        match self {
            Self::Retry(retry) => retry.failed,
            Self::Hedging(hedging) => {
                hedging.started += 1;
                hedging.started - 1
            }
        }
    }

    /// Returns the pause between an attempt that starts now and the next one, if that does not depend on the end of
    /// the former.
    pub(crate) fn overlap(&self) -> Option<Duration> {
        match self {
            Self::Hedging(hedging) if hedging.has_next() => Some(hedging.policy.hedging_delay),
            Self::Retry(_) | Self::Hedging(_) => None,
        }
    }

    /// Returns true if the next attempt may start now that its pause has passed. If not, none follows.
    pub(crate) fn permits(&mut self, throttle: &RetryThrottle) -> bool {
        match self {
            Self::Retry(_) => true,
            Self::Hedging(hedging) => {
                hedging.is_stopped |= !throttle.permits();
                hedging.has_next()
            }
        }
    }

    /// Ends the policy: only transparent retries follow.
    pub(crate) fn stop(&mut self) {
        match self {
            Self::Retry(retry) => retry.policy.max_attempts = 1,
            Self::Hedging(hedging) => hedging.is_stopped = true,
        }
    }

    /// Decides what follows the end of an attempt. `random` is between -1 and 1.
    pub(crate) fn after(
        &mut self,
        end: &AttemptEnd,
        random: f64,
        throttle: &RetryThrottle,
    ) -> Decision {
        match self {
            Self::Retry(retry) => retry.after(end, random, throttle),
            Self::Hedging(hedging) => hedging.after(end, throttle),
        }
    }
}

impl RetrySchedule {
    fn after(&mut self, end: &AttemptEnd, random: f64, throttle: &RetryThrottle) -> Decision {
        match end.kind {
            EndKind::Dropped => return Decision::Finish,
            EndKind::NotSent => return Decision::Repeat,
            EndKind::Unprocessed if !self.has_repeated && self.failed == 0 => {
                self.has_repeated = true;
                return Decision::Repeat;
            }
            EndKind::Unprocessed | EndKind::Failed => {}
        }
        if count(end, self.policy.retryable_codes, throttle) == Counted::Final
            || end.pushback == Pushback::Never
            || !throttle.permits()
        {
            return Decision::Finish;
        }
        self.failed += 1;
        if self.failed >= self.policy.max_attempts {
            return Decision::Finish;
        }
        let delay = match end.pushback {
            Pushback::After(pause) => {
                self.backoffs = 0;
                pause
            }
            Pushback::Absent | Pushback::Never => self.backoff(random),
        };
        Decision::Next { delay }
    }

    fn backoff(&mut self, random: f64) -> Duration {
        let policy = &self.policy;
        let steps = i32::try_from(self.backoffs).unwrap_or(i32::MAX);
        self.backoffs = self.backoffs.saturating_add(1);
        let exact = policy.initial_backoff.as_secs_f64() * policy.backoff_multiplier.powi(steps);
        // The limit comes before the jitter, as in grpc-go. `min` also replaces a number that is not one.
        let limited = exact.min(policy.max_backoff.as_secs_f64());
        let varied = limited * (1.0 + JITTER * random);
        Duration::try_from_secs_f64(varied).unwrap_or(policy.max_backoff)
    }
}

impl HedgingSchedule {
    fn has_next(&self) -> bool {
        // A6: the first attempt always goes.
        self.started == 0 || !self.is_stopped && self.started < self.policy.max_attempts
    }

    fn after(&mut self, end: &AttemptEnd, throttle: &RetryThrottle) -> Decision {
        match end.kind {
            EndKind::Dropped => {
                self.is_stopped = true;
                return Decision::Stop;
            }
            EndKind::NotSent => return Decision::Repeat,
            EndKind::Unprocessed if !self.has_repeated => {
                self.has_repeated = true;
                return Decision::Repeat;
            }
            EndKind::Unprocessed | EndKind::Failed => {}
        }
        if count(end, self.policy.non_fatal_codes, throttle) == Counted::Final {
            return Decision::Finish;
        }
        self.is_stopped |= end.pushback == Pushback::Never;
        if !self.has_next() {
            return Decision::Stop;
        }
        let delay = match end.pushback {
            Pushback::After(pause) => pause,
            Pushback::Absent | Pushback::Never => Duration::ZERO,
        };
        Decision::Next { delay }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// Success, or a code after which no attempt follows.
    Final,
    Failure,
}

/// Counts the end of an attempt that a server may have processed in the throttle.
fn count(end: &AttemptEnd, codes: CodeSet, throttle: &RetryThrottle) -> Counted {
    if end.code == Code::OK {
        // The throttle has learned of it as the tracker of the attempt.
        return Counted::Final;
    }
    let is_listed = codes.contains(end.code);
    // A6: a server that forbids a retry counts as a failure whatever the code.
    if is_listed || end.pushback == Pushback::Never {
        throttle.count_failure();
    }
    match is_listed {
        true => Counted::Failure,
        false => Counted::Final,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use EndKind::{Dropped, Failed, NotSent, Unprocessed};
    use Pushback::{Absent, After, Never};

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const FINISH: Decision = Decision::Finish;
    const NOW: Decision = Decision::Next {
        delay: Duration::ZERO,
    };

    fn end(kind: EndKind, code: Code, pushback: Pushback) -> AttemptEnd {
        AttemptEnd {
            code,
            kind,
            pushback,
        }
    }

    fn next(ms: u64) -> Decision {
        Decision::Next { delay: MS(ms) }
    }

    /// Policy P of the scenarios: 4 attempts, 0.2 s, twice as long each time, 1 s at most, UNAVAILABLE.
    fn policy() -> RetryPolicy {
        RetryPolicy {
            max_attempts: 4,
            initial_backoff: MS(200),
            max_backoff: MS(1_000),
            backoff_multiplier: 2.0,
            retryable_codes: [Code::UNAVAILABLE].into_iter().collect(),
        }
    }

    fn hedging() -> Schedule {
        Schedule::hedging(HedgingPolicy {
            max_attempts: 4,
            hedging_delay: MS(300),
            non_fatal_codes: [Code::UNAVAILABLE].into_iter().collect(),
        })
    }

    /// A throttle with `left` of 10 tokens; a success returns a tenth.
    fn throttle(left: u32) -> RetryThrottle {
        let throttle = RetryThrottle::full(10_000, 100);
        (left..10).for_each(|_| throttle.count_failure());
        throttle
    }

    fn rounded(decision: Decision) -> Decision {
        match decision {
            Decision::Next { delay } => next((delay.as_secs_f64() * 1000.0).round() as u64),
            other => other,
        }
    }

    /// Decisions after a first attempt. Columns: the end; tokens before, of 10; decision; thousandths counted.
    #[test]
    fn the_ladder_of_a_retry_policy() {
        let (unavailable, internal, ok) = (Code::UNAVAILABLE, Code::INTERNAL, Code::OK);
        let rows = [
            // 2: dropped picks.
            (Dropped, unavailable, Absent, 10, FINISH, 0),
            (Dropped, unavailable, After(MS(0)), 10, FINISH, 0),
            // 3, 4: transparent retries, whatever the code and the throttle.
            (NotSent, unavailable, Absent, 10, Decision::Repeat, 0),
            (NotSent, internal, Absent, 0, Decision::Repeat, 0),
            (Unprocessed, unavailable, Absent, 10, Decision::Repeat, 0),
            (Unprocessed, internal, Absent, 0, Decision::Repeat, 0),
            // 5: OK.
            (Failed, ok, Absent, 10, FINISH, 0),
            (Failed, ok, Absent, 8, FINISH, 0),
            (Failed, ok, Never, 8, FINISH, 0),
            // 6, 7: pushback that forbids counts as a failure whatever the code.
            (Failed, unavailable, Never, 10, FINISH, -1_000),
            (Failed, internal, Never, 10, FINISH, -1_000),
            // 8: codes that are not listed, which pushback does not change.
            (Failed, internal, Absent, 10, FINISH, 0),
            (Failed, internal, After(MS(100)), 10, FINISH, 0),
            (Failed, Code::from(99), Absent, 10, FINISH, 0),
            // 9: the throttle, after this failure.
            (Failed, unavailable, Absent, 7, next(200), -1_000),
            (Failed, unavailable, Absent, 6, FINISH, -1_000),
            (Failed, unavailable, After(MS(0)), 6, FINISH, -1_000),
            (Failed, unavailable, Absent, 0, FINISH, 0),
            // 11: the pause.
            (Failed, unavailable, Absent, 10, next(200), -1_000),
            (Failed, unavailable, After(MS(0)), 10, NOW, -1_000),
            (Failed, unavailable, After(MS(700)), 10, next(700), -1_000),
        ];
        for (kind, code, pushback, tokens, expected, counted) in rows {
            let throttle = throttle(tokens);
            let before = throttle.left() as i64;
            let end = end(kind, code, pushback);
            let decision = Schedule::retry(policy()).after(&end, 0.0, &throttle);
            assert_eq!(rounded(decision), expected, "{end:?} with {tokens}");
            assert_eq!(
                throttle.left() as i64 - before,
                counted,
                "{end:?} with {tokens}"
            );
        }
    }

    #[test]
    fn the_last_attempt_is_not_followed_even_if_the_server_asks_for_it() {
        for pushback in [Absent, After(MS(10))] {
            let (throttle, mut schedule) = (RetryThrottle::default(), Schedule::retry(policy()));
            let failed = end(Failed, Code::UNAVAILABLE, Absent);
            for previous in 0..3 {
                assert_eq!(schedule.start(), previous);
                let decision = schedule.after(&failed, 0.0, &throttle);
                assert!(matches!(decision, Decision::Next { .. }));
            }
            assert_eq!(schedule.start(), 3);
            let last = end(Failed, Code::UNAVAILABLE, pushback);
            assert_eq!(schedule.after(&last, 0.0, &throttle), FINISH);
        }
    }

    /// The attempts that a server refuses or fails, the number of earlier attempts that each reports, and the decision
    /// after the last of them.
    #[test]
    fn refused_attempts_are_repeated_once_and_only_before_one_was_processed() {
        let repeat = Decision::Repeat;
        let rows: [(&[EndKind], &[u32], Decision); 6] = [
            (&[Unprocessed], &[0], repeat),
            (&[Unprocessed, Unprocessed], &[0, 0], next(200)),
            (&[Unprocessed, Failed], &[0, 0], next(200)),
            (&[Failed, Unprocessed], &[0, 1], next(400)),
            (
                &[NotSent, NotSent, Unprocessed, NotSent],
                &[0, 0, 0, 0],
                repeat,
            ),
            (&[Failed, NotSent, Failed, NotSent], &[0, 1, 1, 2], repeat),
        ];
        for (kinds, previous, expected) in rows {
            let (throttle, mut schedule) = (RetryThrottle::default(), Schedule::retry(policy()));
            let mut decision = NOW;
            for (kind, previous) in kinds.iter().zip(previous) {
                assert_eq!(schedule.start(), *previous, "{kinds:?}");
                decision = schedule.after(&end(*kind, Code::UNAVAILABLE, Absent), 0.0, &throttle);
            }
            assert_eq!(rounded(decision), expected, "{kinds:?}");
        }
    }

    #[test]
    fn a_stopped_policy_has_transparent_retries_only() {
        let throttle = throttle(10);
        let mut stopped = Schedule::retry(policy());
        stopped.stop();
        let failed = |kind| end(kind, Code::UNAVAILABLE, After(MS(1)));
        assert_eq!(
            stopped.after(&failed(NotSent), 0.0, &throttle),
            Decision::Repeat
        );
        assert_eq!(
            stopped.after(&failed(Unprocessed), 0.0, &throttle),
            Decision::Repeat
        );
        assert_eq!(stopped.after(&failed(Unprocessed), 0.0, &throttle), FINISH);
        assert_eq!(stopped.after(&failed(Failed), 0.0, &throttle), FINISH);
    }

    fn pauses(policy: RetryPolicy, pushbacks: &[Pushback], random: f64) -> Vec<u64> {
        let throttle = RetryThrottle::default();
        let mut schedule = Schedule::retry(RetryPolicy {
            max_attempts: u32::MAX,
            ..policy
        });
        let mut pause = |pushback| {
            let end = end(Failed, Code::UNAVAILABLE, pushback);
            match rounded(schedule.after(&end, random, &throttle)) {
                Decision::Next { delay } => delay.as_millis() as u64,
                other => panic!("{other:?}"),
            }
        };
        pushbacks.iter().map(|pushback| pause(*pushback)).collect()
    }

    #[test]
    fn pauses_grow_up_to_the_limit_vary_by_a_fifth_and_begin_again_after_pushback() {
        let of = |initial, max, multiplier| RetryPolicy {
            initial_backoff: MS(initial),
            max_backoff: MS(max),
            backoff_multiplier: multiplier,
            ..policy()
        };
        let (none, after) = ([Absent; 5], After(MS(50)));
        let after_pushback = [Absent, Absent, after, Absent, Absent];
        let rows: [(RetryPolicy, &[Pushback], f64, [u64; 5]); 9] = [
            (policy(), &none, 0.0, [200, 400, 800, 1_000, 1_000]),
            (policy(), &none, -1.0, [160, 320, 640, 800, 800]),
            (policy(), &none, 1.0, [240, 480, 960, 1_200, 1_200]),
            // A pushback is exact.
            (policy(), &after_pushback, 0.0, [200, 400, 50, 200, 400]),
            (policy(), &after_pushback, 1.0, [240, 480, 50, 240, 480]),
            (of(2_000, 300, 2.0), &none, 0.0, [300; 5]),
            (of(200, 1_000, 0.5), &none, 0.0, [200, 100, 50, 25, 13]),
            (
                of(200, 1_000, f64::INFINITY),
                &none,
                0.0,
                [200, 1_000, 1_000, 1_000, 1_000],
            ),
            (
                of(200, 1_000, f64::NAN),
                &none,
                0.0,
                [200, 1_000, 1_000, 1_000, 1_000],
            ),
        ];
        for (policy, pushbacks, random, expected) in rows {
            let found = pauses(policy.clone(), pushbacks, random);
            assert_eq!(found, expected, "{policy:?} {pushbacks:?} {random}");
        }
    }

    #[test]
    fn a_backoff_that_a_duration_cannot_hold_is_the_longest() {
        let policy = RetryPolicy {
            initial_backoff: Duration::MAX,
            max_backoff: Duration::MAX,
            ..policy()
        };
        let mut schedule = Schedule::retry(policy);
        let end = end(Failed, Code::UNAVAILABLE, Absent);
        let decision = schedule.after(&end, 1.0, &RetryThrottle::default());
        let delay = Duration::MAX;
        assert_eq!(decision, Decision::Next { delay });
    }

    /// Decisions after one of two hedges. Columns as for retries.
    #[test]
    fn the_ladder_of_a_hedging_policy() {
        let (unavailable, internal, ok) = (Code::UNAVAILABLE, Code::INTERNAL, Code::OK);
        let rows = [
            (Dropped, unavailable, Absent, 10, Decision::Stop, 0),
            (NotSent, internal, Absent, 0, Decision::Repeat, 0),
            (Unprocessed, internal, Absent, 0, Decision::Repeat, 0),
            (Failed, ok, Never, 8, FINISH, 0),
            (Failed, unavailable, Never, 10, Decision::Stop, -1_000),
            (Failed, internal, Never, 10, FINISH, -1_000),
            (Failed, internal, After(MS(100)), 10, FINISH, 0),
            (Failed, unavailable, Absent, 10, NOW, -1_000),
            (Failed, unavailable, After(MS(0)), 10, NOW, -1_000),
            (Failed, unavailable, After(MS(700)), 10, next(700), -1_000),
        ];
        for (kind, code, pushback, tokens, expected, counted) in rows {
            let throttle = throttle(tokens);
            let before = throttle.left() as i64;
            let mut schedule = hedging();
            assert_eq!((schedule.start(), schedule.start()), (0, 1));
            let end = end(kind, code, pushback);
            assert_eq!(schedule.after(&end, 0.0, &throttle), expected, "{end:?}");
            assert_eq!(throttle.left() as i64 - before, counted, "{end:?}");
            let has_stopped = expected == Decision::Stop;
            assert_eq!(
                schedule.overlap(),
                (!has_stopped).then_some(MS(300)),
                "{end:?}"
            );
        }
    }

    #[test]
    fn hedges_start_up_to_their_number_and_a_refused_one_is_replaced_once() {
        let (throttle, mut schedule) = (RetryThrottle::default(), hedging());
        for started in 1..=4 {
            assert!(schedule.permits(&throttle));
            assert_eq!(schedule.start(), started - 1);
            assert_eq!(schedule.overlap().is_some(), started < 4);
        }
        assert!(!schedule.permits(&throttle));
        let refused = end(Unprocessed, Code::UNAVAILABLE, Absent);
        assert_eq!(schedule.after(&refused, 0.0, &throttle), Decision::Repeat);
        assert_eq!(schedule.after(&refused, 0.0, &throttle), Decision::Stop);
        let failed = end(Failed, Code::UNAVAILABLE, After(MS(1)));
        assert_eq!(schedule.after(&failed, 0.0, &throttle), Decision::Stop);
    }

    #[test]
    fn a_throttled_hedge_ends_the_policy_and_the_first_attempt_is_never_throttled() {
        let (throttle, mut schedule) = (throttle(5), hedging());
        assert!(schedule.permits(&throttle));
        schedule.start();
        assert!(!schedule.permits(&throttle));
        throttle.reconfigure(None);
        assert!(!schedule.permits(&throttle) && schedule.overlap().is_none());
    }
}
