//! Calls follow the service config of their channel: retries, timeouts, sizes, wait-for-ready.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use trunkline::channel::{Endpoint, Resolution, Resolver, TargetUri, Updates, Verdict};

use trunkline::{
    Address, Channel, ChannelBuilder, Client, Code, Method, Raw, Response, Result, Status,
};
use trunkline_testkit::{MemoryNet, ScriptedServer, within};

const A: &str = "10.0.0.1:1";
const CALL: Method = Method::new("/test.Scripted/0");

/// A channel to a scripted server.
fn rig(
    script: &str,
    change: impl FnOnce(ChannelBuilder) -> ChannelBuilder,
) -> (ScriptedServer, Client) {
    let net = MemoryNet::default();
    let server = ScriptedServer::in_memory(&net, A, script);
    let builder = change(Channel::to(A).connector(net.connector()));
    let channel = builder.connect_lazy().expect("valid settings");
    (server, Client::new(channel))
}

/// A service config whose entry for all methods has `fields`.
fn config(fields: &str) -> String {
    format!(r#"{{"methodConfig": [{{"name": [{{}}], {fields}}}]}}"#)
}

const RETRIES: &str = r#""retryPolicy": {
    "maxAttempts": 4, "initialBackoff": "0.2s", "maxBackoff": "1s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]
}"#;

async fn unary(client: &Client) -> Result<Response<Raw>> {
    let call = client.unary::<Raw, Raw>(CALL, Raw("request".into()));
    within(
        "the call",
        call.timeout(Duration::from_secs(100)).into_future(),
    )
    .await
}

