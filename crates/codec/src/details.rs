//! The standard error details: messages that say more about an error than its code and message.
//!
//! They are defined in `google/rpc/error_details.proto` and `google/rpc/status.proto`. Add them with
//! [`Status::with_detail`](crate::Status::with_detail), and read them with
//! [`Status::detail`](crate::Status::detail). Fields are public, with the names in these files.
//!
//! ```
//! use std::time::Duration;
//! # use trunkline_codec as trunkline;
//! use trunkline::Status;
//! use trunkline::details::RetryInfo;
//!
//! let status = Status::unavailable("in maintenance").with_detail(RetryInfo::after(Duration::from_secs(30)));
//! assert_eq!(status.detail::<RetryInfo>().unwrap().delay(), Some(Duration::from_secs(30)));
//! ```

use std::collections::HashMap;
use std::time::Duration;

use prost::{Message, Name};
use prost_types::Any;

/// Returns `detail` together with its type.
pub(crate) fn pack(detail: &impl Name) -> Any {
    Any {
        type_url: type_url(detail),
        value: detail.encode_to_vec(),
    }
}

/// Returns the type of a message as an `Any` names it: that of its implementation of `Name`, with
/// `type.googleapis.com` where that has no host.
fn type_url<D: Name>(_: &D) -> String {
    let url = D::type_url();
    match url.starts_with('/') {
        true => format!("type.googleapis.com{url}"),
        false => url,
    }
}

/// Returns the message in `any` if it is a `D`, whatever host its type names.
pub(crate) fn unpack<D: Name + Default>(any: &Any) -> Option<D> {
    match type_name(any) == D::full_name() {
        true => D::decode(any.value.as_slice()).ok(),
        false => None,
    }
}

/// Returns the full name of the message in `any`.
pub(crate) fn type_name(any: &Any) -> &str {
    let url = any.type_url.as_str();
    url.rsplit('/').next().unwrap_or(url)
}

/// `google.rpc.Status`: a status as a message, which gRPC sends as `grpc-status-details-bin`.
///
/// Applications need it only if their own messages contain a status, such as the results of a batch. Calls
/// use [`trunkline::Status`](crate::Status).
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::details::Status;
///
/// let result = Status { code: 5, message: "no such order".into(), details: vec![] };
/// assert_eq!(trunkline::Code::from(result.code), trunkline::Code::NOT_FOUND);
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// The code, as in `grpc-status`.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The message, as in `grpc-message`.
    #[prost(string, tag = "2")]
    pub message: String,
    /// The details.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// The time to wait before a call is retried.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use std::time::Duration;
/// use trunkline::Status;
/// use trunkline::details::RetryInfo;
///
/// let delay = Duration::from_secs(30);
/// let status = Status::unavailable("in maintenance").with_detail(RetryInfo::after(delay));
/// assert_eq!(status.detail::<RetryInfo>().unwrap().delay(), Some(delay));
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct RetryInfo {
    /// The shortest time to wait.
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<prost_types::Duration>,
}

impl RetryInfo {
    /// Creates a detail with this delay. A delay of more than 10,000 years is shortened to that.
    pub fn after(delay: Duration) -> Self {
        // google/protobuf/duration.proto: at most 315,576,000,000 seconds.
        const SECONDS_MAX: u64 = 315_576_000_000;
        let seconds = delay.as_secs().min(SECONDS_MAX);
        let delay = prost_types::Duration {
            seconds: i64::try_from(seconds).expect("the largest duration has fewer than 64 bits"),
            nanos: i32::try_from(delay.subsec_nanos())
                .expect("a second has fewer than 2^31 nanoseconds"),
        };
        Self {
            retry_delay: Some(delay),
        }
    }

    /// Returns the shortest time to wait, or `None` if the field is missing or invalid.
    pub fn delay(&self) -> Option<Duration> {
        let delay = self.retry_delay.as_ref()?;
        let seconds = u64::try_from(delay.seconds).ok()?;
        let nanos = u32::try_from(delay.nanos)
            .ok()
            .filter(|nanos| *nanos < 1_000_000_000)?;
        Some(Duration::new(seconds, nanos))
    }
}

