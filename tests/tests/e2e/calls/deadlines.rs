//! Deadlines bound everything: connecting, waiting, both directions of messages, on both sides.
//! Their end is always DEADLINE_EXCEEDED, and says in which phase the call was.

use std::future::{IntoFuture, pending};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use trunkline::server::Methods;
use trunkline::{
    Channel, Client, ClientStream, Code, Next, Raw, Request, Result, Sender, Server, Service,
    Status, Streaming,
};
use trunkline_testkit::{Fields, Frame, Outcome, RawListener, RawPeer, error};
use trunkline_tests::fixture::{
    BIDI, CLIENT, Echo, SERVER, UNARY, With, both_ways, client_of, client_with, frame, nothing,
    raw, raw_request, serve, within,
};

use crate::wall_clock::{assert_not_late, assert_punctual};

const SHORT: Duration = Duration::from_millis(100);

fn assert_expired(phase: &str, status: &Status) {
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status:?}");
    assert!(status.message().contains(phase), "{phase}: {status:?}");
}

/// Methods of all kinds whose handlers never read and never response.
fn silent() -> impl Service {
    With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, _: Request<Raw>| {
            pending::<Result<Raw>>()
        });
        methods.server_streaming(
            SERVER,
            &nothing(),
            |_, _: Request<Raw>, responses: Sender<Raw>| async {
                let _replies = responses;
                pending::<Result<()>>().await
            },
        );
        methods.client_streaming(
            CLIENT,
            &nothing(),
            |_, requests: Request<Streaming<Raw>>| async {
                let _requests = requests;
                pending::<Result<Raw>>().await
            },
        );
        methods.bidi_streaming(
            BIDI,
            &nothing(),
            |_, requests: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
                let _requests = requests;
                responses.send(raw("first")).await?;
                pending::<Result<()>>().await
            },
        );
    })
}

/// Makes a call of each kind with a short deadline; gives how each ended.
async fn ends_of_all_kinds(client: &Client) -> [Status; 4] {
    let unary = client.unary::<Raw, Raw>(UNARY, raw("x")).timeout(SHORT);
    let unary = within("unary", unary.into_future()).await.unwrap_err();

    let server = async {
        let call = client
            .server_streaming::<Raw, Raw>(SERVER, raw("x"))
            .timeout(SHORT);
        call.await?.message().await
    };
    let server = within("server streaming", server).await.unwrap_err();

    let upload = async {
        let call = client.client_streaming::<Raw, Raw>(CLIENT).timeout(SHORT);
        let mut stream = call.await?;
        // Far more than any window: sending waits until the deadline.
        for _ in 0..1000 {
            stream.send(raw(vec![0; 64 * 1024])).await?;
        }
        stream.finish().await
    };
    let upload = within("client streaming", upload).await.unwrap_err();

    let bidi = async {
        let call = client.bidi_streaming::<Raw, Raw>(BIDI).timeout(SHORT);
        let (_tx, mut rx) = call.await?;
        while rx.message().await?.is_some() {}
        Ok(())
    };
    let bidi = within("bidi", bidi).await.unwrap_err();
    [unary, server, upload, bidi]
}

#[tokio::test]
async fn a_deadline_ends_a_call_of_each_kind_whose_peer_never_reads_and_never_responds() {
    for (way, client) in both_ways(silent).await {
        let begun = Instant::now();
        for status in ends_of_all_kinds(&client).await {
            assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{way}: {status:?}");
        }
        assert_punctual(way, begun.elapsed(), SHORT * 4);
    }
}

#[tokio::test]
async fn a_deadline_counts_while_a_call_waits_for_a_connection_and_says_so() {
    // Its connections lie in the backlog: no SETTINGS ever come.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = Client::new(Channel::to(&address).connect_lazy().unwrap());
    let begun = Instant::now();
    for status in ends_of_all_kinds(&client).await {
        assert_expired("while the call waited for a connection", &status);
    }
    assert_not_late("the calls", begun.elapsed(), SHORT * 4);
}

