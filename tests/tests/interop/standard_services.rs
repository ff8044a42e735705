//! Health and reflection as others ask for them: the Python packages of gRPC, grpcurl, `buf curl`, and a probe as
//! Kubernetes has it.

#![cfg(unix)]

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;
use trunkline::{Request, Result, Sender, Server, Streaming};
use trunkline_health::Health;
use trunkline_reflection::Reflection;
use trunkline_tests::peers::{Peer, peer, run_client};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

mod guide {
    trunkline::include_proto!("../proto/route_guide.proto");
}

use guide::{Feature, Point, Rectangle, RouteNote, RouteSummary};

/// How long one command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Greets, and becomes what it is told to be.
struct Greeter(Health);

impl hello::Greeter for Greeter {
    async fn say_hello(&self, request: Request<hello::HelloRequest>) -> Result<hello::HelloReply> {
        match request.name.as_str() {
            "serving" => self.0.set_serving("helloworld.Greeter"),
            "not serving" => self.0.set_not_serving("helloworld.Greeter"),
            _ => {}
        }
        let message = format!("Hello, {}!", request.name);
        Ok(hello::HelloReply { message })
    }
}

/// The four call types.
struct Guide;

impl guide::RouteGuide for Guide {
    async fn get_feature(&self, request: Request<Point>) -> Result<Feature> {
        Ok(feature(request.into_inner()))
    }

    async fn list_features(
        &self,
        request: Request<Rectangle>,
        responses: &mut Sender<Feature>,
    ) -> Result<()> {
        let Rectangle { lo, hi } = request.into_inner();
        for corner in [lo, hi].into_iter().flatten() {
            responses.send(feature(corner)).await?;
        }
        Ok(())
    }

    async fn record_route(&self, mut points: Request<Streaming<Point>>) -> Result<RouteSummary> {
        let mut point_count = 0;
        while points.message().await?.is_some() {
            point_count += 1;
        }
        Ok(RouteSummary {
            point_count,
            ..RouteSummary::default()
        })
    }

    async fn route_chat(
        &self,
        mut notes: Request<Streaming<RouteNote>>,
        responses: &mut Sender<RouteNote>,
    ) -> Result<()> {
        while let Some(note) = notes.message().await? {
            let message = format!("{}?", note.message);
            responses.send(RouteNote { message, ..note }).await?;
        }
        Ok(())
    }
}

fn feature(point: Point) -> Feature {
    Feature {
        name: format!("{}/{}", point.latitude, point.longitude),
        location: Some(point),
    }
}

/// Serves until the test process ends; gives the port, and what the server says about itself.
fn standard_server() -> (u16, Health) {
    let (port, ports) = mpsc::channel();
    thread::spawn(move || {
        Runtime::new().expect("a runtime").block_on(async {
            let health = Health::new();
            let bound = Server::new()
                .add_service(Reflection::new())
                .add_service(health.clone())
                .add_service(hello::GreeterServer::new(Greeter(health.clone())))
                .add_service(guide::RouteGuideServer::new(Guide))
                .bind("127.0.0.1:0")
                .await
                .expect("a free port");
            let address = bound.local_addr().tcp().expect("a TCP address");
            port.send((address.port(), health))
                .expect("the test waits for the port");
            bound.serve().await
        })
    });
    ports.recv().expect("the server starts")
}

/// Runs a command, which must succeed, and gives what it wrote without the white space between; `None` when this machine
/// lacks the program.
fn output(program: Peer, arguments: &[&str]) -> Option<String> {
    let process = peer(program)?.start(arguments, COMMAND_LIMIT);
    let lines = process.and_then(|process| process.finish());
    let lines = lines.unwrap_or_else(|failure| panic!("{arguments:?}: {failure}"));
    let words = lines.iter().flat_map(|line| line.split_whitespace());
    Some(words.collect::<Vec<_>>().join(" "))
}

/// A method of each call type, requests as JSON, and the responses.
const CALLS: [(&str, &str, &str); 4] = [
    (
        "GetFeature",
        r#"{"latitude": 1, "longitude": 2}"#,
        r#"{"name":"1/2","location":{"latitude":1,"longitude":2}}"#,
    ),
    (
        "ListFeatures",
        r#"{"lo": {"latitude": 1}, "hi": {"longitude": 9}}"#,
        r#"{"name":"1/0","location":{"latitude":1}}{"name":"0/9","location":{"longitude":9}}"#,
    ),
    (
        "RecordRoute",
        r#"{"latitude": 1} {"latitude": 2} {"latitude": 3}"#,
        r#"{"pointCount":3}"#,
    ),
    (
        "RouteChat",
        r#"{"message": "here"} {"message": "there"}"#,
        r#"{"message":"here?"}{"message":"there?"}"#,
    ),
];

fn packed(json: &str) -> String {
    json.split_whitespace().collect()
}

