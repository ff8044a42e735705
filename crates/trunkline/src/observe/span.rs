//! The `tracing` span of a call, with the names of OpenTelemetry's RPC conventions if they define one.

use std::time::Duration;

use http::uri::PathAndQuery;
use tracing::field::{Empty, display};
use trunkline_transport::Peer;

use crate::call::kind::Side;
use crate::observe::call::CallStats;

/// The method of a call without a method on the server, as the conventions define it.
const UNKNOWN_METHOD: &str = "_OTHER";

pub(super) fn of_call(
    side: Side,
    path: Option<&PathAndQuery>,
    peer: Option<&Peer>,
) -> tracing::Span {
    let path = path.map_or(UNKNOWN_METHOD, PathAndQuery::as_str);
    tracing::info_span!(
        target: "trunkline::call",
        "grpc.call",
        otel.kind = side.name(),
        rpc.system.name = "grpc",
        rpc.method = path.strip_prefix('/').unwrap_or(path),
        peer = peer.map(|peer| display(peer.remote())),
        rpc.status_code = Empty,
        sent.messages = Empty,
        sent.bytes = Empty,
        received.messages = Empty,
        received.bytes = Empty,
        stream_us = Empty,
        head_us = Empty,
        total_us = Empty,
    )
}

pub(super) fn record_end(span: &tracing::Span, call: &CallStats<'_>) {
    if span.is_disabled() {
        return;
    }
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    span.record("rpc.status_code", display(call.code()));
    span.record("sent.messages", call.messages_sent());
    span.record("sent.bytes", call.bytes_sent());
    span.record("received.messages", call.messages_received());
    span.record("received.bytes", call.bytes_received());
    if let Some(time) = call.time_to_stream() {
        span.record("stream_us", micros(time));
    }
    if let Some(time) = call.time_to_head() {
        span.record("head_us", micros(time));
    }
    span.record("total_us", micros(call.duration()));
}