/// Debugging information for developers.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::Status;
/// use trunkline::details::DebugInfo;
///
/// let detail = DebugInfo::new("the cache was cold").with_entry("cache.rs:120");
/// let status = Status::internal("cannot read the order").with_detail(detail);
/// assert_eq!(status.detail::<DebugInfo>().unwrap().stack_entries, ["cache.rs:120"]);
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct DebugInfo {
    /// The stack trace of the error, with one entry for each stack frame.
    #[prost(string, repeated, tag = "1")]
    pub stack_entries: Vec<String>,
    /// Further debugging information from the server.
    #[prost(string, tag = "2")]
    pub detail: String,
}

impl DebugInfo {
    /// Creates a detail with this text and no stack trace.
    pub fn new(detail: impl Into<String>) -> Self {
        Self {
            stack_entries: Vec::new(),
            detail: detail.into(),
        }
    }

    /// Adds a frame to the stack trace.
    #[must_use]
    pub fn with_entry(mut self, entry: impl Into<String>) -> Self {
        self.stack_entries.push(entry.into());
        self
    }
}

/// The quotas that the call exceeded.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::Status;
/// use trunkline::details::QuotaFailure;
///
/// let detail = QuotaFailure::violation("project:1234", "1,000 orders per day");
/// let status = Status::resource_exhausted("too many orders").with_detail(detail);
/// assert_eq!(status.detail::<QuotaFailure>().unwrap().violations[0].subject, "project:1234");
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct QuotaFailure {
    /// The violations, one for each exceeded quota.
    #[prost(message, repeated, tag = "1")]
    pub violations: Vec<QuotaViolation>,
}

/// An exceeded quota (`google.rpc.QuotaFailure.Violation`).
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::details::{QuotaFailure, QuotaViolation};
///
/// let mut detail = QuotaFailure::violation("project:1234", "too many orders today");
/// let violation: &mut QuotaViolation = &mut detail.violations[0];
/// violation.quota_value = 1_000;
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct QuotaViolation {
    /// The subject that the quota applies to, such as `project:1234`.
    #[prost(string, tag = "1")]
    pub subject: String,
    /// A description of the failure.
    #[prost(string, tag = "2")]
    pub description: String,
    /// The service that enforces the quota.
    #[prost(string, tag = "3")]
    pub api_service: String,
    /// The metric that the quota limits.
    #[prost(string, tag = "4")]
    pub quota_metric: String,
    /// The identifier of the quota.
    #[prost(string, tag = "5")]
    pub quota_id: String,
    /// The dimensions that the quota applies to, such as a region, with their values.
    #[prost(map = "string, string", tag = "6")]
    pub quota_dimensions: HashMap<String, String>,
    /// The limit of the quota.
    #[prost(int64, tag = "7")]
    pub quota_value: i64,
    /// The limit after a change of the quota that is in progress, if there is one.
    #[prost(int64, optional, tag = "8")]
    pub future_quota_value: Option<i64>,
}

impl QuotaFailure {
    /// Creates a detail with one violation.
    pub fn violation(subject: impl Into<String>, description: impl Into<String>) -> Self {
        Self::default().with_violation(subject, description)
    }

    /// Adds a violation.
    #[must_use]
    pub fn with_violation(
        mut self,
        subject: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        let (subject, description) = (subject.into(), description.into());
        self.violations.push(QuotaViolation {
            subject,
            description,
            ..Default::default()
        });
        self
    }
}

/// The cause of the error in a form for programs: a reason that is unique within a domain.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::Status;
/// use trunkline::details::ErrorInfo;
///
/// let detail = ErrorInfo::new("OUT_OF_STOCK", "shop.example.com").with_entry("item", "1234");
/// let status = Status::failed_precondition("sold out").with_detail(detail);
/// assert_eq!(status.detail::<ErrorInfo>().unwrap().reason, "OUT_OF_STOCK");
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct ErrorInfo {
    /// The reason, such as `OUT_OF_STOCK`.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// The domain that defines the reason, usually the name of the service, such as
    /// `spanner.googleapis.com`.
    #[prost(string, tag = "2")]
    pub domain: String,
    /// Further information as key-value pairs.
    #[prost(map = "string, string", tag = "3")]
    pub metadata: HashMap<String, String>,
}

impl ErrorInfo {
    /// Creates a detail with a reason and its domain.
    pub fn new(reason: impl Into<String>, domain: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            domain: domain.into(),
            metadata: HashMap::new(),
        }
    }

    /// Adds a key-value pair to the field `metadata`.
    #[must_use]
    pub fn with_entry(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }
}

