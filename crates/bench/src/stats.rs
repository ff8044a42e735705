//! Medians and ratios of what rounds have given.

/// The middle of some figures, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of figures; `None` if there are none.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => (sorted[half - 1] + sorted[half]) / 2.0,
            _ => sorted[half],
        };
        Some(Self { median, min, max })
    }
}

/// Figures of two programs divided round by round; a round that one of them did not finish is left
/// out.
pub(crate) fn ratios(above: &[Option<f64>], below: &[Option<f64>]) -> Option<Spread> {
    let rounds = above.iter().zip(below);
    Spread::of(rounds.filter_map(|(above, below)| Some((*above)? / (*below)?)))
}

/// A figure with three digits that count.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        it if it < 0.1 => format!("{value:.4}"),
        it if it < 1.0 => format!("{value:.3}"),
        it if it < 10.0 => format!("{value:.2}"),
        it if it < 100.0 => format!("{value:.1}"),
        it if it < 10_000.0 => format!("{value:.0}"),
        _ => thousands(value),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 {
        text.insert(0, '-');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_the_middle() {
        for (figures, median) in [
            (&[5.0][..], 5.0),
            (&[9.0, 1.0], 5.0),
            (&[9.0, 1.0, 2.0], 2.0),
            (&[4.0, 1.0, 3.0, 2.0], 2.5),
        ] {
            let spread = Spread::of(figures.iter().copied()).expect("figures");
            assert_eq!(spread.median, median, "{figures:?}");
        }
        let spread = Spread::of([3.0, 1.0, 2.0]).expect("figures");
        assert_eq!((spread.min, spread.max), (1.0, 3.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_taken_within_rounds_and_a_broken_round_is_left_out() {
        let above = [Some(2.0), Some(30.0), None, Some(6.0)];
        let below = [Some(1.0), Some(10.0), Some(1.0), None];
        let spread = ratios(&above, &below).expect("two whole rounds");
        assert_eq!((spread.min, spread.median, spread.max), (2.0, 2.5, 3.0));
        assert_eq!(ratios(&above, &[None; 4]), None);
    }

    #[test]
    fn figures_have_three_digits_that_count() {
        for (value, text) in [
            (0.0, "0"),
            (0.03456, "0.0346"),
            (0.456, "0.456"),
            (3.456, "3.46"),
            (34.56, "34.6"),
            (345.6, "346"),
            (3456.7, "3457"),
            (34567.8, "34,568"),
            (1_234_567.0, "1,234,567"),
            (-45_678.0, "-45,678"),
        ] {
            assert_eq!(figure(value), text);
        }
    }
}
