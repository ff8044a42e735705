//! The response to a client that uses HTTP/1, or TLS, on a port for plaintext HTTP/2.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::linger::linger_refused;
use crate::wire_io::{ClosingIo, WireIo};

const TEXT: &str = "\
This is a gRPC server: it speaks HTTP/2 from the first byte on, and not HTTP/1.1.

Call it with a gRPC client, for instance:  grpcurl -plaintext HOST:PORT list
or with curl as:  curl --http2-prior-knowledge http://HOST:PORT/
A proxy in front must speak HTTP/2 to it: grpc_pass in nginx, http2_protocol_options in Envoy.
";

/// Sends an HTTP/1 error response, and waits until the client has read it and closed.
///
/// RFC 9110, section 15.5.22: 426 names the protocol in `Upgrade`. That is not "h2c", which would be an
/// offer to switch on this connection (RFC 9113, section 3.1: deprecated).
pub(crate) async fn refuse<IO>(wire: &WireIo<IO>)
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
    wire.wire().replace_output(answer.as_bytes());
    linger_refused(&mut ClosingIo(wire.clone())).await;
}
