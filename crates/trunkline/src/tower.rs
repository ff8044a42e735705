//! Types for tower layers and services, which process HTTP requests and responses.
//!
//! [`Server::layer`](crate::Server::layer) adds layers around the services of a server, [`Router`](crate::Router) is a
//! server as a tower service, and [`Channel::new`](crate::Channel::new) returns a channel that calls a tower service. All
//! of them use `http::Request` and `http::Response` with a [`Body`].

pub use trunkline_transport::Body;

pub use crate::http_service::LayeredService;
#[cfg(feature = "server")]
pub use crate::server::router_future::RouterFuture;
