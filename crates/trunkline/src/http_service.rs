//! Type erasure for tower services and HTTP bodies.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tower_service::Service;
#[cfg(feature = "client")]
use trunkline_channel::SecurityLevel;
use trunkline_codec::Status;
use trunkline_transport::Body;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;
pub(crate) type Calling =
    Pin<Box<dyn Future<Output = Result<http::Response<Body>, Status>> + Send>>;

/// A tower service that can be called through a shared reference.
pub(crate) trait HttpService: Send + Sync {
    fn call(&self, request: http::Request<Body>) -> Calling;

    /// Returns the protection of what lies behind. That of a tower service is not known.
    #[cfg(feature = "client")]
    fn security_level(&self) -> SecurityLevel {
        SecurityLevel::NoSecurity
    }
}

/// A tower service over HTTP types.
pub(crate) struct ErasedService<S>(S);

impl<S> ErasedService<S> {
    pub(crate) fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S, B> HttpService for ErasedService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    fn call(&self, request: http::Request<Body>) -> Calling {
        // Clones do not share readiness, so one clone is both polled for readiness and called.
        let mut service = self.0.clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx))
                .await
                .map_err(status_of)?;
            let response = service.call(request).await.map_err(status_of)?;
            Ok(response.map(body_of))
        })
    }
}

/// The service that a tower layer of a server wraps: the inner layers and the router. See
/// [`Server::layer`](crate::Server::layer).
///
/// ```
/// use tower_layer::layer_fn;
/// use trunkline::Server;
/// use trunkline::tower::LayeredService;
///
/// // A layer that changes nothing.
/// let server = Server::new().layer(layer_fn(|service: LayeredService| service));
/// ```
#[derive(Clone)]
pub struct LayeredService(Arc<dyn HttpService>);

impl LayeredService {
    pub(crate) fn new(service: impl HttpService + 'static) -> Self {
        Self(Arc::new(service))
    }

    pub(crate) fn start(&self, request: http::Request<Body>) -> Calling {
        self.0.call(request)
    }
}

impl Service<http::Request<Body>> for LayeredService {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Calling;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Calling {
        self.start(request)
    }
}

impl fmt::Debug for LayeredService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayeredService").finish_non_exhaustive()
    }
}

/// Converts an error of a service or a body. A [`Status`] is returned as it is; another error becomes
/// UNAVAILABLE.
fn status_of(error: impl Into<BoxError>) -> Status {
    let error: BoxError = error.into();
    match error.downcast::<Status>() {
        Ok(status) => *status,
        Err(error) => Status::unavailable(format!("the call did not get through: {error}")),
    }
}

/// Converts a body of any type. A [`Body`] is not wrapped, so a body known in full remains known in full.
pub(crate) fn body_of<B>(body: B) -> Body
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let mut body = Some(body);
    match (&mut body as &mut dyn Any).downcast_mut::<Option<Body>>() {
        Some(ours) => ours.take().unwrap_or_default(),
        None => body.map_or_else(Body::empty, |body| Body::new(ForeignBody(Box::pin(body)))),
    }
}

/// An HTTP body of any type, with its data and errors converted.
struct ForeignBody<B>(Pin<Box<B>>);

impl<B> http_body::Body for ForeignBody<B>
where
    B: http_body::Body<Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.as_mut().poll_frame(cx).map(|frame| {
            frame.map(|frame| {
                let frame = frame.map_err(status_of)?;
                Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
