//! What HTTP/2 reads and writes when there is TLS below it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::explain;
use crate::net_stream::NetStream;

/// A connection after its handshake, on either side.
#[derive(Debug)]
pub(crate) struct TlsIo(TlsStream<NetStream>);

impl TlsIo {
    pub(super) fn new(stream: impl Into<TlsStream<NetStream>>) -> Self {
        Self(stream.into())
    }
}

impl From<TlsIo> for NetStream {
    fn from(secured: TlsIo) -> Self {
        Self::Custom(Box::new(secured))
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(cx, buf) {
            // A peer that has left without close_notify has truncated nothing: HTTP/2 says itself
            // where a frame ends, and what a stream lacks.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Poll::Ready(Ok(()))
            }
            // In TLS 1.3 a client hears after its handshake what the server thinks of it.
            Poll::Ready(Err(error)) => Poll::Ready(Err(explain::on_open(error))),
            other => other,
        }
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
