//! Byte streams of a custom connector.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use trunkline_transport::{Address, ByteStream};

type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn ByteStream>>> + Send>>;

/// Makes a byte stream to an address.
#[derive(Clone)]
pub(crate) struct Connector(Arc<dyn Fn(Address) -> Connecting + Send + Sync>);

impl Connector {
    pub(crate) fn new<F, Fut, IO>(connect: F) -> Self
    where
        F: Fn(Address) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self(Arc::new(move |address| {
            let connecting = connect(address);
            Box::pin(async move {
                let stream: Box<dyn ByteStream> = Box::new(connecting.await?);
                Ok(stream)
            })
        }))
    }

    pub(crate) async fn connect(&self, address: Address) -> io::Result<Box<dyn ByteStream>> {
        (self.0)(address).await
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}
