//! The weight of an endpoint by the load that its server reports (gRFC A58, A114).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_codec::LoadReport;

/// The settings of weights, as the configuration of weighted_round_robin has them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WeightSettings {
    pub(super) blackout: Duration,
    pub(super) expiration: Duration,
    /// The factor by which the share of failed calls adds to the utilization.
    pub(super) error_penalty: f64,
    /// The measures of which the largest is the utilization, if one is above 0.
    pub(super) metrics: Vec<UtilizationMetric>,
}

/// A measure in a load report (gRFC A114).
#[derive(Clone, Debug, PartialEq)]
pub(super) enum UtilizationMetric {
    Application,
    Cpu,
    Memory,
    Utilization(String),
    Named(String),
}

/// The weight of one endpoint. Calls and load reports change it, while the task of the channel reads it.
///
/// Times are nanoseconds since the epoch, plus 1; 0 stands for none.
#[derive(Debug)]
pub(super) struct LoadWeight {
    epoch: Instant,
    /// The bits of an `f64`.
    weight: AtomicU64,
    last_update: AtomicU64,
    non_empty_since: AtomicU64,
}

impl WeightSettings {
    fn utilization(&self, report: &LoadReport) -> f64 {
        let listed = self.metrics.iter().filter_map(|metric| metric.of(report));
        // The largest; NaN is left out.
        let listed = listed.fold(0.0, f64::max);
        match listed > 0.0 {
            true => listed,
            false if report.application_utilization > 0.0 => report.application_utilization,
            false => report.cpu_utilization,
        }
    }
}

impl UtilizationMetric {
    /// Parses a name such as `cpu_utilization` or `named_metrics.queue`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name.split_once('.') {
            None => match name {
                "application_utilization" => Some(Self::Application),
                "cpu_utilization" => Some(Self::Cpu),
                "mem_utilization" => Some(Self::Memory),
                _ => None,
            },
            Some(("utilization", key)) => Some(Self::Utilization(key.to_owned())),
            Some(("named_metrics", key)) => Some(Self::Named(key.to_owned())),
            Some(_) => None,
        }
    }

    fn of(&self, report: &LoadReport) -> Option<f64> {
        match self {
            Self::Application => Some(report.application_utilization),
            Self::Cpu => Some(report.cpu_utilization),
            Self::Memory => Some(report.mem_utilization),
            Self::Utilization(key) => report.utilization.get(key).copied(),
            Self::Named(key) => report.named_metrics.get(key).copied(),
        }
    }
}

