//! The events that observers of calls are told, and in which order.

use std::future::IntoFuture;
use std::time::Instant;

use tokio::sync::mpsc;
use trunkline::observe::{CallEvent, CallObserver, CallStart, Observer, Wants, on_end};
use trunkline::{CallKind, Channel, Client, Code, Method, Raw, Request, Server};
use trunkline_testkit::{Fields, Frame, MemoryNet, ScriptedServer, error, message};
use trunkline_tests::fixture::{
    BIDI, Echo, Kind, SERVER, UNARY, With, nothing, raw, serve, within,
};

/// Sends the events that it wants, as text.
#[derive(Clone)]
struct Events {
    wants: Wants,
    told: mpsc::UnboundedSender<String>,
}

impl Events {
    fn of(wants: Wants) -> (Self, mpsc::UnboundedReceiver<String>) {
        let (told, events) = mpsc::unbounded_channel();
        (Self { wants, told }, events)
    }
}

impl Observer for Events {
    fn call(&self, _: &CallStart<'_>) -> Option<impl CallObserver> {
        Some(self.clone())
    }
}

impl CallObserver for Events {
    fn wants(&self) -> Wants {
        self.wants
    }

    fn event(&self, _: Instant, event: &CallEvent<'_>) {
        let _ = self.told.send(text(event));
    }
}

fn text(event: &CallEvent<'_>) -> String {
    match event {
        CallEvent::AttemptStarted {
            attempt,
            is_transparent,
            ..
        } => format!("attempt {attempt} started, transparent {is_transparent}"),
        CallEvent::AttemptOpened { attempt, .. } => format!("attempt {attempt} opened"),
        CallEvent::AttemptEnded { attempt, error, .. } => {
            let code = error.map_or(Code::OK, |status| status.code());
            format!("attempt {attempt} ended {code}")
        }
        CallEvent::Head {
            direction,
            metadata,
            ..
        } => format!("{direction:?} head {:?}", metadata.get("who")),
        CallEvent::Message {
            direction,
            number,
            size,
            wire_size,
            is_compressed,
            payload,
            ..
        } => {
            let smaller = wire_size < size;
            assert_eq!(smaller, *is_compressed);
            assert!(payload.is_none_or(|payload| payload.len() == *size));
            let has_payload = payload.is_some();
            format!(
                "{direction:?} message {number} of {size}, smaller {smaller}, payload {has_payload}"
            )
        }
        CallEvent::HalfClosed { direction, .. } => format!("{direction:?} half-close"),
        CallEvent::Trailers {
            direction,
            metadata,
            ..
        } => format!("{direction:?} trailers {:?}", metadata.get("who")),
        CallEvent::Ended(call) => format!("ended {} after {}", call.code(), call.attempts()),
        _ => "another".to_owned(),
    }
}

/// The events of a call, to its end.
async fn all(events: &mut mpsc::UnboundedReceiver<String>) -> Vec<String> {
    let mut all = Vec::new();
    while !all
        .last()
        .is_some_and(|last: &String| last.starts_with("ended"))
    {
        all.push(within("an event", events.recv()).await.unwrap());
    }
    all
}

