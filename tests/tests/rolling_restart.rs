//! Three servers behind a list, each restarted in turn with a drain, under a steady load: no call
//! fails, and each is served once.
//!
//! `TRUNKLINE_RESTART_ROUNDS` says how often each is restarted (1), `TRUNKLINE_RESTART_RATE` how many
//! calls there are in a second (1,000).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use trunkline::{
    Channel, ChannelBuilder, Client, Method, Raw, Request, Result, Router, Server, Service,
};
use trunkline_testkit::within;

const METHOD: Method = Method::new("/test.Counting/Count");

/// How often each request was served, by what is in it.
#[derive(Clone, Default)]
struct Counting(Arc<Mutex<HashMap<bytes::Bytes, usize>>>);

impl Service for Counting {
    const NAME: &'static str = "test.Counting";

    fn add_to(self, router: &mut Router) {
        router.unary(
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

/// Serves at `address`, with the same counts in every life.
async fn start(address: &str, counting: &Counting) -> (String, Running) {
    let bound = loop {
        match Server::new().add(counting.clone()).bind(address).await {
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

/// Calls at a steady rate until it is told to stop; how many there were, and how those failed that
/// did.
async fn load(client: Client, mut stop: oneshot::Receiver<()>) -> (usize, Vec<String>) {
    let rate = number("TRUNKLINE_RESTART_RATE", 1000);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut calls = tokio::task::JoinSet::new();
    let mut count = 0;
    while stop.try_recv().is_err() {
        ticks.tick().await;
        let client = client.clone();
        calls.spawn(async move {
            let request = Raw(format!("{count}").into());
            let call = client.unary::<Raw, Raw>(METHOD, request.clone());
            let reply = call.timeout(Duration::from_secs(20)).await?;
            assert_eq!(reply.into_inner(), request);
            Ok::<_, trunkline::Status>(())
        });
        count += 1;
    }
    let mut failures = Vec::new();
    while let Some(call) = calls.join_next().await {
        if let Err(status) = call.expect("no panic") {
            failures.push(status.to_string());
        }
    }
    (count, failures)
}

async fn restart_all(name: &str, policy: impl FnOnce(ChannelBuilder) -> ChannelBuilder) {
    let counts: Vec<_> = (0..3).map(|_| Counting::default()).collect();
    let mut servers = Vec::new();
    for counting in &counts {
        servers.push(start("127.0.0.1:0", counting).await);
    }
    let addresses: Vec<_> = servers.iter().map(|(address, _)| address.clone()).collect();
    let channel = policy(Channel::to(&addresses[..])).connect_lazy();
    let client = Client::new(channel.expect("addresses"));
    let (stop, stopped) = oneshot::channel();
    let loading = tokio::spawn(load(client, stopped));
    let began = Instant::now();
    let served = |at: usize| counts[at].0.lock().expect("no panic").len();
    let total = || (0..3).map(served).sum::<usize>();
    for round in 0..number("TRUNKLINE_RESTART_ROUNDS", 1) {
        for at in 0..3 {
            until("calls go on", || total() >= 200).await;
            let (address, running) = servers.remove(0);
            running.stop.send(()).expect("it runs");
            let drained = within("the drain", running.serving).await;
            drained.expect("no panic").expect("it ends well");
            let (served_before, total_before) = (served(at), total());
            servers.push(start(&address, &counts[at]).await);
            // With pick_first the others serve; with round_robin this one is to serve again, as a
            // deployment waits for one to be ready before it takes the next.
            let has_settled = || match name {
                "round_robin" => served(at) > served_before + 50,
                _ => total() > total_before + 300,
            };
            until("the restarted server's turn", has_settled).await;
            println!(
                "{name}: server {at} restarted, round {round}, {:?}",
                began.elapsed()
            );
        }
    }
    let _ = stop.send(());
    let (count, failures) = within("the last calls", loading).await.expect("no panic");
    let mut times = HashMap::<bytes::Bytes, usize>::new();
    for counting in &counts {
        for (request, count) in &*counting.0.lock().expect("no panic") {
            *times.entry(request.clone()).or_default() += count;
        }
    }
    let twice = times.values().filter(|count| **count > 1).count();
    let rate = count as f64 / began.elapsed().as_secs_f64();
    println!(
        "{name}: {count} calls, {rate:.0} a second, {} failed, {twice} served twice",
        failures.len()
    );
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!((times.len(), twice), (count, 0));
}

async fn until(what: &str, is_done: impl Fn() -> bool) {
    within(what, async {
        while !is_done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn no_call_fails_with_pick_first_while_servers_restart_in_turn() {
    restart_all("pick_first", ChannelBuilder::pick_first).await;
}

#[tokio::test]
async fn no_call_fails_with_round_robin_while_servers_restart_in_turn() {
    restart_all("round_robin", ChannelBuilder::round_robin).await;
}
