//! Service configs: the settings of a channel and its methods, as JSON (grpc/doc/service_config.md).

mod attempt_policy;
mod choice;
pub(crate) mod config_parser;
pub(crate) mod json;
mod method_config;
mod service_config;

pub use attempt_policy::AttemptPolicy;
pub use method_config::MethodConfig;
pub use service_config::{RetryThrottling, ServiceConfig};
