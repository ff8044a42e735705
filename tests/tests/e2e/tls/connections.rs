//! Calls over TLS: who is who, what handshakes fail of, and what the message says then.

#![cfg(unix)]

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use trunkline::server::Methods;
use trunkline::tls::rustls::crypto::CryptoProvider;
use trunkline::tls::rustls::pki_types::pem::PemObject;
use trunkline::tls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use trunkline::tls::rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use trunkline::tls::{ClientTls, ServerTls};
use trunkline::{Channel, Code, Raw, Request, Server};
use trunkline_testkit::{Authority, Fields, Identity, Outcome, PREFACE, RawPeer, Valid, message};
use trunkline_tests::fixture::{self, Echo, UNARY, With, nothing, raw, within};
use trunkline_tests::own_process::{own_process, passes};
use trunkline_tests::tls_ends::{LOCAL, connect, echo, failure, serve, server_tls, trusting};

/// Says who calls: names in the certificate, number of certificates, SNI, version, and whether the
/// session is a resumed one.
fn who() -> impl trunkline::Service {
    With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
            let peer = request.peer().expect("a connection");
            let Some(tls) = peer.tls() else {
                return Ok(raw("plaintext"));
            };
            let certificates = peer.certificates().map_or(0, <[_]>::len);
            let (names, server) = (tls.names().join("+"), tls.server_name().unwrap_or("-"));
            let resumed = if tls.is_resumed() { "resumed" } else { "new" };
            let version = tls.version();
            Ok(raw(format!(
                "{names} {certificates} {server} {version} {resumed}"
            )))
        });
    })
}

#[tokio::test]
async fn all_four_call_types_pass_over_tls_on_tcp_and_unix_sockets_and_on_threads() {
    let authority = Authority::new();
    let tls = || server_tls(&authority.issue(LOCAL));
    let path = std::env::temp_dir().join(format!("trunkline-tls-{}.sock", std::process::id()));
    let unix = format!("unix:{}", path.display());
    let bound = Server::new().tls(tls()).add_service(Echo).bind(&unix).await;
    tokio::spawn(bound.expect("a socket").serve());
    let tcp = serve(Server::new().tls(tls()).add_service(Echo)).await;
    let threads = serve(Server::new().tls(tls()).threads(2).add_service(Echo)).await;
    for target in [tcp, threads, unix] {
        let client = connect(&target, trusting(&authority)).await.expect(&target);
        assert_eq!(echo(&client, "one").await, "one");
        let mut responses = client
            .server_streaming::<Raw, Raw>(fixture::SERVER, raw("ab"))
            .await
            .expect(&target);
        let mut seen = Vec::new();
        while let Some(response) = within("a response", responses.message())
            .await
            .expect(&target)
        {
            seen.extend_from_slice(&response.0);
        }
        assert_eq!(seen, b"ab");
        let mut requests = client
            .client_streaming::<Raw, Raw>(fixture::CLIENT)
            .await
            .expect(&target);
        // More than the windows of a stream, and many records.
        let part = vec![7_u8; 300_000];
        for _ in 0..3 {
            requests.send(raw(part.clone())).await.expect(&target);
        }
        let response = within("the response", requests.finish())
            .await
            .expect(&target);
        assert_eq!(response.0.len(), 900_000);
        let (mut requests, mut responses) = client
            .bidi_streaming::<Raw, Raw>(fixture::BIDI)
            .await
            .expect(&target);
        for text in ["a", "b"] {
            requests.send(raw(text)).await.expect(&target);
            let response = within("a response", responses.message())
                .await
                .expect(&target);
            assert_eq!(response, Some(raw(text)));
        }
        requests.finish();
        assert_eq!(responses.message().await.expect(&target), None);
    }
}

