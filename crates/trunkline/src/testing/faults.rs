//! Byte streams that a test can delay, block or cut.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use trunkline_transport::Address;

use crate::client::channel_builder::ChannelBuilder;
use crate::server::builder::Server;

/// The number of delayed bytes that a stream holds.
const HELD_SIZE: usize = 64 * 1024;

/// The number of bytes of one read.
const CHUNK_SIZE: usize = 8 * 1024;

/// Replaces a delay that the clock cannot represent.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// A handle that causes faults on connections. A new handle causes none. Clones control the same connections.
///
/// The faults are at one end of each connection. With [`in_memory`](Self::in_memory) and
/// [`connector`](Self::connector), that is the client; with [`wrap`](Self::wrap), it is the end that uses the
/// stream that `wrap` returns. The other end is an ordinary one, which sees only the consequences.
///
/// A fault affects all connections of the handle, existing and new, until another method ends it. Faults
/// neither lose nor change single bytes, because TCP would repair that. Dropping the handle leaves its
/// faults in effect.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline::Result<()> {
/// use trunkline::Server;
/// use trunkline::testing::Faults;
///
/// let faults = Faults::new();
/// let channel = faults.in_memory(Server::new()).connect().await?;
/// faults.cut(); // Calls in progress fail, and the channel reconnects.
/// faults.refuse(); // The channel cannot reconnect.
/// faults.restore();
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    passage: Passage,
    delay: Duration,
    /// The number of bytes after which all connections are cut, by direction.
    until_cut: [Option<u64>; 2],
    lines: HashMap<u64, Ends>,
    /// The number of the next line.
    next: u64,
    connections: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Passage {
    #[default]
    Open,
    /// Nothing passes, and neither end is notified.
    Hole,
    /// Connections are refused.
    Refused,
}

/// The state of one connection, which may still be connecting.
#[derive(Debug, Default)]
struct Ends {
    is_cut: bool,
    /// Woken when the state changes, by direction.
    wakers: [Option<Waker>; 2],
}

#[derive(Clone, Copy, Debug)]
enum Way {
    In,
    Out,
}

/// Permission to pass bytes: after a delay, and up to a size.
struct Pass {
    delay: Duration,
    size: usize,
}

type Connecting<IO> = Pin<Box<dyn Future<Output = io::Result<FaultyStream<IO>>> + Send>>;

impl Faults {
    /// Creates a handle without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the builder of a channel to `server` over HTTP/2 in memory, as
    /// [`in_memory`](super::in_memory) does, with the faults of this handle.
    pub fn in_memory(&self, server: Server) -> ChannelBuilder {
        super::builder().connector(self.connector(move |_| {
            let server = server.clone();
            async move { Ok(super::dial(server)) }
        }))
    }

