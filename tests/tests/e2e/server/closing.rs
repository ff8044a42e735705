//! A connection that closes in good order loses nothing of what was said on it, however slow the way to
//! its peer is.

#![cfg(unix)]

use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use trunkline::limits::{ChannelLimits, Http2Limits};
use trunkline::tls::{ClientTls, ServerTls};
use trunkline::{Channel, Client, Raw, Server};
use trunkline_testkit::{
    Authority, End, Fields, Frame, Outcome, Probe, RawListener, RawPeer, SlowLink, Slowness, error,
    message, within,
};
use trunkline_tests::peers::{Peer, run_client_with};
use trunkline_tests::test_service;
use trunkline_tests::testing::{ResponseParameters, StreamingOutputCallRequest, TestServiceClient};

/// What every peer asks for: 4 MB, which take 2 s over the first of the links below.
const MESSAGES: usize = 8_000;
const MESSAGE_SIZE: i32 = 500;

/// How much clients take ahead of what they read, unless they estimate it. They say so, on and on, as they
/// read.
const WINDOW: u32 = 1 << 20;

const LINKS: [(&str, Slowness); 2] = [
    (
        "2 MB/s",
        Slowness {
            bytes_per_second: 2_000_000,
            delay: Duration::ZERO,
        },
    ),
    (
        "100 ms",
        Slowness {
            bytes_per_second: 2_000_000,
            delay: Duration::from_millis(100),
        },
    ),
];

/// Why the server closes the connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cause {
    Drain,
    Age,
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
enum Caller {
    Ours,
    Foreign(Peer),
}

/// A server behind a slow link.
struct Far {
    link: SlowLink,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<trunkline::Result<()>>,
}

async fn far(server: Server, slowness: Slowness) -> Far {
    let bound = server.bind("127.0.0.1:0").await.expect("a free port");
    let link = SlowLink::to(&bound.local_addr().to_string(), slowness).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(bound.serve_until(async move {
        let _ = stopped.await;
    }));
    Far {
        link,
        stop,
        serving,
    }
}

async fn our_long_stream(target: String, tls: Option<ClientTls>) {
    let mut limits = ChannelLimits::default();
    limits.http2.initial_window_size = WINDOW;
    let channel = Channel::to(&target).with_limits(|it| *it = limits);
    let channel = match tls {
        None => channel,
        Some(tls) => channel.tls(tls),
    };
    let client = TestServiceClient::new(channel.connect().await.expect("a server"));
    let one = ResponseParameters {
        size: MESSAGE_SIZE,
        ..Default::default()
    };
    let request = StreamingOutputCallRequest {
        response_parameters: vec![one; MESSAGES],
        ..Default::default()
    };
    let mut responses = client.streaming_output_call(request).await.expect("a head");
    let mut arrived = 0;
    loop {
        match responses.message().await {
            Ok(Some(_)) => arrived += 1,
            Ok(None) => break,
            Err(status) => panic!("{arrived} of {MESSAGES} messages: {status}"),
        }
    }
    assert_eq!(arrived, MESSAGES);
}

/// The file of an authority, removed with the test.
struct AuthorityFile(PathBuf);

impl Drop for AuthorityFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl AuthorityFile {
    fn new(name: &str, authority: &Authority) -> Self {
        let name = format!("trunkline-closing-{name}-{}.pem", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, authority.pem()).expect("a file");
        Self(path)
    }
}

async fn call(caller: Caller, port: u16, authority: Option<&Authority>) {
    match caller {
        Caller::Ours => {
            let tls = authority.map(|it| ClientTls::new().ca_pem(it.pem()));
            our_long_stream(format!("127.0.0.1:{port}"), tls).await;
        }
        Caller::Foreign(peer) => {
            let file = authority.map(|it| AuthorityFile::new(&port.to_string(), it));
            let mut flags = Vec::new();
            if let Some(AuthorityFile(path)) = &file {
                flags.extend(["--ca".to_owned(), path.display().to_string()]);
            }
            if peer == Peer::PythonClient {
                flags.extend(["--lookahead".to_owned(), WINDOW.to_string()]);
            }
            let run = move || run_client_with(peer, port, &["long_stream"], &flags);
            tokio::task::spawn_blocking(run).await.expect("all arrives");
        }
    }
}

