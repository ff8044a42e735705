//! Compression: the encodings of messages, and which of them two peers use.

use std::fmt;

use bytes::{Buf, BytesMut};

/// Of how many parts, members of gzip or frames of zstd, a compressed message may be.
///
/// Every compressor makes one. A part may hold nothing, and then costs a thousand times what its
/// bytes cost to receive.
pub const MAX_PARTS: usize = 1_000;

/// A way to compress messages, each for itself.
///
/// To add one of your own, implement this trait and give it to [`Compressors::with`] on both sides.
pub trait Compressor: Send + Sync + fmt::Debug {
    /// The name on the wire, such as `"gzip"`: lower-case letters, digits and `-`.
    fn name(&self) -> &str;

    /// Compresses all of `input` and appends it to `output`.
    ///
    /// # Errors
    ///
    /// When it cannot be done; the call then fails with INTERNAL.
    fn compress(&self, input: &mut dyn Buf, output: &mut BytesMut) -> Result<(), CompressionError>;

    /// Restores all of `input` and appends it to `output`, but no more than `max_size` bytes.
    ///
    /// An implementation must check the size while it goes, not in the end: it may write at most 64
    /// KiB past `max_size` before it gives up. A small input can hold a very large output.
    ///
    /// # Errors
    ///
    /// [`CompressionError::TooLarge`] when there is more than `max_size` bytes, and
    /// [`CompressionError::TooCostly`] when it takes more memory or work than a message may, which end
    /// the call with RESOURCE_EXHAUSTED; [`CompressionError::Corrupt`] when the input is not whole or
    /// not in this encoding, which ends it with INTERNAL.
    fn decompress(
        &self,
        input: &mut dyn Buf,
        output: &mut BytesMut,
        max_size: usize,
    ) -> Result<(), CompressionError>;

    /// Begins to restore a message of up to `max_size` bytes in steps, between which others go on. A
    /// small input can take long.
    ///
    /// None, the default, if this encoding does it at once, by [`decompress`](Self::decompress).
    fn decompressor(&self, max_size: usize) -> Option<Box<dyn Decompressor>> {
        let _ = max_size;
        None
    }
}

/// One message that is being restored.
pub trait Decompressor: Send + Sync + fmt::Debug {
    /// Takes some of `input`, which is all that is left of it, and appends what comes out to `output`;
    /// for a tenth of a millisecond or so. Returns whether the message is whole, and else is called
    /// again; if it has neither taken nor appended anything, it gets no further, and the message fails with
    /// [`CompressionError::Failed`]. It must stop before it has written 64 KiB more than its `max_size`.
    ///
    /// # Errors
    ///
    /// As [`Compressor::decompress`].
    fn step(
        &mut self,
        input: &mut dyn Buf,
        output: &mut BytesMut,
    ) -> Result<bool, CompressionError>;
}

/// One step further with a message: whether it is whole. Fails if the step has done nothing.
pub(crate) fn step_further(
    restoring: &mut dyn Decompressor,
    input: &mut dyn Buf,
    output: &mut BytesMut,
) -> Result<bool, CompressionError> {
    let before = (input.remaining(), output.len());
    match restoring.step(input, output) {
        Ok(false) if before == (input.remaining(), output.len()) => Err(CompressionError::Failed),
        outcome => outcome,
    }
}

/// Restores a message at once.
#[cfg(any(feature = "gzip", feature = "deflate", feature = "zstd"))]
pub(crate) fn restore_all(
    mut restoring: impl Decompressor,
    input: &mut dyn Buf,
    output: &mut BytesMut,
) -> Result<(), CompressionError> {
    while !step_further(&mut restoring, input, output)? {}
    Ok(())
}

/// Why a message could not be compressed or restored.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompressionError {
    /// The input is not in this encoding, is damaged, or is not whole.
    Corrupt,
    /// The output is larger than it may be.
    TooLarge,
    /// To restore it takes more memory, or more work, than it may. Of the built-in encodings gzip and
    /// zstd say so of more than 1,000 members or frames in one message, and zstd of a window of more
    /// than 8 MiB; deflate has neither.
    TooCostly,
    /// The encoding failed for a reason of its own.
    Failed,
}

impl fmt::Display for CompressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrupt => "the compressed message is damaged",
            Self::TooLarge => "the restored message is too large",
            Self::TooCostly => "the message takes too much to restore",
            Self::Failed => "the encoding failed",
        })
    }
}

impl std::error::Error for CompressionError {}
