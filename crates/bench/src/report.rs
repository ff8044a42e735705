//! What readers get: tables in Markdown, the same figures in JSON, and the plot.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::machine;
use crate::options::Options;
use crate::plot::{Bar, Group, Plot};
use crate::process::{Cores, Place};
use crate::programs::{Program, Programs};
use crate::results::Results;
use crate::rounds::{CORES, CORES_UNDER, NEIGHBOURS, neighbours_name};
use crate::stats::{Spread, figure};
use crate::visit::{NEIGHBOURS as NEIGHBOURS_RATE, OPEN_LOAD};
use crate::workloads::{WORKLOADS, Workload};

/// All that was measured, and how.
pub(crate) struct Report<'a> {
    pub(crate) options: &'a Options,
    pub(crate) programs: &'a Programs,
    pub(crate) cores: &'a Cores,
    pub(crate) seed: u64,
    pub(crate) results: Results,
}

/// A line of the table of ratios: what it says, the workload, the figure, and what ours should not
/// exceed, against bare h2 and against tonic.
type Goal = (
    &'static str,
    &'static str,
    &'static str,
    Option<f64>,
    Option<f64>,
);

const SERVER: &str = "/server_us";

#[rustfmt::skip]
const GOALS: [Goal; 20] = [
    ("unary 1x1", "unary 1x1", SERVER, Some(1.05), Some(0.92)),
    ("unary 1x1, p50", "unary 1x1", "/latency_us/p50", Some(1.03), None),
    ("unary 1x100", "unary 1x100", SERVER, Some(1.10), Some(0.34)),
    ("unary 1x100, open loop, p99.9", "unary 1x100", "/open/latency_us/p999", None, Some(1.0)),
    ("unary 50x20", "unary 50x20", SERVER, Some(1.10), Some(0.55)),
    ("unary 50x20, p99", "unary 50x20", "/latency_us/p99", None, Some(0.1)),
    ("unary 50x20, open loop, p99.9", "unary 50x20", "/open/latency_us/p999", None, Some(1.0)),
    ("server stream", "server stream", SERVER, Some(1.10), Some(0.75)),
    ("client stream 500", "client stream 500", SERVER, Some(1.10), Some(0.87)),
    ("client stream 10k", "client stream 10k", SERVER, Some(1.10), None),
    ("client stream 1M", "client stream 1M", SERVER, Some(1.10), None),
    ("bidi 1x100", "bidi 1x100", SERVER, Some(1.15), Some(0.16)),
    ("bidi 10x10", "bidi 10x10", SERVER, Some(1.15), Some(0.36)),
    ("echo 64 KiB", "echo 64 KiB", SERVER, Some(1.08), Some(0.60)),
    ("echo 1 MiB", "echo 1 MiB", SERVER, Some(1.08), Some(0.70)),
    ("echo 16 MiB", "echo 16 MiB", SERVER, Some(1.08), Some(0.52)),
    ("client 1x100", "client 1x100", "/client_us", Some(1.10), Some(0.40)),
    ("client server stream", "client server stream", "/client_us", None, Some(0.90)),
    ("idle call, bytes", "idle calls", "/each", None, Some(0.45)),
    ("idle connection, bytes", "idle connections", "/each", None, Some(1.15)),
];

