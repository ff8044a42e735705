//! gRPC for Rust: a complete server and a complete client, with plain `async fn`.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use hello::{Greeter, GreeterClient, GreeterServer, HelloReply, HelloRequest};
//! use trunkline::{Channel, Request, Result, Server};
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
//!
//! // Or on a channel with settings:
//! let channel = Channel::to("127.0.0.1:50051").timeout(Duration::from_secs(1)).connect().await?;
//! let client = GreeterClient::new(channel);
//! # drop(client); Ok(()) }
//! ```
//!
//! # The parts of a call
//!
//! A call consists of a request and a response. Each has a head, a stream of messages and an end:
//!
//! - The head of a request contains the method and metadata. The head of a response contains metadata,
//!   which other gRPC implementations call header or initial metadata.
//! - Requests and responses consist of *one* or of *many* messages. The four combinations are the four call
//!   types: unary, server streaming, client streaming and bidirectional streaming.
//! - The end of a response is its trailers, with the status and more metadata.
//!
//! # Where to find things
//!
//! | to | use |
//! | --- | --- |
//! | generate code from a `.proto` file | [`include_proto!`], or `trunkline_build::compile` in a `build.rs` |
//! | serve | [`Server`], and [`Request`] in handlers, the functions that implement methods; [`Router`] inside other HTTP servers |
//! | make calls | [`Channel`], [`Call`] and [`Response`]; [`Client`] without generated code |
//! | stream messages | [`Streaming`], [`Sender`], [`ClientStream`] |
//! | choose servers | [`Channel::to`], [`ChannelBuilder::use_policy`], and the module [`channel`]; the module [`balancing`] for policies of your own |
//! | retry calls, and set timeouts and policies by method | [`ChannelBuilder::service_config`] |
//! | report and read errors | [`Status`], [`Code`], [`details`] |
//! | set deadlines, cancel calls | [`Call::timeout`], [`CancelHandle`] |
//! | run code around calls | [`Interceptor`], [`Context`] and [`Next`]; tower layers with [`Server::layer`] and [`Channel::new`] |
//! | count, measure and log calls | the module [`observe`] |
//! | send tokens with calls | the module [`credentials`] |
//! | use TLS, identify clients | the module [`tls`], [`Peer`] |
//! | compress messages | [`Server::compress`], [`ChannelBuilder::compress`], [`Compress`]; the module [`codec`] for algorithms of your own |
//! | report health, describe services to tools | the crates [`trunkline-health`](https://docs.rs/trunkline-health) and [`trunkline-reflection`](https://docs.rs/trunkline-reflection) |
//! | change limits | the module [`limits`] |
//! | test | [`Request::new`], [`Channel::in_process`], and the module `testing` |
//!
//! The documentation cites [gRFCs](https://github.com/grpc/proposal), the design documents of gRPC (gRPC Requests
//! For Comments).
//!
//! The guides in the [repository](https://github.com/trunkline-rs/trunkline) describe each subject in
//! detail.
//!
//! # Runtime
//!
//! Trunkline runs on any tokio runtime.
//!
//! # Cancellation
//!
//! On a client, dropping any part of a call before its end cancels the call: the future that awaits the call, its
//! [`Streaming`], its [`ClientStream`], or its [`Sender`] without [`finish`](Sender::finish). The client then
//! resets the HTTP/2 stream of the call, and the server drops the future of the handler.
//!
//! # Features
//!
//! | feature | default | effect |
//! | --- | --- | --- |
//! | `client`, `server` | yes | clients, servers; at least one of the two is required |
//! | `macros` | yes | [`include_proto!`] |
//! | `gzip`, `deflate` | yes | compression with gzip and deflate; select one with [`Server::compress`] or [`ChannelBuilder::compress`] |
//! | `zstd` | no | compression with zstd, a C library; add it with [`Server::compressor`] and [`ChannelBuilder::compressor`] |
//! | `signal` | yes | [`shutdown_signal`] |
//! | `tls-ring` | yes | TLS with the cryptography of ring; needs a C compiler |
//! | `tls-aws-lc` | no | TLS with the cryptography of aws-lc-rs, which takes precedence over ring; needs a C compiler |
//! | `tls-native-roots` | yes | clients trust the certificate authorities that the system trusts |
//! | `tls-webpki-roots` | no | clients trust Mozilla's certificate authorities, which are compiled in |
//! | `hickory` | no | lookups by the DNS client hickory: service configs in DNS, targets such as `dns://10.0.0.2/host` |
//! | `testing` | no | in-memory HTTP/2 and faults for tests |

#![cfg_attr(docsrs, feature(doc_cfg))]
// What both halves share has parts that only one of them uses. The build with both is checked for the rest.
#![cfg_attr(not(all(feature = "client", feature = "server")), allow(dead_code))]

#[cfg(not(any(feature = "client", feature = "server")))]
compile_error!("trunkline needs the feature `client`, the feature `server`, or both");

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;

#[cfg(feature = "client")]
pub mod balancing;
mod call;
#[cfg(feature = "client")]
pub mod channel;
#[cfg(feature = "client")]
mod client;
pub mod codec;
#[cfg(feature = "client")]
pub mod credentials;
mod http_service;
#[cfg(all(feature = "client", feature = "server"))]
mod in_process;
pub mod limits;
pub mod observe;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "__tls")]
pub mod tls;
pub mod tower;

/// Byte buffers that are cheap to clone. `Bytes` is the Rust type of protobuf's `bytes` fields.
pub use bytes;
/// The crate `http`, with the requests and responses of tower layers, and `Extensions`.
pub use http;
/// The crate `prost`, whose traits all generated messages implement.
pub use prost;
/// The crate `prost_types`, with the types of `google.protobuf`, such as `Timestamp` and `Any`.
pub use prost_types;

pub use call::cancel::CancelHandle;
pub use call::compression::Compress;
pub use call::context::Context;
pub use call::descriptors::FileDescriptors;
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
pub use trunkline_codec::{Code, LoadReport, Metadata, Status, details};
#[cfg(feature = "macros")]
pub use trunkline_macros::include_proto;
pub use trunkline_transport::{Address, Peer};

/// The result of handlers and calls: a value or a [`Status`].
///
/// ```
/// use trunkline::{Request, Result, Status};
///
/// async fn divide(request: Request<(u32, u32)>) -> Result<u32> {
///     let (dividend, divisor) = request.into_inner();
///     dividend.checked_div(divisor).ok_or_else(|| Status::invalid_argument("the divisor is 0"))
/// }
/// ```
pub type Result<T, E = Status> = std::result::Result<T, E>;
