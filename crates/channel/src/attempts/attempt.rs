//! One attempt of a call: a stream, until the head of its response arrives.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{HeaderName, Request, Response};
use tokio::time::Instant;
use trunkline_codec::Status;
use trunkline_transport::{Body, OpenCall};

use super::tracked::TrackedAttempt;
use crate::active_connection::Picked;
use crate::balancing::EndedBy;
use crate::target_address::Origin;

const GRPC_PREVIOUS_RPC_ATTEMPTS: HeaderName =
    HeaderName::from_static("grpc-previous-rpc-attempts");

/// An attempt whose stream is open. Dropping it resets the stream.
#[derive(Debug)]
pub struct Attempt {
    open: OpenCall,
    /// The body once more, if it is known in full.
    body_copy: Option<Body>,
    /// Tells the balancer how the attempt ends, if it wants to know. Boxed, because most do not.
    tracked: Option<Box<TrackedAttempt>>,
}

/// An attempt that was not sent.
#[derive(Debug)]
pub enum Unsent {
    /// The connection was lost before: the body can go to another.
    Body(Box<Body>),
    /// The attempt cannot be sent.
    Failed(Status),
}

impl Attempt {
    /// Sends a call on the connection that was picked, after `previous` attempts that count.
    #[inline]
    pub fn send(
        picked: Picked,
        previous: u32,
        deadline: Option<Instant>,
        head: impl FnOnce(Origin) -> Result<Request<()>, Status>,
        body: Body,
    ) -> Result<Self, Unsent> {
        let Picked {
            connection,
            origin,
            extra,
        } = picked;
        let mut head = head(origin).map_err(Unsent::Failed)?;
        let mut tracked = None;
        if let Some(extra) = extra {
            if let Some(metadata) = extra.metadata {
                metadata.merge_into(head.headers_mut());
            }
            tracked = extra.tracking.map(|it| TrackedAttempt::start(it, deadline));
        }
        if previous > 0 {
            let headers = head.headers_mut();
            let _fits = headers.try_insert(GRPC_PREVIOUS_RPC_ATTEMPTS, previous.into());
        }
        let body_copy = body.try_clone();
        match connection.send(head, body) {
            Ok(open) => Ok(Self {
                open,
                body_copy,
                tracked,
            }),
            Err(refused) => {
                if let Some(tracked) = &mut tracked {
                    tracked.end(Err(&refused.status), EndedBy::NotSent, None);
                }
                Err(match refused.is_connection_lost {
                    true => Unsent::Body(Box::new(body_copy.unwrap_or(refused.body))),
                    false => Unsent::Failed(refused.status),
                })
            }
        }
    }

    /// Ready with the head of the response.
    #[inline]
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Body>, Status>> {
        let response = ready!(Pin::new(&mut self.open).poll(cx));
        Poll::Ready(match self.tracked.take() {
            None => response,
            Some(tracked) => tracked.responded(response, self.open.connection()),
        })
    }

    /// Returns true, after an error, if the call can be made once more.
    pub fn is_unprocessed(&self) -> bool {
        self.open.is_unprocessed()
    }

    /// Returns the body of a call that the server has not processed; none if a part of it has left.
    pub(crate) async fn into_body(mut self) -> Option<Body> {
        match self.body_copy {
            Some(body) => Some(body),
            None => self.open.take_body().await,
        }
    }

    /// Reports the end for a reason other than that the caller has dropped the call, before this is dropped.
    pub(crate) fn end(&mut self, status: &Status, by: EndedBy) {
        if let Some(tracked) = &mut self.tracked {
            tracked.end(Err(status), by, None);
        }
    }
}
