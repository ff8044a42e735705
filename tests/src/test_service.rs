//! `grpc.testing.TestService` on `trunkline`: what every implementation's test clients expect of a server.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use http_body::Body as _;
use prost::Message as _;
use tokio::sync::Mutex;
use tokio::time::sleep;
use tower_service::Service;
use trunkline::bytes::Bytes;
use trunkline::server::LoadReports;
use trunkline::tower::Body;
use trunkline::{
    Compress, LoadReport, Request, ResponseHandle, Result, Sender, Server, Status, Streaming,
    details,
};

use crate::testing::{
    BoolValue, EchoStatus, Empty, Payload, PayloadType, SimpleRequest, SimpleResponse,
    StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest,
    StreamingOutputCallResponse, TestOrcaReport, TestService, TestServiceServer,
};
use crate::tokens::Claims;

/// The request header whose value comes back in the head of the response.
pub const ECHO_INITIAL: &str = "x-grpc-test-echo-initial";
/// The request header whose value comes back in the trailers.
pub const ECHO_TRAILING: &str = "x-grpc-test-echo-trailing-bin";
/// Beyond the official contract: a serialized `google.rpc.Status` in this request header is the status, with its details,
/// that ends the call.
pub const ECHO_STATUS: &str = "x-trunkline-echo-status-bin";
/// With a value such as `trailing 40000` it asks for as many bytes in the head of the response (`initial`), in its trailers, or
/// in the details of a NOT_FOUND.
pub const FILL: &str = "x-trunkline-fill";

/// The interval at which the clients of the official contract ask for load reports.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);

/// A server of the service, which reports its load. It also answers what is not gRPC with a short text, which is what the
/// conformance suite of HTTP/2 asks of a server.
pub fn server() -> Server {
    static SERVERS: AtomicUsize = AtomicUsize::new(0);
    let load = LoadReports::new().min_interval(LOAD_INTERVAL);
    let tests = Tests {
        id: format!(
            "{}-{}",
            process::id(),
            SERVERS.fetch_add(1, Ordering::Relaxed)
        ),
        load: Mutex::new(load.clone()),
    };
    Server::new()
        .add_service(TestServiceServer::new(tests))
        .add_service(load)
        .fallback(Greeting)
}

/// The service. Every answer follows from the request, and from the number of the server.
#[derive(Debug)]
pub struct Tests {
    /// Differs from that of all other servers on this machine.
    id: String,
    /// Held by the one call that sets the load at the moment.
    load: Mutex<LoadReports>,
}

impl TestService for Tests {
    async fn empty_call(&self, _request: Request<Empty>) -> Result<Empty> {
        Ok(Empty {})
    }

    async fn unary_call(&self, request: Request<SimpleRequest>) -> Result<SimpleResponse> {
        expect_compressed(request.expect_compressed.as_ref(), request.is_compressed())?;
        if is_true(request.response_compressed.as_ref()) {
            request.response().compress(Compress::On);
        }
        echo_metadata(&request)?;
        echo_status(&request, request.response_status.as_ref())?;
        if let Some(report) = &request.orca_per_query_report {
            request.response().report_load(&load_report(report));
        }
        let mut response = SimpleResponse {
            payload: Some(payload(request.response_type, request.response_size)?),
            ..SimpleResponse::default()
        };
        if request.fill_server_id {
            response.server_id.clone_from(&self.id);
        }
        if request.fill_username {
            response.username = Claims::of_call(request.metadata())?.text("iss")?;
        }
        if request.fill_oauth_scope {
            response.oauth_scope = Claims::of_call(request.metadata())?.text("scope")?;
        }
        Ok(response)
    }

