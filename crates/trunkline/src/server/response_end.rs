//! The end of a response: its status and its trailers.

use http::HeaderMap;
use trunkline_codec::{Metadata, Status, head};
use trunkline_transport::Body;

use crate::call::response_handle::ResponseHandle;

// Way of a unary call, server 14: builds the trailers from status and metadata.
/// Returns the trailers that end a response.
pub(crate) fn trailers(response: &ResponseHandle, end: Result<(), Status>) -> HeaderMap {
    let metadata = response.take_trailers();
    report(response, &end, &metadata);
    match end {
        Ok(()) => Status::ok_trailers(metadata),
        Err(status) => {
            let mut trailers = status.redacted().into_trailers();
            metadata.merge_into(&mut trailers);
            trailers
        }
    }
}

/// PROTOCOL-HTTP2.md, "Responses": returns a Trailers-Only response, a single header block, for calls
/// that end immediately. It cannot contain metadata of the head.
pub(crate) fn trailers_only(
    response: &ResponseHandle,
    end: Result<(), Status>,
) -> http::Response<Body> {
    let metadata = response.take_trailers();
    report(response, &end, &metadata);
    head::trailers_only(end.map_err(Status::redacted), metadata)
}

fn report(response: &ResponseHandle, end: &Result<(), Status>, trailers: &Metadata) {
    if let Some(recorder) = response.recorder() {
        recorder.trailers_sent(trailers);
        recorder.end(end.as_ref().err());
    }
}
