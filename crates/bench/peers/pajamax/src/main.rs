//! pajamax, as its examples have one write it: with its defaults, the local mode.
//!
//! It has unary calls only, whose messages must fit into one DATA frame, runs each connection on a
//! thread of its own, where a handler that waits holds up all other calls, and has no client.

#[path = "../../command_line.rs"]
mod command_line;

mod proto {
    include!(concat!(env!("OUT_DIR"), "/trunkline.bench.rs"));
}

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use command_line::Mode;
use pajamax::Response;
use pajamax::status::{Code, Status};
use proto::{Bench, BenchServer, Reply, Request};

struct Service;

impl Bench for Service {
    fn unary(&self, request: Request) -> Response<Reply> {
        // It has one way to wait.
        for millis in [request.sleep_millis, request.block_millis] {
            if millis > 0 {
                thread::sleep(Duration::from_millis(millis.into()));
            }
        }
        if request.spin_millis > 0 {
            let end = Instant::now() + Duration::from_millis(request.spin_millis.into());
            while Instant::now() < end {}
        }
        Ok(Reply {
            payload: request.payload,
            ..Reply::default()
        })
    }

    fn server_stream(&self, _: Request) -> Response<Reply> {
        no_streams()
    }

    fn client_stream(&self, _: Request) -> Response<Reply> {
        no_streams()
    }

    fn bidi(&self, _: Request) -> Response<Reply> {
        no_streams()
    }
}

fn no_streams() -> Response<Reply> {
    Err(Status {
        code: Code::Unimplemented,
        message: "pajamax has unary calls only".to_owned(),
    })
}

fn main() {
    match command_line::parse(&[]).0 {
        Mode::Server { port } => serve(port),
        Mode::Client { .. } => command_line::refuse("client: pajamax has none"),
    }
}

fn serve(port: u16) {
    let address = free_address(port);
    // It says neither where nor since when it listens.
    thread::spawn(move || {
        while TcpStream::connect(address).is_err() {
            thread::sleep(Duration::from_millis(10));
        }
        command_line::say_listening(address);
    });
    pajamax::Config::new()
        .add_service(BenchServer::new(Service))
        .serve(address)
        .expect("the server runs until it is killed");
}

/// It cannot be given a listener, so that a free port is looked up before.
fn free_address(port: u16) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    listener.local_addr().expect("a bound socket")
}
