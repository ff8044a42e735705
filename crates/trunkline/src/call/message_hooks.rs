//! Hooks of interceptors on the messages of a call.

use std::any::Any;
use std::cell::OnceCell;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use trunkline_codec::{Compressor, Payload, Status};

use crate::call::message::{Message, compress_frame, frame_of, without_prefix};

/// A message as an interceptor sees it, in the functions that it passes to
/// [`Context::on_request_message`](crate::Context::on_request_message) and
/// [`Context::on_response_message`](crate::Context::on_response_message).
///
/// ```
/// use trunkline::{Context, Next, Result, Status};
///
/// async fn check_names(mut cx: Context, next: Next) -> Result<()> {
///     cx.on_request_message(|message| match message.downcast_ref::<String>() {
///         Some(name) if name.is_empty() => Err(Status::invalid_argument("the name is empty")),
///         _ => Ok(()),
///     });
///     next.run(&mut cx).await
/// }
/// ```
pub struct MessageRef<'a> {
    payload: &'a Payload,
    index: u64,
    value: Value<'a>,
}

enum Value<'a> {
    Typed(&'a dyn Any),
    /// Decoded at the first request.
    Encoded(Decode, OnceCell<Option<Box<dyn Any>>>),
}

/// Decodes a message of one type.
pub(crate) type Decode = fn(Payload) -> Option<Box<dyn Any>>;

/// Decodes a message of type `T`.
pub(crate) fn decode<T: Message>(payload: Payload) -> Option<Box<dyn Any>> {
    let message = T::decode(payload).ok()?;
    Some(Box::new(message))
}

impl MessageRef<'_> {
    /// Returns the encoded message, uncompressed.
    pub fn payload(&self) -> &Payload {
        self.payload
    }

    /// Returns the size in bytes of the encoded message, before compression and without its five-byte
    /// prefix.
    pub fn size(&self) -> usize {
        self.payload.len()
    }

    /// Returns the position of the message in its direction of the call, starting at 0.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Returns the message if its type is `T`, or `None`. The type of a message is the type in generated
    /// code, or
    /// [`Raw`](crate::Raw) in calls without generated code.
    ///
    /// On the side that receives the message, the first use of this method decodes it; later it is
    /// decoded again for the receiver. If the message cannot be decoded, the method returns `None`, and
    /// the call fails later.
    pub fn downcast_ref<T: Message>(&self) -> Option<&T> {
        match &self.value {
            Value::Typed(message) => message.downcast_ref(),
            Value::Encoded(decode, decoded) => decoded
                .get_or_init(|| decode(self.payload.clone()))
                .as_ref()?
                .downcast_ref(),
        }
    }
}

impl fmt::Debug for MessageRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageRef")
            .field("index", &self.index)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

