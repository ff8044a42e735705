//! The workloads: so many operations in one thread, against a peer that is written down.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderMap;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio::time::sleep;
use trunkline::{Address, Channel, LoadReport, Server};
use trunkline_bench::messages::{self, Reply, Request};

use crate::parts::{Client as ClientPart, PingPong, Server as ServerPart};
use crate::script::{Part, Script, Seen};
use crate::service::Service;
use crate::service::bench::{self, BenchClient, BenchServer};

const UNARY: &str = "/trunkline.bench.Bench/Unary";
const SERVER_STREAM: &str = "/trunkline.bench.Bench/ServerStream";
const CLIENT_STREAM: &str = "/trunkline.bench.Bench/ClientStream";
const BIDI: &str = "/trunkline.bench.Bench/Bidi";

/// Bytes of payload, where the name of a workload does not say more.
const SMALL: usize = 16;

/// Messages of a stream whose peer fills its DATA frames: within the window of a client's stream, which
/// a script does not watch.
const PACKED: usize = 5_000;

const SIZE_OF_A_READ: usize = 64 * 1024;

/// What is counted.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// With how many operations, at first and in the end.
    pub(crate) few: usize,
    pub(crate) many: usize,
    /// Whether its copies are counted as those of small messages are.
    pub(crate) plain_copies: bool,
}

const fn small(name: &'static str, few: usize, many: usize) -> Workload {
    Workload {
        name,
        few,
        many,
        plain_copies: false,
    }
}

const fn large(name: &'static str, few: usize, many: usize) -> Workload {
    Workload {
        plain_copies: true,
        ..small(name, few, many)
    }
}

/// All of them, in the order of the tables.
pub(crate) const WORKLOADS: [Workload; 15] = [
    small("unary", 1_000, 3_000),
    small("unary-1", 1_000, 3_000),
    small("server-stream", 50_000, 150_000),
    small("client-stream", 10_000, 40_000),
    small("client-stream-packed", 50_000, 150_000),
    small("bidi", 2_000, 10_000),
    small("bidi-1", 1_000, 3_000),
    large("echo-64k", 80, 240),
    large("echo-1m", 10, 30),
    small("client", 1_000, 3_000),
    small("client-config", 1_000, 3_000),
    small("client-retry", 1_000, 3_000),
    small("client-round-robin", 1_000, 3_000),
    small("client-weighted", 1_000, 3_000),
    small("client-server-stream", 50_000, 150_000),
];

/// Makes `n` operations of a workload; what the peer has seen of them.
///
/// # Errors
///
/// If there is no such workload, or what was sent is not what was asked for.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(workload: &str, n: usize) -> Result<Arc<Seen>, String> {
    let unary = |size, in_flight| {
        let part = ClientPart::new(UNARY, &request(size, 0), in_flight, n);
        async move { (serve(part).await, n, n * reply(size, 0).len()) }
    };
    let client = |servers, config| async move {
        let seen = call(servers, config, n).await;
        (seen, n, n * request(SMALL, 0).len())
    };
    let plain = || ServerPart::new(&reply(SMALL, 0));
    let small = reply(SMALL, 0).len();
    let (seen, calls, data) = match workload {
        "unary" => unary(SMALL, 100).await,
        "unary-1" => unary(SMALL, 1).await,
        // As many in flight as with the workloads of the same sizes of `bench`.
        "echo-64k" => unary(64 << 10, 8).await,
        "echo-1m" => unary(1 << 20, 2).await,
        "server-stream" => {
            let calls = n / 10_000;
            let part = ClientPart::new(SERVER_STREAM, &request(SMALL, 10_000), 1, calls);
            (serve(part).await, calls, n * small)
        }
        // 500 messages of 25 bytes: within the window of a stream, which a script does not watch.
        "client-stream" => {
            let calls = n / 500;
            let part = ClientPart::new(CLIENT_STREAM, &request(SMALL, 0), 1, calls).messages(500);
            (serve(part).await, calls, calls * reply(SMALL, 500).len())
        }
        "client-stream-packed" => {
            let calls = n / PACKED;
            let messages = request(SMALL, 0).repeat(PACKED);
            let part = ClientPart::new(CLIENT_STREAM, &messages, 1, calls);
            (
                serve(part).await,
                calls,
                calls * reply(SMALL, PACKED as u64).len(),
            )
        }
        "bidi" => (serve(ping_pong(100, n)).await, 100, n * small),
        "bidi-1" => (serve(ping_pong(1, n)).await, 1, n * small),
        "client" => client(vec![plain()], None).await,
        "client-config" => client(vec![plain()], Some(CONFIG)).await,
        "client-retry" => client(vec![plain()], Some(RETRY)).await,
        "client-round-robin" => {
            let servers = (0..SERVERS).map(|_| plain()).collect();
            client(servers, Some(ROUND_ROBIN)).await
        }
        "client-weighted" => {
            let servers = (1..=SERVERS).map(|at| plain().reports(&load(at))).collect();
            client(servers, Some(WEIGHTED)).await
        }
        "client-server-stream" => {
            let calls = n / PACKED;
            (
                read(calls).await,
                calls,
                calls * request(SMALL, PACKED as u32).len(),
            )
        }
        _ => return Err(format!("{workload} is no workload")),
    };
    let found = [&seen.ended, &seen.data].map(|it| it.load(Ordering::Relaxed));
    let expected = [calls, data].map(|it| it as u64);
    match found == expected {
        true => Ok(seen),
        false => Err(format!(
            "{workload}: calls ended and bytes of DATA are {found:?} instead of {expected:?}"
        )),
    }
}

