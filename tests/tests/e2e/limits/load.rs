//! Many calls, many messages, large messages, and calls that are given up in great numbers: all
//! arrive, in order, and nothing is left behind.

use std::collections::HashSet;
use std::future::{IntoFuture, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use trunkline::limits::{ChannelLimits, Http2Limits};
use trunkline::server::Methods;
use trunkline::{
    Channel, Client, Code, Raw, Request, Result, Sender, Server, Service, Status, Streaming,
};
use trunkline_tests::fixture::{
    BIDI, CLIENT, Echo, Random, SERVER, UNARY, With, client_of, client_with, frame, nothing, raw,
    raw_request, serve, within,
};

const MIB: usize = 1 << 20;

fn report(what: &str, begun: Instant) {
    println!("{what}: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_unary_calls_at_once_pass_on_one_connection() {
    let address = serve(Server::new().add_service(Echo)).await;
    let client = client_with(Channel::to(&address).max_connections(1)).await;
    let begun = Instant::now();
    let mut calls = JoinSet::new();
    for i in 0..1000_u32 {
        let call = client.unary::<Raw, Raw>(UNARY, raw(i.to_be_bytes().to_vec()));
        calls.spawn(async move { (i, call.await) });
    }
    while let Some(done) = within("a call", calls.join_next()).await {
        let (i, response) = done.unwrap();
        assert_eq!(response.unwrap().0, i.to_be_bytes()[..]);
    }
    report("1 000 unary calls", begun);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_streams_of_ten_thousand_messages_keep_order_and_count() {
    const MESSAGES: u32 = 10_000;
    let client = client_of(&serve(Server::new().add_service(Echo)).await).await;
    let begun = Instant::now();
    let mut streams = JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        streams.spawn(async move {
            let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await?;
            let sending = async {
                for i in 0..MESSAGES {
                    tx.send(raw(i.to_be_bytes().to_vec())).await?;
                }
                tx.finish();
                Ok::<_, Status>(())
            };
            let receiving = async {
                let mut next = 0_u32;
                while let Some(message) = rx.message().await? {
                    assert_eq!(message.0, next.to_be_bytes()[..]);
                    next += 1;
                }
                assert_eq!(next, MESSAGES);
                Ok(())
            };
            tokio::try_join!(sending, receiving)
        });
    }
    let all = async {
        while let Some(done) = streams.join_next().await {
            done.unwrap().unwrap();
        }
    };
    let bound = Duration::from_secs(120);
    tokio::time::timeout(bound, all)
        .await
        .expect("within two minutes");
    report("100 streams of 10 000 messages", begun);
}

fn large(byte: u8) -> Raw {
    raw(vec![byte; 16 * MIB])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_16_mib_pass_in_both_directions_in_all_kinds_of_calls() {
    let service = With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
            Ok(request.into_inner())
        });
        methods.server_streaming(
            SERVER,
            &nothing(),
            |_, request: Request<Raw>, mut responses: Sender<Raw>| async move {
                responses.send(request.into_inner()).await?;
                responses.send(large(2)).await
            },
        );
        methods.client_streaming(
            CLIENT,
            &nothing(),
            |_, mut requests: Request<Streaming<Raw>>| async move {
                let mut last = raw("");
                while let Some(message) = requests.message().await? {
                    last = message;
                }
                Ok(last)
            },
        );
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
    });
    let server = Server::new()
        .add_service(service)
        .max_recv_message_size(16 * MIB);
    let address = serve(server).await;
    let client = client_with(Channel::to(&address).max_recv_message_size(16 * MIB)).await;
    let begun = Instant::now();
    let all = async {
        let response = client.unary::<Raw, Raw>(UNARY, large(1)).await?;
        assert!(*response == large(1));

        let mut responses = client
            .server_streaming::<Raw, Raw>(SERVER, large(1))
            .await?;
        assert!(responses.message().await? == Some(large(1)));
        assert!(responses.message().await? == Some(large(2)));
        assert!(responses.message().await?.is_none());

        let mut requests = client.client_streaming::<Raw, Raw>(CLIENT).await?;
        requests.send(large(3)).await?;
        requests.send(large(4)).await?;
        assert!(*requests.finish().await? == large(4));

        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await?;
        for byte in 5..7 {
            tx.send(large(byte)).await?;
            assert!(rx.message().await? == Some(large(byte)));
        }
        tx.finish();
        assert!(rx.message().await?.is_none());
        Ok::<_, Status>(())
    };
    within("all kinds", all).await.unwrap();
    report("16 MiB, six times each way", begun);
}

