//! Interceptors of both sides around calls of all four kinds.

use std::future::{IntoFuture, pending};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use trunkline::server::Methods;
use trunkline::{
    Channel, Client, Code, Context, Interceptor, Metadata, Next, Raw, Request, Response, Result,
    Sender, Server, Service, Status, Streaming,
};
use trunkline_tests::fixture::{
    BIDI, CLIENT, Echo, Kind, SERVER, UNARY, With, client_of, nothing, raw, serve, within,
};

/// On which side interceptors are, and whether a socket is in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
    ClientInProcess,
    ServerInProcess,
}

pub(super) const SIDES: [Side; 4] = [
    Side::Client,
    Side::Server,
    Side::ClientInProcess,
    Side::ServerInProcess,
];

/// A client of `service` with one interceptor somewhere.
pub(super) async fn with_one<S: Service>(
    side: Side,
    service: S,
    interceptor: impl Interceptor,
) -> Client {
    match side {
        Side::Client => {
            let client = client_of(&serve(Server::new().add_service(service)).await).await;
            Client::new(client.channel().clone().intercept(interceptor))
        }
        Side::Server => {
            client_of(&serve(Server::new().add_service(service).intercept(interceptor)).await).await
        }
        Side::ClientInProcess => {
            let channel = Channel::in_process(Server::new().add_service(service));
            Client::new(channel.intercept(interceptor))
        }
        Side::ServerInProcess => {
            let server = Server::new().add_service(service).intercept(interceptor);
            Client::new(Channel::in_process(server))
        }
    }
}

/// A whole call of one kind against [`Echo`]; gives all bytes that came back.
pub(super) async fn whole_call(client: &Client, kind: Kind) -> Result<Vec<u8>> {
    let call = async {
        let mut all = Vec::new();
        match kind {
            Kind::Unary => all.extend(
                client
                    .unary::<Raw, Raw>(UNARY, raw("abc"))
                    .await?
                    .into_inner()
                    .0,
            ),
            Kind::ServerStreaming => {
                let mut responses = client
                    .server_streaming::<Raw, Raw>(SERVER, raw("abc"))
                    .await?;
                while let Some(message) = responses.message().await? {
                    all.extend(message.0);
                }
            }
            Kind::ClientStreaming => {
                let mut stream = client.client_streaming::<Raw, Raw>(CLIENT).await?;
                for part in ["a", "b", "c"] {
                    stream.send(raw(part)).await?;
                }
                all.extend(stream.finish().await?.into_inner().0);
            }
            Kind::Bidi => {
                let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await?;
                for part in ["a", "b", "c"] {
                    tx.send(raw(part)).await?;
                    all.extend(rx.message().await?.unwrap_or_default().0);
                }
                tx.finish();
                if let Some(more) = rx.message().await? {
                    all.extend(more.0);
                }
            }
        }
        Ok(all)
    };
    within("the call", call).await
}

type Log = Arc<Mutex<Vec<String>>>;

fn note(log: &Log, entry: impl Into<String>) {
    log.lock().expect("no test panics here").push(entry.into());
}

/// Notes when a call begins and how it ends.
fn logging(log: &Log, name: &'static str) -> impl Interceptor + use<> {
    let log = log.clone();
    move |mut cx: Context, next: Next| {
        let log = log.clone();
        async move {
            note(&log, format!("{name} begins {}", cx.path()));
            let end = next.run(&mut cx).await;
            note(&log, format!("{name} ends {}", end.is_ok()));
            end
        }
    }
}

