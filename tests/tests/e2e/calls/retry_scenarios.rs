//! Calls with a retry or hedging policy go as the scenarios say, to the millisecond.

use std::future::IntoFuture;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline::bytes::Bytes;
use trunkline::channel::{Endpoint, Resolution, Resolver, TargetUri, Updates};
use trunkline::{Address, CancelHandle, Channel, Client, Code, Method, Raw, Result, Status};
use trunkline_testkit::{MemoryNet, ScriptedServer, error, message, within};
use trunkline_tests::scenarios::{self, Client as Implementation, Scenario};

const A: &str = "10.0.0.1:1";
const METHODS: [Method; 6] = [
    Method::new("/test.Scenario/0"),
    Method::new("/test.Scenario/1"),
    Method::new("/test.Scenario/2"),
    Method::new("/test.Scenario/3"),
    Method::new("/test.Scenario/4"),
    Method::new("/test.Scenario/5"),
];

const POLICY: &str = r#""retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.2s", "maxBackoff": "1s",
    "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}"#;

fn client(net: &MemoryNet, config: &str) -> Client {
    let builder = Channel::to(A).connector(net.connector());
    let channel = builder.service_config(config).connect_lazy();
    Client::new(channel.expect("a valid config"))
}

fn of_all_methods(fields: &str) -> String {
    format!(r#"{{"methodConfig": [{{"name": [{{}}], {fields}}}]}}"#)
}

fn unary(client: &Client, call: usize) -> impl Future<Output = Result<()>> + 'static {
    let call = client.unary::<Raw, Raw>(METHODS[call].clone(), Raw("x".into()));
    let call = call.into_future();
    async move { within("a call", call).await.map(drop) }
}

/// Makes a call of a scenario.
async fn call(client: &Client, method: Method, scenario: &Scenario) -> Result<()> {
    let (messages, size) = scenario.messages;
    let request = Raw(Bytes::from(vec![0; size]));
    let timeout = scenario.timeout;
    match scenario.kind {
        "unary" => {
            let call = client.unary::<Raw, Raw>(method, request).timeout(timeout);
            call.await.map(drop)
        }
        "server_streaming" => {
            let call = client.server_streaming::<Raw, Raw>(method, request);
            let mut responses = call.timeout(timeout).await?;
            while responses.message().await?.is_some() {}
            Ok(())
        }
        "client_streaming" => {
            let call = client.client_streaming::<Raw, Raw>(method);
            let mut call = call.timeout(timeout).await?;
            for _ in 0..messages {
                // A call that has ended takes no more messages; its status is in its end.
                if call.send(request.clone()).await.is_err() {
                    break;
                }
            }
            call.finish().await.map(drop)
        }
        "bidi" => {
            let call = client.bidi_streaming::<Raw, Raw>(method);
            let (mut requests, mut responses) = call.timeout(timeout).await?;
            requests.send(request.clone()).await?;
            responses.message().await?;
            for _ in 1..messages {
                requests.send(request.clone()).await?;
            }
            requests.finish();
            while responses.message().await?.is_some() {}
            Ok(())
        }
        kind => panic!("{kind:?} is not a kind of call"),
    }
}

/// Plays a scenario, and returns what is wrong with it.
async fn play(scenario: &Scenario) -> Vec<String> {
    let net = MemoryNet::default();
    let script = Some(scenario.script).filter(|script| !script.is_empty());
    let server = script.map(|script| ScriptedServer::in_memory(&net, A, script));
    let builder = Channel::to(A).connector(net.connector());
    let builder = builder.service_config(&scenario.config());
    let channel = builder.retries(scenario.retries).connect_lazy();
    let client = Client::new(channel.expect("a valid config"));
    let began = Instant::now();
    let mut results = Vec::new();
    for method in &METHODS[..scenario.calls] {
        let call = call(&client, method.clone(), scenario);
        results.push(within(scenario.number, call).await);
    }
    let took = began.elapsed().as_millis() as u64;
    // No attempt follows later.
    sleep(Duration::from_secs(100)).await;
    let attempts = server.as_ref().map(ScriptedServer::attempts);
    let attempts = attempts.unwrap_or_default();

    let mut wrong = scenario.wrong_requests(&attempts);
    let code = |it: &Result<()>| it.as_ref().map_or_else(Status::code, |()| Code::OK);
    let codes: Vec<_> = results.iter().map(code).collect();
    let ended = scenario.ended(&attempts, &codes);
    let expected = scenario.ends_with(Implementation::Trunkline);
    if ended != expected {
        wrong.push(format!("ended {ended:?}, not {expected:?}"));
    }
    let is_outside = |(least, most): (u64, u64), millis| millis < least || millis > most + 10;
    if scenario.takes.is_some_and(|range| is_outside(range, took)) {
        wrong.push(format!("took {took} ms, not {:?}", scenario.takes));
    }
    let gaps = attempts
        .windows(2)
        .map(|it| (it[1].at - it[0].at).as_millis() as u64);
    let gaps: Vec<_> = gaps.collect();
    let are_as_expected = gaps.len() == scenario.gaps.len()
        && scenario
            .gaps
            .iter()
            .zip(&gaps)
            .all(|(range, gap)| !is_outside(*range, *gap));
    if !scenario.gaps.is_empty() && !are_as_expected {
        wrong.push(format!("pauses of {gaps:?} ms, not {:?}", scenario.gaps));
    }
    wrong.extend(wrong_message(scenario, results.last()));
    let reset = attempts.iter().map(|it| it.reset.map(|(_, code)| code));
    let wanted = scenario.cancelled.unwrap_or_default();
    let cancel = |at| wanted.contains(&at).then_some(error::CANCEL);
    if scenario.cancelled.is_some() && !reset.clone().eq((0..attempts.len()).map(cancel)) {
        wrong.push(format!(
            "reset {:?}, not {wanted:?}",
            reset.collect::<Vec<_>>()
        ));
    }
    wrong
}

