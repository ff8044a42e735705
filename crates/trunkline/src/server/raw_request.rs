//! A request before it is decoded.

use trunkline_codec::Status;
use trunkline_transport::PipeWriter;

use crate::call::head::Head;
use crate::call::message::Message;
use crate::call::messages::Messages;
use crate::call::request::Request;
use crate::call::response_handle::ResponseHandle;
use crate::call::sender::Sender;
use crate::call::streaming::Streaming;

/// A request with undecoded messages, and everything else that its handler needs.
pub(crate) struct RawRequest {
    pub(crate) head: Head,
    pub(crate) response: ResponseHandle,
    pub(crate) messages: Messages,
    /// The writer of a stream of responses.
    pub(crate) writer: Option<PipeWriter>,
    pub(crate) max_send_size: usize,
}

impl RawRequest {
    // Way of a unary call, server 6: decodes the one message and calls the handler, which
    // returns a future.
    /// Returns the decoded request if it has arrived in full, as most have; otherwise `self`.
    #[inline]
    pub(crate) fn whole<Q: Message>(self) -> Result<Result<Request<Q>, Status>, Box<Self>> {
        match self.messages.whole_request() {
            Some(message) => Ok(Q::decode(message.into())
                .map(|message| Request::received(message, self.head, self.response, false))),
            None => Err(Box::new(self)),
        }
    }

    /// Waits for the single message, and returns the decoded request. `self` is in a box because an
    /// async function stores its by-value arguments twice.
    pub(crate) async fn one<Q: Message>(mut self: Box<Self>) -> Result<Request<Q>, Status> {
        let (message, is_compressed) = self.messages.only_request().await?;
        let Self { head, response, .. } = *self;
        Ok(Request::received(message, head, response, is_compressed))
    }

    pub(crate) fn many<Q: Message>(self) -> Request<Streaming<Q>> {
        Request::received(
            Streaming::new(self.messages.of_type::<Q>()),
            self.head,
            self.response,
            false,
        )
    }

    pub(crate) fn responses<R: Message>(&mut self) -> Result<Sender<R>, Status> {
        let writer = self
            .writer
            .take()
            .ok_or_else(|| Status::internal("the method has no stream of responses"))?;
        Ok(Sender::of_response(
            writer,
            self.response.clone(),
            self.max_send_size,
        ))
    }
}
