//! What users rely on: heads, trailers, details, compression, errors of the network, layers, and
//! the life of a server.

use std::convert::Infallible;
use std::future::{IntoFuture, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use trunkline::details::{ErrorInfo, RetryInfo};
use trunkline::server::Methods;
use trunkline::tower::Body;
use trunkline::tower::LayeredService;
use trunkline::{
    Channel, Client, Code, Compress, Method, Raw, Request, Result, Sender, Server, Service, Status,
    Streaming,
};
use trunkline_tests::fixture::{
    BIDI, CLIENT, Echo, SERVER, UNARY, With, both_ways, client_of, client_with, nothing, raw,
    serve, within,
};

#[tokio::test]
async fn the_head_can_come_before_the_first_message() {
    let go_on = Arc::new(Notify::new());
    let make = || {
        let go_on = go_on.clone();
        With(move |methods: &mut Methods| {
            methods.server_streaming(
                SERVER,
                &go_on,
                |go_on: Arc<Notify>, request: Request<Raw>, mut responses: Sender<Raw>| async move {
                    request.response().metadata("x-early", "yes")?;
                    request.response().send_head();
                    go_on.notified().await;
                    // Too late for the head, and in time for the trailers.
                    let late = request.response().metadata("x-late", "no").unwrap_err();
                    assert_eq!(late.code(), Code::FAILED_PRECONDITION);
                    request.response().trailer("x-late", "yes")?;
                    responses.send(raw("message")).await
                },
            );
            methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
                request.response().metadata("x-early", "yes")?;
                request.response().send_head();
                tokio::task::yield_now().await;
                Ok(raw("response"))
            });
        })
    };
    for (way, client) in both_ways(make).await {
        let mut responses = client
            .server_streaming::<Raw, Raw>(SERVER, raw(""))
            .await
            .unwrap();
        let head = within(way, responses.head()).await.unwrap();
        assert_eq!(head.get("x-early"), Some("yes"), "{way}");
        assert!(responses.trailers().is_none());
        go_on.notify_one();
        assert_eq!(
            within(way, responses.message()).await.unwrap(),
            Some(raw("message"))
        );
        assert_eq!(within(way, responses.message()).await.unwrap(), None);
        assert_eq!(
            responses.trailers().unwrap().get("x-late"),
            Some("yes"),
            "{way}"
        );

        let response = client.unary::<Raw, Raw>(UNARY, raw("")).await.unwrap();
        assert_eq!(response.metadata().get("x-early"), Some("yes"), "{way}");
        assert_eq!(*response, raw("response"));
    }
}

/// Sends the client's metadata back, in the head and in the trailers.
fn mirror() -> impl Service {
    fn reflect<T>(request: &Request<T>) -> Result<()> {
        let response = request.response();
        for text in request.metadata().get_all("x-text") {
            response.metadata("x-head", text)?;
            response.trailer("x-trailer", text)?;
        }
        for bytes in request.metadata().get_all_bin("x-bytes-bin") {
            response.metadata_bin("x-head-bin", &bytes)?;
            response.trailer_bin("x-trailer-bin", &bytes)?;
        }
        Ok(())
    }
    With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
            reflect(&request)?;
            match request.0.is_empty() {
                true => Err(Status::aborted("with trailers")),
                false => Ok(request.into_inner()),
            }
        });
        methods.bidi_streaming(
            BIDI,
            &nothing(),
            |_, mut requests: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
                reflect(&requests)?;
                while let Some(message) = requests.message().await? {
                    responses.send(message).await?;
                }
                Err(Status::aborted("with trailers"))
            },
        );
    })
}

