//! Heads of calls: the headers of requests and responses, read once into types and written from types.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};

use crate::code::Code;
use crate::compression::Compressor;
use crate::compressors::Compressors;
use crate::header_list::{field_size, pseudo_size};
use crate::header_names::{
    APPLICATION_GRPC, GRPC_ACCEPT_ENCODING, GRPC_ENCODING, GRPC_STATUS, GRPC_TIMEOUT,
};
use crate::metadata::Metadata;
use crate::status::Status;
use crate::timeout;

// PROTOCOL-HTTP2.md, "User Agents": "grpc-" Language ["-" Variant] "/" Version.
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("grpc-rust-trunkline/", env!("CARGO_PKG_VERSION")));
const TEXT_PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// The advice for clients that call a method by plain HTTP.
const WAY_OUT: &str = "this is a gRPC server; call it with a gRPC client, or with grpcurl";

/// The head of a request.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RequestHead {
    /// The time that the client waits for the end of the call; `None` without a timeout. Zero if it has
    /// passed already.
    pub timeout: Option<Duration>,
    /// The compressor of the compressed messages of the request; `None` if they cannot be compressed.
    pub compressor: Option<Arc<dyn Compressor>>,
    /// The first of our compressors that the client accepts.
    pub response_compressor: Option<Arc<dyn Compressor>>,
}

/// The refusal of a request that is not a call. The connection continues.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The request is not gRPC: an HTTP status, and a text for people.
    Http {
        /// 400, 405 or 415.
        status: StatusCode,
        /// The error, and the way out.
        message: String,
    },
    /// The request is gRPC and fails: HTTP status 200 and a gRPC status.
    Status(Status),
    /// As `Status`, for messages with an unknown compression: the response lists the known ones.
    Compressor(Status),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Refusal {
    /// Returns the code of the response.
    pub fn code(&self) -> Code {
        match self {
            Self::Http { status, .. } => Code::from_http_status(*status),
            Self::Status(status) | Self::Compressor(status) => status.code(),
        }
    }

    /// Returns the complete response: a head, a text for clients that do not speak gRPC, empty for
    /// those that do, and the trailers, if the head does not contain them.
    ///
    /// There is a `grpc-status` also if the HTTP status is not 200. Both say the same, by the table
    /// that clients use.
    pub fn into_response(
        self,
        compressors: &Compressors,
    ) -> (http::Response<String>, Option<HeaderMap>) {
        match self {
            Self::Status(status) => (status.into_response(), None),
            // PROTOCOL-HTTP2.md, "Responses": Trailers-Only has no room for grpc-accept-encoding.
            Self::Compressor(status) => {
                let mut response = http::Response::default();
                write_response(response.headers_mut(), None, compressors);
                (response, Some(status.into_trailers()))
            }
            Self::Http { status, message } => {
                let text = format!("{message}\n");
                let end = Status::new(Code::from_http_status(status), message);
                let mut response = end.into_response::<()>().map(|()| text);
                *response.status_mut() = status;
                let headers = response.headers_mut();
                set(headers, header::CONTENT_TYPE, TEXT_PLAIN);
                if status == StatusCode::METHOD_NOT_ALLOWED {
                    // RFC 9110, 15.5.6: a 405 must list the allowed methods.
                    set(headers, header::ALLOW, HeaderValue::from_static("POST"));
                }
                (response, None)
            }
        }
    }
}

impl Status {
    /// Returns the response of a call that fails before its first message. It has HTTP status 200, the
    /// status in its head (in gRPC, a Trailers-Only response), and an empty body.
    ///
    /// Return it from a tower layer that refuses a request. A message of more than 8 KiB is truncated. The
    /// details and metadata of a status that was received from a peer are removed, unless
    /// [`forward`](Self::forward) was called.
    ///
    /// ```
    /// # use trunkline_codec as trunkline;
    /// use trunkline::Status;
    ///
    /// let response: http::Response<()> = Status::unauthenticated("no token").into_response();
    /// assert_eq!(response.status(), 200);
    /// assert_eq!(response.headers()["grpc-status"], "16");
    /// ```
    pub fn into_response<B: Default>(self) -> http::Response<B> {
        trailers_only(Err(self.redacted()), Metadata::new())
    }
}

