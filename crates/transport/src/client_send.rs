//! Sends the request of a client's call.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, SendStream};
use tokio::sync::oneshot;
use trunkline_codec::{Code, Payload, Status};

use crate::body::Body;
use crate::connection_shared::ConnectionShared;
use crate::send::{SendBody, SendError};

/// A request of this many bytes usually leaves at once: it is the window that a stream has unless the
/// peer wants less (RFC 9113, section 6.9.2).
const LEAVES_AT_ONCE: usize = (1 << 16) - 1;

/// What h2 takes at once: no more than a window can be (RFC 9113, section 6.9.1).
pub(crate) const DATA_MAX: usize = (1 << 31) - 1;

/// Gives h2 all of a request. What it gives back is to be kept until the response has ended.
pub(crate) fn send_whole(
    mut stream: SendStream<Bytes>,
    mut data: Payload,
) -> Option<SendStream<Bytes>> {
    let is_large = data.len() > LEAVES_AT_ONCE;
    while !data.is_empty() {
        // The message is in memory anyway: in h2's buffer it is no larger, and it leaves as the
        // window allows. A stream that takes none has been answered already, or has ended: the
        // response says which.
        let piece = data.pop();
        let _ = stream.send_data(piece, data.is_empty());
    }
    is_large.then_some(stream)
}

/// How long the body of a request that the server has not taken waits for who reads the response. Who
/// awaits it is there at once; the writer of a call whose response nobody asks for is told of its end
/// after that, and does not wait for ever.
const UNTAKEN_KEPT: Duration = Duration::from_secs(1);

/// How the sending of a body ended.
enum Sent {
    /// There is nothing more to send, or nobody to give it to.
    Over,
    /// The server ended the stream, and may not have taken the call.
    Untaken,
    /// The other half of the call wants no more of it.
    Stopped(Reason),
}

/// The request half of a call as the other half knows it.
#[derive(Debug)]
pub(crate) struct RequestHandle {
    /// Stops it. Dropped, it says that the call is given up.
    pub(crate) stop: oneshot::Sender<Reason>,
    pub(crate) failure: BodyFailure,
}

/// The failure of the body of a request, which resets the stream: the other half hears of no more
/// than that from h2.
#[derive(Clone, Debug, Default)]
pub(crate) struct BodyFailure(Arc<OnceLock<Status>>);

impl BodyFailure {
    /// Makes the status of a stream that failed with `status`.
    pub(crate) fn or(&self, status: Status) -> Status {
        let is_own_reset = status.code() == Code::CANCELLED && !status.is_from_peer();
        match self.0.get().filter(|_| is_own_reset) {
            Some(failure) => failure.clone(),
            None => status,
        }
    }
}

/// The two ends of a request half.
pub(crate) fn request_channel() -> (RequestHandle, Stopped) {
    let (stop, stopped) = oneshot::channel();
    let failure = BodyFailure::default();
    let sending = RequestHandle {
        stop,
        failure: failure.clone(),
    };
    (sending, Stopped { stopped, failure })
}

/// The end of the other half that the task of a request half has.
#[derive(Debug)]
pub(crate) struct Stopped {
    stopped: oneshot::Receiver<Reason>,
    failure: BodyFailure,
}

/// The request half of a call whose body is not known in full, or larger than h2 takes at once.
/// Ends with the request, or when the other half says so, or is gone. Gives the body back if nothing
/// has come out of it, to the other half if that has learnt that the server did not take the call.
pub(crate) async fn send_body(
    mut send: SendBody,
    shared: Arc<ConnectionShared>,
    other: Stopped,
) -> Option<Body> {
    let Stopped {
        mut stopped,
        failure,
    } = other;
    let sent = poll_fn(|cx| {
        if let Poll::Ready(reason) = Pin::new(&mut stopped).poll(cx) {
            return Poll::Ready(Sent::Stopped(reason.unwrap_or(Reason::CANCEL)));
        }
        send.poll(cx, shared.header_lists()).map(|sent| match sent {
            Ok(()) => Sent::Over,
            Err(SendError::PeerGone) => match send.stream().poll_reset(cx) {
                // h2 does not say here whether the reason came in RST_STREAM or in GOAWAY: the other half
                // knows. No server says CANCEL of what it has not taken.
                Poll::Ready(Ok(reason)) if reason != Reason::CANCEL => Sent::Untaken,
                _ => Sent::Over,
            },
            // The caller let go of the call, or its body failed. Half of a request is not one.
            Err(SendError::Body(status)) => {
                let _ = failure.0.set(status);
                Sent::Stopped(Reason::CANCEL)
            }
        })
    })
    .await;
    match sent {
        Sent::Over => return None,
        Sent::Stopped(reason) => send.reset(reason),
        Sent::Untaken => {}
    }
    let body = send.into_unread()?;
    if let Sent::Untaken = sent {
        // The other half drops what would stop this when it learns of the error.
        tokio::time::timeout(UNTAKEN_KEPT, stopped).await.ok()?.ok();
    }
    Some(body)
}

/// A request that a connection did not take: nothing of it has been sent.
#[derive(Debug)]
pub struct RefusedRequest {
    /// The status of the call if that ends it.
    pub status: Status,
    /// Nothing has been taken out of it.
    pub body: Body,
    /// The connection is at fault and not the request, which can go to another.
    pub is_connection_lost: bool,
}

impl RefusedRequest {
    /// A request that no other connection to the server would take either.
    pub(crate) fn for_good(status: Status, body: Body) -> Box<Self> {
        Box::new(Self {
            status,
            body,
            is_connection_lost: false,
        })
    }
}