#[tokio::test]
async fn each_side_is_told_the_heads_messages_and_ends_of_a_call_in_order() {
    let service = With(|methods: &mut trunkline::server::Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
            request.response().metadata("who", "server")?;
            request.response().trailer("who", "trailers")?;
            Ok(request.into_inner())
        });
    });
    let (server, mut at_server) = Events::of(Wants::HEADS | Wants::MESSAGES);
    let (client, mut at_client) = Events::of(Wants::ALL);
    let address = serve(Server::new().observe(server).add_service(service)).await;
    let channel = Channel::connect(&address).await.unwrap().observe(client);
    let call = Client::new(channel).unary::<_, Raw>(UNARY, raw("abc"));
    call.metadata("who", "client").await.unwrap();
    assert_eq!(
        all(&mut at_client).await,
        [
            "attempt 1 started, transparent false",
            "attempt 1 opened",
            "Sent head Some(\"client\")",
            "Sent message 0 of 3, smaller false, payload true",
            "Sent half-close",
            "Received head Some(\"server\")",
            "Received message 0 of 3, smaller false, payload true",
            "Received trailers Some(\"trailers\")",
            "attempt 1 ended OK",
            "ended OK after 1",
        ]
    );
    assert_eq!(
        all(&mut at_server).await,
        [
            "Received head Some(\"client\")",
            "Received message 0 of 3, smaller false, payload false",
            "Received half-close",
            "Sent message 0 of 3, smaller false, payload false",
            "Sent head Some(\"server\")",
            "Sent trailers Some(\"trailers\")",
            "ended OK after 0",
        ]
    );
}

#[tokio::test]
async fn messages_of_streams_are_told_with_their_sizes_before_and_after_compression() {
    let (server, mut at_server) = Events::of(Wants::PAYLOADS);
    let (client, mut at_client) = Events::of(Wants::MESSAGES);
    let server = Server::new().observe(server).compress("gzip");
    let address = serve(server.add_service(Echo)).await;
    let channel = Channel::connect(&address).await.unwrap().observe(client);
    let client = Client::new(channel);
    let call = client.bidi_streaming::<Raw, Raw>(BIDI).compress("gzip");
    let (mut requests, mut responses) = call.await.unwrap();
    for size in [2_000, 3, 20_000] {
        requests.send(raw(vec![7; size])).await.unwrap();
        assert_eq!(responses.message().await.unwrap().unwrap().0.len(), size);
    }
    requests.finish();
    assert!(responses.message().await.unwrap().is_none());
    let lines = |sent: &str, received: &str, has_payload: bool| {
        let mut lines = Vec::new();
        for (number, size, smaller) in [(0, 2_000, true), (1, 3, false), (2, 20_000, true)] {
            for direction in [sent, received] {
                lines.push(format!(
                    "{direction} message {number} of {size}, smaller {smaller}, payload {has_payload}"
                ));
            }
        }
        lines
    };
    let mut expected = lines("Sent", "Received", false);
    expected.extend(["Sent half-close".to_owned(), "ended OK after 1".to_owned()]);
    assert_eq!(all(&mut at_client).await, expected);
    let mut expected = lines("Received", "Sent", true);
    expected.extend(["Received half-close", "ended OK after 0"].map(String::from));
    assert_eq!(all(&mut at_server).await, expected);
}

#[tokio::test]
async fn a_transparent_retry_is_an_attempt_of_its_own() {
    let net = MemoryNet::default();
    let mut listener = net.listen("10.0.0.1:1");
    let channel = Channel::to("10.0.0.1:1").connector(net.connector());
    let (events, mut told) = Events::of(Wants::ATTEMPTS | Wants::HEADS);
    let channel = channel.connect_lazy().unwrap().observe(events);
    let call = Client::new(channel).unary::<Raw, Raw>(UNARY, raw("x"));
    let call = tokio::spawn(call.into_future());
    let mut peer = listener.accept().await;
    let stream = peer.next_full_request().await;
    peer.write(&[Frame::rst_stream(stream, error::REFUSED_STREAM)])
        .await;
    let stream = peer.next_full_request().await;
    peer.write(&[
        Frame::headers(stream, &Fields::response()),
        Frame::data(stream, message(b"y")),
        Frame::headers(stream, &Fields::trailers("0")).ending(),
    ])
    .await;
    within("the call", call).await.unwrap().unwrap();
    assert_eq!(
        all(&mut told).await,
        [
            "attempt 1 started, transparent false",
            "attempt 1 opened",
            "Sent head None",
            "attempt 1 ended UNAVAILABLE",
            "attempt 2 started, transparent true",
            "attempt 2 opened",
            "Sent head None",
            "Received head None",
            "Received trailers None",
            "attempt 2 ended OK",
            "ended OK after 2",
        ]
    );
}