#[tokio::test]
async fn a_handler_sees_who_calls_also_when_the_session_is_resumed() {
    let authority = Authority::new();
    let tls = server_tls(&authority.issue(LOCAL)).client_ca_pem(authority.pem());
    let target = serve(Server::new().tls(tls).add_service(who())).await;
    let identity = authority.issue(&["client.test", "spiffe://test/client"]);
    let client_tls = trusting(&authority)
        .identity_pem(&identity.certificate, &identity.key)
        .server_name("localhost");
    for resumed in ["new", "resumed"] {
        let client = connect(&target, client_tls.clone()).await.expect("mTLS");
        let told = echo(&client, "").await;
        let expected = format!("client.test+spiffe://test/client 1 localhost TLSv1.3 {resumed}");
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn a_certificate_is_asked_for_only_by_a_server_that_has_authorities_for_it() {
    let authority = Authority::new();
    let tls = || server_tls(&authority.issue(LOCAL));
    let open = serve(Server::new().tls(tls()).add_service(who())).await;
    let optional = tls().client_ca_pem(authority.pem()).client_auth_optional();
    let optional = serve(Server::new().tls(optional).add_service(who())).await;
    let identity = authority.issue(&["client.test"]);
    let identified = trusting(&authority).identity_pem(&identity.certificate, &identity.key);
    for (target, tls, told) in [
        (&open, trusting(&authority), " 0 - TLSv1.3 new"),
        (&open, identified.clone(), " 0 - TLSv1.3 new"),
        (&optional, trusting(&authority), " 0 - TLSv1.3 new"),
        (&optional, identified, "client.test 1 - TLSv1.3 new"),
    ] {
        let client = connect(target, tls).await.expect("a connection");
        assert_eq!(echo(&client, "").await, told);
    }
    let stranger = Authority::new().issue(&["client.test"]);
    let stranger = trusting(&authority).identity_pem(&stranger.certificate, &stranger.key);
    let message = failure(&optional, stranger).await;
    assert!(
        message.contains("refuses this client's certificate"),
        "{message}"
    );
}

#[tokio::test]
async fn the_scheme_of_a_request_is_that_of_the_connection() {
    let authority = Authority::new();
    let schemes = || Server::new().fallback(SchemeInHeader).add_service(Echo);
    let tls = server_tls(&authority.issue(LOCAL));
    let secure = serve(schemes().tls(tls)).await;
    let plain = fixture::serve(schemes()).await;
    for (channel, scheme) in [
        (Channel::to(&secure).tls(trusting(&authority)), "https"),
        (Channel::to(&plain), "http"),
    ] {
        let mut channel = channel.connect_lazy().expect("a target");
        let request = http::Request::get("/not-grpc").body(trunkline::tower::Body::empty());
        let asking = tower_service::Service::call(&mut channel, request.expect("a request"));
        let response = within("a response", asking).await.expect("a response");
        assert_eq!(response.headers()["x-scheme"], scheme);
    }
}

/// Tells the scheme that it was asked by.
#[derive(Clone)]
struct SchemeInHeader;

impl tower_service::Service<http::Request<trunkline::tower::Body>> for SchemeInHeader {
    type Response = http::Response<trunkline::tower::Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<trunkline::tower::Body>) -> Self::Future {
        let scheme = request.uri().scheme_str().unwrap_or("-").to_owned();
        let response = http::Response::builder().header("x-scheme", scheme);
        std::future::ready(Ok(response
            .body(trunkline::tower::Body::empty())
            .expect("a response")))
    }
}

#[tokio::test]
async fn own_authorities_are_added_to_the_systems_if_these_are_selected() {
    const TARGET: &str = "TRUNKLINE_TARGET_OF_THE_SYSTEM";
    let serving = async |authority: &Authority| {
        let tls = server_tls(&authority.issue(LOCAL));
        serve(Server::new().tls(tls).add_service(Echo)).await
    };
    let authority = Authority::new();
    let target = serving(&authority).await;
    let name = "own_authorities_are_added_to_the_systems_if_these_are_selected";
    if let Some(mut program) = own_process(module_path!(), name) {
        // The program reads the authorities of the system from this file.
        let file =
            std::env::temp_dir().join(format!("trunkline-system-{}.pem", std::process::id()));
        std::fs::write(&file, authority.pem()).expect("a file");
        program
            .env("SSL_CERT_FILE", &file)
            .env_remove("SSL_CERT_DIR");
        program.env(TARGET, target);
        let running = tokio::task::spawn_blocking(move || passes(program)).await;
        std::fs::remove_file(&file).expect("our file");
        return running.expect("it passes");
    }
    let of_the_system = std::env::var(TARGET).expect("a target");
    let pem = authority.pem();
    for (tls, trusts_system, trusts_own) in [
        (ClientTls::native_roots(), true, false),
        (ClientTls::native_roots().ca_pem(pem), true, true),
        (ClientTls::new().ca_pem(pem), false, true),
    ] {
        for (target, is_trusted) in [(&of_the_system, trusts_system), (&target, trusts_own)] {
            let connected = connect(target, tls.clone()).await;
            assert_eq!(connected.is_ok(), is_trusted, "{tls:?} {target}");
        }
    }
}

#[tokio::test]
async fn a_client_says_what_is_wrong_with_the_servers_certificate_and_what_to_do() {
    let authority = Authority::named("one of two");
    let namesake = Authority::named("one of two");
    let serving = async |identity: Identity| {
        serve(Server::new().tls(server_tls(&identity)).add_service(Echo)).await
    };
    let good = serving(authority.issue(LOCAL)).await;
    let elsewhere = serving(authority.issue(&["a.test", "b.test"])).await;
    let nameless = serving(authority.issue(&[])).await;
    let expired = serving(authority.issue_valid(LOCAL, Valid::Before)).await;
    let early = serving(authority.issue_valid(LOCAL, Valid::Later)).await;
    let other = Authority::new();
    for (target, tls, words) in [
        (
            &good,
            trusting(&other),
            &["authority that is not trusted", "ClientTls::ca_file"][..],
        ),
        (
            &good,
            trusting(&namesake),
            &["with the same name", "renewed"],
        ),
        (
            &elsewhere,
            trusting(&authority),
            &[
                "valid for a.test, b.test",
                "not for 127.0.0.1",
                "ClientTls::server_name",
            ],
        ),
        (
            &good,
            trusting(&authority).server_name("c.test"),
            &["valid for localhost, 127.0.0.1, and not for c.test"],
        ),
        (&nameless, trusting(&authority), &["no name at all"]),
        (
            &expired,
            trusting(&authority),
            &["expired", "days ago", "renewed", "clock"],
        ),
        (&early, trusting(&authority), &["valid only in", "clock"]),
    ] {
        let message = failure(target, tls).await;
        let address = target.trim_start_matches("https://");
        for word in words.iter().chain([&address]) {
            assert!(message.contains(word), "{message}");
        }
    }
    let named = trusting(&authority).server_name("b.test");
    let client = connect(&elsewhere, named).await.expect("the name fits");
    assert_eq!(echo(&client, "x").await, "x");
}

#[tokio::test]
async fn a_client_is_told_why_the_server_refuses_its_certificate() {
    let authority = Authority::new();
    let tls = server_tls(&authority.issue(LOCAL)).client_ca_pem(authority.pem());
    let target = serve(Server::new().tls(tls).add_service(Echo)).await;
    let message = failure(&target, trusting(&authority)).await;
    assert!(
        message.contains("asks for a client certificate"),
        "{message}"
    );
    assert!(message.contains("ClientTls::identity_files"), "{message}");
    for identity in [
        Authority::new().issue(&["client.test"]),
        authority.issue_valid(&["client.test"], Valid::Before),
    ] {
        let identified = trusting(&authority).identity_pem(&identity.certificate, &identity.key);
        let message = failure(&target, identified).await;
        assert!(
            message.contains("refuses this client's certificate"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn each_end_that_speaks_plaintext_to_one_that_speaks_tls_is_told_so() {
    let authority = Authority::new();
    let plain = fixture::serve(Server::new().add_service(Echo)).await;
    let message = failure(&format!("https://{plain}"), trusting(&authority)).await;
    assert!(
        message.contains("does not speak TLS: use http://"),
        "{message}"
    );

    let tls = server_tls(&authority.issue(LOCAL));
    let secure = fixture::serve(Server::new().tls(tls).add_service(Echo)).await;
    let connecting = Channel::to(&secure).connect();
    let failed = within("connecting", connecting)
        .await
        .expect_err("plaintext");
    assert_eq!(failed.code(), Code::UNAVAILABLE);
    let message = failed.message();
    assert!(message.contains("expects TLS"), "{message}");
    assert!(message.contains(&format!("https://{secure}")), "{message}");
}

/// Takes one connection, writes `bytes` to it, and closes it.
async fn answering(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut hello = [0; 1];
        stream.read_exact(&mut hello).await.expect("a hello");
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    format!("https://{address}")
}

#[tokio::test]
async fn whatever_answers_in_the_place_of_tls_is_named() {
    for (bytes, word) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            "does not speak TLS",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak TLS"),
        (b"", "does it speak TLS?"),
        // RFC 8446, section 6: fatal alerts, of no ALPN protocol, no common version, no such name.
        (&[0x15, 3, 3, 0, 2, 2, 120], "not HTTP/2"),
        (
            &[0x15, 3, 3, 0, 2, 2, 70],
            "refuses the TLS handshake (ProtocolVersion)",
        ),
        (&[0x15, 3, 3, 0, 2, 2, 112], "ClientTls::server_name"),
    ] {
        let message = failure(
            &answering(bytes).await,
            ClientTls::new().ca_pem(Authority::new().pem()),
        )
        .await;
        assert!(message.contains(word), "{message}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_the_handshake_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let target = format!("https://{}", listener.local_addr().expect("an address"));
    let channel = Channel::to(&target)
        .tls(trusting(&Authority::new()))
        .connect_timeout(Duration::from_millis(50));
    let failed = within("connecting", channel.connect()).await;
    let failed = failed.expect_err("nobody answers");
    assert_eq!(failed.code(), Code::UNAVAILABLE);
    assert!(
        failed.message().contains("no response within 50ms"),
        "{failed}"
    );
}

fn ring() -> Arc<CryptoProvider> {
    Arc::new(trunkline::tls::rustls::crypto::ring::default_provider())
}

/// A client's configuration that is not ours.
fn foreign(authority: &Authority, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    foreign_with(authority, alpn, trunkline::tls::rustls::DEFAULT_VERSIONS)
}

fn foreign_with(
    authority: &Authority,
    alpn: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let pem = CertificateDer::from_pem_slice(authority.pem().as_bytes());
    roots.add(pem.expect("PEM")).expect("an authority");
    let builder = ClientConfig::builder_with_provider(ring()).with_protocol_versions(versions);
    let builder = builder.expect("versions").with_root_certificates(roots);
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// A server's configuration that is not ours.
fn foreign_server(identity: &Identity, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
    let builder = ServerConfig::builder_with_provider(ring()).with_safe_default_protocol_versions();
    let builder = builder.expect("versions").with_no_client_auth();
    let config = builder.with_single_cert(vec![certificate.expect("PEM")], key.expect("PEM"));
    let mut config = config.expect("an identity");
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

#[tokio::test]
async fn a_server_takes_no_client_that_does_not_choose_http2_in_alpn() {
    let authority = Authority::new();
    let tls = server_tls(&authority.issue(LOCAL));
    let address = fixture::serve(Server::new().tls(tls).add_service(Echo)).await;
    for (alpn, is_taken) in [
        (&[&b"h2"[..], b"http/1.1"][..], true),
        (&[b"http/1.1"], false),
        (&[], false),
    ] {
        let stream = TcpStream::connect(&address).await.expect("a port");
        let connector = TlsConnector::from(foreign(&authority, alpn));
        let connecting = within("a handshake", connector.connect(localhost(), stream)).await;
        let mut byte = [0];
        let first = match connecting {
            Err(_) => 0,
            Ok(mut stream) => {
                // A server says nothing before its client has.
                let _ = stream.write_all(PREFACE).await;
                let read = within("the server", stream.read(&mut byte)).await;
                read.unwrap_or(0)
            }
        };
        assert_eq!(first, usize::from(is_taken), "{alpn:?}");
    }
}

#[tokio::test]
async fn a_client_takes_no_server_that_does_not_choose_http2_in_alpn() {
    let authority = Authority::new();
    let config = foreign_server(&authority.issue(LOCAL), &[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let target = format!("https://{}", listener.local_addr().expect("an address"));
    let acceptor = tokio_rustls::TlsAcceptor::from(config.clone());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let mut stream = acceptor.accept(stream).await.expect("a handshake");
        let _ = stream.read(&mut [0; 64]).await;
    });
    let message = failure(&target, trusting(&authority)).await;
    assert!(message.contains("not HTTP/2"), "{message}");
    assert!(message.contains("h2 in ALPN"), "{message}");

    // What rustls is set up for is kept, and h2 is ours to set, at both ends.
    let target = serve(
        Server::new()
            .tls(ServerTls::from_rustls(config))
            .add_service(Echo),
    )
    .await;
    let tls = ClientTls::from_rustls(foreign(&authority, &[b"http/1.1"]));
    let client = connect(&target, tls.clone()).await.expect("h2");
    assert_eq!(echo(&client, "x").await, "x");
    let mixed = Channel::to(&target)
        .tls(tls.ca_pem(authority.pem()))
        .connect_lazy();
    let failed = mixed.expect_err("it is complete");
    assert_eq!(failed.code(), Code::INVALID_ARGUMENT, "{failed}");
}

/// A server whose handshakes have this long, and what ends it.
async fn hurried(
    authority: &Authority,
    timeout: Duration,
) -> (
    String,
    oneshot::Sender<()>,
    tokio::task::JoinHandle<trunkline::Result<()>>,
) {
    let server = Server::new()
        .tls(server_tls(&authority.issue(LOCAL)))
        .add_service(Echo)
        .with_limits(|limits| {
            limits.handshake_timeout = timeout;
            limits.drain_grace = Duration::from_millis(200);
        });
    let bound = server.bind("127.0.0.1:0").await.expect("a port");
    let address = bound.local_addr().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = bound.serve_until(async {
        let _ = stopped.await;
    });
    (address, stop, tokio::spawn(serving))
}

#[tokio::test]
async fn a_client_that_never_finishes_its_handshake_is_closed_and_holds_up_nobody() {
    let authority = Authority::new();
    let (address, _stop, _) = hurried(&authority, Duration::from_millis(200)).await;
    // The beginning of a record of TLS that does not come.
    let beginnings = [&b""[..], &[0x16, 3, 1], &[0x16, 3, 1, 2, 0, 1, 0]];
    let mut silent = Vec::new();
    for bytes in beginnings.iter().cycle().take(200) {
        let mut stream = TcpStream::connect(&address).await.expect("a port");
        stream.write_all(bytes).await.expect("a connection");
        silent.push(stream);
    }
    let client = connect(&format!("https://{address}"), trusting(&authority)).await;
    assert_eq!(echo(&client.expect("a connection"), "x").await, "x");
    for mut stream in silent {
        let closed = within("closing", stream.read(&mut [0])).await;
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }
    // One that does finish it has no more time for HTTP/2 than was left.
    let stream = TcpStream::connect(&address).await.expect("a port");
    let connector = TlsConnector::from(foreign(&authority, &[b"h2"]));
    let stream = connector.connect(localhost(), stream).await;
    let mut stream = stream.expect("a handshake");
    let _ = within("closing", stream.read_to_end(&mut Vec::new())).await;
}

#[tokio::test]
async fn a_server_that_drains_waits_for_a_handshake_no_longer_than_its_grace() {
    let authority = Authority::new();
    let (address, stop, serving) = hurried(&authority, Duration::from_secs(3600)).await;
    let silent = TcpStream::connect(&address).await.expect("a port");
    // Connections are accepted in order: the server has the one before as well.
    let client = connect(&format!("https://{address}"), trusting(&authority)).await;
    drop(client.expect("a connection"));
    stop.send(()).expect("the server runs");
    let served = within("the drain", serving).await.expect("no panic");
    served.expect("nothing went wrong");
    drop(silent);
}

#[tokio::test]
async fn a_handshake_behind_the_beginning_of_a_drain_is_finished_and_its_call_served() {
    let authority = Authority::new();
    let tls = server_tls(&authority.issue(LOCAL));
    let bound = Server::new()
        .tls(tls)
        .add_service(Echo)
        .bind("127.0.0.1:0")
        .await;
    let bound = bound.expect("a port");
    let stream = TcpStream::connect(bound.local_addr().to_string()).await;
    let serving = tokio::spawn(bound.serve_until(std::future::ready(())));
    let connector = TlsConnector::from(foreign(&authority, &[b"h2"]));
    let stream = connector.connect(localhost(), stream.expect("a connection"));
    let mut client = RawPeer::client(stream.await.expect("a handshake"), &[]).await;
    let call = client
        .call(&Fields::call(UNARY.path()), message(b"x"))
        .await;
    assert_eq!(client.outcome(call).await, Outcome::Answered(200, 0));
    client.until_closed().await;
    assert!(client.goaway().is_some());
    drop(client);
    let served = within("the drain", serving).await.expect("no panic");
    served.expect("nothing went wrong");
}

#[tokio::test]
async fn a_flood_of_failed_handshakes_leaves_the_server_serving() {
    let authority = Authority::new();
    let tls = server_tls(&authority.issue(LOCAL));
    let address = fixture::serve(Server::new().tls(tls).add_service(Echo)).await;
    let mut random = fixture::Random(7);
    for at in 0..500 {
        let mut stream = TcpStream::connect(&address).await.expect("a port");
        let mut bytes: Vec<u8> = (0..random.below(300))
            .map(|_| random.below(256) as u8)
            .collect();
        if at % 2 == 0 {
            // A record of TLS with a hello that is none.
            bytes.splice(0..0, [0x16, 3, 1, 0, 200, 1, 0, 0, 196]);
        }
        let _ = stream.write_all(&bytes).await;
    }
    let client = connect(&format!("https://{address}"), trusting(&authority)).await;
    assert_eq!(echo(&client.expect("a connection"), "x").await, "x");
}

/// A handshake with a server, by a client that is not ours.
async fn shake(
    address: &str,
    config: Arc<ClientConfig>,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.expect("a port");
    let connecting = TlsConnector::from(config).connect(localhost(), stream);
    within("a handshake", connecting)
        .await
        .expect("a handshake")
}

/// RFC 9113, section 3.4: the preface, and SETTINGS without settings.
const BEGINNING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn a_server_that_closes_says_so_in_tls_too() {
    let authority = Authority::new();
    for is_graceful in [true, false] {
        let (address, stop, serving) = hurried(&authority, Duration::from_secs(3600)).await;
        let mut stream = shake(&address, foreign(&authority, &[b"h2"])).await;
        stream.write_all(BEGINNING).await.expect("a server");
        // The server's SETTINGS: it has begun.
        stream.read_exact(&mut [0; 9]).await.expect("SETTINGS");
        match is_graceful {
            true => stop.send(()).expect("the server runs"),
            false => serving.abort(),
        }
        if is_graceful {
            // It waits for this end, which has heard GOAWAY.
            stream.shutdown().await.expect("a server");
        }
        // Without close_notify this is an error: UnexpectedEof.
        let ended = within("the end", stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "{is_graceful}: {ended:?}");
    }
}

#[tokio::test]
async fn a_client_that_closes_says_so_in_tls_too() {
    let authority = Authority::new();
    let path = std::env::temp_dir().join(format!("trunkline-notify-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a socket");
    let target = format!("unix:{}", path.display());
    let tls = trusting(&authority);
    let client = tokio::spawn(async move { connect(&target, tls).await.map(drop) });
    let (stream, _) = listener.accept().await.expect("our client");
    let config = foreign_server(&authority.issue(LOCAL), &[b"h2"]);
    let stream = tokio_rustls::TlsAcceptor::from(config).accept(stream).await;
    let mut stream = stream.expect("a handshake");
    // SETTINGS, so that the client has connected, and closes.
    let settings = &BEGINNING[BEGINNING.len() - 9..];
    stream.write_all(settings).await.expect("a client");
    let read = within("the end", stream.read_to_end(&mut Vec::new())).await;
    assert!(read.is_ok(), "{read:?}");
    client.await.expect("no panic").expect("connected");
    let _ = std::fs::remove_file(path);
}

/// Writes a byte at a time, each in a packet of its own.
struct Dribble(TcpStream);

impl tokio::io::AsyncRead for Dribble {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Dribble {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &buf[..buf.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_handshake_in_single_bytes_and_one_of_tls_1_2_are_served() {
    let authority = Authority::new();
    let tls = server_tls(&authority.issue(LOCAL));
    let target = serve(Server::new().tls(tls).add_service(who())).await;
    let address = target.trim_start_matches("https://");
    let stream = TcpStream::connect(address).await.expect("a port");
    stream.set_nodelay(true).expect("a socket");
    let connector = TlsConnector::from(foreign(&authority, &[b"h2"]));
    let connecting = connector.connect(localhost(), Dribble(stream));
    let mut stream = within("a handshake", connecting)
        .await
        .expect("a handshake");
    stream.write_all(BEGINNING).await.expect("a server");
    stream.flush().await.expect("a server");
    within("SETTINGS", stream.read_exact(&mut [0; 9]))
        .await
        .expect("SETTINGS");

    let old = foreign_with(&authority, &[], &[&trunkline::tls::rustls::version::TLS12]);
    let client = connect(
        &target,
        ClientTls::from_rustls(old).server_name("localhost"),
    )
    .await;
    let told = echo(&client.expect("TLS 1.2"), "").await;
    assert_eq!(told, " 0 localhost TLSv1.2 new");
}

#[tokio::test]
async fn versions_before_tls_1_2_are_refused() {
    let authority = Authority::new();
    let tls = server_tls(&authority.issue(LOCAL));
    let address = fixture::serve(Server::new().tls(tls).add_service(Echo)).await;
    for minor in [1, 2] {
        // RFC 2246, section 7.4.1.2: a hello with one cipher, no compression and no extension.
        let mut hello = vec![3, minor];
        hello.extend([7; 32]);
        hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
        let length = hello.len() as u8;
        let mut stream = TcpStream::connect(&address).await.expect("a port");
        let head = [0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
        stream
            .write_all(&[&head[..], &hello].concat())
            .await
            .expect("a server");
        let mut answer = Vec::new();
        let _ = within("the end", stream.read_to_end(&mut answer)).await;
        // RFC 8446, section 6: an alert, fatal: protocol_version, or handshake_failure.
        assert_eq!(answer.len(), 7, "{answer:?}");
        assert_eq!((answer[0], answer[5]), (0x15, 2), "{answer:?}");
        assert!([70, 40].contains(&answer[6]), "{answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_is_refused_can_read_why_whatever_it_has_sent_meanwhile() {
    let authority = Authority::new();
    let tls = server_tls(&authority.issue(LOCAL));
    let address = fixture::serve(Server::new().tls(tls).add_service(Echo)).await;
    let mut stream = TcpStream::connect(&address).await.expect("a port");
    // More than the server reads before it knows that this is no TLS.
    stream.write_all(&[b'P'; 40_000]).await.expect("a server");
    stream.shutdown().await.expect("a server");
    let mut answer = Vec::new();
    let read = within("the end", stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "a reset would have cost the alert: {read:?}");
    assert_eq!(answer.first(), Some(&0x15), "{answer:?}");
}

#[tokio::test]
async fn what_cannot_be_used_is_said_before_anything_is_served_or_called() {
    let authority = Authority::new();
    let (one, other) = (authority.issue(LOCAL), authority.issue(LOCAL));
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (certificate, key, word) in [
        (
            one.certificate.as_str(),
            other.key.as_str(),
            "does not belong",
        ),
        ("", &one.key, "no certificate"),
        (&one.certificate, "", "no private key"),
        (&one.certificate, encrypted, "encrypted"),
        (&one.key, &one.key, "no certificate"),
        (
            "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
            &one.key,
            "not base64",
        ),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", &one.key, "no end"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &one.key,
            "cannot be used",
        ),
    ] {
        let server = ServerTls::from_pem(certificate, key).map(drop);
        let client = ClientTls::new().identity_pem(certificate, key);
        let client = Channel::to("https://a.test")
            .tls(client)
            .connect_lazy()
            .map(drop);
        for failed in [server, client] {
            let failed = failed.expect_err(word);
            assert_eq!(failed.code(), Code::INVALID_ARGUMENT, "{failed}");
            assert!(failed.message().contains(word), "{failed}");
            assert!(!failed.message().contains("AAAA"), "{failed}");
        }
    }
    let missing = ServerTls::from_files("/no/such/file.pem", "/no/such/file.key").map(drop);
    let tls = server_tls(&one).client_ca_file("/no/such/ca.pem");
    let server = Server::new()
        .tls(tls)
        .add_service(Echo)
        .bind("127.0.0.1:0")
        .await
        .map(drop);
    let client = ClientTls::new().ca_file("/no/such/ca.pem");
    let client = Channel::to("https://a.test")
        .tls(client)
        .connect_lazy()
        .map(drop);
    for failed in [missing, server, client] {
        let failed = failed.expect_err("there is no such file");
        assert_eq!(failed.code(), Code::INVALID_ARGUMENT, "{failed}");
        assert!(failed.message().contains("/no/such/"), "{failed}");
    }
    let tls = trusting(&authority);
    for (target, tls, word) in [
        ("http://a.test", tls.clone(), "use https://"),
        (
            "https://a.test",
            tls.clone().server_name("no name"),
            "is not a valid server name",
        ),
        ("a.test:70000", tls, "out of range"),
    ] {
        let failed = Channel::to(target).tls(tls).connect_lazy().expect_err(word);
        assert_eq!(failed.code(), Code::INVALID_ARGUMENT, "{failed}");
        assert!(failed.message().contains(word), "{failed}");
    }
}
