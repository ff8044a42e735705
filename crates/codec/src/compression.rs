//! Compression of messages: the interface of a compressor, and its errors.

use std::fmt;

use bytes::{Buf, BytesMut};

/// The number of parts, members of gzip or frames of zstd, that a compressed message may have.
///
/// Every compressor makes one. An empty part costs a thousand times as much to decompress as to
/// receive.
pub const MAX_PARTS: usize = 1_000;

/// A compression algorithm for messages, each of which is compressed by itself.
///
/// To add an algorithm, implement this trait and pass it to `compressor` of the server and of the
/// channel.
pub trait Compressor: Send + Sync + fmt::Debug {
    /// The name on the wire, such as `"gzip"`: lower-case letters, digits and `-`.
    fn name(&self) -> &str;

    /// Compresses all of `input` and appends it to `output`.
    ///
    /// # Errors
    ///
    /// Any error, if the message cannot be compressed; the call then fails with INTERNAL.
    fn compress(&self, input: &mut dyn Buf, output: &mut BytesMut) -> Result<(), CompressionError>;

    /// Decompresses all of `input` and appends it to `output`, up to `max_size` bytes.
    ///
    /// An implementation must check the size as it writes: it may exceed `max_size` by at most 64 KiB
    /// before it fails. A small input can contain a very large output.
    ///
    /// # Errors
    ///
    /// [`CompressionError::TooLarge`] if the output exceeds `max_size` bytes, and
    /// [`CompressionError::TooCostly`] if it takes more memory or work than a message may: both end
    /// the call with RESOURCE_EXHAUSTED. [`CompressionError::Corrupt`] if the input is incomplete or
    /// in another format, which ends it with INTERNAL.
    fn decompress(
        &self,
        input: &mut dyn Buf,
        output: &mut BytesMut,
        max_size: usize,
    ) -> Result<(), CompressionError>;

    /// Returns a decompressor that works on one message of up to `max_size` bytes in steps, between
    /// which other calls proceed. A small input can take long.
    ///
    /// `None`, the default, if [`decompress`](Self::decompress) does all in one step.
    fn decompressor(&self, max_size: usize) -> Option<Box<dyn Decompressor>> {
        let _ = max_size;
        None
    }
}

/// A message that is being decompressed.
pub trait Decompressor: Send + Sync + fmt::Debug {
    /// Decompresses a part of `input`, the unread rest of the message, and appends it to `output`, for about a
    /// tenth of a millisecond. Returns true if the message is complete; otherwise it is called again.
    /// A step that neither takes nor appends anything ends the message with
    /// [`CompressionError::Failed`]. It must stop before it exceeds its `max_size` by 64 KiB.
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

/// Takes one step of a message, and returns true if the message is complete. Fails if the step has made no
/// progress.
pub(crate) fn step_further(
    decompressor: &mut dyn Decompressor,
    input: &mut dyn Buf,
    output: &mut BytesMut,
) -> Result<bool, CompressionError> {
    let before = (input.remaining(), output.len());
    match decompressor.step(input, output) {
        Ok(false) if before == (input.remaining(), output.len()) => Err(CompressionError::Failed),
        outcome => outcome,
    }
}

/// Decompresses a whole message.
#[cfg(any(feature = "gzip", feature = "deflate", feature = "zstd"))]
pub(crate) fn decompress_all(
    mut decompressor: impl Decompressor,
    input: &mut dyn Buf,
    output: &mut BytesMut,
) -> Result<(), CompressionError> {
    while !step_further(&mut decompressor, input, output)? {}
    Ok(())
}

/// The error of a message that could not be compressed or decompressed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompressionError {
    /// The input is in another format, damaged, or incomplete.
    Corrupt,
    /// The output exceeds its limit.
    TooLarge,
    /// Decompression takes more memory, or more work, than a message may. gzip and zstd return it for
    /// more than 1,000 members or frames in one message, and zstd for a window of more than 8 MiB.
    TooCostly,
    /// The compressor failed for another reason.
    Failed,
}

impl fmt::Display for CompressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Corrupt => "the compressed message is damaged",
            Self::TooLarge => "the decompressed message is too large",
            Self::TooCostly => "the message takes too much work to decompress",
            Self::Failed => "the compressor failed",
        })
    }
}

impl std::error::Error for CompressionError {}