#[tokio::test]
async fn the_first_that_was_added_is_the_outermost_on_both_sides() {
    for kind in Kind::ALL {
        let log = Log::default();
        let server = Server::new()
            .add_service(Echo)
            .intercept(logging(&log, "server 1"))
            .intercept(logging(&log, "server 2"));
        let client = client_of(&serve(server).await).await;
        let channel = client.channel().clone();
        let channel = channel
            .intercept(logging(&log, "client 1"))
            .intercept(logging(&log, "client 2"));
        assert_eq!(
            whole_call(&Client::new(channel), kind).await.unwrap(),
            b"abc",
            "{kind:?}"
        );
        let path = kind.method();
        let expected = [
            format!("client 1 begins {path}"),
            format!("client 2 begins {path}"),
            format!("server 1 begins {path}"),
            format!("server 2 begins {path}"),
            "server 2 ends true".to_owned(),
            "server 1 ends true".to_owned(),
            "client 2 ends true".to_owned(),
            "client 1 ends true".to_owned(),
        ];
        assert_eq!(*log.lock().unwrap(), expected, "{kind:?}");
        // The channel it was made from has none.
        whole_call(&client, kind).await.unwrap();
        assert_eq!(log.lock().unwrap().len(), 12, "{kind:?}");
    }
}

/// Says what metadata each handler sees.
fn reader_of_metadata() -> impl Service {
    fn seen<T>(request: &Request<T>) -> Raw {
        let all: Vec<_> = request.metadata().get_all("x-added").collect();
        raw(all.join("+"))
    }
    With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
            Ok(seen(&request))
        });
        methods.server_streaming(
            SERVER,
            &nothing(),
            |_, request: Request<Raw>, mut responses: Sender<Raw>| async move {
                responses.send(seen(&request)).await
            },
        );
        methods.client_streaming(
            CLIENT,
            &nothing(),
            |_, requests: Request<Streaming<Raw>>| async move { Ok(seen(&requests)) },
        );
        methods.bidi_streaming(
            BIDI,
            &nothing(),
            |_, mut requests: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
                responses.send(seen(&requests)).await?;
                while requests.message().await?.is_some() {
                    responses.send(raw("")).await?;
                }
                Ok(())
            },
        );
    })
}

#[tokio::test]
async fn an_interceptor_changes_the_metadata_that_the_handler_sees() {
    for side in SIDES {
        let adding = |mut cx: Context, next: Next| async move {
            cx.metadata_mut().append("x-added", "one")?;
            cx.metadata_mut().append("x-added", "two")?;
            next.run(&mut cx).await
        };
        let client = with_one(side, reader_of_metadata(), adding).await;
        for kind in Kind::ALL {
            let seen = whole_call(&client, kind).await.unwrap();
            assert_eq!(seen, b"one+two", "{side:?} {kind:?}");
        }
    }
}

/// Counts handlers that ran.
fn running(ran: &UnboundedSender<()>) -> impl Service + use<> {
    let ran = ran.clone();
    With(move |methods: &mut Methods| {
        let ran = Arc::new(ran);
        methods.unary(
            UNARY,
            &ran,
            |ran: Arc<UnboundedSender<()>>, request: Request<Raw>| async move {
                let _ = ran.send(());
                Ok(request.into_inner())
            },
        );
        methods.server_streaming(
            SERVER,
            &ran,
            |ran: Arc<UnboundedSender<()>>, _: Request<Raw>, _: Sender<Raw>| async move {
                let _ = ran.send(());
                Ok(())
            },
        );
        methods.client_streaming(
            CLIENT,
            &ran,
            |ran: Arc<UnboundedSender<()>>, _: Request<Streaming<Raw>>| async move {
                let _ = ran.send(());
                Ok(raw(""))
            },
        );
        methods.bidi_streaming(
            BIDI,
            &ran,
            |ran: Arc<UnboundedSender<()>>, _: Request<Streaming<Raw>>, _: Sender<Raw>| async move {
                let _ = ran.send(());
                Ok(())
            },
        );
    })
}

#[tokio::test]
async fn an_interceptor_rejects_a_call_before_its_handler_runs() {
    for side in SIDES {
        let (ran, mut runs) = unbounded_channel();
        let rejecting =
            |_: Context, _: Next| async { Err(Status::unauthenticated("who are you?")) };
        let client = with_one(side, running(&ran), rejecting).await;
        for kind in Kind::ALL {
            let status = whole_call(&client, kind).await.unwrap_err();
            assert_eq!(
                status.code(),
                Code::UNAUTHENTICATED,
                "{side:?} {kind:?}: {status:?}"
            );
            assert_eq!(status.message(), "who are you?", "{side:?} {kind:?}");
        }
        assert!(runs.try_recv().is_err(), "{side:?}: a handler ran");
    }
}

