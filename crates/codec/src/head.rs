//! Heads of calls: what the headers of requests and responses say, read once into types and written from types.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};

use crate::code::Code;
use crate::encoding::{Encoding, Encodings};
use crate::limits::Limits;
use crate::status::Status;
use crate::timeout;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("trunkline/", env!("CARGO_PKG_VERSION")));
const APPLICATION_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// What HTTP/2 counts for a field beside its name and value, in bytes.
// RFC 9113, 6.5.2, SETTINGS_MAX_HEADER_LIST_SIZE.
const FIELD_OVERHEAD: usize = 32;

/// What the head of a request says about the call.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RequestHead {
    /// How long the client waits for the call to end; `None` if it did not say. Zero when that time is over already.
    pub timeout: Option<std::time::Duration>,
    /// What compressed messages of the request are compressed with; `None` if they may not be compressed.
    pub encoding: Option<Arc<dyn Encoding>>,
    /// The first of our encodings that the client accepts.
    pub reply_encoding: Option<Arc<dyn Encoding>>,
}

/// Why a request is no call, and what it is answered with. The connection goes on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The request is not gRPC: an HTTP status, and a text for who reads it.
    Http {
        /// 400, 405 or 415.
        status: StatusCode,
        /// What is wrong.
        message: String,
    },
    /// The request is gRPC that does not work: HTTP status 200 and a gRPC status.
    Status(Status),
}

impl Refusal {
    /// The complete answer, which is one header block with the end of the stream.
    ///
    /// It has a `grpc-status` also when the HTTP status is not 200: both say the same, by the table that clients use.
    pub fn into_response(self, encodings: &Encodings) -> http::Response<()> {
        let mut response = http::Response::new(());
        write_response(response.headers_mut(), None, encodings);
        match self {
            Self::Status(status) => status.write_to(response.headers_mut()),
            Self::Http { status, message } => {
                *response.status_mut() = status;
                Status::new(Code::from_http_status(status), message).write_to(response.headers_mut());
                if status == StatusCode::METHOD_NOT_ALLOWED {
                    // RFC 9110, 15.5.6: a 405 must say which methods are allowed.
                    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
                }
            }
        }
        response
    }
}

/// Reads the head of a request.
///
/// The path is not looked at: see [`Path`](crate::Path).
///
/// # Errors
///
/// 405 for another method than POST, 415 for a content type that is not gRPC, 400 for several `host` headers;
/// UNIMPLEMENTED for a codec or a `grpc-encoding` that is not known, INTERNAL for a malformed `grpc-timeout`,
/// RESOURCE_EXHAUSTED for more headers than [`Limits::max_header_list_size`].
pub fn parse_request(parts: &Parts, limits: &Limits, encodings: &Encodings) -> Result<RequestHead, Refusal> {
    if parts.method != Method::POST {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, format!("the method is {} and must be POST", parts.method));
    }
    match content_type(&parts.headers) {
        ContentType::Grpc => {}
        ContentType::OtherCodec => {
            return Err(Refusal::Status(Status::unimplemented("the content-type names a codec that is not known here")));
        }
        ContentType::Other => {
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content-type must be application/grpc".into());
        }
    }
    // gRFC A41: several hosts leave open which of them was authorized.
    if parts.headers.get_all(header::HOST).iter().nth(1).is_some() {
        return refuse(StatusCode::BAD_REQUEST, "there is more than one host header".into());
    }
    let size = header_list_size(parts);
    if size > limits.max_header_list_size as usize {
        let limit = limits.max_header_list_size;
        let message = format!("{size} bytes of headers are more than the limit of {limit} (max_header_list_size)");
        return Err(Refusal::Status(Status::resource_exhausted(message)));
    }
    let timeout = match parts.headers.get(GRPC_TIMEOUT) {
        Some(value) => Some(timeout::parse(value.as_bytes()).map_err(|error| Refusal::Status(error.into()))?),
        None => None,
    };
    let encoding = match message_encoding(&parts.headers, encodings) {
        MessageEncoding::Identity => None,
        MessageEncoding::Known(encoding) => Some(encoding.clone()),
        // compression.md, "Compression Method Asymmetry": UNIMPLEMENTED, and grpc-accept-encoding says what would do.
        MessageEncoding::Unknown(name) => {
            return Err(Refusal::Status(Status::unimplemented(format!("grpc-encoding {name:?} is not known here"))));
        }
    };
    Ok(RequestHead { timeout, encoding, reply_encoding: accepted(&parts.headers, encodings).cloned() })
}

