//! For tests: real HTTP/2 without a socket, and connections that go wrong when they are told to.
//!
//! It needs the feature `testing`, which belongs among the `[dev-dependencies]`. What needs no HTTP/2
//! is tested with [`Channel::in_process`]. Everything here goes by tokio's clock, so that a test that
//! pauses it waits for nothing.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline::Result<()> {
//! use trunkline::testing::{Faults, in_memory};
//! use trunkline::{Client, Code, Method, Raw, Server};
//!
//! const METHOD: Method = Method::new("/hello.Greeter/SayHello");
//!
//! // Over HTTP/2, to a server that has no such method.
//! let client = Client::new(in_memory(Server::new()).connect().await?);
//! let status = client.unary::<Raw, Raw>(METHOD, Raw::default()).await.unwrap_err();
//! assert_eq!(status.code(), Code::UNIMPLEMENTED);
//!
//! // The same, until the server cannot be reached.
//! let faults = Faults::new();
//! let client = Client::new(faults.in_memory(Server::new()).connect().await?);
//! faults.refuse();
//! let status = client.unary::<Raw, Raw>(METHOD, Raw::default()).await.unwrap_err();
//! assert_eq!(status.code(), Code::UNAVAILABLE);
//! # Ok(()) }
//! ```

mod faults;

use std::io;

use tokio::io::DuplexStream;

use crate::client::channel::Channel;
use crate::client::channel_builder::ChannelBuilder;
use crate::server::builder::Server;
use trunkline_transport::Address;

pub use faults::{Faults, FaultyStream};

/// Bytes that a pipe in memory holds each way: less than a window, so that both ends have to wait
/// at times, as with a socket.
const PIPE_SIZE: usize = 64 * 1024;

/// A channel to `server` over HTTP/2 in memory: everything as over a socket, but the socket.
///
/// Each connection of the channel is a pipe to the server; one that ends is replaced as any other.
/// The server's part of it runs in a task of the runtime in which the channel connects, whatever
/// [`Server::threads`] says, and without TLS. `:authority` is `in-memory`.
///
/// For connections that go wrong see [`Faults::in_memory`].
pub fn in_memory(server: Server) -> ChannelBuilder {
    builder().connector(move |_: Address| {
        let server = server.clone();
        async move { Ok(dial(server)) }
    })
}

fn builder() -> ChannelBuilder {
    async fn here(_host: String, _port: u16) -> io::Result<Vec<Address>> {
        Ok(vec![Address::InMemory])
    }
    Channel::to("in-memory:80")
        .authority("in-memory")
        .resolver(here)
}

fn dial(server: Server) -> DuplexStream {
    let (near, far) = tokio::io::duplex(PIPE_SIZE);
    tokio::spawn(server.serve_connection(far));
    near
}
