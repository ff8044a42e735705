//! connectrpc, as its guide has one write it: with its defaults, the receive limits apart; its own
//! server, and the client it recommends for gRPC.

// Its handlers name the type they return, as in its guide.
#![allow(refining_impl_trait)]

#[path = "../../command_line.rs"]
mod command_line;

mod proto {
    connectrpc::include_generated!();
}

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use command_line::Mode;
use connectrpc::client::{ClientConfig, Http2Connection, SharedHttp2Connection};
use connectrpc::{
    ConnectRpcService, Encodable, InboundStream, Limits, Protocol, RequestContext, Response,
    Router, Server, ServiceRequest, ServiceResult, ServiceStream,
};
use futures::{StreamExt, TryStreamExt};
use proto::trunkline::bench::{Bench, BenchClient, Reply, Request};

const RECEIVE_LIMIT: usize = 64 << 20;
/// What its documentation calls a reasonable bound of the requests that wait for the connection.
const WAITING_REQUESTS: usize = 1024;

type Client = BenchClient<SharedHttp2Connection>;

struct Service;

impl Bench for Service {
    async fn unary(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, Request>,
    ) -> ServiceResult<Reply> {
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
        Response::ok(reply(request.payload.to_vec()))
    }

    async fn server_stream(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, Request>,
    ) -> ServiceResult<ServiceStream<impl Encodable<Reply> + Send + use<>>> {
        let payload = request.payload.to_vec();
        let replies = (0..request.replies).map(move |_| Ok(reply(payload.clone())));
        Response::stream_ok(futures::stream::iter(replies))
    }

    async fn client_stream(
        &self,
        _: RequestContext,
        mut requests: InboundStream<Request>,
    ) -> ServiceResult<Reply> {
        let mut reply = Reply::default();
        while let Some(request) = requests.next().await {
            reply.payload = request?.payload().to_vec();
            reply.requests += 1;
        }
        Response::ok(reply)
    }

    async fn bidi(
        &self,
        _: RequestContext,
        requests: InboundStream<Request>,
    ) -> ServiceResult<ServiceStream<impl Encodable<Reply> + Send + use<>>> {
        Response::stream_ok(requests.map_ok(|request| reply(request.payload().to_vec())))
    }
}

fn reply(payload: Vec<u8>) -> Reply {
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
            let client = connect(target).await;
            call(&client, calls / 10, in_flight, payload).await;
            command_line::say_and_wait("begin");
            call(&client, calls, in_flight, payload).await;
            command_line::say_and_wait("end");
        }
    }
}

async fn serve(port: u16) {
    let server = Server::bind(("127.0.0.1", port))
        .await
        .expect("the port is free");
    command_line::say_listening(server.local_addr().expect("a bound socket"));
    let limits = Limits::default()
        .with_max_request_body_size(RECEIVE_LIMIT)
        .with_max_message_size(RECEIVE_LIMIT);
    let router = Router::new().add_service(Arc::new(Service));
    server
        .serve_with_service(ConnectRpcService::new(router).with_limits(limits))
        .await
        .expect("the server runs until it is killed");
}

async fn connect(target: SocketAddr) -> Client {
    let uri: http::Uri = format!("http://{target}").parse().expect("a URI");
    let connection = Http2Connection::connect_plaintext(uri.clone())
        .await
        .expect("a server listens")
        .shared(WAITING_REQUESTS);
    let config = ClientConfig::new(uri)
        .with_protocol(Protocol::Grpc)
        .with_default_max_message_size(RECEIVE_LIMIT);
    BenchClient::new(connection, config)
}

/// Makes `calls` calls, each task its next as soon as it has the reply to the last.
async fn call(client: &Client, calls: u64, in_flight: u64, payload: usize) {
    let begun = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let (client, begun) = (client.clone(), begun.clone());
            tokio::spawn(async move {
                while begun.fetch_add(1, Relaxed) < calls {
                    let request = Request {
                        payload: vec![7; payload],
                        ..Request::default()
                    };
                    let reply = client.unary(request).await.expect("a reply");
                    assert_eq!(reply.view().payload.len(), payload);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no call fails");
    }
}
