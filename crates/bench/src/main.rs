//! Trunkline beside bare h2 and other frameworks: builds them, measures them in turn, and writes
//! tables, JSON and a plot.
//!
//! | module | does |
//! | --- | --- |
//! | `options` | the command line |
//! | `programs`, `process` | what is compared: built, started, pinned, ended |
//! | `workloads`, `plan`, `messages` | what is asked of it |
//! | `rounds` | who is visited when |
//! | `visit`, `load`, `connection`, `frames`, `heads` | the load process: HTTP/2 by hand |
//! | `procfs`, `trace`, `histogram`, `machine` | what is read off while it runs |
//! | `results`, `stats`, `report`, `plot` | what comes out |
//!
//! Does not know: any gRPC framework. What it measures are processes that print where they listen.

mod connection;
mod heads;
mod histogram;
mod load;
mod options;
mod plan;
mod plot;
mod process;
mod procfs;
mod programs;
mod report;
mod results;
mod rounds;
mod stats;
mod trace;
mod visit;
mod workloads;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use trunkline_bench::{frames, machine, messages};

use crate::options::{Options, USAGE};
use crate::report::Report;
use crate::rounds::Rounds;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some("load") => return load(arguments.get(1)),
        Some("--help") => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Options::read(&arguments)
            .map_err(|why| format!("{why}\n{USAGE}"))
            .and_then(|options| compare(&options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

/// This program as the load process.
fn load(order: Option<&String>) -> ExitCode {
    let order = order.and_then(|it| serde_json::from_str(it).ok());
    let seen = visit::run(&order.unwrap_or_default());
    println!("{}", seen.unwrap_or_else(|why| json!({ "error": why })));
    ExitCode::SUCCESS
}

fn compare(options: &Options) -> Result<(), String> {
    if cfg!(debug_assertions) {
        eprintln!("This is not a release build: the figures mean nothing.");
    }
    let directory = directory()?;
    let programs = programs::build(options, &directory)?;
    for (name, why) in &programs.skipped {
        eprintln!("{name} is left out: {why}");
    }
    let cores = process::Cores::find();
    let seed = options.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(1, |it| it.as_secs())
    });
    let mut rounds = Rounds::new(options, &programs.ready, &cores, directory.clone(), seed);
    rounds.run();
    let report = Report {
        options,
        programs: &programs,
        cores: &cores,
        seed,
        results: rounds.results,
    };
    let text = report.markdown();
    println!("{text}");
    let path =
        |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| directory.join(name));
    write(&path(&options.markdown, "report.md"), &text)?;
    write(&path(&options.json, "report.json"), &report.json())?;
    write(&path(&options.svg, "report.svg"), &report.svg())
}

/// Where logs and results go: `bench/` in the target directory.
fn directory() -> Result<PathBuf, String> {
    let exe = std::env::current_exe().map_err(|error| format!("who are we: {error}"))?;
    let target = exe.parent().and_then(Path::parent);
    let directory = target.ok_or("no target directory")?.join("bench");
    fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(directory)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    eprintln!("written: {}", path.display());
    Ok(())
}
