//! Hello, world: a server and its client in one program, connected by a socket.
//!
//! Run it with `cargo run --example helloworld`.

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use trunkline::{Request, Result, Server};

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

#[tokio::main]
async fn main() -> Result<()> {
    let greeter = GreeterServer::new(MyGreeter);
    let server = Server::new()
        .add_service(greeter)
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    let client = GreeterClient::connect(&address).await?;
    let name = "world".to_string();
    let response = client.say_hello(HelloRequest { name }).await?;
    println!("{}", response.message);
    Ok(())
}
