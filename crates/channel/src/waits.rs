//! A call that waits for a stream.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;
use trunkline_codec::Status;
use trunkline_transport::ReadyConnection;

use crate::active_connection::{ActiveConnection, Picked};

/// The number of connections that a call waits on at the same time if all are full.
pub(crate) const WAITS_ON_MAX: usize = 16;

/// A call that waits for a stream on several connections. It counts on one of them, is given the
/// first stream that is free, and leaves no trace on the others.
#[derive(Default)]
pub(crate) struct Waits(Vec<Wait>);

struct Wait {
    active: Arc<ActiveConnection>,
    stream: Pin<Box<dyn Future<Output = Result<ReadyConnection, Status>> + Send>>,
}

impl Waits {
    /// Goes on waiting where it does already, so that the call keeps its turn, and on others as well.
    pub(crate) fn extend(&mut self, active: Vec<Arc<ActiveConnection>>) {
        self.0.retain(|it| it.active.is_usable());
        for active in active {
            let is_waited_on = self.0.iter().any(|it| Arc::ptr_eq(&it.active, &active));
            if is_waited_on || self.0.len() >= WAITS_ON_MAX {
                continue;
            }
            let is_counted = self.0.is_empty();
            if is_counted {
                active.take();
            }
            let waits = active.clone();
            let stream = Box::pin(async move {
                let connection = &waits.connection;
                match is_counted {
                    true => connection.ready().await,
                    false => {
                        let ready = connection.ready_uncounted().await;
                        ready.ok_or_else(|| connection.failure())
                    }
                }
            });
            self.0.push(Wait { active, stream });
        }
    }

    /// None if there is another choice now.
    pub(crate) async fn stream(
        &mut self,
        changes: &mut watch::Receiver<u64>,
    ) -> Option<Result<Picked, Status>> {
        let mut changed = pin!(changes.changed());
        poll_fn(|cx| {
            for at in 0..self.0.len() {
                let Wait { active, stream } = &mut self.0[at];
                let ready = match stream.as_mut().poll(cx) {
                    Poll::Pending => continue,
                    Poll::Ready(Ok(connection)) => Some(Ok(active.picked(connection))),
                    // The server has closed this one while the call waited. It has not begun, and can
                    // begin elsewhere.
                    Poll::Ready(Err(_)) if !active.is_usable() => None,
                    Poll::Ready(Err(status)) => Some(Err(status)),
                };
                self.0.swap_remove(at);
                return Poll::Ready(ready);
            }
            match changed.as_mut().poll(cx).is_ready() {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        })
        .await
    }
}
