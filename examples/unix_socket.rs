//! A Unix socket instead of a port: the address of a server and the target of a client can be `unix:` and
//! a path. The server removes the file when it stops.
//!
//! Run it with `cargo run --example unix_socket`.

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
    let file = format!("trunkline-{}.sock", std::process::id());
    let path = std::env::temp_dir().join(file);
    let address = format!("unix:{}", path.display());

    let greeter = GreeterServer::new(MyGreeter);
    let server = Server::new().add_service(greeter).bind(&address).await?;
    let serving = tokio::spawn(server.serve());

    let client = GreeterClient::connect(&address).await?;
    let name = "neighbour".to_string();
    let response = client.say_hello(HelloRequest { name }).await?;
    println!("{}", response.message);

    serving.abort();
    let _ = serving.await;
    println!("The socket is there: {}", path.exists());
    Ok(())
}
