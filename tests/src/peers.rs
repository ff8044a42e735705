//! Which foreign programs there are, how to get one, and how to run it as a server or a client.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::prepare::{
    Toolkit, peers_are_required, peers_are_skipped, proto_directory, source_directory,
};
use crate::process::{Failure, Process};

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(30);
/// How long a server lives at most: no single test takes as long.
const SERVER_LIMIT: Duration = Duration::from_secs(600);
/// How long one run of a client may take.
const CLIENT_LIMIT: Duration = Duration::from_secs(120);

/// A foreign program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The official interop client of grpc-go.
    GoInteropClient,
    /// The official interop server of grpc-go. It knows neither compression nor error details.
    GoInteropServer,
    /// The official HTTP/2 client of grpc-go for servers that misbehave.
    GoInteropHttp2,
    /// grpc-go with gzip.
    GoClient,
    /// grpc-go with gzip.
    GoServer,
    /// connect-go with zstd, as a client.
    GoZstdClient,
    /// connect-go with zstd, as a server of two methods.
    GoZstdServer,
    /// grpc-go, as a client under service configs.
    GoScenarios,
    /// grpcio.
    PythonClient,
    /// grpcio.
    PythonServer,
    /// grpcio, with two clients that ask whether the server is there.
    PythonKeepalive,
    /// Clients of a Unix socket, or of a list of addresses, on grpcio.
    PythonUnix,
    /// grpcio, as a client under service configs.
    PythonScenarios,
    /// grpc-js.
    NodeClient,
    /// grpc-js. It never compresses.
    NodeServer,
    /// The Python packages of the health and reflection services, as clients.
    PythonStandard,
    /// Calls servers that it knows by reflection only.
    Grpcurl,
    /// The same of buf, `buf curl`, on connect-go.
    Buf,
    /// The conformance suite of HTTP/2 for servers.
    H2spec,
    /// The conformance suite of HTTP/2 for clients.
    H2specd,
    /// The recorder of Wireshark.
    Dumpcap,
    /// The dissector of Wireshark.
    Tshark,
    /// nginx, as a proxy: see [`Nginx`](crate::nginx::Nginx).
    Nginx,
    /// The conformance suite of the Connect project, for clients and servers of gRPC.
    Conformance,
}

/// How to run a peer.
#[derive(Clone, Debug)]
pub struct Program {
    peer: Peer,
    file: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
}

/// Finds a peer, and fetches and builds it if need be.
///
/// A peer that this machine lacks is `None`, and a line on standard error. With `TRUNKLINE_SKIP_PEERS`, every peer is.
///
/// # Panics
///
/// When it is missing and `TRUNKLINE_REQUIRE_PEERS` asks for it.
pub fn peer(peer: Peer) -> Option<Program> {
    if peers_are_skipped() {
        let why = Failure::new("TRUNKLINE_SKIP_PEERS is set");
        skipped(peer.name(), &why, "unset it to test with peers");
        return None;
    }
    match peer.find() {
        Ok(program) => Some(program),
        Err(failure) => {
            skipped(peer.name(), &failure, peer.remedy());
            None
        }
    }
}

/// Says that something could not be tested, and why.
///
/// # Panics
///
/// When `TRUNKLINE_REQUIRE_PEERS` is set.
pub fn skipped(what: &str, why: &Failure, remedy: &str) {
    assert!(!peers_are_required(), "missing: {what} ({why}; {remedy})");
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(what.to_owned())
    {
        // Written past the macros, whose output the test harness keeps to itself when a test passes.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {what} ({}; {remedy})",
            why.brief()
        );
    }
}