#[tokio::test]
async fn metadata_passes_both_ways_in_heads_and_trailers_also_of_errors() {
    let bytes = [&[0_u8, 255, 128][..], b"", b"plain"];
    let check = |metadata: &trunkline::Metadata, key: &str, case: &str| {
        let text: Vec<_> = metadata.get_all(key).collect();
        assert_eq!(text, ["one", "two, with a comma"], "{case} {key}");
        let all: Vec<_> = metadata.get_all_bin(&format!("{key}-bin")).collect();
        assert_eq!(all, bytes, "{case} {key}");
    };
    for (way, client) in both_ways(mirror).await {
        let unary = |message: &'static str| {
            let mut call = client
                .unary::<Raw, Raw>(UNARY, raw(message))
                .metadata("x-text", "one")
                .metadata("x-text", "two, with a comma");
            for bytes in bytes {
                call = call.metadata_bin("x-bytes-bin", bytes);
            }
            within(way, call.into_future())
        };
        let response = unary("x").await.unwrap();
        check(response.metadata(), "x-head", way);
        check(response.trailers(), "x-trailer", way);
        let status = unary("").await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::ABORTED, "with trailers")
        );
        check(status.metadata(), "x-trailer", way);

        let mut call = client
            .bidi_streaming::<Raw, Raw>(BIDI)
            .metadata("x-text", "one");
        call = call.metadata("x-text", "two, with a comma");
        for bytes in bytes {
            call = call.metadata_bin("x-bytes-bin", bytes);
        }
        let (mut tx, mut rx) = call.await.unwrap();
        tx.send(raw("x")).await.unwrap();
        check(within(way, rx.head()).await.unwrap(), "x-head", way);
        tx.finish();
        assert_eq!(within(way, rx.message()).await.unwrap(), Some(raw("x")));
        let status = within(way, rx.message()).await.unwrap_err();
        check(status.metadata(), "x-trailer", way);
        check(rx.trailers().unwrap(), "x-trailer", way);
    }
}

#[tokio::test]
async fn metadata_that_is_not_allowed_fails_the_call_before_it_is_sent() {
    let calls = Arc::new(AtomicUsize::new(0));
    let make = || counting(&calls);
    for (way, client) in both_ways(make).await {
        let call = || client.unary::<Raw, Raw>(UNARY, raw("x"));
        for (call, why) in [
            (call().metadata("Upper Case", "x"), "key"),
            (call().metadata("x-key", "new\nline"), "value"),
            (call().metadata("x-key-bin", "text"), "binary"),
            (call().metadata_bin("x-key", b"bytes"), "text"),
            (call().metadata("grpc-status", "0"), "reserved"),
        ] {
            let status = within(way, call.into_future()).await.unwrap_err();
            assert_eq!(status.code(), Code::INTERNAL, "{way} {why}: {status:?}");
        }
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0, "a call was sent");
}

/// Echoes, and counts.
fn counting(calls: &Arc<AtomicUsize>) -> impl Service + use<> {
    let calls = calls.clone();
    With(move |methods: &mut Methods| {
        methods.unary(
            UNARY,
            &calls,
            |calls: Arc<AtomicUsize>, request: Request<Raw>| async move {
                calls.fetch_add(1, Ordering::SeqCst);
                Ok(request.into_inner())
            },
        );
    })
}

fn detailed() -> Status {
    Status::resource_exhausted("too much: 100 %, é")
        .with_detail(ErrorInfo::new("QUOTA", "example.com").with_entry("limit", "10"))
        .with_detail(RetryInfo::after(Duration::from_millis(1500)))
}

fn assert_detailed(status: &Status, case: &str) {
    assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED, "{case}");
    assert_eq!(status.message(), "too much: 100 %, é", "{case}");
    let info: ErrorInfo = status.detail().expect("an ErrorInfo");
    assert_eq!(
        (info.reason.as_str(), info.domain.as_str()),
        ("QUOTA", "example.com"),
        "{case}"
    );
    let retry: RetryInfo = status.detail().expect("a RetryInfo");
    assert_eq!(retry.delay(), Some(Duration::from_millis(1500)), "{case}");
}

#[tokio::test]
async fn details_of_errors_pass_before_and_after_messages() {
    let make = || {
        With(|methods: &mut Methods| {
            methods.unary(UNARY, &nothing(), |_, _: Request<Raw>| async {
                Err::<Raw, _>(detailed())
            });
            methods.server_streaming(
                SERVER,
                &nothing(),
                |_, _: Request<Raw>, mut responses: Sender<Raw>| async move {
                    responses.send(raw("x")).await?;
                    Err(detailed())
                },
            );
        })
    };
    for (way, client) in both_ways(make).await {
        let call = client.unary::<Raw, Raw>(UNARY, raw(""));
        assert_detailed(&within(way, call.into_future()).await.unwrap_err(), way);
        let mut responses = client
            .server_streaming::<Raw, Raw>(SERVER, raw(""))
            .await
            .unwrap();
        assert_eq!(
            within(way, responses.message()).await.unwrap(),
            Some(raw("x"))
        );
        assert_detailed(&within(way, responses.message()).await.unwrap_err(), way);
    }
}

