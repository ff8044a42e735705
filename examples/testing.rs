//! Testing a service that calls another, with connections that are slow, silent, cut or refused. The
//! clock is paused, so the program never waits. See `tests/testing.rs` for tests.
//!
//! Run it with `cargo run --example testing`.

use std::time::Duration;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use tokio::time::Instant;
use trunkline::testing::Faults;
use trunkline::{Channel, Request, Result, Server};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

/// The tested service: returns the greeting of another service, or its own if that call fails.
struct Front {
    back: GreeterClient,
}

impl Greeter for Front {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let asked = self.back.say_hello(request.clone());
        match asked.timeout(Duration::from_secs(2)).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Ok(HelloReply {
                message: format!("Hi, {}. ({})", request.name, status.code()),
            }),
        }
    }
}

struct Back;

impl Greeter for Back {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let message = format!("Hello, {}!", request.name);
        Ok(HelloReply { message })
    }
}

async fn greet(client: &GreeterClient, what: &str) -> Result<()> {
    let began = Instant::now();
    let name = "world".to_string();
    let response = client.say_hello(HelloRequest { name }).await?;
    let took = began.elapsed().as_secs();
    println!("{what}: {} after {took} s", response.message);
    Ok(())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<()> {
    // The service behind is called over HTTP/2 in memory, the tested one in process.
    let faults = Faults::new();
    let server = Server::new().add_service(GreeterServer::new(Back));
    let back = GreeterClient::new(faults.in_memory(server).connect().await?);
    let server = Server::new().add_service(GreeterServer::new(Front { back }));
    let client = GreeterClient::new(Channel::in_process(server));

    greet(&client, "all is well").await?;
    faults.delay(Duration::from_secs(1));
    greet(&client, "late").await?;
    faults.delay(Duration::from_secs(3));
    greet(&client, "too late").await?;
    faults.restore();
    faults.black_hole();
    greet(&client, "a black hole").await?;
    faults.restore();
    greet(&client, "restored").await?;
    faults.cut_after_received(20);
    greet(&client, "cut within the response").await?;
    greet(&client, "connected again").await?;
    faults.refuse();
    greet(&client, "refused").await?;
    println!("{} connections", faults.connections());
    Ok(())
}
