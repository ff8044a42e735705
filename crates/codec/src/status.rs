//! Status: how a call ended.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use prost::Message as _;
use prost_types::Any;

use crate::code::Code;
use crate::details::{self, Detail};
use crate::encoding::EncodingError;
use crate::frame::FrameError;
use crate::limits::MAX_STATUS_MESSAGE_SIZE;
use crate::metadata::{self, Metadata, MetadataError};
use crate::percent;
use crate::timeout::TimeoutError;

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Why a call failed: a code, a message, and optionally details and metadata.
///
/// A status is an error and so never [`Code::OK`]; one that is made with that code becomes UNKNOWN.
/// It is one word wide, which keeps every `Result<T, Status>` small.
///
/// ```
/// use trunkline_codec::details::BadRequest;
/// use trunkline_codec::{Code, Status};
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
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    origin: Origin,
}

/// Where a status was made.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Origin {
    Here,
    Peer,
    /// At a peer, and a handler wants it passed on in full.
    PeerForwarded,
}

impl Status {
    /// A status with this code and message.
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
            source: None,
            origin: Origin::Here,
        }))
    }

    /// A status with [`Code::CANCELLED`].
    pub fn cancelled(message: impl Into<String>) -> Self {
        Self::new(Code::CANCELLED, message)
    }

    /// A status with [`Code::UNKNOWN`].
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(Code::UNKNOWN, message)
    }

    /// A status with [`Code::INVALID_ARGUMENT`].
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(Code::INVALID_ARGUMENT, message)
    }

    /// A status with [`Code::DEADLINE_EXCEEDED`].
    pub fn deadline_exceeded(message: impl Into<String>) -> Self {
        Self::new(Code::DEADLINE_EXCEEDED, message)
    }

    /// A status with [`Code::NOT_FOUND`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NOT_FOUND, message)
    }

    /// A status with [`Code::ALREADY_EXISTS`].
    pub fn already_exists(message: impl Into<String>) -> Self {
        Self::new(Code::ALREADY_EXISTS, message)
    }

    /// A status with [`Code::PERMISSION_DENIED`].
    pub fn permission_denied(message: impl Into<String>) -> Self {
        Self::new(Code::PERMISSION_DENIED, message)
    }

    /// A status with [`Code::RESOURCE_EXHAUSTED`].
    pub fn resource_exhausted(message: impl Into<String>) -> Self {
        Self::new(Code::RESOURCE_EXHAUSTED, message)
    }

    /// A status with [`Code::FAILED_PRECONDITION`].
    pub fn failed_precondition(message: impl Into<String>) -> Self {
        Self::new(Code::FAILED_PRECONDITION, message)
    }

    /// A status with [`Code::ABORTED`].
    pub fn aborted(message: impl Into<String>) -> Self {
        Self::new(Code::ABORTED, message)
    }

    /// A status with [`Code::OUT_OF_RANGE`].
    pub fn out_of_range(message: impl Into<String>) -> Self {
        Self::new(Code::OUT_OF_RANGE, message)
    }

    /// A status with [`Code::UNIMPLEMENTED`].
    pub fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::UNIMPLEMENTED, message)
    }

    /// A status with [`Code::INTERNAL`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::INTERNAL, message)
    }

    /// A status with [`Code::UNAVAILABLE`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::UNAVAILABLE, message)
    }

    /// A status with [`Code::DATA_LOSS`].
    pub fn data_loss(message: impl Into<String>) -> Self {
        Self::new(Code::DATA_LOSS, message)
    }

    /// A status with [`Code::UNAUTHENTICATED`].
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(Code::UNAUTHENTICATED, message)
    }

    /// The code.
    #[inline]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The message, for developers: it is not meant to be shown to end users or to be parsed.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The details, each a protobuf message with its type; [`detail`](Self::detail) decodes one of
    /// them.
    pub fn details(&self) -> &[Any] {
        &self.0.details
    }

    /// The first detail of type `D`; `None` when there is none or it does not decode.
    pub fn detail<D: Detail>(&self) -> Option<D> {
        self.0.details.iter().find_map(details::unpack)
    }

    /// Adds a detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Detail) -> Self {
        self.0.details.push(details::pack(&detail));
        self
    }

    /// The metadata that came, or goes out, beside the status.
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// The metadata, to be changed.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.0.metadata
    }

    /// Replaces the metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// Adds what caused the error, which stays here: it is never sent.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// Whether the status was made by a peer and not in this process.
    pub fn is_from_peer(&self) -> bool {
        self.0.origin != Origin::Here
    }

    /// Lets a handler pass a peer's status on in full. Without this, only its code and message are.
    #[must_use]
    pub fn forward(mut self) -> Self {
        if self.0.origin == Origin::Peer {
            self.0.origin = Origin::PeerForwarded;
        }
        self
    }

    /// Whether [`forward`](Self::forward) was called on a peer's status.
    pub fn is_forwarded(&self) -> bool {
        self.0.origin == Origin::PeerForwarded
    }

    /// What a server replies when a handler returns this status.
    ///
    /// A peer's status that was not [forwarded](Self::forward) loses its details and metadata: they
    /// were meant for this process, and may tell its callers more than they should know.
    #[must_use]
    pub fn into_reply(mut self) -> Self {
        if self.0.origin == Origin::Peer {
            self.0.details = Vec::new();
            self.0.metadata = Metadata::new();
        }
        self
    }
}

