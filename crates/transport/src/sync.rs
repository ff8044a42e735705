//! Locks that outlive a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex of ours. No user code runs under one but the encoding of a message into a pipe, which
/// takes back what it has begun: a poisoned lock only means that another thread died between two
/// plain statements, and its state is still good.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
