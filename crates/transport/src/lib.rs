//! gRPC calls on HTTP/2 streams.
//!
//! A call is a head, a stream of messages and an end, in each direction; here it is an
//! `http::Request` and an `http::Response` over one [`Body`] type, carried on one HTTP/2 stream.
//!
//! | module | holds |
//! | --- | --- |
//! | `body`, `pipe` | the bodies of requests and responses |
//! | `listen`, `socket_file` | listening sockets; the file of a Unix socket |
//! | `server`, `threads` | accepting connections, with a task for each; the same on several threads |
//! | `connection`, `server_call` | the server's driver of a connection; one call on it |
//! | `server_calls`, `poll_budget` | running calls in the connection's task or in their own; the choice between the two |
//! | `client`, `stream_limit` | connecting, the client's driver, and its calls; the number of open streams |
//! | `server_policy`, `client_policy` | checks after each turn, at a server and at a client |
//! | `budget` | limits for frames that cost this end more than the peer |
//! | `deadline`, `timers` | a timer for one moment; one timer for all moments of a connection |
//! | `keepalive` | detecting a lost peer with PING frames |
//! | `limits` | every limit of a connection and of a server, with its default |
//! | `panics` | catching the panics of handlers |
//! | `linger` | closing a connection without losing data |
//! | `http1` | the response to a client that uses HTTP/1, or TLS on a plaintext port |
//! | `turn`, `connection_shared` | one turn of a connection's task; the state shared with its calls |
//! | `wire_io`, `frame_guard` | the socket below h2; reading frame headers |
//! | `header_lists` | the sizes of heads and trailers, in both directions |
//! | `send_backlog` | responses buffered for clients that do not read |
//! | `incoming`, `send`, `client_send` | receiving and sending DATA under flow control |
//! | `address`, `target` | socket addresses; targets as users write them |
//! | `host_port`, `lookup` | hosts and ports as text; resolving names |
//! | `peer` | the two ends of a connection |
//! | `blocking` | blocking work that does not delay the exit of the process |
//! | `tls`, `net_stream` | TLS below HTTP/2; the sockets below TLS. `no_tls` replaces `tls` in builds without it |
//!
//! This crate does not depend on message types, prost, retries or the meaning of a path. h2 is used only
//! here, and does not appear in its API.

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
mod proxy;
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
pub use blocking::run_blocking;
pub use body::{Body, BodySource};
pub use client::{Connection, Destination, OpenCall, ReadyConnection};
pub use client_send::RefusedRequest;
pub use connection::{BegunCall, ConnectionHandler, Phase, serve_connection};
pub use coop::poll_coop;
pub use deadline::{Deadline, DeadlineChange};
pub use error::cannot_connect;
pub use keepalive::Keepalive;
pub use limits::{ClientLimits, Http2Limits, ServerLimits};
pub use listen::Listener;
pub use listeners::serve;
pub use lookup::lookup;
pub use net_stream::ByteStream;
pub use panics::{Panic, catch_panic};
pub use peer::Peer;
pub use pipe::{PipeReader, PipeWatch, PipeWriter, ReaderGone, pipe};
pub use poll_budget::PollBudget;
pub use proxy::Proxy;
#[cfg(feature = "__tls")]
pub use rustls;
pub use server::{Spawner, serve_one};
pub use target::Target;
pub use threads::{bind_threads, serve_threads};
#[cfg(feature = "__tls")]
pub use tls::TlsSession;
pub use tls::{ClientTls, ServerTls};
pub use wire_io::ConnectionStats;
