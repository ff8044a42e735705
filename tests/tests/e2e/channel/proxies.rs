//! Channels through HTTP proxies.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use trunkline::channel::Proxy;
use trunkline::credentials::BearerToken;
use trunkline::{Channel, Client, Code, Raw, Server, Status};
use trunkline_testkit::Authority;
use trunkline_tests::fixture::{Echo, UNARY, client_with, raw, serve, within};
use trunkline_tests::own_process::{own_process, passes};
use trunkline_tests::tls_ends::{LOCAL, echo, server_tls, trusting};

/// The head of each request for a tunnel.
type Heads = Arc<Mutex<Vec<String>>>;

/// A proxy that responds with `response`, and connects to `server` if there is one; returns its URL and the heads that
/// it has received.
async fn proxy(response: &'static [u8], server: Option<String>) -> (String, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let heads = Heads::default();
    let received = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (received, server) = (received.clone(), server.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await.expect("a head"));
                }
                let head = String::from_utf8(head).expect("it is text");
                received.lock().unwrap().push(head);
                let _ = client.write_all(response).await;
                if let Some(server) = server {
                    let mut server = TcpStream::connect(server).await.expect("it listens");
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                } else if response.is_empty() {
                    std::future::pending().await
                }
            });
        }
    });
    (format!("http://me:secret@{address}"), heads)
}

const OK: &[u8] = b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n";
/// With an empty SETTINGS frame of the server behind the head.
const OK_EARLY: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn with_proxy(target: &str, url: &str) -> trunkline::ChannelBuilder {
    let proxy = Proxy::parse(url).expect("a URL");
    Channel::to(target).proxy(move |_, _| Some(proxy.clone()))
}

#[tokio::test]
async fn the_proxy_resolves_the_name_and_bytes_behind_its_response_are_the_servers() {
    for response in [OK, OK_EARLY] {
        let server = serve(Server::new().add_service(Echo)).await;
        let (url, heads) = proxy(response, Some(server)).await;
        let client = client_with(with_proxy("greeter.invalid:7", &url)).await;
        assert_eq!(echo(&client, "one").await, "one");
        let heads = heads.lock().unwrap();
        assert_eq!(
            *heads,
            [
                "CONNECT greeter.invalid:7 HTTP/1.1\r\nhost: greeter.invalid:7\r\nproxy-authorization: Basic bWU6c2VjcmV0\r\n\r\n"
            ]
        );
    }
}

#[tokio::test]
async fn tls_is_inside_the_tunnel() {
    let authority = Authority::new();
    let server = Server::new().tls(server_tls(&authority.issue(LOCAL)));
    let server = serve(server.add_service(Echo)).await;
    let (url, heads) = proxy(OK, Some(server)).await;
    // The default port of the scheme is a part of the request.
    let channel = with_proxy("https://localhost", &url).tls(trusting(&authority));
    let client = client_with(channel.credentials(BearerToken::new("a").unwrap())).await;
    assert_eq!(echo(&client, "one").await, "one");
    assert!(heads.lock().unwrap()[0].starts_with("CONNECT localhost:443 HTTP/1.1\r\n"));
}

async fn failure(channel: trunkline::ChannelBuilder) -> Status {
    let connecting = within("connecting", channel.connect()).await;
    let status = connecting.expect_err("the proxy refuses");
    assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    assert!(!status.message().contains("secret"), "{status}");
    status
}

#[tokio::test]
async fn a_proxy_that_refuses_or_does_not_respond_fails_the_attempt() {
    for (response, why) in [
        (
            &b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\nno"[..],
            "the proxy refused the tunnel: HTTP/1.1 407 Proxy Authentication Required: no; set the user and the password in the URL of the proxy",
        ),
        (
            b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
            "the proxy refused the tunnel: HTTP/1.1 502 Bad Gateway",
        ),
        (
            b"\0\0\0\x04\0\0\0\0\0",
            "the proxy closed the connection without a response",
        ),
        (
            b"",
            "no response within 100ms; is the address right, or does a firewall drop packets?",
        ),
    ] {
        let (url, _) = proxy(response, None).await;
        let shown = url.rsplit_once('@').expect("a user").1.to_owned();
        let channel = with_proxy("greeter.invalid:7", &url);
        let status = failure(channel.connect_timeout(match response {
            b"" => Duration::from_millis(100),
            _ => Duration::from_secs(20),
        }))
        .await;
        let subject = format!("cannot connect to greeter.invalid:7 (through the proxy {shown})");
        assert_eq!(status.message(), format!("{subject}: {why}"));
    }
}

#[tokio::test]
async fn a_proxy_that_does_not_resolve_is_named() {
    let status = failure(with_proxy("greeter.example:7", "http://proxy.invalid:3128")).await;
    let expected = "cannot connect to greeter.example:7 (through the proxy proxy.invalid:3128): the name proxy.invalid does not resolve: ";
    assert!(status.message().starts_with(expected), "{status}");
}

#[tokio::test]
async fn credentials_are_not_sent_through_a_proxy_in_plaintext() {
    let channel = with_proxy("greeter.invalid:7", "http://127.0.0.1:1");
    let refused = channel
        .credentials(BearerToken::new("a").unwrap())
        .connect_lazy();
    assert_eq!(
        refused.expect_err("plaintext").code(),
        Code::INVALID_ARGUMENT
    );
}

/// The environment belongs to the whole process, so the clients run in one of their own.
#[tokio::test(flavor = "multi_thread")]
async fn the_environment_names_a_proxy_which_is_not_used_on_this_machine() {
    let name = "the_environment_names_a_proxy_which_is_not_used_on_this_machine";
    if let Some(mut program) = own_process(module_path!(), name) {
        let server = serve(Server::new().add_service(Echo)).await;
        let (url, heads) = proxy(OK, Some(server.clone())).await;
        program
            .env("HTTPS_PROXY", url)
            .env("NO_PROXY", "direct.invalid");
        program.env("TRUNKLINE_TEST_SERVER", server);
        program.env_remove("grpc_proxy").env_remove("no_grpc_proxy");
        tokio::task::spawn_blocking(|| passes(program))
            .await
            .expect("it passes");
        let heads = heads.lock().unwrap();
        let lines: Vec<_> = heads.iter().filter_map(|it| it.lines().next()).collect();
        assert_eq!(lines, ["CONNECT proxied.invalid:443 HTTP/1.1"]);
        return;
    }
    let server = std::env::var("TRUNKLINE_TEST_SERVER").expect("the address of the server");
    for target in ["proxied.invalid", &server] {
        let client = client_with(Channel::to(target)).await;
        assert_eq!(echo(&client, "one").await, "one", "{target}");
    }
    for channel in [
        Channel::to("direct.invalid"),
        Channel::to("proxied.invalid").no_proxy(),
    ] {
        let client = Client::new(channel.connect_lazy().unwrap());
        let status = client.unary::<_, Raw>(UNARY, raw("x")).await.unwrap_err();
        assert!(
            status.message().contains(".invalid does not resolve"),
            "{status}"
        );
    }
}
