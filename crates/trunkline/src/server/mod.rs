//! Types for servers beyond [`Server`](crate::Server): services, their methods, and the addresses to
//! listen on.
//!
//! Most programs need only [`Server`](crate::Server), which configures and runs a server. Services
//! without generated code also use [`Methods`].

pub(crate) mod bound;
pub(crate) mod builder;
mod encode;
mod handler_body;
mod intercepted;
mod lifecycle;
pub(crate) mod listen_addresses;
mod load_reports;
pub(crate) mod options;
pub(crate) mod raw_request;
mod response_end;
mod response_head;
pub(crate) mod router;
pub(crate) mod router_future;
pub(crate) mod router_handler;
mod running_handler;
pub(crate) mod service;
pub(crate) mod service_server;
#[cfg(feature = "signal")]
pub(crate) mod signal;
mod unknown_method;

pub use listen_addresses::ListenAddresses;
pub use load_reports::LoadReports;
pub use service::Methods;
pub use service_server::{ServiceMethods, ServiceServer, unimplemented};
pub use trunkline_transport::Listener;
