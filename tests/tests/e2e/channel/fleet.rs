//! A fleet of 20 servers, some or all of which become bad: the success rate and the latency of calls, the
//! share of each server, and the load that retries add.
//!
//! With `--nocapture`, the tests print the tables of docs/load-balancing.md. `TRUNKLINE_FLEET_SECONDS` sets
//! how long each measurement lasts (5), `TRUNKLINE_FLEET_RATE` the number of calls in a second (200).

use std::time::Duration;

use trunkline::{Channel, Client, Code, Server};

use super::simulated_fleet::{Behavior, Fleet, Load, TIMEOUT};

const SERVERS: usize = 20;
const BAD_SERVERS: usize = 3;

/// The most attempts that one server may receive, compared with an even share.
const BUSIEST_MAX: f64 = 1.3;

const ROUND_ROBIN: &str = r#"{"round_robin":{}}"#;

/// Can eject three of 20 servers, after a second or two.
const OUTLIER_DETECTION: &str = r#"{"outlier_detection_experimental":{
    "interval":"1s","maxEjectionPercent":15,
    "failurePercentageEjection":{"threshold":50,"requestVolume":5},
    "childPolicy":[{"round_robin":{}}]}}"#;

const RETRIES: &str = r#""retryPolicy":{"maxAttempts":3,"initialBackoff":"0.01s","maxBackoff":"0.1s",
    "backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}"#;

const HEDGING: &str = r#""hedgingPolicy":{"maxAttempts":3,"hedgingDelay":"0.05s",
    "nonFatalStatusCodes":["UNAVAILABLE"]}"#;

/// A failure takes a token, and a success returns half of one: retries go on while up to a third of attempts fail.
const THROTTLING: &str = r#"{"maxTokens":100,"tokenRatio":0.5}"#;

/// The figures of a measurement.
struct Figures {
    succeeded: f64,
    latencies: Vec<Duration>,
    attempts_per_call: f64,
    /// The attempts at the busiest server, compared with an even share.
    busiest: f64,
}

fn number(variable: &str, default: u32) -> u32 {
    let value = std::env::var(variable).ok().and_then(|it| it.parse().ok());
    value.unwrap_or(default)
}

/// A channel to all servers. `throttling` can be `null`.
fn client(fleet: &Fleet, balancing: &str, attempts: &str, throttling: &str) -> Client {
    let separator = if attempts.is_empty() { "" } else { "," };
    let config = format!(
        r#"{{"loadBalancingConfig":[{balancing}],"retryThrottling":{throttling},
            "methodConfig":[{{"name":[{{}}]{separator}{attempts}}}]}}"#
    );
    let channel = Channel::to(fleet.addresses())
        .service_config(&config)
        .connector(fleet.connector(Server::new()))
        .connect_lazy();
    Client::new(channel.expect("a service config"))
}

/// Measures calls from the moment at which `bad` servers, spread over the list, behave so.
async fn measure(client: &Client, fleet: &Fleet, bad: usize, behavior: Behavior) -> Figures {
    let rate = number("TRUNKLINE_FLEET_RATE", 200);
    let healthy = Load::start(client, rate).stop_after(ms(1000)).await;
    assert!(healthy.failures.is_empty(), "{:?}", healthy.failures);
    let before = fleet.attempts();
    let servers = fleet.servers().iter().step_by(SERVERS / bad).take(bad);
    servers.for_each(|it| it.behave(behavior));
    let time = Duration::from_secs(number("TRUNKLINE_FLEET_SECONDS", 5).into());
    let mut load = Load::start(client, rate).stop_after(time).await;
    let attempts = fleet.attempts().into_iter().zip(before);
    let attempts: Vec<_> = attempts.map(|(after, before)| after - before).collect();
    let (total, calls) = (attempts.iter().sum::<usize>() as f64, load.durations.len());
    let busiest = attempts.into_iter().max().expect("servers") as f64;
    load.durations.sort_unstable();
    Figures {
        succeeded: 100.0 * (calls - load.failures.len()) as f64 / calls as f64,
        latencies: load.durations,
        attempts_per_call: total / calls as f64,
        busiest: busiest * SERVERS as f64 / total,
    }
}

impl Figures {
    fn print(&self, policy: &str) {
        let latency = |percent| format!("{} ms", self.percentile(percent).as_millis());
        println!(
            "| {policy} | {:.2} % | {} | {} | {} | {:.2} | {:.2} |",
            self.succeeded,
            latency(50.0),
            latency(99.0),
            latency(99.9),
            self.attempts_per_call,
            self.busiest
        );
    }

