//! What h2 and sockets report, as a gRPC status.

use std::io;

use trunkline_codec::{Code, Status};

use crate::frame_guard::PeerProtocol;

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

/// Words the end of a connection for the calls on it.
pub(crate) fn ended(name: &str, why: &str, protocol: PeerProtocol) -> Status {
    Status::unavailable(match protocol {
        PeerProtocol::Http1 => format!(
            "{name} speaks HTTP/1.1, and gRPC needs HTTP/2: is this the server's gRPC port?"
        ),
        PeerProtocol::Tls => {
            // A name that has been resolved has its address behind it.
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

/// The status of a byte stream to `name` that cannot be had: the cause and the way out.
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
