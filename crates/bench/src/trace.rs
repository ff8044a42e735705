//! System calls of a process, counted by `strace`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Map, Value, json};

/// Attaches `strace` to a process for so many seconds; `done` is how many operations there were.
///
/// The thread ends with the system calls of an operation, all and by name.
///
/// # Errors
///
/// If there is no `strace`.
pub(crate) fn start(
    pid: u32,
    seconds: f64,
    done: Arc<AtomicU64>,
) -> Result<JoinHandle<Result<Value, String>>, String> {
    let table = std::env::temp_dir().join(format!("trunkline-bench-strace-{pid}"));
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&table)
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("strace: {error}"))?;
    Ok(thread::spawn(move || {
        let stderr = strace.stderr.take().ok_or("strace has no stderr")?;
        let mut said = String::new();
        // "strace: Process 7 attached", for the first thread; the others follow at once.
        let _ = BufReader::new(stderr).read_line(&mut said);
        if !said.contains("attached") {
            let _ = strace.kill();
            let _ = strace.wait();
            return Err(format!("strace: {}", said.trim()));
        }
        let before = done.load(Ordering::Relaxed);
        thread::sleep(Duration::from_secs_f64(seconds));
        let operations = done.load(Ordering::Relaxed) - before;
        // It writes its table when it is interrupted.
        let _ = Command::new("kill")
            .args(["-INT", &strace.id().to_string()])
            .status();
        let _ = strace.wait();
        let text = fs::read_to_string(&table).unwrap_or_default();
        let _ = fs::remove_file(&table);
        match operations {
            0 => Err("no operation while strace was attached".to_owned()),
            _ => Ok(per_operation(&counts(&text), operations as f64)),
        }
    }))
}

fn per_operation(counts: &[(String, u64)], operations: f64) -> Value {
    let all: u64 = counts.iter().map(|(_, calls)| calls).sum();
    let by_name: Map<String, Value> = counts
        .iter()
        .filter(|(_, calls)| *calls as f64 > all as f64 * 0.01)
        .map(|(name, calls)| (name.clone(), json!(*calls as f64 / operations)))
        .collect();
    json!({ "each": all as f64 / operations, "operations": operations, "by_name": by_name })
}

/// Names and calls in the table that `strace -c` writes.
fn counts(table: &str) -> Vec<(String, u64)> {
    let rows = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // % time, seconds, usecs/call, calls, errors if there were any, name.
        let (&name, calls) = (words.last()?, words.get(3)?);
        let is_row = words.len() >= 5 && words[0].parse::<f64>().is_ok() && name != "total";
        Some((name.to_owned(), calls.parse().ok().filter(|_| is_row)?))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_strace_is_read_with_and_without_errors() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.006000           2      3000           write
 40.00    0.004000           2      2000       500 recvfrom
  0.00    0.000000           0         1           mmap
------ ----------- ----------- --------- --------- ----------------
100.00    0.010000           2      5001       500 total
";
        let counts = counts(table);
        assert_eq!(counts.len(), 3);
        let each = per_operation(&counts, 1000.0);
        assert_eq!(each["each"], 5.001);
        assert_eq!(each["by_name"]["recvfrom"], 2.0);
        assert_eq!(each["by_name"]["mmap"], Value::Null);
    }
}
