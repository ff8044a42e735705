//! Sockets that listen: TCP and Unix.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
#[cfg(unix)]
use std::sync::Arc;

use socket2::{SockRef, Socket as RawSocket};
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::net::{TcpListener, TcpSocket};
use trunkline_codec::Status;

use crate::address::Address;
use crate::host_port::HostPort;
use crate::lookup::lookup;
use crate::net_stream::NetStream;
#[cfg(unix)]
use crate::socket_file::SocketFile;

/// Connections the kernel keeps ready for `accept`.
const BACKLOG: u32 = 1024;

/// The most connections that a listener which is about to close takes from the kernel: what a Unix
/// socket keeps ready by default on Linux.
pub(crate) const QUEUE_MAX: usize = 4096;

/// True where connections to an address are spread over the sockets that listen on it. Other systems
/// know SO_REUSEPORT as well, and give all of them to one of the sockets.
const KERNEL_SPREADS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// A TCP or Unix socket that accepts connections. Pass it to `Server::on`.
///
/// ```no_run
/// # mod trunkline { pub use trunkline_codec::Status; pub use trunkline_transport as server; }
/// use trunkline::server::Listener;
///
/// # async fn example() -> Result<(), trunkline::Status> {
/// let listener = Listener::bind("127.0.0.1:0").await?;
/// println!("listening on {}", listener.local_addr());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        /// Goes first: a listener that has closed must not have a file.
        file: Option<Arc<SocketFile>>,
        listener: UnixListener,
    },
}

/// A second handle of a listener's socket, for another runtime.
#[derive(Debug)]
pub(crate) enum ListenerHandle {
    Tcp(RawSocket),
    /// The file goes first, as in the listener.
    #[cfg(unix)]
    Unix(Option<Arc<SocketFile>>, RawSocket),
}

impl Listener {
    /// Listens on `address`: `host:port` (port 0 selects a free port), `unix:/path`, or on Linux
    /// `unix-abstract:name`.
    ///
    /// The file of a Unix socket is removed when the listener is dropped. If the file exists already but no
    /// server listens on it, it is replaced; if a server does, binding fails. While the listener exists, a lock
    /// file (`<path>.lock`) prevents other servers from using the path; it is removed with the socket.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the address cannot be parsed, UNAVAILABLE if it cannot be bound. The message
    /// names the address, the cause and a way to fix it.
    pub async fn bind(address: &str) -> Result<Self, Status> {
        match Address::local(address) {
            Some(local) => Self::bind_local(address, local).await,
            None => Ok(Self::from_tcp(bind_name(address, bind_tcp).await?)),
        }
    }

    /// Listens for several threads, as [`bind`](Self::bind): one listener per thread if the kernel
    /// distributes connections over sockets that share an address, or else one for all.
    pub(crate) async fn bind_threads(
        address: &str,
        threads: NonZeroUsize,
    ) -> Result<Vec<Self>, Status> {
        if Address::local(address).is_some() || !KERNEL_SPREADS {
            return Ok(vec![Self::bind(address).await?]);
        }
        let sockets = bind_name(address, |addr| bind_tcp_threads(addr, threads)).await?;
        Ok(sockets.into_iter().map(Self::from_tcp).collect())
    }

    #[cfg(not(unix))]
    async fn bind_local(address: &str, local: Result<Address, String>) -> Result<Self, Status> {
        // Such an address is always an error here, which says why.
        let why = local.map_or_else(|why| why, |_| "it is not a socket's".to_owned());
        Err(cannot_read(address, &why))
    }

    #[cfg(unix)]
    async fn bind_local(address: &str, local: Result<Address, String>) -> Result<Self, Status> {
        let local = local.map_err(|why| cannot_read(address, &why))?;
        let failed = |error| cannot_listen_locally(address, error);
        let socket = match local.to_unix_path() {
            None => return Err(cannot_read(address, "it is not a socket's")),
            Some((path, true)) => {
                let (listener, file) = SocketFile::bind(&path).await.map_err(failed)?;
                let file = Some(Arc::new(file));
                Socket::Unix { file, listener }
            }
            Some((name, false)) => Socket::Unix {
                file: None,
                listener: UnixListener::bind(name).map_err(failed)?,
            },
        };
        Ok(Self { socket })
    }

    /// Creates a listener from an existing TCP listener, such as one that systemd passes to the process.
    pub fn from_tcp(listener: TcpListener) -> Self {
        Self {
            socket: Socket::Tcp(listener),
        }
    }

    /// Creates a listener from an existing Unix listener. Dropping it does not remove the file.
    #[cfg(unix)]
    pub fn from_unix(listener: UnixListener) -> Self {
        let file = None;
        Self {
            socket: Socket::Unix { file, listener },
        }
    }

    /// Returns the address of the socket. If it was bound to port 0, the address has the port that the system
    /// selected.
    pub fn local_addr(&self) -> Address {
        match &self.socket {
            Socket::Tcp(listener) => listener
                .local_addr()
                .map_or(Address::InMemory, Address::Tcp),
            #[cfg(unix)]
            Socket::Unix { listener, file } => match listener.local_addr() {
                Ok(addr) => addr.into(),
                Err(_) => Address::Unix(file.as_ref().map(|file| file.path().to_owned())),
            },
        }
    }

    /// Removes the file of a Unix socket, if it is this listener's: no client connects from then on,
    /// and another server may have the path.
    pub(crate) fn remove_file(&self) {
        #[cfg(unix)]
        if let Socket::Unix {
            file: Some(file), ..
        } = &self.socket
        {
            file.remove();
        }
    }

