//! The observer and the interceptors of a call, around its receiving half.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::time::Instant;
use trunkline_codec::{End, Message as Received, Metadata, Status, frame};

use crate::call::cancel::{CancelWatch, cancelled};
use crate::call::intercept::ClientInterceptors;
use crate::call::message::{Message, Raw};
use crate::call::message_hooks::{Decode, MessageHooks, decode};
use crate::call::receive::{Receive, Step};
use crate::call::source::now;
use crate::observe::{MessageSize, Recorder};

/// The observer of a call, and on a client its interceptors, around the receiving half.
///
/// The observer is the outer one, so it records the events that the caller receives.
pub(crate) struct Hooks {
    recorder: Option<Arc<Recorder>>,
    interceptors: Option<ClientInterceptors>,
    /// The hooks of interceptors. On a client, they are set when the head arrives.
    message_hooks: Option<MessageHooks>,
    /// Decodes a message for the hooks.
    decode: Decode,
    /// The end of the call, which the interceptors can still change.
    ending: Option<End>,
    /// Reports a cancellation while the call waits for interceptors and not for its stream.
    cancel_watch: Option<CancelWatch>,
    /// The one message of a response, decoded before the interceptors receive the end. In a mutex that is
    /// never locked: it makes what holds a call `Sync`.
    decoded: Option<Mutex<Box<dyn Any + Send>>>,
}

impl Hooks {
    /// Returns `None` if there is neither an observer nor an interceptor.
    #[inline]
    pub(crate) fn new(
        recorder: Option<Arc<Recorder>>,
        interceptors: Option<ClientInterceptors>,
    ) -> Option<Self> {
        if recorder.is_none() && interceptors.is_none() {
            return None;
        }
        let mut hooks = Self::none();
        hooks.recorder = recorder;
        hooks.interceptors = interceptors;
        Some(hooks)
    }

    #[cold]
    pub(crate) fn none() -> Self {
        Self {
            recorder: None,
            interceptors: None,
            message_hooks: None,
            decode: decode::<Raw>,
            ending: None,
            cancel_watch: None,
            decoded: None,
        }
    }

    /// Polls a step of `receive` and records it for the observer. Interceptors can change the end.
    #[cold]
    pub(crate) fn poll_step(&mut self, receive: &mut Receive, cx: &mut Context<'_>) -> Poll<Step> {
        let Some(recorder) = self.recorder.clone() else {
            return self.poll_intercepted(receive, cx);
        };
        let step = recorder.within(|| self.poll_intercepted(receive, cx));
        match &step {
            Poll::Ready(Step::Data(bytes)) => recorder.data_received(*bytes),
            Poll::Ready(Step::Head) => recorder.head_received(receive.head()),
            Poll::Ready(Step::Message(message)) => record_message(&recorder, message, receive),
            Poll::Ready(Step::End(_)) | Poll::Pending => {}
        }
        step
    }

    fn poll_intercepted(&mut self, receive: &mut Receive, cx: &mut Context<'_>) -> Poll<Step> {
        if let Some(end) = self.ending.take() {
            return self.poll_ending(receive, end, cx);
        }
        let Some(interceptors) = &mut self.interceptors else {
            let step = ready!(receive.poll_step(cx));
            let step = self.run_message_hooks(step, receive);
            if let Step::End(end) = &step {
                record_stream_end(self.recorder.as_deref(), receive, end);
            }
            return Poll::Ready(step);
        };
        let step = match receive.next_step() {
            Some(step) => step,
            None => {
                if let Poll::Ready(status) = interceptors.poll(cx) {
                    receive.fail(status);
                }
                ready!(self.poll_awaited(receive, cx))
            }
        };
        if let (Step::Head, Some(interceptors)) = (&step, &self.interceptors) {
            self.message_hooks = interceptors.take_response_hooks();
        }
        let step = self.run_message_hooks(step, receive);
        let Some(interceptors) = &mut self.interceptors else {
            return Poll::Ready(step);
        };
        match step {
            Step::End(end) => {
                record_stream_end(self.recorder.as_deref(), receive, &end);
                let (head, trailers) = (receive.head().clone(), end.trailers.clone());
                interceptors.set_end(end.status.clone(), head, trailers);
                self.poll_ending(receive, end, cx)
            }
            step => Poll::Ready(step),
        }
    }

