//! The background tasks of a channel.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// A task that ends with its handle, at the latest.
#[derive(Debug)]
pub(crate) struct Task {
    abort: AbortHandle,
    is_over: Arc<AtomicBool>,
}

/// Tells that the task is over, also when it goes with its runtime: calls that wait for what it does
/// look again, and can do it in theirs.
struct Over {
    is_over: Arc<AtomicBool>,
    changes: watch::Sender<u64>,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Task {
    /// Starts it in the runtime that polls this; none if none does. `changes` hears of its end.
    pub(crate) fn spawn(
        changes: &watch::Sender<u64>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Option<Self> {
        Self::spawn_boxed(changes, Box::pin(task))
    }

    // One type for the runtime, which would be compiled again for each.
    fn spawn_boxed(
        changes: &watch::Sender<u64>,
        task: Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> Option<Self> {
        let runtime = Handle::try_current().ok()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Over {
            is_over: is_over.clone(),
            changes: changes.clone(),
        };
        let task = runtime.spawn(async move {
            let _over = over;
            task.await;
        });
        Some(Self {
            abort: task.abort_handle(),
            is_over,
        })
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.is_over.load(Ordering::Acquire)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort.abort();
    }
}
