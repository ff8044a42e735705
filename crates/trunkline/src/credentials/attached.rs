//! The credentials of a call: those of its channel, followed by its own.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::uri::PathAndQuery;
use tokio::time::Instant;
use trunkline_channel::{Origin, SecurityLevel, restricted};
use trunkline_codec::{Metadata, Status};
use trunkline_transport::{Body, catch_panic};

use crate::call::deadline;
use crate::credentials::call_credentials::{AnyCredentials, CallCredentials};
use crate::credentials::call_info::CallInfo;

/// The phase of a call at its deadline.
const FETCHING: &str = "while the call waited for its credentials; the source of tokens may be slow, or the timeout too short";

/// The credentials of a call, in order.
#[derive(Clone, Default)]
pub(crate) struct AttachedCredentials(Vec<Arc<dyn AnyCredentials>>);

impl AttachedCredentials {
    /// Adds credentials to those of a channel or a call.
    pub(crate) fn add(list: &mut Option<Arc<Self>>, credentials: impl CallCredentials) {
        let list = list.get_or_insert_default();
        Arc::make_mut(list).0.push(Arc::new(credentials));
    }

    pub(crate) fn required_security(&self) -> SecurityLevel {
        let required = self.0.iter().map(|it| it.required_security());
        required.max().unwrap_or_default()
    }

    /// Returns the metadata of an attempt, before `deadline`.
    ///
    /// # Errors
    ///
    /// UNAUTHENTICATED if the connection is not secure enough. DEADLINE_EXCEEDED. The status of the credentials,
    /// restricted by gRFC A54.
    pub(crate) async fn metadata(
        &self,
        origin: &Origin,
        path: &PathAndQuery,
        deadline: Option<Instant>,
    ) -> Result<Metadata, Status> {
        if origin.security_level < self.required_security() {
            return Err(Status::unauthenticated(format!(
                "the call credentials are not sent to {}, because others on the network could read them: use TLS, or `allow_plaintext()` of the credentials if something else encrypts the traffic",
                origin.authority
            )));
        }
        let call = CallInfo::of(origin, path);
        let mut fetching = pin!(self.fetch(&call));
        let mut passed = pin!(async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        });
        let too_late = || Err(deadline::exceeded(FETCHING));
        poll_fn(|cx| {
            let poll = catch_panic(|| fetching.as_mut().poll(cx)).unwrap_or_else(|panic| {
                tracing::error!(target: "trunkline::credentials", panic = panic.text(), "the credentials panicked");
                Poll::Ready(Err(Status::internal("the credentials of the call panicked")))
            });
            match poll {
                // The call itself asks the clock, which is ahead of the timer, and its status would not say what it
                // waited for.
                Poll::Pending if deadline.is_some_and(|at| at <= Instant::now()) => {
                    Poll::Ready(too_late())
                }
                Poll::Pending => passed.as_mut().poll(cx).map(|()| too_late()),
                fetched @ Poll::Ready(_) => fetched,
            }
        })
        .await
    }

    /// Adds the metadata to a request for a service without a connection.
    ///
    /// # Errors
    ///
    /// As [`metadata`](Self::metadata).
    pub(crate) async fn added_to(
        self: Arc<Self>,
        mut request: http::Request<Body>,
        origin: Origin,
        deadline: Option<Instant>,
    ) -> Result<http::Request<Body>, Status> {
        let path = request.uri().path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let added = self.metadata(&origin, &path, deadline).await?;
        added.merge_into(request.headers_mut());
        Ok(request)
    }

    async fn fetch(&self, call: &CallInfo) -> Result<Metadata, Status> {
        let mut headers = http::HeaderMap::new();
        for credentials in &self.0 {
            let metadata = credentials.metadata(call).await;
            metadata
                .map_err(|status| restricted(&status))?
                .merge_into(&mut headers);
        }
        for value in headers.values_mut() {
            value.set_sensitive(true);
        }
        Ok(Metadata::from_headers(headers))
    }
}

impl fmt::Debug for AttachedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AttachedCredentials")
            .field(&self.0.len())
            .finish()
    }
}
