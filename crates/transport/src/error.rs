//! What h2 reports, as a gRPC status.

use trunkline_codec::{Code, Status};

/// PROTOCOL-HTTP2.md, "HTTP2 Transport Mapping", "Errors": a reset has its code from the HTTP/2
/// error; everything that takes the connection with it is UNAVAILABLE.
pub(crate) fn status_from_h2(error: &h2::Error) -> Status {
    if error.is_reset()
        && let Some(reason) = error.reason()
    {
        let reset = Status::from_reset(reason.into());
        return match error.is_remote() {
            true => reset,
            false => Status::new(
                reset.code(),
                format!("the stream was reset by this end: {error}"),
            ),
        };
    }
    if error.is_go_away() {
        let by = if error.is_remote() {
            "the peer"
        } else {
            "this end"
        };
        return Status::new(
            Code::UNAVAILABLE,
            format!("{by} closed the connection: {error}"),
        );
    }
    match error.get_io() {
        Some(io) => Status::new(Code::UNAVAILABLE, format!("the connection was lost: {io}")),
        None => Status::new(Code::INTERNAL, format!("HTTP/2: {error}")),
    }
}
