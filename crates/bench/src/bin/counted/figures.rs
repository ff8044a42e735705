//! The figures, and the file that holds those which are checked in: `counted.txt`.
//!
//! A line of the file is a comment, or words apart from each other by spaces:
//!
//! ```text
//! # comment
//! tolerance      5%     2%  0.005
//! goal unary  36000     14      -
//! compiler    rustc 1.95.0
//! unary       35806  10.02  0.020
//! ```
//!
//! The first line that names a workload, or the compiler, ends what is kept when figures are written.

use std::fmt;

/// The columns, and the decimals with which each is written.
pub(crate) const COLUMNS: [(&str, usize); 3] = [
    ("instructions", 0),
    ("allocations", 2),
    ("reads and writes", 3),
];

/// What an operation costs: a number for each column, in steps of its last decimal, so that what is
/// compared is what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figures(pub(crate) [u64; 3]);

impl Figures {
    /// What each of `operations` costs that lie between two counts.
    pub(crate) fn of_each(before: [u64; 3], after: [u64; 3], operations: u64) -> Self {
        Self(std::array::from_fn(|at| {
            let steps = 10_u64.pow(COLUMNS[at].1 as u32);
            let all = after[at].saturating_sub(before[at]) * steps;
            (all + operations / 2) / operations
        }))
    }

    /// The number of a column, as it is written.
    pub(crate) fn text(self, at: usize) -> String {
        number_text(self.0[at], COLUMNS[at].1)
    }
}

/// How far a figure may lie from the one that is checked in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tolerance {
    /// Of the figure, rounded.
    Percent(u64),
    /// In steps of the column's last decimal.
    Steps(u64),
}

impl Tolerance {
    /// How far from `figure`, in steps.
    pub(crate) fn of(self, figure: u64) -> u64 {
        match self {
            Self::Percent(percent) => (figure * percent + 50) / 100,
            Self::Steps(steps) => steps,
        }
    }
}

/// The file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The lines before the figures.
    preamble: String,
    pub(crate) tolerances: [Tolerance; 3],
    /// What is worked towards; no figure has to meet it.
    goals: Vec<(String, [Option<u64>; 3])>,
    /// With which the figures were taken.
    pub(crate) compiler: String,
    pub(crate) figures: Vec<(String, Figures)>,
}

impl Record {
    /// Reads the text of the file.
    ///
    /// # Errors
    ///
    /// The line that is not understood, or what is missing.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut tolerances = None;
        let mut record = Self {
            preamble: String::new(),
            tolerances: [Tolerance::Steps(0); 3],
            goals: Vec::new(),
            compiler: String::new(),
            figures: Vec::new(),
        };
        for (at, line) in text.lines().enumerate() {
            let wrong = || format!("line {}: not understood: {line}", at + 1);
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_kept = match words[..] {
                [] => true,
                [first, ..] if first.starts_with('#') => true,
                ["tolerance", ref words @ ..] => {
                    tolerances = Some(columns(words, tolerance).ok_or_else(wrong)?);
                    true
                }
                ["goal", name, ref words @ ..] => {
                    let goal = columns(words, goal).ok_or_else(wrong)?;
                    record.goals.push((name.to_owned(), goal));
                    true
                }
                ["compiler", ref words @ ..] => {
                    record.compiler = words.join(" ");
                    false
                }
                [name, ref words @ ..] => {
                    let figures = columns(words, number).ok_or_else(wrong)?;
                    if record.of(name).is_some() {
                        return Err(format!("line {}: {name} stands there twice", at + 1));
                    }
                    record.figures.push((name.to_owned(), Figures(figures)));
                    false
                }
            };
            let is_preamble = record.figures.is_empty() && record.compiler.is_empty();
            match (is_kept, is_preamble) {
                (true, true) => record.preamble.extend([line, "\n"]),
                // It would be lost when the figures are written.
                (true, false) => return Err(format!("line {}: behind figures: {line}", at + 1)),
                (false, _) => {}
            }
        }
        record.tolerances = tolerances.ok_or("no line says the tolerance")?;
        Ok(record)
    }

    /// The figures of a workload.
    pub(crate) fn of(&self, name: &str) -> Option<Figures> {
        let found = self.figures.iter().find(|(other, _)| other == name);
        found.map(|(_, figures)| *figures)
    }

    /// What a workload is to cost one day, and whether it does; empty without a goal.
    pub(crate) fn goals(&self, name: &str, figures: Figures) -> String {
        let of_this = self.goals.iter().filter(|(other, _)| other == name);
        let mut said = Vec::new();
        for (at, goal) in of_this.flat_map(|(_, goals)| goals.iter().enumerate()) {
            let Some(goal) = *goal else {
                continue;
            };
            let (column, decimals) = COLUMNS[at];
            let is_met = match figures.0[at] <= goal {
                true => "met",
                false => "missed",
            };
            said.push(format!(
                "{column} <= {} {is_met}",
                short_text(goal, decimals)
            ));
        }
        said.join(", ")
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.preamble)?;
        writeln!(f, "{:<14} {}", "compiler", self.compiler)?;
        for (name, figures) in &self.figures {
            let [a, b, c] = [0, 1, 2].map(|at| figures.text(at));
            writeln!(f, "{name:<14} {a:>8} {b:>8} {c:>8}")?;
        }
        Ok(())
    }
}

