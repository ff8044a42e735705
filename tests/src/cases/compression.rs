//! Compressed messages, in both directions.

use trunkline::{Code, Compress};

use super::expect::{
    Outcome, check, check_large, failure, input_request, large_request, next_size, output_request,
};
use super::{TIMEOUT, client_streaming, exchange};
use crate::testing::{BoolValue, SimpleRequest, TestServiceClient};

pub(crate) async fn client_compressed_unary(client: &TestServiceClient) -> Outcome {
    let request = |expected| SimpleRequest {
        expect_compressed: Some(BoolValue { value: expected }),
        ..large_request()
    };
    // The probe shows that the server looks.
    let status = failure(
        "the probe",
        client.unary_call(request(true)).timeout(TIMEOUT).await,
    )?;
    check("the probe", &status.code(), &Code::INVALID_ARGUMENT)?;
    check_large(
        &*client
            .unary_call(request(true))
            .compress("gzip")
            .timeout(TIMEOUT)
            .await?,
    )?;
    check_large(&*client.unary_call(request(false)).timeout(TIMEOUT).await?)
}

pub(crate) async fn client_compressed_streaming(client: &TestServiceClient) -> Outcome {
    let mut probe = client.streaming_input_call().timeout(TIMEOUT).await?;
    // The server may refuse the message before it is sent.
    let sent = probe.send(input_request(27182, Some(true))).await;
    let status = match sent {
        Ok(()) => failure("the probe", probe.finish().await)?,
        Err(status) => status,
    };
    check("the probe", &status.code(), &Code::INVALID_ARGUMENT)?;

    let mut call = client
        .streaming_input_call()
        .compress("gzip")
        .timeout(TIMEOUT)
        .await?;
    call.send(input_request(27182, Some(true))).await?;
    call.compress(Compress::Off);
    call.send(input_request(45904, Some(false))).await?;
    check(
        "the sum of sizes",
        &call.finish().await?.aggregated_payload_size,
        &73086,
    )
}

pub(crate) async fn server_compressed_unary(client: &TestServiceClient) -> Outcome {
    for compressed in [true, false] {
        let request = SimpleRequest {
            response_compressed: Some(BoolValue { value: compressed }),
            ..large_request()
        };
        let response = client.unary_call(request).timeout(TIMEOUT).await?;
        check_large(&response)?;
        check(
            "whether the response came compressed",
            &response.is_compressed(),
            &compressed,
        )?;
    }
    Ok(())
}

pub(crate) async fn server_compressed_streaming(client: &TestServiceClient) -> Outcome {
    let wanted = [(31415, true), (92653, false)];
    let mut request = output_request(0, &[31415, 92653]);
    for (parameters, (_, compressed)) in request.response_parameters.iter_mut().zip(wanted) {
        parameters.compressed = Some(BoolValue { value: compressed });
    }
    let mut responses = client
        .streaming_output_call(request)
        .timeout(TIMEOUT)
        .await?;
    for (size, compressed) in wanted {
        check(
            "a response size",
            &next_size(&mut responses).await?,
            &Some(size),
        )?;
        check(
            "whether a response came compressed",
            &responses.is_compressed(),
            &compressed,
        )?;
    }
    check(
        "after the responses",
        &next_size(&mut responses).await?,
        &None,
    )
}

/// Asks nothing of the server but that it understands the encoding.
pub(crate) async fn compressed(client: &TestServiceClient, encoding: &str) -> Outcome {
    check_large(
        &*client
            .unary_call(large_request())
            .compress(encoding)
            .timeout(TIMEOUT)
            .await?,
    )?;
    client_streaming(client, Some(encoding)).await?;
    let (requests, responses) = client
        .full_duplex_call()
        .compress(encoding)
        .timeout(TIMEOUT)
        .await?;
    exchange(requests, responses).await
}
