//! Three servers behind a list, each restarted in turn with a drain, under a steady load: no call
//! fails, and each is served once.
//!
//! Each is restarted once; with `TRUNKLINE_RESTART_SECONDS` again and again, for that long.
//! `TRUNKLINE_RESTART_RATE` says how many calls there are in a second (1,000).

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

/// How calls are spread over servers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Policy {
    PickFirst,
    RoundRobin,
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
    let counts: Vec<_> = (0..3).map(|_| Counting::default()).collect();
    let mut servers = Vec::new();
    for counting in &counts {
        servers.push(start(&server, "127.0.0.1:0", counting).await);
    }
    let addresses: Vec<_> = servers.iter().map(|(address, _)| address.clone()).collect();
    let channel = match policy {
        Policy::PickFirst => channel(&addresses).pick_first(),
        Policy::RoundRobin => channel(&addresses).round_robin(),
    };
    let client = Client::new(channel.connect_lazy().expect("addresses"));
    let (stop, stopped) = oneshot::channel();
    let loading = tokio::spawn(load(client, stopped));
    let began = Instant::now();
    let long = Duration::from_secs(number("TRUNKLINE_RESTART_SECONDS", 0).into());
    let served = |at: usize| counts[at].0.lock().expect("no panic").len();
    let total = || (0..3).map(served).sum::<usize>();
    let mut restarts = 0;
    while restarts < 3 || began.elapsed() < long {
        let at = restarts % 3;
        until("calls go on", || total() >= 200).await;
        let (address, running) = servers.remove(0);
        running.stop.send(()).expect("it runs");
        let drained = within("the drain", running.serving).await;
        drained.expect("no panic").expect("it ends well");
        let (served_before, total_before) = (served(at), total());
        servers.push(start(&server, &address, &counts[at]).await);
        // With pick_first the others serve; with round_robin this one is to serve again, as a
        // deployment waits for one to be ready before it takes the next.
        let has_settled = || match policy {
            Policy::PickFirst => total() > total_before + 300,
            Policy::RoundRobin => served(at) > served_before + 50,
        };
        until("the restarted server's turn", has_settled).await;
        restarts += 1;
    }
    let _ = stop.send(());
    let load = within("the last calls", loading).await.expect("no panic");
    check(name, policy, &load, &counts);
    println!(
        "{name}, {policy:?}: {restarts} restarts, {} calls, {:.0} a second, {} left out, {} failed, the slowest {:?}",
        load.calls,
        load.calls as f64 / began.elapsed().as_secs_f64(),
        load.left_out,
        load.failures.len(),
        load.slowest
    );
}

fn check(name: &str, policy: Policy, load: &Load, counts: &[Counting]) {
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
        "{name}, {policy:?}: {} of {calls} calls failed: {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    assert_eq!((times.len(), twice), (*calls, 0), "{name}, {policy:?}");
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
    restart_all("plain", Policy::PickFirst, Server::new(), plain).await;
}

#[tokio::test]
async fn no_call_fails_with_round_robin_while_servers_restart_in_turn() {
    restart_all("plain", Policy::RoundRobin, Server::new(), plain).await;
}

#[tokio::test]
async fn no_call_fails_while_servers_on_threads_restart_in_turn() {
    let server = Server::new().threads(2);
    restart_all("threads", Policy::RoundRobin, server, plain).await;
}

#[tokio::test]
async fn no_call_fails_over_tls_while_servers_restart_in_turn() {
    restart_all_over_tls("TLS", Policy::PickFirst, Server::new()).await;
}

#[tokio::test]
async fn no_call_fails_over_tls_while_servers_on_threads_restart_in_turn() {
    let server = Server::new().threads(2);
    restart_all_over_tls("TLS, threads", Policy::RoundRobin, server).await;
}
