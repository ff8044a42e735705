//! Counts what a call costs where no clock and no scheduler has a say: instructions, allocations,
//! and the reads and writes of the socket.
//!
//! `counted run WORKLOAD N` makes N operations in one thread against a peer that is written down,
//! and prints reads and writes. `counted` runs each workload under valgrind, twice, and prints what
//! one operation costs; `--check` fails if that is more than what is checked in, which `--write`
//! writes anew.
//!
//! | module | does |
//! | --- | --- |
//! | `run` | the workloads |
//! | `script`, `parts` | the peer that is written down |
//! | `service` | the handlers, those of `ours` |
//! | `valgrind` | counts |
//! | `figures`, `check` | what is checked in, and what is counted beside it |

mod check;
mod figures;
mod parts;
mod run;
mod script;
// Built with this program and not before it, as the handlers of a user are.
#[path = "../ours/service.rs"]
mod service;
mod valgrind;

use std::fs;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use trunkline_bench::machine;

use crate::check::Changes;
use crate::figures::{Figures, Record};
use crate::run::WORKLOADS;

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/counted.txt");

const USAGE: &str = "usage: counted               prints what an operation costs
       counted --check       fails if it is more than what is checked in
       counted --write       writes what is to be checked in
       counted run WORKLOAD N";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => record().and_then(|record| count(&record)).map(|_| true),
        ["--check"] => check(),
        ["--write"] => write().map(|()| true),
        ["run", workload, n] => match n.parse() {
            Ok(n) => run(workload, n).map(|()| true),
            Err(_) => return refuse(&format!("{n} is not a number of operations")),
        },
        _ => return refuse("not understood"),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("{why}\n{USAGE}");
    ExitCode::from(2)
}

fn run(workload: &str, n: usize) -> Result<(), String> {
    let seen = run::run(workload, n)?;
    let [reads, writes] = [&seen.reads, &seen.writes].map(|it| it.load(Ordering::Relaxed));
    println!("reads {reads} writes {writes}");
    Ok(())
}

/// Whether nothing costs more than what is checked in.
fn check() -> Result<bool, String> {
    let record = record()?;
    let changes = Changes::find(&record, &count(&record)?);
    println!(
        "{}",
        changes.report(&record, &machine::compiler()).trim_end()
    );
    Ok(changes.pass())
}

fn write() -> Result<(), String> {
    let mut record = record()?;
    let counted = count(&record)?;
    let named = counted.into_iter().map(|(name, it)| (name.to_owned(), it));
    record.figures = named.collect();
    record.compiler = machine::compiler();
    fs::write(RECORD, record.to_string()).map_err(|error| format!("{RECORD}: {error}"))?;
    println!("\nwritten: {RECORD}");
    Ok(())
}

fn record() -> Result<Record, String> {
    let text = fs::read_to_string(RECORD).map_err(|error| format!("{RECORD}: {error}"))?;
    Record::read(&text).map_err(|why| format!("{RECORD}: {why}"))
}

/// Counts all workloads and prints their figures, each beside its goals.
fn count(record: &Record) -> Result<Vec<(&'static str, Figures)>, String> {
    if cfg!(debug_assertions) {
        return Err("only a release build has figures: cargo run --release".to_owned());
    }
    println!("| operation | instructions | allocations | reads and writes | goals |");
    println!("| --- | --- | --- | --- | --- |");
    let mut counted = Vec::new();
    for workload in &WORKLOADS {
        let figures = valgrind::count(workload)?;
        let [a, b, c] = [0, 1, 2].map(|at| figures.text(at));
        let goals = record.goals(workload.name, figures);
        println!("| {} | {a} | {b} | {c} | {goals} |", workload.name);
        counted.push((workload.name, figures));
    }
    Ok(counted)
}
