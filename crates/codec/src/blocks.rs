//! Large blocks that are used again.
//!
//! A large message comes in pieces and is put together in one block, so that its fields, which are
//! one block each, can share it. The allocator maps such a block from the kernel and returns it
//! with each message; the page faults cost more than the copy. So the process keeps a few. A block
//! comes back when the last [`Bytes`] over it is dropped, on whichever thread that is.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// The smallest block that is kept, in bytes: below, the allocator keeps memory itself.
pub const BLOCK_MIN: usize = 64 * 1024;

/// The most bytes of unused blocks that the process keeps, and so the largest block
/// that is kept.
pub const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most unused blocks that the process keeps, so that finding one is quick.
pub const KEPT_BLOCKS_MAX: usize = 64;

static KEPT: Mutex<Kept> = Mutex::new(Kept::new(KEPT_BYTES_MAX, KEPT_BLOCKS_MAX));

/// Unused blocks; the last one is the one that was returned last.
struct Kept {
    blocks: VecDeque<Vec<u8>>,
    /// The capacities of all of them.
    bytes: usize,
    max_bytes: usize,
    max_blocks: usize,
}

/// A block in use, which is returned when it is dropped.
#[derive(Debug)]
pub(crate) struct Block(Vec<u8>);

/// Returns true if `len` bytes go into a block.
pub(crate) fn are_for(len: usize) -> bool {
    len >= BLOCK_MIN && size_for(len) <= KEPT_BYTES_MAX
}

/// The size of a new block for `len` bytes: up to a quarter more, so that it will do for others.
fn size_for(len: usize) -> usize {
    len.next_multiple_of((len.next_power_of_two() / 8).max(1))
}

impl Block {
    /// An empty block with room for `len` bytes, and no more than two and a half times as large.
    ///
    /// `len` has to be in proportion to bytes that are here: it may be no mere claim of a peer's.
    pub(crate) fn new(len: usize) -> Self {
        let kept = match are_for(len) {
            true => lock().take(len),
            false => None,
        };
        Self(kept.unwrap_or_else(|| Vec::with_capacity(size_for(len))))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let dropped = lock().keep(std::mem::take(&mut self.0));
        // Outside the lock: the kernel takes its time with them.
        drop(dropped);
    }
}

impl Kept {
    const fn new(max_bytes: usize, max_blocks: usize) -> Self {
        Self {
            blocks: VecDeque::new(),
            bytes: 0,
            max_bytes,
            max_blocks,
        }
    }

    /// Takes a block for `len` bytes that is not much too large. Of several, that which came back
    /// last: its memory is most likely in the cache.
    fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        let size = size_for(len);
        let at = self
            .blocks
            .iter()
            .rposition(|block| (size..=2 * size).contains(&block.capacity()))?;
        let block = self.blocks.remove(at)?;
        self.bytes -= block.capacity();
        Some(block)
    }

    /// Keeps `block`, and returns those that are to be dropped: the oldest ones, which are of sizes
    /// that nobody wants now, or `block` itself, if it is too small or too large.
    fn keep(&mut self, mut block: Vec<u8>) -> Vec<Vec<u8>> {
        let mut dropped = Vec::new();
        if !(BLOCK_MIN..=self.max_bytes).contains(&block.capacity()) {
            dropped.push(block);
            return dropped;
        }
        block.clear();
        self.bytes += block.capacity();
        self.blocks.push_back(block);
        while self.bytes > self.max_bytes || self.blocks.len() > self.max_blocks {
            let Some(oldest) = self.blocks.pop_front() else {
                break;
            };
            self.bytes -= oldest.capacity();
            dropped.push(oldest);
        }
        dropped
    }
}

