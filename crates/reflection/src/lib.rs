//! Server reflection: grpcurl, `buf curl`, Postman, k6 and others call a server without its `.proto`
//! files. One line to add:
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
//! It tells of all services of the server, in whatever order they are added, by the descriptors
//! that generated code has with it. Both versions of the protocol, v1 and v1alpha, are served.
//!
//! Anyone who can call the server can read what it serves. Where that should not be so, put an
//! interceptor before it, or leave it out.
//!
//! | module | holds |
//! | --- | --- |
//! | `reflection` | [`Reflection`]: what users add |
//! | `answers` | requests of one stream to responses |
//! | `index` | what there is, by name |
//! | `files`, `versions`, `circles` | files that have one name, and versions of one file |
//! | [`v1`], [`v1alpha`] | messages and clients, generated |
//!
//! This crate knows nothing of `trunkline` but its public API.

#![cfg_attr(docsrs, feature(doc_cfg))]

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;

mod answers;
mod circles;
mod files;
mod index;
mod reflection;
mod versions;

/// Messages and client of `grpc.reflection.v1`.
pub mod v1 {
    include!("../generated/grpc.reflection.v1.rs");
}

/// Messages and client of `grpc.reflection.v1alpha`, which is the same under another name.
pub mod v1alpha {
    include!("../generated/grpc.reflection.v1alpha.rs");
}

pub use reflection::Reflection;
