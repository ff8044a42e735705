//! The end of a call: what a caller learns when nobody listens any more, and that neither sending nor
//! receiving keeps a thread to itself.

use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tower_service::Service as TowerService;
use trunkline::limits::{ChannelLimits, Http2Limits};
use trunkline::server::Methods;
use trunkline::tower::Body;
use trunkline::{
    Channel, Client, Code, Method, Raw, Request, Result, Sender, Server, Service, Status, Streaming,
};
use trunkline_testkit::{Fields, Frame, RawPeer, channel_over, error, message};
use trunkline_tests::fixture::{
    self, BIDI, CLIENT, Echo, SERVER, With, both_ways, client_of, nothing, raw, serve, within,
};

/// A client of ours, and a raw peer that plays its server.
async fn raw_server() -> (Client, RawPeer<DuplexStream>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (channel, peer) = tokio::join!(
        channel_over(near, ChannelLimits::default()),
        RawPeer::server(far, &[])
    );
    (Client::new(channel.expect("the peer speaks HTTP/2")), peer)
}

/// Answers before the first request is read, and does not read the others.
fn answering_early() -> impl Service {
    With(|methods: &mut Methods| {
        methods.client_streaming(
            CLIENT,
            &nothing(),
            |_, request: Request<Streaming<Raw>>| async move {
                request.response().metadata("x-head", "early")?;
                match request.metadata().contains_key("x-fails") {
                    true => Err(Status::aborted("enough")),
                    false => Ok(raw("enough")),
                }
            },
        );
        methods.bidi_streaming(
            BIDI,
            &nothing(),
            |_, _: Request<Streaming<Raw>>, _: Sender<Raw>| async move { Ok(()) },
        );
    })
}

/// A stream without an end, which is ready at once.
struct Endless;

impl Stream for Endless {
    type Item = Raw;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Raw>> {
        Poll::Ready(Some(raw("x")))
    }
}

#[tokio::test]
async fn sending_fails_once_the_server_has_answered_and_finish_has_the_response() {
    for (way, client) in both_ways(answering_early).await {
        let mut call = client.client_streaming::<Raw, Raw>(CLIENT).await.unwrap();
        let status = within(way, call.send_all(Endless)).await.unwrap_err();
        assert_eq!(status.code(), Code::CANCELLED, "{way}: {status}");
        for what in ["already responded", "finish"] {
            assert!(status.message().contains(what), "{way}: {status}");
        }
        let again = within(way, call.send(raw("x"))).await.unwrap_err();
        assert_eq!(again.code(), Code::CANCELLED, "{way}");
        let response = within(way, call.finish()).await.unwrap();
        assert_eq!(*response, raw("enough"), "{way}");

        let call = client.client_streaming::<Raw, Raw>(CLIENT);
        let mut call = call.metadata("x-fails", "yes").await.unwrap();
        let status = within(way, call.send_all(Endless)).await.unwrap_err();
        assert_eq!(status.to_string(), "ABORTED: enough", "{way}");
        let status = within(way, call.finish()).await.unwrap_err();
        assert_eq!(status.to_string(), "ABORTED: enough", "{way}");

        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        let (sent, end) =
            tokio::join!(within(way, tx.send_all(Endless)), within(way, rx.message()));
        assert_eq!(sent.unwrap_err().code(), Code::CANCELLED, "{way}");
        assert_eq!(end.unwrap(), None, "{way}");
    }
}

/// A stream that waits for its first item for ever.
struct Silent;

