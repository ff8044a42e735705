//! Channels: to a server over connections, to a router in the same process, or to any tower service.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{self, Poll};
use std::time::Duration;

use tower_service::Service;
use trunkline_channel::{ChannelLimits, ConnectivityState, ConnectivityWatch};
use trunkline_codec::head::ClientFields;
use trunkline_codec::{Compressors, Metadata, Status};
use trunkline_transport::Body;

use crate::call::cancel::guarded;
use crate::call::compression::find_compressor;
use crate::call::context::{Context, ReturnedContext};
use crate::call::deadline;
use crate::call::hooks::Hooks;
use crate::call::intercept::{ClientInterceptors, Exchange, Interceptor, Interceptors};
use crate::call::kind::{CallKind, Side};
use crate::call::message_hooks::unless_rejected;
use crate::call::messages::Messages;
use crate::call::receive::Receive;
use crate::client::backend::{Backend, BackendKind, ChannelOptions, nowhere};
use crate::client::defaults::CallDefaults;
use crate::client::forwarded::forward;
use crate::client::opening::{Opening, Repeatable, Start};
use crate::client::outgoing::OutgoingCall;
use crate::credentials::{AttachedCredentials, CallCredentials};
use crate::http_service::{ErasedService, HttpService};
use crate::observe::{ConnectionStats, Observer, Observers, Recorder, Subject};

/// A client's connections to a target: a server, or several servers among which it distributes calls. A
/// channel is cheap to clone, and clones share the connections.
///
/// ```
/// # use trunkline::{Channel, Client, Server};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline::Result<()> {
/// let channel = Channel::to("localhost:50051").connect_lazy()?;
/// let client = Client::new(channel.clone());
/// # Ok(()) }
/// ```
///
/// **Number of connections.** A channel has one connection to a server, and opens more while that connection is
/// busy; see [`ChannelBuilder::max_connections`](crate::ChannelBuilder::max_connections). If the target has
/// several addresses, the load balancing policy decides which of them are used; see
/// [`ChannelBuilder::use_policy`](crate::ChannelBuilder::use_policy). Default: `pick_first`, which uses one.
///
/// **Reconnecting.** If a connection ends, the next call opens a new one; with `round_robin`, the channel opens
/// it immediately. If the channel cannot connect, it tries again after a pause, which grows from 1 s
/// (`connect_backoff_base` in [`ChannelLimits`]) to 120 s. Meanwhile, calls fail with UNAVAILABLE and the cause,
/// unless they [wait for ready](crate::Call::wait_for_ready). A call that certainly has not been processed by the
/// server is sent again automatically (transparent retry).
///
/// **Closing.** The connections close after the last clone is dropped and the last call has ended. They also
/// close after 30 to 60 min without a call ([`ChannelLimits::channel_idle_time`]); the next call then
/// reconnects.
#[derive(Clone)]
pub struct Channel {
    pub(crate) backend: Backend,
    interceptors: Interceptors,
    observers: Observers,
}

impl Channel {
    /// Returns a channel that passes its calls to a tower service instead of a server. The service can be
    /// another channel with layers around it.
    ///
    /// If the service returns an error that is not a [`Status`], the call fails with UNAVAILABLE and the
    /// text of the error.
    pub fn new<S, B>(service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<B>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + 'static,
    {
        Self::over(Arc::new(ErasedService::new(service)))
    }

    pub(crate) fn over(service: Arc<dyn HttpService>) -> Self {
        let fields = ClientFields::new(Compressors::default());
        let options = ChannelOptions::new(Arc::default(), fields);
        Self::of(Backend::new(BackendKind::Service(service), options))
    }

    pub(crate) fn of(backend: Backend) -> Self {
        Self {
            backend,
            interceptors: Interceptors::default(),
            observers: Observers::default(),
        }
    }

    /// Returns this channel with an interceptor around every call. The interceptor added first is the
    /// outermost. Other clones are not affected.
    #[must_use]
    pub fn intercept(mut self, interceptor: impl Interceptor) -> Self {
        self.interceptors.push(interceptor);
        self
    }

    /// Returns this channel with an observer of every call; see [`observe`](crate::observe). Observers are
    /// notified in the order in which they were added. Other clones are not affected.
    #[must_use]
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.observers.add(observer);
        self
    }

    /// Returns this channel with a limit for the size of received messages, in bytes both as received and after
    /// decompression. Default: 4 MiB. Other clones are not affected.
    #[must_use]
    pub fn max_recv_message_size(self, bytes: usize) -> Self {
        self.with_limits(|limits| limits.messages.max_recv_message_size = bytes)
    }

    /// Returns this channel with a limit for the size of sent messages, in bytes before compression.
    /// Default: 4 GiB. Other clones are not affected.
    #[must_use]
    pub fn max_send_message_size(self, bytes: usize) -> Self {
        self.with_limits(|limits| limits.messages.max_send_message_size = bytes)
    }

