//! The statuses by name, and how they depend on each other.

use std::collections::BTreeMap;

use crate::v1::health_check_response::ServingStatus;

/// The name of the whole server.
///
/// health-checking.md, "Service Definition": an empty string is the key of the server's overall
/// status.
pub(crate) const SERVER: &str = "";

/// The phase of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Everything is NOT_SERVING, regardless of what is set.
    ShuttingDown,
    /// Streams of statuses end as well.
    Ended,
}

/// The statuses of the server and its services.
#[derive(Debug)]
pub(crate) struct Statuses {
    server: ServingStatus,
    /// `None` for a service of the server without its own status, which has that of the server.
    services: BTreeMap<String, Option<ServingStatus>>,
    pub(crate) phase: Phase,
}

impl Statuses {
    pub(crate) fn new() -> Self {
        Self {
            server: ServingStatus::Serving,
            services: BTreeMap::new(),
            phase: Phase::Serving,
        }
    }

    /// Adds a service of the server.
    pub(crate) fn know(&mut self, service: &str) {
        if !self.services.contains_key(service) {
            self.services.insert(service.to_owned(), None);
        }
    }

    pub(crate) fn set(&mut self, service: &str, status: ServingStatus) {
        match service {
            SERVER => self.server = status,
            _ => drop(self.services.insert(service.to_owned(), Some(status))),
        }
    }

    pub(crate) fn forget(&mut self, service: &str) {
        self.services.remove(service);
    }

    /// Returns `None` for an unknown service.
    pub(crate) fn of(&self, service: &str) -> Option<ServingStatus> {
        let said = match service {
            SERVER => self.server,
            _ => self.services.get(service)?.unwrap_or(self.server),
        };
        Some(match self.phase {
            Phase::Serving => said,
            Phase::ShuttingDown | Phase::Ended => ServingStatus::NotServing,
        })
    }

    /// Returns the number of statuses, including that of the whole server.
    pub(crate) fn len(&self) -> usize {
        self.services.len() + 1
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        [SERVER]
            .into_iter()
            .chain(self.services.keys().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_as_the_server_is_until_something_is_said_about_it() {
        use ServingStatus::{NotServing, Serving};
        let mut statuses = Statuses::new();
        assert_eq!(statuses.of("a.A"), None);
        statuses.know("a.A");
        assert_eq!(statuses.of("a.A"), Some(Serving));
        statuses.set(SERVER, NotServing);
        assert_eq!(statuses.of("a.A"), Some(NotServing));
        statuses.set("a.A", Serving);
        assert_eq!(statuses.of("a.A"), Some(Serving));
        // It is known already: what was said stays.
        statuses.know("a.A");
        assert_eq!(statuses.of("a.A"), Some(Serving));
        statuses.forget("a.A");
        assert_eq!(statuses.of("a.A"), None);
        assert_eq!(statuses.of(SERVER), Some(NotServing));
    }

    #[test]
    fn a_shutdown_is_over_everything_and_forgets_nothing() {
        use ServingStatus::{NotServing, Serving};
        let mut statuses = Statuses::new();
        statuses.set("a.A", Serving);
        statuses.phase = Phase::ShuttingDown;
        statuses.set("b.B", Serving);
        for name in [SERVER, "a.A", "b.B"] {
            assert_eq!(statuses.of(name), Some(NotServing), "{name:?}");
        }
        assert_eq!(statuses.of("c.C"), None);
        statuses.phase = Phase::Serving;
        for name in [SERVER, "a.A", "b.B"] {
            assert_eq!(statuses.of(name), Some(Serving), "{name:?}");
        }
    }
}
