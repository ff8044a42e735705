//! Where handlers are polled: in the task of their connection, or in one of their own.

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use trunkline::limits::ChannelLimits;
use trunkline::server::Methods;
use trunkline::{
    Channel, Client, Method, Raw, Request, Response, Sender, Server, Service, Streaming,
};
use trunkline_testkit::{pair, within};

const TASK: Method = Method::new("/test.Places/Task");
const TASKS: Method = Method::new("/test.Places/Tasks");
const BLOCK: Method = Method::new("/test.Places/Block");
const HOLD: Method = Method::new("/test.Places/Hold");
const SPIN: Method = Method::new("/test.Places/Spin");

/// More calls than a method has to show before it is polled where its connection is.
const TRIAL: usize = 50;

/// What a handler of `HOLD` does once it is released.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    ResponseHandle,
    /// Keeps its thread for far longer than is quick, and responses.
    Dawdle,
}

/// What is quick on any machine, most of the time.
const QUICK: Duration = Duration::from_millis(10);

/// Tells in which task a handler is polled, and blocks its thread.
#[derive(Clone)]
struct Places {
    blocked: mpsc::Sender<std::sync::mpsc::Sender<()>>,
    /// Handlers of `HOLD` that are waiting, each with its task.
    held: mpsc::UnboundedSender<(oneshot::Sender<Then>, Raw)>,
    /// Handlers of `HOLD` that were dropped while they were waiting.
    dropped: watch::Sender<usize>,
    is_done: watch::Sender<bool>,
}

/// Panics when it is dropped before it has been put away.
struct Guard(Option<watch::Sender<usize>>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(dropped) = &self.0 {
            dropped.send_modify(|count| *count += 1);
            panic!("a guard that panics when it is dropped");
        }
    }
}

impl Service for Places {
    const NAME: &'static str = "test.Places";

    fn add_to(self, methods: &mut Methods) {
        let service = Arc::new(self);
        methods.unary(TASK, &service, |_, _: Request<Raw>| async move {
            tokio::task::yield_now().await;
            Ok(task())
        });
        methods.bidi_streaming(
            TASKS,
            &service,
            |_, mut requests: Request<Streaming<Raw>>, mut responses: Sender<Raw>| async move {
                while requests.message().await?.is_some() {
                    responses.send(task()).await?;
                }
                Ok(())
            },
        );
        methods.unary(
            HOLD,
            &service,
            |service, request: Request<Raw>| async move {
                if request.0.is_empty() {
                    tokio::task::yield_now().await;
                    return Ok(task());
                }
                let mut guard = Guard(Some(service.dropped.clone()));
                let (release, released) = oneshot::channel();
                let _ = service.held.send((release, task()));
                let then = released.await;
                guard.0 = None;
                if then == Ok(Then::Dawdle) {
                    std::thread::sleep(QUICK * 60);
                }
                Ok(task())
            },
        );
        methods.unary(SPIN, &service, |service, _: Request<Raw>| async move {
            let is_done = service.is_done.subscribe();
            while !*is_done.borrow() {
                tokio::task::consume_budget().await;
            }
            Ok(task())
        });
        methods.unary(BLOCK, &service, |service, _: Request<Raw>| async move {
            let (release, is_released) = std::sync::mpsc::channel();
            service.blocked.send(release).await.expect("the test waits");
            // Bounded, so that a test that fails before the release ends as well.
            let released = is_released.recv_timeout(Duration::from_secs(20));
            released.expect("the test releases it");
            Ok(task())
        });
    }
}

fn task() -> Raw {
    Raw(tokio::task::id().to_string().into())
}

/// A connection to [`Places`], and what its handlers tell.
struct Place {
    channel: Channel,
    is_blocked: mpsc::Receiver<std::sync::mpsc::Sender<()>>,
    held: mpsc::UnboundedReceiver<(oneshot::Sender<Then>, Raw)>,
    dropped: watch::Receiver<usize>,
    is_done: watch::Sender<bool>,
}

