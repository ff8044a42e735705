//! Weighted turns without a lock: the static stride scheduler, with which gRPC's implementations realize gRFC A58.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The scaled weight of the heaviest.
const WEIGHT_MAX: u16 = u16::MAX;

/// The largest ratio of a weight to the mean. It bounds what a server attracts that reports next to no load, and the
/// number of steps of a turn: on average, at most one in ten steps is taken.
const RATIO_MAX: f64 = 10.0;

/// The number of steps of a turn, in addition to one for each weight, after which it falls to the heaviest. A thread
/// on its own finds the heaviest within one round; the steps of other threads can skip it.
const EXTRA_STEPS: usize = 100;

/// Weights that take turns, each as often as it is heavy.
///
/// Time runs in generations, in each of which every weight is looked at once. A weight `w` is taken in `w` of 65,535
/// generations, evenly spread.
#[derive(Debug)]
pub(crate) struct StaticStride {
    weights: Box<[u16]>,
    heaviest: usize,
    next: Arc<AtomicUsize>,
}

impl StaticStride {
    /// Creates a scheduler of `weights`, in which a weight that is 0 counts as the mean of the others. `next` is the
    /// number of steps that were taken before. `None` if fewer than two weights are positive, so that plain turns do.
    pub(crate) fn new(weights: &[f64], next: Arc<AtomicUsize>) -> Option<Self> {
        let positive = || weights.iter().copied().filter(|weight| *weight > 0.0);
        let count = positive().count();
        if count < 2 {
            return None;
        }
        let mean = positive().sum::<f64>() / count as f64;
        let max = positive().fold(0.0, f64::max).min(RATIO_MAX * mean);
        let scaled = |weight: &f64| {
            let weight = if *weight > 0.0 { *weight } else { mean };
            // At least 1, so that each weight has a turn at some time.
            (weight * (f64::from(WEIGHT_MAX) / max))
                .round()
                .clamp(1.0, WEIGHT_MAX.into()) as u16
        };
        let weights: Box<[u16]> = weights.iter().map(scaled).collect();
        let heaviest = (0..weights.len()).max_by_key(|it| weights[*it])?;
        Some(Self {
            weights,
            heaviest,
            next,
        })
    }

    /// Returns the place of the weight whose turn it is.
    pub(crate) fn next(&self) -> usize {
        let len = self.weights.len() as u64;
        let max = u64::from(WEIGHT_MAX);
        for _ in 0..self.weights.len() + EXTRA_STEPS {
            let step = self.next.fetch_add(1, Ordering::Relaxed) as u64;
            let (generation, at) = (step / len, step % len);
            let weight = u64::from(self.weights[at as usize]);
            // The offset spreads weights that are alike over different generations.
            let place = weight * (generation % max) + at * (max / 2);
            if place % max >= max - weight {
                return at as usize;
            }
        }
        self.heaviest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(weights: &[f64], picks: usize) -> Vec<usize> {
        let stride = StaticStride::new(weights, Arc::default()).expect("two weights");
        let mut counts = vec![0; weights.len()];
        for _ in 0..picks {
            counts[stride.next()] += 1;
        }
        counts
    }

    /// Checks that each weight has its share of the turns within 3 %.
    fn check(counts: &[usize], shares: &[f64]) {
        let turns: usize = counts.iter().sum();
        let sum: f64 = shares.iter().sum();
        for (count, share) in counts.iter().zip(shares) {
            let expected = turns as f64 * share / sum;
            let error = (*count as f64 - expected).abs() / expected;
            assert!(error < 0.03, "{counts:?} for {shares:?}");
        }
    }

    #[test]
    fn weights_have_their_shares_of_the_turns() {
        for weights in [
            &[1.0, 2.0, 4.0][..],
            &[4.0, 1.0, 2.0],
            &[0.1, 0.2, 0.4],
            &[1e-300, 2e-300, 4e-300],
            &[1e300, 2e300, 4e300],
            &[3.0, 1.0],
            &[5.0, 5.0, 5.0, 1.0],
        ] {
            check(&counts(weights, 70_000), weights);
        }
    }

    #[test]
    fn weights_that_are_alike_take_strict_turns() {
        let stride = StaticStride::new(&[7.0; 3], Arc::new(AtomicUsize::new(1))).unwrap();
        let turns: Vec<_> = (0..6).map(|_| stride.next()).collect();
        assert_eq!(turns, [1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_weight_of_zero_counts_as_the_mean_of_the_others() {
        // (1 + 3) / 2 = 2
        check(
            &counts(&[1.0, 0.0, 3.0, 0.0], 80_000),
            &[1.0, 2.0, 3.0, 2.0],
        );
    }

    #[test]
    fn fewer_than_two_positive_weights_are_no_schedule() {
        for weights in [&[][..], &[1.0], &[0.0, 0.0], &[0.0, 2.0, 0.0]] {
            let stride = StaticStride::new(weights, Arc::default());
            assert!(stride.is_none(), "{weights:?}");
        }
    }

    #[test]
    fn no_weight_exceeds_ten_times_the_mean_and_each_has_a_turn() {
        let mut weights = vec![1.0; 99];
        weights.push(1e9);
        let stride = StaticStride::new(&weights, Arc::default()).unwrap();
        // The mean is 1e7 and the cap 1e8, so 1 becomes 65,535 / 1e8, which rounds to 0, and counts as 1.
        assert_eq!((stride.weights[0], stride.weights[99]), (1, 65_535));
        let huge = StaticStride::new(&[f64::MAX, f64::MAX, 1.0], Arc::default()).unwrap();
        assert!((0..100).all(|_| huge.next() < 3));
    }

    #[test]
    fn the_number_of_steps_continues_across_schedules_and_wraps() {
        let next = Arc::new(AtomicUsize::new(usize::MAX - 10));
        let before = StaticStride::new(&[1.0, 2.0, 4.0], next.clone()).unwrap();
        for _ in 0..100 {
            before.next();
        }
        let steps = next.load(Ordering::Relaxed).wrapping_add(11);
        assert!((100..1_000).contains(&steps), "{steps}");
    }

    #[test]
    fn sixteen_threads_share_the_turns() {
        let weights = [1.0, 2.0, 4.0];
        let stride = StaticStride::new(&weights, Arc::default()).unwrap();
        let counts: Vec<AtomicUsize> = weights.iter().map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        counts[stride.next()].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let counts: Vec<_> = counts.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        assert_eq!(counts.iter().sum::<usize>(), 160_000);
        check(&counts, &weights);
    }
}
