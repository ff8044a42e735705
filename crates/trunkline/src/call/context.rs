//! The context of a call for its interceptors.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_codec::{Metadata, Status};
use trunkline_transport::Peer;

use crate::call::deadline;
use crate::call::head::Head;
use crate::call::kind::{CallKind, Side};
use crate::call::message_hooks::{CallHooks, HookList, MessageRef};
use crate::call::response_metadata::ResponseMetadata;

/// A call as its interceptors see it, on a client or on a server.
///
/// Before [`Next::run`](crate::Next::run), an interceptor can read and change the metadata, the
/// extensions and the deadline of the request. When [`Next::run`](crate::Next::run) returns, the context
/// also contains the metadata of the response, and the changes that inner interceptors made to the
/// request.
///
/// ```
/// use trunkline::{Context, Next, Result};
///
/// async fn tag(mut cx: Context, next: Next) -> Result<()> {
///     cx.metadata_mut().insert("x-region", "eu")?;
///     let end = next.run(&mut cx).await;
///     let cache = cx.response_metadata().get("x-cache").unwrap_or("none");
///     println!("{}: {end:?}, cache: {cache}", cx.path());
///     end
/// }
///
/// let server = trunkline::Server::new().intercept(tag);
/// ```
///
/// Keep the context in the function of the interceptor. If it is moved elsewhere, for example into a
/// task, the interceptors around this one find their own contexts empty, without metadata and extensions.
pub struct Context {
    state: ContextState,
    /// Receives the state when the context is dropped.
    outer: ReturnedContext,
}

/// The state that the interceptors of a call pass to each other.
pub(crate) struct ContextState {
    side: Side,
    kind: CallKind,
    pub(crate) head: Head,
    pub(crate) response: ResponseMetadata,
    /// The mutex is never locked; it makes a context `Sync`.
    hooks: Mutex<HookList>,
}

/// Receives the state of a dropped context.
#[derive(Clone, Default)]
pub(crate) struct ReturnedContext(Arc<Mutex<Option<ContextState>>>);

impl ReturnedContext {
    pub(crate) fn take(&self) -> Option<ContextState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, state: ContextState) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }
}

impl Context {
    /// Creates the context for a call's outermost interceptor. `outer` receives its state at the end.
    pub(crate) fn new(side: Side, kind: CallKind, head: Head, outer: ReturnedContext) -> Self {
        let state = ContextState {
            side,
            kind,
            head,
            response: ResponseMetadata::default(),
            hooks: Mutex::default(),
        };
        Self { state, outer }
    }

    /// Returns the side on which the interceptor runs: the client or the server.
    pub fn side(&self) -> Side {
        self.state.side
    }

    /// Returns the kind of the call: unary, or with streams of requests, responses or both.
    pub fn kind(&self) -> CallKind {
        self.state.kind
    }

    /// Returns the path of the method: `/package.Service/Method`.
    pub fn path(&self) -> &str {
        self.state.head.path()
    }

    /// Returns the full name of the service: `package.Service`.
    pub fn service(&self) -> &str {
        self.split_path().0
    }

    /// Returns the name of the method within its service: `Method`.
    pub fn method(&self) -> &str {
        self.split_path().1
    }

    fn split_path(&self) -> (&str, &str) {
        let path = self.path();
        let path = path.strip_prefix('/').unwrap_or(path);
        path.rsplit_once('/').unwrap_or(("", path))
    }

    /// Returns the local and remote address of the connection on a server. It is always `None` on a client,
    /// where interceptors run before a connection is selected, and for a call without a connection, such as an
    /// in-process call.
    pub fn peer(&self) -> Option<&Peer> {
        self.state.head.peer()
    }

    /// Returns the time until the deadline: zero if the deadline has passed, `None` if the call has no
    /// deadline.
    pub fn time_remaining(&self) -> Option<Duration> {
        self.state.head.time_remaining()
    }

