//! Sockets that listen: TCP and Unix.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use trunkline_codec::Status;

use crate::host_port::HostPort;
use crate::lookup::lookup;
use crate::net_stream::NetStream;
use crate::socket_file::SocketFile;
use crate::target::Address;

/// Connections the kernel keeps ready for `accept`.
const BACKLOG: u32 = 1024;

/// The most connections that a listener which is about to close takes from the kernel: what a Unix
/// socket keeps ready by default on Linux.
pub(crate) const QUEUE_MAX: usize = 4096;

/// True where connections to an address are spread over the sockets that listen on it. Other systems
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
        /// Goes first: a listener that has closed must not have a file.
        file: Option<Arc<SocketFile>>,
        listener: UnixListener,
    },
}

/// A second handle of a listener's socket, for another runtime.
#[derive(Debug)]
pub(crate) enum Detached {
    Tcp(OwnedFd),
    /// The file goes first, as in the listener.
    Unix(Option<Arc<SocketFile>>, OwnedFd),
}

impl Listener {
    /// Listens on `address`: `host:port` (port 0 takes a free one), `unix:/path`, or on Linux
    /// `unix-abstract:name`.
    ///
    /// A Unix socket's file is removed when the listener is dropped. A file that a server which is
    /// gone has left behind is replaced; one that a server listens on is not. While it listens, a file
    /// of the same name and `.lock` keeps other servers out; it is removed with the socket.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the address cannot be read, else UNAVAILABLE; the message names the
    /// address, the cause and the way out.
    pub async fn bind(address: &str) -> Result<Self, Status> {
        match Address::local(address) {
            Some(local) => Self::bind_local(address, local).await,
            None => Ok(Self::from_tcp(bind_name(address, bind_tcp).await?)),
        }
    }

    /// As [`bind`](Self::bind), for several threads: a listener for each, where the kernel spreads
    /// connections over sockets that share an address, and else one for all.
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

    /// Takes over a TCP socket that listens already, such as one that was inherited.
    pub fn from_tcp(listener: TcpListener) -> Self {
        Self {
            socket: Socket::Tcp(listener),
        }
    }

    /// Takes over a Unix socket that listens already. Its file stays when this is dropped.
    pub fn from_unix(listener: UnixListener) -> Self {
        let file = None;
        Self {
            socket: Socket::Unix { file, listener },
        }
    }

    /// Where this listens: with port 0, this tells which port it is.
    pub fn local_addr(&self) -> Address {
        match &self.socket {
            Socket::Tcp(listener) => listener
                .local_addr()
                .map_or(Address::InMemory, Address::Tcp),
            Socket::Unix { listener, file } => match SockRef::from(listener).local_addr() {
                Ok(addr) => Address::of_unix(&addr),
                Err(_) => Address::Unix(file.as_ref().map(|file| file.path().to_owned())),
            },
        }
    }

    /// Removes the file of a Unix socket, if it is this listener's: no client connects from then on,
    /// and another server may have the path.
    pub(crate) fn remove_file(&self) {
        if let Socket::Unix {
            file: Some(file), ..
        } = &self.socket
        {
            file.remove();
        }
    }

    pub(crate) fn detach(&self) -> io::Result<Detached> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => Detached::Tcp(listener.as_fd().try_clone_to_owned()?),
            Socket::Unix { listener, file } => {
                Detached::Unix(file.clone(), listener.as_fd().try_clone_to_owned()?)
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
                let remote = remote.as_pathname().map(Path::to_owned);
                Ok((NetStream::Unix(stream), Address::Unix(remote)))
            }
        }
    }
}

impl Detached {
    /// Listens in the runtime that this is called in.
    pub(crate) fn attach(self) -> io::Result<Listener> {
        let socket = match self {
            Self::Tcp(socket) => Socket::Tcp(TcpListener::from_std(socket.into())?),
            Self::Unix(file, socket) => {
                let listener = UnixListener::from_std(socket.into())?;
                Socket::Unix { file, listener }
            }
        };
        Ok(Listener { socket })
    }
}

/// Binds to the first address of a name that can be had.
async fn bind_name<T>(
    address: &str,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<T, Status> {
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
            .map_err(|error| cannot_listen(address, error))?,
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
    SockRef::from(&socket).set_reuse_port(true)?;
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

fn cannot_listen_locally(address: &str, error: io::Error) -> Status {
    let way_out = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another process listens there: stop it, or choose another path"
        }
        io::ErrorKind::NotFound => "; is there no such directory?",
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
