//! A server on threads of its own serves as one that has none.

use std::collections::BTreeSet;
use std::future::{IntoFuture, pending};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use trunkline::server::Listener;
use trunkline::server::Methods;
use trunkline::{
    BoundServer, Channel, Client, Code, Method, Raw, Request, Response, Result, Server, Service,
};
use trunkline_testkit::{Probe, within};

const THREAD: Method = Method::new("/test.Threads/Thread");
const BLOCK: Method = Method::new("/test.Threads/Block");
const LEAVE: Method = Method::new("/test.Threads/Leave");

/// Tells which thread a handler is on, blocks it, and leaves a task on it.
#[derive(Clone)]
struct Threads {
    calls: Arc<AtomicUsize>,
    left: mpsc::Sender<()>,
    blocked: mpsc::Sender<std::sync::mpsc::Sender<()>>,
}

impl Service for Threads {
    const NAME: &'static str = "test.Threads";

    fn add_to(self, methods: &mut Methods) {
        let service = Arc::new(self);
        methods.unary(THREAD, &service, |service, _: Request<Raw>| async move {
            // The task that the handler spawns has to be there as well.
            let spawned = tokio::spawn(async { name() }).await.expect("no panic");
            assert_eq!(spawned, name());
            service.calls.fetch_add(1, Ordering::SeqCst);
            Ok(Raw(name().into()))
        });
        methods.unary(BLOCK, &service, |service, _: Request<Raw>| async move {
            let (release, is_released) = std::sync::mpsc::channel();
            service.blocked.send(release).await.expect("the test waits");
            // Bounded, so that a test that fails before the release ends as well.
            let released = is_released.recv_timeout(Duration::from_secs(20));
            released.expect("the test releases it");
            Ok(Raw(name().into()))
        });
        methods.unary(LEAVE, &service, |service, _: Request<Raw>| async move {
            let left = service.left.clone();
            tokio::spawn(async move {
                let _left = left;
                pending::<()>().await;
            });
            Ok(Raw(name().into()))
        });
    }
}

struct Rig {
    calls: Arc<AtomicUsize>,
    /// Ends with the last task that was left.
    left: mpsc::Receiver<()>,
    blocked: mpsc::Receiver<std::sync::mpsc::Sender<()>>,
}

fn name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

fn server() -> (Server, Rig) {
    let calls = Arc::new(AtomicUsize::new(0));
    let (left, has_left) = mpsc::channel(1);
    let (blocked, is_blocked) = mpsc::channel(1);
    let service = Threads {
        calls: calls.clone(),
        left,
        blocked,
    };
    let rig = Rig {
        calls,
        left: has_left,
        blocked: is_blocked,
    };
    (Server::new().add_service(service), rig)
}

async fn bind(server: Server) -> (BoundServer, String) {
    let bound = server.bind("127.0.0.1:0").await.expect("a free port");
    let address = bound.local_addr().to_string();
    (bound, address)
}

async fn client(address: &str) -> Client {
    let connecting = within("connecting", Channel::connect(address));
    Client::new(connecting.await.expect("the server listens"))
}

fn call(client: &Client, method: Method) -> JoinHandle<Result<Response<Raw>>> {
    let call = client.unary::<Raw, Raw>(method, Raw("x".into()));
    tokio::spawn(call.into_future())
}

async fn ended(call: JoinHandle<Result<Response<Raw>>>) -> Result<String> {
    let response = within("a call", call).await.expect("no panic")?;
    Ok(String::from_utf8_lossy(&response.0).into_owned())
}

/// The thread that serves a client's connection.
async fn thread_of(client: &Client) -> String {
    ended(call(client, THREAD)).await.expect("a response")
}

async fn nothing_listens(address: &str) {
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within("the port to be free", refused).await;
}