fn small_windows(limits: &mut Http2Limits) {
    limits.initial_window_size = 65_535;
    limits.initial_connection_window_size = 65_535;
}

/// H1: window that is given to streams that are not open yet is missing where it is needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streaming_calls_in_64_kib_windows_do_not_lock_each_other_up() {
    let server = Server::new()
        .add_service(Echo)
        .with_limits(|it| small_windows(&mut it.http2));
    let address = serve(server).await;
    let mut limits = ChannelLimits::default();
    small_windows(&mut limits.http2);
    // All in the windows of one.
    limits.max_connections = 1;
    let client = client_with(Channel::to(&address).with_limits(|it| *it = limits)).await;
    let begun = Instant::now();
    let mut calls = JoinSet::new();
    for i in 0..1000_usize {
        let client = client.clone();
        calls.spawn(async move {
            let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await?;
            for _ in 0..10 {
                tx.send(raw(vec![i as u8; 1024])).await?;
            }
            tx.finish();
            let mut received = 0;
            while let Some(message) = rx.message().await? {
                assert!(message.0.iter().all(|byte| *byte == i as u8));
                received += message.0.len();
            }
            Ok::<_, Status>(received)
        });
    }
    // Each wait is for the next call that ends: a second without one is far from 20.
    while let Some(done) = within("progress", calls.join_next()).await {
        assert_eq!(done.unwrap().unwrap(), 10 * 1024);
    }
    report("1 000 streaming calls", begun);
}

/// H2: `poll_capacity` of h2 wakes for nothing, and misses a wake, at such edges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_at_the_edges_of_frames_windows_and_buffers_arrive() {
    const KIB: usize = 1024;
    let begun = Instant::now();
    for (send_buffer, max_size) in [
        (1, KIB),
        (KIB, 64 * KIB),
        (64 * KIB, 4 * MIB),
        (400 * KIB, 4 * MIB),
    ] {
        let server = Server::new().add_service(Echo);
        let server = server.with_limits(|limits| limits.http2.max_send_buffer_size = send_buffer);
        let address = serve(server).await;
        let mut limits = ChannelLimits::default();
        limits.http2.max_send_buffer_size = send_buffer;
        let client = client_with(Channel::to(&address).with_limits(|it| *it = limits)).await;
        for edge in [
            1,
            16 * KIB,
            32 * KIB,
            64 * KIB,
            160 * KIB,
            400 * KIB,
            4 * MIB - 8,
        ] {
            // One around the edge, with the prefix counted and without it.
            for size in [edge.saturating_sub(6), edge - 1, edge, edge + 1, edge + 5] {
                if size > max_size {
                    continue;
                }
                let message = raw(vec![7; size]);
                let case = format!("{size} bytes through {send_buffer}");
                let response = client.unary::<Raw, Raw>(UNARY, message.clone());
                let response = within(&case, response.into_future()).await.unwrap();
                assert!(*response == message, "{case}");
                let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
                tx.send(message.clone()).await.unwrap();
                tx.finish();
                let response = within(&case, rx.message()).await.unwrap();
                assert!(response == Some(message), "{case}");
                assert!(
                    within(&case, rx.message()).await.unwrap().is_none(),
                    "{case}"
                );
            }
        }
    }
    report("edges", begun);
}

/// Counts the handlers that are there.
#[derive(Default)]
struct Gauge(Arc<AtomicUsize>);

struct Running(Arc<AtomicUsize>);

impl Gauge {
    fn enter(&self) -> Running {
        self.0.fetch_add(1, Ordering::SeqCst);
        Running(self.0.clone())
    }

