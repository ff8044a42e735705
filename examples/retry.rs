//! Retries: calls that fail with UNAVAILABLE are attempted again, by a policy in the service config. The server
//! can forbid a further attempt, and a channel whose calls keep failing stops retrying.
//!
//! Run it with `cargo run --example retry`.

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use trunkline::{Channel, Request, Result, Server, Status, observe};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

const SERVICE_CONFIG: &str = r#"{
    "methodConfig": [{
        "name": [{"service": "helloworld.Greeter"}],
        "retryPolicy": {
            "maxAttempts": 4,
            "initialBackoff": "0.01s",
            "maxBackoff": "0.1s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"]
        }
    }],
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1}
}"#;

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let previous = request.metadata().get("grpc-previous-rpc-attempts");
        let previous = previous.unwrap_or("0").to_string();
        println!("  server: {previous} earlier attempts");
        match (request.name.as_str(), previous.as_str()) {
            ("", _) => Err(Status::invalid_argument("a name is needed")),
            ("restarting", "2") => Ok(HelloReply {
                message: "Hello again!".to_string(),
            }),
            ("overloaded", _) => {
                let mut status = Status::unavailable("come back later");
                let metadata = status.metadata_mut();
                metadata.insert("grpc-retry-pushback-ms", "-1")?;
                Err(status)
            }
            _ => Err(Status::unavailable("the server restarts")),
        }
    }
}

async fn greet(client: &GreeterClient, name: &str) {
    println!("client: calls with the name {name:?}");
    let name = name.to_string();
    match client.say_hello(HelloRequest { name }).await {
        Ok(response) => println!("  client: {}", response.message),
        Err(status) => println!("  client: {status}"),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = Server::new().add_service(GreeterServer::new(MyGreeter));
    let server = server.bind("127.0.0.1:0").await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    let channel = Channel::to(&address)
        .service_config(SERVICE_CONFIG)
        .connect_lazy()?;
    let client = GreeterClient::new(channel.observe(observe::on_end(|call| {
        println!("  client: attempts: {}", call.attempts());
    })));
    // The third attempt succeeds.
    greet(&client, "restarting").await;
    // This code is not retried.
    greet(&client, "").await;
    // The server asks for no further attempt.
    greet(&client, "overloaded").await;
    // All attempts fail. In the third call, half of the tokens are left, and there are no retries.
    for _ in 0..3 {
        greet(&client, "down").await;
    }
    Ok(())
}
