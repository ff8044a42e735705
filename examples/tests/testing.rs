//! Tests of a service and a client, as shown in `docs/testing.md`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower::Service as _;
use tower::layer::layer_fn;
use trunkline::channel::ConnectivityState;
use trunkline::testing::{Faults, in_memory};
use trunkline::tower::LayeredService;
use trunkline::{Address, Channel, Code, Context, Next, Request, Result, Server, Status};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        match request.name.as_str() {
            "" => return Err(Status::invalid_argument("a name is needed")),
            "slow" => tokio::time::sleep(Duration::from_secs(3600)).await,
            _ => {}
        }
        let message = format!("Hello, {}!", request.name);
        Ok(HelloReply { message })
    }
}

fn named(name: &str) -> HelloRequest {
    HelloRequest { name: name.into() }
}

#[tokio::test]
async fn a_greeting_has_the_name() {
    let server = Server::new().add_service(GreeterServer::new(MyGreeter));
    let client = GreeterClient::new(Channel::in_process(server));

    let response = client.say_hello(named("world")).await.unwrap();
    assert_eq!(response.message, "Hello, world!");

    let status = client.say_hello(named("")).await.unwrap_err();
    assert_eq!(status.code(), Code::INVALID_ARGUMENT);
}

#[tokio::test]
async fn a_greeting_can_be_large() {
    let server = Server::new()
        .max_recv_message_size(32 << 20)
        .add_service(GreeterServer::new(MyGreeter));
    let channel = Channel::in_process(server).max_recv_message_size(32 << 20);
    let client = GreeterClient::new(channel);
    let name = "x".repeat(16 << 20);
    assert!(client.say_hello(named(&name)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_slow_greeting_misses_its_deadline() {
    let server = Server::new().add_service(GreeterServer::new(MyGreeter));
    let client = GreeterClient::new(Channel::in_process(server));

    let began = Instant::now();
    let call = client.say_hello(named("slow"));
    let status = call.timeout(Duration::from_secs(30)).await.unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    assert_eq!(began.elapsed().as_secs(), 30);
}

#[tokio::test]
async fn it_works_over_http_2() {
    let server = Server::new().add_service(GreeterServer::new(MyGreeter));
    let channel = in_memory(server).connect().await.unwrap();
    let client = GreeterClient::new(channel);
    assert!(client.say_hello(named("world")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_a_call_as_long_as_its_grace() {
    let server = Server::new()
        .drain_grace(Duration::from_secs(60))
        .add_service(GreeterServer::new(MyGreeter));
    let channel = Channel::to("127.0.0.1:1").connector(move |_address: Address| {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let shutdown = tokio::time::sleep(Duration::from_secs(5));
        tokio::spawn(server.clone().serve_connection_until(far, shutdown));
        async { Ok(near) }
    });
    let client = GreeterClient::new(channel.connect().await.unwrap());

    let began = Instant::now();
    let status = client.say_hello(named("slow")).await.unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE);
    assert_eq!(began.elapsed().as_secs(), 65);
}

#[tokio::test(start_paused = true)]
async fn a_client_recovers_from_failures_of_its_connection() {
    let faults = Faults::new();
    let server = Server::new().add_service(GreeterServer::new(MyGreeter));
    let channel = faults.in_memory(server).connect().await.unwrap();
    let mut states = channel.watch_state();
    let client = GreeterClient::new(channel);
    let greet = || client.say_hello(named("world"));

    faults.black_hole();
    let status = greet().timeout(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    faults.restore();
    assert!(greet().await.is_ok());
    assert_eq!(faults.connections(), 1);

    faults.cut();
    states.until(ConnectivityState::Idle).await;
    assert!(greet().await.is_ok());
    assert_eq!(faults.connections(), 2);
}

#[tokio::test]
async fn faults_affect_sockets_as_well() {
    let server = Server::new().add_service(GreeterServer::new(MyGreeter));
    let bound = server.bind("127.0.0.1:0").await.unwrap();
    let target = bound.local_addr();
    tokio::spawn(bound.serve());

    let faults = Faults::new();
    let connector = faults.connector(|address: Address| async move {
        let address = address.tcp().ok_or(std::io::ErrorKind::Unsupported)?;
        TcpStream::connect(address).await
    });
    let channel = Channel::to(&target).connector(connector);
    let client = GreeterClient::new(channel.connect().await.unwrap());
    assert!(client.say_hello(named("world")).await.is_ok());

    faults.refuse();
    let status = client.say_hello(named("world")).await.unwrap_err();
    assert_eq!(status.code(), Code::UNAVAILABLE);
}

/// Delays every second call, and then fails it.
async fn every_other(calls: Arc<AtomicUsize>, mut cx: Context, next: Next) -> Result<()> {
    if calls.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        return Err(Status::unavailable("injected"));
    }
    next.run(&mut cx).await
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_delays_and_fails_calls() {
    let calls = Arc::new(AtomicUsize::new(0));
    let server = Server::new()
        .intercept(move |cx, next| every_other(calls.clone(), cx, next))
        .add_service(GreeterServer::new(MyGreeter));
    let client = GreeterClient::new(Channel::in_process(server));

    assert!(client.say_hello(named("world")).await.is_ok());
    let status = client.say_hello(named("world")).await.unwrap_err();
    assert_eq!(status.message(), "injected");
}

#[tokio::test]
async fn a_tower_layer_responds_instead_of_the_server() {
    let calls = Arc::new(AtomicUsize::new(0));
    let first_is_lost = layer_fn(move |server: LayeredService| {
        let calls = calls.clone();
        tower::service_fn(move |request| {
            let mut server = server.clone();
            let is_first = calls.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if is_first {
                    return Err(Status::unavailable("injected"));
                }
                server.call(request).await
            }
        })
    });
    let server = Server::new()
        .layer(first_is_lost)
        .add_service(GreeterServer::new(MyGreeter));
    let client = GreeterClient::new(Channel::in_process(server));

    let status = client.say_hello(named("world")).await.unwrap_err();
    assert_eq!(status.message(), "injected");
    assert!(client.say_hello(named("world")).await.is_ok());
}
