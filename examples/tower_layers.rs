//! Tower layers around a server and around a channel: one prints the path of every request, two limit
//! the concurrent calls of the server, and one adds metadata.
//!
//! Run it with `cargo run --example tower_layers`.

use std::sync::Arc;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use http::{HeaderValue, Request as HttpRequest};
use tokio::sync::Barrier;
use tower::util::MapRequestLayer;
use tower::{Layer, ServiceBuilder};
use trunkline::tower::Body;
use trunkline::{Channel, Request, Result, Server};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

/// Responds when `main` permits it.
struct Slow(Arc<Barrier>);

impl Greeter for Slow {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        self.0.wait().await;
        self.0.wait().await;
        let id = request.metadata().get("request-id").unwrap_or("nobody");
        let message = format!("Hello, {}! You came as {id}.", request.name);
        Ok(HelloReply { message })
    }
}

fn print_path(request: HttpRequest<Body>) -> HttpRequest<Body> {
    println!("server: {}", request.uri().path());
    request
}

#[tokio::main]
async fn main() -> Result<()> {
    let barrier = Arc::new(Barrier::new(2));
    let server = Server::new()
        .layer(MapRequestLayer::new(print_path))
        // In one stack, because load shedding depends on the readiness of the limit.
        .layer(ServiceBuilder::new().load_shed().concurrency_limit(1))
        .add_service(GreeterServer::new(Slow(barrier.clone())))
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    // A channel is a tower service, too. `Channel::new` turns the layered service into a channel.
    let channel = Channel::connect(&address).await?;
    let add_id = MapRequestLayer::new(|mut request: HttpRequest<Body>| {
        let id = HeaderValue::from_static("number-7");
        request.headers_mut().insert("request-id", id);
        request
    });
    let client = GreeterClient::new(Channel::new(add_id.layer(channel)));
    let request = || HelloRequest {
        name: "world".to_string(),
    };

    let first = tokio::spawn(client.say_hello(request()).into_future());
    barrier.wait().await;
    if let Err(status) = client.say_hello(request()).await {
        println!("client: {status}");
    }
    barrier.wait().await;
    if let Ok(response) = first.await {
        println!("client: {}", response?.message);
    }
    Ok(())
}
