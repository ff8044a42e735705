//! Counts what a call costs where no clock and no scheduler has a say: instructions, allocations,
//! and the reads and writes of the socket.
//!
//! `counted run WORKLOAD N` makes N operations in one thread against a peer that is written down,
//! and prints reads and writes. `counted` runs each workload under valgrind, twice, and prints what
//! one operation costs.

mod parts;
mod script;

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message as _;
use trunkline::{Limits, Request, Result, Sender, Server, Streaming};
use trunkline_testkit::channel_over;

use crate::parts::{Client as ClientPart, PREFACE, PingPong, Server as ServerPart};
use crate::script::{Script, Seen};

mod bench {
    trunkline::include_proto!("proto/bench.proto");
}
use bench::{Bench, BenchClient, BenchServer, Reply};

const UNARY: &str = "/trunkline.bench.Bench/Unary";
const SERVER_STREAM: &str = "/trunkline.bench.Bench/ServerStream";
const CLIENT_STREAM: &str = "/trunkline.bench.Bench/ClientStream";
const BIDI: &str = "/trunkline.bench.Bench/Bidi";
const SMALL: usize = 16;

/// What is counted, and with how many operations at first and in the end: the difference is what
/// those between have cost.
const WORKLOADS: [(&str, u64, u64); 7] = [
    ("unary", 1_000, 3_000),
    ("unary-1", 1_000, 3_000),
    ("server-stream", 50_000, 150_000),
    ("client-stream", 10_000, 40_000),
    ("bidi", 2_000, 10_000),
    ("bidi-1", 1_000, 3_000),
    ("client", 1_000, 3_000),
];

struct Echo;

impl Bench for Echo {
    async fn unary(&self, request: Request<bench::Request>) -> Result<Reply> {
        Ok(Reply {
            payload: request.into_inner().payload,
            requests: 1,
        })
    }

    async fn server_stream(
        &self,
        request: Request<bench::Request>,
        replies: &mut Sender<Reply>,
    ) -> Result<()> {
        for _ in 0..request.replies {
            let payload = request.payload.clone();
            replies
                .send(Reply {
                    payload,
                    requests: 1,
                })
                .await?;
        }
        Ok(())
    }

    async fn client_stream(
        &self,
        mut requests: Request<Streaming<bench::Request>>,
    ) -> Result<Reply> {
        let mut reply = Reply::default();
        while let Some(request) = requests.message().await? {
            reply.payload = request.payload;
            reply.requests += 1;
        }
        Ok(reply)
    }

    async fn bidi(
        &self,
        mut requests: Request<Streaming<bench::Request>>,
        replies: &mut Sender<Reply>,
    ) -> Result<()> {
        while let Some(request) = requests.message().await? {
            let payload = request.payload;
            replies
                .send(Reply {
                    payload,
                    requests: 1,
                })
                .await?;
        }
        Ok(())
    }
}

fn request(size: usize, replies: usize) -> Vec<u8> {
    let request = bench::Request {
        payload: vec![b'x'; size].into(),
        replies: u32::try_from(replies).expect("a number of a benchmark"),
        ..bench::Request::default()
    };
    request.encode_to_vec()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["run", workload, n] => {
            let Ok(n) = n.parse() else {
                eprintln!("{n} is not a number of operations");
                return ExitCode::from(2);
            };
            run(workload, n)
        }
        [] => match table() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("counted [run WORKLOAD N]");
            ExitCode::from(2)
        }
    }
}

fn table() -> std::result::Result<(), String> {
    println!("| operation | instructions | allocations | reads and writes |");
    println!("| --- | --- | --- | --- |");
    for (workload, few, many) in WORKLOADS {
        let (before, after) = (counts(workload, few)?, counts(workload, many)?);
        let each = |i: usize| (after[i] - before[i]) as f64 / (many - few) as f64;
        let (instructions, allocations, io) = (each(0), each(1), each(2));
        println!("| {workload} | {instructions:.0} | {allocations:.2} | {io:.3} |");
    }
    Ok(())
}

/// Instructions, allocations, reads and writes of `n` operations and of the program around them.
fn counts(workload: &str, n: u64) -> std::result::Result<[u64; 3], String> {
    let n = n.to_string();
    let (counted, io) = valgrind(
        &["--tool=callgrind", "--callgrind-out-file=/dev/null"],
        workload,
        &n,
    )?;
    let (checked, _) = valgrind(&["--leak-check=no"], workload, &n)?;
    let found = [
        number_behind(&counted, "Collected : "),
        number_behind(&checked, "total heap usage: "),
        number_behind(&io, "reads ")
            .zip(number_behind(&io, "writes "))
            .map(|(r, w)| r + w),
    ];
    match found {
        [Some(instructions), Some(allocations), Some(io)] => Ok([instructions, allocations, io]),
        _ => Err(format!(
            "{workload}: valgrind says no figures: {counted}{checked}{io}"
        )),
    }
}

