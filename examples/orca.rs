//! Load reports (ORCA): servers report their load with each call, and the policy weighted_round_robin sends more
//! calls to servers that are less busy.
//!
//! Run it with `cargo run --example orca`.

use std::time::Duration;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use tokio::time::sleep;
use trunkline::{Address, Channel, LoadReport, Request, Result, Server};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

// In production, leave the periods at their defaults: 10 s and 1 s.
const SERVICE_CONFIG: &str = r#"{
    "loadBalancingConfig": [{
        "weighted_round_robin": {"blackoutPeriod": "0s", "weightUpdatePeriod": "0.1s"}
    }]
}"#;

struct MyGreeter {
    name: &'static str,
    /// The share of the CPU that is in use.
    cpu_utilization: f64,
}

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        let mut report = LoadReport::default();
        report.cpu_utilization = self.cpu_utilization;
        report.rps_fractional = 100.0;
        request.response().report_load(&report);
        let message = self.name.to_string();
        Ok(HelloReply { message })
    }
}

async fn start(name: &'static str, cpu_utilization: f64) -> Result<Address> {
    let greeter = MyGreeter {
        name,
        cpu_utilization,
    };
    let server = Server::new().add_service(GreeterServer::new(greeter));
    let server = server.bind("127.0.0.1:0").await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());
    Ok(address)
}

#[tokio::main]
async fn main() -> Result<()> {
    // At the same rate of calls, alice uses three times as much of her CPU as bob.
    let servers = [start("alice", 0.75).await?, start("bob", 0.25).await?];
    let channel = Channel::to(&servers)
        .service_config(SERVICE_CONFIG)
        .connect()
        .await?;
    let client = GreeterClient::new(channel);
    loop {
        let mut bob = 0;
        for _ in 0..100 {
            let response = client.say_hello(HelloRequest::default()).await?;
            bob += u32::from(response.message == "bob");
        }
        if (70..=80).contains(&bob) {
            println!("bob receives three of four calls");
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
}
