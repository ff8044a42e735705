//! The parser of the service configs that resolvers find.

use std::sync::Arc;

use trunkline_codec::Status;

use super::service_config::ServiceConfig;
use crate::balancing::Policies;
use crate::limits::ChannelLimits;

/// Parses service configs with the policies and limits of a channel.
#[derive(Debug)]
pub(crate) struct ConfigParser {
    pub(crate) policies: Policies,
    pub(crate) limits: Arc<ChannelLimits>,
}

impl ConfigParser {
    pub(crate) fn parse(&self, json: &str) -> Result<Arc<ServiceConfig>, Status> {
        ServiceConfig::parse(json, &self.policies, &self.limits)
    }
}
