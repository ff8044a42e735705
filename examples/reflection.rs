//! Reflection: a client asks the server for its services and their descriptors, as grpcurl does. The server
//! needs one additional line.
//!
//! Run it with `cargo run --example reflection`.

use hello::{Greeter, GreeterServer, HelloReply, HelloRequest};
use trunkline::{Request, Result, Server};
use trunkline_health::Health;
use trunkline_reflection::Reflection;
use trunkline_reflection::v1::server_reflection_request::MessageRequest;
use trunkline_reflection::v1::server_reflection_response::MessageResponse;
use trunkline_reflection::v1::{ServerReflectionClient, ServerReflectionRequest};

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
    let server = Server::new()
        .add_service(GreeterServer::new(MyGreeter))
        .add_service(Health::new())
        .add_service(Reflection::new());
    let server = server.bind("127.0.0.1:0").await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    let client = ServerReflectionClient::connect(&address).await?;
    let (mut requests, mut responses) = client.server_reflection_info().await?;
    for request in [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("helloworld.Greeter".to_string()),
        MessageRequest::FileContainingSymbol("helloworld.Nobody".to_string()),
    ] {
        let request = ServerReflectionRequest {
            message_request: Some(request),
            ..Default::default()
        };
        requests.send(request).await?;
        let response = responses.message().await?.unwrap_or_default();
        match response.message_response {
            Some(MessageResponse::ListServicesResponse(list)) => {
                list.service.iter().for_each(|it| println!("{}", it.name));
            }
            Some(MessageResponse::FileDescriptorResponse(files)) => {
                println!("files: {}", files.file_descriptor_proto.len());
            }
            Some(MessageResponse::ErrorResponse(error)) => println!("{}", error.error_message),
            _ => {}
        }
    }
    requests.finish();
    Ok(())
}
