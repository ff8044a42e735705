//! The builder of a call: its head and its options.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::uri::PathAndQuery;
use tokio::time::Instant;
use trunkline_channel::{MethodConfig, WaitMode};
use trunkline_codec::{Compressor, Metadata, Payload, Status, frame};

use crate::call::cancel::{CancelHandle, CancelWatch, cancelled};
use crate::call::compression::{Compress, find_compressor};
use crate::call::deadline;
use crate::call::head::Head;
use crate::call::kind::CallKind;
use crate::call::message::{Message, compress_frame, wire_len, without_prefix};
use crate::call::message_hooks::KeptRequest;
use crate::call::method::Method;
use crate::client::channel::Channel;
use crate::client::outgoing::OutgoingCall;
use crate::credentials::{AttachedCredentials, CallCredentials};
use crate::observe::{MessageSize, Recorder};

/// A call that has not begun. **Awaiting it starts the call.** Set the timeout, metadata and compression
/// before.
///
/// The output depends on the kind of the method:
///
/// | method | output |
/// | --- | --- |
/// | one request, one response | [`Response`](crate::Response) |
/// | one request, many responses | [`Streaming`](crate::Streaming) |
/// | many requests, one response | [`ClientStream`](crate::ClientStream) |
/// | many requests, many responses | a tuple of [`Sender`](crate::Sender) and [`Streaming`](crate::Streaming) |
///
/// Dropping a `Call` has no effect. Dropping the future that awaits it cancels the call.
///
/// ```
/// # async fn example(client: trunkline::Client) -> trunkline::Result<()> {
/// use std::time::Duration;
/// use trunkline::{Method, Raw};
///
/// let response = client
///     .unary::<Raw, Raw>(Method::new("/helloworld.Greeter/SayHello"), Raw::default())
///     .timeout(Duration::from_secs(1))
///     .metadata("authorization", "Bearer sesame")
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "a call does nothing until it is awaited"]
pub struct Call<T = ()> {
    pub(crate) outgoing: OutgoingCall,
    timeout: Option<Duration>,
    is_detached: bool,
    /// An error in the options. The call fails with it before anything is sent.
    failure: Option<Status>,
    /// The single message of the request as an uncompressed frame. `None` for a stream of requests, and after
    /// the call has begun unless observers need it.
    request: Option<Payload>,
    channel: Option<Channel>,
    gives: PhantomData<fn() -> T>,
}

impl<T> Call<T> {
    /// Sets the timeout of the whole call: from the moment at which the call is awaited until its
    /// trailers arrive, including the time to connect and to wait for a free stream. Default: the timeout
    /// of the [channel](crate::ChannelBuilder::timeout), which is unlimited unless set.
    ///
    /// When the timeout expires, the call ends with DEADLINE_EXCEEDED. The message of the status says
    /// whether the call was connecting, waiting for a stream, or waiting for the response. The client
    /// also sends the timeout to the server (`grpc-timeout`), which then drops the handler.
    ///
    /// A call that a handler makes also ends at the deadline of the handler, unless the call is
    /// [detached](Self::detached).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Adds a pair of metadata. The same key can be added more than once.
    ///
    /// If the key is invalid, or the value is not printable ASCII, the call fails with INTERNAL before
    /// anything is sent. For binary values, use [`metadata_bin`](Self::metadata_bin).
    pub fn metadata(mut self, key: &str, value: &str) -> Self {
        if let Err(error) = self.outgoing.head.metadata.append(key, value) {
            self.fail(error.into());
        }
        self
    }

    /// Adds all pairs of `metadata`.
    pub fn extend_metadata(mut self, metadata: Metadata) -> Self {
        self.outgoing.head.metadata.extend(metadata);
        self
    }

    /// Adds a binary value, whose key ends in `-bin`.
    pub fn metadata_bin(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        if let Err(error) = self.outgoing.head.metadata.append_bin(key, value) {
            self.fail(error.into());
        }
        self
    }