    // For proxies that cache gRPC over GET, which this server, like most, does not speak.
    async fn cacheable_unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<SimpleResponse> {
        self.unary_call(request).await
    }

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
        responses: &mut Sender<StreamingOutputCallResponse>,
    ) -> Result<()> {
        echo(&request)?;
        let peer = peer_address(&request);
        promise_encoding(request.response(), &request);
        respond(&peer, &request, responses).await
    }

    async fn streaming_input_call(
        &self,
        mut requests: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<StreamingInputCallResponse> {
        echo(&requests)?;
        // The client may want to see it before it has sent everything.
        requests.response().send_head();
        let mut total = 0;
        while let Some(request) = requests.message().await? {
            expect_compressed(
                request.expect_compressed.as_ref(),
                Streaming::is_compressed(&requests),
            )?;
            total += request.payload.map_or(0, |payload| payload.body.len());
        }
        let size = i32::try_from(total)
            .map_err(|_| Status::out_of_range("the sum of sizes is no int32"))?;
        Ok(StreamingInputCallResponse {
            aggregated_payload_size: size,
        })
    }

    async fn full_duplex_call(
        &self,
        mut requests: Request<Streaming<StreamingOutputCallRequest>>,
        responses: &mut Sender<StreamingOutputCallResponse>,
    ) -> Result<()> {
        echo_metadata(&requests)?;
        let peer = peer_address(&requests);
        let mut load = None;
        while let Some(request) = requests.message().await? {
            echo_status(&requests, request.response_status.as_ref())?;
            if let Some(report) = &request.orca_oob_report {
                let held = match load.take() {
                    Some(held) => held,
                    None => self.load.lock().await,
                };
                load.insert(held).set(load_report(report));
            }
            promise_encoding(requests.response(), &request);
            respond(&peer, &request, responses).await?;
        }
        Ok(())
    }

    async fn half_duplex_call(
        &self,
        mut requests: Request<Streaming<StreamingOutputCallRequest>>,
        responses: &mut Sender<StreamingOutputCallResponse>,
    ) -> Result<()> {
        let peer = peer_address(&requests);
        let mut all = Vec::new();
        while let Some(request) = requests.message().await? {
            all.push(request);
        }
        for request in all {
            promise_encoding(requests.response(), &request);
            respond(&peer, &request, responses).await?;
        }
        Ok(())
    }

    async fn unimplemented_call(&self, _request: Request<Empty>) -> Result<Empty> {
        Err(Status::unimplemented(
            "the contract wants this method to be unknown",
        ))
    }
}

/// Answers every request with the same text, once it is complete: the suite takes an answer that comes earlier for one to
/// the frames that follow.
#[derive(Clone, Copy, Debug)]
struct Greeting;

impl Service<http::Request<Body>> for Greeting {
    type Response = http::Response<String>;
    type Error = Infallible;
    type Future =
        Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut body = request.into_body();
        Box::pin(async move {
            while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
            Ok(http::Response::new("This server speaks gRPC.\n".to_owned()))
        })
    }
}

/// The head names an encoding for the whole stream, hence before its first message, which may opt out.
fn promise_encoding(response: &ResponseHandle, request: &StreamingOutputCallRequest) {
    if request
        .response_parameters
        .iter()
        .any(|parameters| is_true(parameters.compressed.as_ref()))
    {
        response.compress(Compress::On);
    }
}

/// Sends one response for each of the request's parameters.
async fn respond(
    peer: &str,
    request: &StreamingOutputCallRequest,
    responses: &mut Sender<StreamingOutputCallResponse>,
) -> Result<()> {
    for parameters in &request.response_parameters {
        let interval = u64::try_from(parameters.interval_us).unwrap_or(0);
        if interval > 0 {
            sleep(Duration::from_micros(interval)).await;
        }
        let compressed = is_true(parameters.compressed.as_ref());
        responses.compress(if compressed {
            Compress::On
        } else {
            Compress::Off
        });
        let mut response = StreamingOutputCallResponse {
            payload: Some(payload(request.response_type, parameters.size)?),
            ..StreamingOutputCallResponse::default()
        };
        if is_true(parameters.fill_peer_socket_address.as_ref()) {
            peer.clone_into(&mut response.peer_socket_address);
        }
        responses.send(response).await?;
    }
    Ok(())
}

