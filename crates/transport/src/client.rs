//! The client's side of one connection.

use std::fmt;
use std::future::poll_fn;
use std::io;
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
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use trunkline_codec::{Limits, Status};

use crate::body::Body;
use crate::client_watch::Watch;
use crate::error::status_from_h2;
use crate::frame_guard::{Sender, Speaks};
use crate::hub::{Hub, Permit};
use crate::incoming::{Held, Incoming};
use crate::keepalive::{Keepalive, set_user_timeout};
use crate::net_stream::NetStream;
use crate::send::{SendBody, SendError};
use crate::slots::{Slot, Slots};
use crate::target::{Place, Target};
use crate::tls::ClientTls;
use crate::turn::{Turn, Work};
use crate::wire_io::{ConnectionStats, Counted, WireIo};

/// A connection to a server; a cheap handle. The connection closes when the last handle is gone
/// and the last call on it has ended.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Opener>);

/// What opens the streams of a connection.
struct Opener {
    send: SendRequest<Bytes>,
    hub: Arc<Hub>,
    slots: Arc<Slots>,
    limits: Arc<Limits>,
    /// Streams that have been opened.
    opened: AtomicU32,
    counted: Box<dyn Counted>,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = self.hub.open();
        f.debug_struct("Opener")
            .field("calls", &calls)
            .finish_non_exhaustive()
    }
}

impl Opener {
    /// No new call goes here. Those that wait for a stream go elsewhere.
    fn leave(&self) {
        self.hub.set_leaving();
        self.slots.close();
    }

    /// RFC 9113, section 5.1.1: identifiers are used once, and when there are no more, so is the
    /// connection.
    fn count(&self) {
        let before = self.opened.fetch_add(1, Ordering::Relaxed);
        if before >= self.limits.max_calls_per_connection.saturating_sub(1) {
            self.leave();
        }
    }

    /// What h2 says to a request that it does not take. It takes none after that, unless it is the
    /// stream alone that has failed.
    fn refused(&self, error: &h2::Error) -> Status {
        if !error.is_reset() {
            self.leave();
        }
        self.hub.failure(error)
    }
}

impl Connection {
    /// Connects to `target`, tries each address of its name in turn, and waits until the server
    /// has shown that it speaks HTTP/2, over TLS if there is `tls`.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE within `limits.connect_timeout`; the message names the target, the cause and
    /// the way out.
    pub async fn connect(
        target: &Target,
        tls: Option<&ClientTls>,
        limits: Arc<Limits>,
        keepalive: &Keepalive,
    ) -> Result<Self, Status> {
        let timeout = limits.connect_timeout;
        let connecting = async {
            match target.place() {
                Place::Unix(path) => {
                    let stream = UnixStream::connect(path)
                        .await
                        .map_err(|error| cannot_connect(target, error))?;
                    Self::secure(stream, target, tls, limits, keepalive).await
                }
                Place::Tcp(host, port) => {
                    let stream = connect_tcp(target, host, *port).await?;
                    let _ = stream.set_nodelay(true);
                    if keepalive.time() < Duration::MAX {
                        set_user_timeout(&stream, limits.keepalive_timeout);
                    }
                    Self::secure(stream, target, tls, limits, keepalive).await
                }
            }
        };
        tokio::time::timeout(timeout, connecting).await.unwrap_or_else(|_| {
            Err(Status::unavailable(format!(
                "cannot connect to {target}: no answer within {timeout:?}; is the address right, and is a firewall in the way?"
            )))
        })
    }

    /// The handshakes: TLS if it is wanted, and HTTP/2.
    async fn secure<IO>(
        stream: IO,
        target: &Target,
        tls: Option<&ClientTls>,
        limits: Arc<Limits>,
        keepalive: &Keepalive,
    ) -> Result<Self, Status>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        NetStream: From<IO>,
    {
        let name = target.to_string();
        match tls {
            None => Self::over(stream, &name, limits, keepalive).await,
            Some(tls) => {
                let secured = tls.secure(stream.into(), target).await?;
                Self::over(secured, &name, limits, keepalive).await
            }
        }
    }

