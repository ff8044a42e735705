//! Status: how a call ended.

use std::fmt;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use prost::{Message as _, Name};
use prost_types::Any;

use crate::code::Code;
use crate::compression::CompressionError;
use crate::details;
use crate::frame::FrameError;
use crate::header_names::{GRPC_MESSAGE, GRPC_STATUS, GRPC_STATUS_DETAILS};
use crate::metadata::{self, Metadata, MetadataError};
use crate::percent;
use crate::timeout::TimeoutError;

/// The longest `grpc-message` that is sent, in bytes, percent-encoded. A longer one is cut, so that it
/// does not become a header list that the client refuses.
pub(crate) const MAX_STATUS_MESSAGE_SIZE: usize = 8 * 1024;

/// Why a call failed: a code, a message, and optionally details and metadata.
///
/// A status is an error and so never [`Code::OK`]; one that is created with that code becomes UNKNOWN.
/// A status has the size of a pointer, which keeps `Result<T, Status>` small.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::details::BadRequest;
/// use trunkline::{Code, Status};
///
/// let status = Status::invalid_argument("no such date")
///     .with_detail(BadRequest::violation("date.day", "February has no 30th"));
/// assert_eq!(status.code(), Code::INVALID_ARGUMENT);
/// assert_eq!(status.detail::<BadRequest>().unwrap().field_violations[0].field, "date.day");
/// assert_eq!(format!("{status:?}"), "INVALID_ARGUMENT: no such date (details: google.rpc.BadRequest)");
/// ```
#[derive(Clone)]
pub struct Status(Box<Parts>);

#[derive(Clone)]
struct Parts {
    code: Code,
    message: String,
    details: Vec<Any>,
    metadata: Metadata,
    /// Boxed, because few statuses have it.
    response_metadata: Option<Box<Metadata>>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    origin: Origin,
}

/// The origin of a status.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Origin {
    Here,
    Peer,
    /// At a peer, and a handler wants it passed on in full.
    PeerForwarded,
}

