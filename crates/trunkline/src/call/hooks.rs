//! The observer and the interceptors of a call, around its receiving half.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use trunkline_codec::{End, Message as Received, Metadata, Status, frame};

use crate::call::intercept::ClientInterceptors;
use crate::call::message::{Message, Raw};
use crate::call::message_hooks::{Decode, MessageHooks, decode};
use crate::call::receive::{Receive, Step};
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
                ready!(receive.poll_step(cx))
            }
        };
        if let Step::Head = step {
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
        match interceptors.poll_end(cx) {
            // An interceptor that waits does not delay a caller that has cancelled the call.
            Poll::Pending if receive.is_cancelled() => self.interceptors = None,
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
                if let Some(left) = interceptors.take_response() {
                    receive.set_head(left.head);
                    end.trailers = left.trailers;
                }
                end.status = status.unwrap_or(end.status);
            }
        }
        Poll::Ready(Step::End(end))
    }

    /// Handles that the caller cancels the call. Until the head arrives, the interceptors hold the stream.
    #[cold]
    pub(crate) fn cancelled(&mut self, receive: &Receive) {
        if receive.awaits_head() {
            self.interceptors = None;
        }
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
