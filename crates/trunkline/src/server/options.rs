//! The options of a server, and of each of its services.

use std::sync::Arc;
use std::time::Duration;

use trunkline_codec::{Compressors, MessageLimits};

use crate::call::intercept::Interceptors;

/// The options that a service sets. The server's options apply where it sets none.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceOptions {
    /// Run inside the interceptors of the server.
    pub(crate) interceptors: Interceptors,
    pub(crate) max_recv_message_size: Option<usize>,
    pub(crate) max_send_message_size: Option<usize>,
    pub(crate) compress: Option<String>,
    pub(crate) compress_above: Option<usize>,
    pub(crate) timeouts: Timeouts,
}

/// The default and the bounds of a call's timeout.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timeouts {
    pub(crate) default: Option<Duration>,
    pub(crate) min: Option<Duration>,
    pub(crate) max: Option<Duration>,
}

impl Timeouts {
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.default.is_some() || self.min.is_some() || self.max.is_some()
    }

    /// Returns the timeout that replaces `asked`, the client's; `None` if `asked` remains in effect.
    #[inline]
    pub(crate) fn change(&self, asked: Option<Duration>) -> Option<Duration> {
        if !self.is_set() {
            return None;
        }
        let timeout = match asked {
            // A maximum also applies to calls without a timeout.
            None => self.default.or(self.max)?,
            Some(asked) => asked.max(self.min.unwrap_or(Duration::ZERO)),
        };
        let timeout = self.max.map_or(timeout, |max| timeout.min(max));
        (Some(timeout) != asked).then_some(timeout)
    }
}

/// The options that apply to the calls of a method.
#[derive(Debug)]
pub(crate) struct CallOptions {
    pub(crate) interceptors: Interceptors,
    pub(crate) max_recv_message_size: usize,
    pub(crate) max_send_message_size: usize,
    /// In order of preference.
    pub(crate) compressors: Compressors,
    /// True if responses are compressed unless a handler overrides it.
    pub(crate) compresses: bool,
    pub(crate) compress_above: usize,
    pub(crate) timeouts: Timeouts,
}

impl CallOptions {
    /// Creates the options of a server.
    pub(crate) fn new(
        interceptors: Interceptors,
        limits: &MessageLimits,
        compressors: Compressors,
        compress: Option<&str>,
    ) -> Self {
        let (compressors, compresses) = prefer(compressors, compress);
        Self {
            interceptors,
            max_recv_message_size: limits.max_recv_message_size,
            max_send_message_size: limits.max_send_message_size,
            compressors,
            compresses,
            compress_above: limits.compress_above,
            timeouts: Timeouts::default(),
        }
    }

    /// Returns the options of a service of this server.
    pub(crate) fn of_service(&self, service: &ServiceOptions) -> Self {
        let (compressors, compresses) = match &service.compress {
            Some(name) => prefer(self.compressors.clone(), Some(name)),
            None => (self.compressors.clone(), self.compresses),
        };
        let or = |own: Option<usize>, server| own.unwrap_or(server);
        Self {
            interceptors: self.interceptors.and_inside(&service.interceptors),
            max_recv_message_size: or(service.max_recv_message_size, self.max_recv_message_size),
            max_send_message_size: or(service.max_send_message_size, self.max_send_message_size),
            compressors,
            compresses,
            compress_above: or(service.compress_above, self.compress_above),
            timeouts: service.timeouts,
        }
    }
}

/// Moves the compressor `compress` to the front, if it exists; returns true if it does.
fn prefer(compressors: Compressors, compress: Option<&str>) -> (Compressors, bool) {
    match compress.filter(|name| compressors.find(name).is_some()) {
        None => (compressors, false),
        Some(name) => (compressors.prefer(name), true),
    }
}

/// The options of each service combined with those of its server. Methods of a service share them.
pub(crate) struct Resolved<'a> {
    server: &'a Arc<CallOptions>,
    services: Vec<(Arc<ServiceOptions>, Arc<CallOptions>)>,
}

impl<'a> Resolved<'a> {
    pub(crate) fn new(server: &'a Arc<CallOptions>) -> Self {
        let services = Vec::new();
        Self { server, services }
    }

    pub(crate) fn get(&mut self, service: Option<&Arc<ServiceOptions>>) -> Arc<CallOptions> {
        let Some(service) = service else {
            return self.server.clone();
        };
        let mut known = self.services.iter();
        if let Some((_, options)) = known.find(|(known, _)| Arc::ptr_eq(known, service)) {
            return options.clone();
        }
        let options = Arc::new(self.server.of_service(service));
        self.services.push((service.clone(), options.clone()));
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_kept_between_the_least_and_the_most_that_a_service_allows() {
        let seconds = |seconds: u64| Some(Duration::from_secs(seconds));
        let (five, ten, twenty) = (seconds(5), seconds(10), seconds(20));
        for (default, min, max, asked, wanted) in [
            (None, None, None, None, None),
            (None, None, None, ten, None),
            (ten, None, None, None, ten),
            (ten, None, None, five, None),
            (None, ten, None, None, None),
            (None, ten, None, five, ten),
            (None, ten, None, twenty, None),
            (None, None, ten, None, ten),
            (None, None, ten, five, None),
            (None, None, ten, twenty, ten),
            (five, None, ten, None, five),
            (twenty, None, ten, None, ten),
            (five, ten, twenty, None, five),
            (None, twenty, ten, five, ten),
        ] {
            let timeouts = Timeouts { default, min, max };
            assert_eq!(timeouts.change(asked), wanted, "{timeouts:?} {asked:?}");
        }
    }
}
