//! tonic, as its guides have one write it: with its defaults, the receive limit apart.
//! `--tuned` is what its users set for speed: one thread, larger windows.

#[path = "../../command_line.rs"]
mod command_line;

mod proto {
    tonic::include_proto!("trunkline.bench");
}

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use command_line::Mode;
use proto::bench_client::BenchClient;
use proto::bench_server::{Bench, BenchServer};
use proto::{Reply, Request as Message};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

const RECEIVE_LIMIT: usize = 64 << 20;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

type Result<T> = std::result::Result<Response<T>, Status>;
type Replies = Pin<Box<dyn Stream<Item = std::result::Result<Reply, Status>> + Send>>;

struct Service;

#[tonic::async_trait]
impl Bench for Service {
    async fn unary(&self, request: Request<Message>) -> Result<Reply> {
        let request = request.into_inner();
        if request.sleep_millis > 0 {
            tokio::time::sleep(Duration::from_millis(request.sleep_millis.into())).await;
        }
        if request.spin_millis > 0 {
            let end = Instant::now() + Duration::from_millis(request.spin_millis.into());
            while Instant::now() < end {}
        }
        if request.block_millis > 0 {
            std::thread::sleep(Duration::from_millis(request.block_millis.into()));
        }
        Ok(Response::new(reply(request.payload)))
    }

    type ServerStreamStream = Replies;

    async fn server_stream(&self, request: Request<Message>) -> Result<Replies> {
        let Message {
            payload, replies, ..
        } = request.into_inner();
        let replies = (0..replies).map(move |_| Ok(reply(payload.clone())));
        Ok(Response::new(Box::pin(tokio_stream::iter(replies))))
    }

    async fn client_stream(&self, request: Request<Streaming<Message>>) -> Result<Reply> {
        let mut messages = request.into_inner();
        let mut reply = Reply::default();
        while let Some(message) = messages.message().await? {
            reply.payload = message.payload;
            reply.requests += 1;
        }
        Ok(Response::new(reply))
    }

    type BidiStream = Replies;

    async fn bidi(&self, request: Request<Streaming<Message>>) -> Result<Replies> {
        let replies = request
            .into_inner()
            .map(|message| Ok(reply(message?.payload)));
        Ok(Response::new(Box::pin(replies)))
    }
}

fn reply(payload: Vec<u8>) -> Reply {
    Reply {
        payload,
        ..Reply::default()
    }
}

fn main() {
    let (mode, switches) = command_line::parse(&["--tuned"]);
    match switches.is_empty() {
        true => with_defaults(mode),
        false => tuned(mode),
    }
}

#[tokio::main]
async fn with_defaults(mode: Mode) {
    run(mode, Server::builder(), |endpoint| endpoint).await;
}

#[tokio::main(flavor = "current_thread")]
async fn tuned(mode: Mode) {
    let server = Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let tune = |endpoint: Endpoint| {
        endpoint
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
    };
    run(mode, server, tune).await;
}

async fn run(mode: Mode, server: Server, tune: impl FnOnce(Endpoint) -> Endpoint) {
    match mode {
        Mode::Server { port } => serve(port, server).await,
        Mode::Client {
            target,
            calls,
            in_flight,
            payload,
            replies,
        } => {
            let endpoint = Endpoint::from_shared(format!("http://{target}")).expect("a URI");
            let channel = tune(endpoint).connect().await.expect("a server listens");
            let client = BenchClient::new(channel).max_decoding_message_size(RECEIVE_LIMIT);
            let sizes = (payload, replies);
            call(&client, calls / 10, in_flight, sizes).await;
            command_line::say_and_wait("begin");
            call(&client, calls, in_flight, sizes).await;
            command_line::say_and_wait("end");
        }
    }
}

async fn serve(port: u16, mut server: Server) {
    // `Server::serve` sets no delay as well, but does not say which port it found.
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let incoming = TcpIncoming::bind(address)
        .expect("the port is free")
        .with_nodelay(Some(true));
    command_line::say_listening(incoming.local_addr().expect("a bound socket"));
    server
        .add_service(BenchServer::new(Service).max_decoding_message_size(RECEIVE_LIMIT))
        .serve_with_incoming(incoming)
        .await
        .expect("the server runs until it is killed");
}

/// Makes `calls` calls, each task its next as soon as it has the reply to the last, or all of them;
/// `sizes` are the bytes of a payload, and the number of replies: none is a unary call.
async fn call(client: &BenchClient<Channel>, calls: u64, in_flight: u64, sizes: (usize, u32)) {
    let begun = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (mut client, begun) = (client.clone(), begun.clone());
            tokio::spawn(async move {
                while begun.fetch_add(1, Relaxed) < calls {
                    let (payload, replies) = sizes;
                    let message = Message {
                        payload: vec![7; payload],
                        replies,
                        ..Message::default()
                    };
                    match replies {
                        0 => {
                            let reply = client.unary(message).await.expect("a reply");
                            assert_eq!(reply.get_ref().payload.len(), payload);
                        }
                        _ => read(&mut client, message).await,
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
async fn read(client: &mut BenchClient<Channel>, message: Message) {
    let (replies, payload) = (message.replies, message.payload.len());
    let stream = client.server_stream(message).await.expect("a stream");
    let (mut stream, mut count) = (stream.into_inner(), 0);
    while let Some(reply) = stream.message().await.expect("no reply is wrong") {
        assert_eq!(reply.payload.len(), payload);
        count += 1;
    }
    assert_eq!(count, replies);
}