/// The message of a server is unchanged; that of a deadline names the last one.
fn wrong_message(scenario: &Scenario, last: Option<&Result<()>>) -> Option<String> {
    let Some(Err(status)) = last else {
        return None;
    };
    let is_right = match status.code() {
        Code::DEADLINE_EXCEEDED => status.message().contains(scenario.message),
        _ => scenario.message.is_empty() || status.message() == scenario.message,
    };
    (!is_right).then(|| format!("{status}, not {:?}", scenario.message))
}

#[tokio::test(start_paused = true)]
async fn calls_with_a_policy_go_as_the_scenarios_say() {
    let mut failures = Vec::new();
    for scenario in scenarios::all() {
        for wrong in play(&scenario).await {
            failures.push(format!("{} {}: {wrong}", scenario.number, scenario.script));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Scenario 31. Pushes the same config whenever it is asked.
struct Repeating(&'static str);

impl Resolver for Repeating {
    fn schemes(&self) -> &[&str] {
        &["repeating"]
    }

    fn start(
        &self,
        _: &TargetUri,
        mut updates: Updates,
    ) -> impl Future<Output = ()> + Send + 'static {
        let config = self.0;
        async move {
            loop {
                let address = Address::Tcp(A.parse().expect("an address"));
                let mut resolution = Resolution::new(vec![Endpoint::new(address)]);
                resolution.service_config = Some(updates.service_config(config));
                let _ = updates.put(resolution).await;
                sleep(Duration::from_secs(10)).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_tokens_of_a_throttle_outlive_the_same_config_from_the_resolver() {
    let net = MemoryNet::default();
    let server = ScriptedServer::in_memory(&net, A, "U*");
    let config = r#"{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.2s",
        "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}],
        "retryThrottling": {"maxTokens": 4, "tokenRatio": 0.1}}"#;
    let builder = Channel::to("repeating:///a").resolver(Repeating(config));
    let channel = builder.connector(net.connector()).connect_lazy();
    let client = Client::new(channel.expect("a target"));
    // Two failures leave half of the tokens.
    unary(&client, 0).await.expect_err("unavailable");
    assert_eq!(server.attempts().len(), 2);
    sleep(Duration::from_secs(25)).await;
    unary(&client, 1).await.expect_err("unavailable");
    assert_eq!(server.attempts().len(), 3, "the throttle is still in force");
}

/// Scenario 35.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_cancelled_during_a_backoff_ends_at_once() {
    let net = MemoryNet::default();
    let server = ScriptedServer::in_memory(&net, A, "U*");
    let config = format!(
        r#"{{"methodConfig": [{{"name": [{{}}], {POLICY}}}], "retryThrottling": {{"maxTokens": 4, "tokenRatio": 1}}}}"#
    );
    let client = client(&net, &config);
    let handle = CancelHandle::new();
    let call = client.unary::<Raw, Raw>(METHODS[0].clone(), Raw("x".into()));
    let call = tokio::spawn(call.cancel_with(&handle).into_future());
    server
        .until("the first attempt", |it| {
            it.iter().any(|it| it.is_half_closed)
        })
        .await;
    sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    handle.cancel();
    let status = within("the call", call).await.expect("no panic");
    assert_eq!(status.expect_err("cancelled").code(), Code::CANCELLED);
    assert!(began.elapsed() < Duration::from_millis(5));
    sleep(Duration::from_secs(100)).await;
    assert_eq!(server.attempts().len(), 1, "no attempt follows");
    // One token of four was taken by the failure, and none by the cancellation: the next failure leaves half of them.
    unary(&client, 1).await.expect_err("unavailable");
    assert_eq!(server.attempts().len(), 2);
}

/// Scenario 35, without a handle.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_during_a_backoff_makes_no_further_attempt() {
    let net = MemoryNet::default();
    let server = ScriptedServer::in_memory(&net, A, "U*");
    let client = client(&net, &of_all_methods(POLICY));
    let call = tokio::spawn(unary(&client, 0));
    server
        .until("the first attempt", |it| {
            it.iter().any(|it| it.is_half_closed)
        })
        .await;
    sleep(Duration::from_millis(50)).await;
    call.abort();
    sleep(Duration::from_secs(100)).await;
    assert_eq!(server.attempts().len(), 1);
}

/// Scenario 36: see its row for the pauses.
#[tokio::test(start_paused = true)]
async fn a_call_with_a_policy_to_a_dead_server_says_why_it_cannot_connect() {
    let net = MemoryNet::default();
    let client = client(&net, &of_all_methods(POLICY));
    let status = unary(&client, 0).await.expect_err("nothing listens");
    assert_eq!(status.code(), Code::UNAVAILABLE);
    assert!(status.message().contains("refused"), "{status}");
}

/// Scenario 37.
#[tokio::test(start_paused = true)]
async fn wait_for_ready_of_the_config_holds_unless_the_call_says_otherwise() {
    let net = MemoryNet::default();
    let client = client(
        &net,
        &of_all_methods(&format!(r#""waitForReady": true, {POLICY}"#)),
    );
    let waiting = tokio::spawn(unary(&client, 0));
    let began = Instant::now();
    let call = client.unary::<Raw, Raw>(METHODS[1].clone(), Raw("x".into()));
    let status = within("a call", call.fail_fast().into_future()).await;
    assert_eq!(
        status.expect_err("nothing listens").code(),
        Code::UNAVAILABLE
    );
    let took = began.elapsed().as_millis();
    assert!((1_120..1_700).contains(&took), "four picks: {took} ms");
    let server = ScriptedServer::in_memory(&net, A, "K");
    within("the call", waiting)
        .await
        .expect("no panic")
        .expect("OK");
    let attempts = server.attempts();
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].previous_attempts(), None);
}

/// Scenario 46: the request is streamed to two attempts until it exceeds what is kept.
#[tokio::test(start_paused = true)]
async fn a_hedged_stream_beyond_the_buffer_goes_on_in_one_attempt() {
    let net = MemoryNet::default();
    let server = ScriptedServer::in_memory(&net, A, "K*");
    let config = of_all_methods(r#""hedgingPolicy": {"maxAttempts": 4, "hedgingDelay": "1s"}"#);
    let client = client(&net, &config);
    let call = client.client_streaming::<Raw, Raw>(METHODS[0].clone());
    let mut call = call.await.expect("a stream");
    let part = Raw(Bytes::from(vec![7; 1_000]));
    call.send(part.clone()).await.expect("an open stream");
    server.until("two attempts", |it| it.len() == 2).await;
    for _ in 1..300 {
        call.send(part.clone()).await.expect("an open stream");
    }
    within("the call", call.finish()).await.expect("OK");
    sleep(Duration::from_secs(100)).await;
    let attempts = server.attempts();
    assert_eq!(attempts.len(), 2, "no hedges after the commit");
    let complete = message(&part.0).repeat(300);
    let complete = attempts
        .iter()
        .filter(|it| it.is_half_closed && it.data[..] == complete[..]);
    let cancelled = attempts
        .iter()
        .filter(|it| it.reset.map(|(_, code)| code) == Some(error::CANCEL));
    assert_eq!((complete.count(), cancelled.count()), (1, 1));
}

/// Scenario 34: nobody polls the receiving half while messages are sent.
#[tokio::test(start_paused = true)]
async fn a_stream_is_retried_while_its_caller_is_busy_sending() {
    let net = MemoryNet::default();
    let server = ScriptedServer::in_memory(&net, A, "!U.R(NO_ERROR) K");
    let client = client(&net, &of_all_methods(POLICY));
    let call = client.bidi_streaming::<Raw, Raw>(METHODS[0].clone());
    let (mut requests, mut responses) = call.await.expect("a stream");
    let part = Raw(Bytes::from(vec![7; 1_000]));
    for _ in 0..100 {
        let sent = within("a message", requests.send(part.clone())).await;
        sent.expect("an open stream");
        sleep(Duration::from_millis(10)).await;
    }
    requests.finish();
    let response = within("a response", responses.message()).await;
    assert!(response.expect("OK").is_some());
    let attempts = server.attempts();
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[1].data[..], message(&part.0).repeat(100)[..]);
}
