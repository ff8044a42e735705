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

/// RFC 9113, section 5.1.1: identifiers are used once, and when there are no more, so is the
/// connection. A client has the odd ones of 31 bits, from 1 on.
const STREAMS_MAX: u32 = (1 << 30) - 1;

/// A connection to a server; a cheap handle. The connection closes when the last handle is gone
/// and the last call on it has ended.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Opener>);

/// Where a connection leads, and how it is spoken to.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// What the user has written.
    pub target: &'a Target,
    /// TLS, if it is wanted.
    pub tls: Option<&'a ClientTls>,
    /// The limits of the connection.
    pub limits: &'a Arc<ClientLimits>,
    /// When the server is asked whether it is there.
    pub keepalive: &'a Keepalive,
}

/// What opens the streams of a connection.
struct Opener {
    send: SendRequest<Bytes>,
    shared: Arc<ConnectionShared>,
    slots: Arc<StreamLimit>,
    limits: Arc<ClientLimits>,
    /// Streams that have been opened.
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
    /// No new call goes here. Those that wait for a stream go elsewhere.
    fn leave(&self) {
        self.shared.set_leaving();
        self.slots.close();
    }

    fn count(&self) {
        let max = self.limits.max_calls_per_connection.min(STREAMS_MAX);
        let before = self.opened.fetch_add(1, Ordering::Relaxed);
        if before >= max.saturating_sub(1) {
            self.leave();
        }
    }

    /// What h2 says to a request that it does not take.
    fn refused(&self, error: &h2::Error, body: Body) -> Box<RefusedRequest> {
        // What is wrong with the request itself would be wrong elsewhere as well, and is no harm to
        // the other calls here.
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
    /// Connects to `address`, and waits until the server has shown that it speaks HTTP/2, over TLS if
    /// that is wanted. There is no timeout here.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE; the message has the name, the cause and the way out.
    pub async fn connect(address: &Address, to: &Destination<'_>) -> Result<Self, Status> {
        let stream = NetStream::connect(address, to.name).await?;
        let has_keepalive = to.keepalive.time() < Duration::MAX;
        stream.set_options(has_keepalive.then_some(to.limits.http2.keepalive_timeout));
        Self::secure(stream, to).await
    }

    /// As [`connect`](Self::connect), over a byte stream that there is.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn on(stream: Box<dyn ByteStream>, to: &Destination<'_>) -> Result<Self, Status> {
        Self::secure(stream.into(), to).await
    }

    /// The handshakes: TLS if it is wanted, and HTTP/2. In a box, so that what there is of a connection,
    /// h2 included, is compiled here, and not with each crate that connects.
    fn secure<'a>(
        stream: NetStream,
        to: &'a Destination<'_>,
    ) -> Pin<Box<dyn Future<Output = Result<Self, Status>> + Send + 'a>> {
        Box::pin(async move {
            let origin = stream.origin();
            let stream = match to.tls {
                None => stream,
                Some(tls) => tls.secure(stream, to.name, to.target).await?,
            };
            Self::begin(stream, origin, to.name, to.limits.clone(), to.keepalive).await
        })
    }

    /// PeerProtocol HTTP/2 with prior knowledge over any byte stream. `name` is what messages call it.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if what answers does not speak HTTP/2.
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
        let slots = StreamLimit::new();
        let driver = ClientDriver {
            h2,
            slots: slots.clone(),
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
                slots,
                limits,
                opened: AtomicU32::new(0),
                counted,
            }))),
            Err(_) => Err(shared.ended().unwrap_or_else(|| {
                Status::unavailable(format!("the connection to {name} was lost"))
            })),
        }
    }

    /// Whether new calls can begin here: not once the server has said GOAWAY, nor when the
    /// connection has ended.
    pub fn is_usable(&self) -> bool {
        !self.0.shared.is_leaving()
    }

    /// What has passed on this connection so far, or in all.
    pub fn stats(&self) -> ConnectionStats {
        let Opener {
            counted, shared, ..
        } = &*self.0;
        counted.stats().unwrap_or_else(|| shared.stats())
    }

    /// Whether the server has answered a call here.
    pub fn has_responded(&self) -> bool {
        self.0.shared.has_responded()
    }

    /// Why no new calls can begin here, once they cannot.
    pub fn failure(&self) -> Status {
        self.0.shared.ended().unwrap_or_else(|| {
            Status::unavailable("the server closes the connection and takes no more calls")
        })
    }

    /// Waits until no new calls can begin here. It does not keep the connection open.
    pub fn left(&self) -> impl Future<Output = ()> + Send + use<> {
        let slots = self.0.slots.clone();
        async move { slots.until_closed().await }
    }

    /// Calls that are open on this connection.
    pub fn open_calls(&self) -> usize {
        self.0.shared.open()
    }

    /// Streams that the server allows on this connection now.
    pub fn max_streams(&self) -> usize {
        self.0.slots.limit()
    }

    /// Waits until the server allows another stream. Dropping the future leaves no trace.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE when the connection takes no new calls, which
    /// [`is_usable`](Self::is_usable) says then too; RESOURCE_EXHAUSTED when
    /// `limits.max_queued_calls` are open or waiting already.
    pub async fn ready(&self) -> Result<ReadyConnection, Status> {
        let Opener {
            shared,
            slots,
            limits,
            ..
        } = &*self.0;
        let permit = shared.permit();
        if shared.open() > limits.max_queued_calls {
            let max = limits.max_queued_calls;
            return Err(Status::resource_exhausted(format!(
                "{max} calls are open on this connection; max_queued_calls allows no more"
            )));
        }
        match slots.take().await {
            Some(slot) => Ok(self.with(permit, slot)),
            None => Err(self.failure()),
        }
    }

    /// What [`ready`](Self::ready) gives, for a call that waits on another connection as well, and
    /// counts there; none when the connection takes no new calls.
    pub async fn ready_uncounted(&self) -> Option<ReadyConnection> {
        let slot = self.0.slots.take().await?;
        Some(self.with(self.0.shared.permit(), slot))
    }

    /// What [`ready`](Self::ready) gives, if there is nothing to wait for and nothing wrong.
    pub fn try_ready(&self) -> Option<ReadyConnection> {
        if self.0.shared.open() >= self.0.limits.max_queued_calls {
            return None;
        }
        let slot = self.0.slots.try_take()?;
        Some(self.with(self.0.shared.permit(), slot))
    }

    fn with(&self, permit: CallPermit, slot: StreamPermit) -> ReadyConnection {
        ReadyConnection {
            opener: self.0.clone(),
            resources: ClientCallResources {
                permit: Some(permit),
                slot: Some(slot),
                sending: None,
                request: None,
            },
        }
    }

    /// Waits until the server allows another stream, and makes the call: see
    /// [`ReadyConnection::call`].
    ///
    /// # Errors
    ///
    /// Those of [`ready`](Self::ready) and of the call.
    pub async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        self.ready().await?.call(request).await
    }
}

