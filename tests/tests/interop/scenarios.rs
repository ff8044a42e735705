//! grpcio and grpc-go end the calls of the scenarios as the table says, from which `trunkline` differs only where it says so.

#![cfg(unix)]

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use trunkline::Code;
use trunkline_testkit::ScriptedServer;
use trunkline_tests::peers::{Peer, run_jobs};
use trunkline_tests::scenarios::{self, Client, Scenario};

/// Nothing listens there.
const NOWHERE: &str = "127.0.0.1:1";

/// A scenario and its server, if it has one.
type Row = (Scenario, Option<ScriptedServer>);

async fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for scenario in scenarios::all().into_iter().filter(|it| it.is_common) {
        let server = match scenario.script {
            "" => None,
            script => Some(ScriptedServer::on_tcp(script).await),
        };
        rows.push((scenario, server));
    }
    rows
}

fn job(number: usize, (scenario, server): &Row) -> Value {
    json!({
        "name": number.to_string(),
        "target": server.as_ref().map_or(NOWHERE, ScriptedServer::address),
        "config": scenario.config(),
        "kind": scenario.kind,
        "messages": scenario.messages.0,
        "size": scenario.messages.1,
        "calls": scenario.calls,
        "timeout": scenario.timeout.as_millis() as u64,
        "retries": scenario.retries,
        "connected": server.is_some(),
    })
}

/// What is wrong with a scenario whose calls took some milliseconds and ended with these codes.
fn wrong(client: Client, (scenario, server): &Row, millis: u64, codes: &[Code]) -> Vec<String> {
    let attempts = server
        .as_ref()
        .map(ScriptedServer::attempts)
        .unwrap_or_default();
    let mut wrong = scenario.wrong_requests(&attempts);
    let (ended, expected) = (scenario.ended(&attempts, codes), scenario.ends_with(client));
    if ended != expected {
        wrong.push(format!("ended {ended:?}, not {expected:?}"));
    }
    // The clock of this machine goes on while it is busy: there is no upper limit.
    let least = scenario.takes.map_or(0, |(least, _)| least);
    if ended == expected && millis < least * 9 / 10 {
        wrong.push(format!("took {millis} ms, not {least}"));
    }
    wrong
}

fn agrees(client: Client, peer: Peer) {
    let runtime = Runtime::new().expect("a runtime");
    let rows = runtime.block_on(rows());
    let jobs: Vec<_> = rows
        .iter()
        .enumerate()
        .map(|(at, row)| job(at, row))
        .collect();
    let Some(lines) = run_jobs(peer, &Value::from(jobs).to_string()) else {
        return;
    };
    let mut failures = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let prefix = format!("done {at} ");
        let line = lines.iter().find_map(|line| line.strip_prefix(&prefix));
        let line = line.unwrap_or_else(|| panic!("{}: not done: {lines:#?}", row.0.number));
        let numbers: Vec<u64> = line
            .split(' ')
            .map(|it| it.parse().expect("a number"))
            .collect();
        let codes: Vec<_> = numbers[1..]
            .iter()
            .map(|code| Code::from(*code as i32))
            .collect();
        for wrong in wrong(client, row, numbers[0], &codes) {
            failures.push(format!("{}: {wrong}", row.0.number));
        }
    }
    assert!(failures.is_empty(), "{client:?}:\n{}", failures.join("\n"));
}

#[test]
fn grpcio_makes_the_attempts_of_the_scenarios() {
    agrees(Client::C, Peer::PythonScenarios);
}

#[test]
fn grpc_go_makes_the_attempts_of_the_scenarios() {
    agrees(Client::Go, Peer::GoScenarios);
}