#[tokio::test]
async fn a_deadline_counts_while_a_call_waits_for_the_head_and_says_so() {
    let address = raw_server(|_| None).await;
    let client = client_of(&address).await;
    let status = client
        .unary::<Raw, Raw>(UNARY, raw("x"))
        .timeout(SHORT)
        .await
        .unwrap_err();
    assert_expired(
        "while the call waited for the head of the response",
        &status,
    );
    let mut responses = client
        .server_streaming::<Raw, Raw>(SERVER, raw("x"))
        .timeout(SHORT)
        .await
        .unwrap();
    let status = within("the head", responses.head()).await.unwrap_err();
    assert_expired(
        "while the call waited for the head of the response",
        &status,
    );
}

#[tokio::test]
async fn a_deadline_counts_in_mid_stream_and_says_so() {
    let address = raw_server(|_| Some(frame(b"first"))).await;
    let client = client_of(&address).await;
    let mut responses = client
        .server_streaming::<Raw, Raw>(SERVER, raw("x"))
        .timeout(SHORT)
        .await
        .unwrap();
    assert_eq!(
        within("the message", responses.message()).await.unwrap(),
        Some(raw("first"))
    );
    let status = within("the end", responses.message()).await.unwrap_err();
    assert_expired("while the response was being received", &status);
    // It stays what it was.
    assert_expired(
        "while the response was being received",
        &responses.message().await.unwrap_err(),
    );
}

#[tokio::test]
async fn a_deadline_ends_a_send_that_waits_for_window_and_says_so() {
    for (way, client) in both_ways(silent).await {
        let call = client.bidi_streaming::<Raw, Raw>(BIDI).timeout(SHORT);
        // The responses are held and not read: the sender has the deadline to itself.
        let (mut tx, _rx) = call.await.unwrap();
        let sending = async {
            loop {
                tx.send(raw(vec![0; 64 * 1024])).await?;
            }
        };
        let status: Result<()> = within(way, sending).await;
        assert_expired("before the next message was sent", &status.unwrap_err());
    }
}

#[tokio::test]
async fn a_sender_says_that_the_deadline_passed_also_when_the_responses_heard_of_it_first() {
    for (way, client) in both_ways(silent).await {
        let call = client.bidi_streaming::<Raw, Raw>(BIDI).timeout(SHORT);
        let (mut tx, mut rx) = call.await.unwrap();
        let status = within(way, async {
            loop {
                match rx.message().await {
                    Ok(_) => {}
                    Err(status) => return status,
                }
            }
        });
        assert_eq!(status.await.code(), Code::DEADLINE_EXCEEDED, "{way}");
        within(way, tx.closed()).await;
        let status = tx.send(raw("x")).await.unwrap_err();
        assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{way}: {status:?}");
    }
}

/// A server on bare HTTP/2 that answers each call with a head and `response`, and never ends it; with
/// no response, not even the head is sent.
async fn raw_server(response: impl Fn(&str) -> Option<Bytes> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let mut open = Vec::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let stream = response(request.uri().path()).map(|response| {
                let head = http::Response::builder().header("content-type", "application/grpc");
                let mut stream = respond
                    .send_response(head.body(()).unwrap(), false)
                    .unwrap();
                stream.send_data(response, false).unwrap();
                stream
            });
            open.push((request, respond, stream));
        }
    });
    address
}

#[tokio::test]
async fn a_server_keeps_the_deadline_of_a_client_that_does_not() {
    let address = serve(Server::new().add_service(silent())).await;
    let socket = TcpStream::connect(&address).await.unwrap();
    let (mut send, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    for method in [UNARY, SERVER, CLIENT] {
        let request = raw_request(&method, Some("100m"));
        let begun = Instant::now();
        let (response, mut stream) = send.send_request(request, false).unwrap();
        stream.send_data(frame(b"x"), false).unwrap();
        let _ = stream.send_data(Bytes::new(), method == CLIENT);
        if method != CLIENT {
            stream.send_data(Bytes::new(), true).unwrap();
        }
        let response = within("the status", response).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "4", "{method}");
        assert!(begun.elapsed() >= SHORT, "{method}");
    }
}

