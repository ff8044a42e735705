//! Credentials of channels and calls: where they are sent, where never, and what they cost.

use std::future::{IntoFuture, pending};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use trunkline::credentials::{
    BearerToken, CachedToken, CallCredentials, CallInfo, SecurityLevel, Token,
};
use trunkline::server::Methods;
use trunkline::testing::in_memory;
use trunkline::tower::Body;
use trunkline::{Channel, Client, Code, Metadata, Method, Raw, Request, Result, Server, Status};
use trunkline_testkit::{Authority, Fields, Frame, MemoryNet, Received, error, message};
use trunkline_tests::fixture::{
    self, BIDI, CLIENT, Echo, SERVER, UNARY, With, nothing, raw, serve, within,
};
use trunkline_tests::own_process::{own_process, passes};
use trunkline_tests::tls_ends::{self, LOCAL, server_tls, trusting};

/// Responds with all values of `authorization`.
fn telling() -> With<impl FnOnce(&mut Methods)> {
    With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
            let values: Vec<_> = request.metadata().get_all("authorization").collect();
            Ok(raw(values.join(", ")))
        });
    })
}

async fn told(client: &Client) -> Result<String> {
    text(client.unary::<_, Raw>(UNARY, raw("x")).await)
}

fn text(response: Result<trunkline::Response<Raw>>) -> Result<String> {
    Ok(String::from_utf8_lossy(&response?.0).into_owned())
}

fn token(text: &str) -> BearerToken {
    BearerToken::new(text).expect("a token")
}

/// Credentials of a closure.
struct Custom<F>(F);

impl<F, Fut> CallCredentials for Custom<F>
where
    F: Fn(CallInfo) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Metadata>> + Send,
{
    fn metadata(&self, call: &CallInfo) -> impl Future<Output = Result<Metadata>> + Send {
        (self.0)(call.clone())
    }
}

#[tokio::test]
async fn those_of_the_channel_come_first_and_those_of_the_call_follow() {
    let authority = Authority::new();
    let server = Server::new().tls(server_tls(&authority.issue(LOCAL)));
    let target = tls_ends::serve(server.add_service(telling())).await;
    let channel = Channel::to(&target)
        .tls(trusting(&authority))
        .credentials(token("a"));
    let channel = within("connecting", channel.connect())
        .await
        .expect("it connects");
    let client = Client::new(channel.clone().credentials(token("b")));
    let call = client
        .unary::<_, Raw>(UNARY, raw("x"))
        .credentials(token("c").and(token("d")));
    assert_eq!(
        text(call.await).unwrap(),
        "Bearer a, Bearer b, Bearer c, Bearer d"
    );
    assert_eq!(told(&Client::new(channel)).await.unwrap(), "Bearer a");
}

#[tokio::test]
async fn calls_of_all_four_types_have_credentials() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let channel = in_memory(Server::new().add_service(Echo)).credentials(Custom(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::task::yield_now().await;
            Ok(Metadata::new())
        }
    }));
    let client = Client::new(channel.connect().await.unwrap());
    let response = client.unary::<_, Raw>(UNARY, raw("ab")).await.unwrap();
    assert_eq!(response.0, "ab");
    let mut responses = client
        .server_streaming::<_, Raw>(SERVER, raw("ab"))
        .await
        .unwrap();
    assert_eq!(responses.message().await.unwrap().unwrap().0, "a");
    let mut requests = client.client_streaming::<Raw, Raw>(CLIENT).await.unwrap();
    requests.send(raw("ab")).await.unwrap();
    assert_eq!(requests.finish().await.unwrap().0, "ab");
    let (mut requests, mut responses) = client.bidi_streaming::<Raw, Raw>(BIDI).await.unwrap();
    requests.send(raw("ab")).await.unwrap();
    assert_eq!(responses.message().await.unwrap().unwrap().0, "ab");
    assert_eq!(calls.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn plaintext_tcp_has_no_credentials_unless_they_allow_it() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let service = With(move |methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), move |_, _: Request<Raw>| {
            count.fetch_add(1, Ordering::Relaxed);
            async { Ok(raw("")) }
        });
    });
    let address = serve(Server::new().add_service(service)).await;
    let refused = Channel::to(&address).credentials(token("a")).connect_lazy();
    let status = refused.expect_err("all targets are plaintext");
    assert_eq!(status.code(), Code::INVALID_ARGUMENT);
    assert_eq!(
        status.message(),
        format!(
            "the channel to {address} has call credentials and would send them in plaintext: use TLS, or `allow_plaintext()` of the credentials if something else encrypts the traffic"
        )
    );
    let channel = fixture::client_of(&address).await.channel().clone();
    let clone = Client::new(channel.clone().credentials(token("a")));
    let of_call = Client::new(channel.clone());
    let of_call = of_call.unary::<_, Raw>(UNARY, raw("x"));
    for call in [
        clone.unary::<_, Raw>(UNARY, raw("x")),
        of_call.credentials(token("a").allow_plaintext().and(token("b"))),
    ] {
        let status = within("a call", call.into_future()).await.unwrap_err();
        assert_eq!(status.code(), Code::UNAUTHENTICATED);
        assert_eq!(
            status.message(),
            format!(
                "the call credentials are not sent to {address}, because others on the network could read them: use TLS, or `allow_plaintext()` of the credentials if something else encrypts the traffic"
            )
        );
    }
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    let allowed = Client::new(channel.credentials(token("a").allow_plaintext()));
    told(&allowed).await.unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn unix_sockets_and_servers_in_the_process_count_as_secure() {
    let path = std::env::temp_dir().join(format!("trunkline-creds-{}.sock", std::process::id()));
    let unix = format!("unix:{}", path.display());
    let bound = Server::new().add_service(telling()).bind(&unix).await;
    tokio::spawn(bound.expect("a socket").serve());
    let here = Channel::in_process(Server::new().add_service(telling()));
    for channel in [
        Channel::to(&unix)
            .credentials(token("a"))
            .connect_lazy()
            .unwrap(),
        here.credentials(token("a")),
    ] {
        let client = Client::new(channel.clone());
        assert_eq!(within("a call", told(&client)).await.unwrap(), "Bearer a");
        // Credentials below tower layers are sent as well.
        let client = Client::new(Channel::new(channel));
        assert_eq!(within("a call", told(&client)).await.unwrap(), "Bearer a");
    }
}

