//! The decisions of outlier_detection: which endpoints fail too often, and for how long they are ejected (gRFC A50).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::tracker::{AttemptTracker, EndedBy, Outcome};

/// The settings of ejections. Shares are in percent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EjectionSettings {
    pub(super) base_time: Duration,
    pub(super) max_time: Duration,
    pub(super) max_percent: u32,
    /// `None` if the algorithm is off, here and below.
    pub(super) success_rate: Option<SuccessRateEjection>,
    pub(super) failure_percentage: Option<FailurePercentageEjection>,
}

/// Ejects endpoints whose success rate is far below the mean.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SuccessRateEjection {
    /// The distance from the mean, in thousandths of the standard deviation.
    pub(super) stdev_factor: u32,
    pub(super) scope: EjectionScope,
}

/// Ejects endpoints of whose calls too many fail.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FailurePercentageEjection {
    pub(super) threshold: u32,
    pub(super) scope: EjectionScope,
}

/// The endpoints to which an algorithm applies.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EjectionScope {
    /// The probability with which an outlier is ejected, in percent.
    pub(super) enforcement: u32,
    /// The number of endpoints with enough calls that the algorithm needs.
    pub(super) minimum_hosts: u32,
    /// The number of calls in an interval that an endpoint needs.
    pub(super) request_volume: u32,
}

/// Counts the calls to an endpoint since the last sweep. Its tracker has no token.
#[derive(Debug, Default)]
pub(super) struct CallCounter {
    successes: AtomicU64,
    failures: AtomicU64,
}

/// The calls to an endpoint between two sweeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CallCounts {
    successes: u64,
    failures: u64,
}

/// An endpoint whose calls are counted.
#[derive(Debug, Default)]
pub(super) struct Monitored {
    pub(super) calls: Arc<CallCounter>,
    ejected_at: Option<Instant>,
    /// The number of ejections, less the sweeps in which the endpoint was not ejected.
    multiplier: u32,
}

impl EjectionSettings {
    /// Returns true if calls are counted, because an algorithm is on.
    pub(super) fn counts(&self) -> bool {
        self.success_rate.is_some() || self.failure_percentage.is_some()
    }
}

impl CallCounter {
    /// Returns the calls that were counted, and begins again.
    pub(super) fn take(&self) -> CallCounts {
        CallCounts {
            successes: self.successes.swap(0, Ordering::Relaxed),
            failures: self.failures.swap(0, Ordering::Relaxed),
        }
    }
}