    /// Adds credentials, which run once for each attempt at the call; see [`credentials`](crate::credentials). They
    /// follow those of the [channel](crate::ChannelBuilder::credentials).
    ///
    /// If the connection is not secure enough for them, the call fails with UNAUTHENTICATED before anything is sent.
    pub fn credentials(mut self, credentials: impl CallCredentials) -> Self {
        AttachedCredentials::add(&mut self.outgoing.credentials, credentials);
        self
    }

    /// Sets a handle that can cancel the call, replacing an earlier one.
    ///
    /// If the handle has already cancelled its calls, this call fails with CANCELLED before anything is
    /// sent.
    pub fn cancel_with(mut self, handle: &CancelHandle) -> Self {
        self.outgoing.cancel = Some(handle.clone());
        self
    }

    /// Makes the call independent of the deadline of the handler that makes it. By default, a call
    /// inherits that deadline.
    pub fn detached(mut self) -> Self {
        self.is_detached = true;
        self
    }

    /// Waits for a connection if the server cannot be reached. By default, such a call fails immediately
    /// with UNAVAILABLE.
    ///
    /// The call waits at most until its deadline, while the channel keeps trying to connect. At the
    /// deadline, the message of the status contains the last failure to connect. A call without a
    /// deadline can wait forever.
    ///
    /// The option has no effect on in-process calls and on channels that call a tower service.
    pub fn wait_for_ready(mut self) -> Self {
        self.outgoing.wait_mode = Some(WaitMode::WaitForReady);
        self
    }

    /// Fails with UNAVAILABLE if the server cannot be reached. This is the default unless the service config of the
    /// channel has `waitForReady` for the method, which this overrides.
    pub fn fail_fast(mut self) -> Self {
        self.outgoing.wait_mode = Some(WaitMode::FailFast);
        self
    }

    /// Returns the path of the method, `/package.Service/Method`.
    pub fn path(&self) -> &str {
        self.outgoing.head.path()
    }