/// A service of tower that tells whether `authorization` is marked as sensitive.
#[derive(Clone)]
struct Sensitive(Arc<AtomicUsize>);

impl tower_service::Service<http::Request<Body>> for Sensitive {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = std::future::Ready<Result<http::Response<Body>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let is_sensitive = request.headers()["authorization"].is_sensitive();
        assert!(!format!("{request:?}").contains("sesame"), "{request:?}");
        self.0
            .fetch_add(usize::from(is_sensitive), Ordering::Relaxed);
        std::future::ready(Err(Status::aborted("enough")))
    }
}

#[tokio::test]
async fn a_tower_service_has_no_credentials_unless_they_allow_it_and_they_are_sensitive() {
    let sensitive = Arc::new(AtomicUsize::new(0));
    let channel = Channel::new(Sensitive(sensitive.clone()));
    let own = Custom(|_| async {
        let mut metadata = Metadata::new();
        metadata.insert("authorization", "Basic sesame")?;
        Ok(metadata)
    });
    let refused = Client::new(channel.clone().credentials(token("sesame")));
    assert_eq!(
        told(&refused).await.unwrap_err().code(),
        Code::UNAUTHENTICATED
    );
    let allowed = channel
        .clone()
        .credentials(token("sesame").allow_plaintext());
    told(&Client::new(allowed)).await.unwrap_err();
    told(&Client::new(channel.credentials(own.allow_plaintext())))
        .await
        .unwrap_err();
    assert_eq!(sensitive.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_thousand_calls_at_once_fetch_one_token() {
    let fetches = Arc::new(AtomicUsize::new(0));
    let count = fetches.clone();
    let credentials = CachedToken::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(Token::new("a")?.expires_in(Duration::from_secs(3600)))
        }
    });
    let channel = in_memory(Server::new().add_service(telling())).credentials(credentials);
    let client = Client::new(channel.connect().await.unwrap());
    let calls: Vec<_> = (0..1000)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { told(&client).await })
        })
        .collect();
    for call in calls {
        assert_eq!(within("a call", call).await.unwrap().unwrap(), "Bearer a");
    }
    assert_eq!(fetches.load(Ordering::Relaxed), 1);
}