/// The limits of a server, but for those that look at the clock.
fn server() -> Server {
    Server::new()
        .add_service(BenchServer::new(Service))
        .max_recv_message_size(64 << 20)
        .with_limits(|limits| {
            limits.in_place_max = Duration::from_secs(3600);
            limits.quick_poll_max = Duration::from_secs(3600);
            // A script does not watch the window of a stream.
            limits.http2.initial_window_size = 4 << 20;
        })
}

async fn serve(part: impl Part + Unpin + 'static) -> Arc<Seen> {
    let seen = Arc::<Seen>::default();
    let script = Script::new(part, seen.clone());
    server().serve_connection(script).await;
    seen
}

fn ping_pong(calls: usize, n: usize) -> PingPong {
    PingPong::new(BIDI, &request(SMALL, 0), calls, n / calls)
}

/// A service config with an entry for the service, which changes no call.
const CONFIG: &str =
    r#"{"methodConfig": [{"name": [{"service": "trunkline.bench.Bench"}], "waitForReady": true}]}"#;

/// A service config whose policy no call of the script needs.
const RETRY: &str = r#"{"methodConfig": [{"name": [{"service": "trunkline.bench.Bench"}], "retryPolicy": {
    "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]}}]}"#;

const ROUND_ROBIN: &str = r#"{"loadBalancingConfig": [{"round_robin": {}}]}"#;

/// Reports count from the first on, and weights change once a second.
const WEIGHTED: &str =
    r#"{"loadBalancingConfig": [{"weighted_round_robin": {"blackoutPeriod": "0s"}}]}"#;

/// The number of servers, where there is a choice.
const SERVERS: usize = 8;

/// The trailer of a server that is loaded the more, the higher its number is.
fn load(server: usize) -> String {
    let mut report = LoadReport::default();
    report.application_utilization = server as f64 / SERVERS as f64;
    report.rps_fractional = 100.0;
    let mut trailers = HeaderMap::new();
    report.write_to(&mut trailers);
    let value = trailers[LoadReport::TRAILER].to_str();
    value.expect("it is base64").to_owned()
}

async fn call(servers: Vec<ServerPart>, config: Option<&str>, n: usize) -> Arc<Seen> {
    const IN_FLIGHT: usize = 100;
    // All servers are connected before the first calls, and have their weights before the later ones.
    let pause = Duration::from_secs(if servers.len() > 1 { 2 } else { 0 });
    let seen = Arc::<Seen>::default();
    let scripts = servers.into_iter().map(|it| Script::new(it, seen.clone()));
    let channel = channel_to(scripts, config).await;
    let channel = channel.expect("the script speaks HTTP/2");
    sleep(pause).await;
    let mut calling = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let client = BenchClient::new(channel.clone());
        calling.spawn(async move {
            for at in 0..n / IN_FLIGHT {
                let request = bench::Request {
                    payload: vec![b'x'; SMALL].into(),
                    ..bench::Request::default()
                };
                let reply = client.unary(request).await.expect("the script answers");
                assert_eq!(reply.payload.len(), SMALL);
                if at == 0 {
                    sleep(pause).await;
                }
            }
        });
    }
    while let Some(done) = calling.join_next().await {
        done.expect("no call panics");
    }
    seen
}

/// Reads `calls` server streams, one after the other.
async fn read(calls: usize) -> Arc<Seen> {
    let seen = Arc::<Seen>::default();
    let part = ServerPart::new(&reply(SMALL, 0).repeat(PACKED));
    let channel = channel_to([Script::new(part, seen.clone())], None).await;
    let client = BenchClient::new(channel.expect("the script speaks HTTP/2"));
    for _ in 0..calls {
        let request = bench::Request {
            payload: vec![b'x'; SMALL].into(),
            replies: PACKED as u32,
            ..bench::Request::default()
        };
        let mut replies = client.server_stream(request).await.expect("a stream");
        let mut read = 0;
        while let Some(reply) = replies.message().await.expect("no message is wrong") {
            assert_eq!(reply.payload.len(), SMALL);
            read += 1;
        }
        assert_eq!(read, PACKED);
    }
    seen
}

/// A channel's own connections, as users have them: Unix sockets, behind each of which is a script. What
/// lies between the two is counted as well; it is paid once for all calls in flight on a connection.
async fn channel_to(
    scripts: impl IntoIterator<Item = Script<ServerPart>>,
    config: Option<&str>,
) -> trunkline::Result<Channel> {
    let mut addresses = Vec::new();
    for (at, mut script) in scripts.into_iter().enumerate() {
        let name = format!("counted-{}-{at}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener =
            UnixListener::bind(&path).expect("a socket in the directory for such things");
        addresses.push(Address::Unix(Some(path.clone())));
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("the channel connects");
            let _ = std::fs::remove_file(path);
            let (near, far) = (SIZE_OF_A_READ, SIZE_OF_A_READ);
            let _ = copy_bidirectional_with_sizes(&mut socket, &mut script, near, far).await;
        });
    }
    let mut builder = Channel::to(addresses).max_connections(1);
    if let Some(config) = config {
        builder = builder.service_config(config);
    }
    builder.connect().await
}

/// A request behind its prefix.
fn request(size: usize, replies: u32) -> Vec<u8> {
    messages::prefixed(&Request {
        payload: vec![b'x'; size],
        replies,
        ..Request::default()
    })
}

/// A reply behind its prefix.
fn reply(size: usize, requests: u64) -> Vec<u8> {
    messages::prefixed(&Reply {
        payload: vec![b'x'; size],
        requests,
    })
}