/// A method that makes the same call on the next server, with a timeout of its own or none, and
/// says how much time it had.
fn relay(
    next: Client,
    own: Option<Duration>,
    is_detached: Detached,
    had: UnboundedSender<Option<Duration>>,
) -> impl Service {
    With(move |methods: &mut Methods| {
        let service = Arc::new((next, had));
        methods.unary(
            UNARY,
            &service,
            move |service: Arc<(Client, UnboundedSender<Option<Duration>>)>,
                  request: Request<Raw>| async move {
                service
                    .1
                    .send(request.time_remaining())
                    .expect("the test runs");
                let mut call = service.0.unary::<Raw, Raw>(UNARY, request.into_inner());
                if let Some(own) = own {
                    call = call.timeout(own);
                }
                if is_detached == Detached::Yes {
                    call = call.detached();
                }
                Ok(call.await?.into_inner())
            },
        );
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detached {
    Yes,
    No,
}

/// The last server: says how much time a call has there.
fn last(had: UnboundedSender<Option<Duration>>) -> impl Service {
    With(move |methods: &mut Methods| {
        let service = Arc::new(had);
        methods.unary(
            UNARY,
            &service,
            |had: Arc<UnboundedSender<_>>, request: Request<Raw>| async move {
                had.send(request.time_remaining()).expect("the test runs");
                Ok(request.into_inner())
            },
        );
    })
}

#[tokio::test]
async fn calls_made_in_a_handler_inherit_the_smaller_deadline_over_two_hops() {
    const MINUTE: Duration = Duration::from_secs(60);
    let cases = [
        // The first timeout, that of the call in the handler, what the last server has at most.
        (Some(MINUTE), None, Detached::No, Some(MINUTE)),
        (Some(MINUTE), Some(MINUTE * 2), Detached::No, Some(MINUTE)),
        (Some(MINUTE * 2), Some(MINUTE), Detached::No, Some(MINUTE)),
        (None, Some(MINUTE), Detached::No, Some(MINUTE)),
        (None, None, Detached::No, None),
        (Some(MINUTE), None, Detached::Yes, None),
        (
            Some(MINUTE),
            Some(MINUTE * 2),
            Detached::Yes,
            Some(MINUTE * 2),
        ),
    ];
    for (first, own, is_detached, at_most) in cases {
        let (had, mut have) = unbounded_channel();
        let far = client_of(&serve(Server::new().add_service(last(had.clone()))).await).await;
        let middle = relay(far, own, is_detached, had.clone());
        let middle = client_of(&serve(Server::new().add_service(middle)).await).await;
        let near = Client::new(Channel::in_process(Server::new().add_service(relay(
            middle,
            None,
            Detached::No,
            had,
        ))));
        let mut call = near.unary::<Raw, Raw>(UNARY, raw("x"));
        if let Some(first) = first {
            call = call.timeout(first);
        }
        within("the call", call.into_future()).await.unwrap();
        for hop in 0..2 {
            let had = have.recv().await.unwrap();
            assert_eq!(had.is_some(), first.is_some(), "hop {hop}");
            assert!(
                had.unwrap_or_default() <= first.unwrap_or_default(),
                "hop {hop}"
            );
        }
        let had = have.recv().await.unwrap();
        let case = format!("{first:?} {own:?} {is_detached:?}: {had:?}");
        assert_eq!(had.is_some(), at_most.is_some(), "{case}");
        if let (Some(had), Some(at_most)) = (had, at_most) {
            assert!(had <= at_most, "{case}");
            assert_not_late(&case, at_most, had);
        }
    }
}

#[tokio::test]
async fn an_inherited_deadline_ends_the_call_of_the_handler_and_a_detached_one_goes_on() {
    let far = client_of(&serve(Server::new().add_service(silent())).await).await;
    let (had, _have) = unbounded_channel();
    let near = relay(far, None, Detached::No, had);
    let client = client_of(&serve(Server::new().add_service(near)).await).await;
    let call = client.unary::<Raw, Raw>(UNARY, raw("x")).timeout(SHORT);
    let status = within("the call", call.into_future()).await.unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status:?}");

    // A detached call in a task of its own outlives the handler that began it.
    let echo = client_of(&serve(Server::new().add_service(Echo)).await).await;
    let (done, mut is_done) = unbounded_channel();
    let near = With(move |methods: &mut Methods| {
        let service = Arc::new((echo, done));
        methods.unary(
            UNARY,
            &service,
            |service: Arc<(Client, UnboundedSender<Result<Raw>>)>, request: Request<Raw>| async move {
                let call = service.0.bidi_streaming::<Raw, Raw>(BIDI).detached();
                let (mut tx, mut rx) = call.await?;
                let deadline = request.time_remaining();
                tokio::spawn(async move {
                    // Two thirds beyond the deadline of the call that began it.
                    tokio::time::sleep(deadline.unwrap_or_default() * 5 / 3).await;
                    let outcome = async {
                        tx.send(raw("still here")).await?;
                        Ok(rx.message().await?.unwrap_or_default())
                    };
                    let _ = service.1.send(outcome.await);
                });
                pending::<Result<Raw>>().await
            },
        );
    });
    let client = client_of(&serve(Server::new().add_service(near)).await).await;
    let call = client.unary::<Raw, Raw>(UNARY, raw("x")).timeout(SHORT);
    let status = within("the call", call.into_future()).await.unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status:?}");
    let outcome = within("the detached call", is_done.recv()).await.unwrap();
    assert_eq!(outcome.unwrap(), raw("still here"));
}

/// robustness.md calls it H8: whoever is first, the client says DEADLINE_EXCEEDED.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_is_never_told_as_cancelled_whichever_side_it_expires_on_first() {
    // Replies wait for the client in mid-message when the server's clock runs out.
    let busy = With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, _: Request<Raw>| {
            pending::<Result<Raw>>()
        });
        methods.server_streaming(
            SERVER,
            &nothing(),
            |_, _: Request<Raw>, mut responses: Sender<Raw>| async move {
                loop {
                    responses.send(raw(vec![0; 100_000])).await?;
                }
            },
        );
        methods.client_streaming(
            CLIENT,
            &nothing(),
            |_, mut requests: Request<Streaming<Raw>>| async move {
                while requests.message().await?.is_some() {}
                Ok(raw(""))
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
    let client = client_of(&serve(Server::new().add_service(busy)).await).await;
    for round in 0..200_u64 {
        let timeout = Duration::from_micros(1000 + round * 20);
        let outcomes = within("a round", async {
            tokio::join!(
                async {
                    let call = client.unary::<Raw, Raw>(UNARY, raw("x")).timeout(timeout);
                    call.await.map(|_| ())
                },
                async {
                    let call = client.server_streaming::<Raw, Raw>(SERVER, raw("x"));
                    let mut responses = call.timeout(timeout).await?;
                    while responses.message().await?.is_some() {}
                    Ok(())
                },
                async {
                    let call = client.client_streaming::<Raw, Raw>(CLIENT).timeout(timeout);
                    let mut stream: ClientStream<Raw, Raw> = call.await?;
                    loop {
                        stream.send(raw(vec![0; 50_000])).await?;
                    }
                },
                upload(&client, timeout),
            )
        })
        .await;
        let outcomes: [Result<()>; 4] = outcomes.into();
        for (kind, outcome) in outcomes.into_iter().enumerate() {
            let status = outcome.expect_err("no call ends well");
            assert_eq!(
                status.code(),
                Code::DEADLINE_EXCEEDED,
                "round {round}, kind {kind}: {status:?}"
            );
        }
    }
}

/// Both halves of a bidi call at work; how the sending half ended, if the other agrees.
async fn upload(client: &Client, timeout: Duration) -> Result<()> {
    let call = client.bidi_streaming::<Raw, Raw>(BIDI).timeout(timeout);
    let (mut tx, mut rx) = call.await?;
    let sending = async {
        loop {
            if let Err(status) = tx.send(raw(vec![0; 50_000])).await {
                return status;
            }
        }
    };
    let receiving = async {
        loop {
            if let Err(status) = rx.message().await {
                return status;
            }
        }
    };
    let (sent, received) = tokio::join!(sending, receiving);
    assert_eq!(received.code(), Code::DEADLINE_EXCEEDED, "{received:?}");
    Err(sent)
}

#[tokio::test]
async fn a_timeout_of_eleven_thousand_years_is_sent_and_more_is_none() {
    const YEAR: u64 = 365 * 24 * 3600;
    for (way, client) in both_ways(|| Echo).await {
        for timeout in [
            Duration::from_secs(11_000 * YEAR),
            Duration::from_secs(99_999_999 * 3600),
            Duration::from_secs(100_000_000 * 3600),
            Duration::MAX,
        ] {
            let call = client.unary::<Raw, Raw>(UNARY, raw("x")).timeout(timeout);
            let response = within(way, call.into_future()).await;
            assert_eq!(*response.unwrap(), raw("x"), "{way} {timeout:?}");
            let call = client.bidi_streaming::<Raw, Raw>(BIDI).timeout(timeout);
            let (mut tx, mut rx) = call.await.unwrap();
            tx.send(raw("x")).await.unwrap();
            tx.finish();
            assert_eq!(within(way, rx.message()).await.unwrap(), Some(raw("x")));
            assert_eq!(within(way, rx.message()).await.unwrap(), None);
        }
    }
}

#[tokio::test]
async fn a_timeout_of_zero_ends_the_call_before_anything_is_sent() {
    let (called, mut calls) = unbounded_channel();
    let service = || {
        let called = called.clone();
        last(called)
    };
    for (way, client) in both_ways(service).await {
        let call = client
            .unary::<Raw, Raw>(UNARY, raw("x"))
            .timeout(Duration::ZERO);
        let status = within(way, call.into_future()).await.unwrap_err();
        assert_expired("before the call was sent", &status);
        let call = client
            .bidi_streaming::<Raw, Raw>(BIDI)
            .timeout(Duration::ZERO);
        let status = within(way, call.into_future()).await.unwrap_err();
        assert_expired("before the call was sent", &status);
        assert!(calls.try_recv().is_err(), "{way}: the handler ran");
    }
}

#[tokio::test(start_paused = true)]
async fn time_remaining_falls_to_zero_and_there_the_handler_ends() {
    let (had, mut have) = unbounded_channel();
    let service = With(move |methods: &mut Methods| {
        methods.unary(
            UNARY,
            &Arc::new(had),
            |had: Arc<UnboundedSender<_>>, request: Request<Raw>| async move {
                loop {
                    had.send(request.time_remaining()).expect("the test runs");
                    tokio::time::sleep(Duration::from_secs(4)).await;
                }
                #[expect(unreachable_code, reason = "names the type of the response")]
                Ok(raw(""))
            },
        );
    });
    let client = Client::new(Channel::in_process(Server::new().add_service(service)));
    let call = client
        .unary::<Raw, Raw>(UNARY, raw("x"))
        .timeout(Duration::from_secs(10));
    let status = call.await.unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status:?}");
    for left in [10, 6, 2] {
        let had = have.recv().await.unwrap().expect("the call has a deadline");
        let off = had.abs_diff(Duration::from_secs(left));
        assert!(
            off <= Duration::from_millis(10),
            "{had:?}, and not {left} s"
        );
    }
    assert!(have.try_recv().is_err(), "the handler lived on");
}

