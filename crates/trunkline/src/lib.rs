//! gRPC for Rust: a complete server and a complete client, with plain `async fn`.
//!
//! **A call is a head, a stream of messages and an end, in each direction.** The four call types
//! are the four ways to say *one* or *many* for the two streams.
//!
//! ```no_run
//! use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
//! use trunkline::{Request, Result, Server};
//!
//! mod hello {
//!     trunkline::include_proto!("proto/helloworld.proto");
//! }
//!
//! struct MyGreeter;
//!
//! impl Greeter for MyGreeter {
//!     async fn say_hello(&self, request: Request<HelloRequest>) -> Result<HelloReply> {
//!         Ok(HelloReply { message: format!("Hello {}!", request.name) })
//!     }
//! }
//!
//! # async fn example() -> Result<()> {
//! // In one program:
//! Server::new().add_service(GreeterServer::new(MyGreeter)).serve("127.0.0.1:50051").await?;
//!
//! // In another:
//! let client = GreeterClient::connect("127.0.0.1:50051").await?;
//! let response = client.say_hello(HelloRequest { name: "you".into() }).await?;
//! println!("{}", response.message);
//! # Ok(()) }
//! ```
//!
//! | what | where |
//! | --- | --- |
//! | code from a `.proto` file | [`include_proto!`], or `trunkline_build::compile` in a `build.rs` |
//! | a server | [`Server`], [`Router`], [`Request`], [`ResponseHandle`] |
//! | a client | [`Channel`], [`Call`], [`Response`]; [`Client`] for calls without generated code |
//! | where a client goes | [`Targets`], [`Resolver`], [`ChannelBuilder`]; [`ConnectivityState`], [`ConnectivityWatch`] |
//! | streams of messages | [`Streaming`], [`Sender`], [`ClientStream`] |
//! | how calls fail | [`Status`], [`Code`], [`details`] |
//! | code around calls | [`Interceptor`], [`Context`], [`Server::layer`], [`Channel::new`] |
//! | metrics and events of calls | [`observe`] |
//! | TLS | `ServerTls`, `ClientTls`; who is there, [`Peer`] |
//! | limits | [`limits`], set by [`Server::with_limits`] and [`ChannelBuilder::with_limits`] |
//!
//! Everything runs on any tokio runtime.
//!
//! **Cancellation.** Dropping what a call gave (the future that awaits it, a [`Streaming`], a
//! [`ClientStream`], or a client's [`Sender`] that has not finished) cancels the call: the stream
//! is reset, and the server drops the handler's future.
//!
//! **Features.** `client` and `server`, the halves, of which you need at least one; `gzip`, `deflate`, `macros` (for [`include_proto!`]), `signal` (for
//! [`shutdown_signal`]), `tls-ring` (TLS, with ring for cryptography) and `tls-native-roots` (clients trust
//! the authorities that the system trusts), all on by default; `tls-aws-lc` uses aws-lc-rs instead of ring
//! (both need a C compiler), and `tls-webpki-roots` Mozilla's list of authorities; `zstd`, off, because it builds a C library, and
//! because it has to be [added](Server::compressor) to be announced; `testing`, off, for the module of that name.
//!
//! This crate does not know: HTTP/2 frames, h2, sockets. Its modules:
//!
//! | module | holds |
//! | --- | --- |
//! | `call` | what both ends have: head, messages, deadline, interceptors |
//! | `client` | a call before it begins, channels, and the attempts at a call |
//! | `server` | from a path to a handler; a handler at work |
//! | `http_service`, `in_process` | tower services; calls without a socket |
//! | `limits` | every limit |
//! | `observe` | observers of calls: their events, their figures, the span of each |
//! | `testing` | HTTP/2 in memory, and connections that go wrong |

#![cfg_attr(docsrs, feature(doc_cfg))]
// What both halves share has parts that only one of them uses. The build with both is checked for the rest.
#![cfg_attr(not(all(feature = "client", feature = "server")), allow(dead_code))]

#[cfg(not(any(feature = "client", feature = "server")))]
compile_error!("trunkline needs the feature `client`, the feature `server`, or both");

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;

mod call;
#[cfg(feature = "client")]
mod client;
mod http_service;
#[cfg(all(feature = "client", feature = "server"))]
mod in_process;
pub mod limits;
pub mod observe;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "testing")]
pub mod testing;

#[doc(hidden)]
pub use prost;
#[doc(hidden)]
pub use prost_types;

pub use bytes::Bytes;
pub use call::cancel::CancelHandle;
pub use call::compression::Compress;
pub use call::context::Context;
pub use call::descriptors::FileDescriptors;
pub use call::head::Head;
pub use call::intercept::{Interceptor, Next};
pub use call::kind::{CallKind, Side};
pub use call::message::{Message, Raw};
pub use call::message_hooks::MessageRef;
pub use call::method::Method;
pub use call::request::Request;
pub use call::response::Response;
pub use call::response_handle::ResponseHandle;
pub use call::sender::Sender;
pub use call::streaming::Streaming;
#[cfg(feature = "client")]
pub use client::call::Call;
#[cfg(feature = "client")]
pub use client::channel::Channel;
#[cfg(feature = "client")]
pub use client::channel_builder::ChannelBuilder;
#[cfg(feature = "client")]
pub use client::client_stream::ClientStream;
#[cfg(feature = "client")]
pub use client::stub::Client;
#[cfg(feature = "server")]
pub use server::bound::BoundServer;
#[cfg(feature = "server")]
pub use server::builder::Server;
#[cfg(feature = "server")]
pub use server::router::Router;
#[cfg(feature = "server")]
pub use server::service::Service;
#[cfg(feature = "signal")]
pub use server::signal::shutdown_signal;
#[cfg(feature = "client")]
pub use trunkline_channel::{ConnectivityState, ConnectivityWatch, Resolver, TargetName, Targets};
#[cfg(feature = "deflate")]
pub use trunkline_codec::Deflate;
#[cfg(feature = "gzip")]
pub use trunkline_codec::Gzip;
#[cfg(feature = "zstd")]
pub use trunkline_codec::Zstd;
pub use trunkline_codec::{
    Code, CompressionError, Compressor, Compressors, Decompressor, Metadata, MetadataError,
    ParseCodeError, Payload, Rope, Status, details,
};
#[cfg(feature = "macros")]
pub use trunkline_macros::include_proto;
pub use trunkline_transport::{Address, Body, Listener, Peer};
#[cfg(feature = "__tls")]
pub use trunkline_transport::{ClientTls, ServerTls, TlsSession, rustls};

/// Types around tower services over HTTP types.
pub mod tower {
    pub use crate::http_service::LayeredService;
    #[cfg(feature = "server")]
    pub use crate::server::router_future::RouterFuture;
}

/// What everything here that can fail gives: a value or a [`Status`].
pub type Result<T> = std::result::Result<T, Status>;