/// The preconditions of the call that are not met.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::Status;
/// use trunkline::details::PreconditionFailure;
///
/// let detail = PreconditionFailure::violation("TOS", "example.com", "accept the terms of service first");
/// let status = Status::failed_precondition("not allowed yet").with_detail(detail);
/// assert_eq!(status.detail::<PreconditionFailure>().unwrap().violations[0].r#type, "TOS");
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct PreconditionFailure {
    /// The violations, one for each precondition.
    #[prost(message, repeated, tag = "1")]
    pub violations: Vec<PreconditionViolation>,
}

/// A precondition that is not met (`google.rpc.PreconditionFailure.Violation`).
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::details::{PreconditionFailure, PreconditionViolation};
///
/// let detail = PreconditionFailure::violation("TOS", "example.com", "accept the terms of service first");
/// let violation: &PreconditionViolation = &detail.violations[0];
/// assert_eq!(violation.subject, "example.com");
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct PreconditionViolation {
    /// The kind of precondition, such as `TOS` for terms of service.
    #[prost(string, tag = "1")]
    pub r#type: String,
    /// The subject of the precondition.
    #[prost(string, tag = "2")]
    pub subject: String,
    /// A description of the failure.
    #[prost(string, tag = "3")]
    pub description: String,
}

impl PreconditionFailure {
    /// Creates a detail with one violation: the kind of precondition, its subject, and a description.
    pub fn violation(
        kind: impl Into<String>,
        subject: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        Self::default().with_violation(kind, subject, description)
    }

    /// Adds a violation.
    #[must_use]
    pub fn with_violation(
        mut self,
        kind: impl Into<String>,
        subject: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        let (r#type, subject, description) = (kind.into(), subject.into(), description.into());
        self.violations.push(PreconditionViolation {
            r#type,
            subject,
            description,
        });
        self
    }
}

/// The fields of the request that are invalid.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::Status;
/// use trunkline::details::BadRequest;
///
/// let detail = BadRequest::violation("date.day", "February has no 30th");
/// let status = Status::invalid_argument("no such date").with_detail(detail);
/// assert_eq!(status.detail::<BadRequest>().unwrap().field_violations[0].field, "date.day");
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct BadRequest {
    /// The violations, one for each invalid field.
    #[prost(message, repeated, tag = "1")]
    pub field_violations: Vec<FieldViolation>,
}

/// An invalid field (`google.rpc.BadRequest.FieldViolation`).
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::details::{BadRequest, FieldViolation};
///
/// let mut detail = BadRequest::violation("date.day", "February has no 30th");
/// let violation: &mut FieldViolation = &mut detail.field_violations[0];
/// violation.reason = "DAY_OUT_OF_RANGE".into();
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct FieldViolation {
    /// The path of the field, such as `address.lines[2]`.
    #[prost(string, tag = "1")]
    pub field: String,
    /// A description of the error.
    #[prost(string, tag = "2")]
    pub description: String,
    /// The reason in a form for programs, as in [`ErrorInfo`].
    #[prost(string, tag = "3")]
    pub reason: String,
    /// A description for end users.
    #[prost(message, optional, tag = "4")]
    pub localized_message: Option<LocalizedMessage>,
}

impl BadRequest {
    /// Creates a detail with one invalid field and a description of the error.
    pub fn violation(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::default().with_violation(field, description)
    }

