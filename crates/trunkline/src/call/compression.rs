//! The compression of a call's messages.

use std::sync::Arc;

use trunkline_codec::{Compressor, Compressors};

/// The messages that are compressed in one direction of a call, from the next message on.
///
/// A message that compression does not make smaller is sent uncompressed. If client and server support no
/// common compression, all messages are sent uncompressed.
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
