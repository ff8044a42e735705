//! What `trunkline::testing` gives to tests, and channels to servers in this process.

use std::future::{IntoFuture, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use tower_layer::layer_fn;
use trunkline::server::Methods;
use trunkline::testing::{Faults, in_memory};
use trunkline::tower::Body;
use trunkline::tower::LayeredService;
use trunkline::{
    Address, Channel, Client, Code, Method, Next, Raw, Request, Server, Service, Status,
};
use trunkline_testkit::{Probe, within};

const SECOND: Duration = Duration::from_secs(1);

async fn call(client: &Client, method: Method) -> trunkline::Result<Raw> {
    let call = client.unary::<Raw, Raw>(method, Raw(b"x"[..].into()));
    let response = within("a call", call.timeout(5 * SECOND).into_future());
    Ok(response.await?.into_inner())
}

async fn code_of(client: &Client) -> Code {
    call(client, Probe::ECHO)
        .await
        .map_or_else(|status| status.code(), |_| Code::OK)
}

fn server() -> (Server, Probe) {
    let probe = Probe::new();
    (Server::new().add_service(probe.clone()), probe)
}

/// A channel through faults, with a connection.
async fn faulty() -> (Faults, Client, Probe) {
    let (faults, (server, probe)) = (Faults::new(), server());
    let channel = faults.in_memory(server).connect().await;
    let client = Client::new(channel.expect("a server"));
    assert_eq!(code_of(&client).await, Code::OK);
    assert_eq!(faults.connections(), 1);
    (faults, client, probe)
}

/// Adds to what the metadata says of the way of a call, and refuses those who ask for it.
#[derive(Clone)]
struct Gate(LayeredService);

impl tower_service::Service<http::Request<Body>> for Gate {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let fields = request.headers_mut();
        if fields.contains_key("refuse") {
            return Box::pin(ready(Err(Status::permission_denied("by the layer"))));
        }
        fields.append("way", http::HeaderValue::from_static("layer"));
        self.0.call(request)
    }
}

async fn interceptor(mut cx: trunkline::Context, next: Next) -> trunkline::Result<()> {
    let way = cx.metadata().get("way") == Some("layer");
    assert!(way, "the layer is further out");
    cx.extensions_mut().insert("interceptor");
    next.run(&mut cx).await
}

#[tokio::test]
async fn a_server_in_process_has_its_layers_and_interceptors() {
    let (server, probe) = server();
    let server = server.layer(layer_fn(Gate)).intercept(interceptor);
    let client = Client::new(Channel::in_process(server));
    assert_eq!(code_of(&client).await, Code::OK);
    let refused = client.unary::<Raw, Raw>(Probe::ECHO, Raw::default());
    let refused = refused.metadata("refuse", "yes").await;
    let status = refused.expect_err("the layer refuses");
    assert_eq!(
        (status.code(), status.message()),
        (Code::PERMISSION_DENIED, "by the layer")
    );
    assert_eq!(probe.counts().called, 1);
}

#[tokio::test(start_paused = true)]
async fn a_layered_server_in_process_keeps_deadlines_and_drops_handlers() {
    let (server, probe) = server();
    let server = server.layer(layer_fn(Gate));
    let client = Client::new(Channel::in_process(server));
    let began = Instant::now();
    let status = call(&client, Probe::HOLD).await.expect_err("it is held");
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    assert_eq!(began.elapsed(), 5 * SECOND);
    probe.until("no handler", |it| it.running == 0).await;

    // A stream that nobody reads any more.
    let stall = client.server_streaming::<Raw, Raw>(Probe::STALL, Raw::default());
    let mut responses = stall.await.expect("a stream");
    assert!(responses.message().await.expect("a message").is_some());
    drop(responses);
    probe.until("no handler", |it| it.running == 0).await;
}

#[tokio::test]
async fn a_channel_in_process_takes_responses_up_to_its_limit() {
    let echo = |channel: Channel, size: usize| async move {
        let client = Client::new(channel);
        let response = client.unary::<Raw, Raw>(Probe::ECHO, Raw(vec![7; size].into()));
        response.await.map(|response| response.0.len())
    };
    let (server, _) = server();
    let default = Channel::in_process(server.max_recv_message_size(9 << 20));
    let raised = default.clone().max_recv_message_size(8 << 20);
    for (channel, limit) in [(default.clone(), 4 << 20), (raised, 8 << 20)] {
        for size in [limit - 1, limit] {
            assert_eq!(echo(channel.clone(), size).await.ok(), Some(size));
        }
        let status = echo(channel, limit + 1).await.expect_err("too large");
        assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED);
    }
    let lowered = default.max_send_message_size(10);
    assert_eq!(echo(lowered.clone(), 10).await.ok(), Some(10));
    let status = echo(lowered, 11).await.expect_err("too large");
    assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED);
}

