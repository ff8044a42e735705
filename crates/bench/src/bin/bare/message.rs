//! The two messages of `bench.proto` behind the five bytes of gRPC, by hand. Small payloads are
//! copied once, into a reply of exact size; large ones pass as the pieces that they came in.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// From here on a payload is shared, not copied.
const SHARE_MIN: usize = 4096;
/// Compression flag and length.
const PREFIX_LEN: usize = 5;
/// A prefix, a tag and a length.
const HEAD_MAX: usize = PREFIX_LEN + 1 + 5;

/// Bytes in one piece or in many: what h2 gives and takes.
pub(crate) enum Pieces {
    One(Bytes),
    /// Boxed, because h2 moves frames about by value.
    Many(Box<Many>),
}

#[derive(Default)]
pub(crate) struct Many {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Many {
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        self.pieces.push_back(piece);
    }

    /// The first `n` bytes, which are there, without a copy.
    fn split_to(&mut self, mut n: usize) -> Pieces {
        if n == 0 {
            return Pieces::One(Bytes::new());
        }
        let mut split = Self::default();
        while let Some(front) = self.pieces.front_mut() {
            if n < front.len() && split.len == 0 {
                self.len -= n;
                return Pieces::One(front.split_to(n));
            }
            let Some(piece) = (match n < front.len() {
                true => Some(front.split_to(n)),
                false => self.pieces.pop_front(),
            }) else {
                break;
            };
            n -= piece.len();
            self.len -= piece.len();
            if n == 0 && split.len == 0 {
                return Pieces::One(piece);
            }
            split.push(piece);
            if n == 0 {
                break;
            }
        }
        Pieces::Many(Box::new(split))
    }
}

impl Buf for Many {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |front| front)
    }

    fn advance(&mut self, mut n: usize) {
        self.len -= n;
        while let Some(front) = self.pieces.front_mut() {
            if n < front.len() {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.pieces.pop_front();
        }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        match self {
            Self::One(bytes) => bytes.len(),
            Self::Many(many) => many.len,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(many) => many.chunk(),
        }
    }

    fn advance(&mut self, n: usize) {
        match self {
            Self::One(bytes) => bytes.advance(n),
            Self::Many(many) => many.advance(n),
        }
    }
}

/// Cuts what arrives on a stream into messages.
#[derive(Default)]
pub(crate) struct Reader(Many);

impl Reader {
    pub(crate) fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.0.push(data);
        }
    }

    /// The next whole message, without its prefix.
    pub(crate) fn next(&mut self) -> Option<Pieces> {
        let len = match self.0.pieces.front() {
            Some(front) if front.len() >= PREFIX_LEN => length(front),
            Some(_) if self.0.len >= PREFIX_LEN => {
                let mut prefix = [0; PREFIX_LEN];
                let bytes = self.0.pieces.iter().flatten();
                prefix
                    .iter_mut()
                    .zip(bytes)
                    .for_each(|(to, from)| *to = *from);
                length(&prefix)
            }
            _ => return None,
        };
        if self.0.len - PREFIX_LEN < len {
            return None;
        }
        self.0.advance(PREFIX_LEN);
        Some(self.0.split_to(len))
    }
}

fn length(prefix: &[u8]) -> usize {
    u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize
}

/// The message in `data`, if it holds exactly one: no reader is needed then.
pub(crate) fn whole(mut data: Bytes) -> Result<Pieces, Bytes> {
    if data.len() < PREFIX_LEN || data.len() - PREFIX_LEN != length(&data) {
        return Err(data);
    }
    data.advance(PREFIX_LEN);
    Ok(Pieces::One(data))
}

/// `Request`; `Reply` too, since its fields 1 and 2 have the same types on the wire.
pub(crate) struct Message {
    pub(crate) payload: Pieces,
    /// Field 2.
    pub(crate) count: u64,
    pub(crate) sleep_millis: u64,
    pub(crate) spin_millis: u64,
    pub(crate) block_millis: u64,
}

/// None if it is no such message.
pub(crate) fn decode(message: Pieces) -> Option<Message> {
    let mut numbers = [0; 4];
    let payload = match message {
        Pieces::One(mut bytes) => {
            let (mut rest, mut at, mut len) = (&bytes[..], 0, 0);
            while !rest.is_empty() {
                match field(&mut rest, &mut numbers)? {
                    0 => {}
                    n => {
                        at = bytes.len() - rest.len();
                        len = n - 1;
                        rest = rest.get(len..)?;
                    }
                }
            }
            // Narrowed where it lies: a slice of its own would count references.
            bytes.advance(at);
            bytes.truncate(len);
            Pieces::One(bytes)
        }
        Pieces::Many(mut many) => {
            let mut payload = Pieces::One(Bytes::new());
            while many.has_remaining() {
                match field(&mut *many, &mut numbers)? {
                    0 => {}
                    n if n - 1 > many.len => return None,
                    n => payload = many.split_to(n - 1),
                }
            }
            payload
        }
    };
    let [count, sleep_millis, spin_millis, block_millis] = numbers;
    Some(Message {
        payload,
        count,
        sleep_millis,
        spin_millis,
        block_millis,
    })
}

