//! The encrypted byte stream that HTTP/2 reads and writes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::explain;
use crate::net_stream::NetStream;

/// A connection after its TLS handshake, at either end.
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
            // A missing close_notify does not hide a truncation: HTTP/2 frames carry their lengths, and
            // streams end explicitly.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Poll::Ready(Ok(()))
            }
            // In TLS 1.3, a server that rejects the client's certificate sends the alert after the
            // client's handshake.
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
