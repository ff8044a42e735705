//! What a message is to the framework: something with a length, an encoding and a decoding.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use trunkline_codec::{Encoding, Payload, Status, frame};

/// Messages up to this size, in bytes, are encoded into a slice that was zeroed before.
const ZEROED_UP_TO: usize = 1024;

/// A message of a call: any protobuf message, or [`Raw`] bytes.
///
/// It is implemented for everything that implements [`prost::Message`] and `Default`, which is all
/// that [`include_proto!`](crate::include_proto) generates.
pub trait Message: Send + Sized + 'static {
    /// Bytes that [`encode`](Self::encode) appends.
    fn encoded_len(&self) -> usize;

    /// Appends the encoded message.
    fn encode(&self, buffer: &mut BytesMut);

    /// Reads a message.
    ///
    /// # Errors
    ///
    /// INTERNAL if the bytes are not such a message (the status table of gRPC: "could not parse").
    fn decode(payload: Payload) -> Result<Self, Status>;
}

impl<T: prost::Message + Default + 'static> Message for T {
    fn encoded_len(&self) -> usize {
        prost::Message::encoded_len(self)
    }

    fn encode(&self, buffer: &mut BytesMut) {
        let len = prost::Message::encoded_len(self);
        if len > ZEROED_UP_TO {
            return prost::Message::encode_raw(self, buffer);
        }
        // prost writes numbers byte by byte, which a slice takes in a few instructions each, and a
        // growing buffer in some fifty.
        let start = buffer.len();
        buffer.resize(start + len, 0);
        prost::Message::encode_raw(self, &mut &mut buffer[start..]);
    }

    fn decode(payload: Payload) -> Result<Self, Status> {
        // A message in one piece is decoded where it lies; `bytes` fields share it either way.
        let decoded = match payload.pieces().count() {
            0 | 1 => T::decode(payload.into_bytes()),
            _ => T::decode(payload),
        };
        decoded.map_err(|error| Status::internal(format!("the message cannot be decoded: {error}")))
    }
}

/// A message as the bytes that it is on the wire, for calls without generated code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw(pub Bytes);

impl From<Bytes> for Raw {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Raw> for Bytes {
    fn from(raw: Raw) -> Self {
        raw.0
    }
}

impl Message for Raw {
    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, buffer: &mut BytesMut) {
        buffer.put_slice(&self.0);
    }

    fn decode(payload: Payload) -> Result<Self, Status> {
        Ok(Self(payload.into_bytes()))
    }
}

/// Appends `message`, whose encoded size is `len`, behind its prefix, compressed if `encoding` says
/// how.
///
/// # Errors
///
/// RESOURCE_EXHAUSTED if it is larger than `max_size`; then nothing is appended.
pub(crate) fn encode_frame<T: Message>(
    message: &T,
    len: usize,
    encoding: Option<&dyn Encoding>,
    max_size: usize,
    buffer: &mut BytesMut,
) -> Result<(), Status> {
    let wire_len = match u32::try_from(len) {
        Ok(wire_len) if len <= max_size => wire_len,
        _ => return Err(too_large(len, max_size)),
    };
    let Some(encoding) = encoding else {
        buffer.reserve(frame::PREFIX_SIZE + len);
        // As one slice: two small puts cost a fifth of a streamed message.
        buffer.put_slice(&frame::prefix(false, wire_len));
        message.encode(buffer);
        return Ok(());
    };
    let mut plain = BytesMut::with_capacity(len);
    message.encode(&mut plain);
    compress_frame(&mut plain, encoding, buffer)
}

/// One message as a frame of its own.
pub(crate) fn frame_of<T: Message>(
    message: &T,
    encoding: Option<&dyn Encoding>,
    max_size: usize,
) -> Result<Bytes, Status> {
    let mut buffer = BytesMut::new();
    encode_frame(
        message,
        message.encoded_len(),
        encoding,
        max_size,
        &mut buffer,
    )?;
    Ok(buffer.freeze())
}

/// Appends `plain` as a compressed frame.
pub(crate) fn compress_frame(
    plain: &mut dyn Buf,
    encoding: &dyn Encoding,
    buffer: &mut BytesMut,
) -> Result<(), Status> {
    let start = buffer.len();
    buffer.put_slice(&frame::prefix(true, 0));
    let compressed = encoding.compress(plain, buffer);
    let len = buffer.len() - start - frame::PREFIX_SIZE;
    let (Ok(()), Ok(wire_len)) = (compressed, u32::try_from(len)) else {
        buffer.truncate(start);
        return Err(Status::internal(format!(
            "the message cannot be compressed with {}",
            encoding.name()
        )));
    };
    buffer[start..start + frame::PREFIX_SIZE].copy_from_slice(&frame::prefix(true, wire_len));
    Ok(())
}

fn too_large(len: usize, max_size: usize) -> Status {
    Status::resource_exhausted(format!(
        "the message to send has {len} bytes; max_send_message_size allows {max_size}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_codec::{Code, Gzip};

    #[test]
    fn a_message_at_the_limit_is_sent_and_one_above_is_not() {
        let raw = |n| Raw(Bytes::from(vec![0; n]));
        assert_eq!(frame_of(&raw(9), None, 10).unwrap().len(), 14);
        assert_eq!(frame_of(&raw(10), None, 10).unwrap().len(), 15);
        let status = frame_of(&raw(11), None, 10).unwrap_err();
        assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED);
        assert!(
            status.message().contains("11") && status.message().contains("10"),
            "{status}"
        );
    }

    #[test]
    fn a_compressed_frame_says_so_and_names_its_own_length() {
        let frame = frame_of(
            &Raw(Bytes::from(vec![7; 10_000])),
            Some(&Gzip::default()),
            usize::MAX,
        )
        .unwrap();
        assert!(frame.len() < 200, "{}", frame.len());
        assert_eq!(frame[0], 1);
        assert_eq!(
            frame[1..5],
            u32::try_from(frame.len() - 5).unwrap().to_be_bytes()
        );
    }
}
