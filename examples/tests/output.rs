//! Runs every example and compares its output with `expected/NAME.txt`.
//!
//! If the environment variable `TRUNKLINE_BLESS` is 1, the output replaces the expected text.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// The time limit of an example, far more than any needs, so that the tests pass on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn helloworld_prints_what_is_expected() {
    check("helloworld").await;
}

#[tokio::test]
async fn route_guide_prints_what_is_expected() {
    check("route_guide").await;
}

#[tokio::test]
async fn chat_prints_what_is_expected() {
    check("chat").await;
}

#[tokio::test]
async fn deadline_prints_what_is_expected() {
    check("deadline").await;
}

#[tokio::test]
async fn cancellation_prints_what_is_expected() {
    check("cancellation").await;
}

#[tokio::test]
async fn metadata_prints_what_is_expected() {
    check("metadata").await;
}

#[tokio::test]
async fn error_details_prints_what_is_expected() {
    check("error_details").await;
}

#[tokio::test]
async fn error_handling_prints_what_is_expected() {
    check("error_handling").await;
}

#[tokio::test]
async fn compression_prints_what_is_expected() {
    check("compression").await;
}

#[tokio::test]
async fn interceptor_prints_what_is_expected() {
    check("interceptor").await;
}

#[tokio::test]
async fn generic_call_prints_what_is_expected() {
    check("generic_call").await;
}

#[tokio::test]
async fn unix_socket_prints_what_is_expected() {
    check("unix_socket").await;
}

#[tokio::test]
async fn tower_layers_prints_what_is_expected() {
    check("tower_layers").await;
}

#[tokio::test]
async fn axum_side_by_side_prints_what_is_expected() {
    check("axum_side_by_side").await;
}

#[tokio::test]
async fn in_process_prints_what_is_expected() {
    check("in_process").await;
}

#[tokio::test]
async fn health_prints_what_is_expected() {
    check("health").await;
}

#[tokio::test]
async fn reflection_prints_what_is_expected() {
    check("reflection").await;
}

#[tokio::test]
async fn tls_prints_what_is_expected() {
    check("tls").await;
}

#[tokio::test]
async fn mtls_prints_what_is_expected() {
    check("mtls").await;
}

#[tokio::test]
async fn cert_reload_prints_what_is_expected() {
    check("cert_reload").await;
}

#[tokio::test]
async fn graceful_shutdown_prints_what_is_expected() {
    check("graceful_shutdown").await;
}

#[tokio::test]
async fn keepalive_prints_what_is_expected() {
    check("keepalive").await;
}

#[tokio::test]
async fn call_credentials_prints_what_is_expected() {
    check("call_credentials").await;
}

#[tokio::test]
async fn authentication_prints_what_is_expected() {
    check("authentication").await;
}

#[tokio::test]
async fn observability_prints_what_is_expected() {
    check("observability").await;
}

#[tokio::test]
async fn testing_prints_what_is_expected() {
    check("testing").await;
}

#[tokio::test]
async fn custom_policy_prints_what_is_expected() {
    check("custom_policy").await;
}

#[tokio::test]
async fn custom_resolver_prints_what_is_expected() {
    check("custom_resolver").await;
}

#[tokio::test]
async fn load_balancing_prints_what_is_expected() {
    check("load_balancing").await;
}

#[tokio::test]
async fn orca_prints_what_is_expected() {
    check("orca").await;
}

#[tokio::test]
async fn service_config_prints_what_is_expected() {
    check("service_config").await;
}

#[tokio::test]
async fn retry_prints_what_is_expected() {
    check("retry").await;
}

#[tokio::test]
async fn hedging_prints_what_is_expected() {
    check("hedging").await;
}

#[tokio::test]
async fn health_checked_client_prints_what_is_expected() {
    check("health_checked_client").await;
}

async fn check(name: &str) {
    let mut command = Command::new(program(name));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .unwrap_or_else(|_| panic!("{name} still runs after {PATIENCE:?}"))
        .unwrap_or_else(|error| {
            panic!("{name} does not start: {error}; `cargo test -p trunkline-examples` builds it")
        });
    let printed = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && complaints.is_empty(),
        "{name}: {}\n{printed}{complaints}",
        output.status
    );

    let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/expected/{name}.txt"));
    if std::env::var_os("TRUNKLINE_BLESS").is_some() {
        fs::write(&expected, &printed).unwrap();
    }
    assert_eq!(
        printed,
        fs::read_to_string(&expected).unwrap_or_default(),
        "{name}: TRUNKLINE_BLESS=1 writes what is printed to {}",
        expected.display()
    );
}

/// Returns the path of an example. Cargo builds examples for the tests of their package, in a directory next
/// to that of the test program.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let program = profile.join("examples").join(name);
    program.with_extension(std::env::consts::EXE_EXTENSION)
}
