//! Method configs: the settings of calls to some methods.

use std::time::Duration;

use serde_json::{Map, Value, json};
use trunkline_codec::Status;

use super::attempt_policy::AttemptPolicy;
use super::json::{JsonField, JsonObject, duration_text};

/// The settings that a service config has for the calls of a method (service_config.proto, `MethodConfig`).
///
/// A call selects its method config once. Later configs of the channel do not change it.
///
/// ```
/// use std::time::Duration;
///
/// # mod trunkline {
/// #     pub use trunkline_channel as balancing;
/// #     pub use trunkline_channel as channel;
/// #     pub use trunkline_channel as limits;
/// # }
/// use trunkline::balancing::Policies;
/// use trunkline::channel::ServiceConfig;
/// use trunkline::limits::ChannelLimits;
///
/// let json = r#"{"methodConfig": [{"name": [{}], "timeout": "5s", "waitForReady": true}]}"#;
/// let limits = ChannelLimits::default();
/// let config = ServiceConfig::parse(json, &Policies::default(), &limits).unwrap();
/// let method = config.method("/shop.v1.Orders/Find").unwrap();
/// assert_eq!(method.timeout_of(Some(Duration::from_secs(9))), Some(Duration::from_secs(5)));
/// assert!(method.waits_for_ready(None) && !method.waits_for_ready(Some(false)));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MethodConfig {
    /// Selects wait-for-ready or fail-fast for calls that do not choose. Default: fail-fast.
    pub wait_for_ready: Option<bool>,
    /// The longest timeout of calls. `None` if the config has no timeout or a timeout of zero.
    pub timeout: Option<Duration>,
    /// The largest message of a request, in bytes. Default: the limit of the channel.
    pub max_request_size: Option<usize>,
    /// The largest message of a response, in bytes. Default: the limit of the channel.
    pub max_response_size: Option<usize>,
    /// The retries or hedges of calls. Default: none.
    pub attempts: Option<AttemptPolicy>,
}

impl MethodConfig {
    /// Returns the timeout of a call that asks for `call`: the shorter one.
    pub fn timeout_of(&self, call: Option<Duration>) -> Option<Duration> {
        self.timeout.into_iter().chain(call).min()
    }

    /// Returns true if a call waits until the channel can connect. A choice of the call wins, true or false.
    pub fn waits_for_ready(&self, call: Option<bool>) -> bool {
        call.or(self.wait_for_ready).unwrap_or(false)
    }

    /// Returns the limit for messages of requests, in bytes, of a call whose own is `limit`: the smaller one.
    pub fn request_size_limit(&self, limit: usize) -> usize {
        self.max_request_size.unwrap_or(limit).min(limit)
    }

    /// Returns the limit for messages of responses, in bytes, of a call whose own is `limit`: the smaller one.
    pub fn response_size_limit(&self, limit: usize) -> usize {
        self.max_response_size.unwrap_or(limit).min(limit)
    }

    pub(super) fn parse(
        method: &JsonObject<'_>,
        max_attempts: u32,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Status> {
        let timeout = method.optional("timeout", |field| {
            let timeout = field.duration()?;
            if timeout.is_zero() {
                warnings.push(format!(
                    "{}: 0s is ignored; a call would end before it is sent",
                    field.path
                ));
            }
            Ok(timeout)
        })?;
        Ok(Self {
            wait_for_ready: method.optional("waitForReady", JsonField::boolean)?,
            timeout: timeout.filter(|timeout| !timeout.is_zero()),
            max_request_size: method.optional("maxRequestMessageBytes", size)?,
            max_response_size: method.optional("maxResponseMessageBytes", size)?,
            attempts: AttemptPolicy::parse(method, max_attempts, warnings)?,
        })
    }

    /// Returns the fields of the method config, its name excepted.
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let fields = [
            self.wait_for_ready.map(|it| ("waitForReady", json!(it))),
            self.timeout.map(|it| ("timeout", json!(duration_text(it)))),
            self.max_request_size
                .map(|it| ("maxRequestMessageBytes", json!(it))),
            self.max_response_size
                .map(|it| ("maxResponseMessageBytes", json!(it))),
            self.attempts.as_ref().map(AttemptPolicy::to_json),
        ];
        let set = fields.into_iter().flatten();
        set.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The size of a message, which has four bytes on the wire.
fn size(field: &JsonField<'_>) -> Result<usize, Status> {
    let size = u32::try_from(field.unsigned()?).unwrap_or(u32::MAX);
    Ok(usize::try_from(size).unwrap_or(usize::MAX))
}