    async fn falls_to_zero(&self) {
        let falls = async {
            while self.0.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within("the last handler is gone", falls).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Handlers that go on until their calls are given up, and one that ends: it takes an upload and
/// says by which connection it came.
fn endless(gauge: &Arc<Gauge>) -> impl Service + use<> {
    let gauge = gauge.clone();
    With(move |methods: &mut Methods| {
        methods.unary(
            UNARY,
            &gauge,
            |gauge: Arc<Gauge>, request: Request<Raw>| async move {
                let _running = gauge.enter();
                match request.0.len() {
                    0 => pending().await,
                    _ => Ok(request.into_inner()),
                }
            },
        );
        methods.server_streaming(
            SERVER,
            &gauge,
            |gauge: Arc<Gauge>, _: Request<Raw>, mut responses: Sender<Raw>| async move {
                let _running = gauge.enter();
                loop {
                    responses.send(raw(vec![1; 10_000])).await?;
                }
            },
        );
        methods.client_streaming(
            CLIENT,
            &gauge,
            |gauge: Arc<Gauge>, mut requests: Request<Streaming<Raw>>| async move {
                let _running = gauge.enter();
                while requests.message().await?.is_some() {}
                let peer = requests.peer().map(|peer| peer.remote().to_string());
                Ok(raw(peer.unwrap_or_default()))
            },
        );
        methods.bidi_streaming(
            BIDI,
            &gauge,
            |gauge: Arc<Gauge>,
             mut requests: Request<Streaming<Raw>>,
             mut responses: Sender<Raw>| async move {
                let _running = gauge.enter();
                // The first message is echoed, and the others are left unread.
                if let Some(message) = requests.message().await? {
                    responses.send(message).await?;
                }
                pending().await
            },
        );
    })
}

/// Uploads `size` bytes; gives the connection by which they went.
async fn upload(client: &Client, size: usize) -> Result<Bytes> {
    let mut stream = client.client_streaming::<Raw, Raw>(CLIENT).await?;
    for _ in 0..size.div_ceil(64 * 1024) {
        stream.send(raw(vec![0; 64 * 1024])).await?;
    }
    Ok(stream.finish().await?.into_inner().0)
}

/// Gives a call up at one of eight places.
async fn give_up(client: &Client, place: usize) -> Result<()> {
    match place {
        0 => drop(client.server_streaming::<Raw, Raw>(SERVER, raw("")).await?),
        1 => {
            let mut responses = client.server_streaming::<Raw, Raw>(SERVER, raw("")).await?;
            responses.head().await?;
        }
        2 => {
            let mut responses = client.server_streaming::<Raw, Raw>(SERVER, raw("")).await?;
            for _ in 0..3 {
                responses.message().await?;
            }
        }
        3 => drop(client.bidi_streaming::<Raw, Raw>(BIDI).await?),
        4 => {
            let (mut tx, _rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await?;
            tx.send(raw(vec![0; 50_000])).await?;
        }
        5 => {
            // Leaves unread bytes at both ends.
            let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await?;
            tx.send(raw(vec![0; 20_000])).await?;
            rx.head().await?;
            tx.send(raw(vec![0; 50_000])).await?;
        }
        6 => {
            let mut stream = client.client_streaming::<Raw, Raw>(CLIENT).await?;
            stream.send(raw(vec![0; 100_000])).await?;
        }
        _ => {
            // A large request whose response nobody waits for.
            let mut call = client
                .unary::<Raw, Raw>(UNARY, raw(vec![0; 40_000]))
                .into_future();
            poll_fn(|cx| {
                let _ = Pin::new(&mut call).poll(cx);
                Poll::Ready(())
            })
            .await;
        }
    }
    Ok(())
}

/// H4: what is in the window when a call is given up comes back to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_given_up_leave_no_window_behind() {
    // One in a hundred that leaks is enough to use this up.
    let narrow = |limits: &mut Http2Limits| {
        limits.initial_window_size = 65_535;
        limits.initial_connection_window_size = MIB as u32;
    };
    let gauge = Arc::new(Gauge::default());
    let server = Server::new()
        .add_service(endless(&gauge))
        .with_limits(|it| narrow(&mut it.http2));
    let address = serve(server).await;
    let mut limits = ChannelLimits::default();
    narrow(&mut limits.http2);
    let client = client_with(Channel::to(&address).with_limits(|it| *it = limits)).await;
    let before = within("the first upload", upload(&client, MIB))
        .await
        .unwrap();
    let begun = Instant::now();
    for _ in 0..250 {
        for place in 0..8 {
            within("a call", give_up(&client, place)).await.unwrap();
        }
    }
    report("2 000 calls given up", begun);
    gauge.falls_to_zero().await;
    let begun = Instant::now();
    let after = within("the last upload", upload(&client, 8 * MIB))
        .await
        .unwrap();
    report("8 MiB after them", begun);
    assert_eq!(after, before, "the connection is another one");
    let mut responses = client
        .server_streaming::<Raw, Raw>(SERVER, raw(""))
        .await
        .unwrap();
    for _ in 0..800 {
        within("8 MiB the other way", responses.message())
            .await
            .unwrap();
    }
}

/// H5: futures that are dropped wherever they wait leave no handler and no stream behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_dropped_at_any_await_leave_no_handler_behind() {
    let gauge = Arc::new(Gauge::default());
    let client = client_of(&serve(Server::new().add_service(endless(&gauge))).await).await;
    let before = within("the first upload", upload(&client, 1))
        .await
        .unwrap();
    let begun = Instant::now();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..500 {
        let mut batch = Vec::new();
        for _ in 0..8 {
            let (client, place, polls) = (client.clone(), random.below(8), random.below(12));
            batch.push((
                polls,
                Box::pin(async move { give_up(&client, place).await }),
            ));
        }
        for step in 0..12 {
            for (polls, call) in &mut batch {
                if step < *polls {
                    poll_fn(|cx| {
                        // One that has ended is not polled again.
                        if call.as_mut().poll(cx).is_ready() {
                            *polls = 0;
                        }
                        Poll::Ready(())
                    })
                    .await;
                }
            }
            tokio::task::yield_now().await;
        }
    }
    report("4 000 calls dropped at random", begun);
    gauge.falls_to_zero().await;
    let after = within("the last upload", upload(&client, MIB))
        .await
        .unwrap();
    assert_eq!(after, before, "the connection is another one");
}

/// H9: a status that comes before the request has ended is not lost among resets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_status_reaches_a_client_that_is_still_uploading() {
    async fn deny(mut requests: Request<Streaming<Raw>>) -> Status {
        match requests.message().await {
            Ok(Some(_)) => Status::permission_denied("not you"),
            other => Status::internal(format!("{other:?}")),
        }
    }
    let service = With(|methods: &mut Methods| {
        methods.client_streaming(CLIENT, &nothing(), |_, requests| async move {
            Err::<Raw, _>(deny(requests).await)
        });
        methods.bidi_streaming(BIDI, &nothing(), |_, requests, _: Sender<Raw>| async move {
            Err(deny(requests).await)
        });
    });
    let client = client_of(&serve(Server::new().add_service(service)).await).await;
    let chunk = |i: usize| raw(vec![0; if i == 0 { 1024 } else { 64 * 1024 }]);
    let begun = Instant::now();
    for round in 0..200 {
        let uploading = async {
            let mut stream = client.client_streaming::<Raw, Raw>(CLIENT).await?;
            for i in 0..160 {
                stream.send(chunk(i)).await?;
            }
            stream.finish().await
        };
        let status = within("the upload", uploading).await.unwrap_err();
        assert_eq!(
            status.code(),
            Code::PERMISSION_DENIED,
            "round {round}: {status:?}"
        );
        assert_eq!(status.message(), "not you");

        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        let sending = async {
            for i in 0..160 {
                tx.send(chunk(i)).await?;
            }
            Ok::<_, Status>(())
        };
        let (sent, received) =
            within("both halves", async { tokio::join!(sending, rx.message()) }).await;
        let status = received.unwrap_err();
        assert_eq!(
            status.code(),
            Code::PERMISSION_DENIED,
            "round {round}: {status:?}"
        );
        // The sending half only says that the call is over.
        assert!(sent.is_err_and(|status| status.code() == Code::CANCELLED));
    }
    report("400 early statuses", begun);
}

/// What a server sends for one call of `method`, byte for byte.
async fn wire_image(messages: u32) -> Vec<u8> {
    let counting = With(move |methods: &mut Methods| {
        methods.server_streaming(
            SERVER,
            &nothing(),
            move |_, _: Request<Raw>, mut responses: Sender<Raw>| async move {
                for i in 0..messages {
                    responses.send(raw(i.to_be_bytes().to_vec())).await?;
                }
                Err(Status::aborted("done"))
            },
        );
    });
    let address = serve(Server::new().add_service(counting)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let between = listener.local_addr().unwrap().to_string();
    let recording = tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(&address).await.unwrap();
        let ((mut near_read, mut near_write), (mut far_read, mut far_write)) =
            (near.into_split(), far.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut near_read, &mut far_write).await });
        let (mut image, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let n = far_read.read(&mut buffer).await.unwrap_or(0);
            if n == 0 || near_write.write_all(&buffer[..n]).await.is_err() {
                return image;
            }
            image.extend_from_slice(&buffer[..n]);
        }
    });
    let client = client_of(&between).await;
    let (received, end) = count_messages(&client).await;
    assert_eq!((received, end.code()), (messages, Code::ABORTED));
    drop(client);
    within("the connection closes", recording).await.unwrap()
}

