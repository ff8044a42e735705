//! The standard health service, `grpc.health.v1.Health`.
//!
//! Add it to a server with one line:
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
//! The server and each of its services now report SERVING. To change a status, keep a clone:
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
//! | `health` | [`Health`], the handle that sets statuses, and the shutdown |
//! | `statuses` | the statuses by name, and how they depend on each other |
//! | `service` | Check, List and Watch |
//! | [`v1`] | messages and client, generated |
//!
//! This crate uses only the public API of `trunkline`.

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
pub use v1::health_check_response::ServingStatus;
#[cfg(feature = "client")]
pub use v1::{HealthCheckRequest, HealthCheckResponse, HealthClient};