    fn percentile(&self, percent: f64) -> Duration {
        let at = (self.latencies.len() as f64 * percent / 100.0).ceil() as usize;
        self.latencies[at.max(1) - 1]
    }
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Measures each policy with three servers that behave so, prints a table, and verifies for each row the
/// least success rate, in percent, and the highest 99th percentile.
async fn check(what: &str, behavior: Behavior, bounds: [(f64, Duration); 6]) {
    println!("\n| {what} | succeeded | p50 | p99 | p99.9 | attempts per call | busiest server |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let policies = [
        ("round_robin", ROUND_ROBIN, ""),
        ("outlier detection", OUTLIER_DETECTION, ""),
        ("retries", ROUND_ROBIN, RETRIES),
        ("hedging", ROUND_ROBIN, HEDGING),
        ("outlier detection, retries", OUTLIER_DETECTION, RETRIES),
        ("outlier detection, hedging", OUTLIER_DETECTION, HEDGING),
    ];
    let mut out_of_bounds = Vec::new();
    for ((policy, balancing, attempts), (succeeded, p99)) in policies.into_iter().zip(bounds) {
        let fleet = Fleet::new(SERVERS);
        let client = client(&fleet, balancing, attempts, THROTTLING);
        let figures = measure(&client, &fleet, BAD_SERVERS, behavior).await;
        figures.print(policy);
        let is_good = figures.succeeded >= succeeded && figures.percentile(99.0) <= p99;
        if !is_good || figures.busiest > BUSIEST_MAX {
            out_of_bounds.push(policy);
        }
    }
    assert!(out_of_bounds.is_empty(), "{what}: {out_of_bounds:?}");
}

/// Without detection, the calls at the three servers fail: 15 %.
const DEGRADED: (f64, Duration) = (84.0, TIMEOUT);
const ALL_SLOWLY: (f64, Duration) = (100.0, ms(500));
/// A hedge follows after 50 ms, and takes up to 15 ms.
const ALL_HEDGED: (f64, Duration) = (100.0, ms(70));

#[tokio::test(start_paused = true)]
async fn retries_and_hedging_hide_unavailable_servers_and_detection_finds_them() {
    let bounds = [
        DEGRADED,
        (95.0, ms(20)),
        // Now and then, all three attempts are at bad servers.
        (98.5, ms(60)),
        (99.5, ms(40)),
        (99.0, ms(40)),
        (99.5, ms(40)),
    ];
    let behavior = Behavior::Fails(Code::UNAVAILABLE);
    check("UNAVAILABLE at once", behavior, bounds).await;
}

#[tokio::test(start_paused = true)]
async fn only_detection_finds_servers_whose_errors_are_not_retried() {
    let found = (95.0, ms(20));
    let bounds = [DEGRADED, found, DEGRADED, DEGRADED, found, found];
    check("INTERNAL", Behavior::Fails(Code::INTERNAL), bounds).await;
}

#[tokio::test(start_paused = true)]
async fn only_hedging_hides_slow_servers() {
    let [slow, hedged] = [ALL_SLOWLY, ALL_HEDGED];
    let bounds = [slow, slow, slow, hedged, slow, hedged];
    check("500 ms", Behavior::Slow, bounds).await;
}

#[tokio::test(start_paused = true)]
async fn hedging_hides_black_holes_and_detection_finds_them() {
    // The first calls fail after the timeout, 1 s, and are noticed up to 1 s later.
    let found = (90.0, TIMEOUT);
    let bounds = [DEGRADED, found, DEGRADED, ALL_HEDGED, found, ALL_HEDGED];
    check("black hole", Behavior::BlackHole, bounds).await;
}

#[tokio::test(start_paused = true)]
async fn throttled_retries_add_less_than_a_tenth_while_every_server_fails() {
    println!(
        "\n| every server fails | succeeded | p50 | p99 | p99.9 | attempts per call | busiest server |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (policy, attempts, throttling, attempts_max) in [
        ("retries", RETRIES, "null", 3.0),
        ("hedging", HEDGING, "null", 3.0),
        ("throttled retries", RETRIES, THROTTLING, 1.1),
        ("throttled hedging", HEDGING, THROTTLING, 1.1),
    ] {
        let fleet = Fleet::new(SERVERS);
        let client = client(&fleet, ROUND_ROBIN, attempts, throttling);
        let figures = measure(&client, &fleet, SERVERS, Behavior::Fails(Code::UNAVAILABLE)).await;
        figures.print(policy);
        assert!(figures.succeeded == 0.0, "{policy}");
        assert!(figures.attempts_per_call <= attempts_max, "{policy}");
        assert!(figures.busiest <= BUSIEST_MAX, "{policy}");
        if throttling == "null" {
            assert!(figures.attempts_per_call > 2.9, "{policy}");
        }
        for server in fleet.servers() {
            server.behave(Behavior::Good);
        }
        let load = Load::start(&client, 200).stop_after(ms(500)).await;
        assert!(load.failures.is_empty(), "{policy}: {:?}", load.failures);
    }
}

#[tokio::test(start_paused = true)]
async fn healthy_servers_have_even_shares_with_each_policy_that_uses_all() {
    for policy in [
        "round_robin",
        "weighted_round_robin",
        "least_request_experimental",
    ] {
        let fleet = Fleet::new(SERVERS);
        let balancing = format!(r#"{{"{policy}":{{}}}}"#);
        let client = client(&fleet, &balancing, "", "null");
        let load = Load::start(&client, 1000).stop_after(ms(4000)).await;
        assert!(load.failures.is_empty(), "{policy}: {:?}", load.failures);
        let busiest = fleet.attempts().into_iter().max().expect("servers") * SERVERS;
        let share = busiest as f64 / load.durations.len() as f64;
        assert!(share <= BUSIEST_MAX, "{policy}: {share}");
    }
}
