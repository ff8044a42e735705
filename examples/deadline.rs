//! Deadline propagation: a client calls a front service, which calls a back service. The call of the
//! front service inherits the client's deadline, without any code for it.
//!
//! Run it with `cargo run --example deadline`.

use std::time::Duration;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use trunkline::{Request, Result, Server, Service};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

struct Front {
    back: GreeterClient,
}

impl Greeter for Front {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        println!("  front: {}", about_deadline(&request));
        let response = self.back.say_hello(request.into_inner()).await?;
        Ok(response.into_inner())
    }
}

struct Back;

impl Greeter for Back {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        println!("  back: {}", about_deadline(&request));
        tokio::time::sleep(Duration::from_millis(600)).await;
        let message = format!("Hello, {}, and sorry for the wait.", request.name);
        Ok(HelloReply { message })
    }
}

fn about_deadline<T>(request: &Request<T>) -> &'static str {
    match request.time_remaining() {
        Some(_) => "there is a deadline",
        None => "there is no deadline",
    }
}

async fn serve(service: impl Service) -> Result<GreeterClient> {
    let server = Server::new()
        .add_service(service)
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());
    GreeterClient::connect(&address).await
}

#[tokio::main]
async fn main() -> Result<()> {
    let back = serve(GreeterServer::new(Back)).await?;
    let front = serve(GreeterServer::new(Front { back })).await?;
    let request = HelloRequest {
        name: "you".to_string(),
    };

    println!("Without a timeout:");
    let response = front.say_hello(request.clone()).await?;
    println!("  client: {}", response.message);

    println!("With a timeout of 300 ms:");
    let timeout = Duration::from_millis(300);
    match front.say_hello(request).timeout(timeout).await {
        Ok(response) => println!("  client: {}", response.message),
        Err(status) => println!("  client: {}", status.code()),
    }
    Ok(())
}