#[tokio::test]
async fn a_call_without_a_deadline_has_no_time_remaining() {
    let (had, mut have) = unbounded_channel();
    for (way, client) in both_ways(|| last(had.clone())).await {
        within(way, client.unary::<Raw, Raw>(UNARY, raw("x")).into_future())
            .await
            .unwrap();
        assert_eq!(have.recv().await, Some(None), "{way}");
    }
}

#[tokio::test]
async fn a_deadline_counts_while_a_call_waits_for_a_stream() {
    let server = Server::new()
        .add_service(silent())
        .max_concurrent_streams(1);
    let address = serve(server).await;
    let client = client_with(Channel::to(&address).max_connections(1)).await;
    // Takes the one stream, and waits until it has it.
    let mut first = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
    assert_eq!(
        within("the stream", first.1.message()).await.unwrap(),
        Some(raw("first"))
    );
    for status in ends_of_all_kinds(&client).await {
        assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{status:?}");
    }
    // Those that gave up while they waited leave nothing behind: the stream goes to the next.
    drop(first);
    let (_tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
    assert_eq!(
        within("the stream", rx.message()).await.unwrap(),
        Some(raw("first"))
    );
}

#[tokio::test]
async fn a_connect_timeout_is_no_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let channel = Channel::to(&address).connect_timeout(SHORT);
    let status = within("connecting", channel.connect()).await.unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status:?}");
    assert!(status.message().contains(&address), "{status:?}");
}

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
        let status = within(name, call.into_future()).await.unwrap_err();
        assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{name}: {status}");
    }
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
                tokio::time::sleep(SHORT).await;
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

#[tokio::test]
async fn a_handler_that_uses_up_its_budget_ends_at_its_deadline() {
    struct Guard(UnboundedSender<()>);
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
    let dropped = within("the handler is dropped", was_dropped.recv()).await;
    assert_eq!(dropped, Some(()));
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
        assert_not_late("the end", begun.elapsed(), SHORT);
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
                tokio::task::block_in_place(|| std::thread::sleep(SHORT * 6));
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
