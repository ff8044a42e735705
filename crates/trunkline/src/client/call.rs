//! A call before it has begun: its head, and what the caller wants of it.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::uri::PathAndQuery;
use trunkline_channel::WaitMode;
use trunkline_codec::{Compressor, Metadata, Payload, Status, frame};
use trunkline_transport::{Body, pipe};

use crate::call::cancel::{CancelHandle, cancelled};
use crate::call::compression::{Compress, unknown_compressor};
use crate::call::deadline;
use crate::call::head::Head;
use crate::call::kind::CallKind;
use crate::call::message::{Message, compress_frame, without_prefix};
use crate::call::message_hooks::KeptRequest;
use crate::call::messages::Messages;
use crate::call::method::Method;
use crate::call::response::Response;
use crate::call::sender::Sender;
use crate::call::streaming::Streaming;
use crate::client::channel::Channel;
use crate::client::client_stream::ClientStream;
use crate::client::unary::Unary;
use crate::observe::{MessageSize, Recorder};

/// A call that has not begun.
///
/// Clients hold a `Call<T>` for what awaiting it gives: a [`Response`], a [`Streaming`], a
/// [`ClientStream`], or a [`Sender`] and a [`Streaming`]. **Awaiting starts the call**; until
/// then nothing is sent, and it can be given a timeout, metadata and compression.
///
/// Dropping the future that awaits a call cancels it.
#[must_use = "a call does nothing until it is awaited"]
pub struct Call<T = ()> {
    pub(crate) head: Head,
    pub(crate) options: Options,
    /// The one message of the request, framed and not compressed; none if requests are a stream, and once the call
    /// has begun, unless observers need it.
    request: Option<Payload>,
    channel: Option<Channel>,
    gives: PhantomData<fn() -> T>,
}

/// What a caller wants of a call besides its head.
#[derive(Debug, Default)]
pub(crate) struct Options {
    timeout: Option<Duration>,
    is_detached: bool,
    /// Whether the path of the method is known at compile time.
    pub(crate) is_registered: bool,
    pub(crate) wait_mode: WaitMode,
    pub(crate) compressor: Option<Arc<dyn Compressor>>,
    pub(crate) compress: Compress,
    /// The one message of the request, for interceptors.
    pub(crate) kept: Option<Box<KeptRequest>>,
    /// What the caller got wrong: the call fails with it before anything is sent.
    failure: Option<Status>,
    pub(crate) cancel: Option<CancelHandle>,
}

impl<T> Call<T> {
    /// Bounds the whole call, from the moment it is awaited to its last trailer: connecting,
    /// waiting for a stream, both directions of messages. There is no bound by default.
    ///
    /// The server is told (`grpc-timeout`) and drops its handler at the same time. The call ends
    /// with DEADLINE_EXCEEDED, whose message says in which phase. In a handler the smaller of this
    /// and what is left of the handler's own call counts, unless the call is
    /// [detached](Self::detached).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Adds metadata. The same key can be added more than once.
    ///
    /// A key that is not allowed, or a value that is not printable ASCII, fails the call with
    /// INTERNAL before anything is sent; binary values go through
    /// [`metadata_bin`](Self::metadata_bin).
    pub fn metadata(mut self, key: &str, value: &str) -> Self {
        if let Err(error) = self.head.metadata.append(key, value) {
            self.options.fail(error.into());
        }
        self
    }

    /// Adds all pairs of `metadata`.
    pub fn extend_metadata(mut self, metadata: Metadata) -> Self {
        self.head.metadata.extend(metadata);
        self
    }

    /// Adds a binary value, whose key ends in `-bin`.
    pub fn metadata_bin(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        if let Err(error) = self.head.metadata.append_bin(key, value) {
            self.options.fail(error.into());
        }
        self
    }

    /// Lets `handle` cancel the call, from when it is awaited; one that was set before is replaced.
    ///
    /// If the handle has been used, the call fails with CANCELLED before anything is sent.
    pub fn cancel_with(mut self, handle: &CancelHandle) -> Self {
        self.options.cancel = Some(handle.clone());
        self
    }

    /// Keeps the call from inheriting the deadline of the handler in which it is made.
    pub fn detached(mut self) -> Self {
        self.options.is_detached = true;
        self
    }