/// Has `caller` read a long stream whose server closes the connection meanwhile.
async fn all_arrives(caller: Caller, cause: Cause, is_secure: bool) {
    for (name, slowness) in LINKS {
        let authority = is_secure.then(Authority::new);
        let mut server = test_service::server();
        if let Some(authority) = &authority {
            let identity = authority.issue(&["127.0.0.1"]);
            let tls = ServerTls::from_pem(&identity.certificate, &identity.key);
            server = server.tls(tls.expect("an identity"));
        }
        if cause == Cause::Age {
            server = server.max_connection_age(Duration::from_millis(500));
        }
        let Far {
            link,
            stop,
            serving,
        } = far(server, slowness).await;
        let calling = call(caller, link.address().port(), authority.as_ref());
        let closing = async {
            if cause == Cause::Age {
                return (stop, serving, Instant::now());
            }
            // A tenth has arrived, and the rest is on its way.
            while link.bytes_to_client() < MESSAGES * MESSAGE_SIZE as usize / 10 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let began = Instant::now();
            let (unused, _) = oneshot::channel();
            stop.send(()).expect("it serves");
            (unused, serving, began)
        };
        let (_, (_stop, serving, began)) = tokio::join!(calling, closing);
        assert_eq!(link.ended_first(), Some(End::Server), "{name}");
        if cause == Cause::Drain {
            let served = within("the drain", serving).await;
            served.expect("no panic").expect("a good end");
        }
        println!(
            "{caller:?}, {cause:?}, {name}, TLS {is_secure}: {:?}",
            began.elapsed()
        );
    }
}

macro_rules! all_arrives {
    ($(fn $name:ident() = $caller:expr, $cause:ident, $is_secure:literal;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            all_arrives($caller, Cause::$cause, $is_secure).await;
        })*
    };
}

all_arrives! {
    fn our_client_loses_nothing_when_the_server_drains() = Caller::Ours, Drain, false;
    fn our_client_loses_nothing_when_the_server_drains_over_tls() = Caller::Ours, Drain, true;
    fn our_client_loses_nothing_when_its_connection_is_too_old() = Caller::Ours, Age, false;
    fn our_client_loses_nothing_when_its_connection_is_too_old_over_tls() = Caller::Ours, Age, true;
    fn grpcio_loses_nothing_when_the_server_drains() = Caller::Foreign(Peer::PythonClient), Drain, false;
    fn grpcio_loses_nothing_when_the_server_drains_over_tls() = Caller::Foreign(Peer::PythonClient), Drain, true;
    fn grpcio_loses_nothing_when_its_connection_is_too_old() = Caller::Foreign(Peer::PythonClient), Age, false;
    fn grpcio_loses_nothing_when_its_connection_is_too_old_over_tls() = Caller::Foreign(Peer::PythonClient), Age, true;
    fn grpc_go_loses_nothing_when_the_server_drains() = Caller::Foreign(Peer::GoClient), Drain, false;
    fn grpc_go_loses_nothing_when_the_server_drains_over_tls() = Caller::Foreign(Peer::GoClient), Drain, true;
    fn grpc_go_loses_nothing_when_its_connection_is_too_old() = Caller::Foreign(Peer::GoClient), Age, false;
    fn grpc_go_loses_nothing_when_its_connection_is_too_old_over_tls() = Caller::Foreign(Peer::GoClient), Age, true;
}

#[tokio::test]
async fn the_last_bytes_of_a_request_arrive_when_the_client_closes_its_connection() {
    const SIZE: usize = 60_000;
    let listener = RawListener::bind().await;
    let slowness = Slowness {
        bytes_per_second: 100_000,
        delay: Duration::ZERO,
    };
    let link = SlowLink::to(&listener.address(), slowness).await;
    let target = link.address().to_string();
    let calling = tokio::spawn(async move {
        let client = Client::new(Channel::connect(&target).await.expect("a server"));
        let request = Raw(vec![7; SIZE].into());
        client.unary::<Raw, Raw>(Probe::ECHO, request).await
    });
    let mut server = listener.accept().await;
    let stream = server.next_request().await;
    // An answer that does not wait for the request: the call is over, and the channel is gone.
    let response = [
        Frame::headers(stream, &Fields::response()),
        Frame::data(stream, message(b"early")),
        Frame::headers(stream, &Fields::trailers("0")).ending(),
    ];
    server.write(&response).await;
    let response = within("the response", calling).await.expect("no panic");
    assert_eq!(response.expect("a response").0, "early");
    // The server reads, and says so.
    while !server.is_closed() {
        server.write(&[Frame::window_update(0, 1)]).await;
        let reading = async { while server.try_next_request().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_millis(10), reading).await;
    }
    let received = server.stream(stream);
    assert_eq!(received.data.len(), 5 + SIZE);
    assert!(received.is_ended, "the end of the request is lost");
}

