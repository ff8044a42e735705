//! The balancer learns how each attempt has ended, exactly once.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use trunkline::balancing::serde_json::Value;
use trunkline::balancing::{
    AttemptTracker, Balancer, Choice, Control, EndedBy, Outcome, Pick, PickArgs, PickResult,
    Picker, Policies, Policy, PolicyConfig, Subchannel, SubchannelId, SubchannelState, Tracking,
    Update,
};
use trunkline::channel::ConnectivityState;
use trunkline::{Channel, Client, Code, Metadata, Method, Raw, Result, Status};
use trunkline_testkit::{MemoryNet, ScriptedServer, within};

const A: &str = "10.0.0.1:1";
const CALL: Method = Method::new("/test.Scripted/0");

/// An end: the code, the cause, whether there were trailers, and whether anything has arrived.
type End = (Code, EndedBy, bool, bool);

/// A policy that uses the first endpoint, and tracks all attempts.
#[derive(Clone, Default)]
struct Tracked(Arc<Log>);

#[derive(Default)]
struct Log {
    picked: Mutex<Vec<u32>>,
    started: Mutex<usize>,
    ends: Mutex<Vec<End>>,
}

impl AttemptTracker for Log {
    fn started(&self, token: usize) {
        assert_eq!(token, 7);
        *self.started.lock().expect("no panic") += 1;
    }

    fn ended(&self, token: usize, outcome: &Outcome<'_>) {
        assert_eq!(token, 7);
        let code = outcome.status.map_or_else(Status::code, |()| Code::OK);
        let has_trailers = outcome.trailers.is_some();
        let end = (code, outcome.ended_by, has_trailers, outcome.has_responded);
        self.ends.lock().expect("no panic").push(end);
    }
}

impl Policy for Tracked {
    fn name(&self) -> &str {
        "tracked"
    }

    fn parse(&self, _: &Value, _: &Policies) -> Result<PolicyConfig> {
        Ok(Arc::new(()))
    }

    fn build(&self) -> Box<dyn Balancer> {
        Box::new(TrackedBalancer(None, self.0.clone()))
    }
}

struct TrackedBalancer(Option<Subchannel>, Arc<Log>);

impl Balancer for TrackedBalancer {
    fn update(&mut self, update: Update<'_>, control: &mut dyn Control) -> Result<()> {
        let endpoints = update.endpoints.map_err(Status::clone)?;
        let (address, attributes) = (&endpoints[0].addresses()[0], endpoints[0].attributes());
        let subchannel = control.create_subchannel(address, attributes);
        control.connect(&subchannel);
        self.0 = Some(subchannel);
        Ok(())
    }

    fn subchannel_changed(
        &mut self,
        _: SubchannelId,
        state: &SubchannelState,
        control: &mut dyn Control,
    ) {
        let Some(subchannel) = &self.0 else { return };
        match state.connectivity {
            ConnectivityState::Ready => {
                let picker = TrackedPicker(subchannel.clone(), self.1.clone());
                control.publish(state.connectivity, Picker::Custom(Arc::new(picker)));
            }
            ConnectivityState::Idle => control.connect(subchannel),
            _ => {}
        }
    }

    fn exit_idle(&mut self, _: &mut dyn Control) {}
}

struct TrackedPicker(Subchannel, Arc<Log>);

impl Pick for TrackedPicker {
    fn pick(&self, call: &PickArgs<'_>) -> PickResult {
        let mut picked = self.1.picked.lock().expect("no panic");
        picked.push(call.previous_attempts);
        let mut metadata = Metadata::new();
        metadata.append("x-picked", "yes").expect("valid metadata");
        let mut choice = Choice::new(self.0.clone());
        choice.tracking = Some(Tracking::new(self.1.clone(), 7));
        choice.metadata = Some(Box::new(metadata));
        PickResult::Use(choice)
    }
}

struct Rig {
    server: ScriptedServer,
    channel: Channel,
    log: Arc<Log>,
}

impl Rig {
    fn new(script: &str, method: &str) -> Self {
        let net = MemoryNet::default();
        let server = ScriptedServer::in_memory(&net, A, script);
        let policy = Tracked::default();
        let log = policy.0.clone();
        let builder = Channel::to(A).connector(net.connector()).policy(policy);
        let config = format!(
            r#"{{"loadBalancingConfig": [{{"tracked": {{}}}}], "methodConfig": [{{"name": [{{}}], {method}}}]}}"#
        );
        let channel = builder.service_config(&config).connect_lazy();
        Self {
            server,
            channel: channel.expect("valid settings"),
            log,
        }
    }

    /// Returns the ends of all attempts that have started.
    async fn ends(&self) -> Vec<End> {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let ends = self.log.ends.lock().expect("no panic").clone();
        assert_eq!(*self.log.started.lock().expect("no panic"), ends.len());
        ends
    }
}

const OK: Code = Code::OK;
const UNAVAILABLE: Code = Code::UNAVAILABLE;
const LATE: Code = Code::DEADLINE_EXCEEDED;

