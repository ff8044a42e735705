//! The runner, from its command line to what it writes.
//!
//! What processes cost is read from `/proc`.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn results(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn run(arguments: &[&str]) -> Output {
    // Built before the runner is started, and where it looks for it.
    assert!(Path::new(env!("CARGO_BIN_EXE_ours")).is_file());
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(arguments)
        .output()
        .expect("the runner starts")
}

#[test]
fn one_short_round_of_ours_gives_figures_a_table_and_a_plot() {
    let [json, svg, markdown] = ["smoke.json", "smoke.svg", "smoke.md"].map(results);
    let output = run(&[
        "--no-build",
        "--programs",
        "ours",
        "--only",
        "unary 1x100,server stream",
        "--rounds",
        "1",
        "--seconds",
        "0.1",
        "--seed",
        "7",
        "--json",
        &json.to_string_lossy(),
        "--svg",
        &svg.to_string_lossy(),
        "--markdown",
        &markdown.to_string_lossy(),
    ]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = fs::read_to_string(json).expect("the JSON is written");
    let report: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(report["seed"], 7);
    assert_eq!(report["programs"][0]["name"], "ours");
    let cells = report["cells"].as_array().expect("cells");
    let names: Vec<&Value> = cells.iter().map(|cell| &cell["workload"]).collect();
    assert_eq!(names, ["unary 1x100", "server stream"], "{said}");
    for cell in cells {
        assert_eq!(cell["dies"], Value::Null);
        let round = &cell["rounds"][0];
        for pointer in ["/operations", "/server_us", "/load_us", "/resident"] {
            let figure = round.pointer(pointer).and_then(Value::as_f64);
            assert!(figure.is_some_and(|it| it > 0.0), "{pointer}: {cell}");
        }
    }
    let p999 = cells[0]["rounds"][0].pointer("/open/latency_us/p999");
    assert!(p999.and_then(Value::as_f64).is_some_and(|it| it > 0.0));
    let table = fs::read_to_string(markdown).expect("the table is written");
    assert!(table.contains("| unary 1x100 | call |"), "{table}");
    assert_eq!(table.trim(), String::from_utf8_lossy(&output.stdout).trim());
    let plot = fs::read_to_string(svg).expect("the plot is written");
    assert!(plot.starts_with("<svg ") && plot.ends_with("</svg>\n"));
}

#[test]
fn an_option_that_is_not_understood_is_named_with_what_there_is() {
    let output = run(&["--round"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.starts_with("--round: not understood\nusage:"),
        "{said}"
    );
}