/// The limits do not depend on the speed of the machine.
async fn connected(quick: Duration, in_place: Duration) -> Place {
    let (blocked, is_blocked) = mpsc::channel(1);
    let (hold, held) = mpsc::unbounded_channel();
    let (dropped, is_done) = (watch::Sender::new(0), watch::Sender::new(false));
    let was_dropped = dropped.subscribe();
    let places = Places {
        blocked,
        held: hold,
        dropped,
        is_done: is_done.clone(),
    };
    let server = Server::new().add_service(places).with_limits(|limits| {
        limits.quick_poll_max = quick;
        limits.in_place_max = in_place;
    });
    Place {
        channel: pair(server, ChannelLimits::default()).await,
        is_blocked,
        held,
        dropped: was_dropped,
        is_done,
    }
}

const HOUR: Duration = Duration::from_secs(3600);

async fn unary(channel: &Channel, method: Method) -> String {
    ask(channel, method, "").await
}

async fn ask(channel: &Channel, method: Method, message: &'static str) -> String {
    let client = Client::new(channel.clone());
    let call = client.unary(method, Raw(message.into()));
    let response: Response<Raw> = within("a response", call.into_future()).await.expect("OK");
    String::from_utf8(response.into_inner().0.to_vec()).expect("a number")
}

/// Has `method` polled in its connection's task; gives that task.
async fn settle(channel: &Channel, method: Method) -> String {
    for _ in 0..TRIAL {
        unary(channel, method.clone()).await;
    }
    unary(channel, method.clone()).await
}

impl Place {
    /// Begins a call of `HOLD`; gives its task on this side, what releases it, and its task there.
    async fn hold(&mut self) -> (JoinHandle<String>, oneshot::Sender<Then>, String) {
        let channel = self.channel.clone();
        let call = tokio::spawn(async move { ask(&channel, HOLD, "hold").await });
        let (release, task) = within("a handler that waits", self.held.recv())
            .await
            .expect("the server lives");
        let task = String::from_utf8(task.0.to_vec()).expect("a number");
        (call, release, task)
    }
}

async fn tasks_of_calls(channel: &Channel, calls: usize) -> Vec<String> {
    let mut tasks = Vec::new();
    for _ in 0..calls {
        tasks.push(unary(channel, TASK).await);
    }
    tasks
}

#[tokio::test]
async fn a_method_begins_in_tasks_of_its_own_and_moves_to_its_connection_when_it_is_quick() {
    let place = connected(HOUR, HOUR).await;
    let channel = &place.channel;
    let tasks = tasks_of_calls(channel, TRIAL + 10).await;
    assert_ne!(tasks[0], tasks[1]);
    let settled: BTreeSet<&String> = tasks[TRIAL..].iter().collect();
    assert_eq!(settled.len(), 1, "{tasks:?}");
}

#[tokio::test]
async fn a_method_that_is_never_quick_has_a_task_for_each_call() {
    let place = connected(Duration::ZERO, HOUR).await;
    let channel = &place.channel;
    let tasks = tasks_of_calls(channel, TRIAL).await;
    let different: BTreeSet<&String> = tasks.iter().collect();
    assert_eq!(different.len(), TRIAL, "{tasks:?}");
}