#[tokio::test]
async fn connections_are_spread_over_the_threads_and_stay_there_and_each_is_served() {
    let (server, rig) = server();
    let (bound, address) = bind(server.threads(4)).await;
    tokio::spawn(bound.serve());
    let mut served = BTreeSet::new();
    let mut clients = Vec::new();
    for _ in 0..64 {
        let client = client(&address).await;
        let thread = thread_of(&client).await;
        served.insert(thread.clone());
        clients.push((client, thread));
    }
    for (client, thread) in &clients {
        assert_eq!(thread_of(client).await, *thread);
    }
    let all = (0..4).map(|at| format!("trunkline-{at}"));
    let all = BTreeSet::from_iter(all);
    assert!(served.is_subset(&all), "{served:?}");
    assert!(served.len() > 1, "{served:?}");
    // One service, whatever thread it is called on.
    assert_eq!(rig.calls.load(Ordering::SeqCst), 128);
}

#[tokio::test]
async fn without_threads_of_its_own_a_server_runs_where_it_is_awaited() {
    let (server, _rig) = server();
    let (bound, address) = bind(server).await;
    tokio::spawn(bound.serve());
    let thread = thread_of(&client(&address).await).await;
    assert_eq!(thread, name());
}

#[tokio::test]
async fn the_threads_share_a_socket_where_there_is_one() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("threads-{}.sock", std::process::id()));
    let unix = format!("unix:{}", path.display());
    for listens in ["unix", "inherited"] {
        let (server, mut rig) = server();
        let server = server.threads(2);
        let bound = match listens {
            "unix" => server.bind(&unix).await.expect("a path of ours"),
            _ => {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                server.on(Listener::from_tcp(listener))
            }
        };
        let address = bound.local_addr().to_string();
        let (shut_down, shutdown) = oneshot::channel::<()>();
        let serving = tokio::spawn(bound.serve_until(async { drop(shutdown.await) }));
        // One thread can do nothing: the other accepts.
        let first = client(&address).await;
        let blocked = call(&first, BLOCK);
        let release = within("the first", rig.blocked.recv()).await.expect("one");
        let second = client(&address).await;
        let thread = thread_of(&second).await;
        release.send(()).expect("it waits");
        assert_ne!(
            ended(blocked).await.expect("a response"),
            thread,
            "{listens}"
        );
        assert_eq!(path.exists(), listens == "unix");
        shut_down.send(()).expect("it serves");
        let served = within("the end", serving).await.expect("no panic");
        served.expect("no error");
        assert!(!path.exists(), "{listens}");
    }
}

#[tokio::test]
async fn a_shutdown_lets_calls_on_all_threads_finish_and_ends_what_they_have_left() {
    let probe = Probe::new();
    let (server, rig) = server();
    let (bound, address) = bind(server.add_service(probe.clone()).threads(4)).await;
    let (shut_down, shutdown) = oneshot::channel::<()>();
    let mut serving = tokio::spawn(bound.serve_until(async { drop(shutdown.await) }));
    let mut calls = Vec::new();
    for _ in 0..16 {
        let client = client(&address).await;
        ended(call(&client, LEAVE)).await.expect("a response");
        calls.push(call(&client, Probe::HOLD));
    }
    probe.until("all handlers", |it| it.running == 16).await;
    shut_down.send(()).expect("it serves");
    nothing_listens(&address).await;
    assert!(!serving.is_finished());
    probe.release(16);
    for call in calls {
        assert_eq!(ended(call).await.expect("a response"), "x");
    }
    let served = within("the end", &mut serving).await.expect("no panic");
    served.expect("no error");
    // The service is gone with the server, and the tasks with their threads.
    assert!(rig.left.is_closed(), "a task is still there");
}

#[tokio::test]
async fn calls_that_outlast_the_grace_are_cut_off_on_all_threads() {
    let probe = Probe::new();
    let grace = Duration::from_millis(50);
    let server = Server::new().add_service(probe.clone()).threads(2);
    let server = server.with_limits(|limits| limits.drain_grace = grace);
    let (bound, address) = bind(server).await;
    let (shut_down, shutdown) = oneshot::channel::<()>();
    let serving = tokio::spawn(bound.serve_until(async { drop(shutdown.await) }));
    let mut calls = Vec::new();
    for _ in 0..8 {
        calls.push(call(&client(&address).await, Probe::HOLD));
    }
    probe.until("all handlers", |it| it.running == 8).await;
    shut_down.send(()).expect("it serves");
    let served = within("the end", serving).await.expect("no panic");
    served.expect("no error");
    assert_eq!(probe.counts().running, 0);
    for call in calls {
        let status = ended(call).await.expect_err("it was cut off");
        assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    }
}

