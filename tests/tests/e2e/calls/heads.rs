//! The head of a call's response: what goes into which header block, and what a caller learns of it when
//! the call fails.

use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::DuplexStream;
use trunkline::limits::ChannelLimits;
use trunkline::server::Methods;
use trunkline::{
    Call, Channel, Client, Code, Compress, Context, Metadata, Next, Raw, Request, ResponseHandle,
    Result, Sender, Server, Service, Status, Streaming,
};
use trunkline_testkit::{Fields, Frame, RawPeer, Received, channel_over, message};
use trunkline_tests::fixture::{
    BIDI, CLIENT, Kind, SERVER, UNARY, With, both_ways, client_of, nothing, raw, serve, within,
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

/// What a handler says of its response before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Nothing,
    Metadata,
    SendHead,
    Both,
    /// An encoding, which is no metadata.
    Compress,
}

impl Says {
    const ALL: [Self; 5] = [
        Self::Nothing,
        Self::Metadata,
        Self::SendHead,
        Self::Both,
        Self::Compress,
    ];

    fn of(metadata: &Metadata) -> Self {
        let name = metadata.get("x-says").unwrap_or_default();
        let says = Self::ALL.into_iter().find(|it| format!("{it:?}") == name);
        says.unwrap_or(Self::Nothing)
    }

    /// To a response that ends with `ABORTED` if the caller wants it to.
    fn say(self, response: &ResponseHandle, metadata: &Metadata) -> Result<()> {
        if matches!(self, Self::Metadata | Self::Both) {
            response.metadata("x-head", "of the handler")?;
        }
        if matches!(self, Self::SendHead | Self::Both) {
            response.send_head();
        }
        if self == Self::Compress {
            response.compress(Compress::On);
        }
        response.trailer("x-trailer", "at the end")?;
        match metadata.contains_key("x-fails") {
            true => Err(Status::aborted("as was asked")),
            false => Ok(()),
        }
    }

    fn has_head(self) -> bool {
        matches!(self, Self::Metadata | Self::SendHead | Self::Both)
    }
}

fn say<T>(request: &Request<T>) -> Result<()> {
    let metadata = request.metadata();
    Says::of(metadata).say(request.response(), metadata)
}

/// Ends each call in the poll in which it begins, after having said what the caller wants.
fn hasty() -> impl Service {
    With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
            say(&request).map(|()| raw("response"))
        });
        methods.server_streaming(
            SERVER,
            &nothing(),
            |_, request: Request<Raw>, _: Sender<Raw>| async move { say(&request) },
        );
        methods.client_streaming(
            CLIENT,
            &nothing(),
            |_, request: Request<Streaming<Raw>>| async move {
                say(&request).map(|()| raw("response"))
            },
        );
        methods.bidi_streaming(
            BIDI,
            &nothing(),
            |_, request: Request<Streaming<Raw>>, _: Sender<Raw>| async move { say(&request) },
        );
    })
}

async fn raw_client(server: Server) -> RawPeer<DuplexStream> {
    let (near, far) = tokio::io::duplex(1 << 20);
    tokio::spawn(server.serve_connection(far));
    RawPeer::client(near, &[]).await
}

async fn answered(peer: &mut RawPeer<DuplexStream>, head: &Fields) -> Received {
    let stream = peer.call(head, message(b"")).await;
    peer.until_end(stream).await;
    peer.stream(stream)
}

fn has_encodings(block: &Fields) -> bool {
    ["grpc-encoding", "grpc-accept-encoding"]
        .iter()
        .any(|name| block.all(name).count() > 0)
}

fn assert_blocks(received: &Received, says: Says, has_messages: bool, status: &str, case: &str) {
    let head = received.head.as_ref().expect("a head");
    assert_eq!(head.text("content-type").unwrap(), "application/grpc");
    let wanted = match says {
        Says::Metadata | Says::Both => Some("of the handler".to_owned()),
        _ => None,
    };
    assert_eq!(head.text("x-head"), wanted, "{case}");
    let end = match &received.trailers {
        Some(trailers) => trailers,
        None => head,
    };
    assert_eq!(end.text("grpc-status").as_deref(), Some(status), "{case}");
    assert_eq!(
        end.text("x-trailer").as_deref(),
        Some("at the end"),
        "{case}"
    );
    for once in ["grpc-status", "x-trailer", "content-type"] {
        assert_eq!(received.count(once), 1, "{case}: {once}");
    }
    let is_in_two = says.has_head() || has_messages;
    assert_eq!(received.trailers.is_some(), is_in_two, "{case}");
    if !is_in_two {
        assert!(!has_encodings(head), "{case}: {head:?}");
    }
}

