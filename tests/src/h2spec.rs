//! The conformance suites of HTTP/2: h2spec for servers, h2specd for clients.

use std::net::TcpListener;
use std::time::Duration;

use crate::peers::{Peer, peer};
use crate::process::{Failure, Process};

/// How long a suite may take: it waits two seconds for each expectation that is not met.
const LIMIT: Duration = Duration::from_secs(420);
/// Ports that the suite for clients listens on, one for each case.
const SPECD_PORTS: u16 = 64;

/// What a suite found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conformance {
    /// Cases that the suite has.
    pub total: usize,
    /// Cases that passed.
    pub passed: usize,
    /// Cases that did not apply.
    pub skipped: usize,
    /// One text for each case that failed: section, number, title, what was expected and what happened.
    pub failures: Vec<String>,
}

/// Runs the suite for servers, strict cases included, against the server on a port of 127.0.0.1; `None` when this machine
/// lacks it. The server must answer `GET /` and `POST /` with 200 and a body that is not empty.
///
/// # Panics
///
/// When the suite does not run to its end.
pub fn server_conformance(port: u16) -> Option<Conformance> {
    let program = peer(Peer::H2spec)?;
    Some(outcome(program.start(
        &[
            "--strict",
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
        ],
        LIMIT,
    )))
}

/// Runs the suite for clients; `None` when this machine lacks it. For each case a server listens, and `client`, a command
/// line without quotes, is run with its URL (`http://127.0.0.1:PORT/`) appended; it should send one request, and how it
/// ends does not matter.
///
/// # Panics
///
/// When the suite does not run to its end.
pub fn client_conformance(client: &str) -> Option<Conformance> {
    let program = peer(Peer::H2specd)?;
    let first = free_ports(SPECD_PORTS).to_string();
    Some(outcome(program.start(
        &["--strict", "--from-port", &first, "--exec", client],
        LIMIT,
    )))
}

/// The first of `count` ports in a row that nobody listens on. They lie below those that systems hand out for outgoing
/// connections, so that none is taken in between.
fn free_ports(count: u16) -> u16 {
    let start = std::process::id() % 300;
    let firsts =
        (0..300).map(|step| 10_000 + 64 * u16::try_from((start + step) % 300).unwrap_or(0));
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    firsts
        .into_iter()
        .find(|first| (*first..first + count).all(is_free))
        .expect("some ports are free")
}

fn outcome(started: Result<Process, Failure>) -> Conformance {
    let process = started.unwrap_or_else(|failure| panic!("{failure}"));
    // The exit code says no more than the output.
    process.wait().unwrap_or_else(|failure| panic!("{failure}"));
    parse(&process.lines()).unwrap_or_else(|| panic!("{}", process.failure("gives no totals")))
}

fn parse(lines: &[String]) -> Option<Conformance> {
    let totals = lines
        .iter()
        .rev()
        .find(|line| line.contains(" tests, ") && line.ends_with(" failed"))?;
    let mut numbers = totals
        .split(", ")
        .map(|part| part.split(' ').next()?.parse().ok());
    let [total, passed, skipped, failed]: [usize; 4] =
        std::array::from_fn(|_| numbers.next().flatten().unwrap_or(0));
    let (failures, resets) = failures(lines);
    // A count that does not fit means that the output has changed.
    (failures.len() + resets == failed).then_some(Conformance {
        total,
        passed: passed + resets,
        skipped,
        failures,
    })
}

/// The failures after the heading of that name, and how many more of them are none: the suite waits for the connection to be
/// closed, and takes a reset for an error, although a server that closes a socket with unread bytes in it resets the
/// connection. (Later versions of the suite agree.)
fn failures(lines: &[String]) -> (Vec<String>, usize) {
    let mut found: Vec<String> = Vec::new();
    let mut section = "";
    let mut in_case = false;
    for line in lines
        .iter()
        .skip_while(|line| line.trim() != "Failures:")
        .skip(1)
    {
        let line = line.trim();
        if let Some(case) = line.strip_prefix("× ") {
            found.push(format!("{section} {case}"));
            in_case = true;
        } else if line.is_empty() || line.starts_with("Finished in") {
            in_case = false;
        } else if !in_case || is_section(line) {
            section = line.split(' ').next().unwrap_or_default();
            in_case = false;
        } else if let Some(case) = found.last_mut() {
            case.push_str("; ");
            case.push_str(line);
        }
    }
    let all = found.len();
    found.retain(|case| {
        !(case.contains("Connection closed") && case.contains("connection reset by peer"))
    });
    let resets = all - found.len();
    (found, resets)
}

fn is_section(line: &str) -> bool {
    line.split_once(". ").is_some_and(|(number, _)| {
        number
            .chars()
            .all(|letter| letter.is_ascii_digit() || letter == '.')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    const OUTPUT: &str = "\
Generic tests for HTTP/2 server
  1. Starting HTTP/2
    × 1: Sends a client connection preface

Failures: 

Hypertext Transfer Protocol Version 2 (HTTP/2)
  3. Starting HTTP/2
    3.5. HTTP/2 Connection Preface
      × 2: Sends invalid connection preface
        -> The endpoint MUST terminate the TCP connection.
           Expected: Connection closed
             Actual: Error: read tcp 127.0.0.1:1->127.0.0.1:2: read: connection reset by peer

  6. Frame Definitions
    6.9. WINDOW_UPDATE
      × 1: Sends a zero increment
        -> The endpoint MUST treat this as a stream error.
           Expected: RST_STREAM Frame (Error Code: PROTOCOL_ERROR)
             Actual: Timeout
      6.9.1. The Flow-Control Window
        × 2: Sends too much
          -> It MUST end.
             Expected: Connection closed
               Actual: Timeout

Finished in 0.1941 seconds
";

    #[test]
    fn failures_are_listed_by_section_and_resets_are_none() {
        let found = parse(&lines(&format!(
            "{OUTPUT}145 tests, 141 passed, 1 skipped, 3 failed\n"
        )))
        .unwrap();
        assert_eq!((found.total, found.passed, found.skipped), (145, 142, 1));
        let starts: Vec<_> = found
            .failures
            .iter()
            .map(|failure| failure.split(';').next().unwrap())
            .collect();
        assert_eq!(
            starts,
            ["6.9. 1: Sends a zero increment", "6.9.1. 2: Sends too much"]
        );
        assert!(
            found.failures[0].ends_with("; Actual: Timeout"),
            "{}",
            found.failures[0]
        );
    }

    #[test]
    fn a_count_that_does_not_fit_its_failures_is_no_outcome() {
        assert_eq!(
            parse(&lines(&format!(
                "{OUTPUT}145 tests, 140 passed, 1 skipped, 4 failed\n"
            ))),
            None
        );
        assert_eq!(parse(&lines("Error: connection refused")), None);
    }
}
