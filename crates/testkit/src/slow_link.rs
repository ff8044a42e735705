//! A TCP proxy on this machine that is as slow as a real network.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// What is read at once.
const CHUNK: usize = 8 * 1024;
/// What the kernel holds at each end of the link: as little as it can, so that what has not passed
/// stays with the sender.
const BUFFER: u32 = 16 * 1024;

/// How slow a link is.
#[derive(Clone, Copy, Debug)]
pub struct Slowness {
    /// Bytes that pass in a second, in each direction.
    pub bytes_per_second: u32,
    /// How long each of them takes.
    pub delay: Duration,
}

impl Slowness {
    /// Chunks that are on their way in one direction: no more than the link is long.
    fn chunks(self) -> usize {
        let bytes = f64::from(self.bytes_per_second) * self.delay.as_secs_f64();
        bytes as usize / CHUNK + 1
    }
}

/// A port from which connections lead to a server over a slow link. Dropping it cuts them.
#[derive(Debug)]
pub struct SlowLink {
    address: SocketAddr,
    to_client: Arc<AtomicUsize>,
    ended_first: Arc<OnceLock<End>>,
    task: JoinHandle<()>,
}

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one that has connected.
    Client,
    /// The one that was connected to.
    Server,
}

/// What arrives at the other end.
enum Passing {
    Bytes(Bytes),
    End,
    Reset,
}

impl SlowLink {
    /// A link to the server at `target`.
    ///
    /// # Panics
    ///
    /// When `target` is not an address, or the machine has no port left.
    pub async fn to(target: &str, slowness: Slowness) -> Self {
        let target = target.parse::<SocketAddr>().expect("an address");
        let listener = small_socket();
        listener
            .bind(([127, 0, 0, 1], 0).into())
            .expect("a free port");
        let listener = listener.listen(64).expect("a free port");
        let address = listener.local_addr().expect("a listening socket has one");
        let to_client = Arc::new(AtomicUsize::new(0));
        let ended_first = Arc::default();
        let counts = (to_client.clone(), Arc::clone(&ended_first));
        let task = tokio::spawn(accept(listener, target, slowness, counts));
        Self {
            address,
            to_client,
            ended_first,
            task,
        }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that clients have been sent so far.
    pub fn bytes_to_client(&self) -> usize {
        self.to_client.load(Ordering::Relaxed)
    }

    /// Which end was the first to close, or to half-close, a connection; none if none has.
    pub fn ended_first(&self) -> Option<End> {
        self.ended_first.get().copied()
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn small_socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(BUFFER).expect("a socket");
    socket.set_send_buffer_size(BUFFER).expect("a socket");
    socket
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    slowness: Slowness,
    counts: (Arc<AtomicUsize>, Arc<OnceLock<End>>),
) {
    let mut links = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (to_client, ended_first) = counts.clone();
        links.spawn(async move {
            if let Ok(server) = small_socket().connect(target).await {
                join(client, server, slowness, to_client, ended_first).await;
            }
        });
    }
}

/// Ends when both directions have, or when one is reset, which resets the other end.
async fn join(
    client: TcpStream,
    server: TcpStream,
    slowness: Slowness,
    to_client: Arc<AtomicUsize>,
    ended_first: Arc<OnceLock<End>>,
) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("a socket");
    }
    let (from_client, into_client) = client.into_split();
    let (from_server, into_server) = server.into_split();
    let mut ends = JoinSet::new();
    let nobody_counts = Arc::default();
    for (end, from, into, passed) in [
        (End::Client, from_client, into_server, nobody_counts),
        (End::Server, from_server, into_client, to_client),
    ] {
        let (sender, receiver) = mpsc::channel(slowness.chunks());
        let ended_first = ended_first.clone();
        let ended = move || {
            let _ = ended_first.set(end);
        };
        ends.spawn(take(from, sender, slowness.delay, ended));
        ends.spawn(hand_out(into, receiver, slowness.bytes_per_second, passed));
    }
    while let Some(Ok(Ok(()))) = ends.join_next().await {}
}

/// A connection was reset.
struct WasReset;

/// Reads to the end, also when nobody takes it any more, as a link does.
async fn take(
    mut from: OwnedReadHalf,
    sender: mpsc::Sender<(Instant, Passing)>,
    delay: Duration,
    ended: impl FnOnce(),
) -> Result<(), WasReset> {
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let passing = match from.read_buf(&mut chunk).await {
            Ok(0) => Passing::End,
            Ok(_) => Passing::Bytes(chunk.freeze()),
            Err(_) => Passing::Reset,
        };
        let is_over = !matches!(passing, Passing::Bytes(_));
        if is_over {
            ended();
            let _ = sender.send((Instant::now() + delay, passing)).await;
            return Ok(());
        }
        let _ = sender.send((Instant::now() + delay, passing)).await;
    }
}

async fn hand_out(
    mut into: OwnedWriteHalf,
    mut receiver: mpsc::Receiver<(Instant, Passing)>,
    bytes_per_second: u32,
    passed: Arc<AtomicUsize>,
) -> Result<(), WasReset> {
    let mut free = Instant::now();
    while let Some((due, passing)) = receiver.recv().await {
        tokio::time::sleep_until(due.max(free)).await;
        match passing {
            Passing::Bytes(bytes) => {
                let takes =
                    Duration::from_secs_f64(bytes.len() as f64 / f64::from(bytes_per_second));
                free = due.max(free) + takes;
                if into.write_all(&bytes).await.is_ok() {
                    passed.fetch_add(bytes.len(), Ordering::Relaxed);
                }
            }
            Passing::End => {
                let _ = into.shutdown().await;
            }
            Passing::Reset => {
                let _ = into.as_ref().set_zero_linger();
                return Err(WasReset);
            }
        }
    }
    Ok(())
}
