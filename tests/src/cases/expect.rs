//! What the cases send, and how they say that something is not as it should be.

use std::fmt;

use trunkline::{Result, Status, Streaming};

use crate::testing::{
    BoolValue, Payload, ResponseParameters, SimpleRequest, SimpleResponse,
    StreamingInputCallRequest, StreamingOutputCallRequest, StreamingOutputCallResponse,
};

pub(crate) const LARGE_REQUEST: usize = 271_828;
pub(crate) const LARGE_RESPONSE: usize = 314_159;

pub(crate) type Outcome = std::result::Result<(), Mismatch>;

/// Why a case has failed, in a sentence.
#[derive(Clone, PartialEq, Eq)]
pub struct Mismatch(String);

impl Mismatch {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// What `unwrap` and `expect` print.
impl fmt::Debug for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Status> for Mismatch {
    fn from(status: Status) -> Self {
        Self(format!("a call failed: {status:?}"))
    }
}

pub(crate) fn check<T: PartialEq + fmt::Debug>(what: &str, actual: &T, expected: &T) -> Outcome {
    if actual == expected {
        Ok(())
    } else {
        Err(Mismatch::new(format!(
            "{what}: expected {expected:?}, got {actual:?}"
        )))
    }
}

pub(crate) fn check_large(response: &SimpleResponse) -> Outcome {
    check_size(response, LARGE_RESPONSE)
}

pub(crate) fn check_size(response: &SimpleResponse, size: usize) -> Outcome {
    let body = response
        .payload
        .as_ref()
        .map(|payload| &payload.body[..])
        .unwrap_or_default();
    check("the size of the response's payload", &body.len(), &size)?;
    check(
        "whether the payload is zeros",
        &body.iter().all(|byte| *byte == 0),
        &true,
    )
}

/// The error of a call that must fail.
pub(crate) fn failure<T>(what: &str, outcome: Result<T>) -> std::result::Result<Status, Mismatch> {
    outcome
        .err()
        .ok_or_else(|| Mismatch::new(format!("{what}: the call succeeded")))
}

pub(crate) async fn next_size(
    responses: &mut Streaming<StreamingOutputCallResponse>,
) -> Result<Option<usize>> {
    let response = responses.message().await?;
    Ok(response.map(|response| response.payload.map_or(0, |payload| payload.body.len())))
}

pub(crate) fn large_request() -> SimpleRequest {
    request_of(LARGE_REQUEST, LARGE_RESPONSE)
}

pub(crate) fn request_of(size: usize, response_size: usize) -> SimpleRequest {
    SimpleRequest {
        response_size: i32::try_from(response_size).expect("no test asks for 2 GiB"),
        payload: Some(payload(size)),
        ..SimpleRequest::default()
    }
}

pub(crate) fn input_request(
    size: usize,
    expect_compressed: Option<bool>,
) -> StreamingInputCallRequest {
    let expect_compressed = expect_compressed.map(|value| BoolValue { value });
    StreamingInputCallRequest {
        payload: Some(payload(size)),
        expect_compressed,
    }
}

pub(crate) fn output_request(body: usize, sizes: &[usize]) -> StreamingOutputCallRequest {
    let parameters = |size: &usize| ResponseParameters {
        size: i32::try_from(*size).expect("the sizes of the cases are small"),
        ..ResponseParameters::default()
    };
    StreamingOutputCallRequest {
        response_parameters: sizes.iter().map(parameters).collect(),
        payload: Some(payload(body)),
        ..StreamingOutputCallRequest::default()
    }
}

pub(crate) fn payload(size: usize) -> Payload {
    Payload {
        body: vec![0; size].into(),
        ..Payload::default()
    }
}