    fn with_limits(self, change: impl FnOnce(&mut ChannelLimits)) -> Self {
        let mut limits = self.backend.limits().clone();
        change(&mut limits);
        self.with_options(|options| options.limits = Arc::new(limits))
    }

    /// Returns this channel with a timeout for calls that do not [set their own](crate::Call::timeout).
    /// Default: unlimited. Other clones are not affected.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with_defaults(|defaults| defaults.timeout = Some(timeout))
    }

    /// Returns this channel with a pair of metadata that each call sends. If a call adds a pair with the
    /// same key, both are sent, the channel's first. Other clones are not affected.
    ///
    /// If the key or the value is invalid, each call fails with INTERNAL before anything is sent.
    #[must_use]
    pub fn metadata(self, key: &str, value: &str) -> Self {
        self.with_defaults(|defaults| defaults.add(|metadata| metadata.append(key, value)))
    }

    /// Returns this channel with a pair of binary metadata, whose key ends in `-bin`, that each call
    /// sends. See
    /// [`metadata`](Self::metadata).
    #[must_use]
    pub fn metadata_bin(self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.with_defaults(|defaults| defaults.add(|metadata| metadata.append_bin(key, value)))
    }

    /// Returns this channel with metadata; each call sends all of its pairs. See
    /// [`metadata`](Self::metadata).
    #[must_use]
    pub fn extend_metadata(self, metadata: Metadata) -> Self {
        self.with_defaults(|defaults| defaults.metadata.extend(metadata))
    }

    /// Returns this channel with credentials for every call; see [`credentials`](crate::credentials). Several are sent
    /// in the order in which they were added, followed by those of the call. Other clones are not affected.
    ///
    /// If a connection is not secure enough for them, its calls fail with UNAUTHENTICATED before anything is sent.
    /// A channel to a tower service ([`Channel::new`]) never counts as secure. If the service wraps another channel in
    /// layers, set the credentials on that inner channel.
    #[must_use]
    pub fn credentials(self, credentials: impl CallCredentials) -> Self {
        self.with_defaults(|defaults| {
            AttachedCredentials::add(&mut defaults.credentials, credentials);
        })
    }

    /// Returns this channel with compression of requests by the compressor of that name; see
    /// [`ChannelBuilder::compress`](crate::ChannelBuilder::compress). `identity` disables compression. Other clones
    /// are not affected.
    ///
    /// If the channel has no compressor of that name, each call fails with INTERNAL before anything is
    /// sent.
    #[must_use]
    pub fn compress(self, compressor: &str) -> Self {
        self.with_options(|options| {
            match find_compressor("the channel", compressor, options.fields.compressors()) {
                Ok(compressor) => options.compress = compressor,
                Err(unknown) => {
                    let defaults = options.defaults.get_or_insert_default();
                    defaults.fail(Status::internal(unknown));
                }
            }
        })
    }

    fn with_defaults(self, change: impl FnOnce(&mut CallDefaults)) -> Self {
        self.with_options(|options| change(options.defaults.get_or_insert_default()))
    }

    fn with_options(mut self, change: impl FnOnce(&mut ChannelOptions)) -> Self {
        self.backend.change_options(change);
        self
    }

    /// Returns true if calls have neither interceptors nor observers.
    pub(crate) fn is_plain(&self) -> bool {
        self.interceptors.is_empty() && !self.observers.is_watched()
    }

    /// Returns true if interceptors can set hooks on messages.
    #[inline]
    pub(crate) fn has_interceptors(&self) -> bool {
        !self.interceptors.is_empty()
    }

    pub(crate) fn recorder(&self, call: &OutgoingCall, kind: CallKind) -> Option<Arc<Recorder>> {
        self.observers.record(Subject {
            side: Side::Client,
            kind: Some(kind),
            is_registered: call.is_registered,
            head: Some(&call.head),
        })
    }

    /// Returns the connectivity state. A channel to an in-process server or a tower service is always
    /// [`Ready`](ConnectivityState::Ready).
    pub fn state(&self) -> ConnectivityState {
        match &self.backend.kind {
            BackendKind::Server(connections) => connections.state(),
            BackendKind::Service(_) => ConnectivityState::Ready,
        }
    }

    /// Returns a watch, which reports changes of the connectivity state. It does not keep the channel
    /// alive.
    pub fn watch_state(&self) -> ConnectivityWatch {
        match &self.backend.kind {
            BackendKind::Server(connections) => connections.watch_state(),
            BackendKind::Service(_) => ConnectivityWatch::fixed(ConnectivityState::Ready),
        }
    }

    /// Returns statistics of each current connection, in no particular order. The list is empty for a
    /// channel to an in-process server or a tower service.
    pub fn connection_stats(&self) -> Vec<ConnectionStats> {
        self.backend
            .connections()
            .map_or_else(Vec::new, |it| it.stats())
    }

    /// Starts to connect, if the channel is idle, and does not wait for the result. Call it in a tokio
    /// runtime.
    pub fn request_connection(&self) {
        if let Some(connections) = self.backend.connections() {
            connections.request_connection();
        }
    }

    /// Ends the pauses between attempts to connect, so that they begin immediately, for example after the network of
    /// the machine has changed.
    pub fn reset_backoff(&self) {
        if let Some(connections) = self.backend.connections() {
            connections.reset_backoff();
        }
    }

    /// Begins a call, in the poll of its caller.
    pub(crate) fn start(
        self,
        mut call: OutgoingCall,
        body: Body,
        kind: CallKind,
        start: Start,
        recorder: Option<Arc<Recorder>>,
    ) -> Messages {
        let deadline = call.head.deadline;
        let reader = self.backend.reader(&call, kind.responses());
        if self.interceptors.is_empty() {
            let cancel = call.cancel.take();
            let head = Repeatable::begin(self.backend, call, body, start, recorder.clone());
            let head = guarded(head, cancel.as_ref());
            let receive = Receive::responses(reader, head, deadline).cancelled_by(cancel);
            return Messages::new(receive, Hooks::new(recorder, None));
        }
        let (exchange, is_open) = (
            Arc::new(Exchange::default()),
            Arc::new(AtomicBool::new(false)),
        );
        let (innermost_exchange, innermost_open) = (exchange.clone(), is_open.clone());
        let innermost_recorder = recorder.clone();
        let cancel = call.cancel.take();
        let innermost_cancel = cancel.clone();
        let (interceptors, backend, outermost) =
            (self.interceptors, self.backend, ReturnedContext::default());
        let cx = Context::new(Side::Client, kind, call.take_head(), outermost.clone());
        let running = interceptors.run(cx, move |mut cx| {
            Box::pin(async move {
                let hooks = cx.take_hooks();
                call.head = cx.copy_head();
                let rejection = hooks.as_ref().map(|hooks| hooks.rejection.clone());
                if let Some(hooks) = hooks {
                    if let (Some(hooks), Some(request)) = (&hooks.requests, call.kept.take()) {
                        request.run(hooks)?;
                    }
                    innermost_exchange.set_hooks(hooks.requests, hooks.responses);
                }
                let moved_to = call.head.deadline;
                innermost_exchange.set_deadline(moved_to.filter(|_| moved_to != deadline));
                let mut arrived = None;
                let inside = async {
                    let head = Repeatable::begin(backend, call, body, start, innermost_recorder);
                    let head = guarded(head, innermost_cancel.as_ref());
                    let relayed = innermost_exchange.relay(head, &innermost_open).await?;
                    let (end, response) = relayed;
                    arrived = Some(response);
                    end
                };
                let inside = unless_rejected(rejection, inside);
                let end = deadline::moved(deadline, moved_to, inside).await;
                if let Some(response) = arrived {
                    let added = cx.take_response();
                    cx.set_response(added.followed_by(response));
                }
                end
            })
        });
        let waiting = exchange.clone();
        let response = async move { Ok(poll_fn(|cx| waiting.poll_response(cx)).await) };
        // The handle resets the stream inside the interceptors, so a response that has arrived is kept.
        let head = Box::new(Opening::waiting(is_open, response));
        let receive = Receive::responses(reader, head, deadline).cancelled_by(cancel);
        let interceptors = ClientInterceptors::new(running, exchange, outermost);
        Messages::new(receive, Hooks::new(recorder, Some(interceptors)))
    }
}

/// The channel without its interceptors, but with its credentials, for tower layers. [`Channel::new`] converts the layered service
/// into a channel again.
///
/// It is always ready. Requests are sent with the channel's authority instead of their own.
impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let defaults = self.backend.defaults();
        let credentials = defaults.and_then(|it| it.credentials.clone());
        match (&self.backend.kind, credentials) {
            (BackendKind::Service(service), None) => service.call(request),
            (BackendKind::Service(service), Some(credentials)) => {
                let origin = nowhere(service.security_level());
                let request = credentials.added_to(request, origin, None);
                let service = service.clone();
                Box::pin(async move { service.call(request.await?).await })
            }
            (BackendKind::Server(connections), credentials) => {
                let connections = connections.clone();
                Box::pin(forward(connections, credentials, request))
            }
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = match &self.backend.kind {
            BackendKind::Server(connections) => connections.to_string(),
            BackendKind::Service(_) => "a service in this process".to_owned(),
        };
        f.debug_tuple("Channel").field(&to).finish()
    }
}