    /// Returns a function for [`ChannelBuilder::connector`] that connects with `connect` and adds the
    /// faults of this handle.
    ///
    /// ```
    /// use tokio::net::TcpStream;
    /// use trunkline::testing::Faults;
    /// use trunkline::{Address, Channel};
    ///
    /// let faults = Faults::new();
    /// let connector = faults.connector(|address: Address| async move {
    ///     let address = address.tcp().ok_or(std::io::ErrorKind::Unsupported)?;
    ///     TcpStream::connect(address).await
    /// });
    /// let channel = Channel::to("127.0.0.1:50051").connector(connector);
    /// ```
    pub fn connector<F, Fut, IO>(
        &self,
        connect: F,
    ) -> impl Fn(Address) -> Connecting<IO> + Send + Sync + 'static
    where
        F: Fn(Address) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let faults = self.clone();
        move |address| {
            let (line, connecting) = (faults.line(), connect(address));
            Box::pin(async move {
                poll_fn(|cx| line.poll_pass(cx.waker(), Way::In)).await?;
                Ok(FaultyStream::new(line, connecting.await?))
            })
        }
    }

    /// Adds the faults of this handle to a byte stream, such as one for [`Server::serve_connection`].
    pub fn wrap<IO>(&self, io: IO) -> FaultyStream<IO> {
        FaultyStream::new(self.line(), io)
    }

    /// Delays received bytes by `delay`, so each round trip takes that much longer. Zero ends the delay.
    pub fn delay(&self, delay: Duration) {
        self.change(|state| state.delay = delay);
    }

    /// Stops all bytes in both directions without an error at either end, as if a cable were unplugged.
    /// New connections wait. The bytes are delivered after [`restore`](Self::restore).
    ///
    /// If one end closes its connection meanwhile, it is closed for the other end as well.
    pub fn black_hole(&self) {
        self.change(|state| state.passage = Passage::Hole);
    }

    /// Cuts all existing connections: the end that has the faults (see [`Faults`]) reads an error ("connection
    /// reset"), and the other end reads the end of the stream. New connections are not affected.
    ///
    /// A channel notices the cut when its tasks next run. A call that begins before that can fail like
    /// the calls in progress. [`Channel::watch_state`](crate::Channel::watch_state) reports the change.
    pub fn cut(&self) {
        self.change(State::cut);
    }

    /// [Cuts](Self::cut) all existing connections as soon as `bytes` more bytes have been received,
    /// counted over all connections together. The counted bytes are still delivered. Later connections
    /// are not affected.
    ///
    /// Received bytes are those that the end with the handle reads: the channel, unless
    /// [`wrap`](Self::wrap) is used for a server.
    pub fn cut_after_received(&self, bytes: u64) {
        self.cut_after(Way::In, bytes);
    }

    /// [Cuts](Self::cut) all existing connections as soon as `bytes` more bytes have been sent, as
    /// [`cut_after_received`](Self::cut_after_received) does for received bytes.
    pub fn cut_after_sent(&self, bytes: u64) {
        self.cut_after(Way::Out, bytes);
    }

    /// [Cuts](Self::cut) all existing connections, and refuses new ones ("connection refused"), as if the
    /// server had exited.
    pub fn refuse(&self) {
        self.change(|state| {
            state.cut();
            state.passage = Passage::Refused;
        });
    }

    /// Ends every fault. Connections that were cut remain cut.
    pub fn restore(&self) {
        self.change(|state| {
            state.passage = Passage::Open;
            state.delay = Duration::ZERO;
            state.until_cut = [None; 2];
        });
    }

    /// Returns the number of connections that have been established with this handle.
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    fn cut_after(&self, way: Way, bytes: u64) {
        self.change(|state| match bytes {
            0 => state.cut(),
            _ => state.until_cut[way as usize] = Some(bytes),
        });
    }

    fn line(&self) -> Line {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.lines.insert(number, Ends::default());
        drop(state);
        Line {
            faults: self.clone(),
            number,
        }
    }

    /// Changes the state, and wakes all tasks that wait for a change.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let ends = state.lines.values_mut();
        let wakers: Vec<_> = ends
            .flat_map(|it| it.wakers.iter_mut().filter_map(Option::take))
            .collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cut(&mut self) {
        self.lines.values_mut().for_each(|it| it.is_cut = true);
    }
}

/// The registration of a connection in the state. Dropping it removes the registration.
#[derive(Debug)]
struct Line {
    faults: Faults,
    number: u64,
}

impl Line {
    /// Completes when bytes may pass. Registers `waker`, even if it completes, to be woken by changes.
    fn poll_pass(&self, waker: &Waker, way: Way) -> Poll<io::Result<Pass>> {
        let mut state = self.faults.lock();
        let (passage, delay) = (state.passage, state.delay);
        let size = state.until_cut[way as usize].map_or(usize::MAX, |left| {
            usize::try_from(left).unwrap_or(usize::MAX)
        });
        let Some(ends) = state.lines.get_mut(&self.number).filter(|it| !it.is_cut) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let registered = &mut ends.wakers[way as usize];
        match registered {
            Some(registered) => registered.clone_from(waker),
            None => *registered = Some(waker.clone()),
        }
        match passage {
            Passage::Open => Poll::Ready(Ok(Pass { delay, size })),
            Passage::Hole => Poll::Pending,
            Passage::Refused => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
        }
    }

    /// Counts `size` bytes that have passed, and cuts all connections at the limit.
    fn passed(&self, way: Way, size: usize) {
        let mut state = self.faults.lock();
        let Some(left) = &mut state.until_cut[way as usize] else {
            return;
        };
        *left = left.saturating_sub(size as u64);
        if *left > 0 {
            return;
        }
        state.until_cut[way as usize] = None;
        drop(state);
        self.faults.cut();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.faults.lock().lines.remove(&self.number);
    }
}

