//! Compression: each side says for itself whether what it sends is compressed. The messages come
//! from `build.rs` here, and not from `include_proto!`.
//!
//! Run it with `cargo run --example compression`.

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use trunkline::{Compress, Request, Result, Server};

mod hello {
    include!(concat!(env!("OUT_DIR"), "/helloworld.rs"));
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        println!("server: compressed: {}", request.is_compressed());
        if request.name.len() > 100 {
            request.reply().compress(Compress::On);
        }
        let message = format!("Hello, {}!", request.name);
        Ok(HelloReply { message })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let greeter = GreeterServer(MyGreeter);
    let server = Server::new().add(greeter).bind("127.0.0.1:0").await?;
    let address = server.local_addr().to_string();
    tokio::spawn(server.serve());

    let client = GreeterClient::connect(&address).await?;
    let name = "world".to_string();
    let reply = client.say_hello(HelloRequest { name }).await?;
    println!("client: compressed: {}", reply.is_compressed());

    let name = "world, ".repeat(1000);
    let call = client.say_hello(HelloRequest { name }).compress("gzip");
    let reply = call.await?;
    println!("client: compressed: {}", reply.is_compressed());
    println!("client: {} bytes after inflating", reply.message.len());
    Ok(())
}
