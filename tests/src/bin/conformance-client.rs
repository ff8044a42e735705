//! The client that h2specd looks at: one call to the URL `http://HOST:PORT/`. How the call ends does not matter.

use std::process::ExitCode;
use std::time::Duration;

use trunkline::Channel;
use trunkline_tests::testing::{Empty, TestServiceClient};

/// The suite takes a connection that is gone for an answer to its last frame; this is the time for a better one.
const LINGER: Duration = Duration::from_millis(150);
/// Longer than the suite waits for anything.
const TIMEOUT: Duration = Duration::from_secs(4);

#[tokio::main]
async fn main() -> ExitCode {
    let Some(url) = std::env::args().nth(1) else {
        eprintln!("usage: conformance-client http://HOST:PORT/");
        return ExitCode::FAILURE;
    };
    let Ok(channel) = Channel::connect(url.trim_end_matches('/')).await else {
        return ExitCode::FAILURE;
    };
    let call = TestServiceClient::new(channel.clone()).empty_call(Empty {});
    let outcome = call.timeout(TIMEOUT).await;
    tokio::time::sleep(LINGER).await;
    drop(channel);
    if outcome.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
