//! Uninhabited types that replace TLS in a build without it.

use trunkline_codec::Status;

use crate::net_stream::NetStream;
use crate::target::Target;

/// TLS settings of a server, which this build does not support.
#[derive(Clone, Debug)]
pub enum ServerTls {}

/// TLS settings of a channel, which this build does not support.
#[derive(Clone, Debug)]
pub enum ClientTls {}

/// The results of a TLS handshake, which this build does not support.
#[derive(Clone, Debug)]
pub(crate) enum TlsSession {}

impl ServerTls {
    /// Never called.
    ///
    /// # Errors
    ///
    /// None.
    pub fn load(&self) -> Result<(), Status> {
        match *self {}
    }

    /// Never called.
    pub async fn reload_periodically(&self) {
        match *self {}
    }

    pub(crate) async fn accept(&self, _: NetStream) -> Option<(NetStream, TlsSession)> {
        match *self {}
    }
}

impl ClientTls {
    /// Returns `given`, which is always `None`. Parsing a target rejects `https://` in this build.
    ///
    /// # Errors
    ///
    /// None.
    pub fn for_target(_: &Target, given: Option<Self>) -> Result<Option<Self>, Status> {
        Ok(given)
    }

    pub(crate) async fn secure(
        &self,
        _: NetStream,
        _: &str,
        _: &Target,
    ) -> Result<NetStream, Status> {
        match *self {}
    }
}
