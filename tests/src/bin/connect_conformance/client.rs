//! The client: it makes the calls that it is told to make, and tells how they went.

use std::future::{IntoFuture, pending};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use trunkline::tls::ClientTls;
use trunkline::{Call, Channel, Response, Result, Status, Streaming};

use crate::suite::client_compat_request::cancel::CancelTiming;
use crate::suite::client_compat_response::Result as Outcome;
use crate::suite::{
    BidiStreamRequest, BidiStreamResponse, ClientCompatRequest, ClientCompatResponse,
    ClientErrorResult, ClientResponseResult, ClientStreamRequest, Compression, ConformancePayload,
    ConformanceServiceClient, ServerStreamRequest, ServerStreamResponse, StreamType, UnaryRequest,
    UnimplementedRequest,
};
use crate::{bytes_of, each, error_of, headers_of, read, write};

/// How many calls are made at once.
const CALLS_AT_ONCE: usize = 8;

pub(crate) async fn run() -> Result<()> {
    let (found, mut wanted) = mpsc::channel(1);
    std::thread::spawn(move || {
        while let Some(request) = read::<ClientCompatRequest>() {
            if found.blocking_send(request).is_err() {
                break;
            }
        }
    });
    let mut calls = JoinSet::new();
    while let Some(request) = wanted.recv().await {
        if calls.len() == CALLS_AT_ONCE {
            calls.join_next().await;
        }
        calls.spawn(async move {
            let test_name = request.test_name.clone();
            let result = match Case::of(request).run().await {
                Ok(seen) => Outcome::Response(seen),
                Err(status) => Outcome::Error(ClientErrorResult {
                    message: status.to_string(),
                }),
            };
            write(&ClientCompatResponse {
                test_name,
                result: Some(result),
            })
        });
    }
    while let Some(written) = calls.join_next().await {
        written.map_err(|error| Status::internal(error.to_string()))??;
    }
    Ok(())
}

struct Case {
    wanted: ClientCompatRequest,
    seen: ClientResponseResult,
}

impl Case {
    fn of(wanted: ClientCompatRequest) -> Self {
        Self {
            wanted,
            seen: ClientResponseResult::default(),
        }
    }

    async fn run(mut self) -> Result<ClientResponseResult> {
        let client = ConformanceServiceClient::new(self.channel().await?);
        match self.wanted.method() {
            "Unary" => {
                let call = client.unary(self.request::<UnaryRequest>(0)?);
                self.one(self.prepared(call), |it| it.payload).await;
            }
            "Unimplemented" => {
                let call = client.unimplemented(self.request::<UnimplementedRequest>(0)?);
                self.one(self.prepared(call), |_| None).await;
            }
            "ServerStream" => {
                let call = client.server_stream(self.request::<ServerStreamRequest>(0)?);
                match self.prepared(call).await {
                    Ok(responses) => {
                        self.rest(responses, 0, |it: ServerStreamResponse| it.payload)
                            .await
                    }
                    Err(status) => self.failed(&status),
                }
            }
            "ClientStream" => self.client_stream(&client).await?,
            "BidiStream" => self.bidi_stream(&client).await?,
            other => return Err(Status::internal(format!("no method {other}"))),
        }
        Ok(self.seen)
    }

    async fn channel(&self) -> Result<Channel> {
        let wanted = &self.wanted;
        let is_tls = !wanted.server_tls_cert.is_empty();
        let scheme = if is_tls { "https" } else { "http" };
        let mut builder = Channel::to(format!("{scheme}://{}:{}", wanted.host, wanted.port));
        if is_tls {
            let mut tls = ClientTls::new().ca_pem(&wanted.server_tls_cert);
            if let Some(own) = &wanted.client_tls_creds {
                tls = tls.identity_pem(&own.cert, &own.key);
            }
            builder = builder.tls(tls);
        }
        if wanted.message_receive_limit > 0 {
            builder = builder.max_recv_message_size(wanted.message_receive_limit as usize);
        }
        builder.connect().await
    }

    fn request<M: prost::Message + Default>(&self, index: usize) -> Result<M> {
        let any = self.wanted.request_messages.get(index);
        let any = any.ok_or_else(|| Status::internal("a request is missing"))?;
        M::decode(&any.value[..]).map_err(|error| Status::internal(error.to_string()))
    }

    fn prepared<T>(&self, mut call: Call<T>) -> Call<T> {
        for (key, value) in each(&self.wanted.request_headers) {
            call = match key.ends_with("-bin") {
                true => call.metadata_bin(&key, bytes_of(value)),
                false => call.metadata(&key, value),
            };
        }
        if let Some(milliseconds) = self.wanted.timeout_ms {
            call = call.timeout(Duration::from_millis(milliseconds.into()));
        }
        match self.wanted.compression() {
            Compression::Gzip => call.compress("gzip"),
            Compression::Deflate => call.compress("deflate"),
            _ => call,
        }
    }

    fn cancel(&self) -> Option<&CancelTiming> {
        self.wanted.cancel.as_ref()?.cancel_timing.as_ref()
    }

