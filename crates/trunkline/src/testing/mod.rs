//! Tools for tests: HTTP/2 in memory, and faults on connections.
//!
//! The module requires the feature `testing`, which belongs in `[dev-dependencies]`. Tests that do not
//! need HTTP/2 can use [`Channel::in_process`] without it. All delays and timeouts use tokio's clock, so
//! they take no time in a test that [pauses the clock](https://docs.rs/tokio/1/tokio/time/fn.pause.html).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline::Result<()> {
//! use trunkline::testing::{Faults, in_memory};
//! use trunkline::{Client, Code, Method, Raw, Server};
//!
//! const METHOD: Method = Method::new("/hello.Greeter/SayHello");
//!
//! // Over HTTP/2, to a server without this method.
//! let client = Client::new(in_memory(Server::new()).connect().await?);
//! let status = client.unary::<Raw, Raw>(METHOD, Raw::default()).await.unwrap_err();
//! assert_eq!(status.code(), Code::UNIMPLEMENTED);
//!
//! // The same, but then the server becomes unreachable.
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

/// The capacity of an in-memory pipe in each direction, in bytes. It is less than a window, so both ends
/// sometimes wait, as with a socket.
const PIPE_SIZE: usize = 64 * 1024;

/// Returns the builder of a channel to `server` over HTTP/2 in memory. Everything but the socket is as it
/// is in production.
///
/// Each connection of the channel is a pipe in memory. If a connection ends, the channel opens a new one,
/// as it does over a network. The server runs in tasks of the runtime in which the channel connects,
/// regardless of [`Server::threads`], and without TLS. `:authority` is `in-memory`.
///
/// For connections with faults, use [`Faults::in_memory`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline::Result<()> {
/// use trunkline::Server;
/// use trunkline::testing::in_memory;
///
/// let channel = in_memory(Server::new()).connect().await?;
/// # drop(channel); Ok(()) }
/// ```
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
        .lookup(here)
}

fn dial(server: Server) -> DuplexStream {
    let (near, far) = tokio::io::duplex(PIPE_SIZE);
    tokio::spawn(server.serve_connection(far));
    near
}