    /// Waits for the server until the deadline, where the call would fail at once because the server
    /// cannot be reached: it is tried again and again, with longer and longer pauses.
    ///
    /// The message at the deadline has the reason of the last failure. Without a deadline the call
    /// may wait for ever. It has no effect on calls in process and to tower services.
    pub fn wait_for_ready(mut self) -> Self {
        self.options.wait_mode = WaitMode::WaitForReady;
        self
    }

    /// The path of the method: `/package.Service/Method`.
    pub fn path(&self) -> &str {
        self.head.path()
    }

    /// The head of the call.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The head of the call, to be changed.
    pub fn head_mut(&mut self) -> &mut Head {
        &mut self.head
    }

    /// Compresses the messages of the request with the encoding of that name, such as `gzip`,
    /// whatever their size; `identity` sends them as they are. By default the
    /// [channel](crate::ChannelBuilder::compress) says, and if it does not, they go as they are.
    ///
    /// A message that would not get smaller goes as it is. In a stream of requests, each message can
    /// be told apart: [`Sender::compress`].
    ///
    /// A name that the channel does not know fails the call with INTERNAL before anything is sent.
    /// A server that does not know it answers UNIMPLEMENTED.
    pub fn compress(mut self, compressor: &str) -> Self {
        let Some(channel) = &self.channel else {
            return self;
        };
        let options = &mut self.options;
        match channel.compressors().find(compressor) {
            _ if compressor == "identity" => options.compressor = None,
            Some(compressor) => {
                options.compressor = Some(compressor.clone());
                options.compress = Compress::On;
            }
            None => {
                let unknown = unknown_compressor("the channel", compressor, channel.compressors());
                options.fail(Status::internal(unknown));
            }
        }
        self
    }

