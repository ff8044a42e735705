//! Service configs in DNS (gRFC A2).

use std::sync::Arc;

use trunkline_codec::Status;
use trunkline_transport::Target;

use super::lookup::AnyLookup;
use crate::config::ServiceConfig;

/// Finds the service config of a name in its TXT records.
#[derive(Clone, Debug)]
pub(crate) struct DnsConfig {
    /// The name that has the records.
    name: Arc<str>,
    lookup: AnyLookup,
    /// Stays the same for the life of a channel, so that a percentage selects the same channels each time.
    number: u8,
    /// The name of this machine.
    host_name: Arc<str>,
}

impl DnsConfig {
    /// Returns `None` for targets without a name in DNS: addresses, and this machine (gRFC A2).
    pub(crate) fn new(target: &Target, lookup: AnyLookup, random: f64) -> Option<Self> {
        let (host, _) = target
            .host_and_port()
            .filter(|_| target.address().is_none())?;
        let host = host.strip_suffix('.').unwrap_or(host);
        let top = host.rsplit('.').next().unwrap_or(host);
        if top.eq_ignore_ascii_case("localhost") || target.zoned_host().is_some() {
            return None;
        }
        Some(Self {
            name: format!("_grpc_config.{host}").into(),
            lookup,
            number: ((random + 1.0) * 50.0).clamp(0.0, 99.0) as u8,
            host_name: host_name().into(),
        })
    }

    /// Returns the JSON of the service config for this client; `None` if DNS has none. A lookup that fails returns
    /// `Err(None)`, and records that are not valid their reason.
    pub(crate) async fn find(&self) -> Result<Option<String>, Option<Status>> {
        let texts = self.lookup.texts(&self.name).await.map_err(|error| {
            tracing::warn!(target: "trunkline::channel", name = &*self.name, error = %error, "the service config in DNS cannot be looked up");
            None
        })?;
        ServiceConfig::choose(&texts, self.number, &self.host_name).map_err(Some)
    }
}

/// Returns the name of this machine; an empty one if it is not known.
fn host_name() -> String {
    let of_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let set = || std::env::var("HOSTNAME").or_else(|_| std::env::var("COMPUTERNAME"));
    let name = of_kernel.or_else(|| set().ok()).unwrap_or_default();
    name.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::lookup::System;
    use super::*;

    #[test]
    fn only_names_in_dns_have_a_service_config() {
        for (target, name) in [
            ("example.com:80", Some("_grpc_config.example.com")),
            ("example.com.", Some("_grpc_config.example.com")),
            ("localhost:1", None),
            ("a.LocalHost:1", None),
            ("10.0.0.1:1", None),
            ("[::1]:1", None),
            ("[fe80::1%lo]:1", None),
            ("unix:/a", None),
        ] {
            let target = Target::parse(target).expect("a target");
            let found = DnsConfig::new(&target, AnyLookup::new(System), 0.0);
            assert_eq!(found.map(|it| it.name.to_string()).as_deref(), name);
        }
    }

    #[test]
    fn the_number_of_a_channel_is_from_0_to_99() {
        let target = Target::parse("a").expect("a target");
        for (random, number) in [(-1.0, 0), (-0.99, 0), (0.0, 50), (0.99, 99), (1.0, 99)] {
            let found = DnsConfig::new(&target, AnyLookup::new(System), random);
            assert_eq!(found.map(|it| it.number), Some(number));
        }
    }
}