fn lock() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(size: usize) -> Vec<u8> {
        Vec::with_capacity(size)
    }

    #[test]
    fn a_block_comes_back_and_is_taken_again_for_what_it_fits() {
        let mut kept = Kept::new(1 << 20, 4);
        assert!(kept.take(100_000).is_none());
        let mut used = block(size_for(100_000));
        used.extend_from_slice(b"somebody else's");
        let (start, size) = (used.as_ptr(), used.capacity());
        assert!(kept.keep(used).is_empty());
        // No more than half of it may go to waste, and no byte of it may be missing.
        for other in [size / 2 - 10_000, size + 1] {
            assert!(kept.take(other).is_none(), "{other}");
        }
        let again = kept.take(100_000).expect("it came back");
        assert_eq!((again.as_ptr(), again.len(), kept.bytes), (start, 0, 0));
        assert!(kept.take(100_000).is_none(), "it was taken");
    }

    #[test]
    fn sizes_are_in_proportion() {
        for (len, size) in [
            (BLOCK_MIN, BLOCK_MIN),
            (BLOCK_MIN + 1, BLOCK_MIN + 16 * 1024),
            (1 << 20, 1 << 20),
            ((1 << 20) + 1, (1 << 20) + (256 << 10)),
            (70 << 10, 80 << 10),
        ] {
            assert_eq!(size_for(len), size, "{len}");
        }
        assert!(!are_for(BLOCK_MIN - 1) && are_for(BLOCK_MIN) && are_for(BLOCK_MIN + 1));
        assert!(are_for(KEPT_BYTES_MAX) && !are_for(KEPT_BYTES_MAX + 1));
        // The sizes of things that are no large messages.
        assert_eq!([0, 1, 7, 9].map(size_for), [0, 1, 7, 10]);
    }

    #[test]
    fn blocks_are_kept_up_to_the_limit_in_bytes_and_the_oldest_go_first() {
        let mut kept = Kept::new(3 * BLOCK_MIN, 10);
        let dropped = |kept: &mut Kept, size| -> Vec<usize> {
            kept.keep(block(size)).iter().map(Vec::capacity).collect()
        };
        assert!(dropped(&mut kept, BLOCK_MIN + 1).is_empty());
        assert!(dropped(&mut kept, BLOCK_MIN).is_empty());
        assert_eq!(
            dropped(&mut kept, BLOCK_MIN),
            [BLOCK_MIN + 1],
            "one byte above"
        );
        assert!(dropped(&mut kept, BLOCK_MIN).is_empty(), "at the limit");
        assert_eq!(kept.bytes, 3 * BLOCK_MIN);
        // What does not belong here at all drops nothing else.
        for size in [BLOCK_MIN - 1, 3 * BLOCK_MIN + 1] {
            assert_eq!(dropped(&mut kept, size), [size]);
        }
        assert_eq!(dropped(&mut kept, 3 * BLOCK_MIN), [BLOCK_MIN; 3]);
    }

    #[test]
    fn blocks_are_kept_up_to_the_limit_in_number() {
        let mut kept = Kept::new(usize::MAX, 3);
        let mut dropped = (0..5).map(|i| kept.keep(block(BLOCK_MIN + i)).len());
        assert!(dropped.by_ref().eq([0, 0, 0, 1, 1]));
        drop(dropped);
        assert_eq!((kept.blocks.len(), kept.bytes), (3, 3 * BLOCK_MIN + 9));
    }

    #[test]
    fn a_block_goes_back_to_the_process_when_its_last_share_is_dropped() {
        // A size that no other test of this process uses.
        let len = 7_654_321;
        let mut block = Block::new(len);
        block.extend_from_slice(b"bytes");
        let start = block.0.as_ptr();
        let bytes = block.freeze();
        let share = bytes.slice(1..3);
        drop(bytes);
        assert_ne!(Block::new(len).0.as_ptr(), start, "it is still shared");
        assert_eq!(share, "yt");
        drop(share);
        let again = Block::new(len);
        assert_eq!((again.0.as_ptr(), again.len()), (start, 0));
    }
}