impl Status {
    /// Creates a status with this code and message. [`Code::OK`] becomes UNKNOWN.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        // A failed call that said OK would look like a success at its caller.
        let code = if code == Code::OK {
            Code::UNKNOWN
        } else {
            code
        };
        Self(Box::new(Parts {
            code,
            message: message.into(),
            details: Vec::new(),
            metadata: Metadata::new(),
            response_metadata: None,
            source: None,
            origin: Origin::Here,
        }))
    }

    /// Creates a status with [`Code::CANCELLED`].
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self::new(Code::CANCELLED, message)
    }

    /// Creates a status with [`Code::UNKNOWN`].
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(Code::UNKNOWN, message)
    }

    /// Creates a status with [`Code::INVALID_ARGUMENT`].
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(Code::INVALID_ARGUMENT, message)
    }

    /// Creates a status with [`Code::DEADLINE_EXCEEDED`].
    pub fn deadline_exceeded(message: impl Into<String>) -> Self {
        Self::new(Code::DEADLINE_EXCEEDED, message)
    }

    /// Creates a status with [`Code::NOT_FOUND`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NOT_FOUND, message)
    }

    /// Creates a status with [`Code::ALREADY_EXISTS`].
    pub fn already_exists(message: impl Into<String>) -> Self {
        Self::new(Code::ALREADY_EXISTS, message)
    }

    /// Creates a status with [`Code::PERMISSION_DENIED`].
    pub fn permission_denied(message: impl Into<String>) -> Self {
        Self::new(Code::PERMISSION_DENIED, message)
    }

    /// Creates a status with [`Code::RESOURCE_EXHAUSTED`].
    pub fn resource_exhausted(message: impl Into<String>) -> Self {
        Self::new(Code::RESOURCE_EXHAUSTED, message)
    }

    /// Creates a status with [`Code::FAILED_PRECONDITION`].
    pub fn failed_precondition(message: impl Into<String>) -> Self {
        Self::new(Code::FAILED_PRECONDITION, message)
    }

    /// Creates a status with [`Code::ABORTED`].
    pub fn aborted(message: impl Into<String>) -> Self {
        Self::new(Code::ABORTED, message)
    }

    /// Creates a status with [`Code::OUT_OF_RANGE`].
    pub fn out_of_range(message: impl Into<String>) -> Self {
        Self::new(Code::OUT_OF_RANGE, message)
    }

    /// Creates a status with [`Code::UNIMPLEMENTED`].
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::UNIMPLEMENTED, message)
    }

    /// Creates a status with [`Code::INTERNAL`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::INTERNAL, message)
    }

    /// Creates a status with [`Code::UNAVAILABLE`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::UNAVAILABLE, message)
    }

    /// Creates a status with [`Code::DATA_LOSS`].
    pub fn data_loss(message: impl Into<String>) -> Self {
        Self::new(Code::DATA_LOSS, message)
    }

    /// Creates a status with [`Code::UNAUTHENTICATED`].
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(Code::UNAUTHENTICATED, message)
    }

    /// Returns the code.
    #[inline]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Returns the message, for developers: do not show it to end users, and do not parse it.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the details: protobuf messages, each with its type. [`detail`](Self::detail) decodes
    /// one of them.
    pub fn details(&self) -> &[Any] {
        &self.0.details
    }

    /// Returns the first detail of type `D`; `None` if there is none or it cannot be decoded.
    ///
    /// Types are matched by their full protobuf name (`prost::Name`), which generated code and [`details`]
    /// implement.
    ///
    /// [`details`]: crate::details
    pub fn detail<D: Name + Default>(&self) -> Option<D> {
        self.0.details.iter().find_map(details::unpack)
    }

    /// Adds a detail: a message of [`details`] or any other generated message. Its type URL is
    /// `type.googleapis.com/` followed by the full name.
    #[must_use]
    pub fn with_detail(self, detail: impl Name) -> Self {
        self.with_any(details::pack(&detail))
    }

    /// Adds a detail that is already an `Any`, such as one received with another status or one whose type
    /// this program does not have.
    ///
    /// ```
    /// # mod trunkline { pub use trunkline_codec::Status; pub mod prost_types { pub use trunkline_codec::Any; } }
    /// use trunkline::Status;
    /// use trunkline::prost_types::Any;
    ///
    /// let detail = Any {
    ///     type_url: "type.googleapis.com/shop.v1.OutOfStock".into(),
    ///     value: vec![8, 3],
    /// };
    /// let status = Status::failed_precondition("sold out").with_any(detail.clone());
    /// assert_eq!(status.details(), [detail]);
    /// ```
    #[must_use]
    pub fn with_any(mut self, detail: Any) -> Self {
        self.0.details.push(detail);
        self
    }

    /// Returns the metadata of the trailers, received or to be sent with the status.
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// Returns a mutable reference to the metadata of the trailers.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.0.metadata
    }

    /// Replaces the metadata of the trailers.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// Returns the metadata of the response's head, if the call failed after its head had arrived:
    /// the metadata that the server sent before its messages. Empty otherwise, and on a server.
    ///
    /// For the metadata of the trailers, use [`metadata`](Self::metadata).
    pub fn response_metadata(&self) -> &Metadata {
        static NONE: LazyLock<Metadata> = LazyLock::new(Metadata::new);
        self.0.response_metadata.as_deref().unwrap_or(&NONE)
    }

    /// Replaces the metadata that [`response_metadata`](Self::response_metadata) returns, for tests
    /// that create the status of a failed call. It is never sent: a handler sets the metadata of its
    /// response's head with `ResponseHandle::metadata`.
    #[must_use]
    pub fn with_response_metadata(mut self, metadata: Metadata) -> Self {
        let is_empty = metadata.as_headers().is_empty();
        self.0.response_metadata = (!is_empty).then(|| Box::new(metadata));
        self
    }

    /// Adds the cause of the error, which is never sent.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// Returns true if the status was received from a peer.
    pub fn is_from_peer(&self) -> bool {
        self.0.origin != Origin::Here
    }

    /// Allows a handler to return a status that it received from another server together with its details
    /// and metadata. Without this, only code and message are sent to the client. Has no effect on a status
    /// that was created in this process.
    #[must_use]
    pub fn forward(mut self) -> Self {
        if self.0.origin == Origin::Peer {
            self.0.origin = Origin::PeerForwarded;
        }
        self
    }

    /// Returns true if [`forward`](Self::forward) was called on a peer's status.
    pub fn is_forwarded(&self) -> bool {
        self.0.origin == Origin::PeerForwarded
    }

    /// Returns the status that a server sends if a handler returns this one.
    ///
    /// Removes the details and metadata of a status that was received from a peer, unless
    /// [`forward`](Self::forward) was called: the peer sent them to this process, and they may reveal too
    /// much to its clients. Always removes [`response_metadata`](Self::response_metadata), too.
    #[must_use]
    pub fn redacted(mut self) -> Self {
        self.0.response_metadata = None;
        if self.0.origin == Origin::Peer {
            self.0.details = Vec::new();
            self.0.metadata = Metadata::new();
        }
        self
    }
}

