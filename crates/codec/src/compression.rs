//! Compression of messages: the interface of a compressor, and its errors.

use std::fmt;

use bytes::{Buf, BytesMut};

/// The number of parts of a compressed message: members of gzip (RFC 1952) or frames of zstd (RFC 8878).
///
/// A compressor usually writes one. The limit exists because an empty part costs a thousand times as much
/// to decompress as to receive.
pub const MAX_PARTS: usize = 1_000;

/// A compression algorithm for messages. Each message is compressed separately.
///
/// To add an algorithm, implement this trait and pass it to `Server::compressor` and
/// `ChannelBuilder::compressor`.
///
/// ```
/// # mod trunkline { pub use trunkline_codec as codec; pub use bytes; }
/// use trunkline::bytes::{Buf, BufMut, BytesMut};
/// use trunkline::codec::{CompressionError, Compressor, Compressors};
///
/// /// Copies messages without compressing them.
/// #[derive(Debug)]
/// struct Stored;
///
/// impl Compressor for Stored {
///     fn name(&self) -> &str {
///         "stored"
///     }
///
///     fn compress(&self, input: &mut dyn Buf, output: &mut BytesMut) -> Result<(), CompressionError> {
///         output.put(input);
///         Ok(())
///     }
///
///     fn decompress(
///         &self,
///         input: &mut dyn Buf,
///         output: &mut BytesMut,
///         max_size: usize,
///     ) -> Result<(), CompressionError> {
///         if input.remaining() > max_size {
///             return Err(CompressionError::TooLarge);
///         }
///         output.put(input);
///         Ok(())
///     }
/// }
///
/// assert_eq!(Compressors::none().with(Stored).accept_header(), "identity,stored");
/// ```
pub trait Compressor: Send + Sync + fmt::Debug {
    /// Returns the name that identifies the algorithm on the wire, such as `"gzip"`. It consists of
    /// lower-case letters, digits, `-`, `_` and `.`.
    fn name(&self) -> &str;

    /// Compresses all of `input` and appends it to `output`.
    ///
    /// # Errors
    ///
    /// Any error, if the message cannot be compressed; the call then fails with INTERNAL.
    fn compress(&self, input: &mut dyn Buf, output: &mut BytesMut) -> Result<(), CompressionError>;

    /// Decompresses all of `input` and appends it to `output`, up to `max_size` bytes.
    ///
    /// A small input can expand to a very large output, so an implementation must check the size while it
    /// writes. It may exceed `max_size` by at most 64 KiB before it fails.
    ///
    /// # Errors
    ///
    /// [`CompressionError::TooLarge`] if the output exceeds `max_size` bytes, and
    /// [`CompressionError::TooCostly`] if decompression would need too much memory or time: both end
    /// the call with RESOURCE_EXHAUSTED. [`CompressionError::Corrupt`] if the input is incomplete or
    /// in another format, which ends the call with INTERNAL.
    fn decompress(
        &self,
        input: &mut dyn Buf,
        output: &mut BytesMut,
        max_size: usize,
    ) -> Result<(), CompressionError>;

    /// Returns a decompressor for one message of up to `max_size` bytes that works in steps. Other calls
    /// can run between two steps, which matters because even a small input can take a long time.
    ///
    /// The default implementation returns `None`: the message is then decompressed by one call of
    /// [`decompress`](Self::decompress).
    fn decompressor(&self, max_size: usize) -> Option<Box<dyn Decompressor>> {
        let _ = max_size;
        None
    }
}

/// A message that is being decompressed, in steps; see [`Compressor::decompressor`].
///
/// ```
/// # mod trunkline { pub use trunkline_codec as codec; pub use bytes; }
/// use trunkline::bytes::{Buf, BufMut, BytesMut};
/// use trunkline::codec::{CompressionError, Decompressor};
///
/// /// Copies up to 4 KiB in each step.
/// #[derive(Debug)]
/// struct Copying {
///     remaining_size: usize,
/// }
///
/// impl Decompressor for Copying {
///     fn step(&mut self, input: &mut dyn Buf, output: &mut BytesMut) -> Result<bool, CompressionError> {
///         let size = input.remaining().min(4096);
///         let rest = self.remaining_size.checked_sub(size);
///         self.remaining_size = rest.ok_or(CompressionError::TooLarge)?;
///         output.put(input.copy_to_bytes(size));
///         Ok(!input.has_remaining())
///     }
/// }
/// ```
pub trait Decompressor: Send + Sync + fmt::Debug {
    /// Decompresses a part of `input`, which is the rest of the message, and appends it to `output`. Returns
    /// true if the message is complete; otherwise the method is called again.
    ///
    /// A step should take about 0.1 ms. It must fail before the whole output exceeds the `max_size` of
    /// [`Compressor::decompressor`] by more than 64 KiB. A step that neither reads nor writes anything fails
    /// the call with INTERNAL, as [`CompressionError::Failed`] does.
    ///
    /// # Errors
    ///
    /// As for [`Compressor::decompress`].
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
///
/// ```
/// # #[cfg(feature = "gzip")] {
/// # mod trunkline { pub use trunkline_codec as codec; pub use bytes; }
/// use trunkline::bytes::BytesMut;
/// use trunkline::codec::{CompressionError, Compressor, Gzip};
///
/// let mut input: &[u8] = b"not gzip";
/// let result = Gzip::default().decompress(&mut input, &mut BytesMut::new(), 1024);
/// assert_eq!(result, Err(CompressionError::Corrupt));
/// # }
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompressionError {
    /// The input is in another format, damaged, or incomplete.
    Corrupt,
    /// The output exceeds its limit.
    TooLarge,
    /// Decompression would need too much memory or time: the message consists of more than 1,000
    /// separately compressed parts (members of gzip, frames of zstd), or requires a window of more than
    /// 8 MiB for zstd.
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
