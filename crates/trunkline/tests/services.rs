//! What a router knows of its services, and how one of them learns of the others.

use std::sync::Arc;

use trunkline::{
    Channel, Client, FileDescriptors, Method, Raw, Request, Response, Router, Service,
};

const NAMES: Method = Method::new("/test.Names/Names");

static SHARED: FileDescriptors = FileDescriptors::new(b"shared", &[]);
static ONE: FileDescriptors = FileDescriptors::new(b"one", &[&SHARED]);
static TWO: FileDescriptors = FileDescriptors::new(b"two", &[&ONE, &SHARED]);

struct One;

impl Service for One {
    const NAME: &'static str = "test.One";
    const FILE_DESCRIPTORS: &'static FileDescriptors = &ONE;

    fn add_to(self, _: &mut Router) {}
}

struct Two;

impl Service for Two {
    const NAME: &'static str = "test.Two";
    const FILE_DESCRIPTORS: &'static FileDescriptors = &TWO;

    fn add_to(self, _: &mut Router) {}
}

/// Tells the names of all services.
struct Names;

impl Service for Names {
    const NAME: &'static str = "test.Names";

    fn add_to(self, router: &mut Router) {
        router.after_each_add(|router| {
            let names = Arc::new(router.services().join(" "));
            router.unary(NAMES, &names, |names, _: Request<Raw>| async move {
                Ok(Raw(names.as_bytes().to_vec().into()))
            });
        });
    }
}

async fn names(router: &Router) -> String {
    let client = Client::new(Channel::in_process(router.clone()));
    let names: Response<Raw> = client.unary(NAMES, Raw::default()).await.unwrap();
    String::from_utf8(names.0.to_vec()).unwrap()
}

#[tokio::test]
async fn a_service_learns_of_those_before_and_after_it() {
    let router = Router::new().add_service(One).add_service(Names);
    assert_eq!(names(&router).await, "test.One test.Names");
    let more = router.clone().add_service(Two);
    assert_eq!(names(&more).await, "test.One test.Names test.Two");
    // The router that was cloned has no such service.
    assert_eq!(names(&router).await, "test.One test.Names");
}

#[test]
fn a_router_names_services_once_and_has_their_descriptors() {
    let router = Router::new()
        .add_service(One)
        .add_service(Two)
        .add_service(One);
    assert_eq!(router.services(), ["test.One", "test.Two"]);
    let sets: Vec<_> = router
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
