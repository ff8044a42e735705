//! The attempt to connect to an address.

use std::pin::pin;
use std::sync::Arc;

use trunkline_codec::Status;
use trunkline_transport::{
    ClientLimits, ClientTls, Connection, Destination, Keepalive, cannot_connect, catch_panic,
};

use crate::connector::Connector;
use crate::limits::ChannelLimits;
use crate::target_address::TargetAddress;

/// Connects to addresses, with the settings of a channel.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) limits: Arc<ChannelLimits>,
    /// The limits of each connection.
    pub(crate) client_limits: Arc<ClientLimits>,
    pub(crate) connector: Option<Connector>,
    pub(crate) tls: Option<ClientTls>,
    pub(crate) keepalive: Keepalive,
}

impl Dialer {
    /// Returns a connection whose server has shown that it speaks HTTP/2.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE if that fails, takes longer than `connect_timeout`, or the connector panics.
    pub(crate) async fn connect(self, to: TargetAddress) -> Result<Connection, Status> {
        let (name, limit) = (to.to_string(), self.limits.connect_timeout);
        let mut connecting = pin!(self.connect_as(&name, &to));
        let unpanicked = std::future::poll_fn(|cx| {
            catch_panic(|| connecting.as_mut().poll(cx)).unwrap_or_else(|panic| {
                tracing::error!(target: "trunkline::connection", panic = panic.text(), "the connector panicked");
                let status = "cannot connect: the connector has panicked";
                std::task::Poll::Ready(Err(Status::unavailable(status)))
            })
        });
        let connected = tokio::time::timeout(limit, unpanicked).await;
        connected.unwrap_or_else(|_| {
            Err(Status::unavailable(format!(
                "cannot connect to {name}: no response within {limit:?}; is the address right, or does a firewall drop packets?"
            )))
        })
    }

    async fn connect_as(&self, name: &str, to: &TargetAddress) -> Result<Connection, Status> {
        let destination = Destination {
            name,
            target: &to.target,
            tls: self.tls.as_ref().filter(|_| to.is_secure()),
            limits: &self.client_limits,
            keepalive: &self.keepalive,
        };
        match &self.connector {
            None => Connection::connect(&to.address, &destination).await,
            Some(connector) => {
                let stream = connector.connect(to.address.clone()).await;
                let stream = stream.map_err(|error| cannot_connect(name, error))?;
                Connection::on(stream, &destination).await
            }
        }
    }
}