/// Counts its drops.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_that_take_too_long_end_with_their_call() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = dropped.clone();
    let channel = in_memory(Server::new().add_service(telling())).credentials(Custom(move |_| {
        let dropped = Dropped(count.clone());
        async move {
            let _dropped = dropped;
            pending().await
        }
    }));
    let client = Client::new(channel.connect().await.unwrap());
    let call = client
        .unary::<_, Raw>(UNARY, raw("x"))
        .timeout(Duration::from_secs(1));
    let status = call.await.unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    assert_eq!(
        status.message(),
        "the deadline passed while the call waited for its credentials; the source of tokens may be slow, or the timeout too short"
    );
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    let handle = trunkline::CancelHandle::new();
    let call = client.bidi_streaming::<Raw, Raw>(BIDI).cancel_with(&handle);
    let call = tokio::spawn(call.into_future());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    handle.cancel();
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::CANCELLED);
    assert_eq!(dropped.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_status_of_credentials_is_that_of_the_call_unless_it_is_for_applications() {
    let server = Server::new().add_service(telling());
    for (code, expected) in [
        (Code::UNAVAILABLE, Code::UNAVAILABLE),
        (Code::UNAUTHENTICATED, Code::UNAUTHENTICATED),
        (Code::NOT_FOUND, Code::INTERNAL),
    ] {
        let failing = Custom(move |_| async move { Err(Status::new(code, "no token")) });
        let channel = in_memory(server.clone())
            .credentials(failing)
            .connect()
            .await;
        let status = told(&Client::new(channel.unwrap())).await.unwrap_err();
        assert_eq!(status.code(), expected);
        assert!(status.message().ends_with("no token"), "{status}");
    }
    let panicking = Custom(|_| async { panic!("in the credentials") });
    let channel = in_memory(server).credentials(panicking).connect().await;
    let status = told(&Client::new(channel.unwrap())).await.unwrap_err();
    assert_eq!(status.code(), Code::INTERNAL);
    assert_eq!(status.message(), "the credentials of the call panicked");
}

#[tokio::test]
async fn credentials_know_server_method_and_security() {
    let authority = Authority::new();
    let server = Server::new().tls(server_tls(&authority.issue(LOCAL)));
    let target = tls_ends::serve(server.add_service(telling())).await;
    let telling = Custom(|call: CallInfo| async move {
        assert_eq!(call.security_level(), SecurityLevel::PrivacyAndIntegrity);
        let mut metadata = Metadata::new();
        metadata.insert(
            "authorization",
            &format!("{} {}", call.service_url(), call.path()),
        )?;
        Ok(metadata)
    });
    let channel = Channel::to(&target)
        .tls(trusting(&authority))
        .credentials(telling);
    let client = Client::new(within("connecting", channel.connect()).await.unwrap());
    let expected = format!("{target}/test.Fixture /test.Fixture/Unary");
    assert_eq!(told(&client).await.unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_credentials_of_its_own() {
    let net = MemoryNet::default();
    let mut listener = net.listen("10.0.0.1:1");
    let count = Arc::new(AtomicUsize::new(0));
    let counting = Custom(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            let mut metadata = Metadata::new();
            metadata.insert("x-attempt", &number.to_string())?;
            Ok(metadata)
        }
    });
    let channel = Channel::to("10.0.0.1:1").connector(net.connector());
    let channel = channel
        .credentials(counting.allow_plaintext())
        .connect_lazy();
    let client = Client::new(channel.unwrap());
    let call = tokio::spawn(client.unary::<_, Raw>(UNARY, raw("x")).into_future());
    let mut peer = listener.accept().await;
    let stream = peer.next_full_request().await;
    assert_eq!(attempt(&peer.stream(stream)).as_deref(), Some("1"));
    peer.write(&[Frame::rst_stream(stream, error::REFUSED_STREAM)])
        .await;
    let stream = peer.next_full_request().await;
    assert_eq!(attempt(&peer.stream(stream)).as_deref(), Some("2"));
    peer.write(&[
        Frame::headers(stream, &Fields::response()),
        Frame::data(stream, message(b"response")),
        Frame::headers(stream, &Fields::trailers("0")).ending(),
    ])
    .await;
    assert_eq!(text(call.await.unwrap()).unwrap(), "response");
}

fn attempt(request: &Received) -> Option<String> {
    request.head.as_ref()?.text("x-attempt")
}

/// Keeps the fields of all spans and events.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<String>>);

impl Visit for Recorded {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = self.0.lock().unwrap();
        *text += &format!("{}={value:?}\n", field.name());
    }
}

impl Subscriber for Recorded {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// In a process of its own: what is enabled is enabled for the whole process.
#[tokio::test]
async fn no_span_and_no_event_contains_a_token() {
    if let Some(program) = own_process(module_path!(), "no_span_and_no_event_contains_a_token") {
        return passes(program);
    }
    let recorded = Recorded::default();
    tracing::subscriber::set_global_default(recorded.clone()).expect("the only one");
    let cached = CachedToken::new(|| async { Token::new("sesame-cached") });
    let authority = Authority::new();
    let server = Server::new().tls(server_tls(&authority.issue(LOCAL)));
    let target = tls_ends::serve(server.add_service(Echo)).await;
    let channel = Channel::to(&target)
        .tls(trusting(&authority))
        .credentials(token("sesame-static").and(cached.clone()));
    let channel = within("connecting", channel.connect()).await.unwrap();
    let client = Client::new(channel.clone());
    told(&client).await.unwrap();
    let call = client
        .unary::<_, Raw>(UNARY, raw("x"))
        .credentials(token("sesame-call"));
    tracing::info!(?channel, ?call, ?cached, token = ?token("sesame-debug"));
    call.await.unwrap();
    let missing = client.unary::<_, Raw>(Method::new("/test.Fixture/Missing"), raw("x"));
    missing.await.unwrap_err();
    let text = recorded.0.lock().unwrap();
    assert!(text.contains("test.Fixture/Unary"), "calls are recorded");
    let line = text.lines().find(|line| line.contains("sesame"));
    assert_eq!(line, None);
}
