//! The interop client on `trunkline`: the cases of the official contract, and those of our own peers that go beyond it.
//!
//! A case is a name and a channel in, and a sentence out when something is not as it should be.

mod compression;
mod expect;
mod heads;
mod load_balancing;
mod soak;
mod status;

use std::time::Duration;

use trunkline::{Call, Channel, Code, Metadata, Sender, Streaming};

pub use self::expect::Mismatch;
pub use self::soak::Soak;

use self::compression::{
    client_compressed_streaming, client_compressed_unary, compressed, server_compressed_streaming,
    server_compressed_unary,
};
use self::expect::{
    Outcome, check, check_large, failure, input_request, large_request, next_size, output_request,
};
use self::load_balancing::{
    max_concurrent_streams_connection_scaling, orca_oob, orca_per_rpc, pick_first_unary,
};
use self::soak::{channel_soak, concurrent_large_unary, rpc_soak};
use self::status::{
    special_status_message, status, status_details, unimplemented_method, unimplemented_service,
};
use crate::backend_metrics::LoadLog;
use crate::test_service::{ECHO_INITIAL, ECHO_TRAILING};
use crate::testing::{
    Empty, SimpleRequest, StreamingOutputCallRequest, StreamingOutputCallResponse,
    TestServiceClient,
};

/// Every case that any channel and any complete server can run, by its official name where it has one.
pub const CASES: &[&str] = &[
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "custom_metadata",
    "heads",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "client_compressed_unary",
    "client_compressed_streaming",
    "server_compressed_unary",
    "server_compressed_streaming",
    "rpc_soak",
    "details",
    "compressed",
    "deflate",
    "concurrent_large_unary",
    "channel_soak",
    "pick_first_unary",
];

/// The cases of load reports, which need a channel with the policy [`BackendMetrics`](crate::backend_metrics::BackendMetrics).
pub const ORCA_CASES: &[&str] = &["orca_per_rpc", "orca_oob"];

const REQUEST_SIZES: [usize; 4] = [27182, 8, 1828, 45904];
const RESPONSE_SIZES: [usize; 4] = [31415, 9, 2653, 58979];
/// Bounds every call that should succeed, so that a hanging server is a failure and not a hanging test.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The client under test.
#[derive(Clone, Debug)]
pub struct InteropClient {
    /// Makes the calls.
    pub channel: Channel,
    /// The loads that the policy of the channel has seen, if it is [`BackendMetrics`](crate::backend_metrics::BackendMetrics).
    pub loads: LoadLog,
    /// The settings of the soak cases.
    pub soak: Soak,
}

/// Runs a case: one of [`CASES`] or [`ORCA_CASES`], or `max_concurrent_streams_connection_scaling`, which needs a server that
/// allows two streams on a connection.
///
/// # Errors
///
/// The first expectation that does not hold.
pub async fn run(case: &str, test: &InteropClient) -> Result<(), Mismatch> {
    let InteropClient {
        channel,
        loads,
        soak,
    } = test;
    let client = TestServiceClient::new(channel.clone());
    match case {
        "empty_unary" => empty_unary(&client).await,
        "large_unary" => large_unary(&client).await,
        "client_streaming" => client_streaming(&client, None).await,
        "server_streaming" => server_streaming(&client).await,
        "ping_pong" => ping_pong(&client).await,
        "empty_stream" => empty_stream(&client).await,
        "custom_metadata" => custom_metadata(&client).await,
        "heads" => heads::heads(&client).await,
        "status_code_and_message" => status(&client, "test status message").await,
        "special_status_message" => special_status_message(&client).await,
        "unimplemented_method" => unimplemented_method(&client).await,
        "unimplemented_service" => unimplemented_service(channel).await,
        "cancel_after_begin" => cancel_after_begin(&client).await,
        "cancel_after_first_response" => cancel_after_first_response(&client).await,
        "timeout_on_sleeping_server" => timeout_on_sleeping_server(&client).await,
        "client_compressed_unary" => client_compressed_unary(&client).await,
        "client_compressed_streaming" => client_compressed_streaming(&client).await,
        "server_compressed_unary" => server_compressed_unary(&client).await,
        "server_compressed_streaming" => server_compressed_streaming(&client).await,
        "rpc_soak" => rpc_soak(&client, soak).await,
        "channel_soak" => channel_soak(soak).await,
        "details" => status_details(&client).await,
        "compressed" => compressed(&client, "gzip").await,
        "deflate" => compressed(&client, "deflate").await,
        "concurrent_large_unary" => concurrent_large_unary(&client).await,
        "pick_first_unary" => pick_first_unary(&client).await,
        "orca_per_rpc" => orca_per_rpc(&client, loads).await,
        "orca_oob" => orca_oob(&client, loads).await,
        "max_concurrent_streams_connection_scaling" => {
            max_concurrent_streams_connection_scaling(&client).await
        }
        _ => Err(Mismatch::new(format!(
            "no case is called {case:?}; there are: {}",
            [CASES, ORCA_CASES].concat().join(", ")
        ))),
    }
}