/// Conversions to header fields.
impl Status {
    /// Adds `grpc-status`, `grpc-message`, `grpc-status-details-bin` and the metadata to `headers`. A message
    /// of more than 8 KiB is truncated.
    pub fn write_to(&self, headers: &mut HeaderMap) {
        self.write_status(headers, MAX_STATUS_MESSAGE_SIZE);
        self.0.metadata.clone().merge_into(headers);
    }

    /// Returns the trailers of a call that ended with this status. A message of more than 8 KiB is
    /// truncated.
    pub fn into_trailers(self) -> HeaderMap {
        self.into_trailers_within(MAX_STATUS_MESSAGE_SIZE)
    }

    fn into_trailers_within(mut self, max_message_size: usize) -> HeaderMap {
        // PROTOCOL-HTTP2.md, "Responses": Trailers is Status [Status-Message] *Custom-Metadata.
        let mut trailers = HeaderMap::new();
        self.write_status(&mut trailers, max_message_size);
        std::mem::take(&mut self.0.metadata).merge_into(&mut trailers);
        trailers
    }

    /// Returns the trailers of a successful call.
    #[inline]
    pub fn ok_trailers(metadata: Metadata) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        metadata.merge_into(&mut trailers);
        trailers
    }

    fn write_status(&self, headers: &mut HeaderMap, max_message_size: usize) {
        let status = &*self.0;
        set(headers, GRPC_STATUS, status.code.to_header());
        let (encoded, message) = percent::encode(&status.message, max_message_size);
        if !message.is_empty() {
            set(headers, GRPC_MESSAGE, encoded);
        }
        if status.details.is_empty() {
            return;
        }
        // The code and the message of the details must not differ from those beside them.
        let details = details::Status {
            code: status.code.as_i32(),
            message: message.to_owned(),
            details: status.details.clone(),
        };
        set(
            headers,
            GRPC_STATUS_DETAILS,
            metadata::encode_bin(&details.encode_to_vec()),
        );
    }
}

/// Conversions from header fields.
impl Status {
    /// Reads the status in trailers: `Ok(())` for code OK. Returns `None` if they have no `grpc-status`.
    ///
    /// If they have several, or one that is not a number, the code is UNKNOWN. If a part of the message cannot
    /// be decoded, the rest is kept. `grpc-status-details-bin` is ignored if it cannot be decoded, or if its
    /// code is neither 0 nor that of `grpc-status`.
    pub fn from_trailers(trailers: &HeaderMap) -> Option<Result<(), Self>> {
        // Trailers are few: to look at each costs less than to hash a name.
        let mut fields = trailers.iter().filter(|(name, _)| *name == GRPC_STATUS);
        let code = Code::from_header(fields.next()?.1.as_bytes());
        if fields.next().is_some() {
            let status = Self::unknown("the trailers have more than one grpc-status");
            return Some(Err(status.of_peer(trailers)));
        }
        if code == Code::OK {
            return Some(Ok(()));
        }
        let message = match trailers.get(GRPC_MESSAGE) {
            Some(value) => percent::decode(value.as_bytes()).into_owned(),
            None => String::new(),
        };
        let mut status = Self::new(code, message).of_peer(trailers);
        status.0.details = details_in(trailers, code);
        Some(Err(status))
    }

    /// Returns the status for a response without a `grpc-status`, according to its HTTP status.
    pub fn from_http_status(status: StatusCode) -> Self {
        let mut made = Self::new(
            Code::from_http_status(status),
            format!("the server responded with HTTP status {status}"),
        );
        made.0.origin = Origin::Peer;
        made
    }