#[tokio::test]
async fn an_interceptor_that_never_calls_next_and_says_ok_is_internal() {
    for side in SIDES {
        let (ran, mut runs) = unbounded_channel();
        let silent = |_: Context, _: Next| async { Ok(()) };
        let client = with_one(side, running(&ran), silent).await;
        for kind in Kind::ALL {
            let end = whole_call(&client, kind).await;
            let status = end.expect_err(&format!("{side:?} {kind:?}"));
            assert_eq!(
                status.code(),
                Code::INTERNAL,
                "{side:?} {kind:?}: {status:?}"
            );
            assert!(
                status.message().contains("a call that has no response"),
                "{status:?}"
            );
        }
        assert!(runs.try_recv().is_err(), "{side:?}: a handler ran");
    }
}

/// Handlers that all fail, those of streams after a message.
fn failing() -> impl Service {
    With(|methods: &mut Methods| {
        let end = || Status::not_found("nothing here");
        methods.unary(UNARY, &nothing(), move |_, _: Request<Raw>| async move {
            Err::<Raw, _>(end())
        });
        methods.server_streaming(
            SERVER,
            &nothing(),
            move |_, _: Request<Raw>, mut responses: Sender<Raw>| async move {
                responses.send(raw("x")).await?;
                Err(end())
            },
        );
        methods.client_streaming(
            CLIENT,
            &nothing(),
            move |_, mut requests: Request<Streaming<Raw>>| async move {
                while requests.message().await?.is_some() {}
                Err::<Raw, _>(end())
            },
        );
        methods.bidi_streaming(
            BIDI,
            &nothing(),
            move |_, mut requests: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
                while let Some(message) = requests.message().await? {
                    responses.send(message).await?;
                }
                Err(end())
            },
        );
    })
}

#[tokio::test]
async fn an_interceptor_sees_how_a_call_ended_and_maps_it() {
    for side in SIDES {
        let (seen, mut sees) = unbounded_channel();
        let mapping = move |mut cx: Context, next: Next| {
            let seen = seen.clone();
            async move {
                let end = next.run(&mut cx).await;
                let _ = seen.send(end.as_ref().map_err(Status::code).err());
                end.map_err(|status| Status::data_loss(format!("mapped: {}", status.message())))
            }
        };
        let client = with_one(side, failing(), mapping).await;
        for kind in Kind::ALL {
            let status = whole_call(&client, kind).await.unwrap_err();
            assert_eq!(
                status.code(),
                Code::DATA_LOSS,
                "{side:?} {kind:?}: {status:?}"
            );
            assert_eq!(
                status.message(),
                "mapped: nothing here",
                "{side:?} {kind:?}"
            );
            assert_eq!(
                sees.recv().await.unwrap(),
                Some(Code::NOT_FOUND),
                "{side:?} {kind:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_interceptor_fails_a_call_that_ended_well() {
    for side in SIDES {
        let failing = |mut cx: Context, next: Next| async move {
            next.run(&mut cx).await?;
            Err(Status::aborted("after all"))
        };
        let client = with_one(side, Echo, failing).await;
        for kind in Kind::ALL {
            let status = whole_call(&client, kind).await.unwrap_err();
            assert_eq!(
                status.code(),
                Code::ABORTED,
                "{side:?} {kind:?}: {status:?}"
            );
        }
    }
}

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_timeout_set_in_an_interceptor_ends_the_call() {
    let stuck = || {
        With(|methods: &mut Methods| {
            Echo.add_to(methods);
            methods.unary(UNARY, &nothing(), |_, _: Request<Raw>| {
                pending::<Result<Raw>>()
            });
        })
    };
    for side in SIDES {
        let limiting = |mut cx: Context, next: Next| async move {
            cx.shorten_deadline(SHORT);
            next.run(&mut cx).await
        };
        let client = with_one(side, stuck(), limiting).await;
        let status = whole_call(&client, Kind::Unary).await.unwrap_err();
        assert_eq!(
            status.code(),
            Code::DEADLINE_EXCEEDED,
            "{side:?}: {status:?}"
        );
    }
}

#[tokio::test]
async fn a_timeout_set_in_an_interceptor_needs_no_help_of_the_server() {
    // Takes calls and never responses: only the client can end them.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let mut open = Vec::new();
        while let Some(Ok(call)) = connection.accept().await {
            open.push(call);
        }
    });
    let channel = client_of(&address).await.channel().clone();
    let channel = channel.intercept(|mut cx: Context, next: Next| async move {
        cx.shorten_deadline(SHORT);
        next.run(&mut cx).await
    });
    let client = Client::new(channel);
    for kind in Kind::ALL {
        let status = whole_call(&client, kind).await.unwrap_err();
        assert_eq!(
            status.code(),
            Code::DEADLINE_EXCEEDED,
            "{kind:?}: {status:?}"
        );
    }
}

/// Says when it is dropped.
pub(super) struct Guard(
    pub(super) UnboundedSender<&'static str>,
    pub(super) &'static str,
);

impl Drop for Guard {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send(self.1);
    }
}

