//! Listens, accepts, and gives each connection its task.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use trunkline_codec::{Limits, Status};

use crate::accept::{Backoff, Places, accept};
use crate::connection::{Handler, Phase, serve_connection, serve_shaken};
use crate::keepalive;
use crate::net_stream::NetStream;
use crate::target::{Address, Peer};
use crate::timers::after;
use crate::tls::ServerTls;
use crate::wire_io::ConnectionStats;

/// Connections the kernel keeps ready for `accept`.
const BACKLOG: u32 = 1024;

/// Whether connections to an address are spread over the sockets that listen on it. Other systems
/// know SO_REUSEPORT as well, and give all of them to one of the sockets.
const KERNEL_SPREADS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// A socket that accepts connections: TCP or Unix.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        file: Option<Arc<SocketFile>>,
    },
}

/// The file of a Unix socket; removed with the last listener on it.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

/// A second handle of a listener's socket, for another runtime.
#[derive(Debug)]
pub(crate) enum Detached {
    Tcp(OwnedFd),
    Unix(OwnedFd, Option<Arc<SocketFile>>),
}

impl Listener {
    /// Listens on `address`: `host:port` (port 0 takes a free one) or `unix:/path`.
    ///
    /// A Unix socket's file is removed when the listener is dropped. A file that a server which is
    /// gone has left behind is replaced; one that a server listens on is not.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the address cannot be read, else UNAVAILABLE; the message names the
    /// address, the cause and the way out.
    pub async fn bind(address: &str) -> Result<Self, Status> {
        match unix_path(address) {
            Some(path) => Self::bind_unix(address, path).await,
            None => Ok(Self::from_tcp(bind_name(address, bind_tcp).await?)),
        }
    }

    /// As [`bind`](Self::bind), for several threads: a listener for each, where the kernel spreads
    /// connections over sockets that share an address, and else one for all.
    pub(crate) async fn bind_threads(
        address: &str,
        threads: NonZeroUsize,
    ) -> Result<Vec<Self>, Status> {
        if unix_path(address).is_some() || !KERNEL_SPREADS {
            return Ok(vec![Self::bind(address).await?]);
        }
        let sockets = bind_name(address, |addr| bind_tcp_threads(addr, threads)).await?;
        Ok(sockets.into_iter().map(Self::from_tcp).collect())
    }

    async fn bind_unix(address: &str, path: PathBuf) -> Result<Self, Status> {
        let listener = bind_unix(&path)
            .await
            .map_err(|error| cannot_listen(address, error))?;
        let file = Some(Arc::new(SocketFile(path)));
        Ok(Self {
            socket: Socket::Unix { listener, file },
        })
    }

    /// Takes over a TCP socket that listens already, such as one that was inherited.
    pub fn from_tcp(listener: TcpListener) -> Self {
        Self {
            socket: Socket::Tcp(listener),
        }
    }

    /// Takes over a Unix socket that listens already. Its file stays when this is dropped.
    pub fn from_unix(listener: UnixListener) -> Self {
        Self {
            socket: Socket::Unix {
                listener,
                file: None,
            },
        }
    }

    /// Where this listens: with port 0, this tells which port it is.
    pub fn local_addr(&self) -> Address {
        match &self.socket {
            Socket::Tcp(listener) => listener
                .local_addr()
                .map_or(Address::InMemory, Address::Tcp),
            Socket::Unix { listener, file } => match listener.local_addr() {
                Ok(addr) => Address::unix(addr.as_pathname()),
                Err(_) => Address::unix(file.as_ref().map(|file| file.0.as_path())),
            },
        }
    }

