#![doc = "Skeleton"]

mod answer;
mod call;
mod channel;
mod client;
mod client_stream;
mod deadline;
mod foreign;
mod in_process;
mod intercept;
mod message;
mod method;
mod receive;
mod reply;
mod request;
mod response;
mod router;
mod sender;
mod server;
mod streaming;

#[doc(hidden)]
pub use prost;
#[doc(hidden)]
pub use prost_types;

pub use bytes::Bytes;
pub use call::{Call, Head};
pub use channel::{Channel, ChannelBuilder};
pub use client::Client;
pub use client_stream::ClientStream;
pub use intercept::{Interceptor, Next};
pub use message::{Message, Raw};
pub use method::Method;
pub use reply::{Compress, Reply};
pub use request::Request;
pub use response::Response;
pub use router::{Answering, Router, Service};
pub use sender::Sender;
pub use server::{BoundServer, Layered, Server};
pub use streaming::Streaming;
#[cfg(feature = "gzip")]
pub use trunkline_codec::Gzip;
pub use trunkline_codec::{
    Code, Encoding, EncodingError, Encodings, Limits, Metadata, MetadataError, Status, details,
};
#[cfg(feature = "macros")]
pub use trunkline_macros::include_proto;
pub use trunkline_transport::{Address, Body, Listener, Peer};

/// What everything here that can fail gives: a value or a [`Status`].
pub type Result<T> = std::result::Result<T, Status>;
