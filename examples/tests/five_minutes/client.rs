use hello::{GreeterClient, HelloRequest};
use trunkline::Result;

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

#[tokio::main]
async fn main() -> Result<()> {
    let client = GreeterClient::connect("127.0.0.1:50051").await?;
    let name = "world".to_string();
    let response = client.say_hello(HelloRequest { name }).await?;
    println!("{}", response.message);
    Ok(())
}
