//! The gzip encoding.

use std::cell::Cell;

use bytes::{Buf, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::encoding::{Encoding, EncodingError};

/// The largest window of deflate, as a power of two: what every gzip has.
const WINDOW_BITS: u8 = 15;

/// How much room is made in the output at a time, and so the most that is written before the size is looked at.
const STEP_MAX: usize = 16 * 1024;

/// The least room worth a call into the library.
const STEP_MIN: usize = 512;

thread_local! {
    /// The last compressor of this thread with its level: a compressor is some 300 KiB, which cost more to allocate than
    /// a small message to compress.
    static COMPRESSOR: Cell<Option<(u32, Compress)>> = const { Cell::new(None) };
}

/// gzip, the encoding that every implementation knows.
#[derive(Copy, Clone, Debug)]
pub struct Gzip {
    level: u32,
}

impl Gzip {
    /// gzip with a compression level from 1, the fastest, to 9, the smallest. What lies outside is taken as the nearest.
    pub fn with_level(level: u32) -> Self {
        Self { level: level.clamp(1, 9) }
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
        let mut compressor = match COMPRESSOR.take() {
            Some((level, compressor)) if level == self.level => compressor,
            _ => Compress::new_gzip(Compression::new(self.level), WINDOW_BITS),
        };
        compressor.reset();
        deflate(&mut compressor, input, output)?;
        COMPRESSOR.set(Some((self.level, compressor)));
        Ok(())
    }

    fn decompress(&self, input: &mut dyn Buf, output: &mut BytesMut, max_size: usize) -> Result<(), EncodingError> {
        let mut room = max_size;
        // RFC 1952, 2.2: a gzip file is a series of members, one after the other.
        while room_after_member(input, output, &mut room)? {}
        Ok(())
    }
}

fn deflate(compressor: &mut Compress, input: &mut dyn Buf, output: &mut BytesMut) -> Result<(), EncodingError> {
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
fn room_after_member(input: &mut dyn Buf, output: &mut BytesMut, room: &mut usize) -> Result<bool, EncodingError> {
    let mut inflater = Decompress::new_gzip(WINDOW_BITS);
    loop {
        let start = output.len();
        // One byte past the room shows that there is more; its size is never taken from what the peer claims.
        let step = input.remaining().saturating_mul(4).clamp(STEP_MIN, STEP_MAX).min(room.saturating_add(1));
        output.resize(start + step, 0);
        let (total_in, total_out) = (inflater.total_in(), inflater.total_out());
        let status = inflater.decompress(input.chunk(), &mut output[start..], FlushDecompress::None);
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
