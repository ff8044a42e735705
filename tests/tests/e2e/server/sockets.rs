//! Unix sockets and their files: servers that follow each other, and those that start at once; and
//! addresses with a zone.
//!
//! `TRUNKLINE_SOCKET_RESTARTS` (300) and `TRUNKLINE_SOCKET_STARTS` (300) say how often, and
//! `TRUNKLINE_SOCKET_CALLS` (2,000) how many calls a client on grpcio makes at once.

#![cfg(unix)]

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use trunkline::{BoundServer, Channel, Client, Code, Raw, Result, Server};
use trunkline_testkit::{Fields, Frame, Probe, RawPeer, error, message};
use trunkline_tests::fixture::{Echo, UNARY, raw, within};
use trunkline_tests::peers::{Peer, peer};
use trunkline_tests::process::Process;
use trunkline_tests::test_service;

const ECHO: &str = "/test.Probe/Echo";
const HOLD: &str = "/test.Probe/Hold";

/// Time for a program that calls.
const LONG: Duration = Duration::from_secs(60);

/// A directory of a test, removed with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("trunkline-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn socket(&self) -> (PathBuf, String) {
        let path = self.0.join("greeter.sock");
        let address = format!("unix:{}", path.display());
        (path, address)
    }

    /// The names of what is there.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("a directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names.map(|it| it.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn number(variable: &str, default: usize) -> usize {
    let value = std::env::var(variable).ok().and_then(|it| it.parse().ok());
    value.unwrap_or(default)
}

struct Running {
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<()>>,
}

fn run(bound: BoundServer) -> Running {
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(bound.serve_until(async move {
        let _ = stopped.await;
    }));
    Running { stop, serving }
}

impl Running {
    async fn stop(self) {
        let _ = self.stop.send(());
        let stopped = within("the end of the server", self.serving).await;
        stopped.expect("no panic").expect("it serves");
    }
}

/// Binds as soon as the one before has gone.
async fn follow(server: &Server, address: &str) -> BoundServer {
    loop {
        match server.clone().add_service(Echo).bind(address).await {
            Ok(bound) => return bound,
            Err(status) => assert_eq!(status.code(), Code::UNAVAILABLE, "{status}"),
        }
        tokio::task::yield_now().await;
    }
}

async fn call(address: &str) -> Result<Raw> {
    let channel = Channel::connect(address).await?;
    let call = Client::new(channel).unary::<Raw, Raw>(UNARY, raw("x"));
    Ok(call.await?.into_inner())
}

