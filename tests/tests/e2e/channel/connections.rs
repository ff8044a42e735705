//! A channel has more than one connection to a busy server, and only as many as it needs.

use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use trunkline::limits::ChannelLimits;
use trunkline::{Channel, ChannelBuilder, Client, Code, Method, Raw, Response, Result, Server};
use trunkline_testkit::{Probe, channel_over, within};
use trunkline_tests::fixture::{Echo, UNARY, raw};

/// Long enough that what waits for it does not happen in a test.
const NEVER: Duration = Duration::from_secs(3600);

/// A server whose connections are told apart: each has a probe of its own.
struct Rig {
    address: String,
    probes: Vec<Probe>,
    seen: watch::Receiver<Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    accepted: usize,
    closed: usize,
}

/// Allows `streams` on each connection; serves as many as `served`, and hangs up on the rest.
async fn rig(streams: u32, served: usize) -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it listens").to_string();
    let probes: Vec<Probe> = (0..served).map(|_| Probe::new()).collect();
    let mut servers: Vec<Server> = probes
        .iter()
        .map(|probe| {
            let server = Server::new().add_service(probe.clone());
            server.max_concurrent_streams(streams)
        })
        .collect();
    servers.reverse();
    let (counts, seen) = watch::channel(Seen::default());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            counts.send_modify(|seen| seen.accepted += 1);
            let server = servers.pop();
            let counts = counts.clone();
            tokio::spawn(async move {
                if let Some(server) = server {
                    server.serve_connection(socket).await;
                }
                counts.send_modify(|seen| seen.closed += 1);
            });
        }
    });
    Rig {
        address,
        probes,
        seen,
    }
}

impl Rig {
    async fn client(&self, change: impl FnOnce(ChannelBuilder) -> ChannelBuilder) -> Client {
        let connecting = change(Channel::to(&self.address)).connect();
        Client::new(within("connecting", connecting).await.expect("it listens"))
    }

    /// Handlers that run, connection by connection.
    fn running(&self) -> Vec<usize> {
        self.probes.iter().map(|it| it.counts().running).collect()
    }

    fn called(&self) -> usize {
        self.probes.iter().map(|it| it.counts().called).sum()
    }

    async fn until_running(&self, wanted: &[usize]) {
        for (at, (probe, wanted)) in self.probes.iter().zip(wanted).enumerate() {
            let what = format!("{wanted} handlers on connection {at}");
            probe.until(&what, |it| it.running == *wanted).await;
        }
        assert_eq!(self.running(), wanted);
    }

    async fn until(&mut self, what: &str, is_wanted: impl FnMut(&Seen) -> bool) {
        let seen = within(what, self.seen.wait_for(is_wanted)).await;
        assert!(seen.is_ok(), "the accept loop runs");
    }

    fn seen(&self) -> Seen {
        *self.seen.borrow()
    }

    fn release(&self, handlers: usize) {
        for probe in &self.probes {
            probe.release(handlers);
        }
    }
}

fn call(client: &Client, method: Method) -> JoinHandle<Result<Response<Raw>>> {
    let call = client.unary::<Raw, Raw>(method, Raw("x".into()));
    tokio::spawn(call.into_future())
}

async fn ended(call: JoinHandle<Result<Response<Raw>>>) {
    let response = within("a call", call).await.expect("no panic");
    assert_eq!(response.expect("a response").0, "x");
}

