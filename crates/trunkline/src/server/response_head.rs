//! The head of a response, with the part of its body that is available.

use bytes::Bytes;
use trunkline_codec::{Compressors, Status, head};
use trunkline_transport::{Body, PipeReader};

use crate::call::handling::Outcome;
use crate::call::intercept::OK_WITHOUT_RESPONSE;
use crate::call::response_handle::{ResponseHandle, ResponseHead};
use crate::server::handler_body::HandlerBody;
use crate::server::response_end;
use crate::server::running_handler::RunningHandler;

/// Returns the head of a response whose handler continues in the body; `None` while interceptors hold
/// the metadata.
pub(crate) fn begun(running: &mut Option<RunningHandler>) -> Option<http::Response<Body>> {
    let response = &running.as_ref()?.response;
    let mut whole = with_head(response, response.take_head_unless_held()?);
    *whole.body_mut() = Body::from_source(HandlerBody::new(running.take()?, None));
    Some(whole)
}

// Way of a unary call, server 13: builds one response from head, message and trailers.
/// Returns the complete response of a handler that ended before its head was sent.
pub(crate) fn ended(mut running: RunningHandler, outcome: Outcome) -> http::Response<Body> {
    let response = &running.response;
    let end = match outcome {
        Ok(Some(frame)) => {
            let mut whole = with_head(response, response.take_head());
            let trailers = response_end::trailers(response, Ok(()));
            *whole.body_mut() = Body::pieces(frame, Some(trailers));
            return whole;
        }
        Ok(None) if running.outbox.is_none() => Err(Status::internal(OK_WITHOUT_RESPONSE)),
        // If a stream failed further in, the Ok of the interceptor decides.
        Ok(None) => Ok(()),
        Err(status) => Err(status),
    };
    let is_empty = running.deregister() == 0;
    if is_empty && !response.close_head() {
        return response_end::trailers_only(response, end);
    }
    let mut whole = with_head(response, response.take_head());
    let trailers = response_end::trailers(response, end);
    let data = match is_empty {
        true => Some(Bytes::new()),
        false => running.outbox.as_mut().and_then(PipeReader::take_all),
    };
    *whole.body_mut() = match data {
        Some(data) => Body::full(data, Some(trailers)),
        None => Body::from_source(HandlerBody::new(running, Some(trailers))),
    };
    whole
}

fn with_head(
    response: &ResponseHandle,
    (metadata, compressor, announced): ResponseHead<'_>,
) -> http::Response<Body> {
    if let Some(recorder) = response.recorder() {
        recorder.head_sent(&metadata);
    }
    let mut whole = http::Response::new(Body::empty());
    metadata.merge_into(whole.headers_mut());
    let announced = announced.unwrap_or_else(Compressors::none);
    head::write_response(whole.headers_mut(), compressor, &announced);
    whole
}
