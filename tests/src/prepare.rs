//! Fetches and builds the peers, once for a target directory, into `target/peers`.
//!
//! Each toolkit has a directory of its own there, a lock file that keeps other test processes out meanwhile, and a stamp:
//! everything the result depends on. A directory whose stamp is not today's is made anew. Versions are written in one
//! place for each language: `peers/go/go.mod`, `peers/python/requirements.txt`, `peers/node/package.json`.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use crate::process::{Failure, Process};

/// How long one step of a preparation may take; a cold build of the Go programs takes two minutes on two busy cores.
const STEP: Duration = Duration::from_secs(600);
/// How long a failed preparation is remembered, so that a machine without a network pays for it once in a test run.
const FAILURE_REMEMBERED: Duration = Duration::from_secs(600);

/// A language's tools, with which its peers are made and run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolkit {
    /// The official programs of grpc-go, grpcurl and h2spec as they come, and the peers of `peers/go`.
    Go,
    /// grpcio, a wrapper of the C core, in an environment of its own.
    Python,
    /// grpc-js, and the program of buf.
    Node,
    /// The conformance suite of the Connect project, which needs a newer Go than the other peers.
    Conformance,
}

/// Returns true if tests with peers are skipped, even if this machine has or can fetch the peers:
/// `TRUNKLINE_SKIP_PEERS` is set, and not to `0`.
pub(crate) fn peers_are_skipped() -> bool {
    env::var_os("TRUNKLINE_SKIP_PEERS").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Whether a missing peer is a failure: `TRUNKLINE_REQUIRE_PEERS` is set, and not to `0`.
pub fn peers_are_required() -> bool {
    env::var_os("TRUNKLINE_REQUIRE_PEERS").is_some_and(|value| !value.is_empty() && value != "0")
}

/// The directory of the .proto files.
pub fn proto_directory() -> PathBuf {
    tests_directory()
        .parent()
        .expect("the package lies in the repository")
        .join("proto")
}

/// The directory of the .proto files of editions, apart from the others: Wireshark, which is given those, has a parser that
/// knows no editions.
pub fn schema_directory() -> PathBuf {
    tests_directory().join("proto")
}

/// A source directory of this repository's own peers.
pub fn source_directory(language: &str) -> PathBuf {
    tests_directory().join("peers").join(language)
}

/// A directory for what peers and captures leave behind: `target/peers`.
pub fn peers_directory() -> PathBuf {
    let executable = env::current_exe().expect("a test knows its own executable");
    // Cargo puts this file at the root of a target directory, however deep the executable lies in it.
    let target = executable
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").exists());
    let target = target
        .or_else(|| executable.parent())
        .expect("an executable lies in a directory");
    target.join("peers")
}

impl Toolkit {
    /// Makes sure that the toolkit's peers are there, and gives the directory that holds them. The first call in a target
    /// directory takes minutes.
    ///
    /// # Errors
    ///
    /// When the language is not installed or its packages cannot be fetched.
    pub fn prepared(self) -> Result<PathBuf, Failure> {
        static PREPARED: [OnceLock<Result<PathBuf, Failure>>; 4] = [const { OnceLock::new() }; 4];
        PREPARED[self as usize]
            .get_or_init(|| self.prepare())
            .clone()
    }

    /// What to install for it, for the line that says what was skipped.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Go => "install Go 1.25 or newer from https://go.dev",
            Self::Python => "install Python 3.10 or newer with its venv module",
            Self::Node => "install Node.js 18 or newer with npm",
            Self::Conformance => "install Go 1.26 or newer from https://go.dev",
        }
    }

    /// The name of its directory, both of the sources and of what is made from them.
    pub fn name(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Python => "python",
            Self::Node => "node",
            Self::Conformance => "conformance",
        }
    }

    fn prepare(self) -> Result<PathBuf, Failure> {
        let root = peers_directory();
        fs::create_dir_all(&root).map_err(|error| io_failure("creating", &root, &error))?;
        // Closed, and so unlocked, at the end of this function or of the process, however that comes.
        let lock = open_lock(&root.join(format!("{}.lock", self.name())))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| Failure::new(format!("locking {} fails: {error}", root.display())))?;

        let stamp = self.stamp()?;
        let directory = root.join(self.name());
        let stamp_file = directory.join("stamp");
        if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) {
            return Ok(directory);
        }
        let failure_file = root.join(format!("{}.failed", self.name()));
        if let Some(failure) = remembered(&failure_file, &stamp) {
            return Err(failure);
        }
        let made = self
            .make(&directory)
            .and_then(|()| write(&stamp_file, &stamp));
        match made {
            Ok(()) => Ok(directory),
            Err(failure) => {
                write(&failure_file, &format!("{stamp}{failure}"))?;
                Err(failure)
            }
        }
    }

    /// Everything the result depends on. Sources that are run where they lie do not count.
    fn stamp(self) -> Result<String, Failure> {
        let source = source_directory(self.name());
        let (version, inputs) = match self {
            Self::Go => {
                let files = [
                    "go.mod",
                    "go.sum",
                    "watch/watch.go",
                    "client/main.go",
                    "server/main.go",
                    "zstd/main.go",
                    "scenarios/main.go",
                ];
                (
                    run("go", Command::new("go").arg("version"))?,
                    files.map(|file| source.join(file)).to_vec(),
                )
            }
            Self::Conformance => {
                let files = ["go.mod", "go.sum"];
                (
                    run("go", Command::new("go").arg("version"))?,
                    files.map(|file| source.join(file)).to_vec(),
                )
            }
            Self::Python => {
                let mut inputs = vec![source.join("requirements.txt")];
                inputs.extend(proto_files());
                (
                    run("python3", Command::new("python3").arg("--version"))?,
                    inputs,
                )
            }
            Self::Node => {
                let inputs = ["package.json", "package-lock.json"]
                    .map(|file| source.join(file))
                    .to_vec();
                (run("node", Command::new("node").arg("--version"))?, inputs)
            }
        };
        let mut stamp = version.join("\n");
        for input in inputs {
            stamp.push('\n');
            stamp.push_str(
                &fs::read_to_string(&input)
                    .map_err(|error| io_failure("reading", &input, &error))?,
            );
        }
        Ok(stamp)
    }

    fn make(self, directory: &Path) -> Result<(), Failure> {
        if directory.exists() {
            fs::remove_dir_all(directory)
                .map_err(|error| io_failure("removing", directory, &error))?;
        }
        fs::create_dir_all(directory).map_err(|error| io_failure("creating", directory, &error))?;
        match self {
            Self::Go => make_go(directory),
            Self::Python => make_python(directory),
            Self::Node => make_node(directory),
            Self::Conformance => make_conformance(directory),
        }
    }
}