/// Returns the response of a call that ends without messages, in one header block: the end, with
/// `metadata` added to that of the status.
///
/// Every failure becomes an HTTP response here: at a router, at the transport, and in tower layers
/// ([`Status::into_response`]).
// PROTOCOL-HTTP2.md, "Responses": Trailers-Only is HTTP-Status Content-Type Trailers. It says nothing
// about compressions, since there are no messages.
pub fn trailers_only<B: Default>(end: Result<(), Status>, metadata: Metadata) -> http::Response<B> {
    let mut response = http::Response::<B>::default();
    let headers = response.headers_mut();
    set(headers, header::CONTENT_TYPE, APPLICATION_GRPC);
    match end {
        Ok(()) => set(headers, GRPC_STATUS, Code::OK.to_header()),
        Err(status) => status.write_to(headers),
    }
    metadata.merge_into(headers);
    response
}

/// Reads the head of a request.
///
/// The path is not checked: see [`Path`](crate::Path).
///
/// # Errors
///
/// 405 for another method than POST, 415 for a content type that is not gRPC, 400 for several
/// `host` headers; UNIMPLEMENTED for a codec or a `grpc-encoding` that is not known, INTERNAL for a
/// malformed `grpc-timeout`, RESOURCE_EXHAUSTED for more than
/// `max_header_list_size` bytes of headers.
pub fn parse_request(
    parts: &Parts,
    max_header_list_size: u32,
    compressors: &Compressors,
) -> Result<RequestHead, Refusal> {
    if parts.method != Method::POST {
        let method: String = parts.method.as_str().chars().take(40).collect();
        let message = format!("the method is {method} and must be POST: {WAY_OUT}");
        return Err(Refusal::Http {
            status: StatusCode::METHOD_NOT_ALLOWED,
            message,
        });
    }
    let fields = RequestFields::collect(parts, compressors);
    match fields
        .content_type
        .map_or(ContentType::Other, ContentType::of)
    {
        ContentType::Grpc => {}
        // The peer speaks gRPC, so it can read a gRPC status.
        ContentType::OtherCodec => {
            let message = "the codec that the content-type names is not supported; send application/grpc or application/grpc+proto";
            return Err(Status::unimplemented(message).into());
        }
        // PROTOCOL-HTTP2.md, "Requests": 415 keeps other HTTP/2 clients from taking a gRPC error,
        // which has HTTP status 200, for a success.
        ContentType::Other => {
            return Err(not_grpc(fields.content_type));
        }
    }
    // gRFC A41: several hosts leave open which of them was authorized.
    if fields.hosts > 1 {
        let message = String::from("there is more than one host header");
        return Err(Refusal::Http {
            status: StatusCode::BAD_REQUEST,
            message,
        });
    }
    let (size, limit) = (fields.size, max_header_list_size);
    if size > limit as usize {
        return Err(Refusal::Status(Status::resource_exhausted(format!(
            "{size} bytes of request headers are more than the limit of {limit}: send less metadata, or raise ServerLimits::max_header_list_size, and Http2Limits::max_header_list_size_hard with it beyond 32 KiB"
        ))));
    }
    let timeout = match fields.timeout {
        Some(value) => Some(timeout::parse(value).map_err(Status::from)?),
        None => None,
    };
    let compressor = match MessageEncoding::of(fields.compressor, compressors) {
        MessageEncoding::Identity => None,
        MessageEncoding::Known(compressor) => Some(compressor.clone()),
        // compression.md, "Compression Method Asymmetry Between Peers": UNIMPLEMENTED, and the
        // response's grpc-accept-encoding lists the supported ones.
        MessageEncoding::Unknown(name) => {
            let message = unknown_encoding("the request", &name, compressors);
            return Err(Refusal::Compressor(Status::unimplemented(message)));
        }
    };
    Ok(RequestHead {
        timeout,
        compressor,
        response_compressor: fields.accepted.cloned(),
    })
}

fn not_grpc(content_type: Option<&[u8]>) -> Refusal {
    let message = match content_type {
        None => format!("the content-type is missing and must be application/grpc: {WAY_OUT}"),
        Some(value) => format!(
            "the content-type is {:?} and must be application/grpc: {WAY_OUT}",
            beginning(value)
        ),
    };
    Refusal::Http {
        status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
        message,
    }
}

/// Returns the timeout in the head of a request, if it is present and valid.
pub fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    timeout::parse(headers.get(&GRPC_TIMEOUT)?.as_bytes()).ok()
}

