//! Latencies: counted in buckets that are at most 0.8 % wide, in memory that stays the same.

/// Buckets for each power of two.
const STEPS: u64 = 128;
/// 2^40 ns is 18 minutes.
const POWERS: u64 = 40;

/// How often which latency was seen.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u32>,
    len: u64,
    max: u64,
}

impl Histogram {
    /// Nothing seen yet.
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; (STEPS * (POWERS - 6)) as usize],
            len: 0,
            max: 0,
        }
    }

    /// Adds a latency in nanoseconds.
    pub(crate) fn add(&mut self, nanos: u64) {
        let at = bucket(nanos).min(self.counts.len() - 1);
        self.counts[at] += 1;
        self.len += 1;
        self.max = self.max.max(nanos);
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.counts.fill(0);
        (self.len, self.max) = (0, 0);
    }

    /// How many were seen.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The longest, in nanoseconds.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The smallest latency that at least `share` of all did not exceed, in nanoseconds: nearest
    /// rank, to the middle of its bucket. 0 if none was seen.
    pub(crate) fn percentile(&self, share: f64) -> u64 {
        let rank = ((self.len as f64 * share).ceil() as u64).clamp(1, self.len.max(1));
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank {
                return middle(at).min(self.max);
            }
        }
        self.max
    }
}

/// Below [`STEPS`] a bucket is one nanosecond; from there, each power of two has `STEPS` buckets.
fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let power = u64::from(nanos.ilog2()) - u64::from(STEPS.ilog2());
    (STEPS * power + (nanos >> power)) as usize
}

fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let power = bucket / STEPS - 1;
    let low = (bucket - STEPS * power) << power;
    low + (1 << power) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_lies_within_half_a_percent_of_the_middle_of_its_bucket() {
        let mut last = 0;
        for exponent in 0..4_000 {
            let nanos = 1.007_f64.powi(exponent) as u64;
            if nanos > 1 << 39 {
                break;
            }
            let at = bucket(nanos);
            assert!(at >= last, "{nanos}");
            last = at;
            let error = (middle(at) as f64 - nanos as f64).abs() / nanos as f64;
            assert!(error <= 0.004, "{nanos} is taken for {}", middle(at));
        }
        assert!(last < Histogram::new().counts.len());
    }

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let mut seen = Histogram::new();
        assert_eq!(seen.percentile(0.5), 0);
        for nanos in 1..=100 {
            seen.add(nanos);
        }
        for (share, expected) in [
            (0.0, 1),
            (0.5, 50),
            (0.501, 51),
            (0.99, 99),
            (0.999, 100),
            (1.0, 100),
        ] {
            assert_eq!(seen.percentile(share), expected, "{share}");
        }
        assert_eq!((seen.len(), seen.max()), (100, 100));
        seen.clear();
        seen.add(u64::MAX);
        assert_eq!(seen.max(), u64::MAX);
        seen.clear();
        seen.add(1_000_000);
        assert_eq!(seen.percentile(0.999), 1_000_000);
    }
}