#[tokio::test]
async fn an_attempt_of_a_call_that_is_dropped_ends_before_the_call() {
    let net = MemoryNet::default();
    let _listener = net.listen("10.0.0.1:1");
    let channel = Channel::to("10.0.0.1:1").connector(net.connector());
    let (events, mut told) = Events::of(Wants::ATTEMPTS);
    let channel = channel.connect_lazy().unwrap().observe(events);
    let call = Client::new(channel).unary::<Raw, Raw>(UNARY, raw("x"));
    let call = tokio::spawn(call.into_future());
    let started = within("the attempt", told.recv()).await.unwrap();
    assert_eq!(started, "attempt 1 started, transparent false");
    call.abort();
    let ends = ["attempt 1 ended CANCELLED", "ended CANCELLED after 1"];
    assert!(all(&mut told).await.ends_with(&ends.map(String::from)));
}

/// A service config, a script, and the events of a call.
type PolicyRow = (&'static str, &'static str, &'static [&'static str]);

#[tokio::test(start_paused = true)]
async fn the_attempts_of_a_policy_are_told_with_their_ends() {
    const RETRY: &str = r#""retryPolicy": {"maxAttempts": 2, "initialBackoff": "0.1s",
        "maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}"#;
    const HEDGE: &str = r#""hedgingPolicy": {"maxAttempts": 2, "hedgingDelay": "0.1s"}"#;
    let rows: [PolicyRow; 3] = [
        (
            RETRY,
            "R(REFUSED) U K",
            &[
                "attempt 1 started, transparent false",
                "attempt 1 opened",
                "attempt 1 ended UNAVAILABLE",
                "attempt 2 started, transparent true",
                "attempt 2 opened",
                "attempt 2 ended UNAVAILABLE",
                "attempt 3 started, transparent false",
                "attempt 3 opened",
                "attempt 3 ended OK",
                "ended OK after 3",
            ],
        ),
        (
            RETRY,
            "U U",
            &[
                "attempt 1 started, transparent false",
                "attempt 1 opened",
                "attempt 1 ended UNAVAILABLE",
                "attempt 2 started, transparent false",
                "attempt 2 opened",
                "attempt 2 ended UNAVAILABLE",
                "ended UNAVAILABLE after 2",
            ],
        ),
        (
            HEDGE,
            "- K",
            &[
                "attempt 1 started, transparent false",
                "attempt 1 opened",
                "attempt 2 started, transparent false",
                "attempt 2 opened",
                "attempt 1 ended CANCELLED",
                "attempt 2 ended OK",
                "ended OK after 2",
            ],
        ),
    ];
    for (policy, script, expected) in rows {
        let net = MemoryNet::default();
        let _server = ScriptedServer::in_memory(&net, "10.0.0.1:1", script);
        let config = format!(r#"{{"methodConfig": [{{"name": [{{}}], {policy}}}]}}"#);
        let builder = Channel::to("10.0.0.1:1").connector(net.connector());
        let channel = builder.service_config(&config).connect_lazy();
        let (observer, mut events) = Events::of(Wants::ATTEMPTS | Wants::ENDS);
        let client = Client::new(channel.expect("valid settings").observe(observer));
        let call = client.unary::<Raw, Raw>(Method::new("/test.Scripted/0"), Raw("x".into()));
        let _ = within("the call", call.into_future()).await;
        assert_eq!(all(&mut events).await, expected, "{script}");
    }
}

/// Panics at each event, or when a call begins.
struct Panics(Option<Wants>);

impl Observer for Panics {
    fn call(&self, _: &CallStart<'_>) -> Option<impl CallObserver> {
        let wants = self.0.expect("an observer of a test that panics at once");
        Some(PanicsAtEvents(wants))
    }
}

struct PanicsAtEvents(Wants);

impl CallObserver for PanicsAtEvents {
    fn wants(&self) -> Wants {
        self.0
    }

    fn event(&self, _: Instant, event: &CallEvent<'_>) {
        panic!("an observer of a test: {}", text(event));
    }
}

#[tokio::test]
async fn observers_that_panic_harm_neither_calls_nor_other_observers() {
    let (events, mut told) = Events::of(Wants::ENDS);
    let server = Server::new()
        .observe(Panics(None))
        .observe(Panics(Some(Wants::ALL)));
    let address = serve(server.observe(events.clone()).add_service(Echo)).await;
    let channel = Channel::connect(&address).await.unwrap();
    let channel = channel.observe(Panics(Some(Wants::ENDS))).observe(events);
    let client = Client::new(channel);
    for _ in 0..2 {
        let response = client.unary::<_, Raw>(UNARY, raw("abc")).await.unwrap();
        assert_eq!(response.into_inner(), raw("abc"));
        let mut ends = [all(&mut told).await, all(&mut told).await].concat();
        ends.sort();
        assert_eq!(ends, ["ended OK after 0", "ended OK after 1"]);
    }
}

#[tokio::test]
async fn observers_are_told_in_the_order_in_which_they_were_added() {
    let (told, mut names) = mpsc::unbounded_channel();
    let named = |name: &'static str| {
        let told = told.clone();
        on_end(move |call| {
            assert_eq!(call.code(), Code::OK);
            let _ = told.send(name);
        })
    };
    let channel = Channel::in_process(Server::new().add_service(Echo));
    let channel = channel.observe(named("first")).observe(named("second"));
    let client = Client::new(channel);
    client.unary::<_, Raw>(UNARY, raw("abc")).await.unwrap();
    assert_eq!(names.recv().await, Some("first"));
    assert_eq!(names.recv().await, Some("second"));
}

