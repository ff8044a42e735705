//! The pauses between attempts to connect, and after other failures (grpc/doc/connection-backoff.md).

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::limits::ChannelLimits;

/// The pauses after failures. Each is longer than the one before, up to a limit, and those of different clients differ.
///
/// ```
/// use trunkline_channel::ChannelLimits;
/// use trunkline_channel::backoff::Backoff;
///
/// let limits = ChannelLimits::default();
/// let mut backoff = Backoff::new(&limits);
/// assert_eq!(backoff.pause(&limits, 0.0).as_millis(), 1000);
/// assert_eq!(backoff.pause(&limits, 0.0).as_millis(), 1600);
/// ```
#[derive(Debug)]
pub struct Backoff {
    /// Before jitter.
    next: Duration,
}

impl Backoff {
    /// Creates the pauses from the first one on.
    pub fn new(limits: &ChannelLimits) -> Self {
        Self {
            next: limits.connect_backoff_base.min(limits.connect_backoff_max),
        }
    }

    /// Returns the time between the beginnings of two attempts. `random` is between -1 and 1.
    pub fn pause(&mut self, limits: &ChannelLimits, random: f64) -> Duration {
        let pause = self.next;
        let longer = pause.as_secs_f64() * limits.connect_backoff_multiplier;
        let longer = Duration::try_from_secs_f64(longer).unwrap_or(Duration::MAX);
        self.next = longer.min(limits.connect_backoff_max);
        // The document has none on the first pause. Ours: on that as well, because it is the one that
        // all clients of a server begin at the same moment.
        let factor = 1.0 + limits.connect_backoff_jitter.clamp(0.0, 1.0) * random;
        Duration::try_from_secs_f64(pause.as_secs_f64() * factor).unwrap_or(pause)
    }
}

/// Returns a random number between -1 and 1.
pub fn random() -> f64 {
    // The keys of each are other ones, from the system's source: enough for clients that are not to
    // come back together.
    let random = RandomState::new().hash_one(());
    (random as f64 / u64::MAX as f64).mul_add(2.0, -1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(limits: &ChannelLimits, random: f64) -> Vec<f64> {
        let mut backoff = Backoff::new(limits);
        let pauses = std::iter::repeat_with(|| backoff.pause(limits, random).as_secs_f64());
        let rounded = pauses.map(|pause| (pause * 1000.0).round() / 1000.0);
        rounded.take(13).collect()
    }

    #[test]
    fn pauses_grow_by_1_6_from_1_s_to_120_s_and_vary_by_a_fifth() {
        let limits = ChannelLimits::default();
        let exact = [
            1.0, 1.6, 2.56, 4.096, 6.554, 10.486, 16.777, 26.844, 42.95, 68.719, 109.951, 120.0,
            120.0,
        ];
        assert_eq!(pauses(&limits, 0.0), exact);
        for (random, factor) in [(-1.0, 0.8), (0.5, 1.1), (1.0, 1.2)] {
            for (pause, exact) in pauses(&limits, random).iter().zip(exact) {
                assert!((pause - exact * factor).abs() < 0.002, "{pause} {exact}");
            }
        }
        let randoms: Vec<f64> = std::iter::repeat_with(random).take(1000).collect();
        assert!(randoms.iter().all(|it| (-1.0..=1.0).contains(it)));
        let below = randoms.iter().filter(|it| **it < 0.0).count();
        assert!((350..650).contains(&below), "{below} of 1,000 are below 0");
    }

    #[test]
    fn limits_that_make_no_sense_make_no_panic() {
        let mut limits = ChannelLimits::default();
        for (multiplier, jitter) in [(f64::NAN, f64::NAN), (-1.0, 7.0), (f64::MAX, -3.0)] {
            limits.connect_backoff_multiplier = multiplier;
            limits.connect_backoff_jitter = jitter;
            for random in [-1.0, 1.0] {
                assert!(pauses(&limits, random).iter().all(|pause| *pause <= 240.0));
            }
        }
    }
}
