//! Checks the pages of `docs`: each block of Rust is part of an example or of a test, and each block of
//! output is part of the output of an example.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guide::{Feature, Point, Rectangle, RouteGuide, RouteNote, RouteSummary};
use guide::{RouteGuideClient, RouteGuideServer};
use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use trunkline::channel::{ConnectivityState, Proxy};
use trunkline::details::ErrorInfo;
use trunkline::limits::{ChannelLimits, ServerLimits};
use trunkline::{
    Address, Channel, Code, Context, Next, Request, Result, Sender, Server, Status, Streaming,
    shutdown_signal,
};
use trunkline_health::v1::HealthCheckRequest;
use trunkline_health::{Health, HealthClient, ServingStatus};
use trunkline_reflection::Reflection;
use trunkline_reflection::v1::{ServerReflectionClient, ServerReflectionRequest};

#[path = "five_minutes/client.rs"]
#[allow(
    dead_code,
    reason = "programs of their own, which are only compiled here"
)]
mod five_minutes_client;
#[path = "five_minutes/server.rs"]
#[allow(
    dead_code,
    reason = "programs of their own, which are only compiled here"
)]
mod five_minutes_server;

mod guide {
    trunkline::include_proto!("../proto/route_guide.proto");
}

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

const PAGES: &[&str] = &[
    "five-minutes-to-hello.md",
    "call-types.md",
    "deadlines-and-cancellation.md",
    "errors.md",
    "errors-index.md",
    "health-and-reflection.md",
    "codegen.md",
    "large-schemas.md",
    "tls.md",
    "compression.md",
    "server.md",
    "deploying.md",
    "client.md",
    "load-balancing.md",
    "retries.md",
    "service-config.md",
    "metadata-and-interceptors.md",
    "credentials.md",
    "proxies.md",
    "observability.md",
    "from-tonic.md",
    "from-grpc-go.md",
    "testing.md",
];

#[test]
fn every_rust_block_of_the_guide_is_code_that_is_compiled() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for dir in ["", "tests", "tests/five_minutes", "tests/build_scripts"] {
        texts.extend(files(&package.join(dir), "rs"));
    }
    every_block_is_in("rust", &texts);
}

#[test]
fn every_text_block_of_the_guide_is_what_an_example_prints() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    every_block_is_in("text", &files(&package.join("tests/expected"), "txt"));
}

#[test]
fn every_proto_block_of_the_guide_is_in_a_proto_file() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for dir in ["proto", "proto/shop/v1", "tests/proto/schema"] {
        texts.extend(files(&package.join("..").join(dir), "proto"));
    }
    every_block_is_in("proto", &texts);
}

#[test]
fn the_nginx_block_of_the_guide_is_what_the_example_runs() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = fs::read_to_string(package.join("behind_nginx/nginx.conf")).unwrap();
    let http = file
        .strip_suffix("}\n")
        .expect("`http` is the last section");
    let start = http.find("    upstream ").expect("there is an upstream");
    let lines = http[start..].lines();
    let lines: Vec<&str> = lines
        .map(|line| line.strip_prefix("    ").unwrap_or(line))
        .collect();
    let page = fs::read_to_string(package.join("../docs/deploying.md")).unwrap();
    assert_eq!(blocks(&page, "nginx"), [format!("{}\n", lines.join("\n"))]);
}

/// Returns the services in the probes of a page, with an empty name for probes without a service.
fn probes(page: &str) -> Vec<String> {
    let mut services: Vec<String> = Vec::new();
    for block in blocks(page, "yaml") {
        let mut within: Option<usize> = None;
        for line in block.lines() {
            let indent = line.len() - line.trim_start().len();
            if line.ends_with("Probe:") {
                within = Some(indent);
                services.push(String::new());
            } else if within.is_some_and(|probe| indent <= probe) {
                within = None;
            } else if let (Some(_), Some((_, rest))) = (within, line.split_once("service: "))
                && let Some(service) = services.last_mut()
            {
                *service = rest.trim_end_matches([' ', '}']).to_owned();
            }
        }
    }
    services
}

