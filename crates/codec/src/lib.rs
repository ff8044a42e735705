//! The gRPC protocol with no I/O: pure functions and small state machines.
//!
//! | module | contains |
//! | --- | --- |
//! | [`grammar`] | a call as a head, messages and an end, in each direction |
//! | [`frame`] | length-prefixed messages, decoded from chunks |
//! | [`rope`], [`blocks`] | large messages: written in pieces, read into reused blocks |
//! | [`head`] | heads of requests and responses |
//! | [`header_list`] | the size of heads and trailers, and those that are too large |
//! | [`status`], [`code`], [`details`] | the end of a call |
//! | [`metadata`] | the key-value pairs of heads and trailers |
//! | [`compression`], [`compressors`] | compression of messages, and the choice between two peers |
//! | [`timeout`], [`percent`], [`path`] | the three small formats |
//! | `load_report` | load reports of servers (ORCA) |
//! | [`limits`] | the limits for messages, with their defaults |
//!
//! This crate does not know: tokio or any other runtime, h2, tower, sockets, clocks and randomness
//! (time is an argument), what a method does, or which messages it takes.

#![cfg_attr(docsrs, feature(doc_cfg))]

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;

pub mod attempts;
pub mod blocks;
pub mod code;
pub mod compression;
pub mod compressors;
#[cfg(feature = "deflate")]
mod deflate;
pub mod details;
#[cfg(any(feature = "gzip", feature = "deflate"))]
mod flate;
pub mod frame;
pub mod grammar;
#[cfg(feature = "gzip")]
mod gzip;
pub mod head;
pub mod header_list;
mod header_names;
pub mod limits;
mod load_report;
pub mod metadata;
pub mod path;
pub mod percent;
#[doc(hidden)]
pub mod protobuf;
pub mod rope;
pub mod status;
#[cfg(any(feature = "gzip", feature = "deflate", feature = "zstd"))]
mod step;
pub mod timeout;
#[cfg(feature = "zstd")]
mod zstd;

pub use attempts::AttemptsMade;
pub use code::{Code, ParseCodeError};
pub use compression::{CompressionError, Compressor, Decompressor};
pub use compressors::Compressors;
#[cfg(feature = "deflate")]
pub use deflate::Deflate;
pub use frame::{Decoder, Frame, FrameError, Payload};
pub use grammar::{End, Event, Expect, Message, Reader};
#[cfg(feature = "gzip")]
pub use gzip::Gzip;
pub use head::{Refusal, RequestHead};
pub use limits::MessageLimits;
pub use load_report::{LoadReport, LoadReportRequest};
pub use metadata::{Metadata, MetadataError};
pub use path::Path;
pub use prost_types::Any;
pub use rope::Rope;
pub use status::Status;
pub use timeout::TimeoutError;
#[cfg(feature = "zstd")]
pub use zstd::Zstd;