#[test]
fn the_python_packages_agree_with_our_health_and_reflection() {
    let (port, _health) = standard_server();
    run_client(Peer::PythonStandard, port, &Peer::PythonStandard.cases());
}

#[test]
fn a_probe_passes_as_long_as_the_server_serves() {
    let Some(program) = peer(Peer::PythonStandard) else {
        return;
    };
    let (port, health) = standard_server();
    let port = port.to_string();
    let exit_code = |port: &str, service: &str| {
        let arguments = ["--port", port, "--probe", service];
        let process = program.start(&arguments, COMMAND_LIMIT);
        let status = process.and_then(|process| process.wait());
        status.unwrap_or_else(|failure| panic!("{failure}")).code()
    };
    assert_eq!(exit_code(&port, ""), Some(0));
    assert_eq!(exit_code(&port, "helloworld.Greeter"), Some(0));
    assert_eq!(exit_code(&port, "helloworld.Nobody"), Some(1));
    health.set_not_serving("helloworld.Greeter");
    assert_eq!(exit_code(&port, "helloworld.Greeter"), Some(1));
    assert_eq!(exit_code(&port, ""), Some(0));
    health.shutdown();
    assert_eq!(exit_code(&port, ""), Some(1));
    // Nothing listens on port 1.
    assert_eq!(exit_code("1", ""), Some(1));
}

#[test]
fn grpcurl_lists_describes_and_calls_without_a_proto_file() {
    let (port, health) = standard_server();
    let address = format!("127.0.0.1:{port}");
    let grpcurl =
        |arguments: &[&str]| output(Peer::Grpcurl, &[&["-plaintext"], arguments].concat());
    let Some(services) = grpcurl(&[&address, "list"]) else {
        return;
    };
    assert_eq!(
        services,
        "grpc.health.v1.Health grpc.reflection.v1.ServerReflection grpc.reflection.v1alpha.ServerReflection \
         helloworld.Greeter routeguide.RouteGuide"
    );
    let said = |arguments: &[&str]| grpcurl(arguments).expect("grpcurl is there");
    assert_eq!(
        said(&[&address, "list", "helloworld.Greeter"]),
        "helloworld.Greeter.SayHello"
    );
    assert_eq!(
        said(&[&address, "describe", "routeguide.RouteGuide.RouteChat"]),
        "routeguide.RouteGuide.RouteChat is a method: rpc RouteChat ( stream .routeguide.RouteNote ) returns ( stream \
         .routeguide.RouteNote );"
    );
    assert_eq!(
        said(&[&address, "describe", "routeguide.Point"]),
        "routeguide.Point is a message: message Point { int32 latitude = 1; int32 longitude = 2; }"
    );
    // Everything, the standard services included.
    let described = said(&[&address, "describe"]);
    for service in services.split(' ') {
        assert!(
            described.contains(&format!("{service} is a service:")),
            "{service}"
        );
    }
    for (method, requests, responses) in CALLS {
        let method = format!("routeguide.RouteGuide/{method}");
        let said = said(&["-d", requests, &address, &method]);
        assert_eq!(packed(&said), responses, "{method}");
    }
    let check = |service: &str| {
        let request = format!(r#"{{"service": "{service}"}}"#);
        packed(&said(&[
            "-d",
            &request,
            &address,
            "grpc.health.v1.Health/Check",
        ]))
    };
    assert_eq!(check(""), r#"{"status":"SERVING"}"#);
    health.set_not_serving("routeguide.RouteGuide");
    assert_eq!(
        check("routeguide.RouteGuide"),
        r#"{"status":"NOT_SERVING"}"#
    );
}

#[test]
fn buf_curl_lists_and_calls_without_a_proto_file() {
    let (port, _health) = standard_server();
    let address = format!("http://127.0.0.1:{port}");
    let buf = |arguments: &[&str]| {
        let always = ["curl", "--protocol", "grpc", "--http2-prior-knowledge"];
        output(Peer::Buf, &[&always, arguments].concat())
    };
    for version in ["grpc-v1", "grpc-v1alpha"] {
        let Some(methods) = buf(&["--reflect-protocol", version, "--list-methods", &address])
        else {
            return;
        };
        for method in [
            "routeguide.RouteGuide/RouteChat",
            "grpc.health.v1.Health/Watch",
        ] {
            assert!(methods.contains(method), "{version}: {methods}");
        }
        for (method, requests, responses) in CALLS {
            let url = format!("{address}/routeguide.RouteGuide/{method}");
            let said = buf(&["--reflect-protocol", version, "-d", requests, &url]);
            assert_eq!(packed(&said.expect("buf is there")), responses, "{method}");
        }
    }
    let url = format!("{address}/grpc.health.v1.Health/Check");
    let said = buf(&["-d", "{}", &url]).expect("buf is there");
    assert_eq!(packed(&said), r#"{"status":"SERVING"}"#);
}
