//! What a call waits for until the head of its response is there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use trunkline_codec::Status;
use trunkline_transport::Body;

use crate::call::intercept::unlocked;
use crate::call::source::AwaitedHead;
use crate::client::attempts::Attempt;
use crate::client::call::Call;
use crate::client::channel::Channel;
use crate::http_service::Calling;
use crate::observe::Recorder;

/// A call that has begun, and the head of whose response is not there yet.
#[expect(
    clippy::large_enum_variant,
    reason = "most calls are open at once, and a box would be allocated for each"
)]
pub(crate) enum Opening {
    /// The stream is open.
    Open(Attempt),
    /// Something comes before that, or there is no stream.
    Waiting {
        /// In a mutex that is never locked: it makes what holds a call `Sync`.
        head: Mutex<Calling>,
        /// Whether the stream has been opened; none if there is none to be waited for.
        is_open: Option<Arc<AtomicBool>>,
    },
}

impl Opening {
    /// `head` says by `is_open` when the stream has been opened.
    pub(crate) fn waiting(
        is_open: Arc<AtomicBool>,
        head: impl Future<Output = Result<http::Response<Body>, Status>> + Send + 'static,
    ) -> Self {
        Self::Waiting {
            head: Mutex::new(Box::pin(head)),
            is_open: Some(is_open),
        }
    }

    /// There is no stream.
    pub(crate) fn called(head: Calling) -> Self {
        Self::Waiting {
            head: Mutex::new(head),
            is_open: None,
        }
    }

    /// A call that came to nothing.
    pub(crate) fn failed(status: Status) -> Self {
        Self::called(Box::pin(std::future::ready(Err(status))))
    }

    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Open(_) => true,
            Self::Waiting { is_open, .. } => is_open
                .as_ref()
                .is_none_or(|flag| flag.load(Ordering::Acquire)),
        }
    }

    /// What the call is doing, for people.
    pub(crate) fn phase(&self) -> &'static str {
        match self.is_open() {
            true => {
                "while the call waited for the head of the response: the server has the call but has not responded yet; it may be slow, or the timeout too short"
            }
            false => "while the call waited for a connection, or for a stream on it",
        }
    }

    /// `again` is what it takes to make the call again, if the server has not taken it.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        again: impl FnOnce() -> Option<(Channel, Call, Option<Arc<Recorder>>)>,
    ) -> Poll<Result<http::Response<Body>, Status>> {
        match self {
            Self::Waiting { head, .. } => unlocked(head).as_mut().poll(cx),
            Self::Open(attempt) => match ready!(attempt.poll(cx)) {
                Err(status) if attempt.is_unprocessed() => match again() {
                    Some(again) => self.poll_again(cx, again, status),
                    None => Poll::Ready(Err(status)),
                },
                response => Poll::Ready(response),
            },
        }
    }

    #[cold]
    fn poll_again(
        &mut self,
        cx: &mut Context<'_>,
        (channel, call, recorder): (Channel, Call, Option<Arc<Recorder>>),
        status: Status,
    ) -> Poll<Result<http::Response<Body>, Status>> {
        let ended = Self::failed(Status::internal("the call has ended"));
        if let Self::Open(attempt) = std::mem::replace(self, ended) {
            *self = attempt.again(channel, call, status, recorder);
        }
        self.poll(cx, || None)
    }
}

impl AwaitedHead for Opening {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<http::Response<Body>, Status>> {
        self.poll(cx, || None)
    }

    fn is_open(&self) -> bool {
        self.is_open()
    }

    fn phase(&self) -> &'static str {
        self.phase()
    }
}

/// A call whose head is awaited, and what it takes to make it again.
pub(crate) struct Repeatable {
    opening: Opening,
    again: Option<(Channel, Call, Option<Arc<Recorder>>)>,
}

impl Repeatable {
    pub(crate) fn new(opening: Opening, again: (Channel, Call, Option<Arc<Recorder>>)) -> Self {
        Self {
            opening,
            again: Some(again),
        }
    }
}

impl AwaitedHead for Repeatable {
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<http::Response<Body>, Status>> {
        self.opening.poll(cx, || self.again.take())
    }

    fn is_open(&self) -> bool {
        self.opening.is_open()
    }

    fn phase(&self) -> &'static str {
        self.opening.phase()
    }
}
