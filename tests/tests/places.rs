//! Where handlers are polled: in the task of their connection, or in one of their own.

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use trunkline::{
    Channel, Client, Limits, Method, Raw, Request, Response, Router, Sender, Server, Service,
    Streaming,
};
use trunkline_testkit::{pair, within};

const TASK: Method = Method::new("/test.Places/Task");
const TASKS: Method = Method::new("/test.Places/Tasks");
const BLOCK: Method = Method::new("/test.Places/Block");

/// More calls than a method has to show before it is polled where its connection is.
const TRIAL: usize = 50;

/// Tells in which task a handler is polled, and blocks its thread.
#[derive(Clone)]
struct Places {
    blocked: mpsc::Sender<std::sync::mpsc::Sender<()>>,
}

impl Service for Places {
    const NAME: &'static str = "test.Places";

    fn add_to(self, router: &mut Router) {
        let service = Arc::new(self);
        router.unary(TASK, &service, |_, _: Request<Raw>| async move {
            tokio::task::yield_now().await;
            Ok(task())
        });
        router.bidi_streaming(
            TASKS,
            &service,
            |_, mut requests: Request<Streaming<Raw>>, mut replies: Sender<Raw>| async move {
                while requests.message().await?.is_some() {
                    replies.send(task()).await?;
                }
                Ok(())
            },
        );
        router.unary(BLOCK, &service, |service, _: Request<Raw>| async move {
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

/// A connection to [`Places`], whose limits do not depend on the speed of the machine.
async fn connected(quick: Duration) -> (Channel, mpsc::Receiver<std::sync::mpsc::Sender<()>>) {
    let (blocked, is_blocked) = mpsc::channel(1);
    let server = Server::new().add(Places { blocked }).with_limits(|limits| {
        limits.quick_poll_max = quick;
        limits.in_place_max = Duration::from_secs(3600);
    });
    (pair(server, Limits::default()).await, is_blocked)
}

async fn unary(channel: &Channel, method: Method) -> String {
    let client = Client::new(channel.clone());
    let reply: Response<Raw> = within(
        "a reply",
        client.unary(method, Raw::default()).into_future(),
    )
    .await
    .expect("OK");
    String::from_utf8(reply.into_inner().0.to_vec()).expect("a number")
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
    let (channel, _blocked) = connected(Duration::from_secs(3600)).await;
    let tasks = tasks_of_calls(&channel, TRIAL + 10).await;
    assert_ne!(tasks[0], tasks[1]);
    let settled: BTreeSet<&String> = tasks[TRIAL..].iter().collect();
    assert_eq!(settled.len(), 1, "{tasks:?}");
}

#[tokio::test]
async fn a_method_that_is_never_quick_has_a_task_for_each_call() {
    let (channel, _blocked) = connected(Duration::ZERO).await;
    let tasks = tasks_of_calls(&channel, TRIAL).await;
    let different: BTreeSet<&String> = tasks.iter().collect();
    assert_eq!(different.len(), TRIAL, "{tasks:?}");
}

#[tokio::test]
async fn a_stream_that_began_in_a_task_moves_to_its_connection_when_its_method_is_quick() {
    let (channel, _blocked) = connected(Duration::from_secs(3600)).await;
    let client = Client::new(channel.clone());
    let (mut requests, mut replies) = within(
        "a call",
        client.bidi_streaming::<Raw, Raw>(TASKS).into_future(),
    )
    .await
    .expect("OK");
    let mut tasks = Vec::new();
    for _ in 0..TRIAL + 10 {
        requests.send(Raw::default()).await.expect("it is read");
        let reply = within("a reply", replies.message()).await.expect("OK");
        tasks.push(reply.expect("a message").0);
    }
    let settled: BTreeSet<_> = tasks[TRIAL..].iter().collect();
    assert_eq!(settled.len(), 1, "{tasks:?}");
    assert!(!settled.contains(&tasks[0]));
    // The connection's own task is where the quick calls of other methods are as well.
    let unary = tasks_of_calls(&channel, TRIAL).await;
    assert_eq!(
        unary.last().map(String::as_bytes),
        tasks.last().map(|it| &it[..])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_blocks_its_thread_holds_up_no_call_of_its_connection() {
    let (channel, mut is_blocked) = connected(Duration::from_micros(100)).await;
    for _ in 0..3 {
        let blocking = tokio::spawn({
            let channel = channel.clone();
            async move { unary(&channel, BLOCK).await }
        });
        let release = within("a handler that blocks", is_blocked.recv()).await;
        tasks_of_calls(&channel, TRIAL).await;
        release.expect("it is there").send(()).expect("it waits");
        within("its end", blocking).await.expect("no panic");
    }
}
