//! Metadata: a client sends it with its request, and a server before its response (in the head) and
//! after it (in the trailers). Keys that end in `-bin` have bytes as values.
//!
//! Run it with `cargo run --example metadata`.

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use trunkline::{Request, Result, Server};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let language = request.metadata().get("language").unwrap_or("en");
        println!("server: language is {language}");
        if let Some(trace) = request.metadata().get_bin("trace-bin") {
            println!("server: trace-bin is {trace:?}");
        }
        let (language, greeting) = match language {
            "fr" => ("fr", "Bonjour"),
            _ => ("en", "Hello"),
        };
        request.response().metadata("language", language)?;
        request.response().trailer("cost", "7")?;
        request.response().trailer_bin("digest-bin", [0xfe, 0xed])?;
        let message = format!("{greeting}, {}!", request.name);
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
    let name = "Zoë".to_string();
    let response = client
        .say_hello(HelloRequest { name })
        .metadata("language", "fr")
        .metadata_bin("trace-bin", [1, 2, 3])
        .await?;
    println!("client: {}", response.message);
    println!("client: head: {:?}", response.metadata().get("language"));
    println!("client: trailer: {:?}", response.trailers().get("cost"));
    println!(
        "client: trailer: {:?}",
        response.trailers().get_bin("digest-bin")
    );
    Ok(())
}
