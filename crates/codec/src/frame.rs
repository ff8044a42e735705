//! Length-prefixed messages.
//!
//! ```text
//!  Compressed-Flag (1 byte: 0 or 1) | Message-Length (4 bytes, big endian) | Message
//! ```

use std::collections::VecDeque;
use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// The size of what stands before each message, in bytes.
pub const PREFIX_SIZE: usize = 5;

/// A chunk below this size, in bytes, is copied to its neighbours when it has to wait.
///
/// A chunk shares the buffer that the socket was read into. If chunks of one byte each kept such a buffer, a peer could
/// make us hold thousands of times what it sends (CVE-2026-84304).
const COMPACT_BELOW: usize = 1024;

/// Copied chunks are gathered into pieces of about this size, so that no copy ever becomes one large block.
const PIECE_SIZE: usize = 16 * 1024;

/// The prefix of a message of `len` bytes.
// PROTOCOL-HTTP2.md, "Requests": Length-Prefixed-Message is Compressed-Flag Message-Length Message.
#[inline]
pub fn prefix(compressed: bool, len: u32) -> [u8; PREFIX_SIZE] {
    let [a, b, c, d] = len.to_be_bytes();
    [u8::from(compressed), a, b, c, d]
}

/// A message as it came: pieces of shared bytes, read as one [`Buf`].
///
/// A message that arrived in one chunk is one piece, a slice of that chunk. `copy_to_bytes` shares what lies in one
/// piece.
#[derive(Clone, Default)]
pub struct Payload {
    /// Empty only if there is nothing left at all.
    front: Bytes,
    rest: VecDeque<Bytes>,
    len: usize,
}

impl Payload {
    /// How many bytes are left.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no bytes are left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is left as one block: without a copy if it is one piece, else in a new block.
    pub fn into_bytes(mut self) -> Bytes {
        self.copy_to_bytes(self.len)
    }

    /// What is left, piece by piece.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.front).chain(&self.rest).filter(|piece| !piece.is_empty())
    }

    fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.len += piece.len();
        match self.front.is_empty() {
            true => self.front = piece,
            false => self.rest.push_back(piece),
        }
    }

    fn drop_empty_front(&mut self) {
        if self.front.is_empty() {
            self.front = self.rest.pop_front().unwrap_or_default();
        }
    }
}

impl Buf for Payload {
    #[inline]
    fn remaining(&self) -> usize {
        self.len
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        &self.front
    }

    #[inline]
    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "cannot advance by {count} bytes, {} are left", self.len);
        self.len -= count;
        while count >= self.front.len() && count > 0 {
            count -= self.front.len();
            self.front = self.rest.pop_front().unwrap_or_default();
        }
        self.front.advance(count);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        assert!(len <= self.len, "cannot take {len} bytes, {} are left", self.len);
        if len <= self.front.len() {
            let taken = self.front.split_to(len);
            self.len -= len;
            self.drop_empty_front();
            return taken;
        }
        // The bytes are here already: this length is no claim.
        let mut block = BytesMut::with_capacity(len);
        while block.len() < len {
            let count = self.front.len().min(len - block.len());
            block.extend_from_slice(&self.front[..count]);
            self.advance(count);
        }
        block.freeze()
    }
}

impl From<Bytes> for Payload {
    #[inline]
    fn from(bytes: Bytes) -> Self {
        Self { len: bytes.len(), front: bytes, rest: VecDeque::new() }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len)
    }
}

/// A message with its flag.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Whether the payload is compressed.
    pub compressed: bool,
    /// The message as it came.
    pub payload: Payload,
}

