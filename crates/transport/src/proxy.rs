//! HTTP proxies, and the tunnels through them (gRFC A1; RFC 9110, section 9.3.6).

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use trunkline_codec::Status;

use crate::host_port::{HostPort, percent_decoded};
use crate::net_stream::{ByteStream, NetStream};

/// The size of the head of a proxy's response, in bytes.
const HEAD_SIZE_MAX: usize = 8 * 1024;
/// The bytes of a proxy's refusal that messages repeat.
const BODY_SHOWN_MAX: usize = 200;
/// The port of a proxy whose URL has none: that of HTTP.
const DEFAULT_PORT: u16 = 80;

/// An HTTP proxy, which connects to servers on behalf of the client (CONNECT).
///
/// `Debug` and messages do not contain the password.
///
/// ```
/// # mod trunkline { pub use trunkline_transport as channel; }
/// use trunkline::channel::Proxy;
///
/// let proxy = Proxy::parse("http://me:secret@proxy.example:3128")?;
/// assert_eq!(proxy.to_string(), "proxy.example:3128");
/// # Ok::<(), trunkline_codec::Status>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub(crate) host: HostPort,
    pub(crate) port: u16,
    /// The value of `proxy-authorization`.
    authorization: Option<String>,
}

impl Proxy {
    /// Parses the URL of a proxy, `http://user:password@host:port`. The scheme, the user and the port can be omitted;
    /// the default port is 80. Characters of the user and the password can be percent-encoded.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if the text is not a URL with the scheme `http`. The message does not contain the user and the
    /// password.
    pub fn parse(url: &str) -> Result<Self, Status> {
        let invalid = |why: &str| {
            let (_, shown) = url.rsplit_once('@').unwrap_or(("", url));
            Status::invalid_argument(format!(
                "cannot use the proxy {shown:?}: {why}; the form is http://user:password@host:port"
            ))
        };
        let rest = match url.split_once("://") {
            None => url,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(invalid("only the scheme http is supported")),
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, host) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((user, host)) => (Some(user), host),
        };
        let mut host = HostPort::parse_uri(host).map_err(|why| invalid(&why))?;
        let port = *host.port.get_or_insert(DEFAULT_PORT);
        let authorization = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let mut pair = percent_decoded(name)?;
            pair.push(b':');
            pair.extend(percent_decoded(password)?);
            Ok(format!("Basic {}", STANDARD.encode(pair)))
        });
        let authorization = authorization
            .transpose()
            .map_err(|why: String| invalid(&why))?;
        Ok(Self {
            host,
            port,
            authorization,
        })
    }

    /// Asks the proxy for a tunnel to `server`, and returns the stream through it. `name` is the server in messages.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if the proxy refuses, or does not respond with HTTP.
    pub(crate) async fn tunnel(
        &self,
        mut stream: NetStream,
        server: &str,
        name: &str,
    ) -> Result<NetStream, Status> {
        let failed = |why: String| Status::unavailable(format!("cannot connect to {name}: {why}"));
        let lost =
            |error: io::Error| failed(format!("the connection to the proxy was lost: {error}"));
        let mut request = format!("CONNECT {server} HTTP/1.1\r\nhost: {server}\r\n");
        if let Some(authorization) = &self.authorization {
            request += &format!("proxy-authorization: {authorization}\r\n");
        }
        request += "\r\n";
        stream.write_all(request.as_bytes()).await.map_err(lost)?;
        stream.flush().await.map_err(lost)?;
        let mut received = BytesMut::with_capacity(1024);
        let size = loop {
            if let Some(size) = head_size(&received) {
                break size;
            }
            if received.len() >= HEAD_SIZE_MAX {
                return Err(failed(format!(
                    "the head of the proxy's response has more than {HEAD_SIZE_MAX} bytes"
                )));
            }
            if stream.read_buf(&mut received).await.map_err(lost)? == 0 {
                return Err(failed(
                    "the proxy closed the connection without a response".to_owned(),
                ));
            }
        };
        let head = received.split_to(size);
        let line = head[..]
            .split(|byte| *byte == b'\r')
            .next()
            .unwrap_or_default();
        match status_code(line) {
            // Bytes behind the head are the server's.
            Some(200..300) => Ok(match received.is_empty() {
                true => stream,
                false => NetStream::Custom(Box::new(Prefixed {
                    prefix: received.freeze(),
                    stream: Box::new(stream),
                })),
            }),
            Some(code) => {
                let way_out = match code {
                    407 => "; set the user and the password in the URL of the proxy",
                    _ => "",
                };
                let (line, body) = (shown(line), shown(&received));
                let separator = if body.is_empty() { "" } else { ": " };
                Err(failed(format!(
                    "the proxy refused the tunnel: {line}{separator}{body}{way_out}"
                )))
            }
            None => Err(failed(format!(
                "the proxy does not speak HTTP/1.1; its response begins with {:?}",
                shown(line)
            ))),
        }
    }
}

/// Returns the size of a head that has arrived in full, with the empty line behind it.
fn head_size(received: &[u8]) -> Option<usize> {
    let end = received.windows(4).position(|it| it == b"\r\n\r\n")?;
    Some(end + 4).filter(|size| *size <= HEAD_SIZE_MAX)
}

/// RFC 9112, section 4: `HTTP/1.1 200 Connection established`.
fn status_code(line: &[u8]) -> Option<u16> {
    let line = line.strip_prefix(b"HTTP/1.")?;
    let code = std::str::from_utf8(line.get(2..5)?).ok()?;
    let is_code = code.bytes().all(|it| it.is_ascii_digit());
    code.parse().ok().filter(|_| is_code)
}

