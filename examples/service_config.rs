//! A service config: timeouts, waiting and limits by method, in the JSON form that all gRPC implementations read.
//!
//! Run it with `cargo run --example service_config`.

use std::future::pending;
use std::time::Duration;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use trunkline::{Channel, Request, Result, Server};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

const SERVICE_CONFIG: &str = r#"{
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [{
        "name": [{"service": "helloworld.Greeter"}],
        "timeout": "0.1s",
        "waitForReady": true,
        "maxRequestMessageBytes": 100
    }]
}"#;

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        if request.name == "nobody" {
            pending::<()>().await;
        }
        let message = format!("Hello, {}!", request.name);
        Ok(HelloReply { message })
    }
}

fn named(name: &str) -> HelloRequest {
    let name = name.to_string();
    HelloRequest { name }
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = Server::new().add_service(GreeterServer::new(MyGreeter));
    let server = server.bind("127.0.0.1:0").await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    let channel = Channel::to(&address)
        .service_config(SERVICE_CONFIG)
        .connect()
        .await?;
    let client = GreeterClient::new(channel);
    let response = client.say_hello(named("world")).await?;
    println!("{}", response.message);

    // The shorter timeout applies, here that of the config.
    let call = client.say_hello(named("nobody"));
    let result = call.timeout(Duration::from_secs(10)).await;
    println!("{}", result.expect_err("the timeout is short").code());

    let result = client.say_hello(named(&"x".repeat(1000))).await;
    println!("{}", result.expect_err("the message is large"));

    // An invalid config is an error of the builder.
    let invalid = SERVICE_CONFIG.replace("0.1s", "100 ms");
    let channel = Channel::to(&address).service_config(&invalid);
    println!("{}", channel.connect_lazy().expect_err("no duration"));
    Ok(())
}
