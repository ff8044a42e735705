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

/// The size up to which a request is usually sent immediately: the default window of a stream (RFC 9113,
/// section 6.9.2).
const DEFAULT_WINDOW: usize = (1 << 16) - 1;

/// The most bytes that h2 accepts at once, the size of the largest window (RFC 9113, section 6.9.1).
pub(crate) const DATA_MAX: usize = (1 << 31) - 1;

/// Passes all of a request to h2. The caller must keep the returned stream until the response has ended.
pub(crate) fn send_whole(
    mut stream: SendStream<Bytes>,
    mut data: Payload,
) -> Option<SendStream<Bytes>> {
    let is_large = data.len() > DEFAULT_WINDOW;
    while !data.is_empty() {
        // The message is in memory anyway, and takes no more in h2's buffer, which sends it as the window
        // allows. An error means that the stream has a response already or has ended: the response
        // carries the status.
        let piece = data.pop();
        let _ = stream.send_data(piece, data.is_empty());
    }
    is_large.then_some(stream)
}

/// The time for which the body of an unprocessed request is kept for the reader of the response, who
/// usually takes it immediately. If no one reads the response, the writer of the body is notified of the end
/// after this time.
const UNTAKEN_KEPT: Duration = Duration::from_secs(1);

/// The end of sending a body.
enum Sent {
    /// All was sent, or the stream has ended.
    Over,
    /// The server ended the stream, and may not have processed the call.
    Untaken,
    /// The response half of the call has stopped the request.
    Stopped(Reason),
}

/// The response half's handle of the task that sends the request.
#[derive(Debug)]
pub(crate) struct RequestHandle {
    /// Stops the task. Dropping it cancels the request.
    pub(crate) stop: oneshot::Sender<Reason>,
    pub(crate) failure: BodyFailure,
}

/// The failure of the body of a request, which resets the stream. h2 reports only the reset to the
/// response half, which reads the cause here.
#[derive(Clone, Debug, Default)]
pub(crate) struct BodyFailure(Arc<OnceLock<Status>>);

impl BodyFailure {
    /// Returns the failure of the body if it caused `status`, else `status`.
    pub(crate) fn or(&self, status: Status) -> Status {
        let is_own_reset = status.code() == Code::CANCELLED && !status.is_from_peer();
        match self.0.get().filter(|_| is_own_reset) {
            Some(failure) => failure.clone(),
            None => status,
        }
    }
}

/// Creates the two ends that connect the response half with the task of the request half.
pub(crate) fn request_channel() -> (RequestHandle, Stopped) {
    let (stop, stopped) = oneshot::channel();
    let failure = BodyFailure::default();
    let sending = RequestHandle {
        stop,
        failure: failure.clone(),
    };
    (sending, Stopped { stopped, failure })
}

/// The end held by the task that sends the request.
#[derive(Debug)]
pub(crate) struct Stopped {
    stopped: oneshot::Receiver<Reason>,
    failure: BodyFailure,
}

/// Sends the body of a request that is not known in full, or larger than h2 accepts at once.
///
/// Ends with the request, or when the response half stops it or is dropped. Returns the body if nothing
/// was read from it and the server may not have processed the call.
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
                // h2 does not report here whether the reason came in RST_STREAM or in GOAWAY; the response
                // half has that information. Servers do not send CANCEL for unprocessed calls.
                Poll::Ready(Ok(reason)) if reason != Reason::CANCEL => Sent::Untaken,
                _ => Sent::Over,
            },
            // The caller dropped the call, or its body failed: a partial request must be reset.
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
        // The response half drops its handle when it receives the error.
        tokio::time::timeout(UNTAKEN_KEPT, stopped).await.ok()?.ok();
    }
    Some(body)
}

/// A request that a connection rejected before sending any of it.
#[derive(Debug)]
pub struct RefusedRequest {
    /// The status of the call if it is not retried.
    pub status: Status,
    /// The unread body of the request.
    pub body: Body,
    /// The connection caused the failure; another connection can send the request.
    pub is_connection_lost: bool,
}

impl RefusedRequest {
    /// Creates a failure that any other connection to the server would repeat.
    pub(crate) fn for_good(status: Status, body: Body) -> Box<Self> {
        Box::new(Self {
            status,
            body,
            is_connection_lost: false,
        })
    }
}
