//! Length-prefixed messages: Compressed-Flag (1 byte, 0 or 1), Message-Length (4 bytes, big endian), Message.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use crate::blocks::{self, Block};

/// The size of the prefix of each message, in bytes.
pub const PREFIX_SIZE: usize = 5;

/// A chunk below this size, in bytes, is copied to its neighbours when it has to wait.
///
/// A chunk shares the buffer that the socket was read into. If chunks of one byte each kept such a
/// buffer, a peer could make us hold thousands of times what it sends (CVE-2026-84304).
const COMPACT_BELOW: usize = 1024;

/// Copied chunks are gathered into pieces of about this size, so that no copy ever becomes one
/// large block.
const PIECE_SIZE: usize = 16 * 1024;

/// When this part of a large message is here, there is a block for all of it. Its size, which is a
/// claim of the peer's, thus stays in proportion to what the peer has sent.
const GATHER_AT: usize = 4;

/// The prefix of a message of `len` bytes.
// PROTOCOL-HTTP2.md, "Requests": Length-Prefixed-Message is Compressed-Flag Message-Length Message.
#[inline]
pub fn prefix(compressed: bool, len: u32) -> [u8; PREFIX_SIZE] {
    let [a, b, c, d] = len.to_be_bytes();
    [u8::from(compressed), a, b, c, d]
}

/// Returns the message of a body that consists of one uncompressed message of up to `max_size` bytes,
/// as most requests do. Returns `None` for any other body, which a [`Decoder`] reads.
#[inline]
pub fn only_message(body: &Bytes, max_size: usize) -> Option<Bytes> {
    let prefix = Prefix::parse(body.first_chunk()?, max_size).ok()?;
    let is_whole = !prefix.compressed && body.len() == PREFIX_SIZE + prefix.size;
    is_whole.then(|| body.slice(PREFIX_SIZE..))
}

/// The bytes of a message, in one or more pieces that are not next to each other in memory.
///
/// Implements `bytes::Buf`, which reads the pieces in sequence. Cloning does not copy the bytes. Nor does
/// `copy_to_bytes`, if the bytes that it returns are in one piece.
///
/// ```
/// # mod trunkline { pub use trunkline_codec as codec; pub use bytes; }
/// use trunkline::bytes::Bytes;
/// use trunkline::codec::Payload;
///
/// let mut payload = Payload::from(Bytes::from_static(b"ab"));
/// payload.push(Bytes::from_static(b"cd"));
/// assert_eq!(payload.into_bytes(), "abcd");
/// ```
#[derive(Clone, Default)]
pub struct Payload {
    /// Empty only if there is nothing left at all.
    front: Bytes,
    /// Boxed, because most messages are one piece and each is moved several times.
    rest: Option<Box<Rest>>,
}

/// The pieces after the first one; none of them is empty.
#[derive(Clone, Default)]
struct Rest {
    pieces: VecDeque<Bytes>,
    /// The size of all of them.
    len: usize,
}