    /// A call with the one message of its request, framed and not compressed.
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
        call.options.kept = kept;
        call
    }

    pub(crate) fn new(
        channel: Channel,
        method: &Method,
        request: Option<Result<Payload, Status>>,
    ) -> Self {
        let mut options = Options::default();
        if let Some(compressor) = channel.compresses_with() {
            options.compressor = Some(compressor.clone());
            options.compress = Compress::Auto;
        }
        options.is_registered = method.is_static();
        let mut metadata = Metadata::new();
        if let Some(defaults) = channel.defaults() {
            options.timeout = defaults.timeout;
            metadata = defaults.metadata.clone();
            if let Some(failure) = &defaults.failure {
                options.fail(failure.clone());
            }
        }
        let path = channel.path_of(method).unwrap_or_else(|error| {
            options.fail(Status::internal(format!(
                "{method} is not the path of a method: {error}"
            )));
            PathAndQuery::from_static("/")
        });
        let request = request.map(|request| {
            request.unwrap_or_else(|status| {
                options.fail(status);
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
        Self {
            head,
            options,
            request,
            channel: Some(channel),
            gives: PhantomData,
        }
    }

    /// Fixes the deadline; gives where the call goes, and its request if that is one message.
    pub(crate) fn begin(&mut self) -> Result<(Channel, Option<Payload>), Status> {
        self.check()?;
        if let Some(handle) = &self.options.cancel
            && handle.is_cancelled()
        {
            return Err(cancelled());
        }
        let own = self.options.timeout.and_then(deadline::after);
        self.head.deadline = match self.options.is_detached {
            true => own,
            false => deadline::earlier(own, deadline::inherited()),
        };
        let Some(channel) = self.channel.take() else {
            return Err(Status::internal("the call has no channel"));
        };
        let mut request = self.request.take();
        if let (Some(compressor), Some(frame)) = (&self.options.compressor, &mut request) {
            let from = self
                .options
                .compress
                .least_size(channel.limits().messages.compress_above);
            match compressed(frame, &**compressor, from)? {
                Some(compressed) => {
                    let plain = std::mem::replace(frame, compressed);
                    self.request = (!channel.is_plain()).then_some(plain);
                }
                // Who has named it finds it in the head, in any case.
                None if self.options.compress == Compress::On => {}
                None => self.options.compressor = None,
            }
        }
        Ok((channel, request))
    }

    /// What observers are told of the one message of the request, which is in `frame`.
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

    /// The call without its messages.
    pub(crate) fn take(&mut self) -> Call {
        Call::from_head(self.take_head(), std::mem::take(&mut self.options))
    }

    pub(crate) fn take_head(&mut self) -> Head {
        Head {
            path: self.head.path.clone(),
            metadata: std::mem::take(&mut self.head.metadata),
            extensions: std::mem::take(&mut self.head.extensions),
            deadline: self.head.deadline,
            peer: self.head.peer.take(),
        }
    }

    /// What the caller got wrong.
    pub(crate) fn check(&mut self) -> Result<(), Status> {
        self.options.failure.take().map_or(Ok(()), Err)
    }

    /// Starts a call whose responses are a stream, and whose requests are not; done when the stream is
    /// open.
    async fn start<R: Message>(mut self) -> Result<Messages, Status> {
        let (channel, request) = self.begin()?;
        let request = request.unwrap_or_default();
        let (kind, start) = (CallKind::ServerStreaming, Start::Watched);
        let recorder = channel.recorder(&self, kind);
        let message = recorder.as_ref().map(|it| self.message(&request, it));
        let (call, body) = (self.take(), Body::pieces(request, None));
        let mut messages = channel.start(call, body, kind, start, recorder.clone());
        if let (Some(recorder), Some(message)) = (recorder, message) {
            message.record(&recorder);
        }
        messages = messages.of_type::<R>();
        messages.opened().await?;
        Ok(messages)
    }

    async fn start_sending<Q: Message, R: Message>(
        mut self,
        kind: CallKind,
    ) -> Result<(Sender<Q>, Messages), Status> {
        let (channel, _) = self.begin()?;
        let (writer, reader) = pipe(channel.limits().http2.pipe_size);
        let call = self.take();
        let recorder = channel.recorder(&call, kind);
        let mut sender = Sender::of_call(
            writer,
            (call.options.compressor.clone(), call.options.compress),
            call.head.deadline,
            &channel.limits().messages,
            recorder.clone(),
        );
        let body = Body::pipe(reader);
        let mut messages = channel.start(call, body, kind, Start::Watched, recorder);
        messages = messages.of_type::<R>();
        messages.opened().await?;
        if let Some(hooks) = messages.take_request_hooks() {
            sender.set_message_hooks(hooks);
        }
        Ok((sender, messages))
    }
}

/// The frame of a message compressed, if it has `from` bytes or more and gets smaller by it.
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

/// What observers are told of the one message of a request.
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

/// Whether the caller wants to know when the stream is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Watched,
    Unwatched,
}

impl Call {
    pub(crate) fn from_head(head: Head, options: Options) -> Self {
        Self {
            head,
            options,
            request: None,
            channel: None,
            gives: PhantomData,
        }
    }
}

impl Options {
    fn fail(&mut self, status: Status) {
        self.failure.get_or_insert(status);
    }
}

impl<T> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

/// A call that has been awaited.
type Started<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

impl<R: Message> IntoFuture for Call<Response<R>> {
    type Output = Result<Response<R>, Status>;
    type IntoFuture = Started<Response<R>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(Unary::new(self))
    }
}

impl<R: Message> IntoFuture for Call<Streaming<R>> {
    type Output = Result<Streaming<R>, Status>;
    type IntoFuture = Started<Streaming<R>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(Streaming::new(self.start::<R>().await?)) })
    }
}

impl<Q: Message, R: Message> IntoFuture for Call<ClientStream<Q, R>> {
    type Output = Result<ClientStream<Q, R>, Status>;
    type IntoFuture = Started<ClientStream<Q, R>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (sender, messages) = self
                .start_sending::<Q, R>(CallKind::ClientStreaming)
                .await?;
            Ok(ClientStream::new(sender, messages))
        })
    }
}

impl<Q: Message, R: Message> IntoFuture for Call<(Sender<Q>, Streaming<R>)> {
    type Output = Result<(Sender<Q>, Streaming<R>), Status>;
    type IntoFuture = Started<(Sender<Q>, Streaming<R>)>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (sender, messages) = self.start_sending::<Q, R>(CallKind::BidiStreaming).await?;
            Ok((sender, Streaming::new(messages)))
        })
    }
}
