//! Load balancing: the same calls to three servers, with three policies.
//!
//! Run it with `cargo run --example load_balancing`.

use std::collections::BTreeMap;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use trunkline::{Address, Channel, Request, Result, Server};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

struct MyGreeter(&'static str);

impl Greeter for MyGreeter {
    async fn say_hello(&self, _request: Request<HelloRequest>) -> Result<HelloReply> {
        let message = self.0.to_string();
        Ok(HelloReply { message })
    }
}

async fn start(name: &'static str) -> Result<Address> {
    let server = Server::new().add_service(GreeterServer::new(MyGreeter(name)));
    let server = server.bind("127.0.0.1:0").await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());
    Ok(address)
}

/// Makes nine calls for a user, and counts them by server.
async fn calls(client: &GreeterClient, user: &str) -> Result<BTreeMap<String, u32>> {
    let mut counts = BTreeMap::new();
    for _ in 0..9 {
        let call = client.say_hello(HelloRequest::default());
        let response = call.metadata("user", user).await?;
        *counts.entry(response.into_inner().message).or_default() += 1;
    }
    Ok(counts)
}

#[tokio::main]
async fn main() -> Result<()> {
    let servers = [
        start("alice").await?,
        start("bob").await?,
        start("carol").await?,
    ];

    let channel = Channel::to(&servers).pick_first().connect().await?;
    let counts = calls(&GreeterClient::new(channel), "1").await?;
    println!("pick_first: {counts:?}");

    let channel = Channel::to(&servers).round_robin().connect().await?;
    let client = GreeterClient::new(channel);
    // The first calls may find only some of the servers connected.
    while calls(&client, "1").await?.len() < servers.len() {}
    println!("round_robin: {:?}", calls(&client, "1").await?);

    let config = r#"{
        "loadBalancingConfig": [{"ring_hash_experimental": {"requestHashHeader": "user"}}]
    }"#;
    let channel = Channel::to(&servers)
        .service_config(config)
        .connect()
        .await?;
    let client = GreeterClient::new(channel);
    for user in ["1", "2", "3"] {
        let counts = calls(&client, user).await?;
        println!(
            "ring_hash: calls of user {user} reach {} server",
            counts.len()
        );
    }
    Ok(())
}
