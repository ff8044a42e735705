//! How servers and their connections come to an end, and how many there are at one time.

use std::future::{pending, ready};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use trunkline::{Address, BoundServer, Channel, Client, Code, Raw, Server, shutdown_signal};
use trunkline_testkit::{
    Fields, Frame, GoAway, Outcome, PREFACE, Probe, RawPeer, error, message, within,
};

use crate::wall_clock::{assert_not_late, assert_punctual};

const ECHO: &str = "/test.Probe/Echo";
const HOLD: &str = "/test.Probe/Hold";
const CHAT: &str = "/test.Probe/Chat";
const OK: Outcome = Outcome::Answered(200, 0);
const SECOND: Duration = Duration::from_secs(1);
/// RFC 9113, section 6.8: the first GOAWAY of a graceful shutdown takes all streams that may come.
const ALL_STREAMS: u32 = (1 << 31) - 1;

fn server() -> (Server, Probe) {
    let probe = Probe::new();
    (Server::new().add_service(probe.clone()), probe)
}

/// A server on a port, and what makes it shut down.
struct Running {
    address: String,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<trunkline::Result<()>>,
}

impl Running {
    async fn new(server: Server) -> Self {
        let bound = server.bind("127.0.0.1:0").await.expect("a free port");
        Self::on(bound)
    }

    fn on(bound: BoundServer) -> Self {
        let address = bound.local_addr().to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(bound.serve_until(async {
            let _ = stopped.await;
        }));
        Self {
            address,
            stop: Some(stop),
            served,
        }
    }

    fn stop(&mut self) {
        drop(self.stop.take());
    }

    async fn ended(self) {
        let served = within("the end of the server", self.served).await;
        served.expect("no panic").expect("a good end");
    }
}

/// A raw client of `server` in memory, and the server's task.
async fn raw_client(server: Server) -> (RawPeer<DuplexStream>, JoinHandle<()>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let serving = tokio::spawn(server.serve_connection(far));
    (RawPeer::client(near, &[]).await, serving)
}

async fn hold<IO>(client: &mut RawPeer<IO>, probe: &Probe) -> u32
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let stream = client.call(&Fields::call(HOLD), message(b"x")).await;
    probe.until("a handler", |it| it.running == 1).await;
    stream
}

fn goaway(last_stream: u32, error: u32, text: &str) -> GoAway {
    GoAway {
        last_stream,
        error,
        text: text.to_owned(),
    }
}

/// Clients that would hold a server up for ever, each in its way.
async fn silent_clients(address: &str, probe: &Probe) -> (Vec<TcpStream>, Vec<RawPeer<TcpStream>>) {
    // Has said nothing, half a preface, a preface alone, half a TLS handshake; speaks HTTP/1.1.
    let http1 = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut streams = Vec::new();
    for bytes in [&b""[..], &PREFACE[..10], PREFACE, &[0x16, 3, 1, 2], http1] {
        let mut stream = RawPeer::dial(address).await;
        stream.write_all(bytes).await.expect("a server that reads");
        streams.push(stream);
    }
    // Never answers the PING behind GOAWAY: with no call, with one that was answered, with an idle
    // open stream, with a handler at work.
    let mut peers = Vec::new();
    for _ in 0..4 {
        peers.push(RawPeer::connect(address).await);
    }
    let echoed = peers[1].call(&Fields::call(ECHO), message(b"x")).await;
    assert_eq!(peers[1].outcome(echoed).await, OK);
    let chat = peers[2].next_stream();
    peers[2]
        .write(&[Frame::headers(chat, &Fields::call(CHAT))])
        .await;
    peers[3].call(&Fields::call(HOLD), message(b"x")).await;
    probe.until("two handlers", |it| it.running == 2).await;
    for peer in &mut peers {
        peer.stop_acknowledging();
    }
    (streams, peers)
}

async fn check_drain(server: Server) {
    let (server, probe) = (server, Probe::new());
    let server = server.add_service(probe.clone()).drain_grace(SECOND);
    let mut running = Running::new(server).await;
    let _silent = silent_clients(&running.address, &probe).await;
    let began = Instant::now();
    running.stop();
    running.ended().await;
    let took = began.elapsed();
    assert_punctual("the grace of the calls", took, SECOND);
    assert_eq!(probe.counts().running, 0);
}

