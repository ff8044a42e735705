//! The policies of a method that make further attempts.

use std::fmt;
use std::time::Duration;

use trunkline_codec::Code;

/// The `retryPolicy` of a method: a further attempt follows one that has failed (gRFC A6, "Retry Policy").
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The number of attempts, the first included: at least 2, and at most
    /// [`ChannelLimits::max_attempts`](crate::limits::ChannelLimits::max_attempts) (default: 5).
    pub max_attempts: u32,
    /// The pause before the first retry, without jitter.
    pub initial_backoff: Duration,
    /// The longest pause, without jitter.
    pub max_backoff: Duration,
    /// The factor from one pause to the next.
    pub backoff_multiplier: f64,
    /// The codes after which an attempt follows.
    pub retryable_codes: CodeSet,
}

/// The `hedgingPolicy` of a method: further attempts start while earlier ones run, and the first response wins
/// (gRFC A6, "Hedging Policy").
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HedgingPolicy {
    /// The number of attempts, the first included: at least 2, and at most
    /// [`ChannelLimits::max_attempts`](crate::limits::ChannelLimits::max_attempts) (default: 5).
    pub max_attempts: u32,
    /// The time from the start of one attempt to the start of the next. Zero starts all at once.
    pub hedging_delay: Duration,
    /// The codes that do not end the call while other attempts run or can follow.
    pub non_fatal_codes: CodeSet,
}

/// A set of status codes.
///
/// ```
/// # mod trunkline { pub use trunkline_channel as channel; pub use trunkline_codec::Code; }
/// use trunkline::Code;
/// use trunkline::channel::CodeSet;
///
/// let codes: CodeSet = [Code::UNAVAILABLE, Code::ABORTED].into_iter().collect();
/// assert!(codes.contains(Code::ABORTED));
/// assert!(!codes.contains(Code::OK));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CodeSet(u32);

impl CodeSet {
    /// The empty set.
    pub const EMPTY: Self = Self(0);

    /// Adds a code. A number without a name is not added, because no policy can list it.
    pub fn insert(&mut self, code: Code) {
        self.0 |= bit(code);
    }

    /// Returns true if the set contains `code`.
    #[inline]
    pub fn contains(self, code: Code) -> bool {
        self.0 & bit(code) != 0
    }

    /// Returns true if the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the codes in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Code> {
        Code::ALL
            .into_iter()
            .filter(move |code| self.contains(*code))
    }
}

fn bit(code: Code) -> u32 {
    match u32::try_from(code.as_i32()) {
        Ok(number) if (number as usize) < Code::ALL.len() => 1 << number,
        _ => 0,
    }
}

impl FromIterator<Code> for CodeSet {
    fn from_iter<I: IntoIterator<Item = Code>>(codes: I) -> Self {
        let mut set = Self::EMPTY;
        for code in codes {
            set.insert(code);
        }
        set
    }
}

impl fmt::Debug for CodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_contains_exactly_the_codes_that_were_inserted() {
        for inserted in Code::ALL {
            let set: CodeSet = [inserted].into_iter().collect();
            assert!(!set.is_empty());
            assert_eq!(set.iter().collect::<Vec<_>>(), [inserted]);
        }
        assert!(CodeSet::EMPTY.is_empty() && CodeSet::EMPTY.iter().count() == 0);
        assert_eq!(
            Code::ALL.into_iter().collect::<CodeSet>().iter().count(),
            17
        );
    }

    #[test]
    fn numbers_without_a_name_are_in_no_set() {
        for number in [17, 31, 32, 33, -1, i32::MAX, i32::MIN] {
            let mut set: CodeSet = Code::ALL.into_iter().collect();
            set.insert(Code::from(number));
            assert!(!set.contains(Code::from(number)), "{number}");
        }
    }
}
