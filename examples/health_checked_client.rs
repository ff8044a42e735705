//! A client that watches the health of its servers: a server that reports NOT_SERVING receives no calls, although
//! its connection works.
//!
//! Run it with `cargo run --example health_checked_client`.

use std::collections::BTreeSet;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use trunkline::{Address, Channel, Request, Result, Server};
use trunkline_health::Health;

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

const SERVICE_CONFIG: &str = r#"{
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "helloworld.Greeter"}
}"#;

struct MyGreeter(&'static str);

impl Greeter for MyGreeter {
    async fn say_hello(&self, _request: Request<HelloRequest>) -> Result<HelloReply> {
        let message = self.0.to_string();
        Ok(HelloReply { message })
    }
}

async fn start(name: &'static str) -> Result<(Address, Health)> {
    let health = Health::new();
    let server = Server::new()
        .add_service(GreeterServer::new(MyGreeter(name)))
        .add_service(health.clone())
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());
    Ok((address, health))
}

/// Calls until exactly the servers in `expected` have greeted in four calls.
async fn wait_for(client: &GreeterClient, expected: &str) -> Result<()> {
    loop {
        let mut names = BTreeSet::new();
        for _ in 0..4 {
            let response = client.say_hello(HelloRequest::default()).await?;
            names.insert(response.into_inner().message);
        }
        if names.iter().map(String::as_str).eq(expected.split(' ')) {
            println!("greeted by: {expected}");
            return Ok(());
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let (alice, alice_health) = start("alice").await?;
    let (bob, bob_health) = start("bob").await?;
    let channel = Channel::to([alice, bob])
        .service_config(SERVICE_CONFIG)
        .connect_lazy()?;
    let client = GreeterClient::new(channel);
    wait_for(&client, "alice bob").await?;

    println!("alice loses her database");
    alice_health.set_not_serving("helloworld.Greeter");
    wait_for(&client, "bob").await?;

    println!("alice has recovered");
    alice_health.set_serving("helloworld.Greeter");
    wait_for(&client, "alice bob").await?;

    println!("neither can serve");
    alice_health.set_not_serving("helloworld.Greeter");
    bob_health.set_not_serving("helloworld.Greeter");
    while client.say_hello(HelloRequest::default()).await.is_ok() {}
    let result = client.say_hello(HelloRequest::default()).await;
    println!(
        "client: {}",
        result.expect_err("no server is healthy").code()
    );
    Ok(())
}
