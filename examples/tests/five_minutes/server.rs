use hello::{Greeter, GreeterServer, HelloReply, HelloRequest};
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
    Server::new()
        .add_service(greeter)
        .serve("127.0.0.1:50051")
        .await
}