    pub(crate) fn try_handle(&self) -> io::Result<ListenerHandle> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => ListenerHandle::Tcp(SockRef::from(listener).try_clone()?),
            #[cfg(unix)]
            Socket::Unix { listener, file } => {
                ListenerHandle::Unix(file.clone(), SockRef::from(listener).try_clone()?)
            }
        })
    }

    pub(crate) async fn accept(&self) -> io::Result<(NetStream, Address)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                Ok((NetStream::Tcp(stream), Address::Tcp(remote)))
            }
            #[cfg(unix)]
            Socket::Unix { listener, .. } => {
                let (stream, remote) = listener.accept().await?;
                Ok((NetStream::Unix(stream), remote.into()))
            }
        }
    }
}

impl ListenerHandle {
    /// Listens in the runtime that this is called in.
    pub(crate) fn listen(self) -> io::Result<Listener> {
        let socket = match self {
            Self::Tcp(socket) => Socket::Tcp(TcpListener::from_std(socket.into())?),
            #[cfg(unix)]
            Self::Unix(file, socket) => {
                let listener = UnixListener::from_std(socket.into())?;
                Socket::Unix { file, listener }
            }
        };
        Ok(Listener { socket })
    }
}

/// Binds to the first address of a name that is available.
async fn bind_name<T>(
    address: &str,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<T, Status> {
    if let Some(why) = of_a_target(address) {
        return Err(cannot_read(address, &why));
    }
    let (host, is_uri) = match address.strip_prefix("http://") {
        None => (address, false),
        Some(rest) => (rest, true),
    };
    let address = host.trim_end_matches('/');
    let parsed = match is_uri {
        false => HostPort::parse(address),
        true => HostPort::parse_uri(address),
    };
    let parsed = parsed.map_err(|why| cannot_read(address, &why))?;
    let port = parsed
        .port
        .ok_or_else(|| cannot_read(address, "the port is missing, and 0 takes a free one"))?;
    let addresses = match parsed.address(port) {
        Some(address) => vec![address],
        None => lookup(&parsed.to_resolve(), port)
            .await
            .map_err(|error| cannot_resolve(address, &parsed, error))?,
    };
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for addr in addresses {
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
    // Called only where the kernel spreads connections: see `KERNEL_SPREADS`.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    SockRef::from(&socket).set_reuse_port(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

fn tcp_socket(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restarted server takes its port back at once; one that runs keeps it. On Windows the option
    // would let another process take the port of one that runs.
    if cfg!(unix) {
        socket.set_reuseaddr(true)?;
    }
    Ok(socket)
}

/// Returns the text to write instead of a target, which clients connect to and servers do not listen on.
fn of_a_target(address: &str) -> Option<String> {
    if let Some(rest) = address.strip_prefix("https://") {
        return Some(format!(
            "a server listens on host:port, and Server::tls makes it HTTPS: use {}",
            rest.trim_end_matches('/')
        ));
    }
    let scheme = ["dns:", "ipv4:", "ipv6:"];
    let scheme = scheme.into_iter().find(|it| address.starts_with(it))?;
    let rest = address[scheme.len()..].rsplit('/').next();
    let rest = rest.filter(|it| !it.is_empty() && !it.contains(','));
    Some(format!(
        "`{scheme}` is for the targets of clients, and a server listens on one address: use {}",
        rest.unwrap_or("host:port")
    ))
}

fn cannot_resolve(address: &str, host: &HostPort, error: io::Error) -> Status {
    let way_out = match &host.zone {
        Some(zone) => format!("; is there an interface {zone} on this machine?"),
        None => {
            "; use an IP address of this machine, such as 127.0.0.1, or 0.0.0.0 for all interfaces"
                .to_owned()
        }
    };
    let message = format!("cannot listen on {address}: {error}{way_out}");
    Status::unavailable(message).with_source(error)
}

fn cannot_read(address: &str, why: &str) -> Status {
    Status::invalid_argument(format!(
        "cannot listen on {address}: {why} (an address is of the form host:port, unix:/path or unix-abstract:name)"
    ))
}

fn cannot_listen(address: &str, error: io::Error) -> Status {
    let way_out = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process listens there: stop it, or choose another port (0 takes a free one)"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        _ => "",
    };
    let message = format!("cannot listen on {address}: {error}{way_out}");
    Status::unavailable(message).with_source(error)
}

#[cfg(unix)]
fn cannot_listen_locally(address: &str, error: io::Error) -> Status {
    let way_out = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process listens there: stop it, or choose another path"
        }
        io::ErrorKind::NotFound => "; the directory does not exist",
        io::ErrorKind::PermissionDenied => "; this user may not make a socket there",
        _ => "",
    };
    let message = format!("cannot listen on {address}: {error}{way_out}");
    Status::unavailable(message).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_an_address_to_listen_on_is_refused_with_one_that_is() {
        for (address, way_out) in [
            ("dns:///localhost:50051", "use localhost:50051"),
            ("dns:localhost:50051", "use localhost:50051"),
            ("ipv4:127.0.0.1:50051", "use 127.0.0.1:50051"),
            ("ipv4:127.0.0.1:1,127.0.0.1:2", "use host:port"),
            ("ipv6:[::1]:50051", "use [::1]:50051"),
            ("https://localhost:50051", "use localhost:50051"),
            ("localhost", "the port is missing"),
            ("[fe80::1%nowhere]:0", "is there an interface nowhere"),
        ] {
            let status = Listener::bind(address).await.expect_err("no address");
            let message = status.message();
            assert!(
                message.starts_with(&format!("cannot listen on {address}: ")),
                "{message}"
            );
            assert!(message.contains(way_out), "{message}");
        }
    }

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
