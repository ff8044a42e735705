//! Decoding of `bytes` fields: shared with the buffer of their message, or copied.

use bytes::{Buf, Bytes};
use trunkline_codec::Payload;

/// The size, in bytes, from which fields of type `Bytes` share the buffer of their message. A smaller
/// field is copied, because it would otherwise keep up to 64 KiB allocated.
pub(crate) const SHARE_FROM: usize = 4 * 1024;

/// A field of a large message, which is a single block, shares it from this fraction of its size.
const SHARE_PART: usize = 16;

/// The size, in bytes, up to which a copied field and its reference count share an allocation.
const INLINE_UP_TO: usize = 32;

/// A [`Buf`] whose `copy_to_bytes` shares only large fields.
pub(crate) struct Fields<B> {
    buf: B,
    share_from: usize,
}

impl Fields<Bytes> {
    pub(crate) fn of_one(message: Bytes) -> Self {
        Self {
            share_from: SHARE_FROM.max(message.len() / SHARE_PART),
            buf: message,
        }
    }
}

impl<'a> Fields<&'a [u8]> {
    /// Reads a message below [`SHARE_FROM`], which has no large fields.
    pub(crate) fn of_slice(message: &'a [u8]) -> Self {
        Self {
            share_from: SHARE_FROM,
            buf: message,
        }
    }
}

impl Fields<Payload> {
    pub(crate) fn of_pieces(message: Payload) -> Self {
        Self {
            share_from: SHARE_FROM,
            buf: message,
        }
    }
}

impl<B: Buf> Buf for Fields<B> {
    #[inline]
    fn remaining(&self) -> usize {
        self.buf.remaining()
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        self.buf.chunk()
    }

    #[inline]
    fn advance(&mut self, count: usize) {
        self.buf.advance(count);
    }

    #[inline]
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        if len >= self.share_from {
            return self.buf.copy_to_bytes(len);
        }
        if len == 0 {
            return Bytes::new();
        }
        if len <= INLINE_UP_TO {
            let mut small = Small {
                bytes: [0; INLINE_UP_TO],
                len: len as u8,
            };
            match self.buf.chunk().get(..len) {
                Some(field) => {
                    small.bytes[..len].copy_from_slice(field);
                    self.buf.advance(len);
                }
                None => self.buf.copy_to_slice(&mut small.bytes[..len]),
            }
            return Bytes::from_owner(small);
        }
        let mut copy = vec![0; len];
        self.buf.copy_to_slice(&mut copy);
        copy.into()
    }
}

/// A small field that owns its bytes. Unlike a `Bytes` from a `Vec`, it can be cloned without an
/// allocation; encoding clones each field.
struct Small {
    bytes: [u8; INLINE_UP_TO],
    len: u8,
}

impl AsRef<[u8]> for Small {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_fields_are_copied_out_and_large_ones_share() {
        let whole = Bytes::from((0..=255).cycle().take(3 * SHARE_FROM).collect::<Vec<u8>>());
        for len in [
            0,
            1,
            INLINE_UP_TO - 1,
            INLINE_UP_TO,
            INLINE_UP_TO + 1,
            SHARE_FROM - 1,
            SHARE_FROM,
            SHARE_FROM + 1,
        ] {
            let mut buf = Fields::of_one(whole.slice(7..));
            let field = buf.copy_to_bytes(len);
            assert_eq!(field, whole[7..7 + len]);
            assert_eq!(buf.chunk(), &whole[7 + len..]);
            let shares = field.as_ptr() == whole[7..].as_ptr();
            assert_eq!(shares, len >= SHARE_FROM, "{len}");
            drop(buf);
            assert_eq!(whole.is_unique(), !shares);
        }
    }
}