#[tokio::test]
async fn a_head_that_the_handler_asks_for_is_a_header_block_of_its_own_also_if_it_ends_at_once() {
    let mut peer = raw_client(Server::new().add_service(hasty())).await;
    for kind in Kind::ALL {
        for says in Says::ALL {
            for (fails, status) in [(false, "0"), (true, "10")] {
                let case = format!("{kind:?}, {says:?}, {status}");
                let mut head = Fields::call(kind.method().path())
                    .and("grpc-encoding", "gzip")
                    .and("grpc-accept-encoding", "gzip")
                    .and("x-says", format!("{says:?}"));
                if fails {
                    head = head.and("x-fails", "yes");
                }
                let received = answered(&mut peer, &head).await;
                let is_one = matches!(kind, Kind::Unary | Kind::ClientStreaming);
                assert_blocks(&received, says, is_one && !fails, status, &case);
            }
        }
    }
}

#[tokio::test]
async fn what_an_interceptor_puts_into_the_head_stays_there_when_it_refuses_the_call() {
    async fn refuse(mut cx: Context, _: Next) -> Result<()> {
        if Says::of(cx.metadata()) == Says::Metadata {
            cx.response_metadata_mut()?
                .insert("x-head", "of the handler")?;
        }
        cx.response_trailers_mut()
            .insert("x-trailer", "at the end")?;
        Err(Status::aborted("as was asked"))
    }
    let mut peer = raw_client(Server::new().intercept(refuse).add_service(hasty())).await;
    for kind in Kind::ALL {
        for says in [Says::Nothing, Says::Metadata] {
            let head = Fields::call(kind.method().path())
                .and("x-fails", "yes")
                .and("x-says", format!("{says:?}"));
            let received = answered(&mut peer, &head).await;
            assert_blocks(&received, says, false, "10", &format!("{kind:?}, {says:?}"));
        }
    }
}

#[tokio::test]
async fn a_refusal_is_one_header_block_without_encodings_but_that_of_an_encoding_names_them() {
    let mut peer = raw_client(Server::new().add_service(hasty())).await;
    let call = || Fields::call(UNARY.path());
    for (name, head) in [
        ("an unknown method", Fields::call("/test.Fixture/No")),
        ("no time", call().and("grpc-timeout", "0n")),
        ("a timeout that is none", call().and("grpc-timeout", "x")),
        (
            "another codec",
            call().with("content-type", "application/grpc+x"),
        ),
        ("no gRPC", call().with("content-type", "text/plain")),
        ("another method", call().with(":method", "PUT")),
    ] {
        let received = answered(&mut peer, &head.and("grpc-accept-encoding", "gzip")).await;
        let head = received.head.expect("a head");
        assert!(head.text("grpc-status").is_some(), "{name}");
        assert!(!has_encodings(&head), "{name}: {head:?}");
        assert_eq!(received.trailers, None, "{name}");
    }
    let received = answered(&mut peer, &call().and("grpc-encoding", "zebra")).await;
    let (head, trailers) = (received.head.expect("a head"), received.trailers);
    let accepted = head.text("grpc-accept-encoding");
    assert_eq!(accepted.as_deref(), Some("identity,gzip,deflate"));
    assert_eq!(head.text("grpc-status"), None);
    let status = trailers.and_then(|trailers| trailers.text("grpc-status"));
    assert_eq!(status.as_deref(), Some("12"));
}

/// The status with which a call of this kind ends.
async fn failed(client: &Client, kind: Kind, add: &[(&str, &str)]) -> Status {
    let method = kind.method();
    match kind {
        Kind::Unary => {
            let call = client.unary::<Raw, Raw>(method, raw("x"));
            with(call, add).await.unwrap_err()
        }
        Kind::ServerStreaming => {
            let call = client.server_streaming::<Raw, Raw>(method, raw("x"));
            with(call, add).await.unwrap().message().await.unwrap_err()
        }
        Kind::ClientStreaming => {
            let call = client.client_streaming::<Raw, Raw>(method);
            with(call, add).await.unwrap().finish().await.unwrap_err()
        }
        Kind::Bidi => {
            let call = client.bidi_streaming::<Raw, Raw>(method);
            let (_tx, mut rx) = with(call, add).await.unwrap();
            rx.message().await.unwrap_err()
        }
    }
}

