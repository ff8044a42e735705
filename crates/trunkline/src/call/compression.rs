//! The compression of a call's messages.

use std::sync::Arc;

use trunkline_codec::{Compressor, Compressors};

/// Selects which messages are compressed in one direction of a call, from the next message on.
///
/// The compressor is that of the server or the channel: see [`Server::compress`](crate::Server::compress) and
/// [`ChannelBuilder::compress`](crate::ChannelBuilder::compress).
///
/// A message that compression does not make smaller is sent uncompressed. A server knows the compressors of
/// each client; if the client accepts none of the server's, responses are sent uncompressed. A client does not
/// know those of the server before a call: if the server does not support the compressor, a call with
/// compressed messages fails with UNIMPLEMENTED.
///
/// ```
/// use trunkline::{Compress, Request, Result};
///
/// async fn say_hello(request: Request<String>) -> Result<String> {
///     request.response().compress(Compress::Off);
///     Ok(format!("Hello {}!", *request))
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compress {
    /// Compresses messages of any size.
    On,
    /// Compresses messages of more than `compress_above` bytes, which
    /// [`Server::compress_above`](crate::Server::compress_above) and
    /// [`ChannelBuilder::compress_above`](crate::ChannelBuilder::compress_above) set. Default: 1 KiB.
    ///
    /// A server or channel for which `compress` was called uses this variant for all calls.
    Auto,
    /// Does not compress messages.
    #[default]
    Off,
}

impl Compress {
    /// Returns the size from which messages are compressed.
    pub(crate) fn least_size(self, above: usize) -> usize {
        match self {
            Self::On => 0,
            Self::Auto => above.saturating_add(1),
            // No message is that large.
            Self::Off => usize::MAX,
        }
    }
}

/// Returns the compressor of that name; `None` for `identity`.
///
/// # Errors
///
/// The message of an error if `owner`, a channel or a server, has no such compressor.
pub(crate) fn find_compressor(
    owner: &str,
    name: &str,
    compressors: &Compressors,
) -> Result<Option<Arc<dyn Compressor>>, String> {
    match compressors.find(name) {
        None if name != "identity" => Err(format!(
            "{owner} has no compressor {name:?}, only {:?}; add it with `compressor` (zstd also needs the feature `zstd`)",
            compressors.accept_header()
        )),
        found => Ok(found.cloned()),
    }
}
