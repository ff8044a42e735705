//! Options that a service has of its own.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use tokio::time::Instant;
use tower_layer::layer_fn;
use trunkline::testing::in_memory;
use trunkline::tower::LayeredService;
use trunkline::{Channel, Code, Context, Next, Request, Result, Sender, Server, Status, Streaming};
use trunkline_health::{Health, HealthClient};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

/// The route guide, of which nothing is implemented.
mod guide {
    include!("../../../../crates/build/tests/golden/default_bodies.rs");
}

/// Says how many milliseconds are left, or waits for ever if it is to greet "nobody".
struct Remaining;

impl Greeter for Remaining {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        if request.name == "nobody" {
            pending::<()>().await;
        }
        let remaining = request.time_remaining();
        Ok(HelloReply {
            message: remaining.map_or_else(String::new, |time| time.as_millis().to_string()),
        })
    }
}

/// Greets at length.
struct Long;

impl Greeter for Long {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let message = request.name.repeat(1000);
        Ok(HelloReply { message })
    }
}

fn named(name: &str) -> HelloRequest {
    let name = name.to_owned();
    HelloRequest { name }
}

/// Channels to the server that `make` makes: in process, over HTTP/2 in memory, and behind a layer.
fn each_way(make: impl Fn() -> Server) -> [(&'static str, Channel); 3] {
    let same = || layer_fn(|service: LayeredService| service);
    let over_http_2 = |server| in_memory(server).connect_lazy().expect("a good target");
    [
        ("in process", Channel::in_process(make())),
        ("over HTTP/2", over_http_2(make())),
        ("behind a layer", over_http_2(make().layer(same()))),
    ]
}

#[tokio::test]
async fn the_interceptors_of_a_service_run_inside_those_of_its_server_and_for_it_alone() {
    let outer = |mut cx: Context, next: Next| async move {
        cx.metadata_mut().insert("order", "outer")?;
        next.run(&mut cx).await
    };
    let inner = |mut cx: Context, next: Next| async move {
        match cx.metadata().get("order") {
            Some("outer") if cx.metadata().get("token").is_some() => next.run(&mut cx).await,
            Some("outer") => Err(Status::unauthenticated("the token is missing")),
            _ => Err(Status::internal("the server's interceptor has not run")),
        }
    };
    for (way, channel) in each_way(|| {
        Server::new()
            .add_service(GreeterServer::new(Long).intercept(inner))
            .add_service(Health::new())
            .intercept(outer)
    }) {
        let greeter = GreeterClient::new(channel.clone());
        let status = greeter.say_hello(named("a")).await.unwrap_err();
        assert_eq!(status.code(), Code::UNAUTHENTICATED, "{way}");
        let call = greeter.say_hello(named("a")).metadata("token", "sesame");
        assert!(call.await.is_ok(), "{way}");
        let health = HealthClient::new(channel);
        assert!(health.check(Default::default()).await.is_ok(), "{way}");
    }
}

#[tokio::test]
async fn the_limits_of_a_service_win_over_those_of_its_server() {
    for (way, channel) in each_way(|| {
        let greeter = GreeterServer::new(Long)
            .max_recv_message_size(10)
            .max_send_message_size(5000);
        let server = Server::new().max_recv_message_size(1).add_service(greeter);
        server.max_send_message_size(1)
    }) {
        let greeter = GreeterClient::new(channel);
        assert!(greeter.say_hello(named("1234")).await.is_ok(), "{way}");
        for name in ["12345", "123456789"] {
            let status = greeter.say_hello(named(name)).await.unwrap_err();
            assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED, "{way}: {name}");
        }
    }
}

