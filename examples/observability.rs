//! Observability: an observer that counts calls by side, method and code, another that keeps the size of the
//! largest message, and the span of each call, which a `tracing` subscriber prints when it closes.
//!
//! Run it with `cargo run --example observability`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
use tracing_subscriber::fmt::format::{FmtSpan, debug_fn};
use trunkline::observe::{self, CallEvent, CallObserver, CallStart, CallStats, Observer, Wants};
use trunkline::{Channel, Request, Result, Server, Status};

mod hello {
    trunkline::include_proto!("../proto/helloworld.proto");
}

/// The upper bounds of the histogram's buckets, in milliseconds. A last bucket has no upper bound.
const BOUNDS: [u128; 3] = [1, 10, 100];

#[derive(Default)]
struct Row {
    calls: u64,
    sent: u64,
    received: u64,
    durations: [u64; BOUNDS.len() + 1],
}

/// One row for each side, method and code.
#[derive(Clone, Default)]
struct Table(Arc<Mutex<BTreeMap<String, Row>>>);

impl Table {
    fn add(&self, call: &CallStats<'_>) {
        let key = format!("{:?} {} {}", call.side(), call.method(), call.code());
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row = rows.entry(key).or_default();
        row.calls += 1;
        row.sent += call.bytes_sent();
        row.received += call.bytes_received();
        let bucket = BOUNDS.partition_point(|bound| call.duration().as_millis() >= *bound);
        row.durations[bucket] += 1;
    }

    fn print(&self) {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, row) in rows.iter() {
            println!("{key}: {} calls", row.calls);
            println!("  {} B sent, {} B received", row.sent, row.received);
        }
    }
}

/// The size in bytes of the largest message, before compression.
#[derive(Clone, Default)]
struct Largest(Arc<AtomicUsize>);

impl Observer for Largest {
    fn call(&self, _: &CallStart<'_>) -> Option<impl CallObserver> {
        Some(self.clone())
    }
}

impl CallObserver for Largest {
    fn wants(&self) -> Wants {
        Wants::MESSAGES
    }

    fn event(&self, _: Instant, event: &CallEvent<'_>) {
        if let CallEvent::Message { size, .. } = event {
            self.0.fetch_max(*size, Ordering::Relaxed);
        }
    }
}

struct MyGreeter;

impl Greeter for MyGreeter {
    async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
        if request.name.is_empty() {
            return Err(Status::invalid_argument("a name is needed"));
        }
        tracing::info!("the handler greets");
        let message = format!("Hello, {}!", request.name);
        Ok(HelloReply { message })
    }
}

/// Returns whether the value of a field differs between runs: the port of the client, and all times.
fn varies(field: &str) -> bool {
    field == "peer" || field.ends_with("_us") || field.starts_with("time.")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_span_events(FmtSpan::CLOSE)
        .fmt_fields(debug_fn(|writer, field, value| {
            match varies(field.name()) {
                true => Ok(()),
                false => write!(writer, "{field}={value:?} "),
            }
        }))
        .without_time()
        .init();

    let table = Table::default();
    let rows = table.clone();
    let server = Server::new().observe(observe::on_end(move |call| rows.add(call)));
    let greeter = GreeterServer::new(MyGreeter);
    let server = server.add_service(greeter).bind("127.0.0.1:0").await?;
    let address = server.local_addr();
    tokio::spawn(server.serve());

    let (rows, largest) = (table.clone(), Largest::default());
    let channel = Channel::connect(&address)
        .await?
        .observe(observe::on_end(move |call| rows.add(call)))
        .observe(largest.clone());
    let client = GreeterClient::new(channel);
    for name in ["Ali", "Zoë", ""].map(String::from) {
        let _ = client.say_hello(HelloRequest { name }).await;
    }
    table.print();
    println!("largest message: {} B", largest.0.load(Ordering::Relaxed));
    Ok(())
}