impl Stream for Silent {
    type Item = Raw;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Raw>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn sending_a_stream_ends_with_the_call_also_while_the_next_message_is_waited_for() {
    for (way, client) in both_ways(answering_early).await {
        let mut call = client.client_streaming::<Raw, Raw>(CLIENT).await.unwrap();
        let status = within(way, call.send_all(Silent)).await.unwrap_err();
        assert_eq!(status.code(), Code::CANCELLED, "{way}: {status}");
        assert_eq!(*within(way, call.finish()).await.unwrap(), raw("enough"));

        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        let (sent, end) = tokio::join!(within(way, tx.send_all(Silent)), within(way, rx.message()));
        assert_eq!(sent.unwrap_err().code(), Code::CANCELLED, "{way}");
        assert_eq!(end.unwrap(), None, "{way}");
    }
}

#[tokio::test]
async fn sending_fails_after_a_response_that_no_reset_follows() {
    let (client, mut peer) = raw_server().await;
    let answering = tokio::spawn(async move {
        for data in [Some(message(b"enough")), None] {
            let stream = peer.next_request().await;
            let head = Frame::headers(stream, &Fields::response());
            let data = data.map(|data| Frame::data(stream, data));
            let end = Frame::headers(stream, &Fields::trailers("0")).ending();
            let frames: Vec<_> = [Some(head), data, Some(end)]
                .into_iter()
                .flatten()
                .collect();
            peer.write(&frames).await;
            peer.until_end(stream).await;
            assert_eq!(peer.stream(stream).reset, Some(error::NO_ERROR));
        }
    });
    let mut call = client.client_streaming::<Raw, Raw>(CLIENT).await.unwrap();
    let status = within("sending", call.send_all(Endless)).await.unwrap_err();
    assert_eq!(status.code(), Code::CANCELLED, "{status}");
    let response = within("the response", call.finish()).await.unwrap();
    assert_eq!(*response, raw("enough"));

    let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
    // The reader has the head, and does not ask for the end.
    within("the head", rx.head()).await.unwrap();
    let status = within("sending", tx.send_all(Endless)).await.unwrap_err();
    assert_eq!(status.code(), Code::CANCELLED, "{status}");
    within("the peer", answering).await.unwrap();
}

/// With these limits a sender never has to wait.
fn make_roomy(limits: &mut Http2Limits) {
    limits.pipe_size = usize::MAX;
    limits.gather_size = usize::MAX;
}

/// Another task of this thread, which runs as soon as it is let.
struct Other(Arc<AtomicBool>);

impl Other {
    fn new() -> Self {
        let has_run = Arc::new(AtomicBool::new(false));
        let other = has_run.clone();
        tokio::spawn(async move { other.store(true, Ordering::SeqCst) });
        Self(has_run)
    }

