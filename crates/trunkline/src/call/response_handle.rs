//! The head, the trailers and the compression of a handler's response.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use trunkline_codec::{Compressor, Compressors, LoadReport, Metadata, Status};

use crate::call::compression::Compress;
use crate::call::message_hooks::MessageHooks;
use crate::call::response_metadata::{ResponseMetadata, append};
use crate::observe::Recorder;

/// A handle with which a handler sets the metadata, the trailers and the compression of its response.
///
/// A handler gets it from [`Request::response`](crate::Request::response). The handle is cheap to clone,
/// and all clones refer to the same response. Dropping it has no effect.
///
/// ```
/// use trunkline::{Request, Result};
///
/// async fn say_hello(request: Request<String>) -> Result<String> {
///     request.response().metadata("served-by", "a")?;
///     request.response().trailer("cost", "1")?;
///     Ok(format!("Hello {}!", *request))
/// }
/// ```
#[derive(Clone)]
pub struct ResponseHandle(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// The size from which the next message is compressed. It is outside the state because every message
    /// reads it.
    compress_from: AtomicUsize,
    /// The size above which `Compress::Auto` compresses.
    compress_above: usize,
    /// The server's first compressor that the client accepts.
    compressor: Option<Arc<dyn Compressor>>,
    /// The observers of the call.
    recorder: Option<Arc<Recorder>>,
    /// The hooks of interceptors.
    message_hooks: OnceLock<Box<MessageHooks>>,
}

#[derive(Default)]
struct State {
    head: Metadata,
    trailers: Metadata,
    /// The head has been sent, and cannot be changed.
    head_sent: bool,
    /// A copy of the head remains here after it is sent, for interceptors.
    keeps_head: bool,
    /// The handler has ended, and interceptors hold the metadata. The head must not be sent.
    is_held: bool,
    /// The handler has requested that the head be sent before its first message.
    head_wanted: bool,
    /// The head names the compressor, so messages can be compressed.
    names_compressor: bool,
    /// The compressors that the head announces, if it announces any.
    announced: Option<Compressors>,
    /// Woken when the handler requests the head.
    waker: Option<Waker>,
}