#[tokio::test]
async fn every_probe_of_the_guide_reports_a_healthy_server() {
    let server = Server::new()
        .add_service(GreeterServer::new(MyGreeter))
        .add_service(Health::new());
    let client = HealthClient::new(Channel::in_process(server));
    for page in ["deploying.md", "health-and-reflection.md"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../docs")
            .join(page);
        let services = probes(&fs::read_to_string(path).unwrap());
        assert_eq!(services, ["helloworld.Greeter", ""], "{page}");
        for service in services {
            let said = format!("{page}: {service:?}");
            let check = client.check(HealthCheckRequest { service }).await;
            assert_eq!(
                check.expect(&said).status(),
                ServingStatus::Serving,
                "{said}"
            );
        }
    }
}

/// Asserts that each block of a language on all pages is part of one of the texts. Comments and indentation are
/// ignored, and so is `../` before `proto`: in a project of one package, `proto` is next to `src`.
fn every_block_is_in(language: &str, texts: &[String]) {
    let lines = |text: &str| {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("//"));
        let lines: Vec<String> = lines
            .map(|line| line.replace("../proto", "proto"))
            .collect();
        format!("\n{}\n", lines.join("\n"))
    };
    let texts: Vec<String> = texts.iter().map(|text| lines(text)).collect();
    let mut count = 0;
    for page in PAGES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../docs")
            .join(page);
        let page_text = fs::read_to_string(&path).unwrap();
        for block in blocks(&page_text, language) {
            let wanted = lines(&block);
            let is_there = texts.iter().any(|text| text.contains(&wanted));
            assert!(
                is_there,
                "no source contains this block of {page}:\n{block}"
            );
            count += 1;
        }
    }
    assert!(count > 0, "no page has a block of {language}");
}

fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}");
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in page.lines() {
        match &mut block {
            None if line == fence => block = Some(String::new()),
            None => {}
            Some(_) if line == "```" => blocks.extend(block.take()),
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    assert!(block.is_none(), "a block has no end");
    blocks
}

fn files(dir: &Path, extension: &str) -> Vec<String> {
    let paths = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let is_wanted = |path: &PathBuf| path.extension().is_some_and(|it| it == extension);
    let texts = paths
        .filter(is_wanted)
        .map(|path| fs::read_to_string(path).unwrap());
    texts.collect()
}

/// Code of `docs/tls.md` that no example can run, because it needs a certificate that the system trusts.
#[allow(dead_code, reason = "compiled here, and not run")]
async fn connect_with_the_authorities_of_the_system() -> Result<Channel> {
    let channel = Channel::connect("https://greeter.example").await?;
    Ok(channel)
}

/// Code of `docs/service-config.md` that needs the feature `hickory`.
#[allow(dead_code, reason = "compiled here, and not run")]
fn with_service_configs_from_dns() -> Result<Channel> {
    let channel = Channel::to("shop.example.com:443")
        .dns_service_config(true)
        .connect_lazy()?;
    Ok(channel)
}

struct Echo;

impl RouteGuide for Echo {
    async fn get_feature(&self, _: Request<Point>) -> Result<Feature> {
        let checksum = tokio::task::spawn_blocking(|| checksum(1_000_000));
        let checksum = checksum
            .await
            .map_err(|error| Status::internal("the checksum failed").with_source(error))?;
        Ok(Feature {
            name: format!("{checksum:x}"),
            location: None,
        })
    }

    async fn list_features(&self, _: Request<Rectangle>, _: &mut Sender<Feature>) -> Result<()> {
        std::future::pending().await
    }

    async fn record_route(&self, points: Request<Streaming<Point>>) -> Result<RouteSummary> {
        let mut points = points.into_inner();
        let first = points.message().await?;
        drop(points);
        // The call continues without the remaining requests, even if other tasks run meanwhile.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        Ok(RouteSummary {
            point_count: first.map_or(0, |_| 1),
            ..RouteSummary::default()
        })
    }

    async fn route_chat(
        &self,
        mut notes: Request<Streaming<RouteNote>>,
        responses: &mut Sender<RouteNote>,
    ) -> Result<()> {
        while let Some(note) = notes.message().await? {
            responses.send(note).await?;
        }
        Ok(())
    }
}

fn checksum(count: u64) -> u64 {
    (0..count).fold(0, |sum, number| sum ^ number.wrapping_mul(0x9e37_79b9))
}

async fn over_a_socket() -> Result<RouteGuideClient> {
    let server = Server::new().add_service(RouteGuideServer::new(Echo));
    let server = server.bind("127.0.0.1:0").await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());
    RouteGuideClient::connect(&address).await
}

