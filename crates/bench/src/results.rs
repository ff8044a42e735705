//! What was measured, by workload and program.

use serde_json::{Value, json};

use crate::stats::{self, Spread};

/// One program under one workload.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) workload: String,
    pub(crate) program: String,
    /// Round by round; `None` where it broke, or was left out because it had broken before.
    pub(crate) rounds: Vec<Option<Value>>,
    /// Why it broke.
    pub(crate) dies: Option<String>,
}

impl Cell {
    /// A figure of every round, by its JSON pointer.
    pub(crate) fn figures(&self, pointer: &str) -> Vec<Option<f64>> {
        let rounds = self.rounds.iter();
        rounds
            .map(|round| round.as_ref()?.pointer(pointer)?.as_f64())
            .collect()
    }
}

/// All that was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    pub(crate) cells: Vec<Cell>,
}

impl Results {
    /// Adds what a round gave.
    pub(crate) fn add(&mut self, workload: &str, program: &str, seen: Result<Value, String>) {
        let at = self
            .cells
            .iter()
            .position(|it| it.workload == workload && it.program == program);
        let at = at.unwrap_or_else(|| {
            self.cells.push(Cell {
                workload: workload.to_owned(),
                program: program.to_owned(),
                rounds: Vec::new(),
                dies: None,
            });
            self.cells.len() - 1
        });
        let cell = &mut self.cells[at];
        match seen {
            Ok(value) => cell.rounds.push(Some(value)),
            Err(why) => {
                cell.rounds.push(None);
                cell.dies.get_or_insert(why);
            }
        }
    }

    /// The cell of a workload and a program.
    pub(crate) fn cell(&self, workload: &str, program: &str) -> Option<&Cell> {
        let mut cells = self.cells.iter();
        cells.find(|it| it.workload == workload && it.program == program)
    }

    /// Why a program broke under a workload.
    pub(crate) fn dies(&self, workload: &str, program: &str) -> Option<&str> {
        self.cell(workload, program)?.dies.as_deref()
    }

    /// A figure of a cell over its rounds; `None` if it broke in any.
    pub(crate) fn spread(&self, workload: &str, program: &str, pointer: &str) -> Option<Spread> {
        let cell = self.cell(workload, program)?;
        if cell.dies.is_some() {
            return None;
        }
        Spread::of(cell.figures(pointer).into_iter().flatten())
    }

    /// A figure of one program, divided by that of another in the same round.
    pub(crate) fn ratio(
        &self,
        workload: &str,
        pointer: &str,
        above: &str,
        below: &str,
    ) -> Option<Spread> {
        let above = self.cell(workload, above)?.figures(pointer);
        let below = self.cell(workload, below)?.figures(pointer);
        stats::ratios(&above, &below)
    }

    /// Whether anything was measured for a workload.
    pub(crate) fn has(&self, workload: &str) -> bool {
        self.cells.iter().any(|it| it.workload == workload)
    }

    /// All of it.
    pub(crate) fn to_json(&self) -> Value {
        let cells = self.cells.iter().map(|cell| {
            json!({
                "workload": cell.workload,
                "program": cell.program,
                "rounds": cell.rounds,
                "dies": cell.dies,
            })
        });
        cells.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_pair_the_rounds_and_a_broken_cell_has_no_spread() {
        let mut results = Results::default();
        for (program, figures) in [("a", [Some(4.0), Some(9.0)]), ("b", [Some(2.0), None])] {
            for figure in figures {
                let seen = figure.map(|it| json!({"x": {"y": it}}));
                results.add("w", program, seen.ok_or_else(|| "why".to_owned()));
            }
        }
        let ratio = results.ratio("w", "/x/y", "a", "b").expect("one round");
        assert_eq!((ratio.min, ratio.median, ratio.max), (2.0, 2.0, 2.0));
        let spread = results.spread("w", "a", "/x/y").expect("two rounds");
        assert_eq!(spread.median, 6.5);
        assert_eq!(results.spread("w", "b", "/x/y"), None);
        assert_eq!(results.dies("w", "b"), Some("why"));
        assert!(results.has("w") && !results.has("v"));
        assert_eq!(results.to_json()[1]["rounds"][1], Value::Null);
    }
}
