//! Replies that nobody takes hold so much memory and no more, and what a client does not take harms no
//! other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::DuplexStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use trunkline::limits::{ChannelLimits, ServerLimits};
use trunkline::server::Methods;
use trunkline::{Channel, Client, Method, Raw, Request, Sender, Server, Service};
use trunkline_testkit::{
    Fields, Frame, Outcome, RawPeer, SlowLink, Slowness, error, message, setting, within,
};

const WHOLE: Method = Method::new("/test.Large/Whole");
const STREAM: Method = Method::new("/test.Large/Stream");
const SMALL: Method = Method::new("/test.Large/Small");

const MIB: usize = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);
/// RFC 9113, section 6.9.1: no window is larger.
const WINDOW_MAX: u32 = (1 << 31) - 1;
const EXHAUSTED: Outcome = Outcome::Answered(200, 8);
const OK: Outcome = Outcome::Answered(200, 0);

/// Replies that are large, and are counted for as long as anybody has them.
#[derive(Clone, Default)]
struct Large {
    held: Arc<AtomicUsize>,
    called: Arc<AtomicUsize>,
}

/// The bytes of a response.
struct Counted {
    bytes: Vec<u8>,
    held: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

impl Large {
    fn message(&self, size: usize) -> Raw {
        self.held.fetch_add(size, Ordering::Relaxed);
        Raw(Bytes::from_owner(Counted {
            bytes: vec![7; size],
            held: self.held.clone(),
        }))
    }

    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    async fn until_called(&self, calls: usize) {
        within("the handlers", async {
            while self.called.load(Ordering::Relaxed) < calls {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

/// How large a message a request asks for, in KiB.
fn size_of(request: &Raw) -> usize {
    let text = std::str::from_utf8(&request.0).expect("a number");
    text.parse::<usize>().expect("a number") * 1024
}

impl Service for Large {
    const NAME: &'static str = "test.Large";

    fn add_to(self, methods: &mut Methods) {
        let large = Arc::new(self);
        methods.unary(
            WHOLE,
            &large,
            |large: Arc<Self>, request: Request<Raw>| async move {
                large.called.fetch_add(1, Ordering::Relaxed);
                Ok(large.message(size_of(&request)))
            },
        );
        methods.unary(
            SMALL,
            &large,
            |_: Arc<Self>, request: Request<Raw>| async move { Ok(request.into_inner()) },
        );
        methods.server_streaming(
            STREAM,
            &large,
            |large: Arc<Self>, request: Request<Raw>, mut responses: Sender<Raw>| async move {
                large.called.fetch_add(1, Ordering::Relaxed);
                let size = size_of(&request);
                for _ in 0..3 {
                    responses.send(large.message(size)).await?;
                }
                Ok(())
            },
        );
    }
}

/// A client in memory that gives no window for any stream.
async fn stingy(server: &Server) -> RawPeer<DuplexStream> {
    let (near, far) = tokio::io::duplex(1 << 16);
    tokio::spawn(server.clone().serve_connection(far));
    stingy_over(near).await
}

async fn stingy_over<IO>(io: IO) -> RawPeer<IO>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    RawPeer::client(io, &[(setting::INITIAL_WINDOW_SIZE, 0)]).await
}

/// Asks for a message of so many KiB.
async fn ask<IO>(client: &mut RawPeer<IO>, method: Method, kib: usize) -> u32
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let request = message(kib.to_string().as_bytes());
    client.call(&Fields::call(method.path()), request).await
}

fn server(large: &Large, change: impl FnOnce(&mut ServerLimits)) -> Server {
    Server::new()
        .add_service(large.clone())
        .keepalive_time(Duration::MAX)
        .with_limits(change)
}

/// Asks for so many messages of 1 MiB.
async fn ask_many(client: &mut RawPeer<DuplexStream>, large: &Large, calls: usize) -> Vec<u32> {
    let called = large.called.load(Ordering::Relaxed);
    let mut streams = Vec::new();
    for call in 1..=calls {
        streams.push(ask(client, WHOLE, 1024).await);
        large.until_called(called + call).await;
    }
    assert!(client.settle().await);
    streams
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_fills_its_connection_to_the_bound_and_the_oldest_responses_fail()
 {
    let large = Large::default();
    let server = server(&large, |it| it.max_connection_send_backlog = 8 * MIB);
    let mut client = stingy(&server).await;
    let mut streams = ask_many(&mut client, &large, 30).await;
    // It may be about to read.
    tokio::time::sleep(19 * SECOND).await;
    assert!(client.settle().await);
    assert_eq!(large.held(), 30 * MIB);
    tokio::time::sleep(2 * SECOND).await;
    assert!(client.settle().await);
    assert_eq!(large.held(), 7 * MIB);
    // It is not believed again, whatever it asks for or gives up.
    for _ in 0..70 {
        streams.extend(ask_many(&mut client, &large, 1).await);
        let held = large.held();
        assert!(
            held <= 8 * MIB,
            "{held} bytes after {} calls",
            streams.len()
        );
    }
    // Those that came last are left, and arrive.
    let (failed, left) = streams.split_at(93);
    for stream in failed {
        assert_eq!(client.outcome(*stream).await, EXHAUSTED);
        let told = client.stream(*stream).grpc_message();
        assert!(
            told.contains("max_connection_send_backlog, 8388608 bytes"),
            "{told}"
        );
    }
    for stream in left {
        client
            .write(&[Frame::window_update(*stream, 2 * MIB as u32)])
            .await;
        assert_eq!(client.outcome(*stream).await, OK);
        assert_eq!(client.stream(*stream).data.len(), 5 + MIB);
    }
    // What has left makes room, and the client is believed.
    assert_eq!(large.held(), 0);
    for stream in ask_many(&mut client, &large, 20).await {
        client
            .write(&[Frame::window_update(stream, 2 * MIB as u32)])
            .await;
        assert_eq!(client.outcome(stream).await, OK);
    }
}

#[tokio::test(start_paused = true)]
async fn resetting_calls_does_not_renew_the_time_in_which_a_client_may_take_nothing() {
    let large = Large::default();
    let server = server(&large, |it| it.max_connection_send_backlog = 8 * MIB);
    let mut client = stingy(&server).await;
    for round in 0..4 {
        let streams = ask_many(&mut client, &large, 20).await;
        let held = large.held();
        assert_eq!(held > 8 * MIB, round < 2, "{held} bytes in round {round}");
        tokio::time::sleep(11 * SECOND).await;
        for stream in streams {
            let cancel = Frame::rst_stream(stream, error::CANCEL);
            client.write(&[cancel]).await;
        }
        assert!(client.settle().await);
        assert_eq!(large.held(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn responses_that_wait_for_their_turn_are_left_alone_while_the_client_takes_others() {
    let large = Large::default();
    let server = server(&large, |it| it.max_connection_send_backlog = 8 * MIB);
    let mut client = stingy(&server).await;
    let streams = ask_many(&mut client, &large, 30).await;
    // 128 KiB a second, of one after the other: the last waits for four minutes.
    for stream in &streams {
        for _ in 0..17 {
            let window = Frame::window_update(*stream, 64 * 1024);
            client.write(&[window]).await;
            tokio::time::sleep(SECOND / 2).await;
            assert!(client.settle().await);
        }
    }
    for stream in streams {
        assert_eq!(client.outcome(stream).await, OK);
    }
}

/// Asks for large responses on one connection, all at once, and reads them.
async fn read_all(address: String, calls: usize, kib: usize) {
    let mut limits = ChannelLimits::default();
    limits.max_connections = 1;
    let channel = Channel::to(&address)
        .with_limits(|it| *it = limits)
        .connect()
        .await;
    let channel = channel.expect("a server listens");
    let mut readers = JoinSet::new();
    for call in 0..calls {
        let client = Client::new(channel.clone());
        readers.spawn(async move {
            let request = Raw(Bytes::from(kib.to_string()));
            if call % 2 == 0 {
                return client.unary::<Raw, Raw>(WHOLE, request).await.map(drop);
            }
            let mut responses = client.server_streaming::<Raw, Raw>(STREAM, request).await?;
            while responses.message().await?.is_some() {}
            Ok(())
        });
    }
    let ends = readers.join_all().await;
    let failed: Vec<_> = ends.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_large_responses_at_once_reach_a_client_that_reads() {
    let large = Large::default();
    let bound = Server::new()
        .add_service(large.clone())
        .bind("127.0.0.1:0")
        .await;
    let bound = bound.expect("a free port");
    let address = bound.local_addr().to_string();
    tokio::spawn(bound.serve());
    read_all(address, 100, 4 * 1024 - 1).await;
    assert_eq!(large.held(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_large_responses_at_once_pass_a_slow_link() {
    let large = Large::default();
    // In this time each of them takes no more than 200 KB.
    let server = server(&large, |it| {
        it.max_connection_send_backlog = 32 * MIB;
        it.send_backlog_grace = SECOND;
    });
    let bound = server.bind("127.0.0.1:0").await.expect("a free port");
    let slow = Slowness {
        bytes_per_second: 20_000_000,
        delay: Duration::from_millis(20),
    };
    let link = SlowLink::to(&bound.local_addr().to_string(), slow).await;
    tokio::spawn(bound.serve());
    read_all(link.address().to_string(), 100, 700).await;
    assert_eq!(large.held(), 0);
}

#[tokio::test]
async fn responses_that_are_given_up_are_not_counted_as_mistakes_of_the_client() {
    let large = Large::default();
    let server = server(&large, |it| {
        it.max_connection_send_backlog = MIB;
        it.send_backlog_grace = Duration::ZERO;
        it.http2.error_reset_budget = 3;
        it.http2.error_resets_per_second = 0;
    });
    let mut client = stingy(&server).await;
    let mut streams = Vec::new();
    for calls in 1..=30 {
        let stream = ask(&mut client, STREAM, 1024).await;
        client.write(&[Frame::window_update(stream, 100)]).await;
        large.until_called(calls).await;
        assert!(client.settle().await, "{:?}", client.goaway());
        streams.push(stream);
    }
    for stream in &streams[..29] {
        let given_up = Outcome::Reset(error::ENHANCE_YOUR_CALM);
        assert_eq!(client.outcome(*stream).await, given_up);
    }
    let neighbour = ask(&mut client, SMALL, 1).await;
    client.write(&[Frame::window_update(neighbour, 100)]).await;
    assert_eq!(client.outcome(neighbour).await, OK);
}

#[tokio::test]
async fn a_call_that_is_given_up_makes_room_and_one_response_alone_may_be_larger_than_the_bound() {
    let large = Large::default();
    let server = server(&large, |it| {
        it.max_connection_send_backlog = 2 * MIB;
        it.send_backlog_grace = Duration::ZERO;
    });
    let mut client = stingy(&server).await;
    for calls in 1..=20 {
        let stream = ask(&mut client, WHOLE, 1536).await;
        large.until_called(calls).await;
        client
            .write(&[Frame::rst_stream(stream, error::CANCEL)])
            .await;
        assert!(client.settle().await);
    }
    let stream = ask(&mut client, WHOLE, 8 * 1024).await;
    large.until_called(21).await;
    assert!(client.settle().await);
    client
        .write(&[Frame::window_update(stream, WINDOW_MAX)])
        .await;
    assert_eq!(client.outcome(stream).await, OK);
    assert_eq!(client.stream(stream).data.len(), 5 + 8 * MIB);
}

#[tokio::test]
async fn a_response_that_has_begun_is_reset_with_what_a_client_takes_for_resource_exhausted() {
    let large = Large::default();
    let server = server(&large, |it| {
        it.max_connection_send_backlog = 2 * MIB;
        it.send_backlog_grace = Duration::ZERO;
    });
    let mut client = stingy(&server).await;
    let first = ask(&mut client, STREAM, 1024).await;
    client.write(&[Frame::window_update(first, 100)]).await;
    client
        .until("its beginning", |it| it.stream(first).data.len() == 100)
        .await;
    let second = ask(&mut client, WHOLE, 1536).await;
    assert_eq!(
        client.outcome(first).await,
        Outcome::Reset(error::ENHANCE_YOUR_CALM)
    );
    client
        .write(&[Frame::window_update(second, WINDOW_MAX)])
        .await;
    assert_eq!(client.outcome(second).await, OK);
}

#[tokio::test]
async fn at_the_bound_of_the_server_the_connection_that_holds_the_most_gives_way() {
    let large = Large::default();
    let server = server(&large, |it| it.max_send_backlog = 16 * MIB);
    let bound = server.bind("127.0.0.1:0").await.expect("a free port");
    let address = bound.local_addr().to_string();
    tokio::spawn(bound.serve());
    let mut light = stingy_over(RawPeer::dial(&address).await).await;
    let honest = ask(&mut light, WHOLE, 2 * 1024).await;
    large.until_called(1).await;
    let mut heavy = stingy_over(RawPeer::dial(&address).await).await;
    let mut streams = Vec::new();
    for calls in 2..=40 {
        streams.push(ask(&mut heavy, WHOLE, 1024).await);
        large.until_called(calls).await;
        assert!(heavy.settle().await);
        assert!(
            large.held() <= 18 * MIB,
            "{} after {calls} calls",
            large.held()
        );
    }
    assert_eq!(heavy.outcome(streams[0]).await, EXHAUSTED);
    let told = heavy.stream(streams[0]).grpc_message();
    assert!(told.contains("max_send_backlog, 16777216 bytes"), "{told}");
    // Both go on.
    let late = ask(&mut light, WHOLE, 1024).await;
    for stream in [honest, late] {
        light
            .write(&[Frame::window_update(stream, WINDOW_MAX)])
            .await;
        assert_eq!(light.outcome(stream).await, OK);
    }
    let last = streams[streams.len() - 1];
    heavy.write(&[Frame::window_update(last, WINDOW_MAX)]).await;
    assert_eq!(heavy.outcome(last).await, OK);
}

#[tokio::test(start_paused = true)]
async fn responses_that_do_not_move_are_given_up_in_time_when_they_are_in_the_way() {
    let large = Large::default();
    let server = server(&large, |it| {
        it.max_connection_send_backlog = 8 * MIB;
        it.send_backlog_timeout = 60 * SECOND;
    });
    let mut client = stingy(&server).await;
    let mut streams = Vec::new();
    for calls in 1..=6 {
        streams.push(ask(&mut client, WHOLE, 1024).await);
        large.until_called(calls).await;
        tokio::time::sleep(SECOND).await;
    }
    // One of them moves, if slowly: 256 KiB in half of the time.
    let moving = streams[0];
    let began = Instant::now();
    for _ in 0..70 {
        client
            .write(&[Frame::window_update(moving, 8 * 1024)])
            .await;
        tokio::time::sleep(SECOND).await;
    }
    assert_eq!(client.outcome(streams[1]).await, EXHAUSTED);
    let told = client.stream(streams[1]).grpc_message();
    assert!(told.contains("next to nothing of it for 60s"), "{told}");
    assert!(began.elapsed() < 72 * SECOND);
    client
        .write(&[Frame::window_update(moving, WINDOW_MAX - MIB as u32)])
        .await;
    assert_eq!(client.outcome(moving).await, OK);
    // Half of the bound is not in the way.
    let held = large.held();
    assert!((3 * MIB..=4 * MIB).contains(&held), "{held}");
    for _ in 0..24 {
        tokio::time::sleep(3600 * SECOND).await;
        assert!(client.settle().await);
    }
    assert_eq!(large.held(), held);
    let last = streams[5];
    client
        .write(&[Frame::window_update(last, WINDOW_MAX)])
        .await;
    assert_eq!(client.outcome(last).await, OK);
}

#[tokio::test(start_paused = true)]
async fn streams_of_messages_whose_readers_pause_for_days_are_left_alone() {
    let large = Large::default();
    let server = server(&large, |it| it.max_connection_send_backlog = MIB);
    let mut client = stingy(&server).await;
    let mut streams = Vec::new();
    for calls in 1..=100 {
        streams.push(ask(&mut client, STREAM, 32).await);
        large.until_called(calls).await;
    }
    for _ in 0..7 * 24 {
        tokio::time::sleep(3600 * SECOND).await;
        assert!(client.settle().await);
    }
    for stream in streams {
        client
            .write(&[Frame::window_update(stream, MIB as u32)])
            .await;
        assert_eq!(client.outcome(stream).await, OK);
        assert_eq!(client.stream(stream).data.len(), 3 * (5 + 32 * 1024));
    }
    let neighbour = client
        .call(&Fields::call(SMALL.path()), message(b"x"))
        .await;
    client.write(&[Frame::window_update(neighbour, 100)]).await;
    assert_eq!(client.outcome(neighbour).await, OK);
}