#[tokio::test]
async fn the_details_of_a_downstream_status_are_passed_on_only_if_it_is_forwarded() {
    let far = With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, _: Request<Raw>| async {
            let mut status = detailed();
            status.metadata_mut().append("x-secret", "yes")?;
            Err::<Raw, _>(status)
        });
    });
    let far = client_of(&serve(Server::new().add_service(far)).await).await;
    let make = || {
        let far = far.clone();
        With(move |methods: &mut Methods| {
            let far = Arc::new(far);
            methods.unary(
                UNARY,
                &far,
                |far: Arc<Client>, request: Request<Raw>| async move {
                    let is_forwarding = !request.0.is_empty();
                    let call = far.unary::<Raw, Raw>(UNARY, request.into_inner());
                    match is_forwarding {
                        true => Ok(call.await.map_err(Status::forward)?.into_inner()),
                        false => Ok(call.await?.into_inner()),
                    }
                },
            );
            // The same in trailers behind a head and a message.
            methods.server_streaming(
                SERVER,
                &far,
                |far: Arc<Client>, request: Request<Raw>, mut responses: Sender<Raw>| async move {
                    request.response().send_head();
                    responses.send(raw("first")).await?;
                    let is_forwarding = !request.0.is_empty();
                    let call = far.unary::<Raw, Raw>(UNARY, request.into_inner());
                    match is_forwarding {
                        true => call.await.map_err(Status::forward)?,
                        false => call.await?,
                    };
                    Ok(())
                },
            );
        })
    };
    let assert_passed_on = |way: &str, status: Status, is_forwarded: bool| {
        assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED, "{way}");
        assert_eq!(status.message(), "too much: 100 %, é", "{way}");
        let secret = status.metadata().get("x-secret");
        match is_forwarded {
            true => assert_detailed(&status, way),
            false => assert!(status.details().is_empty(), "{way}: {status:?}"),
        }
        assert_eq!(secret, is_forwarded.then_some("yes"), "{way}");
    };
    for (way, client) in both_ways(make).await {
        for (request, is_forwarded) in [("", false), ("forward", true)] {
            let call = client.unary::<Raw, Raw>(UNARY, raw(request));
            let status = within(way, call.into_future()).await.unwrap_err();
            assert_passed_on(way, status, is_forwarded);
            let call = client.server_streaming::<Raw, Raw>(SERVER, raw(request));
            let mut responses = call.await.unwrap();
            let first = within(way, responses.message()).await.unwrap();
            assert_eq!(first, Some(raw("first")), "{way}");
            let status = within(way, responses.message()).await.unwrap_err();
            assert_passed_on(way, status, is_forwarded);
        }
    }
}

/// Replies compressed to every second message, and says whether each request was.
fn every_second() -> impl Service {
    With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
            request.response().compress(Compress::On);
            Ok(raw(vec![u8::from(request.is_compressed()); 1000]))
        });
        methods.bidi_streaming(
            BIDI,
            &nothing(),
            |_, mut requests: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
                let mut next = Compress::On;
                while requests.message().await?.is_some() {
                    responses.compress(next);
                    // The request's own method of that name knows nothing of the stream's messages.
                    let was = u8::from(Streaming::is_compressed(&requests));
                    responses.send(raw(vec![was; 1000])).await?;
                    next = match next {
                        Compress::On => Compress::Off,
                        _ => Compress::On,
                    };
                }
                Ok(())
            },
        );
    })
}

#[tokio::test]
async fn messages_are_compressed_one_by_one_in_both_directions() {
    for (way, client) in both_ways(every_second).await {
        let call = client
            .unary::<Raw, Raw>(UNARY, raw(vec![0; 1000]))
            .compress("gzip");
        let response = within(way, call.into_future()).await.unwrap();
        assert!(response.is_compressed() && response.0[0] == 1, "{way}");
        let call = client.unary::<Raw, Raw>(UNARY, raw(vec![0; 1000]));
        let response = within(way, call.into_future()).await.unwrap();
        assert!(response.is_compressed() && response.0[0] == 0, "{way}");

        let call = client.bidi_streaming::<Raw, Raw>(BIDI).compress("gzip");
        let (mut tx, mut rx) = call.await.unwrap();
        for (i, compress) in [Compress::On, Compress::Off, Compress::Off, Compress::On]
            .into_iter()
            .enumerate()
        {
            tx.compress(compress);
            tx.send(raw(vec![0; 1000])).await.unwrap();
            let response = within(way, rx.message()).await.unwrap().unwrap();
            assert_eq!(
                response.0[0] == 1,
                compress == Compress::On,
                "{way}: request {i}"
            );
            assert_eq!(rx.is_compressed(), i % 2 == 0, "{way}: response {i}");
        }
        tx.finish();
        assert_eq!(within(way, rx.message()).await.unwrap(), None);

        let call = client.unary::<Raw, Raw>(UNARY, raw("x")).compress("snappy");
        let status = within(way, call.into_future()).await.unwrap_err();
        assert_eq!(status.code(), Code::INTERNAL, "{status:?}");
        assert!(status.message().contains("snappy"), "{status:?}");
    }
}