/// A function that runs on each message of a direction.
type Hook = Box<dyn FnMut(&MessageRef<'_>) -> Result<(), Status> + Send>;

/// The hooks of a call's interceptors, the outermost first.
#[derive(Default)]
pub(crate) struct HookList {
    pub(crate) requests: Vec<Hook>,
    pub(crate) responses: Vec<Hook>,
}

/// The hooks of a call for both directions, after the innermost interceptor has called `Next::run`.
pub(crate) struct CallHooks {
    pub(crate) requests: Option<MessageHooks>,
    pub(crate) responses: Option<MessageHooks>,
    /// Shared by both directions.
    pub(crate) rejection: Arc<Rejection>,
}

impl HookList {
    /// Returns `None` if the list is empty.
    pub(crate) fn begin(self) -> Option<CallHooks> {
        if self.requests.is_empty() && self.responses.is_empty() {
            return None;
        }
        let rejection = Arc::new(Rejection::default());
        let hooks = |hooks: Vec<Hook>| {
            (!hooks.is_empty()).then(|| MessageHooks {
                running: Mutex::new(RunningHooks { hooks, next: 0 }),
                rejection: rejection.clone(),
            })
        };
        let mut responses = self.responses;
        // Responses reach the inner interceptors first.
        responses.reverse();
        Some(CallHooks {
            requests: hooks(self.requests),
            responses: hooks(responses),
            rejection: rejection.clone(),
        })
    }
}

/// The hooks for one direction of a call.
pub(crate) struct MessageHooks {
    running: Mutex<RunningHooks>,
    rejection: Arc<Rejection>,
}

struct RunningHooks {
    hooks: Vec<Hook>,
    next: u64,
}

impl MessageHooks {
    /// Runs the hooks on a message, which `decode` decodes on request.
    ///
    /// # Errors
    ///
    /// The error of a hook, which also ends the call.
    pub(crate) fn run_encoded(&self, payload: &Payload, decode: Decode) -> Result<(), Status> {
        self.run_on(payload, Value::Encoded(decode, OnceCell::new()))
    }

    /// Returns the error with which a hook of either direction has ended the call.
    pub(crate) fn rejected(&self) -> Option<Status> {
        self.rejection.status()
    }

    #[cold]
    fn run_on(&self, payload: &Payload, value: Value<'_>) -> Result<(), Status> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let message = MessageRef {
            payload,
            index: running.next,
            value,
        };
        running.next += 1;
        let result = running.hooks.iter_mut().try_for_each(|hook| hook(&message));
        result.inspect_err(|status| self.rejection.set(status.clone()))
    }
}

/// Encodes one message as [`frame_of`] does, and runs the hooks before compression.
///
/// # Errors
///
/// The errors of `frame_of`, and the error of a hook, which is returned for all further messages as well.
#[cold]
pub(crate) fn hooked_frame<T: Message>(
    hooks: Option<&MessageHooks>,
    message: &T,
    len: usize,
    compressor: Option<&dyn Compressor>,
    max_size: usize,
) -> Result<Payload, Status> {
    let Some(hooks) = hooks else {
        return frame_of(message, len, compressor, max_size);
    };
    if let Some(status) = hooks.rejected() {
        return Err(status);
    }
    let frame = frame_of(message, len, None, max_size)?;
    let mut plain = without_prefix(frame.clone());
    hooks.run_on(&plain, Value::Typed(message))?;
    if let Some(compressor) = compressor {
        let mut compressed = BytesMut::new();
        if compress_frame(&mut plain, compressor, &mut compressed)? {
            return Ok(compressed.freeze().into());
        }
    }
    Ok(frame)
}

/// The single message of a client's request, kept for hooks.
#[derive(Debug)]
pub(crate) struct KeptRequest {
    frame: Payload,
    decode: Decode,
}

impl KeptRequest {
    pub(crate) fn new<Q: Message>(frame: &Payload) -> Self {
        Self {
            frame: frame.clone(),
            decode: decode::<Q>,
        }
    }

    /// Runs `hooks` on the message.
    pub(crate) fn run(&self, hooks: &MessageHooks) -> Result<(), Status> {
        hooks.run_encoded(&without_prefix(self.frame.clone()), self.decode)
    }
}

/// The error with which a hook has ended a call.
#[derive(Default)]
pub(crate) struct Rejection(Mutex<RejectionState>);

#[derive(Default)]
struct RejectionState {
    status: Option<Status>,
    waker: Option<Waker>,
}

impl Rejection {
    fn set(&self, status: Status) {
        let waker = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.status.get_or_insert(status);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn status(&self) -> Option<Status> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.status.clone()
    }

    /// Completes when a hook has rejected a message.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Status> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.status {
            Some(status) => Poll::Ready(status.clone()),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Runs `inside` until it ends or a hook rejects a message.
pub(crate) async fn unless_rejected<T>(
    rejection: Option<Arc<Rejection>>,
    inside: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let Some(rejection) = rejection else {
        return inside.await;
    };
    let mut inside = pin!(inside);
    poll_fn(|cx| {
        let ended = inside.as_mut().poll(cx);
        match rejection.poll(cx) {
            Poll::Ready(status) => Poll::Ready(Err(status)),
            Poll::Pending => ended,
        }
    })
    .await
}
