//! The observer and the interceptors of a call, around its receiving half.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use trunkline_codec::{Code, End, Metadata, Status, frame};

use crate::call::intercept::ClientInterceptors;
use crate::call::message::{Message, Raw};
use crate::call::message_hooks::{Decode, MessageHooks, decode};
use crate::call::observe::Recorder;
use crate::call::receive::{Receive, Step};

/// What stands around the receiving half of a call: its observer, and on a client its interceptors.
///
/// The observer is the outer one: what it is told of is what the caller gets.
pub(crate) struct Hooks {
    recorder: Option<Arc<Recorder>>,
    interceptors: Option<ClientInterceptors>,
    /// What interceptors do with each message; on a client from when the head is there.
    message_hooks: Option<MessageHooks>,
    /// Decodes a message for them.
    decode: Decode,
    /// The call has ended, and the interceptors have yet to say what they make of it.
    ending: Option<End>,
}

impl Hooks {
    /// None if there is neither.
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

    /// A step of `receive`, of which the observer is told, and whose end the interceptors may change.
    #[cold]
    pub(crate) fn poll_step(&mut self, receive: &mut Receive, cx: &mut Context<'_>) -> Poll<Step> {
        let Some(recorder) = self.recorder.clone() else {
            return self.poll_intercepted(receive, cx);
        };
        let step = recorder.within(|| self.poll_intercepted(receive, cx));
        if receive.is_client() && receive.is_open() {
            recorder.stream_opened();
        }
        match &step {
            Poll::Ready(Step::Data(bytes)) => recorder.data_received(*bytes),
            Poll::Ready(Step::Head) => recorder.head_seen(),
            Poll::Ready(Step::Message(_)) => recorder.message_received(),
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
            return Poll::Ready(self.run_message_hooks(step, receive));
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
                let (head, trailers) = (receive.head().clone(), end.trailers.clone());
                interceptors.set_end(end.status.clone(), head, trailers);
                self.poll_ending(receive, end, cx)
            }
            step => Poll::Ready(step),
        }
    }

    /// A message that a hook rejects is the end.
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
            Poll::Pending => match receive.poll_deadline(cx, true) {
                // What an interceptor waits for does not hold up the call.
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

    /// Returns true if a message may be read where it lies, without a step.
    pub(crate) fn let_small_messages_pass(&self) -> bool {
        self.ending.is_none() && self.message_hooks.is_none()
    }

    /// Sets what interceptors do with each message.
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

    /// Says of which type the messages are.
    #[cold]
    pub(crate) fn set_type<T: Message>(&mut self) {
        self.decode = decode::<T>;
    }

    /// A message was read where it lies.
    #[cold]
    pub(crate) fn message_read(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.message_received();
        }
    }

    /// A request that had arrived in full was read, of `len` bytes without its prefix.
    #[cold]
    pub(crate) fn request_read(&self, len: usize) {
        if let Some(recorder) = &self.recorder {
            recorder.data_received(frame::PREFIX_SIZE + len);
            recorder.message_received();
        }
    }

    /// What is received has ended, as the caller is told.
    #[cold]
    pub(crate) fn ended(&self, end: Result<(), &Status>) {
        if let Some(recorder) = &self.recorder {
            recorder.received_all(end.err().map_or(Code::OK, Status::code));
        }
    }
}

/// Whoever lets go of the responses lets go of the call, whatever becomes of its requests.
impl Drop for Hooks {
    fn drop(&mut self) {
        if let Some(recorder) = &self.recorder {
            recorder.reader_gone();
        }
    }
}