/// The head of a response: its metadata, the compressor of its messages, and the compressors it announces.
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
    /// INTERNAL if the key or the value is invalid; FAILED_PRECONDITION if the head has been sent.
    pub fn metadata(&self, key: &str, value: &str) -> Result<(), Status> {
        Ok(self.open_head()?.head.append(key, value)?)
    }

    /// Adds a binary value, whose key ends in `-bin`, to the head of the response.
    ///
    /// # Errors
    ///
    /// The errors of [`metadata`](Self::metadata).
    pub fn metadata_bin(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), Status> {
        Ok(self.open_head()?.head.append_bin(key, value)?)
    }

    /// Adds all pairs of `metadata` to the head of the response.
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
    /// FAILED_PRECONDITION if the head has been sent.
    pub fn extend_metadata(&self, metadata: Metadata) -> Result<(), Status> {
        self.open_head()?.head.extend(metadata);
        Ok(())
    }

    /// Adds metadata to the trailers of the response.
    ///
    /// # Errors
    ///
    /// INTERNAL if the key or the value is invalid.
    pub fn trailer(&self, key: &str, value: &str) -> Result<(), Status> {
        Ok(self.lock().trailers.append(key, value)?)
    }

    /// Adds a binary value, whose key ends in `-bin`, to the trailers.
    ///
    /// # Errors
    ///
    /// The errors of [`trailer`](Self::trailer).
    pub fn trailer_bin(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), Status> {
        Ok(self.lock().trailers.append_bin(key, value)?)
    }

    /// Adds all pairs of `metadata` to the trailers.
    pub fn extend_trailers(&self, metadata: Metadata) {
        self.lock().trailers.extend(metadata);
    }

    /// Reports the load of this server in the trailers, `endpoint-load-metrics-bin` (ORCA, gRFC A51). It replaces an
    /// earlier report of the call.
    ///
    /// Clients with the policy `weighted_round_robin` send less to servers that report a higher load. For reports apart
    /// from calls, see [`LoadReports`](crate::server::LoadReports).
    ///
    /// ```
    /// use trunkline::{LoadReport, Request, Result};
    ///
    /// async fn say_hello(request: Request<String>) -> Result<String> {
    ///     let mut report = LoadReport::default();
    ///     report.cpu_utilization = 0.4;
    ///     report.rps_fractional = 250.0;
    ///     request.response().report_load(&report);
    ///     Ok(format!("Hello {}!", *request))
    /// }
    /// ```
    pub fn report_load(&self, report: &LoadReport) {
        let mut state = self.lock();
        let _fits = state
            .trailers
            .insert_bin(LoadReport::TRAILER, report.encode());
    }

    /// Returns the metadata set for the head of the response, or empty metadata if the head has been
    /// sent.
    ///
    /// A test that calls a handler directly can check the metadata, because nothing sends the head:
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

    /// Returns the metadata set for the trailers, or empty metadata if the trailers have been sent.
    pub fn trailers(&self) -> Metadata {
        self.lock().trailers.clone()
    }

    /// Selects which of the following messages are compressed. Default: [`Compress::Auto`] if
    /// [`Server::compress`](crate::Server::compress) is set, and [`Compress::Off`] otherwise.
    ///
    /// The compression is announced in the head of the response, which is sent with the first message. So on a
    /// server without [`Server::compress`](crate::Server::compress), select `On` or `Auto` before the first
    /// message; later, they have no effect.
    ///
    /// `On` and `Auto` use the compressor of [`Server::compress`](crate::Server::compress). If that is not set,
    /// or the client does not accept it, they use the first of the server's compressors, in the order in which
    /// they were added, that the client accepts; by default, `gzip` is the first and `deflate` the second. If
    /// the client accepts none of them, messages are sent uncompressed.
    pub fn compress(&self, compress: Compress) {
        let mut state = self.lock();
        let wanted = compress != Compress::Off && self.0.compressor.is_some();
        if !state.head_sent {
            state.names_compressor |= wanted;
        }
        let compress = match wanted && state.names_compressor {
            true => compress,
            false => Compress::Off,
        };
        let from = compress.least_size(self.0.compress_above);
        self.0.compress_from.store(from, Ordering::Release);
    }

    /// Sends the head immediately. By default, the head is sent with the first message.
    ///
    /// If this method is called, the response has a head even if it has no messages. By default, a
    /// response with neither messages nor metadata in its head consists only of trailers.
    pub fn send_head(&self) {
        let waker = {
            let mut state = self.lock();
            state.head_wanted = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
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

    /// Returns the compressor for the next message, of `len` bytes, if it should be compressed.
    pub(crate) fn compressor(&self, len: usize) -> Option<&dyn Compressor> {
        match len >= self.0.compress_from.load(Ordering::Acquire) {
            true => self.0.compressor.as_deref(),
            false => None,
        }
    }

    /// Announces the compressors of the server in the head.
    pub(crate) fn announce(&self, compressors: &Compressors) {
        self.lock().announced = Some(compressors.clone());
    }

    /// Takes the head, which can then no longer be changed.
    pub(crate) fn take_head(&self) -> ResponseHead<'_> {
        self.take_head_of(self.lock())
    }

    /// Takes the head; returns `None` while interceptors hold the metadata.
    pub(crate) fn take_head_unless_held(&self) -> Option<ResponseHead<'_>> {
        let state = self.lock();
        match state.is_held {
            true => None,
            false => Some(self.take_head_of(state)),
        }
    }

    fn take_head_of(&self, mut state: MutexGuard<'_, State>) -> ResponseHead<'_> {
        state.head_sent = true;
        let compressor = match state.names_compressor {
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

    /// Adds the metadata that interceptors have set before the handler runs. From now on, the head can be
    /// read even after it has been sent.
    pub(crate) fn begin_intercepted(&self, added: ResponseMetadata) {
        let mut state = self.lock();
        state.keeps_head = true;
        append(&mut state.head, added.head);
        append(&mut state.trailers, added.trailers);
    }

    /// Takes the metadata for the interceptors, after the handler has ended. Until
    /// [`release`](Self::release), the head is not sent, unless the handler has requested it or closed it.
    pub(crate) fn hold(&self) -> ResponseMetadata {
        let mut state = self.lock();
        state.head_sent |= state.head_wanted;
        state.is_held = !state.head_sent;
        ResponseMetadata {
            head: match state.head_sent {
                true => state.head.clone(),
                false => std::mem::take(&mut state.head),
            },
            trailers: std::mem::take(&mut state.trailers),
            is_head_sent: state.head_sent,
        }
    }

    /// Restores the metadata with the changes of the interceptors, before metadata added meanwhile.
    pub(crate) fn release(&self, left: Option<ResponseMetadata>) {
        let mut state = self.lock();
        state.is_held = false;
        let Some(left) = left else { return };
        if !left.is_head_sent {
            let head = std::mem::replace(&mut state.head, left.head);
            append(&mut state.head, head);
        }
        let trailers = std::mem::replace(&mut state.trailers, left.trailers);
        append(&mut state.trailers, trailers);
    }

    /// Closes the head to changes. Returns true if a response without messages needs a separate head: the
    /// head has metadata, or the handler has requested it. A compressor does not matter without messages.
    pub(crate) fn close_head(&self) -> bool {
        let mut state = self.lock();
        state.head_sent = true;
        state.head_wanted || !state.head.is_empty()
    }

    pub(crate) fn take_trailers(&self) -> Metadata {
        std::mem::take(&mut self.lock().trailers)
    }

    /// Returns true if the handler has requested the head; otherwise registers `waker`.
    pub(crate) fn is_head_wanted(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        if !state.head_wanted {
            state.waker = Some(waker.clone());
        }
        state.head_wanted
    }

    fn open_head(&self) -> Result<MutexGuard<'_, State>, Status> {
        let state = self.lock();
        match state.head_sent {
            false => Ok(state),
            true => Err(Status::failed_precondition(
                "the head of the response has been sent; add the metadata to the trailers instead",
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
