//! The settings of a channel.

use std::io;
use std::sync::Arc;

use http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite};
use trunkline_codec::Status;
use trunkline_transport::{Address, ClientTls, Target};

use crate::connector::Connector;
use crate::limits::ChannelLimits;
use crate::resolver::{AnyResolver, Resolver, System};
use crate::spread::Spread;
use crate::targets::Targets;

/// The settings of the connections of a channel.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to connect.
    pub targets: Targets,
    /// The limits of the channel.
    pub limits: Arc<ChannelLimits>,
    /// The value of `:authority`, if it is not that of each target.
    pub authority: Option<Authority>,
    /// TLS, for targets of any form but `http://`; those that begin with `https://` have it anyway.
    pub tls: Option<ClientTls>,
    /// The policy that spreads calls over the addresses.
    pub policy: Spread,
    pub(crate) resolver: AnyResolver,
    pub(crate) connector: Option<Connector>,
}

impl Settings {
    /// Creates the default settings of a channel to `targets`.
    pub fn new(targets: Targets) -> Self {
        Self {
            targets,
            limits: Arc::new(ChannelLimits::default()),
            authority: None,
            tls: None,
            policy: Spread::default(),
            resolver: AnyResolver::new(System),
            connector: None,
        }
    }

    /// The targets, each with or without TLS. Reads the files that TLS needs.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if a target cannot be read, or there is none, or TLS cannot be had.
    pub(crate) fn parse(&mut self) -> Result<Arc<[Arc<Target>]>, Status> {
        let given = self.tls.is_some();
        let mut targets = Vec::new();
        for target in self.targets.parse()? {
            // The targets with TLS share the default settings.
            let asks = given || target.wants_tls() == Some(true);
            let tls = ClientTls::for_target(&target, self.tls.clone().filter(|_| asks))?;
            targets.push(match tls.is_some() {
                true => Arc::new(Arc::unwrap_or_clone(target).over_tls()),
                false => target,
            });
            self.tls = self.tls.take().or(tls);
        }
        Ok(targets.into())
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
