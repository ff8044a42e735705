//! The client's side of one connection.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::{ResponseFuture, SendRequest};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use trunkline_codec::Status;

use crate::address::Address;
use crate::body::Body;
use crate::client_driver::ClientDriver;
use crate::client_policy::ClientPolicy;
use crate::client_send::{DATA_MAX, RefusedRequest, request_channel, send_body, send_whole};
use crate::connection_shared::{CallPermit, ConnectionShared};
use crate::error::{ended, status_from_h2};
use crate::frame_guard::{PeerProtocol, Role};
use crate::incoming::{ClientCallResources, IncomingBody};
use crate::keepalive::Keepalive;
use crate::limits::{ClientLimits, Http2Limits};
use crate::linger::linger;
use crate::net_stream::{ByteStream, IoOrigin, NetStream};
use crate::send::SendBody;
use crate::stream_limit::{StreamLimit, StreamPermit};
use crate::target::Target;
use crate::tls::ClientTls;
use crate::turn::Turn;
use crate::wire_io::{ConnectionStats, WireCounters, WireIo};

/// The number of streams that a client can open on a connection: RFC 9113, section 5.1.1, gives it the odd
/// 31-bit identifiers, each of which is used once.
const STREAMS_MAX: u32 = (1 << 30) - 1;

/// A handle of a connection to a server, cheap to clone.
///
/// The connection closes when the last handle is dropped and the last call on it has ended.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Opener>);

/// The server to connect to, and the settings of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The name of the server in error messages.
    pub name: &'a str,
    /// The target that the user wrote.
    pub target: &'a Target,
    /// The TLS settings, or `None` for plaintext.
    pub tls: Option<&'a ClientTls>,
    /// The limits of the connection.
    pub limits: &'a Arc<ClientLimits>,
    /// The keepalive interval, shared by the connections of a channel.
    pub keepalive: &'a Keepalive,
}

/// Opens the streams of a connection.
struct Opener {
    send: SendRequest<Bytes>,
    shared: Arc<ConnectionShared>,
    stream_limit: Arc<StreamLimit>,
    limits: Arc<ClientLimits>,
    /// The number of streams opened so far.
    opened: AtomicU32,
    counted: Box<dyn WireCounters>,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = self.shared.open();
        f.debug_struct("Opener")
            .field("calls", &calls)
            .finish_non_exhaustive()
    }
}

impl Opener {
    /// Stops accepting calls. Calls that wait for a stream move to another connection.
    fn leave(&self) {
        self.shared.set_leaving();
        self.stream_limit.close();
    }

    fn count(&self) {
        let max = self.limits.max_calls_per_connection.min(STREAMS_MAX);
        let before = self.opened.fetch_add(1, Ordering::Relaxed);
        if before >= max.saturating_sub(1) {
            self.leave();
        }
    }

    /// Converts the error of h2 for a request that it rejects.
    fn refused(&self, error: &h2::Error, body: Body) -> Box<RefusedRequest> {
        // An invalid request would fail on any connection, and does not affect other calls.
        let is_connection_lost = error.is_go_away() || error.is_io();
        if is_connection_lost {
            self.leave();
        }
        Box::new(RefusedRequest {
            status: self.shared.failure(error),
            body,
            is_connection_lost,
        })
    }
}

impl Connection {
    /// Connects to `address`, performs the TLS handshake if `to.tls` is set, and waits for the server's
    /// HTTP/2 SETTINGS. Has no timeout.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if the server cannot be reached or a handshake fails. The message names the server, the
    /// cause and a remedy.
    pub async fn connect(address: &Address, to: &Destination<'_>) -> Result<Self, Status> {
        let stream = NetStream::connect(address, to.name).await?;
        let has_keepalive = to.keepalive.time() < Duration::MAX;
        stream.set_options(has_keepalive.then_some(to.limits.http2.keepalive_timeout));
        Self::secure(stream, to).await
    }

    /// Performs the handshakes of [`connect`](Self::connect) over an existing byte stream.
    ///
    /// # Errors
    ///
    /// The errors of [`connect`](Self::connect).
    pub async fn on(stream: Box<dyn ByteStream>, to: &Destination<'_>) -> Result<Self, Status> {
        Self::secure(stream.into(), to).await
    }