#[tokio::test]
async fn a_client_that_accepts_no_encoding_gets_messages_as_they_are() {
    let address = serve(Server::new().add_service(every_second())).await;
    let client = client_with(Channel::to(&address).no_compression()).await;
    let response = client.unary::<Raw, Raw>(UNARY, raw("x")).await.unwrap();
    assert!(!response.is_compressed());
    assert_eq!(response.0.len(), 1000);
}

/// H21: what a panic takes with it.
#[tokio::test]
async fn a_panic_in_a_handler_is_internal_and_its_neighbours_live() {
    let make = || {
        With(|methods: &mut Methods| {
            Echo.add_to(methods);
            methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
                match &request.0[..] {
                    b"at once" => panic!("a test"),
                    b"later" => {
                        tokio::task::yield_now().await;
                        panic!("a test")
                    }
                    _ => Ok(request.into_inner()),
                }
            });
            methods.server_streaming(
                SERVER,
                &nothing(),
                |_, _: Request<Raw>, mut responses: Sender<Raw>| async move {
                    responses.send(raw("x")).await?;
                    tokio::task::yield_now().await;
                    panic!("a test")
                },
            );
            methods.client_streaming(
                CLIENT,
                &nothing(),
                |_, mut requests: Request<Streaming<Raw>>| async move {
                    while requests.message().await?.is_some() {}
                    match requests.path().len() {
                        0 => Ok(raw("")),
                        _ => panic!("a test"),
                    }
                },
            );
        })
    };
    for (way, client) in both_ways(make).await {
        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        for round in ["at once", "later"] {
            let call = client.unary::<Raw, Raw>(UNARY, raw(round));
            let status = within(way, call.into_future()).await.unwrap_err();
            assert_eq!(status.code(), Code::INTERNAL, "{way} {round}");
            // The text of a panic is nothing for the peer.
            assert!(!status.message().contains("a test"), "{way}: {status:?}");

            let mut responses = client
                .server_streaming::<Raw, Raw>(SERVER, raw(""))
                .await
                .unwrap();
            assert_eq!(
                within(way, responses.message()).await.unwrap(),
                Some(raw("x"))
            );
            let status = within(way, responses.message()).await.unwrap_err();
            assert_eq!(status.code(), Code::INTERNAL, "{way} in mid-stream");

            let stream = client.client_streaming::<Raw, Raw>(CLIENT).await.unwrap();
            let status = within(way, stream.finish()).await.unwrap_err();
            assert_eq!(status.code(), Code::INTERNAL, "{way} after the requests");

            tx.send(raw(round)).await.unwrap();
            assert_eq!(
                within(way, rx.message()).await.unwrap(),
                Some(raw(round)),
                "{way}"
            );
            let call = client.unary::<Raw, Raw>(UNARY, raw("good"));
            assert_eq!(*within(way, call.into_future()).await.unwrap(), raw("good"));
        }
    }
}

struct Other;

impl Service for Other {
    const NAME: &'static str = "test.Other";

    fn add_to(self, methods: &mut Methods) {
        methods.unary(
            Method::new("/test.Other/Unary"),
            &Arc::new(self),
            |_, _: Request<Raw>| async { Ok(raw("other")) },
        );
    }
}

#[tokio::test]
async fn several_services_share_a_server_and_what_is_unknown_is_named() {
    let client = client_of(&serve(Server::new().add_service(Echo).add_service(Other)).await).await;
    let call = |path: &str| {
        let call = client.unary::<Raw, Raw>(Method::from(path.to_owned()), raw("echo"));
        within("the call", call.into_future())
    };
    assert_eq!(*call("/test.Fixture/Unary").await.unwrap(), raw("echo"));
    assert_eq!(*call("/test.Other/Unary").await.unwrap(), raw("other"));
    for (path, names) in [
        ("/test.Other/Missing", ["test.Other", "Missing"]),
        ("/test.Missing/Unary", ["test.Missing", "service"]),
        ("/test.other/Unary", ["test.other", "service"]),
    ] {
        let status = call(path).await.unwrap_err();
        assert_eq!(status.code(), Code::UNIMPLEMENTED, "{path}");
        for name in names {
            assert!(status.message().contains(name), "{path}: {status:?}");
        }
    }
}