#[tokio::test]
async fn calls_at_once_take_as_many_connections_as_they_need_and_the_channel_may_have() {
    for (max, calls, wanted) in [
        (0, 6, [2, 0, 0, 0, 0]),
        (1, 6, [2, 0, 0, 0, 0]),
        (2, 6, [2, 2, 0, 0, 0]),
        (4, 2, [2, 0, 0, 0, 0]),
        (4, 6, [2, 2, 2, 0, 0]),
        (4, 8, [2, 2, 2, 2, 0]),
        (4, 20, [2, 2, 2, 2, 0]),
    ] {
        let rig = rig(2, 5).await;
        let client = rig.client(|it| it.max_connections(max)).await;
        let calls: Vec<_> = (0..calls).map(|_| call(&client, Probe::HOLD)).collect();
        rig.until_running(&wanted).await;
        rig.release(calls.len());
        for call in calls {
            ended(call).await;
        }
        let peaks: Vec<_> = rig.probes.iter().map(|it| it.counts().peak).collect();
        assert_eq!(peaks, wanted, "at most {max} connections");
    }
}

#[tokio::test]
async fn a_service_config_sets_the_number_of_connections() {
    let config = r#"{"connectionScaling": {"maxConnectionsPerSubchannel": 2}}"#;
    // More and less than the limit of the channel.
    for max in [1, 4] {
        let rig = rig(1, 3).await;
        let client = rig
            .client(|it| it.max_connections(max).service_config(config))
            .await;
        let calls: Vec<_> = (0..6).map(|_| call(&client, Probe::HOLD)).collect();
        rig.until_running(&[1, 1, 0]).await;
        rig.release(calls.len());
        for call in calls {
            ended(call).await;
        }
        assert_eq!(rig.seen().accepted, 2, "{max}");
    }
}

#[tokio::test]
async fn a_channel_may_have_four_connections_by_default() {
    let rig = rig(1, 5).await;
    let client = rig.client(|it| it).await;
    let calls: Vec<_> = (0..20).map(|_| call(&client, Probe::HOLD)).collect();
    rig.until_running(&[1, 1, 1, 1, 0]).await;
    rig.release(calls.len());
    for call in calls {
        ended(call).await;
    }
    assert_eq!(rig.seen().accepted, 4);
}

#[tokio::test]
async fn a_connection_with_a_hundred_calls_is_busy_whatever_the_server_allows() {
    let mut rig = rig(1000, 2).await;
    let client = rig.client(|it| it.max_connections(2)).await;
    let mut calls: Vec<_> = (0..99).map(|_| call(&client, Probe::HOLD)).collect();
    rig.until_running(&[99, 0]).await;
    // The hundredth finds 99; those that follow it one by one do, too.
    for _ in 0..10 {
        ended(call(&client, Probe::ECHO)).await;
    }
    calls.push(call(&client, Probe::HOLD));
    rig.until_running(&[100, 0]).await;
    assert_eq!(rig.seen().accepted, 1);
    // The next finds 100, and does not wait for what it has asked for.
    ended(call(&client, Probe::ECHO)).await;
    assert_eq!(rig.probes[0].counts().called, 111);
    rig.until("a second connection", |it| it.accepted == 2)
        .await;
    rig.release(100);
    for call in calls {
        ended(call).await;
    }
}

#[tokio::test]
async fn calls_go_to_the_connection_with_the_fewest_calls() {
    let rig = rig(3, 2).await;
    let client = rig.client(|it| it.max_connections(2)).await;
    let mut first = JoinSet::new();
    for _ in 0..3 {
        first.spawn(ended(call(&client, Probe::HOLD)));
    }
    rig.until_running(&[3, 0]).await;
    let mut second = JoinSet::new();
    for wanted in [[3, 1], [3, 2]] {
        second.spawn(ended(call(&client, Probe::HOLD)));
        rig.until_running(&wanted).await;
    }
    // All of the first end, and those of the second stay.
    rig.probes[0].release(3);
    while let Some(done) = first.join_next().await {
        done.expect("no panic");
    }
    for wanted in [[1, 2], [2, 2], [3, 2], [3, 3]] {
        second.spawn(ended(call(&client, Probe::HOLD)));
        rig.until_running(&wanted).await;
    }
    rig.release(6);
    while let Some(done) = second.join_next().await {
        done.expect("no panic");
    }
}