#[tokio::test]
async fn dropping_the_future_ends_the_threads_and_all_on_them() {
    let probe = Probe::new();
    let (server, mut rig) = server();
    let (bound, address) = bind(server.add_service(probe.clone()).threads(4)).await;
    let serving = tokio::spawn(bound.serve());
    let mut calls = Vec::new();
    for _ in 0..16 {
        let client = client(&address).await;
        ended(call(&client, LEAVE)).await.expect("a response");
        calls.push(call(&client, Probe::HOLD));
    }
    probe.until("all handlers", |it| it.running == 16).await;
    serving.abort();
    for call in calls {
        let status = ended(call).await.expect_err("the server is gone");
        assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
    }
    nothing_listens(&address).await;
    assert_eq!(within("the threads", rig.left.recv()).await, None);
    assert_eq!(probe.counts().running, 0);
}

#[tokio::test]
async fn a_handler_that_panics_ends_its_call_and_nothing_else() {
    let server = Server::new().add_service(Probe::new()).threads(1);
    let (bound, address) = bind(server).await;
    tokio::spawn(bound.serve());
    let client = client(&address).await;
    for _ in 0..3 {
        let status = ended(call(&client, Probe::PANIC))
            .await
            .expect_err("INTERNAL");
        assert_eq!(status.code(), Code::INTERNAL, "{status}");
        assert_eq!(
            ended(call(&client, Probe::ECHO)).await.expect("a response"),
            "x"
        );
    }
}

#[tokio::test]
async fn no_threads_at_all_is_an_error_that_says_so() {
    let none = || Server::new().threads(0);
    let bound = none().bind("127.0.0.1:0").await.expect_err("at once");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let served = none().on(Listener::from_tcp(listener)).serve().await;
    for status in [bound, served.expect_err("at the latest")] {
        assert_eq!(status.code(), Code::INVALID_ARGUMENT);
        assert!(status.message().contains("0 threads"), "{status}");
    }
}

#[tokio::test]
async fn a_server_that_runs_keeps_its_port() {
    let (_bound, address) = bind(Server::new().threads(2)).await;
    for other in [Server::new(), Server::new().threads(2)] {
        let status = other.bind(&address).await.expect_err("it is taken");
        assert_eq!(status.code(), Code::UNAVAILABLE);
        assert!(status.message().contains("another process"), "{status}");
    }
    // And one without threads its own.
    let (_bound, address) = bind(Server::new()).await;
    let status = Server::new().threads(2).bind(&address).await;
    assert_eq!(status.expect_err("it is taken").code(), Code::UNAVAILABLE);
}

#[tokio::test]
async fn a_port_that_was_given_up_can_be_had_again_at_once() {
    let mut address = "127.0.0.1:0".to_owned();
    for _ in 0..3 {
        let (server, _rig) = server();
        let bound = server.threads(2).bind(&address).await.expect("it is free");
        address = bound.local_addr().to_string();
        let (shut_down, shutdown) = oneshot::channel::<()>();
        let serving = tokio::spawn(bound.serve_until(async { drop(shutdown.await) }));
        // The server closes this connection, so that its end waits in TIME_WAIT.
        let client = client(&address).await;
        thread_of(&client).await;
        shut_down.send(()).expect("it serves");
        within("the end", serving)
            .await
            .expect("no panic")
            .expect("no error");
    }
}

#[tokio::test]
async fn a_server_can_be_bound_on_one_runtime_and_served_on_another() {
    for threads in [1, 3] {
        let (server, _rig) = server();
        let (bound, address) = bind(server.threads(threads)).await;
        let (shut_down, shutdown) = oneshot::channel::<()>();
        let serving = thread::spawn(move || {
            // With nothing enabled: the threads have what they need.
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let until = async { drop(shutdown.await) };
            runtime
                .expect("a runtime")
                .block_on(bound.serve_until(until))
        });
        assert!(
            thread_of(&client(&address).await)
                .await
                .starts_with("trunkline-")
        );
        shut_down.send(()).expect("it serves");
        let served = tokio::task::spawn_blocking(|| serving.join());
        let served = within("the end", served).await.expect("no panic");
        served.expect("no panic").expect("no error");
    }
}
