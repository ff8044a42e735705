//! The buffer for a large message, in pieces and never in one large block.
//!
//! A block of a megabyte is mapped from the kernel and returned with each message, and the page
//! faults cost more than a copy. Hence a message stays in pieces: what the source can share is
//! shared, and what has to be copied goes into blocks that the allocator keeps.

use std::fmt;

use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::Payload;

/// Sources from this size on, in bytes, are taken over piece by piece, shared if they can be; what
/// is smaller is copied to its neighbours.
pub const SHARE_FROM: usize = 4 * 1024;

/// The largest piece, in bytes, that is taken from a source before it has shown that it shares: it
/// may be a copy, and this is half of what glibc's malloc takes for a large block.
const STEP: usize = 64 * 1024;

/// The first block for what is copied, in bytes: most large messages are one large field behind the
/// prefix and a few small ones.
const FIRST_BLOCK: usize = 512;

/// Each further block, in bytes.
const BLOCK: usize = 32 * 1024;

/// A buffer for encoding a large message, in several pieces instead of one large allocation.
///
/// Implements `bytes::BufMut`. `put` with a `Bytes` of 4 KiB or more shares the bytes instead of copying
/// them. The size of the buffer is not limited.
///
/// ```
/// # mod trunkline { pub use trunkline_codec as codec; pub use bytes; }
/// use trunkline::bytes::{BufMut, Bytes};
/// use trunkline::codec::Rope;
///
/// let field = Bytes::from(vec![7; 10_000]);
/// let mut rope = Rope::new();
/// rope.put_u8(1);
/// rope.put(field.clone());
/// let payload = rope.into_payload();
/// let pieces: Vec<&Bytes> = payload.pieces().collect();
/// assert_eq!((pieces.len(), payload.len()), (2, 10_001));
/// assert_eq!(pieces[1].as_ptr(), field.as_ptr());
/// ```
#[derive(Default)]
pub struct Rope {
    sealed: Payload,
    /// Behind `sealed`: the block that small sources are copied into. It is never asked for more
    /// than it has room for, so it never grows.
    tail: BytesMut,
}

impl Rope {
    /// Creates an empty buffer, without allocating.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of bytes written.
    pub fn len(&self) -> usize {
        self.sealed.len() + self.tail.len()
    }

    /// Returns true if nothing was written.
    pub fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.tail.is_empty()
    }

    /// Appends `piece` without copying it, regardless of its size.
    pub fn push(&mut self, piece: Bytes) {
        self.seal();
        self.sealed.push(piece);
    }

    /// Returns everything that was written.
    pub fn into_payload(mut self) -> Payload {
        self.seal();
        self.sealed
    }

    /// Ends the piece that is being written. What is free of its block stays for the next one.
    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.sealed.push(self.tail.split().freeze());
        }
    }

    /// Returns the free bytes of the block, and takes a new block if it is full.
    fn room(&mut self) -> usize {
        let room = self.tail.capacity() - self.tail.len();
        if room > 0 {
            return room;
        }
        let is_first = self.is_empty();
        self.seal();
        self.tail = BytesMut::with_capacity(if is_first { FIRST_BLOCK } else { BLOCK });
        self.tail.capacity()
    }
}

// SAFETY: `chunk_mut` and `advance_mut` are those of one `BytesMut`, whose `BufMut` is sound. Between
// a `chunk_mut` and the `advance_mut` that belongs to it nothing else touches this `BytesMut`: it is
// replaced in `room` and `seal` only, which the other methods call before they write and when they
// have written, and of these two methods only `chunk_mut` does, before it lends the block.
#[expect(
    unsafe_code,
    reason = "BufMut is an unsafe trait, and prost writes into nothing else"
)]
unsafe impl BufMut for Rope {
    #[inline]
    fn remaining_mut(&self) -> usize {
        // As BytesMut and Vec have it; more than that does not fit into memory.
        (isize::MAX as usize).saturating_sub(self.len())
    }

    #[inline]
    unsafe fn advance_mut(&mut self, count: usize) {
        // SAFETY: the caller has initialized `count` bytes of what `chunk_mut` gave, which were the
        // bytes after `tail`. More than its room makes `BytesMut` panic.
        unsafe { self.tail.advance_mut(count) }
    }

    #[inline]
    fn chunk_mut(&mut self) -> &mut UninitSlice {
        self.room();
        self.tail.chunk_mut()
    }

    fn put<T: Buf>(&mut self, mut source: T) {
        let mut step = STEP;
        while source.has_remaining() {
            let chunk = source.chunk();
            let (start, len) = (chunk.as_ptr(), chunk.len());
            if len < SHARE_FROM {
                self.put_slice(chunk);
                source.advance(len);
                continue;
            }
            let piece = source.copy_to_bytes(len.min(step));
            // Whether a source shares can only be seen from what it gives. If it does, the rest of
            // it need not be cut.
            step = if piece.as_ptr() == start {
                usize::MAX
            } else {
                STEP
            };
            self.push(piece);
        }
    }

    #[inline]
    fn put_slice(&mut self, mut source: &[u8]) {
        loop {
            let room = self.tail.capacity() - self.tail.len();
            if source.len() <= room {
                return self.tail.extend_from_slice(source);
            }
            let (now, later) = source.split_at(room);
            self.tail.extend_from_slice(now);
            self.room();
            source = later;
        }
    }