impl Report<'_> {
    /// All tables.
    pub(crate) fn markdown(&self) -> String {
        let mut text = self.preamble();
        self.processor_time(&mut text);
        self.ratios(&mut text);
        self.latencies(&mut text);
        self.memory(&mut text);
        self.system_calls(&mut text);
        self.neighbours(&mut text);
        self.several_cores(&mut text);
        self.own_cost(&mut text);
        self.deaths(&mut text);
        text
    }

    /// All figures.
    pub(crate) fn json(&self) -> String {
        let programs = self.programs.ready.iter();
        let programs = programs.map(|it| json!({"name": it.name, "version": it.version}));
        let skipped = self.programs.skipped.iter();
        let skipped = skipped.map(|(name, why)| json!({"name": name, "why": why}));
        let all = json!({
            "machine": machine::line(),
            "placement": self.cores.note,
            "seed": self.seed,
            "rounds": self.options.rounds,
            "seconds": self.options.seconds,
            "programs": programs.collect::<Value>(),
            "skipped": skipped.collect::<Value>(),
            "cells": self.results.to_json(),
        });
        format!("{all:#}\n")
    }

    /// The plot of processor time.
    pub(crate) fn svg(&self) -> String {
        let base = ["bare", "tonic", "ours"];
        let base = base
            .into_iter()
            .find(|name| self.names().any(|it| it == *name));
        let base = base.unwrap_or_default();
        let mut groups = Vec::new();
        for (name, pointer) in self.timed() {
            let below = self.results.spread(name, base, pointer);
            let bars = self.names().enumerate().filter_map(|(program, other)| {
                self.results.cell(name, other)?;
                let figures = self.results.spread(name, other, pointer);
                let ratio = figures
                    .zip(below)
                    .map(|(it, below)| it.median / below.median);
                let label = figures.map_or_else(
                    || "dies".to_owned(),
                    |it| format!("{} us", figure(it.median)),
                );
                Some(Bar {
                    program,
                    ratio,
                    label,
                })
            });
            groups.push(Group {
                name: name.to_owned(),
                bars: bars.collect(),
            });
        }
        Plot {
            title: format!("Processor time per operation, as a multiple of {base}: less is better"),
            programs: self.names().map(str::to_owned).collect(),
            groups,
        }
        .to_svg()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.programs.ready.iter().map(|it| it.name.as_str())
    }

    /// Workloads that were measured, and where their processor time is.
    fn timed(&self) -> Vec<(&'static str, &'static str)> {
        let loads = WORKLOADS.iter().map(|it| (it.name, SERVER));
        let clients = ["client 1x100", "client server stream"].map(|it| (it, "/client_us"));
        let all = loads.chain(clients);
        all.filter(|(name, _)| self.results.has(name)).collect()
    }

    fn preamble(&self) -> String {
        let mut text = format!("{}.\n\n{}", machine::line(), self.cores.note);
        let _ = writeln!(
            text,
            " Rounds: {}, of {} s a visit; their orders come from seed {}.\n",
            self.options.rounds, self.options.seconds, self.seed
        );
        let versions = self
            .programs
            .ready
            .iter()
            .filter(|it| !it.version.is_empty());
        let versions: Vec<String> = versions.map(named).collect();
        if !versions.is_empty() {
            let _ = writeln!(text, "Beside {}.\n", versions.join(", "));
        }
        for (name, why) in &self.programs.skipped {
            let _ = writeln!(text, "Left out: {name}, for {why}.\n");
        }
        text
    }

    fn processor_time(&self, text: &mut String) {
        let timed = self.timed();
        if timed.is_empty() {
            return;
        }
        heading(
            text,
            "Processor time",
            "User and system time of the server process in microseconds per operation; medians over rounds. The last two lines are the client's.",
        );
        let mut columns = vec!["workload".to_owned(), "per".to_owned()];
        columns.extend(self.names().map(str::to_owned));
        header(text, &columns);
        for (name, pointer) in timed {
            let per = match name {
                "client server stream" => "message",
                _ => Workload::named(name).map_or("call", |it| it.kind.operation()),
            };
            let mut cells = vec![name.to_owned(), per.to_owned()];
            cells.extend(
                self.names()
                    .map(|program| self.cell(name, program, pointer)),
            );
            row(text, &cells);
        }
    }

    /// A median, why there is none, or that there is nothing.
    fn cell(&self, workload: &str, program: &str, pointer: &str) -> String {
        match self.results.cell(workload, program) {
            None => "-".to_owned(),
            Some(cell) if cell.dies.is_some() => "dies".to_owned(),
            Some(_) => {
                let spread = self.results.spread(workload, program, pointer);
                spread.map_or_else(dash, |it| figure(it.median))
            }
        }
    }

    fn ratios(&self, text: &mut String) {
        let rows: Vec<Vec<String>> = GOALS
            .iter()
            .filter_map(|(name, workload, pointer, bare, tonic)| {
                let against = |below| self.results.ratio(workload, pointer, "ours", below);
                let (to_bare, to_tonic) = (against("bare"), against("tonic"));
                to_bare.or(to_tonic)?;
                Some(vec![
                    (*name).to_owned(),
                    spread(to_bare),
                    goal(to_bare, *bare),
                    spread(to_tonic),
                    goal(to_tonic, *tonic),
                ])
            })
            .collect();
        if rows.is_empty() {
            return;
        }
        heading(
            text,
            "Ours compared with bare h2 and tonic",
            "Ratios within a round: the median, with the lowest and the highest in brackets.",
        );
        let columns = ["", "ours / bare", "goal", "ours / tonic", "goal"];
        header(text, &columns.map(str::to_owned));
        for cells in rows {
            row(text, &cells);
        }
    }

    fn latencies(&self, text: &mut String) {
        let shown = ["unary 1x1", "unary 1x100", "unary 50x20"];
        if !shown.iter().any(|it| self.results.has(it)) {
            return;
        }
        let note = format!(
            "Microseconds; medians over rounds. Closed loop: as fast as responses arrive, which is saturation. Open loop: calls arrive as from independent users (Poisson) at {:.0} % of the rate that the same server had in the closed loop of the same visit, and latency counts from the time when a call was due, which exposes a server that falls behind.",
            OPEN_LOAD * 100.0
        );
        heading(text, "Latency", &note);
        let columns = [
            "workload",
            "program",
            "calls/s",
            "p50",
            "p99",
            "p99.9",
            "max",
            "open, calls/s",
            "p50",
            "p99",
            "p99.9",
            "max",
        ];
        header(text, &columns.map(str::to_owned));
        let pointers = [
            "/per_second",
            "/latency_us/p50",
            "/latency_us/p99",
            "/latency_us/p999",
            "/latency_us/max",
            "/open/per_second",
            "/open/latency_us/p50",
            "/open/latency_us/p99",
            "/open/latency_us/p999",
            "/open/latency_us/max",
        ];
        for workload in shown {
            for program in self.names() {
                if self.results.cell(workload, program).is_some() {
                    let mut cells = vec![workload.to_owned(), program.to_owned()];
                    cells.extend(pointers.iter().map(|it| self.cell(workload, program, it)));
                    row(text, &cells);
                }
            }
        }
    }

    fn memory(&self, text: &mut String) {
        let idle = ["idle calls", "idle connections"];
        if !idle.iter().any(|it| self.results.has(it)) {
            return;
        }
        heading(
            text,
            "Memory",
            "Resident bytes of an open call that waits in its handler (1,000 calls compared with 1), of an idle connection that has made one call (201 compared with 1), and of the process after a visit, in MiB.",
        );
        let columns = [
            "program",
            "idle call",
            "idle connection",
            "start, MiB",
            "unary 50x20, MiB",
            "echo 1 MiB, MiB",
            "echo 16 MiB, MiB",
        ];
        header(text, &columns.map(str::to_owned));
        let mib = |workload: &str, program: &str, pointer: &str| {
            let resident = self.results.spread(workload, program, pointer);
            resident.map_or_else(dash, |it| figure(it.median / f64::from(1 << 20)))
        };
        for program in self.names() {
            let mut cells = vec![program.to_owned()];
            cells.extend(idle.iter().map(|it| self.cell(it, program, "/each")));
            cells.push(mib("idle connections", program, "/one"));
            for workload in ["unary 50x20", "echo 1 MiB", "echo 16 MiB"] {
                cells.push(mib(workload, program, "/resident"));
            }
            row(text, &cells);
        }
    }

    fn system_calls(&self, text: &mut String) {
        let traced = WORKLOADS.iter().filter(|it| it.traced);
        let traced: Vec<(String, &Workload)> = traced
            .map(|it| (format!("system calls, {}", it.name), it))
            .filter(|(name, _)| self.results.has(name))
            .collect();
        if traced.is_empty() {
            return;
        }
        heading(
            text,
            "System calls",
            "System calls of the server per operation, counted by strace in separate visits. strace slows a server down, so more calls gather in a batch.",
        );
        let mut columns = vec!["workload".to_owned(), "per".to_owned()];
        columns.extend(self.names().map(str::to_owned));
        header(text, &columns);
        for (name, workload) in traced {
            let mut cells = vec![
                workload.name.to_owned(),
                workload.kind.operation().to_owned(),
            ];
            cells.extend(self.names().map(|it| self.cell(&name, it, "/each")));
            row(text, &cells);
        }
    }

    fn neighbours(&self, text: &mut String) {
        for (place, cores) in [(Place::Anywhere, "all cores"), (Place::First, "one core")] {
            let name = |task: &str| neighbours_name(task, place);
            if !NEIGHBOURS
                .iter()
                .any(|(task, _)| self.results.has(&name(task)))
            {
                continue;
            }
            let note = format!(
                "{NEIGHBOURS_RATE} unary calls a second on the same connection as something slow, for 6 s: milliseconds from the time when each was due, p50 / p99 / max. The server has {cores}."
            );
            heading(text, &format!("Neighbours of a slow call, {cores}"), &note);
            let mut columns = vec!["program".to_owned()];
            columns.extend(NEIGHBOURS.iter().map(|(_, it)| (*it).to_owned()));
            header(text, &columns);
            for program in self.names() {
                let mut cells = vec![program.to_owned()];
                cells.extend(NEIGHBOURS.iter().map(|(task, _)| {
                    let millis = |which: &str| {
                        let pointer = format!("/latency_us/{which}");
                        let seen = self.results.spread(&name(task), program, &pointer);
                        seen.map(|it| figure(it.median / 1e3))
                    };
                    match (millis("p50"), millis("p99"), millis("max")) {
                        (Some(p50), Some(p99), Some(max)) => format!("{p50} / {p99} / {max}"),
                        _ => self.cell(&name(task), program, "/latency_us/p50"),
                    }
                }));
                row(text, &cells);
            }
        }
    }

    fn several_cores(&self, text: &mut String) {
        let name = |under: &str, way: &str| format!("cores, {under}, {way}");
        let is_there = |way: &str| {
            CORES_UNDER
                .iter()
                .any(|it| self.results.has(&name(it, way)))
        };
        if !CORES.iter().any(|(way, ..)| is_there(way)) {
            return;
        }
        heading(
            text,
            "Runtimes and cores",
            "Our server: processor time in microseconds per call, and thousands of calls per second. One connection can occupy one core. If the server has all cores, it shares them with the load generator.",
        );
        let mut columns = vec!["server".to_owned()];
        columns.extend(
            CORES_UNDER
                .iter()
                .flat_map(|it| [format!("{it}, us"), format!("{it}, k/s")]),
        );
        header(text, &columns);
        for (way, ..) in CORES {
            let mut cells = vec![way.to_owned()];
            for under in CORES_UNDER {
                cells.push(self.cell(&name(under, way), "ours", SERVER));
                let rate = self
                    .results
                    .spread(&name(under, way), "ours", "/per_second");
                cells.push(rate.map_or_else(dash, |it| figure(it.median / 1e3)));
            }
            row(text, &cells);
        }
    }

    fn own_cost(&self, text: &mut String) {
        let loads: Vec<&Workload> = WORKLOADS
            .iter()
            .filter(|it| self.results.has(it.name))
            .collect();
        if loads.is_empty() {
            return;
        }
        heading(
            text,
            "The load generator",
            "The load generator's own processor time in microseconds per operation, the lowest and the highest over all servers. Most of it is spent in the kernel. With one call in flight it spins, so its time is the time of the call.",
        );
        header(text, &["workload", "lowest", "highest"].map(str::to_owned));
        for workload in loads {
            let medians = self.names().filter_map(|program| {
                let spread = self.results.spread(workload.name, program, "/load_us");
                spread.map(|it| it.median)
            });
            if let Some(spread) = Spread::of(medians) {
                let cells = [
                    workload.name.to_owned(),
                    figure(spread.min),
                    figure(spread.max),
                ];
                row(text, &cells);
            }
        }
    }

    fn deaths(&self, text: &mut String) {
        let dead: Vec<String> = self
            .results
            .cells
            .iter()
            .filter_map(|cell| {
                let why = cell.dies.as_ref()?;
                Some(format!("- {}, {}: {why}", cell.program, cell.workload))
            })
            .collect();
        if !dead.is_empty() {
            heading(text, "What \"dies\" stands for", &dead.join("\n"));
        }
    }
}

fn named(program: &Program) -> String {
    format!("{} {}", program.name, program.version)
}

fn heading(text: &mut String, title: &str, words: &str) {
    let _ = write!(text, "\n### {title}\n\n{words}\n\n");
}

fn header(text: &mut String, columns: &[String]) {
    row(text, columns);
    row(text, &vec!["---".to_owned(); columns.len()]);
}

fn row(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

/// What stands where nothing was measured.
fn dash() -> String {
    "-".to_owned()
}

fn spread(ratio: Option<Spread>) -> String {
    ratio.map_or_else(dash, |it| {
        format!("{:.2} ({:.2}-{:.2})", it.median, it.min, it.max)
    })
}

/// What was wanted, and whether it is so.
fn goal(ratio: Option<Spread>, most: Option<f64>) -> String {
    match (ratio, most) {
        (_, None) => String::new(),
        (None, Some(most)) => format!("<= {most:.2}"),
        (Some(ratio), Some(most)) if ratio.median <= most => format!("<= {most:.2}, met"),
        (Some(_), Some(most)) => format!("<= {most:.2}, missed"),
    }
}