/// Reads a number, or up to the payload: then its length and one.
fn field(from: &mut impl Buf, numbers: &mut [u64; 4]) -> Option<usize> {
    let tag = varint(from)?;
    let value = varint(from)?;
    match tag {
        0x0a => usize::try_from(value).ok()?.checked_add(1),
        0x10 | 0x18 | 0x20 | 0x28 => {
            numbers[(tag as usize >> 3) - 2] = value;
            Some(0)
        }
        _ => None,
    }
}

#[inline]
fn varint(from: &mut impl Buf) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *from.chunk().first()?;
        from.advance(1);
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// What stands around a payload: prefix, tag and length before it, field 2 behind it.
struct Around {
    head: [u8; HEAD_MAX],
    head_len: usize,
    tail: [u8; 11],
    tail_len: usize,
}

impl Around {
    fn new(payload_len: usize, count: u64) -> Self {
        let (mut head, mut head_len) = ([0; HEAD_MAX], PREFIX_LEN);
        let (mut tail, mut tail_len) = ([0; 11], 0);
        // proto3: a field with its default value is left out.
        if payload_len > 0 {
            head[PREFIX_LEN] = 0x0a;
            head_len += 1 + put_varint(&mut head[PREFIX_LEN + 1..], payload_len as u64);
        }
        if count > 0 {
            tail[0] = 0x10;
            tail_len = 1 + put_varint(&mut tail[1..], count);
        }
        let len = head_len - PREFIX_LEN + payload_len + tail_len;
        head[1..PREFIX_LEN].copy_from_slice(&(len as u32).to_be_bytes());
        Self {
            head,
            head_len,
            tail,
            tail_len,
        }
    }

    fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }

    fn tail(&self) -> &[u8] {
        &self.tail[..self.tail_len]
    }
}

#[inline]
fn put_varint(into: &mut [u8], mut value: u64) -> usize {
    let mut n = 0;
    while value >= 0x80 {
        into[n] = value as u8 | 0x80;
        value >>= 7;
        n += 1;
    }
    into[n] = value as u8;
    n + 1
}

/// A message behind its prefix.
pub(crate) fn encode(payload: Pieces, count: u64) -> Pieces {
    let len = payload.remaining();
    let around = Around::new(len, count);
    if len < SHARE_MIN {
        let size = around.head_len + len + around.tail_len;
        let mut encoded = Vec::with_capacity(size);
        put(&mut encoded, &around, payload);
        return Pieces::One(Bytes::from(encoded));
    }
    let mut many = match payload {
        Pieces::Many(many) => many,
        Pieces::One(bytes) => {
            let mut many = Box::<Many>::default();
            many.push(bytes);
            many
        }
    };
    many.len += around.head_len;
    many.pieces
        .push_front(Bytes::copy_from_slice(around.head()));
    if around.tail_len > 0 {
        many.push(Bytes::copy_from_slice(around.tail()));
    }
    Pieces::Many(many)
}

/// Appends a message to those that are to leave in one frame, unless its payload is large.
pub(crate) fn gather(into: &mut Vec<u8>, payload: Pieces) -> Result<(), Pieces> {
    let len = payload.remaining();
    if len >= SHARE_MIN {
        return Err(payload);
    }
    put(into, &Around::new(len, 0), payload);
    Ok(())
}

/// Appends a message with this small payload.
pub(crate) fn gather_small(into: &mut Vec<u8>, payload: &[u8]) {
    into.extend_from_slice(Around::new(payload.len(), 0).head());
    into.extend_from_slice(payload);
}

fn put(into: &mut Vec<u8>, around: &Around, mut payload: Pieces) {
    into.extend_from_slice(around.head());
    while payload.has_remaining() {
        let chunk = payload.chunk();
        into.extend_from_slice(chunk);
        payload.advance(chunk.len());
    }
    into.extend_from_slice(around.tail());
}

impl Pieces {
    /// A share of the same bytes.
    pub(crate) fn share(&self) -> Self {
        match self {
            Self::One(bytes) => Self::One(bytes.clone()),
            Self::Many(many) => Self::Many(Box::new(Many {
                pieces: many.pieces.clone(),
                len: many.len,
            })),
        }
    }
}