fn make_go(directory: &Path) -> Result<(), Failure> {
    go_build(
        Toolkit::Go,
        directory.join("official"),
        &[
            "google.golang.org/grpc/interop/client",
            "google.golang.org/grpc/interop/server",
            "google.golang.org/grpc/interop/http2",
            "github.com/fullstorydev/grpcurl/cmd/grpcurl",
            "github.com/summerwind/h2spec/cmd/h2spec",
            "github.com/summerwind/h2spec/cmd/h2specd",
        ],
    )?;
    go_build(
        Toolkit::Go,
        directory.join("own"),
        &["./client", "./server", "./zstd", "./scenarios"],
    )
}

fn make_conformance(directory: &Path) -> Result<(), Failure> {
    go_build(
        Toolkit::Conformance,
        directory.to_owned(),
        &["connectrpc.com/conformance/cmd/connectconformance"],
    )
}

/// Builds packages that the toolkit's module knows, each into a file in `destination`.
fn go_build(toolkit: Toolkit, destination: PathBuf, packages: &[&str]) -> Result<(), Failure> {
    let mut command = Command::new("go");
    // Without cgo there is no need of a C compiler. A workspace file or flags of the machine's owner must not change
    // what is built.
    command
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .env("GOFLAGS", "-mod=readonly")
        .current_dir(source_directory(toolkit.name()));
    // Ends in a separator: packages are named `client` and `server`, and become files in that directory.
    command
        .args(["build", "-buildvcs=false", "-o"])
        .arg(destination.join(""))
        .args(packages);
    run("go build", &mut command)?;
    Ok(())
}

