//! zstd.

use std::cell::Cell;
use std::fmt;

use bytes::{Buf, BytesMut};
use zstd_safe::zstd_sys::{ZSTD_EndDirective, ZSTD_ErrorCode};
use zstd_safe::{CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use crate::compression::{CompressionError, Compressor, Decompressor, MAX_PARTS, decompress_all};
use crate::step::{self, Work};

/// The largest window that a message may ask for, as a power of two: 8 MiB, which RFC 8878 (3.1.1.1.2)
/// wants every decoder to have, and no level up to 19 exceeds. The window is the one size that is
/// taken from the peer: it is memory that is reserved, and used as bytes come out.
const WINDOW_LOG_MAX: u32 = 23;

thread_local! {
    /// The last compressor of this thread with its level: its tables are a MiB and more.
    static COMPRESSOR: Cell<Option<(i32, CCtx<'static>)>> = const { Cell::new(None) };
}

/// The compression `zstd` (RFC 8878), which is faster than gzip and produces smaller output.
///
/// Few gRPC implementations support it, so the default [`Compressors`](crate::Compressors) do not contain
/// it. A received message fails with [`CompressionError::TooCostly`](crate::CompressionError::TooCostly) if
/// it has more than 1,000 zstd frames, or requires a window of more than 8 MiB. Compressors do not produce
/// such messages by default.
///
/// ```
/// # mod trunkline { pub use trunkline_codec as codec; }
/// use trunkline::codec::{Compressors, Zstd};
///
/// let compressors = Compressors::none().with(Zstd::with_level(3));
/// assert_eq!(compressors.accept_header(), "identity,zstd");
/// ```
#[derive(Copy, Clone, Debug)]
pub struct Zstd {
    level: i32,
}

impl Zstd {
    /// Creates the compressor with a level from 1, the fastest, to 19, the smallest output. Other values
    /// count as the nearest level, because levels above 19 require a larger window than peers allow.
    pub fn with_level(level: i32) -> Self {
        Self {
            level: level.clamp(1, 19),
        }
    }

    fn compressor(self) -> Option<CCtx<'static>> {
        // A thread drops its local values as it ends, which `try_with` reports.
        if let Ok(Some((level, compressor))) = COMPRESSOR.try_with(Cell::take)
            && level == self.level
        {
            return Some(compressor);
        }
        let mut compressor = CCtx::try_create()?;
        compressor
            .set_parameter(CParameter::CompressionLevel(self.level))
            .ok()?;
        Some(compressor)
    }
}

/// Uses level 3, the default of zstd.
impl Default for Zstd {
    fn default() -> Self {
        Self::with_level(3)
    }
}

impl Compressor for Zstd {
    fn name(&self) -> &str {
        "zstd"
    }

    fn compress(&self, input: &mut dyn Buf, output: &mut BytesMut) -> Result<(), CompressionError> {
        let mut compressor = self.compressor().ok_or(CompressionError::Failed)?;
        compress(&mut compressor, input, output).map_err(|_| CompressionError::Failed)?;
        // One that has failed is not used again.
        let _kept = COMPRESSOR.try_with(|cell| cell.set(Some((self.level, compressor))));
        Ok(())
    }

    fn decompress(
        &self,
        input: &mut dyn Buf,
        output: &mut BytesMut,
        max_size: usize,
    ) -> Result<(), CompressionError> {
        decompress_all(Inflating::new(max_size)?, input, output)
    }

    fn decompressor(&self, max_size: usize) -> Option<Box<dyn Decompressor>> {
        // What cannot begin fails in `decompress`.
        Some(Box::new(Inflating::new(max_size).ok()?))
    }
}

fn compress(
    compressor: &mut CCtx<'static>,
    input: &mut dyn Buf,
    output: &mut BytesMut,
) -> Result<(), usize> {
    compressor.reset(ResetDirective::SessionOnly)?;
    // The tables are built for a message of this size, instead of one of unknown size.
    compressor.set_pledged_src_size(Some(input.remaining() as u64))?;
    loop {
        let chunk = input.chunk();
        let end = match chunk.len() == input.remaining() {
            true => ZSTD_EndDirective::ZSTD_e_end,
            false => ZSTD_EndDirective::ZSTD_e_continue,
        };
        let start = output.len();
        output.resize(start + step::to_compress(input.remaining()), 0);
        let mut into = OutBuffer::around(&mut output[start..]);
        let mut from = InBuffer::around(chunk);
        let left = compressor.compress_stream2(&mut into, &mut from, end);
        let (taken, made) = (from.pos(), into.pos());
        output.truncate(start + made);
        input.advance(taken);
        if left? == 0 && end == ZSTD_EndDirective::ZSTD_e_end {
            return Ok(());
        }
    }
}

/// Inflates one message, a step at a time.
struct Inflating {
    inflater: DCtx<'static>,
    /// Frames that have ended.
    frames: usize,
    /// The number of bytes that can still be written.
    room: usize,
}

impl Inflating {
    fn new(max_size: usize) -> Result<Self, CompressionError> {
        let mut inflater = DCtx::try_create().ok_or(CompressionError::Failed)?;
        inflater
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .map_err(|_| CompressionError::Failed)?;
        Ok(Self {
            inflater,
            frames: 0,
            room: max_size,
        })
    }
}

impl fmt::Debug for Inflating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflating")
            .field("frames", &self.frames)
            .field("room", &self.room)
            .finish_non_exhaustive()
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
            let mut into = OutBuffer::around(&mut output[start..]);
            let chunk = input.chunk();
            let mut from = InBuffer::around(&chunk[..chunk.len().min(step::INPUT_MAX)]);
            let left = self.inflater.decompress_stream(&mut into, &mut from);
            let (taken, made) = (from.pos(), into.pos());
            output.truncate(start + made);
            input.advance(taken);
            let room = self.room.checked_sub(made);
            self.room = room.ok_or(CompressionError::TooLarge)?;
            work.did(taken, made);
            match left {
                // RFC 8878, 3: frames can be concatenated, and so are their contents.
                Ok(0) if !input.has_remaining() => return Ok(true),
                Ok(0) => {
                    self.frames += 1;
                    if self.frames == MAX_PARTS {
                        return Err(CompressionError::TooCostly);
                    }
                    work.began_part();
                }
                Ok(_) if taken > 0 || made > 0 => {}
                Ok(_) => return Err(CompressionError::Corrupt),
                Err(code) if is_window(code) => return Err(CompressionError::TooCostly),
                Err(_) => return Err(CompressionError::Corrupt),
            }
        }
        Ok(false)
    }
}

