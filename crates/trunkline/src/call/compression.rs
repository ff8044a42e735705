//! The compression of a call's messages.

use std::sync::Arc;

use trunkline_codec::{Compressor, Compressors};

/// Selects the messages that are compressed, from now on, in one direction of a call.
///
/// A message that compression does not make smaller is sent uncompressed. If the peers have no compressor
/// in common, all messages are sent uncompressed.
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
    /// Compresses messages of more than `compress_above` bytes (1 KiB by default). This is the default of
    /// a channel or a server with compression.
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
