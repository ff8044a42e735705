//! The limits that both ends keep to for each message.

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The limits of messages, on a server or a client.
///
/// Every limit is a number; none can be turned off. To allow more, set a number that the memory of the
/// machine permits.
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
    /// The largest message that is accepted, in bytes. Default: 4 MiB, as in other gRPC implementations. The
    /// limit applies to a message as it is received and, if it is compressed, also after decompression. A
    /// larger one ends its call with RESOURCE_EXHAUSTED.
    ///
    /// Each open stream can use this much memory for a message that is still arriving. A compressed
    /// message can use it twice, for its compressed and its decompressed bytes, and with zstd another 8 MiB.
    pub max_recv_message_size: usize,
    /// The largest message that is sent, in bytes before compression. Default: `u32::MAX`, the largest size
    /// that the protocol allows. A larger one is not sent: the request or response of a unary call fails with
    /// RESOURCE_EXHAUSTED, and `send` of a stream returns RESOURCE_EXHAUSTED, after which the stream can
    /// continue.
    pub max_send_message_size: usize,
    /// The size in bytes up to which messages are sent uncompressed even if compression is on. Default:
    /// 1 KiB. A message of this size fits into one network packet, so compressing it would save little, and
    /// take longer than the rest of a small call.
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