#[tokio::test]
async fn a_further_connection_that_fails_harms_no_call_and_is_tried_again_after_a_pause() {
    for (pause, is_retried) in [(NEVER, false), (Duration::ZERO, true)] {
        let mut rig = rig(1, 1).await;
        let mut limits = ChannelLimits::default();
        limits.connection_retry_pause = pause;
        let client = rig.client(|it| it.with_limits(|it| *it = limits)).await;
        let mut calls = vec![call(&client, Probe::HOLD), call(&client, Probe::HOLD)];
        rig.until("the further connection, lost", |it| it.closed == 1)
            .await;
        if is_retried {
            // Each call that finds all busy may try.
            while rig.seen().accepted < 4 {
                calls.push(call(&client, Probe::HOLD));
                tokio::task::yield_now().await;
            }
        }
        calls.extend((0..20).map(|_| call(&client, Probe::HOLD)));
        rig.release(calls.len());
        let count = calls.len();
        for call in calls {
            ended(call).await;
        }
        assert_eq!(rig.called(), count);
        if !is_retried {
            // The failure is known by now: each second call finds all busy.
            for _ in 0..20 {
                for call in [call(&client, Probe::ECHO), call(&client, Probe::ECHO)] {
                    ended(call).await;
                }
            }
            assert_eq!(rig.seen().accepted, 2);
        }
    }
}

#[tokio::test]
async fn the_pause_is_not_for_the_only_connection() {
    let mut limits = ChannelLimits::default();
    limits.connection_retry_pause = NEVER;
    let bound = Server::new().add_service(Probe::new());
    let bound = bound.bind("127.0.0.1:0").await.expect("a free port");
    let address = bound.local_addr().to_string();
    let serving = tokio::spawn(bound.serve());
    let channel = Channel::to(&address)
        .with_limits(|it| *it = limits)
        .connect();
    let client = Client::new(within("connecting", channel).await.expect("it listens"));
    ended(call(&client, Probe::ECHO)).await;
    serving.abort();
    assert!(serving.await.is_err(), "it serves for ever");
    let refused = async {
        loop {
            let response = call(&client, Probe::ECHO).await.expect("no panic");
            let status = response.expect_err("nothing listens");
            assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
            if status.message().contains("cannot connect") {
                return;
            }
        }
    };
    within("the loss to be seen", refused).await;
    let bound = Server::new().add_service(Probe::new()).bind(&address).await;
    tokio::spawn(bound.expect("the port is free again").serve());
    let call = client.unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()));
    let response = within("a response", call.wait_for_ready().into_future()).await;
    assert_eq!(response.expect("a response").0, "x");
}

#[tokio::test]
async fn further_connections_that_no_call_takes_are_closed_and_the_last_one_stays() {
    let mut rig = rig(1, 7).await;
    let mut limits = ChannelLimits::default();
    limits.connection_idle_time = Duration::from_millis(20);
    let client = rig.client(|it| it.with_limits(|it| *it = limits)).await;
    let mut calls: Vec<_> = (0..4).map(|_| call(&client, Probe::HOLD)).collect();
    rig.until_running(&[1, 1, 1, 1, 0, 0, 0]).await;
    // The second keeps its call, and is looked at no later than those behind it.
    for at in [0, 2, 3] {
        rig.probes[at].release(1);
    }
    rig.until("the third and the fourth are closed", |it| it.closed == 2)
        .await;
    assert_eq!(rig.running(), [0, 1, 0, 0, 0, 0, 0]);
    // It still counts as one of four.
    calls.extend((0..4).map(|_| call(&client, Probe::HOLD)));
    rig.until_running(&[1, 1, 0, 0, 1, 1, 0]).await;
    rig.release(8);
    for call in calls {
        ended(call).await;
    }
    rig.until("all but the first are closed", |it| it.closed == 5)
        .await;
    assert_eq!(rig.seen().accepted, 6);
    let before = rig.probes[0].counts().called;
    ended(call(&client, Probe::ECHO)).await;
    assert_eq!(rig.probes[0].counts().called, before + 1);
}

