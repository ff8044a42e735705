//! How much room encodings make in their output at a time.

/// The most, and so the most that is written before the size is looked at.
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