#[tokio::test]
async fn a_service_compresses_for_itself() {
    for (way, channel) in each_way(|| {
        let greeter = GreeterServer::new(Long)
            .compress("gzip")
            .compress_above(2000);
        Server::new().add_service(greeter)
    }) {
        let greeter = GreeterClient::new(channel);
        for (name, is_compressed) in [("1", false), ("12", true)] {
            let response = greeter.say_hello(named(name)).await.unwrap();
            assert_eq!(response.is_compressed(), is_compressed, "{way}: {name}");
        }
    }
    let plain = GreeterServer::new(Long).compress("identity");
    let server = Server::new().compress("gzip").add_service(plain);
    let greeter = GreeterClient::new(Channel::in_process(server));
    assert!(
        !greeter
            .say_hello(named("123"))
            .await
            .unwrap()
            .is_compressed()
    );

    let unknown = GreeterServer::new(Long).compress("brotli");
    let bound = Server::new().add_service(unknown).bind("127.0.0.1:0").await;
    let status = bound.unwrap_err();
    assert_eq!(status.code(), Code::INVALID_ARGUMENT);
    assert!(status.message().contains("brotli"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_service_bounds_calls_that_have_no_timeout_or_a_long_one() {
    let second = Duration::from_secs(1);
    for (way, channel) in each_way(|| {
        let greeter = GreeterServer::new(Remaining)
            .default_timeout(second)
            .max_timeout(2 * second);
        Server::new().add_service(greeter)
    }) {
        let greeter = GreeterClient::new(channel);
        // The connection is there before the time is taken.
        assert_eq!(greeter.say_hello(named("a")).await.unwrap().message, "1000");
        let began = Instant::now();
        let status = greeter.say_hello(named("nobody")).await.unwrap_err();
        assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{way}");
        let took = began.elapsed();
        assert!(second <= took && took < 2 * second, "{way}: {took:?}");

        let began = Instant::now();
        let call = greeter.say_hello(named("nobody")).timeout(60 * second);
        let status = call.await.unwrap_err();
        assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{way}");
        let took = began.elapsed();
        assert!(2 * second <= took && took < 3 * second, "{way}: {took:?}");

        let call = greeter.say_hello(named("a")).timeout(second / 2);
        assert_eq!(call.await.unwrap().message, "500", "{way}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_raises_timeouts_that_are_too_short() {
    for (way, channel) in each_way(|| {
        let greeter = GreeterServer::new(Remaining).min_timeout(Duration::from_secs(5));
        Server::new().add_service(greeter)
    }) {
        let greeter = GreeterClient::new(channel);
        for (timeout, remaining) in [(1, "5000"), (9, "9000")] {
            let call = greeter.say_hello(named("a"));
            let response = call.timeout(Duration::from_secs(timeout)).await.unwrap();
            assert_eq!(response.message, remaining, "{way}");
        }
        let response = greeter.say_hello(named("a")).await.unwrap();
        assert_eq!(response.message, "", "{way}");
    }
}

#[tokio::test]
async fn handlers_can_be_shared_between_a_server_and_its_program() {
    let handlers = Arc::new(Long);
    let server = Server::new().add_service(GreeterServer::from_arc(handlers.clone()));
    let greeter = GreeterClient::new(Channel::in_process(server));
    assert!(greeter.say_hello(named("a")).await.is_ok());
    let shared: GreeterServer<Long> = GreeterServer::new(handlers);
    assert!(format!("{shared:?}").contains("helloworld.Greeter"));
}

struct Nothing;

impl guide::RouteGuide for Nothing {
    async fn list_features(
        &self,
        _: Request<guide::Rectangle>,
        responses: &mut Sender<guide::Feature>,
    ) -> Result<()> {
        responses.send(guide::Feature::default()).await
    }
}

#[tokio::test]
async fn a_method_that_has_only_its_default_body_is_unimplemented_and_says_which() {
    let server = Server::new().add_service(guide::RouteGuideServer::new(Nothing));
    let client = guide::RouteGuideClient::new(Channel::in_process(server));
    let mut features: Streaming<_> = client.list_features(Default::default()).await.unwrap();
    assert!(features.message().await.unwrap().is_some());
    let status = client.get_feature(Default::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::UNIMPLEMENTED);
    let expected = "routeguide.RouteGuide/GetFeature is not implemented by this server";
    assert_eq!(status.message(), expected);
    let (_sender, mut notes) = client.route_chat().await.unwrap();
    let status = notes.message().await.unwrap_err();
    assert_eq!(status.code(), Code::UNIMPLEMENTED);
}
