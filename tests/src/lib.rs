//! The harness of the end-to-end tests: finds, prepares and runs other implementations of gRPC and the tools that look at
//! the wire.
//!
//! - [`peers`]: which foreign programs there are, how to get one, and how to run it as a server or a client
//! - [`prepare`]: fetches and builds them, once for a target directory, into `target/peers`
//! - [`process`]: a child process that never outlives its test, with its output
//! - [`capture`]: what went over the wire, recorded by dumpcap and dissected by tshark
//! - [`frames`]: that dissection as a list of HTTP/2 frames with their headers and messages
//! - [`h2spec`]: the conformance suites of HTTP/2, for servers and for clients
//!
//! Everything here blocks; asynchronous tests call it from a thread of its own (`spawn_blocking`).
//!
//! A peer that this machine lacks gives `None`, after a line `SKIPPED: ...` on standard error, and the test passes. With
//! `TRUNKLINE_REQUIRE_PEERS` set to anything but `0`, it is a failure instead.
//!
//! It does not know the API of `trunkline`: a peer is an address and a name.

// The peers are run with Unix means: signals, advisory locks, a loopback interface to listen to.
#![cfg(unix)]

pub mod capture;
pub mod frames;
pub mod h2spec;
pub mod peers;
pub mod prepare;
pub mod process;