impl LoadWeight {
    pub(super) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            weight: AtomicU64::new(0),
            last_update: AtomicU64::new(0),
            non_empty_since: AtomicU64::new(0),
        }
    }

    /// Takes the weight from a report. One without a utilization or queries is ignored.
    pub(super) fn report(&self, report: &LoadReport, settings: &WeightSettings, now: Instant) {
        let (queries, mut utilization) = (report.rps_fractional, settings.utilization(report));
        // Also false for NaN, here and below.
        if !(utilization > 0.0 && queries > 0.0) {
            return;
        }
        if report.eps > 0.0 && settings.error_penalty > 0.0 {
            utilization += report.eps / queries * settings.error_penalty;
        }
        let weight = queries / utilization;
        if !(weight > 0.0 && weight.is_finite()) {
            return;
        }
        let now = self.time(now);
        self.weight.store(weight.to_bits(), Ordering::Relaxed);
        self.last_update.store(now, Ordering::Relaxed);
        // Only if it is not set: the first report begins the blackout.
        let (relaxed, unset) = (Ordering::Relaxed, 0);
        let _was_set = self
            .non_empty_since
            .compare_exchange(unset, now, relaxed, relaxed);
    }

    /// Returns the weight, or 0 if reports are too old, or have not come for long enough.
    pub(super) fn usable(&self, settings: &WeightSettings, now: Instant) -> f64 {
        let now = self.time(now);
        let age = |time: u64| Duration::from_nanos(now.saturating_sub(time));
        let last_update = self.last_update.load(Ordering::Relaxed);
        if last_update == 0 {
            return 0.0;
        }
        if age(last_update) >= settings.expiration {
            self.restart_blackout();
            return 0.0;
        }
        let since = self.non_empty_since.load(Ordering::Relaxed);
        let is_over = since != 0 && age(since) >= settings.blackout;
        match is_over || settings.blackout.is_zero() {
            true => f64::from_bits(self.weight.load(Ordering::Relaxed)),
            false => 0.0,
        }
    }

    /// Leaves the weight unused until reports have come for the blackout again, as after a new connection.
    pub(super) fn restart_blackout(&self) {
        self.non_empty_since.store(0, Ordering::Relaxed);
    }

    fn time(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> WeightSettings {
        WeightSettings {
            blackout: Duration::from_secs(10),
            expiration: Duration::from_secs(180),
            error_penalty: 1.0,
            metrics: Vec::new(),
        }
    }

    fn report(cpu: f64, application: f64, queries: f64, errors: f64) -> LoadReport {
        let mut report = LoadReport::default();
        report.cpu_utilization = cpu;
        report.application_utilization = application;
        report.rps_fractional = queries;
        report.eps = errors;
        report
    }

    /// The weight right after a report.
    fn weight(report: &LoadReport, settings: &WeightSettings) -> f64 {
        let now = Instant::now();
        let weight = LoadWeight::new(now);
        weight.report(report, settings, now);
        let settings = WeightSettings {
            blackout: Duration::ZERO,
            ..settings.clone()
        };
        weight.usable(&settings, now)
    }

    #[test]
    fn a_weight_is_queries_by_utilization_and_errors_reduce_it() {
        const NAN: f64 = f64::NAN;
        for (cpu, application, queries, errors, expected) in [
            (0.5, 0.0, 100.0, 0.0, 200.0),
            (0.5, 0.25, 100.0, 0.0, 400.0),
            (0.5, -1.0, 100.0, 0.0, 200.0),
            (0.5, NAN, 100.0, 0.0, 200.0),
            (0.5, 0.0, 100.0, 50.0, 100.0), // 100 / (0.5 + 50 / 100)
            (0.5, 0.0, 100.0, -50.0, 200.0),
            (0.5, 0.0, 100.0, NAN, 200.0),
            (2.0, 0.0, 100.0, 0.0, 50.0),
            (0.0, 0.0, 100.0, 0.0, 0.0),
            (-0.5, 0.0, 100.0, 0.0, 0.0),
            (NAN, 0.0, 100.0, 0.0, 0.0),
            (f64::INFINITY, 0.0, 100.0, 0.0, 0.0),
            (0.5, 0.0, 0.0, 0.0, 0.0),
            (0.5, 0.0, -1.0, 0.0, 0.0),
            (0.5, 0.0, NAN, 0.0, 0.0),
            (0.5, 0.0, f64::INFINITY, 0.0, 0.0),
            (0.5, 0.0, 100.0, f64::INFINITY, 0.0),
        ] {
            let report = report(cpu, application, queries, errors);
            assert_eq!(weight(&report, &settings()), expected, "{report:?}");
        }
        let penalty = |error_penalty: f64| WeightSettings {
            error_penalty,
            ..settings()
        };
        let report = report(0.5, 0.0, 100.0, 25.0);
        assert_eq!(weight(&report, &penalty(0.0)), 200.0);
        assert_eq!(weight(&report, &penalty(2.0)), 100.0); // 100 / (0.5 + 0.25 * 2)
    }

    #[test]
    fn the_largest_of_the_listed_metrics_is_the_utilization() {
        let mut report = report(0.5, 0.25, 100.0, 0.0);
        report.mem_utilization = 0.125;
        report.utilization.insert("gpu".to_owned(), 0.75);
        report.utilization.insert("a.b".to_owned(), 1.0);
        report.named_metrics.insert("nan".to_owned(), f64::NAN);
        report.named_metrics.insert("negative".to_owned(), -4.0);
        report.named_metrics.insert("gpu".to_owned(), 2.0);
        report.named_metrics.insert(String::new(), 4.0);
        for (listed, expected) in [
            (&["cpu_utilization"][..], 0.5),
            (&["mem_utilization"], 0.125),
            (&["mem_utilization", "application_utilization"], 0.25),
            (&["utilization.gpu"], 0.75),
            (&["utilization.a.b"], 1.0),
            (&["named_metrics.gpu", "cpu_utilization"], 2.0),
            (&["named_metrics."], 4.0),
            (&["named_metrics.nan", "mem_utilization"], 0.125),
            // None is above 0, so the application's counts.
            (&["named_metrics.nan", "named_metrics.negative"], 0.25),
            (&["named_metrics.absent"], 0.25),
        ] {
            let metrics = listed
                .iter()
                .map(|it| UtilizationMetric::parse(it).unwrap());
            let settings = WeightSettings {
                metrics: metrics.collect(),
                ..settings()
            };
            let weight = weight(&report, &settings);
            assert_eq!(weight, 100.0 / expected, "{listed:?}");
        }
        for unknown in ["", "cpu", "eps", "request_cost.db", "utilization"] {
            assert_eq!(UtilizationMetric::parse(unknown), None, "{unknown:?}");
        }
    }

    /// The defaults: a blackout of 10 s and an expiration of 180 s.
    #[test]
    fn a_weight_is_used_between_blackout_and_expiration() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let weight = LoadWeight::new(start);
        let usable = |seconds: u64| weight.usable(&settings(), at(seconds));
        let report = report(0.5, 0.0, 100.0, 0.0);
        assert_eq!(usable(0), 0.0, "nothing was reported");
        weight.report(&report, &settings(), at(0));
        assert_eq!([usable(0), usable(9), usable(10)], [0.0, 0.0, 200.0]);
        // A connection is lost and comes back.
        weight.restart_blackout();
        assert_eq!(usable(20), 0.0);
        weight.report(&report, &settings(), at(21));
        weight.report(&report, &settings(), at(25));
        assert_eq!([usable(30), usable(31)], [0.0, 200.0]);
        assert_eq!([usable(204), usable(205)], [200.0, 0.0]);
        // The expiration begins the blackout again.
        weight.report(&report, &settings(), at(206));
        assert_eq!([usable(215), usable(216)], [0.0, 200.0]);
        let at_once = WeightSettings {
            blackout: Duration::ZERO,
            ..settings()
        };
        weight.restart_blackout();
        assert_eq!(weight.usable(&at_once, at(217)), 200.0);
    }

    #[test]
    fn a_report_that_is_ignored_does_not_begin_the_blackout() {
        let start = Instant::now();
        let weight = LoadWeight::new(start);
        weight.report(&report(0.0, 0.0, 100.0, 0.0), &settings(), start);
        let later = start + Duration::from_secs(10);
        weight.report(&report(0.5, 0.0, 100.0, 0.0), &settings(), later);
        assert_eq!(weight.usable(&settings(), later), 0.0);
    }
}
