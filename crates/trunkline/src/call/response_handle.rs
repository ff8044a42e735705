//! The response of a handler apart from its messages: head, trailers, compression.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use trunkline_codec::{Compressor, Compressors, Metadata, Status};

use crate::call::compression::Compress;
use crate::call::message_hooks::MessageHooks;
use crate::call::response_metadata::{ResponseMetadata, append};
use crate::observe::Recorder;

/// The response of the call that a handler serves: its head, its trailers and its compression.
///
/// [`Request::response`](crate::Request::response) returns it. It is cheap to clone, and clones are
/// of the same response.
#[derive(Clone)]
pub struct ResponseHandle(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// The size from which the next message is compressed. Not in the state, because every message
    /// asks.
    compress_from: AtomicUsize,
    /// The size above which `Compress::Auto` compresses.
    compress_above: usize,
    /// The first of our encodings that the client accepts.
    compressor: Option<Arc<dyn Compressor>>,
    /// Whoever wants to know of the call.
    recorder: Option<Arc<Recorder>>,
    /// The hooks of interceptors.
    message_hooks: OnceLock<Box<MessageHooks>>,
}

#[derive(Default)]
struct State {
    head: Metadata,
    trailers: Metadata,
    /// The head is on its way, and cannot be changed.
    head_sent: bool,
    /// The head stays here when it is sent, for interceptors.
    keeps_head: bool,
    /// The handler has ended, and interceptors have the metadata: the head does not go out.
    is_held: bool,
    /// The handler wants the head to go out before its first message.
    head_wanted: bool,
    /// The head promises compressed messages, or will when it is sent.
    compressor: bool,
    /// The encodings that the head says we know; none says nothing.
    announced: Option<Compressors>,
    answer: Option<Waker>,
}

/// The head of a response: its metadata, the encoding it promises, and those it announces.
pub(crate) type ResponseHead<'a> = (Metadata, Option<&'a dyn Compressor>, Option<Compressors>);

