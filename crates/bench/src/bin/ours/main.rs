//! Trunkline, as its guide has one write it: with its defaults, the receive limit apart.

mod service;

use std::io::{BufRead, Write};
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use trunkline::{Result, Server};

use crate::service::Service;
use crate::service::bench::{self, BenchClient, BenchServer};

const RECEIVE_LIMIT: usize = 64 << 20;

const USAGE: &str = "usage: ours server --port N [--threads N]
       ours client --target 127.0.0.1:PORT --calls N --in-flight K [--payload BYTES]
                   [--replies N]";

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = match arguments.split_first() {
        Some((mode, rest)) => Options::read(mode, rest),
        None => refuse("no mode given"),
    };
    match arguments[0].as_str() {
        "server" => serve(&options).await,
        "client" => call_all(&options).await,
        mode => refuse(&format!("unknown mode {mode}")),
    }
}

async fn serve(options: &Options) -> Result<()> {
    let port = required(options.port, "--port");
    let mut server = Server::new()
        .add_service(BenchServer::new(Service))
        .max_recv_message_size(RECEIVE_LIMIT);
    if let Some(threads) = options.threads {
        server = server.threads(threads);
    }
    let server = server.bind(&format!("127.0.0.1:{port}")).await?;
    println!("listening {}", server.local_addr());
    std::io::stdout().flush().expect("stdout takes a line");
    server.serve().await
}

async fn call_all(options: &Options) -> Result<()> {
    let target = options.target.as_deref();
    let client = BenchClient::connect(required(target, "--target")).await?;
    let calls = required(options.calls, "--calls");
    let in_flight = required(options.in_flight, "--in-flight");
    let sizes = (options.payload.unwrap_or(16), options.replies.unwrap_or(0));
    call(&client, calls / 10, in_flight, sizes).await;
    say_and_wait("begin");
    call(&client, calls, in_flight, sizes).await;
    say_and_wait("end");
    Ok(())
}

/// Makes `calls` calls, each task its next as soon as it has the reply to the last, or all of them;
/// `sizes` are the bytes of a payload, and the number of replies: none is a unary call.
async fn call(client: &BenchClient, calls: u64, in_flight: u64, sizes: (usize, u32)) {
    let begun = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (client, begun) = (client.clone(), begun.clone());
            tokio::spawn(async move {
                while begun.fetch_add(1, Relaxed) < calls {
                    let (payload, replies) = sizes;
                    let request = bench::Request {
                        payload: vec![7; payload].into(),
                        replies,
                        ..bench::Request::default()
                    };
                    match replies {
                        0 => {
                            let reply = client.unary(request).await.expect("a reply");
                            assert_eq!(reply.payload.len(), payload);
                        }
                        _ => read(&client, request).await,
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no call fails");
    }
}

/// Reads a stream to its end.
async fn read(client: &BenchClient, request: bench::Request) {
    let (expected, payload) = (request.replies, request.payload.len());
    let mut replies = client.server_stream(request).await.expect("a stream");
    let mut count = 0;
    while let Some(reply) = replies.message().await.expect("no reply is wrong") {
        assert_eq!(reply.payload.len(), payload);
        count += 1;
    }
    assert_eq!(count, expected);
}

/// Says how far the client is, and waits until that has been noted.
fn say_and_wait(word: &str) {
    println!("{word}");
    std::io::stdout().flush().expect("stdout takes a line");
    std::io::stdin()
        .lock()
        .read_line(&mut String::new())
        .expect("stdin gives a line");
}

/// What the command line may hold beside the mode.
#[derive(Default)]
struct Options {
    port: Option<u16>,
    threads: Option<usize>,
    target: Option<String>,
    calls: Option<u64>,
    in_flight: Option<u64>,
    payload: Option<usize>,
    replies: Option<u32>,
}

impl Options {
    fn read(mode: &str, arguments: &[String]) -> Self {
        let mut options = Self::default();
        for pair in arguments.chunks(2) {
            let [name, value] = pair else {
                refuse(&format!("{}: value missing", pair[0]));
            };
            match (mode, name.as_str()) {
                ("server", "--port") => options.port = Some(parsed(name, value)),
                ("server", "--threads") => options.threads = Some(parsed(name, value)),
                ("client", "--target") => options.target = Some(value.clone()),
                ("client", "--calls") => options.calls = Some(parsed(name, value)),
                ("client", "--in-flight") => options.in_flight = Some(parsed(name, value)),
                ("client", "--payload") => options.payload = Some(parsed(name, value)),
                ("client", "--replies") => options.replies = Some(parsed(name, value)),
                _ => refuse(&format!("{name}: not understood")),
            }
        }
        options
    }
}

fn parsed<T: std::str::FromStr>(name: &str, value: &str) -> T {
    let parsed = value.parse();
    parsed.unwrap_or_else(|_| refuse(&format!("{name} {value}: not understood")))
}

fn required<T>(value: Option<T>, name: &str) -> T {
    value.unwrap_or_else(|| refuse(&format!("{name} is missing")))
}

/// Ends the program: the command line asks for what it does not do.
fn refuse(why: &str) -> ! {
    eprintln!("{why}\n{USAGE}");
    exit(2)
}