/// Handlers that go on until they are dropped.
fn endless(dropped: &UnboundedSender<&'static str>) -> impl Service + use<> {
    let dropped = dropped.clone();
    With(move |methods: &mut Methods| {
        methods.bidi_streaming(
            BIDI,
            &Arc::new(dropped),
            |dropped: Arc<UnboundedSender<_>>,
             _: Request<Streaming<Raw>>,
             mut responses: Sender<Raw>| async move {
                let _guard = Guard(UnboundedSender::clone(&dropped), "handler");
                responses.send(raw("begun")).await?;
                pending().await
            },
        );
    })
}

async fn begin(client: &Client) -> (Sender<Raw>, Streaming<Raw>) {
    let (tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
    let begun = within("the call begins", rx.message()).await;
    assert_eq!(begun.unwrap(), Some(raw("begun")));
    (tx, rx)
}

async fn both_dropped(drops: &mut UnboundedReceiver<&'static str>, case: Side) {
    let mut dropped = Vec::new();
    for _ in 0..2 {
        dropped.push(within("a drop", drops.recv()).await.unwrap());
    }
    dropped.sort_unstable();
    assert_eq!(dropped, ["handler", "interceptor"], "{case:?}");
}

#[tokio::test]
async fn a_cancelled_call_drops_its_interceptors_and_its_handler() {
    for side in SIDES {
        let (dropped, mut drops) = unbounded_channel();
        let handlers = endless(&dropped);
        let guarding = move |mut cx: Context, next: Next| {
            let guard = Guard(dropped.clone(), "interceptor");
            async move {
                let _guard = guard;
                next.run(&mut cx).await
            }
        };
        let client = with_one(side, handlers, guarding).await;
        let call = begin(&client).await;
        assert!(drops.try_recv().is_err(), "{side:?}: too early");
        drop(call);
        both_dropped(&mut drops, side).await;
    }
}

#[tokio::test]
async fn an_interceptor_that_gives_up_on_the_rest_drops_the_handler() {
    for side in SIDES {
        let (dropped, mut drops) = unbounded_channel();
        let handlers = endless(&dropped);
        let impatient = move |mut cx: Context, next: Next| {
            let guard = Guard(dropped.clone(), "interceptor");
            async move {
                let _guard = guard;
                match tokio::time::timeout(SHORT, next.run(&mut cx)).await {
                    Ok(end) => end,
                    Err(_) => Err(Status::aborted("no patience")),
                }
            }
        };
        let client = with_one(side, handlers, impatient).await;
        let (_tx, mut rx) = begin(&client).await;
        let status = within("the end", rx.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::ABORTED, "{side:?}: {status:?}");
        both_dropped(&mut drops, side).await;
    }
}

#[tokio::test]
async fn messages_flow_while_an_interceptor_waits_for_the_end() {
    for side in SIDES {
        let log = Log::default();
        let client = with_one(side, Echo, logging(&log, "it")).await;
        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        for i in 0..500_u32 {
            // Now and then more than fits on the way at once.
            let size = if i % 100 == 0 { 100_000 } else { 10 };
            let sent = raw(vec![i as u8; size]);
            let (sending, receiving) = within("an echo", async {
                tokio::join!(tx.send(sent.clone()), rx.message())
            })
            .await;
            sending.unwrap();
            assert_eq!(receiving.unwrap(), Some(sent), "{side:?} {i}");
            assert_eq!(
                log.lock().unwrap().len(),
                1,
                "{side:?}: it has ended too early"
            );
        }
        tx.finish();
        assert_eq!(within("the end", rx.message()).await.unwrap(), None);
        let entries = log.lock().unwrap().clone();
        assert_eq!(entries.last().unwrap(), "it ends true", "{side:?}");
    }
}

/// Handlers that end at once, with `x-head` and `x-trailer` in their response; those of streams of
/// responses after a message, but for bidirectional ones.
fn with_metadata() -> impl Service {
    fn say<T>(request: &Request<T>) -> Result<()> {
        request.response().metadata("x-head", "handler")?;
        request.response().trailer("x-trailer", "handler")
    }
    With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
            say(&request).map(|()| raw("response"))
        });
        methods.server_streaming(
            SERVER,
            &nothing(),
            |_, request: Request<Raw>, mut responses: Sender<Raw>| async move {
                say(&request)?;
                responses.send(raw("response")).await
            },
        );
        methods.client_streaming(
            CLIENT,
            &nothing(),
            |_, mut request: Request<Streaming<Raw>>| async move {
                while request.message().await?.is_some() {}
                say(&request).map(|()| raw("response"))
            },
        );
        methods.bidi_streaming(
            BIDI,
            &nothing(),
            |_, mut request: Request<Streaming<Raw>>, _: Sender<Raw>| async move {
                while request.message().await?.is_some() {}
                say(&request)
            },
        );
    })
}