    fn put_bytes(&mut self, value: u8, mut count: usize) {
        while count > 0 {
            let now = self.room().min(count);
            self.tail.put_bytes(value, now);
            count -= now;
        }
    }
}

impl fmt::Debug for Rope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rope({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(state: &mut u32) -> usize {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 8) as usize
    }

    fn pieces(rope: Rope) -> Vec<Bytes> {
        rope.into_payload().pieces().cloned().collect()
    }

    #[test]
    fn a_rope_holds_what_a_buffer_would_whatever_is_put_in() {
        let source: Vec<u8> = (0..=250).cycle().take(150_000).collect();
        let shared = Bytes::from(source.clone());
        // Few, since each byte is followed where this runs under Miri.
        for seed in 0..if cfg!(miri) { 3 } else { 200 } {
            let (mut rope, mut model, mut state) = (Rope::new(), BytesMut::new(), seed);
            for _ in 0..12 {
                let size = match noise(&mut state) % 4 {
                    0 => noise(&mut state) % 20,
                    1 => noise(&mut state) % 3_000,
                    2 => SHARE_FROM - 2 + noise(&mut state) % 4,
                    _ => noise(&mut state) % if cfg!(miri) { 9_000 } else { 150_000 },
                };
                match noise(&mut state) % 7 {
                    0 => rope.put(shared.slice(..size)),
                    1 => rope.put(&source[..size]),
                    2 => rope.put_slice(&source[..size]),
                    3 => rope.put(source[..size / 2].chain(&source[size / 2..size])),
                    4 => rope.push(shared.slice(..size)),
                    5 => {
                        rope.put_bytes(9, size);
                        model.put_bytes(9, size);
                        continue;
                    }
                    _ => {
                        rope.put_u64_le(size as u64);
                        model.put_u64_le(size as u64);
                        continue;
                    }
                }
                model.extend_from_slice(&source[..size]);
            }
            assert_eq!(
                (rope.len(), rope.is_empty()),
                (model.len(), model.is_empty())
            );
            assert_eq!(rope.into_payload().into_bytes(), model, "seed {seed}");
        }
    }

    #[test]
    fn sources_from_4_kib_on_are_shared_and_smaller_ones_are_copied_together() {
        for (size, shares) in [
            (SHARE_FROM - 1, false),
            (SHARE_FROM, true),
            (SHARE_FROM + 1, true),
            (100_000, true),
        ] {
            let source = Bytes::from(vec![7; size]);
            let mut rope = Rope::new();
            rope.put_u8(1);
            rope.put(source.clone());
            let pieces = pieces(rope);
            let is_there = pieces.iter().any(|it| it.as_ptr() == source.as_ptr());
            assert_eq!(is_there, shares, "{size}");
            assert_eq!(source.is_unique(), !shares);
        }
    }

    #[test]
    fn a_large_source_that_shares_is_cut_once_and_one_that_does_not_into_steps() {
        let source = Bytes::from(vec![7; 1_000_000]);
        let mut rope = Rope::new();
        rope.put(source.clone());
        let shared = pieces(rope);
        assert_eq!(
            shared.iter().map(Bytes::len).collect::<Vec<_>>(),
            [STEP, 1_000_000 - STEP]
        );
        assert_eq!(shared[1].as_ptr(), source[STEP..].as_ptr());
        for copies in [
            |rope: &mut Rope, source: &[u8]| rope.put(source),
            |rope: &mut Rope, source: &[u8]| {
                rope.put_slice(source);
            },
        ] {
            let mut rope = Rope::new();
            copies(&mut rope, &source);
            let sizes: Vec<_> = pieces(rope).iter().map(Bytes::len).collect();
            assert!(sizes.iter().all(|size| *size <= STEP), "{sizes:?}");
        }
    }

    #[test]
    fn a_message_of_many_small_fields_is_never_one_large_block() {
        let mut rope = Rope::new();
        let fields = if cfg!(miri) { 2_000 } else { 100_000 };
        for _ in 0..fields {
            rope.put_u8(10);
            rope.put_slice(b"0123456789");
        }
        let pieces = pieces(rope);
        assert!(pieces.iter().all(|piece| piece.len() <= BLOCK));
        assert!(
            pieces.len() <= 2 + 11 * fields / BLOCK,
            "{} pieces",
            pieces.len()
        );
    }

    #[test]
    fn what_is_written_by_hand_is_where_the_next_chunk_begins() {
        let (mut rope, mut model) = (Rope::new(), Vec::new());
        for round in 0..if cfg!(miri) { 600 } else { 2_000_usize } {
            let chunk = rope.chunk_mut();
            let count = (round % 7).min(chunk.len());
            chunk[..count].copy_from_slice(&[round as u8; 7][..count]);
            // Asked again without an advance, it is the same room.
            assert!(rope.chunk_mut().len() >= count && rope.remaining_mut() >= count);
            #[expect(unsafe_code, reason = "it is what is tested")]
            // SAFETY: `count` bytes have been written just now.
            unsafe {
                rope.advance_mut(count);
            }
            model.extend_from_slice(&[round as u8; 7][..count]);
            if round % 500 == 0 {
                rope.push(Bytes::from_static(b"between"));
                model.extend_from_slice(b"between");
            }
        }
        assert_eq!(format!("{rope:?}"), format!("Rope({} bytes)", model.len()));
        assert_eq!(rope.into_payload().into_bytes(), model);
        assert!(Rope::new().is_empty() && Rope::new().into_payload().is_empty());
    }
}