/// Sends what is known of calls that begin.
struct Starts(mpsc::UnboundedSender<(u64, String)>);

impl Observer for Starts {
    fn call(&self, call: &CallStart<'_>) -> Option<impl CallObserver> {
        let (method, kind) = (call.method(), call.kind());
        let start = format!(
            "{:?} {method} {kind:?} {}",
            call.side(),
            call.is_registered()
        );
        let _ = self.0.send((call.id(), start));
        None::<Events>
    }
}

#[tokio::test]
async fn a_call_begins_with_an_id_of_its_own_its_method_and_its_kind() {
    let (told, mut starts) = mpsc::unbounded_channel();
    let server = Server::new()
        .observe(Starts(told.clone()))
        .add_service(Echo);
    let channel = Channel::in_process(server).observe(Starts(told));
    let client = Client::new(channel);
    client.unary::<_, Raw>(UNARY, raw("x")).await.unwrap();
    let call = client.server_streaming::<_, Raw>(SERVER, raw("x"));
    let mut responses = call.await.unwrap();
    while responses.message().await.unwrap().is_some() {}
    let made = Method::from(String::from("/made.Up/Name"));
    client.unary::<_, Raw>(made, raw("x")).await.unwrap_err();
    let mut expected = Vec::new();
    for kind in [Kind::Unary, Kind::ServerStreaming] {
        let name = match kind {
            Kind::Unary => CallKind::Unary,
            _ => CallKind::ServerStreaming,
        };
        for side in ["Client", "Server"] {
            let method = kind.method();
            let method = method.path().trim_start_matches('/');
            expected.push(format!("{side} {method} {:?} true", Some(name)));
        }
    }
    expected.push("Client made.Up/Name Some(Unary) false".to_owned());
    expected.push("Server other None false".to_owned());
    let mut ids = Vec::new();
    for expected in expected {
        let (id, start) = within("a call", starts.recv()).await.unwrap();
        assert_eq!(start, expected);
        ids.push(id);
    }
    assert!(!ids.contains(&0));
    ids.dedup();
    assert_eq!(ids.len(), 6);
}
