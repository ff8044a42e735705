//! Certificates and authorities that are replaced while calls go on.

#![cfg(unix)]

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use trunkline::tls::{ClientTls, ServerTls};
use trunkline::{Channel, Client, Code, Raw, Server, Status};
use trunkline_testkit::{Authority, Identity};
use trunkline_tests::fixture::{Echo, UNARY, raw, within};
use trunkline_tests::own_process::own_process;
use trunkline_tests::tls_ends::{self, LOCAL, connect, echo, failure, serve, trusting, try_echo};

/// How often files are looked at here.
const OFTEN: Duration = Duration::from_millis(5);

/// A directory of a test, removed with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("trunkline-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Files are replaced as a whole, as those do it who know that somebody reads them.
    fn put(&self, name: &str, text: &str) -> PathBuf {
        let (new, path) = (self.path("new"), self.path(name));
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(&new, &path).expect("a file");
        path
    }

    fn put_identity(&self, identity: &Identity) -> (PathBuf, PathBuf) {
        let certificate = self.put("certificate.pem", &identity.certificate);
        (certificate, self.put("key.pem", &identity.key))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type Told = mpsc::UnboundedReceiver<Result<(), Status>>;

/// What is told of reloads.
fn telling() -> (impl Fn(Result<(), Status>) + Send + Sync + 'static, Told) {
    let (tell, told) = mpsc::unbounded_channel();
    let report = move |outcome| {
        let _ = tell.send(outcome);
    };
    (report, told)
}

async fn success(told: &mut Told) {
    // Between two files of a pair there may be a look that finds one of them replaced.
    while let Err(status) = within("a reload", told.recv()).await.expect("a report") {
        assert!(status.message().contains("does not belong"), "{status}");
    }
}

async fn failed(told: &mut Told) -> String {
    let outcome = within("a reload", told.recv()).await.expect("a report");
    outcome.expect_err("it cannot be used").message().to_owned()
}

fn server_tls((certificate, key): &(PathBuf, PathBuf)) -> ServerTls {
    ServerTls::from_files(certificate, key).expect("a good identity")
}

/// Calls without an end, on connections of their own and on one that stays.
async fn load(target: String, tls: ClientTls, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) {
    let steady = connect(&target, tls.clone()).await.expect("a connection");
    while !stop.load(Ordering::Relaxed) {
        let channel = Channel::to(&target).tls(tls.clone()).connect_lazy();
        for client in [&steady, &Client::new(channel.expect("a target"))] {
            let response = client.unary::<Raw, Raw>(UNARY, raw("x")).await;
            assert_eq!(response.expect("no call fails").0, "x");
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn some_calls(done: &AtomicUsize) {
    let before = done.load(Ordering::Relaxed);
    while done.load(Ordering::Relaxed) < before + 50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_under_load_and_no_call_fails() {
    let (old, new) = (Authority::new(), Authority::new());
    let directory = Directory::new("replaced");
    let files = directory.put_identity(&old.issue(LOCAL));
    let (report, mut told) = telling();
    let tls = server_tls(&files).reload_every(OFTEN).on_reload(report);
    let target = serve(Server::new().tls(tls).add_service(Echo)).await;

    let both = trusting(&old).ca_pem(new.pem());
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let callers: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(load(
                target.clone(),
                both.clone(),
                stop.clone(),
                done.clone(),
            ))
        })
        .collect();
    within("calls", some_calls(&done)).await;
    directory.put_identity(&new.issue(LOCAL));
    success(&mut told).await;
    within("calls", some_calls(&done)).await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        within("the last call", caller)
            .await
            .expect("no call failed");
    }

    let client = connect(&target, trusting(&new))
        .await
        .expect("the new one is in use");
    assert_eq!(echo(&client, "x").await, "x");
    let message = failure(&target, trusting(&old)).await;
    assert!(message.contains("not trusted"), "{message}");
}

#[tokio::test]
async fn what_cannot_be_used_is_told_once_and_the_last_good_one_stays() {
    let authority = Authority::new();
    let directory = Directory::new("kept");
    let files = directory.put_identity(&authority.issue(LOCAL));
    let (report, mut told) = telling();
    let tls = server_tls(&files).reload_every(OFTEN).on_reload(report);
    let target = serve(Server::new().tls(tls.clone()).add_service(Echo)).await;
    let reachable = async || {
        let client = connect(&target, trusting(&authority)).await;
        assert_eq!(echo(&client.expect("the last good one"), "x").await, "x");
    };

    directory.put("certificate.pem", &authority.issue(LOCAL).certificate);
    assert!(failed(&mut told).await.contains("does not belong"));
    reachable().await;
    directory.put("certificate.pem", "nothing");
    assert!(failed(&mut told).await.contains("no certificate"));
    reachable().await;
    std::fs::remove_file(&files.0).expect("the file is there");
    assert!(
        failed(&mut told)
            .await
            .contains("cannot read the certificate")
    );
    reachable().await;
    // By hand it is told to who asks, each time, and to nobody else.
    for _ in 0..2 {
        let status = tls.reload().expect_err("the file is gone");
        assert_eq!(status.code(), Code::INVALID_ARGUMENT);
    }
    directory.put_identity(&authority.issue(LOCAL));
    success(&mut told).await;
    reachable().await;
    assert!(told.is_empty(), "each change is told once");
}

#[tokio::test]
async fn a_certificate_is_replaced_by_hand() {
    let (old, new) = (Authority::new(), Authority::new());
    let directory = Directory::new("by-hand");
    let tls = server_tls(&directory.put_identity(&old.issue(LOCAL)));
    // Settings after the clone was taken are no reason to miss it.
    let served = tls.clone().reload_every(3600 * OFTEN).on_reload(|_| {});
    let served = served.reload_every(Duration::from_secs(3600));
    let target = serve(Server::new().tls(served).threads(2).add_service(Echo)).await;
    let client = connect(&target, trusting(&old)).await.expect("the old one");
    assert_eq!(echo(&client, "x").await, "x");
    let early = Channel::to(&target).tls(trusting(&new)).connect_lazy();
    let early = Client::new(early.expect("a target"));
    assert!(try_echo(&early, "x").await.is_err());
    directory.put_identity(&new.issue(LOCAL));
    tls.reload().expect("the new one is good");
    // A channel that has failed tries again, at its own pace.
    let again = early.unary::<Raw, Raw>(UNARY, raw("x")).wait_for_ready();
    let response = within("the channel", again.into_future()).await;
    assert!(response.is_ok(), "{response:?}");
    let client = connect(&target, trusting(&new)).await.expect("the new one");
    assert_eq!(echo(&client, "x").await, "x");
}

#[tokio::test]
async fn the_authorities_of_clients_are_replaced_and_sessions_of_the_old_ones_end() {
    let (server, old, new) = (Authority::new(), Authority::new(), Authority::new());
    let directory = Directory::new("clients");
    let ca = directory.put("clients.pem", old.pem());
    let tls = server_tls(&directory.put_identity(&server.issue(LOCAL))).client_ca_file(ca);
    let target = serve(Server::new().tls(tls.clone()).add_service(Echo)).await;
    let known_by = |authority: &Authority| {
        let identity = authority.issue(&["client.test"]);
        trusting(&server).identity_pem(&identity.certificate, &identity.key)
    };
    let (by_old, by_new) = (known_by(&old), known_by(&new));
    let client = connect(&target, by_old.clone())
        .await
        .expect("a known authority");
    assert_eq!(echo(&client, "x").await, "x");
    let message = failure(&target, by_new.clone()).await;
    assert!(
        message.contains("refuses this client's certificate"),
        "{message}"
    );

    directory.put("clients.pem", new.pem());
    tls.reload().expect("authorities");
    let client = connect(&target, by_new).await.expect("a known authority");
    assert_eq!(echo(&client, "x").await, "x");
    // This client has tickets of its session under the old authority.
    let message = failure(&target, by_old).await;
    assert!(
        message.contains("refuses this client's certificate"),
        "{message}"
    );
}

#[tokio::test]
async fn a_client_reads_its_authorities_and_its_identity_again() {
    let (old, new) = (Authority::new(), Authority::new());
    let directory = Directory::new("client");
    let ca = directory.put("ca.pem", old.pem());
    let (certificate, key) = directory.put_identity(&old.issue(&["old.test"]));
    let serving = async |authority: &Authority| {
        let tls = tls_ends::server_tls(&authority.issue(LOCAL)).client_ca_pem(authority.pem());
        serve(Server::new().tls(tls).add_service(Echo)).await
    };
    let (at_old, at_new) = (serving(&old).await, serving(&new).await);
    let (report, mut told) = telling();
    let tls = ClientTls::new()
        .ca_file(ca)
        .identity_files(certificate, key);
    let polling = tls.clone().reload_every(Duration::ZERO).on_reload(report);
    for tls in [&tls, &polling] {
        let client = connect(&at_old, tls.clone()).await.expect("the old one");
        assert_eq!(echo(&client, "x").await, "x");
        failure(&at_new, tls.clone()).await;
    }

    directory.put("ca.pem", "nothing");
    assert!(tls.reload().is_err());
    for tls in [&tls, &polling] {
        let client = connect(&at_old, tls.clone())
            .await
            .expect("the last good one");
        assert_eq!(echo(&client, "x").await, "x");
    }
    assert!(failed(&mut told).await.contains("no certificate"));
    directory.put_identity(&new.issue(&["new.test"]));
    directory.put("ca.pem", new.pem());
    tls.reload().expect("authorities and an identity");
    for tls in [&tls, &polling] {
        let client = connect(&at_new, tls.clone()).await.expect("the new one");
        assert_eq!(echo(&client, "x").await, "x");
    }
    success(&mut told).await;
    assert!(told.is_empty(), "each change is told once");
}

#[tokio::test]
async fn nobody_looks_at_files_once_the_server_has_ended() {
    let authority = Authority::new();
    let directory = Directory::new("ended");
    let files = directory.put_identity(&authority.issue(LOCAL));
    let (report, mut told) = telling();
    let tls = server_tls(&files).reload_every(OFTEN).on_reload(report);
    let bound = Server::new()
        .tls(tls)
        .add_service(Echo)
        .bind("127.0.0.1:0")
        .await;
    let serving = tokio::spawn(bound.expect("a port").serve());
    directory.put_identity(&authority.issue(LOCAL));
    success(&mut told).await;
    serving.abort();
    let _ = serving.await;
    // Everything that could report is gone, and so is what it reports to.
    assert!(within("the end", told.recv()).await.is_none());
}

/// What the environment of a child has: the directory with its files.
const CHILD: &str = "TRUNKLINE_RELOAD_FILES";

/// A FIFO in the place of a file. Nobody writes to it before this is dropped.
struct Fifo(PathBuf);

impl Fifo {
    fn put(path: &Path) -> Self {
        let new = path.with_extension("fifo");
        let made = Command::new("mkfifo").arg(&new).status();
        assert!(made.expect("mkfifo").success());
        std::fs::rename(&new, path).expect("a file");
        Self(path.to_owned())
    }
}

/// Lets go of those that have opened it, and wait.
impl Drop for Fifo {
    fn drop(&mut self) {
        let _ = OpenOptions::new().read(true).write(true).open(&self.0);
    }
}

/// Serves until SIGTERM, with a reload that never comes back.
async fn serve_while_a_reload_is_stuck(files: PathBuf) {
    let (told, mut tells) = mpsc::unbounded_channel();
    let stuck = move |outcome: Result<(), Status>| {
        let _ = told.send(outcome);
        std::thread::sleep(Duration::from_secs(3600));
    };
    let files = (files.join("certificate.pem"), files.join("key.pem"));
    let tls = server_tls(&files).reload_every(OFTEN).on_reload(stuck);
    let bound = Server::new()
        .tls(tls)
        .add_service(Echo)
        .bind("127.0.0.1:0")
        .await;
    let serving = tokio::spawn(
        bound
            .expect("a port")
            .serve_until(trunkline::shutdown_signal()),
    );
    let _fifo = Fifo::put(&files.0);
    let message = failed(&mut tells).await;
    assert!(message.contains("it is a FIFO"), "{message}");
    println!("the reload is stuck");
    let served = within("SIGTERM", serving).await;
    served.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn a_reload_that_is_stuck_holds_no_exit() {
    let Some(mut child) = own_process(module_path!(), "a_reload_that_is_stuck_holds_no_exit")
    else {
        let files = std::env::var_os(CHILD).expect("a directory");
        return serve_while_a_reload_is_stuck(files.into()).await;
    };
    let directory = Directory::new("stuck");
    directory.put_identity(&Authority::new().issue(LOCAL));
    let mut child = child
        .env(CHILD, &directory.0)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let (told, tells) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = lines.map_while(std::io::Result::ok);
        let _ = told.send(lines.any(|line| line.contains("the reload is stuck")));
        // The child would fail to write what nobody reads.
        lines.for_each(drop);
    });
    let is_stuck = tells.recv_timeout(Duration::from_secs(30));
    if is_stuck == Ok(true) {
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    }
    let until = Instant::now() + Duration::from_secs(10);
    while child.try_wait().expect("a child").is_none() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    let ended = child.try_wait().expect("a child");
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(is_stuck, Ok(true), "it reloads");
    let ended = ended.expect("it ends with its calls, of which there are none");
    assert!(ended.success(), "{ended}");
}

/// As `--cert <(vault read ...)` has it: a pipe, which can be read once.
#[tokio::test]
async fn what_can_be_read_once_is_read_the_first_time_and_refused_to_a_reload() {
    let authority = Authority::new();
    let directory = Directory::new("once");
    let files = directory.put_identity(&authority.issue(LOCAL));
    let certificate = std::fs::read(&files.0).expect("a file");
    let _fifo = Fifo::put(&files.0);
    let path = files.0.clone();
    let writing = std::thread::spawn(move || std::fs::write(path, certificate));
    let tls = server_tls(&files);
    let target = serve(Server::new().tls(tls.clone()).add_service(Echo)).await;
    writing.join().expect("no panic").expect("it is read");
    let trusting = ClientTls::new().ca_pem(authority.pem());
    let client = connect(&target, trusting.clone()).await;
    assert_eq!(echo(&client.expect("a connection"), "x").await, "x");

    // The second is another configuration, which reads what it has for itself.
    for again in [tls.reload(), tls.reload_every(OFTEN).load()] {
        let status = again.expect_err("nobody writes again");
        assert_eq!(status.code(), Code::INVALID_ARGUMENT, "{status}");
        assert!(status.message().contains("it is a FIFO"), "{status}");
    }
    let client = connect(&target, trusting).await;
    assert_eq!(echo(&client.expect("what was in use"), "x").await, "x");
}

#[tokio::test]
async fn a_client_whose_files_cannot_be_read_again_connects_with_what_was_in_use() {
    let authority = Authority::new();
    let directory = Directory::new("stuck-client");
    let ca = directory.put("ca.pem", authority.pem());
    let tls = tls_ends::server_tls(&authority.issue(LOCAL));
    let target = serve(Server::new().tls(tls).add_service(Echo)).await;
    let (told, mut tells) = mpsc::unbounded_channel();
    let (free, stuck) = std::sync::mpsc::channel::<()>();
    let stuck = std::sync::Mutex::new(stuck);
    let report = move |outcome: Result<(), Status>| {
        let _ = told.send(outcome);
        let _ = stuck.lock().expect("no panic").recv();
    };
    let tls = ClientTls::new().ca_file(&ca).reload_every(Duration::ZERO);
    let tls = tls.on_reload(report);
    connect(&target, tls.clone()).await.expect("a connection");
    let _fifo = Fifo::put(&ca);
    for _ in 0..2 {
        let client = connect(&target, tls.clone()).await;
        assert_eq!(echo(&client.expect("a connection"), "x").await, "x");
    }
    assert!(failed(&mut tells).await.contains("it is a FIFO"));
    assert!(tells.is_empty(), "one reload at a time");
    drop(free);
}
