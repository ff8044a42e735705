//! What was counted, beside what is checked in.

use std::fmt::Write as _;

use crate::figures::{COLUMNS, Figures, Record, Tolerance};

const WRITE: &str = "cargo run --release -p trunkline-bench --bin counted -- --write";

/// What has changed by more than the tolerance.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    risen: Vec<Change>,
    fallen: Vec<Change>,
    /// Workloads that only one side has.
    unrecorded: Vec<String>,
    uncounted: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Change {
    workload: String,
    column: usize,
    from: Figures,
    to: Figures,
}

impl Changes {
    /// Compares what was counted of all workloads.
    pub(crate) fn find(record: &Record, counted: &[(&str, Figures)]) -> Self {
        let mut changes = Self::default();
        for &(workload, to) in counted {
            let Some(from) = record.of(workload) else {
                changes.unrecorded.push(workload.to_owned());
                continue;
            };
            for column in 0..COLUMNS.len() {
                let change = || Change {
                    workload: workload.to_owned(),
                    column,
                    from,
                    to,
                };
                let (from, to) = (from.0[column], to.0[column]);
                let tolerance = record.tolerances[column].of(from);
                if to > from + tolerance {
                    changes.risen.push(change());
                } else if to + tolerance < from {
                    changes.fallen.push(change());
                }
            }
        }
        let is_counted = |name: &str| counted.iter().any(|(other, _)| *other == name);
        let names = record.figures.iter().map(|(name, _)| name);
        changes.uncounted = names.filter(|name| !is_counted(name)).cloned().collect();
        changes
    }

    /// Whether nothing costs more than is checked in.
    pub(crate) fn pass(&self) -> bool {
        self.risen.is_empty() && self.unrecorded.is_empty() && self.uncounted.is_empty()
    }

    /// What has changed, and what is to be done; `compiler` is the one that is here.
    pub(crate) fn report(&self, record: &Record, compiler: &str) -> String {
        let mut text = String::new();
        if !self.risen.is_empty() {
            text += "\nThese have risen:\n\n";
            table(&mut text, &self.risen, record);
            text += "\nFind out what costs more. ";
            let _ = writeln!(
                text,
                "If it is worth it, accept it, and give the reason in the commit message:\n{WRITE}"
            );
            if record.compiler != compiler {
                let _ = writeln!(
                    text,
                    "The compiler may be the reason: the figures are of {}, and this is {compiler}.",
                    record.compiler
                );
            }
        }
        if !self.fallen.is_empty() {
            text += "\nThese have fallen:\n\n";
            table(&mut text, &self.fallen, record);
            let _ = writeln!(text, "\nWrite them down, so that they stay so:\n{WRITE}");
        }
        for name in &self.unrecorded {
            let _ = writeln!(text, "\n{name} is not checked in; write it down:\n{WRITE}");
        }
        for name in &self.uncounted {
            let _ = writeln!(
                text,
                "\n{name} is checked in and not counted; write it out:\n{WRITE}"
            );
        }
        if text.is_empty() {
            text += "\nNothing has changed by more than the tolerance.\n";
        }
        text
    }
}

