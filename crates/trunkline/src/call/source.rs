//! The stream that the receiving half of a call reads, and the part that had arrived before a reset.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use trunkline_codec::Status;
use trunkline_transport::Body;

/// The maximum number of bytes that are kept of a stream that is reset. Windows are not larger, but an
/// in-process body can be endless.
const ARRIVED_MAX: usize = 16 << 20;

/// A response whose head has not arrived.
pub(crate) trait AwaitedHead: Send + Sync {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<http::Response<Body>, Status>>;

    /// Returns true if the stream of the call is open.
    fn is_open(&self) -> bool;

    /// Describes the phase of the call for error messages.
    fn phase(&self) -> &'static str;
}

/// The stream that a call reads.
pub(crate) enum Source {
    Head(Box<dyn AwaitedHead>),
    Body(Body),
    Ended,
}

/// The part of a stream that had arrived before a reset.
pub(crate) struct Arrived {
    pub(crate) head: Option<http::response::Parts>,
    pub(crate) frames: VecDeque<Frame<Bytes>>,
    pub(crate) end: ArrivedEnd,
}

/// The end of the part that had arrived.
pub(crate) enum ArrivedEnd {
    /// The stream had ended before the reset.
    Complete,
    Failed(Status),
    /// The reset ended the stream.
    Reset,
}

impl Source {
    /// Takes the part of the stream that has arrived, and resets the stream.
    pub(crate) fn reset(self) -> Arrived {
        let mut arrived = Arrived {
            head: None,
            frames: VecDeque::new(),
            end: ArrivedEnd::Reset,
        };
        match self {
            Self::Ended => {}
            // Without a stream nothing has arrived, and a poll would continue to connect.
            Self::Head(head) if !head.is_open() => {}
            Self::Head(mut head) => match now(|cx| head.poll_head(cx)) {
                Poll::Ready(Ok(response)) => {
                    let (parts, body) = response.into_parts();
                    arrived.head = Some(parts);
                    arrived.take(body);
                }
                Poll::Ready(Err(status)) => arrived.end = ArrivedEnd::Failed(status),
                Poll::Pending => {}
            },
            Self::Body(body) => arrived.take(body),
        }
        arrived
    }
}

impl Arrived {
    /// Returns an end without a head and frames.
    pub(crate) fn failed(status: Status) -> Self {
        Self {
            head: None,
            frames: VecDeque::new(),
            end: ArrivedEnd::Failed(status),
        }
    }

    fn take(&mut self, mut body: Body) {
        let mut size = 0;
        while size < ARRIVED_MAX {
            match now(|cx| Pin::new(&mut body).poll_frame(cx)) {
                Poll::Ready(Some(Ok(frame))) => {
                    size += frame.data_ref().map_or(0, Bytes::len);
                    self.frames.push_back(frame);
                }
                Poll::Ready(Some(Err(status))) => return self.end = ArrivedEnd::Failed(status),
                Poll::Ready(None) => return self.end = ArrivedEnd::Complete,
                Poll::Pending => return,
            }
        }
    }
}

/// Polls once, regardless of the task's budget.
pub(crate) fn now<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    let polled = pin!(tokio::task::unconstrained(poll_fn(|cx| {
        Poll::Ready(poll(cx))
    })));
    match polled.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(polled) => polled,
        Poll::Pending => Poll::Pending,
    }
}
