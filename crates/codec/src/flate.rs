//! Deflate, as gzip and zlib wrap it: compressing and inflating piece by piece, in bounded steps.

use std::cell::Cell;

use bytes::{Buf, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

#[cfg(feature = "gzip")]
use crate::compression::MAX_PARTS;
use crate::compression::{CompressionError, Decompressor};
use crate::step::{self, Work};

/// The largest window of deflate, as a power of two; every gzip stream can use it.
const WINDOW_BITS: u8 = 15;

/// The format around the deflated bytes.
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
) -> Result<(), CompressionError> {
    // A thread drops its local values as it ends, which `try_with` reports.
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

/// Inflates one message, a step at a time.
#[derive(Debug)]
pub(crate) struct Inflating {
    format: Format,
    inflater: Decompress,
    /// The number of those that have begun.
    #[cfg(feature = "gzip")]
    parts: usize,
    /// The number of bytes that can still be written.
    room: usize,
}

impl Inflating {
    pub(crate) fn new(format: Format, max_size: usize) -> Self {
        Self {
            format,
            inflater: inflater(format),
            #[cfg(feature = "gzip")]
            parts: 1,
            room: max_size,
        }
    }

    /// The stream that is read has ended: whether that is the end of the message.
    fn end_part(&mut self, input: &dyn Buf) -> Result<bool, CompressionError> {
        if !input.has_remaining() {
            return Ok(true);
        }
        match self.format {
            // RFC 1952, 2.2: a gzip file is a series of members, one after the other.
            #[cfg(feature = "gzip")]
            Format::Gzip if self.parts < MAX_PARTS => {
                self.parts += 1;
                self.inflater = inflater(self.format);
                Ok(false)
            }
            // A member can be 20 bytes that hold nothing, and each costs an inflater.
            #[cfg(feature = "gzip")]
            Format::Gzip => Err(CompressionError::TooCostly),
            #[cfg(feature = "deflate")]
            Format::Zlib => Err(CompressionError::Corrupt),
        }
    }
}

impl Decompressor for Inflating {
    fn step(
        &mut self,
        input: &mut dyn Buf,
        output: &mut BytesMut,
    ) -> Result<bool, CompressionError> {
        let mut work = Work::default();
        while !work.is_enough() {
            let start = output.len();
            output.resize(start + step::to_inflate(input.remaining(), self.room), 0);
            let (total_in, total_out) = (self.inflater.total_in(), self.inflater.total_out());
            let chunk = input.chunk();
            let chunk = &chunk[..chunk.len().min(step::INPUT_MAX)];
            let into = &mut output[start..];
            let status = self.inflater.decompress(chunk, into, FlushDecompress::None);
            let taken = (self.inflater.total_in() - total_in) as usize;
            let made = (self.inflater.total_out() - total_out) as usize;
            output.truncate(start + made);
            input.advance(taken);
            let left = self.room.checked_sub(made);
            self.room = left.ok_or(CompressionError::TooLarge)?;
            work.did(taken, made);
            match status {
                Ok(Status::StreamEnd) if self.end_part(input)? => return Ok(true),
                Ok(Status::StreamEnd) => work.began_part(),
                Ok(Status::Ok | Status::BufError) if taken > 0 || made > 0 => {}
                Ok(_) | Err(_) => return Err(CompressionError::Corrupt),
            }
        }
        Ok(false)
    }
}

fn inflater(format: Format) -> Decompress {
    match format {
        #[cfg(feature = "gzip")]
        Format::Gzip => Decompress::new_gzip(WINDOW_BITS),
        #[cfg(feature = "deflate")]
        Format::Zlib => Decompress::new_with_window_bits(true, WINDOW_BITS),
    }
}

fn deflate(
    compressor: &mut Compress,
    input: &mut dyn Buf,
    output: &mut BytesMut,
) -> Result<(), CompressionError> {
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
            Ok(Status::BufError) | Err(_) => return Err(CompressionError::Failed),
        }
    }
}
