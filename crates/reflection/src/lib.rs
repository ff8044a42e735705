//! Server reflection, with which grpcurl, `buf curl`, Postman, k6 and other tools call a server without
//! its `.proto` files.
//!
//! Add it to a server with one line:
//!
//! ```no_run
//! # async fn example(greeter: impl trunkline::Service) -> trunkline::Result<()> {
//! use trunkline::Server;
//! use trunkline_reflection::Reflection;
//!
//! Server::new().add_service(greeter).add_service(Reflection::new()).serve("127.0.0.1:50051").await
//! # }
//! ```
//!
//! It describes all services of the server, regardless of the order in which they are added, using the
//! descriptors (serialized definitions of `.proto` files) in generated code. It supports both versions of
//! the protocol, v1 and v1alpha.
//!
//! Every client that can call the server can read its descriptors. To prevent this, refuse the calls in an
//! interceptor, or do not add the service.
//!
//! | module | holds |
//! | --- | --- |
//! | `reflection` | [`Reflection`], the service that users add |
//! | `responder` | the responses to the requests of one stream |
//! | `index` | lookup by name |
//! | `files`, `versions`, `circles` | files with the same name, and versions of the same file |
//! | [`v1`], [`v1alpha`] | messages and clients, generated |
//!
//! This crate uses only the public API of `trunkline`.

#![cfg_attr(docsrs, feature(doc_cfg))]

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;

mod circles;
mod files;
mod index;
mod reflection;
mod responder;
mod versions;

/// Messages and client of `grpc.reflection.v1`.
pub mod v1 {
    include!("../generated/grpc.reflection.v1.rs");
}

/// Messages and client of `grpc.reflection.v1alpha`, which differs from v1 only in its name.
pub mod v1alpha {
    include!("../generated/grpc.reflection.v1alpha.rs");
}

pub use reflection::Reflection;
