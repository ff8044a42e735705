//! What people do wrong, done here against servers that are there: each gets the right code, and a
//! message that names the cause and the way out.

#![cfg(unix)]

use std::fmt;
use std::future::pending;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::errors_index::{self, Mistake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use trunkline::details::DebugInfo;
use trunkline::server::Methods;
use trunkline::tls::ClientTls;
use trunkline::{
    Address, Channel, ChannelBuilder, Client, Code, Method, Raw, Request, Server, Status,
};
use trunkline_testkit::{Authority, Fields, Frame, Outcome, RawListener, RawPeer};
use trunkline_tests::fixture::{
    self, Echo, UNARY, With, client_of, client_with, frame, nothing, raw, within,
};
use trunkline_tests::own_process::{own_process, passes};
use trunkline_tests::tls_ends::{self, LOCAL, server_tls, trusting, try_echo};

/// In the environment of the child: the target that it calls.
const CHILD: &str = "TRUNKLINE_MISTAKES_TARGET";
const SHORT: Duration = Duration::from_millis(50);
/// Long enough for a response to begin, on a machine that is busy.
const BEGUN_BY: Duration = Duration::from_secs(2);

#[tokio::test]
async fn each_of_sixteen_mistakes_is_named_with_its_cause_and_the_way_out() {
    let name = "each_of_sixteen_mistakes_is_named_with_its_cause_and_the_way_out";
    let Some(child) = own_process(module_path!(), name) else {
        let target = std::env::var(CHILD).expect("a target");
        return call_over_tls_as_it_comes(&target).await;
    };
    let mistakes = [
        made("The server is not running", no_server().await),
        made("The name does not resolve", no_such_name().await),
        made("The address has no scheme", no_scheme().await),
        made("TLS was not set up", no_tls_set_up(child).await),
        made(
            "A plaintext client calls a TLS server",
            plaintext_to_tls().await,
        ),
        made(
            "A TLS client calls a plaintext server",
            tls_to_plaintext().await,
        ),
        made(
            "The server's certificate is not accepted",
            wrong_certificate().await,
        ),
        made("The server speaks HTTP/1.1", http_1_server().await),
        made("The deadline passes", late().await),
        made("The handler panics", panicking().await),
        made("A message exceeds the limit", large().await),
        made("The service or method does not exist", unknown().await),
        made("The port is in use", port_in_use().await),
        made("The caller is not a gRPC client", no_grpc_client().await),
        made("Metadata exceeds the limit", large_metadata().await),
        made("The service config is invalid", invalid_service_config()),
    ];
    errors_index::print(&mistakes);
    errors_index::hold(&mistakes);
}

fn made(title: &'static str, says: impl Into<Vec<String>>) -> Mistake {
    let says = says.into();
    Mistake { title, says }
}

/// The code and the message, which has all `words`; with names in the place of what is another in
/// each run.
fn said(status: &Status, code: Code, words: &[&str], names: &[(&str, &str)]) -> String {
    assert_eq!(status.code(), code, "{status}");
    let mut text = status.to_string();
    for (value, name) in names {
        assert!(text.contains(value), "{value}: {text}");
        text = text.replace(value, name);
    }
    if let Some((before, rest)) = text.split_once(" (os error ") {
        let (_, after) = rest.split_once(')').expect("a number");
        text = format!("{before}{after}");
    }
    for words in words {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    text
}

async fn refused(channel: ChannelBuilder) -> Status {
    let connecting = within("connecting", channel.connect());
    connecting.await.expect_err("it cannot be reached")
}

async fn call(client: &Client) -> trunkline::Result<String> {
    try_echo(client, "x").await
}

async fn no_server() -> [String; 2] {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let tcp = refused(Channel::to(&address)).await;
    let words = ["is the server running, and is the port right?"];
    let unix = refused(Channel::to("unix:/nowhere/greeter.sock")).await;
    [
        said(&tcp, Code::UNAVAILABLE, &words, &[(&address, "HOST:PORT")]),
        said(
            &unix,
            Code::UNAVAILABLE,
            &["unix:/nowhere/greeter.sock", "is the server running?"],
            &[],
        ),
    ]
}

fn invalid_service_config() -> [String; 3] {
    let name = r#""name": [{"service": "test.Fixture"}]"#;
    let configs = [
        format!(r#"{{"methodConfig": [{{{name}, "timeout": "5"}}]}}"#),
        format!(r#"{{"methodConfig": [{{{name}, "retryPolicy": {{"maxAttempts": 3}}}}]}}"#),
        r#"{"loadBalancingConfig": [{"fastest": {}}]}"#.to_owned(),
    ];
    configs.map(|config| {
        let channel = Channel::to("localhost:50051").service_config(&config);
        let status = channel.connect_lazy().expect_err("an invalid config");
        said(&status, Code::INVALID_ARGUMENT, &["Config"], &[])
    })
}

async fn no_such_name() -> [String; 1] {
    // RFC 6761, section 6.4: no name under .invalid exists. A resolver that has nobody to ask takes
    // its time to say so.
    let channel = Channel::to("greeter.invalid:50051").connect_timeout(Duration::from_secs(90));
    let status = tokio::time::timeout(Duration::from_secs(100), channel.connect()).await;
    let status = status.expect("the resolver answers").expect_err("no name");
    let text = said(
        &status,
        Code::UNAVAILABLE,
        &[
            "greeter.invalid:50051",
            "the name greeter.invalid does not resolve",
            "is it spelled right, and is the DNS server reachable?",
        ],
        &[],
    );
    // What the resolver says is another text on each system.
    let (before, rest) = text.split_once("resolve: ").expect("the resolver's words");
    let (_, after) = rest.split_once("; is it").expect("the way out");
    [format!(
        "{before}resolve: failed to lookup address information; is it{after}"
    )]
}

async fn no_scheme() -> [String; 3] {
    let address = fixture::serve(Server::new().add_service(Echo)).await;
    assert_eq!(call(&client_of(&address).await).await.expect("OK"), "x");
    let invalid = |target: &str, words: &[&str]| {
        let status = Channel::to(target).connect_lazy().expect_err(target);
        let understood = ["understood are host:port, http://host:port"];
        said(&status, Code::INVALID_ARGUMENT, &understood, &[]);
        said(&status, Code::INVALID_ARGUMENT, words, &[])
    };
    [
        "OK: HOST:PORT is understood as http://HOST:PORT".to_owned(),
        invalid("localhost:70000", &["the port 70000 is out of range"]),
        invalid(
            "grpc://localhost:50051",
            &["the scheme \"grpc\" is unknown"],
        ),
    ]
}

async fn no_tls_set_up(mut child: Command) -> [String; 1] {
    let authority = Authority::new();
    let tls = server_tls(&authority.issue(LOCAL));
    let target = tls_ends::serve(Server::new().tls(tls).add_service(Echo)).await;
    let roots = std::env::temp_dir().join(format!("trunkline-roots-{}.pem", std::process::id()));
    std::fs::write(&roots, authority.pem()).expect("a file");
    // What a process trusts is read from its environment, which is not to be changed while it runs.
    child
        .env("SSL_CERT_FILE", &roots)
        .env_remove("SSL_CERT_DIR")
        .env(CHILD, target);
    let running = tokio::task::spawn_blocking(move || passes(child)).await;
    std::fs::remove_file(&roots).expect("our file");
    running.expect("it passes");
    ["OK: https://HOST:PORT needs no more than a certificate that the system trusts".to_owned()]
}

async fn call_over_tls_as_it_comes(target: &str) {
    let channel = within("connecting", Channel::connect(target)).await;
    let client = Client::new(channel.expect("TLS needs no setting"));
    assert_eq!(call(&client).await.expect("OK"), "x");
}

async fn plaintext_to_tls() -> [String; 3] {
    let tls = || server_tls(&Authority::new().issue(LOCAL));
    let address = fixture::serve(Server::new().tls(tls()).add_service(Echo)).await;
    let at: SocketAddr = address.parse().expect("an address");
    let named = Channel::to("greeter.example:50051");
    let named = named.lookup(move |_, _| async move { Ok(vec![Address::Tcp(at)]) });
    let path = std::env::temp_dir().join(format!("trunkline-5-{}.sock", std::process::id()));
    let socket = format!("unix:{}", path.display());
    let bound = Server::new()
        .tls(tls())
        .add_service(Echo)
        .bind(&socket)
        .await;
    tokio::spawn(bound.expect("a socket").serve());

    let tells = |status: &Status, way_out: &str, names: &[(&str, &str)]| {
        said(
            status,
            Code::UNAVAILABLE,
            &["expects TLS", "plaintext"],
            &[],
        );
        said(status, Code::UNAVAILABLE, &[way_out], names)
    };
    [
        tells(
            &refused(Channel::to(&address)).await,
            "connect to https://HOST:PORT",
            &[(&address, "HOST:PORT")],
        ),
        tells(
            &refused(named).await,
            "(ADDRESS:PORT) expects TLS, and this connection is plaintext: connect to https://greeter.example:50051",
            &[(&address, "ADDRESS:PORT")],
        ),
        tells(
            &refused(Channel::to(&socket)).await,
            "set ChannelBuilder::tls",
            &[(&socket, "unix:/PATH")],
        ),
    ]
}

async fn tls_to_plaintext() -> [String; 1] {
    let address = fixture::serve(Server::new().add_service(Echo)).await;
    let target = format!("https://{address}");
    let status = refused(Channel::to(&target).tls(trusting(&Authority::new()))).await;
    let words = ["does not speak TLS", "use http://"];
    [said(
        &status,
        Code::UNAVAILABLE,
        &words,
        &[(&address, "HOST:PORT")],
    )]
}

async fn wrong_certificate() -> [String; 2] {
    let authority = Authority::new();
    let tls = server_tls(&authority.issue(&["greeter.example"]));
    let address = fixture::serve(Server::new().tls(tls).add_service(Echo)).await;
    let target = format!("https://{address}");
    let to = |tls: ClientTls| refused(Channel::to(&target).tls(tls));
    let name = to(trusting(&authority)).await;
    let stranger = to(trusting(&Authority::new())).await;
    [
        said(
            &name,
            Code::UNAVAILABLE,
            &[
                "valid for greeter.example, and not for 127.0.0.1",
                "ClientTls::server_name",
            ],
            &[(&address, "HOST:PORT")],
        ),
        said(
            &stranger,
            Code::UNAVAILABLE,
            &["authority that is not trusted here", "ClientTls::ca_file"],
            &[(&address, "HOST:PORT")],
        ),
    ]
}

async fn http_1_server() -> [String; 1] {
    let listener = RawListener::bind().await;
    let address = listener.address();
    let serving = tokio::spawn(async move {
        let mut stream = listener.accept_silent().await;
        stream.read_u8().await.expect("a preface");
        let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).await.expect("a client");
        // Until the client has gone: a socket that is closed with unread bytes resets its client.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    let status = refused(Channel::to(&address)).await;
    serving.abort();
    let words = ["speaks HTTP/1.1", "needs HTTP/2", "gRPC port?"];
    [said(
        &status,
        Code::UNAVAILABLE,
        &words,
        &[(&address, "HOST:PORT")],
    )]
}

async fn late() -> [String; 5] {
    let late = |status: &Status, words: &[&str], names: &[(&str, &str)]| {
        let text = said(status, Code::DEADLINE_EXCEEDED, words, names);
        said(
            status,
            Code::DEADLINE_EXCEEDED,
            &["the deadline passed"],
            &[],
        );
        text
    };
    let ends = async |client: &Client, timeout: Duration| {
        let call = client.unary::<Raw, Raw>(UNARY, raw("x")).timeout(timeout);
        let ended = within("the deadline", call.into_future()).await;
        ended.expect_err("the deadline passes")
    };
    // Nobody accepts, and the kernel connects: nothing ever comes.
    let deaf = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = deaf.local_addr().expect("an address").to_string();
    let connecting = Channel::to(&address).connect_lazy().expect("a target");
    let connecting = ends(&Client::new(connecting), SHORT).await;

    let begun = Arc::new(Notify::new());
    let one = Server::new()
        .max_concurrent_streams(1)
        .add_service(stuck(&begun));
    let client = client_with(Channel::to(&fixture::serve(one).await).max_connections(1)).await;
    let first = client.unary::<Raw, Raw>(UNARY, raw("x"));
    let first = tokio::spawn(first.into_future());
    within("the handler", begun.notified()).await;
    let waiting = ends(&client, SHORT).await;
    first.abort();

    let [silent, slow] = [None, Some(frame(b"first"))].map(server_that_stops);
    let silent = ends(&silent.await, SHORT).await;
    let slow = ends(&slow.await, BEGUN_BY).await;
    [
        late(
            &connecting,
            &["waited for a connection", "the address may be wrong"],
            &[(&address, "HOST:PORT")],
        ),
        late(
            &waiting,
            &["waited for a stream", "raise max_connections"],
            &[],
        ),
        late(
            &silent,
            &["waited for the head of the response", "timeout too short"],
            &[],
        ),
        late(
            &slow,
            &["while the response was being received", "may be too short"],
            &[],
        ),
        late(
            &status_of_a_late_handler().await,
            &["while the handler was running"],
            &[],
        ),
    ]
}

/// A service whose handler tells that it has begun, and never ends.
fn stuck(begun: &Arc<Notify>) -> impl trunkline::Service + use<> {
    let begun = begun.clone();
    With(move |methods: &mut Methods| {
        methods.unary(UNARY, &begun, |begun, _: Request<Raw>| async move {
            begun.notify_one();
            pending::<trunkline::Result<Raw>>().await
        });
    })
}

/// A client of a server that begins a response, if it has one, and never ends it.
async fn server_that_stops(response: Option<bytes::Bytes>) -> Client {
    let listener = RawListener::bind().await;
    let address = listener.address();
    tokio::spawn(async move {
        let mut peer = listener.accept().await;
        let stream = peer.next_request().await;
        if let Some(response) = response {
            let head = Frame::headers(stream, &Fields::response());
            peer.write(&[head, Frame::data(stream, response)]).await;
        }
        peer.until_closed().await;
    });
    client_of(&address).await
}

/// What a server says that ends the call before its client does.
async fn status_of_a_late_handler() -> Status {
    let server = Server::new().add_service(stuck(&Arc::default()));
    let mut peer = RawPeer::connect(&fixture::serve(server).await).await;
    let head = Fields::call(UNARY.path()).and("grpc-timeout", "50m");
    let stream = peer.call(&head, frame(b"x")).await;
    let outcome = peer.outcome(stream).await;
    let code = Code::DEADLINE_EXCEEDED;
    assert_eq!(outcome, Outcome::Answered(200, code.into()));
    Status::new(code, peer.stream(stream).grpc_message())
}

async fn panicking() -> [String; 1] {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).expect("the only one");
    let service = With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
            assert!(request.0.is_empty(), "the password is 4711");
            Ok(request.into_inner())
        });
    });
    let client = client_of(&fixture::serve(Server::new().add_service(service)).await).await;
    let status = call(&client).await.expect_err("a panic");
    assert!(!format!("{status:?}").contains("4711"), "{status:?}");
    let logged = log.0.lock().expect("no panic").clone();
    assert!(
        logged.iter().any(|it| it.contains("4711")),
        "not in {logged:?}"
    );
    let words = ["the handler panicked", "the server's log says why"];
    [said(&status, Code::INTERNAL, &words, &[])]
}

