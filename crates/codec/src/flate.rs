//! Deflate, as gzip and zlib wrap it: compressing and inflating piece by piece, in bounded steps.

use std::cell::Cell;

use bytes::{Buf, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::encoding::EncodingError;
#[cfg(feature = "gzip")]
use crate::encoding::MAX_PARTS;
use crate::step;

/// The largest window of deflate, as a power of two: what every gzip has.
const WINDOW_BITS: u8 = 15;

/// What stands around the deflated bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    #[cfg(feature = "gzip")]
    Gzip,
    #[cfg(feature = "deflate")]
    Zlib,
}

thread_local! {
    /// The last compressor of this thread with its format and level: a compressor is some 300 KiB,
    /// which cost more to allocate than a small message to compress.
    static COMPRESSOR: Cell<Option<(Format, u32, Compress)>> = const { Cell::new(None) };
}

/// Compresses all of `input` at a level from 1 to 9.
pub(crate) fn compress(
    format: Format,
    level: u32,
    input: &mut dyn Buf,
    output: &mut BytesMut,
) -> Result<(), EncodingError> {
    // The thread's own values are gone while it ends, which `try_with` allows for.
    let mut compressor = match COMPRESSOR.try_with(Cell::take) {
        Ok(Some((of, at, mut compressor))) if (of, at) == (format, level) => {
            compressor.reset();
            compressor
        }
        _ => match format {
            #[cfg(feature = "gzip")]
            Format::Gzip => Compress::new_gzip(Compression::new(level), WINDOW_BITS),
            #[cfg(feature = "deflate")]
            Format::Zlib => {
                Compress::new_with_window_bits(Compression::new(level), true, WINDOW_BITS)
            }
        },
    };
    deflate(&mut compressor, input, output)?;
    let _kept = COMPRESSOR.try_with(|cell| cell.set(Some((format, level, compressor))));
    Ok(())
}

/// Inflates all of `input`, up to `max_size` bytes.
pub(crate) fn decompress(
    format: Format,
    input: &mut dyn Buf,
    output: &mut BytesMut,
    max_size: usize,
) -> Result<(), EncodingError> {
    let mut room = max_size;
    match format {
        #[cfg(feature = "gzip")]
        Format::Gzip => {
            for _ in 0..MAX_PARTS {
                let mut inflater = Decompress::new_gzip(WINDOW_BITS);
                inflate(&mut inflater, input, output, &mut room)?;
                // RFC 1952, 2.2: a gzip file is a series of members, one after the other.
                if !input.has_remaining() {
                    return Ok(());
                }
            }
            // A member can be 20 bytes that hold nothing, and each costs an inflater.
            Err(EncodingError::TooCostly)
        }
        #[cfg(feature = "deflate")]
        Format::Zlib => {
            let mut inflater = Decompress::new_with_window_bits(true, WINDOW_BITS);
            inflate(&mut inflater, input, output, &mut room)?;
            match input.has_remaining() {
                true => Err(EncodingError::Corrupt),
                false => Ok(()),
            }
        }
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
        output.resize(start + step::to_compress(input.remaining()), 0);
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

/// Inflates up to the end of what `inflater` reads, and takes its size from `room`.
fn inflate(
    inflater: &mut Decompress,
    input: &mut dyn Buf,
    output: &mut BytesMut,
    room: &mut usize,
) -> Result<(), EncodingError> {
    loop {
        let start = output.len();
        output.resize(start + step::to_inflate(input.remaining(), *room), 0);
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
            Ok(Status::StreamEnd) => return Ok(()),
            Ok(Status::Ok | Status::BufError) if taken > 0 || made > 0 => {}
            Ok(_) | Err(_) => return Err(EncodingError::Corrupt),
        }
    }
}
