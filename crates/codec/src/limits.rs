//! The limits that both ends keep to for each message.

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The limits for messages, at a server and at a client.
///
/// No field is an `Option`: a limit that could be absent would one day be absent by mistake. To
/// lift a limit, set it to the largest number that the machine can bear.
///
/// ```
/// # mod trunkline { pub use trunkline_codec as limits; }
/// use trunkline::limits::MessageLimits;
///
/// let mut limits = MessageLimits::default();
/// limits.max_recv_message_size = 16 * 1024 * 1024;
/// assert_eq!(limits.compress_above, 1024);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MessageLimits {
    /// The largest message that is accepted, in bytes, both compressed and decompressed. Default:
    /// 4 MiB, as in every other implementation. A larger one ends its call with RESOURCE_EXHAUSTED.
    ///
    /// Each open stream may hold this many bytes of a message that is still arriving. Compressed
    /// messages are decompressed in steps, so a stream may hold both the compressed bytes and those
    /// decompressed so far, and 8 MiB for the window of zstd.
    pub max_recv_message_size: usize,
    /// The largest message that is sent, in bytes before compression. Default: `u32::MAX`, the
    /// largest length that a message can declare. A larger one is not sent and fails with
    /// RESOURCE_EXHAUSTED.
    pub max_send_message_size: usize,
    /// The largest message that is sent uncompressed by a channel or a server that compresses, in
    /// bytes. Default: 1 KiB, which fits into one packet together with its head: compression would
    /// save no packet, and costs more than the rest of a small call.
    pub compress_above: usize,
}

impl Default for MessageLimits {
    fn default() -> Self {
        Self {
            max_recv_message_size: 4 * MIB,
            max_send_message_size: u32::MAX as usize,
            compress_above: KIB,
        }
    }
}