    /// Adds an invalid field.
    #[must_use]
    pub fn with_violation(
        mut self,
        field: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        let (field, description) = (field.into(), description.into());
        self.field_violations.push(FieldViolation {
            field,
            description,
            ..Default::default()
        });
        self
    }
}

/// The identifier of the request in the logs of the server.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::Status;
/// use trunkline::details::RequestInfo;
///
/// let status = Status::internal("cannot read the order").with_detail(RequestInfo::new("7f3a"));
/// assert_eq!(status.detail::<RequestInfo>().unwrap().request_id, "7f3a");
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct RequestInfo {
    /// The identifier, which only the service interprets.
    #[prost(string, tag = "1")]
    pub request_id: String,
    /// Further data about the handling of the request, for the operators of the service.
    #[prost(string, tag = "2")]
    pub serving_data: String,
}

impl RequestInfo {
    /// Creates a detail with this identifier.
    pub fn new(request_id: impl Into<String>) -> Self {
        Self {
            request_id: request_id.into(),
            serving_data: String::new(),
        }
    }
}

/// The resource that the call tried to access.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::Status;
/// use trunkline::details::ResourceInfo;
///
/// let detail = ResourceInfo::new("order", "orders/1234");
/// let status = Status::not_found("no such order").with_detail(detail);
/// assert_eq!(status.detail::<ResourceInfo>().unwrap().resource_name, "orders/1234");
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct ResourceInfo {
    /// The kind of resource, such as `sql table`.
    #[prost(string, tag = "1")]
    pub resource_type: String,
    /// The name of the resource.
    #[prost(string, tag = "2")]
    pub resource_name: String,
    /// The owner of the resource, if it has one.
    #[prost(string, tag = "3")]
    pub owner: String,
    /// A description of the error.
    #[prost(string, tag = "4")]
    pub description: String,
}

impl ResourceInfo {
    /// Creates a detail with the kind and the name of a resource.
    pub fn new(resource_type: impl Into<String>, resource_name: impl Into<String>) -> Self {
        Self {
            resource_type: resource_type.into(),
            resource_name: resource_name.into(),
            ..Default::default()
        }
    }
}

/// Links to documentation about the error.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::Status;
/// use trunkline::details::Help;
///
/// let detail = Help::link("How to enable the API", "https://example.com/docs/api");
/// let status = Status::failed_precondition("the API is disabled").with_detail(detail);
/// assert_eq!(status.detail::<Help>().unwrap().links[0].url, "https://example.com/docs/api");
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct Help {
    /// The links.
    #[prost(message, repeated, tag = "1")]
    pub links: Vec<Link>,
}

/// A link to a page (`google.rpc.Help.Link`).
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::details::{Help, Link};
///
/// let detail = Help::link("How to enable the API", "https://example.com/docs/api");
/// let link: &Link = &detail.links[0];
/// assert_eq!(link.description, "How to enable the API");
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct Link {
    /// A description of the page.
    #[prost(string, tag = "1")]
    pub description: String,
    /// The URL of the page.
    #[prost(string, tag = "2")]
    pub url: String,
}

impl Help {
    /// Creates a detail with one link: a description of the page, and its URL.
    pub fn link(description: impl Into<String>, url: impl Into<String>) -> Self {
        Self::default().with_link(description, url)
    }

    /// Adds a link.
    #[must_use]
    pub fn with_link(mut self, description: impl Into<String>, url: impl Into<String>) -> Self {
        self.links.push(Link {
            description: description.into(),
            url: url.into(),
        });
        self
    }
}

/// A message for end users, in their language.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::Status;
/// use trunkline::details::LocalizedMessage;
///
/// let detail = LocalizedMessage::new("de", "Der Artikel ist ausverkauft.");
/// let status = Status::failed_precondition("sold out").with_detail(detail);
/// assert_eq!(status.detail::<LocalizedMessage>().unwrap().locale, "de");
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct LocalizedMessage {
    /// The language, such as `fr-CH` (BCP 47).
    #[prost(string, tag = "1")]
    pub locale: String,
    /// The message.
    #[prost(string, tag = "2")]
    pub message: String,
}

impl LocalizedMessage {
    /// Creates a detail with a language and a message.
    pub fn new(locale: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            locale: locale.into(),
            message: message.into(),
        }
    }
}

/// Names messages of package `google.rpc`.
macro_rules! name {
    ($($message:ident: $name:literal),* $(,)?) => {$(
        impl Name for $message {
            const PACKAGE: &'static str = "google.rpc";
            const NAME: &'static str = $name;
        }
    )*};
}

