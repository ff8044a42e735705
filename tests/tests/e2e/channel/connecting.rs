//! The channel: where it connects, when it does so again, which server a call goes to. The clock is
//! stopped and there is no network: no time passes but what the channel waits for.

use std::future::{IntoFuture, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use trunkline::channel::{ConnectivityState, Targets};
use trunkline::limits::ChannelLimits;
use trunkline::{
    Address, Channel, ChannelBuilder, Client, Code, Method, Raw, Response, Result, Status,
};
use trunkline_testkit::{Fields, Frame, MemoryNet, Probe, error, message, setting, within};

use ConnectivityState::{Connecting, Idle, Ready, Shutdown, TransientFailure};

const A: &str = "10.0.0.1:1";
const B: &str = "10.0.0.2:1";
const C: &str = "10.0.0.3:1";

fn limits(change: impl FnOnce(&mut ChannelLimits)) -> ChannelLimits {
    let mut limits = ChannelLimits::default();
    limits.connect_backoff_jitter = 0.0;
    change(&mut limits);
    limits
}

fn to(net: &MemoryNet, targets: impl Into<Targets>) -> ChannelBuilder {
    let builder = Channel::to(targets).connector(net.connector());
    builder.with_limits(|it| *it = limits(|_| ()))
}

fn lazy(builder: ChannelBuilder) -> (Channel, Client) {
    let channel = builder.connect_lazy().expect("targets that can be read");
    (channel.clone(), Client::new(channel))
}

async fn echo(client: &Client) -> Result<Response<Raw>> {
    let call = client.unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()));
    within("a call", call.into_future()).await
}

fn spawn(client: &Client, method: Method) -> JoinHandle<Result<Response<Raw>>> {
    let call = client.unary::<Raw, Raw>(method, Raw("x".into()));
    tokio::spawn(call.into_future())
}

fn called(probe: &Probe) -> usize {
    probe.counts().called
}

/// Lets everything happen that needs no time.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