impl Payload {
    /// Returns the number of remaining bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.front.len() + self.rest.as_ref().map_or(0, |rest| rest.len)
    }

    /// Returns true if no bytes remain.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.front.is_empty()
    }

    /// Returns the remaining bytes in one buffer. Copies them only if they are in several pieces.
    #[inline]
    pub fn into_bytes(mut self) -> Bytes {
        match self.rest {
            None => self.front,
            Some(_) => self.copy_to_bytes(self.len()),
        }
    }

    /// Returns the remaining pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        let front = (!self.front.is_empty()).then_some(&self.front);
        front
            .into_iter()
            .chain(self.rest.iter().flat_map(|rest| &rest.pieces))
    }

    /// Returns true if there are two pieces or more.
    #[inline]
    pub fn is_in_pieces(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| rest.len > 0)
    }

    /// Appends a piece, without a copy.
    #[inline]
    pub fn push(&mut self, piece: Bytes) {
        if self.front.is_empty() {
            self.front = piece;
        } else if !piece.is_empty() {
            let rest = self.rest.get_or_insert_default();
            rest.len += piece.len();
            rest.pieces.push_back(piece);
        }
    }

    /// Removes and returns the first piece. It is empty only if no bytes remain.
    #[inline]
    pub fn pop(&mut self) -> Bytes {
        let next = match &mut self.rest {
            None => Bytes::new(),
            Some(_) => self.pop_rest(),
        };
        std::mem::replace(&mut self.front, next)
    }

    fn pop_rest(&mut self) -> Bytes {
        let popped = self.rest.as_mut().and_then(|rest| {
            let piece = rest.pieces.pop_front()?;
            rest.len -= piece.len();
            Some(piece)
        });
        popped.unwrap_or_default()
    }

    /// Takes `len` bytes, which must be there, one part of a piece after the other.
    fn take_each(&mut self, mut len: usize, mut append: impl FnMut(&[u8])) {
        while len > 0 {
            let count = self.front.len().min(len);
            append(&self.front[..count]);
            self.advance(count);
            len -= count;
        }
    }

    /// Takes `len` bytes, which the first piece must have.
    #[inline]
    fn take_from_front(&mut self, len: usize) -> Bytes {
        match len == self.front.len() {
            true => self.pop(),
            false => self.front.split_to(len),
        }
    }
}

impl Buf for Payload {
    #[inline]
    fn remaining(&self) -> usize {
        self.len()
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        &self.front
    }

    #[inline]
    fn advance(&mut self, mut count: usize) {
        assert!(
            count <= self.len(),
            "cannot advance by {count} bytes, {} are left",
            self.len()
        );
        while count > 0 && count >= self.front.len() {
            count -= self.pop().len();
        }
        self.front.advance(count);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        assert!(
            len <= self.len(),
            "cannot take {len} bytes, {} are left",
            self.len()
        );
        if len <= self.front.len() {
            return self.take_from_front(len);
        }
        // The bytes are here already: this length is no claim.
        if blocks::are_for(len) {
            let mut block = Block::new(len);
            self.take_each(len, |part| block.extend_from_slice(part));
            return block.freeze();
        }
        let mut copy = BytesMut::with_capacity(len);
        self.take_each(len, |part| copy.extend_from_slice(part));
        copy.freeze()
    }
}

