//! The health service: a probe like that of Kubernetes, a service that is temporarily unavailable, and a
//! server that announces its shutdown.
//!
//! Run it with `cargo run --example health`.

use std::time::Duration;

use hello::{Greeter, GreeterServer, HelloReply, HelloRequest};
use tokio::sync::oneshot;
use trunkline::{Address, Channel, Request, Result, Server, Streaming};
use trunkline_health::v1::{HealthCheckRequest, HealthCheckResponse};
use trunkline_health::{Health, HealthClient, ServingStatus};

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

// The deadline of the call also limits connecting.
async fn is_healthy(address: &Address, service: &str) -> Result<bool> {
    let client = HealthClient::new(Channel::to(address).connect_lazy()?);
    let service = service.to_string();
    let check = client.check(HealthCheckRequest { service });
    let response = check.timeout(Duration::from_secs(1)).await?;
    Ok(response.status() == ServingStatus::Serving)
}

async fn print_next(statuses: &mut Streaming<HealthCheckResponse>) -> Result<()> {
    if let Some(response) = statuses.message().await? {
        println!("  {}", response.status().as_str_name());
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let health = Health::new();
    let server = Server::new().add_service(GreeterServer::new(MyGreeter));
    let server = server
        .add_service(health.clone())
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();

    // A real server waits for SIGTERM here, with `shutdown_signal()`.
    let (terminate, terminated) = oneshot::channel::<()>();
    let signal = async { drop(terminated.await) };
    let notice = Duration::from_millis(100);
    let serving = tokio::spawn(server.serve_until(health.clone().shutdown_on(signal, notice)));

    for service in ["", "helloworld.Greeter", "helloworld.Gretter"] {
        match is_healthy(&address, service).await {
            Ok(healthy) => println!("{service:?} is healthy: {healthy}"),
            Err(status) => println!("{service:?}: {status}"),
        }
    }

    let watching = HealthClient::connect(&address).await?;
    let service = "helloworld.Greeter".to_string();
    let mut statuses = watching.watch(HealthCheckRequest { service }).await?;
    print_next(&mut statuses).await?;

    println!("The database is unreachable.");
    health.set_not_serving("helloworld.Greeter");
    print_next(&mut statuses).await?;

    println!("The database is reachable again.");
    health.set_serving("helloworld.Greeter");
    print_next(&mut statuses).await?;

    println!("The server shuts down.");
    drop(terminate);
    print_next(&mut statuses).await?;
    if let Err(status) = statuses.message().await {
        println!("  {status}");
    }
    serving.await.expect("the server does not panic")
}
