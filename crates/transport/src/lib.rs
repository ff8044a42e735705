//! gRPC calls on HTTP/2 streams.
//!
//! A call is a head, a stream of messages and an end, in each direction; here it is an
//! `http::Request` and an `http::Response` over one [`Body`] type, carried on one HTTP/2 stream.
//!
//! | module | holds |
//! | --- | --- |
//! | `body`, `pipe` | what requests and responses carry |
//! | `listen`, `socket_file` | sockets that listen; the file of a Unix socket |
//! | `server`, `threads` | accepts; a task for each connection; the same on several threads |
//! | `connection`, `server_call` | the server's driver; one call on it |
//! | `server_calls`, `poll_budget` | calls that wait, in the connection's task or in one each; which of the two |
//! | `client`, `stream_limit` | connects; the client's driver; one call on it; how many may be open |
//! | `server_policy`, `client_policy` | what a server, and a client, looks at after each turn |
//! | `budget` | how much a peer may do that costs more than it brings |
//! | `deadline`, `timers` | one moment to wait for; all those of a connection on one timer |
//! | `keepalive` | pings: is the peer there |
//! | `limits` | every limit of a connection and of a server, with its default |
//! | `panics` | catches the panics of handlers |
//! | `linger` | the end of a connection that has said everything |
//! | `http1` | what is said to a client that speaks HTTP/1, or TLS where there is none |
//! | `turn`, `connection_shared` | one turn of a connection's task; what it shares with its calls |
//! | `wire_io`, `frame_guard` | the socket under h2; the frame headers that pass |
//! | `header_lists` | how large heads and trailers may be, in both directions |
//! | `send_backlog` | responses that wait for clients to take them |
//! | `incoming`, `send`, `client_send` | DATA that comes in, and goes out, under flow control |
//! | `address`, `target` | addresses of sockets; where calls go, as users write it |
//! | `host_port`, `lookup` | hosts and ports as text; addresses of names |
//! | `peer` | the two ends of a connection |
//! | `blocking` | work that blocks, and does not hold the exit |
//! | `tls`, `net_stream` | TLS below HTTP/2, and what is below it; `no_tls` stands in for it |
//!
//! Does not know: message types, prost, retries, what a path means. h2 is named here and nowhere
//! above.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod accept;
mod address;
mod blocking;
mod body;
mod budget;
mod client;
mod client_driver;
mod client_policy;
mod client_send;
mod connection;
mod connection_shared;
mod coop;
mod deadline;
mod error;
mod frame_guard;
mod header_lists;
mod host_port;
mod http1;
mod incoming;
mod keepalive;
mod limits;
mod linger;
mod listen;
mod listeners;
mod lookup;
mod net_stream;
mod panics;
mod peer;
mod pipe;
mod poll_budget;
mod send;
mod send_backlog;
mod server;
mod server_call;
mod server_calls;
mod server_policy;
#[cfg(unix)]
mod socket_file;
mod stream_limit;
mod sync;
mod target;
mod threads;
mod timers;
#[cfg(feature = "__tls")]
mod tls;
#[cfg(not(feature = "__tls"))]
#[path = "no_tls.rs"]
mod tls;
mod turn;
mod wire_io;

pub use address::Address;
pub use body::{Body, BodySource};
pub use client::{Connection, Destination, OpenCall, ReadyConnection};
pub use client_send::RefusedRequest;
pub use connection::{BegunCall, ConnectionHandler, Phase, serve_connection};
pub use coop::poll_coop;
pub use deadline::Deadline;
pub use error::cannot_connect;
pub use keepalive::Keepalive;
pub use limits::{ClientLimits, Http2Limits, ServerLimits};
pub use listen::Listener;
pub use listeners::serve;
pub use lookup::lookup;
pub use net_stream::ByteStream;
pub use panics::{Panic, catch_panic};
pub use peer::Peer;
pub use pipe::{PipeFailure, PipeReader, PipeWriter, ReaderGone, pipe};
pub use poll_budget::PollBudget;
#[cfg(feature = "__tls")]
pub use rustls;
pub use server::{Spawner, serve_one};
pub use target::Target;
pub use threads::{bind_threads, serve_threads};
#[cfg(feature = "__tls")]
pub use tls::TlsSession;
pub use tls::{ClientTls, ServerTls};
pub use wire_io::ConnectionStats;
