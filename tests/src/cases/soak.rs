//! Many calls, one after the other and at once.

use std::time::{Duration, Instant};

use trunkline::{Channel, Response, Result};

use super::TIMEOUT;
use super::expect::{Mismatch, Outcome, check, check_large, large_request};
use crate::testing::{SimpleResponse, TestServiceClient};

/// How many calls the soak cases make, and what they allow.
#[derive(Clone, Debug)]
pub struct Soak {
    /// Calls to make.
    pub iterations: u32,
    /// Calls that may fail or be too slow.
    pub max_failures: u32,
    /// A call that takes longer counts as failed.
    pub max_latency: Duration,
    /// All calls together must be done by then.
    pub overall_timeout: Duration,
}

impl Default for Soak {
    fn default() -> Self {
        Self {
            iterations: 10,
            max_failures: 0,
            max_latency: Duration::from_secs(1),
            overall_timeout: Duration::from_secs(10),
        }
    }
}

/// As `rpc_soak`, but each call connects anew.
///
/// # Errors
///
/// The first expectation that does not hold.
pub async fn channel_soak(target: &str, soak: &Soak) -> std::result::Result<(), Mismatch> {
    soaked(soak, async || {
        let client = TestServiceClient::new(Channel::connect(target).await?);
        client
            .unary_call(large_request())
            .await
            .map(|response| response.into_inner())
    })
    .await
}

pub(crate) async fn rpc_soak(client: &TestServiceClient, soak: &Soak) -> Outcome {
    soaked(soak, async || {
        client
            .unary_call(large_request())
            .await
            .map(Response::into_inner)
    })
    .await
}

async fn soaked(soak: &Soak, mut call: impl AsyncFnMut() -> Result<SimpleResponse>) -> Outcome {
    let started = Instant::now();
    let mut failures = 0;
    for iteration in 0..soak.iterations {
        if started.elapsed() > soak.overall_timeout {
            return Err(Mismatch::new(format!(
                "only {iteration} of {} calls were done in time",
                soak.iterations
            )));
        }
        let call_started = Instant::now();
        let outcome = call()
            .await
            .map_err(Mismatch::from)
            .and_then(|response| check_large(&response));
        let elapsed = call_started.elapsed();
        let good = outcome.is_ok() && elapsed <= soak.max_latency;
        failures += u32::from(!good);
        let word = if good { "succeeded" } else { "failed" };
        println!(
            "soak iteration: {iteration} elapsed_ms: {} {word}",
            elapsed.as_millis()
        );
        if let Err(mismatch) = outcome {
            println!("    {mismatch}");
        }
    }
    check(
        "whether failures stay within the limit",
        &(failures <= soak.max_failures),
        &true,
    )
}

/// More calls than one connection takes at once, by the limit of most servers.
pub(crate) async fn concurrent_large_unary(client: &TestServiceClient) -> Outcome {
    let calls: Vec<_> = (0..200)
        .map(|_| {
            tokio::spawn(
                client
                    .unary_call(large_request())
                    .timeout(TIMEOUT * 3)
                    .into_future(),
            )
        })
        .collect();
    for call in calls {
        let response = call
            .await
            .map_err(|error| Mismatch::new(format!("a call panicked: {error}")))??;
        check_large(&response)?;
    }
    Ok(())
}
