//! The work that compressors do at a time: the room they make in their output, and when they pause.

/// The most room, and so the most that is written before the size is looked at.
const STEP_MAX: usize = 16 * 1024;

/// The least room worth a call into the library.
const STEP_MIN: usize = 512;

/// To compress what `remaining` bytes are left of.
pub(crate) fn to_compress(remaining: usize) -> usize {
    (remaining / 2).clamp(STEP_MIN, STEP_MAX)
}

/// To inflate what `remaining` bytes are left of, into `room` bytes.
///
/// One byte past the room shows that there is more; its size is never taken from what the peer
/// claims.
pub(crate) fn to_inflate(remaining: usize, room: usize) -> usize {
    remaining
        .saturating_mul(4)
        .clamp(STEP_MIN, STEP_MAX)
        .min(room.saturating_add(1))
}

/// The most input for one call into the library: a kilobyte can take a hundred times as long as another.
pub(crate) const INPUT_MAX: usize = 4 * 1024;

/// The most that a step of restoring may cost, in bytes that come out.
const COST_MAX: usize = 64 * 1024;

/// The most that a byte which goes in costs, in bytes that come out. Blocks that hold nothing but
/// tables cost that.
const COST_OF_INPUT: usize = COST_MAX / INPUT_MAX;

/// The cost of a part, however little it holds: the state of an inflater.
const COST_OF_PART: usize = 4 * 1024;

/// The cost of a step of restoring so far.
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