#[tokio::test]
async fn no_client_holds_a_drain_beyond_its_grace() {
    check_drain(Server::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_holds_a_drain_on_threads_beyond_its_grace() {
    check_drain(Server::new().threads(2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_served_alone_drains_as_all_do() {
    let (server, probe) = server();
    let (near, far) = tokio::io::duplex(1 << 20);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_connection_until(far, async {
        let _ = stopped.await;
    }));
    let mut client = RawPeer::client(near, &[]).await;
    let stream = hold(&mut client, &probe).await;
    client.stop_acknowledging();
    let began = Instant::now();
    drop(stop);
    client.until("GOAWAY", |it| it.goaway().is_some()).await;
    assert_eq!(client.goaway(), Some(&goaway(ALL_STREAMS, 0, "")));
    within("the end", serving).await.expect("no panic");
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    // RFC 9113, section 6.8: what was taken is named at the end as well.
    client.until_closed().await;
    assert_eq!(client.goaway(), Some(&goaway(stream, 0, "")));
    assert_eq!(probe.counts().running, 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_stream_of_a_client_that_never_answers_holds_a_drain_for_its_grace_alone() {
    // A client that does not read either has room for GOAWAY, or has not.
    for room in [1 << 16, 256] {
        let (server, probe) = server();
        let (near, far) = tokio::io::duplex(room);
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.drain_grace(3 * SECOND).serve_connection_until(
            far,
            async {
                let _ = stopped.await;
            },
        ));
        let mut client = RawPeer::client(near, &[]).await;
        let chat = client.next_stream();
        let head = Frame::headers(chat, &Fields::call(CHAT));
        client.write(&[head]).await;
        probe.until("a handler", |it| it.running == 1).await;
        client.stop_acknowledging();
        // Comes back, and has to be got rid of first.
        client.send(chat, message(&[7; 1000])).await;
        let began = Instant::now();
        drop(stop);
        within("the end", serving).await.expect("no panic");
        assert_eq!(began.elapsed(), 3 * SECOND, "{room}");
        assert_eq!(probe.counts().running, 0);
    }
}

#[tokio::test]
async fn a_call_that_was_under_way_when_the_drain_began_is_served() {
    let (server, _) = server();
    let mut running = Running::new(server).await;
    let mut client = RawPeer::connect(&running.address).await;
    client.stop_acknowledging();
    running.stop();
    client.until("GOAWAY", |it| it.goaway().is_some()).await;
    assert_eq!(client.goaway(), Some(&goaway(ALL_STREAMS, 0, "")));
    let late = client.call(&Fields::call(ECHO), message(b"x")).await;
    assert_eq!(client.outcome(late).await, OK);
    // The client has seen GOAWAY, and says so.
    let ping = client.pings()[0].clone();
    client
        .write(&[Frame::new(6, trunkline_testkit::flag::ACK, 0, ping)])
        .await;
    client.until_closed().await;
    assert_eq!(client.goaway(), Some(&goaway(late, 0, "")));
    drop(client);
    running.ended().await;
}

#[tokio::test]
async fn calls_that_run_finish_and_the_port_is_free_meanwhile() {
    let (first, probe) = server();
    let mut running = Running::new(first).await;
    let address = running.address.clone();
    let client = Client::new(Channel::connect(&address).await.expect("a server"));
    let held = client.unary::<Raw, Raw>(Probe::HOLD, Raw(b"x"[..].into()));
    let held = tokio::spawn(held.into_future());
    probe.until("a handler", |it| it.running == 1).await;
    running.stop();
    // The listener is closed before the clients are told.
    let bound = loop {
        match server().0.bind(&address).await {
            Ok(bound) => break bound,
            Err(status) => assert_eq!(status.code(), Code::UNAVAILABLE),
        }
        tokio::task::yield_now().await;
    };
    let next = Running::on(bound);
    let other = Client::new(Channel::connect(&address).await.expect("the new server"));
    let echo = other.unary::<Raw, Raw>(Probe::ECHO, Raw(b"y"[..].into()));
    assert_eq!(echo.await.expect("the new server").0, "y");
    probe.release(1);
    let held = within("the call", held).await.expect("no panic");
    assert_eq!(held.expect("a response").0, "x");
    running.ended().await;
    drop(next);
}

#[tokio::test]
async fn connections_that_wait_to_be_accepted_at_the_shutdown_are_served() {
    for places in [1_000, 1] {
        let server = server().0.max_connections(places).drain_grace(60 * SECOND);
        let bound = server.bind("127.0.0.1:0").await.expect("a free port");
        let address = bound.local_addr().to_string();
        // The runtime has had no time to see them.
        let streams: Vec<_> = (0..200)
            .map(|_| std::net::TcpStream::connect(&address).expect("a server"))
            .collect();
        let served = tokio::spawn(bound.serve_until(ready(())));
        for stream in streams {
            stream.set_nonblocking(true).expect("a socket");
            let stream = TcpStream::from_std(stream).expect("a socket");
            stream.set_nodelay(true).expect("a socket");
            let mut client = RawPeer::client(stream, &[]).await;
            let stream = client.call(&Fields::call(ECHO), message(b"x")).await;
            assert_eq!(client.outcome(stream).await, OK);
            client.until_closed().await;
        }
        let served = within("the end", served).await;
        served.expect("no panic").expect("a good end");
    }
}

#[tokio::test]
async fn a_connection_that_waits_for_a_place_when_the_drain_begins_is_served() {
    let (server, _) = server();
    let mut running = Running::new(server.max_connections(1)).await;
    let mut inside = RawPeer::connect(&running.address).await;
    let outside = RawPeer::dial(&running.address).await;
    for _ in 0..10 {
        assert!(inside.settle().await);
    }
    running.stop();
    let mut client = RawPeer::client(outside, &[]).await;
    let stream = client.call(&Fields::call(ECHO), message(b"x")).await;
    assert_eq!(client.outcome(stream).await, OK);
    drop((client, inside));
    running.ended().await;
}

#[tokio::test]
async fn clients_of_a_server_that_is_dropped_are_told() {
    for threads in [None, Some(2)] {
        let (mut server, probe) = server();
        if let Some(threads) = threads {
            server = server.threads(threads);
        }
        let running = Running::new(server).await;
        let mut client = RawPeer::connect(&running.address).await;
        let stream = hold(&mut client, &probe).await;
        running.served.abort();
        client.until_closed().await;
        assert_eq!(client.goaway(), Some(&goaway(stream, 0, "")), "{threads:?}");
        probe.until("no handler", |it| it.running == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_clients_of_a_thread_that_is_dropped_are_told() {
    let (server, _) = server();
    let running = Running::new(server.threads(1)).await;
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(RawPeer::connect(&running.address).await);
    }
    running.served.abort();
    for client in &mut clients {
        client.until_closed().await;
        assert_eq!(client.goaway(), Some(&goaway(0, 0, "")));
    }
}

#[tokio::test]
async fn each_signal_that_asks_to_end_is_heard_by_all_who_listen() {
    use rustix::process::{Signal, getpid, kill_process};
    for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
        let (first, second) = (shutdown_signal(), shutdown_signal());
        kill_process(getpid(), signal).expect("a process may signal itself");
        within("the signal", async { tokio::join!(first, second) }).await;
    }
    let (server, _) = server();
    let bound = server.bind("127.0.0.1:0").await.expect("a free port");
    let signal = shutdown_signal();
    kill_process(getpid(), Signal::TERM).expect("a process may signal itself");
    let served = within("the drain", bound.serve_until(signal)).await;
    served.expect("a good end");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_too_old_is_drained_and_its_calls_have_the_grace() {
    let (server, probe) = server();
    let server = server
        .keepalive_time(Duration::MAX)
        .max_connection_age(100 * SECOND)
        .max_connection_age_grace(5 * SECOND);
    let began = Instant::now();
    let (mut client, serving) = raw_client(server).await;
    hold(&mut client, &probe).await;
    tokio::time::sleep(89 * SECOND).await;
    assert!(client.settle().await);
    assert_eq!(client.goaway(), None);
    tokio::time::sleep(21 * SECOND).await;
    client.until("GOAWAY", |it| it.goaway().is_some()).await;
    assert_eq!(client.goaway().map(|it| it.error), Some(error::NO_ERROR));
    within("the end", serving).await.expect("no panic");
    let took = began.elapsed().as_secs();
    assert!((95..=116).contains(&took), "{took} s");
    assert_eq!(probe.counts().running, 0, "the grace is over");
}

#[tokio::test(start_paused = true)]
async fn the_grace_of_a_connection_is_put_off_by_nothing() {
    let (server, _) = server();
    let server = server
        .max_connection_age(100 * SECOND)
        .max_connection_age_grace(20 * SECOND)
        .max_connection_idle(10 * SECOND);
    let (mut client, _serving) = raw_client(server).await;
    // So that calls are taken behind GOAWAY.
    client.stop_acknowledging();
    let began = Instant::now();
    while !client.is_closed() {
        let took = began.elapsed();
        assert!(took < 40 * SECOND, "open after {took:?}");
        client.call(&Fields::call(ECHO), message(b"x")).await;
        let until_closed = async { while client.try_next_request().await.is_some() {} };
        let _ = tokio::time::timeout(11 * SECOND, until_closed).await;
    }
    assert!(began.elapsed() >= 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn connections_that_began_together_grow_old_apart() {
    let mut ends = Vec::new();
    for _ in 0..100 {
        let (server, _) = server();
        let (near, far) = tokio::io::duplex(1 << 16);
        let server = server.max_connection_age(100 * SECOND);
        let serving = tokio::spawn(async move {
            server.serve_connection(far).await;
            Instant::now()
        });
        let mut client = RawPeer::client(near, &[]).await;
        tokio::spawn(async move { client.try_next_request().await });
        ends.push(serving);
    }
    let began = Instant::now();
    let mut ages = Vec::new();
    for end in ends {
        ages.push((end.await.expect("no panic") - began).as_secs());
    }
    assert!(ages.iter().all(|age| (89..=111).contains(age)), "{ages:?}");
    let spread = ages.iter().max().zip(ages.iter().min());
    assert!(spread.is_some_and(|(max, min)| max - min > 5), "{ages:?}");
}

#[tokio::test(start_paused = true)]
async fn only_a_connection_without_calls_is_idle_and_from_its_last_call_on() {
    let (server, probe) = server();
    let (mut client, serving) = raw_client(
        server
            .max_connection_idle(10 * SECOND)
            .keepalive_time(Duration::MAX),
    )
    .await;
    // An open call, for longer than that.
    let held = hold(&mut client, &probe).await;
    tokio::time::sleep(30 * SECOND).await;
    probe.release(1);
    assert_eq!(client.outcome(held).await, OK);
    // Calls that begin and end within a turn.
    for _ in 0..3 {
        tokio::time::sleep(9 * SECOND).await;
        let stream = client.call(&Fields::call(ECHO), message(b"x")).await;
        assert_eq!(client.outcome(stream).await, OK);
    }
    let began = Instant::now();
    client.until("GOAWAY", |it| it.goaway().is_some()).await;
    assert_eq!(began.elapsed(), 10 * SECOND);
    assert_eq!(client.goaway().map(|it| it.error), Some(error::NO_ERROR));
    client.until_closed().await;
    drop(client);
    within("the end", serving).await.expect("no panic");
}

#[tokio::test]
async fn at_the_limit_of_connections_the_next_is_served_when_one_ends() {
    for threads in [None, Some(2)] {
        let (mut server, probe) = server();
        if let Some(threads) = threads {
            server = server.threads(threads);
        }
        let mut running = Running::new(server.max_connections(2)).await;
        let mut inside = Vec::new();
        for _ in 0..2 {
            inside.push(RawPeer::connect(&running.address).await);
        }
        let outside = RawPeer::dial(&running.address).await;
        let mut outside = std::pin::pin!(RawPeer::client(outside, &[]));
        // Those inside are served while it waits.
        for client in &mut inside {
            for _ in 0..10 {
                let call = client.call(&Fields::call(ECHO), message(b"x")).await;
                assert_eq!(client.outcome(call).await, OK);
                let waits = tokio::time::timeout(Duration::ZERO, outside.as_mut()).await;
                assert!(waits.is_err(), "a third connection is served");
            }
        }
        inside.pop();
        let mut client = within("a place", outside).await;
        let call = client.call(&Fields::call(ECHO), message(b"x")).await;
        assert_eq!(client.outcome(call).await, OK);
        assert_eq!(probe.counts().called, 21);
        running.stop();
        drop((client, inside));
        running.ended().await;
    }
}

/// What the server says to `chunks`, each sent when the one before has been taken.
async fn says_to(chunks: &[&[u8]]) -> Vec<u8> {
    let (server, _) = server();
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(server.serve_connection(far));
    for chunk in chunks {
        near.write_all(chunk).await.expect("a server that reads");
        tokio::task::yield_now().await;
    }
    let mut said = Vec::new();
    within("the end", near.read_to_end(&mut said))
        .await
        .expect("bytes");
    drop(near);
    within("the end of the server", serving)
        .await
        .expect("no panic");
    said
}

#[tokio::test]
async fn a_request_of_http_1_is_told_what_is_spoken_here() {
    let with_body = format!(
        "POST /x HTTP/1.1\r\nContent-Length: 9999\r\n\r\n{:9999}",
        ""
    );
    for chunks in [
        &[&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..]][..],
        &[b"G", b"E", b"T / HTTP/1.1\r\n\r\n"],
        &[with_body.as_bytes()],
        &[b"PATCH / HTTP/1.0\r\n\r\n"],
    ] {
        let said = String::from_utf8(says_to(chunks).await).expect("text and nothing before it");
        let (head, body) = said.split_once("\r\n\r\n").expect("a head");
        let mut lines = head.lines();
        assert_eq!(lines.next(), Some("HTTP/1.1 426 Upgrade Required"));
        let fields: Vec<_> = lines.collect();
        for field in [
            "Upgrade: HTTP/2.0".to_owned(),
            "Connection: Upgrade, close".to_owned(),
            format!("Content-Length: {}", body.len()),
        ] {
            assert!(fields.contains(&field.as_str()), "{field}: {fields:?}");
        }
        assert!(body.contains("gRPC") && body.contains("grpcurl"), "{body}");
    }
}

#[tokio::test]
async fn other_protocols_are_closed_without_a_word() {
    for bytes in [&b"SSH-2.0-x\r\n"[..], &[0; 30]] {
        assert_eq!(says_to(&[bytes]).await, b"", "{bytes:?}");
    }
}

#[tokio::test]
async fn a_client_of_tls_is_answered_with_what_is_no_tls() {
    // RFC 8446, section 5.1: a handshake record, of which more is still to come.
    for bytes in [&[0x16, 3, 1, 2, 0, 1][..], &[0x16, 3, 3, 0, 1, 1]] {
        let said = says_to(&[bytes]).await;
        assert!(said.starts_with(b"HTTP/1.1 426 "), "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_1_that_stays_is_closed_in_time() {
    let (server, _) = server();
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let began = Instant::now();
    let serving = tokio::spawn(server.serve_connection(far));
    near.write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("a server that reads");
    serving.await.expect("no panic");
    assert_eq!(began.elapsed(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_server_says_nothing_before_it_has_heard_what_the_client_speaks() {
    let (server, _) = server();
    let (mut near, far) = tokio::io::duplex(1 << 16);
    tokio::spawn(server.serve_connection(far));
    let said = tokio::time::timeout(SECOND, near.read_u8()).await;
    assert!(said.is_err(), "{said:?}");
    near.write_all(&PREFACE[..3])
        .await
        .expect("a server that reads");
    let mut header = [0; 9];
    within("SETTINGS", near.read_exact(&mut header))
        .await
        .expect("a frame");
    assert_eq!(header[3], trunkline_testkit::kind::SETTINGS);
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_that_says_what_to_do() {
    let (first, _) = server();
    let bound = first.bind("127.0.0.1:0").await.expect("a free port");
    assert!(matches!(bound.local_addr(), Address::Tcp(_)));
    let address = bound.local_addr().to_string();
    let _serving = tokio::spawn(bound.serve_until(pending()));
    let status = server().0.bind(&address).await.expect_err("taken");
    assert_eq!(status.code(), Code::UNAVAILABLE);
    let (cause, way_out) = (format!("cannot listen on {address}"), "choose another port");
    assert!(status.message().starts_with(&cause), "{status}");
    assert!(status.message().contains(way_out), "{status}");
}

#[tokio::test]
async fn a_server_stops_although_a_client_has_not_shaken_hands() {
    const GRACE: Duration = Duration::from_millis(200);
    let (server, _) = server();
    let mut running = Running::new(server.drain_grace(GRACE)).await;
    let mut silent = TcpStream::connect(&running.address)
        .await
        .expect("a server");
    // It has been accepted, and not only queued.
    tokio::time::sleep(GRACE).await;
    let began = Instant::now();
    running.stop();
    running.ended().await;
    assert_not_late("the end", began.elapsed(), GRACE);
    let _ = silent.read(&mut [0; 100]).await;
}