/// The directory of grpc-go's own test certificates, which lie in its module.
///
/// # Errors
///
/// When Go is not installed or the module cannot be fetched.
pub fn go_certificates() -> Result<PathBuf, Failure> {
    Toolkit::Go.prepared()?;
    let mut list = Command::new("go");
    list.env("GOWORK", "off")
        .env("GOFLAGS", "-mod=readonly")
        .args(["list", "-m", "-f", "{{.Dir}}", "google.golang.org/grpc"]);
    let lines = run("go list", list.current_dir(source_directory("go")))?;
    let directory = lines.iter().rev().find(|line| line.starts_with('/'));
    let directory = directory.ok_or_else(|| Failure::new("go list names no directory"))?;
    Ok(Path::new(directory).join("testdata"))
}

fn make_python(directory: &Path) -> Result<(), Failure> {
    let environment = directory.join("venv");
    run(
        "python3 -m venv",
        Command::new("python3")
            .args(["-m", "venv"])
            .arg(&environment),
    )?;
    let python = environment.join("bin/python");
    let mut install = Command::new(&python);
    // Without ready-made wheels pip would build the C core, which takes half an hour.
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--retries",
        "1",
        "--only-binary",
        ":all:",
        "--requirement",
    ]);
    run(
        "pip install",
        install.arg(source_directory("python").join("requirements.txt")),
    )?;

    let stubs = directory.join("stubs");
    fs::create_dir_all(&stubs).map_err(|error| io_failure("creating", &stubs, &error))?;
    let mut generate = Command::new(&python);
    generate
        .args(["-m", "grpc_tools.protoc", "--proto_path"])
        .arg(proto_directory())
        .arg("--proto_path")
        .arg(schema_directory());
    generate
        .arg("--python_out")
        .arg(&stubs)
        .arg("--grpc_python_out")
        .arg(&stubs);
    run("grpc_tools.protoc", generate.args(proto_files()))?;
    Ok(())
}

fn make_node(directory: &Path) -> Result<(), Failure> {
    let source = source_directory("node");
    for file in ["package.json", "package-lock.json"] {
        fs::copy(source.join(file), directory.join(file))
            .map_err(|error| io_failure("copying", directory, &error))?;
    }
    let mut install = Command::new("npm");
    install
        .args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--fetch-retries",
            "1",
        ])
        .current_dir(directory);
    run("npm ci", &mut install)?;
    Ok(())
}

/// Runs one step to its end.
fn run(name: &str, command: &mut Command) -> Result<Vec<String>, Failure> {
    Process::start(name, std::mem::replace(command, Command::new("true")), STEP)?.finish()
}

fn remembered(file: &Path, stamp: &str) -> Option<Failure> {
    let age = SystemTime::now()
        .duration_since(fs::metadata(file).ok()?.modified().ok()?)
        .ok()?;
    if peers_are_required() || age > FAILURE_REMEMBERED {
        return None;
    }
    let text = fs::read_to_string(file).ok()?;
    Some(Failure::new(text.strip_prefix(stamp)?))
}

fn open_lock(path: &Path) -> Result<File, Failure> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| io_failure("opening", path, &error))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| io_failure("writing", path, &error))
}

fn io_failure(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{what} {} fails: {error}", path.display()))
}

fn tests_directory() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn proto_files() -> Vec<PathBuf> {
    let services = ["empty", "messages", "test"]
        .map(|name| proto_directory().join(format!("grpc/testing/{name}.proto")));
    let schemas = ["edition_2023", "edition_2024", "legacy", "options"]
        .map(|name| schema_directory().join(format!("schema/{name}.proto")));
    services.into_iter().chain(schemas).collect()
}
