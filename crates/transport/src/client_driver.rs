//! The task of a client's connection: drives HTTP/2 until the connection ends, and sets the status of its
//! calls.

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

/// The fields are in drop order, the engine before the turn: see [`Turn`].
pub(crate) struct ClientDriver<IO> {
    pub(crate) h2: ClientEngine<IO>,
    pub(crate) turn: Turn<IO>,
    pub(crate) stream_limit: Arc<StreamLimit>,
    /// The number of SETTINGS frames processed.
    pub(crate) settings: u64,
    /// Notified when the server's SETTINGS have arrived.
    pub(crate) ready: Option<oneshot::Sender<()>>,
    pub(crate) policy: ClientPolicy,
    pub(crate) name: String,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> ClientDriver<IO> {
    pub(crate) async fn run(mut self) -> CloseKind {
        let (why, end) = poll_fn(|cx| {
            let poll = self.turn.poll(cx, &mut self.h2);
            match (self.apply_policy(cx), poll) {
                // h2 has failed all streams, and waits for a socket that accepts no data.
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

    /// Reacts to control frames that h2 handles silently, and applies the policy. Ready with the reason
    /// if the connection must end.
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
            self.stream_limit
                .set_limit(self.h2.max_concurrent_send_streams());
            let _ = self.ready.take().map(|ready| ready.send(()));
        }
        if goaways > 0 {
            self.turn.shared().set_leaving();
            self.stream_limit.close();
        }
        if let Some(flood) = flood {
            return Poll::Ready((self.policy.flooded(flood), CloseKind::Graceful));
        }
        let open = self.turn.shared().open();
        let gone = self.policy.poll(cx, &mut self.h2, bytes, open);
        gone.map(|why| (why, CloseKind::Immediate))
    }
}

/// The end of a runtime drops the task, while the channel can continue in another runtime.
impl<IO> Drop for ClientDriver<IO> {
    fn drop(&mut self) {
        let shared = self.turn.shared();
        shared.set_stats(self.turn.wire().wire().stats());
        if shared.ended().is_none() {
            shared.set_ended(Status::unavailable(format!(
                "the connection to {} has ended: the runtime of its task was shut down",
                self.name
            )));
        }
        self.stream_limit.close();
    }
}
