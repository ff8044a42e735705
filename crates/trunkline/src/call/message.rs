//! Messages: their encoding into frames, and their decoding.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use trunkline_codec::{Compressor, Payload, Rope, Status, frame};

use crate::call::fields::Fields;
use crate::observe::{MessageSize, Recorder};

/// Messages up to this size, in bytes, are encoded into a zeroed slice.
const ZEROED_UP_TO: usize = 1024;

/// Messages from this size, in bytes, are encoded in pieces. They take at least two DATA frames anyway.
const PIECES_FROM: usize = 16 * 1024;

/// A message of a call: any protobuf message, or [`Raw`] bytes.
///
/// All types that implement [`prost::Message`] and `Default` implement this trait, and so do all messages
/// that [`include_proto!`](crate::include_proto) generates. Implement it for messages in another format:
///
/// ```
/// use trunkline::bytes::BufMut;
/// use trunkline::codec::Payload;
/// use trunkline::{Message, Result, Status};
///
/// struct Text(String);
///
/// impl Message for Text {
///     fn encoded_len(&self) -> usize {
///         self.0.len()
///     }
///
///     fn encode(&self, buffer: &mut impl BufMut) {
///         buffer.put_slice(self.0.as_bytes());
///     }
///
///     fn decode(payload: Payload) -> Result<Self> {
///         let text = String::from_utf8(payload.into_bytes().into());
///         text.map(Self).map_err(|_| Status::internal("the message is not UTF-8"))
///     }
/// }
/// ```
pub trait Message: Send + Sized + 'static {
    /// Returns the number of bytes that [`encode`](Self::encode) appends.
    fn encoded_len(&self) -> usize;

    /// Appends the encoded message to `buffer`: exactly [`encoded_len`](Self::encoded_len) bytes.
    ///
    /// If a message writes a different number of bytes, its call ends with INTERNAL and the message is
    /// not sent. The buffer of a small message has a fixed size, and panics if more bytes are written.
    /// The buffer of a large message does not copy large `Bytes` that are passed to `put`, but shares
    /// them.
    fn encode(&self, buffer: &mut impl BufMut);

    /// Appends the encoded message to `rope`, a buffer of several pieces of memory. Large messages are
    /// encoded with this method. The default calls [`encode`](Self::encode).
    ///
    /// A message that contains `Bytes` can pass them to [`Rope::push`], which does not copy them.
    fn encode_in_pieces(&self, rope: &mut Rope) {
        self.encode(rope);
    }

    // Way of a unary call, client 10: decodes the message.
    /// Decodes a message.
    ///
    /// # Errors
    ///
    /// INTERNAL if the bytes are not a message of this type ("could not parse" in gRPC's table of status
    /// codes).
    fn decode(payload: Payload) -> Result<Self, Status>;

    /// Decodes a small message of a stream directly from the receive buffer, if the type supports that.
    /// The default returns `None`, and [`decode`](Self::decode) is called instead.
    ///
    /// Implement this method only for types that copy all their data. A type that keeps parts of the
    /// payload as `Bytes` must return `None`.
    ///
    /// # Errors
    ///
    /// The errors of [`decode`](Self::decode).
    fn decode_slice(bytes: &[u8]) -> Option<Result<Self, Status>> {
        let _ = bytes;
        None
    }
}

impl<T: prost::Message + Default + 'static> Message for T {
    fn encoded_len(&self) -> usize {
        prost::Message::encoded_len(self)
    }

    #[inline]
    fn encode(&self, buffer: &mut impl BufMut) {
        prost::Message::encode_raw(self, buffer);
    }

    fn decode(payload: Payload) -> Result<Self, Status> {
        // A message in one piece is decoded in place. Large `bytes` fields share the payload in both cases.
        let decoded = match payload.is_in_pieces() {
            false => T::decode(Fields::of_one(payload.into_bytes())),
            true => T::decode(Fields::of_pieces(payload)),
        };
        decoded.map_err(|error| undecodable(&error))
    }

    #[inline]
    fn decode_slice(bytes: &[u8]) -> Option<Result<Self, Status>> {
        let decoded = T::decode(Fields::of_slice(bytes));
        Some(decoded.map_err(|error| undecodable(&error)))
    }
}

