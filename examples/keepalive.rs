//! Keepalive: a client loses its network without closing the connection. The server sends PING, receives
//! no response, and drops the client's handler. The times are much shorter than in production.
//!
//! Run it with `cargo run --example keepalive`.

use std::sync::Arc;
use std::time::Duration;

use ticker::{Tick, Ticker, TickerClient, TickerServer, WatchRequest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use trunkline::{Address, Channel, Request, Result, Sender, Server};

mod ticker {
    trunkline::include_proto!("../proto/ticker.proto");
}

struct Clock {
    stopped: Arc<Notify>,
}

/// Lives as long as a handler.
struct Watching(Arc<Notify>);

impl Drop for Watching {
    fn drop(&mut self) {
        println!("server: the handler is dropped");
        self.0.notify_one();
    }
}

impl Ticker for Clock {
    async fn watch(&self, _: Request<WatchRequest>, responses: &mut Sender<Tick>) -> Result<()> {
        let _watching = Watching(self.stopped.clone());
        responses.send(Tick { number: 1 }).await?;
        std::future::pending().await
    }
}

/// Forwards bytes until `dark` is notified; then it stops without closing the connection.
async fn network(entry: TcpListener, server: Address, dark: Arc<Notify>) {
    let (mut client, _) = entry.accept().await.expect("a client");
    let server = server.tcp().expect("TCP");
    let mut server = TcpStream::connect(server).await.expect("a server");
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        () = dark.notified() => std::future::pending().await,
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let (stopped, dark) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let clock = Clock {
        stopped: stopped.clone(),
    };
    let server = Server::new()
        .add_service(TickerServer::new(clock))
        .keepalive_time(Duration::from_secs(1))
        .keepalive_timeout(Duration::from_secs(1))
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());
    let entry = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let way_in = entry.local_addr().expect("it listens");
    tokio::spawn(network(entry, address, dark.clone()));

    // The client would also send PING, after 30 seconds without any data.
    let channel = Channel::to(way_in)
        .keepalive_time(Duration::from_secs(30))
        .keepalive_timeout(Duration::from_secs(10))
        .connect()
        .await?;
    let client = TickerClient::new(channel);
    let mut ticks = client.watch(WatchRequest { interval_ms: 0 }).await?;
    if let Some(tick) = ticks.message().await? {
        println!("client: tick {}", tick.number);
    }
    println!("network: dark");
    dark.notify_one();
    stopped.notified().await;
    Ok(())
}