fn with<T>(call: Call<T>, metadata: &[(&str, &str)]) -> Call<T> {
    let add = |call: Call<T>, (key, value): &(&str, &str)| call.metadata(key, value);
    metadata.iter().fold(call, add)
}

#[tokio::test]
async fn the_status_of_a_failed_call_has_the_metadata_of_its_head() {
    for (way, client) in both_ways(hasty).await {
        for kind in Kind::ALL {
            let case = format!("{way}, {kind:?}");
            let add = [("x-fails", "yes"), ("x-says", "Metadata")];
            let status = within(&case, failed(&client, kind, &add)).await;
            assert_eq!(status.to_string(), "ABORTED: as was asked", "{case}");
            assert_eq!(
                status.response_metadata().get("x-head"),
                Some("of the handler"),
                "{case}"
            );
            assert_eq!(status.response_metadata().get("x-trailer"), None, "{case}");
            assert_eq!(
                status.metadata().get("x-trailer"),
                Some("at the end"),
                "{case}"
            );
            assert_eq!(status.metadata().get("x-head"), None, "{case}");

            let status = within(&case, failed(&client, kind, &add[..1])).await;
            assert!(status.response_metadata().is_empty(), "{case}: {status:?}");
            assert_eq!(
                status.metadata().get("x-trailer"),
                Some("at the end"),
                "{case}"
            );
        }
    }
}

#[tokio::test]
async fn an_interceptor_of_the_client_sees_the_head_of_a_failed_call_and_may_change_its_end() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let address = serve(Server::new().add_service(hasty())).await;
    let channel = Channel::connect(&address).await.unwrap();
    let client = Client::new(channel.intercept(move |mut cx: Context, next: Next| {
        let log = log.clone();
        async move {
            let status = next.run(&mut cx).await.unwrap_err();
            let head = status.response_metadata().get("x-head").map(str::to_owned);
            log.lock().unwrap().push(head);
            Err(Status::not_found("changed"))
        }
    }));
    for kind in Kind::ALL {
        let add = [("x-fails", "yes"), ("x-says", "Metadata")];
        let status = within("a call", failed(&client, kind, &add)).await;
        assert_eq!(status.to_string(), "NOT_FOUND: changed", "{kind:?}");
        assert_eq!(
            status.response_metadata().get("x-head"),
            Some("of the handler"),
            "{kind:?}"
        );
    }
    let expected = vec![Some("of the handler".to_owned()); 4];
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[tokio::test]
async fn the_head_of_a_failed_call_is_there_also_if_this_end_has_failed_it() {
    let (client, mut peer) = raw_server().await;
    let head = |stream| Frame::headers(stream, &Fields::response().and("x-head", "yes"));
    // Not UTF-8, and so no `google.protobuf.StringValue`.
    let broken = message(b"\x0a\x01\xff");
    for is_whole in [true, false] {
        let call = client.unary::<String, String>(UNARY, String::new());
        let call = tokio::spawn(call.into_future());
        let stream = peer.next_full_request().await;
        let data = Frame::data(stream, broken.clone());
        let end = Frame::headers(stream, &Fields::trailers("0")).ending();
        match is_whole {
            true => peer.write(&[head(stream), data, end]).await,
            false => {
                peer.write(&[head(stream)]).await;
                assert!(peer.settle().await);
                peer.write(&[data, end]).await;
            }
        }
        let status = within("the response", call).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::INTERNAL);
        assert_eq!(
            status.response_metadata().get("x-head"),
            Some("yes"),
            "{is_whole}"
        );
    }

    let call = client.unary::<Raw, Raw>(UNARY, raw("x"));
    let call = tokio::spawn(call.timeout(Duration::from_millis(100)).into_future());
    let stream = peer.next_full_request().await;
    peer.write(&[head(stream)]).await;
    let status = within("the deadline", call).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    assert_eq!(status.response_metadata().get("x-head"), Some("yes"));

    let call = client.server_streaming::<String, String>(SERVER, String::new());
    let mut responses = call.await.unwrap();
    let stream = peer.next_full_request().await;
    let data = Frame::data(stream, broken);
    peer.write(&[head(stream), data]).await;
    let status = within("a message", responses.message()).await.unwrap_err();
    assert_eq!(status.response_metadata().get("x-head"), Some("yes"));
    let again = within("a message", responses.message()).await.unwrap_err();
    assert_eq!(again.response_metadata().get("x-head"), Some("yes"));
}