impl ResponseHandle {
    pub(crate) fn new(
        compressor: Option<Arc<dyn Compressor>>,
        compress_above: usize,
        recorder: Option<Arc<Recorder>>,
    ) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State::default()),
            compress_from: AtomicUsize::new(Compress::Off.least_size(0)),
            compress_above,
            compressor,
            recorder,
            message_hooks: OnceLock::new(),
        }))
    }

    /// Adds metadata to the head of the response.
    ///
    /// # Errors
    ///
    /// INTERNAL if the key or the value is not allowed; FAILED_PRECONDITION if the head has gone
    /// out already.
    pub fn metadata(&self, key: &str, value: &str) -> Result<(), Status> {
        Ok(self.open_head()?.head.append(key, value)?)
    }

    /// Adds a binary value, whose key ends in `-bin`, to the head of the response.
    ///
    /// # Errors
    ///
    /// As [`metadata`](Self::metadata).
    pub fn metadata_bin(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), Status> {
        Ok(self.open_head()?.head.append_bin(key, value)?)
    }

    /// Adds all pairs of `metadata` to the head of the response, such as those that came with the
    /// request.
    ///
    /// ```
    /// # use trunkline::{Request, Result};
    /// async fn echo(request: Request<String>) -> Result<String> {
    ///     request.response().extend_metadata(request.metadata().clone())?;
    ///     Ok(request.into_inner())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION if the head has been sent already.
    pub fn extend_metadata(&self, metadata: Metadata) -> Result<(), Status> {
        self.open_head()?.head.extend(metadata);
        Ok(())
    }

    /// Adds metadata to the trailers, which end the response.
    ///
    /// # Errors
    ///
    /// INTERNAL if the key or the value is not allowed.
    pub fn trailer(&self, key: &str, value: &str) -> Result<(), Status> {
        Ok(self.lock().trailers.append(key, value)?)
    }

    /// Adds a binary value, whose key ends in `-bin`, to the trailers.
    ///
    /// # Errors
    ///
    /// As [`trailer`](Self::trailer).
    pub fn trailer_bin(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), Status> {
        Ok(self.lock().trailers.append_bin(key, value)?)
    }

    /// Adds all pairs of `metadata` to the trailers.
    pub fn extend_trailers(&self, metadata: Metadata) {
        self.lock().trailers.extend(metadata);
    }

    /// Returns the metadata that the head of the response is to have. Empty once the head has been
    /// sent.
    ///
    /// A test that calls a handler reads here what it has set:
    ///
    /// ```
    /// # async fn example() -> trunkline::Result<()> {
    /// # use trunkline::{Request, Result};
    /// # async fn handler(request: Request<String>) -> Result<String> {
    /// #     request.response().metadata("kind", "greeting")?;
    /// #     Ok(request.into_inner())
    /// # }
    /// let request = Request::new("you".to_owned());
    /// let response = request.response().clone();
    /// handler(request).await?;
    /// assert_eq!(response.head().get("kind"), Some("greeting"));
    /// # Ok(()) }
    /// ```
    pub fn head(&self) -> Metadata {
        self.lock().head.clone()
    }

    /// Returns the metadata that the trailers are to have. Empty once they have been sent.
    pub fn trailers(&self) -> Metadata {
        self.lock().trailers.clone()
    }

    /// Compresses the messages that follow, or not; `Off` by default, and `Auto` on a server that
    /// [compresses](crate::Server::compress).
    ///
    /// The head names the encoding, so that `On` or `Auto` has to be said, once, before the head goes
    /// out with the first message; afterwards it has no effect. A client that accepts none of the
    /// server's encodings gets the messages as they are.
    pub fn compress(&self, compress: Compress) {
        let mut state = self.lock();
        let wanted = compress != Compress::Off && self.0.compressor.is_some();
        if !state.head_sent {
            state.compressor |= wanted;
        }
        let compress = match wanted && state.compressor {
            true => compress,
            false => Compress::Off,
        };
        let from = compress.least_size(self.0.compress_above);
        self.0.compress_from.store(from, Ordering::Release);
    }

    /// Sends the head now, and not with the first message. Also if the call ends at once: without this,
    /// and without metadata, such an end takes the place of the head.
    pub fn send_head(&self) {
        let mut state = self.lock();
        state.head_wanted = true;
        if let Some(answer) = state.answer.take() {
            answer.wake();
        }
    }

    #[inline]
    pub(crate) fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.0.recorder.as_ref()
    }

    #[inline]
    pub(crate) fn message_hooks(&self) -> Option<&MessageHooks> {
        self.0.message_hooks.get().map(|hooks| &**hooks)
    }

    /// Sets the hooks of interceptors, once.
    pub(crate) fn set_message_hooks(&self, hooks: MessageHooks) {
        self.0.message_hooks.get_or_init(|| Box::new(hooks));
    }

    /// The encoding for the next message, of `len` bytes, if it is to be compressed.
    pub(crate) fn compressor(&self, len: usize) -> Option<&dyn Compressor> {
        match len >= self.0.compress_from.load(Ordering::Acquire) {
            true => self.0.compressor.as_deref(),
            false => None,
        }
    }

    /// Says in the head which encodings we know.
    pub(crate) fn announce(&self, compressors: &Compressors) {
        self.lock().announced = Some(compressors.clone());
    }

    /// Takes the head, the encoding it promises, and those it announces. It cannot be changed any
    /// more.
    pub(crate) fn take_head(&self) -> ResponseHead<'_> {
        self.take_head_of(self.lock())
    }

    /// As [`take_head`](Self::take_head); none while interceptors have the metadata.
    pub(crate) fn take_head_unless_held(&self) -> Option<ResponseHead<'_>> {
        let state = self.lock();
        match state.is_held {
            true => None,
            false => Some(self.take_head_of(state)),
        }
    }

    fn take_head_of(&self, mut state: MutexGuard<'_, State>) -> ResponseHead<'_> {
        state.head_sent = true;
        let compressor = match state.compressor {
            true => self.0.compressor.as_deref(),
            false => None,
        };
        let announced = state.announced.take();
        let head = match state.keeps_head {
            true => state.head.clone(),
            false => std::mem::take(&mut state.head),
        };
        (head, compressor, announced)
    }

    /// Adds what interceptors have put into the response before its handler runs. From now on the head
    /// can be read also when it has been sent.
    pub(crate) fn begin_intercepted(&self, added: ResponseMetadata) {
        let mut state = self.lock();
        state.keeps_head = true;
        append(&mut state.head, added.head);
        append(&mut state.trailers, added.trailers);
    }

    /// Takes the metadata for the interceptors, once the handler has ended. Until it comes back, the
    /// head does not go out.
    pub(crate) fn hold(&self) -> ResponseMetadata {
        let mut state = self.lock();
        state.is_held = true;
        ResponseMetadata {
            head: std::mem::take(&mut state.head),
            trailers: std::mem::take(&mut state.trailers),
            is_head_sent: state.head_sent,
        }
    }

    /// Puts the metadata back as the interceptors have left it, before what has been added meanwhile.
    pub(crate) fn release(&self, left: Option<ResponseMetadata>) {
        let mut state = self.lock();
        state.is_held = false;
        let Some(left) = left else { return };
        let (head, trailers) = (
            std::mem::replace(&mut state.head, left.head),
            std::mem::replace(&mut state.trailers, left.trailers),
        );
        append(&mut state.head, head);
        append(&mut state.trailers, trailers);
    }

    /// Closes the head to changes, and says whether it goes out apart from an end that comes at once:
    /// there is metadata in it, or the handler wants it to. An encoding is for messages.
    pub(crate) fn close_head(&self) -> bool {
        let mut state = self.lock();
        state.head_sent = true;
        state.head_wanted || !state.head.is_empty()
    }

    pub(crate) fn take_trailers(&self) -> Metadata {
        std::mem::take(&mut self.lock().trailers)
    }

    /// Returns true if the head is to go out now; if not, `waker` hears of it.
    pub(crate) fn is_head_wanted(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        if !state.head_wanted {
            state.answer = Some(waker.clone());
        }
        state.head_wanted
    }

    fn open_head(&self) -> Result<MutexGuard<'_, State>, Status> {
        let state = self.lock();
        match state.head_sent {
            false => Ok(state),
            true => Err(Status::failed_precondition(
                "the head of the response has been sent; metadata can still go into the trailers",
            )),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ResponseHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHandle").finish_non_exhaustive()
    }
}