async fn empty_unary(client: &TestServiceClient) -> Outcome {
    client.empty_call(Empty {}).timeout(TIMEOUT).await?;
    Ok(())
}

async fn large_unary(client: &TestServiceClient) -> Outcome {
    let response = client.unary_call(large_request()).timeout(TIMEOUT).await?;
    check_large(&response)
}

async fn client_streaming(client: &TestServiceClient, encoding: Option<&str>) -> Outcome {
    let mut call = compressing(client.streaming_input_call().timeout(TIMEOUT), encoding).await?;
    for size in REQUEST_SIZES {
        call.send(input_request(size, None)).await?;
    }
    let response = call.finish().await?;
    check(
        "the sum of sizes",
        &response.aggregated_payload_size,
        &74922,
    )
}

async fn server_streaming(client: &TestServiceClient) -> Outcome {
    let mut responses = client
        .streaming_output_call(output_request(0, &RESPONSE_SIZES))
        .timeout(TIMEOUT)
        .await?;
    for size in RESPONSE_SIZES {
        check(
            "a response size",
            &next_size(&mut responses).await?,
            &Some(size),
        )?;
    }
    check(
        "after the responses",
        &next_size(&mut responses).await?,
        &None,
    )
}

async fn ping_pong(client: &TestServiceClient) -> Outcome {
    let (requests, responses) = client.full_duplex_call().timeout(TIMEOUT).await?;
    exchange(requests, responses).await
}

async fn exchange(
    mut requests: Sender<StreamingOutputCallRequest>,
    mut responses: Streaming<StreamingOutputCallResponse>,
) -> Outcome {
    for (request, response) in REQUEST_SIZES.into_iter().zip(RESPONSE_SIZES) {
        requests.send(output_request(request, &[response])).await?;
        check(
            "a response size",
            &next_size(&mut responses).await?,
            &Some(response),
        )?;
    }
    requests.finish();
    check(
        "after the half-close",
        &next_size(&mut responses).await?,
        &None,
    )
}

async fn empty_stream(client: &TestServiceClient) -> Outcome {
    let (requests, mut responses) = client.full_duplex_call().timeout(TIMEOUT).await?;
    requests.finish();
    check(
        "responses of an empty stream",
        &next_size(&mut responses).await?,
        &None,
    )
}

async fn custom_metadata(client: &TestServiceClient) -> Outcome {
    let request = SimpleRequest {
        response_size: 1,
        ..SimpleRequest::default()
    };
    let response = with_metadata(client.unary_call(request)).await?;
    check_echo("unary", response.metadata(), response.trailers())?;

    let (mut requests, mut responses) = with_metadata(client.full_duplex_call()).await?;
    requests.send(output_request(0, &[1])).await?;
    requests.finish();
    while responses.message().await?.is_some() {}
    let head = responses.head().await?.clone();
    let trailers = responses
        .trailers()
        .ok_or_else(|| Mismatch::new("bidi: no trailers".to_owned()))?;
    check_echo("bidi", &head, trailers)
}

fn with_metadata<T>(call: Call<T>) -> Call<T> {
    call.timeout(TIMEOUT)
        .metadata(ECHO_INITIAL, "test_initial_metadata_value")
        .metadata_bin(ECHO_TRAILING, [0xab; 3])
}

fn check_echo(kind: &str, head: &Metadata, trailers: &Metadata) -> Outcome {
    check(
        &format!("{kind}: the header"),
        &head.get(ECHO_INITIAL),
        &Some("test_initial_metadata_value"),
    )?;
    check(
        &format!("{kind}: the trailer"),
        &trailers.get_bin(ECHO_TRAILING).as_deref(),
        &Some(&[0xab; 3][..]),
    )
}

/// A call is cancelled by dropping it, so that there is nobody to be told CANCELLED; what counts is that the channel goes on
/// and that the server notices.
async fn cancel_after_begin(client: &TestServiceClient) -> Outcome {
    drop(client.streaming_input_call().timeout(TIMEOUT).await?);
    empty_unary(client).await
}

async fn cancel_after_first_response(client: &TestServiceClient) -> Outcome {
    let (mut requests, mut responses) = client.full_duplex_call().timeout(TIMEOUT).await?;
    requests.send(output_request(27182, &[31415])).await?;
    check(
        "the first response",
        &next_size(&mut responses).await?,
        &Some(31415),
    )?;
    drop((requests, responses));
    empty_unary(client).await
}

async fn timeout_on_sleeping_server(client: &TestServiceClient) -> Outcome {
    let call = client
        .full_duplex_call()
        .timeout(Duration::from_millis(1))
        .await;
    let status = match call {
        Err(status) => status,
        Ok((mut requests, mut responses)) => {
            // Whether this gets through before the deadline does not matter.
            let _ = requests.send(output_request(27182, &[])).await;
            failure("the call", responses.message().await)?
        }
    };
    check("the code", &status.code(), &Code::DEADLINE_EXCEEDED)
}

fn compressing<T>(call: Call<T>, encoding: Option<&str>) -> Call<T> {
    match encoding {
        Some(encoding) => call.compress(encoding),
        None => call,
    }
}
