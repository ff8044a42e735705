//! HTTP/2 frames as they are on the wire, with nothing checked.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::fields::Fields;

/// RFC 9113, section 4.1.
const HEADER_LEN: usize = 9;

/// RFC 9113, section 6.5.2: the largest payload unless SETTINGS says more.
pub(crate) const PAYLOAD_MAX: usize = 16 * 1024;

/// Frame types: RFC 9113, section 6.
pub mod kind {
    #![expect(missing_docs, reason = "the names are those of the RFC")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Frame flags: RFC 9113, section 6.
pub mod flag {
    #![expect(missing_docs, reason = "the names are those of the RFC")]
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
}

/// Settings: RFC 9113, section 6.5.2.
pub mod setting {
    #![expect(missing_docs, reason = "the names are those of the RFC")]
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Error codes: RFC 9113, section 7.
pub mod error {
    #![expect(missing_docs, reason = "the names are those of the RFC")]
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const SETTINGS_TIMEOUT: u32 = 4;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const CONNECT_ERROR: u32 = 10;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
    pub const INADEQUATE_SECURITY: u32 = 12;
    pub const HTTP_1_1_REQUIRED: u32 = 13;
}

/// One frame. Any combination can be written, sensible or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// One of [`kind`], or any other number.
    pub kind: u8,
    /// Of [`flag`], or any other bits.
    pub flags: u8,
    /// The stream, 0 for the connection.
    pub stream: u32,
    /// What follows the header; its length is that in the header.
    pub payload: Bytes,
}

impl Frame {
    /// Any frame.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Bytes>) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.into(),
        }
    }

    /// DATA.
    pub fn data(stream: u32, payload: impl Into<Bytes>) -> Self {
        Self::new(kind::DATA, 0, stream, payload)
    }

    /// DATA with `padding` zero bytes behind it, and their length before it.
    pub fn padded_data(stream: u32, payload: &[u8], padding: u8) -> Self {
        let mut padded = BytesMut::new();
        padded.put_u8(padding);
        padded.put_slice(payload);
        padded.put_bytes(0, usize::from(padding));
        Self::new(kind::DATA, flag::PADDED, stream, padded)
    }

    /// HEADERS, complete.
    pub fn headers(stream: u32, fields: &Fields) -> Self {
        Self::new(kind::HEADERS, flag::END_HEADERS, stream, fields.encode())
    }

    /// HEADERS and as much CONTINUATION as it takes, in frames of up to 16 KiB.
    pub fn long_headers(stream: u32, fields: &Fields) -> Vec<Self> {
        let block = fields.encode();
        let mut frames = Vec::new();
        let mut next = kind::HEADERS;
        for part in block.chunks(PAYLOAD_MAX) {
            frames.push(Self::new(next, 0, stream, block.slice_ref(part)));
            next = kind::CONTINUATION;
        }
        if let Some(last) = frames.last_mut() {
            last.flags = flag::END_HEADERS;
        }
        frames
    }

    /// DATA in frames of up to 16 KiB.
    pub fn long_data(stream: u32, payload: &Bytes) -> Vec<Self> {
        let parts = payload.chunks(PAYLOAD_MAX);
        parts
            .map(|part| Self::data(stream, payload.slice_ref(part)))
            .collect()
    }

    /// RST_STREAM with one of [`error`].
    pub fn rst_stream(stream: u32, error: u32) -> Self {
        Self::new(
            kind::RST_STREAM,
            0,
            stream,
            error.to_be_bytes().as_slice().to_vec(),
        )
    }

    /// SETTINGS with pairs of [`setting`] and value.
    pub fn settings(pairs: &[(u16, u32)]) -> Self {
        let mut payload = BytesMut::new();
        for (id, value) in pairs {
            payload.put_u16(*id);
            payload.put_u32(*value);
        }
        Self::new(kind::SETTINGS, 0, 0, payload)
    }

    /// The acknowledgement of SETTINGS.
    pub fn settings_ack() -> Self {
        Self::new(kind::SETTINGS, flag::ACK, 0, Bytes::new())
    }

    /// PING.
    pub fn ping(payload: u64) -> Self {
        Self::new(kind::PING, 0, 0, payload.to_be_bytes().to_vec())
    }

    /// GOAWAY: the last stream that was taken, one of [`error`], and a text.
    pub fn goaway(last_stream: u32, error: u32, text: &str) -> Self {
        let mut payload = BytesMut::new();
        payload.put_u32(last_stream);
        payload.put_u32(error);
        payload.put_slice(text.as_bytes());
        Self::new(kind::GOAWAY, 0, 0, payload)
    }

    /// WINDOW_UPDATE.
    pub fn window_update(stream: u32, increment: u32) -> Self {
        Self::new(
            kind::WINDOW_UPDATE,
            0,
            stream,
            increment.to_be_bytes().to_vec(),
        )
    }

    /// The same frame with END_STREAM.
    #[must_use]
    pub fn ending(mut self) -> Self {
        self.flags |= flag::END_STREAM;
        self
    }

    /// The same HEADERS frame without END_HEADERS: CONTINUATION must follow.
    #[must_use]
    pub fn unfinished(mut self) -> Self {
        self.flags &= !flag::END_HEADERS;
        self
    }

    /// Whether it ends its stream.
    pub fn is_end_stream(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & flag::END_STREAM != 0
    }

    /// Whether it is an acknowledgement.
    pub fn is_ack(&self) -> bool {
        matches!(self.kind, kind::SETTINGS | kind::PING) && self.flags & flag::ACK != 0
    }

    /// Appends the frame as it is on the wire.
    ///
    /// # Panics
    ///
    /// When the payload is longer than 24 bits can say.
    pub fn write_to(&self, out: &mut BytesMut) {
        let len = u32::try_from(self.payload.len()).expect("a payload of a test is short");
        assert!(len < 1 << 24, "a payload of {len} bytes");
        out.reserve(HEADER_LEN + self.payload.len());
        out.put_uint(u64::from(len), 3);
        out.put_u8(self.kind);
        out.put_u8(self.flags);
        out.put_u32(self.stream);
        out.put_slice(&self.payload);
    }

    /// Takes the next frame off `bytes`; `None` until it is there in full.
    pub fn read_from(bytes: &mut BytesMut) -> Option<Self> {
        let mut header = bytes.get(..HEADER_LEN)?;
        let len = usize::try_from(header.get_uint(3)).ok()?;
        let (kind, flags, stream) = (header.get_u8(), header.get_u8(), header.get_u32());
        if bytes.len() < HEADER_LEN + len {
            return None;
        }
        bytes.advance(HEADER_LEN);
        Some(Self {
            kind,
            flags,
            stream: stream & 0x7fff_ffff,
            payload: bytes.split_to(len).freeze(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_and_not_before_its_last_byte() {
        let frame = Frame::padded_data(7, b"abc", 9).ending();
        let mut wire = BytesMut::new();
        frame.write_to(&mut wire);
        assert_eq!(wire[..9], [0, 0, 13, 0, 9, 0, 0, 0, 7]);
        for cut in 0..wire.len() {
            assert_eq!(Frame::read_from(&mut BytesMut::from(&wire[..cut])), None);
        }
        assert_eq!(Frame::read_from(&mut wire), Some(frame));
        assert!(wire.is_empty());
    }
}