    /// Opens the tunnel through a proxy and performs the handshake of TLS, if configured, and that of HTTP/2. The future is boxed so that the code of
    /// a connection, including h2, is compiled in this crate instead of in each crate that connects.
    fn secure<'a>(
        stream: NetStream,
        to: &'a Destination<'_>,
    ) -> Pin<Box<dyn Future<Output = Result<Self, Status>> + Send + 'a>> {
        Box::pin(async move {
            let origin = stream.origin();
            let stream = match to.target.tunnel() {
                None => stream,
                Some((proxy, server)) => proxy.tunnel(stream, &server, to.name).await?,
            };
            let stream = match to.tls {
                None => stream,
                Some(tls) => tls.secure(stream, to.name, to.target).await?,
            };
            Self::begin(stream, origin, to.name, to.limits.clone(), to.keepalive).await
        })
    }

    /// Starts HTTP/2 with prior knowledge over any byte stream. `name` is the server's name in error
    /// messages.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if the peer does not speak HTTP/2.
    pub async fn over<IO>(
        io: IO,
        name: &str,
        limits: Arc<ClientLimits>,
        keepalive: &Keepalive,
    ) -> Result<Self, Status>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self::begin(io, IoOrigin::Custom, name, limits, keepalive).await
    }

    async fn begin<IO>(
        io: IO,
        origin: IoOrigin,
        name: &str,
        limits: Arc<ClientLimits>,
        keepalive: &Keepalive,
    ) -> Result<Self, Status>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let wire = WireIo::new(io, Role::Server, &limits.http2);
        let (send, h2) = builder(&limits.http2)
            .handshake::<_, Bytes>(wire.clone())
            .await
            .map_err(|error| {
                ended(
                    name,
                    status_from_h2(&error).message(),
                    PeerProtocol::Unknown,
                )
            })?;
        let shared = ConnectionShared::new(wire.wire().header_lists());
        let counted = Box::new(wire.counted());
        let (ready, is_ready) = oneshot::channel();
        let stream_limit = StreamLimit::new();
        let driver = ClientDriver {
            h2,
            stream_limit: stream_limit.clone(),
            settings: 0,
            turn: Turn::new(wire, shared.clone()),
            ready: Some(ready),
            policy: ClientPolicy::new(limits.clone(), keepalive),
            name: name.to_owned(),
        };
        let (wire, bounds) = (driver.turn.wire().clone(), limits.clone());
        tokio::spawn(async move {
            let end = driver.run().await;
            linger(wire, origin, end, &bounds.http2, None).await;
        });
        match is_ready.await {
            Ok(()) => Ok(Self(Arc::new(Opener {
                send,
                shared,
                stream_limit,
                limits,
                opened: AtomicU32::new(0),
                counted,
            }))),
            Err(_) => Err(shared.ended().unwrap_or_else(|| {
                Status::unavailable(format!("the connection to {name} was lost"))
            })),
        }
    }

    /// Returns whether new calls can begin: `false` after the server has sent GOAWAY, and after the
    /// connection has ended.
    pub fn is_usable(&self) -> bool {
        !self.0.shared.is_leaving()
    }

    /// Returns the traffic of this connection so far, or in total if it has ended.
    pub fn stats(&self) -> ConnectionStats {
        let Opener {
            counted, shared, ..
        } = &*self.0;
        counted.stats().unwrap_or_else(|| shared.stats())
    }

    /// Returns whether the server has responded to a call on this connection.
    pub fn has_responded(&self) -> bool {
        self.0.shared.has_responded()
    }

    /// Returns whether the connection has ended.
    pub fn has_ended(&self) -> bool {
        self.0.shared.ended().is_some()
    }

    /// Returns the status for new calls after the connection stopped accepting them.
    pub fn failure(&self) -> Status {
        self.0.shared.ended().unwrap_or_else(|| {
            Status::unavailable("the server closes the connection and takes no more calls")
        })
    }

    /// Waits until no new calls can begin. The future does not keep the connection open.
    pub fn left(&self) -> impl Future<Output = ()> + Send + use<> {
        let stream_limit = self.0.stream_limit.clone();
        async move { stream_limit.until_closed().await }
    }

    /// Returns the number of open calls on this connection.
    pub fn open_calls(&self) -> usize {
        self.0.shared.open()
    }

    /// Returns the number of streams that the server currently allows on this connection.
    pub fn max_streams(&self) -> usize {
        self.0.stream_limit.limit()
    }

    /// Waits until the server allows another stream. Dropping the future has no effect on other calls.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if the connection accepts no new calls; [`is_usable`](Self::is_usable) then returns
    /// `false`. RESOURCE_EXHAUSTED if `limits.max_queued_calls` calls are already open or waiting.
    pub async fn ready(&self) -> Result<ReadyConnection, Status> {
        let Opener {
            shared,
            stream_limit,
            limits,
            ..
        } = &*self.0;
        let permit = shared.permit();
        if shared.open() > limits.max_queued_calls {
            let max = limits.max_queued_calls;
            return Err(Status::resource_exhausted(format!(
                "{max} calls are open or waiting on this connection, the limit of max_queued_calls: raise it, or wait for calls to end"
            )));
        }
        match stream_limit.take().await {
            Some(stream_permit) => Ok(self.with(permit, stream_permit)),
            None => Err(self.failure()),
        }
    }

    /// Waits like [`ready`](Self::ready), but does not count the waiting call, which waits on another
    /// connection too and counts there. Returns `None` if the connection accepts no new calls.
    pub async fn ready_uncounted(&self) -> Option<ReadyConnection> {
        let stream_permit = self.0.stream_limit.take().await?;
        Some(self.with(self.0.shared.permit(), stream_permit))
    }

    /// Returns what [`ready`](Self::ready) returns, or `None` if it would wait or fail.
    pub fn try_ready(&self) -> Option<ReadyConnection> {
        if self.0.shared.open() >= self.0.limits.max_queued_calls {
            return None;
        }
        let stream_permit = self.0.stream_limit.try_take()?;
        Some(self.with(self.0.shared.permit(), stream_permit))
    }

    fn with(&self, permit: CallPermit, stream_permit: StreamPermit) -> ReadyConnection {
        ReadyConnection {
            opener: self.0.clone(),
            resources: ClientCallResources {
                permit: Some(permit),
                stream_permit: Some(stream_permit),
                sending: None,
                request: None,
            },
        }
    }

    /// Waits until the server allows another stream, and then calls [`ReadyConnection::call`].
    ///
    /// # Errors
    ///
    /// The errors of [`ready`](Self::ready) and of [`ReadyConnection::call`].
    pub async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        self.ready().await?.call(request).await
    }
}