    /// Polls a step of `receive`, whose head comes from the interceptors. They are dropped if the caller
    /// cancels the call before the head.
    fn poll_awaited(&mut self, receive: &mut Receive, cx: &mut Context<'_>) -> Poll<Step> {
        let step = receive.poll_step(cx);
        if step.is_ready() || !receive.awaits_head() || !self.poll_cancelled(receive, cx) {
            return step;
        }
        self.interceptors = None;
        receive.fail(cancelled());
        receive.poll_step(cx)
    }

    /// Runs the message hooks. If a hook rejects a message, the call ends.
    fn run_message_hooks(&self, step: Step, receive: &mut Receive) -> Step {
        let (Step::Message(message), Some(hooks)) = (&step, &self.message_hooks) else {
            return step;
        };
        match hooks.run_encoded(&message.payload, self.decode) {
            Ok(()) => step,
            Err(status) => {
                receive.close();
                Step::End(End {
                    status: Err(receive.with_head(status)),
                    trailers: Metadata::new(),
                })
            }
        }
    }

    fn poll_ending(
        &mut self,
        receive: &mut Receive,
        mut end: End,
        cx: &mut Context<'_>,
    ) -> Poll<Step> {
        let Some(interceptors) = &mut self.interceptors else {
            return Poll::Ready(Step::End(end));
        };
        let polled = interceptors.poll_end(cx);
        match polled {
            // An interceptor that waits does not delay a caller that has cancelled the call.
            Poll::Pending if self.poll_cancelled(receive, cx) => self.interceptors = None,
            Poll::Pending => match receive.poll_deadline(cx, true) {
                // An interceptor that waits does not extend the deadline.
                Some(status) => {
                    self.interceptors = None;
                    end.status = end.status.and(Err(status));
                }
                None => {
                    self.ending = Some(end);
                    return Poll::Pending;
                }
            },
            Poll::Ready(status) => {
                let interceptors = self.interceptors.as_ref();
                if let Some(left) = interceptors.and_then(ClientInterceptors::take_response) {
                    receive.set_head(left.head);
                    end.trailers = left.trailers;
                }
                end.status = status.unwrap_or(end.status);
            }
        }
        Poll::Ready(Step::End(end))
    }

    /// Returns true after the caller has cancelled the call. Otherwise `cx` is woken by a cancellation.
    fn poll_cancelled(&mut self, receive: &Receive, cx: &Context<'_>) -> bool {
        if receive.is_cancelled() {
            return true;
        }
        if self.cancel_watch.is_none() {
            self.cancel_watch = receive.cancel_watch();
        }
        let watch = self.cancel_watch.as_ref();
        watch.is_some_and(|watch| watch.poll(cx).is_ready())
    }

    /// Handles that the caller cancels the call. Until the head arrives, the interceptors hold the stream,
    /// so they pass on a response that has arrived; if none has, they are dropped.
    #[cold]
    pub(crate) fn cancelled(&mut self, receive: &mut Receive) {
        let Some(interceptors) = &mut self.interceptors else {
            return;
        };
        if !receive.awaits_head() {
            return;
        }
        match now(|cx| interceptors.poll(cx)) {
            Poll::Ready(status) => receive.fail(status),
            Poll::Pending if interceptors.has_response() => {}
            Poll::Pending => self.interceptors = None,
        }
    }

    /// Records the bytes of DATA that had arrived when the caller cancelled the call.
    #[cold]
    pub(crate) fn data_arrived(&self, bytes: usize) {
        if let Some(recorder) = &self.recorder {
            recorder.data_received(bytes);
        }
    }

    /// Ends the call because the caller cannot read a message. Returns false if there are no interceptors,
    /// which have to receive the end before the caller.
    #[cold]
    pub(crate) fn fail(&mut self, receive: &Receive, status: &Status) -> bool {
        let Some(interceptors) = &self.interceptors else {
            return false;
        };
        let end = End {
            status: Err(status.clone()),
            trailers: Metadata::new(),
        };
        record_stream_end(self.recorder.as_deref(), receive, &end);
        interceptors.set_end(end.status.clone(), receive.head().clone(), Metadata::new());
        self.ending = Some(end);
        true
    }

