//! The harness of the end-to-end tests: finds, prepares and runs other implementations of gRPC and the tools that look at
//! the wire.
//!
//! - [`peers`]: which foreign programs there are, how to get one, and how to run it as a server or a client
//! - [`prepare`]: fetches and builds them, once for a target directory, into `target/peers`
//! - [`process`]: a child process that never outlives its test, with its output
//! - [`capture`]: what went over the wire, recorded by dumpcap and dissected by tshark
//! - [`frames`]: that dissection as a list of HTTP/2 frames with their headers and messages
//! - [`h2spec`]: the conformance suites of HTTP/2, for servers and for clients
//! - [`testing`]: the messages and services of the interop tests, from `proto/grpc/testing`
//! - [`test_service`]: the server of the interop tests, on `trunkline`
//! - [`cases`]: the client of the interop tests, on `trunkline`
//! - [`backend_metrics`]: the load balancing policy of the cases of load reports
//! - [`flags`]: the command lines of the two interop programs in `src/bin`
//! - [`interop_ends`]: both of these, run by a test
//! - [`fixture`]: what the end-to-end tests share: methods of the four kinds, servers, bounded waits
//! - [`scenarios`]: calls under service configs, with the script of their server and how they end, as a table
//! - [`tls_ends`]: the same over TLS
//! - `tokens`: JSON Web Tokens of service accounts, as the credential cases use them
//! - [`own_process`]: a test that needs a process of its own
//!
//! The first six block, and know nothing of `trunkline`: a peer is a name and a port. Asynchronous tests call them from a
//! thread of its own (`spawn_blocking`). They need Unix: signals, advisory locks, a loopback interface to listen to.
//!
//! A peer that this machine lacks gives `None`, after a line `SKIPPED: ...` on standard error, and the test passes. With
//! `TRUNKLINE_REQUIRE_PEERS` set to anything but `0`, it is a failure instead. With `TRUNKLINE_SKIP_PEERS`, no peer is looked
//! for, and all are skipped.

pub mod backend_metrics;
#[cfg(unix)]
pub mod capture;
pub mod cases;
pub mod fixture;
pub mod flags;
#[cfg(unix)]
pub mod frames;
#[cfg(unix)]
pub mod h2spec;
pub mod interop_ends;
#[cfg(unix)]
pub mod nginx;
pub mod own_process;
#[cfg(unix)]
pub mod peers;
#[cfg(unix)]
pub mod prepare;
#[cfg(unix)]
pub mod process;
pub mod scenarios;
pub mod test_service;
pub mod tls_ends;
mod tokens;

/// The messages and services of the interop tests.
#[allow(missing_debug_implementations, reason = "generated")]
pub mod testing {
    trunkline::include_proto!("../proto/grpc/testing/test.proto");
}
