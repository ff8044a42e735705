//! A call that the channel itself makes on a connection: one request, and a stream of responses.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use tokio::time::{Instant, sleep_until};
use trunkline_codec::head::ClientFields;
use trunkline_codec::{Code, Compressors, Event, Expect, Reader, Status, frame};
use trunkline_transport::Body;

use crate::active_connection::{ActiveConnection, WatchCount};
use crate::backoff::{self, Backoff};
use crate::limits::ChannelLimits;

/// The size of a response, in bytes. Larger ones end the call.
const MESSAGE_SIZE_MAX: usize = 64 << 10;

/// The method of a watch, and the message of its request.
#[derive(Clone, Debug)]
pub(super) struct WatchRequest {
    pub(super) path: &'static str,
    pub(super) message: Vec<u8>,
}

/// The call of a watch.
struct WatchCall {
    reader: Reader,
    body: Body,
    _count: WatchCount,
}

/// Makes the call, and makes it again after a pause whenever it ends, until the connection takes no more calls or the
/// server does not know the method. `receive` receives each response, and the status of each call that ends.
pub(super) async fn watch<F: Future<Output = ()>>(
    active: Arc<ActiveConnection>,
    request: WatchRequest,
    limits: Arc<ChannelLimits>,
    mut receive: impl FnMut(Result<Bytes, Status>) -> F,
) {
    let mut backoff = Backoff::new(&limits);
    while active.is_usable() {
        let started = Instant::now();
        let status = match WatchCall::begin(&active, &request).await {
            Err(status) => status,
            Ok(mut call) => loop {
                match call.response().await {
                    Err(status) => break status,
                    Ok(response) => {
                        backoff = Backoff::new(&limits);
                        receive(Ok(response)).await;
                    }
                }
            },
        };
        let is_known = status.code() != Code::UNIMPLEMENTED;
        receive(Err(status)).await;
        let pause = backoff.pause(&limits, backoff::random());
        match started.checked_add(pause) {
            Some(at) if is_known => sleep_until(at).await,
            _ => return,
        }
    }
}

impl WatchCall {
    async fn begin(active: &Arc<ActiveConnection>, request: &WatchRequest) -> Result<Self, Status> {
        let connection = &active.connection;
        let ready = connection.ready_uncounted().await;
        let ready = ready.ok_or_else(|| connection.failure())?;
        let count = active.count_watch();
        let uri = http::Uri::builder()
            .scheme(active.origin.scheme.clone())
            .authority(active.origin.authority.clone())
            .path_and_query(request.path)
            .build();
        let mut head = http::Request::new(());
        *head.method_mut() = http::Method::POST;
        *head.version_mut() = http::Version::HTTP_2;
        *head.uri_mut() = uri.map_err(|error| Status::internal(error.to_string()))?;
        let compressors = Compressors::none();
        ClientFields::new(compressors.clone()).write(head.headers_mut(), None, None);
        let mut body = BytesMut::new();
        body.extend_from_slice(&frame::prefix(false, request.message.len() as u32));
        body.extend_from_slice(&request.message);
        let body = Body::full(body.freeze(), None);
        let response = ready.call(head.map(|()| body)).await?;
        let (head, body) = response.into_parts();
        let mut reader = Reader::response(Expect::Many, MESSAGE_SIZE_MAX, compressors);
        reader.head(head.status, head.headers);
        Ok(Self {
            reader,
            body,
            _count: count,
        })
    }

    /// Returns the next response, or the status with which the call has ended.
    async fn response(&mut self) -> Result<Bytes, Status> {
        loop {
            match self.reader.next() {
                Some(Event::Message(message)) => return Ok(message.payload.into_bytes()),
                Some(Event::End(end)) => {
                    let end = end.status.err();
                    return Err(end.unwrap_or_else(|| Status::unavailable("the stream ended")));
                }
                Some(Event::Head(_)) => continue,
                None => {}
            }
            let body = &mut self.body;
            match std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
                None => self.reader.eof(),
                Some(Err(status)) => self.reader.fail(status),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.reader.data(data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        self.reader.trailers(trailers);
                    }
                },
            }
        }
    }
}
