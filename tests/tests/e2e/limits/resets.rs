//! Resets that cost a client its connection, and those that must not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::DuplexStream;
use trunkline::server::Methods;
use trunkline::{Method, Raw, Request, Server, Service};
use trunkline_testkit::{Fields, Frame, Outcome, Probe, RawPeer, error, message};

const DEAF: &str = "/test.Probe/Deaf";
const ECHO: &str = "/test.Probe/Echo";
const HOLD: &str = "/test.Probe/Hold";
const SPIN: Method = Method::new("/test.Spinning/Spin");
const MINUTE: Duration = Duration::from_secs(60);

/// Its method takes 4 ms of the processor whenever it is polled first, and then waits.
#[derive(Clone, Default)]
struct Spinning(Arc<AtomicUsize>);

impl Service for Spinning {
    const NAME: &'static str = "test.Spinning";

    fn add_to(self, methods: &mut Methods) {
        let me = Arc::new(self);
        methods.unary(SPIN, &me, |me: Arc<Self>, _: Request<Raw>| async move {
            me.0.fetch_add(1, Ordering::Relaxed);
            let began = std::time::Instant::now();
            while began.elapsed() < Duration::from_millis(4) {
                std::hint::spin_loop();
            }
            std::future::pending::<Result<Raw, trunkline::Status>>().await
        });
    }
}

async fn raw_client(server: Server) -> RawPeer<DuplexStream> {
    let (near, far) = tokio::io::duplex(1 << 20);
    tokio::spawn(server.serve_connection(far));
    RawPeer::client(near, &[]).await
}

async fn assert_cut_off(client: &mut RawPeer<DuplexStream>, text: &str) {
    client.until_closed().await;
    let goaway = client.goaway().expect("a reason");
    assert_eq!(goaway.error, error::ENHANCE_YOUR_CALM);
    assert_eq!(goaway.text, text);
}

/// Batches of 50, each a head that HTTP/2 does not allow: C-core's for a Unix socket.
async fn malformed_heads(client: &mut RawPeer<DuplexStream>, batches: usize) {
    for batch in 0..batches {
        for _ in 0..50 {
            let fields = Fields::call(ECHO).with(":authority", "%2Frun%2Fgreeter.sock");
            let stream = client.next_stream();
            client.write(&[Frame::headers(stream, &fields)]).await;
        }
        assert!(
            client.settle().await,
            "batch {batch}: {:?}",
            client.goaway()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn mistakes_that_are_long_forgiven_are_not_held_against_malformed_heads() {
    let mut client = raw_client(Server::new().add_service(Probe::new())).await;
    for minute in 0..3_000 {
        let stream = client.next_stream();
        let head = Frame::headers(stream, &Fields::call(DEAF));
        // A window that is too large, and DATA behind the end.
        client
            .write(&[head, Frame::window_update(stream, (1 << 31) - 1)])
            .await;
        tokio::time::sleep(MINUTE).await;
        client.write(&[Frame::data(stream, "x")]).await;
        assert!(client.settle().await, "{minute}: {:?}", client.goaway());
    }
    malformed_heads(&mut client, 100).await;
    let call = client.call(&Fields::call(ECHO), message(b"x")).await;
    assert_eq!(client.outcome(call).await, Outcome::Answered(200, 0));
}

/// Time passes while handlers are at work: it does not make a reset late that was there before.
#[tokio::test]
async fn resets_that_come_with_their_calls_count_however_long_the_handlers_take() {
    let spinning = Spinning::default();
    let server = Server::new()
        .add_service(spinning.clone())
        .with_limits(|limits| {
            limits.reset_budget = 100;
            limits.resets_per_second = 1;
        });
    let mut client = raw_client(server).await;
    for _ in 0..20 {
        let mut frames = Vec::new();
        for _ in 0..20 {
            let stream = client.next_stream();
            frames.push(Frame::headers(stream, &Fields::call(SPIN.path())));
            frames.push(Frame::data(stream, message(b"x")).ending());
            frames.push(Frame::rst_stream(stream, error::CANCEL));
        }
        client.write(&frames).await;
        if !client.settle().await {
            break;
        }
    }
    assert!(client.is_closed(), "it goes on after 400 resets");
    assert_cut_off(&mut client, "too_many_resets").await;
    // A call that is over is not begun where a method is known to be slow.
    let begun = spinning.0.load(Ordering::Relaxed);
    assert!(begun < 60, "{begun} of 400 handlers");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_a_little_before_each_reset_is_cut_off_in_a_second() {
    let probe = Probe::new();
    let mut client = raw_client(Server::new().add_service(probe.clone())).await;
    for _ in 0..1_000 {
        let mut calls = Vec::new();
        for _ in 0..100 {
            calls.push(client.call(&Fields::call(HOLD), message(b"x")).await);
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
        for call in calls {
            client
                .write(&[Frame::rst_stream(call, error::CANCEL)])
                .await;
        }
        if !client.settle().await {
            break;
        }
    }
    assert!(client.is_closed(), "{:?}", probe.counts());
    assert_cut_off(&mut client, "too_many_resets").await;
    assert!(probe.counts().called <= 30_000, "{:?}", probe.counts());
}
