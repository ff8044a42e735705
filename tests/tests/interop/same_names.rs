//! Two crates that bring files of the same names, `service.proto` and `common.proto`, in one server, as tools
//! see them that know nothing but what reflection says.

#![cfg(unix)]

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;
use trunkline::Server;
use trunkline_reflection::Reflection;
use trunkline_tests::peers::{Peer, peer, run_client};
use trunkline_tests_orders::{OrderServiceServer, Orders};
use trunkline_tests_users::{UserServiceServer, Users};

/// How long one command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Serves both until the test process ends; returns the port.
fn server() -> u16 {
    let (port, ports) = mpsc::channel();
    thread::spawn(move || {
        Runtime::new().expect("a runtime").block_on(async {
            let bound = Server::new()
                .add_service(UserServiceServer::new(Users))
                .add_service(Reflection::new())
                .add_service(OrderServiceServer::new(Orders))
                .bind("127.0.0.1:0")
                .await
                .expect("a free port, and descriptors that agree");
            let address = bound.local_addr().tcp().expect("a TCP address");
            port.send(address.port())
                .expect("the test waits for the port");
            bound.serve().await
        })
    });
    ports.recv().expect("the server starts")
}

#[test]
fn pythons_pool_of_descriptors_takes_both() {
    run_client(Peer::PythonStandard, server(), &["reflection_same_names"]);
}

#[test]
fn grpcurl_describes_and_calls_both() {
    let address = format!("127.0.0.1:{}", server());
    let Some(program) = peer(Peer::Grpcurl) else {
        return;
    };
    let grpcurl = |arguments: &[&str]| {
        let arguments = [&["-plaintext"], arguments].concat();
        let process = program.start(&arguments, COMMAND_LIMIT);
        let lines = process.and_then(|process| process.finish());
        let lines = lines.unwrap_or_else(|failure| panic!("{arguments:?}: {failure}"));
        let words = lines.iter().flat_map(|line| line.split_whitespace());
        words.collect::<Vec<_>>().join(" ")
    };
    for (symbol, text) in [
        (
            "users.UserService",
            "users.UserService is a service: service UserService { rpc GetUser ( .users.GetUserRequest ) \
             returns ( .users.User ); }",
        ),
        (
            "orders.OrderService",
            "orders.OrderService is a service: service OrderService { rpc GetOrder ( \
             .orders.GetOrderRequest ) returns ( .orders.Order ); }",
        ),
        (
            "users.Id",
            "users.Id is a message: message Id { uint64 number = 1; }",
        ),
        (
            "orders.Key",
            "orders.Key is a message: message Key { string text = 1; }",
        ),
    ] {
        assert_eq!(grpcurl(&[&address, "describe", symbol]), text);
    }
    let described = grpcurl(&[&address, "describe"]);
    for service in ["users.UserService", "orders.OrderService"] {
        assert!(
            described.contains(&format!("{service} is a service:")),
            "{described}"
        );
    }
    for (method, request, response) in [
        (
            "users.UserService/GetUser",
            r#"{"id": {"number": 7}}"#,
            r#"{ "id": { "number": "7" }, "name": "Zed" }"#,
        ),
        (
            "orders.OrderService/GetOrder",
            r#"{"key": {"text": "a"}}"#,
            r#"{ "key": { "text": "a" } }"#,
        ),
    ] {
        assert_eq!(grpcurl(&["-d", request, &address, method]), response);
    }
}
