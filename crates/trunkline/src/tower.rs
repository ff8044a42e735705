//! Types for tower services that take `http::Request` and return `http::Response`.
//!
//! [`Server::layer`](crate::Server::layer) adds layers around services, [`Router`](crate::Router) is a tower service,
//! and [`Channel::new`](crate::Channel::new) makes a channel from a tower service. All of them use `http::Request` and
//! `http::Response` with a [`Body`].

pub use trunkline_transport::Body;

pub use crate::http_service::LayeredService;
#[cfg(feature = "server")]
pub use crate::server::router_future::RouterFuture;
