//! Work that blocks, and that nobody waits for when the process ends.

use std::io;

use tokio::sync::oneshot;

/// Runs `work` on a thread of its own.
///
/// A runtime that shuts down waits for what it has handed to `spawn_blocking`, for as long as that
/// takes. A file on a network that is gone, or a name server that is silent, would hold the exit of
/// the process. A thread of its own goes with the process. If the future is dropped, the work goes on,
/// and its result is dropped.
///
/// # Errors
///
/// If no thread can be started, or the work has panicked.
pub(crate) async fn detached<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    let thread = move || {
        let _ = done.send(work());
    };
    let builder = std::thread::Builder::new().name(name.to_owned());
    drop(builder.spawn(thread)?);
    let panicked = |_| io::Error::other(format!("the thread {name} has panicked"));
    result.await.map_err(panicked)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_runtime_does_not_wait_for_work_that_is_stuck() {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().expect("a runtime");
        let (free, stuck) = std::sync::mpsc::channel::<()>();
        runtime.block_on(async {
            let stuck = detached("stuck", move || stuck.recv());
            let waited = tokio::time::timeout(Duration::from_millis(20), stuck).await;
            assert!(waited.is_err(), "it is stuck");
            assert_eq!(detached("quick", || 7).await.expect("it runs"), 7);
            detached("panics", || panic!("in the work"))
                .await
                .expect_err("it panics");
        });
        let began = Instant::now();
        drop(runtime);
        assert!(began.elapsed() < Duration::from_secs(5));
        drop(free);
    }
}