/// Adds the fields of the protocol to the head of a request, before those present. `user-agent` keeps
/// its value if it has one.
#[inline]
pub fn write_request(
    headers: &mut HeaderMap,
    timeout: Option<Duration>,
    compressor: Option<&dyn Compressor>,
    compressors: &Compressors,
) {
    // PROTOCOL-HTTP2.md, "Requests": the timeout should come first, and all of these before custom
    // metadata. A header map keeps the order in which names come into it.
    let custom = std::mem::take(headers);
    if let Some(timeout) = timeout {
        set(headers, GRPC_TIMEOUT.clone(), timeout::encode(timeout));
    }
    set(headers, header::TE, TRAILERS);
    set(headers, header::CONTENT_TYPE, APPLICATION_GRPC);
    write_compression(headers, compressor, compressors);
    let agent = custom.get(header::USER_AGENT).cloned();
    set(headers, header::USER_AGENT, agent.unwrap_or(USER_AGENT));
    append_new(headers, custom);
}

/// The fields that [`write_request`] adds for a client whose compressors are always the same. To copy
/// them costs half as much as to write them.
#[derive(Clone, Debug)]
pub struct ClientFields {
    plain: HeaderMap,
    /// With a `grpc-timeout` of any value.
    timed: HeaderMap,
    compressors: Compressors,
}

impl ClientFields {
    /// Creates the fields of a client with these compressors.
    pub fn new(compressors: Compressors) -> Self {
        let fields = |timeout| {
            let mut headers = HeaderMap::new();
            write_request(&mut headers, timeout, None, &compressors);
            headers
        };
        Self {
            plain: fields(None),
            timed: fields(Some(Duration::ZERO)),
            compressors,
        }
    }

    /// Returns the compressors that the client supports.
    #[inline]
    pub fn compressors(&self) -> &Compressors {
        &self.compressors
    }

    /// Adds the fields as [`write_request`] does.
    pub fn write(
        &self,
        headers: &mut HeaderMap,
        timeout: Option<Duration>,
        compressor: Option<&dyn Compressor>,
    ) {
        if compressor.is_some() || headers.contains_key(header::USER_AGENT) {
            return write_request(headers, timeout, compressor, &self.compressors);
        }
        let fields = match timeout {
            None => self.plain.clone(),
            Some(timeout) => {
                let mut fields = self.timed.clone();
                set(&mut fields, GRPC_TIMEOUT.clone(), timeout::encode(timeout));
                fields
            }
        };
        let custom = std::mem::replace(headers, fields);
        if !custom.is_empty() {
            append_new(headers, custom);
        }
    }
}

/// Adds the fields whose names are missing, up to the limit of a header map.
fn append_new(headers: &mut HeaderMap, more: HeaderMap) {
    let mut last = None;
    for (name, value) in more {
        // A header map yields the name with the first of its values only.
        if let Some(name) = name {
            last = (!headers.contains_key(&name)).then_some(name);
        }
        if let Some(name) = &last {
            let _fits = headers.try_append(name, value).is_ok();
        }
    }
}

/// Adds the fields of the protocol to the head of a response.
#[inline]
pub fn write_response(
    headers: &mut HeaderMap,
    compressor: Option<&dyn Compressor>,
    compressors: &Compressors,
) {
    set(headers, header::CONTENT_TYPE, APPLICATION_GRPC);
    write_compression(headers, compressor, compressors);
}

fn write_compression(
    headers: &mut HeaderMap,
    compressor: Option<&dyn Compressor>,
    compressors: &Compressors,
) {
    if let Some(value) = compressor.and_then(|compressor| compressors.header_of(compressor)) {
        set(headers, GRPC_ENCODING, value);
    }
    if !compressors.is_empty() {
        set(headers, GRPC_ACCEPT_ENCODING, compressors.accept_header());
    }
}

/// `insert`, which would panic on a map that a user has filled to its last place.
fn set(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    let _fits = headers.try_insert(name, value).is_ok();
}

/// The fields of a request that matter here, found in one pass: a lookup each would cost more.
#[derive(Default)]
struct RequestFields<'a> {
    /// The size of the header list, as HTTP/2 counts it.
    size: usize,
    hosts: usize,
    content_type: Option<&'a [u8]>,
    timeout: Option<&'a [u8]>,
    compressor: Option<&'a [u8]>,
    accepted: Option<&'a Arc<dyn Compressor>>,
}

