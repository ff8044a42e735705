//! Servers that are added to a list and removed from it, under load: new ones get calls, removed ones
//! none, and no call fails.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use trunkline::channel::{Endpoint, Resolution, Resolver, TargetUri, Updates, Verdict};
use trunkline::{Address, Channel, ChannelBuilder, Client, Server};

use super::simulated_fleet::{Fleet, Load};

const RATE: u32 = 1000;

/// The time in which a list that a resolver has pushed reaches all calls.
const PROMPT: Duration = Duration::from_millis(50);

/// The lists of servers, by their positions in the fleet, one after the other.
const LISTS: [&[usize]; 6] = [
    &[0, 1, 2],
    &[0, 1, 2, 3],
    &[1, 2, 3],
    &[3, 2, 4, 1],
    // No server remains.
    &[5, 0],
    &[0, 1, 2, 3, 4, 5],
];

/// A resolver that pushes each list of servers that it receives.
struct Pushing(watch::Receiver<Vec<Address>>);

impl Resolver for Pushing {
    fn schemes(&self) -> &[&str] {
        &["fleet"]
    }

    fn start(
        &self,
        _: &TargetUri,
        mut updates: Updates,
    ) -> impl Future<Output = ()> + Send + 'static {
        let mut lists = self.0.clone();
        async move {
            loop {
                let list = lists.borrow_and_update().clone();
                let endpoints = list.into_iter().map(Endpoint::new).collect();
                let verdict = updates.put(Resolution::new(endpoints)).await;
                assert!(matches!(verdict, Verdict::Used), "{verdict:?}");
                if lists.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Verifies that exactly the servers of `list` get calls from now on, or one of them with pick_first.
async fn check_traffic(policy: &str, fleet: &Fleet, list: &[usize], time: Duration) {
    let before = fleet.attempts();
    tokio::time::sleep(time).await;
    let after = fleet.attempts();
    let serving: Vec<_> = (0..after.len())
        .filter(|at| after[*at] > before[*at])
        .collect();
    let mut listed = list.to_vec();
    listed.sort_unstable();
    match policy {
        "pick_first" => {
            let is_listed = serving.iter().all(|it| list.contains(it));
            assert!(
                serving.len() == 1 && is_listed,
                "{policy}: {serving:?} of {list:?}"
            );
        }
        _ => assert_eq!(serving, listed, "{policy}"),
    }
}

#[tokio::test(start_paused = true)]
async fn lists_that_a_resolver_pushes_take_effect_under_load_without_failed_calls() {
    for (policy, config) in [
        ("pick_first", "{}"),
        ("round_robin", "{}"),
        ("weighted_round_robin", "{}"),
        ("least_request_experimental", "{}"),
        ("ring_hash_experimental", "{}"),
        (
            "random_subsetting_experimental",
            r#"{"subsetSize":6,"childPolicy":[{"round_robin":{}}]}"#,
        ),
        (
            "outlier_detection_experimental",
            r#"{"failurePercentageEjection":{},"childPolicy":[{"round_robin":{}}]}"#,
        ),
    ] {
        let fleet = Fleet::new(6);
        let addresses = |list: &[usize]| list.iter().map(|it| fleet.address(*it)).collect();
        let (lists, pushed) = watch::channel(addresses(LISTS[0]));
        let channel = Channel::to("fleet:orders")
            .resolver(Pushing(pushed))
            .service_config(&format!(
                r#"{{"loadBalancingConfig":[{{"{policy}":{config}}}]}}"#
            ))
            .connector(fleet.connector(Server::new()))
            .connect_lazy();
        let load = Load::start(&Client::new(channel.expect("a policy")), RATE);
        for list in LISTS {
            lists.send_replace(addresses(list));
            tokio::time::sleep(PROMPT).await;
            check_traffic(policy, &fleet, list, Duration::from_millis(200)).await;
        }
        let load = load.stop().await;
        assert!(load.failures.is_empty(), "{policy}: {:?}", load.failures);
        assert_eq!(fleet.attempts().iter().sum::<usize>(), load.durations.len());
    }
}

/// Changes the addresses of a name under load, and verifies that the channel has followed after `time`.
async fn change_name(server: Server, set: fn(ChannelBuilder) -> ChannelBuilder, time: Duration) {
    let fleet = Fleet::new(4);
    let list = Arc::new(Mutex::new(fleet.addresses()[..3].to_vec()));
    let found = list.clone();
    let lookup = move |_: String, _: u16| {
        let found = found.lock().expect("no panic").clone();
        async move { Ok(found) }
    };
    let builder = Channel::to("fleet.test:80").lookup(lookup).round_robin();
    let channel = set(builder.connector(fleet.connector(server))).connect_lazy();
    let load = Load::start(&Client::new(channel.expect("a target")), 50);
    tokio::time::sleep(Duration::from_secs(1)).await;
    check_traffic("round_robin", &fleet, &[0, 1, 2], Duration::from_secs(1)).await;
    *list.lock().expect("no panic") = fleet.addresses()[1..].to_vec();
    tokio::time::sleep(time).await;
    check_traffic("round_robin", &fleet, &[1, 2, 3], Duration::from_secs(40)).await;
    let load = load.stop().await;
    assert!(load.failures.is_empty(), "{:?}", load.failures);
}

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_again_when_servers_end_old_connections() {
    let aging = Server::new().max_connection_age(Duration::from_secs(20));
    // The age varies by 10 %, and lookups are 30 s apart or more.
    change_name(aging, |builder| builder, Duration::from_secs(50)).await;
}

#[tokio::test(start_paused = true)]
async fn names_are_looked_up_again_at_an_interval() {
    let every = |builder: ChannelBuilder| builder.resolve_every(Duration::from_secs(5));
    change_name(Server::new(), every, Duration::from_secs(5)).await;
}
