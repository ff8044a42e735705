//! The `retryPolicy` and the `hedgingPolicy` of a method.

use std::time::Duration;

use serde_json::{Value, json};
use trunkline_codec::Status;

use super::json::{JsonField, JsonObject, duration_text};
use crate::attempts::{CodeSet, HedgingPolicy, RetryPolicy};

/// The policy of a method for further attempts at a call: retries or hedging, never both (gRFC A6).
///
/// ```
/// # mod trunkline {
/// #     pub use trunkline_channel as balancing;
/// #     pub use trunkline_channel as channel;
/// #     pub use trunkline_channel as limits;
/// # }
/// use trunkline::balancing::Policies;
/// use trunkline::channel::{AttemptPolicy, ServiceConfig};
/// use trunkline::limits::ChannelLimits;
///
/// let json = r#"{"methodConfig": [{
///     "name": [{"service": "shop.v1.Orders"}],
///     "hedgingPolicy": {"maxAttempts": 3, "hedgingDelay": "0.1s"}
/// }]}"#;
/// let limits = ChannelLimits::default();
/// let config = ServiceConfig::parse(json, &Policies::default(), &limits).unwrap();
/// let method = config.method("/shop.v1.Orders/Find").unwrap();
/// assert!(matches!(&method.attempts, Some(AttemptPolicy::Hedging(it)) if it.max_attempts == 3));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AttemptPolicy {
    /// An attempt follows one that has failed.
    Retry(RetryPolicy),
    /// Attempts start while earlier ones run.
    Hedging(HedgingPolicy),
}

impl AttemptPolicy {
    /// Parses the policy of a method config. A `maxAttempts` above `max_attempts` becomes that, with a warning.
    pub(super) fn parse(
        method: &JsonObject<'_>,
        max_attempts: u32,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Self>, Status> {
        let attempts = |policy: &JsonObject<'_>, warnings: &mut Vec<String>| {
            policy.required("maxAttempts", |field| {
                let set = field.unsigned()?;
                if set < 2 {
                    return Err(field.invalid("a number of attempts; write 2 or more"));
                }
                let cut = u32::try_from(set).unwrap_or(u32::MAX).min(max_attempts);
                if u64::from(cut) < set {
                    warnings.push(format!(
                        "{}: {set} is above the limit of the channel, and counts as {cut}",
                        field.path
                    ));
                }
                Ok(cut)
            })
        };
        match (method.field("retryPolicy")?, method.field("hedgingPolicy")?) {
            (None, None) => Ok(None),
            (Some(retry), None) => {
                let policy = retry.object()?;
                let max_attempts = attempts(&policy, warnings)?;
                Ok(Some(Self::Retry(parse_retry(&policy, max_attempts)?)))
            }
            (None, Some(hedging)) => {
                let policy = hedging.object()?;
                let max_attempts = attempts(&policy, warnings)?;
                Ok(Some(Self::Hedging(parse_hedging(&policy, max_attempts)?)))
            }
            (Some(retry), Some(_)) => Err(Status::invalid_argument(format!(
                "{}: the method also has a hedgingPolicy; keep one of them",
                retry.path
            ))),
        }
    }

    /// Returns the name and the value of the field in a method config.
    pub(super) fn to_json(&self) -> (&'static str, Value) {
        match self {
            Self::Retry(policy) => (
                "retryPolicy",
                json!({
                    "maxAttempts": policy.max_attempts,
                    "initialBackoff": duration_text(policy.initial_backoff),
                    "maxBackoff": duration_text(policy.max_backoff),
                    "backoffMultiplier": policy.backoff_multiplier,
                    "retryableStatusCodes": names(policy.retryable_codes),
                }),
            ),
            Self::Hedging(policy) => (
                "hedgingPolicy",
                json!({
                    "maxAttempts": policy.max_attempts,
                    "hedgingDelay": duration_text(policy.hedging_delay),
                    "nonFatalStatusCodes": names(policy.non_fatal_codes),
                }),
            ),
        }
    }
}

// A6, "Validation of retryPolicy".
fn parse_retry(policy: &JsonObject<'_>, max_attempts: u32) -> Result<RetryPolicy, Status> {
    let backoff = |field: &JsonField<'_>| match field.duration()? {
        Duration::ZERO => Err(field.invalid("a pause; write more than 0s")),
        pause => Ok(pause),
    };
    Ok(RetryPolicy {
        max_attempts,
        initial_backoff: policy.required("initialBackoff", backoff)?,
        max_backoff: policy.required("maxBackoff", backoff)?,
        backoff_multiplier: policy.required("backoffMultiplier", |field| {
            match field.float()? {
                factor if factor > 0.0 => Ok(factor),
                _ => Err(field.invalid("a factor; write more than 0")),
            }
        })?,
        retryable_codes: policy.required("retryableStatusCodes", |field| {
            let codes = codes(field)?;
            match codes.is_empty() {
                true => Err(field.invalid("a list with a code in it; name those to retry")),
                false => Ok(codes),
            }
        })?,
    })
}

// A6, "Validation of hedgingPolicy".
fn parse_hedging(policy: &JsonObject<'_>, max_attempts: u32) -> Result<HedgingPolicy, Status> {
    let delay = policy.optional("hedgingDelay", JsonField::duration)?;
    let codes = policy.optional("nonFatalStatusCodes", codes)?;
    Ok(HedgingPolicy {
        max_attempts,
        hedging_delay: delay.unwrap_or_default(),
        non_fatal_codes: codes.unwrap_or_default(),
    })
}

fn codes(field: &JsonField<'_>) -> Result<CodeSet, Status> {
    field.list()?.iter().map(JsonField::failure_code).collect()
}

fn names(codes: CodeSet) -> Vec<&'static str> {
    codes.iter().filter_map(|code| code.name()).collect()
}