/// Returns the printable beginning of a text of the proxy.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(BODY_SHOWN_MAX)]);
    let text = text
        .chars()
        .map(|it| if it.is_control() { ' ' } else { it });
    text.collect::<String>().trim().to_owned()
}

/// The host and the port.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// A stream whose first bytes have been read already.
struct Prefixed {
    prefix: Bytes,
    stream: Box<dyn ByteStream>,
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let size = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..size]);
        self.prefix.advance(size);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_proxies_are_read_and_their_passwords_are_not_shown() {
        for (url, shown, authorization) in [
            ("http://proxy.example:3128", "proxy.example:3128", None),
            ("HTTP://proxy.example/", "proxy.example:80", None),
            ("10.0.0.1:8080", "10.0.0.1:8080", None),
            ("[::1]:8080", "[::1]:8080", None),
            ("http://a:b@p:1", "p:1", Some("Basic YTpi")),
            ("http://a@p:1", "p:1", Some("Basic YTo=")),
            ("http://a%40b:c%3Ad@p:1", "p:1", Some("Basic YUBiOmM6ZA==")),
        ] {
            let proxy = Proxy::parse(url).expect(url);
            assert_eq!(proxy.to_string(), shown);
            assert_eq!(proxy.authorization.as_deref(), authorization, "{url}");
            assert_eq!(format!("{proxy:?}"), format!("Proxy({shown})"));
        }
        for (url, why) in [
            ("https://a:secret@p", "only the scheme http is supported"),
            ("socks5://p", "only the scheme http is supported"),
            (
                "http://a:secret%@p",
                "a % has to be followed by two hexadecimal digits",
            ),
            ("http://a:secret@", "the host is missing"),
            ("", "the host is missing"),
            ("http://p:x", "the port \"x\" is not a number"),
        ] {
            let status = Proxy::parse(url).expect_err(url);
            assert!(status.message().contains(why), "{status}");
            assert!(!status.message().contains("secret"), "{status}");
        }
    }

    /// Opens a tunnel through a proxy that responds with `response`; returns the request, and the bytes of the tunnel.
    async fn tunnel(response: &[u8]) -> (String, Result<Vec<u8>, Status>) {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        far.write_all(response).await.expect("it fits");
        let proxy = Proxy::parse("http://a:secret@p:1").expect("a URL");
        let stream = NetStream::Custom(Box::new(near));
        let opened = proxy.tunnel(stream, "s:443", "s:443 (through the proxy p:1)");
        let reading = async {
            let mut request = vec![0; 1024];
            let size = far.read(&mut request).await.expect("a request");
            far.shutdown().await.expect("it is open");
            String::from_utf8_lossy(&request[..size]).into_owned()
        };
        let (opened, request) = tokio::join!(opened, reading);
        let Ok(mut stream) = opened else {
            return (request, opened.map(|_| Vec::new()));
        };
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("it ends");
        (request, Ok(bytes))
    }

    #[tokio::test]
    async fn bytes_behind_the_head_of_the_response_belong_to_the_tunnel() {
        for (response, bytes) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", ""),
            ("HTTP/1.0 200\r\nvia: p\r\n\r\nearly", "early"),
            ("HTTP/1.1 204 \r\n\r\n\r\n\r\n", "\r\n\r\n"),
        ] {
            let (request, stream) = tunnel(response.as_bytes()).await;
            let expected = "CONNECT s:443 HTTP/1.1\r\nhost: s:443\r\nproxy-authorization: Basic YTpzZWNyZXQ=\r\n\r\n";
            assert_eq!(request, expected);
            assert_eq!(stream.expect(response), bytes.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_response_of_another_form_fails_without_the_password() {
        let large = format!(
            "HTTP/1.1 200 OK\r\na: {}\r\n\r\n",
            "a".repeat(HEAD_SIZE_MAX)
        );
        for (response, why) in [
            (
                "HTTP/1.1 407 Authenticate\r\n\r\nwho are\r\nyou",
                "the proxy refused the tunnel: HTTP/1.1 407 Authenticate: who are  you; set the user and the password in the URL of the proxy",
            ),
            (
                "HTTP/1.1 502 Bad Gateway\r\n\r\n",
                "the proxy refused the tunnel: HTTP/1.1 502 Bad Gateway",
            ),
            (
                "HTTP/1.1 200 OK\r\n",
                "the proxy closed the connection without a response",
            ),
            ("", "the proxy closed the connection without a response"),
            (
                "HTTP/1.1 +20 OK\r\n\r\n",
                "the proxy does not speak HTTP/1.1; its response begins with \"HTTP/1.1 +20 OK\"",
            ),
            (
                "SSH-2.0\r\n\r\n",
                "the proxy does not speak HTTP/1.1; its response begins with \"SSH-2.0\"",
            ),
            (
                &large,
                "the head of the proxy's response has more than 8192 bytes",
            ),
        ] {
            let (_, stream) = tunnel(response.as_bytes()).await;
            let status = stream.expect_err(response);
            let expected = format!("cannot connect to s:443 (through the proxy p:1): {why}");
            assert_eq!(status.message(), expected);
        }
    }

    #[test]
    fn a_head_of_8_kib_is_the_largest() {
        let head = |size: usize| format!("{}\r\n\r\n", "a".repeat(size - 4)).into_bytes();
        assert_eq!(head_size(&head(HEAD_SIZE_MAX)), Some(HEAD_SIZE_MAX));
        assert_eq!(head_size(&head(HEAD_SIZE_MAX + 1)), None);
    }
}
