//! The health service, asked by our own client.

use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use trunkline::{Channel, Code, Request, Result, Server, Service, Status, Streaming};
use trunkline_health::v1::{HealthCheckRequest, HealthCheckResponse, HealthListRequest};
use trunkline_health::{Health, HealthClient, ServingStatus};

use ServingStatus::{NotServing, ServiceUnknown, Serving};

mod hello {
    trunkline::include_proto!("../../proto/helloworld.proto");
}

const GREETER: &str = "helloworld.Greeter";
/// Longer than anything here takes, so that a fault is a failure rather than a hang.
const PATIENCE: Duration = Duration::from_secs(30);

struct MyGreeter;

impl hello::Greeter for MyGreeter {
    async fn say_hello(&self, _: Request<hello::HelloRequest>) -> Result<hello::HelloReply> {
        Ok(hello::HelloReply::default())
    }
}

fn greeter_with(health: &Health) -> HealthClient {
    let server = Server::new()
        .add_service(health.clone())
        .add_service(hello::GreeterServer::new(MyGreeter));
    HealthClient::new(Channel::in_process(server))
}

fn named(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

async fn check(client: &HealthClient, service: &str) -> Result<ServingStatus> {
    let response = client.check(named(service)).await?;
    Ok(response.status())
}

async fn list(client: &HealthClient) -> Result<BTreeMap<String, ServingStatus>> {
    let response = client.list(HealthListRequest {}).await?.into_inner();
    let statuses = response.statuses.into_iter();
    let statuses = statuses.map(|(name, response)| (name, response.status()));
    Ok(statuses.collect())
}

async fn next(statuses: &mut Streaming<HealthCheckResponse>) -> Result<Option<ServingStatus>> {
    let next = tokio::time::timeout(PATIENCE, statuses.message()).await;
    let response = next.map_err(|_| Status::deadline_exceeded("nothing came"))??;
    Ok(response.map(|response| response.status()))
}

#[tokio::test]
async fn a_server_and_its_services_are_serving_with_no_more_than_one_line() {
    let client = greeter_with(&Health::new());
    for service in ["", GREETER, Health::NAME] {
        assert_eq!(
            check(&client, service).await.unwrap(),
            Serving,
            "{service:?}"
        );
    }
    let listed = list(&client).await.unwrap();
    let expected = [("", Serving), (Health::NAME, Serving), (GREETER, Serving)];
    assert_eq!(
        listed,
        expected
            .map(|(name, status)| (name.to_owned(), status))
            .into()
    );
}

#[tokio::test]
async fn check_is_what_was_set_last_and_not_found_where_nothing_is_known() {
    let health = Health::new();
    let client = greeter_with(&health);
    for service in ["unknown", "helloworld.greeter", "helloworld"] {
        let status = check(&client, service).await.unwrap_err();
        assert_eq!(status.code(), Code::NOT_FOUND, "{service:?}");
        assert_eq!(health.status(service), None);
    }
    health.set_not_serving(GREETER);
    assert_eq!(check(&client, GREETER).await.unwrap(), NotServing);
    assert_eq!(check(&client, "").await.unwrap(), Serving);
    health.set_not_serving("");
    health.set_serving(GREETER);
    health.set_serving("a database");
    assert_eq!(check(&client, GREETER).await.unwrap(), Serving);
    assert_eq!(check(&client, "a database").await.unwrap(), Serving);
    assert_eq!(check(&client, "").await.unwrap(), NotServing);
    health.clear(GREETER);
    let status = check(&client, GREETER).await.unwrap_err();
    assert_eq!(status.code(), Code::NOT_FOUND);
}

#[tokio::test]
async fn what_was_set_before_the_service_was_added_stays() {
    let health = Health::new();
    health.set_not_serving(GREETER);
    let client = greeter_with(&health);
    assert_eq!(check(&client, GREETER).await.unwrap(), NotServing);
}

#[tokio::test]
async fn a_list_has_a_hundred_statuses_at_most() {
    let health = Health::new();
    let client = HealthClient::new(Channel::in_process(
        Server::new().add_service(health.clone()),
    ));
    // There are two already: the server and the health service.
    for number in 0..97 {
        health.set_not_serving(&format!("service {number}"));
    }
    for expected in [99, 100] {
        assert_eq!(list(&client).await.unwrap().len(), expected);
        health.set_not_serving(&format!("the next is number {expected}"));
    }
    let status = list(&client).await.unwrap_err();
    assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED);
    assert!(status.message().contains("101"), "{status}");
    // The others are as they were.
    assert_eq!(check(&client, "service 7").await.unwrap(), NotServing);
}