/// To the wire.
impl Status {
    /// Adds `grpc-status`, `grpc-message`, `grpc-status-details-bin` and the metadata to headers. A
    /// message is cut at 8 KiB.
    pub fn write_to(&self, headers: &mut HeaderMap) {
        self.write_within(headers, MAX_STATUS_MESSAGE_SIZE);
    }

    /// As [`write_to`](Self::write_to), with a message that is cut at `max_message_size` bytes,
    /// which are counted as they are on the wire.
    pub fn write_within(&self, headers: &mut HeaderMap, max_message_size: usize) {
        self.write_status(headers, max_message_size);
        self.0.metadata.clone().merge_into(headers);
    }

    /// The trailers of a call that ended with this status. A message is cut at 8 KiB.
    pub fn into_trailers(self) -> HeaderMap {
        self.into_trailers_within(MAX_STATUS_MESSAGE_SIZE)
    }

    /// As [`into_trailers`](Self::into_trailers), with a message that is cut at `max_message_size`
    /// bytes, which are counted as they are on the wire.
    pub fn into_trailers_within(mut self, max_message_size: usize) -> HeaderMap {
        // PROTOCOL-HTTP2.md, "Responses": Trailers is Status [Status-Message] *Custom-Metadata.
        let mut trailers = HeaderMap::new();
        self.write_status(&mut trailers, max_message_size);
        std::mem::take(&mut self.0.metadata).merge_into(&mut trailers);
        trailers
    }

    /// The trailers of a call that ended well.
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

/// From the wire.
impl Status {
    /// How a call with these trailers ended; `None` when they have no `grpc-status`.
    ///
    /// Two of them, or one that is no number, are UNKNOWN. A message that does not decode is kept
    /// as far as it goes, and details that do not decode, or that contradict the code, are left
    /// out.
    pub fn from_trailers(trailers: &HeaderMap) -> Option<Result<(), Self>> {
        let mut values = trailers.get_all(GRPC_STATUS).iter();
        let code = Code::from_header(values.next()?.as_bytes());
        if values.next().is_some() {
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

    /// The status of a response that is no gRPC response, by its HTTP status.
    pub fn from_http_status(status: StatusCode) -> Self {
        let mut made = Self::new(
            Code::from_http_status(status),
            format!("the server answered with HTTP status {status}"),
        );
        made.0.origin = Origin::Peer;
        made
    }

    /// The status of a call whose stream the peer has reset, by the error code of HTTP/2.
    pub fn from_reset(reason: u32) -> Self {
        let name = reset_name(reason);
        let mut status = Self::new(
            Code::from_http2_error(reason),
            format!("the peer reset the stream with {name} ({reason})"),
        );
        status.0.origin = Origin::Peer;
        status
    }

    /// Marks the status as one that the peer gave with these headers.
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

/// The readable form, because `main` and `unwrap` print it: `NOT_FOUND: no such feature (from the
/// peer)`.
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
        if let Some(source) = &self.0.source {
            notes.push(format!("cause: {source}"));
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

impl From<EncodingError> for Status {
    fn from(error: EncodingError) -> Self {
        match error {
            EncodingError::TooLarge => Self::resource_exhausted(error.to_string()),
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