    pub(crate) fn detach(&self) -> io::Result<Detached> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => Detached::Tcp(listener.as_fd().try_clone_to_owned()?),
            Socket::Unix { listener, file } => {
                Detached::Unix(listener.as_fd().try_clone_to_owned()?, file.clone())
            }
        })
    }

    pub(crate) async fn accept(&self) -> io::Result<(NetStream, Address)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                Ok((NetStream::Tcp(stream), Address::Tcp(remote)))
            }
            Socket::Unix { listener, .. } => {
                let (stream, remote) = listener.accept().await?;
                Ok((NetStream::Unix(stream), Address::unix(remote.as_pathname())))
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Detached {
    /// Listens in the runtime that this is called in.
    pub(crate) fn attach(self) -> io::Result<Listener> {
        let socket = match self {
            Self::Tcp(socket) => Socket::Tcp(TcpListener::from_std(socket.into())?),
            Self::Unix(socket, file) => {
                let listener = UnixListener::from_std(socket.into())?;
                Socket::Unix { listener, file }
            }
        };
        Ok(Listener { socket })
    }
}

fn unix_path(address: &str) -> Option<PathBuf> {
    let path = address.strip_prefix("unix:")?;
    Some(path.strip_prefix("//").unwrap_or(path).into())
}

/// Binds to the first address of a name that can be had.
async fn bind_name<T>(
    address: &str,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<T, Status> {
    let address = address
        .strip_prefix("http://")
        .unwrap_or(address)
        .trim_end_matches('/');
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for addr in tokio::net::lookup_host(address)
        .await
        .map_err(|error| cannot_listen(address, error))?
    {
        match bind(addr) {
            Ok(bound) => return Ok(bound),
            Err(error) => failure = error,
        }
    }
    Err(cannot_listen(address, failure))
}

fn bind_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = tcp_socket(addr)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// A socket for each thread, all on one address.
fn bind_tcp_threads(addr: SocketAddr, threads: NonZeroUsize) -> io::Result<Vec<TcpListener>> {
    if addr.port() != 0 {
        // Sockets that share an address share it with those of any other server that this user
        // runs: it would take a part of the connections, and nobody would know. One that does not
        // share finds out whether there is such a server.
        tcp_socket(addr)?.bind(addr)?;
    }
    let first = bind_tcp_shared(addr)?;
    let addr = first.local_addr()?;
    let others = (1..threads.get()).map(|_| bind_tcp_shared(addr));
    std::iter::once(Ok(first)).chain(others).collect()
}

fn bind_tcp_shared(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = tcp_socket(addr)?;
    socket2::SockRef::from(&socket).set_reuse_port(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

fn tcp_socket(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restarted server takes its port back at once; one that runs keeps it.
    socket.set_reuseaddr(true)?;
    Ok(socket)
}

async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // Any other answer, such as that of a full queue, is one of a server that runs.
            let answer = UnixStream::connect(path)
                .await
                .map_err(|error| error.kind());
            if !matches!(answer, Err(io::ErrorKind::ConnectionRefused)) || !is_socket(path) {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

fn cannot_listen(address: &str, error: io::Error) -> Status {
    let way_out = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process listens there: stop it, or choose another port (0 takes a free one)"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        io::ErrorKind::InvalidInput => "; an address is of the form host:port or unix:/path",
        _ => "",
    };
    let message = format!("cannot listen on {address}: {error}{way_out}");
    match error.kind() {
        io::ErrorKind::InvalidInput => Status::invalid_argument(message),
        _ => Status::unavailable(message),
    }
    .with_source(error)
}

/// Accepts connections and serves them until `shutdown` is ready; then lets the calls that run
/// finish, for `limits.drain_grace` at most.
///
/// `handler` makes what answers the calls of one connection, after its TLS handshake if there is
/// `tls`. Dropping the future closes the listener and every connection at once; clients are told
/// (GOAWAY) as far as their sockets take it.
pub async fn serve<H: Handler>(
    listener: Listener,
    tls: Option<ServerTls>,
    limits: Arc<Limits>,
    shutdown: impl Future<Output = ()>,
    handler: impl FnMut(Arc<Peer>) -> H + Clone + Send + 'static,
) {
    let places = Places::new(&limits);
    let phase = PhaseGuard(watch::channel(Phase::Serving).0);
    serve_in(listener, tls, limits, places, phase, shutdown, handler).await;
}

/// Serves one connection until it ends. When `shutdown` is ready, the client is told to go elsewhere,
/// and the calls that run may finish, for `limits.drain_grace` at most.
pub async fn serve_one<IO, H>(
    io: IO,
    handler: H,
    limits: Arc<Limits>,
    shutdown: impl Future<Output = ()>,
) -> ConnectionStats
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let (phase, phases) = watch::channel(Phase::Serving);
    let grace = limits.drain_grace;
    let mut serving = std::pin::pin!(serve_connection(io, handler, limits, phases));
    let mut stopping = std::pin::pin!(async {
        shutdown.await;
        phase.send_replace(Phase::Draining);
        tokio::time::sleep(grace).await;
        phase.send_replace(Phase::Stopped);
        std::future::pending::<()>().await;
    });
    std::future::poll_fn(|cx| {
        let _ = stopping.as_mut().poll(cx);
        serving.as_mut().poll(cx)
    })
    .await
}

/// As [`serve`], beside others that take of the same places; who has another handle of the phase
/// sees when the last connection has ended.
pub(crate) async fn serve_in<H: Handler>(
    listener: Listener,
    tls: Option<ServerTls>,
    limits: Arc<Limits>,
    places: Places,
    phase: PhaseGuard,
    shutdown: impl Future<Output = ()>,
    handler: impl FnMut(Arc<Peer>) -> H + Clone + Send + 'static,
) {
    let spawn = |(stream, remote), place| {
        let peer = Peer {
            local: listener.local_addr(),
            remote,
            tls: None,
        };
        let phase = phase.0.subscribe();
        spawn(
            stream,
            peer,
            place,
            tls.clone(),
            handler.clone(),
            &limits,
            phase,
        );
    };
    let mut shutdown = std::pin::pin!(shutdown);
    let mut backoff = Backoff::new(&limits);
    while let Some(accepted) = before(shutdown.as_mut(), accept(&listener, &mut backoff)).await {
        // At the limit no more is accepted than one that waits, rather than accepted and closed: the
        // kernel's queue costs no descriptor, and clients that come back at once would cost more than
        // those that wait. The place is taken behind `accept`, because a thread that nobody connects
        // to must not hold one.
        let place = before(shutdown.as_mut(), places.take()).await;
        let is_over = place.is_none();
        spawn(accepted, place.flatten());
        if is_over {
            break;
        }
    }
    // A connection that the kernel has made and nobody accepts is reset, with what its client has
    // begun to say on it: it is served as those that were accepted a moment ago, whether or not there
    // is a place. The runtime may have to look up first, to know that there is one.
    tokio::task::yield_now().await;
    for _ in 0..BACKLOG {
        // Without a budget, which would run out before the queue does.
        let accept = tokio::task::unconstrained(accept(&listener, &mut backoff));
        let mut cx = Context::from_waker(Waker::noop());
        match std::pin::pin!(accept).poll(&mut cx) {
            Poll::Ready(accepted) => spawn(accepted, places.try_take()),
            Poll::Pending => break,
        }
    }
    // The port is free from here on: a new server can have it.
    drop(listener);
    phase.0.send_replace(Phase::Draining);
    let _ = tokio::time::timeout(limits.drain_grace, phase.0.closed()).await;
    phase.0.send_replace(Phase::Stopped);
    phase.0.closed().await;
}

/// A server that is dropped takes its connections with it.
pub(crate) struct PhaseGuard(pub(crate) watch::Sender<Phase>);

impl Drop for PhaseGuard {
    fn drop(&mut self) {
        self.0.send_replace(Phase::Stopped);
    }
}

/// Ready when the server is further than `phase`.
pub(crate) async fn left(mut now: watch::Receiver<Phase>, phase: Phase) {
    let _ = now.wait_for(|now| *now > phase).await;
}

/// What `future` comes to, unless `shutdown` is ready first.
async fn before<T>(
    mut shutdown: Pin<&mut impl Future<Output = ()>>,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| match shutdown.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => future.as_mut().poll(cx).map(Some),
    })
    .await
}

fn spawn<H: Handler>(
    stream: NetStream,
    peer: Peer,
    place: Option<OwnedSemaphorePermit>,
    tls: Option<ServerTls>,
    mut handler: impl FnMut(Arc<Peer>) -> H + Send + 'static,
    limits: &Arc<Limits>,
    phase: watch::Receiver<Phase>,
) {
    let limits = limits.clone();
    if let NetStream::Tcp(stream) = &stream {
        // Writes are gathered before they reach the socket: waiting for more only costs time.
        let _ = stream.set_nodelay(true);
        if limits.keepalive_time < Duration::MAX {
            keepalive::set_user_timeout(stream, limits.keepalive_timeout);
        }
    }
    match (tls, stream) {
        (Some(tls), stream) => {
            tokio::spawn(async move {
                let _place = place;
                serve_tls(stream, tls, peer, handler, limits, phase).await;
            });
        }
        (None, NetStream::Tcp(stream)) => {
            let handler = handler(Arc::new(peer));
            tokio::spawn(async move {
                let _place = place;
                serve_connection(stream, handler, limits, phase).await;
            });
        }
        (None, stream) => {
            let handler = handler(Arc::new(peer));
            tokio::spawn(async move {
                let _place = place;
                serve_connection(stream, handler, limits, phase).await;
            });
        }
    }
}

/// The handshake is the connection's own business: nobody else waits for it.
async fn serve_tls<H: Handler>(
    stream: NetStream,
    tls: ServerTls,
    mut peer: Peer,
    mut handler: impl FnMut(Arc<Peer>) -> H,
    limits: Arc<Limits>,
    phase: watch::Receiver<Phase>,
) {
    let by = after(limits.handshake_timeout);
    // Behind a handshake that was under way when the drain began are calls, as on any connection that
    // was accepted before: they are served, and the client is told.
    let stopped = std::pin::pin!(left(phase.clone(), Phase::Draining));
    let accepting = tokio::time::timeout_at(by, tls.accept(stream));
    let accepted = before(stopped, accepting).await;
    let Some(Ok(Some((stream, session)))) = accepted else {
        return;
    };
    peer.tls = Some(session);
    serve_shaken(stream, handler(Arc::new(peer)), limits, phase, by).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_thread_has_a_socket_at_the_same_address_where_the_kernel_spreads() {
        for threads in [1, 2, 5] {
            let threads = NonZeroUsize::new(threads).expect("not zero");
            let listeners = Listener::bind_threads("127.0.0.1:0", threads).await;
            let listeners = listeners.expect("a free port");
            let sockets = if KERNEL_SPREADS { threads.get() } else { 1 };
            assert_eq!(listeners.len(), sockets);
            let addr = listeners[0].local_addr();
            assert!(listeners.iter().all(|it| it.local_addr() == addr));
        }
    }
}
