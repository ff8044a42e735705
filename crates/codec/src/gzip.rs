//! The gzip encoding.

use std::cell::Cell;

use bytes::{Buf, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::encoding::{Encoding, EncodingError};

/// The largest window of deflate, as a power of two: what every gzip has.
const WINDOW_BITS: u8 = 15;

/// How much room is made in the output at a time, and so the most that is written before the size
/// is looked at.
const STEP_MAX: usize = 16 * 1024;

/// The least room worth a call into the library.
const STEP_MIN: usize = 512;

thread_local! {
    /// The last compressor of this thread with its level: a compressor is some 300 KiB, which cost
    /// more to allocate than a small message to compress.
    static COMPRESSOR: Cell<Option<(u32, Compress)>> = const { Cell::new(None) };
}

/// gzip, the encoding that every implementation knows.
#[derive(Copy, Clone, Debug)]
pub struct Gzip {
    level: u32,
}

impl Gzip {
    /// gzip with a compression level from 1, the fastest, to 9, the smallest. What lies outside is
    /// taken as the nearest.
    pub fn with_level(level: u32) -> Self {
        Self {
            level: level.clamp(1, 9),
        }
    }
}

/// Level 6, as zlib and every other implementation have it.
impl Default for Gzip {
    fn default() -> Self {
        Self::with_level(6)
    }
}

impl Encoding for Gzip {
    fn name(&self) -> &str {
        "gzip"
    }

    fn compress(&self, input: &mut dyn Buf, output: &mut BytesMut) -> Result<(), EncodingError> {
        // The thread's own values are gone while it ends, which `try_with` allows for.
        let mut compressor = match COMPRESSOR.try_with(Cell::take) {
            Ok(Some((level, mut compressor))) if level == self.level => {
                compressor.reset();
                compressor
            }
            _ => Compress::new_gzip(Compression::new(self.level), WINDOW_BITS),
        };
        deflate(&mut compressor, input, output)?;
        let _kept = COMPRESSOR.try_with(|cell| cell.set(Some((self.level, compressor))));
        Ok(())
    }

    fn decompress(
        &self,
        input: &mut dyn Buf,
        output: &mut BytesMut,
        max_size: usize,
    ) -> Result<(), EncodingError> {
        let mut room = max_size;
        // RFC 1952, 2.2: a gzip file is a series of members, one after the other.
        while inflate_member(input, output, &mut room)? {}
        Ok(())
    }
}

fn deflate(
    compressor: &mut Compress,
    input: &mut dyn Buf,
    output: &mut BytesMut,
) -> Result<(), EncodingError> {
    loop {
        let chunk = input.chunk();
        let flush = match chunk.len() == input.remaining() {
            true => FlushCompress::Finish,
            false => FlushCompress::None,
        };
        let start = output.len();
        output.resize(start + (input.remaining() / 2).clamp(STEP_MIN, STEP_MAX), 0);
        let (total_in, total_out) = (compressor.total_in(), compressor.total_out());
        let status = compressor.compress(chunk, &mut output[start..], flush);
        let taken = (compressor.total_in() - total_in) as usize;
        output.truncate(start + (compressor.total_out() - total_out) as usize);
        input.advance(taken);
        match status {
            Ok(Status::StreamEnd) => return Ok(()),
            Ok(Status::Ok) => {}
            Ok(Status::BufError) if taken > 0 || output.len() > start => {}
            Ok(Status::BufError) | Err(_) => return Err(EncodingError::Failed),
        }
    }
}

/// Inflates one member, takes its size from `room`, and says whether there is another one.
fn inflate_member(
    input: &mut dyn Buf,
    output: &mut BytesMut,
    room: &mut usize,
) -> Result<bool, EncodingError> {
    let mut inflater = Decompress::new_gzip(WINDOW_BITS);
    loop {
        let start = output.len();
        // One byte past the room shows that there is more; its size is never taken from what the
        // peer claims.
        let step = input
            .remaining()
            .saturating_mul(4)
            .clamp(STEP_MIN, STEP_MAX)
            .min(room.saturating_add(1));
        output.resize(start + step, 0);
        let (total_in, total_out) = (inflater.total_in(), inflater.total_out());
        let status =
            inflater.decompress(input.chunk(), &mut output[start..], FlushDecompress::None);
        let taken = (inflater.total_in() - total_in) as usize;
        let made = (inflater.total_out() - total_out) as usize;
        output.truncate(start + made);
        input.advance(taken);
        let Some(left) = room.checked_sub(made) else {
            return Err(EncodingError::TooLarge);
        };
        *room = left;
        match status {
            Ok(Status::StreamEnd) => return Ok(input.has_remaining()),
            Ok(Status::Ok | Status::BufError) if taken > 0 || made > 0 => {}
            Ok(_) | Err(_) => return Err(EncodingError::Corrupt),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::frame::{Decoder, Payload};

    fn noise(size: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..size).map(|_| next()).collect()
    }

    /// `bytes` as a payload in pieces of `size` bytes.
    fn in_pieces(bytes: &[u8], size: usize) -> Payload {
        let mut decoder = Decoder::new(usize::MAX);
        decoder.push(Bytes::copy_from_slice(&crate::frame::prefix(
            false,
            bytes.len() as u32,
        )));
        bytes
            .chunks(size)
            .for_each(|piece| decoder.push(Bytes::copy_from_slice(piece)));
        decoder.next().unwrap().unwrap().payload
    }

    fn compressed(bytes: &[u8]) -> BytesMut {
        let mut output = BytesMut::new();
        Gzip::default()
            .compress(&mut &bytes[..], &mut output)
            .unwrap();
        output
    }

    fn restored(bytes: &[u8], max_size: usize) -> Result<BytesMut, EncodingError> {
        let mut output = BytesMut::new();
        Gzip::default()
            .decompress(&mut &bytes[..], &mut output, max_size)
            .map(|()| output)
    }

    #[test]
    fn messages_of_any_size_and_in_any_pieces_come_back() {
        for size in [0, 1, 511, 512, 16_383, 16_384, 16_385, 70_000] {
            for bytes in [noise(size), vec![7; size]] {
                for piece in [1_024, 50_000, usize::MAX] {
                    let mut wire = BytesMut::new();
                    let mut input = in_pieces(&bytes, piece);
                    Gzip::with_level(1).compress(&mut input, &mut wire).unwrap();
                    assert_eq!(input.remaining(), 0);
                    let mut output = BytesMut::from(&b"before "[..]);
                    let mut input = in_pieces(&wire, piece);
                    Gzip::default()
                        .decompress(&mut input, &mut output, size)
                        .unwrap();
                    assert_eq!(output[..7], b"before "[..]);
                    assert_eq!(output[7..], bytes, "{size} in pieces of {piece}");
                }
            }
        }
    }

    #[test]
    fn a_compressor_that_is_used_again_starts_from_nothing() {
        let first = compressed(b"one and the same text, one and the same text");
        for _ in 0..3 {
            assert_eq!(
                compressed(b"one and the same text, one and the same text"),
                first
            );
        }
    }

    #[test]
    fn a_compressor_is_used_again_for_its_own_level_only() {
        let text: Vec<u8> = (0..4_000_u32)
            .flat_map(|number| (number * number % 251).to_string().into_bytes())
            .collect();
        let at = |level| {
            let mut output = BytesMut::new();
            let gzip = Gzip::with_level(level);
            gzip.compress(&mut &text[..], &mut output).unwrap();
            assert_eq!(restored(&output, text.len()).unwrap(), text);
            output
        };
        let (fast, small) = (at(1), at(9));
        assert!(small.len() < fast.len(), "{} {}", small.len(), fast.len());
        assert_eq!([at(1), at(9)], [fast, small]);
    }

    #[test]
    fn what_another_implementation_has_made_is_read() {
        // printf 'hello' | gzip -n
        let wire = [
            0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0x03, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0, 0x86,
            0xa6, 0x10, 0x36, 0x05, 0, 0, 0,
        ];
        assert_eq!(restored(&wire, 5).unwrap(), b"hello"[..]);
        let twice = [wire, wire].concat();
        assert_eq!(restored(&twice, 10).unwrap(), b"hellohello"[..]);
        assert_eq!(restored(&twice, 9), Err(EncodingError::TooLarge));
    }

    #[test]
    fn every_way_to_damage_a_message_is_found() {
        let wire = compressed(b"some text, some text, some text");
        for end in 0..wire.len() {
            assert_eq!(
                restored(&wire[..end], 100),
                Err(EncodingError::Corrupt),
                "cut at {end}"
            );
        }
        assert_eq!(
            restored(&[&wire[..], &[0]].concat(), 100),
            Err(EncodingError::Corrupt)
        );
        assert_eq!(
            restored(b"not gzip at all, by no means", 100),
            Err(EncodingError::Corrupt)
        );
        let mut checksum = wire.clone();
        let at = checksum.len() - 6;
        checksum[at] ^= 1;
        assert_eq!(restored(&checksum, 100), Err(EncodingError::Corrupt));
        let mut size = wire;
        let at = size.len() - 1;
        size[at] = 0x7f;
        assert_eq!(
            restored(&size, 100),
            Err(EncodingError::Corrupt),
            "a size that is a lie"
        );
    }

    #[test]
    fn a_bomb_is_cut_off_at_the_limit_and_costs_no_more_than_that() {
        let wire = compressed(&vec![0; 4 * 1024 * 1024]);
        let limit = 100_000;
        let mut output = BytesMut::new();
        let result = Gzip::default().decompress(&mut &wire[..], &mut output, limit);
        assert_eq!(result, Err(EncodingError::TooLarge));
        // The contract allows 64 KiB more; one byte is enough to know.
        assert_eq!(output.len(), limit + 1);
    }

    #[test]
    fn the_limit_is_exact() {
        let wire = compressed(&[7; 20_000]);
        assert_eq!(restored(&wire, 19_999), Err(EncodingError::TooLarge));
        assert_eq!(restored(&wire, 20_000).unwrap().len(), 20_000);
        assert_eq!(restored(&wire, 20_001).unwrap().len(), 20_000);
        assert_eq!(restored(&compressed(b""), 0).unwrap().len(), 0);
        assert_eq!(restored(&compressed(b"x"), 0), Err(EncodingError::TooLarge));
        assert_eq!(restored(&compressed(b"x"), usize::MAX).unwrap(), b"x"[..]);
    }
}
