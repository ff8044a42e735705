//! Entry points for fuzzers: plain functions of bytes, which panic when what they promise does not
//! hold.
//!
//! Each takes any bytes at all. A fuzz target only has to call one; the tests of this crate call
//! all of them with bytes from a seed.

use std::str;

use bytes::{Buf, Bytes};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode};

use trunkline_codec::frame::PREFIX_SIZE;
use trunkline_codec::{
    Compressors, Decoder, Event, Expect, Metadata, Path, Reader, Status, head, percent, timeout,
};

/// The message limit of the functions here, in bytes: small, so that inputs reach it.
const MAX_SIZE: usize = 4096;

/// The longest chunk that an input is cut into, in bytes.
const CHUNK_MAX: usize = 64;

/// Messages cut into chunks: the result does not depend on where the cuts are.
pub(crate) fn message_reader(data: &[u8]) {
    let whole = decode(std::iter::once(data));
    let mut sizes = data.iter().map(|byte| usize::from(*byte) % CHUNK_MAX + 1);
    let mut rest = data;
    let chunks = std::iter::from_fn(|| {
        let (chunk, left) = rest.split_at(sizes.next()?.min(rest.len()));
        rest = left;
        (!chunk.is_empty()).then_some(chunk)
    });
    assert_eq!(decode(chunks), whole, "chunks change what is decoded");
    let size: usize = whole
        .0
        .iter()
        .map(|message| message.len() + PREFIX_SIZE)
        .sum();
    assert!(size <= data.len(), "more came out than went in");
}

fn decode<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Bytes>, bool) {
    let mut decoder = Decoder::new(MAX_SIZE);
    let mut messages = Vec::new();
    for chunk in chunks {
        decoder.push(Bytes::copy_from_slice(chunk));
        while let Ok(Some(frame)) = decoder.next() {
            assert!(frame.payload.len() <= MAX_SIZE);
            messages.push(frame.payload.into_bytes());
        }
    }
    (messages, decoder.finish().is_ok())
}

/// A call, the bytes being the order of its inputs: whatever comes, there is one end at most, and
/// nothing after it.
pub(crate) fn call(data: &[u8]) {
    for expect in [Expect::One, Expect::Many] {
        let encodings = Compressors::default();
        let encoding = encodings.find("gzip").cloned();
        run(Reader::request(expect, MAX_SIZE, encoding), data);
        run(Reader::response(expect, MAX_SIZE, encodings), data);
    }
}

fn run(mut reader: Reader, mut data: &[u8]) {
    let mut is_done = false;
    while let Some((action, rest)) = data.split_first() {
        data = rest;
        match action % 16 {
            0 => reader.eof(),
            1 => reader.reset(u32::from(*action)),
            2 => reader.fail(Status::deadline_exceeded("")),
            3 | 4 => reader.trailers(take_headers(&mut data)),
            5..=7 => {
                let status = StatusCode::from_u16(200 + u16::from(action / 16)).unwrap_or_default();
                reader.head(status, take_headers(&mut data));
            }
            8..=13 => reader.data(Bytes::copy_from_slice(take(&mut data))),
            _ => loop {
                match reader.next() {
                    Some(event) => {
                        assert!(!is_done, "there is an event after the end");
                        is_done = matches!(event, Event::End(_));
                    }
                    None if reader.has_work() => {}
                    None => break,
                }
            },
        }
    }
}

/// Headers made of the bytes: lookups, a round trip through the wire, and the status in them.
pub(crate) fn metadata(mut data: &[u8]) {
    let headers = take_headers(&mut data);
    let metadata = Metadata::from_headers(headers.clone());
    assert_eq!(metadata.iter().count(), metadata.len());
    for (key, _) in metadata.iter() {
        assert!(metadata.contains_key(key) && !key.starts_with(':'));
        let (_text, _bytes) = (metadata.get(key), metadata.get_all_bin(key).count());
    }
    let mut sent = HeaderMap::new();
    metadata.clone().merge_into(&mut sent);
    assert_eq!(
        Metadata::from_headers(sent),
        metadata,
        "an echo changes the metadata"
    );
    if let Some(Err(status)) = Status::from_trailers(&headers) {
        let sent = status.clone().forward().into_trailers();
        let received = Status::from_trailers(&sent).and_then(Result::err);
        let received = received.expect("an error is sent as one");
        assert_eq!(received.code(), status.code());
        assert_eq!(received.details().len(), status.details().len());
    }
}

