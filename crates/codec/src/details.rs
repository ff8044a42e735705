//! The standard error details: `google/rpc/error_details.proto` and `google/rpc/status.proto`.
//!
//! Fields are public and named as in the files, so that each message can also be built and read
//! field by field.
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

/// `google.rpc.Status`, the content of `grpc-status-details-bin`.
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

/// The time after which a call may be retried.
#[derive(Clone, PartialEq, Message)]
pub struct RetryInfo {
    /// The least time to wait.
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<prost_types::Duration>,
}

impl RetryInfo {
    /// Creates a retry info with this delay, at most 10,000 years.
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

    /// Returns the least time to wait; `None` if the message has none, or an invalid one.
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
#[derive(Clone, PartialEq, Message)]
pub struct DebugInfo {
    /// The stack where the error came up, one entry a frame.
    #[prost(string, repeated, tag = "1")]
    pub stack_entries: Vec<String>,
    /// More data from the server.
    #[prost(string, tag = "2")]
    pub detail: String,
}

impl DebugInfo {
    /// A debug info with this text and no stack.
    pub fn new(detail: impl Into<String>) -> Self {
        Self {
            stack_entries: Vec::new(),
            detail: detail.into(),
        }
    }

    /// Adds a frame of the stack.
    #[must_use]
    pub fn with_entry(mut self, entry: impl Into<String>) -> Self {
        self.stack_entries.push(entry.into());
        self
    }
}

/// The quotas that the call exceeded.
#[derive(Clone, PartialEq, Message)]
pub struct QuotaFailure {
    /// Each of them.
    #[prost(message, repeated, tag = "1")]
    pub violations: Vec<QuotaViolation>,
}

/// `google.rpc.QuotaFailure.Violation`: one quota.
#[derive(Clone, PartialEq, Message)]
pub struct QuotaViolation {
    /// The subject of the failed check, such as `project:1234`.
    #[prost(string, tag = "1")]
    pub subject: String,
    /// A description of the failure.
    #[prost(string, tag = "2")]
    pub description: String,
    /// The service that has the quota.
    #[prost(string, tag = "3")]
    pub api_service: String,
    /// The metric that is counted.
    #[prost(string, tag = "4")]
    pub quota_metric: String,
    /// The name of the limit.
    #[prost(string, tag = "5")]
    pub quota_id: String,
    /// The dimensions by which the limit was looked up.
    #[prost(map = "string, string", tag = "6")]
    pub quota_dimensions: HashMap<String, String>,
    /// The limit itself.
    #[prost(int64, tag = "7")]
    pub quota_value: i64,
    /// The limit that is being rolled out, if one is.
    #[prost(int64, optional, tag = "8")]
    pub future_quota_value: Option<i64>,
}

impl QuotaFailure {
    /// Creates a failure with one violation: the subject and a description.
    pub fn violation(subject: impl Into<String>, description: impl Into<String>) -> Self {
        Self::default().with_violation(subject, description)
    }

    /// Adds a quota.
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

/// The cause of the error, for programs: a reason that is constant within a domain.
#[derive(Clone, PartialEq, Message)]
pub struct ErrorInfo {
    /// The reason, such as `STOCKOUT`.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// The domain that defines the reason, such as `spanner.googleapis.com`.
    #[prost(string, tag = "2")]
    pub domain: String,
    /// More about it.
    #[prost(map = "string, string", tag = "3")]
    pub metadata: HashMap<String, String>,
}

impl ErrorInfo {
    /// A reason and its domain.
    pub fn new(reason: impl Into<String>, domain: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            domain: domain.into(),
            metadata: HashMap::new(),
        }
    }

    /// Adds a pair to the metadata.
    #[must_use]
    pub fn with_entry(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }
}

/// The preconditions that did not hold.
#[derive(Clone, PartialEq, Message)]
pub struct PreconditionFailure {
    /// Each of them.
    #[prost(message, repeated, tag = "1")]
    pub violations: Vec<PreconditionViolation>,
}

/// `google.rpc.PreconditionFailure.Violation`: one precondition.
#[derive(Clone, PartialEq, Message)]
pub struct PreconditionViolation {
    /// The kind of precondition, such as `TOS`. The field is `r#type`, because `type` is a keyword.
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
    /// One precondition: its kind, its subject, and the failure.
    pub fn violation(
        kind: impl Into<String>,
        subject: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        Self::default().with_violation(kind, subject, description)
    }

    /// Adds a precondition.
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

/// The fields of the request that are wrong.
#[derive(Clone, PartialEq, Message)]
pub struct BadRequest {
    /// Each wrong field.
    #[prost(message, repeated, tag = "1")]
    pub field_violations: Vec<FieldViolation>,
}

/// `google.rpc.BadRequest.FieldViolation`: one wrong field.
#[derive(Clone, PartialEq, Message)]
pub struct FieldViolation {
    /// The path of the field, such as `address.lines[2]`.
    #[prost(string, tag = "1")]
    pub field: String,
    /// A description of the error.
    #[prost(string, tag = "2")]
    pub description: String,
    /// The reason for programs, constant within a domain.
    #[prost(string, tag = "3")]
    pub reason: String,
    /// The description for end users.
    #[prost(message, optional, tag = "4")]
    pub localized_message: Option<LocalizedMessage>,
}

impl BadRequest {
    /// One wrong field, and why it is wrong.
    pub fn violation(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::default().with_violation(field, description)
    }

    /// Adds a wrong field.
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

/// The identification of the request in the logs of the server.
#[derive(Clone, PartialEq, Message)]
pub struct RequestInfo {
    /// An opaque string that means something to the service.
    #[prost(string, tag = "1")]
    pub request_id: String,
    /// Anything else that was used to serve the request.
    #[prost(string, tag = "2")]
    pub serving_data: String,
}

impl RequestInfo {
    /// A request id.
    pub fn new(request_id: impl Into<String>) -> Self {
        Self {
            request_id: request_id.into(),
            serving_data: String::new(),
        }
    }
}

/// The resource that the call needed.
#[derive(Clone, PartialEq, Message)]
pub struct ResourceInfo {
    /// Its kind, such as `sql table`.
    #[prost(string, tag = "1")]
    pub resource_type: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub resource_name: String,
    /// Its owner, if there is one.
    #[prost(string, tag = "3")]
    pub owner: String,
    /// A description of the error.
    #[prost(string, tag = "4")]
    pub description: String,
}

impl ResourceInfo {
    /// The kind and the name of a resource.
    pub fn new(resource_type: impl Into<String>, resource_name: impl Into<String>) -> Self {
        Self {
            resource_type: resource_type.into(),
            resource_name: resource_name.into(),
            ..Default::default()
        }
    }
}

/// Links to documentation.
#[derive(Clone, PartialEq, Message)]
pub struct Help {
    /// The links.
    #[prost(message, repeated, tag = "1")]
    pub links: Vec<Link>,
}

/// `google.rpc.Help.Link`: one link.
#[derive(Clone, PartialEq, Message)]
pub struct Link {
    /// A description of the page.
    #[prost(string, tag = "1")]
    pub description: String,
    /// Its address.
    #[prost(string, tag = "2")]
    pub url: String,
}

impl Help {
    /// Creates a help with one link: a description and an address.
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
    /// A message and its language.
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