#[tokio::test]
async fn all_connections_close_with_the_channel() {
    let mut rig = rig(1, 4).await;
    let client = rig.client(|it| it).await;
    let calls: Vec<_> = (0..4).map(|_| call(&client, Probe::HOLD)).collect();
    rig.until_running(&[1, 1, 1, 1]).await;
    drop(client);
    rig.release(1);
    for call in calls {
        ended(call).await;
    }
    rig.until("all are closed", |it| it.closed == 4).await;
}

#[tokio::test]
async fn a_connection_that_has_carried_its_calls_is_replaced_and_no_call_fails() {
    let rig = rig(100, 4).await;
    let mut limits = ChannelLimits::default();
    limits.max_calls_per_connection = 10;
    let client = rig.client(|it| it.with_limits(|it| *it = limits)).await;
    for _ in 0..40 {
        let call = client.unary::<Raw, Raw>(Probe::ECHO, Raw::default());
        within("a response", call.into_future()).await.expect("OK");
    }
    assert_eq!(rig.seen.borrow().accepted, 4);
}

#[test]
fn a_channel_outlives_the_runtime_that_it_has_connected_in() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let serving = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let rig = serving.block_on(rig(100, 2));
    let call = |channel: &Channel| {
        let client = Client::new(channel.clone());
        async move {
            let call = client.unary::<Raw, Raw>(Probe::ECHO, Raw::default());
            within("a response", call.into_future()).await
        }
    };
    let first = runtime();
    let channel = first.block_on(async {
        let channel = Channel::to(&rig.address).connect().await;
        let channel = channel.expect("a connection");
        call(&channel).await.expect("OK");
        channel
    });
    drop(first);
    runtime().block_on(call(&channel)).expect("OK");
}

/// A server that accepts and says nothing, and how many connections it has.
async fn silent() -> (String, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (accepted, count) = watch::channel(0);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            held.push(socket);
            accepted.send_replace(held.len());
        }
    });
    (address, count)
}

#[tokio::test]
async fn calls_that_wait_for_a_connection_share_one_attempt_when_it_fails() {
    let (address, connections) = silent().await;
    let channel = Channel::to(&address)
        .connect_timeout(Duration::from_millis(200))
        .connect_lazy()
        .unwrap();
    let client = Client::new(channel);
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        calls.spawn(client.unary::<Raw, Raw>(UNARY, raw("x")).into_future());
    }
    while let Some(ended) = within("a call", calls.join_next()).await {
        assert_eq!(ended.unwrap().unwrap_err().code(), Code::UNAVAILABLE);
    }
    assert_eq!(*connections.borrow(), 1);
}

/// A socket with a buffer of its own: what is written leaves when it is flushed, in its time.
struct Buffered {
    io: tokio::io::DuplexStream,
    buffer: Vec<u8>,
}

impl AsyncRead for Buffered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.buffer.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        while !this.buffer.is_empty() {
            let n = ready!(Pin::new(&mut this.io).poll_write(cx, &this.buffer))?;
            this.buffer.drain(..n);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_connection_that_buffers_is_flushed_to_the_end() {
    let (near, far) = tokio::io::duplex(1024);
    let (near, far) = (
        Buffered {
            io: near,
            buffer: Vec::new(),
        },
        Buffered {
            io: far,
            buffer: Vec::new(),
        },
    );
    tokio::spawn(Server::new().add_service(Echo).serve_connection(far));
    let channel = within("connecting", channel_over(near, ChannelLimits::default()))
        .await
        .unwrap();
    let client = Client::new(channel);
    for _ in 0..10 {
        let call = client.unary::<Raw, Raw>(UNARY, raw(vec![1; 50_000]));
        let response = within("a response", call.into_future()).await.unwrap();
        assert_eq!(response.0.len(), 50_000);
    }
}
