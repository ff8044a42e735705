//! A task with an owner.

use tokio::task::{AbortHandle, JoinHandle};

/// A task that ends with its handle.
#[derive(Debug)]
pub(super) struct OwnedTask(AbortHandle);

impl OwnedTask {
    pub(super) fn new(task: &JoinHandle<()>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