/// Reads a word for each column.
fn columns<T>(words: &[&str], read: fn(&str, usize) -> Option<T>) -> Option<[T; 3]> {
    let &[a, b, c] = words else {
        return None;
    };
    let [(_, in_a), (_, in_b), (_, in_c)] = COLUMNS;
    Some([read(a, in_a)?, read(b, in_b)?, read(c, in_c)?])
}

fn tolerance(word: &str, decimals: usize) -> Option<Tolerance> {
    match word.strip_suffix('%') {
        Some(percent) => percent.parse().ok().map(Tolerance::Percent),
        None => number(word, decimals).map(Tolerance::Steps),
    }
}

fn goal(word: &str, decimals: usize) -> Option<Option<u64>> {
    match word {
        "-" => Some(None),
        _ => number(word, decimals).map(Some),
    }
}

/// In steps of the last decimal; `None` for more decimals than there are.
fn number(word: &str, decimals: usize) -> Option<u64> {
    let (whole, fraction) = word.split_once('.').unwrap_or((word, ""));
    match fraction.len() <= decimals {
        true => format!("{whole}{fraction:0<decimals$}").parse().ok(),
        false => None,
    }
}

fn number_text(number: u64, decimals: usize) -> String {
    let steps = 10_u64.pow(decimals as u32);
    match decimals {
        0 => number.to_string(),
        _ => format!("{}.{:0decimals$}", number / steps, number % steps),
    }
}

/// Without the zeros at its end.
fn short_text(number: u64, decimals: usize) -> String {
    let text = number_text(number, decimals);
    match decimals {
        0 => text,
        _ => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# Why.

tolerance            5%       2%    0.005
goal unary        36000       14     0.05
goal unary-1          -        -        3
compiler       rustc 1.95.0 (59807616e 2026-04-14)
unary             35806    10.02    0.020
server-stream       847     1.01    2.000
";

    #[test]
    fn the_file_is_written_as_it_was_read() {
        let record = Record::read(TEXT).expect("it is right");
        assert_eq!(record.to_string(), TEXT);
        assert_eq!(record.compiler, "rustc 1.95.0 (59807616e 2026-04-14)");
        assert_eq!(record.of("unary"), Some(Figures([35_806, 1_002, 20])));
        assert_eq!(record.of("server-stream"), Some(Figures([847, 101, 2_000])));
        assert_eq!(record.of("bidi"), None);
        let tolerances = [
            Tolerance::Percent(5),
            Tolerance::Percent(2),
            Tolerance::Steps(5),
        ];
        assert_eq!(record.tolerances, tolerances);
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        let tolerance = "tolerance 5% 2% 0.005\n";
        for (line, expected) in [
            ("unary 1 2", "line 2: not understood: unary 1 2"),
            ("unary 1 2 3 4", "line 2: not understood: unary 1 2 3 4"),
            ("unary 1.5 2 3", "line 2: not understood: unary 1.5 2 3"),
            ("unary 1 2.001 3", "line 2: not understood: unary 1 2.001 3"),
            ("unary 1 -2 3", "line 2: not understood: unary 1 -2 3"),
            ("goal unary 1 2", "line 2: not understood: goal unary 1 2"),
            ("tolerance 5 2 x", "line 2: not understood: tolerance 5 2 x"),
            (
                "unary 1 2 3\nunary 1 2 3",
                "line 3: unary stands there twice",
            ),
            ("unary 1 2 3\n# why", "line 3: behind figures: # why"),
        ] {
            let said = Record::read(&format!("{tolerance}{line}\n"));
            assert_eq!(said, Err(expected.to_owned()));
        }
        let said = Record::read("unary 1 2 3\n");
        assert_eq!(said, Err("no line says the tolerance".to_owned()));
    }

    #[test]
    fn an_operation_is_its_share_of_what_lies_between_two_counts() {
        let before = [1_000, 100, 10];
        for (after, expected) in [
            ([1_000, 100, 10], [0, 0, 0]),
            // Instructions are rounded to 1, allocations to 0.01, reads and writes to 0.001.
            ([1_000 + 1_499, 100 + 14, 10 + 1], [1, 1, 1]),
            ([1_000 + 1_500, 100 + 15, 10 + 2], [2, 2, 2]),
            (
                [1_000 + 2_000_000, 100 + 10_020, 10 + 20],
                [2_000, 1_002, 20],
            ),
            ([900, 100, 10], [0, 0, 0]),
        ] {
            assert_eq!(Figures::of_each(before, after, 1_000), Figures(expected));
        }
    }

    #[test]
    fn a_goal_is_met_up_to_what_it_says() {
        let record = Record::read(TEXT).expect("it is right");
        for (figures, expected) in [
            (
                [35_999, 1_399, 49],
                "instructions <= 36000 met, allocations <= 14 met, reads and writes <= 0.05 met",
            ),
            (
                [36_000, 1_400, 50],
                "instructions <= 36000 met, allocations <= 14 met, reads and writes <= 0.05 met",
            ),
            (
                [36_001, 1_401, 51],
                "instructions <= 36000 missed, allocations <= 14 missed, \
                 reads and writes <= 0.05 missed",
            ),
        ] {
            assert_eq!(record.goals("unary", Figures(figures)), expected);
        }
        let said = record.goals("unary-1", Figures([9, 9, 2_000]));
        assert_eq!(said, "reads and writes <= 3 met");
        assert_eq!(record.goals("bidi", Figures([9, 9, 9])), "");
    }
}
