//! gzip.

use bytes::{Buf, BytesMut};

use crate::compression::{CompressionError, Compressor, Decompressor, decompress_all};
use crate::flate::{self, Format, Inflating};

/// The compression `gzip` (RFC 1952), which every gRPC implementation supports.
///
/// The format allows several compressed parts (members) in sequence; compressors usually write one. A
/// received message with more than 1,000 members fails with
/// [`CompressionError::TooCostly`](crate::CompressionError::TooCostly).
///
/// ```
/// # mod trunkline { pub use trunkline_codec as codec; }
/// use trunkline::codec::{Compressors, Gzip};
///
/// let compressors = Compressors::none().with(Gzip::with_level(1));
/// assert_eq!(compressors.accept_header(), "identity,gzip");
/// ```
#[derive(Copy, Clone, Debug)]
pub struct Gzip {
    level: u32,
}

impl Gzip {
    /// Creates the compressor with a level from 1, the fastest, to 9, the smallest output. Other values
    /// count as the nearest level.
    pub fn with_level(level: u32) -> Self {
        Self {
            level: level.clamp(1, 9),
        }
    }
}

/// Uses level 6, the default of zlib.
impl Default for Gzip {
    fn default() -> Self {
        Self::with_level(6)
    }
}

impl Compressor for Gzip {
    fn name(&self) -> &str {
        "gzip"
    }

    fn compress(&self, input: &mut dyn Buf, output: &mut BytesMut) -> Result<(), CompressionError> {
        flate::compress(Format::Gzip, self.level, input, output)
    }

    fn decompress(
        &self,
        input: &mut dyn Buf,
        output: &mut BytesMut,
        max_size: usize,
    ) -> Result<(), CompressionError> {
        decompress_all(Inflating::new(Format::Gzip, max_size), input, output)
    }

    fn decompressor(&self, max_size: usize) -> Option<Box<dyn Decompressor>> {
        Some(Box::new(Inflating::new(Format::Gzip, max_size)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compression::MAX_PARTS;

    fn decompressed(bytes: &[u8], max_size: usize) -> Result<BytesMut, CompressionError> {
        let mut output = BytesMut::new();
        Gzip::default()
            .decompress(&mut &bytes[..], &mut output, max_size)
            .map(|()| output)
    }

    #[test]
    fn what_another_implementation_has_made_is_read() {
        // printf 'hello' | gzip -n
        let wire = [
            0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0x03, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0, 0x86,
            0xa6, 0x10, 0x36, 0x05, 0, 0, 0,
        ];
        assert_eq!(decompressed(&wire, 5).unwrap(), b"hello"[..]);
        let twice = [wire, wire].concat();
        assert_eq!(decompressed(&twice, 10).unwrap(), b"hellohello"[..]);
        assert_eq!(decompressed(&twice, 9), Err(CompressionError::TooLarge));
    }

    #[test]
    fn a_message_may_be_of_so_many_members_and_no_more() {
        // printf '' | gzip -n
        let empty = [
            0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        for (members, expected) in [
            (MAX_PARTS - 1, Ok(BytesMut::new())),
            (MAX_PARTS, Ok(BytesMut::new())),
            (MAX_PARTS + 1, Err(CompressionError::TooCostly)),
        ] {
            assert_eq!(
                decompressed(&empty.repeat(members), 100),
                expected,
                "{members}"
            );
        }
    }
}
