//! What a channel is told before there is one.

use std::io;
use std::sync::Arc;

use http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite};
use trunkline_codec::Limits;
use trunkline_transport::Address;

use crate::connector::Connector;
use crate::policy::Policy;
use crate::resolver::{AnyResolver, Resolver, System};
use crate::targets::Targets;

/// What the connections of a channel are told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to connect.
    pub targets: Targets,
    /// All limits.
    pub limits: Arc<Limits>,
    /// What goes into `:authority` in the place of each target's own.
    pub authority: Option<Authority>,
    /// How calls are spread over the addresses.
    pub policy: Policy,
    pub(crate) resolver: AnyResolver,
    pub(crate) connector: Option<Connector>,
}

impl Settings {
    /// Those of a channel to `targets` of which nothing else is said.
    pub fn new(targets: Targets) -> Self {
        Self {
            targets,
            limits: Arc::new(Limits::default()),
            authority: None,
            policy: Policy::default(),
            resolver: AnyResolver::new(System),
            connector: None,
        }
    }

    /// Asks `resolver` for the addresses of names, and not the system.
    pub fn set_resolver(&mut self, resolver: impl Resolver) {
        self.resolver = AnyResolver::new(resolver);
    }

    /// Lets `connect` make the byte stream to an address, and not the system.
    pub fn set_connector<F, Fut, IO>(&mut self, connect: F)
    where
        F: Fn(Address) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.connector = Some(Connector::new(connect));
    }
}