impl AttemptTracker for CallCounter {
    fn ended(&self, _: usize, outcome: &Outcome<'_>) {
        let is_known = match outcome.ended_by {
            EndedBy::Server | EndedBy::Connection => true,
            // A server that has sent something is not at fault for a deadline that was too short.
            EndedBy::Deadline => !outcome.has_responded,
            EndedBy::Caller | EndedBy::OtherAttempt | EndedBy::NotSent => false,
        };
        if is_known {
            let counter = match outcome.status {
                Ok(()) => &self.successes,
                Err(_) => &self.failures,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl CallCounts {
    fn total(self) -> u64 {
        self.successes + self.failures
    }

    fn success_rate(self) -> f64 {
        self.successes as f64 / self.total() as f64
    }

    fn failure_percentage(self) -> f64 {
        100.0 * self.failures as f64 / self.total() as f64
    }
}

impl EjectionScope {
    /// The places of the endpoints with enough calls, with these; empty if they are too few.
    fn of(&self, counts: &[CallCounts]) -> Vec<(usize, CallCounts)> {
        let volume = u64::from(self.request_volume).max(1);
        let counts = counts.iter().copied().enumerate();
        let counts: Vec<_> = counts.filter(|(_, it)| it.total() >= volume).collect();
        match counts.len() < self.minimum_hosts as usize {
            true => Vec::new(),
            false => counts,
        }
    }
}

impl Monitored {
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected_at.is_some()
    }

    /// Forgets calls and ejections.
    pub(super) fn reset(&mut self) {
        self.calls.take();
        (self.ejected_at, self.multiplier) = (None, 0);
    }

    /// Ends the ejection if its time has passed. An endpoint that is not ejected is forgiven an earlier ejection.
    fn release(&mut self, settings: &EjectionSettings, now: Instant) {
        let Some(ejected_at) = self.ejected_at else {
            self.multiplier = self.multiplier.saturating_sub(1);
            return;
        };
        let longest = settings.base_time.max(settings.max_time);
        let time = settings.base_time.saturating_mul(self.multiplier);
        if now.saturating_duration_since(ejected_at) > time.min(longest) {
            self.ejected_at = None;
        }
    }
}

/// Ejects the endpoints that were outliers since the last sweep, and ends ejections whose time has passed.
///
/// An endpoint that is ejected already, and whose last calls have only ended now, is not ejected once more.
pub(super) fn sweep(
    endpoints: &mut [Monitored],
    settings: &EjectionSettings,
    now: Instant,
    random: &mut dyn FnMut() -> u64,
) {
    let counts: Vec<_> = endpoints.iter().map(|it| it.calls.take()).collect();
    if let Some(algorithm) = &settings.success_rate {
        let counts = algorithm.scope.of(&counts);
        let rates = || counts.iter().map(|(_, it)| it.success_rate());
        let mean = rates().sum::<f64>() / counts.len() as f64;
        let variance = rates().map(|it| (it - mean).powi(2)).sum::<f64>() / counts.len() as f64;
        let least = mean - variance.sqrt() * f64::from(algorithm.stdev_factor) / 1_000.0;
        let outliers = counts.iter().filter(|(_, it)| it.success_rate() < least);
        let places = outliers.map(|(at, _)| *at);
        eject(endpoints, places, &algorithm.scope, settings, now, random);
    }
    if let Some(algorithm) = &settings.failure_percentage {
        let counts = algorithm.scope.of(&counts);
        let most = f64::from(algorithm.threshold);
        let outliers = counts
            .iter()
            .filter(|(_, it)| it.failure_percentage() > most);
        let places = outliers.map(|(at, _)| *at);
        eject(endpoints, places, &algorithm.scope, settings, now, random);
    }
    for endpoint in endpoints {
        endpoint.release(settings, now);
    }
}

/// Ejects outliers until too many endpoints are ejected. The check comes first, so that one can always be ejected unless
/// the share is 0.
fn eject(
    endpoints: &mut [Monitored],
    outliers: impl Iterator<Item = usize>,
    scope: &EjectionScope,
    settings: &EjectionSettings,
    now: Instant,
    random: &mut dyn FnMut() -> u64,
) {
    let ejected = endpoints.iter().filter(|it| it.is_ejected());
    let (mut ejected, all) = (ejected.count() as u64, endpoints.len() as u64);
    for at in outliers {
        if 100 * ejected >= u64::from(settings.max_percent) * all {
            return;
        }
        let endpoint = &mut endpoints[at];
        if !endpoint.is_ejected() && random() % 100 < u64::from(scope.enforcement) {
            endpoint.ejected_at = Some(now);
            endpoint.multiplier = endpoint.multiplier.saturating_add(1);
            ejected += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use trunkline_codec::Status;

    use super::*;

    fn scope(enforcement: u32, minimum_hosts: u32, request_volume: u32) -> EjectionScope {
        EjectionScope {
            enforcement,
            minimum_hosts,
            request_volume,
        }
    }

    /// The defaults, with up to 100 % of the endpoints.
    fn settings() -> EjectionSettings {
        EjectionSettings {
            base_time: Duration::from_secs(30),
            max_time: Duration::from_secs(300),
            max_percent: 100,
            success_rate: None,
            failure_percentage: None,
        }
    }

    fn by_success_rate(scope: EjectionScope) -> EjectionSettings {
        EjectionSettings {
            success_rate: Some(SuccessRateEjection {
                stdev_factor: 1_900,
                scope,
            }),
            ..settings()
        }
    }

    fn by_failure_percentage(scope: EjectionScope) -> EjectionSettings {
        EjectionSettings {
            failure_percentage: Some(FailurePercentageEjection {
                threshold: 85,
                scope,
            }),
            ..settings()
        }
    }

    fn count(endpoint: &Monitored, successes: u64, failures: u64) {
        endpoint
            .calls
            .successes
            .fetch_add(successes, Ordering::Relaxed);
        endpoint
            .calls
            .failures
            .fetch_add(failures, Ordering::Relaxed);
    }

    /// Endpoints of which each has had this many successes and failures.
    fn endpoints(calls: &[(u64, u64)]) -> Vec<Monitored> {
        let endpoints: Vec<_> = calls.iter().map(|_| Monitored::default()).collect();
        for (endpoint, (successes, failures)) in endpoints.iter().zip(calls) {
            count(endpoint, *successes, *failures);
        }
        endpoints
    }

    /// The endpoints that one sweep ejects.
    fn ejects(calls: &[(u64, u64)], settings: &EjectionSettings) -> Vec<usize> {
        let mut endpoints = endpoints(calls);
        sweep(&mut endpoints, settings, Instant::now(), &mut || 0);
        let places = 0..endpoints.len();
        places.filter(|at| endpoints[*at].is_ejected()).collect()
    }

    /// One outlier among n is (n - 1) / sqrt(n - 1) standard deviations below the mean: 2 of 5, 1.73 of 4, whatever its
    /// rate.
    #[test]
    fn an_endpoint_is_ejected_whose_success_rate_is_far_below_the_mean() {
        let good = (100, 0);
        let settings = by_success_rate(scope(100, 2, 100));
        for (calls, expected) in [
            (&[good, good, (0, 100), good, good][..], &[2][..]),
            (&[good, good, (50, 50), good, good], &[2]),
            (&[good, good, (99, 1), good, good], &[2]),
            (&[good, (0, 100), good, good], &[]),
            (&[good; 5], &[]),
            (&[(0, 100); 5], &[]),
            // The mean is 0.6, the deviation 0.49, and 0.6 - 0.93 is below 0.
            (&[good, good, good, (0, 100), (0, 100)], &[]),
            // Of 10: 0.8 - 1.9 * 0.4 = 0.04.
            (
                &[
                    good,
                    good,
                    good,
                    good,
                    good,
                    good,
                    good,
                    good,
                    (0, 100),
                    (0, 100),
                ],
                &[8, 9],
            ),
            (&[], &[]),
        ] {
            assert_eq!(ejects(calls, &settings), expected, "{calls:?}");
        }
        let mut nearer = settings;
        nearer.success_rate.as_mut().unwrap().stdev_factor = 1_700;
        assert_eq!(ejects(&[good, (0, 100), good, good], &nearer), [1]);
    }

    #[test]
    fn an_endpoint_is_ejected_of_whose_calls_too_many_fail() {
        let settings = by_failure_percentage(scope(100, 1, 50));
        for (calls, expected) in [
            (&[(15, 85)][..], &[][..]),
            (&[(14, 86)], &[0]),
            (&[(0, 50), (50, 0), (0, 50)], &[0, 2]),
            (&[(0, 49)], &[]),
        ] {
            assert_eq!(ejects(calls, &settings), expected, "{calls:?}");
        }
        let mut never = settings;
        never.failure_percentage.as_mut().unwrap().threshold = 100;
        assert_eq!(ejects(&[(0, 100)], &never), [0; 0]);
    }

    #[test]
    fn endpoints_and_calls_must_be_enough() {
        let calls = |with: u64| [(100, 0), (100, 0), (0, 100), (100, 0), (with, 0)];
        for algorithm in [by_success_rate, by_failure_percentage] {
            assert_eq!(ejects(&calls(100), &algorithm(scope(100, 5, 100))), [2]);
            assert_eq!(ejects(&calls(99), &algorithm(scope(100, 5, 100))), [0; 0]);
            assert_eq!(ejects(&calls(100), &algorithm(scope(100, 6, 100))), [0; 0]);
            // Endpoints without calls never count.
            assert_eq!(ejects(&calls(0), &algorithm(scope(100, 5, 0))), [0; 0]);
            assert_eq!(ejects(&[], &algorithm(scope(100, 0, 0))), [0; 0]);
        }
    }

    #[test]
    fn the_share_of_ejected_endpoints_is_limited_but_one_is_always_allowed() {
        // Before each ejection: 100 * ejected >= percent * endpoints.
        for (max_percent, endpoints, expected) in [
            (0, 10, 0),
            (1, 10, 1),
            (10, 10, 1),
            (11, 10, 2),
            (20, 10, 2),
            (100, 10, 10),
            (10, 1, 1),
            (50, 3, 2),
        ] {
            let settings = EjectionSettings {
                max_percent,
                ..by_failure_percentage(scope(100, 1, 1))
            };
            let calls = vec![(0, 100); endpoints];
            let ejected = ejects(&calls, &settings).len();
            assert_eq!(ejected, expected, "{max_percent} % of {endpoints}");
        }
    }

    #[test]
    fn outliers_are_ejected_with_the_probability_of_the_enforcement() {
        let with = |enforcement: u32, random: u64| {
            let settings = by_failure_percentage(scope(enforcement, 1, 1));
            let mut endpoints = endpoints(&[(0, 1)]);
            sweep(&mut endpoints, &settings, Instant::now(), &mut || random);
            endpoints[0].is_ejected()
        };
        assert_eq!([with(50, 49), with(50, 50)], [true, false]);
        assert_eq!([with(50, 1_049), with(50, 1_050)], [true, false]);
        assert_eq!([with(0, 0), with(100, 99)], [false, true]);
    }

    #[test]
    fn each_ejection_lasts_longer_and_sweeps_without_one_forgive() {
        let settings = by_failure_percentage(scope(100, 1, 1));
        let start = Instant::now();
        let mut endpoints = endpoints(&[(0, 1), (1, 0)]);
        let mut at = |seconds: u64, failures: u64| {
            count(&endpoints[0], 0, failures);
            let now = start + Duration::from_secs(seconds);
            sweep(&mut endpoints, &settings, now, &mut || 0);
            (endpoints[0].is_ejected(), endpoints[0].multiplier)
        };
        assert_eq!(at(10, 0), (true, 1));
        // Calls that end late do not eject it once more.
        assert_eq!(at(20, 5), (true, 1));
        assert_eq!(at(40, 0), (true, 1), "not more than 30 s");
        assert_eq!(at(50, 0), (false, 1));
        assert_eq!(at(60, 1), (true, 2));
        assert_eq!(at(120, 0), (true, 2));
        assert_eq!(at(130, 0), (false, 2));
        assert_eq!(at(140, 0), (false, 1));
        assert_eq!(at(150, 0), (false, 0));
        assert_eq!(at(160, 0), (false, 0));
        assert_eq!(at(170, 1), (true, 1));
        assert_eq!(at(201, 0), (false, 1));
    }

    #[test]
    fn no_ejection_is_longer_than_the_limit_or_the_base() {
        // 30 s * 11 = 330 s; and a limit below the base does not count.
        for (base, max, multiplier, longest) in [(30, 300, 11, 300), (30, 10, 5, 30), (1, 9, 4, 4)]
        {
            let settings = EjectionSettings {
                base_time: Duration::from_secs(base),
                max_time: Duration::from_secs(max),
                ..settings()
            };
            let now = Instant::now();
            let mut endpoint = Monitored {
                ejected_at: Some(now),
                multiplier,
                ..Monitored::default()
            };
            let end = now + Duration::from_secs(longest);
            endpoint.release(&settings, end);
            assert!(endpoint.is_ejected(), "{base} {max}");
            endpoint.release(&settings, end + Duration::from_millis(1));
            assert!(!endpoint.is_ejected(), "{base} {max}");
        }
    }

    #[test]
    fn an_endpoint_is_ejected_once_by_both_algorithms() {
        let settings = EjectionSettings {
            failure_percentage: by_failure_percentage(scope(100, 1, 1)).failure_percentage,
            ..by_success_rate(scope(100, 5, 1))
        };
        let mut endpoints = endpoints(&[(1, 0), (1, 0), (0, 1), (1, 0), (1, 0)]);
        sweep(&mut endpoints, &settings, Instant::now(), &mut || 0);
        assert_eq!(
            (endpoints[2].is_ejected(), endpoints[2].multiplier),
            (true, 1)
        );
    }

    #[test]
    fn calls_count_unless_their_end_says_nothing_about_the_server() {
        let status = Status::not_found("");
        let (ok, failed) = (Ok(()), Err(&status));
        let none = (0, 0);
        for (status, ended_by, has_responded, expected) in [
            (ok, EndedBy::Server, true, (1, 0)),
            (failed, EndedBy::Server, true, (0, 1)),
            (failed, EndedBy::Server, false, (0, 1)),
            (failed, EndedBy::Connection, true, (0, 1)),
            (failed, EndedBy::Deadline, false, (0, 1)),
            (failed, EndedBy::Deadline, true, none),
            (failed, EndedBy::Caller, true, none),
            (failed, EndedBy::OtherAttempt, false, none),
            (failed, EndedBy::NotSent, false, none),
        ] {
            let calls = CallCounter::default();
            let mut outcome = Outcome::new(status, ended_by);
            outcome.has_responded = has_responded;
            calls.ended(0, &outcome);
            let counts = calls.take();
            let counted = (counts.successes, counts.failures);
            assert_eq!(counted, expected, "{ended_by:?} {has_responded}");
            assert_eq!(calls.take().total(), 0);
        }
    }
}