    /// Calls `step` until the other task has run.
    async fn runs_during(self, what: &str, mut step: impl AsyncFnMut()) {
        for _ in 0..100_000 {
            step().await;
            if self.0.load(Ordering::SeqCst) {
                return;
            }
        }
        panic!("{what}: no other task has run");
    }
}

fn never_waiting() -> impl Service {
    With(|methods: &mut Methods| {
        methods.server_streaming(
            SERVER,
            &nothing(),
            |_, request: Request<Raw>, mut responses: Sender<Raw>| async move {
                let (message, other) = (request.into_inner(), Other::new());
                for _ in 0..100_000 {
                    responses.send(message.clone()).await?;
                    if other.0.load(Ordering::SeqCst) {
                        return Ok(());
                    }
                }
                Err(Status::internal("no other task has run"))
            },
        );
        methods.client_streaming(
            CLIENT,
            &nothing(),
            |_, mut requests: Request<Streaming<Raw>>| async move {
                while requests.message().await?.is_some() {}
                Ok(raw("done"))
            },
        );
        methods.bidi_streaming(
            BIDI,
            &nothing(),
            |_, mut requests: Request<Streaming<Raw>>, _: Sender<Raw>| async move {
                while requests.message().await?.is_some() {}
                Ok(())
            },
        );
    })
}

#[tokio::test]
async fn a_sender_that_never_has_to_wait_lets_other_tasks_run() {
    let server = Server::new()
        .with_limits(|limits| make_roomy(&mut limits.http2))
        .add_service(never_waiting());
    let address = serve(server).await;
    let channel = Channel::to(&address)
        .with_limits(|limits| make_roomy(&mut limits.http2))
        .connect()
        .await;
    let client = Client::new(channel.unwrap());
    let max = usize::MAX;
    for size in [0, 100, 10_000] {
        let message = raw(vec![7; size]);
        let client = Client::new(client.channel().clone().max_recv_message_size(max));
        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        Other::new()
            .runs_during("bidi", async || tx.send(message.clone()).await.unwrap())
            .await;
        tx.finish();
        assert_eq!(within("bidi", rx.message()).await.unwrap(), None);

        let mut call = client.client_streaming::<Raw, Raw>(CLIENT).await.unwrap();
        Other::new()
            .runs_during("client streaming", async || {
                call.send(message.clone()).await.unwrap()
            })
            .await;
        assert_eq!(
            *within("a response", call.finish()).await.unwrap(),
            raw("done")
        );

        let call = client.server_streaming::<Raw, Raw>(SERVER, message);
        let mut responses = call.await.unwrap();
        while within("responses", responses.message())
            .await
            .unwrap()
            .is_some()
        {}
    }
}

/// Time is paused, and the server silent: nobody but the sender itself can tell.
#[tokio::test(start_paused = true)]
async fn a_sender_that_never_has_to_wait_hears_of_the_deadline_at_once() {
    let (client, _peer) = raw_server().await;
    let timeout = Duration::from_millis(200);
    let call = client.bidi_streaming::<Raw, Raw>(BIDI).timeout(timeout);
    let (mut tx, _rx) = call.await.unwrap();
    tx.send(raw("x")).await.unwrap();
    tokio::time::advance(timeout).await;
    let status = tx.send(raw("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status}");
    Other::new()
        .runs_during("bidi", async || {
            drop(tx.send(raw("x")).await.expect_err("too late"))
        })
        .await;

    let call = client.client_streaming::<Raw, Raw>(CLIENT).timeout(timeout);
    let mut call = call.await.unwrap();
    call.send(raw("x")).await.unwrap();
    tokio::time::advance(timeout).await;
    let status = call.send(raw("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status}");
    Other::new()
        .runs_during("client streaming", async || {
            drop(call.send(raw("x")).await.expect_err("too late"))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_sender_hears_of_the_deadline_while_it_waits_for_its_next_message_or_for_the_end() {
    let (client, _peer) = raw_server().await;
    let timeout = Duration::from_millis(200);
    let bidi = || client.bidi_streaming::<Raw, Raw>(BIDI).timeout(timeout);
    let is_on_time = |begun: tokio::time::Instant| {
        let late = begun.elapsed() - timeout;
        assert!(late < Duration::from_millis(5), "{late:?} late");
    };

    let (mut tx, _rx) = bidi().await.unwrap();
    let begun = tokio::time::Instant::now();
    let status = within("bidi", tx.send_all(Silent)).await.unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status}");
    is_on_time(begun);

    let (mut tx, _rx) = bidi().await.unwrap();
    let begun = tokio::time::Instant::now();
    within("closed", tx.closed()).await;
    is_on_time(begun);

    let call = client.client_streaming::<Raw, Raw>(CLIENT).timeout(timeout);
    let mut call = call.await.unwrap();
    let begun = tokio::time::Instant::now();
    let status = within("client streaming", call.send_all(Silent)).await;
    assert_eq!(status.unwrap_err().code(), Code::DEADLINE_EXCEEDED);
    is_on_time(begun);
}

/// Lets go of the requests at once, and ends when it is told to.
fn not_reading(ending: &Arc<Notify>) -> impl Service {
    let ending = ending.clone();
    With(move |methods: &mut Methods| {
        methods.client_streaming(
            CLIENT,
            &ending,
            |ending: Arc<Notify>, request: Request<Streaming<Raw>>| async move {
                let response = request.response().clone();
                drop(request);
                response.send_head();
                ending.notified().await;
                Ok(raw("done"))
            },
        );
        methods.bidi_streaming(
            BIDI,
            &ending,
            |ending: Arc<Notify>, requests: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
                drop(requests);
                responses.send(raw("dropped")).await?;
                ending.notified().await;
                Ok(())
            },
        );
    })
}

#[tokio::test]
async fn a_handler_that_reads_no_more_has_not_ended_its_call() {
    let ending = Arc::new(Notify::new());
    for (way, client) in both_ways(|| not_reading(&ending)).await {
        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        let response = within(way, rx.message()).await.unwrap();
        assert_eq!(response, Some(raw("dropped")), "{way}");
        // Less than the pipe holds, and then more than all buffers on the way.
        for _ in 0..10 {
            let sent = within(way, tx.send(raw(vec![7; 5_000]))).await;
            sent.unwrap_or_else(|status| panic!("{way}: {status}"));
        }
        let sending = async {
            loop {
                if let Err(status) = tx.send(raw(vec![7; 5_000])).await {
                    return status;
                }
            }
        };
        let ended = async {
            ending.notify_one();
            rx.message().await
        };
        let (status, end) = within(way, async { tokio::join!(sending, ended) }).await;
        assert_eq!(end.unwrap(), None, "{way}");
        assert_eq!(status.code(), Code::CANCELLED, "{way}: {status}");

        let mut call = client.client_streaming::<Raw, Raw>(CLIENT).await.unwrap();
        within(way, call.head()).await.unwrap();
        for _ in 0..10 {
            let sent = within(way, call.send(raw(vec![7; 5_000]))).await;
            sent.unwrap_or_else(|status| panic!("{way}: {status}"));
        }
        ending.notify_one();
        let response = within(way, call.finish()).await.unwrap();
        assert_eq!(*response, raw("done"), "{way}");
    }
}

#[tokio::test]
async fn a_caller_that_goes_on_sending_after_the_end_lets_other_tasks_run() {
    for (way, client) in both_ways(answering_early).await {
        for fails in ["", "x-fails"] {
            let mut call = client.client_streaming::<Raw, Raw>(CLIENT);
            if !fails.is_empty() {
                call = call.metadata(fails, "yes");
            }
            let mut call = call.await.unwrap();
            within(way, call.send_all(Endless)).await.unwrap_err();
            Other::new()
                .runs_during(way, async || {
                    drop(call.send(raw("x")).await.expect_err("nobody"))
                })
                .await;
        }
        let (mut tx, _rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        within(way, tx.closed()).await;
        Other::new()
            .runs_during(way, async || {
                drop(tx.send(raw("x")).await.expect_err("nobody"))
            })
            .await;
    }
}

/// A response whose messages are always there.
struct Flood;

impl http_body::Body for Flood {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>>>> {
        Poll::Ready(Some(Ok(http_body::Frame::data(fixture::frame(b"x")))))
    }
}

/// Answers each call with it.
#[derive(Clone)]
struct Flooding;

impl TowerService<http::Request<Body>> for Flooding {
    type Response = http::Response<Flood>;
    type Error = Status;
    type Future = Ready<Result<http::Response<Flood>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let mut response = http::Response::new(Flood);
        let grpc = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        ready(Ok(response))
    }
}

#[tokio::test]
async fn a_reader_that_never_has_to_wait_lets_other_tasks_run() {
    let client = Client::new(Channel::new(Flooding));
    let mut responses = client
        .server_streaming::<Raw, Raw>(SERVER, raw(""))
        .await
        .unwrap();
    // The head, for which it has to wait.
    within("the head", responses.head()).await.unwrap();
    Other::new()
        .runs_during("reading", async || drop(responses.message().await.unwrap()))
        .await;
}

/// Replies to the first request, and waits for more.
fn listening() -> impl Service {
    With(|methods: &mut Methods| {
        methods.bidi_streaming(
            BIDI,
            &nothing(),
            |_, mut requests: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
                while let Some(message) = requests.message().await? {
                    responses.send(message).await?;
                }
                Ok(())
            },
        );
    })
}

#[tokio::test]
async fn a_caller_that_drops_its_sender_and_reads_on_is_told_what_happened_and_what_to_do() {
    let client = client_of(&serve(Server::new().add_service(listening())).await).await;
    for has_begun in [false, true] {
        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        if has_begun {
            tx.send(raw("x")).await.unwrap();
            let response = within("a response", rx.message()).await.unwrap();
            assert_eq!(response, Some(raw("x")));
        }
        drop(tx);
        let status = within("the end", rx.message()).await.unwrap_err();
        assert_eq!(
            status.to_string(),
            "CANCELLED: the call was cancelled, because its Sender was dropped before `finish`: call `finish` when there are no more messages",
            "{has_begun}"
        );
        assert!(!status.is_from_peer());
    }
    // In process it is the server's end that says so, as over a socket it would hear of a reset.
    let here = Client::new(Channel::in_process(Server::new().add_service(listening())));
    let (tx, mut rx) = here.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
    drop(tx);
    let status = within("the end", rx.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::CANCELLED);
    assert!(status.message().contains("call `finish`"), "{status}");
}

/// A server may answer a head before it has the message, and end the stream. The caller's threads
/// and the connection's race here, so it takes many calls to meet it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_response_that_comes_before_the_request_has_left_is_the_response() {
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
