//! Blocking work that does not delay the exit of the process.

use std::io;

use tokio::sync::{Semaphore, oneshot};

/// The number of threads for blocking work in the process, the same as tokio's default. Further work waits
/// for a free thread. A name server that does not respond occupies a thread for each requested name, for
/// about 10 s with the defaults of glibc.
const THREADS_MAX: usize = 512;

static THREADS: Semaphore = Semaphore::const_new(THREADS_MAX);

/// Runs `work` on a thread of its own.
///
/// Unlike this, the shutdown of a runtime waits for the work of `spawn_blocking`, so an unreachable network
/// file system or name server would delay the exit of the process. If the future is dropped, work that has
/// begun continues, and its result is dropped.
///
/// # Errors
///
/// If the thread cannot be started, or the work panics.
pub async fn run_blocking<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    run_blocking_within(&THREADS, name, work).await
}

async fn run_blocking_within<T: Send + 'static>(
    threads: &'static Semaphore,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let permit = threads.acquire().await.map_err(io::Error::other)?;
    let (done, result) = oneshot::channel();
    let thread = move || {
        let outcome = work();
        drop(permit);
        let _ = done.send(outcome);
    };
    let builder = std::thread::Builder::new().name(name.to_owned());
    drop(builder.spawn(thread)?);
    let panicked = |_| io::Error::other(format!("the thread {name} panicked"));
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
            let stuck = run_blocking("stuck", move || stuck.recv());
            let waited = tokio::time::timeout(Duration::from_millis(20), stuck).await;
            assert!(waited.is_err(), "it is stuck");
            assert_eq!(run_blocking("quick", || 7).await.expect("it runs"), 7);
            run_blocking("panics", || panic!("in the work"))
                .await
                .expect_err("it panics");
        });
        let began = Instant::now();
        drop(runtime);
        assert!(began.elapsed() < Duration::from_secs(5));
        drop(free);
    }

    #[tokio::test]
    async fn no_more_threads_are_started_than_may_be_stuck_at_once() {
        static TWO: Semaphore = Semaphore::const_new(2);
        let mut stuck = Vec::new();
        for _ in 0..2 {
            let (free, until_free) = std::sync::mpsc::channel::<()>();
            let work = move || until_free.recv();
            stuck.push((free, tokio::spawn(run_blocking_within(&TWO, "stuck", work))));
        }
        while TWO.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let (begun, begins) = oneshot::channel();
        let third = tokio::spawn(run_blocking_within(&TWO, "third", move || begun.send(())));
        let begins = tokio::time::timeout(Duration::from_millis(50), begins);
        begins.await.expect_err("there are two threads already");
        third.abort();

        let (free, work) = stuck.pop().expect("two");
        drop(free);
        let _ = work.await.expect("no panic").expect("it runs");
        let next = run_blocking_within(&TWO, "next", || 7).await;
        assert_eq!(next.expect("a thread is free"), 7);
        run_blocking_within(&TWO, "panics", || panic!("in the work"))
            .await
            .expect_err("it panics");
        let next = run_blocking_within(&TWO, "next", || 8).await;
        assert_eq!(next.expect("a panic frees a thread too"), 8);
    }
}
