//! The end of a response: its status and its trailers.

use http::HeaderMap;
use trunkline_codec::{Status, head};
use trunkline_transport::Body;

use crate::call::observe::code_of;
use crate::call::response_handle::ResponseHandle;

// Way of a unary call, server 14: makes the trailers of the status and the metadata.
/// The trailers that end a response.
pub(crate) fn trailers(response: &ResponseHandle, end: Result<(), Status>) -> HeaderMap {
    report(response, &end);
    let metadata = response.take_trailers();
    match end {
        Ok(()) => Status::ok_trailers(metadata),
        Err(status) => {
            let mut trailers = status.redacted().into_trailers();
            metadata.merge_into(&mut trailers);
            trailers
        }
    }
}

/// PROTOCOL-HTTP2.md, "Responses": Trailers-Only, all in one header block, for calls that end at
/// once. It has no place for metadata of the head.
pub(crate) fn trailers_only(
    response: &ResponseHandle,
    end: Result<(), Status>,
) -> http::Response<Body> {
    if let Some(recorder) = response.recorder() {
        recorder.head_seen();
    }
    report(response, &end);
    head::trailers_only(end.map_err(Status::redacted), response.take_trailers())
}

fn report(response: &ResponseHandle, end: &Result<(), Status>) {
    if let Some(recorder) = response.recorder() {
        recorder.end(code_of(end));
    }
}