impl<'a> RequestFields<'a> {
    fn collect(parts: &'a Parts, compressors: &'a Compressors) -> Self {
        let mut fields = Self {
            size: pseudo_size(&parts.method, &parts.uri),
            ..Self::default()
        };
        for (name, value) in &parts.headers {
            fields.size += field_size(name.as_str().len(), value.len());
            match name.as_str() {
                "host" => fields.hosts += 1,
                "content-type" => keep_first(&mut fields.content_type, value),
                "grpc-timeout" => keep_first(&mut fields.timeout, value),
                "grpc-encoding" => keep_first(&mut fields.compressor, value),
                "grpc-accept-encoding" => {
                    fields.accepted = fields.accepted.or_else(|| compressors.choose(value));
                }
                _ => {}
            }
        }
        fields
    }
}

fn keep_first<'a>(field: &mut Option<&'a [u8]>, value: &'a HeaderValue) {
    *field = field.or(Some(value.as_bytes()));
}

/// The head of a response.
pub(crate) struct ResponseHead {
    pub(crate) compressor: Option<Arc<dyn Compressor>>,
    /// True if the head has a `grpc-status`, so that it may be the whole response.
    pub(crate) has_status: bool,
}

/// Reads the head of a response. A response that is not gRPC becomes the status that it stands for.
pub(crate) fn parse_response(
    status: StatusCode,
    headers: &HeaderMap,
    compressors: &Compressors,
) -> Result<ResponseHead, Status> {
    let fields = ResponseFields::collect(headers);
    let content_type = fields
        .content_type
        .map_or(ContentType::Other, ContentType::of);
    let own_error = match fields.has_status {
        true => Status::from_trailers(headers).and_then(Result::err),
        false => None,
    };
    if status != StatusCode::OK || content_type == ContentType::Other {
        const NOT_GRPC: &str = "the content-type of the response is not application/grpc";
        // http-grpc-status-mapping.md: the mapping is for responses without a grpc-status. One
        // that says OK does not go with a response that is none.
        return Err(own_error.unwrap_or_else(|| {
            match status {
                StatusCode::OK => Status::unknown(NOT_GRPC),
                _ => Status::from_http_status(status),
            }
            .of_peer(headers)
        }));
    }
    let compressor = match (
        MessageEncoding::of(fields.compressor, compressors),
        content_type,
    ) {
        (MessageEncoding::Known(compressor), ContentType::Grpc) => Some(compressor.clone()),
        (MessageEncoding::Identity, ContentType::Grpc) => None,
        // A response that failed immediately has no messages to misread.
        _ if own_error.is_some() => None,
        // compression.md, "Compression Method Asymmetry Between Peers": INTERNAL at a client.
        (MessageEncoding::Unknown(name), _) => {
            let message = unknown_encoding("the response", &name, compressors);
            return Err(Status::internal(message).of_peer(headers));
        }
        _ => {
            let message =
                "the content-type of the response names a codec other than the requested one";
            return Err(Status::internal(message).of_peer(headers));
        }
    };
    Ok(ResponseHead {
        compressor,
        has_status: fields.has_status,
    })
}

/// The fields of a response's head that matter here, found in one pass.
#[derive(Default)]
struct ResponseFields<'a> {
    content_type: Option<&'a [u8]>,
    compressor: Option<&'a [u8]>,
    has_status: bool,
}

impl<'a> ResponseFields<'a> {
    fn collect(headers: &'a HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "content-type" => keep_first(&mut fields.content_type, value),
                "grpc-encoding" => keep_first(&mut fields.compressor, value),
                "grpc-status" => fields.has_status = true,
                _ => {}
            }
        }
        fields
    }
}

/// compression.md, "Test cases": the description contains the compression and the supported ones.
fn unknown_encoding(whose: &str, name: &str, compressors: &Compressors) -> String {
    let supported = compressors.accept_header();
    format!("{whose} has grpc-encoding {name:?}, but only {supported:?} are supported")
}

/// Returns the part of a peer's value that messages repeat.
fn beginning(value: &[u8]) -> String {
    String::from_utf8_lossy(value).chars().take(40).collect()
}

