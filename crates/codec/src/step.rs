//! The work of a compressor in one step: the space that it reserves in its output, and its pauses.

/// The most space, in bytes, and so the most that is written before the size is checked.
const STEP_MAX: usize = 16 * 1024;

/// The least space, in bytes, for a call into the library.
const STEP_MIN: usize = 512;

/// Returns the space to reserve for compressing `remaining` bytes.
pub(crate) fn to_compress(remaining: usize) -> usize {
    (remaining / 2).clamp(STEP_MIN, STEP_MAX)
}

/// Returns the space to reserve for inflating `remaining` bytes into at most `room` bytes.
///
/// One byte more than `room` detects that there is more. The size that the peer claims is not used.
pub(crate) fn to_inflate(remaining: usize, room: usize) -> usize {
    remaining
        .saturating_mul(4)
        .clamp(STEP_MIN, STEP_MAX)
        .min(room.saturating_add(1))
}

/// The most input for one call into the library: a kilobyte can take a hundred times as long as another.
pub(crate) const INPUT_MAX: usize = 4 * 1024;

/// The highest cost of a step of decompression, in bytes of output.
const COST_MAX: usize = 64 * 1024;

/// The highest cost of a byte of input, in bytes of output: that of blocks that contain only tables.
const COST_OF_INPUT: usize = COST_MAX / INPUT_MAX;

/// The minimum cost of a part: the state of an inflater.
const COST_OF_PART: usize = 4 * 1024;

/// The cost so far of a step of decompression.
#[derive(Default)]
pub(crate) struct Work(usize);

impl Work {
    pub(crate) fn did(&mut self, taken: usize, made: usize) {
        self.0 += taken * COST_OF_INPUT + made;
    }

    pub(crate) fn began_part(&mut self) {
        self.0 += COST_OF_PART;
    }

    /// True if it is time to let others go on.
    pub(crate) fn is_enough(&self) -> bool {
        self.0 >= COST_MAX
    }
}