impl Peer {
    /// What the peer is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::GoInteropClient => "the official Go client",
            Self::GoInteropServer => "the official Go server",
            Self::GoInteropHttp2 => "the official Go HTTP/2 client",
            Self::GoClient => "the Go client",
            Self::GoServer => "the Go server",
            Self::GoZstdClient => "the Go client with zstd",
            Self::GoZstdServer => "the Go server with zstd",
            Self::GoScenarios => "the Go client of the scenarios",
            Self::PythonClient => "the Python client",
            Self::PythonServer => "the Python server",
            Self::PythonKeepalive => "the Python clients with keepalive",
            Self::PythonUnix => "the Python clients of Unix sockets and of lists",
            Self::PythonScenarios => "the Python client of the scenarios",
            Self::NodeClient => "the Node client",
            Self::NodeServer => "the Node server",
            Self::PythonStandard => "the Python client of the standard services",
            Self::Grpcurl => "grpcurl",
            Self::Buf => "buf",
            Self::H2spec => "h2spec",
            Self::H2specd => "h2specd",
            Self::Dumpcap => "dumpcap",
            Self::Tshark => "tshark",
            Self::Nginx => "nginx",
            Self::Conformance => "the conformance suite of the Connect project",
        }
    }

    /// The cases that a client can run against a complete server, by name; none for anything but a client. Those of the
    /// official client have the official names.
    pub fn cases(self) -> Vec<&'static str> {
        match self {
            Self::GoInteropClient => OFFICIAL.to_vec(),
            Self::GoClient => [BASIC, RICH, HEADS, GZIP, EXPECTING, WATCHING].concat(),
            Self::PythonClient => [BASIC, RICH, HEADS, GZIP, DEFLATE, &EXPECTING[..1]].concat(),
            Self::NodeClient => [BASIC, RICH, GZIP, DEFLATE, EXPECTING].concat(),
            Self::PythonStandard => STANDARD.to_vec(),
            Self::GoZstdClient => vec!["empty", "empty_stream"],
            _ => Vec::new(),
        }
    }

    /// The cases of any client that a foreign server fails for want of the feature.
    pub fn lacks(self) -> Vec<&'static str> {
        match self {
            Self::GoInteropServer => {
                [RICH, HEADS, GZIP, DEFLATE, EXPECTING, WATCHING, NAMING].concat()
            }
            Self::GoServer => [DEFLATE, ORCA, &WATCHING[1..]].concat(),
            Self::PythonServer => [EXPECTING, ORCA].concat(),
            Self::NodeServer => [HEADS, EXPECTING, WATCHING, ORCA].concat(),
            _ => Vec::new(),
        }
    }

    /// Those of these cases that a foreign server does not fail for want of a feature.
    pub fn supported(self, cases: &[&'static str]) -> Vec<&'static str> {
        let lacks = self.lacks();
        let cases = cases.iter().copied();
        cases.filter(|case| !lacks.contains(case)).collect()
    }

    /// `None`, and a line on standard error, when this machine lacks it.
    ///
    /// # Panics
    ///
    /// When it is missing and `TRUNKLINE_REQUIRE_PEERS` asks for it.
    pub fn is_there(self) -> Option<()> {
        peer(self).map(|_| ())
    }

    fn find(self) -> Result<Program, Failure> {
        let program = |file| Program {
            peer: self,
            file,
            arguments: Vec::new(),
            environment: Vec::new(),
        };
        let directory = || {
            self.toolkit()
                .map_or_else(|| Ok(PathBuf::new()), Toolkit::prepared)
        };
        let script = |name: &str| {
            source_directory(self.toolkit().map_or("", Toolkit::name))
                .join(name)
                .into_os_string()
        };
        Ok(match self {
            Self::GoInteropClient => program(directory()?.join("official/client")),
            Self::GoInteropServer => program(directory()?.join("official/server")),
            Self::GoInteropHttp2 => program(directory()?.join("official/http2")),
            Self::Grpcurl => program(directory()?.join("official/grpcurl")),
            Self::Buf => program(buf(&directory()?)?),
            Self::H2spec => program(directory()?.join("official/h2spec")),
            Self::H2specd => program(directory()?.join("official/h2specd")),
            Self::GoClient => program(directory()?.join("own/client")),
            Self::GoServer => program(directory()?.join("own/server")),
            Self::GoZstdClient | Self::GoZstdServer => program(directory()?.join("own/zstd")),
            Self::GoScenarios => program(directory()?.join("own/scenarios")),
            Self::PythonClient
            | Self::PythonServer
            | Self::PythonKeepalive
            | Self::PythonUnix
            | Self::PythonScenarios
            | Self::PythonStandard => {
                let script = script(match self {
                    Self::PythonClient => "client.py",
                    Self::PythonKeepalive => "keepalive.py",
                    Self::PythonUnix => "unix.py",
                    Self::PythonScenarios => "scenarios.py",
                    Self::PythonServer => "server.py",
                    _ => "standard.py",
                });
                let environment = vec![
                    (
                        "TRUNKLINE_STUBS",
                        directory()?.join("stubs").into_os_string(),
                    ),
                    // Keeps compiled files out of the source tree.
                    ("PYTHONDONTWRITEBYTECODE", "1".into()),
                ];
                let file = directory()?.join("venv/bin/python");
                Program {
                    peer: self,
                    file,
                    arguments: vec![script],
                    environment,
                }
            }
            Self::NodeClient | Self::NodeServer => {
                let script = script(if self == Self::NodeClient {
                    "client.js"
                } else {
                    "server.js"
                });
                let environment = vec![
                    (
                        "NODE_PATH",
                        directory()?.join("node_modules").into_os_string(),
                    ),
                    ("TRUNKLINE_PROTOS", proto_directory().into_os_string()),
                ];
                Program {
                    peer: self,
                    file: "node".into(),
                    arguments: vec![script],
                    environment,
                }
            }
            Self::Dumpcap => program(on_path("dumpcap")?),
            Self::Tshark => program(on_path("tshark")?),
            Self::Nginx => program(on_path("nginx")?),
            Self::Conformance => program(directory()?.join("connectconformance")),
        })
    }

    fn remedy(self) -> &'static str {
        match (self, self.toolkit()) {
            (_, Some(toolkit)) => toolkit.remedy(),
            (Self::Nginx, None) => {
                "install nginx, of which only the program is used; Debian: apt-get install nginx"
            }
            (_, None) => "install tshark, which brings dumpcap; Debian: apt-get install tshark",
        }
    }

    fn toolkit(self) -> Option<Toolkit> {
        match self {
            Self::GoInteropClient
            | Self::GoInteropServer
            | Self::GoInteropHttp2
            | Self::GoClient
            | Self::GoServer
            | Self::GoZstdClient
            | Self::GoZstdServer
            | Self::GoScenarios
            | Self::Grpcurl
            | Self::H2spec
            | Self::H2specd => Some(Toolkit::Go),
            Self::PythonClient
            | Self::PythonServer
            | Self::PythonKeepalive
            | Self::PythonUnix
            | Self::PythonScenarios
            | Self::PythonStandard => Some(Toolkit::Python),
            Self::NodeClient | Self::NodeServer | Self::Buf => Some(Toolkit::Node),
            Self::Conformance => Some(Toolkit::Conformance),
            Self::Dumpcap | Self::Tshark | Self::Nginx => None,
        }
    }
}

