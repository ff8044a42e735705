//! `trunkline` and other implementations of gRPC understand each other over TLS, in both roles.

#![cfg(unix)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use trunkline::tls::{ClientTls, ServerTls};
use trunkline_testkit::{Authority, Identity};
use trunkline_tests::capture::Capture;
use trunkline_tests::cases::{CASES, ORCA_CASES};
use trunkline_tests::frames::{Kind, Side};
use trunkline_tests::interop_ends::{our_client_runs_with, our_server_with};
use trunkline_tests::peers::{Peer, PeerServer, peer, run_client_with, skipped};
use trunkline_tests::prepare::go_certificates;
use trunkline_tests::process::{Failure, Process};

/// The name that grpc-go's test certificate is for.
pub(crate) const NAME: &str = "foo.test.google.fr";

/// grpc-go's own test certificates; none where there is no Go.
pub(crate) struct GoCertificates(PathBuf);

impl GoCertificates {
    pub(crate) fn find() -> Option<Self> {
        match go_certificates() {
            Ok(directory) => Some(Self(directory)),
            Err(failure) => {
                skipped(
                    "grpc-go's certificates",
                    &failure,
                    "install Go 1.25 or newer",
                );
                None
            }
        }
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

/// Files of a test, removed with it.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("trunkline-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    pub(crate) fn put(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn server_tls(identity: &Identity) -> ServerTls {
    ServerTls::from_pem(&identity.certificate, &identity.key).expect("a good identity")
}

#[test]
fn the_official_go_client_is_satisfied_with_our_server_over_tls() {
    let Some(certificates) = GoCertificates::find() else {
        return;
    };
    let files = ["server1.pem", "server1.key"].map(|name| certificates.file(name));
    let port = our_server_with(move |server| {
        server.tls(ServerTls::from_files(&files[0], &files[1]).expect("grpc-go's identity"))
    });
    let flags = [
        "--use_tls".to_owned(),
        "--use_test_ca".to_owned(),
        format!("--ca_file={}", certificates.file("ca.pem")),
        format!("--server_host_override={NAME}"),
    ];
    run_client_with(
        Peer::GoInteropClient,
        port,
        &Peer::GoInteropClient.cases(),
        &flags,
    );
}

#[test]
fn our_client_is_satisfied_with_the_official_go_server_over_tls() {
    let Some(certificates) = GoCertificates::find() else {
        return;
    };
    let flags = [
        "--use_tls".to_owned(),
        format!("--tls_cert_file={}", certificates.file("server1.pem")),
        format!("--tls_key_file={}", certificates.file("server1.key")),
    ];
    let Some(server) = PeerServer::start_with(Peer::GoInteropServer, &flags) else {
        return;
    };
    let tls = ClientTls::new()
        .ca_file(certificates.file("ca.pem"))
        .server_name(NAME);
    let cases = Peer::GoInteropServer.supported(CASES);
    our_client_runs_with(server.port(), &cases, Some(tls.clone()));
    our_client_runs_with(server.port(), ORCA_CASES, Some(tls));
}

/// Our server's program over TLS, with what else it is given in its environment.
fn our_server_program(files: &Files, identity: &Identity, keys: Option<&str>) -> (Process, u16) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_interop-server"));
    command.args(["--port=0", "--use_tls", "--address_type=IPV4"]);
    for (flag, name, text) in [
        ("tls_cert_file", "server.pem", &identity.certificate),
        ("tls_key_file", "server.key", &identity.key),
    ] {
        command.arg(format!("--{flag}={}", files.put(name, text)));
    }
    if let Some(keys) = keys {
        command.env("SSLKEYLOGFILE", keys);
    }
    let server = Process::start("our interop server", command, Duration::from_secs(120));
    let server = server.expect("it starts");
    let port = server.wait_for_line("port ", Duration::from_secs(30));
    let port = port.expect("it listens").parse();
    (server, port.expect("a port"))
}

/// Runs our client's program to its end, and gives what it wrote.
fn our_client_program(
    port: u16,
    flags: &[String],
    environment: &[(&str, &str)],
) -> Result<Vec<String>, Failure> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_interop-client"));
    command
        .arg("--server_host=localhost")
        .arg(format!("--server_port={port}"));
    command.args(flags).env_remove("SSL_CERT_DIR");
    command.arg("--soak_per_iteration_max_acceptable_latency_ms=20000");
    command.arg("--soak_overall_timeout_seconds=50");
    command.envs(environment.iter().copied());
    Process::start("our interop client", command, Duration::from_secs(60))?.finish()
}