/// Adds what the protocol wants in the head of a request. `user-agent` is left as it is if there is one.
#[inline]
pub fn write_request(
    headers: &mut HeaderMap,
    timeout: Option<std::time::Duration>,
    encoding: Option<&dyn Encoding>,
    encodings: &Encodings,
) {
    // PROTOCOL-HTTP2.md, "Requests": the timeout should come first, and all of these before custom metadata.
    if let Some(timeout) = timeout {
        set(headers, GRPC_TIMEOUT, timeout::encode(timeout));
    }
    set(headers, header::TE, TRAILERS);
    set(headers, header::CONTENT_TYPE, APPLICATION_GRPC);
    write_encodings(headers, encoding, encodings);
    if !headers.contains_key(header::USER_AGENT) {
        set(headers, header::USER_AGENT, USER_AGENT);
    }
}

/// Adds what the protocol wants in the head of a response.
#[inline]
pub fn write_response(headers: &mut HeaderMap, encoding: Option<&dyn Encoding>, encodings: &Encodings) {
    set(headers, header::CONTENT_TYPE, APPLICATION_GRPC);
    write_encodings(headers, encoding, encodings);
}

fn write_encodings(headers: &mut HeaderMap, encoding: Option<&dyn Encoding>, encodings: &Encodings) {
    if let Some(value) = encoding.and_then(|encoding| encodings.header_of(encoding)) {
        set(headers, GRPC_ENCODING, value);
    }
    if !encodings.is_empty() {
        set(headers, GRPC_ACCEPT_ENCODING, encodings.accept_header());
    }
}

/// `insert`, which would panic on a map that a user has filled to its last place.
fn set(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    let _fits = headers.try_insert(name, value).is_ok();
}

/// What a content type is to gRPC.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum ContentType {
    /// `application/grpc`, also with `+proto` and with parameters.
    Grpc,
    /// `application/grpc` with another codec.
    OtherCodec,
    /// Anything else, or none.
    Other,
}

pub(crate) fn content_type(headers: &HeaderMap) -> ContentType {
    match headers.get(header::CONTENT_TYPE) {
        Some(value) => classify(value.as_bytes()),
        None => ContentType::Other,
    }
}

fn classify(value: &[u8]) -> ContentType {
    const GRPC: &[u8] = b"application/grpc";
    let Some((media_type, rest)) = value.split_at_checked(GRPC.len()) else {
        return ContentType::Other;
    };
    // RFC 9110, 8.3.1: media types are case-insensitive.
    if !media_type.eq_ignore_ascii_case(GRPC) {
        return ContentType::Other;
    }
    match rest {
        [] | [b';', ..] => ContentType::Grpc,
        [b'+', codec @ ..] => match codec.split(|byte| *byte == b';').next().map(<[u8]>::trim_ascii_end) {
            Some(codec) if codec.eq_ignore_ascii_case(b"proto") => ContentType::Grpc,
            _ => ContentType::OtherCodec,
        },
        [b' ' | b'\t', ..] if rest.trim_ascii_start().first().is_none_or(|byte| *byte == b';') => ContentType::Grpc,
        _ => ContentType::Other,
    }
}

/// What `grpc-encoding` says.
pub(crate) enum MessageEncoding<'a> {
    Identity,
    Known(&'a Arc<dyn Encoding>),
    Unknown(String),
}

pub(crate) fn message_encoding<'a>(headers: &HeaderMap, encodings: &'a Encodings) -> MessageEncoding<'a> {
    let Some(value) = headers.get(GRPC_ENCODING) else {
        return MessageEncoding::Identity;
    };
    match value.to_str() {
        Ok("identity") => MessageEncoding::Identity,
        Ok(name) => match encodings.find(name) {
            Some(encoding) => MessageEncoding::Known(encoding),
            None => MessageEncoding::Unknown(name.chars().take(40).collect()),
        },
        Err(_) => MessageEncoding::Unknown(String::from("?")),
    }
}

fn accepted<'a>(headers: &HeaderMap, encodings: &'a Encodings) -> Option<&'a Arc<dyn Encoding>> {
    headers.get_all(GRPC_ACCEPT_ENCODING).iter().find_map(|accept| encodings.choose(accept))
}

/// The size of a request's header list, as HTTP/2 counts it.
fn header_list_size(parts: &Parts) -> usize {
    let fields = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD);
    let uri = &parts.uri;
    let pseudo = [
        (":method", parts.method.as_str().len()),
        (":scheme", uri.scheme_str().map_or(0, str::len)),
        (":authority", uri.authority().map_or(0, |authority| authority.as_str().len())),
        (":path", uri.path_and_query().map_or(0, |path| path.as_str().len())),
    ];
    fields.sum::<usize>() + pseudo.iter().map(|(name, len)| name.len() + len + FIELD_OVERHEAD).sum::<usize>()
}

fn refuse<T>(status: StatusCode, message: String) -> Result<T, Refusal> {
    Err(Refusal::Http { status, message })
}