    /// Returns the status of a call whose stream the peer has reset with this HTTP/2 error code.
    pub fn from_reset(reason: u32) -> Self {
        let name = reset_name(reason);
        let mut status = Self::new(
            Code::from_http2_error(reason),
            format!("the peer reset the stream with {name} ({reason})"),
        );
        status.0.origin = Origin::Peer;
        status
    }

    /// Marks the status as the peer's, with the metadata of these headers.
    pub(crate) fn of_peer(mut self, headers: &HeaderMap) -> Self {
        self.0.origin = Origin::Peer;
        self.0.metadata = Metadata::from_headers(headers.clone());
        self
    }
}

/// `insert`, which would panic on a map that is filled to its last place.
fn set(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    let _fits = headers.try_insert(name, value).is_ok();
}

fn details_in(trailers: &HeaderMap, code: Code) -> Vec<Any> {
    let decoded = trailers
        .get(GRPC_STATUS_DETAILS)
        .and_then(|value| metadata::decode_bin(value.as_bytes()))
        .and_then(|bytes: Bytes| details::Status::decode(bytes).ok());
    match decoded {
        // PROTOCOL-HTTP2.md, "Responses": if it contains a status code, it MUST NOT contradict the
        // Status header; the consumer MUST verify this.
        Some(status) if status.code == 0 || status.code == code.as_i32() => status.details,
        _ => Vec::new(),
    }
}

fn reset_name(reason: u32) -> &'static str {
    // RFC 9113, 7.
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES
        .get(reason as usize)
        .copied()
        .unwrap_or("an unknown error")
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message() {
            "" => write!(f, "{}", self.0.code),
            message => write!(f, "{}: {message}", self.0.code),
        }
    }
}

/// Prints one readable line, because `main` and `unwrap` use this format: `NOT_FOUND: no such feature (from
/// the peer)`.
impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        let mut notes = Vec::new();
        if self.is_from_peer() {
            notes.push(String::from("from the peer"));
        }
        if !self.0.details.is_empty() {
            let names: Vec<_> = self.0.details.iter().map(details::type_name).collect();
            notes.push(format!("details: {}", names.join(", ")));
        }
        if !self.0.metadata.is_empty() {
            notes.push(format!("metadata: {:?}", self.0.metadata));
        }
        if !self.response_metadata().is_empty() {
            notes.push(format!("response metadata: {:?}", self.response_metadata()));
        }
        if let Some(source) = self.0.source.as_ref().map(ToString::to_string) {
            // A message that contains its cause does not repeat it.
            if !self.message().contains(&source) {
                notes.push(format!("cause: {source}"));
            }
        }
        match notes.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", notes.join("; ")),
        }
    }
}