#[tokio::test(start_paused = true)]
async fn a_call_is_retried_by_the_policy_of_its_method() {
    let (server, client) = rig("U U K", |it| it.service_config(&config(RETRIES)));
    let response = unary(&client).await.expect("the third attempt succeeds");
    assert_eq!(response.0, "response");
    let attempts = server.attempts();
    let previous: Vec<_> = attempts.iter().map(|it| it.previous_attempts()).collect();
    assert_eq!(previous, [None, Some("1".to_owned()), Some("2".to_owned())]);
    let gaps: Vec<_> = attempts.windows(2).map(|it| it[1].at - it[0].at).collect();
    for (gap, expected) in gaps.into_iter().zip([200, 400]) {
        let bounds = expected * 8 / 10..=expected * 12 / 10 + 1;
        assert!(bounds.contains(&gap.as_millis()), "{gap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_has_the_message_of_the_server_and_the_number_of_attempts() {
    let (server, client) = rig("U*", |it| it.service_config(&config(RETRIES)));
    let status = unary(&client).await.expect_err("all attempts fail");
    assert_eq!(
        (status.code(), status.message()),
        (Code::UNAVAILABLE, "attempt 4")
    );
    assert!(
        format!("{status:?}").contains("4 attempts were made"),
        "{status:?}"
    );
    assert_eq!(server.attempts().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn without_retries_only_transparent_ones_are_made() {
    for (script, expected) in [("U K", Code::UNAVAILABLE), ("R(REFUSED) K", Code::OK)] {
        let (_server, client) = rig(script, |it| {
            it.service_config(&config(RETRIES)).retries(false)
        });
        let code = unary(&client)
            .await
            .map_or_else(|status| status.code(), |_| Code::OK);
        assert_eq!(code, expected, "{script}");
    }
}

const UNARY: &str = r#""timeout": "10s""#;

#[tokio::test(start_paused = true)]
async fn the_shorter_timeout_counts_for_all_kinds_of_calls() {
    for (own, expected) in [(5, 5), (20, 10)] {
        for head in ["-*", "H*"] {
            let (_server, client) = rig(head, |it| it.service_config(&config(UNARY)));
            let (own, began) = (Duration::from_secs(own), Instant::now());
            let call = client.unary::<Raw, Raw>(CALL, Raw("x".into()));
            let status = call.timeout(own).await.expect_err("no response");
            assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status}");
            assert_eq!(began.elapsed().as_secs(), expected);
            let began = Instant::now();
            let call = client.client_streaming::<Raw, Raw>(CALL).timeout(own);
            let call = call.await.expect("a stream");
            let status = call.finish().await.expect_err("no response");
            assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status}");
            assert_eq!(began.elapsed().as_secs(), expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_above_the_limit_of_its_method_is_not_sent_and_a_response_not_taken() {
    let limits = r#""maxRequestMessageBytes": 10, "maxResponseMessageBytes": 7"#;
    let (server, client) = rig("K", |it| it.service_config(&config(limits)));
    let call = client.unary::<Raw, Raw>(CALL, Raw(vec![7; 11].into()));
    let status = call.await.expect_err("too large");
    assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED, "{status}");
    let call = client.client_streaming::<Raw, Raw>(Method::new("/test.Scripted/1"));
    let mut call = call.await.expect("a stream");
    let status = call.send(Raw(vec![7; 11].into())).await;
    let status = status.expect_err("too large");
    assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED, "{status}");
    drop(call);
    let call = client.unary::<Raw, Raw>(CALL, Raw(vec![7; 10].into()));
    let status = call.await.expect_err("a response of eight bytes");
    assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED, "{status}");
    assert_eq!(
        server.attempts().iter().filter(|it| it.call == 0).count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_method_waits_for_ready_unless_the_call_says_otherwise() {
    let net = MemoryNet::default();
    let builder = Channel::to(A).connector(net.connector());
    let builder = builder.service_config(&config(r#""waitForReady": true"#));
    let client = Client::new(builder.connect_lazy().expect("valid settings"));
    let call = || client.unary::<Raw, Raw>(CALL, Raw("x".into()));
    let status = call().fail_fast().await.expect_err("no server");
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    let waiting = tokio::spawn(call().into_future());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!waiting.is_finished());
    let _server = ScriptedServer::in_memory(&net, A, "K");
    let response = within("the call", waiting).await.expect("no panic");
    response.expect("the server is there");
}

#[tokio::test(start_paused = true)]
async fn a_hedge_starts_while_the_first_attempt_runs_and_the_first_response_wins() {
    let hedging = r#""hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "0.3s"}"#;
    let (server, client) = rig("- K", |it| it.service_config(&config(hedging)));
    unary(&client).await.expect("the second attempt succeeds");
    server.until("a reset", |it| it[0].reset.is_some()).await;
    let attempts = server.attempts();
    assert_eq!(attempts.len(), 2);
    assert_eq!((attempts[1].at - attempts[0].at).as_millis(), 300);
    assert_eq!(attempts[1].previous_attempts().as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_requests_is_sent_again_until_the_call_is_committed() {
    let (server, client) = rig("!U K", |it| it.service_config(&config(RETRIES)));
    let call = client.client_streaming::<Raw, Raw>(CALL);
    let mut call = call.await.expect("a stream");
    for _ in 0..3 {
        call.send(Raw("abc".into()))
            .await
            .expect("the call goes on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let response = within("the call", call.finish()).await;
    assert_eq!(response.expect("the second attempt").0, "response");
    let attempts = server.attempts();
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[1].data.len(), 3 * (5 + 3));
    assert!(attempts[1].is_half_closed);
}

#[tokio::test(start_paused = true)]
async fn retries_are_throttled_for_all_calls_of_a_channel() {
    // Tokens after the calls: 3, 2, 2; then 3 with the success, and 2 with the failure before.
    let throttled = format!(
        r#"{{"methodConfig": [{{"name": [{{}}], {RETRIES}}}], "retryThrottling": {{"maxTokens": 4, "tokenRatio": 1}}}}"#
    );
    let (server, client) = rig("U I; U; K; U K", |it| it.service_config(&throttled));
    let paths = [
        "/test.Scripted/0",
        "/test.Scripted/1",
        "/test.Scripted/2",
        "/test.Scripted/3",
    ];
    for (call, made) in [2, 1, 1, 1].into_iter().enumerate() {
        let raw = client.unary::<Raw, Raw>(Method::new(paths[call]), Raw("x".into()));
        let _ = within("a call", raw.into_future()).await;
        let attempts = server.attempts();
        assert_eq!(
            attempts.iter().filter(|it| it.call == call).count(),
            made,
            "{call}"
        );
    }
}

#[tokio::test]
async fn an_invalid_default_is_an_error_of_the_builder() {
    for json in [
        "{",
        r#"{"methodConfig": {}}"#,
        r#"{"loadBalancingPolicy": "foo"}"#,
    ] {
        let status = Channel::to(A).service_config(json).connect_lazy();
        let status = status.expect_err(json);
        assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{status}");
    }
}

/// A resolver whose service config is set from outside: `None` has none, an empty text is an error.
struct Registry {
    configs: watch::Receiver<Option<String>>,
    verdicts: Arc<Mutex<Vec<bool>>>,
}

impl Resolver for Registry {
    fn schemes(&self) -> &[&str] {
        &["registry"]
    }

    fn start(
        &self,
        _: &TargetUri,
        mut updates: Updates,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (mut configs, verdicts) = (self.configs.clone(), self.verdicts.clone());
        async move {
            loop {
                let config = configs.borrow_and_update().clone();
                if config.as_deref() != Some("later") {
                    let address = A.parse().expect("an address");
                    let endpoint = Endpoint::new(Address::Tcp(address));
                    let mut resolution = Resolution::new(vec![endpoint]);
                    resolution.service_config = config.map(|it| match it.as_str() {
                        "error" => Err(Status::unavailable("no TXT record")),
                        json => updates.service_config(json),
                    });
                    let verdict = updates.put(resolution).await;
                    let is_used = matches!(verdict, Verdict::Used);
                    verdicts.lock().expect("no panic").push(is_used);
                }
                if configs.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

struct Resolved {
    _server: ScriptedServer,
    client: Client,
    configs: watch::Sender<Option<String>>,
    verdicts: Arc<Mutex<Vec<bool>>>,
}

impl Resolved {
    fn new(first: Option<&str>, change: impl FnOnce(ChannelBuilder) -> ChannelBuilder) -> Self {
        let net = MemoryNet::default();
        let server = ScriptedServer::in_memory(&net, A, "-*");
        let (configs, receiver) = watch::channel(first.map(str::to_owned));
        let verdicts = Arc::<Mutex<Vec<bool>>>::default();
        let registry = Registry {
            configs: receiver,
            verdicts: verdicts.clone(),
        };
        let builder = Channel::to("registry:orders").resolver(registry);
        let channel = change(builder.connector(net.connector())).connect_lazy();
        Self {
            _server: server,
            client: Client::new(channel.expect("valid settings")),
            configs,
            verdicts,
        }
    }

    /// Makes a call, which ends at its deadline. Returns its code and how many seconds it took.
    async fn call(&self) -> (Code, u64) {
        let began = Instant::now();
        let call = self.client.unary::<Raw, Raw>(CALL, Raw("x".into()));
        let status = call.timeout(Duration::from_secs(99)).await;
        let status = status.expect_err("no response");
        (status.code(), began.elapsed().as_secs())
    }

    async fn resolve(&self, config: Option<&str>) {
        self.configs.send_replace(config.map(str::to_owned));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn seconds(timeout: u64) -> String {
    config(&format!(r#""timeout": "{timeout}s""#))
}

const LATE: Code = Code::DEADLINE_EXCEEDED;

#[tokio::test(start_paused = true)]
async fn the_last_good_config_stays_in_force_and_none_selects_the_default() {
    for default in [None, Some(3)] {
        let rig = Resolved::new(Some(&seconds(1)), |it| match default {
            Some(default) => it.service_config(&seconds(default)),
            None => it,
        });
        assert_eq!(rig.call().await, (LATE, 1));
        rig.resolve(Some(&seconds(2))).await;
        assert_eq!(rig.call().await, (LATE, 2));
        for rejected in ["error", "{", r#"{"loadBalancingConfig": [{"foo": {}}]}"#] {
            rig.resolve(Some(rejected)).await;
            assert_eq!(rig.call().await, (LATE, 2), "{rejected}");
        }
        rig.resolve(None).await;
        assert_eq!(rig.call().await, (LATE, default.unwrap_or(99)));
        rig.resolve(Some("error")).await;
        assert_eq!(rig.call().await, (LATE, default.unwrap_or(99)));
        assert!(rig.verdicts.lock().expect("no panic").iter().all(|it| *it));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_good_config_the_default_is_used_and_without_a_default_calls_fail() {
    let with = Resolved::new(Some("error"), |it| it.service_config(&seconds(3)));
    assert_eq!(with.call().await, (LATE, 3));
    let without = Resolved::new(Some("error"), |it| it);
    assert_eq!(without.call().await, (Code::UNAVAILABLE, 0));
    let call = without.client.unary::<Raw, Raw>(CALL, Raw("x".into()));
    let status = call.await.expect_err("no service config");
    assert!(status.message().contains("no TXT record"), "{status}");
    let waiting = without.client.unary::<Raw, Raw>(CALL, Raw("x".into()));
    let waiting = tokio::spawn(waiting.wait_for_ready().into_future());
    without.resolve(Some(&seconds(2))).await;
    let status = within("the call", waiting).await.expect("no panic");
    assert_eq!(status.expect_err("no response").code(), LATE);
    assert_eq!(without.call().await, (LATE, 2));
    assert_eq!(*without.verdicts.lock().expect("no panic"), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_first_resolution_until_its_deadline_or_a_cancellation() {
    let rig = Resolved::new(Some("later"), |it| it.service_config(&seconds(3)));
    assert_eq!(rig.call().await, (LATE, 99));
    let handle = trunkline::CancelHandle::new();
    let call = rig.client.unary::<Raw, Raw>(CALL, Raw("x".into()));
    let call = tokio::spawn(call.cancel_with(&handle).into_future());
    tokio::time::sleep(Duration::from_secs(1)).await;
    handle.cancel();
    let status = within("the call", call).await.expect("no panic");
    assert_eq!(status.expect_err("cancelled").code(), Code::CANCELLED);
    let call = rig
        .client
        .server_streaming::<Raw, Raw>(CALL, Raw("x".into()));
    let call = tokio::spawn(async move { call.await?.message().await });
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(!call.is_finished());
    rig.resolve(Some(&seconds(1))).await;
    let began = Instant::now();
    let status = within("the call", call).await.expect("no panic");
    assert_eq!(status.expect_err("no response").code(), LATE);
    assert_eq!(began.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn configs_of_resolvers_can_be_ignored() {
    let rig = Resolved::new(Some(&seconds(1)), |it| {
        it.service_config(&seconds(3))
            .ignore_resolved_service_config()
    });
    assert_eq!(rig.call().await, (LATE, 3));
    rig.resolve(Some("error")).await;
    assert_eq!(rig.call().await, (LATE, 3));
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_falls_idle_resolves_its_config_again() {
    let rig = Resolved::new(Some(&seconds(1)), |it| it);
    for _ in 0..3 {
        assert_eq!(rig.call().await, (LATE, 1));
        tokio::time::sleep(Duration::from_secs(3 * 60 * 60)).await;
    }
    assert_eq!(rig.verdicts.lock().expect("no panic").len(), 3);
}
