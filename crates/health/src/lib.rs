//! The standard health service, `grpc.health.v1.Health`: one line to add to a server.
//!
//! ```no_run
//! # async fn example(greeter: impl trunkline::Service) -> trunkline::Result<()> {
//! use trunkline::Server;
//! use trunkline_health::Health;
//!
//! Server::new().add_service(greeter).add_service(Health::new()).serve("127.0.0.1:50051").await
//! # }
//! ```
//!
//! That is all that a probe needs: the server is SERVING, and so is each of its services. To say
//! something else, keep a clone:
//!
//! ```no_run
//! # async fn example(greeter: impl trunkline::Service) -> trunkline::Result<()> {
//! # use trunkline::Server;
//! # use trunkline_health::Health;
//! let health = Health::new();
//! let server = Server::new().add_service(greeter).add_service(health.clone()).bind("127.0.0.1:50051").await?;
//! health.set_not_serving("helloworld.Greeter");
//! # server.serve().await
//! # }
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | `health` | [`Health`]: what users set, and how it ends |
//! | `statuses` | the statuses, by name, and the rules between them |
//! | `service` | Check, List and Watch |
//! | [`v1`] | messages and client, generated |
//!
//! This crate knows nothing of `trunkline` but its public API.

#![cfg_attr(docsrs, feature(doc_cfg))]

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;

mod health;
mod service;
mod statuses;

/// Messages and client of `grpc.health.v1`.
pub mod v1 {
    include!("../generated/grpc.health.v1.rs");
}

pub use health::Health;
pub use v1::HealthClient;
pub use v1::health_check_response::ServingStatus;