/// A connection on which a stream can be opened.
#[derive(Debug)]
pub struct ReadyConnection {
    opener: Arc<Opener>,
    resources: ClientCallResources,
}

impl ReadyConnection {
    /// Sends a request; gives the head of the response, and its body to read. As
    /// [`send`](Self::send), when the future is first polled.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send) and of [`OpenCall`].
    pub async fn call(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        let open = self.send(Request::from_parts(head, ()), body);
        open.map_err(|refused| refused.status)?.await
    }

    // Way of a unary call, client 7: opens the stream, and sends the body if it is complete.
    /// Opens the stream and sends a request.
    ///
    /// A request whose body is known in full, and below 2 GiB, goes out at once; any other is sent
    /// by a task of its own, which ends with the call.
    ///
    /// # Errors
    ///
    /// When h2 takes no request on this connection any more, or the server no head as large as this:
    /// nothing of it has been sent.
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
        // A handle that has opened no stream yet is always ready.
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

/// A call whose stream is open: a future of the head of the response, and its body to read.
///
/// Dropping it, or the body of the response before its end, resets the stream with CANCEL. Its
/// error is what HTTP/2 says of the stream, mapped to a status; UNAVAILABLE when the connection is
/// lost.
#[derive(Debug)]
#[must_use = "dropping it resets the stream"]
pub struct OpenCall {
    head: ResponseFuture,
    opener: Arc<Opener>,
    resources: ClientCallResources,
    /// The task that sends the request, if there is one.
    sending: Option<JoinHandle<Option<Body>>>,
    /// What the stream has failed with, until it is known why its connection has.
    failed: Option<Box<h2::Error>>,
    is_unprocessed: bool,
}

impl OpenCall {
    /// After an error: whether the server says that it has done nothing with the call.
    pub fn is_unprocessed(&self) -> bool {
        self.is_unprocessed
    }

    /// The body of a request that the server has not taken, if nothing has come out of it, and it
    /// was not known in full.
    pub async fn take_body(&mut self) -> Option<Body> {
        // What was to stop the task has been dropped, so that it ends.
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
                    // Nobody asks for what it gives back, and its writer is to hear of the end.
                    this.sending = None;
                }
                Err(status)
            }
        })
    }
}

/// RFC 9113, sections 6.8 and 8.7: what is behind the last stream of a GOAWAY, and what is reset with
/// REFUSED_STREAM, has not been processed at all.
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
        // Never refilled for frames that come late: flow control, and `ClientPolicy`, are the limit. Of a call
        // that nobody polls, what fits into its window stays in h2.
        .data_frame_budget(usize::MAX)
        .max_send_buffer_size(limits.max_send_buffer_size)
        .max_header_list_size(limits.decoded_header_list_size())
        // As at a server: `ClientPolicy` has a budget that refills.
        .max_local_error_reset_streams(None)
        .max_concurrent_reset_streams(limits.max_concurrent_reset_streams)
        .reset_stream_duration(limits.reset_stream_duration);
    builder
}
