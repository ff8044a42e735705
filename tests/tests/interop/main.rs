//! `trunkline` with other implementations of gRPC and with the tools that look at the wire.

mod calls;
mod conformance;
mod credentials;
mod header_lists;
mod nginx;
mod peers;
mod route_guide;
mod same_names;
mod scenarios;
mod schema;
mod service_configs;
mod standard_services;
mod tls;
mod wire;