/// Reads numbers in order; gives how many there were, and the end.
async fn count_messages(client: &Client) -> (u32, Status) {
    let counting = async {
        let mut responses = client
            .server_streaming::<Raw, Raw>(SERVER, raw("x"))
            .await
            .map_err(|status| (0, status))?;
        let mut next = 0_u32;
        loop {
            match responses.message().await {
                Ok(Some(message)) => {
                    assert_eq!(message.0, next.to_be_bytes()[..]);
                    next += 1;
                }
                Ok(None) => panic!("the call ended well"),
                Err(status) => return Err::<(), _>((next, status)),
            }
        }
    };
    within("the end", counting).await.unwrap_err()
}

/// The bytes of the first frame, which are the server's settings.
fn settings_len(image: &[u8]) -> usize {
    9 + usize::from(image[1]) * 256 + usize::from(image[2])
}

/// Reads a client's bytes up to the frame that ends its request.
async fn read_request(socket: &mut TcpStream) {
    let mut preface = [0; 24];
    socket.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) * 256 + usize::from(head[2])];
        socket.read_exact(&mut payload).await.unwrap();
        // DATA with END_STREAM.
        if head[3] == 0 && head[4] & 1 == 1 {
            return;
        }
    }
}

/// Plays `image` to one client in two parts, cut at `at`; with the second part or without it.
async fn replay(image: &[u8], at: usize, has_rest: bool) -> (u32, Status) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        // The response to a call must not come before it: the settings first, which a client waits
        // for, and the rest behind its request.
        socket
            .write_all(&image[..settings_len(image)])
            .await
            .unwrap();
        read_request(&mut socket).await;
        // A client may be satisfied before it has the last byte, and hang up.
        let _ = socket.write_all(&image[settings_len(image)..at]).await;
        tokio::task::yield_now().await;
        if has_rest {
            let _ = socket.write_all(&image[at..]).await;
        }
        let _ = socket.shutdown().await;
        while socket.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {}
    };
    let calling = async {
        let channel = Channel::to(&address).connect_lazy().unwrap();
        count_messages(&Client::new(channel)).await
    };
    let ((), outcome) = tokio::join!(serving, calling);
    outcome
}