/// The head of a request with headers made of the bytes.
pub(crate) fn request_head(mut data: &[u8]) {
    let mut request = Request::new(());
    *request.method_mut() = http::Method::POST;
    *request.headers_mut() = take_headers(&mut data);
    let (parts, ()) = request.into_parts();
    let encodings = Compressors::default();
    match head::parse_request(&parts, 16 * 1024, &encodings) {
        Ok(head) => assert!(head.timeout.is_none_or(|timeout| timeout <= timeout::MAX)),
        Err(refusal) => {
            let (response, trailers) = refusal.into_response(&encodings);
            let blocks = [response.headers()].into_iter().chain(&trailers);
            let statuses = blocks.map(|block| block.get_all("grpc-status").iter().count());
            assert_eq!(statuses.sum::<usize>(), 1);
        }
    }
}

/// The value of `grpc-timeout`: what parses is sent as a value that parses to no less.
pub(crate) fn timeout(data: &[u8]) {
    let Ok(parsed) = timeout::parse(data) else {
        return;
    };
    let again = timeout::parse(timeout::encode(parsed).as_bytes());
    assert!(again.is_ok_and(|again| again >= parsed));
}

/// The value of `grpc-message`: decoding never fails, and text comes back as it was.
pub(crate) fn percent(data: &[u8]) {
    let _lossy = percent::decode(data);
    if let Ok(text) = str::from_utf8(data) {
        let (value, sent) = percent::encode(text, usize::MAX);
        assert_eq!(sent, text);
        assert_eq!(percent::decode(value.as_bytes()), text);
        let limit = data.len() / 2;
        let (value, sent) = percent::encode(text, limit);
        assert!(value.len() <= limit && text.starts_with(sent));
    }
}

/// A path: what parses is its two names with their slashes, and nothing else.
pub(crate) fn path(data: &[u8]) {
    let Some(path) = str::from_utf8(data).ok().and_then(Path::parse) else {
        return;
    };
    let again = format!("/{}/{}", path.service(), path.method());
    assert_eq!(again.as_bytes(), data);
    assert!(!path.service().contains('/') && !path.method().contains('/'));
}

/// A compressed message: restoring it never passes the limit by more than 64 KiB.
pub(crate) fn decompress(data: &[u8]) {
    let encodings = Compressors::default();
    #[cfg(feature = "zstd")]
    let encodings = encodings.with(trunkline_codec::Zstd::default());
    for encoding in encodings.iter() {
        let mut output = bytes::BytesMut::new();
        let mut input = data;
        let result = encoding.decompress(&mut input, &mut output, MAX_SIZE);
        assert!(output.len() <= MAX_SIZE + 64 * 1024);
        assert!(result.is_err() || (output.len() <= MAX_SIZE && !input.has_remaining()));
        let (mut wire, mut again) = (bytes::BytesMut::new(), bytes::BytesMut::new());
        let compressed = encoding.compress(&mut &data[..], &mut wire);
        let restored = encoding.decompress(&mut wire, &mut again, data.len());
        assert!(compressed.is_ok() && restored.is_ok() && again == data);
    }
}

/// Takes a length byte and that many bytes.
fn take<'a>(data: &mut &'a [u8]) -> &'a [u8] {
    let Some((len, rest)) = data.split_first() else {
        return &[];
    };
    let (taken, rest) = rest.split_at(usize::from(*len).min(rest.len()));
    *data = rest;
    taken
}

/// Takes up to four headers, most of them with a name that means something.
fn take_headers(data: &mut &[u8]) -> HeaderMap {
    const NAMES: [&str; 12] = [
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "content-type",
        "grpc-encoding",
        "grpc-accept-encoding",
        "grpc-timeout",
        "user-agent",
        "host",
        "a",
        "b-bin",
        "te",
    ];
    const VALUES: [&str; 8] = [
        "0",
        "5",
        "application/grpc",
        "gzip",
        "identity",
        "1S",
        "AA",
        "application/grpc",
    ];
    let mut headers = HeaderMap::new();
    let count = data.first().map_or(0, |byte| byte % 5);
    data.advance(usize::from(count > 0));
    for _ in 0..count {
        let Some((kind, rest)) = data.split_first() else {
            break;
        };
        *data = rest;
        let bytes = match kind / 16 {
            at @ 0..8 => VALUES[usize::from(at)].as_bytes(),
            _ => take(data),
        };
        let name = match NAMES.get(usize::from(kind % 16)) {
            Some(name) => HeaderName::from_static(name),
            None => HeaderName::from_static("custom"),
        };
        if let Ok(value) = HeaderValue::from_bytes(bytes) {
            headers.append(name, value);
        }
    }
    headers
}