    /// Speaks HTTP/2 with prior knowledge over any byte stream. `name` is what messages call it.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if what answers does not speak HTTP/2.
    pub async fn over<IO>(
        io: IO,
        name: &str,
        limits: Arc<Limits>,
        keepalive: &Keepalive,
    ) -> Result<Self, Status>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let wire = WireIo::new(io, Sender::Server, &limits);
        let (send, h2) = builder(&limits)
            .handshake::<_, Bytes>(wire.clone())
            .await
            .map_err(|error| ended(name, status_from_h2(&error).message(), Speaks::Nothing))?;
        let hub = Hub::new();
        let counted = Box::new(wire.counted());
        let (ready, is_ready) = oneshot::channel();
        let slots = Slots::new();
        let driver = Driver {
            h2,
            slots: slots.clone(),
            settings: 0,
            turn: Turn::new(wire, hub.clone()),
            ready: Some(ready),
            watch: Watch::new(limits.clone(), keepalive),
            name: name.to_owned(),
        };
        tokio::spawn(driver.run());
        match is_ready.await {
            Ok(()) => Ok(Self(Arc::new(Opener {
                send,
                hub,
                slots,
                limits,
                opened: AtomicU32::new(0),
                counted,
            }))),
            Err(_) => Err(hub.ended().unwrap_or_else(|| {
                Status::unavailable(format!("the connection to {name} was lost"))
            })),
        }
    }

    /// Whether new calls can begin here: not once the server has said GOAWAY, nor when the
    /// connection has ended.
    pub fn is_usable(&self) -> bool {
        !self.0.hub.is_leaving()
    }

    /// What has passed on this connection so far, or in all.
    pub fn stats(&self) -> ConnectionStats {
        let Opener { counted, hub, .. } = &*self.0;
        counted.stats().unwrap_or_else(|| hub.stats())
    }

    /// Calls that are open on this connection.
    pub fn open_calls(&self) -> usize {
        self.0.hub.open()
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
            hub, slots, limits, ..
        } = &*self.0;
        let permit = hub.permit();
        if hub.open() > limits.max_queued_calls {
            let max = limits.max_queued_calls;
            return Err(Status::resource_exhausted(format!(
                "{max} calls are open on this connection; max_queued_calls allows no more"
            )));
        }
        match slots.take().await {
            Some(slot) => Ok(self.with(permit, slot)),
            None => Err(hub.ended().unwrap_or_else(|| {
                Status::unavailable("the server closes the connection and takes no more calls")
            })),
        }
    }

    /// What [`ready`](Self::ready) gives, if there is nothing to wait for and nothing wrong.
    pub fn try_ready(&self) -> Option<ReadyConnection> {
        if self.0.hub.open() >= self.0.limits.max_queued_calls {
            return None;
        }
        let slot = self.0.slots.try_take()?;
        Some(self.with(self.0.hub.permit(), slot))
    }

    fn with(&self, permit: Permit, slot: Slot) -> ReadyConnection {
        ReadyConnection {
            opener: self.0.clone(),
            held: Held {
                _permit: Some(permit),
                slot: Some(slot),
                sending: None,
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
    held: Held,
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
        self.send(Request::from_parts(head, ()), body)?.await
    }

    /// Opens the stream and sends a request.
    ///
    /// A request whose body is known in full, and below 2 GiB, goes out at once; any other is sent
    /// by a task of its own, which ends with the call.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE when the connection is lost.
    pub fn send(self, head: Request<()>, mut body: Body) -> Result<OpenCall, Status> {
        let Self { opener, mut held } = self;
        let failure = |error: h2::Error| opener.refused(&error);
        opener.count();
        let full = match body.full_size() {
            Some(size) if size <= DATA_MAX => body.take_full(),
            Some(_) | None => None,
        };
        // A handle that has opened no stream yet is always ready.
        let mut send = opener.send.clone();
        let head = match full {
            Some((mut data, _)) => {
                let (head, mut stream) =
                    send.send_request(head, data.is_empty()).map_err(failure)?;
                while !data.is_empty() {
                    // The message is in memory anyway: in h2's buffer it is no larger, and it leaves
                    // as the window allows. A stream that takes none has been answered already, or
                    // has ended: the response says which.
                    let piece = data.pop();
                    let _ = stream.send_data(piece, data.is_empty());
                }
                head
            }
            None => {
                let (head, stream) = send.send_request(head, false).map_err(failure)?;
                let (stop, stopped) = oneshot::channel();
                held.sending = Some(stop);
                tokio::spawn(send_body(SendBody::new(stream, body), stopped));
                head
            }
        };
        Ok(OpenCall { head, opener, held })
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
    held: Held,
}

impl Future for OpenCall {
    type Output = Result<Response<Body>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Opener { hub, limits, .. } = &*this.opener;
        let head = ready!(Pin::new(&mut this.head).poll(cx));
        let held = std::mem::take(&mut this.held);
        Poll::Ready(match head {
            Ok(response) => {
                Ok(response.map(|recv| Body::arrived(Incoming::arrive(recv, hub, limits, held))))
            }
            Err(error) => Err(hub.failure(&error)),
        })
    }
}

/// What h2 takes at once: no more than a window can be (RFC 9113, section 6.9.1).
const DATA_MAX: usize = (1 << 31) - 1;

/// The request half of a call whose body is not known in full, or larger than h2 takes at once.
/// Ends with the request, or when the other half says so, or is gone.
async fn send_body(mut send: SendBody, mut stopped: oneshot::Receiver<Reason>) {
    let reason = poll_fn(|cx| {
        if let Poll::Ready(reason) = Pin::new(&mut stopped).poll(cx) {
            return Poll::Ready(Some(reason.unwrap_or(Reason::CANCEL)));
        }
        send.poll(cx).map(|sent| match sent {
            Ok(()) | Err(SendError::PeerGone) => None,
            // The caller let go of the call, or its body failed. Half of a request is not one.
            Err(SendError::Body(_)) => Some(Reason::CANCEL),
        })
    })
    .await;
    if let Some(reason) = reason {
        send.reset(reason);
    }
}

fn builder(limits: &Limits) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(limits.initial_window_size)
        .initial_connection_window_size(limits.initial_connection_window_size)
        .data_frame_budget(limits.data_frame_budget())
        .max_send_buffer_size(limits.max_send_buffer_size)
        .max_header_list_size(limits.max_header_list_size_hard)
        .max_local_error_reset_streams(Some(limits.client_max_local_error_reset_streams))
        .max_concurrent_reset_streams(limits.max_concurrent_reset_streams)
        .reset_stream_duration(limits.reset_stream_duration);
    builder
}