/// Returns true if an error of the library is about the window. Its errors are negative numbers.
fn is_window(code: usize) -> bool {
    code.wrapping_neg() == ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf '' | zstd --no-check`: a frame that holds one empty block.
    const EMPTY: [u8; 9] = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00];

    fn decompressed(bytes: &[u8]) -> Result<BytesMut, CompressionError> {
        let mut output = BytesMut::new();
        Zstd::default()
            .decompress(&mut &bytes[..], &mut output, 100)
            .map(|()| output)
    }

    #[test]
    fn a_message_may_be_of_so_many_frames_and_no_more() {
        for (frames, expected) in [
            (MAX_PARTS - 1, Ok(BytesMut::new())),
            (MAX_PARTS, Ok(BytesMut::new())),
            (MAX_PARTS + 1, Err(CompressionError::TooCostly)),
        ] {
            assert_eq!(decompressed(&EMPTY.repeat(frames)), expected, "{frames}");
        }
    }

    #[test]
    fn a_window_is_8_mib_at_most() {
        // RFC 8878, 3.1.1.1.2: the window descriptor is five bits of exponent, from 1 KiB on, and
        // three bits of eighths. Behind it the last block, of the one byte "x".
        let frame = |descriptor| {
            let head = [0x28, 0xb5, 0x2f, 0xfd, 0x00, descriptor];
            [&head[..], &[0x09, 0x00, 0x00, b'x']].concat()
        };
        for (exponent, eighths, expected) in [
            (12, 7, Ok(&b"x"[..])),
            (13, 0, Ok(&b"x"[..])),
            (13, 1, Err(CompressionError::TooCostly)),
            (31, 7, Err(CompressionError::TooCostly)),
        ] {
            let decompressed = decompressed(&frame(exponent << 3 | eighths));
            assert_eq!(
                decompressed.as_deref(),
                expected.as_deref(),
                "{exponent} {eighths}"
            );
        }
    }
}