fn rounded(times: Vec<f64>) -> Vec<f64> {
    times
        .iter()
        .map(|it| (it * 100.0).round() / 100.0)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn attempts_follow_the_back_off_whatever_calls_are_made_and_calls_fail_with_the_reason() {
    let net = MemoryNet::default();
    let (channel, client) = lazy(to(&net, A));
    assert_eq!(channel.state(), Idle);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(600) {
        let status = echo(&client).await.expect_err("nothing is there");
        assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
        assert!(
            status.message().contains("is the server running"),
            "{status}"
        );
        assert_eq!(channel.state(), TransientFailure);
        pass(0.2).await;
    }
    let wanted = [
        0.0, 1.0, 2.6, 5.16, 9.26, 15.81, 26.3, 43.07, 69.92, 112.87, 181.59, 291.54, 411.54,
        531.54,
    ];
    assert_eq!(rounded(net.dial_times()), wanted);
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_counted_from_the_beginning_of_an_attempt_and_one_that_took_longer_has_none() {
    let net = MemoryNet::default();
    net.blackhole(A);
    let timeout = |limits: &mut ChannelLimits| limits.connect_timeout = Duration::from_secs(2);
    let (_channel, client) = lazy(to(&net, A).with_limits(|it| *it = limits(timeout)));
    let status = echo(&client).await.expect_err("nothing answers");
    assert!(
        status.message().contains("no response within 2s"),
        "{status}"
    );
    pass(12.0).await;
    assert_eq!(rounded(net.dial_times()), [0.0, 2.0, 4.0, 6.56, 10.66]);
}

#[tokio::test(start_paused = true)]
async fn the_back_off_begins_anew_when_there_was_a_connection() {
    let (net, probe) = (MemoryNet::default(), Probe::new());
    let (channel, client) = lazy(to(&net, A));
    echo(&client).await.expect_err("nothing is there");
    pass(9.5).await;
    net.serve(A, &probe);
    let mut watch = channel.watch_state();
    within("the next attempt", watch.until(Ready)).await;
    echo(&client).await.expect("a response");
    let before = net.dial_times();
    assert_eq!(rounded(before.clone()), [0.0, 1.0, 2.6, 5.16, 9.26, 15.81]);
    net.refuse(A);
    settle().await;
    assert_eq!(channel.state(), Idle, "pick_first waits for a call");
    echo(&client).await.expect_err("nothing is there");
    pass(3.0).await;
    let after: Vec<_> = net.dial_times()[before.len()..].to_vec();
    let after = after.iter().map(|it| it - after[0]).collect();
    assert_eq!(rounded(after), [0.0, 1.0, 2.6]);
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_the_back_off_begins_it_once_more_and_leaves_no_timer_behind() {
    let net = MemoryNet::default();
    let (channel, client) = lazy(to(&net, A));
    echo(&client).await.expect_err("nothing is there");
    pass(6.0).await;
    channel.reset_backoff();
    pass(1.5).await;
    channel.reset_backoff();
    pass(20.0).await;
    let wanted = [
        0.0, 1.0, 2.6, 5.16, 6.0, 7.0, 7.5, 8.5, 10.1, 12.66, 16.76, 23.31,
    ];
    assert_eq!(rounded(net.dial_times()), wanted);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_clients_of_a_server_that_was_down_do_not_come_back_together() {
    let (net, probe) = (MemoryNet::default(), Probe::new());
    let channels: Vec<_> = (0..200)
        .map(|_| lazy(to(&net, A).with_limits(|it| *it = ChannelLimits::default())).0)
        .collect();
    channels.iter().for_each(Channel::request_connection);
    pass(60.0).await;
    let down = net.dials().len();
    // Nine or ten of each in 60 s: those at 0, 1, 2.6, 5.2, 9.3, 15.8, 26.3 and 43 s, and later ones
    // by chance.
    assert!((200 * 8..200 * 10).contains(&down), "{down}");
    net.serve(A, &probe);
    for channel in &channels {
        let mut watch = channel.watch_state();
        let ready = tokio::time::timeout(Duration::from_secs(60), watch.until(Ready));
        assert_eq!(ready.await, Ok(Ready));
    }
    let up = net.dial_times()[down..].to_vec();
    assert_eq!(up.len(), 200, "each connects once");
    let mut seconds = std::collections::BTreeMap::<u64, usize>::new();
    for at in up {
        *seconds.entry(at as u64).or_default() += 1;
    }
    let peak = seconds.values().max().copied().unwrap_or_default();
    assert!(peak <= 40, "in one second: {seconds:?}");
}

#[tokio::test(start_paused = true)]
async fn the_first_calls_wait_for_the_first_attempt_and_share_it() {
    let (net, probe) = (MemoryNet::default(), Probe::new());
    net.serve(A, &probe);
    let (_channel, client) = lazy(to(&net, A));
    let calls: Vec<_> = (0..50).map(|_| spawn(&client, Probe::ECHO)).collect();
    for call in calls {
        within("a call", call).await.expect("no panic").expect("OK");
    }
    assert_eq!((net.dials().len(), called(&probe)), (1, 50));
}

#[tokio::test(start_paused = true)]
async fn to_connect_fails_at_once_where_nothing_is() {
    let net = MemoryNet::default();
    let began = Instant::now();
    let status = to(&net, A).connect().await.expect_err("nothing is there");
    assert_eq!(status.code(), Code::UNAVAILABLE);
    assert_eq!(began.elapsed(), Duration::ZERO);
    let status = to(&net, [A, B, C]).connect().await.expect_err("nothing");
    assert!(
        status.message().starts_with("none of 3 addresses"),
        "{status}"
    );
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_ready_waits_until_there_is_a_server_or_its_deadline() {
    let (net, probe) = (MemoryNet::default(), Probe::new());
    let (_channel, client) = lazy(to(&net, A));
    let waiting = client.unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()));
    let waiting = tokio::spawn(waiting.wait_for_ready().into_future());
    let ended = client.unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()));
    let ended = ended.wait_for_ready().timeout(Duration::from_secs(4));
    let status = within("the deadline", ended.into_future()).await;
    let status = status.expect_err("the deadline passes first");
    assert_eq!(status.code(), Code::DEADLINE_EXCEEDED);
    for words in [
        "while the call waited for a connection",
        "cannot connect to 10.0.0.1:1",
        "is the server running",
    ] {
        assert!(status.message().contains(words), "{status}");
    }
    net.serve(A, &probe);
    within("the next attempt", waiting)
        .await
        .expect("no panic")
        .expect("OK");
    assert_eq!(rounded(net.dial_times()), [0.0, 1.0, 2.6, 5.16]);
}

#[tokio::test(start_paused = true)]
async fn addresses_that_say_nothing_hold_up_the_next_one_for_250_ms_each() {
    for (first, second, wanted) in [
        ("serves", "refuses", 0.0),
        ("refuses", "refuses", 0.0),
        ("blackhole", "refuses", 0.25),
        ("refuses", "blackhole", 0.25),
        ("blackhole", "blackhole", 0.5),
        // HTTP/2 has to be there as well.
        ("silent", "silent", 0.5),
        ("panics", "panics", 0.0),
    ] {
        let (net, probe) = (MemoryNet::default(), Probe::new());
        let mut listeners = Vec::new();
        for (address, what) in [(A, first), (B, second)] {
            match what {
                "serves" => net.serve(address, &probe),
                "blackhole" => net.blackhole(address),
                "panics" => net.panics(address),
                "silent" => listeners.push(net.listen(address)),
                _ => {}
            }
        }
        net.serve(C, &probe);
        let began = Instant::now();
        let (_channel, client) = lazy(to(&net, [A, B, C]));
        echo(&client).await.expect("a response");
        assert_eq!(began.elapsed().as_secs_f64(), wanted, "{first}, {second}");
        pass(10.0).await;
        let dials = net.dials().len();
        assert_eq!(dials, if first == "serves" { 1 } else { 3 }, "{first}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_pick_first_all_calls_go_to_the_first_that_is_there_and_move_when_it_is_lost() {
    let (net, a, b) = (MemoryNet::default(), Probe::new(), Probe::new());
    net.serve(A, &a);
    net.serve(B, &b);
    let (_channel, client) = lazy(to(&net, [A, B]));
    for _ in 0..10 {
        echo(&client).await.expect("a response");
    }
    assert_eq!((called(&a), called(&b)), (10, 0));
    net.refuse(A);
    settle().await;
    for _ in 0..10 {
        echo(&client).await.expect("a response");
    }
    assert_eq!((called(&a), called(&b)), (10, 10));
    // It stays where it is, although the first is back.
    net.serve(A, &a);
    pass(300.0).await;
    echo(&client).await.expect("a response");
    assert_eq!((called(&a), called(&b)), (10, 11));
}

#[tokio::test(start_paused = true)]
async fn with_round_robin_calls_take_all_addresses_in_turn_and_pass_over_those_that_are_lost() {
    let net = MemoryNet::default();
    let probes: Vec<_> = [A, B, C].map(|address| (address, Probe::new())).into();
    for (address, probe) in &probes {
        net.serve(address, probe);
    }
    let counts = || -> Vec<_> { probes.iter().map(|(_, probe)| called(probe)).collect() };
    let (channel, client) = lazy(to(&net, [A, B, C, A]).round_robin());
    channel.request_connection();
    settle().await;
    for _ in 0..30 {
        echo(&client).await.expect("a response");
    }
    assert_eq!(counts(), [10, 10, 10]);
    net.refuse(B);
    settle().await;
    for _ in 0..20 {
        echo(&client).await.expect("a response");
    }
    assert_eq!(counts(), [20, 10, 20]);
    assert_eq!(channel.state(), Ready);
    // The lost one is tried again, by itself.
    net.serve(B, &probes[1].1);
    pass(1.1).await;
    for _ in 0..30 {
        echo(&client).await.expect("a response");
    }
    assert_eq!(counts(), [30, 20, 30]);
    for address in [A, B, C] {
        net.refuse(address);
    }
    settle().await;
    let status = echo(&client).await.expect_err("nothing is there");
    assert!(
        status.message().starts_with("none of 3 addresses"),
        "{status}"
    );
    assert_eq!(channel.state(), TransientFailure);
    net.serve(C, &probes[2].1);
    let mut watch = channel.watch_state();
    within("the next attempt", watch.until(Ready)).await;
    echo(&client).await.expect("a response");
    assert_eq!(counts(), [30, 20, 31]);
}

#[tokio::test(start_paused = true)]
async fn a_busy_address_gets_further_connections_with_round_robin_too() {
    let net = MemoryNet::default();
    let (a, b) = (Probe::new(), Probe::new());
    net.serve(A, &a);
    net.serve(B, &b);
    let (channel, client) = lazy(to(&net, [A, B]).round_robin().max_connections(2));
    channel.request_connection();
    settle().await;
    // A server allows 100 on a connection: 200 are busy, and 400 need four.
    let calls: Vec<_> = (0..400).map(|_| spawn(&client, Probe::HOLD)).collect();
    a.until("half of them", |it| it.running == 200).await;
    b.until("the other half", |it| it.running == 200).await;
    assert_eq!(net.dials().len(), 4);
    a.release(200);
    b.release(200);
    for call in calls {
        within("a call", call).await.expect("no panic").expect("OK");
    }
}

#[tokio::test(start_paused = true)]
async fn states_are_watched_from_idle_to_shutdown() {
    let (net, probe) = (MemoryNet::default(), Probe::new());
    let (channel, client) = lazy(to(&net, A));
    let mut watch = channel.watch_state();
    let seen = Arc::new(Mutex::new(vec![watch.state()]));
    let seeing = seen.clone();
    let watching = tokio::spawn(async move {
        loop {
            let state = watch.changed().await;
            seeing.lock().expect("no panic").push(state);
            if state == Shutdown {
                return watch.state();
            }
        }
    });
    channel.request_connection();
    settle().await;
    net.serve(A, &probe);
    pass(2.0).await;
    net.refuse(A);
    settle().await;
    net.serve(A, &probe);
    echo(&client).await.expect("a response");
    drop((channel, client));
    assert_eq!(
        within("the end", watching).await.expect("no panic"),
        Shutdown
    );
    let seen = seen.lock().expect("no panic").clone();
    let wanted = [
        Idle,
        Connecting,
        TransientFailure,
        Ready,
        Idle,
        Connecting,
        Ready,
        Shutdown,
    ];
    assert_eq!(seen, wanted);
    let service = Channel::in_process(trunkline::Server::new());
    assert_eq!(
        (service.state(), service.watch_state().state()),
        (Ready, Ready)
    );
    assert_eq!(TransientFailure.to_string(), "TRANSIENT_FAILURE");
}

#[tokio::test(start_paused = true)]
async fn a_channel_without_calls_falls_idle_and_one_with_calls_does_not() {
    let (net, probe) = (MemoryNet::default(), Probe::new());
    net.serve(A, &probe);
    for round_robin in [false, true] {
        let before = net.dials().len();
        let builder = to(&net, A);
        let builder = if round_robin {
            builder.round_robin()
        } else {
            builder
        };
        let (channel, client) = lazy(builder);
        let minutes = |minutes: u64| tokio::time::sleep(Duration::from_secs(minutes * 60));
        echo(&client).await.expect("a response");
        // One call in each half hour keeps it up.
        for _ in 0..5 {
            minutes(29).await;
            echo(&client).await.expect("a response");
            assert_eq!(channel.state(), Ready);
        }
        // So does a call that goes on.
        let held = spawn(&client, Probe::HOLD);
        minutes(180).await;
        assert_eq!(channel.state(), Ready);
        probe.release(1);
        held.await.expect("no panic").expect("a response");
        minutes(61).await;
        assert_eq!(channel.state(), Idle);
        assert_eq!(net.dials().len(), before + 1);
        minutes(600).await;
        assert_eq!((channel.state(), net.dials().len()), (Idle, before + 1));
        echo(&client).await.expect("a response");
        assert_eq!((channel.state(), net.dials().len()), (Ready, before + 2));
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_end_when_the_channel_falls_idle_or_is_gone() {
    let net = MemoryNet::default();
    let idle = |limits: &mut ChannelLimits| limits.channel_idle_time = Duration::from_secs(100);
    let (channel, client) = lazy(to(&net, A).with_limits(|it| *it = limits(idle)));
    echo(&client).await.expect_err("nothing is there");
    pass(1000.0).await;
    assert_eq!(channel.state(), Idle);
    let before = net.dials().len();
    // As many as there are in 200 s: the call that found nothing was one.
    assert_eq!(before, 11);
    echo(&client).await.expect_err("nothing is there");
    drop((channel, client));
    pass(1000.0).await;
    assert_eq!(net.dials().len(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_every_connection_is_asked_a_few_times_and_then_by_the_back_off() {
    let net = MemoryNet::default();
    let mut listener = net.listen(A);
    tokio::spawn(async move {
        loop {
            let mut peer = listener.accept().await;
            let goaway = Frame::goaway(0, error::NO_ERROR, "not now");
            peer.write(&[goaway]).await;
        }
    });
    let (channel, client) = lazy(to(&net, A));
    for _ in 0..10 {
        let status = echo(&client).await.expect_err("it never serves");
        assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    }
    assert_eq!(net.dials().len(), 3);
    assert_eq!(channel.state(), TransientFailure);
    pass(6.0).await;
    assert_eq!(rounded(net.dial_times()), [0.0, 0.0, 0.0, 1.0, 2.6, 5.16]);
}

/// A resolver that gives what was last set, and counts.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<(Vec<&'static str>, usize)>>);

impl Names {
    fn set(&self, addresses: &[&'static str]) {
        self.lock().0 = addresses.to_vec();
    }

    fn asked(&self) -> usize {
        self.lock().1
    }

    /// It is poisoned once, on purpose.
    fn lock(&self) -> MutexGuard<'_, (Vec<&'static str>, usize)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl trunkline::channel::Lookup for Names {
    async fn resolve(&self, host: &str, port: u16) -> std::io::Result<Vec<Address>> {
        let mut names = self.lock();
        names.1 += 1;
        assert_eq!((host, port), ("name", 7));
        match names.0[..] {
            ["fails"] => Err(std::io::Error::other("no such name")),
            ["panics"] => panic!("in the resolver"),
            _ => {
                let parsed = names.0.iter().map(|it| it.parse().expect("an address"));
                Ok(parsed.map(Address::Tcp).collect())
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_resolved_again_when_a_connection_is_lost_and_not_more_often_than_every_30_s() {
    let (net, names) = (MemoryNet::default(), Names::default());
    let (a, b) = (Probe::new(), Probe::new());
    net.serve(A, &a);
    net.serve(B, &b);
    names.set(&[A]);
    let (_channel, client) = lazy(to(&net, "name:7").lookup(names.clone()));
    echo(&client).await.expect("a response");
    assert_eq!(names.asked(), 1);
    // The name moves, and the old server refuses, at once: it takes the 30 s.
    names.set(&[B]);
    net.refuse(A);
    settle().await;
    let began = Instant::now();
    echo(&client).await.expect_err("the old address");
    let waiting = client.unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()));
    tokio::time::timeout(
        Duration::from_secs(40),
        waiting.wait_for_ready().into_future(),
    )
    .await
    .expect("in time")
    .expect("a response");
    assert_eq!((began.elapsed().as_secs(), names.asked()), (30, 2));
    // Later it takes no time.
    pass(100.0).await;
    net.serve(A, &a);
    names.set(&[A]);
    net.refuse(B);
    settle().await;
    echo(&client).await.expect("a response");
    assert_eq!((called(&a), called(&b), names.asked()), (2, 1, 3));
}

#[tokio::test(start_paused = true)]
async fn the_same_addresses_in_another_order_are_nothing_new_to_the_back_off() {
    let (net, names) = (MemoryNet::default(), Names::default());
    names.set(&[A, B]);
    let (_channel, client) = lazy(to(&net, "name:7").lookup(names.clone()));
    echo(&client).await.expect_err("nothing is there");
    for at in 1..30 {
        pass(10.0).await;
        names.set(if at % 2 == 0 { &[A, B] } else { &[B, A] });
    }
    assert!(names.asked() >= 5, "{}", names.asked());
    // Those at 0 s to 290 s: as if the name had not been asked again.
    assert_eq!(net.dials().len(), 2 * 11);
    let last = net.dials().last().map(|(at, _)| at.as_secs());
    assert_eq!(last, Some(181));
}

#[tokio::test(start_paused = true)]
async fn connections_to_addresses_that_a_name_still_has_stay_and_calls_on_others_end() {
    for round_robin in [false, true] {
        let (net, names) = (MemoryNet::default(), Names::default());
        let (a, b, c) = (Probe::new(), Probe::new(), Probe::new());
        // The first call has no choice, and goes to A.
        for (address, probe) in [(A, &a), (C, &c)] {
            net.serve(address, probe);
        }
        names.set(&[A, B]);
        let builder = to(&net, "name:7").lookup(names.clone());
        let builder = if round_robin {
            builder.round_robin()
        } else {
            builder
        };
        let (channel, client) = lazy(builder);
        let held = spawn(&client, Probe::HOLD);
        a.until("a call", |it| it.running == 1).await;
        settle().await;
        let before = net.dials().len();
        assert_eq!(before, if round_robin { 2 } else { 1 });
        net.serve(B, &b);
        // Something is lost, so that the name is resolved again: B, or a further name.
        pass(61.0).await;
        names.set(&[C, A]);
        net.refuse(B);
        if !round_robin {
            // Nothing is lost with pick_first: a call that is cut off does it.
            net.refuse(A);
            net.serve(A, &a);
            assert_eq!(
                held.await.expect("no panic").unwrap_err().code(),
                Code::UNAVAILABLE
            );
            echo(&client).await.expect("a response");
            settle().await;
            assert_eq!((called(&c), called(&a)), (1, 1), "in the new order");
            continue;
        }
        settle().await;
        for _ in 0..10 {
            echo(&client).await.expect("a response");
        }
        assert_eq!((called(&a), called(&b), called(&c)), (6, 0, 5));
        let dials = net.dials()[before..].to_vec();
        let to_a = dials.iter().filter(|(_, to)| to.to_string() == A).count();
        assert_eq!(to_a, 0, "the connection to A stays: {dials:?}");
        a.release(1);
        held.await.expect("no panic").expect("a response");
        assert_eq!(channel.state(), Ready);
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_does_not_resolve_is_tried_again_and_one_that_did_keeps_its_addresses() {
    for failure in ["fails", "panics"] {
        let (net, names, probe) = (MemoryNet::default(), Names::default(), Probe::new());
        net.serve(A, &probe);
        names.set(&[failure]);
        let (channel, client) = lazy(to(&net, "name:7").lookup(names.clone()));
        let status = echo(&client).await.expect_err("it does not resolve");
        assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
        let words = if failure == "fails" {
            "does not resolve: no such name"
        } else {
            "panicked"
        };
        assert!(status.message().contains(words), "{status}");
        assert_eq!(channel.state(), TransientFailure);
        names.set(&[A]);
        let waiting = client.unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()));
        let began = Instant::now();
        within("ready", waiting.wait_for_ready().into_future())
            .await
            .expect("a response");
        assert_eq!((began.elapsed().as_secs_f64(), names.asked()), (1.0, 2));
        pass(60.0).await;
        names.set(&[failure]);
        net.refuse(A);
        settle().await;
        net.serve(A, &probe);
        echo(&client).await.expect("the address that it had");
        assert_eq!(names.asked(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_is_not_dead_after_a_panic_in_its_connector() {
    let (net, probe) = (MemoryNet::default(), Probe::new());
    net.panics(A);
    let (_channel, client) = lazy(to(&net, A));
    let status = echo(&client).await.expect_err("a panic");
    assert!(
        status.message().contains("the connector has panicked"),
        "{status}"
    );
    net.serve(A, &probe);
    pass(1.1).await;
    echo(&client).await.expect("a response");
}

#[tokio::test(start_paused = true)]
async fn no_more_addresses_are_used_than_the_limit_says() {
    for (max, wanted) in [(1, 1), (2, 2), (3, 3), (4, 3)] {
        let (net, names, probe) = (MemoryNet::default(), Names::default(), Probe::new());
        for address in [A, B, C] {
            net.serve(address, &probe);
        }
        names.set(&[A, B, C]);
        let builder = to(&net, "name:7").lookup(names).round_robin();
        let (channel, _client) =
            lazy(builder.with_limits(|it| *it = limits(|it| it.max_addresses = max)));
        channel.request_connection();
        settle().await;
        assert_eq!(net.dials().len(), wanted, "max_addresses {max}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_authority_is_that_of_the_target_for_which_the_connection_was_made() {
    for (authority, wanted) in [(None, [A, B]), (Some("own:9"), ["own:9", "own:9"])] {
        let net = MemoryNet::default();
        let mut listeners = [net.listen(A), net.listen(B)];
        let mut builder = to(&net, [A, B]).round_robin();
        if let Some(authority) = authority {
            builder = builder.authority(authority);
        }
        let (channel, client) = lazy(builder);
        channel.request_connection();
        let mut peers = Vec::new();
        for listener in &mut listeners {
            peers.push(listener.accept().await);
        }
        settle().await;
        let calls = [spawn(&client, Probe::ECHO), spawn(&client, Probe::ECHO)];
        for (peer, wanted) in peers.iter_mut().zip(wanted) {
            let stream = peer.next_full_request().await;
            let head = peer.stream(stream).head.expect("a head");
            assert_eq!(head.text(":authority").as_deref(), Some(wanted));
        }
        calls.iter().for_each(JoinHandle::abort);
    }
}

/// A whole response.
fn response(stream: u32) -> Vec<Frame> {
    vec![
        Frame::headers(stream, &Fields::response()),
        Frame::data(stream, message(b"x")),
        Frame::headers(stream, &Fields::trailers("0")).ending(),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_stream_takes_the_first_that_is_free_on_any_connection() {
    for free in [0, 1] {
        let net = MemoryNet::default();
        let mut listener = net.listen(A);
        let one = [(setting::MAX_CONCURRENT_STREAMS, 1)];
        let (_channel, client) = lazy(to(&net, A).max_connections(2));
        let mut calls = vec![spawn(&client, Probe::ECHO), spawn(&client, Probe::ECHO)];
        let mut peers = [
            listener.accept_with(&one).await,
            listener.accept_with(&one).await,
        ];
        let streams = [
            peers[0].next_full_request().await,
            peers[1].next_full_request().await,
        ];
        calls.extend([spawn(&client, Probe::ECHO), spawn(&client, Probe::ECHO)]);
        settle().await;
        // The other connection stays full for ever: both calls that wait are made on this one.
        peers[free].write(&response(streams[free])).await;
        for _ in 0..2 {
            let stream = peers[free].next_full_request().await;
            peers[free].write(&response(stream)).await;
        }
        settle().await;
        assert_eq!(calls.iter().filter(|call| call.is_finished()).count(), 3);
        calls.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_stream_gets_a_further_connection_when_the_pause_is_over() {
    let net = MemoryNet::default();
    let mut listener = net.listen(A);
    let one = [(setting::MAX_CONCURRENT_STREAMS, 1)];
    let (_channel, client) = lazy(to(&net, A).max_connections(2));
    let first = spawn(&client, Probe::ECHO);
    let mut peer = listener.accept_with(&one).await;
    peer.next_full_request().await;
    let second = spawn(&client, Probe::ECHO);
    drop(listener.accept_silent().await);
    settle().await;
    assert_eq!(net.dials().len(), 2, "the further one is lost");
    let mut peer = listener.accept_with(&one).await;
    let stream = peer.next_full_request().await;
    peer.write(&response(stream)).await;
    within("the call", second)
        .await
        .expect("no panic")
        .expect("a response");
    assert_eq!(rounded(net.dial_times()), [0.0, 0.0, 1.0]);
    first.abort();
}

#[tokio::test(start_paused = true)]
async fn calls_that_stop_waiting_for_a_stream_leave_no_trace() {
    let net = MemoryNet::default();
    let mut listener = net.listen(A);
    let one = [(setting::MAX_CONCURRENT_STREAMS, 1)];
    let few = |limits: &mut ChannelLimits| limits.max_queued_calls = 1000;
    let (_channel, client) = lazy(
        to(&net, A)
            .with_limits(|it| *it = limits(few))
            .max_connections(1),
    );
    let first = spawn(&client, Probe::ECHO);
    let mut peer = listener.accept_with(&one).await;
    let stream = peer.next_full_request().await;
    for _ in 0..5 {
        let waiting: Vec<_> = (0..999).map(|_| spawn(&client, Probe::ECHO)).collect();
        settle().await;
        let status: Status = echo(&client).await.expect_err("one too many");
        assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED, "{status}");
        waiting.iter().for_each(JoinHandle::abort);
        for call in waiting {
            assert!(call.await.expect_err("aborted").is_cancelled());
        }
    }
    peer.write(&response(stream)).await;
    within("the call", first)
        .await
        .expect("no panic")
        .expect("a response");
    let next = spawn(&client, Probe::ECHO);
    let stream = peer.next_full_request().await;
    assert_eq!(stream, 3, "nothing was sent for those that waited");
    peer.write(&response(stream)).await;
    within("the call", next)
        .await
        .expect("no panic")
        .expect("a response");
}

#[tokio::test(start_paused = true)]
async fn calls_wait_their_turn_without_a_poll_while_another_address_is_down() {
    let (net, probe) = (MemoryNet::default(), Probe::new());
    let mut listener = net.listen(A);
    net.serve(B, &probe);
    let (channel, client) = lazy(to(&net, [A, B]).round_robin().max_connections(1));
    channel.request_connection();
    let one = [(setting::MAX_CONCURRENT_STREAMS, 1)];
    let mut peer = listener.accept_with(&one).await;
    settle().await;
    net.refuse(B);
    pass(1.1).await;
    let polls = Arc::new(AtomicUsize::new(0));
    let mut calls = Vec::new();
    for at in 0..20_u8 {
        let call = client.unary::<Raw, Raw>(Probe::ECHO, Raw(vec![at].into()));
        let (mut call, polls) = (call.into_future(), polls.clone());
        calls.push(tokio::spawn(poll_fn(move |cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            call.as_mut().poll(cx).map(|response| response.map(drop))
        })));
        settle().await;
    }
    let polled = polls.load(Ordering::Relaxed);
    assert!(polled < 60, "20 calls were polled {polled} times");
    // The attempts to reach the other address fail meanwhile, of which all calls hear.
    pass(20.0).await;
    for at in 0..20 {
        let stream = peer.next_full_request().await;
        assert_eq!(
            peer.stream(stream).messages(),
            [&[at][..]],
            "in their order"
        );
        peer.write(&response(stream)).await;
    }
}

/// Of each name, the address that it has: none is known if there is none here.
fn resolver(
    names: &Arc<Mutex<Vec<(&'static str, &'static str)>>>,
) -> impl trunkline::channel::Lookup + use<> {
    let names = names.clone();
    move |host: String, _port: u16| {
        let names = names.lock().unwrap_or_else(PoisonError::into_inner);
        let found = names.iter().find(|(name, _)| *name == host);
        let found = found.map(|(_, address)| Address::Tcp(address.parse().expect("an address")));
        async move {
            match host.as_str() {
                "silent" => std::future::pending().await,
                "slow" => tokio::time::sleep(Duration::from_secs(2)).await,
                _ => {}
            }
            Ok(vec![found.ok_or(std::io::ErrorKind::NotFound)?])
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_fails_for_once_loses_no_server_and_does_not_hold_up_what_is_new_of_others() {
    let net = MemoryNet::default();
    let probes = [A, B, C].map(|address| {
        let probe = Probe::new();
        net.serve(address, &probe);
        probe
    });
    let called = || probes.each_ref().map(called);
    let names = Arc::new(Mutex::new(vec![("a", A), ("b", B)]));
    let to = to(&net, ["a:1", "b:1"]).lookup(resolver(&names));
    let (channel, client) = lazy(to.round_robin());
    channel.request_connection();
    settle().await;
    for _ in 0..10 {
        echo(&client).await.expect("a response");
    }
    assert_eq!(called(), [5, 5, 0]);
    pass(60.0).await;
    // The first server moves, in the moment in which the name of the other cannot be asked for.
    *names.lock().expect("no panic") = vec![("a", C)];
    net.refuse(A);
    settle().await;
    for _ in 0..10 {
        echo(&client).await.expect("a response");
    }
    assert_eq!(called(), [5, 10, 5]);
    *names.lock().expect("no panic") = vec![("a", C), ("b", A)];
    net.serve(A, &probes[0]);
    pass(2.0).await;
    for _ in 0..10 {
        echo(&client).await.expect("a response");
    }
    assert_eq!(called(), [10, 10, 10], "the name is asked for again");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_does_not_wait_for_a_name_that_takes_long() {
    for target in [A, "a:1"] {
        let (net, probe) = (MemoryNet::default(), Probe::new());
        net.serve(A, &probe);
        let names = Arc::new(Mutex::new(vec![("a", A)]));
        let to = to(&net, ["silent:1", target]).lookup(resolver(&names));
        let (channel, client) = lazy(to);
        let began = Instant::now();
        echo(&client).await.expect("a response");
        assert_eq!(
            began.elapsed(),
            ChannelLimits::default().connect_stagger,
            "{target}"
        );
        pass(600.0).await;
        assert_eq!((channel.state(), net.dials().len()), (Ready, 1), "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_refuses_is_not_the_last_word_while_another_name_is_asked_for() {
    let (net, probe) = (MemoryNet::default(), Probe::new());
    net.refuse(A);
    net.serve(B, &probe);
    let names = Arc::new(Mutex::new(vec![("a", A), ("slow", B)]));
    for is_round_robin in [false, true] {
        let builder = to(&net, ["a:1", "slow:1"]).lookup(resolver(&names));
        let builder = match is_round_robin {
            true => builder.round_robin(),
            false => builder,
        };
        let channel = within("a connection", builder.connect()).await;
        let channel = channel.expect("one of the two can be reached");
        echo(&Client::new(channel)).await.expect("a response");
    }
    assert_eq!(called(&probe), 2);
}

#[tokio::test(start_paused = true)]
async fn every_address_is_tried_whatever_the_timeout() {
    for millis in [200, 1000] {
        let (net, probe) = (MemoryNet::default(), Probe::new());
        let targets: Vec<String> = (1..=6).map(|it| format!("10.0.0.{it}:1")).collect();
        targets.iter().for_each(|target| net.blackhole(target));
        net.serve(&targets[5], &probe);
        let timeout = Duration::from_millis(millis);
        let (_channel, client) = lazy(to(&net, &targets).connect_timeout(timeout));
        echo(&client).await.expect("a response");
        assert_eq!(net.dials().len(), 6, "{millis} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_wait_for_a_connection_than_the_limit_says() {
    let net = MemoryNet::default();
    net.blackhole(A);
    let ten = |limits: &mut ChannelLimits| limits.max_queued_calls = 10;
    let (_channel, client) = lazy(to(&net, A).with_limits(|it| *it = limits(ten)));
    for _ in 0..2 {
        let calls: Vec<_> = (0..10).map(|_| spawn(&client, Probe::ECHO)).collect();
        settle().await;
        assert!(calls.iter().all(|it| !it.is_finished()), "those wait");
        let status = echo(&client).await.expect_err("one too many");
        assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED, "{status}");
        calls.iter().for_each(JoinHandle::abort);
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_http2_does_not_take_costs_no_connection() {
    use tower_service::Service as _;
    let (net, probe) = (MemoryNet::default(), Probe::new());
    net.serve(A, &probe);
    let (mut channel, client) = lazy(to(&net, A));
    for _ in 0..3 {
        echo(&client).await.expect("a response");
        // What a proxy gives on that passes the header of HTTP/1.
        let request = http::Request::post("/test.Probe/Echo")
            .header("connection", "keep-alive")
            .body(Default::default());
        let response = channel.call(request.expect("a request")).await;
        response.map(drop).expect_err("not one of HTTP/2");
    }
    assert_eq!((net.dials().len(), channel.state()), (1, Ready));
}

#[tokio::test(start_paused = true)]
async fn a_channel_whose_calls_all_fail_is_not_idle() {
    let net = MemoryNet::default();
    let (channel, client) = lazy(to(&net, A));
    for _ in 0..3600 {
        echo(&client).await.expect_err("nothing is there");
        pass(2.0).await;
        assert_eq!(channel.state(), TransientFailure);
    }
    pass(2.0 * 1800.0).await;
    assert_eq!(channel.state(), Idle, "nobody calls any more");
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_not_told_that_a_channel_is_ready_which_is_gone() {
    let (net, probe) = (MemoryNet::default(), Probe::new());
    net.serve(A, &probe);
    let channel = to(&net, A).connect().await.expect("a connection");
    let mut watch = channel.watch_state();
    assert_eq!(watch.until(Ready).await, Ready);
    drop(channel);
    settle().await;
    assert_eq!(watch.until(Ready).await, Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_tries_again_at_once_leaves_its_thread_to_what_would_help() {
    let net = MemoryNet::default();
    net.refuse(A);
    let (_, client) = lazy(to(&net, A));
    assert!(echo(&client).await.is_err());
    let others = Arc::new(AtomicUsize::new(0));
    let counted = others.clone();
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..10_000 {
        let call = client.unary::<Raw, Raw>(Probe::ECHO, Raw("x".into()));
        assert!(call.await.is_err());
    }
    other.abort();
    // tokio lets a task do some hundred things before it takes another.
    assert!(others.load(Ordering::Relaxed) > 10, "{others:?}");
}
