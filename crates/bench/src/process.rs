//! Processes that are measured, and those that measure: started, pinned, waited for and ended.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::procfs::CpuTime;
use crate::programs::{Program, is_on_path};
use crate::visit;

/// A virtual machine that starts on a busy core takes its time.
const START: Duration = Duration::from_secs(60);

/// Where processes run.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    can_pin: bool,
    /// What readers should know.
    pub(crate) note: String,
}

/// Where one process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The core of servers.
    First,
    /// The core of the load.
    Second,
    /// Wherever the kernel puts it.
    Anywhere,
}

impl Cores {
    /// Looks at the machine.
    pub(crate) fn find() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (can_pin, note) = match (cores, is_on_path("taskset")) {
            (1, _) => (false, "One core only: server and load share it."),
            (_, false) => (false, "No taskset: nothing is pinned to a core."),
            _ => (true, "Servers are pinned to core 0, the load to core 1."),
        };
        Self {
            can_pin,
            note: note.to_owned(),
        }
    }

    /// What is put before a command so that it runs there.
    pub(crate) fn before(&self, place: Place) -> Vec<String> {
        let core = match place {
            Place::First => "0",
            Place::Second => "1",
            Place::Anywhere => return Vec::new(),
        };
        match self.can_pin {
            true => ["taskset", "-c", core].map(str::to_owned).to_vec(),
            false => Vec::new(),
        }
    }
}

/// A process that is ended with the value.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(
        program: &Program,
        mode: &str,
        arguments: &[String],
        prefix: &[String],
        logs: &Path,
    ) -> Result<Self, String> {
        let words: Vec<&String> = prefix.iter().chain(&program.command).collect();
        let (first, rest) = words.split_first().ok_or("a program without a command")?;
        let log = logs.join(format!("{}-{mode}.log", program.name));
        let stderr = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let child = Command::new(first)
            .args(rest)
            .arg(mode)
            .args(arguments)
            .args(&program.switches)
            .current_dir(&program.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|error| format!("{first}: {error}"))?;
        Ok(Self { child, log })
    }

    /// The lines it prints, as they come.
    fn lines(&mut self) -> Receiver<String> {
        let (sender, receiver) = mpsc::channel();
        if let Some(stdout) = self.child.stdout.take() {
            thread::spawn(move || {
                // Read to the end even if nobody listens: a closed pipe would end the process.
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        receiver
    }

    /// How it ended and what it said last, if it has ended.
    fn last_words(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        // What went wrong stands first, what to do about it behind.
        let said: Vec<&str> = log
            .lines()
            .map(str::trim)
            .filter(|it| !it.is_empty())
            .collect();
        let mut words = format!("its process ended, {status}");
        for line in said.iter().take(2) {
            words.push_str(": ");
            words.extend(line.chars().take(200));
        }
        Some(words)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that listens.
pub(crate) struct Server {
    process: Process,
    address: SocketAddr,
    /// Whether it was driven for as long as its program needs.
    pub(crate) is_warm: bool,
}

impl Server {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    ///
    /// What it said instead.
    pub(crate) fn start(
        program: &Program,
        more: &[&str],
        prefix: &[String],
        logs: &Path,
    ) -> Result<Self, String> {
        let mut arguments = vec!["--port".to_owned(), "0".to_owned()];
        arguments.extend(more.iter().map(|it| (*it).to_owned()));
        let mut process = Process::start(program, "server", &arguments, prefix, logs)?;
        let lines = process.lines();
        let line = lines.recv_timeout(START);
        let address = line
            .as_ref()
            .ok()
            .and_then(|line| line.strip_prefix("listening ")?.parse().ok());
        if let Some(address) = address {
            return Ok(Self {
                process,
                address,
                is_warm: false,
            });
        }
        // It may have closed its output a moment before it ends.
        thread::sleep(Duration::from_millis(100));
        Err(process.last_words().unwrap_or_else(|| match line {
            Ok(line) => format!("it said {line:?} instead of where it listens"),
            Err(_) => format!("it did not listen within {START:?}"),
        }))
    }

    /// Why a visit failed, with what is known of the process.
    pub(crate) fn explain(&mut self, why: String) -> String {
        // The socket closes before the process is gone.
        thread::sleep(Duration::from_millis(100));
        match self.process.last_words() {
            Some(words) => format!("{why}; {words}"),
            None => why,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }
}

/// Runs the load process for `order`, for `patience` at most.
///
/// # Errors
///
/// What the server did wrong, or that nothing came of it.
pub(crate) fn load(order: &Value, prefix: &[String], patience: Duration) -> Result<Value, String> {
    let mut child = visit::command(order, prefix)?
        .spawn()
        .map_err(|error| format!("the load: {error}"))?;
    let end = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(10)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("not done within {patience:?}"));
            }
        }
    }
    let mut said = String::new();
    if let Some(stdout) = &mut child.stdout {
        let _ = stdout.read_to_string(&mut said);
    }
    let said: Value = serde_json::from_str(&said).map_err(|_| "the load gave up".to_owned())?;
    match said["error"].as_str() {
        Some(why) => Err(why.to_owned()),
        None => Ok(said),
    }
}

/// Runs a program's client against a server, and returns the microseconds of processor time, and the
/// seconds, that its calls took, which `options` are about.
///
/// # Errors
///
/// What it said instead.
pub(crate) fn client(
    program: &Program,
    target: &str,
    options: &[(&str, u64)],
    prefix: &[String],
    logs: &Path,
) -> Result<(f64, f64), String> {
    let mut arguments = vec!["--target".to_owned(), target.to_owned()];
    for (name, value) in options {
        arguments.extend([(*name).to_owned(), value.to_string()]);
    }
    let mut process = Process::start(program, "client", &arguments, prefix, logs)?;
    let lines = process.lines();
    let mut stdin = process.child.stdin.take().ok_or("no stdin")?;
    let pid = process.child.id();
    let mut moment = |word: &str| {
        match lines.recv_timeout(START) {
            Ok(line) if line == word => {}
            Ok(line) => return Err(format!("it said {line:?} instead of {word:?}")),
            Err(_) => {
                thread::sleep(Duration::from_millis(100));
                let words = process.last_words();
                return Err(words.unwrap_or_else(|| format!("no {word:?} within {START:?}")));
            }
        }
        Ok((Instant::now(), CpuTime::of(pid)))
    };
    let (begun, before) = moment("begin")?;
    go_on(&mut stdin)?;
    let (ended, after) = moment("end")?;
    go_on(&mut stdin)?;
    let micros = after.since(&before) as f64 / 1e3;
    Ok((micros, (ended - begun).as_secs_f64()))
}

fn go_on(stdin: &mut ChildStdin) -> Result<(), String> {
    stdin
        .write_all(b"\n")
        .and_then(|()| stdin.flush())
        .map_err(|error| format!("its stdin: {error}"))
}
