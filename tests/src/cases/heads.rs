//! Where the metadata of a response is: in its head and its trailers, of calls of each kind that end well, and of those that the
//! server ends at once with an error.

use bytes::BytesMut;
use trunkline::{Call, Message, Metadata, Result, Status, details};

use super::TIMEOUT;
use super::expect::{Mismatch, Outcome, check, output_request, request_of};
use crate::test_service::{ECHO_INITIAL, ECHO_STATUS, ECHO_TRAILING};
use crate::testing::TestServiceClient;

/// The head and the trailers of a call, however it ended.
type Both = (Metadata, Metadata);

pub(crate) async fn heads(client: &TestServiceClient) -> Outcome {
    for fails in [false, true] {
        let case = |kind: &str| format!("{kind}, fails: {fails}");
        check_both(&case("unary"), fails, unary(client, fails).await)?;
        check_both(
            &case("server streaming"),
            fails,
            output(client, fails).await,
        )?;
        check_both(&case("client streaming"), fails, input(client, fails).await)?;
        check_both(&case("bidi"), fails, duplex(client, fails).await)?;
    }
    Ok(())
}

async fn unary(client: &TestServiceClient, fails: bool) -> Result<Both> {
    let response = echoing(client.unary_call(request_of(0, 1)), fails).await?;
    Ok((response.metadata().clone(), response.trailers().clone()))
}

async fn output(client: &TestServiceClient, fails: bool) -> Result<Both> {
    let mut responses =
        echoing(client.streaming_output_call(output_request(0, &[])), fails).await?;
    while responses.message().await?.is_some() {}
    let trailers = responses.trailers().cloned().unwrap_or_default();
    Ok((responses.head().await?.clone(), trailers))
}

async fn input(client: &TestServiceClient, fails: bool) -> Result<Both> {
    let mut call = echoing(client.streaming_input_call(), fails).await?;
    // The head comes before the requests have ended.
    let head = call.head().await?.clone();
    call.half_close();
    let response = call.finish().await?;
    check_same(&head, response.metadata())?;
    Ok((head, response.trailers().clone()))
}

async fn duplex(client: &TestServiceClient, fails: bool) -> Result<Both> {
    let (mut requests, mut responses) = echoing(client.full_duplex_call(), fails).await?;
    if fails {
        requests.send(output_request(0, &[1])).await?;
    }
    requests.finish();
    while responses.message().await?.is_some() {}
    let trailers = responses.trailers().cloned().unwrap_or_default();
    Ok((responses.head().await?.clone(), trailers))
}

fn check_same(head: &Metadata, of_response: &Metadata) -> Result<()> {
    match head == of_response {
        true => Ok(()),
        false => Err(Status::data_loss(
            "the head differs from that of the response",
        )),
    }
}

fn echoing<T>(call: Call<T>, fails: bool) -> Call<T> {
    let call = call
        .timeout(TIMEOUT)
        .metadata(ECHO_INITIAL, "head")
        .metadata_bin(ECHO_TRAILING, "trailer");
    if !fails {
        return call;
    }
    let status = details::Status {
        code: 9,
        message: "as was asked".to_owned(),
        details: Vec::new(),
    };
    let mut encoded = BytesMut::new();
    Message::encode(&status, &mut encoded);
    call.metadata_bin(ECHO_STATUS, encoded)
}

fn check_both(case: &str, fails: bool, ended: Result<Both>) -> Outcome {
    let (head, trailers) = match (ended, fails) {
        (Ok(both), false) => both,
        (Err(status), true) => {
            let expected = "FAILED_PRECONDITION: as was asked";
            check(case, &status.to_string().as_str(), &expected)?;
            (
                status.response_metadata().clone(),
                status.metadata().clone(),
            )
        }
        (ended, _) => return Err(Mismatch::new(format!("{case}: {ended:?}"))),
    };
    let found = (head.get(ECHO_INITIAL), trailers.get_bin(ECHO_TRAILING));
    check(case, &found, &(Some("head"), Some("trailer".into())))?;
    let in_both = (
        head.contains_key(ECHO_TRAILING),
        trailers.contains_key(ECHO_INITIAL),
    );
    check(&format!("{case}, in both"), &in_both, &(false, false))
}
