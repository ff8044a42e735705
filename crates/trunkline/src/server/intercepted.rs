//! A handler with interceptors around it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};

use trunkline_codec::Status;
use trunkline_transport::{PipeWatch, PipeWriter};

use crate::call::context::{Context, ReturnedContext};
use crate::call::deadline;
use crate::call::handling::Handling;
use crate::call::intercept::{Interceptors, OK_WITHOUT_RESPONSE};
use crate::call::kind::{CallKind, Side};
use crate::call::message_hooks::{Rejection, unless_rejected};
use crate::call::messages::Messages;
use crate::call::response_handle::ResponseHandle;
use crate::server::raw_request::RawRequest;

/// Runs `handle` inside `interceptors`.
pub(crate) fn intercepted(
    interceptors: &Interceptors,
    kind: CallKind,
    request: RawRequest,
    handle: Arc<dyn Fn(RawRequest) -> Handling + Send + Sync>,
) -> Handling {
    let RawRequest {
        head,
        response,
        mut messages,
        writer,
        max_send_size,
    } = request;
    let (before, outermost) = (head.deadline, ReturnedContext::default());
    let cx = Context::new(Side::Server, kind, head, outermost.clone());
    // `None` until a handler has ended.
    let frame = Arc::new(Mutex::new(None));
    let (innermost_frame, innermost_response) = (frame.clone(), response.clone());
    let running = interceptors.run(cx, move |mut cx| {
        Box::pin(async move {
            let (head, deadline) = (cx.copy_head(), cx.deadline());
            let response = innermost_response;
            response.begin_intercepted(cx.take_response());
            let rejection = set_hooks(&mut cx, &mut messages, &response);
            let _handler = Handler {
                cx,
                response: response.clone(),
                outbox: writer.as_ref().map(PipeWriter::watch),
            };
            let request = RawRequest {
                head,
                response,
                messages,
                writer,
                max_send_size,
            };
            let mut handling = deadline::within(deadline, || handle(request));
            let handling = poll_fn(|cx| deadline::within(deadline, || handling.as_mut().poll(cx)));
            let handling = unless_rejected(rejection, handling);
            let (sent, end) = match deadline::moved(before, deadline, handling).await {
                Ok(sent) => (sent, Ok(())),
                Err(status) => (None, Err(status)),
            };
            *innermost_frame
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(sent);
            end
        })
    });
    let outer = Outer {
        outermost,
        response,
    };
    Box::pin(async move {
        let outer = outer;
        let end = running.await;
        drop(outer);
        end?;
        let frame = frame.lock().unwrap_or_else(PoisonError::into_inner).take();
        frame.ok_or_else(|| Status::internal(OK_WITHOUT_RESPONSE))
    })
}

/// Passes the message hooks of interceptors to the reader and the writer of a call's messages.
fn set_hooks(
    cx: &mut Context,
    messages: &mut Messages,
    response: &ResponseHandle,
) -> Option<Arc<Rejection>> {
    let hooks = cx.take_hooks()?;
    if let Some(hooks) = hooks.requests {
        messages.set_message_hooks(hooks);
    }
    if let Some(hooks) = hooks.responses {
        response.set_message_hooks(hooks);
    }
    Some(hooks.rejection)
}

/// The innermost context and the response of a running handler. Dropping it passes the metadata of the
/// response to the interceptors.
struct Handler {
    cx: Context,
    response: ResponseHandle,
    outbox: Option<PipeWatch>,
}

impl Drop for Handler {
    fn drop(&mut self) {
        // Messages that have not been taken do not wait for the interceptors, and nor does their head.
        if self
            .outbox
            .as_ref()
            .is_some_and(|outbox| !outbox.is_empty())
        {
            self.response.close_head();
        }
        self.cx.set_response(self.response.hold());
    }
}

/// The outermost context and the response of a call. Dropping it, at the end of all interceptors,
/// applies their changes to the metadata of the response.
struct Outer {
    outermost: ReturnedContext,
    response: ResponseHandle,
}

impl Drop for Outer {
    fn drop(&mut self) {
        let left = self.outermost.take();
        self.response.release(left.map(|state| state.response));
    }
}