impl Program {
    /// A command that runs the peer, to be given its arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.file);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        // The peers talk to the loopback interface, and must not be sent through a proxy.
        command
            .env("NO_PROXY", "127.0.0.1,localhost")
            .env("no_proxy", "127.0.0.1,localhost");
        command
    }

    /// Runs the peer with these arguments, for at most `limit`.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(&self, arguments: &[&str], limit: Duration) -> Result<Process, Failure> {
        let mut command = self.command();
        command.args(arguments);
        Process::start(self.peer.name(), command, limit)
    }
}

/// A foreign server that listens on 127.0.0.1. Dropping it kills it.
#[derive(Debug)]
pub struct PeerServer {
    process: Process,
    port: u16,
}

impl PeerServer {
    /// Starts a server on a free port; `None` when this machine lacks it.
    ///
    /// # Panics
    ///
    /// When it is there and does not start.
    pub fn start(server: Peer) -> Option<Self> {
        Self::start_with(server, &[])
    }

    /// As [`start`](Self::start), with further flags, such as those for TLS.
    ///
    /// # Panics
    ///
    /// When it is there and does not start.
    pub fn start_with(server: Peer, flags: &[String]) -> Option<Self> {
        let mut program = peer(server)?;
        program.arguments.extend(flags.iter().map(OsString::from));
        let started = if server == Peer::GoInteropServer {
            start_on_a_free_port(&program)
        } else {
            start_anywhere(&program)
        };
        Some(started.unwrap_or_else(|failure| panic!("{failure}")))
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until the server has reported that it saw calls of this method of `TestService` given up, `count` of them since
    /// it started. The official server reports none.
    ///
    /// # Panics
    ///
    /// When that does not happen within ten seconds.
    pub fn wait_for_cancelled(&self, method: &str, count: usize) {
        let line = format!("cancelled /grpc.testing.TestService/{method}");
        let seen = self
            .process
            .wait_for_lines(&line, count, Duration::from_secs(10));
        seen.unwrap_or_else(|failure| panic!("{failure}"));
    }
}

/// Runs the cases of a client against the server on a port of 127.0.0.1; `None` when this machine lacks the client.
///
/// # Panics
///
/// When a case fails. The message has everything that the client wrote.
pub fn run_client(client: Peer, port: u16, cases: &[&str]) -> Option<()> {
    run_client_with(client, port, cases, &[])
}

/// As [`run_client`], with further flags, such as those for TLS.
///
/// # Panics
///
/// When a case fails. The message has everything that the client wrote.
pub fn run_client_with(client: Peer, port: u16, cases: &[&str], flags: &[String]) -> Option<()> {
    let mut program = peer(client)?;
    program.arguments.extend(flags.iter().map(OsString::from));
    let ran = if client == Peer::GoInteropClient {
        cases
            .iter()
            .try_for_each(|case| run_racing_case(&program, port, case))
    } else {
        run_cases(&program, port, cases)
    };
    ran.unwrap_or_else(|failure| panic!("{failure}"));
    Some(())
}

/// Runs the jobs of a client of the scenarios, a list in JSON, and returns what it wrote; `None` when this machine
/// lacks the client.
///
/// # Panics
///
/// When the client fails. The message has everything that it wrote.
pub fn run_jobs(client: Peer, jobs: &str) -> Option<Vec<String>> {
    let ran = peer(client)?.start(&["--jobs", jobs], CLIENT_LIMIT);
    let lines = ran.and_then(Process::finish);
    Some(lines.unwrap_or_else(|failure| panic!("{failure}")))
}

fn run_cases(program: &Program, port: u16, cases: &[&str]) -> Result<(), Failure> {
    let process = program.start(
        &["--port", &port.to_string(), "--case", &cases.join(",")],
        CLIENT_LIMIT,
    )?;
    let lines = process.finish()?;
    // Exit code 0 alone would also be that of a client which ran nothing.
    match cases
        .iter()
        .find(|case| !lines.contains(&format!("ok {case}")))
    {
        Some(case) => Err(Failure::new(format!(
            "{} did not run {case}",
            program.peer.name()
        ))),
        None => Ok(()),
    }
}

/// The official client cancels its call and half-closes it nonetheless. Which of the two it obeys is a race inside the
/// client: a quick server's OK sometimes comes before it has heard its own cancel, whatever server that is.
const RACES: [&str; 1] = ["cancel_after_begin"];
/// What it says when the half-close has won.
const RACE_LOST: &str = "CloseAndRecv() got error code 0, want 1";
/// How often such a case may lose its race.
const RACES_MAX: usize = 4;

fn run_racing_case(program: &Program, port: u16, case: &str) -> Result<(), Failure> {
    for _ in 0..RACES_MAX {
        match run_official_case(program, port, case) {
            Err(failure) if RACES.contains(&case) && failure.to_string().contains(RACE_LOST) => {}
            ran => return ran,
        }
    }
    run_official_case(program, port, case)
}

fn run_official_case(program: &Program, port: u16, case: &str) -> Result<(), Failure> {
    let mut arguments = vec![
        format!("--server_port={port}"),
        format!("--test_case={case}"),
    ];
    arguments.push("--server_host=127.0.0.1".to_owned());
    if case.ends_with("_soak") {
        // What counts here is that the calls end well, also on a machine that is busy.
        arguments.push("--soak_per_iteration_max_acceptable_latency_ms=20000".to_owned());
        arguments.push("--soak_overall_timeout_seconds=100".to_owned());
    }
    if ORCA.contains(&case) {
        // The balancer that gives the reports to the test.
        let balancer = r#"{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}"#;
        arguments.push(format!("--service_config_json={balancer}"));
    }
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let process = program.start(&arguments, CLIENT_LIMIT)?;
    let status = process.wait()?;
    if status.success() {
        Ok(())
    } else {
        Err(process.failure(&format!("fails {case} with {status}")))
    }
}

/// For servers that choose their port and write it.
fn start_anywhere(program: &Program) -> Result<PeerServer, Failure> {
    let process = program.start(&["--port", "0"], SERVER_LIMIT)?;
    let port = process.wait_for_line("port ", START)?;
    let port = port.parse().map_err(|_| process.failure("wrote no port"))?;
    Ok(PeerServer { process, port })
}

/// For the one that must be told its port and says nothing: another process can take the port in between, hence the
/// attempts.
fn start_on_a_free_port(program: &Program) -> Result<PeerServer, Failure> {
    let mut last = Failure::new("never tried");
    for _ in 0..5 {
        let port =
            free_port().map_err(|error| Failure::new(format!("no port is free: {error}")))?;
        let process = program.start(&[&format!("--port={port}")], SERVER_LIMIT)?;
        match wait_for_listener(&process, port) {
            Ok(()) => return Ok(PeerServer { process, port }),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

pub(crate) fn free_port() -> std::io::Result<u16> {
    // On all addresses, as the server will ask for it.
    Ok(TcpListener::bind("0.0.0.0:0")?.local_addr()?.port())
}

pub(crate) fn wait_for_listener(process: &Process, port: u16) -> Result<(), Failure> {
    let until = Instant::now() + START;
    while Instant::now() < until && !process.has_ended() {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() && !process.has_ended() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(process.failure(&format!("does not listen on port {port}")))
}

/// The program of buf for this machine. Its package `@bufbuild/buf` only chooses among those for the machines that there
/// are, and all of them would have to be in the lock.
fn buf(node: &Path) -> Result<PathBuf, Failure> {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "x64",
        other => other,
    };
    let package = format!("buf-{}-{machine}", std::env::consts::OS);
    let program = node
        .join("node_modules/@bufbuild")
        .join(&package)
        .join("bin/buf");
    match program.is_file() {
        true => Ok(program),
        false => Err(Failure::new(format!(
            "there is no {package} in package.json"
        ))),
    }
}

fn on_path(name: &str) -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian has servers, which is on the path of root only.
    let found = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join(name))
        .find(|file| file.is_file());
    found.ok_or_else(|| Failure::new(format!("{name} is not on the PATH")))
}

/// Cases of the standard services.
const STANDARD: &[&str] = &[
    "health_check",
    "health_list",
    "health_watch",
    "reflection_list",
    "reflection_call",
];
/// Cases of our own clients that every server stands.
const BASIC: &[&str] = &[
    "empty",
    "unary",
    "server_streaming",
    "client_streaming",
    "bidi",
    "metadata",
    "status",
    "unimplemented",
    "deadline",
    "cancel",
];
/// The status carries details.
const RICH: &[&str] = &["details"];
/// The client compresses, and both sides inflate.
/// Every method echoes metadata, and fails if it is told to.
const HEADS: &[&str] = &["heads"];
const GZIP: &[&str] = &["compressed"];
const DEFLATE: &[&str] = &["deflate"];
/// The server says whether each message came compressed.
const EXPECTING: &[&str] = &["client_compressed_unary", "client_compressed_streaming"];
/// The client sees whether each message came compressed.
const WATCHING: &[&str] = &["server_compressed_unary", "server_compressed_streaming"];
/// The server reports its load.
const ORCA: &[&str] = &["orca_per_rpc", "orca_oob"];
/// The server has an id.
const NAMING: &[&str] = &["pick_first_unary"];
/// Cases of the official Go client.
const OFFICIAL: &[&str] = &[
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "rpc_soak",
    "channel_soak",
    "pick_first_unary",
    "orca_per_rpc",
    "orca_oob",
];