/// Returns what it gets, over a connection in memory.
struct OverAConnection;

impl Service for OverAConnection {
    const NAME: &'static str = "test.Probe";

    fn add_to(self, methods: &mut Methods) {
        methods.unary(
            Probe::ECHO,
            &std::sync::Arc::new(self),
            |_, request: Request<Raw>| async move {
                // Only a connection has a peer.
                let peer = request.peer().expect("a connection").remote().clone();
                assert!(matches!(peer, Address::InMemory), "{peer}");
                Ok(request.into_inner())
            },
        );
    }
}

#[tokio::test]
async fn a_channel_in_memory_speaks_http_2_and_connects_again() {
    let server = Server::new().add_service(OverAConnection);
    // One call is all that a connection is for.
    let server = server.max_connection_idle(Duration::from_millis(1));
    let channel = in_memory(server).connect_lazy().expect("a good target");
    assert_eq!(format!("{channel:?}"), "Channel(\"in-memory:80\")");
    let client = Client::new(channel);
    for _ in 0..20 {
        assert_eq!(code_of(&client).await, Code::OK);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_makes_a_round_trip_as_much_longer() {
    let (faults, client, _) = faulty().await;
    for seconds in [2, 0, 3] {
        faults.delay(seconds * SECOND);
        let began = Instant::now();
        assert_eq!(code_of(&client).await, Code::OK);
        assert_eq!(began.elapsed().as_secs(), u64::from(seconds));
    }
    faults.restore();
    let began = Instant::now();
    assert_eq!(code_of(&client).await, Code::OK);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_is_late_does_not_hold_up_what_comes_behind_it() {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let faults = Faults::new();
    let mut near = faults.wrap(near);
    faults.delay(10 * SECOND);
    let began = Instant::now();
    let reading = tokio::spawn(async move {
        let mut times = Vec::new();
        while near.read_u8().await.is_ok() {
            times.push(began.elapsed().as_secs());
        }
        times.push(began.elapsed().as_secs());
        times
    });
    for _ in 0..3 {
        far.write_u8(7).await.expect("a reader");
        tokio::time::sleep(SECOND).await;
    }
    drop(far);
    assert_eq!(reading.await.expect("no panic"), [10, 11, 12, 13]);
}

#[tokio::test(start_paused = true)]
async fn nothing_passes_a_black_hole_until_it_is_gone() {
    let (faults, client, probe) = faulty().await;
    faults.black_hole();
    let began = Instant::now();
    assert_eq!(code_of(&client).await, Code::DEADLINE_EXCEEDED);
    assert_eq!(began.elapsed(), 5 * SECOND);
    assert_eq!(probe.counts().called, 1);
    faults.restore();
    assert_eq!(code_of(&client).await, Code::OK);
    assert_eq!(
        faults.connections(),
        1,
        "the connection has lived through it"
    );
}

#[tokio::test(start_paused = true)]
async fn who_connects_into_a_black_hole_waits() {
    let (faults, (server, _)) = (Faults::new(), server());
    faults.black_hole();
    let builder = faults.in_memory(server).connect_timeout(7 * SECOND);
    let began = Instant::now();
    let status = builder.clone().connect().await.expect_err("nothing comes");
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    assert_eq!(began.elapsed(), 7 * SECOND);
    let waiting = tokio::spawn(builder.connect());
    tokio::time::sleep(SECOND).await;
    faults.restore();
    let channel = within("the connection", waiting).await.expect("no panic");
    assert_eq!(
        code_of(&Client::new(channel.expect("a server"))).await,
        Code::OK
    );
    assert_eq!(faults.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn keepalive_finds_a_black_hole_from_either_end() {
    let (seldom, often) = (Duration::MAX, 10 * SECOND);
    for (of_server, of_client) in [(seldom, often), (often, seldom)] {
        let (faults, (server, probe)) = (Faults::new(), server());
        let server = server.keepalive_time(of_server).keepalive_timeout(SECOND);
        let builder = faults.in_memory(server).keepalive_time(of_client);
        let channel = builder.keepalive_timeout(SECOND).connect().await;
        let client = Client::new(channel.expect("a server"));
        let held = client.unary::<Raw, Raw>(Probe::HOLD, Raw::default());
        let held = tokio::spawn(held.into_future());
        probe.until("a handler", |it| it.running == 1).await;
        faults.black_hole();
        let began = Instant::now();
        probe.until("no handler", |it| it.running == 0).await;
        assert_eq!(began.elapsed(), 11 * SECOND);
        // The client of a server that has gone learns of it when something passes again.
        assert_eq!(held.is_finished(), of_client == often);
        faults.restore();
        let status = held.await.expect("no panic").expect_err("it was lost");
        assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    }
}

#[tokio::test]
async fn a_cut_ends_what_is_there_and_nothing_else() {
    let (faults, client, probe) = faulty().await;
    let held = client.unary::<Raw, Raw>(Probe::HOLD, Raw::default());
    let held = tokio::spawn(held.into_future());
    probe.until("a handler", |it| it.running == 1).await;
    faults.cut();
    let failed = within("the end", held).await.expect("no panic");
    let status = failed.expect_err("its connection is gone");
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    // The other end has seen it too.
    probe.until("no handler", |it| it.running == 0).await;
    assert_eq!(code_of(&client).await, Code::OK);
    assert_eq!(faults.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_refuses_until_it_is_back() {
    let (faults, client, _) = faulty().await;
    faults.refuse();
    // The connection is lost with the first call, or before it.
    assert_eq!(code_of(&client).await, Code::UNAVAILABLE);
    let status = call(&client, Probe::ECHO).await.expect_err("it is gone");
    assert_eq!(status.code(), Code::UNAVAILABLE);
    assert!(status.message().contains("refused"), "{status}");
    faults.restore();
    let patient = client.unary::<Raw, Raw>(Probe::ECHO, Raw::default());
    let patient = patient.wait_for_ready().timeout(10 * SECOND);
    assert!(patient.await.is_ok());
    assert_eq!(faults.connections(), 2);
}

#[tokio::test]
async fn a_cut_comes_behind_the_byte_that_was_said_in_either_direction() {
    for size in [1, 5, 9_999, 10_000] {
        let faults = Faults::new();
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut near = faults.wrap(near);
        faults.cut_after_received(size);
        far.write_all(&[7; 10_000]).await.expect("there is room");
        let mut received = Vec::new();
        let error = near.read_to_end(&mut received).await.expect_err("a cut");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(received.len() as u64, size);
        assert!(near.write_all(b"x").await.is_err(), "both ways");

        // It happens once.
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut near = faults.wrap(near);
        near.write_all(&[7; 100]).await.expect("a connection");
        faults.cut_after_sent(size);
        assert!(near.write_all(&[7; 10_000]).await.is_ok() == (size == 10_000));
        assert!(near.write_all(&[7; 1]).await.is_err());
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.expect("an end");
        assert_eq!(sent.len() as u64, 100 + size);
    }
}

#[tokio::test]
async fn a_cut_is_not_before_its_byte_and_restoring_takes_it_back() {
    let faults = Faults::new();
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let mut near = faults.wrap(near);
    faults.cut_after_received(101);
    far.write_all(&[7; 100]).await.expect("there is room");
    near.read_exact(&mut [0; 100]).await.expect("100 bytes");
    faults.restore();
    far.write_all(&[7; 100]).await.expect("there is room");
    near.read_exact(&mut [0; 100]).await.expect("100 more");
    faults.cut_after_received(0);
    assert!(near.read_u8().await.is_err(), "at once");
}

#[tokio::test]
async fn a_response_that_is_cut_in_the_middle_is_no_response() {
    // The connection's own frames and the head of the response are less than this, and the response more.
    for received in [600, 3_000] {
        let (faults, client, _) = faulty().await;
        faults.cut_after_received(received);
        let request = Raw(vec![7; 5_000].into());
        let response = client.unary::<Raw, Raw>(Probe::ECHO, request).await;
        assert_eq!(response.expect_err("a cut").code(), Code::UNAVAILABLE);
    }
}
