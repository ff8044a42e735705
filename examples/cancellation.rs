//! Cancellation: the client drops its end of a stream, and the server drops the handler at its current
//! `.await`, with all values that the handler holds. With a handle, the client cancels a stream that it
//! keeps, and reads the messages that had already arrived.
//!
//! Run it with `cargo run --example cancellation`.

use std::sync::Arc;
use std::time::Duration;

use ticker::{Tick, Ticker, TickerClient, TickerServer, WatchRequest};
use tokio::sync::Notify;
use trunkline::{CancelHandle, Request, Result, Sender, Server};

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
    async fn watch(
        &self,
        request: Request<WatchRequest>,
        responses: &mut Sender<Tick>,
    ) -> Result<()> {
        let _watching = Watching(self.stopped.clone());
        println!("server: the handler starts");
        for number in 1.. {
            responses.send(Tick { number }).await?;
            tokio::time::sleep(Duration::from_millis(request.interval_ms.into())).await;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let stopped = Arc::new(Notify::new());
    let clock = Clock {
        stopped: stopped.clone(),
    };
    let server = Server::new()
        .add_service(TickerServer::new(clock))
        .bind("127.0.0.1:0")
        .await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    let client = TickerClient::connect(address).await?;
    let mut ticks = client.watch(WatchRequest { interval_ms: 20 }).await?;
    while let Some(tick) = ticks.message().await? {
        println!("client: tick {}", tick.number);
        if tick.number == 3 {
            break;
        }
    }
    println!("client: that is enough");
    drop(ticks);
    stopped.notified().await;

    let handle = CancelHandle::new();
    let request = WatchRequest {
        interval_ms: 60_000,
    };
    let mut ticks = client.watch(request).cancel_with(&handle).await?;
    let first = ticks.message().await?;
    println!("client: a first tick has come: {}", first.is_some());
    handle.cancel();
    stopped.notified().await;
    while let Some(tick) = ticks.message().await.transpose() {
        match tick {
            Ok(tick) => println!("client: tick {} had arrived", tick.number),
            Err(status) => {
                println!("client: {}", status.code());
                break;
            }
        }
    }
    Ok(())
}