/// H10: messages and status, with the wire cut at every byte.
#[tokio::test]
async fn messages_keep_order_and_count_wherever_the_wire_is_cut() {
    let begun = Instant::now();
    let image = wire_image(1000).await;
    println!("the image has {} bytes", image.len());
    let begin = settings_len(&image);
    let edges = (begin..120)
        .chain((120..image.len()).step_by(97))
        .chain(image.len() - 60..=image.len());
    for at in edges {
        let (received, status) = replay(&image, at, true).await;
        assert_eq!(
            (received, status.code()),
            (1000, Code::ABORTED),
            "cut at {at}: {status:?}"
        );
    }
    let image = wire_image(20).await;
    let mut seen = HashSet::new();
    let mut least = 0;
    for at in settings_len(&image)..image.len() {
        let (received, status) = replay(&image, at, false).await;
        assert!(received >= least, "fewer messages from more bytes, at {at}");
        least = received;
        seen.insert(received);
        match status.code() {
            Code::ABORTED => assert_eq!(received, 20, "at {at}: {status:?}"),
            code => assert_eq!(code, Code::UNAVAILABLE, "at {at}: {status:?}"),
        }
    }
    assert!(seen.contains(&0) && seen.contains(&20), "{seen:?}");
    report("the cuts", begun);
}

