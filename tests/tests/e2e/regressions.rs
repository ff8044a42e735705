//! What once went wrong: each test failed before its mend.

use std::future::{IntoFuture, pending};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, sleep, timeout};
use trunkline::limits::ChannelLimits;
use trunkline::server::Listener;
use trunkline::server::Methods;
use trunkline::{Channel, Client, Code, Method, Next, Raw, Request, Sender, Server, Status};
use trunkline_testkit::{Fields, Frame, Outcome, RawListener, RawPeer, channel_over, error};
use trunkline_tests::fixture::{
    Echo, SERVER, UNARY, With, client_of, client_with, nothing, raw, serve, within,
};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_call_ends_at_its_deadline_whatever_an_interceptor_waits_for() {
    let address = serve(Server::new().add_service(Echo)).await;
    let channel = within("connecting", Channel::connect(&address))
        .await
        .unwrap();
    let before = channel
        .clone()
        .intercept(|mut cx: trunkline::Context, next: Next| async move {
            pending::<()>().await;
            next.run(&mut cx).await
        });
    let after = channel.intercept(|mut cx: trunkline::Context, next: Next| async move {
        next.run(&mut cx).await?;
        pending().await
    });
    for (name, channel) in [("before", before), ("after", after)] {
        let call = Client::new(channel)
            .unary::<Raw, Raw>(UNARY, raw("x"))
            .timeout(SHORT);
        let ended = timeout(LONG, call.into_future()).await;
        let status = ended
            .unwrap_or_else(|_| panic!("{name}: no end"))
            .unwrap_err();
        assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{name}: {status}");
    }
}

/// A server that accepts and says nothing.
async fn silent() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            held.push(socket);
        }
    });
    (address, task)
}

