//! Closing a connection without losing data: reads and discards the peer's data until the peer closes.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use crate::limits::Http2Limits;
use crate::net_stream::IoOrigin;
use crate::timers::after;
use crate::wire_io::{ClosingIo, WireIo};

/// The bytes read at once, into a buffer on the stack: a waiting connection holds no buffer.
const STEP: usize = 8 * 1024;

/// The bytes read from a peer that was rejected before HTTP/2 began.
const REFUSED_BYTES: usize = 64 * 1024;

/// The way in which HTTP/2 has ended on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseKind {
    /// All data was passed to the socket.
    Graceful,
    /// The connection closes without waiting for the peer.
    Immediate,
}

/// Waits until the peer has read all data and closed the connection, until `over_by` at the latest and within
/// the linger times of the limits.
pub(crate) async fn linger<IO>(
    wire: WireIo<IO>,
    origin: IoOrigin,
    kind: CloseKind,
    limits: &Http2Limits,
    over_by: Option<Instant>,
) where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    if kind == CloseKind::Graceful {
        let by = after(limits.linger_time);
        let by = over_by.map_or(by, |over| by.min(over));
        wire.wire().drop_read();
        let mut ending = ClosingIo(wire);
        let silence = match origin {
            IoOrigin::Socket => Duration::MAX,
            IoOrigin::Custom => limits.custom_io_linger_time,
        };
        let lingering = discard_until_closed(&mut ending, limits.linger_size(), silence);
        let _ = tokio::time::timeout_at(by, lingering).await;
    }
}

/// As [`linger`], for a peer that has been refused before HTTP/2 began: it is to read why. The time is
/// that of the handshake.
pub(crate) async fn linger_refused<IO>(io: &mut IO)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    discard_until_closed(io, REFUSED_BYTES, Duration::MAX).await;
}

/// Says that nothing more comes, and reads on until the peer has closed as well, has sent `bytes`
/// bytes, or nothing for the time of `silence`. Then the socket can be dropped.
///
/// A socket that is dropped with bytes in it, or that bytes still come to, such as the
/// WINDOW_UPDATE frames of a peer that is reading, is reset by the system, which throws away what it has
/// not sent yet: all that the peer has not read is lost.
async fn discard_until_closed<IO>(io: &mut IO, bytes: usize, silence: Duration)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    if io.shutdown().await.is_err() {
        return;
    }
    let mut left = bytes;
    while left > 0 {
        let discarded = poll_fn(|cx| poll_discard(io, cx));
        match tokio::time::timeout(silence, discarded).await {
            Ok(Ok(n @ 1..)) => left = left.saturating_sub(n),
            Ok(Ok(0) | Err(_)) | Err(_) => return,
        }
    }
}

fn poll_discard<IO>(io: &mut IO, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>>
where
    IO: AsyncRead + Unpin,
{
    let mut scratch = [MaybeUninit::uninit(); STEP];
    let mut buf = ReadBuf::uninit(&mut scratch);
    Pin::new(io)
        .poll_read(cx, &mut buf)
        .map_ok(|()| buf.filled().len())
}