/// Where the call comes from. Taken at once: a reference to a stream of requests must not be held while waiting.
fn peer_address<T>(call: &Request<T>) -> String {
    call.peer()
        .map(|peer| peer.remote().to_string())
        .unwrap_or_default()
}

fn expect_compressed(expected: Option<&BoolValue>, is_compressed: bool) -> Result<()> {
    if is_true(expected) && !is_compressed {
        return Err(Status::invalid_argument("the message was to be compressed"));
    }
    Ok(())
}

/// For methods whose requests have no room for a status.
fn echo<T>(request: &Request<T>) -> Result<()> {
    echo_metadata(request)?;
    echo_status(request, None)
}

fn echo_metadata<T>(request: &Request<T>) -> Result<()> {
    for value in request.metadata().get_all(ECHO_INITIAL) {
        request.response().metadata(ECHO_INITIAL, value)?;
    }
    for value in request.metadata().get_all_bin(ECHO_TRAILING) {
        request.response().trailer_bin(ECHO_TRAILING, value)?;
    }
    request.metadata().get_all(FILL).try_for_each(|wanted| {
        let (place, size) = wanted.split_once(' ').unwrap_or((wanted, ""));
        let filling = "f".repeat(size.parse().unwrap_or(0));
        match place {
            "initial" => request.response().metadata("filling", &filling),
            "trailing" => request.response().trailer("filling", &filling),
            _ => {
                let detail = details::DebugInfo::new(filling);
                Err(Status::not_found("no such thing").with_detail(detail))
            }
        }
    })
}

/// The status that the request asks for, as an error.
fn echo_status<T>(call: &Request<T>, wanted: Option<&EchoStatus>) -> Result<()> {
    if let Some(encoded) = call.metadata().get_bin(ECHO_STATUS) {
        return Err(with_details(call, encoded)?);
    }
    match wanted {
        Some(wanted) if wanted.code != 0 => {
            Err(Status::new(wanted.code.into(), wanted.message.as_str()))
        }
        _ => Ok(()),
    }
}

/// Reads the status as if a server had sent it, and passes it on: details of any type go through.
fn with_details<T>(call: &Request<T>, encoded: Bytes) -> Result<Status> {
    let broken =
        |error: &dyn std::fmt::Display| Status::invalid_argument(format!("{ECHO_STATUS}: {error}"));
    let status = details::Status::decode(encoded).map_err(|error| broken(&error))?;
    let mut trailers = Status::new(status.code.into(), status.message).into_trailers();
    let header = call.metadata().get(ECHO_STATUS).unwrap_or_default();
    let header = HeaderValue::from_str(header).map_err(|error| broken(&error))?;
    trailers.insert("grpc-status-details-bin", header);
    match Status::from_trailers(&trailers) {
        Some(Err(status)) => Ok(status.forward()),
        Some(Ok(())) | None => Err(broken(&"no error")),
    }
}

/// The report that is asked for, as a server sends it.
pub(crate) fn load_report(wanted: &TestOrcaReport) -> LoadReport {
    let mut report = LoadReport::default();
    report.cpu_utilization = wanted.cpu_utilization;
    report.mem_utilization = wanted.memory_utilization;
    report.request_cost.extend(wanted.request_cost.clone());
    report.utilization.extend(wanted.utilization.clone());
    report
}

fn payload(kind: i32, size: i32) -> Result<Payload> {
    let size = usize::try_from(size)
        .ok()
        .filter(|_| kind == PayloadType::Compressable as i32);
    match size {
        Some(size) => Ok(Payload {
            r#type: kind,
            body: vec![0; size].into(),
        }),
        None => Err(Status::invalid_argument(format!(
            "no payload of type {kind} and this size"
        ))),
    }
}

fn is_true(value: Option<&BoolValue>) -> bool {
    value.is_some_and(|value| value.value)
}