async fn ask(mut notes: Sender<RouteNote>) -> Result<()> {
    for message in ["a", "b", "c"] {
        let (location, message) = (None, message.to_string());
        notes.send(RouteNote { location, message }).await?;
    }
    notes.finish();
    Ok(())
}

async fn listen(mut responses: Streaming<RouteNote>) -> Result<()> {
    while let Some(note) = responses.message().await? {
        println!("{}", note.message);
    }
    Ok(())
}

#[tokio::test]
async fn both_directions_run_concurrently() -> Result<()> {
    let client = over_a_socket().await?;
    let (notes, responses) = client.route_chat().await?;
    tokio::try_join!(ask(notes), listen(responses))?;
    Ok(())
}

#[tokio::test]
async fn a_handler_can_respond_before_it_has_read_all_requests() -> Result<()> {
    let client = over_a_socket().await?;
    let mut route = client.record_route().await?;
    let points = std::iter::repeat_n(Point::default(), 1_000_000);
    for point in points {
        if route.send(point).await.is_err() {
            break;
        }
    }
    let summary = route.finish().await?;
    assert_eq!(summary.point_count, 1);
    Ok(())
}

#[tokio::test]
async fn computations_run_on_a_separate_thread() -> Result<()> {
    let feature = over_a_socket().await?.get_feature(Point::default()).await?;
    assert!(!feature.name.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_timeout_limits_the_whole_stream() -> Result<()> {
    let client = over_a_socket().await?;
    let mut features = client
        .list_features(Rectangle::default())
        .timeout(Duration::from_millis(100))
        .await?;
    let status = features.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    Ok(())
}

/// Finds one user, and returns an error with details for all others.
struct Store;

impl Greeter for Store {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        match request.time_remaining() {
            Some(_) => Err(Status::aborted("there is a deadline")),
            None if request.name == "known" => Ok(HelloReply::default()),
            None => {
                let info = ErrorInfo::new("NO_SUCH_USER", "store.example.com");
                Err(Status::not_found("there is no such user").with_detail(info))
            }
        }
    }
}

struct Plain {
    store: GreeterClient,
}

impl Greeter for Plain {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let call = self.store.say_hello(request.into_inner()).detached();
        let response = call.await?;
        Ok(response.into_inner())
    }
}

struct Forwarding {
    store: GreeterClient,
}

impl Greeter for Forwarding {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let response = self.store.say_hello(request.into_inner()).await;
        Ok(response.map_err(Status::forward)?.into_inner())
    }
}

struct Parsing;

impl Greeter for Parsing {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let number: u32 = request.name.parse().map_err(not_a_number)?;
        let message = format!("twice that is {}", u64::from(number) * 2);
        Ok(HelloReply { message })
    }
}

fn not_a_number(error: std::num::ParseIntError) -> Status {
    Status::invalid_argument("the name is not a number").with_source(error)
}

struct Panicking;

impl Greeter for Panicking {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        panic!("nobody told me what to say to {}", request.name);
    }
}

fn in_process<S: Greeter>(service: S) -> GreeterClient {
    let server = Server::new().add_service(GreeterServer::new(service));
    GreeterClient::new(Channel::in_process(server))
}

fn named(name: &str) -> HelloRequest {
    let name = name.to_string();
    HelloRequest { name }
}

#[tokio::test]
async fn a_handler_passes_on_details_only_with_forward() {
    let store = in_process(Store);
    let plain = in_process(Plain {
        store: store.clone(),
    });
    let forwarding = in_process(Forwarding { store });
    for (client, has_details) in [(plain, false), (forwarding, true)] {
        let status = client.say_hello(named("unknown")).await.unwrap_err();
        assert_eq!(status.to_string(), "NOT_FOUND: there is no such user");
        assert_eq!(status.detail::<ErrorInfo>().is_some(), has_details);
    }
}

#[tokio::test]
async fn a_detached_call_does_not_inherit_the_deadline() -> Result<()> {
    let plain = in_process(Plain {
        store: in_process(Store),
    });
    let timeout = Duration::from_secs(60);
    plain.say_hello(named("known")).timeout(timeout).await?;
    Ok(())
}