#[tokio::test]
async fn a_port_in_use_and_a_port_where_nothing_listens_are_named_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let status = Server::new().bind(&address).await.unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status:?}");
    for part in [&address, "another process"] {
        assert!(status.message().contains(part), "{status:?}");
    }
    drop(taken);
    let status = within("connecting", Channel::connect(&address))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status:?}");
    for part in [&address, "nothing listens"] {
        assert!(status.message().contains(part), "{status:?}");
    }
    // A lazy channel says the same, when a call is made.
    let client = Client::new(Channel::to(&address).connect_lazy().unwrap());
    let call = client.unary::<Raw, Raw>(UNARY, raw("x"));
    let status = within("the call", call.into_future()).await.unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status:?}");
    assert!(status.message().contains("nothing listens"), "{status:?}");
}

#[tokio::test]
async fn a_unix_socket_serves_calls_and_its_file_goes_with_the_server() {
    let directory = std::env::temp_dir().join(format!("trunkline-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("calls.sock");
    let address = format!("unix:{}", path.display());
    for _ in 0..2 {
        let bound = Server::new()
            .add_service(Echo)
            .bind(&address)
            .await
            .unwrap();
        assert_eq!(bound.local_addr().to_string(), address);
        let again = Server::new().bind(&address).await.unwrap_err();
        assert_eq!(again.code(), Code::UNAVAILABLE, "{again:?}");
        let serving = tokio::spawn(bound.serve());
        let client = client_of(&address).await;
        let call = client.unary::<Raw, Raw>(UNARY, raw("x"));
        assert_eq!(
            *within("the call", call.into_future()).await.unwrap(),
            raw("x")
        );
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert!(!path.exists(), "the file stays");
        let status = within("connecting", Channel::connect(&address))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::UNAVAILABLE, "{status:?}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn a_channel_goes_over_a_router_as_over_any_tower_service() {
    let client = Client::new(Channel::new(Server::new().add_service(Echo).into_router()));
    let all = async {
        assert_eq!(*client.unary::<Raw, Raw>(UNARY, raw("x")).await?, raw("x"));
        let mut responses = client
            .server_streaming::<Raw, Raw>(SERVER, raw("ab"))
            .await?;
        assert_eq!(responses.message().await?, Some(raw("a")));
        assert_eq!(responses.message().await?, Some(raw("b")));
        assert_eq!(responses.message().await?, None);
        let mut stream = client.client_streaming::<Raw, Raw>(CLIENT).await?;
        stream.send(raw("a")).await?;
        stream.send(raw("b")).await?;
        assert_eq!(*stream.finish().await?, raw("ab"));
        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await?;
        for message in ["a", "b"] {
            tx.send(raw(message)).await?;
            assert_eq!(rx.message().await?, Some(raw(message)));
        }
        tx.finish();
        assert_eq!(rx.message().await?, None);
        Ok::<_, Status>(())
    };
    within("all kinds", all).await.unwrap();
}

/// A tower service that fails at every call with an error of its own.
#[derive(Clone)]
struct Failing;

#[derive(Debug)]
struct Foreign;

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the breaker is open")
    }
}

impl std::error::Error for Foreign {}

impl tower_service::Service<http::Request<Body>> for Failing {
    type Response = http::Response<Body>;
    type Error = Foreign;
    type Future = std::future::Ready<std::result::Result<http::Response<Body>, Foreign>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Foreign>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        std::future::ready(Err(Foreign))
    }
}

#[tokio::test]
async fn an_error_of_a_tower_service_under_a_channel_is_unavailable_and_says_why() {
    let client = Client::new(Channel::new(Failing));
    let call = client.unary::<Raw, Raw>(UNARY, raw("x"));
    let status = within("the call", call.into_future()).await.unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status:?}");
    assert!(
        status.message().contains("the breaker is open"),
        "{status:?}"
    );
}

/// A layer that counts, and lets through, rejects with a status, or fails, as the metadata says.
#[derive(Clone)]
struct Gate(Arc<AtomicUsize>);

#[derive(Clone)]
struct Gated {
    service: LayeredService,
    passed: Arc<AtomicUsize>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl tower_layer::Layer<LayeredService> for Gate {
    type Service = Gated;

    fn layer(&self, service: LayeredService) -> Gated {
        Gated {
            service,
            passed: self.0.clone(),
        }
    }
}

impl tower_service::Service<http::Request<Body>> for Gated {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future =
        Pin<Box<dyn Future<Output = std::result::Result<http::Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.passed.fetch_add(1, Ordering::SeqCst);
        let word = request
            .headers()
            .get("x-gate")
            .map(|word| word.as_bytes().to_vec());
        match word.as_deref() {
            Some(b"reject") => {
                Box::pin(async { Err(Status::permission_denied("not through here").into()) })
            }
            Some(b"fail") => Box::pin(async { Err(Foreign.into()) }),
            _ => {
                let calling = self.service.call(request);
                Box::pin(async move { Ok(calling.await?) })
            }
        }
    }
}