#[tokio::test]
async fn a_watch_tells_how_it_is_and_then_each_change() {
    let health = Health::new();
    let client = greeter_with(&health);
    let mut server = client.watch(named("")).await.unwrap();
    let mut greeter = client.watch(named(GREETER)).await.unwrap();
    assert_eq!(next(&mut server).await.unwrap(), Some(Serving));
    assert_eq!(next(&mut greeter).await.unwrap(), Some(Serving));
    health.set_not_serving(GREETER);
    assert_eq!(next(&mut greeter).await.unwrap(), Some(NotServing));
    // What does not change it is not told: the next that comes is of the second line.
    health.set_not_serving(GREETER);
    health.set_serving("another");
    health.set_serving(GREETER);
    assert_eq!(next(&mut greeter).await.unwrap(), Some(Serving));
    // The other stream has missed nothing, since nothing has changed there.
    health.set_not_serving("");
    assert_eq!(next(&mut server).await.unwrap(), Some(NotServing));
    health.clear(GREETER);
    assert_eq!(next(&mut greeter).await.unwrap(), Some(ServiceUnknown));
}

#[tokio::test]
async fn a_service_without_a_status_of_its_own_changes_with_the_server() {
    let health = Health::new();
    let client = greeter_with(&health);
    let mut greeter = client.watch(named(GREETER)).await.unwrap();
    assert_eq!(next(&mut greeter).await.unwrap(), Some(Serving));
    health.set_not_serving("");
    assert_eq!(next(&mut greeter).await.unwrap(), Some(NotServing));
}

#[tokio::test]
async fn a_watch_of_an_unknown_service_says_so_and_goes_on_until_it_is_known() {
    let health = Health::new();
    let client = greeter_with(&health);
    let mut statuses = client.watch(named("later")).await.unwrap();
    assert_eq!(next(&mut statuses).await.unwrap(), Some(ServiceUnknown));
    health.set_serving("later");
    assert_eq!(next(&mut statuses).await.unwrap(), Some(Serving));
    // Who asks leaves nothing behind.
    drop(client.watch(named("never")).await.unwrap());
    assert_eq!(health.status("never"), None);
}

#[tokio::test]
async fn a_name_that_is_watched_has_a_thousand_bytes_at_most() {
    let client = greeter_with(&Health::new());
    for len in [999, 1_000] {
        let mut statuses = client.watch(named(&"x".repeat(len))).await.unwrap();
        assert_eq!(next(&mut statuses).await.unwrap(), Some(ServiceUnknown));
    }
    for len in [1_001, 1 << 20] {
        let mut statuses = client.watch(named(&"x".repeat(len))).await.unwrap();
        let status = next(&mut statuses).await.unwrap_err();
        assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{len}");
    }
}

#[tokio::test]
async fn of_many_changes_who_reads_late_gets_the_latest() {
    let health = Health::new();
    let client = greeter_with(&health);
    let mut statuses = client.watch(named(GREETER)).await.unwrap();
    assert_eq!(next(&mut statuses).await.unwrap(), Some(Serving));
    for _ in 0..10_000 {
        health.set_not_serving(GREETER);
        health.set_serving(GREETER);
    }
    health.set_not_serving(GREETER);
    // Nothing has awaited in between, so all that the stream could see is the end.
    assert_eq!(next(&mut statuses).await.unwrap(), Some(NotServing));
}

