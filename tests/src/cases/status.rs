//! Calls that fail as the client asks them to.

use bytes::BytesMut;
use trunkline::details::{self, BadRequest, ErrorInfo};
use trunkline::{Channel, Code, Message, Status};

use super::TIMEOUT;
use super::expect::{Outcome, check, failure, output_request};
use crate::test_service::ECHO_STATUS;
use crate::testing::{
    EchoStatus, Empty, SimpleRequest, StreamingOutputCallRequest, TestServiceClient,
    UnimplementedServiceClient,
};

pub(crate) async fn status(client: &TestServiceClient, message: &str) -> Outcome {
    let wanted = Some(EchoStatus {
        code: 2,
        message: message.to_owned(),
    });
    let request = SimpleRequest {
        response_status: wanted.clone(),
        ..SimpleRequest::default()
    };
    let status = failure("unary", client.unary_call(request).timeout(TIMEOUT).await)?;
    check(
        "unary: code and message",
        &(status.code(), status.message()),
        &(Code::UNKNOWN, message),
    )?;

    let (mut requests, mut responses) = client.full_duplex_call().timeout(TIMEOUT).await?;
    let request = StreamingOutputCallRequest {
        response_status: wanted,
        ..StreamingOutputCallRequest::default()
    };
    requests.send(request).await?;
    requests.finish();
    let status = failure("bidi", responses.message().await)?;
    check(
        "bidi: code and message",
        &(status.code(), status.message()),
        &(Code::UNKNOWN, message),
    )
}

pub(crate) async fn special_status_message(client: &TestServiceClient) -> Outcome {
    status(
        client,
        "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n",
    )
    .await?;
    // Beyond the contract: a message that looks percent-encoded already.
    status(client, "100% of %41").await
}

pub(crate) async fn unimplemented_method(client: &TestServiceClient) -> Outcome {
    let status = failure(
        "the call",
        client.unimplemented_call(Empty {}).timeout(TIMEOUT).await,
    )?;
    check("the code", &status.code(), &Code::UNIMPLEMENTED)
}

pub(crate) async fn unimplemented_service(channel: &Channel) -> Outcome {
    let client = UnimplementedServiceClient::new(channel.clone());
    let status = failure(
        "the call",
        client.unimplemented_call(Empty {}).timeout(TIMEOUT).await,
    )?;
    check("the code", &status.code(), &Code::UNIMPLEMENTED)
}

pub(crate) async fn status_details(client: &TestServiceClient) -> Outcome {
    let info = ErrorInfo::new("TOO_COLD", "example.test").with_entry("degrees", "-4");
    let violation = BadRequest::violation("size", "größer als erlaubt");
    let message = "the details say more: 50% ☺";
    let sent = Status::new(Code::FAILED_PRECONDITION, message)
        .with_detail(info.clone())
        .with_detail(violation.clone());
    let status = details::Status {
        code: 9,
        message: message.to_owned(),
        details: sent.details().to_vec(),
    };
    let mut encoded = BytesMut::new();
    Message::encode(&status, &mut encoded);

    let check_details = |kind: &str, received: &Status| {
        let code_and_message = (received.code(), received.message());
        check(
            &format!("{kind}: code and message"),
            &code_and_message,
            &(Code::FAILED_PRECONDITION, message),
        )?;
        check(
            &format!("{kind}: the first detail"),
            &received.detail::<ErrorInfo>(),
            &Some(info.clone()),
        )?;
        check(
            &format!("{kind}: the second detail"),
            &received.detail::<BadRequest>(),
            &Some(violation.clone()),
        )
    };
    let call = client
        .unary_call(SimpleRequest::default())
        .metadata_bin(ECHO_STATUS, &encoded)
        .timeout(TIMEOUT);
    check_details("unary", &failure("unary", call.await)?)?;
    let call = client
        .full_duplex_call()
        .metadata_bin(ECHO_STATUS, &encoded)
        .timeout(TIMEOUT);
    let (mut requests, mut responses) = call.await?;
    requests.send(output_request(0, &[1])).await?;
    requests.finish();
    check_details("bidi", &failure("bidi", responses.message().await)?)
}