name! {
    Status: "Status",
    RetryInfo: "RetryInfo",
    DebugInfo: "DebugInfo",
    QuotaFailure: "QuotaFailure",
    ErrorInfo: "ErrorInfo",
    PreconditionFailure: "PreconditionFailure",
    BadRequest: "BadRequest",
    RequestInfo: "RequestInfo",
    ResourceInfo: "ResourceInfo",
    Help: "Help",
    LocalizedMessage: "LocalizedMessage",
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digits).collect()
    }

    /// Encodes `message` to `hex`, which another implementation of protobuf has written, and back.
    fn check<D: Name + Default + PartialEq + std::fmt::Debug>(message: D, hex: &str) {
        assert_eq!(message.encode_to_vec(), bytes(hex), "{message:?}");
        let any = pack(&message);
        assert_eq!(unpack::<D>(&any), Some(message));
        assert_eq!(
            any.type_url,
            format!("type.googleapis.com/google.rpc.{}", D::NAME)
        );
    }

    #[test]
    fn each_detail_has_the_field_numbers_of_the_proto_file() {
        check(RetryInfo::after(Duration::new(1, 2)), "0a0408011002");
        check(
            DebugInfo::new("c").with_entry("a").with_entry("b"),
            "0a01610a0162120163",
        );
        let violation = QuotaViolation {
            subject: "a".into(),
            description: "b".into(),
            api_service: "c".into(),
            quota_metric: "d".into(),
            quota_id: "e".into(),
            quota_dimensions: HashMap::from([("f".into(), "g".into())]),
            quota_value: 7,
            future_quota_value: Some(0),
        };
        check(
            QuotaFailure {
                violations: vec![violation],
            },
            "0a1b0a01611201621a01632201642a016532060a016612016738074000",
        );
        check(
            ErrorInfo::new("a", "b").with_entry("c", "d"),
            "0a01611201621a060a0163120164",
        );
        check(
            PreconditionFailure::violation("a", "b", "c"),
            "0a090a01611201621a0163",
        );
        let mut bad_request = BadRequest::violation("a", "b");
        bad_request.field_violations[0].reason = "c".into();
        bad_request.field_violations[0].localized_message = Some(LocalizedMessage::new("d", "e"));
        check(bad_request, "0a110a01611201621a016322060a0164120165");
        let request_info = RequestInfo {
            serving_data: "b".into(),
            ..RequestInfo::new("a")
        };
        check(request_info, "0a0161120162");
        let resource_info = ResourceInfo {
            owner: "c".into(),
            description: "d".into(),
            ..ResourceInfo::new("a", "b")
        };
        check(resource_info, "0a01611201621a0163220164");
        check(Help::link("a", "b"), "0a060a0161120162");
        check(LocalizedMessage::new("a", "b"), "0a0161120162");
    }

    #[test]
    fn the_status_message_has_the_field_numbers_of_the_proto_file() {
        let any = Any {
            type_url: "b".into(),
            value: b"c".to_vec(),
        };
        let status = Status {
            code: 3,
            message: "a".into(),
            details: vec![any],
        };
        assert_eq!(status.encode_to_vec(), bytes("08031201611a060a0162120163"));
    }

    #[test]
    fn a_detail_is_found_by_its_name_and_not_by_the_host_of_its_type() {
        let mut any = pack(&Help::link("a", "b"));
        assert_eq!(type_name(&any), "google.rpc.Help");
        assert_eq!(unpack::<LocalizedMessage>(&any), None);
        for url in [
            "google.rpc.Help",
            "/google.rpc.Help",
            "example.com/x/google.rpc.Help",
        ] {
            any.type_url = url.into();
            assert!(unpack::<Help>(&any).is_some(), "{url}");
        }
        for url in ["", "/", "rpc.Help", "google.rpc.Help/"] {
            any.type_url = url.into();
            assert!(unpack::<Help>(&any).is_none(), "{url:?}");
        }
        let broken = Any {
            type_url: "type.googleapis.com/google.rpc.Help".into(),
            value: vec![0xff],
        };
        assert_eq!(unpack::<Help>(&broken), None);
    }

    #[test]
    fn delays_are_read_and_written_without_overflow() {
        let longest = Duration::new(315_576_000_000, 999_999_999);
        assert_eq!(RetryInfo::after(Duration::MAX).delay(), Some(longest));
        let table = [
            (0, 0, Some(Duration::ZERO)),
            (1, 999_999_999, Some(Duration::new(1, 999_999_999))),
            (1, 1_000_000_000, None),
            (1, -1, None),
            (-1, 0, None),
            (i64::MIN, i32::MIN, None),
            (i64::MAX, 1, Some(Duration::new(i64::MAX as u64, 1))),
        ];
        for (seconds, nanos, expected) in table {
            let retry_delay = Some(prost_types::Duration { seconds, nanos });
            assert_eq!(
                RetryInfo { retry_delay }.delay(),
                expected,
                "{seconds} s, {nanos} ns"
            );
        }
        assert_eq!(RetryInfo::default().delay(), None);
    }
}
