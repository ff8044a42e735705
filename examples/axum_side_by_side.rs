//! gRPC and plain HTTP on one port, in two ways: gRPC services in axum's server, which also supports
//! HTTP/1.1 for browsers, and axum's routes in a Trunkline server, for requests that are not gRPC.
//!
//! Run it with `cargo run --example axum_side_by_side`.

use axum::routing::get;
use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;
use trunkline::channel::Targets;
use trunkline::tower::Body;
use trunkline::{Channel, Request, Result, Server};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let message = format!("Hello, {}!", request.name);
        Ok(HelloReply { message })
    }
}

fn pages() -> axum::Router {
    axum::Router::new().route("/", get(|| async { "a page" }))
}

async fn greet(address: impl Into<Targets>) -> Result<()> {
    let client = GreeterClient::connect(address).await?;
    let name = "world".to_string();
    let response = client.say_hello(HelloRequest { name }).await?;
    println!("gRPC: {}", response.message);
    Ok(())
}

#[tokio::main]
async fn main() -> std::result::Result<(), axum::BoxError> {
    // The path of a method begins with the name of its service.
    let services = Server::new()
        .add_service(GreeterServer::new(MyGreeter))
        .into_router();
    let both = pages().route_service("/helloworld.Greeter/{method}", services);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, both).into_future());

    println!("services in axum's server");
    greet(address).await?;
    let mut browser = TcpStream::connect(address).await?;
    let request = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    browser.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    browser.read_to_string(&mut response).await?;
    println!("HTTP/1.1: {}", response.lines().last().unwrap_or_default());

    let server = Server::new()
        .add_service(GreeterServer::new(MyGreeter))
        .fallback(pages())
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    println!("axum's routes in a server of ours");
    greet(&address).await?;
    let request = http::Request::get("/").body(Body::empty())?;
    let response = Channel::connect(&address).await?.oneshot(request).await?;
    let body = axum::body::Body::new(response.into_body());
    let page = axum::body::to_bytes(body, 1024).await?;
    println!("HTTP/2: {}", String::from_utf8_lossy(&page));
    Ok(())
}