#[test]
fn our_programs_speak_tls_with_a_test_authority_and_with_the_systems() {
    let (authority, files) = (Authority::new(), Files::new("programs"));
    let identity = authority.issue(&["localhost", NAME]);
    let (_server, port) = our_server_program(&files, &identity, None);
    let ca = files.put("ca.pem", authority.pem());
    let flags = |all: &[&str]| {
        all.iter()
            .map(|flag| (*flag).to_owned())
            .collect::<Vec<_>>()
    };
    let test_ca = format!("--ca_file={ca}");
    let with_ca = flags(&[
        "--use_tls",
        "--use_test_ca",
        &test_ca,
        "--server_host_override=foo.test.google.fr",
        "--test_case=all",
    ]);
    let lines = our_client_program(port, &with_ca, &[]).expect("all cases pass");
    for case in CASES {
        assert!(lines.contains(&format!("ok {case}")), "{lines:#?}");
    }
    // What the system trusts is in a file of ours for this process.
    let system = flags(&["--use_tls", "--test_case=empty_unary"]);
    let lines = our_client_program(port, &system, &[("SSL_CERT_FILE", &ca)]);
    assert_eq!(
        lines.expect("the system's authorities are used"),
        ["ok empty_unary"]
    );

    let other = files.put("other.pem", Authority::new().pem());
    let empty = files.put("empty.pem", "");
    for (file, word) in [
        (other.as_str(), "authority that is not trusted"),
        (&empty, "has no certificates of authorities"),
    ] {
        let failed = our_client_program(port, &system, &[("SSL_CERT_FILE", file)]);
        let failed = failed.expect_err(word).to_string();
        assert!(failed.contains(word), "{failed}");
    }
}

#[test]
fn the_python_client_is_satisfied_with_our_server_and_known_by_its_certificate() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let files = Files::new("python-client");
    let tls = server_tls(&servers.issue(&[NAME])).client_ca_pem(clients.pem());
    let port = our_server_with(move |server| server.tls(tls));
    let client = clients.issue(&["client.test"]);
    let ca = files.put("ca.pem", servers.pem());
    let anonymous = vec![format!("--ca={ca}"), format!("--server_name={NAME}")];
    let mut known = anonymous.clone();
    known.push(format!(
        "--cert={}",
        files.put("client.pem", &client.certificate)
    ));
    known.push(format!("--key={}", files.put("client.key", &client.key)));
    let cases = Peer::PythonClient.cases();
    let cases: Vec<_> = cases
        .into_iter()
        .filter(|case| *case != "deflate")
        .collect();
    if run_client_with(Peer::PythonClient, port, &cases, &known).is_none() {
        return;
    }
    let program = peer(Peer::PythonClient).expect("it has just run");
    let port = port.to_string();
    let mut arguments = vec!["--port", &port, "--case", "empty"];
    arguments.extend(anonymous.iter().map(String::as_str));
    let refused = program.start(&arguments, Duration::from_secs(60));
    let refused = refused
        .and_then(Process::finish)
        .expect_err("it has no certificate");
    assert!(refused.to_string().contains("UNAVAILABLE"), "{refused}");
}

#[test]
fn our_client_is_satisfied_with_the_python_server_which_asks_for_its_certificate() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let (files, identity) = (Files::new("python-server"), servers.issue(&[NAME]));
    let flags = [
        format!("--cert={}", files.put("server.pem", &identity.certificate)),
        format!("--key={}", files.put("server.key", &identity.key)),
        format!("--client_ca={}", files.put("clients.pem", clients.pem())),
    ];
    let Some(server) = PeerServer::start_with(Peer::PythonServer, &flags) else {
        return;
    };
    let client = clients.issue(&["client.test"]);
    let tls = ClientTls::new()
        .ca_pem(servers.pem())
        .server_name(NAME)
        .identity_pem(&client.certificate, &client.key);
    let cases = Peer::PythonServer.supported(CASES);
    our_client_runs_with(server.port(), &cases, Some(tls));
}

#[test]
fn a_call_over_tls_is_decoded_with_the_keys_that_were_logged() {
    let (authority, files) = (Authority::new(), Files::new("capture"));
    let keys = files.put("keys.log", "");
    let identity = authority.issue(&["localhost"]);
    let (_server, port) = our_server_program(&files, &identity, Some(&keys));
    let Some(capture) = Capture::start(port) else {
        return;
    };
    let ca = files.put("ca.pem", authority.pem());
    for case in ["large_unary", "ping_pong", "client_compressed_unary"] {
        let flags = ["--use_tls", "--use_test_ca", "--test_case"].map(str::to_owned);
        let mut flags = flags.to_vec();
        flags.extend([case.to_owned(), format!("--ca_file={ca}")]);
        our_client_program(port, &flags, &[]).expect(case);
    }
    let recording = capture.finish();
    // What decrypts TLS 1.3, from the server's end alone.
    assert!(
        fs::read_to_string(&keys)
            .expect("a key log")
            .contains("SERVER_TRAFFIC_SECRET_0")
    );
    let recording = recording.with_keys(keys.into());
    recording.assert_healthy();
    let frames = recording.frames();
    let schemes = frames.iter().filter_map(|frame| frame.header(":scheme"));
    assert!(schemes.clone().count() > 0 && schemes.clone().all(|it| it == "https"));
    for (from, kind, name) in [
        (Side::Client, Kind::Data, "grpc.testing.SimpleRequest"),
        (Side::Server, Kind::Data, "grpc.testing.SimpleResponse"),
        (
            Side::Client,
            Kind::Data,
            "grpc.testing.StreamingOutputCallRequest",
        ),
        (
            Side::Server,
            Kind::Data,
            "grpc.testing.StreamingOutputCallResponse",
        ),
    ] {
        let mut sent = frames
            .iter()
            .filter(|it| it.from == from && it.kind == kind);
        let is_seen = sent.any(|it| it.messages.iter().any(|message| message.name == name));
        assert!(is_seen, "{name} in\n{}", recording.listing());
    }
}