/// The metadata of the head and of the trailers, as the caller gets it.
async fn metadata_of(client: &Client, kind: Kind) -> Result<(Metadata, Metadata)> {
    async fn of_stream(mut responses: Streaming<Raw>) -> Result<(Metadata, Metadata)> {
        while responses.message().await?.is_some() {}
        let head = responses.head().await?.clone();
        let trailers = responses.trailers().cloned().unwrap_or_default();
        Ok((head, trailers))
    }
    let of_one =
        |response: Response<Raw>| Ok((response.metadata().clone(), response.trailers().clone()));
    let call = async {
        match kind {
            Kind::Unary => of_one(client.unary::<Raw, Raw>(UNARY, raw("x")).await?),
            Kind::ServerStreaming => {
                of_stream(
                    client
                        .server_streaming::<Raw, Raw>(SERVER, raw("x"))
                        .await?,
                )
                .await
            }
            Kind::ClientStreaming => {
                let stream = client.client_streaming::<Raw, Raw>(CLIENT).await?;
                of_one(stream.finish().await?)
            }
            Kind::Bidi => {
                let (sender, responses) = client.bidi_streaming::<Raw, Raw>(BIDI).await?;
                sender.finish();
                of_stream(responses).await
            }
        }
    };
    within("the call", call).await
}

fn all(metadata: &Metadata, key: &str) -> Vec<String> {
    metadata.get_all(key).map(str::to_owned).collect()
}