/// A connection with a reserved stream. Dropping it releases the stream.
#[derive(Debug)]
pub struct ReadyConnection {
    opener: Arc<Opener>,
    resources: ClientCallResources,
}

impl ReadyConnection {
    /// Sends a request when the future is first polled, and returns the response once its head has
    /// arrived.
    ///
    /// # Errors
    ///
    /// The errors of [`send`](Self::send) and of [`OpenCall`].
    pub async fn call(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        let open = self.send(Request::from_parts(head, ()), body);
        open.map_err(|refused| refused.status)?.await
    }

    // Way of a unary call, client 7: opens the stream, and sends the body if it is complete.
    /// Opens the stream and sends a request.
    ///
    /// A request whose body is known in full, and smaller than 2 GiB, is sent immediately. A task of its
    /// own sends any other body, and ends with the call.
    ///
    /// # Errors
    ///
    /// If the connection accepts no more requests, or the head is larger than the server accepts. Nothing
    /// of the request has been sent.
    pub fn send(self, head: Request<()>, mut body: Body) -> Result<OpenCall, Box<RefusedRequest>> {
        let Self {
            opener,
            mut resources,
        } = self;
        if let Err(status) = opener.shared.header_lists().check_request(&head) {
            return Err(RefusedRequest::for_good(status, body));
        }
        opener.count();
        let full_size = body.full_size().filter(|size| *size <= DATA_MAX);
        // A fresh clone has opened no stream, and is always ready.
        let mut send = opener.send.clone();
        let (head, stream) = match send.send_request(head, full_size == Some(0)) {
            Ok(opened) => opened,
            Err(error) => return Err(opener.refused(&error, body)),
        };
        let mut task = None;
        match full_size.and_then(|_| body.take_full()) {
            Some((data, _)) => resources.request = send_whole(stream, data),
            None => {
                let (near, far) = request_channel();
                resources.sending = Some(near);
                let body = SendBody::new(stream, body);
                let shared = opener.shared.clone();
                task = Some(tokio::spawn(send_body(body, shared, far)));
            }
        }
        Ok(OpenCall {
            head,
            opener,
            resources,
            sending: task,
            failed: None,
            is_unprocessed: false,
        })
    }
}

