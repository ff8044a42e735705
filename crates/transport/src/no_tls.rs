//! What stands in for TLS in a build without it: types of which there is nothing.

use trunkline_codec::Status;

use crate::net_stream::NetStream;
use crate::target::Target;

/// TLS for a server: not in this build.
#[derive(Clone, Debug)]
pub enum ServerTls {}

/// TLS for a channel: not in this build.
#[derive(Clone, Debug)]
pub enum ClientTls {}

/// What a TLS handshake has shown: not in this build.
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
    pub async fn keep_fresh(&self) {
        match *self {}
    }

    pub(crate) async fn accept(&self, _: NetStream) -> Option<(NetStream, TlsSession)> {
        match *self {}
    }
}

impl ClientTls {
    /// None: targets that ask for TLS are not understood.
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