/// Restarts a server so often, the next one following at once; gives how often nobody was reached
/// afterwards.
async fn restarts(name: &str, server: Server, count: usize) -> usize {
    let directory = Directory::new(name);
    let (_, address) = directory.socket();
    let mut lost = 0;
    let mut running = run(follow(&server, &address).await);
    for _ in 0..count {
        let next = {
            let (server, address) = (server.clone(), address.clone());
            tokio::spawn(async move { follow(&server, &address).await })
        };
        running.stop().await;
        running = run(within("the next server", next).await.expect("no panic"));
        if within("a call", call(&address)).await.is_err() {
            lost += 1;
            // The next one finds a path that is free, and the one without a file ends.
        }
    }
    running.stop().await;
    assert_eq!(directory.names(), [""; 0], "a clean stop leaves nothing");
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_stops_never_removes_the_socket_of_the_one_that_follows() {
    let count = number("TRUNKLINE_SOCKET_RESTARTS", 300);
    let lost = restarts("restarts", Server::new(), count).await;
    assert_eq!(lost, 0, "of {count} restarts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_stop_never_remove_the_socket_of_the_server_that_follows() {
    let count = number("TRUNKLINE_SOCKET_RESTARTS", 300) / 10;
    let lost = restarts("restarts-threads", Server::new().threads(2), count).await;
    assert_eq!(lost, 0, "of {count} restarts");
}

/// Two servers that start at the same moment, on threads of their own.
fn start_two(address: &str) -> [Result<BoundServer>; 2] {
    let barrier = Arc::new(Barrier::new(2));
    let start = || {
        let (barrier, address) = (barrier.clone(), address.to_owned());
        let runtime = tokio::runtime::Handle::current();
        std::thread::spawn(move || {
            let _guard = runtime.enter();
            barrier.wait();
            runtime.block_on(Server::new().add_service(Echo).bind(&address))
        })
    };
    [start(), start()].map(|starting| starting.join().expect("no panic"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_servers_that_start_at_once_exactly_one_listens() {
    let directory = Directory::new("starts");
    let (path, address) = directory.socket();
    let count = number("TRUNKLINE_SOCKET_STARTS", 300);
    let (mut both, mut neither, mut unreached, mut unclear) = (0, 0, 0, 0);
    for round in 0..count {
        if round % 2 == 1 {
            leave_behind(&path);
        }
        let bound = tokio::task::block_in_place(|| start_two(&address));
        let (listening, refused): (Vec<_>, Vec<_>) = bound.into_iter().partition(Result::is_ok);
        match listening.len() {
            0 => neither += 1,
            1 => {}
            _ => both += 1,
        }
        for status in refused.into_iter().filter_map(Result::err) {
            unclear += usize::from(!status.message().contains("another process listens there"));
        }
        let running: Vec<_> = listening.into_iter().flatten().map(run).collect();
        if within("a call", call(&address)).await.is_err() {
            unreached += 1;
        }
        for running in running {
            running.stop().await;
        }
        let _ = std::fs::remove_file(&path);
    }
    let wrong = (both, neither, unreached, unclear);
    assert_eq!(wrong, (0, 0, 0, 0), "of {count} starts");
}

/// What a server leaves that was killed.
fn leave_behind(path: &Path) {
    drop(UnixListener::bind(path).expect("a path of ours"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_server_leaves_is_taken_over_and_a_running_server_is_not() {
    let directory = Directory::new("taken-over");
    let (path, address) = directory.socket();
    leave_behind(&path);
    std::fs::write(path.with_extension("sock.lock"), "").expect("a file");
    let first = run(follow(&Server::new(), &address).await);
    within("a call", call(&address))
        .await
        .expect("it is reached");

    let again = Server::new().bind(&address).await.expect_err("it runs");
    for words in [
        &address,
        "in use",
        "another process listens there",
        "another path",
    ] {
        assert!(again.message().contains(words), "{again}");
    }
    first.stop().await;
    assert_eq!(directory.names(), [""; 0]);

    // Another program's socket, which knows of no lock, and a file that is none.
    let foreign = UnixListener::bind(&path).expect("a path of ours");
    Server::new().bind(&address).await.expect_err("it runs");
    UnixStream::connect(&path).expect("its file is there");
    drop(foreign);
    std::fs::remove_file(&path).expect("it is there");
    std::fs::write(&path, "text").expect("a file");
    Server::new().bind(&address).await.expect_err("a file");
    assert_eq!(std::fs::read(&path).expect("a file"), b"text");
    assert_eq!(directory.names(), ["greeter.sock"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_files_were_removed_leaves_those_of_the_next_one_alone() {
    for by_renaming in [false, true] {
        let directory = Directory::new(&format!("removed-{by_renaming}"));
        let (_, address) = directory.socket();
        let first = Server::new()
            .add_service(Echo)
            .bind(&address)
            .await
            .expect("free");
        for name in directory.names() {
            let path = directory.0.join(&name);
            // A file that was moved, as NFS does with one that is open, has a name still.
            match by_renaming {
                true => std::fs::rename(&path, directory.0.join(format!("old-{name}"))),
                false => std::fs::remove_file(&path),
            }
            .expect("a file of ours");
        }
        let second = run(follow(&Server::new(), &address).await);
        drop(first);
        within("a call", call(&address)).await.expect("the second");
        second.stop().await;
        let left = match by_renaming {
            true => &["old-greeter.sock", "old-greeter.sock.lock"][..],
            false => &[],
        };
        assert_eq!(directory.names(), left);
    }
}

#[tokio::test]
async fn a_server_whose_lock_file_was_removed_keeps_others_out_and_leaves_nothing() {
    let directory = Directory::new("unlocked");
    let (path, address) = directory.socket();
    let first = Server::new()
        .add_service(Echo)
        .bind(&address)
        .await
        .expect("free");
    std::fs::remove_file(path.with_extension("sock.lock")).expect("a file of ours");
    Server::new().bind(&address).await.expect_err("it runs");
    drop(first);
    assert_eq!(directory.names(), [""; 0]);
}

#[tokio::test]
async fn what_is_wrong_with_a_lock_file_is_said() {
    let directory = Directory::new("lock");
    let (path, address) = directory.socket();
    let lock = path.with_extension("sock.lock");
    let held = Server::new().bind(&address).await.expect("free");
    let status = Server::new().bind(&address).await.expect_err("it is held");
    let locked = format!("{} is locked; another process", lock.display());
    assert!(status.message().contains(&locked), "{status}");
    drop(held);

    std::os::unix::fs::symlink(&path, &lock).expect("a link");
    let status = Server::new().bind(&address).await.expect_err("a link");
    std::fs::remove_file(&lock).expect("a link");
    std::fs::create_dir(&lock).expect("a directory");
    let as_directory = Server::new().bind(&address).await.expect_err("a directory");
    for status in [status, as_directory] {
        assert_eq!(status.code(), Code::UNAVAILABLE, "{status}");
        let lock_file = format!("its lock file {} cannot be locked", lock.display());
        for words in [address.as_str(), &lock_file, "remove what is there"] {
            assert!(status.message().contains(words), "{status}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_path_is_said() {
    let directory = Directory::new("wrong");
    let long = format!("unix:{}/{}", directory.0.display(), "a".repeat(120));
    let missing = format!("unix:{}/missing/greeter.sock", directory.0.display());
    for (address, words) in [
        (long.as_str(), "bytes"),
        (missing.as_str(), "the directory does not exist"),
        ("unix:", "the path is empty"),
    ] {
        let status = Server::new().bind(address).await.expect_err("no path");
        for words in [address, words] {
            assert!(status.message().contains(words), "{status}");
        }
    }
    assert_eq!(directory.names(), [""; 0]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_socket_without_a_file_serves_calls_and_is_free_when_its_server_ends() {
    let address = format!("unix-abstract:trunkline%20{}", std::process::id());
    for server in [Server::new(), Server::new().threads(2)] {
        let bound = server
            .add_service(Echo)
            .bind(&address)
            .await
            .expect("it is free");
        assert_eq!(bound.local_addr().to_string(), address);
        let again = Server::new().bind(&address).await.expect_err("it runs");
        assert!(
            again.message().contains("another process listens there"),
            "{again}"
        );
        let running = run(bound);
        within("a call", call(&address))
            .await
            .expect("it is reached");
        running.stop().await;
        let status = within("a call", call(&address))
            .await
            .expect_err("it ended");
        assert!(
            status.message().contains("is the server running"),
            "{status}"
        );
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn addresses_with_a_zone_are_bound_and_reached() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no IPv6");
        return;
    }
    // The loopback interface is the first on Linux; in a URI the % is in encoding.
    for address in ["[::1%1]:0", "http://[::1%251]:0"] {
        let bound = Server::new().add_service(Echo).bind(address).await;
        let bound = bound.expect("a free port");
        let port = bound.local_addr().tcp().expect("TCP").port();
        let running = run(bound);
        let targets = [
            format!("[::1%1]:{port}"),
            format!("http://[::1%1]:{port}"),
            format!("http://[::1%251]:{port}"),
            format!("ipv6:[::1%251]:{port}"),
            format!("dns:///[::1%251]:{port}"),
        ];
        for target in targets {
            within("a call", call(&target)).await.expect(&target);
        }
        running.stop().await;
    }
    let status = Server::new().bind("[fe80::abcd%lo]:0").await;
    let status = status.expect_err("lo has no such address");
    assert!(
        status
            .message()
            .contains("no interface of this machine has that address"),
        "{status}"
    );
    for (address, words) in [
        (
            "[::1]:70000",
            "the port 70000 is out of range: the largest is 65535",
        ),
        ("localhost", "the port is missing"),
        ("::1", "has to be in brackets"),
    ] {
        let status = Server::new().bind(address).await.expect_err(address);
        assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{status}");
        assert!(status.message().contains(words), "{status}");
    }
}

/// Clients on C-core put the path, or the list, into `:authority`, which h2 refuses; docs/server.md has
/// the way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpcio_reaches_a_unix_socket_and_a_list_with_an_authority_of_its_own_and_not_without() {
    let Some(program) = peer(Peer::PythonUnix) else {
        return;
    };
    let directory = Directory::new("grpcio");
    let (_, unix) = directory.socket();
    let bound = test_service::server()
        .bind(&unix)
        .await
        .expect("a path of ours");
    let _unix = run(bound);
    let bound = test_service::server()
        .bind("127.0.0.1:0")
        .await
        .expect("a port");
    let tcp = bound.local_addr();
    let _tcp = run(bound);
    let calls = number("TRUNKLINE_SOCKET_CALLS", 2000).to_string();
    for target in [unix, format!("ipv4:{tcp},{tcp}")] {
        let process = program.start(&["--target", &target, "--calls", &calls], LONG);
        let lines = tokio::task::block_in_place(|| process.and_then(Process::finish));
        let lines = lines.expect("it ends by itself");
        println!("{target}: {lines:#?}");
        let cut = lines.iter().find(|line| line.contains("GOAWAY"));
        assert_eq!(cut, None, "the connection stays");
        let own = lines.iter().find(|line| line.starts_with("own: "));
        let own = own.expect("how the calls ended");
        let refused = format!("error code 1))': {calls}}}");
        assert!(own.ends_with(&refused) && !own.contains("OK"), "{own}");
        assert!(
            lines.contains(&format!("set: {{'OK': {calls}}}")),
            "{lines:?}"
        );
    }
}

/// A call as C-core makes it over a Unix socket.
fn of_c_core(client: &mut RawPeer<DuplexStream>) -> Frame {
    let fields = Fields::call(ECHO).with(":authority", "%2Frun%2Fgreeter.sock");
    Frame::headers(client.next_stream(), &fields)
}

async fn raw_client() -> RawPeer<DuplexStream> {
    let (near, far) = tokio::io::duplex(1 << 20);
    tokio::spawn(
        Server::new()
            .add_service(Probe::new())
            .serve_connection(far),
    );
    RawPeer::client(near, &[]).await
}

#[tokio::test(start_paused = true)]
async fn calls_with_an_authority_of_c_core_are_counted_apart_and_cut_off_only_without_end() {
    let mut client = raw_client().await;
    let held = client.call(&Fields::call(HOLD), message(b"x")).await;
    let mut last = 0;
    for _ in 0..100 {
        // No more at a time than the server takes.
        for _ in 0..50 {
            let call = of_c_core(&mut client);
            last = call.stream;
            client.write(&[call]).await;
        }
        assert!(client.settle().await, "cut off at {last}");
    }
    client.until_end(last).await;
    assert_eq!(client.stream(last).reset, Some(error::PROTOCOL_ERROR));
    assert_eq!(client.stream(held).reset, None);
    let served = client.call(&Fields::call(ECHO), message(b"x")).await;
    client.until_end(served).await;
    assert_eq!(client.stream(served).reset, None, "a neighbour is served");

    for round in 0.. {
        for _ in 0..50 {
            let call = of_c_core(&mut client);
            client.write(&[call]).await;
        }
        if !client.settle().await {
            break;
        }
        assert!(round < 200, "never cut off");
    }
    let goaway = client.goaway().expect("a reason");
    assert_eq!(goaway.error, error::ENHANCE_YOUR_CALM);
    assert_eq!(goaway.text, "too_many_malformed_heads");
}

/// CVE-2025-8671: calls that are refused for their heads do not hide those that the server is made to
/// reset, nor do trailers.
#[tokio::test(start_paused = true)]
async fn abuse_among_calls_with_an_authority_of_c_core_is_cut_off_as_abuse() {
    let mut client = raw_client().await;
    for round in 0.. {
        for _ in 0..20 {
            let call = of_c_core(&mut client);
            let stream = client.next_stream();
            let trailers = Fields::new().and("x", "y");
            client
                .write(&[
                    call,
                    Frame::headers(stream, &Fields::call(HOLD)),
                    Frame::headers(stream, &trailers),
                ])
                .await;
        }
        if !client.settle().await {
            break;
        }
        assert!(round < 60, "never cut off");
    }
    let goaway = client.goaway().expect("a reason");
    assert_eq!(goaway.text, "too_many_internal_resets");
}

#[tokio::test]
async fn a_socket_whose_server_is_busy_is_not_taken_over() {
    let directory = Directory::new("busy");
    let (path, address) = directory.socket();
    let busy = UnixListener::bind(&path).expect("a socket");
    let mut waiting = Vec::new();
    let connect = || {
        let connecting = tokio::net::UnixStream::connect(&path);
        tokio::time::timeout(Duration::from_millis(200), connecting)
    };
    while let Ok(Ok(stream)) = connect().await {
        waiting.push(stream);
        if waiting.len() > 10_000 {
            break;
        }
    }
    println!("{} wait", waiting.len());
    let second = Server::new().add_service(Echo).bind(&address).await;
    assert!(second.is_err(), "taken from a server that runs");
    drop(busy);
}