/// What the server logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("trunkline")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Line(&mut self.0.lock().expect("no panic")));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line<'a>(&'a mut Vec<String>);

impl Visit for Line<'_> {
    fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
        self.0.push(format!("{value:?}"));
    }
}

async fn large() -> [String; 4] {
    let over = async |server: Server, channel: fn(ChannelBuilder) -> ChannelBuilder| {
        let address = fixture::serve(server.add_service(Echo)).await;
        let client = client_with(channel(Channel::to(&address))).await;
        for text in ["at most 10", "this has 11"] {
            match try_echo(&client, text).await {
                Ok(response) => assert_eq!(response, "at most 10"),
                Err(status) => return status,
            }
        }
        panic!("11 bytes pass");
    };
    let server = Server::new;
    let table = [
        (
            over(server(), |it| it.max_send_message_size(10)).await,
            ["max_send_message_size", "of the channel for a request"],
        ),
        (
            over(server().max_recv_message_size(10), |it| it).await,
            ["a request message", "max_recv_message_size of the server"],
        ),
        (
            over(server().max_send_message_size(10), |it| it).await,
            ["max_send_message_size", "of the server for a response"],
        ),
        (
            over(server(), |it| it.max_recv_message_size(10)).await,
            ["a response message", "max_recv_message_size of the channel"],
        ),
    ];
    table.map(|(status, words)| {
        for size in ["11 bytes", "10 bytes", "raise"] {
            said(&status, Code::RESOURCE_EXHAUSTED, &[size], &[]);
        }
        said(&status, Code::RESOURCE_EXHAUSTED, &words, &[])
    })
}