/// A server in memory, and a client that has asked it to close: it has, and the client has not.
async fn closed_by_one_end(server: Server) -> (RawPeer<DuplexStream>, JoinHandle<()>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(server.add_service(Probe::new()).serve_connection(far));
    let mut client = RawPeer::client(near, &[]).await;
    let call = client
        .call(&Fields::call(Probe::ECHO.path()), message(b"x"))
        .await;
    assert_eq!(client.outcome(call).await, Outcome::Answered(200, 0));
    client.write(&[Frame::goaway(0, error::NO_ERROR, "")]).await;
    client.until_closed().await;
    (client, serving)
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_close_is_waited_for_no_longer_than_the_limit_says() {
    let limits = Http2Limits::for_server();
    // It reads on, and says so.
    let (mut client, serving) = closed_by_one_end(Server::new()).await;
    let began = Instant::now();
    let reading = async {
        loop {
            client.write(&[Frame::window_update(0, 1)]).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        served = serving => served.expect("no panic"),
        () = reading => {}
    }
    assert_eq!(began.elapsed(), limits.linger_time);

    // It says nothing: the stream may not be able to tell it anything.
    let (_client, serving) = closed_by_one_end(Server::new()).await;
    let began = Instant::now();
    serving.await.expect("no panic");
    assert_eq!(began.elapsed(), limits.custom_io_linger_time);

    let (client, serving) = closed_by_one_end(Server::new()).await;
    let began = Instant::now();
    drop(client);
    serving.await.expect("no panic");
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_socket_of_the_servers_own_waits_also_for_a_peer_that_says_nothing() {
    let linger = Duration::from_millis(300);
    let server = Server::new()
        .add_service(Probe::new())
        .with_limits(|limits| {
            limits.http2.linger_time = linger;
            limits.http2.custom_io_linger_time = Duration::ZERO;
            limits.drain_grace = Duration::from_secs(60);
        });
    let bound = server.bind("127.0.0.1:0").await.expect("a free port");
    let address = bound.local_addr().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(bound.serve_until(async {
        let _ = stopped.await;
    }));
    let mut client = RawPeer::connect(&address).await;
    let call = client
        .call(&Fields::call(Probe::ECHO.path()), message(b"x"))
        .await;
    assert_eq!(client.outcome(call).await, Outcome::Answered(200, 0));
    drop(stop);
    client.until_closed().await;
    let began = Instant::now();
    let served = within("the end of the server", serving).await;
    served.expect("no panic").expect("a good end");
    assert!(began.elapsed() >= linger / 2, "{:?}", began.elapsed());
}

/// A byte stream that cannot say that nothing more comes, such as the pipes of a child process.
struct NoShutdown(DuplexStream);

impl AsyncRead for NoShutdown {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for NoShutdown {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_cannot_half_close_do_not_hold_the_ends_for_long() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let server = Server::new().add_service(Probe::new());
    let serving = tokio::spawn(server.serve_connection(NoShutdown(far)));
    let near = std::sync::Mutex::new(Some(NoShutdown(near)));
    let channel = Channel::to("127.0.0.1:1").connector(move |_| {
        let near = near.lock().expect("no panic").take();
        async move { near.ok_or_else(|| std::io::ErrorKind::NotConnected.into()) }
    });
    let client = Client::new(channel.connect().await.expect("a server"));
    let request = Raw(b"x"[..].into());
    let response = client.unary::<Raw, Raw>(Probe::ECHO, request).await;
    assert_eq!(response.expect("a response").0, "x");
    let began = Instant::now();
    drop(client);
    serving.await.expect("no panic");
    assert!(began.elapsed() <= Http2Limits::for_server().custom_io_linger_time);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_for_ever_is_read_no_further_than_the_limit_says() {
    let mut limits = Http2Limits::for_server();
    limits.initial_connection_window_size = 1 << 20;
    let server = Server::new().with_limits(|it| it.http2.clone_from(&limits));
    let (mut client, serving) = closed_by_one_end(server).await;
    let began = Instant::now();
    let mut sent = 0;
    let frame = Frame::ping(7);
    let pings = vec![frame; 1_000];
    while !serving.is_finished() {
        client.write(&pings).await;
        sent += 17 * pings.len();
        tokio::task::yield_now().await;
    }
    assert!(sent >= limits.linger_size(), "{sent}");
    assert!(sent <= limits.linger_size() + (1 << 18), "{sent}");
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_close_is_waited_for_no_longer_than_the_grace() {
    let grace = Duration::from_millis(500);
    let (near, far) = tokio::io::duplex(1 << 16);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::new().add_service(Probe::new()).drain_grace(grace);
    let serving = tokio::spawn(server.serve_connection_until(far, async {
        let _ = stopped.await;
    }));
    let mut client = RawPeer::client(near, &[]).await;
    let began = Instant::now();
    drop(stop);
    client.until_closed().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    serving.await.expect("no panic");
    assert_eq!(began.elapsed(), grace);

    let server = Server::new()
        .add_service(Probe::new())
        .max_connection_age(Duration::from_secs(1))
        .max_connection_age_grace(grace);
    let (near, far) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(server.serve_connection(far));
    let mut client = RawPeer::client(near, &[]).await;
    client.until_closed().await;
    let began = Instant::now();
    serving.await.expect("no panic");
    assert_eq!(began.elapsed(), grace);
}
