//! A port on which a raw peer plays the server.

use tokio::net::{TcpListener, TcpStream};

use crate::raw_peer::RawPeer;
use crate::within;

/// A listening socket on a free port of this machine.
#[derive(Debug)]
pub struct RawListener(TcpListener);

impl RawListener {
    /// Listens.
    ///
    /// # Panics
    ///
    /// When the machine has no port left.
    pub async fn bind() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
    }

    /// What a channel connects to.
    ///
    /// # Panics
    ///
    /// When the socket has no address, which a listening one has.
    pub fn address(&self) -> String {
        let address = self.0.local_addr().expect("a listening socket has one");
        address.to_string()
    }

    /// The next connection, on which nothing has been said.
    ///
    /// # Panics
    ///
    /// When none comes.
    pub async fn accept_silent(&self) -> TcpStream {
        let accepted = within("a connection", self.0.accept()).await;
        let (stream, _) = accepted.expect("a connection");
        stream.set_nodelay(true).expect("a socket that is open");
        stream
    }

    /// The next connection, with the beginning of HTTP/2 behind it.
    ///
    /// # Panics
    ///
    /// When none comes.
    pub async fn accept(&self) -> RawPeer<TcpStream> {
        RawPeer::server(self.accept_silent().await, &[]).await
    }
}