    /// Returns true if interceptors receive the end of the call.
    pub(crate) fn has_interceptors(&self) -> bool {
        self.interceptors.is_some()
    }

    /// Keeps the decoded message of a response until its end.
    pub(crate) fn set_decoded<T: Message>(&mut self, message: T) {
        self.decoded = Some(Mutex::new(Box::new(message)));
    }

    pub(crate) fn has_decoded(&self) -> bool {
        self.decoded.is_some()
    }

    pub(crate) fn take_decoded<T: Message>(&mut self) -> Option<T> {
        let decoded = self.decoded.take()?.into_inner();
        let decoded = decoded.unwrap_or_else(PoisonError::into_inner).downcast();
        decoded.ok().map(|message| *message)
    }

    /// Returns the deadline of a client's call whose stream is open, if interceptors have changed it.
    pub(crate) fn moved_deadline(&self) -> Option<Instant> {
        self.interceptors.as_ref()?.moved_deadline()
    }

    /// Returns true if a message can be decoded in place, without a step.
    pub(crate) fn let_small_messages_pass(&self) -> bool {
        let recorder = self.recorder.as_ref();
        // An observer of messages needs their sizes.
        let has_to_step = recorder.is_some_and(|recorder| recorder.wants_messages());
        self.ending.is_none() && self.message_hooks.is_none() && !has_to_step
    }

    /// Sets the hooks of interceptors.
    pub(crate) fn set_message_hooks(&mut self, hooks: MessageHooks) {
        self.message_hooks = Some(hooks);
    }

    pub(crate) fn has_message_hooks(&self) -> bool {
        self.message_hooks.is_some()
    }

    /// Takes the hooks for the other direction of a client's call, whose stream is open.
    pub(crate) fn take_request_hooks(&self) -> Option<MessageHooks> {
        self.interceptors.as_ref()?.take_request_hooks()
    }

    /// Sets the type of the messages.
    #[cold]
    pub(crate) fn set_type<T: Message>(&mut self) {
        self.decode = decode::<T>;
    }

    /// Records a message that was decoded in place.
    #[cold]
    pub(crate) fn message_read(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.message_received(MessageSize::plain(0), None);
        }
    }

    /// Records the message of a request that had arrived in full.
    #[cold]
    pub(crate) fn request_read(&self, message: &Bytes) {
        if let Some(recorder) = &self.recorder {
            let payload = recorder.wants_payloads().then(|| message.clone().into());
            recorder.data_received(frame::PREFIX_SIZE + message.len());
            recorder.message_received(MessageSize::plain(message.len()), payload.as_ref());
            recorder.half_closed();
        }
    }

    /// Records the end of the received stream with the result for the caller.
    #[cold]
    pub(crate) fn ended(&self, end: Result<(), &Status>) {
        if let Some(recorder) = &self.recorder {
            recorder.client_ended(end.err());
        }
    }
}

fn record_message(recorder: &Recorder, message: &Received, receive: &Receive) {
    let size = message.payload.len();
    let size = MessageSize {
        size,
        wire_size: match message.compressed {
            true => receive.compressed_size(),
            false => size,
        },
        is_compressed: message.compressed,
    };
    recorder.message_received(size, Some(&message.payload));
}

/// Records the end of the received stream before interceptors change it.
fn record_stream_end(recorder: Option<&Recorder>, receive: &Receive, end: &End) {
    if let Some(recorder) = recorder {
        let error = end.status.as_ref().err();
        let is_by_peer = !receive.has_failed() && error.is_none_or(Status::is_from_peer);
        recorder.receive_ended(error, is_by_peer.then_some(&end.trailers));
    }
}

/// Dropping the responses drops the call, even if its requests continue.
impl Drop for Hooks {
    fn drop(&mut self) {
        if let Some(recorder) = &self.recorder {
            recorder.receiver_dropped();
        }
    }
}