#[tokio::test]
async fn a_shutdown_is_not_serving_whatever_is_set_until_it_resumes() {
    let health = Health::new();
    let client = greeter_with(&health);
    let mut statuses = client.watch(named(GREETER)).await.unwrap();
    assert_eq!(next(&mut statuses).await.unwrap(), Some(Serving));
    health.shutdown();
    health.set_serving(GREETER);
    health.set_serving("");
    for service in ["", GREETER, Health::NAME] {
        assert_eq!(check(&client, service).await.unwrap(), NotServing);
    }
    assert!(
        list(&client)
            .await
            .unwrap()
            .values()
            .all(|it| *it == NotServing)
    );
    assert_eq!(
        check(&client, "unknown").await.unwrap_err().code(),
        Code::NOT_FOUND
    );
    assert_eq!(next(&mut statuses).await.unwrap(), Some(NotServing));
    health.resume();
    assert_eq!(next(&mut statuses).await.unwrap(), Some(Serving));
    assert_eq!(check(&client, "").await.unwrap(), Serving);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_on_a_signal_gives_notice_and_then_ends_the_streams() {
    let health = Health::new();
    let client = greeter_with(&health);
    let mut statuses = client.watch(named("")).await.unwrap();
    assert_eq!(next(&mut statuses).await.unwrap(), Some(Serving));

    let (signal, received) = tokio::sync::oneshot::channel::<()>();
    let notice = Duration::from_secs(5);
    let ending = health
        .clone()
        .shutdown_on(async { drop(received.await) }, notice);
    let ending = tokio::spawn(ending);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(check(&client, "").await.unwrap(), Serving);

    let started = tokio::time::Instant::now();
    drop(signal);
    assert_eq!(next(&mut statuses).await.unwrap(), Some(NotServing));
    assert_eq!(started.elapsed(), Duration::ZERO);
    let status = next(&mut statuses).await.unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE);
    ending.await.unwrap();
    assert!((notice..notice + Duration::from_millis(10)).contains(&started.elapsed()));

    // A probe that comes late, and a watch, are told and not kept.
    assert_eq!(check(&client, "").await.unwrap(), NotServing);
    let mut late = client.watch(named("")).await.unwrap();
    assert_eq!(next(&mut late).await.unwrap(), Some(NotServing));
    assert_eq!(next(&mut late).await.unwrap_err().code(), Code::UNAVAILABLE);
}

#[tokio::test]
async fn a_server_that_is_watched_ends_at_once_and_not_after_its_grace() {
    let health = Health::new();
    let server = Server::new()
        .add_service(health.clone())
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let address = server.local_addr();
    let (signal, received) = tokio::sync::oneshot::channel::<()>();
    let ending = health.shutdown_on(async { drop(received.await) }, Duration::ZERO);
    let serving = tokio::spawn(server.serve_until(ending));
    let client = HealthClient::connect(&address).await.unwrap();
    let mut statuses = client.watch(named("")).await.unwrap();
    assert_eq!(next(&mut statuses).await.unwrap(), Some(Serving));
    drop(signal);
    assert_eq!(next(&mut statuses).await.unwrap(), Some(NotServing));
    assert!(next(&mut statuses).await.is_err());
    // The grace is 10 s.
    let ended = tokio::time::timeout(Duration::from_secs(5), serving).await;
    ended
        .expect("it does not wait for the grace")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn streams_that_are_given_up_leave_nothing_behind() {
    let health = Health::new();
    let server = Server::new()
        .add_service(health.clone())
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let address = server.local_addr();
    tokio::spawn(server.serve_until(pending()));
    let client = HealthClient::connect(&address).await.unwrap();
    // Far more in all than the 100 that a connection may have open: each is gone when it is reset.
    for round in 0..10 {
        let mut watched = Vec::new();
        for _ in 0..50 {
            let mut statuses = client.watch(named(GREETER)).await.unwrap();
            // The first status of some, and none of the others, is waited for.
            if round % 2 == 0 {
                assert_eq!(next(&mut statuses).await.unwrap(), Some(ServiceUnknown));
            }
            watched.push(statuses);
        }
        drop(watched);
    }
    assert_eq!(check(&client, "").await.unwrap(), Serving);
}

#[test]
fn a_health_can_be_kept_anywhere() {
    fn check<T: Send + Sync + Clone + 'static>(_: &T) {}
    let health = Health::default();
    check(&health);
    let other = health.clone();
    health.set_not_serving("");
    assert_eq!(other.status(""), Some(NotServing));
}