/// Why bytes are not messages.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The compressed flag is neither 0 nor 1.
    Flag(u8),
    /// The prefix announces a message above the limit.
    TooLarge {
        /// The announced size, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The stream ended inside a message or its prefix.
    Truncated {
        /// How many bytes of the message, or of its prefix, there are.
        received: usize,
        /// How many there should be.
        expected: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "a message has the compressed flag {flag}, which is neither 0 nor 1"),
            Self::TooLarge { size, limit } => {
                write!(f, "a message of {size} bytes is larger than the limit of {limit} bytes (max_recv_message_size)")
            }
            Self::Truncated { received, expected } => {
                write!(f, "the stream ended inside a message, after {received} of {expected} bytes")
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// Cuts chunks of a stream into messages.
///
/// Nothing is decoded until [`next`](Self::next) is called, and nothing is allocated from a length that the peer claims.
#[derive(Debug)]
pub struct Decoder {
    max_size: usize,
    /// What was pushed and not taken, in order; `tail` comes after it.
    chunks: Payload,
    /// Where small chunks are copied to.
    tail: BytesMut,
    /// The prefix of the next message, once it was read.
    prefix: Option<Prefix>,
    failed: Option<FrameError>,
}

#[derive(Copy, Clone, Debug)]
struct Prefix {
    compressed: bool,
    size: usize,
}

impl Decoder {
    /// A decoder of messages of up to `max_size` bytes.
    #[inline]
    pub fn new(max_size: usize) -> Self {
        Self { max_size, chunks: Payload::default(), tail: BytesMut::new(), prefix: None, failed: None }
    }

    /// The largest message that is let through, in bytes.
    #[inline]
    pub fn max_size(&self) -> usize {
        self.max_size
    }

    /// How many bytes wait to be decoded.
    #[inline]
    pub fn buffered(&self) -> usize {
        self.chunks.len() + self.tail.len()
    }

    /// Whether the stream may end here: there is no part of a message.
    #[inline]
    pub fn is_at_boundary(&self) -> bool {
        self.prefix.is_none() && self.buffered() == 0
    }

    /// Takes the next chunk of the stream. After an error chunks are dropped.
    #[inline]
    pub fn push(&mut self, chunk: Bytes) {
        if self.failed.is_some() {
            return;
        }
        if self.is_first() || chunk.len() >= COMPACT_BELOW {
            self.seal_tail();
            self.chunks.push(chunk);
            return;
        }
        self.compact(&chunk);
    }

    /// The next message that is here in full; `None` until more chunks come.
    ///
    /// # Errors
    ///
    /// [`FrameError::Flag`] and [`FrameError::TooLarge`], from then on each time, as soon as the prefix is here.
    #[inline]
    #[allow(clippy::should_implement_trait, reason = "None is not the end here")]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Some(prefix) = self.prefix()? else {
            return Ok(None);
        };
        if self.buffered() < prefix.size {
            self.compact_front();
            return Ok(None);
        }
        self.prefix = None;
        let payload = self.take(prefix.size);
        Ok(Some(Frame { compressed: prefix.compressed, payload }))
    }

    /// To be called at the end of the stream, when [`next`](Self::next) has given `None`.
    ///
    /// # Errors
    ///
    /// [`FrameError::Truncated`] when a part of a message is left over, or what `next` failed with.
    pub fn finish(&self) -> Result<(), FrameError> {
        match (self.failed, self.prefix) {
            (Some(error), _) => Err(error),
            (None, Some(prefix)) => {
                Err(FrameError::Truncated { received: self.buffered(), expected: prefix.size })
            }
            (None, None) if self.buffered() > 0 => {
                Err(FrameError::Truncated { received: self.buffered(), expected: PREFIX_SIZE })
            }
            (None, None) => Ok(()),
        }
    }

    /// Drops what waits to be decoded.
    pub(crate) fn clear(&mut self) {
        self.chunks = Payload::default();
        self.tail = BytesMut::new();
        self.prefix = None;
    }

    #[inline]
    fn is_first(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    fn prefix(&mut self) -> Result<Option<Prefix>, FrameError> {
        if self.prefix.is_some() {
            return Ok(self.prefix);
        }
        if self.buffered() < PREFIX_SIZE {
            self.compact_front();
            return Ok(None);
        }
        if self.chunks.len() < PREFIX_SIZE {
            self.seal_tail();
        }
        let mut bytes = [0; PREFIX_SIZE];
        self.chunks.copy_to_slice(&mut bytes);
        let [flag, size @ ..] = bytes;
        let size = u32::from_be_bytes(size) as usize;
        if flag > 1 {
            return self.fail(FrameError::Flag(flag));
        }
        if size > self.max_size {
            return self.fail(FrameError::TooLarge { size, limit: self.max_size });
        }
        self.prefix = Some(Prefix { compressed: flag == 1, size });
        Ok(self.prefix)
    }

    fn fail<T>(&mut self, error: FrameError) -> Result<T, FrameError> {
        self.failed = Some(error);
        self.clear();
        Err(error)
    }

    /// Takes `size` bytes, which are here, piece by piece.
    #[inline]
    fn take(&mut self, size: usize) -> Payload {
        if self.chunks.len() < size {
            self.seal_tail();
        }
        if size <= self.chunks.chunk().len() {
            return Payload::from(self.chunks.copy_to_bytes(size));
        }
        let mut payload = Payload::default();
        while payload.len() < size {
            let count = self.chunks.chunk().len().min(size - payload.len());
            payload.push(self.chunks.copy_to_bytes(count));
        }
        payload
    }

    /// Copies a small chunk behind what waits.
    fn compact(&mut self, chunk: &[u8]) {
        if self.tail.len() + chunk.len() > PIECE_SIZE {
            self.seal_tail();
        }
        self.tail.extend_from_slice(chunk);
    }

    /// Copies a small front that has to wait, so that it lets go of the buffer it lies in.
    fn compact_front(&mut self) {
        let waits = self.chunks.len();
        if waits == 0 || waits >= COMPACT_BELOW || !self.tail.is_empty() {
            return;
        }
        let front = std::mem::take(&mut self.chunks);
        front.pieces().for_each(|piece| self.tail.extend_from_slice(piece));
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push(self.tail.split().freeze());
        }
    }
}
