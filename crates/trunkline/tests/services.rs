//! The names and descriptors of services, and services that learn of the others.

use std::sync::Arc;

use trunkline::FileDescriptors;
use trunkline::server::Methods;
use trunkline::{Channel, Client, Method, Raw, Request, Response, Server, Service};

const NAMES: Method = Method::new("/test.Names/Names");

static SHARED: FileDescriptors = FileDescriptors::new(b"shared", &[]);
static ONE: FileDescriptors = FileDescriptors::new(b"one", &[&SHARED]);
static TWO: FileDescriptors = FileDescriptors::new(b"two", &[&ONE, &SHARED]);

struct One;

impl Service for One {
    const NAME: &'static str = "test.One";
    const FILE_DESCRIPTORS: &'static FileDescriptors = &ONE;

    fn add_to(self, _: &mut Methods) {}
}

struct Two;

impl Service for Two {
    const NAME: &'static str = "test.Two";
    const FILE_DESCRIPTORS: &'static FileDescriptors = &TWO;

    fn add_to(self, _: &mut Methods) {}
}

/// Tells the names of all services.
struct Names;

impl Service for Names {
    const NAME: &'static str = "test.Names";

    fn add_to(self, methods: &mut Methods) {
        methods.on_service_added(|methods| {
            let names = Arc::new(methods.service_names().join(" "));
            methods.unary(NAMES, &names, |names, _: Request<Raw>| async move {
                Ok(Raw(names.as_bytes().to_vec().into()))
            });
        });
    }
}

async fn names(server: &Server) -> String {
    let client = Client::new(Channel::in_process(server.clone()));
    let names: Response<Raw> = client.unary(NAMES, Raw::default()).await.unwrap();
    String::from_utf8(names.0.to_vec()).unwrap()
}

#[tokio::test]
async fn a_service_learns_of_those_before_and_after_it() {
    let server = Server::new().add_service(One).add_service(Names);
    assert_eq!(names(&server).await, "test.One test.Names");
    let more = server.clone().add_service(Two);
    assert_eq!(names(&more).await, "test.One test.Names test.Two");
    // The server that was cloned has no such service.
    assert_eq!(names(&server).await, "test.One test.Names");
}

#[test]
fn a_server_names_services_once_and_has_their_descriptors() {
    let mut methods = Methods::default();
    methods.add_service(One);
    methods.add_service(Two);
    methods.add_service(One);
    assert_eq!(methods.service_names(), ["test.One", "test.Two"]);
    let sets: Vec<_> = methods
        .file_descriptors()
        .iter()
        .map(|it| it.set())
        .collect();
    assert_eq!(sets, [&b"one"[..], b"two"]);
}

#[test]
fn descriptors_come_with_those_that_they_import_each_once() {
    assert_eq!(TWO.with_imports(), [&b"shared"[..], b"one", b"two"]);
}
