//! The length-prefixed messages of gRPC.

use std::io::Write;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A message as it should be.
pub fn message(payload: &[u8]) -> Bytes {
    message_flagged(0, payload)
}

/// A message with any value in its compressed flag.
///
/// # Panics
///
/// When the payload is longer than 32 bits can say.
pub fn message_flagged(flag: u8, payload: &[u8]) -> Bytes {
    let len = u32::try_from(payload.len()).expect("a message of a test is short");
    let mut out = BytesMut::from(&prefix(flag, len)[..]);
    out.put_slice(payload);
    out.freeze()
}

/// A prefix alone, whatever follows it.
pub fn prefix(flag: u8, len: u32) -> [u8; 5] {
    let [a, b, c, d] = len.to_be_bytes();
    [flag, a, b, c, d]
}

/// The payloads of complete messages.
///
/// # Panics
///
/// When the bytes are not complete messages.
pub fn messages(mut bytes: Bytes) -> Vec<Bytes> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        bytes.advance(1);
        let len = bytes.get_u32() as usize;
        all.push(bytes.split_to(len));
    }
    all
}

/// `bytes` in gzip, with the least effort.
///
/// # Panics
///
/// Never: the output is in memory.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("the output is in memory");
    encoder.finish().expect("the output is in memory")
}