impl From<Bytes> for Payload {
    #[inline]
    fn from(bytes: Bytes) -> Self {
        Self {
            front: bytes,
            rest: None,
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

/// A message with its flag.
#[derive(Clone, Debug)]
pub struct Frame {
    /// True if the payload is compressed.
    pub compressed: bool,
    /// The message as received.
    pub payload: Payload,
}

/// The error of bytes that are not messages.
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
        /// The bytes of the message, or of its prefix, that have arrived.
        received: usize,
        /// The expected number of bytes.
        expected: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(
                f,
                "a message has the compressed flag {flag}, which is neither 0 nor 1"
            ),
            Self::TooLarge { size, limit } => {
                write!(
                    f,
                    "a message of {size} bytes is larger than the limit of {limit} bytes (max_recv_message_size)"
                )
            }
            Self::Truncated { received, expected } => {
                write!(
                    f,
                    "the stream ended inside a message, after {received} of {expected} bytes"
                )
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// Cuts chunks of a stream into messages.
///
/// Nothing is decoded until [`next`](Self::next) is called, and nothing is allocated from a length
/// that the peer claims.
///
/// ```
/// use bytes::Bytes;
/// use trunkline_codec::Decoder;
///
/// let mut decoder = Decoder::new(1024);
/// decoder.push(Bytes::from_static(b"\0\0\0\0\x02hi\0\0"));
/// let frame = decoder.next()?.expect("the first message is complete");
/// assert_eq!(frame.payload.into_bytes(), "hi");
/// assert!(decoder.next()?.is_none());
/// assert!(decoder.finish().is_err(), "the second message is not");
/// # Ok::<(), trunkline_codec::FrameError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    max_size: usize,
    /// The chunks that were pushed and not taken, in order; `tail` comes after them.
    chunks: Payload,
    /// Where small chunks are copied to.
    tail: BytesMut,
    /// Where the beginning of a large message has been copied to, and where its other chunks go;
    /// `chunks` are behind it. Chunks that were kept until the last one comes would be as many
    /// buffers, which the allocator returns to the kernel after each message.
    block: Option<Box<Block>>,
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
    /// Creates a decoder of messages of up to `max_size` bytes.
    #[inline]
    pub fn new(max_size: usize) -> Self {
        Self {
            max_size,
            chunks: Payload::default(),
            tail: BytesMut::new(),
            block: None,
            prefix: None,
            failed: None,
        }
    }

    /// Returns the largest message that is accepted, in bytes.
    #[inline]
    pub fn max_size(&self) -> usize {
        self.max_size
    }

    /// Returns the number of bytes that wait to be decoded.
    #[inline]
    pub fn buffered(&self) -> usize {
        let block = self.block.as_ref().map_or(0, |block| block.len());
        block + self.chunks.len() + self.tail.len()
    }

    /// Returns true if the stream may end here, because no message has begun.
    #[inline]
    pub fn is_at_boundary(&self) -> bool {
        self.prefix.is_none() && self.buffered() == 0
    }

    /// Takes the next chunk of the stream. After an error chunks are dropped.
    #[inline]
    pub fn push(&mut self, mut chunk: Bytes) {
        if self.failed.is_some() {
            return;
        }
        if self.block.is_some() {
            self.gather(&mut chunk);
            if chunk.is_empty() {
                return;
            }
        }
        if self.is_first() || chunk.len() >= COMPACT_BELOW {
            self.seal_tail();
            self.chunks.push(chunk);
            return;
        }
        self.compact(&chunk);
    }

    /// Returns the next complete message; `None` until more chunks arrive.
    ///
    /// # Errors
    ///
    /// [`FrameError::Flag`] or [`FrameError::TooLarge`] once a prefix is invalid, also on later calls.
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "None is not the end of an iterator here"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        match self.next_in_front() {
            Some((compressed, message)) => Ok(Some(Frame {
                compressed,
                payload: message.into(),
            })),
            None => self.next_anywhere(),
        }
    }

    /// Checks the end of the stream, once [`next`](Self::next) has returned `None`.
    ///
    /// # Errors
    ///
    /// [`FrameError::Truncated`] if a part of a message is left over, or the error of `next`.
    pub fn finish(&self) -> Result<(), FrameError> {
        match (self.failed, self.prefix) {
            (Some(error), _) => Err(error),
            (None, Some(prefix)) => Err(FrameError::Truncated {
                received: self.buffered(),
                expected: prefix.size,
            }),
            (None, None) if self.buffered() > 0 => Err(FrameError::Truncated {
                received: self.buffered(),
                expected: PREFIX_SIZE,
            }),
            (None, None) => Ok(()),
        }
    }

    /// Drops the bytes that wait to be decoded.
    pub(crate) fn clear(&mut self) {
        self.chunks = Payload::default();
        self.tail = BytesMut::new();
        self.block = None;
        self.prefix = None;
    }

    /// Returns the next message and its flag if it is in the first chunk together with its prefix, as most are.
    #[inline]
    pub(crate) fn next_in_front(&mut self) -> Option<(bool, Bytes)> {
        if self.prefix.is_some() {
            return None;
        }
        let front = &mut self.chunks.front;
        let prefix = Prefix::parse(front.first_chunk()?, self.max_size).ok()?;
        let size = PREFIX_SIZE + prefix.size;
        if front.len() < size {
            return None;
        }
        front.advance(PREFIX_SIZE);
        Some((prefix.compressed, self.chunks.take_from_front(prefix.size)))
    }

    /// Reads the next message in place if it is shorter than `below` bytes, uncompressed, and in the first
    /// chunk together with its prefix. Takes nothing if `read` returns `None`.
    #[inline]
    pub(crate) fn read_in_front<T>(
        &mut self,
        below: usize,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<T> {
        if self.prefix.is_some() {
            return None;
        }
        let front: &[u8] = &self.chunks.front;
        let prefix = Prefix::parse(front.first_chunk()?, self.max_size).ok()?;
        if prefix.compressed || prefix.size >= below {
            return None;
        }
        let end = PREFIX_SIZE + prefix.size;
        let read = read(front.get(PREFIX_SIZE..end)?)?;
        match end == front.len() {
            true => drop(self.chunks.pop()),
            false => self.chunks.front.advance(end),
        }
        Some(read)
    }

    /// As [`next`](Self::next), wherever the message lies.
    pub(crate) fn next_anywhere(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Some(prefix) = self.prefix()? else {
            return Ok(None);
        };
        if self.buffered() < prefix.size {
            self.begin_block(prefix.size);
            self.compact_front();
            return Ok(None);
        }
        self.prefix = None;
        let payload = match self.block.take() {
            Some(block) => block.freeze().into(),
            None => self.take(prefix.size),
        };
        Ok(Some(Frame {
            compressed: prefix.compressed,
            payload,
        }))
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
        match Prefix::parse(&bytes, self.max_size) {
            Ok(prefix) => self.prefix = Some(prefix),
            Err(error) => {
                self.failed = Some(error);
                self.clear();
                return Err(error);
            }
        }
        Ok(self.prefix)
    }

    /// Takes `size` bytes, which are here, piece by piece.
    fn take(&mut self, size: usize) -> Payload {
        if self.chunks.len() < size {
            self.seal_tail();
        }
        let mut payload = Payload::default();
        let mut left = size;
        while left > 0 {
            let piece = self
                .chunks
                .take_from_front(left.min(self.chunks.front.len()));
            left -= piece.len();
            payload.push(piece);
        }
        payload
    }

    /// Begins a block for the message, of `size` bytes, if it is large and enough of it is here.
    fn begin_block(&mut self, size: usize) {
        let is_time = self.block.is_none() && self.buffered() >= size / GATHER_AT;
        if !is_time || !blocks::are_for(size) {
            return;
        }
        self.seal_tail();
        let mut block = Block::new(size);
        while !self.chunks.is_empty() {
            block.extend_from_slice(&self.chunks.pop());
        }
        self.block = Some(Box::new(block));
    }

    /// Moves the missing bytes of its message to the block.
    fn gather(&mut self, chunk: &mut Bytes) {
        let (Some(block), Some(prefix)) = (&mut self.block, self.prefix) else {
            return;
        };
        let missing = (prefix.size - block.len()).min(chunk.len());
        block.extend_from_slice(&chunk[..missing]);
        chunk.advance(missing);
    }

    #[inline]
    fn is_first(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    /// Copies a small chunk after the waiting bytes.
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
        front
            .pieces()
            .for_each(|piece| self.tail.extend_from_slice(piece));
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push(self.tail.split().freeze());
        }
    }
}

impl Prefix {
    #[inline]
    fn parse(bytes: &[u8; PREFIX_SIZE], max_size: usize) -> Result<Self, FrameError> {
        let [flag, a, b, c, d] = *bytes;
        let size = u32::from_be_bytes([a, b, c, d]) as usize;
        if flag > 1 {
            return Err(FrameError::Flag(flag));
        }
        if size > max_size {
            return Err(FrameError::TooLarge {
                size,
                limit: max_size,
            });
        }
        Ok(Self {
            compressed: flag == 1,
            size,
        })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_body_is_its_only_message_if_that_is_whole_allowed_and_not_compressed() {
        let only = |body: &'static [u8]| only_message(&Bytes::from_static(body), 2);
        assert_eq!(only(b"\0\0\0\0\x02hi").unwrap(), "hi");
        assert_eq!(only(b"\0\0\0\0\0").unwrap(), "");
        for body in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x02h",
            b"\0\0\0\0\x01hi",
            b"\0\0\0\0\x03hey",
            b"\x01\0\0\0\x02hi",
            b"\x02\0\0\0\x02hi",
            b"\0\0\0\0\x01h\0\0\0\0\0",
        ] {
            assert_eq!(only(body), None, "{body:?}");
        }
    }

    use super::*;

    fn frame(compressed: bool, message: &[u8]) -> Vec<u8> {
        [&prefix(compressed, message.len() as u32)[..], message].concat()
    }

    /// Pushes `chunks`, taking what can be had after each, and returns the messages and the end.
    fn decode(chunks: &[&[u8]], max_size: usize) -> (Vec<Vec<u8>>, Result<(), FrameError>) {
        let mut decoder = Decoder::new(max_size);
        let mut messages = Vec::new();
        for chunk in chunks {
            decoder.push(Bytes::copy_from_slice(chunk));
            loop {
                match decoder.next() {
                    Ok(Some(frame)) => messages.push(frame.payload.into_bytes().to_vec()),
                    Ok(None) => break,
                    Err(error) => return (messages, Err(error)),
                }
            }
        }
        (messages, decoder.finish())
    }

    #[test]
    fn a_stream_cut_at_every_byte_gives_the_same_messages() {
        let long = vec![9; 3_000];
        let wire = [
            frame(false, b""),
            frame(false, b"abc"),
            frame(true, &long),
            frame(false, b""),
        ];
        let wire = wire.concat();
        let expected = [vec![], b"abc".to_vec(), long, vec![]];
        for cut in 0..=wire.len() {
            let (messages, end) = decode(&[&wire[..cut], &wire[cut..]], 3_000);
            assert_eq!(
                (messages.as_slice(), end),
                (&expected[..], Ok(())),
                "cut at {cut}"
            );
        }
        let bytes: Vec<_> = wire.chunks(1).collect();
        assert_eq!(decode(&bytes, 3_000), (expected.to_vec(), Ok(())));
    }

    #[test]
    fn an_empty_message_that_ends_the_input_comes_out() {
        let (messages, end) = decode(&[&frame(false, b"")], 0);
        assert_eq!((messages, end), (vec![vec![]], Ok(())));
    }

    #[test]
    fn the_end_inside_a_message_or_its_prefix_is_an_error() {
        let wire = frame(false, b"abc");
        for end in 1..wire.len() {
            let expected = match end < PREFIX_SIZE {
                true => FrameError::Truncated {
                    received: end,
                    expected: PREFIX_SIZE,
                },
                false => FrameError::Truncated {
                    received: end - PREFIX_SIZE,
                    expected: 3,
                },
            };
            assert_eq!(decode(&[&wire[..end]], 3), (vec![], Err(expected)));
        }
        assert_eq!(decode(&[], 3), (vec![], Ok(())));
    }

    #[test]
    fn the_flag_is_zero_or_one() {
        for flag in 2..=255 {
            let wire = [&[flag, 0, 0, 0, 0][..], &frame(false, b"abc")].concat();
            assert_eq!(decode(&[&wire], 3), (vec![], Err(FrameError::Flag(flag))));
        }
    }

    #[test]
    fn the_size_limit_is_exact_and_speaks_before_the_message_comes() {
        let limit = 1_000;
        for size in [999, 1_000] {
            let message = vec![1; size];
            assert_eq!(
                decode(&[&frame(false, &message)], limit),
                (vec![message], Ok(()))
            );
        }
        for size in [1_001, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            let error = FrameError::TooLarge {
                size: size as usize,
                limit,
            };
            assert_eq!(decode(&[&prefix(false, size)], limit), (vec![], Err(error)));
        }
    }

    #[test]
    fn an_error_stays_and_nothing_is_held_after_it() {
        let mut decoder = Decoder::new(10);
        decoder.push(Bytes::from_static(&[7, 0, 0, 0, 0, 1, 2, 3]));
        assert_eq!(decoder.next().unwrap_err(), FrameError::Flag(7));
        decoder.push(Bytes::from(frame(false, b"abc")));
        assert_eq!(decoder.next().unwrap_err(), FrameError::Flag(7));
        assert_eq!(decoder.finish(), Err(FrameError::Flag(7)));
        assert_eq!(decoder.buffered(), 0);
    }

    #[test]
    fn a_message_in_one_chunk_is_a_slice_of_it() {
        let chunk = Bytes::from([frame(false, b"abc"), frame(false, &[5; 2_000])].concat());
        let mut decoder = Decoder::new(2_000);
        decoder.push(chunk.clone());
        let first = decoder.next().unwrap().unwrap().payload.into_bytes();
        assert_eq!(first.as_ptr(), chunk[5..].as_ptr());
        let mut second = decoder.next().unwrap().unwrap().payload;
        let part = second.copy_to_bytes(1_500);
        assert_eq!(part.as_ptr(), chunk[13..].as_ptr());
        assert_eq!(second.chunk().as_ptr(), chunk[1_513..].as_ptr());
    }

    /// The pieces in which a message of `size` bytes comes out whose chunks had `chunk` bytes.
    fn pieces(size: usize, chunk: usize) -> Vec<usize> {
        let wire = frame(false, &vec![1; size]);
        let mut decoder = Decoder::new(size);
        for chunk in wire.chunks(chunk) {
            assert!(decoder.next().unwrap().is_none());
            decoder.push(Bytes::copy_from_slice(chunk));
        }
        let payload = decoder.next().unwrap().unwrap().payload;
        payload.pieces().map(Bytes::len).collect()
    }

    #[test]
    fn a_large_message_is_put_together_as_it_comes_once_a_quarter_of_it_is_here() {
        let size = 4 * blocks::BLOCK_MIN;
        let message: Vec<u8> = (0..=250).cycle().take(size).collect();
        let next = frame(false, b"next");
        let wire = [frame(false, &message), next].concat();
        let (head, rest) = wire.split_at(PREFIX_SIZE);
        for chunk in [1_023, 1_024, 16_384, 65_536, 100_000] {
            let mut decoder = Decoder::new(size);
            decoder.push(Bytes::copy_from_slice(head));
            let mut messages = Vec::new();
            let mut pushed = 0;
            for chunk in rest.chunks(chunk) {
                while let Some(frame) = decoder.next().unwrap() {
                    messages.push(frame.payload);
                }
                let is_large = messages.is_empty();
                assert_eq!(
                    decoder.block.is_some(),
                    is_large && pushed >= size / GATHER_AT,
                    "after {pushed} bytes"
                );
                let shared = Bytes::copy_from_slice(chunk);
                decoder.push(shared.clone());
                pushed += chunk.len();
                // Once there is a block, no buffer that the message came in is held.
                let is_held = decoder.block.is_none() || pushed > size;
                assert!(shared.is_unique() || is_held);
                assert_eq!(decoder.buffered(), pushed - if is_large { 0 } else { size });
            }
            while let Some(frame) = decoder.next().unwrap() {
                messages.push(frame.payload);
            }
            assert!(messages.iter().all(|payload| !payload.is_in_pieces()));
            let messages: Vec<_> = messages.into_iter().map(Payload::into_bytes).collect();
            assert_eq!(messages, [message.clone(), b"next".to_vec()]);
            assert_eq!(decoder.finish(), Ok(()));
        }
    }

    #[test]
    fn a_claim_alone_takes_no_block_and_the_end_inside_one_is_an_error() {
        let size = 4 * blocks::BLOCK_MIN;
        let mut decoder = Decoder::new(size);
        decoder.push(Bytes::copy_from_slice(&prefix(false, size as u32)));
        let mut received = 0;
        for (count, is_taken) in [(size / GATHER_AT - 1, false), (1, true), (1, true)] {
            decoder.push(Bytes::from(vec![1; count]));
            assert!(decoder.next().unwrap().is_none());
            received += count;
            assert_eq!(decoder.block.is_some(), is_taken, "{received}");
        }
        let expected = size;
        let truncated = FrameError::Truncated { received, expected };
        assert_eq!(decoder.finish(), Err(truncated));
        decoder.clear();
        assert!(decoder.block.is_none() && decoder.buffered() == 0);
        // One byte below the smallest block.
        let size = blocks::BLOCK_MIN - 1;
        decoder.push(Bytes::copy_from_slice(&prefix(false, size as u32)));
        decoder.push(Bytes::from(vec![1; size - 1]));
        assert!(decoder.next().unwrap().is_none());
        assert!(decoder.block.is_none());
    }

    #[test]
    fn small_chunks_are_gathered_and_large_ones_are_not_copied() {
        assert_eq!(pieces(40_000, 16_384), [16_379, 16_384, 7_237]);
        assert_eq!(pieces(3_000, 1_024), [1_019, 1_024, 957]);
        for chunk in [1, 2, 100, 1_023] {
            let pieces = pieces(60_000, chunk);
            assert!(
                pieces.len() <= 6,
                "{} pieces from chunks of {chunk}",
                pieces.len()
            );
            assert!(pieces.iter().all(|piece| *piece <= PIECE_SIZE));
        }
    }

    #[test]
    fn a_small_rest_does_not_keep_the_buffer_that_it_came_in() {
        // A part of a prefix, and a prefix with a part of its message.
        for (rest, waits) in [(&[0, 0][..], 2), (&[0, 0, 0, 0, 9, 1, 1, 1], 3)] {
            let buffer = Bytes::from([&frame(false, &[1; 60_000]), rest].concat());
            let mut decoder = Decoder::new(60_000);
            decoder.push(buffer.clone());
            assert!(decoder.next().unwrap().is_some());
            assert!(decoder.next().unwrap().is_none());
            assert_eq!(decoder.buffered(), waits);
            assert!(
                buffer.is_unique(),
                "the decoder holds a copy of {waits} bytes only"
            );
        }
    }

    #[test]
    fn small_messages_that_nobody_reads_do_not_keep_their_buffers() {
        let mut decoder = Decoder::new(2);
        let buffers: Vec<_> = (0..1_000).map(|_| Bytes::from(vec![0; 4_096])).collect();
        for buffer in &buffers {
            decoder.push(buffer.slice(..PREFIX_SIZE));
        }
        let held = buffers.iter().filter(|buffer| !buffer.is_unique()).count();
        assert_eq!((held, decoder.buffered()), (1, 5_000));
        let messages = std::iter::from_fn(|| decoder.next().unwrap()).count();
        assert_eq!(messages, 1_000);
    }

    #[test]
    fn a_payload_reads_the_same_however_it_is_cut() {
        let whole: Vec<u8> = (0..=255).cycle().take(5_000).collect();
        let mut payload = Payload::default();
        for piece in [&whole[..0], &whole[..1], &whole[1..2_000], &whole[2_000..]] {
            payload.push(Bytes::copy_from_slice(piece));
        }
        assert_eq!((payload.len(), payload.is_empty()), (5_000, false));
        assert_eq!(payload.clone().into_bytes(), whole);
        for step in [1, 3, 1_999, 2_000, 2_001, 5_000] {
            let (mut shared, mut advanced) = (payload.clone(), payload.clone());
            for expected in whole.chunks(step) {
                assert_eq!(shared.copy_to_bytes(expected.len()), expected);
                assert_eq!(advanced.chunk()[0], expected[0]);
                advanced.advance(expected.len());
            }
            assert!(!shared.has_remaining() && !advanced.has_remaining());
            assert!(shared.chunk().is_empty() && advanced.chunk().is_empty());
        }
        assert!(Payload::default().into_bytes().is_empty());
        assert_eq!(format!("{payload:?}"), "Payload(5000 bytes)");
    }
}