#[tokio::test]
async fn a_stream_that_began_in_a_task_moves_to_its_connection_when_its_method_is_quick() {
    let place = connected(HOUR, HOUR).await;
    let channel = &place.channel;
    let client = Client::new(channel.clone());
    let (mut requests, mut responses) = within(
        "a call",
        client.bidi_streaming::<Raw, Raw>(TASKS).into_future(),
    )
    .await
    .expect("OK");
    let mut tasks = Vec::new();
    for _ in 0..TRIAL + 10 {
        requests.send(Raw::default()).await.expect("it is read");
        let response = within("a response", responses.message()).await.expect("OK");
        tasks.push(response.expect("a message").0);
    }
    let settled: BTreeSet<_> = tasks[TRIAL..].iter().collect();
    assert_eq!(settled.len(), 1, "{tasks:?}");
    assert!(!settled.contains(&tasks[0]));
    // The connection's own task is where the quick calls of other methods are as well.
    let unary = tasks_of_calls(channel, TRIAL).await;
    assert_eq!(
        unary.last().map(String::as_bytes),
        tasks.last().map(|it| &it[..])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_blocks_its_thread_holds_up_no_call_of_its_connection() {
    let mut place = connected(Duration::from_micros(100), HOUR).await;
    let channel = place.channel.clone();
    for _ in 0..3 {
        let blocking = tokio::spawn({
            let channel = channel.clone();
            async move { unary(&channel, BLOCK).await }
        });
        let release = within("a handler that blocks", place.is_blocked.recv()).await;
        tasks_of_calls(&channel, TRIAL).await;
        release.expect("it is there").send(()).expect("it waits");
        within("its end", blocking).await.expect("no panic");
    }
}

#[tokio::test]
async fn calls_that_wait_in_their_connection_leave_it_when_their_method_turns_out_slow() {
    let mut place = connected(QUICK, HOUR).await;
    let connection = settle(&place.channel, HOLD).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let (call, release, task) = place.hold().await;
        assert_eq!(task, connection);
        held.push((call, release));
    }
    let mut tasks = Vec::new();
    for ((call, release), then) in
        held.into_iter()
            .zip([Then::Dawdle, Then::ResponseHandle, Then::ResponseHandle])
    {
        release.send(then).expect("it waits");
        tasks.push(within("a response", call).await.expect("no panic"));
    }
    assert_eq!(tasks[0], connection);
    assert_ne!(tasks[1], connection);
    assert_ne!(tasks[2], connection);
    assert_ne!(tasks[1], tasks[2]);
    assert_eq!(
        settle(&place.channel, HOLD).await,
        connection,
        "it has earned its place anew"
    );
}

#[tokio::test]
async fn without_time_in_their_connection_all_handlers_have_tasks_of_their_own() {
    let place = connected(HOUR, Duration::ZERO).await;
    let tasks = tasks_of_calls(&place.channel, TRIAL).await;
    let different: BTreeSet<&String> = tasks.iter().collect();
    assert_eq!(different.len(), TRIAL, "{tasks:?}");
}

#[tokio::test]
async fn a_handler_that_panics_as_it_is_dropped_harms_no_other_call() {
    let mut place = connected(HOUR, HOUR).await;
    let connection = settle(&place.channel, HOLD).await;
    let mut calls = Vec::new();
    for _ in 0..4 {
        let (call, release, task) = place.hold().await;
        assert_eq!(task, connection);
        calls.push((call, release));
    }
    let (reset, _release) = calls.remove(0);
    reset.abort();
    let dropped = &mut place.dropped;
    within(
        "a handler that is dropped",
        dropped.wait_for(|count| *count == 1),
    )
    .await
    .expect("the server lives");
    assert_eq!(unary(&place.channel, HOLD).await, connection);
    let (call, release) = calls.remove(0);
    release.send(Then::ResponseHandle).expect("it waits");
    assert_eq!(
        within("a response", call).await.expect("no panic"),
        connection
    );
    // Two at once: were one to unwind, the other would end the process.
    for (call, _) in &calls {
        call.abort();
    }
    drop(place.channel);
    within("two more", place.dropped.wait_for(|count| *count == 3))
        .await
        .expect("the server lives");
}

#[tokio::test]
async fn a_handler_that_uses_up_what_a_task_may_do_does_not_keep_its_connection_from_writing() {
    let place = connected(HOUR, HOUR).await;
    place.is_done.send_replace(true);
    let connection = settle(&place.channel, SPIN).await;
    place.is_done.send_replace(false);
    let spinning = tokio::spawn({
        let channel = place.channel.clone();
        async move { unary(&channel, SPIN).await }
    });
    settle(&place.channel, TASK).await;
    place.is_done.send_replace(true);
    let task = within("the end of it", spinning).await.expect("no panic");
    assert_eq!(task, connection);
}
