//! volo-grpc, as its guide has one write it: with its defaults; it has no limit to what it receives.

// The status is its own.
#![allow(clippy::result_large_err)]

#[path = "../../command_line.rs"]
mod command_line;

mod proto {
    include!(concat!(env!("OUT_DIR"), "/volo_gen.rs"));
}

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use command_line::Mode;
use futures_util::{StreamExt, TryStreamExt, stream};
use pilota::Bytes;
use proto::volo_gen::trunkline::bench::{
    Bench, BenchClient, BenchClientBuilder, BenchServer, Reply, Request as Message,
};
use tokio::net::TcpListener;
use volo::net::incoming::DefaultIncoming;
use volo_grpc::server::{Server, ServiceBuilder};
use volo_grpc::{BoxStream, RecvStream, Request, Response, Status};

type Result<T> = std::result::Result<Response<T>, Status>;
type Replies = BoxStream<'static, std::result::Result<Reply, Status>>;

struct Service;

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

    async fn server_stream(&self, request: Request<Message>) -> Result<Replies> {
        let Message {
            payload, replies, ..
        } = request.into_inner();
        let replies = (0..replies).map(move |_| Ok(reply(payload.clone())));
        Ok(Response::new(stream::iter(replies).boxed()))
    }

    async fn client_stream(&self, request: Request<RecvStream<Message>>) -> Result<Reply> {
        let mut messages = request.into_inner();
        let mut reply = Reply::default();
        while let Some(message) = messages.try_next().await? {
            reply.payload = message.payload;
            reply.requests += 1;
        }
        Ok(Response::new(reply))
    }

    async fn bidi(&self, request: Request<RecvStream<Message>>) -> Result<Replies> {
        let messages = request.into_inner();
        let replies = messages.map_ok(|message| reply(message.payload));
        Ok(Response::new(replies.boxed()))
    }
}

fn reply(payload: Bytes) -> Reply {
    Reply {
        payload,
        ..Reply::default()
    }
}

#[tokio::main]
async fn main() {
    match command_line::parse(&[]).0 {
        Mode::Server { port } => serve(port).await,
        Mode::Client {
            target,
            calls,
            in_flight,
            payload,
            ..
        } => {
            let client = connect(target);
            call(&client, calls / 10, in_flight, payload).await;
            command_line::say_and_wait("begin");
            call(&client, calls, in_flight, payload).await;
            command_line::say_and_wait("end");
        }
    }
}

async fn serve(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port))
        .await
        .expect("the port is free");
    command_line::say_listening(listener.local_addr().expect("a bound socket"));
    Server::new()
        .add_service(ServiceBuilder::new(BenchServer::new(Service)).build())
        .run(DefaultIncoming::from(listener))
        .await
        .expect("the server runs until it is killed");
}

fn connect(target: SocketAddr) -> BenchClient {
    BenchClientBuilder::new("trunkline.bench.Bench")
        .address(target)
        .build()
}

/// Makes `calls` calls, each task its next as soon as it has the reply to the last.
async fn call(client: &BenchClient, calls: u64, in_flight: u64, payload: usize) {
    let begun = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (client, begun) = (client.clone(), begun.clone());
            tokio::spawn(async move {
                while begun.fetch_add(1, Relaxed) < calls {
                    let message = Message {
                        payload: vec![7; payload].into(),
                        ..Message::default()
                    };
                    let reply = client.unary(message).await.expect("a reply");
                    assert_eq!(reply.get_ref().payload.len(), payload);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no call fails");
    }
}
