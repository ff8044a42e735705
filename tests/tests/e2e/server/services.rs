//! Options that a service has of its own.

use std::future::{IntoFuture, pending};
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout};
use tower_layer::layer_fn;
use trunkline::server::{Methods, ServiceMethods, ServiceServer};
use trunkline::testing::in_memory;
use trunkline::tower::{Body, LayeredService};
use trunkline::{
    Channel, Client, Code, Context, FileDescriptors, Method, Next, Raw, Request, Result, Sender,
    Server, Status, Streaming,
};
use trunkline_health::{Health, HealthClient};
use trunkline_testkit::{Fields, Frame, Outcome, RawPeer, error};
use trunkline_tests::fixture::{Echo, UNARY, raw, serve, within};

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

/// Channels to the server that `make` makes: in process, over HTTP/2 in memory, behind a layer, and as a tower service,
/// without and with a layer.
fn each_way(make: impl Fn() -> Server) -> [(&'static str, Channel); 5] {
    let same = || layer_fn(|service: LayeredService| service);
    let over_http_2 = |server| in_memory(server).connect_lazy().expect("a good target");
    [
        ("in process", Channel::in_process(make())),
        ("over HTTP/2", over_http_2(make())),
        ("behind a layer", over_http_2(make().layer(same()))),
        ("as a tower service", Channel::new(make().into_router())),
        (
            "as a tower service with a layer",
            Channel::new(make().layer(same()).into_router()),
        ),
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

/// A table of methods that registers them from a hook, as reflection does.
struct FromHook;

impl ServiceMethods<Long> for FromHook {
    const NAME: &'static str = "helloworld.Greeter";
    const FILE_DESCRIPTORS: &'static FileDescriptors = &FileDescriptors::new(&[], &[]);

    fn add_to(service: &Arc<Long>, methods: &mut Methods) {
        let service = service.clone();
        methods.on_service_added(move |methods| {
            let method = Method::new("/helloworld.Greeter/SayHello");
            methods.unary(
                method,
                &service,
                |service, request: Request<HelloRequest>| async move {
                    service.say_hello(request).await
                },
            );
        });
    }
}

#[tokio::test]
async fn methods_that_a_hook_registers_keep_the_interceptors_of_their_service() {
    let deny =
        |_: Context, _: Next| async move { Err(Status::unauthenticated("the token is missing")) };
    let guarded = || ServiceServer::<FromHook, Long>::new(Long).intercept(deny);
    let open = || GreeterServer::new(Long);
    for (order, server) in [
        ("alone", Server::new().add_service(guarded())),
        (
            "before another",
            Server::new()
                .add_service(guarded())
                .add_service(Health::new()),
        ),
        (
            "before itself without an interceptor",
            Server::new().add_service(guarded()).add_service(open()),
        ),
    ] {
        let greeter = GreeterClient::new(Channel::in_process(server));
        let status = greeter.say_hello(named("a")).await.unwrap_err();
        assert_eq!(status.code(), Code::UNAUTHENTICATED, "{order}");
    }
}

#[tokio::test]
async fn a_guarded_service_does_not_guard_what_another_one_registers_from_a_hook() {
    let deny =
        |_: Context, _: Next| async move { Err(Status::unauthenticated("the token is missing")) };
    let server = Server::new()
        .add_service(ServiceServer::<FromHook, Long>::new(Long))
        .add_service(Health::new())
        .add_service(guide::RouteGuideServer::new(Nothing).intercept(deny));
    let greeter = GreeterClient::new(Channel::in_process(server));
    assert!(greeter.say_hello(named("a")).await.is_ok());
}

/// A service that consists of two: a plain one and a greeter.
struct PlainAndGreeter;

impl ServiceMethods<Long> for PlainAndGreeter {
    const NAME: &'static str = "test.PlainAndGreeter";
    const FILE_DESCRIPTORS: &'static FileDescriptors = &FileDescriptors::new(&[], &[]);

    fn add_to(service: &Arc<Long>, methods: &mut Methods) {
        methods.add_service(Echo);
        methods.add_service(GreeterServer::from_arc(service.clone()));
    }
}

#[tokio::test]
async fn a_plain_service_has_the_options_of_the_service_that_adds_it() {
    let deny =
        |_: Context, _: Next| async move { Err(Status::unauthenticated("the token is missing")) };
    let server = Server::new()
        .add_service(ServiceServer::<PlainAndGreeter, Long>::new(Long).intercept(deny))
        .add_service(Health::new());
    let channel = Channel::in_process(server);
    let client = Client::new(channel.clone());
    let status = client.unary::<Raw, Raw>(UNARY, raw("a")).await.unwrap_err();
    assert_eq!(status.code(), Code::UNAUTHENTICATED);

    let greeter = GreeterClient::new(channel.clone());
    assert!(greeter.say_hello(named("a")).await.is_ok());
    let health = HealthClient::new(channel);
    assert!(health.check(Default::default()).await.is_ok());
}

/// Sends a head, and then never ends.
struct NeverEnds;

impl guide::RouteGuide for NeverEnds {
    async fn list_features(
        &self,
        _: Request<guide::Rectangle>,
        responses: &mut Sender<guide::Feature>,
    ) -> Result<()> {
        responses.send(guide::Feature::default()).await?;
        pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_bounds_a_stream_that_has_begun() {
    for (way, channel) in each_way(|| {
        let service = guide::RouteGuideServer::new(NeverEnds);
        Server::new().add_service(service.max_timeout(Duration::from_secs(2)))
    }) {
        let client = guide::RouteGuideClient::new(channel);
        let mut features = client.list_features(Default::default()).await.unwrap();
        assert!(features.message().await.unwrap().is_some(), "{way}");
        let end = timeout(Duration::from_secs(60), features.message()).await;
        let status = end.expect("the stream ends").unwrap_err();
        assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{way}");
    }
}

/// Passes every request on to the greeter.
#[derive(Clone)]
struct Rewriting(LayeredService);

impl tower_service::Service<http::Request<Body>> for Rewriting {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = <LayeredService as tower_service::Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        *request.uri_mut() = http::Uri::from_static("http://test/helloworld.Greeter/SayHello");
        self.0.call(request)
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_bounds_calls_whose_path_a_layer_has_changed() {
    let server = || {
        let greeter = GreeterServer::new(Remaining).max_timeout(Duration::from_secs(2));
        Server::new()
            .add_service(greeter)
            .layer(layer_fn(Rewriting))
    };
    for (way, channel) in [
        ("in process", Channel::in_process(server())),
        (
            "over HTTP/2",
            in_memory(server()).connect_lazy().expect("a good target"),
        ),
        ("as a tower service", Channel::new(server().into_router())),
    ] {
        let method = Method::new("/another.Greeter/SayHello");
        let client = Client::new(channel);
        let call = client.unary::<HelloRequest, HelloReply>(method, named("nobody"));
        let end = timeout(Duration::from_secs(60), call.into_future()).await;
        let status = end.expect("the call ends").unwrap_err();
        assert_eq!(status.code(), Code::DEADLINE_EXCEEDED, "{way}");
    }
}

/// Takes longer than its client's timeout, and then says how much of it is left.
struct Slow;

impl Greeter for Slow {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Remaining.say_hello(request).await
    }
}

#[tokio::test]
async fn a_timeout_raised_without_bound_is_no_deadline_for_handler_and_transport() {
    let greeter = GreeterServer::new(Slow).min_timeout(Duration::MAX);
    let address = serve(Server::new().add_service(greeter)).await;
    let mut peer = RawPeer::connect(&address).await;
    let head = Fields::call("/helloworld.Greeter/SayHello").and("grpc-timeout", "50m");
    let stream = peer.call(&head, vec![0; 5]).await;
    assert_eq!(peer.outcome(stream).await, Outcome::Answered(200, 0));
}

/// Reports that it has begun, and then blocks its thread.
struct Blocking(UnboundedSender<()>);

impl Greeter for Blocking {
    async fn say_hello(&self, _: Request<HelloRequest>) -> Result<HelloReply> {
        tokio::task::yield_now().await;
        let _ = self.0.send(());
        tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(300)));
        Ok(HelloReply::default())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_timeout_of_a_service_counts_from_the_arrival_of_a_call_that_waits_for_a_permit() {
    let (began, mut has_begun) = unbounded_channel();
    let greeter = GreeterServer::new(Blocking(began)).max_timeout(Duration::from_millis(50));
    let server = Server::new().add_service(greeter);
    let address = serve(server.max_concurrent_streams(1)).await;
    let mut peer = RawPeer::connect(&address).await;
    let head = Fields::call("/helloworld.Greeter/SayHello");
    let first = peer.call(&head, vec![0; 5]).await;
    within("the first", has_begun.recv()).await;
    // The stream has ended, but its handler still has the permit.
    peer.write(&[Frame::rst_stream(first, error::CANCEL)]).await;
    let second = peer.call(&head, vec![0; 5]).await;
    let code = i32::from(Code::DEADLINE_EXCEEDED);
    assert_eq!(peer.outcome(second).await, Outcome::Answered(200, code));
    assert!(has_begun.try_recv().is_err(), "a handler began");
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