#[tokio::test]
async fn the_head_of_a_failed_call_is_not_passed_on_to_the_caller_of_the_handler() {
    let far = client_of(&serve(Server::new().add_service(hasty())).await).await;
    let make = || {
        let far = Arc::new(far.clone());
        With(move |methods: &mut Methods| {
            methods.unary(
                UNARY,
                &far,
                |far: Arc<Client>, request: Request<Raw>| async move {
                    let add = [("x-fails", "yes"), ("x-says", "Metadata")];
                    let call = with(far.unary::<Raw, Raw>(UNARY, raw("x")), &add);
                    let response = match request.0.is_empty() {
                        true => call.await,
                        false => call.await.map_err(Status::forward),
                    };
                    Ok(response?.into_inner())
                },
            );
        })
    };
    for (way, client) in both_ways(make).await {
        for (request, forwarded) in [("", None), ("forward", Some("at the end"))] {
            let call = client.unary::<Raw, Raw>(UNARY, raw(request));
            let status = within(way, call.into_future()).await.unwrap_err();
            assert_eq!(status.to_string(), "ABORTED: as was asked", "{way}");
            assert_eq!(status.metadata().get("x-trailer"), forwarded, "{way}");
            assert_eq!(status.metadata().get("x-head"), None, "{way}");
            assert!(status.response_metadata().is_empty(), "{way}: {status:?}");
        }
    }
}

/// Sends its head at once, counts the requests, and fails if there are none.
fn adding() -> impl Service {
    With(|methods: &mut Methods| {
        methods.client_streaming(
            CLIENT,
            &nothing(),
            |_, mut requests: Request<Streaming<Raw>>| async move {
                requests.response().metadata("x-head", "first")?;
                requests.response().send_head();
                let mut count = 0;
                while requests.message().await?.is_some() {
                    count += 1;
                }
                match count {
                    0 => Err(Status::out_of_range("nothing to add")),
                    _ => Ok(raw(vec![7; count])),
                }
            },
        );
    })
}

#[tokio::test]
async fn a_client_stream_has_the_head_before_its_requests_end_and_half_closes_before_it_waits() {
    for (way, client) in both_ways(adding).await {
        let mut call = client.client_streaming::<Raw, Raw>(CLIENT).await.unwrap();
        for _ in 0..2 {
            let head = within(way, call.head()).await.unwrap();
            assert_eq!(head.get("x-head"), Some("first"), "{way}");
            within(way, call.send(raw("x"))).await.unwrap();
        }
        call.half_close();
        let status = within(way, call.send(raw("x"))).await.unwrap_err();
        assert_eq!(status.code(), Code::FAILED_PRECONDITION, "{way}: {status}");
        call.half_close();
        assert_eq!(
            *within(way, call.finish()).await.unwrap(),
            raw(vec![7; 2]),
            "{way}"
        );

        let mut call = client.client_streaming::<Raw, Raw>(CLIENT).await.unwrap();
        call.half_close();
        within(way, call.head()).await.unwrap();
        let status = within(way, call.finish()).await.unwrap_err();
        assert_eq!(status.code(), Code::OUT_OF_RANGE, "{way}");
        assert_eq!(
            status.response_metadata().get("x-head"),
            Some("first"),
            "{way}"
        );
    }
}

#[tokio::test]
async fn a_client_stream_that_fails_without_a_head_says_so_where_the_head_is_asked_for() {
    for (way, client) in both_ways(hasty).await {
        let call = with(
            client.client_streaming::<Raw, Raw>(CLIENT),
            &[("x-fails", "yes")],
        );
        let mut call = call.await.unwrap();
        let status = within(way, call.head()).await.unwrap_err();
        assert_eq!(status.to_string(), "ABORTED: as was asked", "{way}");
        let status = within(way, call.finish()).await.unwrap_err();
        assert_eq!(status.to_string(), "ABORTED: as was asked", "{way}");
    }
}
