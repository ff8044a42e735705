//! What a router gives for a request.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use trunkline_codec::{Compressors, Refusal};
use trunkline_transport::Body;

use crate::server::answer::Answer;
use crate::tower::Calling;

/// The answer of a [`Router`](crate::Router) to one request: ready with the head of the response. Dropping it
/// drops the handler.
pub struct Answering(pub(crate) Where);

pub(crate) enum Where {
    Known(Option<Box<http::Response<Body>>>),
    Here(Option<Answer>),
    Elsewhere(Calling),
}

pub(crate) fn refused(refusal: Refusal, encodings: &Compressors) -> http::Response<Body> {
    let (response, trailers) = refusal.into_response(encodings);
    response.map(|text| Body::full(text.into(), trailers))
}

impl Answering {
    pub(crate) fn known(response: http::Response<Body>) -> Self {
        Self(Where::Known(Some(Box::new(response))))
    }

    #[inline]
    pub(crate) fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<http::Response<Body>> {
        match &mut self.0 {
            Where::Known(response) => match response.take() {
                Some(response) => Poll::Ready(*response),
                None => Poll::Pending,
            },
            Where::Here(answer) => Answer::poll_head(answer, cx),
            Where::Elsewhere(calling) => calling.as_mut().poll(cx).map(|response| {
                response.unwrap_or_else(|status| {
                    let refusal = Refusal::Http {
                        status: http::StatusCode::INTERNAL_SERVER_ERROR,
                        message: status.message().to_owned(),
                    };
                    refused(refusal, &Compressors::none())
                })
            }),
        }
    }
}

impl Future for Answering {
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_response(cx).map(Ok)
    }
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering").finish_non_exhaustive()
    }
}
