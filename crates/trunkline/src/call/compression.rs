//! The compression of a call's messages.

use std::sync::Arc;

use trunkline_codec::{Compressor, Compressors, Status};

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

/// Returns the compressor of that name.
///
/// # Errors
///
/// INVALID_ARGUMENT if `owner`, a channel or a server, has no such compressor.
pub(crate) fn known_compressor(
    owner: &str,
    name: &str,
    compressors: &Compressors,
) -> Result<Arc<dyn Compressor>, Status> {
    let unknown = || Status::invalid_argument(unknown_compressor(owner, name, compressors));
    compressors.find(name).cloned().ok_or_else(unknown)
}

/// Returns the message of an error for an unknown compressor, with the known ones.
pub(crate) fn unknown_compressor(owner: &str, name: &str, compressors: &Compressors) -> String {
    let known = compressors.accept_header();
    format!(
        "{owner} has no compressor {name:?}, only {known:?}; add it with `compressor` (zstd also needs the feature `zstd`)"
    )
}
