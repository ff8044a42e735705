//! Names that are one in Rust, or that would hide one another: what is generated compiles, by each way to
//! include it, and means on the wire what the file says.

#![deny(
    dead_code,
    deprecated,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    unused,
    clippy::all,
    clippy::nursery,
    clippy::pedantic
)]

use names::names as ours;
use names::names::old::{E, Old, OldState_};
use names::names::{Accessors, Colour, FooBar, FooBar_, foo_bar_, order, order_, payment};
use trunkline::FileDescriptors;
use trunkline::prost::{Message, Name};
use trunkline::{Channel, Request, Result, Sender, Server, Service, Streaming};

/// By the macro, all packages as one tree.
pub mod names {
    trunkline::include_proto!("../build/tests/proto/names/names.proto");
}

/// The text that a build script writes.
pub mod as_text {
    include!("../../build/tests/golden/names.rs");
}

struct Names;

impl ours::NamesService for Names {
    async fn get_foo(&self, request: Request<FooBar>) -> Result<FooBar_> {
        let inner = foo_bar_::Inner {
            a: Some(request.into_inner()),
            b: None,
        };
        Ok(FooBar_ {
            choice: Some(foo_bar_::Choice::Chosen(Box::new(inner))),
            ..FooBar_::default()
        })
    }

    async fn get_foo_(&self, _: Request<FooBar_>) -> Result<foo_bar_::Inner> {
        Ok(foo_bar_::Inner::default())
    }

    async fn get_foo__(
        &self,
        _: Request<Streaming<ours::Str>>,
        responses: &mut Sender<ours::str::Is>,
    ) -> Result<()> {
        responses.send(ours::str::Is {}).await
    }

    async fn new(&self, _: Request<ours::Unnamed>) -> Result<ours::_1_::A> {
        Ok(ours::_1_::A {})
    }

    async fn new_(&self, _: Request<ours::Unnamed>) -> Result<ours::unnamed::Unnamed> {
        Ok(ours::unnamed::Unnamed {})
    }

    async fn connect(&self, _: Request<ours::_1>) -> Result<order::Order> {
        Ok(order::Order::default())
    }

    async fn unnamed(&self, _: Request<ours::pkg::bool::Is>) -> Result<order_::Item> {
        Ok(order_::Item::default())
    }
}

#[tokio::test]
async fn each_method_leads_to_its_handler_whatever_it_is_called() -> Result<()> {
    let server = ours::NamesServiceServer::new(Names);
    let channel = Channel::in_process(Server::new().add_service(server));
    let client = ours::NamesServiceClient::new(channel);
    let asked = FooBar { a: "a".to_owned() };
    let response = client.get_foo(asked.clone()).await?;
    let Some(foo_bar_::Choice::Chosen(inner)) = &response.choice else {
        panic!("{response:?}");
    };
    assert_eq!(inner.a, Some(asked));
    assert_eq!(client.get_foo_(FooBar_::default()).await?.a, None);
    let (requests, mut responses) = client.get_foo__().await?;
    requests.finish();
    assert!(responses.message().await?.is_some());
    client.new_(ours::Unnamed {}).await?;
    client.new__(ours::Unnamed {}).await?;
    assert_eq!(client.connect_(ours::_1::default()).await?.state, 0);
    client.unnamed(ours::pkg::bool::Is::default()).await?;
    Ok(())
}

#[test]
fn names_on_the_wire_are_those_of_the_file() {
    assert_eq!(FooBar_::full_name(), "names.foo_bar");
    assert_eq!(FooBar_::NAME, "foo_bar");
    assert_eq!(
        foo_bar_::Inner::type_url(),
        "type.googleapis.com/names.foo_bar.Inner"
    );
    assert_eq!(order_::Item::full_name(), "names.Order.Item");
    assert_eq!(ours::pkg::bool::Is::PACKAGE, "names.pkg.bool");
    assert_eq!(OldState_::A.as_str_name(), "OLD_STATE_A");
    assert_eq!(OldState_::from_str_name("OLD_STATE_B"), Some(OldState_::B));
    assert_eq!(ours::NamesServiceServer::<Names>::NAME, "names.Names");
}

#[test]
fn accessors_belong_to_their_fields() {
    let mut message = Accessors::default();
    message.set_a(Colour::Error);
    message.set_set_a_(Colour::Ok);
    message.push_b(Colour::Error);
    message.insert_c("c".to_owned(), Colour::Error);
    message.insert_type_(1, Colour::Ok);
    message.set_self_(Colour::Error);
    assert_eq!((message.a(), message.set_a_()), (Colour::Error, Colour::Ok));
    assert_eq!(message.get_c("c"), Some(Colour::Error));
    assert_eq!(message.get_type_(1), Some(Colour::Ok));
    assert_eq!((message.push_b_(), message.get_c_()), ("", &b""[..]));
    // Fields 1, 2, 3 and 9 by their numbers, then the maps.
    let encoded = message.encode_to_vec();
    assert_eq!(encoded[..9], [0x08, 4, 0x10, 5, 0x1a, 1, 4, 0x2a, 5]);
    assert_eq!(Accessors::decode(&encoded[..]), Ok(message));
}

#[test]
fn defaults_are_those_of_the_file() {
    let old = Old::default();
    assert_eq!((old.a(), old.b(), old.d()), (E::B, E::B, OldState_::A));
    assert_eq!(old.c, OldState_::B as i32);
    assert_eq!((old.f(), old.g(), old.h()), (i32::MIN, i64::MIN, u64::MAX));
    assert_eq!(
        (old.i(), old.k(), old.s()),
        (f32::NEG_INFINITY, 1.5e300, 1e10)
    );
    assert!(old.j().is_nan() && old.l().is_sign_negative());
    assert_eq!(old.m(), "{}\\\"'\n\t\u{1}\u{e9}%");
    assert_eq!(old.n(), b"{}\\\"'\n\t\x01\xff%");
    assert_eq!((old.p(), old.q(), old.r()), ("", -1, 255));
    assert_eq!(ours::old::old::Y::default().a(), E::B);
}

#[test]
fn oneofs_and_what_lies_next_to_them_are_told_apart() {
    let payment = ours::Payment {
        pay: Some(payment::PayOneOf_::B(payment::PayOneOf {})),
        option: Some(payment::OptionOneOf::C(payment::Option::A as i32)),
        some: Some(payment::Some::Self_(String::new())),
        pay_one_of: Some(payment::PayOneOfOneOf::D(String::new())),
    };
    assert_eq!(
        ours::Payment::decode(&payment.encode_to_vec()[..]),
        Ok(payment)
    );
}

#[test]
fn the_macro_has_the_descriptors_of_the_text() {
    let all = |descriptors: &'static FileDescriptors| descriptors.with_imports();
    assert_eq!(
        all(&ours::FILE_DESCRIPTORS),
        all(&as_text::names::FILE_DESCRIPTORS)
    );
    assert_eq!(all(&order::FILE_DESCRIPTORS).len(), 1);
}
