//! Converts the errors of h2 and sockets to gRPC statuses.

use std::io;

use trunkline_codec::{Code, Status};

use crate::frame_guard::PeerProtocol;

/// Returns the status for an error of h2.
///
/// PROTOCOL-HTTP2.md, "HTTP2 Transport Mapping", "Errors": the HTTP/2 error code of a reset determines the
/// status code; errors that end the connection are UNAVAILABLE.
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

/// Returns the status of the calls on a connection that has ended.
pub(crate) fn ended(name: &str, why: &str, protocol: PeerProtocol) -> Status {
    Status::unavailable(match protocol {
        PeerProtocol::Http1 => format!(
            "{name} speaks HTTP/1.1, and gRPC needs HTTP/2: is this the server's gRPC port?"
        ),
        PeerProtocol::Tls => {
            // The address follows a resolved name.
            let target = name.split_once(" (").map_or(name, |(target, _)| target);
            let schemes = ["unix:", "unix-abstract:"];
            let way_out = match schemes.iter().any(|it| target.starts_with(it)) {
                true => "set ChannelBuilder::tls".to_owned(),
                false => format!("connect to https://{target}"),
            };
            format!("{name} expects TLS, and this connection is plaintext: {way_out}")
        }
        PeerProtocol::Unknown => {
            format!("{name} ended the connection before it said anything: {why}")
        }
        PeerProtocol::Http2 => format!("the connection to {name} has ended: {why}"),
    })
}

/// Returns the status for a failure to connect to `name`, UNAVAILABLE, with the cause and a remedy.
pub fn cannot_connect(name: &str, error: io::Error) -> Status {
    let way_out = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "; nothing listens there: is the server running, and is the port right?"
        }
        io::ErrorKind::NotFound => "; there is no such socket: is the server running?",
        io::ErrorKind::PermissionDenied => "; this user may not use that socket",
        _ => "",
    };
    Status::unavailable(format!("cannot connect to {name}: {error}{way_out}")).with_source(error)
}