async fn unknown() -> [String; 4] {
    let client = client_of(&fixture::serve(Server::new().add_service(Echo)).await).await;
    let call = async |path: &'static str, words: &[&str]| {
        let call = client.unary::<Raw, Raw>(Method::new(path), raw("x"));
        let status = within(path, call.into_future()).await.expect_err(path);
        said(&status, Code::UNIMPLEMENTED, words, &[])
    };
    [
        call("/test.Fixture/Unray", &["did you mean Unary?"]).await,
        call("/test.Fixture/Cancel", &["is the server older"]).await,
        call("/tset.Fixture/Unary", &["this server has test.Fixture"]).await,
        call("/shop.Orders/Cancel", &["was it added to this server"]).await,
    ]
}

async fn port_in_use() -> [String; 1] {
    let address = fixture::serve(Server::new().add_service(Echo)).await;
    let second = Server::new().add_service(Echo).bind(&address).await;
    let status = second.expect_err("the port is taken");
    let words = ["another process listens there", "choose another port"];
    [said(
        &status,
        Code::UNAVAILABLE,
        &words,
        &[(&address, "HOST:PORT")],
    )]
}

async fn no_grpc_client() -> [String; 3] {
    let address = fixture::serve(Server::new().add_service(Echo)).await;
    let mut peer = RawPeer::connect(&address).await;
    let mut asked = async |head: Fields, http: u16, words: &str| {
        let stream = peer.call(&head, "{}").await;
        // UNKNOWN, for those who look at it all the same.
        assert_eq!(peer.outcome(stream).await, Outcome::Answered(http, 2));
        let text = String::from_utf8(peer.stream(stream).data.to_vec()).expect("text");
        for words in [words, "this is a gRPC server", "grpcurl"] {
            assert!(text.contains(words), "{text}");
        }
        format!("HTTP {http}: {}", text.trim_end())
    };
    let head = || Fields::call(UNARY.path());
    let get = asked(head().with(":method", "GET"), 405, "must be POST").await;
    let json = head().with("content-type", "application/json");
    let json = asked(json, 415, "must be application/grpc").await;

    let mut stream = TcpStream::connect(&address).await.expect("our server");
    let request = b"POST /test.Fixture/Unary HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).await.expect("our server");
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    within("the answer", reading).await.expect("text");
    let (head, text) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(
        head.starts_with("HTTP/1.1 426 Upgrade Required\r\n"),
        "{head}"
    );
    for words in ["This is a gRPC server", "HTTP/2", "grpcurl", "curl"] {
        assert!(text.contains(words), "{text}");
    }
    [get, json, format!("HTTP 426: {}", text.trim_end())]
}

