//! Our ends of the interop tests: the server on a port, and the client at work.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::backend_metrics::{BackendMetrics, LoadLog};
use crate::cases::{self, InteropClient, ORCA_CASES, Soak};
use crate::test_service;
use tokio::runtime::Runtime;
use trunkline::tls::ClientTls;
use trunkline::{Channel, Server};

/// Serves until the test process ends; returns the port.
pub fn our_server() -> u16 {
    our_server_with(|server| server)
}

/// As [`our_server`], set up further.
pub fn our_server_with(change: impl FnOnce(Server) -> Server + Send + 'static) -> u16 {
    let (port, ports) = mpsc::channel();
    thread::spawn(move || {
        Runtime::new().expect("a runtime").block_on(async {
            let bound = change(test_service::server())
                .bind("127.0.0.1:0")
                .await
                .expect("a free port");
            let address = bound.local_addr().tcp().expect("a TCP address");
            port.send(address.port())
                .expect("the test waits for the port");
            bound.serve().await
        })
    });
    ports.recv().expect("the server starts")
}

/// Runs these of our client's cases against the server at this port, over one channel. Panics with a list of those that fail.
pub fn our_client_runs(port: u16, cases: &[&str]) {
    our_client_runs_with(port, cases, None);
}

/// As [`our_client_runs`], over TLS if there is any.
pub fn our_client_runs_with(port: u16, cases: &[&str], tls: Option<ClientTls>) {
    let target = format!("127.0.0.1:{port}");
    let mut soak = Soak::at(&target);
    soak.tls = tls.clone();
    // What counts here is that the calls end well, also on a machine that is busy.
    soak.max_latency = Duration::from_secs(20);
    soak.overall_timeout = Duration::from_secs(120);
    let failures: Vec<_> = Runtime::new().expect("a runtime").block_on(async {
        let loads = LoadLog::default();
        let mut builder = Channel::to(&target).policy(BackendMetrics(loads.clone()));
        if cases.iter().any(|case| ORCA_CASES.contains(case)) {
            builder = builder.use_policy(BackendMetrics::NAME);
        }
        if let Some(tls) = tls {
            builder = builder.tls(tls);
        }
        let channel = builder.connect().await.expect("the server listens");
        let client = InteropClient {
            channel,
            loads,
            soak,
        };
        let mut failures = Vec::new();
        for case in cases {
            if let Err(mismatch) = cases::run(case, &client).await {
                failures.push(format!("{case}: {mismatch}"));
            }
        }
        failures
    });
    assert!(failures.is_empty(), "{failures:#?}");
}