/// H33: an honest client that cancels everything is not taken for an attacker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_cancels_every_call_keeps_its_connection() {
    let gauge = Arc::new(Gauge::default());
    let client = client_of(&serve(Server::new().add_service(endless(&gauge))).await).await;
    let before = within("the first upload", upload(&client, 1))
        .await
        .unwrap();
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..50 {
        let client = client.clone();
        workers.spawn(async move {
            for _ in 0..40 {
                let mut responses = client.server_streaming::<Raw, Raw>(SERVER, raw("")).await?;
                responses.message().await?;
                // The server is still sending; what is on its way meets no stream any more.
                let rest = async {
                    while responses.message().await?.is_some() {}
                    Ok::<_, Status>(())
                };
                if let Ok(end) = tokio::time::timeout(Duration::from_millis(5), rest).await {
                    return end;
                }
            }
            Ok(())
        });
    }
    while let Some(done) = within("a worker", workers.join_next()).await {
        done.unwrap().unwrap();
    }
    report("2 000 calls cancelled", begun);
    gauge.falls_to_zero().await;
    let after = within("the last upload", upload(&client, 1)).await.unwrap();
    assert_eq!(after, before, "the connection is another one");
}

/// The same in bursts: a whole set of streams is given up at once, and the next one follows.
#[tokio::test]
async fn bursts_of_cancelled_calls_keep_their_connection() {
    let gauge = Arc::new(Gauge::default());
    let client = client_of(&serve(Server::new().add_service(endless(&gauge))).await).await;
    let before = within("the first upload", upload(&client, 1))
        .await
        .unwrap();
    for _ in 0..8 {
        // On one thread the server runs when this waits, which is after a round or two.
        for _ in 0..2 {
            let mut burst = Vec::new();
            for _ in 0..60 {
                burst.push(
                    client
                        .server_streaming::<Raw, Raw>(SERVER, raw(""))
                        .await
                        .unwrap(),
                );
            }
            drop(burst);
        }
        tokio::task::yield_now().await;
    }
    gauge.falls_to_zero().await;
    let after = within("the last upload", upload(&client, 1)).await.unwrap();
    assert_eq!(after, before, "the connection is another one");
}

