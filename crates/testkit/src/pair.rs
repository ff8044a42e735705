//! A server and a channel of ours over a pipe in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use trunkline::limits::ChannelLimits;
use trunkline::tower::Body;
use trunkline::{Channel, Server, Status};
use trunkline_transport::{Connection, Keepalive};

/// Bytes that a pipe in memory holds: less than a window, so that both ends have to wait at times.
const PIPE_SIZE: usize = 64 * 1024;

/// Serves `server` on one end of a pipe in memory, and gives a channel on the other. `limits` are
/// the connection's at the client.
///
/// # Panics
///
/// When the two do not come together.
pub async fn pair(server: Server, limits: ChannelLimits) -> Channel {
    let (near, far) = tokio::io::duplex(PIPE_SIZE);
    tokio::spawn(server.serve_connection(far));
    channel_over(near, limits)
        .await
        .expect("our server speaks HTTP/2")
}

/// A channel over a connection that is there already. It does not reconnect.
///
/// # Errors
///
/// What [`Connection::over`] says of the other end.
pub async fn channel_over<IO>(io: IO, limits: ChannelLimits) -> Result<Channel, Status>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let keepalive = Keepalive::new(limits.http2.keepalive_time);
    let connection = Connection::over(
        io,
        "the peer in memory",
        Arc::new((&limits).into()),
        &keepalive,
    )
    .await?;
    Ok(Channel::new(OneConnection(connection)))
}

#[derive(Clone)]
struct OneConnection(Connection);

impl tower_service::Service<http::Request<Body>> for OneConnection {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let connection = self.0.clone();
        Box::pin(async move { connection.call(request).await })
    }
}