async fn connect_tcp(target: &Target, host: &str, port: u16) -> Result<TcpStream, Status> {
    let addresses = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| {
            Status::unavailable(format!(
                "cannot connect to {target}: the name {host} does not resolve: {error}"
            ))
            .with_source(error)
        })?;
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(cannot_connect(target, failure))
}

fn cannot_connect(target: &Target, error: io::Error) -> Status {
    let way_out = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "; nothing listens there: is the server running, and is the port right?"
        }
        io::ErrorKind::NotFound => "; there is no such socket: is the server running?",
        io::ErrorKind::PermissionDenied => "; this user may not use that socket",
        _ => "",
    };
    Status::unavailable(format!("cannot connect to {target}: {error}{way_out}")).with_source(error)
}

/// What a connection's end means for the calls on it.
fn ended(name: &str, why: &str, speaks: Speaks) -> Status {
    Status::unavailable(match speaks {
        Speaks::Http1 => format!(
            "{name} speaks HTTP/1.1, and gRPC needs HTTP/2: is this the server's gRPC port?"
        ),
        Speaks::Tls => {
            format!(
                "{name} expects TLS, and this connection is plaintext: connect to https://{name}"
            )
        }
        Speaks::Nothing => format!("{name} ended the connection before it said anything: {why}"),
        Speaks::Http2 => format!("the connection to {name} has ended: {why}"),
    })
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Work for Engine<IO> {
    type End = Result<(), h2::Error>;

    fn poll_engine(&mut self, cx: &mut Context<'_>) -> Poll<Self::End> {
        Pin::new(self).poll(cx)
    }
}

type Engine<IO> = h2::client::Connection<WireIo<IO>, Bytes>;

/// The engine goes before the turn: see [`Turn`].
struct Driver<IO> {
    h2: Engine<IO>,
    turn: Turn<IO>,
    slots: Arc<Slots>,
    /// SETTINGS frames seen.
    settings: u64,
    /// Told when the server's SETTINGS have come.
    ready: Option<oneshot::Sender<()>>,
    watch: Watch,
    name: String,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    async fn run(mut self) {
        let why = poll_fn(|cx| {
            let poll = self.turn.poll(cx, &mut self.h2);
            match (self.keep_watch(cx), poll) {
                (Poll::Pending, Poll::Pending) => Poll::Pending,
                (_, Poll::Ready(Ok(Ok(())))) => Poll::Ready("it was closed".to_owned()),
                (_, Poll::Ready(Ok(Err(error)))) => Poll::Ready(self.watch.ended(&error)),
                (_, Poll::Ready(Err(error))) => Poll::Ready(error.to_string()),
                (Poll::Ready(why), Poll::Pending) => Poll::Ready(why),
            }
        })
        .await;
        let speaks = self.turn.wire().wire().guard().speaks();
        let status = ended(&self.name, &why, speaks);
        self.turn.hub().set_ended(status);
    }

    /// What h2 does with control frames and does not tell, and what it does not do. Ready with the
    /// reason when the connection has to end.
    fn keep_watch(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        let (settings, goaways, bytes, flood) = {
            let wire = self.turn.wire().wire();
            let guard = wire.guard();
            let flood = self.watch.flood(guard, wire.sent());
            (guard.settings(), guard.goaways(), guard.bytes(), flood)
        };
        if settings != self.settings {
            self.settings = settings;
            self.slots.set_limit(self.h2.max_concurrent_send_streams());
            let _ = self.ready.take().map(|ready| ready.send(()));
        }
        if goaways > 0 {
            self.turn.hub().set_leaving();
            self.slots.close();
        }
        if let Some(why) = flood {
            return Poll::Ready(why);
        }
        let open = self.turn.hub().open();
        self.watch.poll(cx, &mut self.h2, bytes, open)
    }
}

/// A runtime that ends takes the task with it; a channel may live on in another.
impl<IO> Drop for Driver<IO> {
    fn drop(&mut self) {
        let hub = self.turn.hub();
        hub.set_stats(self.turn.wire().wire().stats());
        if hub.ended().is_none() {
            hub.set_ended(Status::unavailable(format!(
                "the connection to {} has ended: the runtime that it ran in is gone",
                self.name
            )));
        }
        self.slots.close();
    }
}