    /// Moves the deadline to `timeout` from now, unless it is already earlier. A call without a deadline
    /// gets this one. An interceptor cannot extend a deadline.
    ///
    /// A client sends the new timeout to the server. When the deadline passes, the inner interceptors and
    /// the call are dropped, and [`Next::run`](crate::Next::run) returns DEADLINE_EXCEEDED.
    pub fn shorten_deadline(&mut self, timeout: Duration) {
        let head = &mut self.state.head;
        head.deadline = deadline::earlier(head.deadline, deadline::after(timeout));
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.state.head.deadline
    }

    /// Returns the metadata of the request.
    pub fn metadata(&self) -> &Metadata {
        self.state.head.metadata()
    }

    /// Returns a mutable reference to the metadata of the request.
    ///
    /// Changes before [`Next::run`](crate::Next::run) are sent by a client, and reach the handler on a
    /// server. Later changes are visible only to outer interceptors.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        self.state.head.metadata_mut()
    }

    /// Returns the extensions: values of any type that layers, interceptors and the handler in one
    /// process pass to each other. They are never sent.
    pub fn extensions(&self) -> &http::Extensions {
        self.state.head.extensions()
    }

    /// Returns a mutable reference to the extensions.
    ///
    /// On a server, the handler receives a copy in [`Request::extensions`](crate::Request::extensions).
    /// On a client whose channel calls a tower service, the service receives a copy in the HTTP request.
    pub fn extensions_mut(&mut self) -> &mut http::Extensions {
        self.state.head.extensions_mut()
    }

    /// Returns the metadata in the head of the response.
    ///
    /// Before [`Next::run`](crate::Next::run), it contains only the metadata that interceptors have
    /// added. Later, it also contains the metadata that the handler set or that arrived from the server.
    pub fn response_metadata(&self) -> &Metadata {
        &self.state.response.head
    }

    /// Returns a mutable reference to the metadata in the head of the response. Change it on a server to
    /// add metadata to the response, and on a client to change the metadata that the caller receives.
    ///
    /// **Before [`Next::run`](crate::Next::run)**, it can always be changed. A server sends it even if
    /// the interceptor then refuses the call.
    ///
    /// **After [`Next::run`](crate::Next::run)**, it can be changed on a server unless the handler has sent a
    /// message of a stream, or has requested the head with
    /// [`send_head`](crate::ResponseHandle::send_head). On a client, a caller that awaits the head of a stream
    /// has already received it without these changes.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION on a server if it is too late to change the head, because it has been sent or is
    /// about to be sent. Add the metadata to the trailers instead, with
    /// [`response_trailers_mut`](Self::response_trailers_mut).
    pub fn response_metadata_mut(&mut self) -> Result<&mut Metadata, Status> {
        match self.state.response.is_head_sent {
            false => Ok(&mut self.state.response.head),
            true => Err(Status::failed_precondition(
                "the head of the response has been sent; add the metadata to the trailers instead",
            )),
        }
    }

    /// Returns the metadata in the trailers of the response.
    ///
    /// Before [`Next::run`](crate::Next::run), it contains only the metadata that interceptors have
    /// added. Later, it also contains the metadata that the handler set or that arrived from the server.
    /// If a call fails, its [`Status`] contains this metadata as well.
    pub fn response_trailers(&self) -> &Metadata {
        &self.state.response.trailers
    }

    /// Returns a mutable reference to the metadata in the trailers of the response. Change it on a server
    /// to add metadata to the response, and on a client to change the metadata that the caller receives.
    ///
    /// A server sends this metadata even if the interceptor refuses the call.
    pub fn response_trailers_mut(&mut self) -> &mut Metadata {
        &mut self.state.response.trailers
    }

    /// Runs `hook` on each message of the request: on a client before the message is sent, on a server
    /// before the handler receives it. A hook can read and reject messages, but not change them.
    ///
    /// If a hook returns an error, the message is not passed on and the call ends with that error:
    /// [`Next::run`](crate::Next::run) returns it, and a server drops the handler. On a client that sends a
    /// stream, `send` returns the error first. The call then ends when the caller next waits for a
    /// response, or drops the call.
    ///
    /// Set hooks before [`Next::run`](crate::Next::run); later they have no effect. A hook runs in the
    /// task that sends or receives the message, so it must not block. The hooks of outer interceptors run
    /// first. Calls without hooks have no cost.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    /// use trunkline::{Context, Next, Result};
    ///
    /// async fn print_bytes(mut cx: Context, next: Next) -> Result<()> {
    ///     let bytes = Arc::new(AtomicUsize::new(0));
    ///     let counting = bytes.clone();
    ///     cx.on_request_message(move |message| {
    ///         counting.fetch_add(message.size(), Relaxed);
    ///         Ok(())
    ///     });
    ///     let end = next.run(&mut cx).await;
    ///     println!("{}: {} bytes", cx.path(), bytes.load(Relaxed));
    ///     end
    /// }
    /// ```
    pub fn on_request_message(
        &mut self,
        hook: impl FnMut(&MessageRef<'_>) -> Result<(), Status> + Send + 'static,
    ) {
        self.hooks_mut().requests.push(Box::new(hook));
    }

    /// Runs `hook` on each message of the response: on a server before the message is sent, on a client
    /// before the caller receives it.
    ///
    /// All rules of [`on_request_message`](Self::on_request_message) apply except the order: here, the
    /// hooks of inner interceptors run first.
    pub fn on_response_message(
        &mut self,
        hook: impl FnMut(&MessageRef<'_>) -> Result<(), Status> + Send + 'static,
    ) {
        self.hooks_mut().responses.push(Box::new(hook));
    }

    fn hooks_mut(&mut self) -> &mut HookList {
        let hooks = self.state.hooks.get_mut();
        hooks.unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the hooks that interceptors have set, if any.
    pub(crate) fn take_hooks(&mut self) -> Option<CallHooks> {
        std::mem::take(self.hooks_mut()).begin()
    }

    /// Takes the metadata that interceptors have added to the response so far.
    pub(crate) fn take_response(&mut self) -> ResponseMetadata {
        std::mem::take(&mut self.state.response)
    }

    pub(crate) fn set_response(&mut self, response: ResponseMetadata) {
        self.state.response = response;
    }

    /// Takes the state. Leaves a copy of its constant parts, in case the state is not returned.
    fn take_state(&mut self) -> ContextState {
        let head = &self.state.head;
        let left = ContextState {
            side: self.state.side,
            kind: self.state.kind,
            head: Head {
                path: head.path.clone(),
                metadata: Metadata::new(),
                extensions: http::Extensions::new(),
                deadline: head.deadline,
                peer: head.peer.clone(),
            },
            response: ResponseMetadata::default(),
            hooks: Mutex::default(),
        };
        std::mem::replace(&mut self.state, left)
    }

    /// Returns a copy of the request's head; interceptors can still read the original.
    pub(crate) fn copy_head(&self) -> Head {
        let head = &self.state.head;
        Head {
            path: head.path.clone(),
            metadata: head.metadata.clone(),
            extensions: head.extensions.clone(),
            deadline: head.deadline,
            peer: head.peer.clone(),
        }
    }
}

/// A context whose state the inner interceptors hold. Dropping it returns the state.
pub(crate) struct Lent<'a> {
    context: &'a mut Context,
    inner: ReturnedContext,
}

impl<'a> Lent<'a> {
    /// Returns the context for the next interceptor, and a guard that returns the state.
    pub(crate) fn new(context: &'a mut Context) -> (Self, Context) {
        let inner = ReturnedContext::default();
        let next = Context {
            state: context.take_state(),
            outer: inner.clone(),
        };
        (Self { context, inner }, next)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.inner.take() {
            self.context.state = state;
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let state = self.take_state();
        self.outer.put(state);
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("side", &self.side())
            .field("kind", &self.kind())
            .field("path", &self.path())
            .field("time_remaining", &self.time_remaining())
            .finish_non_exhaustive()
    }
}