#[tokio::test]
async fn an_interceptor_sees_and_changes_the_metadata_of_the_response() {
    for side in SIDES {
        let (seen, mut sees) = unbounded_channel();
        let changing = move |mut cx: Context, next: Next| {
            let seen = seen.clone();
            async move {
                cx.response_metadata_mut()?.append("x-head", "before")?;
                cx.response_trailers_mut().append("x-trailer", "before")?;
                next.run(&mut cx).await?;
                let head = all(cx.response_metadata(), "x-head");
                let _ = seen.send((head, all(cx.response_trailers(), "x-trailer")));
                cx.response_trailers_mut().append("x-trailer", "after")?;
                if let Ok(head) = cx.response_metadata_mut() {
                    head.append("x-head", "after")?;
                }
                Ok(())
            }
        };
        let client = with_one(side, with_metadata(), changing).await;
        for kind in Kind::ALL {
            let case = format!("{side:?} {kind:?}");
            let (head, trailers) = metadata_of(&client, kind).await.expect(&case);
            let (seen_head, seen_trailers) = sees.recv().await.expect(&case);
            assert_eq!(seen_head, ["before", "handler"], "{case}");
            assert_eq!(seen_trailers, ["before", "handler"], "{case}");
            let whole = ["before", "handler", "after"];
            assert_eq!(all(&trailers, "x-trailer"), whole, "{case}");
            // The first message closes the head of a server's response.
            let is_closed = kind == Kind::ServerStreaming
                && matches!(side, Side::Server | Side::ServerInProcess);
            let len = if is_closed { 2 } else { 3 };
            assert_eq!(all(&head, "x-head"), whole[..len], "{case}");
        }
    }
}

#[tokio::test]
async fn a_head_that_has_gone_out_can_be_read_and_not_changed() {
    let handlers = || {
        With(|methods: &mut Methods| {
            methods.bidi_streaming(
                BIDI,
                &nothing(),
                |_, mut request: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
                    request.response().metadata("x-head", "handler")?;
                    responses.send(raw("begun")).await?;
                    while request.message().await?.is_some() {}
                    Ok(())
                },
            );
        })
    };
    for side in [Side::Server, Side::ServerInProcess] {
        let (seen, mut sees) = unbounded_channel();
        let late = move |mut cx: Context, next: Next| {
            let seen = seen.clone();
            async move {
                let end = next.run(&mut cx).await;
                let head = all(cx.response_metadata(), "x-head");
                let changed = cx.response_metadata_mut().map(|_| ());
                let _ = seen.send((head, changed.map_err(|status| status.code())));
                end
            }
        };
        let client = with_one(side, handlers(), late).await;
        let (tx, mut rx) = begin(&client).await;
        tx.finish();
        assert_eq!(within("the end", rx.message()).await.unwrap(), None);
        let (head, changed) = sees.recv().await.unwrap();
        assert_eq!(head, ["handler"], "{side:?}");
        assert_eq!(changed, Err(Code::FAILED_PRECONDITION), "{side:?}");
    }
}