#[cold]
fn undecodable(error: &prost::DecodeError) -> Status {
    Status::internal(format!("the message cannot be decoded: {error}"))
}

/// A message as its encoded bytes, for calls without generated code.
///
/// ```
/// # async fn example(client: trunkline::Client) -> trunkline::Result<()> {
/// use trunkline::{Method, Raw};
///
/// const METHOD: Method = Method::new("/helloworld.Greeter/SayHello");
/// let request = Raw("\n\u{3}you".into());
/// let response = client.unary::<Raw, Raw>(METHOD, request).await?;
/// println!("{} bytes", response.0.len());
/// # Ok(()) }
/// ```
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

    fn encode(&self, buffer: &mut impl BufMut) {
        buffer.put(self.0.clone());
    }

    fn encode_in_pieces(&self, rope: &mut Rope) {
        rope.push(self.0.clone());
    }

    fn decode(payload: Payload) -> Result<Self, Status> {
        Ok(Self(payload.into_bytes()))
    }
}

/// Appends `message`, whose encoded size is `len`, with its prefix. Compresses it with `compressor`, if any,
/// if that makes it smaller.
///
/// # Errors
///
/// RESOURCE_EXHAUSTED if the message is larger than `max_size`; then nothing is appended.
pub(crate) fn encode_frame<T: Message>(
    message: &T,
    len: usize,
    compressor: Option<&dyn Compressor>,
    max_size: usize,
    buffer: &mut BytesMut,
) -> Result<(), Status> {
    if let Some(compressor) = compressor {
        return encode_compressed(message, len, compressor, max_size, buffer);
    }
    let wire_len = wire_len(len, max_size)?;
    let start = buffer.len();
    let prefix = frame::prefix(false, wire_len);
    let missing = if len <= ZEROED_UP_TO {
        // prost writes numbers byte by byte. A byte costs a few instructions in a slice, and about fifty in
        // a growing buffer.
        buffer.resize(start + frame::PREFIX_SIZE + len, 0);
        let (front, mut rest) = buffer[start..].split_at_mut(frame::PREFIX_SIZE);
        front.copy_from_slice(&prefix);
        message.encode(&mut rest);
        rest.len()
    } else {
        buffer.reserve(frame::PREFIX_SIZE + len);
        buffer.put_slice(&prefix);
        message.encode(buffer);
        (start + frame::PREFIX_SIZE + len).abs_diff(buffer.len())
    };
    if missing > 0 {
        // The peer would read the next message as part of this one.
        buffer.truncate(start);
        return Err(wrong_len(len));
    }
    Ok(())
}

/// Encodes a compressed message. Separate from [`encode_frame`], which must remain small because it
/// dominates the cost of a streamed message.
#[cold]
#[inline(never)]
fn encode_compressed<T: Message>(
    message: &T,
    len: usize,
    compressor: &dyn Compressor,
    max_size: usize,
    buffer: &mut BytesMut,
) -> Result<(), Status> {
    let frame = frame_in_pieces(message, len, Some(compressor), max_size)?;
    frame.pieces().for_each(|piece| buffer.put_slice(piece));
    Ok(())
}

/// Encodes one message, whose encoded size is `len`, as a frame; in pieces if it is large.
///
/// # Errors
///
/// The errors of [`encode_frame`].
pub(crate) fn frame_of<T: Message>(
    message: &T,
    len: usize,
    compressor: Option<&dyn Compressor>,
    max_size: usize,
) -> Result<Payload, Status> {
    if len >= PIECES_FROM {
        return frame_in_pieces(message, len, compressor, max_size);
    }
    // The size of the frame, if it is not compressed and not too large.
    let mut buffer = match compressor {
        None if len <= max_size => BytesMut::with_capacity(frame::PREFIX_SIZE + len),
        None | Some(_) => BytesMut::new(),
    };
    encode_frame(message, len, compressor, max_size, &mut buffer)?;
    Ok(buffer.freeze().into())
}

