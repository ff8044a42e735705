//! The task of a client's connection: drives HTTP/2 until the connection ends, and tells its calls why.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use trunkline_codec::Status;

use crate::client_policy::ClientPolicy;
use crate::error::ended;
use crate::linger::CloseKind;
use crate::stream_limit::StreamLimit;
use crate::turn::{Engine, Turn};
use crate::wire_io::WireIo;

impl<IO: AsyncRead + AsyncWrite + Unpin> Engine for ClientEngine<IO> {
    type Output = Result<(), h2::Error>;

    fn poll_engine(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(self).poll(cx)
    }
}

pub(crate) type ClientEngine<IO> = h2::client::Connection<WireIo<IO>, Bytes>;

/// The engine goes before the turn: see [`Turn`].
pub(crate) struct ClientDriver<IO> {
    pub(crate) h2: ClientEngine<IO>,
    pub(crate) turn: Turn<IO>,
    pub(crate) slots: Arc<StreamLimit>,
    /// SETTINGS frames seen.
    pub(crate) settings: u64,
    /// Told when the server's SETTINGS have come.
    pub(crate) ready: Option<oneshot::Sender<()>>,
    pub(crate) policy: ClientPolicy,
    pub(crate) name: String,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> ClientDriver<IO> {
    pub(crate) async fn run(mut self) -> CloseKind {
        let (why, end) = poll_fn(|cx| {
            let poll = self.turn.poll(cx, &mut self.h2);
            match (self.apply_policy(cx), poll) {
                // h2 has failed all streams, and waits for a socket that takes nothing.
                (Poll::Pending, Poll::Pending) if self.turn.shared().is_end_awaited() => {
                    Poll::Ready((
                        "it was closed by the server".to_owned(),
                        CloseKind::Immediate,
                    ))
                }
                (Poll::Pending, Poll::Pending) => Poll::Pending,
                (_, Poll::Ready(Ok(said))) => {
                    let why = match said {
                        Ok(()) => "it was closed".to_owned(),
                        Err(error) => self.policy.ended(&error),
                    };
                    Poll::Ready((why, CloseKind::Graceful))
                }
                (_, Poll::Ready(Err(error))) => {
                    Poll::Ready((error.to_string(), CloseKind::Immediate))
                }
                (Poll::Ready(ended), Poll::Pending) => Poll::Ready(ended),
            }
        })
        .await;
        let protocol = self.turn.wire().wire().guard().peer_protocol();
        let status = ended(&self.name, &why, protocol);
        self.turn.shared().set_ended(status);
        end
    }

    /// What h2 does with control frames and does not tell, and what it does not do. Ready with the
    /// reason when the connection has to end.
    fn apply_policy(&mut self, cx: &mut Context<'_>) -> Poll<(String, CloseKind)> {
        let (settings, goaways, bytes, flood) = {
            let mut wire = self.turn.wire().wire();
            let flood = self.policy.flood(wire.guard(), wire.sent());
            if let Some(flood) = flood {
                wire.write_goaway(Reason::ENHANCE_YOUR_CALM, flood.text());
            }
            let guard = wire.guard();
            (guard.settings(), guard.goaways(), guard.bytes(), flood)
        };
        if settings != self.settings {
            self.settings = settings;
            self.slots.set_limit(self.h2.max_concurrent_send_streams());
            let _ = self.ready.take().map(|ready| ready.send(()));
        }
        if goaways > 0 {
            self.turn.shared().set_leaving();
            self.slots.close();
        }
        if let Some(flood) = flood {
            return Poll::Ready((self.policy.flooded(flood), CloseKind::Graceful));
        }
        let open = self.turn.shared().open();
        let gone = self.policy.poll(cx, &mut self.h2, bytes, open);
        gone.map(|why| (why, CloseKind::Immediate))
    }
}

/// A runtime that ends takes the task with it; a channel may live on in another.
impl<IO> Drop for ClientDriver<IO> {
    fn drop(&mut self) {
        let shared = self.turn.shared();
        shared.set_stats(self.turn.wire().wire().stats());
        if shared.ended().is_none() {
            shared.set_ended(Status::unavailable(format!(
                "the connection to {} has ended: the runtime that it ran in is gone",
                self.name
            )));
        }
        self.slots.close();
    }
}