#[tokio::test]
async fn what_a_refusing_interceptor_puts_into_the_response_arrives() {
    for side in SIDES {
        let refusing = |mut cx: Context, _: Next| async move {
            cx.response_metadata_mut()?.insert("x-head", "refused")?;
            cx.response_trailers_mut().insert("x-trailer", "refused")?;
            Err(Status::permission_denied("not today"))
        };
        let client = with_one(side, Echo, refusing).await;
        for kind in Kind::ALL {
            let case = format!("{side:?} {kind:?}");
            let status = whole_call(&client, kind).await.unwrap_err();
            assert_eq!(status.code(), Code::PERMISSION_DENIED, "{case}");
            assert_eq!(
                status.response_metadata().get("x-head"),
                Some("refused"),
                "{case}"
            );
            // A client's own trailers are no part of a status that it has made.
            if matches!(side, Side::Server | Side::ServerInProcess) {
                let trailer = status.metadata().get("x-trailer");
                assert_eq!(trailer, Some("refused"), "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_context_says_which_call_it_is_of() {
    for side in SIDES {
        let (seen, mut sees) = unbounded_channel();
        let telling = move |mut cx: Context, next: Next| {
            let seen = seen.clone();
            async move {
                let is_server = cx.side() == trunkline::Side::Server;
                let texts = [cx.path(), cx.service(), cx.method()].map(str::to_owned);
                let _ = seen.send((is_server, cx.kind(), texts, cx.peer().is_some()));
                assert_eq!(cx.time_remaining(), None);
                cx.shorten_deadline(Duration::from_secs(60));
                cx.shorten_deadline(Duration::from_secs(600));
                assert!(cx.time_remaining() <= Some(Duration::from_secs(60)));
                next.run(&mut cx).await
            }
        };
        let client = with_one(side, Echo, telling).await;
        for kind in Kind::ALL {
            let case = format!("{side:?} {kind:?}");
            whole_call(&client, kind).await.expect(&case);
            let (is_server, seen_kind, [path, service, method], has_peer) =
                sees.recv().await.expect(&case);
            let at_server = matches!(side, Side::Server | Side::ServerInProcess);
            assert_eq!(is_server, at_server, "{case}");
            assert_eq!(has_peer, side == Side::Server, "{case}");
            assert_eq!(path, kind.method().path(), "{case}");
            assert_eq!(format!("/{service}/{method}"), path, "{case}");
            let streams = (
                matches!(kind, Kind::ClientStreaming | Kind::Bidi),
                matches!(kind, Kind::ServerStreaming | Kind::Bidi),
            );
            let seen = (
                seen_kind.is_client_streaming(),
                seen_kind.is_server_streaming(),
            );
            assert_eq!(seen, streams, "{case}");
        }
    }
}

#[tokio::test]
async fn an_outer_interceptor_sees_afterwards_what_an_inner_one_has_left() {
    let outer = |seen: UnboundedSender<(Option<&'static str>, Vec<String>)>| {
        move |mut cx: Context, next: Next| {
            let seen = seen.clone();
            async move {
                cx.metadata_mut().append("x-way", "outer")?;
                let end = next.run(&mut cx).await;
                let left = cx.extensions().get::<&'static str>().copied();
                let _ = seen.send((left, all(cx.metadata(), "x-way")));
                end
            }
        }
    };
    let inner = |is_refused: bool| {
        move |mut cx: Context, next: Next| async move {
            cx.metadata_mut().append("x-way", "inner")?;
            cx.extensions_mut().insert("left by the inner one");
            match is_refused {
                true => Err(Status::unavailable("refused")),
                false => next.run(&mut cx).await,
            }
        }
    };
    for is_refused in [false, true] {
        let (seen, mut sees) = unbounded_channel();
        let server = Server::new()
            .add_service(Echo)
            .intercept(outer(seen.clone()))
            .intercept(inner(is_refused));
        let channel = Channel::in_process(Server::new().add_service(Echo))
            .intercept(outer(seen))
            .intercept(inner(is_refused));
        for channel in [Channel::in_process(server), channel] {
            for kind in Kind::ALL {
                let end = whole_call(&Client::new(channel.clone()), kind).await;
                assert_eq!(end.is_err(), is_refused, "{kind:?}");
                let (left, way) = sees.recv().await.unwrap();
                assert_eq!(left, Some("left by the inner one"), "{kind:?}");
                assert_eq!(way, ["outer", "inner"], "{kind:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_context_is_whole_after_its_interceptor_has_given_up_on_the_rest() {
    for side in SIDES {
        let (dropped, _drops) = unbounded_channel();
        let (seen, mut sees) = unbounded_channel();
        let impatient = move |mut cx: Context, next: Next| {
            let seen = seen.clone();
            async move {
                cx.metadata_mut().append("x-key", "value")?;
                let timeout = tokio::time::timeout(SHORT, next.run(&mut cx)).await;
                let _ = seen.send((timeout.is_err(), all(cx.metadata(), "x-key")));
                Err(Status::aborted("no patience"))
            }
        };
        let client = with_one(side, endless(&dropped), impatient).await;
        let (_tx, mut rx) = begin(&client).await;
        let status = within("the end", rx.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::ABORTED, "{side:?}: {status:?}");
        let expected = (true, vec!["value".to_owned()]);
        assert_eq!(sees.recv().await.unwrap(), expected, "{side:?}");
    }
}

#[tokio::test]
async fn calls_of_a_handler_inherit_the_deadline_that_an_interceptor_has_shortened() {
    let (seen, mut sees) = unbounded_channel();
    let backend = Channel::in_process(Server::new().add_service(Echo).intercept(
        move |mut cx: Context, next: Next| {
            let _ = seen.send(cx.time_remaining());
            async move { next.run(&mut cx).await }
        },
    ));
    let calling = With(move |methods: &mut Methods| {
        let backend = Arc::new(Client::new(backend));
        methods.unary(
            UNARY,
            &backend,
            |backend: Arc<Client>, request: Request<Raw>| async move {
                let call = backend.unary::<Raw, Raw>(UNARY, request.into_inner());
                call.await.map(Response::into_inner)
            },
        );
    });
    let shortening = |mut cx: Context, next: Next| async move {
        cx.shorten_deadline(Duration::from_secs(60));
        next.run(&mut cx).await
    };
    let client = with_one(Side::ServerInProcess, calling, shortening).await;
    whole_call(&client, Kind::Unary).await.unwrap();
    let remaining = sees.recv().await.unwrap().expect("a deadline");
    assert!(remaining <= Duration::from_secs(60), "{remaining:?}");
}

#[tokio::test]
async fn an_interceptor_of_a_server_adds_to_the_head_and_the_trailers_of_responses() {
    let adding = |mut cx: Context, next: Next| async move {
        cx.response_metadata_mut()?.append("x-head", "added")?;
        let end = next.run(&mut cx).await;
        cx.response_trailers_mut().append("x-trailer", "added")?;
        end
    };
    for side in [Side::Server, Side::ServerInProcess] {
        let client = with_one(side, Echo, adding).await;
        let call = client.unary::<Raw, Raw>(UNARY, raw("x"));
        let response = within("the call", call.into_future()).await.unwrap();
        assert_eq!(response.metadata().get("x-head"), Some("added"), "{side:?}");
        assert_eq!(
            response.trailers().get("x-trailer"),
            Some("added"),
            "{side:?}"
        );
    }
}

/// H21: a panic there is as one in a handler.
#[tokio::test]
async fn a_panic_in_an_interceptor_of_a_server_is_internal_and_the_connection_lives() {
    let panicking = |mut cx: Context, next: Next| async move {
        assert!(!cx.metadata().contains_key("x-panic"), "a test");
        next.run(&mut cx).await
    };
    for side in [Side::Server, Side::ServerInProcess] {
        let client = with_one(side, Echo, panicking).await;
        let call = client
            .unary::<Raw, Raw>(UNARY, raw("x"))
            .metadata("x-panic", "yes");
        let status = within("the call", call.into_future()).await.unwrap_err();
        assert_eq!(status.code(), Code::INTERNAL, "{side:?}: {status:?}");
        let call = client.unary::<Raw, Raw>(UNARY, raw("x"));
        assert_eq!(
            *within("the call", call.into_future()).await.unwrap(),
            raw("x")
        );
    }
}

#[tokio::test]
async fn names_are_told_before_interceptors_unless_they_are_hidden() {
    let server = Server::new()
        .add_service(Echo)
        .intercept(|_: Context, _: Next| async {
            Err::<(), _>(Status::unauthenticated("nobody is let in"))
        });
    for (server, expected) in [
        (
            server.clone(),
            "unknown method Unari of test.Fixture; did you mean Unary?",
        ),
        (server.hide_names(), "unknown method Unari of test.Fixture"),
    ] {
        let client = client_of(&serve(server).await).await;
        let method = trunkline::Method::new("/test.Fixture/Unari");
        let call = client.unary::<_, Raw>(method, raw("x"));
        let status = call.await.unwrap_err();
        assert_eq!(status.code(), Code::UNIMPLEMENTED);
        assert_eq!(status.message(), expected);
    }
}