/// A byte stream with the faults of a [`Faults`] handle. [`Faults::wrap`] and the function that
/// [`Faults::connector`] returns create it.
///
/// ```
/// use trunkline::testing::{Faults, FaultyStream};
///
/// let faults = Faults::new();
/// let (near, far) = tokio::io::duplex(1024);
/// let near: FaultyStream<_> = faults.wrap(near);
/// ```
#[derive(Debug)]
pub struct FaultyStream<IO> {
    line: Line,
    /// `None` after a cut.
    io: Option<IO>,
    /// Bytes that were read and not delivered, in order.
    held: VecDeque<Held>,
    held_size: usize,
    /// True if the end of the stream or an error was read.
    has_ended: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct Held {
    due: Instant,
    /// Empty at the end of the stream.
    bytes: io::Result<Bytes>,
}

impl<IO> FaultyStream<IO> {
    fn new(line: Line, io: IO) -> Self {
        line.faults.lock().connections += 1;
        Self {
            line,
            io: Some(io),
            held: VecDeque::new(),
            held_size: 0,
            has_ended: false,
            sleep: None,
        }
    }

    /// Completes when bytes may pass. If the connection is cut, drops the underlying stream.
    fn poll_pass(&mut self, waker: &Waker, way: Way) -> Poll<io::Result<(Pass, &mut IO)>> {
        let pass = ready!(self.line.poll_pass(waker, way));
        if pass.is_err() {
            self.io = None;
        }
        let io = self.io.as_mut().ok_or(io::ErrorKind::ConnectionReset);
        Poll::Ready(pass.and_then(|pass| Ok((pass, io?))))
    }

    /// Delivers bytes that are due.
    fn poll_held(
        &mut self,
        cx: &mut Context<'_>,
        size: usize,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(first) = self.held.front_mut() else {
            return match self.has_ended {
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            };
        };
        if first.due > Instant::now() {
            let sleep = tokio::time::sleep_until(first.due);
            let sleep = self.sleep.insert(Box::pin(sleep));
            ready!(sleep.as_mut().poll(cx));
        }
        if let Ok(bytes) = &mut first.bytes {
            let part = bytes.split_to(size.min(bytes.len()).min(buf.remaining()));
            buf.put_slice(&part);
            self.held_size -= part.len();
            self.line.passed(Way::In, part.len());
            if !bytes.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        let first = self.held.pop_front();
        Poll::Ready(first.map_or(Ok(()), |first| first.bytes.map(drop)))
    }
}

impl<IO: AsyncRead + Unpin> FaultyStream<IO> {
    /// Reads available bytes, so their delay begins at their arrival and not when they are requested.
    fn fill(&mut self, cx: &mut Context<'_>, delay: Duration) {
        while let Some(io) = &mut self.io
            && !self.has_ended
            && self.held_size < HELD_SIZE
        {
            let mut chunk = [0; CHUNK_SIZE];
            let mut chunk = ReadBuf::new(&mut chunk);
            let Poll::Ready(read) = Pin::new(io).poll_read(cx, &mut chunk) else {
                return;
            };
            let bytes = read.map(|()| Bytes::copy_from_slice(chunk.filled()));
            self.held_size += chunk.filled().len();
            self.has_ended = bytes.as_ref().map_or(true, Bytes::is_empty);
            // A time that the clock cannot represent is replaced by one that no test waits for.
            let now = Instant::now();
            let due = now.checked_add(delay).unwrap_or(now + FAR);
            self.held.push_back(Held { due, bytes });
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for FaultyStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (Pass { delay, size }, _) = ready!(self.poll_pass(cx.waker(), Way::In))?;
        self.fill(cx, delay);
        self.poll_held(cx, size, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for FaultyStream<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (pass, io) = ready!(self.poll_pass(cx.waker(), Way::Out))?;
        let part = &buf[..buf.len().min(pass.size)];
        let written = ready!(Pin::new(io).poll_write(cx, part))?;
        self.line.passed(Way::Out, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (_, io) = ready!(self.poll_pass(cx.waker(), Way::Out))?;
        Pin::new(io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Some(io) => Pin::new(io).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
