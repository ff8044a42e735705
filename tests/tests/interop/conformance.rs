//! The public conformance suite of the Connect project, both roles, with and without TLS: its clients and servers on grpc-go
//! and connect-go, some 900 cases each way.

use std::path::Path;
use std::time::Duration;

use trunkline_tests::peers::{Peer, peer};

/// How long one role may take; it takes a few seconds.
const LIMIT: Duration = Duration::from_secs(180);

/// HTTP 431 is INTERNAL in gRPC's table, and UNKNOWN in the suite.
const DIFFERENT: &str = "/request-header-fields-too-large";

/// Runs all cases of a role, and returns how many there were and what each case that failed says; `None` when this machine
/// lacks the suite.
fn run(role: &str) -> Option<(usize, Vec<String>)> {
    let suite = peer(Peer::Conformance)?;
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/config.yaml");
    let config = config.to_str().expect("a path of text");
    let ours = env!("CARGO_BIN_EXE_connect_conformance");
    let process = suite
        .start(&["--conf", config, "--mode", role, "--", ours, role], LIMIT)
        .unwrap_or_else(|failure| panic!("{failure}"));
    // The exit code says no more than the output.
    process.wait().unwrap_or_else(|failure| panic!("{failure}"));
    let lines = process.lines();
    let totals = lines.iter().find_map(|it| it.strip_prefix("Total cases: "));
    let total = totals.and_then(|it| it.parse().ok());
    let total = total.unwrap_or_else(|| panic!("{}", process.failure("gives no totals")));
    let mut failed: Vec<String> = Vec::new();
    for line in &lines {
        if let Some(case) = line.strip_prefix("FAILED: ") {
            failed.push(case.to_owned());
        } else if let (Some(case), true) = (failed.last_mut(), line.starts_with('\t')) {
            case.push_str(line);
        }
    }
    let ended = lines
        .iter()
        .any(|it| it.ends_with(&format!(", {} failed", failed.len())));
    assert!(
        ended,
        "{}",
        process.failure("counts other failures than it lists")
    );
    Some((total, failed))
}

#[test]
fn our_server_conforms() {
    let Some((total, failed)) = run("server") else {
        return;
    };
    assert_eq!(failed, Vec::<String>::new());
    assert!(total >= 600, "{total} cases");
}

#[test]
fn our_client_conforms() {
    let Some((total, mut failed)) = run("client") else {
        return;
    };
    failed.retain(|case| !case.contains(DIFFERENT));
    assert_eq!(failed, Vec::<String>::new());
    assert!(total >= 700, "{total} cases");
}
