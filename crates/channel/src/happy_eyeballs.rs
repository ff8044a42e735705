//! The attempt to reach one of several endpoints.

use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};
use trunkline_codec::Status;
use trunkline_transport::{
    ClientLimits, ClientTls, Connection, Destination, Keepalive, cannot_connect,
};

use crate::connector::Connector;
use crate::limits::ChannelLimits;
use crate::target_address::TargetAddress;

/// An attempt to connect, independent of its channel.
#[derive(Clone, Debug)]
pub(crate) struct HappyEyeballs {
    pub(crate) limits: Arc<ChannelLimits>,
    /// Those of each connection.
    pub(crate) client_limits: Arc<ClientLimits>,
    pub(crate) connector: Option<Connector>,
    pub(crate) tls: Option<ClientTls>,
    pub(crate) keepalive: Keepalive,
}

impl HappyEyeballs {
    /// A connection to one of the endpoints, whose server has shown that it speaks HTTP/2.
    ///
    /// RFC 8305, section 5: they are tried in order, the next one once the one before has failed, or
    /// has been silent for `connect_stagger`. The first that is there wins, and the others are
    /// dropped. Each has `connect_timeout` for itself, so that those behind many silent ones have
    /// their turn as well.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE when all have failed.
    pub(crate) async fn run(
        &self,
        endpoints: &[TargetAddress],
    ) -> Result<(TargetAddress, Connection), Status> {
        // In tasks, so that a connector that panics only fails.
        let mut attempts = JoinSet::new();
        let mut waiting = endpoints.iter();
        let mut failure = None;
        loop {
            let next = waiting.next();
            if let Some(endpoint) = next {
                let (happy_eyeballs, endpoint) = (self.clone(), endpoint.clone());
                attempts.spawn(async move { happy_eyeballs.connect_in_time(endpoint).await });
            }
            let ended = match waiting.as_slice() {
                [] => attempts.join_next().await,
                _ => {
                    let stagger = self.limits.connect_stagger;
                    match tokio::time::timeout(stagger, attempts.join_next()).await {
                        Ok(ended) => ended,
                        Err(_) => continue,
                    }
                }
            };
            match ended.map(unpanicked) {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(status)) => failure = Some(status),
                None if waiting.as_slice().is_empty() => {
                    return Err(none_answers(endpoints, failure));
                }
                None => {}
            }
        }
    }

    async fn connect_in_time(
        self,
        endpoint: TargetAddress,
    ) -> Result<(TargetAddress, Connection), Status> {
        let (name, timeout) = (endpoint.to_string(), self.limits.connect_timeout);
        let connecting = self.connect(endpoint);
        let connected = tokio::time::timeout(timeout, connecting).await;
        connected.unwrap_or_else(|_| {
            Err(Status::unavailable(format!(
                "cannot connect to {name}: no response within {timeout:?}; is the address right, or does a firewall drop packets?"
            )))
        })
    }

    async fn connect(self, endpoint: TargetAddress) -> Result<(TargetAddress, Connection), Status> {
        let name = endpoint.to_string();
        let to = Destination {
            name: &name,
            target: &endpoint.target,
            tls: self.tls.as_ref().filter(|_| endpoint.is_secure()),
            limits: &self.client_limits,
            keepalive: &self.keepalive,
        };
        let connection = match &self.connector {
            None => Connection::connect(&endpoint.address, &to).await?,
            Some(connector) => {
                let stream = connector.connect(endpoint.address.clone()).await;
                let stream = stream.map_err(|error| cannot_connect(&name, error))?;
                Connection::on(stream, &to).await?
            }
        };
        Ok((endpoint, connection))
    }
}

fn unpanicked<T>(joined: Result<Result<T, Status>, JoinError>) -> Result<T, Status> {
    joined.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(_) => Err(Status::unavailable(
            "cannot connect: the connector has panicked",
        )),
        Err(_) => Err(Status::unavailable(
            "the tokio runtime of the attempt to connect has shut down",
        )),
    })
}

fn none_answers(endpoints: &[TargetAddress], failure: Option<Status>) -> Status {
    let failure = failure
        .unwrap_or_else(|| Status::unavailable("cannot connect: the list of addresses is empty"));
    match endpoints {
        [] | [_] => failure,
        _ => {
            let (count, message) = (endpoints.len(), failure.message());
            Status::unavailable(format!(
                "none of {count} addresses can be reached; the last: {message}"
            ))
            .with_source(failure)
        }
    }
}