    /// Ready when the call is to be cancelled, if that is some time after the last request.
    async fn cancelled(&self) {
        match self.cancel() {
            Some(CancelTiming::AfterCloseSendMs(time)) => {
                sleep(Duration::from_millis((*time).into())).await;
            }
            _ => pending().await,
        }
    }

    fn is_cancelled_after(&self, responses: usize) -> bool {
        matches!(self.cancel(), Some(CancelTiming::AfterNumResponses(n)) if *n as usize == responses)
    }

    /// The call is dropped: its own end is what the caller makes of it.
    fn give_up(&mut self) {
        self.seen.error = Some(error_of(&Status::cancelled(
            "given up, as the case wants it",
        )));
    }

    fn failed(&mut self, status: &Status) {
        self.seen.error = Some(error_of(status));
        self.seen.response_headers = headers_of(status.response_metadata());
        self.seen.response_trailers = headers_of(status.metadata());
    }

    fn came(&mut self, payload: Option<ConformancePayload>) {
        self.seen.payloads.push(payload.unwrap_or_default());
    }

    async fn one<R>(
        &mut self,
        call: impl IntoFuture<Output = Result<Response<R>>>,
        payload: impl FnOnce(R) -> Option<ConformancePayload>,
    ) {
        let ended = tokio::select! {
            ended = call.into_future() => Some(ended),
            () = self.cancelled() => None,
        };
        match ended {
            Some(Ok(response)) => {
                self.seen.response_headers = headers_of(response.metadata());
                self.seen.response_trailers = headers_of(response.trailers());
                self.came(payload(response.into_inner()));
            }
            Some(Err(status)) => self.failed(&status),
            None => self.give_up(),
        }
    }

    /// Reads a stream of responses to its end, of which some have come before.
    async fn rest<R: trunkline::Message>(
        &mut self,
        mut responses: Streaming<R>,
        before: usize,
        payload: impl Fn(R) -> Option<ConformancePayload>,
    ) {
        let mut count = before;
        loop {
            let next = tokio::select! {
                next = responses.message() => next,
                () = self.cancelled() => return self.give_up(),
            };
            match next {
                Ok(Some(response)) => {
                    self.came(payload(response));
                    count += 1;
                    if self.is_cancelled_after(count) {
                        return self.give_up();
                    }
                }
                Ok(None) => break,
                Err(status) => {
                    self.seen.error = Some(error_of(&status));
                    break;
                }
            }
        }
        self.ends(&mut responses).await;
    }

    /// The head and the trailers of a stream that has ended.
    async fn ends<R: trunkline::Message>(&mut self, responses: &mut Streaming<R>) {
        let head = responses.head().await.map(headers_of);
        self.seen.response_headers = head.unwrap_or_default();
        self.seen.response_trailers = responses.trailers().map(headers_of).unwrap_or_default();
    }

    async fn client_stream(&mut self, client: &ConformanceServiceClient) -> Result<()> {
        let mut requests = match self.prepared(client.client_stream()).await {
            Ok(requests) => requests,
            Err(status) => {
                self.failed(&status);
                return Ok(());
            }
        };
        for index in 0..self.wanted.request_messages.len() {
            sleep(Duration::from_millis(self.wanted.request_delay_ms.into())).await;
            let request: ClientStreamRequest = self.request(index)?;
            if requests.send(request).await.is_err() {
                break;
            }
        }
        match self.cancel() {
            Some(CancelTiming::BeforeCloseSend(())) => self.give_up(),
            _ => self.one(requests.finish(), |it| it.payload).await,
        }
        Ok(())
    }

    async fn bidi_stream(&mut self, client: &ConformanceServiceClient) -> Result<()> {
        let (mut requests, mut responses) = match self.prepared(client.bidi_stream()).await {
            Ok(call) => call,
            Err(status) => {
                self.failed(&status);
                return Ok(());
            }
        };
        let is_full_duplex = self.wanted.stream_type() == StreamType::FullDuplexBidiStream;
        let mut count = 0;
        for index in 0..self.wanted.request_messages.len() {
            sleep(Duration::from_millis(self.wanted.request_delay_ms.into())).await;
            let request: BidiStreamRequest = self.request(index)?;
            if requests.send(request).await.is_err() {
                break;
            }
            if !is_full_duplex {
                continue;
            }
            match responses.message().await {
                Ok(Some(response)) => {
                    self.came(response.payload);
                    count += 1;
                    if self.is_cancelled_after(count) {
                        self.give_up();
                        return Ok(());
                    }
                }
                Ok(None) => break,
                Err(status) => {
                    self.seen.error = Some(error_of(&status));
                    self.ends(&mut responses).await;
                    return Ok(());
                }
            }
        }
        if let Some(CancelTiming::BeforeCloseSend(())) = self.cancel() {
            self.give_up();
            return Ok(());
        }
        requests.finish();
        self.rest(responses, count, |it: BidiStreamResponse| it.payload)
            .await;
        Ok(())
    }
}