#[tokio::test]
async fn tower_layers_on_a_server_see_count_and_refuse_calls() {
    let passed = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let server = Server::new().add_service(Echo);
    let server = server
        .layer(Gate(passed[0].clone()))
        .layer(Gate(passed[1].clone()));
    let client = client_of(&serve(server).await).await;
    let call = |word: &str| {
        let call = client
            .unary::<Raw, Raw>(UNARY, raw("x"))
            .metadata("x-gate", word);
        within("the call", call.into_future())
    };
    assert_eq!(*call("open").await.unwrap(), raw("x"));
    let mut responses = client
        .server_streaming::<Raw, Raw>(SERVER, raw("ab"))
        .await
        .unwrap();
    for expected in [Some(raw("a")), Some(raw("b")), None] {
        assert_eq!(
            within("the stream", responses.message()).await.unwrap(),
            expected
        );
    }
    assert_eq!(
        passed[1].load(Ordering::SeqCst),
        2,
        "the inner layer sees both"
    );
    let status = call("reject").await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::PERMISSION_DENIED, "not through here")
    );
    let status = call("fail").await.unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status:?}");
    assert!(
        status.message().contains("the breaker is open"),
        "{status:?}"
    );
    assert_eq!(
        passed[0].load(Ordering::SeqCst),
        4,
        "the outer layer sees all"
    );
    assert_eq!(
        passed[1].load(Ordering::SeqCst),
        2,
        "the first that was added is further out"
    );
}

/// Plain HTTP beside gRPC.
#[derive(Clone)]
struct Page;

impl tower_service::Service<http::Request<Body>> for Page {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<std::result::Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let page = format!("this is {}", request.uri().path());
        std::future::ready(Ok(http::Response::new(Body::full(page.into(), None))))
    }
}