#[tokio::test]
async fn the_cause_of_a_status_stays_in_the_process() {
    let status = in_process(Parsing).say_hello(named("x")).await.unwrap_err();
    let shown = format!("{status:?}");
    assert_eq!(
        shown,
        "INVALID_ARGUMENT: the name is not a number (from the peer)"
    );
}

#[tokio::test]
async fn a_panic_ends_only_its_call_and_the_client_does_not_see_its_message() {
    let client = in_process(Panicking);
    for _ in 0..2 {
        let status = client.say_hello(named("Zed")).await.unwrap_err();
        assert_eq!(
            status.to_string(),
            "INTERNAL: the handler panicked; the server's log says why"
        );
    }
}

async fn authenticate_reflection(mut cx: Context, next: Next) -> Result<()> {
    let is_asked = cx.path().starts_with("/grpc.reflection.");
    match cx.metadata().get("authorization") {
        Some("Bearer open sesame") => next.run(&mut cx).await,
        _ if is_asked => Err(Status::unauthenticated("reflection needs a token")),
        _ => next.run(&mut cx).await,
    }
}

#[tokio::test]
async fn reflection_can_need_a_token_if_other_services_do_not() -> Result<()> {
    let reflection = Reflection::new().with_file_descriptors(&guide::FILE_DESCRIPTORS);
    let server = Server::new()
        .add_service(GreeterServer::new(Store))
        .add_service(reflection)
        .intercept(authenticate_reflection);
    let channel = Channel::in_process(server);
    GreeterClient::new(channel.clone())
        .say_hello(named("known"))
        .await?;

    let client = ServerReflectionClient::new(channel);
    let (_requests, mut responses) = client.server_reflection_info().await?;
    let status = responses.message().await.unwrap_err();
    assert_eq!(status.code(), Code::UNAUTHENTICATED);

    let call = client.server_reflection_info();
    let call = call.metadata("authorization", "Bearer open sesame");
    let (mut requests, mut responses) = call.await?;
    requests.send(ServerReflectionRequest::default()).await?;
    assert!(responses.message().await?.is_some());
    Ok(())
}

/// The code of `docs/server.md` and `docs/deploying.md`.
#[tokio::test]
async fn a_server_is_set_up_as_the_guide_says() {
    let bound = Server::new()
        .add_service(RouteGuideServer::new(Echo))
        .add_service(GreeterServer::new(Store))
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    println!("listens on {}", bound.local_addr());
    drop(bound);

    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let server = Server::new()
        .add_service(GreeterServer::new(Store))
        .max_connection_age(minutes(30))
        .max_connection_age_grace(minutes(5))
        .max_connection_idle(minutes(15))
        .keepalive_time(minutes(1))
        .keepalive_timeout(Duration::from_secs(20))
        .permit_keepalive_time(Duration::from_secs(30))
        .permit_keepalive_without_calls();
    let server = server
        .max_connections(10_000)
        .max_concurrent_streams(200)
        .max_recv_message_size(16 << 20)
        .with_limits(|limits: &mut ServerLimits| {
            limits.header_block_timeout = Duration::from_secs(5)
        });
    let server = server.drain_grace(Duration::from_secs(20));
    let bound = server.bind("127.0.0.1:0").await.unwrap();
    let address = bound.local_addr();
    let serving = tokio::spawn(bound.serve_until(shutdown_signal()));

    let channel = Channel::to(&address)
        .keepalive_time(minutes(5))
        .keepalive_timeout(Duration::from_secs(20))
        .connect()
        .await
        .unwrap();
    let request = HelloRequest {
        name: "known".to_string(),
    };
    assert!(GreeterClient::new(channel).say_hello(request).await.is_ok());
    serving.abort();

    let (client_end, server_end) = tokio::io::duplex(64 * 1024);
    let stop = std::future::ready(());
    let server = Server::new().add_service(GreeterServer::new(Store));
    drop(client_end);
    server.serve_connection_until(server_end, stop).await;
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        Ok(HelloReply {
            message: format!("Hello {}!", request.name),
        })
    }
}

/// The code on Unix sockets in `docs/server.md`.
#[expect(dead_code, reason = "a test does not write to /run")]
async fn on_a_unix_socket() -> Result<()> {
    let server = Server::new().add_service(GreeterServer::new(Store));
    let bound = server.bind("unix:/run/greeter.sock").await?;
    bound.serve().await
}

