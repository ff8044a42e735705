//! An address, with the target for which it was found.

use std::fmt;
use std::sync::Arc;

use http::uri::{Authority, Scheme};
use trunkline_transport::{Address, Target};

use crate::security_level::SecurityLevel;

/// The target of an endpoint, as one of its attributes.
#[derive(Clone, Debug)]
pub(crate) struct OfTarget(pub(crate) Arc<Target>);

/// An address of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetAddress {
    pub(crate) address: Address,
    pub(crate) target: Arc<Target>,
}

/// The origin that a call names in its head, `:scheme` and `:authority`, and the protection of the connection to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `http`, or `https` over TLS.
    pub scheme: Scheme,
    /// The authority of the target, unless the channel sets one.
    pub authority: Authority,
    /// The protection of the connection.
    pub security_level: SecurityLevel,
}

impl TargetAddress {
    pub(crate) fn is_secure(&self) -> bool {
        self.target.wants_tls() == Some(true)
    }

    pub(crate) fn origin(&self, authority: Option<&Authority>) -> Origin {
        Origin {
            scheme: match self.is_secure() {
                true => Scheme::HTTPS,
                false => Scheme::HTTP,
            },
            authority: authority.unwrap_or_else(|| self.target.authority()).clone(),
            security_level: SecurityLevel::of(&self.address, &self.target),
        }
    }
}

/// As messages call it: the target, and its address if that is not the same.
impl fmt::Display for TargetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target.address() {
            Some(_) => self.target.fmt(f),
            None => write!(f, "{} ({})", self.target, self.address),
        }
    }
}
