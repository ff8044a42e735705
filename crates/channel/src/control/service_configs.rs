//! The service config that is in force, by the resolutions so far (gRFC A21).

use trunkline_codec::Status;

use crate::resolve::resolver::Resolution;
use crate::routing::Selector;
use crate::settings::CheckedSettings;

/// Selects the service config that is in force.
#[derive(Debug)]
pub(crate) struct ServiceConfigs {
    /// The config of the builder, or an empty one.
    default: Selector,
    ignores_resolved: bool,
    /// The last one that a valid resolution has selected.
    last_good: Option<Selector>,
}

impl ServiceConfigs {
    pub(crate) fn new(settings: &CheckedSettings) -> Self {
        Self {
            default: Selector::default_of(settings),
            ignores_resolved: !settings.resolves_config(),
            last_good: None,
        }
    }

    /// Returns what is in force after `resolution`, or the reason why its config is rejected and no other can take its
    /// place.
    pub(crate) fn select(&mut self, resolution: &Resolution) -> Result<Selector, Status> {
        let resolved = resolution.service_config.as_ref();
        let good = match resolved.filter(|_| !self.ignores_resolved) {
            Some(Ok(config)) => Selector::Table(config.clone()),
            Some(Err(status)) => return self.without(status),
            // A lookup that has failed, or has not ended, says nothing.
            None if resolution.endpoints.is_err() || resolution.is_partial => {
                return Ok(self.last_good.as_ref().unwrap_or(&self.default).clone());
            }
            None => self.default.clone(),
        };
        Ok(self.last_good.insert(good).clone())
    }

    /// Returns what is in force in place of a rejected config.
    fn without(&self, rejected: &Status) -> Result<Selector, Status> {
        let error = rejected.message();
        let (instead, name) = match (&self.last_good, &self.default) {
            (Some(last_good), _) => (last_good, "the one before it"),
            (None, default @ Selector::Table(_)) => (default, "the default"),
            (None, Selector::Plain | Selector::Unresolved) => {
                tracing::warn!(target: "trunkline::channel", error, "the service config is rejected");
                return Err(Status::unavailable(format!(
                    "the channel has no valid service config: {error}"
                )));
            }
        };
        tracing::warn!(target: "trunkline::channel", error, "the service config is rejected; {name} stays in force");
        Ok(instead.clone())
    }
}