impl std::error::Error for Status {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl From<MetadataError> for Status {
    fn from(error: MetadataError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<TimeoutError> for Status {
    fn from(error: TimeoutError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<CompressionError> for Status {
    fn from(error: CompressionError) -> Self {
        match error {
            CompressionError::TooLarge => Self::resource_exhausted(error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<FrameError> for Status {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLarge { .. } => Self::resource_exhausted(error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::details::{BadRequest, ErrorInfo};

    fn headers(pairs: &[(&str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    /// Headers as text, in their order.
    fn lines(headers: &HeaderMap) -> Vec<String> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", text(value)))
            .collect()
    }

    fn of_peer(status: &Status) -> Status {
        Status::from_trailers(&status.clone().into_trailers())
            .unwrap()
            .unwrap_err()
    }

    #[test]
    fn a_status_is_one_word() {
        assert_eq!(size_of::<Result<(), Status>>(), size_of::<usize>());
    }

    #[test]
    fn there_is_a_constructor_for_each_code_but_ok() {
        let constructors: [fn(String) -> Status; 16] = [
            Status::cancelled,
            Status::unknown,
            Status::invalid_argument,
            Status::deadline_exceeded,
            Status::not_found,
            Status::already_exists,
            Status::permission_denied,
            Status::resource_exhausted,
            Status::failed_precondition,
            Status::aborted,
            Status::out_of_range,
            Status::unimplemented,
            Status::internal,
            Status::unavailable,
            Status::data_loss,
            Status::unauthenticated,
        ];
        for (constructor, number) in constructors.iter().zip(1..) {
            let status = constructor(String::from("why"));
            assert_eq!(
                (status.code(), status.message()),
                (Code::from(number), "why")
            );
            assert!(!status.is_from_peer());
        }
    }

    #[test]
    fn an_error_is_never_ok() {
        assert_eq!(Status::new(Code::OK, "x").code(), Code::UNKNOWN);
        assert_eq!(Status::new(Code::from(99), "x").code(), Code::from(99));
    }

    #[test]
    fn the_wire_has_status_message_details_and_metadata_once_each() {
        let mut metadata = Metadata::new();
        metadata.insert("a", "1").unwrap();
        let status = Status::not_found("no caf\u{e9}").with_metadata(metadata.clone());
        let expected = ["grpc-status: 5", "grpc-message: no caf%C3%A9", "a: 1"];
        assert_eq!(lines(&status.clone().into_trailers()), expected);
        let mut headers = headers(&[("content-type", b"application/grpc"), ("grpc-status", b"0")]);
        status.write_to(&mut headers);
        let expected = [
            "content-type: application/grpc",
            "grpc-status: 5",
            "grpc-message: no caf%C3%A9",
            "a: 1",
        ];
        assert_eq!(lines(&headers), expected);
        assert_eq!(
            lines(&Status::ok_trailers(metadata)),
            ["grpc-status: 0", "a: 1"]
        );
        assert_eq!(
            lines(&Status::ok_trailers(Metadata::new())),
            ["grpc-status: 0"]
        );
        assert_eq!(
            lines(&Status::aborted("").into_trailers()),
            ["grpc-status: 10"]
        );
    }

    #[test]
    fn details_have_the_code_and_message_beside_them_and_no_padding() {
        let detail = BadRequest::violation("day", "no 30th");
        let status = Status::invalid_argument("bad \u{1f4c5}").with_detail(detail.clone());
        let trailers = status.into_trailers();
        let value = trailers[GRPC_STATUS_DETAILS].to_str().unwrap();
        assert!(!value.contains('='));
        let bytes = metadata::decode_bin(value.as_bytes()).unwrap();
        let inside = details::Status::decode(bytes).unwrap();
        assert_eq!((inside.code, inside.message.as_str()), (3, "bad \u{1f4c5}"));
        let received = Status::from_trailers(&trailers).unwrap().unwrap_err();
        assert_eq!(received.detail::<BadRequest>(), Some(detail));
        assert_eq!(received.detail::<ErrorInfo>(), None);
        assert_eq!(received.details().len(), 1);
    }

    #[test]
    fn a_long_message_is_cut_also_inside_the_details() {
        let status =
            Status::internal("\u{e9}".repeat(10_000)).with_detail(ErrorInfo::new("a", "b"));
        for (limit, characters) in [(MAX_STATUS_MESSAGE_SIZE, 1_365), (6, 1), (5, 0)] {
            let trailers = status.clone().into_trailers_within(limit);
            let received = Status::from_trailers(&trailers).unwrap().unwrap_err();
            assert_eq!(received.message(), "\u{e9}".repeat(characters));
            let bytes = metadata::decode_bin(trailers[GRPC_STATUS_DETAILS].as_bytes()).unwrap();
            assert_eq!(
                details::Status::decode(bytes).unwrap().message,
                received.message()
            );
            assert_eq!(trailers.contains_key(GRPC_MESSAGE), characters > 0);
        }
        let trailers = status.into_trailers();
        assert_eq!(trailers[GRPC_MESSAGE].len(), 8_190);
    }

    #[test]
    fn trailers_give_the_status_that_they_say_and_never_ok_by_mistake() {
        type Pairs<'a> = &'a [(&'a str, &'a [u8])];
        let table: [(Pairs<'_>, Option<&str>); 17] = [
            (&[], None),
            (&[("grpc-message", b"x")], None),
            (&[("grpc-status", b"0")], Some("OK")),
            (
                &[("grpc-status", b"0"), ("grpc-message", b"ignored")],
                Some("OK"),
            ),
            (&[("grpc-status", b"5")], Some("NOT_FOUND")),
            (
                &[("grpc-status", b"5"), ("grpc-message", b"no%20x")],
                Some("NOT_FOUND: no x"),
            ),
            (
                &[("grpc-status", b"5"), ("grpc-message", b"%zz %")],
                Some("NOT_FOUND: %zz %"),
            ),
            (
                &[("grpc-status", b"5"), ("grpc-message", b"%ff")],
                Some("NOT_FOUND: \u{fffd}"),
            ),
            (
                &[("grpc-status", b"5"), ("grpc-message", b"\xff")],
                Some("NOT_FOUND: \u{fffd}"),
            ),
            (
                &[("grpc-status", b"99"), ("grpc-message", b"x")],
                Some("code 99: x"),
            ),
            (&[("grpc-status", b"00")], Some("UNKNOWN")),
            (&[("grpc-status", b"")], Some("UNKNOWN")),
            (&[("grpc-status", b"x")], Some("UNKNOWN")),
            (&[("grpc-status", b"-1")], Some("UNKNOWN")),
            (&[("grpc-status", b"\xb2")], Some("UNKNOWN")),
            (
                &[("grpc-status", b"0"), ("grpc-status", b"0")],
                Some("UNKNOWN: the trailers have more than one grpc-status"),
            ),
            (
                &[("grpc-status", b"5"), ("grpc-status", b"0")],
                Some("UNKNOWN: the trailers have more than one grpc-status"),
            ),
        ];
        for (pairs, expected) in table {
            let shown = Status::from_trailers(&headers(pairs)).map(|result| match result {
                Ok(()) => String::from("OK"),
                Err(status) => {
                    assert!(status.is_from_peer());
                    status.to_string()
                }
            });
            assert_eq!(shown.as_deref(), expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_message_of_16_kib_is_read_in_full() {
        let long = "x".repeat(16 * 1024);
        let trailers = headers(&[("grpc-status", b"2"), ("grpc-message", long.as_bytes())]);
        assert_eq!(
            Status::from_trailers(&trailers)
                .unwrap()
                .unwrap_err()
                .message(),
            long
        );
    }

    #[test]
    fn details_that_are_broken_or_contradict_the_code_are_left_out() {
        let inside = |code| {
            let any = details::pack(&ErrorInfo::new("a", "b"));
            details::Status {
                code,
                message: String::new(),
                details: vec![any],
            }
            .encode_to_vec()
        };
        let padded = |bytes: &[u8]| {
            let value = metadata::encode_bin(bytes);
            let missing = (4 - value.len() % 4) % 4;
            [value.as_bytes(), &b"=="[..missing]].concat()
        };
        let table = [
            (padded(&inside(5)), 1),
            (padded(&inside(0)), 1),
            (padded(&inside(6)), 0),
            (padded(&[0xff, 0xff]), 0),
            (b"!!".to_vec(), 0),
            (b"".to_vec(), 0),
        ];
        for (value, count) in table {
            let trailers = headers(&[("grpc-status", b"5"), ("grpc-status-details-bin", &value)]);
            let status = Status::from_trailers(&trailers).unwrap().unwrap_err();
            assert_eq!(
                (status.code(), status.details().len()),
                (Code::NOT_FOUND, count)
            );
        }
    }

    #[test]
    fn a_handler_passes_on_code_and_message_only_unless_it_forwards() {
        let mut metadata = Metadata::new();
        metadata.insert("internal-host", "db-7").unwrap();
        let made = Status::not_found("no row")
            .with_detail(ErrorInfo::new("a", "b"))
            .with_metadata(metadata);
        assert!(
            !made.clone().forward().is_forwarded(),
            "there is nothing to forward"
        );
        assert_eq!(made.clone().redacted().details().len(), 1);
        let received = of_peer(&made);
        assert_eq!(received.metadata().get("internal-host"), Some("db-7"));
        let mut head = Metadata::new();
        head.insert("internal-head", "yes").unwrap();
        let received = received.with_response_metadata(head);
        assert_eq!(
            received.response_metadata().get("internal-head"),
            Some("yes")
        );
        let response = received.clone().redacted();
        assert_eq!(
            (response.details().len(), response.metadata().len()),
            (0, 0)
        );
        assert!(response.response_metadata().is_empty());
        assert_eq!(
            lines(&response.into_trailers()),
            ["grpc-status: 5", "grpc-message: no row"]
        );
        let forwarded = received.forward();
        assert!(forwarded.is_from_peer() && forwarded.is_forwarded());
        let trailers = forwarded.redacted().into_trailers();
        assert_eq!(lines(&trailers), lines(&made.into_trailers()));
    }

    fn plain_with_head() -> Status {
        let mut head = Metadata::new();
        head.insert("k", "v").unwrap();
        Status::aborted("no").with_response_metadata(head)
    }

    #[test]
    fn debug_is_the_readable_form() {
        let plain = Status::not_found("no such feature");
        assert_eq!(format!("{plain:?}"), "NOT_FOUND: no such feature");
        assert_eq!(format!("{:?}", Status::aborted("")), "ABORTED");
        let mut rich =
            of_peer(&plain.with_detail(ErrorInfo::new("a", "b"))).with_source(fmt::Error);
        rich.metadata_mut().insert("k", "v").unwrap();
        assert_eq!(
            format!("{rich:?}"),
            "NOT_FOUND: no such feature (from the peer; details: google.rpc.ErrorInfo; \
             metadata: {\"k\": \"v\"}; cause: an error occurred when formatting an argument)"
        );
        assert_eq!(rich.to_string(), "NOT_FOUND: no such feature");
        let headed = plain_with_head();
        assert_eq!(
            format!("{headed:?}"),
            "ABORTED: no (response metadata: {\"k\": \"v\"})"
        );
        assert!(rich.source().unwrap().is::<fmt::Error>());
        assert!(rich.clone().source().is_some());
        let told = Status::aborted(format!("cannot: {}", fmt::Error)).with_source(fmt::Error);
        assert_eq!(format!("{told:?}"), told.to_string());
    }

    #[test]
    fn resets_and_http_statuses_are_named_in_the_message() {
        let table = [
            (0, "INTERNAL: the peer reset the stream with NO_ERROR (0)"),
            (
                7,
                "UNAVAILABLE: the peer reset the stream with REFUSED_STREAM (7)",
            ),
            (8, "CANCELLED: the peer reset the stream with CANCEL (8)"),
            (
                11,
                "RESOURCE_EXHAUSTED: the peer reset the stream with ENHANCE_YOUR_CALM (11)",
            ),
            (
                13,
                "UNKNOWN: the peer reset the stream with HTTP_1_1_REQUIRED (13)",
            ),
            (
                14,
                "UNKNOWN: the peer reset the stream with an unknown error (14)",
            ),
        ];
        for (reason, expected) in table {
            let status = Status::from_reset(reason);
            assert_eq!(
                (status.to_string().as_str(), status.is_from_peer()),
                (expected, true)
            );
        }
        let status = Status::from_http_status(StatusCode::SERVICE_UNAVAILABLE);
        let expected = "UNAVAILABLE: the server responded with HTTP status 503 Service Unavailable";
        assert_eq!(
            (status.to_string().as_str(), status.is_from_peer()),
            (expected, true)
        );
    }

    #[test]
    fn errors_of_the_parts_become_the_codes_of_the_tables() {
        let too_large = FrameError::TooLarge {
            size: 11,
            limit: 10,
        };
        let table: [(Status, &str); 7] = [
            (FrameError::Flag(2).into(), "INTERNAL"),
            (
                FrameError::Truncated {
                    received: 1,
                    expected: 5,
                }
                .into(),
                "INTERNAL",
            ),
            (too_large.into(), "RESOURCE_EXHAUSTED"),
            (CompressionError::Corrupt.into(), "INTERNAL"),
            (CompressionError::TooLarge.into(), "RESOURCE_EXHAUSTED"),
            (TimeoutError::Unit.into(), "INTERNAL"),
            (
                Metadata::new().insert("te", "x").unwrap_err().into(),
                "INTERNAL",
            ),
        ];
        for (status, name) in &table {
            assert_eq!(status.code().name(), Some(*name), "{status}");
        }
        let expected = "a message of 11 bytes is larger than the limit of 10 bytes \
                        (max_recv_message_size)";
        assert_eq!(table[2].0.message(), expected);
    }
}
