//! The client: one connection, K unary calls in flight, all in one task.

use std::future::poll_fn;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes};
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use http::header::{CONTENT_TYPE, HeaderValue, TE, USER_AGENT};
use http::{HeaderMap, Method, Request, Uri, Version};
use tokio::net::TcpStream;

use crate::calls::{Broken, Requests};
use crate::message::{self, Pieces};
use crate::server::{CONNECTION_WINDOW, FRAME_BUDGET, ROUNDS_MAX, SEND_BUFFER, STREAM_WINDOW};
use crate::slots::Slots;
use crate::wire::WireIo;

/// Calls before the ones that are measured, as a part of those.
const WARM_UP: u64 = 10;

pub(crate) async fn run(target: &str, calls: u64, in_flight: usize, payload: usize) {
    let Ok(tcp) = TcpStream::connect(target).await else {
        crate::refuse(&format!("cannot connect to {target}"));
    };
    let _ = tcp.set_nodelay(true);
    let Ok(uri) = format!("http://{target}/trunkline.bench.Bench/Unary").parse() else {
        crate::refuse("the target makes no URI");
    };
    let wire = WireIo::new(tcp);
    let Some(mut client) = connect(wire, uri, in_flight, payload).await else {
        crate::refuse("no HTTP/2 there");
    };
    for (phase, calls) in [("begin", calls / WARM_UP), ("end", calls)] {
        // On a worker of the runtime: what runs on the main thread is woken across threads.
        let made = tokio::spawn(async move {
            let made = client.make(calls).await;
            (client, made)
        });
        match made.await {
            Ok((back, Ok(()))) => client = back,
            Ok((_, Err(Broken))) | Err(_) => {
                eprintln!("a call failed");
                std::process::exit(1);
            }
        }
        println!("{phase}");
        let _ = std::io::stdout().flush();
        let _ = std::io::stdin().read_line(&mut String::new());
    }
}

async fn connect(wire: WireIo, uri: Uri, in_flight: usize, payload: usize) -> Option<Client> {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(FRAME_BUDGET)
        .max_send_buffer_size(SEND_BUFFER);
    let mut handshake = Box::pin(builder.handshake(wire.clone()));
    let shaken = poll_fn(|cx| {
        wire.wire().begin_turn(cx.waker());
        handshake.as_mut().poll(cx)
    });
    let (send, h2) = shaken.await.ok()?;
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let grpc = HeaderValue::from_static("application/grpc");
    headers.insert(CONTENT_TYPE, grpc);
    let agent = HeaderValue::from_static("grpc-rust-bare/0.1.0");
    headers.insert(USER_AGENT, agent);
    Some(Client {
        h2,
        send,
        wire,
        slots: Slots::new(),
        woken: Vec::new(),
        uri,
        headers,
        payload: Bytes::from(vec![0x5a; payload]),
        in_flight,
        to_start: 0,
        to_finish: 0,
    })
}

struct Client {
    h2: Connection<WireIo, Pieces>,
    send: SendRequest<Pieces>,
    wire: WireIo,
    slots: Slots<Call>,
    woken: Vec<usize>,
    uri: Uri,
    headers: HeaderMap,
    payload: Bytes,
    in_flight: usize,
    to_start: u64,
    to_finish: u64,
}

enum Call {
    Head(ResponseFuture),
    /// With whether the message has been seen; the trailers come behind it.
    Reply(Requests, bool),
}

impl Client {
    async fn make(&mut self, calls: u64) -> Result<(), Broken> {
        (self.to_start, self.to_finish) = (calls, calls);
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<(), Broken>> {
        let wire = self.wire.clone();
        wire.wire().begin_turn(cx.waker());
        for _ in 0..ROUNDS_MAX {
            self.turn()?;
            let again = wire.wire().end_turn().map_err(|_| Broken)?;
            if self.to_finish == 0 {
                return Poll::Ready(Ok(()));
            }
            if !again {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn turn(&mut self) -> Result<(), Broken> {
        // As in the server's turn: nobody but this task touches h2.
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            self.start(&mut cx)?;
            if Pin::new(&mut self.h2).poll(&mut cx).is_ready() {
                return Err(Broken);
            }
            let mut woken = std::mem::take(&mut self.woken);
            self.slots.take_woken(&mut woken);
            let idle = woken.is_empty();
            for at in woken.drain(..) {
                self.resume(at)?;
            }
            self.woken = woken;
            if idle {
                return Ok(());
            }
        }
    }

    fn start(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        while self.to_start > 0 && self.slots.len() < self.in_flight {
            // Pending while the server takes no more streams.
            let Poll::Ready(ready) = self.send.poll_ready(cx) else {
                break;
            };
            ready?;
            let mut request = Request::new(());
            *request.method_mut() = Method::POST;
            *request.uri_mut() = self.uri.clone();
            *request.version_mut() = Version::HTTP_2;
            *request.headers_mut() = self.headers.clone();
            let (response, mut stream) = self.send.send_request(request, false)?;
            let message = message::encode(Pieces::One(self.payload.clone()), 0);
            stream.send_data(message, true)?;
            self.to_start -= 1;
            let at = self.slots.insert(Call::Head(response));
            self.resume(at)?;
        }
        Ok(())
    }

    fn resume(&mut self, at: usize) -> Result<(), Broken> {
        let Some((call, waker)) = self.slots.woken_call(at) else {
            return Ok(());
        };
        let mut cx = Context::from_waker(waker);
        if let Poll::Ready(done) = call.poll(&mut cx, self.payload.len()) {
            done?;
            self.slots.remove(at);
            self.to_finish -= 1;
        }
        Ok(())
    }
}

impl Call {
    fn poll(&mut self, cx: &mut Context<'_>, expected: usize) -> Poll<Result<(), Broken>> {
        if let Self::Head(response) = self {
            let mut body = ready!(Pin::new(response).poll(cx))?.into_body();
            // Most replies are here whole.
            let first = match body.poll_data(cx) {
                Poll::Ready(Some(data)) => message::whole(data?),
                Poll::Ready(None) | Poll::Pending => Err(Bytes::new()),
            };
            let mut reply = Requests::new(body);
            let seen = match first {
                Ok(message) => {
                    check(message, expected)?;
                    true
                }
                Err(data) => {
                    reply.push(data);
                    false
                }
            };
            *self = Self::Reply(reply, seen);
        }
        let Self::Reply(reply, seen) = self else {
            return Poll::Pending;
        };
        if !*seen {
            check(ready!(reply.poll_next(cx))?.ok_or(Broken)?, expected)?;
            *seen = true;
        }
        let trailers = ready!(reply.poll_trailers(cx))?;
        match trailers.get("grpc-status") {
            Some(status) if status == "0" => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(Broken)),
        }
    }
}

fn check(message: Pieces, expected: usize) -> Result<(), Broken> {
    match message::decode(message) {
        Some(reply) if reply.payload.remaining() == expected => Ok(()),
        _ => Err(Broken),
    }
}
