//! deflate.

use bytes::{Buf, BytesMut};

use crate::compression::{CompressionError, Compressor, Decompressor, decompress_all};
use crate::flate::{self, Format, Inflating};

/// The compression `deflate`: data in the zlib format (RFC 1950), as in HTTP.
///
/// Data without the header and checksum of zlib (raw deflate, RFC 1951) is rejected.
///
/// ```
/// # mod trunkline { pub use trunkline_codec as codec; }
/// use trunkline::codec::{Compressors, Deflate};
///
/// let compressors = Compressors::none().with(Deflate::with_level(9));
/// assert_eq!(compressors.accept_header(), "identity,deflate");
/// ```
#[derive(Copy, Clone, Debug)]
pub struct Deflate {
    level: u32,
}

impl Deflate {
    /// Creates the compressor with a level from 1, the fastest, to 9, the smallest output. Other values
    /// count as the nearest level.
    pub fn with_level(level: u32) -> Self {
        Self {
            level: level.clamp(1, 9),
        }
    }
}

/// Uses level 6, the default of zlib.
impl Default for Deflate {
    fn default() -> Self {
        Self::with_level(6)
    }
}

impl Compressor for Deflate {
    fn name(&self) -> &str {
        "deflate"
    }

    fn compress(&self, input: &mut dyn Buf, output: &mut BytesMut) -> Result<(), CompressionError> {
        flate::compress(Format::Zlib, self.level, input, output)
    }

    fn decompress(
        &self,
        input: &mut dyn Buf,
        output: &mut BytesMut,
        max_size: usize,
    ) -> Result<(), CompressionError> {
        decompress_all(Inflating::new(Format::Zlib, max_size), input, output)
    }

    fn decompressor(&self, max_size: usize) -> Option<Box<dyn Decompressor>> {
        Some(Box::new(Inflating::new(Format::Zlib, max_size)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deflate_is_the_zlib_format_and_not_bare_deflated_bytes() {
        let decompressed = |bytes: &[u8]| {
            let mut output = BytesMut::new();
            Deflate::default()
                .decompress(&mut &bytes[..], &mut output, 5)
                .map(|()| output)
        };
        // python3 -c 'import zlib; print(zlib.compress(b"hello").hex())'
        let wire = [
            0x78, 0x9c, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0, 0x06, 0x2c, 0x02, 0x15,
        ];
        assert_eq!(decompressed(&wire).unwrap(), b"hello"[..]);
        assert_eq!(decompressed(&wire[2..9]), Err(CompressionError::Corrupt));
        // Unlike gzip, zlib has no concatenated members.
        assert_eq!(
            decompressed(&wire.repeat(2)),
            Err(CompressionError::Corrupt)
        );
    }
}
