//! Graceful shutdown: after SIGTERM the server accepts no more connections, the running call finishes,
//! and the program ends. Usually an orchestrator sends the signal; this program sends it to itself.
//!
//! Run it with `cargo run --example graceful_shutdown`.

use std::sync::Arc;
use std::time::Duration;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use tokio::process::Command;
use tokio::sync::Notify;
use trunkline::{Request, Result, Server, shutdown_signal};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

struct SlowGreeter {
    started: Arc<Notify>,
    finish: Arc<Notify>,
}

impl Greeter for SlowGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        println!("server: a call runs");
        self.started.notify_one();
        self.finish.notified().await;
        let message = format!("Hello, {}!", request.name);
        Ok(HelloReply { message })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let (started, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let greeter = SlowGreeter {
        started: started.clone(),
        finish: finish.clone(),
    };
    let server = Server::new()
        .add_service(GreeterServer::new(greeter))
        .drain_grace(Duration::from_secs(20))
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();
    let serving = tokio::spawn(server.serve_until(shutdown_signal()));

    let client = GreeterClient::connect(&address).await?;
    let call = tokio::spawn(async move {
        let name = "world".to_string();
        client.say_hello(HelloRequest { name }).await
    });
    started.notified().await;
    println!("orchestrator: SIGTERM");
    let process = std::process::id().to_string();
    let killed = Command::new("kill").arg(process).status().await;
    killed.expect("kill is there");

    // The listener is closed immediately, while the call is still running.
    while let Ok(client) = GreeterClient::connect(&address).await {
        drop(client);
        tokio::task::yield_now().await;
    }
    println!("client: no new connection");
    finish.notify_one();
    let response = call.await.expect("no panic")?;
    println!("client: {}", response.message);
    serving.await.expect("no panic")?;
    println!("server: gone");
    Ok(())
}