async fn my_greeter() -> Result<Address> {
    let server = Server::new().add_service(GreeterServer::new(MyGreeter));
    let server = server.bind("127.0.0.1:0").await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());
    Ok(address)
}

async fn is_greeted(client: &GreeterClient) -> Result<()> {
    let response = client
        .say_hello(HelloRequest { name: "you".into() })
        .await?;
    assert_eq!(response.message, "Hello you!");
    Ok(())
}

#[tokio::test]
async fn a_channel_connects_immediately_or_for_the_first_call() -> Result<()> {
    let address = my_greeter().await?;
    let client = GreeterClient::connect(&address).await?;
    let response = client
        .say_hello(HelloRequest { name: "you".into() })
        .await?;
    assert_eq!(response.message, "Hello you!");
    let channel = Channel::to(&address)
        .connect_timeout(Duration::from_secs(5))
        .max_recv_message_size(16 << 20)
        .connect_lazy()?;
    let client = GreeterClient::new(channel);
    is_greeted(&client).await?;
    let channel = Channel::to(&address);
    let channel = channel.with_limits(|limits: &mut ChannelLimits| limits.max_addresses = 10);
    is_greeted(&GreeterClient::new(channel.connect().await?)).await
}

#[tokio::test]
async fn a_channel_has_settings_for_all_calls() -> Result<()> {
    let server = Server::new()
        .add_service(GreeterServer::new(MyGreeter))
        .bind("127.0.0.1:0")
        .await?;
    let channel = Channel::to(server.local_addr())
        .timeout(Duration::from_secs(5))
        .metadata("x-tenant", "acme")
        .connect_lazy()?;
    tokio::spawn(server.serve());
    let client = GreeterClient::new(channel);
    let patient = client
        .clone()
        .with_channel(|channel| channel.timeout(Duration::from_secs(60)));
    assert!(patient.say_hello(named("known")).await.is_ok());
    Ok(())
}

#[tokio::test]
async fn calls_are_distributed_over_several_servers() -> Result<()> {
    let addresses = [my_greeter().await?, my_greeter().await?];
    let channel = Channel::to(&addresses).round_robin().connect().await?;
    is_greeted(&GreeterClient::new(channel)).await
}

#[tokio::test]
async fn a_function_chooses_proxies() -> Result<()> {
    let proxy = Proxy::parse("http://me:secret@proxy.example:3128")?;
    let channel = Channel::to("https://api.example")
        .proxy(move |host, _port| host.ends_with(".example").then(|| proxy.clone()))
        .connect_lazy()?;
    assert_eq!(channel.state(), ConnectivityState::Idle);
    Ok(())
}

#[tokio::test]
async fn a_custom_resolver_replaces_that_of_the_system() -> Result<()> {
    async fn from_a_registry(_host: String, port: u16) -> std::io::Result<Vec<Address>> {
        let found = ["127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap()];
        Ok(found
            .map(|ip| Address::Tcp(SocketAddr::new(ip, port)))
            .into())
    }

    let channel = Channel::to("greeter:50051")
        .lookup(from_a_registry)
        .connect_lazy()?;
    assert_eq!(channel.state(), ConnectivityState::Idle);
    Ok(())
}

#[tokio::test]
async fn a_call_can_wait_for_ready_and_states_can_be_watched() -> Result<()> {
    let channel = Channel::to(&my_greeter().await?).connect_lazy()?;
    let mut states = channel.watch_state();
    channel.request_connection();
    assert_eq!(
        states.until(ConnectivityState::Ready).await,
        ConnectivityState::Ready
    );
    let client = GreeterClient::new(channel);
    let call = client.say_hello(HelloRequest { name: "you".into() });
    let response = call
        .wait_for_ready()
        .timeout(Duration::from_secs(10))
        .await?;
    assert_eq!(response.message, "Hello you!");
    Ok(())
}

#[tokio::test]
async fn a_connector_can_return_any_byte_stream() -> Result<()> {
    let server = Server::new().add_service(GreeterServer::new(MyGreeter));
    let channel = Channel::to("10.0.0.1:1").connector(move |_address: Address| {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(server.clone().serve_connection(far));
        async { Ok(near) }
    });
    let client = GreeterClient::new(channel.connect().await?);
    is_greeted(&client).await
}
