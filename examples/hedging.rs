//! Hedging: if a call has no response after a while, another attempt starts while the first one is still running.
//! The first response wins, and all other attempts are cancelled.
//!
//! Run it with `cargo run --example hedging`.

use std::future::pending;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use tokio::sync::mpsc;
use trunkline::{Channel, Request, Result, Server, Status};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

const SERVICE_CONFIG: &str = r#"{
    "methodConfig": [{
        "name": [{"service": "helloworld.Greeter", "method": "SayHello"}],
        "hedgingPolicy": {
            "maxAttempts": 3,
            "hedgingDelay": "0.2s",
            "nonFatalStatusCodes": ["UNAVAILABLE"]
        }
    }],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}
}"#;

struct MyGreeter {
    cancelled: mpsc::Sender<()>,
}

/// Reports that the handler has been dropped, as it is when its attempt is cancelled.
struct Guard(mpsc::Sender<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        match request.metadata().get("grpc-previous-rpc-attempts") {
            None => {
                println!("attempt 1 takes too long");
                let _guard = Guard(self.cancelled.clone());
                pending().await
            }
            Some("1") => {
                println!("attempt 2 fails, and attempt 3 follows immediately");
                Err(Status::unavailable("the server restarts"))
            }
            Some(_) => {
                println!("attempt 3 responds");
                let message = format!("Hello, {}!", request.name);
                Ok(HelloReply { message })
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let (cancelled, mut cancellations) = mpsc::channel(1);
    let server = Server::new().add_service(GreeterServer::new(MyGreeter { cancelled }));
    let server = server.bind("127.0.0.1:0").await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    let channel = Channel::to(&address)
        .service_config(SERVICE_CONFIG)
        .connect()
        .await?;
    let client = GreeterClient::new(channel);
    let name = "world".to_string();
    let response = client.say_hello(HelloRequest { name }).await?;
    println!("{}", response.message);
    cancellations.recv().await;
    println!("attempt 1 was cancelled");
    Ok(())
}
