//! What the kernel knows about a process: processor time and resident memory.

use std::collections::HashMap;
use std::fs;

/// Ticks of `/proc/PID/stat` in a second: Linux tells programs 100 on every machine.
const TICKS: u64 = 100;

/// Processor time of a process at one moment, user and system, thread by thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuTime(HashMap<u64, u64>);

impl CpuTime {
    /// Reads it; empty if the process is gone.
    pub(crate) fn of(pid: u32) -> Self {
        let mut threads = HashMap::new();
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let nanos = fs::read_to_string(task.path().join("schedstat"))
                .ok()
                .and_then(|text| text.split(' ').next()?.trim().parse().ok());
            let tid = task.file_name().to_str().and_then(|it| it.parse().ok());
            if let (Some(nanos), Some(tid)) = (nanos, tid) {
                threads.insert(tid, nanos);
            }
        }
        if threads.is_empty() {
            // A kernel without schedstat; ticks of 10 ms are coarse, but all there is.
            let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            threads.insert(0, ticks(&text).unwrap_or(0) * (1_000_000_000 / TICKS));
        }
        Self(threads)
    }

    /// Nanoseconds from `earlier` to this. A thread that ended in between is not counted.
    pub(crate) fn since(&self, earlier: &Self) -> u64 {
        let threads = self.0.iter();
        threads
            .map(|(tid, nanos)| nanos.saturating_sub(*earlier.0.get(tid).unwrap_or(&0)))
            .sum()
    }
}

/// utime and stime of `/proc/PID/stat`. The name of the program may hold blanks and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let (user, system) = (fields.get(11)?, fields.get(12)?);
    Some(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
}

/// Resident memory of a process in bytes; 0 if it is gone.
pub(crate) fn resident(pid: u32) -> u64 {
    // VmRSS is a sum of counters per processor that may be stale; the roll-up walks the pages.
    let exact = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .ok()
        .and_then(|text| kilobytes(&text, "Rss:"));
    let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    exact
        .or_else(|| kilobytes(&status(), "VmRSS:"))
        .unwrap_or(0)
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_new_counts_and_one_that_is_gone_does_not() {
        let earlier = CpuTime(HashMap::from([(1, 100), (2, 50)]));
        let later = CpuTime(HashMap::from([(1, 130), (3, 7)]));
        assert_eq!(later.since(&earlier), 37);
    }

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 1 0 0 0 12 30 0 0 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (short) S 1"), None);
    }

    #[test]
    fn kilobytes_are_read_from_a_named_line() {
        let text = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon: 1 kB\n";
        assert_eq!(kilobytes(text, "VmRSS:"), Some(2 << 20));
        assert_eq!(kilobytes(text, "Rss:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_tells_about_ourselves() {
        let own = std::process::id();
        let earlier = CpuTime::of(own);
        let mut sum = 0_u64;
        while CpuTime::of(own).since(&earlier) == 0 {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(resident(own) > 1 << 16);
        assert_eq!(resident(u32::MAX), 0);
    }
}