#[tokio::test]
async fn requests_that_are_not_grpc_go_to_the_fallback_or_are_refused_as_http() {
    let with = serve(Server::new().add_service(Echo).fallback(Page)).await;
    let without = serve(Server::new().add_service(Echo)).await;
    for (address, method, content_type, status, page) in [
        (&with, "GET", None, 200, "this is /health"),
        (
            &with,
            "POST",
            Some("application/json"),
            200,
            "this is /health",
        ),
        (
            &without,
            "GET",
            None,
            405,
            "the method is GET and must be POST: this is a gRPC server; call it with a gRPC client, or with grpcurl\n",
        ),
        (&without, "HEAD", None, 405, ""),
        (
            &without,
            "POST",
            Some("application/json"),
            415,
            "the content-type is \"application/json\" and must be application/grpc: this is a gRPC server; call it with a gRPC client, or with grpcurl\n",
        ),
    ] {
        let socket = TcpStream::connect(address).await.unwrap();
        let (mut send, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::builder()
            .method(method)
            .uri("http://localhost/health");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let (response, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
        let response = within("the page", response).await.unwrap();
        assert_eq!(response.status(), status, "{method} {content_type:?}");
        let mut body = response.into_body();
        let data = within("the page", body.data()).await;
        assert_eq!(data.map_or_else(Bytes::new, |data| data.unwrap()), page);
    }
    // The fallback takes nothing that is gRPC.
    let client = client_of(&with).await;
    let unknown = client.unary::<Raw, Raw>(Method::new("/health"), raw(""));
    let status = within("the call", unknown.into_future()).await.unwrap_err();
    assert_eq!(status.code(), Code::UNIMPLEMENTED, "{status:?}");
}

/// A call that goes on until it is told to end.
fn patient(go_on: &Arc<Notify>) -> impl Service + use<> {
    let go_on = go_on.clone();
    With(move |methods: &mut Methods| {
        Echo.add_to(methods);
        methods.server_streaming(
            SERVER,
            &go_on,
            |go_on: Arc<Notify>, _: Request<Raw>, mut responses: Sender<Raw>| async move {
                responses.send(raw("begun")).await?;
                go_on.notified().await;
                responses.send(raw("done")).await
            },
        );
    })
}

#[tokio::test]
async fn a_server_that_shuts_down_finishes_running_calls_and_clients_go_to_the_next() {
    let go_on = Arc::new(Notify::new());
    let (stop, stopped) = oneshot::channel::<()>();
    let bound = Server::new()
        .add_service(patient(&go_on))
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let address = bound.local_addr().to_string();
    let serving = tokio::spawn(bound.serve_until(async {
        let _ = stopped.await;
    }));
    let client = client_of(&address).await;
    let mut running = client
        .server_streaming::<Raw, Raw>(SERVER, raw(""))
        .await
        .unwrap();
    assert_eq!(
        within("the call", running.message()).await.unwrap(),
        Some(raw("begun"))
    );
    stop.send(()).unwrap();

    // The port is free while the old call still runs: a new server takes over. Until the client has
    // been told to go, calls are still answered; none is lost.
    let next = loop {
        match Server::new().add_service(Other).bind(&address).await {
            Ok(next) => break next,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    tokio::spawn(next.serve());
    let other = Method::new("/test.Other/Unary");
    let moved = async {
        loop {
            match client.unary::<Raw, Raw>(other.clone(), raw("")).await {
                Ok(response) => return response.into_inner(),
                // The old server, before its GOAWAY or while it goes.
                Err(status) => assert_eq!(status.code(), Code::UNIMPLEMENTED, "{status:?}"),
            }
        }
    };
    assert_eq!(within("the next server", moved).await, raw("other"));
    assert!(
        !serving.is_finished(),
        "the server did not wait for its call"
    );

    go_on.notify_one();
    assert_eq!(
        within("the call", running.message()).await.unwrap(),
        Some(raw("done"))
    );
    assert_eq!(within("the call", running.message()).await.unwrap(), None);
    within("the old server", serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_shuts_down_waits_no_longer_than_its_grace() {
    let go_on = Arc::new(Notify::new());
    let server = Server::new().add_service(patient(&go_on));
    let server = server.with_limits(|limits| limits.drain_grace = Duration::from_millis(100));
    let bound = server.bind("127.0.0.1:0").await.unwrap();
    let address = bound.local_addr().to_string();
    let stop = Arc::new(Notify::new());
    let stopped = stop.clone();
    let serving = tokio::spawn(bound.serve_until(async move { stopped.notified().await }));
    let client = client_of(&address).await;
    let mut running = client
        .server_streaming::<Raw, Raw>(SERVER, raw(""))
        .await
        .unwrap();
    within("the call", running.message()).await.unwrap();
    stop.notify_one();
    within("the server", serving).await.unwrap().unwrap();
    let status = within("the call", running.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status:?}");
}

#[tokio::test]
async fn a_server_whose_future_is_dropped_closes_everything_and_clients_find_its_successor() {
    let mut address = String::new();
    let mut client: Option<Client> = None;
    for life in 0..3 {
        let server = Server::new().add_service(patient(&Arc::new(Notify::new())));
        let bound = match life {
            0 => {
                let bound = server.bind("127.0.0.1:0").await.unwrap();
                address = bound.local_addr().to_string();
                bound
            }
            _ => server.bind(&address).await.unwrap(),
        };
        let serving = tokio::spawn(bound.serve());
        let client = client
            .get_or_insert_with(|| Client::new(Channel::to(&address).connect_lazy().unwrap()));
        // The one before may have been found gone: the next attempt is after a pause.
        let running = client.server_streaming::<Raw, Raw>(SERVER, raw(""));
        let running = running.wait_for_ready().into_future();
        let mut running = within("the server", running).await.unwrap();
        let begun = within("the call", running.message()).await;
        assert_eq!(begun.unwrap(), Some(raw("begun")), "life {life}");
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        let status = within("the call", running.message()).await.unwrap_err();
        assert_eq!(status.code(), Code::UNAVAILABLE, "life {life}: {status:?}");
        let call = client.unary::<Raw, Raw>(UNARY, raw("x"));
        let status = within("no server", call.into_future()).await.unwrap_err();
        assert_eq!(status.code(), Code::UNAVAILABLE, "life {life}: {status:?}");
    }
}

/// The items of a list as a stream.
struct Items(std::vec::IntoIter<Raw>);

impl Stream for Items {
    type Item = Raw;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Raw>> {
        Poll::Ready(self.0.next())
    }
}

fn items(count: u32) -> (Vec<Raw>, Items) {
    let all: Vec<_> = (0..count).map(|i| raw(i.to_be_bytes().to_vec())).collect();
    (all.clone(), Items(all.into_iter()))
}

#[tokio::test]
async fn streams_can_be_sent_whole_and_responses_are_streams() {
    for (way, client) in both_ways(|| Echo).await {
        let (all, stream) = items(1000);
        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        let sending = async {
            tx.send_all(stream).await.unwrap();
            tx.finish();
        };
        let receiving = async {
            let mut received = Vec::new();
            while let Some(item) = poll_fn(|cx| Pin::new(&mut rx).poll_next(cx)).await {
                received.push(item.unwrap());
            }
            received
        };
        let ((), received) = within(way, async { tokio::join!(sending, receiving) }).await;
        assert_eq!(received, all, "{way}");

        let (all, stream) = items(1000);
        let mut upload = client.client_streaming::<Raw, Raw>(CLIENT).await.unwrap();
        within(way, upload.send_all(stream)).await.unwrap();
        let response = within(way, upload.finish()).await.unwrap();
        let expected: Vec<u8> = all.iter().flat_map(|item| item.0.to_vec()).collect();
        assert_eq!(response.0, expected, "{way}");
    }
}

#[tokio::test]
async fn a_stream_gives_its_error_once_and_is_over() {
    for (way, client) in both_ways(mirror).await {
        let (tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        tx.finish();
        let next = within(way, poll_fn(|cx| Pin::new(&mut rx).poll_next(cx))).await;
        assert_eq!(next.unwrap().unwrap_err().code(), Code::ABORTED, "{way}");
        assert!(
            within(way, poll_fn(|cx| Pin::new(&mut rx).poll_next(cx)))
                .await
                .is_none()
        );
        // Asked by name, it says the same again.
        assert_eq!(
            rx.message().await.unwrap_err().code(),
            Code::ABORTED,
            "{way}"
        );
    }
}

#[tokio::test]
async fn a_sender_hears_that_its_call_has_ended() {
    let make = || {
        With(|methods: &mut Methods| {
            methods.bidi_streaming(
                BIDI,
                &nothing(),
                |_, mut requests: Request<Streaming<Raw>>, _: Sender<Raw>| async move {
                    requests.message().await?;
                    Err(Status::aborted("enough"))
                },
            );
        })
    };
    for (way, client) in both_ways(make).await {
        let (mut tx, mut rx) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
        let early = tokio::time::timeout(Duration::ZERO, tx.closed()).await;
        assert!(early.is_err(), "{way}: closed before it was");
        tx.send(raw("x")).await.unwrap();
        within(way, tx.closed()).await;
        assert_eq!(
            tx.send(raw("x")).await.unwrap_err().code(),
            Code::CANCELLED,
            "{way}"
        );
        assert_eq!(
            within(way, rx.message()).await.unwrap_err().code(),
            Code::ABORTED,
            "{way}"
        );
    }
}

/// A handler may hand its sender to a task, which has to hear of the end by itself.
#[tokio::test]
async fn a_sender_in_a_task_of_its_own_hears_that_the_client_is_gone() {
    let heard = Arc::new(Notify::new());
    let make = || {
        let heard = heard.clone();
        With(move |methods: &mut Methods| {
            methods.server_streaming(
                SERVER,
                &heard,
                |heard: Arc<Notify>, _: Request<Raw>, mut responses: Sender<Raw>| async move {
                    responses.send(raw("begun")).await?;
                    tokio::spawn(async move {
                        responses.closed().await;
                        heard.notify_one();
                    });
                    pending().await
                },
            );
        })
    };
    for (way, client) in both_ways(make).await {
        let mut responses = client
            .server_streaming::<Raw, Raw>(SERVER, raw(""))
            .await
            .unwrap();
        assert_eq!(
            within(way, responses.message()).await.unwrap(),
            Some(raw("begun"))
        );
        drop(responses);
        within(way, heard.notified()).await;
    }
}

#[tokio::test]
async fn a_request_knows_its_path_and_its_peer() {
    let make = || {
        With(|methods: &mut Methods| {
            methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
                let peer = request.peer().map(|peer| peer.remote().to_string());
                Ok(raw(Bytes::from(format!("{} {peer:?}", request.path()))))
            });
        })
    };
    let [(_, socket), (_, here)] = both_ways(make).await;
    let response = socket.unary::<Raw, Raw>(UNARY, raw("")).await.unwrap();
    assert!(
        response
            .0
            .starts_with(b"/test.Fixture/Unary Some(\"127.0.0.1:"),
        "{response:?}"
    );
    let response = here.unary::<Raw, Raw>(UNARY, raw("")).await.unwrap();
    assert_eq!(*response, raw("/test.Fixture/Unary None"));
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
                        tokio::time::sleep(Duration::from_millis(10)).await;
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
        let message = within(&format!("message {i}"), stream.message()).await;
        assert!(message.unwrap().is_some());
    }
}
