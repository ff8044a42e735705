//! Which messages of a call are compressed, and with what.

use std::sync::Arc;

use trunkline_codec::{Compressor, Compressors, Status};

/// Compresses the messages that follow, or not.
///
/// A message that would not get smaller goes as it is, and so do all if there is no encoding that
/// both sides know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compress {
    /// Compressed, whatever their size.
    On,
    /// Compressed if they have more than `compress_above` bytes (1 KiB): what a channel or a server
    /// does that was told to compress.
    Auto,
    /// As they are.
    #[default]
    Off,
}

impl Compress {
    /// The size from which on messages are compressed.
    pub(crate) fn least_size(self, above: usize) -> usize {
        match self {
            Self::On => 0,
            Self::Auto => above.saturating_add(1),
            // No message is as large.
            Self::Off => usize::MAX,
        }
    }
}

/// Finds the compressor of that name.
///
/// # Errors
///
/// INVALID_ARGUMENT if `who`, a channel or a server, does not know it.
pub(crate) fn known_compressor(
    who: &str,
    name: &str,
    compressors: &Compressors,
) -> Result<Arc<dyn Compressor>, Status> {
    let unknown = || Status::invalid_argument(unknown_compressor(who, name, compressors));
    compressors.find(name).cloned().ok_or_else(unknown)
}

/// Says that the name of a compressor is unknown, and which would do.
pub(crate) fn unknown_compressor(who: &str, name: &str, compressors: &Compressors) -> String {
    let known = compressors.accept_header();
    format!(
        "{who} knows no encoding {name:?}, only {known:?}; `compressor` adds one, and zstd needs the feature of its name"
    )
}
