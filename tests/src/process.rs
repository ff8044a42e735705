//! A child process that never outlives its test, with its output.
//!
//! It ends when it is dropped, when its time is up, and, for the peers of this repository, when the test process dies:
//! their standard input is a pipe, and they stop when it closes.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// Lines kept of one process from the start of its output, and as many from the end of it; those between are counted.
const LINES_KEPT: usize = 10_000;
/// How often the state of a child is looked at: the standard library cannot wait for a process with a time limit.
const POLL: Duration = Duration::from_millis(10);
/// How long the output may stay open after the process itself has ended; a grandchild may still hold it.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);

/// Why something could not be done with a foreign program: a sentence for the person who reads the test's output.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure with this explanation.
    pub fn new(explanation: impl Into<String>) -> Self {
        Self(explanation.into())
    }

    /// The explanation in one line: what happened, and the line of a program's output that seems to say why.
    pub fn brief(&self) -> String {
        let (first, output) = self.0.split_once('\n').unwrap_or((&self.0, ""));
        let lines = || output.lines().map(str::trim);
        match lines()
            .find(|line| line.to_lowercase().contains("error"))
            .or_else(|| lines().next_back())
        {
            Some(line) => format!("{first}: {line}"),
            None => first.to_owned(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// What `unwrap` and `expect` print; the text has several lines.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A running child process. Dropping it kills it and waits until it is gone.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Arc<Mutex<Child>>,
    output: Arc<Output>,
    deadline: Instant,
}

/// What a process has written, and whether it can still write.
#[derive(Debug, Default)]
struct Output {
    state: Mutex<OutputState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct OutputState {
    first: Vec<String>,
    last: VecDeque<String>,
    dropped: usize,
    readers: usize,
    /// Set when the `Process` is gone, for the thread that watches its time.
    abandoned: bool,
}

impl Process {
    /// Starts `command` under the name that failures will mention, and kills it after `limit`.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start(name: &str, mut command: Command, limit: Duration) -> Result<Self, Failure> {
        command.stdout(Stdio::piped());
        Self::spawn(name, command, limit)
    }

    /// As [`start`](Self::start), but the standard output goes to a file: for programs that write megabytes of it.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start_into(
        name: &str,
        mut command: Command,
        output: File,
        limit: Duration,
    ) -> Result<Self, Failure> {
        command.stdout(output);
        Self::spawn(name, command, limit)
    }

    fn spawn(name: &str, mut command: Command, limit: Duration) -> Result<Self, Failure> {
        let mut child = command
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::new(format!("{name} does not start: {error}")))?;
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as _),
            child.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        let process = Self {
            name: name.to_owned(),
            child: Arc::new(Mutex::new(child)),
            output: Arc::new(Output::default()),
            deadline: Instant::now() + limit,
        };
        for stream in streams.into_iter().flatten() {
            process.output.lock().readers += 1;
            process.read(stream);
        }
        process.watch_time();
        Ok(process)
    }

    /// Everything written so far, in the order in which it arrived, standard output and standard error together.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().lines().map(str::to_owned).collect()
    }

    /// Waits until a line that begins with `prefix` has been written, and gives the rest of it.
    ///
    /// # Errors
    ///
    /// When the process ends first, or `patience` does.
    pub fn wait_for_line(&self, prefix: &str, patience: Duration) -> Result<String, Failure> {
        self.wait_for_lines(prefix, 1, patience)
            .map(|mut found| found.remove(0))
    }

    /// Waits until `count` lines that begin with `prefix` have been written since the start, and gives the rests of them.
    ///
    /// # Errors
    ///
    /// When the process ends first, or `patience` does.
    pub fn wait_for_lines(
        &self,
        prefix: &str,
        count: usize,
        patience: Duration,
    ) -> Result<Vec<String>, Failure> {
        let until = Instant::now() + patience;
        let mut state = self.output.lock();
        loop {
            let found: Vec<_> = state
                .lines()
                .filter_map(|line| line.strip_prefix(prefix))
                .collect();
            if found.len() >= count {
                return Ok(found.into_iter().take(count).map(str::to_owned).collect());
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.readers == 0 || left.is_zero() {
                let seen = found.len();
                drop(state);
                return Err(self.failure(&format!(
                    "wrote {seen} of {count} lines beginning with {prefix:?}"
                )));
            }
            state = self.output.wait(state, left);
        }
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        !matches!(lock(&self.child).try_wait(), Ok(None))
    }

    /// Asks the process to stop, as Ctrl-C does.
    pub fn interrupt(&self) {
        let mut child = lock(&self.child);
        // The number of a process that has been waited for may belong to another one.
        if matches!(child.try_wait(), Ok(None)) {
            let _ = rustix::process::kill_process(Pid::from_child(&child), Signal::INT);
        }
    }

    /// Closes the process's standard input, at which many programs stop.
    pub fn close_input(&self) {
        drop(lock(&self.child).stdin.take());
    }

    /// Waits for the end of the process and gives its output.
    ///
    /// # Errors
    ///
    /// When it ends with anything but exit code 0, or its time is up.
    pub fn finish(self) -> Result<Vec<String>, Failure> {
        let status = self.wait()?;
        if status.success() {
            Ok(self.lines())
        } else {
            Err(self.failure(&format!("ended with {status}")))
        }
    }

    /// Waits for the end of the process, whatever it makes of it. The output is complete afterwards.
    ///
    /// # Errors
    ///
    /// When its time is up.
    pub fn wait(&self) -> Result<ExitStatus, Failure> {
        let status = loop {
            // The time limit is enforced by another thread, which must be able to take the lock in between.
            match lock(&self.child).try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(error) => return Err(self.failure(&format!("cannot be waited for: {error}"))),
            }
            thread::sleep(POLL);
        };
        if Instant::now() >= self.deadline {
            return Err(self.failure("was killed: its time was up"));
        }
        let until = Instant::now() + OUTPUT_GRACE;
        let mut state = self.output.lock();
        while state.readers > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.output.wait(state, left);
        }
        drop(state);
        Ok(status)
    }

    /// A failure of this process, with all that it wrote.
    pub fn failure(&self, what: &str) -> Failure {
        let state = self.output.lock();
        let mut text = format!("{} {what}", self.name);
        for line in state.lines() {
            text.push_str("\n    ");
            text.push_str(line);
        }
        if state.dropped > 0 {
            text.push_str(&format!(
                "\n    ({} lines from the middle are left out)",
                state.dropped
            ));
        }
        Failure(text)
    }

    fn read(&self, stream: impl Read + Send + 'static) {
        let output = Arc::clone(&self.output);
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(stream.read_until(b'\n', &mut line), Ok(length) if length > 0) {
                output.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
            output.lock().readers -= 1;
            output.changed.notify_all();
        });
    }

    fn watch_time(&self) {
        let (child, output, deadline) = (
            Arc::clone(&self.child),
            Arc::clone(&self.output),
            self.deadline,
        );
        thread::spawn(move || {
            let mut state = output.lock();
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                if state.abandoned {
                    return;
                }
                if left.is_zero() {
                    break;
                }
                state = output.wait(state, left);
            }
            drop(state);
            // Fails only for a process that has ended by itself.
            let _ = lock(&child).kill();
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.output.lock().abandoned = true;
        self.output.changed.notify_all();
        let mut child = lock(&self.child);
        // Both fail only for a process that has ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, OutputState> {
        lock(&self.state)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, OutputState>,
        patience: Duration,
    ) -> MutexGuard<'a, OutputState> {
        self.changed
            .wait_timeout(state, patience)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    fn push(&self, line: String) {
        let mut state = self.lock();
        if state.first.len() < LINES_KEPT {
            state.first.push(line);
        } else {
            state.last.push_back(line);
        }
        if state.last.len() > LINES_KEPT {
            state.last.pop_front();
            state.dropped += 1;
        }
        drop(state);
        self.changed.notify_all();
    }
}

