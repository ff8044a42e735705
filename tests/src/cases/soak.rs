//! Many calls, one after the other and at once.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use trunkline::Channel;
use trunkline::tls::ClientTls;

use super::TIMEOUT;
use super::expect::{
    LARGE_REQUEST, LARGE_RESPONSE, Mismatch, Outcome, check, check_large, check_size,
    large_request, request_of,
};
use crate::testing::TestServiceClient;

/// How many calls the soak cases make, and what they allow.
#[derive(Clone, Debug)]
pub struct Soak {
    /// Where the server is, for the lines that tell of calls and for `channel_soak`.
    pub target: String,
    /// With what `channel_soak` connects, if there is TLS.
    pub tls: Option<ClientTls>,
    /// Calls to make, by all threads together.
    pub iterations: u32,
    /// Calls that may fail or be too slow.
    pub max_failures: u32,
    /// A call that takes longer counts as failed.
    pub max_latency: Duration,
    /// All calls together must be done by then.
    pub overall_timeout: Duration,
    /// How long after the begin of a call the next one of its thread begins, at the earliest.
    pub min_time_between_calls: Duration,
    /// The size of each request's payload, in bytes.
    pub request_size: usize,
    /// The size of each response's payload, in bytes.
    pub response_size: usize,
    /// How many calls are made at once.
    pub threads: u32,
}

impl Soak {
    /// What every implementation does unless it is told otherwise, with the server at `target`.
    pub fn at(target: &str) -> Self {
        Self {
            target: target.to_owned(),
            tls: None,
            iterations: 10,
            max_failures: 0,
            max_latency: Duration::from_secs(1),
            overall_timeout: Duration::from_secs(10),
            min_time_between_calls: Duration::ZERO,
            request_size: LARGE_REQUEST,
            response_size: LARGE_RESPONSE,
            threads: 1,
        }
    }
}

/// As `rpc_soak`, but each call connects anew.
pub(crate) async fn channel_soak(soak: &Soak) -> Outcome {
    soaked(soak, None).await
}

pub(crate) async fn rpc_soak(client: &TestServiceClient, soak: &Soak) -> Outcome {
    soaked(soak, Some(client)).await
}

/// All calls, over `client` or each over a connection of its own.
async fn soaked(soak: &Soak, client: Option<&TestServiceClient>) -> Outcome {
    let until = Instant::now() + soak.overall_timeout;
    let threads = soak.threads.max(1);
    let mut workers = JoinSet::new();
    for thread in 0..threads {
        let mut share = soak.clone();
        share.iterations = (soak.iterations + thread) / threads;
        workers.spawn(work(share, client.cloned(), until));
    }
    let (mut done, mut failures) = (0, 0);
    for (calls, failed) in workers.join_all().await {
        done += calls;
        failures += failed;
    }
    check("calls that were done in time", &done, &soak.iterations)?;
    check(
        "whether failures stay within the limit",
        &(failures <= soak.max_failures),
        &true,
    )
}

/// The calls of one thread; says how many were done until then, and how many of those failed.
async fn work(soak: Soak, client: Option<TestServiceClient>, until: Instant) -> (u32, u32) {
    let mut failures = 0;
    for iteration in 0..soak.iterations {
        let began = Instant::now();
        let Ok(outcome) = timeout_at(until, call(&soak, client.as_ref())).await else {
            return (iteration, failures);
        };
        let elapsed = began.elapsed();
        let good = outcome.is_ok() && elapsed <= soak.max_latency;
        failures += u32::from(!good);
        let word = if good { "succeeded" } else { "failed" };
        let (elapsed, peer) = (elapsed.as_millis(), &soak.target);
        println!("soak iteration: {iteration} elapsed_ms: {elapsed} peer: {peer} {word}");
        if let Err(mismatch) = outcome {
            println!("    {mismatch}");
        }
        sleep_until(until.min(began + soak.min_time_between_calls)).await;
    }
    (soak.iterations, failures)
}

async fn call(soak: &Soak, client: Option<&TestServiceClient>) -> Outcome {
    let client = match client {
        Some(client) => client.clone(),
        None => {
            let channel = Channel::to(&soak.target);
            let channel = match &soak.tls {
                None => channel,
                Some(tls) => channel.tls(tls.clone()),
            };
            TestServiceClient::new(channel.connect().await?)
        }
    };
    let request = request_of(soak.request_size, soak.response_size);
    check_size(&*client.unary_call(request).await?, soak.response_size)
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