    /// Returns a mutable reference to the metadata of the request.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.outgoing.head.metadata
    }

    /// Returns a mutable reference to the extensions: values of any type for the interceptors and tower
    /// layers of this client. They are never sent.
    pub fn extensions_mut(&mut self) -> &mut http::Extensions {
        &mut self.outgoing.head.extensions
    }

    /// Compresses all messages of the request, regardless of their size, with the compressor of that
    /// name, such as `gzip`. `identity` disables compression. Default: the compression of the
    /// [channel](crate::ChannelBuilder::compress).
    ///
    /// A message that compression does not make smaller is sent uncompressed. In a stream of requests,
    /// [`Sender::compress`](crate::Sender::compress) selects the messages to compress.
    ///
    /// If the channel has no compressor of that name, the call fails with INTERNAL before anything is
    /// sent. If the server does not support it, the call fails with UNIMPLEMENTED.
    pub fn compress(mut self, compressor: &str) -> Self {
        let Some(channel) = &self.channel else {
            return self;
        };
        match find_compressor("the channel", compressor, channel.backend.compressors()) {
            Ok(compressor) => {
                self.outgoing.compressor = compressor;
                self.outgoing.compress = Compress::On;
            }
            Err(unknown) => self.fail(Status::internal(unknown)),
        }
        self
    }

    /// Creates a call with the single message of its request, as an uncompressed frame.
    pub(crate) fn with_request<Q: Message>(
        channel: Channel,
        method: &Method,
        request: Result<Payload, Status>,
    ) -> Self {
        let kept = match &request {
            Ok(frame) if channel.has_interceptors() => Some(Box::new(KeptRequest::new::<Q>(frame))),
            _ => None,
        };
        let mut call = Self::new(channel, method, Some(request));
        call.outgoing.kept = kept;
        call
    }

    pub(crate) fn new(
        channel: Channel,
        method: &Method,
        request: Option<Result<Payload, Status>>,
    ) -> Self {
        let (mut timeout, mut failure, mut metadata) = (None, None, Metadata::new());
        let mut credentials = None;
        let backend = &channel.backend;
        if let Some(defaults) = backend.defaults() {
            timeout = defaults.timeout;
            metadata = defaults.metadata.clone();
            failure = defaults.failure.clone();
            credentials = defaults.credentials.clone();
        }
        let path = backend.path_of(method).unwrap_or_else(|error| {
            failure.get_or_insert_with(|| {
                Status::internal(format!("{method} is not the path of a method: {error}"))
            });
            PathAndQuery::from_static("/")
        });
        let request = request.map(|request| {
            request.unwrap_or_else(|status| {
                failure.get_or_insert(status);
                Payload::default()
            })
        });
        let head = Head {
            path,
            metadata,
            extensions: http::Extensions::new(),
            deadline: None,
            peer: None,
        };
        let mut outgoing = OutgoingCall::new(head, method.is_static());
        outgoing.credentials = credentials;
        if let Some(compressor) = backend.compresses_with() {
            outgoing.compressor = Some(compressor.clone());
            outgoing.compress = Compress::Auto;
        }
        Self {
            outgoing,
            timeout,
            is_detached: false,
            failure,
            request,
            channel: Some(channel),
            gives: PhantomData,
        }
    }

    fn fail(&mut self, status: Status) {
        self.failure.get_or_insert(status);
    }

    /// Selects the config of the method, once. Returns a future if the channel does not know yet whether it has one.
    #[inline]
    pub(crate) fn selecting(&mut self) -> Option<Selecting> {
        let connections = self.channel.as_ref()?.backend.connections()?;
        match connections.has_service_config() {
            true => self.select(),
            false => None,
        }
    }

    #[cold]
    fn select(&mut self) -> Option<Selecting> {
        let connections = self.channel.as_ref()?.backend.connections()?.clone();
        if self.failure.is_some() {
            return None;
        }
        if let Ok(config) = connections.try_select(self.path()) {
            self.set_config(config);
            return None;
        }
        self.outgoing.head.deadline = self.deadline();
        let (path, deadline) = (self.outgoing.head.path.clone(), self.outgoing.head.deadline);
        let wait_mode = self.outgoing.wait_mode();
        let cancel = self.outgoing.cancel.as_ref().map(CancelHandle::watch);
        Some(Box::pin(async move {
            let mut selecting = pin!(connections.select(path.as_str(), deadline, wait_mode));
            poll_fn(|cx| {
                let is_cancelled = |it: &CancelWatch| it.poll(cx).is_ready();
                match cancel.as_ref().is_some_and(is_cancelled) {
                    true => Poll::Ready(Err(cancelled())),
                    false => selecting.as_mut().poll(cx),
                }
            })
            .await
        }))
    }

    /// Takes the result of [`selecting`](Self::selecting).
    pub(crate) fn selected(
        &mut self,
        config: Result<Option<Arc<MethodConfig>>, Status>,
        kind: CallKind,
    ) -> Result<(), Status> {
        match config {
            Ok(config) => self.set_config(config),
            Err(status) => {
                self.record_failure(kind, &status);
                return Err(status);
            }
        }
        Ok(())
    }

    fn set_config(&mut self, config: Option<Arc<MethodConfig>>) {
        if let Some(config) = &config {
            self.timeout = config.timeout_of(self.timeout);
        }
        self.outgoing.config = config;
    }

    /// As [`begin`](Self::begin), after the config of the method is known.
    pub(crate) async fn begin_selected(
        &mut self,
        kind: CallKind,
    ) -> Result<(Channel, Option<Payload>), Status> {
        if let Some(selecting) = self.selecting() {
            let config = selecting.await;
            self.selected(config, kind)?;
        }
        self.begin(kind)
    }

    /// Returns the deadline of a call that begins now.
    fn deadline(&self) -> Option<Instant> {
        let own = self.timeout.and_then(deadline::after);
        match self.is_detached {
            true => own,
            false => deadline::earlier(own, deadline::inherited()),
        }
    }

    /// Fixes the deadline, and returns the channel and the request, if that is one message.
    #[inline]
    pub(crate) fn begin(&mut self, kind: CallKind) -> Result<(Channel, Option<Payload>), Status> {
        let prepared = self.prepare();
        if let Err(status) = &prepared {
            self.record_failure(kind, status);
        }
        prepared
    }

    /// Records a call that fails before anything is sent.
    #[cold]
    fn record_failure(&self, kind: CallKind, status: &Status) {
        let channel = self.channel.as_ref();
        if let Some(recorder) = channel.and_then(|it| it.recorder(&self.outgoing, kind)) {
            recorder.client_ended(Some(status));
        }
    }

    fn prepare(&mut self) -> Result<(Channel, Option<Payload>), Status> {
        self.check()?;
        self.check_size()?;
        if let Some(handle) = &self.outgoing.cancel
            && handle.is_cancelled()
        {
            return Err(cancelled());
        }
        self.outgoing.head.deadline =
            deadline::earlier(self.deadline(), self.outgoing.head.deadline);
        let Some(channel) = self.channel.take() else {
            return Err(Status::internal("the call has no channel"));
        };
        let mut request = self.request.take();
        if let (Some(compressor), Some(frame)) = (&self.outgoing.compressor, &mut request) {
            let from = self
                .outgoing
                .compress
                .least_size(channel.backend.limits().messages.compress_above);
            match compressed(frame, &**compressor, from) {
                Err(status) => {
                    self.channel = Some(channel);
                    return Err(status);
                }
                Ok(Some(compressed)) => {
                    let plain = std::mem::replace(frame, compressed);
                    self.request = (!channel.is_plain()).then_some(plain);
                }
                // A compressor that the caller has set is always named in the head.
                Ok(None) if self.outgoing.compress == Compress::On => {}
                Ok(None) => self.outgoing.compressor = None,
            }
        }
        Ok((channel, request))
    }

    /// Returns the record for observers of the request's single message, which is in `frame`.
    #[cold]
    pub(crate) fn message(&mut self, frame: &Payload, recorder: &Recorder) -> SentMessage {
        let plain = self.request.take();
        let plain = plain.as_ref().unwrap_or(frame);
        let size = plain.len().saturating_sub(frame::PREFIX_SIZE);
        let payload = recorder.wants_payloads();
        SentMessage {
            size: MessageSize::of_frame(size, frame),
            payload: payload.then(|| without_prefix(plain.clone())),
        }
    }

    /// Checks the size of the request's single message, which was encoded before the config of the method was known.
    fn check_size(&self) -> Result<(), Status> {
        if let (Some(_), Some(request), Some(channel)) =
            (&self.outgoing.config, &self.request, &self.channel)
        {
            let max_size = channel.backend.max_send_message_size(&self.outgoing);
            wire_len(request.len().saturating_sub(frame::PREFIX_SIZE), max_size)?;
        }
        Ok(())
    }

    /// Returns the error in the options, if any.
    pub(crate) fn check(&mut self) -> Result<(), Status> {
        self.failure.take().map_or(Ok(()), Err)
    }
}