impl OutputState {
    fn lines(&self) -> impl Iterator<Item = &str> {
        self.first.iter().chain(&self.last).map(String::as_str)
    }
}

/// A test that panicked elsewhere leaves a process as usable as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn shell(script: &str, limit: Duration) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("sh", command, limit).unwrap()
    }

    #[test]
    fn output_of_both_streams_is_kept() {
        let mut lines = shell("echo one; echo two >&2; printf three", PATIENCE)
            .finish()
            .unwrap();
        lines.sort();
        assert_eq!(lines, ["one", "three", "two"]);
    }

    #[test]
    fn a_failure_shows_the_exit_code_and_the_output() {
        let failure = shell("echo broken >&2; exit 3", PATIENCE)
            .finish()
            .unwrap_err();
        assert_eq!(
            failure.to_string(),
            "sh ended with exit status: 3\n    broken"
        );
    }

    #[test]
    fn a_failure_in_brief_is_one_line() {
        for (text, brief) in [
            ("no go", "no go"),
            (
                "npm failed\n    warn\n    Error: refused\n    see log",
                "npm failed: Error: refused",
            ),
            (
                "go failed\n    downloading\n    refused",
                "go failed: refused",
            ),
        ] {
            assert_eq!(Failure::new(text).brief(), brief);
        }
    }

    #[test]
    fn a_process_is_killed_when_its_time_is_up() {
        let failure = shell("echo started; exec sleep 1000", Duration::from_millis(200))
            .finish()
            .unwrap_err();
        assert_eq!(
            failure.to_string(),
            "sh was killed: its time was up\n    started"
        );
    }

    #[test]
    fn a_line_is_waited_for_until_the_process_ends() {
        let process = shell("echo port 1; echo port 2", PATIENCE);
        assert_eq!(process.wait_for_line("port ", PATIENCE).unwrap(), "1");
        assert_eq!(
            process.wait_for_lines("port ", 2, PATIENCE).unwrap(),
            ["1", "2"]
        );
        let failure = process.wait_for_lines("port ", 3, PATIENCE).unwrap_err();
        assert!(
            failure.to_string().starts_with("sh wrote 2 of 3 lines"),
            "{failure}"
        );
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = shell("echo $$; exec sleep 1000", PATIENCE);
        let id: i32 = process
            .wait_for_line("", PATIENCE)
            .unwrap()
            .parse()
            .unwrap();
        let id = Pid::from_raw(id).unwrap();
        assert!(rustix::process::test_kill_process(id).is_ok());
        drop(process);
        assert!(rustix::process::test_kill_process(id).is_err());
    }

    #[test]
    fn a_process_sees_the_end_of_its_input() {
        let process = shell("cat; echo done", PATIENCE);
        process.close_input();
        assert_eq!(process.finish().unwrap(), ["done"]);
    }
}