fn table(text: &mut String, changes: &[Change], record: &Record) {
    *text += "| operation | figure | from | to | tolerance |\n| --- | --- | --- | --- | --- |\n";
    for change in changes {
        let at = change.column;
        let tolerance = record.tolerances[at];
        let mut distance = change.from;
        distance.0[at] = tolerance.of(change.from.0[at]);
        let percent = match tolerance {
            Tolerance::Percent(percent) => format!(" ({percent} %)"),
            Tolerance::Steps(_) => String::new(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {}{percent} |",
            change.workload,
            COLUMNS[at].0,
            change.from.text(at),
            change.to.text(at),
            distance.text(at),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
tolerance 5% 2% 0.005
compiler  rustc 1
unary     1000 10.02 0.020
bidi      1010  1.01 2.000
";

    const UNARY: Figures = Figures([1_000, 1_002, 20]);
    const BIDI: Figures = Figures([1_010, 101, 2_000]);

    fn find(counted: &[(&str, Figures)]) -> Changes {
        Changes::find(&Record::read(TEXT).expect("it is right"), counted)
    }

    /// Risen and fallen columns of two workloads.
    fn columns(unary: Figures, bidi: Figures) -> [Vec<usize>; 2] {
        let changes = find(&[("unary", unary), ("bidi", bidi)]);
        assert_eq!(changes.pass(), changes.risen.is_empty());
        [changes.risen, changes.fallen].map(|it| it.iter().map(|it| it.column).collect())
    }

    #[test]
    fn a_figure_may_differ_by_the_tolerance_and_no_more() {
        let unary = |at: usize, to| {
            let mut figures = UNARY;
            figures.0[at] = to;
            columns(figures, BIDI)
        };
        // 5 % of 1000 instructions, 2 % of 10.02 allocations, and 0.005 reads and writes.
        for (at, lowest, highest) in [(0, 950, 1_050), (1, 982, 1_022), (2, 15, 25)] {
            for (to, expected) in [
                (highest - 1, [vec![], vec![]]),
                (highest, [vec![], vec![]]),
                (highest + 1, [vec![at], vec![]]),
                (lowest + 1, [vec![], vec![]]),
                (lowest, [vec![], vec![]]),
                (lowest - 1, [vec![], vec![at]]),
            ] {
                assert_eq!(unary(at, to), expected, "{at} {to}");
            }
        }
    }

    #[test]
    fn a_tolerance_is_rounded_to_what_is_written() {
        // 5 % of 1010 is 50.5, and 2 % of 1.01 is 0.0202.
        for (bidi, expected) in [
            ([1_061, 103, 2_005], [vec![], vec![]]),
            ([1_062, 104, 2_006], [vec![0, 1, 2], vec![]]),
            ([959, 99, 1_995], [vec![], vec![]]),
            ([958, 98, 1_994], [vec![], vec![0, 1, 2]]),
        ] {
            assert_eq!(columns(UNARY, Figures(bidi)), expected);
        }
    }

    #[test]
    fn a_workload_that_only_one_side_has_does_not_pass() {
        for (counted, expected) in [
            (&[("unary", UNARY), ("bidi", BIDI)][..], true),
            (&[("unary", UNARY)], false),
            (&[("unary", UNARY), ("bidi", BIDI), ("new", BIDI)], false),
        ] {
            assert_eq!(find(counted).pass(), expected, "{counted:?}");
        }
    }

    #[test]
    fn what_has_risen_is_told_with_both_figures_the_tolerance_and_what_to_do() {
        let record = Record::read(TEXT).expect("it is right");
        let report = |unary, compiler| {
            let changes = find(&[("unary", unary), ("bidi", BIDI)]);
            changes.report(&record, compiler)
        };
        let risen = report(Figures([1_051, 1_002, 26]), "rustc 1");
        for line in [
            "| unary | instructions | 1000 | 1051 | 50 (5 %) |",
            "| unary | reads and writes | 0.020 | 0.026 | 0.005 |",
            WRITE,
        ] {
            assert!(risen.lines().any(|it| it == line), "{risen}");
        }
        assert!(!risen.contains("compiler"), "{risen}");
        let risen = report(Figures([1_051, 1_002, 20]), "rustc 2");
        assert!(
            risen.contains("of rustc 1, and this is rustc 2."),
            "{risen}"
        );
        let fallen = report(Figures([949, 1_002, 20]), "rustc 2");
        assert!(fallen.contains("\nThese have fallen:\n"), "{fallen}");
        assert!(fallen.contains("| unary | instructions | 1000 | 949 | 50 (5 %) |"));
        assert!(fallen.contains(WRITE), "{fallen}");
        let same = report(Figures([1_050, 1_002, 20]), "rustc 1");
        assert_eq!(same, "\nNothing has changed by more than the tolerance.\n");
    }
}
