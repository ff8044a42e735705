//! Calls follow the service config of their channel: retries, timeouts, sizes, wait-for-ready.

use std::future::IntoFuture;
use std::time::Duration;

use trunkline::{Channel, ChannelBuilder, Client, Code, Method, Raw, Response, Result};
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
