//! A TCP or Unix socket, or a byte stream of the user, as one type.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

#[cfg(any(target_os = "linux", target_os = "android"))]
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use trunkline_codec::Status;

use crate::address::Address;
use crate::error::cannot_connect;

/// Any byte stream.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for IO {}

/// An accepted or connected socket, or a byte stream of the user.
pub(crate) enum NetStream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Custom(Box<dyn ByteStream>),
}

/// The origin of the byte stream of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IoOrigin {
    /// A socket that was accepted or connected here. It half-closes, and a reset loses what it has.
    Socket,
    /// A user. It may be a socket as well, or something that cannot say that nothing more comes.
    Custom,
}

impl NetStream {
    /// Connects to `address`, which messages call `name`.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE; the message has the name, the cause and the way out.
    pub(crate) async fn connect(address: &Address, name: &str) -> Result<Self, Status> {
        if let Address::Tcp(address) = address {
            let stream = TcpStream::connect(address).await;
            return Ok(Self::Tcp(
                stream.map_err(|error| cannot_connect(name, error))?,
            ));
        }
        #[cfg(unix)]
        if let Some((path, _)) = address.to_unix_path() {
            let stream = UnixStream::connect(path).await;
            return Ok(Self::Unix(
                stream.map_err(|error| cannot_connect(name, error))?,
            ));
        }
        Err(Status::unavailable(format!(
            "cannot connect to {name}: {address} is not an address to connect to; only a connector of your own may know it"
        )))
    }

    /// Sets the options of a TCP socket that carries HTTP/2. `user_timeout` is for how long the peer may
    /// leave bytes unacknowledged before the connection ends: none if nobody asks whether it is there.
    pub(crate) fn set_options(&self, user_timeout: Option<Duration>) {
        let Self::Tcp(stream) = self else {
            return;
        };
        // Writes are gathered before they reach the socket: waiting for more only costs time.
        let _ = stream.set_nodelay(true);
        // gRFC A18: a PING finds out nothing while the kernel still tries to deliver what was written
        // before it. Other systems have no such option; a connection without it works, and the PING goes
        // out all the same.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if user_timeout.is_some() {
            let _ = SockRef::from(stream).set_tcp_user_timeout(user_timeout);
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = user_timeout;
    }

    /// Returns where the stream comes from, before there is TLS over it.
    pub(crate) fn origin(&self) -> IoOrigin {
        match self {
            Self::Tcp(_) => IoOrigin::Socket,
            #[cfg(unix)]
            Self::Unix(_) => IoOrigin::Socket,
            Self::Custom(_) => IoOrigin::Custom,
        }
    }
}

impl fmt::Debug for NetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Tcp",
            #[cfg(unix)]
            Self::Unix(_) => "Unix",
            Self::Custom(_) => "Custom",
        })
    }
}

impl From<Box<dyn ByteStream>> for NetStream {
    fn from(stream: Box<dyn ByteStream>) -> Self {
        Self::Custom(stream)
    }
}

impl AsyncRead for NetStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Custom(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for NetStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Custom(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Custom(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            #[cfg(unix)]
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Custom(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Custom(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Custom(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[tokio::test]
    async fn a_socket_with_keepalive_has_the_timeout_of_the_kernel_as_well() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("it is bound").into();
        let stream = NetStream::connect(&address, "the listener").await;
        let stream = stream.expect("it listens");
        stream.set_options(Some(Duration::from_secs(20)));
        let NetStream::Tcp(stream) = &stream else {
            panic!("it is TCP");
        };
        let timeout = SockRef::from(stream).tcp_user_timeout();
        assert_eq!(timeout.expect("an option"), Some(Duration::from_secs(20)));
    }
}
