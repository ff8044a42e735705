//! Servers behind a list, each restarted in turn with a drain, under a steady load: no call fails, and
//! each is served once. No policy needs retries for that.
//!
//! Each is restarted once; with `TRUNKLINE_RESTART_SECONDS` again and again, for that long.
//! `TRUNKLINE_RESTART_SERVERS` sets the number of servers (3), `TRUNKLINE_RESTART_RATE` the number of
//! calls in a second (1,000).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use trunkline::server::Methods;
use trunkline::tls::{ClientTls, ServerTls};
use trunkline::{Channel, ChannelBuilder, Client, Method, Raw, Request, Result, Server, Service};
use trunkline_testkit::{Authority, within};

const METHOD: Method = Method::new("/test.Counting/Count");

/// How often each request was served, by what is in it.
#[derive(Clone, Default)]
struct Counting(Arc<Mutex<HashMap<bytes::Bytes, usize>>>);

impl Service for Counting {
    const NAME: &'static str = "test.Counting";

    fn add_to(self, methods: &mut Methods) {
        methods.unary(
            METHOD,
            &Arc::new(self),
            |service: Arc<Self>, request: Request<Raw>| async move {
                let request = request.into_inner();
                *service
                    .0
                    .lock()
                    .expect("no panic")
                    .entry(request.0.clone())
                    .or_default() += 1;
                // Some handlers take their time, so that a drain finds calls that run.
                if request.0.ends_with(b"7") {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(request)
            },
        );
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<()>>,
}

/// A load balancing policy with its configuration.
#[derive(Clone, Copy)]
struct Policy {
    name: &'static str,
    config: &'static str,
    /// True if calls return to a server after its restart.
    returns: bool,
}

const PICK_FIRST: Policy = Policy {
    returns: false,
    ..policy("pick_first")
};
const ROUND_ROBIN: Policy = policy("round_robin");

const fn policy(name: &'static str) -> Policy {
    Policy {
        name,
        config: "{}",
        returns: true,
    }
}

/// Serves at `address`, with the same counts in every life.
async fn start(server: &Server, address: &str, counting: &Counting) -> (String, Running) {
    let bound = loop {
        let server = server.clone().add_service(counting.clone());
        match server.bind(address).await {
            Ok(bound) => break bound,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let address = bound.local_addr().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(bound.serve_until(async move {
        let _ = stopped.await;
    }));
    (address, Running { stop, serving })
}

fn number(variable: &str, default: u32) -> u32 {
    let value = std::env::var(variable).ok().and_then(|it| it.parse().ok());
    value.unwrap_or(default)
}

/// More calls at one time than this are more than the machine can do beside its other work: those
/// that would be next are left out.
const RUNNING_MAX: usize = 500;

/// What became of the calls.
#[derive(Default)]
struct Load {
    calls: usize,
    left_out: usize,
    /// Measured from when the call was to begin.
    slowest: Duration,
    failures: Vec<String>,
}

impl Load {
    fn ended(&mut self, call: Result<Duration>) {
        match call {
            Ok(took) => self.slowest = self.slowest.max(took),
            Err(status) => self.failures.push(status.to_string()),
        }
    }
}

/// Calls at a steady rate, however long the calls take, until it is told to stop.
async fn load(client: Client, mut stop: oneshot::Receiver<()>) -> Load {
    let rate = number("TRUNKLINE_RESTART_RATE", 1000);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let (mut load, mut running) = (Load::default(), tokio::task::JoinSet::new());
    while stop.try_recv().is_err() {
        let due = ticks.tick().await;
        while let Some(call) = running.try_join_next() {
            load.ended(call.expect("no panic"));
        }
        if running.len() >= RUNNING_MAX {
            load.left_out += 1;
            continue;
        }
        let (client, number) = (client.clone(), load.calls);
        running.spawn(async move {
            let request = Raw(format!("{number}").into());
            let call = client.unary::<Raw, Raw>(METHOD, request.clone());
            let response = call.timeout(Duration::from_secs(20)).await?;
            assert_eq!(response.into_inner(), request);
            Ok(due.elapsed())
        });
        load.calls += 1;
    }
    while let Some(call) = running.join_next().await {
        load.ended(call.expect("no panic"));
    }
    load
}

/// Restarts the servers that are `server` and counts, which clients find by `channel`.
async fn restart_all(
    name: &str,
    policy: Policy,
    server: Server,
    channel: impl FnOnce(&[String]) -> ChannelBuilder,
) {
    let server_count = number("TRUNKLINE_RESTART_SERVERS", 3) as usize;
    let counts: Vec<_> = (0..server_count).map(|_| Counting::default()).collect();
    let mut servers = Vec::new();
    for counting in &counts {
        servers.push(start(&server, "127.0.0.1:0", counting).await);
    }
    let addresses: Vec<_> = servers.iter().map(|(address, _)| address.clone()).collect();
    let balancing = format!(
        r#"{{"loadBalancingConfig":[{{"{}":{}}}]}}"#,
        policy.name, policy.config
    );
    let channel = channel(&addresses).service_config(&balancing);
    let client = Client::new(channel.connect_lazy().expect("a policy"));
    let (stop, stopped) = oneshot::channel();
    let loading = tokio::spawn(load(client, stopped));
    let began = Instant::now();
    let long = Duration::from_secs(number("TRUNKLINE_RESTART_SECONDS", 0).into());
    let served = |at: usize| counts[at].0.lock().expect("no panic").len();
    let total = || (0..server_count).map(served).sum::<usize>();
    let mut restarts = 0;
    while restarts < server_count || began.elapsed() < long {
        let at = restarts % server_count;
        until("calls go on", || total() >= 200).await;
        let (address, running) = servers.remove(0);
        running.stop.send(()).expect("it runs");
        let drained = within("the drain", running.serving).await;
        drained.expect("no panic").expect("it ends well");
        let (served_before, total_before) = (served(at), total());
        servers.push(start(&server, &address, &counts[at]).await);
        // A deployment waits for a server to be ready before it takes the next. One that is not in the
        // subset of random_subsetting never serves.
        let has_settled = || match policy.returns && served_before > 0 {
            true => served(at) > served_before + 50,
            false => total() > total_before + 300,
        };
        until("the restarted server's turn", has_settled).await;
        restarts += 1;
    }
    let _ = stop.send(());
    let load = within("the last calls", loading).await.expect("no panic");
    check(&format!("{name}, {}", policy.name), &load, &counts);
    println!(
        "{name}, {}: {restarts} restarts, {} calls, {:.0} a second, {} left out, {} failed, the slowest {:?}",
        policy.name,
        load.calls,
        load.calls as f64 / began.elapsed().as_secs_f64(),
        load.left_out,
        load.failures.len(),
        load.slowest
    );
}

fn check(name: &str, load: &Load, counts: &[Counting]) {
    let mut times = HashMap::<bytes::Bytes, usize>::new();
    for counting in counts {
        for (request, count) in &*counting.0.lock().expect("no panic") {
            *times.entry(request.clone()).or_default() += count;
        }
    }
    let twice = times.values().filter(|count| **count > 1).count();
    let Load {
        calls, failures, ..
    } = load;
    assert!(
        failures.is_empty(),
        "{name}: {} of {calls} calls failed: {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    assert_eq!((times.len(), twice), (*calls, 0), "{name}");
}

async fn until(what: &str, is_done: impl Fn() -> bool) {
    within(what, async {
        while !is_done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn plain(addresses: &[String]) -> ChannelBuilder {
    Channel::to(addresses)
}

async fn restart_plain(policy: Policy) {
    restart_all("plain", policy, Server::new(), plain).await;
}

async fn restart_all_over_tls(name: &str, policy: Policy, server: Server) {
    let authority = Authority::new();
    let identity = authority.issue(&["127.0.0.1"]);
    let tls = ServerTls::from_pem(&identity.certificate, &identity.key).expect("an identity");
    restart_all(name, policy, server.tls(tls), |addresses| {
        let targets = addresses.iter().map(|it| format!("https://{it}"));
        let trusting = ClientTls::new().ca_pem(authority.pem());
        Channel::to(targets.collect::<Vec<_>>()).tls(trusting)
    })
    .await;
}

#[tokio::test]
async fn no_call_fails_with_pick_first_while_servers_restart_in_turn() {
    restart_plain(PICK_FIRST).await;
}

#[tokio::test]
async fn no_call_fails_with_round_robin_while_servers_restart_in_turn() {
    restart_plain(ROUND_ROBIN).await;
}

#[tokio::test]
async fn no_call_fails_with_weighted_round_robin_while_servers_restart_in_turn() {
    restart_plain(policy("weighted_round_robin")).await;
}

#[tokio::test]
async fn no_call_fails_with_least_request_while_servers_restart_in_turn() {
    restart_plain(policy("least_request_experimental")).await;
}

#[tokio::test]
async fn no_call_fails_with_ring_hash_while_servers_restart_in_turn() {
    restart_plain(policy("ring_hash_experimental")).await;
}

#[tokio::test]
async fn no_call_fails_with_random_subsetting_while_servers_restart_in_turn() {
    let subsetting = Policy {
        config: r#"{"subsetSize":2,"childPolicy":[{"round_robin":{}}]}"#,
        ..policy("random_subsetting_experimental")
    };
    restart_plain(subsetting).await;
}

#[tokio::test]
async fn no_call_fails_with_outlier_detection_while_servers_restart_in_turn() {
    let detection = Policy {
        config: r#"{"interval":"0.1s","failurePercentageEjection":{"requestVolume":5,"minimumHosts":1},
            "childPolicy":[{"round_robin":{}}]}"#,
        ..policy("outlier_detection_experimental")
    };
    restart_plain(detection).await;
}

#[tokio::test]
async fn no_call_fails_while_servers_on_threads_restart_in_turn() {
    let server = Server::new().threads(2);
    restart_all("threads", ROUND_ROBIN, server, plain).await;
}

#[tokio::test]
async fn no_call_fails_over_tls_while_servers_restart_in_turn() {
    restart_all_over_tls("TLS", PICK_FIRST, Server::new()).await;
}

#[tokio::test]
async fn no_call_fails_over_tls_while_servers_on_threads_restart_in_turn() {
    let server = Server::new().threads(2);
    restart_all_over_tls("TLS, threads", ROUND_ROBIN, server).await;
}
