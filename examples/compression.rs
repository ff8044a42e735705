//! Compression: a server and a channel that compress what is large enough, and a call that says
//! otherwise. The messages come from `build.rs` here, and not from `include_proto!`.
//!
//! Run it with `cargo run --example compression`.

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use trunkline::{Channel, Compress, Request, Result, Server};

mod hello {
    include!(concat!(env!("OUT_DIR"), "/helloworld.rs"));
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        println!("server: compressed: {}", request.is_compressed());
        if request.metadata().get("secret").is_some() {
            // How small a message gets tells about what is in it.
            request.response().compress(Compress::Off);
        }
        let message = format!("Hello, {}!", request.name);
        Ok(HelloReply { message })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = Server::new()
        .add_service(GreeterServer::new(MyGreeter))
        .compress("gzip")
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    let channel = Channel::to(&address)
        .compress("gzip")
        .compress_above(512)
        .connect()
        .await?;
    let client = GreeterClient::new(channel);
    let request = |count| HelloRequest {
        name: "world, ".repeat(count),
    };

    println!("a short message");
    let response = client.say_hello(request(1)).await?;
    println!("client: compressed: {}", response.is_compressed());

    println!("a long message");
    let response = client.say_hello(request(1000)).await?;
    println!("client: compressed: {}", response.is_compressed());
    println!("client: {} bytes after inflating", response.message.len());

    println!("a call that compresses with something else");
    let response = client.say_hello(request(50)).compress("deflate").await?;
    println!("client: compressed: {}", response.is_compressed());

    println!("a call that does not compress");
    let call = client.say_hello(request(1000)).compress("identity");
    let response = call.metadata("secret", "yes").await?;
    println!("client: compressed: {}", response.is_compressed());
    Ok(())
}
