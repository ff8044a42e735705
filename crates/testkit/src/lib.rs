//! Tools for testing trunkline against peers that do not behave.
//!
//! | module | holds |
//! | --- | --- |
//! | `frame`, `fields` | HTTP/2 frames and header blocks, right or wrong, as they are written |
//! | `message` | the length-prefixed messages of gRPC, right or wrong |
//! | `raw_peer` | one end of an HTTP/2 connection that sends what it is told and notes what it gets |
//! | `raw_listener` | a port on which a raw peer plays the server |
//! | `scripted_server`, `script` | a raw server that treats each attempt of a call as a script says |
//! | `slow_link` | a TCP proxy that is as slow as a real network |
//! | `memory_net` | addresses at which servers are found, or not, without a network |
//! | `dns_server` | a DNS server whose names a test changes |
//! | `probe` | a service of ours whose handlers can be counted, held and made to fail |
//! | `authority` | certificates, made when the test runs |
//! | `pair` | a server and a channel of ours over a pipe in memory |
//!
//! Everything here panics when a test's expectation fails: it is made for tests alone. Does not
//! know: h2, which the code under test is built on.

mod authority;
mod dns_server;
mod fields;
mod frame;
mod memory_net;
mod message;
mod pair;
mod probe;
mod raw_listener;
mod raw_peer;
mod script;
mod scripted_server;
mod slow_link;

use std::time::Duration;

pub use authority::{Authority, Identity, Valid};
pub use dns_server::{DnsRecords, DnsServer};
pub use fields::Fields;
pub use frame::{Frame, error, flag, kind, setting};
pub use memory_net::{MemoryListener, MemoryNet};
pub use message::{gzip, message, message_flagged, messages, prefix};
pub use pair::{channel_over, pair};
pub use probe::{Counts, Probe};
pub use raw_listener::RawListener;
pub use raw_peer::{GoAway, Outcome, PREFACE, RawPeer, Received};
pub use scripted_server::{Attempt, ScriptedServer};
pub use slow_link::{End, SlowLink, Slowness};

/// How long a test may wait for what must come: long enough for a busy machine, and nothing that
/// passes ever waits for it to run out.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `future`, for [`PATIENCE`] at most.
///
/// # Panics
///
/// When it is not ready by then.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not done within {PATIENCE:?}"))
}
