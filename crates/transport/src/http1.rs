//! What a client is told that speaks HTTP/1, or TLS, to a port where plaintext HTTP/2 is spoken.

use std::future::poll_fn;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use trunkline_codec::Limits;

use crate::wire_io::WireIo;

const TEXT: &str = "\
This is a gRPC server: it speaks HTTP/2 from the first byte on, and no HTTP/1.1.

Call it with a gRPC client, for instance:  grpcurl -plaintext HOST:PORT list
or with curl as:  curl --http2-prior-knowledge http://HOST:PORT/
A proxy in front has to speak HTTP/2 to it: grpc_pass in nginx, http2_protocol_options in Envoy.
";

/// How much of its request is taken from the client, so that it reads the answer before it finds the
/// connection closed.
const READ_MAX: usize = 64 * 1024;

/// Answers whatever was asked, and waits until the client has read it and gone.
///
/// RFC 9110, section 15.5.22: 426 names the protocol in `Upgrade`. That is not "h2c", which would be an
/// offer to switch on this connection (RFC 9113, section 3.1: deprecated).
pub(crate) async fn refuse<IO>(wire: &WireIo<IO>, limits: &Limits)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let answer = format!(
        "HTTP/1.1 426 Upgrade Required\r\n\
         Upgrade: HTTP/2.0\r\n\
         Connection: Upgrade, close\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\n\r\n{TEXT}",
        TEXT.len()
    );
    wire.wire().say_instead(answer.as_bytes());
    let mut wire = wire.clone();
    if wire.shutdown().await.is_err() {
        return;
    }
    let mut scratch = vec![0; limits.read_buffer_size.clamp(1, READ_MAX)];
    let mut taken = 0;
    while taken < READ_MAX {
        let read = poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut scratch);
            wire.wire().set_task(cx.waker());
            Pin::new(&mut wire)
                .poll_read(cx, &mut buf)
                .map_ok(|()| buf.filled().len())
        });
        match read.await {
            Ok(0) | Err(_) => return,
            Ok(bytes) => taken += bytes,
        }
    }
}
