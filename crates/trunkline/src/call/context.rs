//! A call as its interceptors see it.

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

/// A call as its interceptors see it, of the same form on a client and on a server.
///
/// Before [`Next::run`](crate::Next::run) an interceptor reads and changes the request: its metadata,
/// its extensions, its deadline. Afterwards the context also has the metadata of the response, and
/// the request as the interceptors further in left it.
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
/// A context that is moved elsewhere, into a task for example, keeps what it has: the interceptors
/// further out find no metadata and no extensions then.
pub struct Context {
    state: ContextState,
    /// Where the state goes from here.
    outer: ReturnedContext,
}

/// The call as its interceptors pass it to each other, and on.
pub(crate) struct ContextState {
    side: Side,
    kind: CallKind,
    pub(crate) head: Head,
    pub(crate) response: ResponseMetadata,
    /// In a mutex that is never locked: it makes a context `Sync`.
    hooks: Mutex<HookList>,
}

/// Takes the state of a context that is dropped.
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
    /// Returns the context for a call's outermost interceptor. Its state ends up in `outer`.
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

    /// Returns the end of the call that this is: a server's interceptors run around handlers, a
    /// client's around its calls.
    pub fn side(&self) -> Side {
        self.state.side
    }

    /// Returns which of the two directions are streams of messages.
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

    /// Returns the two ends of the connection, on a server; none on a client, where the connection is
    /// not chosen yet, and for a call that came by no connection.
    pub fn peer(&self) -> Option<&Peer> {
        self.state.head.peer()
    }

    /// Returns the time until the deadline; zero if it has passed, none if the call has no deadline.
    pub fn time_remaining(&self) -> Option<Duration> {
        self.state.head.time_remaining()
    }

    /// Moves the deadline to `timeout` from now, if it is later or there is none.
    ///
    /// A client tells the server. What runs further in is dropped when the deadline passes, and
    /// [`Next::run`](crate::Next::run) returns DEADLINE_EXCEEDED. A deadline cannot be moved to a later
    /// moment.
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

    /// Returns the metadata of the request for changes: on a client before it is sent, on a server
    /// before the handler sees it. Changes after [`Next::run`](crate::Next::run) are seen by the
    /// interceptors further out alone.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        self.state.head.metadata_mut()
    }

    /// Returns the values that layers, interceptors and handlers leave for each other. They never
    /// leave the process.
    pub fn extensions(&self) -> &http::Extensions {
        self.state.head.extensions()
    }

    /// Returns the extensions for changes. A server's handler finds a copy in
    /// [`Request::extensions`](crate::Request::extensions), a client's tower service in the HTTP
    /// request.
    pub fn extensions_mut(&mut self) -> &mut http::Extensions {
        self.state.head.extensions_mut()
    }

    /// Returns the metadata of the response's head.
    ///
    /// Before [`Next::run`](crate::Next::run) it has what interceptors have put there; afterwards also
    /// what the handler has, or what has arrived from the server.
    pub fn response_metadata(&self) -> &Metadata {
        &self.state.response.head
    }

    /// Returns the metadata of the response's head for changes, on a server before it is sent, on a
    /// client before the caller sees it.
    ///
    /// Before [`Next::run`](crate::Next::run) it can always be changed; what is there goes out also if
    /// the interceptor then refuses the call. Afterwards a server's head may have gone out: it goes with
    /// the first message of a stream, or when the handler has asked for it. The head of a response of
    /// one message is there to be changed, unless the handler has asked for it.
    ///
    /// On a client, a caller that has asked a stream for its head before the end has seen it as it came.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION on a server whose head has gone out.
    pub fn response_metadata_mut(&mut self) -> Result<&mut Metadata, Status> {
        match self.state.response.is_head_sent {
            false => Ok(&mut self.state.response.head),
            true => Err(Status::failed_precondition(
                "the head of the response has been sent; metadata can still go into the trailers",
            )),
        }
    }

    /// Returns the metadata of the response's trailers.
    ///
    /// Before [`Next::run`](crate::Next::run) it has what interceptors have put there; afterwards also
    /// what the handler has, or what has arrived from the server. The metadata of a call that failed is
    /// also in its [`Status`].
    pub fn response_trailers(&self) -> &Metadata {
        &self.state.response.trailers
    }

    /// Returns the metadata of the response's trailers for changes, on a server before they are sent,
    /// on a client before the caller sees them. They go out also if the interceptor refuses the call.
    pub fn response_trailers_mut(&mut self) -> &mut Metadata {
        &mut self.state.response.trailers
    }

    /// Runs `hook` on each request: on a client before it is sent, on a server before the handler gets it.
    ///
    /// An error ends the call with that status: [`Next::run`](crate::Next::run) returns it, the handler is
    /// dropped, and the message does not go on. On a client that sends a stream, `send` returns it first, and
    /// the call ends when the caller next waits for a response or drops the call. A hook is set before [`Next::run`](crate::Next::run);
    /// afterwards it has no effect. Messages are not changed by hooks.
    ///
    /// It runs where the message is sent or received, and has to be quick. The hooks of interceptors further
    /// out run first. A call without hooks prepares nothing for them.
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

    /// Runs `hook` on each response: on a server before it is sent, on a client before the caller gets it.
    ///
    /// As [`on_request_message`](Self::on_request_message), but the hooks of interceptors further in run
    /// first.
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

    /// The hooks that interceptors have set; none if they have not.
    pub(crate) fn take_hooks(&mut self) -> Option<CallHooks> {
        std::mem::take(self.hooks_mut()).begin()
    }

    /// The metadata that interceptors have put into the response so far, to be passed on.
    pub(crate) fn take_response(&mut self) -> ResponseMetadata {
        std::mem::take(&mut self.state.response)
    }

    pub(crate) fn set_response(&mut self, response: ResponseMetadata) {
        self.state.response = response;
    }

    /// Leaves what does not change, in case the state does not come back.
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

    /// The head of the request as it goes on, also to be read here afterwards.
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

/// A context whose state is with the interceptors further in.
pub(crate) struct Lent<'a> {
    context: &'a mut Context,
    inner: ReturnedContext,
}

impl<'a> Lent<'a> {
    /// Returns the context for the next interceptor, and what brings the state back.
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
