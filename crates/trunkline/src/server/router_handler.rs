//! The handler through which a connection calls a router.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use trunkline_transport::{BegunCall, Body, ConnectionStats, Peer, Spawner};

use crate::server::router::Router;
use crate::server::router_future::RouterFuture;

pub(crate) struct RouterHandler(Router);

impl RouterHandler {
    pub(crate) fn new(router: &Router, peer: Arc<Peer>) -> Self {
        Self(router.for_peer(peer))
    }

    /// Returns a spawner whose connections call `router`. Its code is compiled here once instead of in
    /// each program.
    pub(crate) fn spawner(router: Router) -> Spawner {
        Spawner::new(move |peer| Self::new(&router, peer))
    }
}

impl trunkline_transport::ConnectionHandler for RouterHandler {
    type Future = ConnectionFuture;

    // Way of a unary call, server 4: passes the call to the router, or to the tower layers around
    // it.
    #[inline]
    fn call(
        &mut self,
        request: http::Request<Body>,
        arrived: Instant,
    ) -> BegunCall<ConnectionFuture> {
        let begun = self.0.begin(request, Some(arrived));
        BegunCall {
            response: ConnectionFuture(begun.response),
            poll_budget: begun.poll_budget,
            deadline: begun.deadline,
        }
    }

    fn connection_ended(&self, stats: &ConnectionStats) {
        self.0.connection_ended(stats);
    }
}

/// The future of a router, without the error type, which is never returned.
pub(crate) struct ConnectionFuture(RouterFuture);

impl Future for ConnectionFuture {
    type Output = http::Response<Body>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_response(cx)
    }
}