fn valgrind(
    options: &[&str],
    workload: &str,
    n: &str,
) -> std::result::Result<(String, String), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(options)
        .arg(program)
        .args(["run", workload, n])
        .output()
        .map_err(|error| format!("cannot run valgrind, which counts here: {error}"))?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok((text(&output.stderr), text(&output.stdout))),
        false => Err(format!("{workload} {n}: {}", text(&output.stderr))),
    }
}

/// The number behind `label`, without the commas between its digits.
fn number_behind(text: &str, label: &str) -> Option<u64> {
    let (_, rest) = text.split_once(label)?;
    let digits = rest
        .split(|it: char| !it.is_ascii_digit() && it != ',')
        .next()?;
    digits.replace(',', "").parse().ok()
}

/// The limits of a server, but for those that look at the clock.
fn server() -> Server {
    Server::new()
        .add(BenchServer(Echo))
        .max_recv_message_size(64 << 20)
        .with_limits(|limits| {
            limits.in_place_max = Duration::from_secs(3600);
            limits.quick_poll_max = Duration::from_secs(3600);
            // A script does not watch the window of a stream.
            limits.initial_window_size = 4 << 20;
        })
}

#[tokio::main(flavor = "current_thread")]
async fn run(workload: &str, n: usize) -> ExitCode {
    let (seen, expected) = match workload {
        "unary" => serve(ClientPart::new(UNARY, &request(SMALL, 0), 100, n), n).await,
        "unary-1" => serve(ClientPart::new(UNARY, &request(SMALL, 0), 1, n), n).await,
        "server-stream" => {
            let calls = n / 10_000;
            let part = ClientPart::new(SERVER_STREAM, &request(SMALL, 10_000), 1, calls);
            serve(part, calls).await
        }
        // 500 messages of 25 bytes: within the window of a stream, which a script does not watch.
        "client-stream" => {
            let calls = n / 500;
            let part = ClientPart::new(CLIENT_STREAM, &request(SMALL, 0), 1, calls).messages(500);
            serve(part, calls).await
        }
        "bidi" => ping_pong(100, n).await,
        "bidi-1" => ping_pong(1, n).await,
        "client" => call(n).await,
        _ => {
            eprintln!("{workload} is no workload");
            return ExitCode::from(2);
        }
    };
    let ended = seen.ended.load(Ordering::Relaxed) as usize;
    if ended != expected {
        eprintln!("{workload}: {ended} of {expected} calls ended");
        return ExitCode::FAILURE;
    }
    let (reads, writes) = (
        seen.reads.load(Ordering::Relaxed),
        seen.writes.load(Ordering::Relaxed),
    );
    println!("reads {reads} writes {writes}");
    ExitCode::SUCCESS
}

async fn serve(mut part: ClientPart, calls: usize) -> (Arc<Seen>, usize) {
    let outbox = part.open();
    let (script, seen) = Script::new(part, outbox, 0);
    server().serve_connection(script).await;
    (seen, calls)
}

async fn ping_pong(calls: usize, n: usize) -> (Arc<Seen>, usize) {
    let part = PingPong::new(BIDI, &request(SMALL, 0), calls, n / calls);
    let outbox = part.open();
    let (script, seen) = Script::new(part, outbox, 0);
    server().serve_connection(script).await;
    (seen, calls)
}

async fn call(n: usize) -> (Arc<Seen>, usize) {
    const IN_FLIGHT: usize = 100;
    let reply = Reply {
        payload: vec![b'x'; SMALL].into(),
        requests: 1,
    };
    let part = ServerPart::new(&reply.encode_to_vec());
    let outbox = part.open();
    let (script, seen) = Script::new(part, outbox, PREFACE.len());
    let channel = channel_over(script, Limits::default())
        .await
        .expect("the script speaks HTTP/2");
    let mut calling = tokio::task::JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let client = BenchClient::new(channel.clone());
        calling.spawn(async move {
            for _ in 0..n / IN_FLIGHT {
                let request = bench::Request {
                    payload: vec![b'x'; SMALL].into(),
                    ..Default::default()
                };
                let reply = client.unary(request).await.expect("the script answers");
                assert_eq!(reply.payload.len(), SMALL);
            }
        });
    }
    while let Some(done) = calling.join_next().await {
        done.expect("no call panics");
    }
    (seen, n)
}
