//! Name lookups by the system.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::blocking::run_blocking;

/// Returns the addresses of `host` in the system's order. An IPv6 address can have a zone.
///
/// # Errors
///
/// Asks the system.
pub async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = host.to_owned();
    let ask = move || (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
    run_blocking("trunkline-lookup", ask).await?
}