#[cold]
fn frame_in_pieces<T: Message>(
    message: &T,
    len: usize,
    compressor: Option<&dyn Compressor>,
    max_size: usize,
) -> Result<Payload, Status> {
    let wire_len = wire_len(len, max_size)?;
    let mut rope = Rope::new();
    rope.put_slice(&frame::prefix(false, wire_len));
    message.encode_in_pieces(&mut rope);
    if rope.len() != frame::PREFIX_SIZE + len {
        return Err(wrong_len(len));
    }
    let frame = rope.into_payload();
    if let Some(compressor) = compressor {
        let (mut plain, mut buffer) = (frame.clone(), BytesMut::new());
        plain.advance(frame::PREFIX_SIZE);
        if compress_frame(&mut plain, compressor, &mut buffer)? {
            return Ok(buffer.freeze().into());
        }
    }
    Ok(frame)
}

/// Appends `plain` as a compressed frame and returns true, if compression makes it smaller.
pub(crate) fn compress_frame(
    plain: &mut dyn Buf,
    compressor: &dyn Compressor,
    buffer: &mut BytesMut,
) -> Result<bool, Status> {
    let (start, plain_len) = (buffer.len(), plain.remaining());
    buffer.put_slice(&frame::prefix(true, 0));
    let compressed = compressor.compress(plain, buffer);
    let len = buffer.len() - start - frame::PREFIX_SIZE;
    let (Ok(()), Ok(wire_len)) = (compressed, u32::try_from(len)) else {
        buffer.truncate(start);
        return Err(Status::internal(format!(
            "the message cannot be compressed with {}",
            compressor.name()
        )));
    };
    if len >= plain_len {
        buffer.truncate(start);
        return Ok(false);
    }
    buffer[start..start + frame::PREFIX_SIZE].copy_from_slice(&frame::prefix(true, wire_len));
    Ok(true)
}

/// Records a message that was encoded to be sent. Encodes it again for an observer that requests payloads.
#[cold]
pub(crate) fn record_sent<T: Message>(recorder: &Recorder, message: &T, size: MessageSize) {
    let plain = match recorder.wants_payloads() {
        true => frame_of(message, size.size, None, usize::MAX).ok(),
        false => None,
    };
    let payload = plain.map(without_prefix);
    recorder.message_sent(size, payload.as_ref());
}

/// Returns the message of an uncompressed frame.
pub(crate) fn without_prefix(mut frame: Payload) -> Payload {
    frame.advance(frame::PREFIX_SIZE.min(frame.len()));
    frame
}

fn wrong_len(len: usize) -> Status {
    Status::internal(format!(
        "the encoded message does not have the {len} bytes that its encoded_len returned"
    ))
}

/// Returns the length for the prefix.
#[inline]
pub(crate) fn wire_len(len: usize, max_size: usize) -> Result<u32, Status> {
    match u32::try_from(len) {
        Ok(wire_len) if len <= max_size => Ok(wire_len),
        _ => Err(too_large(len, max_size)),
    }
}

