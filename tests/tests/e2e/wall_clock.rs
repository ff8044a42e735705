//! Every bound on real time, in one place. Each is at least ten times what is seen, because a machine may be busy with
//! other tests. All other waits end in a panic after 20 s (`within`) or have a clock that is stopped.

use std::time::Duration;

/// The longest median in which a handler's future may be dropped after its call: 2 ms are seen.
const PROMPT: Duration = Duration::from_millis(100);
/// How much later than it is due something may be: 50 ms are seen.
const SLACK: Duration = Duration::from_secs(5);

/// Holds the median of the times of one case to what is prompt.
pub(crate) fn assert_prompt(case: &str, mut times: Vec<Duration>) {
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{case}: median {median:?}, worst {worst:?}");
    assert!(median <= PROMPT, "{case}: {times:?}");
}

/// Holds what took a time to when it was due: not before, and not much later.
pub(crate) fn assert_punctual(case: &str, took: Duration, due: Duration) {
    println!("{case}: after {took:?}, due after {due:?}");
    assert!(took >= due, "{case}: {took:?} is before {due:?}");
    assert_not_late(case, took, due);
}

/// Holds what took a time to when it was due: maybe before, and not much later.
pub(crate) fn assert_not_late(case: &str, took: Duration, due: Duration) {
    assert!(took < due + SLACK, "{case}: {took:?} is long after {due:?}");
}