/// The kinds of content types.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum ContentType {
    /// `application/grpc`, also with `+proto` and with parameters.
    Grpc,
    /// `application/grpc` with another codec.
    OtherCodec,
    /// Anything else, or none.
    Other,
}

impl ContentType {
    fn of(value: &[u8]) -> Self {
        const GRPC: &[u8] = b"application/grpc";
        if value == GRPC {
            return Self::Grpc;
        }
        let media_type = value
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or(value)
            .trim_ascii();
        let Some((grpc, codec)) = media_type.split_at_checked(GRPC.len()) else {
            return Self::Other;
        };
        // RFC 9110, 8.3.1: media types are case-insensitive.
        match grpc.eq_ignore_ascii_case(GRPC) {
            true if codec.is_empty() || codec.eq_ignore_ascii_case(b"+proto") => Self::Grpc,
            true if codec[0] == b'+' => Self::OtherCodec,
            true | false => Self::Other,
        }
    }
}

/// The value of `grpc-encoding`.
enum MessageEncoding<'a> {
    Identity,
    Known(&'a Arc<dyn Compressor>),
    /// The start of the name, for people.
    Unknown(String),
}

impl<'a> MessageEncoding<'a> {
    fn of(value: Option<&[u8]>, compressors: &'a Compressors) -> Self {
        let Some(value) = value.filter(|value| *value != b"identity") else {
            return Self::Identity;
        };
        let compressor = str::from_utf8(value)
            .ok()
            .and_then(|name| compressors.find(name));
        match compressor {
            Some(compressor) => Self::Known(compressor),
            None => Self::Unknown(beginning(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, pairs: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder()
            .method(method)
            .uri("http://host/a.B/C");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const MAX_HEADER_LIST_SIZE: u32 = 16 * 1024;

    fn parse(method: &str, pairs: &[(&str, &str)]) -> Result<RequestHead, Refusal> {
        parse_request(
            &parts(method, pairs),
            MAX_HEADER_LIST_SIZE,
            &Compressors::default(),
        )
    }

    fn parse_with(name: &str, value: &str) -> Result<RequestHead, Refusal> {
        parse(
            "POST",
            &[("content-type", "application/grpc"), (name, value)],
        )
    }

    /// A refusal as its HTTP status and its `grpc-status`.
    fn answer(refusal: Refusal) -> (u16, String) {
        let (response, trailers) = refusal.into_response(&Compressors::default());
        assert_eq!(trailers, None);
        for name in [GRPC_ENCODING, GRPC_ACCEPT_ENCODING] {
            assert!(!response.headers().contains_key(name));
        }
        let statuses: Vec<_> = response.headers().get_all("grpc-status").iter().collect();
        assert_eq!(statuses.len(), 1);
        (
            response.status().as_u16(),
            statuses[0].to_str().unwrap().to_owned(),
        )
    }

    #[test]
    fn content_types_pass_or_not_as_the_document_says() {
        use ContentType::{Grpc, Other, OtherCodec};
        let table = [
            ("application/grpc", Grpc),
            ("application/grpc+proto", Grpc),
            ("application/grpc;charset=utf-8", Grpc),
            ("application/grpc+proto; charset=utf-8", Grpc),
            ("application/grpc ; x", Grpc),
            ("Application/GRPC+Proto", Grpc),
            ("application/grpc;", Grpc),
            ("application/grpc+json", OtherCodec),
            ("application/grpc+protox", OtherCodec),
            ("application/grpc+", OtherCodec),
            ("application/grpcx", Other),
            ("application/grpc-web", Other),
            ("application/grpc proto", Other),
            ("application/grp", Other),
            ("application/json", Other),
            ("text/html", Other),
            ("image/jpeg", Other),
            ("", Other),
            (";", Other),
        ];
        for (value, expected) in table {
            assert_eq!(ContentType::of(value.as_bytes()), expected, "{value:?}");
        }
    }

    #[test]
    fn a_request_that_is_not_grpc_is_refused_by_http() {
        let grpc = ("content-type", "application/grpc");
        let table = [
            (parse("GET", &[grpc]), (405, "2")),
            (parse("PUT", &[grpc]), (405, "2")),
            (parse("CONNECT", &[]), (405, "2")),
            (parse("POST", &[]), (415, "2")),
            (
                parse("POST", &[("content-type", "application/grpcx")]),
                (415, "2"),
            ),
            (
                parse("POST", &[grpc, ("host", "a"), ("host", "a")]),
                (400, "13"),
            ),
            (
                parse("POST", &[("content-type", "application/grpc+json")]),
                (200, "12"),
            ),
        ];
        for (result, (status, code)) in table {
            assert_eq!(answer(result.unwrap_err()), (status, code.to_owned()));
        }
        assert!(parse("POST", &[grpc, ("host", "a")]).is_ok());
        let refusal = parse("GET", &[grpc]).unwrap_err();
        let (response, _) = refusal.into_response(&Compressors::none());
        assert_eq!(response.headers()["allow"], "POST");
    }

    #[test]
    fn a_plain_call_has_no_timeout_and_no_compressors() {
        let head = parse("POST", &[("content-type", "application/grpc")]).unwrap();
        assert!(
            head.timeout.is_none()
                && head.compressor.is_none()
                && head.response_compressor.is_none()
        );
    }

    #[test]
    fn timeouts_are_read_and_malformed_ones_are_internal() {
        for (value, expected) in [("0S", 0), ("1500m", 1_500), ("2S", 2_000)] {
            let head = parse_with("grpc-timeout", value).unwrap();
            assert_eq!(head.timeout, Some(Duration::from_millis(expected)));
        }
        let longest = parse_with("grpc-timeout", "99999999H").unwrap();
        assert_eq!(longest.timeout, Some(timeout::MAX));
        for value in ["", "S", "1", "1s", "-1S", "123456789S", "1 S"] {
            let refusal = parse_with("grpc-timeout", value).unwrap_err();
            assert_eq!(answer(refusal), (200, "13".to_owned()), "{value:?}");
        }
    }

    #[cfg(all(feature = "gzip", feature = "deflate"))]
    #[test]
    fn compressors_are_found_and_unknown_encodings_are_refused_with_the_supported_ones() {
        let name =
            |compressor: Option<Arc<dyn Compressor>>| compressor.map(|it| it.name().to_owned());
        for (value, expected) in [("identity", None), ("gzip", Some("gzip"))] {
            let head = parse_with("grpc-encoding", value).unwrap();
            assert_eq!(name(head.compressor).as_deref(), expected);
        }
        for (value, expected) in [("identity", None), ("br, gzip", Some("gzip")), ("", None)] {
            let head = parse_with("grpc-accept-encoding", value).unwrap();
            assert_eq!(name(head.response_compressor).as_deref(), expected);
        }
        for value in ["br", "", "GZIP", "identity,gzip"] {
            let refusal = parse_with("grpc-encoding", value).unwrap_err();
            let (response, trailers) = refusal.into_response(&Compressors::default());
            assert!(!response.headers().contains_key("grpc-status"), "{value:?}");
            assert_eq!(
                response.headers()["grpc-accept-encoding"],
                "identity,gzip,deflate"
            );
            assert_eq!(trailers.unwrap()["grpc-status"], "12", "{value:?}");
        }
    }

    #[test]
    fn a_second_accept_header_counts_as_well() {
        for accepted in [["br", "gzip"], ["gzip", "br"]] {
            let [first, second] = accepted.map(|value| ("grpc-accept-encoding", value));
            let head = parse(
                "POST",
                &[("content-type", "application/grpc"), first, second],
            );
            assert_eq!(
                head.unwrap().response_compressor.is_some(),
                cfg!(feature = "gzip")
            );
        }
    }

    #[test]
    fn the_header_limit_is_exact() {
        let size = |value: usize| {
            // Each field with its 32 bytes: the pseudo-headers, content-type, and one more.
            let pseudo = [
                ":methodPOST",
                ":schemehttp",
                ":authorityhost",
                ":path/a.B/C",
            ];
            let pseudo: usize = pseudo.iter().map(|field| field.len() + 32).sum();
            pseudo + "content-typeapplication/grpc".len() + 32 + "k".len() + value + 32
        };
        let limit = MAX_HEADER_LIST_SIZE as usize;
        let room = limit - size(0);
        for (len, fits) in [(room - 1, true), (room, true), (room + 1, false)] {
            let result = parse_with("k", &"x".repeat(len));
            match result {
                Ok(_) => assert!(fits),
                Err(refusal) => assert_eq!((answer(refusal), fits), ((200, "8".into()), false)),
            }
        }
    }

    #[test]
    fn what_a_peer_may_not_say_is_ignored() {
        for name in [
            "grpc-status",
            "grpc-message",
            "grpc-status-details-bin",
            "x-bin",
        ] {
            assert!(parse_with(name, "0").is_ok(), "{name}");
        }
    }

    #[test]
    fn the_head_of_a_request_has_what_strict_servers_look_for() {
        let mut headers = HeaderMap::new();
        let compressors = Compressors::none();
        write_request(&mut headers, None, None, &compressors);
        let lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        let agent = concat!("grpc-rust-trunkline/", env!("CARGO_PKG_VERSION"));
        let expected = [
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", agent),
        ];
        assert_eq!(lines.len(), expected.len());
        for ((name, value), expected) in lines.into_iter().zip(expected) {
            assert_eq!((name, value.to_str().unwrap()), expected);
        }
    }

    #[test]
    fn the_definition_of_a_call_stands_before_custom_metadata_and_once() {
        let mut headers = HeaderMap::new();
        let custom = [
            ("b", "1"),
            ("te", "x"),
            ("te", "y"),
            ("a", "2"),
            ("user-agent", "mine/1"),
            ("b", "3"),
        ];
        for (name, value) in custom {
            headers.append(name, HeaderValue::from_static(value));
        }
        let timeout = Some(Duration::from_secs(1));
        write_request(&mut headers, timeout, None, &Compressors::none());
        let lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        let expected = [
            ("grpc-timeout", "1000000u"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "mine/1"),
            ("b", "1"),
            ("b", "3"),
            ("a", "2"),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_fields_of_a_client_are_those_that_are_written_one_by_one() {
        let compressors = Compressors::default();
        let fields = ClientFields::new(compressors.clone());
        let compressor = fields.compressors().find("gzip").cloned();
        for custom in [
            &[][..],
            &[("a", "1"), ("te", "x")],
            &[("user-agent", "mine/1")],
        ] {
            for timeout in [None, Some(Duration::from_millis(5))] {
                for compressor in [None, compressor.as_deref()] {
                    let mut expected = HeaderMap::new();
                    for (name, value) in custom {
                        expected.append(*name, HeaderValue::from_static(value));
                    }
                    let mut headers = expected.clone();
                    fields.write(&mut headers, timeout, compressor);
                    write_request(&mut expected, timeout, compressor, &compressors);
                    let lines = |headers: &HeaderMap| {
                        let lines = headers
                            .iter()
                            .map(|(name, value)| (name.clone(), value.clone()));
                        lines.collect::<Vec<_>>()
                    };
                    assert_eq!(lines(&headers), lines(&expected));
                }
            }
        }
    }

    #[test]
    fn metadata_that_fills_the_map_leaves_room_for_the_definition_of_the_call() {
        let mut headers = HeaderMap::new();
        let mut names = (0..40_000).map(|at| HeaderName::try_from(format!("k{at}")).unwrap());
        let value = HeaderValue::from_static("");
        assert!(names.any(|name| headers.try_append(name, value.clone()).is_err()));
        write_request(&mut headers, None, None, &Compressors::none());
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["content-type"], "application/grpc");
        assert!(headers.contains_key("k0"));
    }

    #[cfg(all(feature = "gzip", feature = "deflate"))]
    #[test]
    fn heads_have_compressors_timeout_and_the_users_agent() {
        let compressors = Compressors::default();
        let gzip = compressors.find("gzip").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_static("mine/1"));
        let timeout = Some(Duration::from_millis(5));
        write_request(&mut headers, timeout, Some(gzip.as_ref()), &compressors);
        assert_eq!(headers["grpc-timeout"], "5000000n");
        assert_eq!(headers["grpc-encoding"], "gzip");
        assert_eq!(headers["grpc-accept-encoding"], "identity,gzip,deflate");
        assert_eq!(
            headers.get_all("user-agent").iter().collect::<Vec<_>>(),
            ["mine/1"]
        );
        let mut headers = HeaderMap::new();
        write_response(&mut headers, Some(gzip.as_ref()), &compressors);
        assert_eq!(headers["content-type"], "application/grpc");
        assert_eq!(headers["grpc-encoding"], "gzip");
        assert_eq!(headers["grpc-accept-encoding"], "identity,gzip,deflate");
        let mut headers = HeaderMap::new();
        write_response(&mut headers, None, &Compressors::none());
        assert_eq!(headers.len(), 1);
    }
}
