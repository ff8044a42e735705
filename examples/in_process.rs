//! A channel to a service in the same process, without a socket: for tests, and for services that share
//! a process. Calls behave as over a connection.
//!
//! Run it with `cargo run --example in_process`.

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use trunkline::{Channel, Request, Result, Server, Status};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        if request.name.is_empty() {
            return Err(Status::invalid_argument("a name is needed"));
        }
        let message = format!("Hello, {}!", request.name);
        Ok(HelloReply { message })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = Server::new().add_service(GreeterServer::new(MyGreeter));
    let client = GreeterClient::new(Channel::in_process(server));
    for name in ["world", ""] {
        let name = name.to_string();
        match client.say_hello(HelloRequest { name }).await {
            Ok(response) => println!("{}", response.message),
            Err(status) => println!("{status}"),
        }
    }
    Ok(())
}