/// What a server does with an attempt, and the end of which the tracker learns.
const ROWS: [(&str, End); 14] = [
    ("K", (OK, EndedBy::Server, true, true)),
    ("H.~10.K", (OK, EndedBy::Server, true, true)),
    ("U", (UNAVAILABLE, EndedBy::Server, true, true)),
    ("H.M.~10.U", (UNAVAILABLE, EndedBy::Server, true, true)),
    ("S(x)", (Code::UNKNOWN, EndedBy::Server, true, true)),
    ("503", (UNAVAILABLE, EndedBy::Server, true, true)),
    (
        "R(CANCEL)",
        (Code::CANCELLED, EndedBy::Server, false, false),
    ),
    (
        "R(INTERNAL_ERROR)",
        (Code::INTERNAL, EndedBy::Server, false, false),
    ),
    (
        "H.~10.R(CANCEL)",
        (Code::CANCELLED, EndedBy::Server, false, true),
    ),
    ("X", (UNAVAILABLE, EndedBy::Connection, false, false)),
    ("H.~10.X", (UNAVAILABLE, EndedBy::Connection, false, true)),
    ("-", (LATE, EndedBy::Deadline, false, false)),
    ("H.~9999999.K", (LATE, EndedBy::Deadline, false, true)),
    ("H.M.~9999999.K", (LATE, EndedBy::Deadline, false, true)),
];

const TIMEOUT: &str = r#""timeout": "9s""#;

#[tokio::test(start_paused = true)]
async fn the_tracker_of_a_pick_learns_once_how_the_attempt_has_ended() {
    for (script, expected) in ROWS {
        for kind in ["unary", "stream", "tower"] {
            let rig = Rig::new(script, TIMEOUT);
            let client = Client::new(rig.channel.clone());
            match kind {
                "unary" => {
                    let call = client.unary::<Raw, Raw>(CALL, Raw("x".into()));
                    let _ = within(script, call.into_future()).await;
                }
                "stream" => {
                    let call = client.server_streaming::<Raw, Raw>(CALL, Raw("x".into()));
                    let mut responses = call.await.expect("a stream");
                    while let Ok(Some(_)) = responses.message().await {}
                }
                _ => {
                    let channel = Channel::new(rig.channel.clone());
                    let client = Client::new(channel);
                    let call = client.unary::<Raw, Raw>(CALL, Raw("x".into()));
                    let call = call.timeout(Duration::from_secs(9));
                    let _ = within(script, call.into_future()).await;
                }
            }
            assert_eq!(rig.ends().await, [expected], "{script}, {kind}");
            let attempt = rig.server.attempts().remove(0);
            assert_eq!(attempt.head.text("x-picked").as_deref(), Some("yes"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_the_callers_end() {
    for (script, has_responded) in [("-", false), ("H.~9999999.K", true)] {
        let rig = Rig::new(script, TIMEOUT);
        let client = Client::new(rig.channel.clone());
        let call = client.unary::<Raw, Raw>(CALL, Raw("x".into()));
        let call = tokio::spawn(call.into_future());
        rig.server.until("an attempt", |it| !it.is_empty()).await;
        assert_eq!(rig.log.ends.lock().expect("no panic").len(), 0);
        tokio::time::sleep(Duration::from_millis(1)).await;
        call.abort();
        let end = (Code::CANCELLED, EndedBy::Caller, false, has_responded);
        assert_eq!(rig.ends().await, [end], "{script}");
    }
}

const RETRY: &str = r#""retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s",
    "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}"#;
const HEDGE: &str = r#""hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "0.1s"}"#;

#[tokio::test(start_paused = true)]
async fn each_attempt_of_a_policy_has_an_end_of_its_own() {
    let server = |code| (code, EndedBy::Server, true, true);
    let refused = (UNAVAILABLE, EndedBy::Server, false, false);
    let other = (Code::CANCELLED, EndedBy::OtherAttempt, false, false);
    let rows: [(&str, &str, &[End], &[u32]); 4] = [
        (
            "U U K",
            RETRY,
            &[server(UNAVAILABLE), server(UNAVAILABLE), server(OK)],
            &[0, 1, 2],
        ),
        ("R(REFUSED) K", RETRY, &[refused, server(OK)], &[0, 0]),
        ("R(REFUSED) K", TIMEOUT, &[refused, server(OK)], &[0, 0]),
        ("- - K", HEDGE, &[other, other, server(OK)], &[0, 1, 2]),
    ];
    for (script, method, expected, previous) in rows {
        let rig = Rig::new(script, method);
        let client = Client::new(rig.channel.clone());
        let call = client.unary::<Raw, Raw>(CALL, Raw("x".into()));
        within(script, call.into_future()).await.expect(script);
        let mut ends = rig.ends().await;
        ends.sort_by_key(|it| it.1 == EndedBy::Server);
        if method != HEDGE {
            ends = rig.log.ends.lock().expect("no panic").clone();
        }
        assert_eq!(ends, expected, "{script}");
        assert_eq!(
            *rig.log.picked.lock().expect("no panic"),
            previous,
            "{script}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_call_ends_all_its_attempts() {
    let rig = Rig::new("- H.~9999999.K", &format!("{HEDGE}, {TIMEOUT}"));
    let client = Client::new(rig.channel.clone());
    let call = client.unary::<Raw, Raw>(CALL, Raw("x".into()));
    let status = within("the call", call.into_future()).await;
    assert_eq!(status.expect_err("no end").code(), LATE);
    let other = (Code::CANCELLED, EndedBy::OtherAttempt, false, false);
    assert_eq!(
        rig.ends().await,
        [other, (LATE, EndedBy::Deadline, false, true)]
    );
    let rig = Rig::new("-*", &format!("{HEDGE}, {TIMEOUT}"));
    let client = Client::new(rig.channel.clone());
    let call = client.unary::<Raw, Raw>(CALL, Raw("x".into()));
    let status = within("the call", call.into_future()).await;
    assert_eq!(status.expect_err("no response").code(), LATE);
    assert_eq!(
        rig.ends().await,
        [(LATE, EndedBy::Deadline, false, false); 3]
    );
}