/// Returns the status of a message that is too large. The text names the sender, because a client also reads
/// it if a server cannot send its response.
#[cold]
fn too_large(len: usize, max_size: usize) -> Status {
    let limit = max_size.min(u32::MAX as usize);
    Status::resource_exhausted(format!(
        "a message of {len} bytes exceeds its sender's limit of {limit} bytes; raise max_send_message_size (of the channel for a request, of the server for a response), or send smaller messages"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_codec::{Code, Gzip};

    #[test]
    fn a_message_at_the_limit_is_sent_and_one_above_is_not() {
        let raw = |n| Raw(Bytes::from(vec![0; n]));
        let frame = |n| frame_of(&raw(n), n, None, 10);
        assert_eq!(frame(9).unwrap().len(), 14);
        assert_eq!(frame(10).unwrap().len(), 15);
        let status = frame(11).unwrap_err();
        assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED);
        assert!(
            status.message().contains("11") && status.message().contains("10"),
            "{status}"
        );
    }

    #[test]
    fn a_compressed_frame_says_so_and_names_its_own_length() {
        let raw = Raw(Bytes::from(vec![7; 10_000]));
        let frame = frame_of(&raw, 10_000, Some(&Gzip::default()), usize::MAX).unwrap();
        let frame = frame.into_bytes();
        assert!(frame.len() < 200, "{}", frame.len());
        assert_eq!(frame[0], 1);
        assert_eq!(
            frame[1..5],
            u32::try_from(frame.len() - 5).unwrap().to_be_bytes()
        );
    }

    /// A message with one large field, and one small one before it.
    #[derive(Clone, PartialEq, ::prost::Message)]
    struct Large {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(bytes = "bytes", tag = "2")]
        field: Bytes,
    }

    fn large(size: usize) -> Large {
        Large {
            name: "large".to_owned(),
            field: vec![7; size].into(),
        }
    }

    fn framed<T: Message>(message: &T) -> Payload {
        frame_of(message, message.encoded_len(), None, usize::MAX).unwrap()
    }

    #[test]
    fn a_message_is_encoded_in_pieces_from_16_kib_on() {
        let around = large(10_000).encoded_len() - 10_000;
        for (len, is_in_pieces) in [
            (PIECES_FROM - 1, false),
            (PIECES_FROM, true),
            (PIECES_FROM + 1, true),
        ] {
            let message = large(len - around);
            assert_eq!(message.encoded_len(), len);
            let frame = framed(&message);
            assert_eq!(frame.is_in_pieces(), is_in_pieces, "{len}");
            let mut whole = frame.into_bytes();
            let prefix = whole.split_to(frame::PREFIX_SIZE);
            assert_eq!(prefix[..], frame::prefix(false, len as u32));
            assert!(Large::decode(whole.into()).unwrap() == message);
        }
    }

    #[test]
    fn a_large_field_goes_out_and_comes_in_without_a_copy() {
        let message = large(1 << 20);
        let frame = framed(&message);
        let shared = frame
            .pieces()
            .find(|piece| piece.as_ptr() == message.field.as_ptr());
        assert!(shared.is_some(), "the field is no piece of the frame");
        let raw = Raw(message.field.clone());
        let is_raw = |piece: &Bytes| piece.as_ptr() == raw.0.as_ptr();
        assert!(framed(&raw).pieces().any(is_raw));

        let wire = frame.into_bytes().slice(frame::PREFIX_SIZE..);
        let decoded = Large::decode(wire.clone().into()).unwrap();
        assert_eq!(
            decoded.field.as_ptr(),
            wire[wire.len() - (1 << 20)..].as_ptr()
        );
        assert!(decoded == message);
    }

    #[test]
    fn a_small_message_is_decoded_where_it_lies_as_from_bytes_of_its_own() {
        let code = |decoded: Result<Large, Status>| decoded.map_err(|status| status.to_string());
        let wires = [0, 1, 32, 33, 3_000].map(|size| {
            let frame = framed(&large(size)).into_bytes();
            frame.slice(frame::PREFIX_SIZE..)
        });
        // Cut short, and one that says more than is there.
        let wrong = [&b"\x0a"[..], b"\x12\xff\x7fx", b"\0"].map(Bytes::from_static);
        for wire in wires.into_iter().chain(wrong) {
            let here = Large::decode_slice(&wire).expect("a prost message copies what it needs");
            assert_eq!(
                code(here),
                code(Large::decode(wire.clone().into())),
                "{wire:?}"
            );
        }
        assert!(
            Raw::decode_slice(b"x").is_none(),
            "it shares what it came in"
        );
    }

    /// A message that says it has `says` bytes, and has `has`.
    struct Own {
        says: usize,
        has: usize,
    }

    impl Message for Own {
        fn encoded_len(&self) -> usize {
            self.says
        }
        fn encode(&self, buffer: &mut impl BufMut) {
            buffer.put_bytes(7, self.has);
        }
        fn decode(_: Payload) -> Result<Self, Status> {
            Err(Status::internal("nobody reads it"))
        }
    }

    #[test]
    fn a_message_of_another_size_than_it_says_is_not_sent() {
        for says in [10, ZEROED_UP_TO, ZEROED_UP_TO + 1, PIECES_FROM] {
            let whole = frame_of(&Own { says, has: says }, says, None, usize::MAX);
            assert_eq!(whole.unwrap().len(), frame::PREFIX_SIZE + says);
            let short = Own {
                says,
                has: says - 1,
            };
            let status = frame_of(&short, says, None, usize::MAX).unwrap_err();
            assert_eq!(status.code(), Code::INTERNAL);
            assert!(status.message().contains(&says.to_string()), "{status}");
            let mut buffer = BytesMut::from(&b"before"[..]);
            encode_frame(&short, says, None, usize::MAX, &mut buffer).unwrap_err();
            assert_eq!(buffer, "before");
        }
    }
}