/// Returns the compressed frame of a message of at least `from` bytes, if compression makes it smaller.
fn compressed(
    frame: &Payload,
    compressor: &dyn Compressor,
    from: usize,
) -> Result<Option<Payload>, Status> {
    let mut plain = frame.clone();
    plain.advance(frame::PREFIX_SIZE.min(plain.len()));
    if plain.len() < from {
        return Ok(None);
    }
    let mut compressed = BytesMut::new();
    let is_smaller = compress_frame(&mut plain, compressor, &mut compressed)?;
    Ok(is_smaller.then(|| compressed.freeze().into()))
}

/// The record for observers of a request's single message.
pub(crate) struct SentMessage {
    size: MessageSize,
    payload: Option<Payload>,
}

impl SentMessage {
    #[cold]
    pub(crate) fn record(self, recorder: &Recorder) {
        recorder.message_sent(self.size, self.payload.as_ref());
        recorder.half_closed();
    }
}

impl<T> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("head", &self.outgoing.head)
            .finish_non_exhaustive()
    }
}

/// A call that waits for the config of its method.
pub(crate) type Selecting =
    Pin<Box<dyn Future<Output = Result<Option<Arc<MethodConfig>>, Status>> + Send>>;

/// A call that has been awaited.
pub(crate) type Started<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;