/// A call whose stream is open: a future that returns the response once its head has arrived.
///
/// Dropping it, or the body of the response before its end, resets the stream with CANCEL.
///
/// # Errors
///
/// The status for the HTTP/2 error code of the stream, or UNAVAILABLE if the connection is lost.
#[derive(Debug)]
#[must_use = "dropping it resets the stream"]
pub struct OpenCall {
    head: ResponseFuture,
    opener: Arc<Opener>,
    resources: ClientCallResources,
    /// The task that sends the request, if there is one.
    sending: Option<JoinHandle<Option<Body>>>,
    /// The error of the stream, kept until the reason for the end of the connection is known.
    failed: Option<Box<h2::Error>>,
    is_unprocessed: bool,
}

impl OpenCall {
    /// Returns the connection.
    pub fn connection(&self) -> Connection {
        Connection(self.opener.clone())
    }

    /// Returns whether, after an error, the server reported that it did not process the call.
    pub fn is_unprocessed(&self) -> bool {
        self.is_unprocessed
    }

    /// Returns the body of a request that the server did not process. Returns `None` if the body has been
    /// read in part, or was known in full.
    pub async fn take_body(&mut self) -> Option<Body> {
        // The task ends because the handle that stops it has been dropped.
        self.sending.take()?.await.ok().flatten()
    }
}

impl Future for OpenCall {
    type Output = Result<Response<Body>, Status>;

    // Way of a unary call, client 8: waits for the head of the response, and takes a body that has arrived.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Opener { shared, limits, .. } = &*this.opener;
        let head = match this.failed.take() {
            Some(error) => Err(*error),
            None => ready!(Pin::new(&mut this.head).poll(cx)),
        };
        Poll::Ready(match head {
            Ok(response) => {
                shared.set_responded();
                let resources = std::mem::take(&mut this.resources);
                shared.header_lists().check_response(&response)?;
                Ok(response.map(|recv| {
                    Body::arrived(IncomingBody::arrive(recv, shared, &limits.http2, resources))
                }))
            }
            Err(error) => {
                let stream = || this.head.stream_id();
                if let Some(status) = shared.header_lists().refused_response(&error, stream) {
                    this.resources = ClientCallResources::default();
                    this.sending = None;
                    return Poll::Ready(Err(status));
                }
                let Poll::Ready(mut status) = shared.poll_failure(&error, cx) else {
                    this.failed = Some(Box::new(error));
                    return Poll::Pending;
                };
                if let Some(sending) = &this.resources.sending {
                    status = sending.failure.or(status);
                }
                this.resources = ClientCallResources::default();
                this.is_unprocessed = is_unprocessed(&error);
                if !this.is_unprocessed {
                    // The body is not needed any more; dropping the handle ends the task and its writer.
                    this.sending = None;
                }
                Err(status)
            }
        })
    }
}

/// RFC 9113, sections 6.8 and 8.7: streams after the last one that a GOAWAY names, and streams reset with
/// REFUSED_STREAM, have not been processed.
fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_remote()
        && (error.is_go_away()
            || error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM))
}

fn builder(limits: &Http2Limits) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(limits.initial_window_size)
        .initial_connection_window_size(limits.initial_connection_window_size)
        // h2 never refills this budget for late frames, so flow control and `ClientPolicy` limit them
        // instead. DATA of a call that is not polled stays in h2, up to its window.
        .data_frame_budget(usize::MAX)
        .max_send_buffer_size(limits.max_send_buffer_size)
        .max_header_list_size(limits.decoded_header_list_size())
        // h2 counts these for the life of the connection; `ClientPolicy` has a budget that refills.
        .max_local_error_reset_streams(None)
        .max_concurrent_reset_streams(limits.max_concurrent_reset_streams)
        .reset_stream_duration(limits.reset_stream_duration);
    builder
}
