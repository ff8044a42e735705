//! Throttling of retries, so that they do not overload servers that fail (gRFC A6, "Throttling Retry Attempts and
//! Hedged RPCs").

use std::sync::atomic::{AtomicU64, Ordering};

use crate::balancing::{AttemptTracker, Outcome};
use crate::config::RetryThrottling;

/// The thousandths of a token that a failure takes.
const FAILURE: u64 = 1_000;

/// Bits of each of the three numbers: a service config has at most 1,000 tokens.
const BITS: u32 = 20;
const LARGEST: u64 = (1 << BITS) - 1;

/// The tokens of a channel, which all its calls share. It outlives changes of the service config.
///
/// Without a configuration it permits every retry.
#[derive(Debug, Default)]
pub(crate) struct RetryThrottle(
    /// The tokens, their maximum and the ratio in one number, so that calls never see one without the others.
    AtomicU64,
);

#[derive(Clone, Copy, PartialEq, Eq)]
struct Tokens {
    /// In thousandths, like all of these.
    left: u64,
    /// Zero without a configuration.
    max: u64,
    ratio: u64,
}

impl RetryThrottle {
    /// Takes over a configuration. The tokens keep their fraction of the maximum: a config that is resolved again does
    /// not refill them.
    pub(crate) fn reconfigure(&self, config: Option<RetryThrottling>) {
        let number = |of: fn(RetryThrottling) -> u32| config.map_or(0, of).into();
        let max = LARGEST.min(number(|config| config.max_tokens));
        let ratio = LARGEST.min(number(|config| config.token_ratio));
        self.change(|tokens| Tokens {
            left: match tokens.max {
                0 => max,
                before => tokens.left * max / before,
            },
            max,
            ratio,
        });
    }

    /// Returns true if there is a configuration.
    #[inline]
    pub(crate) fn is_configured(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Counts a failed attempt.
    pub(crate) fn count_failure(&self) {
        self.change(|tokens| Tokens {
            left: tokens.left.saturating_sub(FAILURE),
            ..tokens
        });
    }

    /// Counts an attempt that has ended with OK.
    fn count_success(&self) {
        self.change(|tokens| Tokens {
            left: tokens.max.min(tokens.left + tokens.ratio),
            ..tokens
        });
    }

    /// Returns true if a retry or a hedge may follow: more than half of the tokens are left.
    pub(crate) fn permits(&self) -> bool {
        let tokens = Tokens::unpack(self.0.load(Ordering::Relaxed));
        tokens.max == 0 || tokens.left * 2 > tokens.max
    }

    /// Creates a full throttle, in thousandths of tokens.
    #[cfg(test)]
    pub(crate) fn full(max_tokens: u32, token_ratio: u32) -> Self {
        let throttle = Self::default();
        throttle.reconfigure(Some(RetryThrottling {
            max_tokens,
            token_ratio,
        }));
        throttle
    }

    /// Returns the tokens that are left, in thousandths.
    #[cfg(test)]
    pub(crate) fn left(&self) -> u64 {
        Tokens::unpack(self.0.load(Ordering::Relaxed)).left
    }

    fn change(&self, change: impl Fn(Tokens) -> Tokens) {
        let change = |packed| {
            let tokens = Tokens::unpack(packed);
            Some(change(tokens)).filter(|changed| *changed != tokens)
        };
        let _unchanged = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
                change(packed).map(Tokens::pack)
            });
    }
}

/// Each attempt that ends with OK counts, whatever its method.
impl AttemptTracker for RetryThrottle {
    fn ended(&self, _: usize, outcome: &Outcome<'_>) {
        if outcome.status.is_ok() {
            self.count_success();
        }
    }
}

impl Tokens {
    fn unpack(packed: u64) -> Self {
        Self {
            left: packed & LARGEST,
            max: (packed >> BITS) & LARGEST,
            ratio: packed >> (2 * BITS),
        }
    }

    fn pack(self) -> u64 {
        self.left | self.max << BITS | self.ratio << (2 * BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(max_tokens: u32, token_ratio: u32) -> Option<RetryThrottling> {
        Some(RetryThrottling {
            max_tokens,
            token_ratio,
        })
    }

    /// The failures in a row after which a retry is still permitted.
    fn permitted(throttle: &RetryThrottle) -> usize {
        (0..2_000)
            .take_while(|_| {
                throttle.count_failure();
                throttle.permits()
            })
            .count()
    }

    #[test]
    fn retries_end_at_half_of_the_tokens() {
        for (max, expected) in [
            (1_000, 0),
            (2_000, 0),
            (3_000, 1),
            (10_000, 4),
            (1_000_000, 499),
        ] {
            assert_eq!(permitted(&RetryThrottle::full(max, 1)), expected, "{max}");
        }
    }

    #[test]
    fn without_a_configuration_every_retry_is_permitted() {
        let throttle = RetryThrottle::default();
        assert_eq!(permitted(&throttle), 2_000);
        throttle.count_success();
        assert!(throttle.permits());
    }

    #[test]
    fn failures_stop_at_zero_and_successes_at_the_maximum() {
        let throttle = RetryThrottle::full(2_000, 500);
        for _ in 0..5 {
            throttle.count_failure();
        }
        // 0, .5, 1: half is not enough.
        for expected in [false, false, true, true, true, true] {
            throttle.count_success();
            assert_eq!(throttle.permits(), expected);
        }
        throttle.count_failure();
        assert!(!throttle.permits(), "no more than the maximum was returned");
    }

    #[test]
    fn a_ratio_above_the_maximum_refills_all() {
        let throttle = RetryThrottle::full(4_000, u32::MAX);
        for _ in 0..4 {
            throttle.count_failure();
        }
        throttle.count_success();
        assert_eq!(permitted(&throttle), 1);
    }

    #[test]
    fn a_change_of_the_configuration_keeps_the_filled_fraction() {
        let throttle = RetryThrottle::full(10_000, 100);
        for _ in 0..4 {
            throttle.count_failure();
        }
        assert!(throttle.permits(), "6 of 10");
        throttle.reconfigure(config(10_000, 100));
        assert!(throttle.permits(), "the same config again");
        throttle.reconfigure(config(100_000, 100));
        assert_eq!(permitted(&throttle), 9, "60 of 100");
        throttle.reconfigure(config(10_000, 100));
        assert!(!throttle.permits(), "5 of 10");
        throttle.reconfigure(None);
        assert!(throttle.permits(), "no throttling");
        throttle.reconfigure(config(10_000, 100));
        assert_eq!(permitted(&throttle), 4, "starts full");
    }

    #[test]
    fn concurrent_changes_are_all_counted() {
        let throttle = RetryThrottle::full(1_000_000, 1_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| throttle.count_failure()));
            }
        });
        assert_eq!(permitted(&throttle), 99);
    }
}