#[tokio::test]
async fn calls_that_wait_for_a_connection_share_one_attempt_when_it_fails() {
    let (address, _server) = silent().await;
    let channel = Channel::to(&address)
        .connect_timeout(SHORT)
        .connect_lazy()
        .unwrap();
    let client = Client::new(channel);
    let begun = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10 {
        calls.spawn(client.unary::<Raw, Raw>(UNARY, raw("x")).into_future());
    }
    while let Some(ended) = within("a call", calls.join_next()).await {
        assert_eq!(ended.unwrap().unwrap_err().code(), Code::UNAVAILABLE);
    }
    assert!(begun.elapsed() < SHORT * 3, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn calls_with_deadlines_shorter_than_connecting_connect_in_the_end() {
    let far = serve(Server::new().add_service(Echo)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let far = far.clone();
            tokio::spawn(async move {
                sleep(SHORT).await;
                let mut far = TcpStream::connect(far).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let client = Client::new(Channel::to(&address).connect_lazy().unwrap());
    for _ in 0..20 {
        let call = client.unary::<Raw, Raw>(UNARY, raw("x")).timeout(SHORT / 2);
        if call.await.is_ok() {
            return;
        }
    }
    panic!("none of 20 calls got through");
}

/// A socket with a buffer of its own: what is written leaves when it is flushed, in its time.
struct Buffered {
    io: tokio::io::DuplexStream,
    buffer: Vec<u8>,
}

impl AsyncRead for Buffered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.buffer.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        while !this.buffer.is_empty() {
            let n = ready!(Pin::new(&mut this.io).poll_write(cx, &this.buffer))?;
            this.buffer.drain(..n);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_connection_that_buffers_is_flushed_to_the_end() {
    let (near, far) = tokio::io::duplex(1024);
    let (near, far) = (
        Buffered {
            io: near,
            buffer: Vec::new(),
        },
        Buffered {
            io: far,
            buffer: Vec::new(),
        },
    );
    tokio::spawn(Server::new().add_service(Echo).serve_connection(far));
    let channel = within("connecting", channel_over(near, ChannelLimits::default()))
        .await
        .unwrap();
    let client = Client::new(channel);
    for _ in 0..10 {
        let call = client.unary::<Raw, Raw>(UNARY, raw(vec![1; 50_000]));
        let response = timeout(LONG, call.into_future())
            .await
            .expect("a response")
            .unwrap();
        assert_eq!(response.0.len(), 50_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_that_idle_streams_have_read_comes_back() {
    let service = With(|methods: &mut Methods| {
        methods.server_streaming(
            SERVER,
            &nothing(),
            |_, _request: Request<Raw>, mut responses: Sender<Raw>| async move {
                responses.send(raw(vec![1; 30 << 10])).await?;
                pending().await
            },
        );
        methods.unary(UNARY, &nothing(), |_, _: Request<Raw>| async {
            Ok(raw(vec![1; 1 << 20]))
        });
    });
    let address = serve(
        Server::new()
            .add_service(service)
            .max_concurrent_streams(2000),
    )
    .await;
    let client = client_with(Channel::to(&address).max_connections(1)).await;
    let mut streams = Vec::new();
    for i in 0..700 {
        let mut stream = client
            .server_streaming::<Raw, Raw>(SERVER, raw(""))
            .await
            .unwrap();
        let message = timeout(LONG, stream.message()).await;
        let message = message.unwrap_or_else(|_| panic!("stream {i} starves"));
        assert_eq!(message.unwrap().unwrap().0.len(), 30 << 10);
        streams.push(stream);
    }
    let call = client.unary::<Raw, Raw>(UNARY, raw(""));
    timeout(LONG, call.into_future())
        .await
        .expect("a response")
        .unwrap();
}

#[tokio::test]
async fn a_handler_that_uses_up_its_budget_ends_at_its_deadline() {
    struct Guard(tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (dropped, mut was_dropped) = unbounded_channel();
    let service = With(move |methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), move |_, _: Request<Raw>| {
            let guard = Guard(dropped.clone());
            async move {
                let _guard = guard;
                loop {
                    tokio::task::consume_budget().await;
                }
                #[expect(unreachable_code, reason = "names the type")]
                Ok(raw(""))
            }
        });
    });
    let address = serve(Server::new().add_service(service)).await;
    let mut peer = RawPeer::connect(&address).await;
    let head = Fields::call("/test.Fixture/Unary").and("grpc-timeout", "200m");
    peer.call(&head, vec![0; 5]).await;
    timeout(LONG, was_dropped.recv())
        .await
        .expect("the handler is dropped");
}

#[tokio::test]
async fn a_server_stops_although_a_client_has_not_shaken_hands() {
    let server = Server::new().add_service(Echo).with_limits(|limits| {
        limits.drain_grace = SHORT;
    });
    let bound = server.bind("127.0.0.1:0").await.unwrap();
    let address = bound.local_addr().to_string();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(bound.serve_until(async { stopped.await.unwrap() }));
    let mut silent = TcpStream::connect(&address).await.unwrap();
    sleep(SHORT).await;
    stop.send(()).unwrap();
    let ended = timeout(SHORT + Duration::from_secs(1), serving).await;
    assert!(ended.is_ok(), "not within grace + 1 s");
    let _ = silent.read(&mut [0; 100]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_task_of_the_handler_sends_arrives() {
    let service = With(|methods: &mut Methods| {
        methods.server_streaming(
            SERVER,
            &nothing(),
            |_, _: Request<Raw>, mut responses: Sender<Raw>| async move {
                let task = tokio::spawn(async move {
                    for _ in 0..10 {
                        sleep(Duration::from_millis(10)).await;
                        responses.send(raw(vec![1; 10_000])).await?;
                    }
                    Ok::<_, Status>(())
                });
                task.await.unwrap()
            },
        );
    });
    let client = client_of(&serve(Server::new().add_service(service)).await).await;
    let mut stream = client
        .server_streaming::<Raw, Raw>(SERVER, raw(""))
        .await
        .unwrap();
    for i in 0..10 {
        let message = timeout(LONG, stream.message()).await;
        assert!(
            message
                .unwrap_or_else(|_| panic!("message {i} stuck"))
                .unwrap()
                .is_some()
        );
    }
}

#[tokio::test]
async fn a_socket_whose_server_is_busy_is_not_taken_over() {
    let path = std::env::temp_dir().join(format!("trunkline-review-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let busy = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = timeout(SHORT, tokio::net::UnixStream::connect(&path)).await {
        waiting.push(stream);
        if waiting.len() > 10_000 {
            break;
        }
    }
    println!("{} wait", waiting.len());
    let second = Listener::bind(&format!("unix:{}", path.display())).await;
    assert!(second.is_err(), "taken from a server that runs");
    drop(busy);
    let _ = std::fs::remove_file(&path);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_a_stream_that_always_has_more() {
    let listener = RawListener::bind().await;
    let address = listener.address();
    tokio::spawn(async move {
        let mut peer = listener.accept().await;
        let stream = peer.next_request().await;
        peer.write(&[Frame::headers(stream, &Fields::response())])
            .await;
        loop {
            let message: Bytes = [0, 0, 0, 0, 100].into_iter().chain([7; 100]).collect();
            peer.send(stream, message.repeat(10).into()).await;
            if peer.stream(stream).reset.is_some() {
                return;
            }
        }
    });
    let client = client_with(Channel::to(&address)).await;
    let call = client
        .server_streaming::<Raw, Raw>(SERVER, raw(""))
        .timeout(SHORT);
    let mut stream = call.await.unwrap();
    let begun = Instant::now();
    let status = loop {
        match stream.message().await {
            Ok(Some(_)) => std::thread::sleep(Duration::from_micros(200)),
            Ok(None) => panic!("a good end"),
            Err(status) => break status,
        }
        assert!(begun.elapsed() < SHORT + LONG, "still messages");
    };
    println!("ended after {:?}", begun.elapsed());
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_call_that_waits_for_a_permit_ends_at_its_deadline() {
    let (started, mut has_started) = unbounded_channel();
    let service = With(move |methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), move |_, _: Request<Raw>| {
            let started = started.clone();
            async move {
                tokio::task::yield_now().await;
                started.send(()).unwrap();
                // In place: the task of the connection may be next on this thread.
                tokio::task::block_in_place(|| std::thread::sleep(SHORT * 3));
                Ok(raw(""))
            }
        });
    });
    let address = serve(Server::new().add_service(service).max_concurrent_streams(1)).await;
    let mut peer = RawPeer::connect(&address).await;
    let first = Fields::call("/test.Fixture/Unary");
    let first = peer.call(&first, vec![0; 5]).await;
    within("the first", has_started.recv()).await;
    // The stream is gone, and its handler, which blocks a thread, is not.
    peer.write(&[Frame::rst_stream(first, error::CANCEL)]).await;
    let second = Fields::call("/test.Fixture/Unary").and("grpc-timeout", "200m");
    let second = peer.call(&second, vec![0; 5]).await;
    let code = i32::from(Code::DEADLINE_EXCEEDED);
    assert_eq!(peer.outcome(second).await, Outcome::Answered(200, code));
    assert!(has_started.try_recv().is_err(), "a handler began");
}

/// A server may answer a head before it has the message, and end the stream. The caller's threads
/// and the connection's race here, so it takes many calls to meet it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_that_comes_before_the_message_has_left_is_the_answer() {
    const UNKNOWN: Method = Method::new("/test.Fixture/Unknown");
    let address = serve(Server::new().add_service(Echo)).await;
    let channel = within("connecting", Channel::connect(&address))
        .await
        .unwrap();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let client = Client::new(channel.clone());
            tokio::spawn(async move {
                for _ in 0..500 {
                    let call = client.unary::<Raw, Raw>(UNKNOWN, raw("x"));
                    let status = call.await.unwrap_err();
                    assert_eq!(status.code(), Code::UNIMPLEMENTED, "{status}");
                }
            })
        })
        .collect();
    for caller in callers {
        within("the callers", caller).await.unwrap();
    }
}