/// H34: a response that ends early gives its stream back, though the client goes on sending.
#[tokio::test]
async fn early_errors_give_their_streams_back_and_say_no_error() {
    let refusing = With(|methods: &mut Methods| {
        methods.client_streaming(
            CLIENT,
            &nothing(),
            |_, _: Request<Streaming<Raw>>| async move {
                Err::<Raw, _>(Status::permission_denied("not you"))
            },
        );
    });
    let server = Server::new()
        .add_service(refusing)
        .max_concurrent_streams(10);
    let socket = TcpStream::connect(serve(server).await).await.unwrap();
    let (send, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..100 {
        let mut open = Vec::new();
        for _ in 0..10 {
            let mut send = within("a stream", send.clone().ready()).await.unwrap();
            let (response, mut stream) = send
                .send_request(raw_request(&CLIENT, None), false)
                .unwrap();
            stream.send_data(frame(b"x"), false).unwrap();
            open.push((response, stream));
        }
        for (response, mut stream) in open {
            let response = within("the status", response).await.unwrap();
            assert_eq!(response.headers()["grpc-status"], "7");
            let reset = within("the reset", poll_fn(|cx| stream.poll_reset(cx))).await;
            assert_eq!(reset.unwrap(), Reason::NO_ERROR);
        }
    }
}

/// H27: a handler is held up by a client that does not read, and memory is not.
#[tokio::test]
async fn a_handler_waits_for_a_client_that_does_not_read() {
    const SIZE: usize = 1000;
    let sent = Arc::new(AtomicUsize::new(0));
    let service = {
        let sent = sent.clone();
        With(move |methods: &mut Methods| {
            methods.server_streaming(
                SERVER,
                &sent,
                |sent: Arc<AtomicUsize>, _: Request<Raw>, mut responses: Sender<Raw>| async move {
                    for _ in 0..1_000_000 {
                        responses.send(raw(vec![0; SIZE])).await?;
                        sent.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(())
                },
            );
        })
    };
    let client = client_of(&serve(Server::new().add_service(service)).await).await;
    let mut responses = client
        .server_streaming::<Raw, Raw>(SERVER, raw(""))
        .await
        .unwrap();
    let stuck_at = || async {
        loop {
            let before = sent.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
            if before > 0 && sent.load(Ordering::SeqCst) == before {
                return before * SIZE;
            }
        }
    };
    let limits = Http2Limits::for_server();
    let window = limits.initial_window_size as usize;
    // The window, and what lies on the way to it: the send buffer, a chunk or two that gather.
    let bound = window + limits.max_send_buffer_size + 4 * limits.gather_size;
    let at = within("the handler gets stuck", stuck_at()).await;
    assert!(
        at > window / 2 && at <= bound,
        "{at} bytes, and {bound} allowed"
    );
    for _ in 0..1000 {
        within("a message", responses.message()).await.unwrap();
    }
    let later = within("the handler gets stuck again", stuck_at()).await;
    assert!(
        later > at && later <= 1000 * SIZE + 2 * bound,
        "{later} bytes"
    );
}

/// H28: calls that wait for a stream are bounded, and leave no trace when they are given up.
#[tokio::test]
async fn calls_that_wait_for_a_stream_are_bounded_and_can_be_given_up() {
    let gauge = Arc::new(Gauge::default());
    let server = Server::new()
        .add_service(endless(&gauge))
        .max_concurrent_streams(1);
    let mut limits = ChannelLimits::default();
    limits.max_queued_calls = 10;
    limits.max_connections = 1;
    let client =
        client_with(Channel::to(&serve(server).await).with_limits(|it| *it = limits)).await;
    let mut first = client
        .server_streaming::<Raw, Raw>(SERVER, raw(""))
        .await
        .unwrap();
    within("the first call", first.message()).await.unwrap();
    for _ in 0..100 {
        let mut waiting = Vec::new();
        for _ in 0..9 {
            let call = client.server_streaming::<Raw, Raw>(SERVER, raw(""));
            let mut started = call.into_future();
            let poll = poll_fn(|cx| Poll::Ready(started.as_mut().poll(cx))).await;
            assert!(poll.is_pending(), "no stream is free");
            waiting.push(started);
        }
        let one_more = client.server_streaming::<Raw, Raw>(SERVER, raw(""));
        let status = within("the refusal", one_more.into_future())
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED, "{status:?}");
        assert!(status.message().contains("max_queued_calls"), "{status:?}");
    }
    drop(first);
    gauge.falls_to_zero().await;
    let mut last = client
        .server_streaming::<Raw, Raw>(SERVER, raw(""))
        .await
        .unwrap();
    within("the stream is free", last.message()).await.unwrap();
    assert_eq!(
        gauge.0.load(Ordering::SeqCst),
        1,
        "a call that was given up runs"
    );
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
        let message = within(&format!("stream {i}"), stream.message()).await;
        assert_eq!(message.unwrap().unwrap().0.len(), 30 << 10);
        streams.push(stream);
    }
    let call = client.unary::<Raw, Raw>(UNARY, raw(""));
    within("a response", call.into_future()).await.unwrap();
}