async fn large_metadata() -> [String; 4] {
    let service = With(|methods: &mut Methods| {
        methods.unary(UNARY, &nothing(), |_, request: Request<Raw>| async move {
            if request.0.is_empty() {
                let large = DebugInfo::new("x".repeat(40_000));
                return Err(Status::not_found("no such greeting").with_detail(large));
            }
            request.response().trailer("large", &"x".repeat(40_000))?;
            Ok(request.into_inner())
        });
    });
    let client = client_of(&fixture::serve(Server::new().add_service(service)).await).await;
    let told = async |size: usize, text: &'static str, code: Code, words: &[&str]| {
        let call = client.unary::<Raw, Raw>(UNARY, raw(text));
        let call = call.metadata("large", &"x".repeat(size));
        let status = within("a call", call.into_future()).await;
        let text = said(&status.expect_err("it is too large"), code, words, &[]);
        // The size of a head depends on the port and on the version.
        let (before, rest) = text.split_once(" bytes of ").expect("a size");
        let before = before.trim_end_matches(|it: char| it.is_ascii_digit());
        format!("{before}SIZE bytes of {rest}")
    };
    let announced = "32768 that their receiver announced";
    let exhausted = Code::RESOURCE_EXHAUSTED;
    [
        told(40_000, "x", exhausted, &["request headers", announced]).await,
        told(20_000, "x", exhausted, &["16384", "max_header_list_size"]).await,
        told(0, "x", exhausted, &["trailers", announced]).await,
        told(
            0,
            "",
            Code::NOT_FOUND,
            &["left out: the details", announced],
        )
        .await,
    ]
}
