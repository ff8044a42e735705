//! Whole calls through the reader: compression, limits, trailers, and cuts at random.
#![allow(missing_docs, reason = "a test")]
#![cfg(feature = "gzip")]

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;
use trunkline_codec::frame::prefix;
use trunkline_codec::{
    Code, CompressionError, Compressor, Compressors, Decompressor, End, Event, Expect, Gzip,
    Message, Reader, Status,
};

const LIMIT: usize = 1_000;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )
    };
    pairs.iter().map(pair).collect()
}

fn head(encoding: &str) -> HeaderMap {
    headers(&[
        ("content-type", "application/grpc"),
        ("grpc-encoding", encoding),
        ("h", "1"),
    ])
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&prefix(false, message.len() as u32)[..], message].concat()
}

fn frame_of(payload: &[u8]) -> Vec<u8> {
    [&prefix(true, payload.len() as u32)[..], payload].concat()
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut output = BytesMut::new();
    Gzip::default()
        .compress(&mut &message[..], &mut output)
        .unwrap();
    output.to_vec()
}

fn response(expect: Expect, encoding: &str) -> Reader {
    let mut reader = Reader::response(expect, LIMIT, Compressors::default());
    reader.head(StatusCode::OK, head(encoding));
    assert!(matches!(reader.next(), Some(Event::Head(head)) if head.get("h") == Some("1")));
    reader
}

/// All messages, and the end if it is there.
fn collect(reader: &mut Reader) -> (Vec<Message>, Option<End>) {
    let mut messages = Vec::new();
    while let Some(event) = reader.next() {
        match event {
            Event::Head(_) => {}
            Event::Message(message) => messages.push(message),
            Event::End(end) => return (messages, Some(end)),
        }
    }
    (messages, None)
}

/// The code that a response ends with whose head names `encoding` and whose data is `wire`.
fn code_after(encoding: &str, wire: Vec<u8>) -> Code {
    let mut reader = response(Expect::Many, encoding);
    reader.data(Bytes::from(wire));
    reader.trailers(headers(&[("grpc-status", "0")]));
    match collect(&mut reader).1.unwrap().status {
        Ok(()) => Code::OK,
        Err(status) => status.code(),
    }
}

#[test]
fn a_message_that_comes_with_its_trailers_is_delivered_before_the_status() {
    for status in ["0", "5"] {
        let mut reader = response(Expect::One, "identity");
        reader.data(Bytes::from(frame(b"abc")));
        reader.trailers(headers(&[("grpc-status", status), ("t", "2")]));
        reader.eof();
        reader.reset(0);
        let Some(Event::Message(message)) = reader.next() else {
            panic!("there is no message")
        };
        assert_eq!(message.payload.into_bytes(), "abc");
        let Some(Event::End(end)) = reader.next() else {
            panic!("there is no end")
        };
        assert_eq!(end.status.is_ok(), status == "0");
        assert_eq!(end.trailers.get("t"), Some("2"));
        assert!(
            end.status
                .err()
                .is_none_or(|status| status.metadata().get("t") == Some("2"))
        );
        assert!(reader.next().is_none());
    }
}

#[test]
fn trailers_only_has_no_head_and_its_metadata_is_in_the_trailers() {
    let mut reader = Reader::response(Expect::One, LIMIT, Compressors::default());
    let pairs = [
        ("content-type", "application/grpc"),
        ("grpc-status", "7"),
        ("k", "v"),
    ];
    reader.head(StatusCode::OK, headers(&pairs));
    assert!(
        reader.next().is_none(),
        "nothing is decided before the stream goes on or ends"
    );
    reader.eof();
    let Some(Event::End(end)) = reader.next() else {
        panic!("there is no end")
    };
    assert_eq!(end.status.unwrap_err().code(), Code::PERMISSION_DENIED);
    assert_eq!((end.trailers.len(), end.trailers.get("k")), (1, Some("v")));
}

#[test]
fn a_refusal_by_http_keeps_its_headers_and_ignores_its_body() {
    let mut reader = Reader::response(Expect::Many, LIMIT, Compressors::default());
    let pairs = [("content-type", "text/html"), ("retry-after", "120")];
    reader.head(StatusCode::TOO_MANY_REQUESTS, headers(&pairs));
    reader.data(Bytes::from_static(b"<html>"));
    assert_eq!(reader.buffered(), 0);
    reader.eof();
    let (messages, end) = collect(&mut reader);
    let end = end.unwrap();
    let status = end.status.unwrap_err();
    assert_eq!((messages.len(), status.code()), (0, Code::UNAVAILABLE));
    assert_eq!(status.metadata().get("retry-after"), Some("120"));
    assert_eq!(end.trailers.get("retry-after"), Some("120"));
    assert!(status.is_from_peer());
}

#[test]
fn compressed_and_plain_messages_share_a_stream() {
    let wire = [
        frame(b"plain"),
        frame_of(&gzip(b"small")),
        frame_of(&gzip(b"")),
        frame(b""),
    ];
    let mut reader = response(Expect::Many, "gzip");
    reader.data(Bytes::from(wire.concat()));
    reader.trailers(headers(&[("grpc-status", "0")]));
    let (messages, end) = collect(&mut reader);
    let messages: Vec<_> = messages
        .into_iter()
        .map(|message| (message.compressed, message.payload.into_bytes()))
        .collect();
    let expected: [(bool, &[u8]); 4] = [
        (false, b"plain"),
        (true, b"small"),
        (true, b""),
        (false, b""),
    ];
    assert_eq!(messages.len(), expected.len());
    for (message, expected) in messages.iter().zip(expected) {
        assert_eq!((message.0, &message.1[..]), expected);
    }
    assert!(end.unwrap().status.is_ok());
}

/// An encoding of a user's own, in which nothing can be restored.
#[derive(Debug)]
struct Own;

impl Compressor for Own {
    fn name(&self) -> &str {
        "x-own"
    }

    fn compress(&self, _: &mut dyn Buf, _: &mut BytesMut) -> Result<(), CompressionError> {
        Err(CompressionError::Failed)
    }

    fn decompress(
        &self,
        _: &mut dyn Buf,
        _: &mut BytesMut,
        _: usize,
    ) -> Result<(), CompressionError> {
        Err(CompressionError::Corrupt)
    }
}

#[test]
fn a_compressed_message_of_no_bytes_is_the_empty_message_in_every_encoding() {
    let encodings = Compressors::default().with(Own);
    #[cfg(feature = "zstd")]
    let encodings = encodings.with(trunkline_codec::Zstd::default());
    for encoding in encodings.iter() {
        let name = encoding.name();
        let mut response = Reader::response(Expect::One, LIMIT, encodings.clone());
        response.head(StatusCode::OK, head(name));
        assert!(matches!(response.next(), Some(Event::Head(_))));
        let request = Reader::request(Expect::One, LIMIT, Some(encoding.clone()));
        for mut reader in [response, request] {
            reader.data(Bytes::from(frame_of(b"")));
            reader.trailers(headers(&[("grpc-status", "0")]));
            let (messages, end) = collect(&mut reader);
            let [message] = &messages[..] else {
                panic!("{name}: {} messages", messages.len());
            };
            assert!(message.compressed && message.payload.is_empty(), "{name}");
            assert!(end.unwrap().status.is_ok(), "{name}");
        }
    }
}

#[test]
fn what_a_response_does_wrong_has_the_code_of_the_tables() {
    let broken = [&gzip(b"some text")[..20], b"xx"].concat();
    let table = [
        ("gzip", frame_of(&gzip(b"text")), Code::OK),
        ("gzip", frame(b"text"), Code::OK),
        ("identity", frame_of(&gzip(b"text")), Code::INTERNAL),
        ("gzip", frame_of(b"no gzip"), Code::INTERNAL),
        ("gzip", frame_of(b""), Code::OK),
        ("identity", frame_of(b""), Code::INTERNAL),
        ("gzip", frame_of(&broken), Code::INTERNAL),
        ("gzip", frame_of(&gzip(&[0; LIMIT - 1])), Code::OK),
        ("gzip", frame_of(&gzip(&[0; LIMIT])), Code::OK),
        (
            "gzip",
            frame_of(&gzip(&[0; LIMIT + 1])),
            Code::RESOURCE_EXHAUSTED,
        ),
        (
            "gzip",
            frame_of(&gzip(&[0; 1_000 * LIMIT])),
            Code::RESOURCE_EXHAUSTED,
        ),
        ("gzip", frame(&[0; LIMIT - 1]), Code::OK),
        ("gzip", frame(&[0; LIMIT]), Code::OK),
        ("gzip", frame(&[0; LIMIT + 1]), Code::RESOURCE_EXHAUSTED),
        (
            "gzip",
            [frame(b""), frame(&[0; LIMIT + 1])].concat(),
            Code::RESOURCE_EXHAUSTED,
        ),
        (
            "gzip",
            prefix(false, u32::MAX).to_vec(),
            Code::RESOURCE_EXHAUSTED,
        ),
        (
            "gzip",
            prefix(true, 1 << 31).to_vec(),
            Code::RESOURCE_EXHAUSTED,
        ),
        ("gzip", vec![2, 0, 0, 0, 0], Code::INTERNAL),
        ("gzip", vec![0, 0, 0], Code::INTERNAL),
        ("gzip", frame(b"text")[..6].to_vec(), Code::INTERNAL),
    ];
    for (at, (encoding, wire, expected)) in table.into_iter().enumerate() {
        assert_eq!(code_after(encoding, wire), expected, "row {at}");
    }
}

#[test]
fn only_a_message_that_is_small_plain_and_whole_is_read_where_it_lies() {
    let here = |reader: &mut Reader| reader.read_small(4, |it| Some(it.to_vec()));
    let wire = [frame(b"abc"), frame(b"abcd"), frame(b""), frame_of(b"x")].concat();
    let mut reader = response(Expect::Many, "gzip");
    assert_eq!(here(&mut reader), None, "nothing is there");
    reader.data(Bytes::from([&wire[..], &frame(b"no")[..6]].concat()));
    assert_eq!(
        reader.read_small(4, |_| None::<()>),
        None,
        "it is not taken"
    );
    assert_eq!(here(&mut reader).as_deref(), Some(&b"abc"[..]));
    assert_eq!(here(&mut reader), None, "it is not small");
    let Some(Event::Message(message)) = reader.next() else {
        panic!("it is a message")
    };
    assert_eq!(message.payload.into_bytes(), "abcd");
    assert_eq!(here(&mut reader).as_deref(), Some(&b""[..]));
    assert_eq!(here(&mut reader), None, "it is compressed");
    assert!(matches!(reader.next(), Some(Event::End(end)) if end.status.is_err()));
    // Above the limit, and cut: within the prefix, and within the message.
    for cut in [
        frame(&[0; LIMIT + 1]),
        vec![0; 4],
        frame(b"no")[..6].to_vec(),
    ] {
        let mut reader = response(Expect::Many, "gzip");
        reader.data(Bytes::from(cut));
        assert_eq!(reader.read_small(usize::MAX, |it| Some(it.to_vec())), None);
    }
    // The buffer is let go of with the last message in it.
    let buffer = Bytes::from(frame(b"abc"));
    reader = response(Expect::Many, "gzip");
    reader.data(buffer.clone());
    assert!(here(&mut reader).is_some() && buffer.is_unique());
    assert_eq!(reader.buffered(), 0);
}

#[test]
fn messages_that_nobody_takes_stay_as_they_came() {
    let bomb = frame_of(&gzip(&[0; LIMIT]));
    let mut reader = response(Expect::Many, "gzip");
    for _ in 0..100 {
        reader.data(Bytes::from(bomb.clone()));
    }
    assert_eq!(reader.buffered(), 100 * bomb.len());
    let Some(Event::Message(message)) = reader.next() else {
        panic!("there is no message")
    };
    assert_eq!((message.payload.len(), message.compressed), (LIMIT, true));
    assert_eq!(
        reader.buffered(),
        99 * bomb.len(),
        "one message was decoded and no more"
    );
}

/// An encoding that restores one byte more than it is given and does not look at the limit.
#[derive(Debug)]
struct Longer;

impl Compressor for Longer {
    fn name(&self) -> &str {
        "longer"
    }

    fn compress(&self, input: &mut dyn Buf, output: &mut BytesMut) -> Result<(), CompressionError> {
        output.put(input.take(input.remaining() - 1));
        Ok(())
    }

    fn decompress(
        &self,
        input: &mut dyn Buf,
        output: &mut BytesMut,
        _max_size: usize,
    ) -> Result<(), CompressionError> {
        output.put(input);
        output.put_u8(0);
        Ok(())
    }
}

#[test]
fn the_limit_holds_for_encodings_that_do_not_look_at_it() {
    for (size, fits) in [(LIMIT - 2, true), (LIMIT - 1, true), (LIMIT, false)] {
        let mut reader = Reader::request(Expect::One, LIMIT, Some(Arc::new(Longer)));
        reader.data(Bytes::from(frame_of(&vec![0; size])));
        reader.eof();
        let (messages, end) = collect(&mut reader);
        assert_eq!(messages.len(), usize::from(fits));
        match end.unwrap().status {
            Ok(()) => assert!(fits),
            Err(status) => {
                assert_eq!((status.code(), fits), (Code::RESOURCE_EXHAUSTED, false));
                assert!(status.message().contains("longer"), "{status}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn where_a_stream_is_cut_and_when_it_is_read_change_nothing(
        messages in prop::collection::vec((any::<bool>(), 0usize..LIMIT), 0..8),
        cuts in prop::collection::vec((1usize..2_000, any::<bool>()), 1..40),
        below in 0usize..LIMIT,
    ) {
        let messages: Vec<_> = messages
            .into_iter()
            .map(|(compressed, size)| (compressed, vec![size as u8; size]))
            .collect();
        let wire: Vec<u8> = messages
            .iter()
            .flat_map(|(compressed, message)| match compressed {
                true => frame_of(&gzip(message)),
                false => frame(message),
            })
            .collect();
        let mut reader = response(Expect::Many, "gzip");
        let mut received = Vec::new();
        let mut rest = Bytes::from(wire);
        for (size, read) in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            reader.data(rest.split_to(rest.len().min(*size)));
            if *read {
                // Small ones where they lie.
                while let Some(message) = reader.read_small(below, |it| Some(it.to_vec())) {
                    received.push(Message { payload: Bytes::from(message).into(), compressed: false });
                }
                received.extend(collect(&mut reader).0);
            }
        }
        reader.trailers(headers(&[("grpc-status", "0")]));
        let (last, end) = collect(&mut reader);
        received.extend(last);
        prop_assert!(end.is_some_and(|end| end.status.is_ok()));
        let received: Vec<_> = received
            .into_iter()
            .map(|message| (message.compressed, message.payload.into_bytes().to_vec()))
            .collect();
        prop_assert_eq!(received, messages);
    }

    #[test]
    fn metadata_comes_back_from_the_wire(
        texts in prop::collection::vec(("[a-z0-9_.]{1,8}", "[!-~]([ -~]{0,20}[!-~])?"), 0..6),
        bytes in prop::collection::vec(("[a-z]{0,4}-bin", prop::collection::vec(any::<u8>(), 0..40)), 0..6),
    ) {
        let mut metadata = trunkline_codec::Metadata::new();
        for (key, value) in &texts {
            prop_assume!(metadata.append(key, value).is_ok());
        }
        for (key, value) in &bytes {
            metadata.append_bin(key, value).unwrap();
        }
        let mut wire = HeaderMap::new();
        metadata.clone().merge_into(&mut wire);
        let received = trunkline_codec::Metadata::from_headers(wire);
        prop_assert_eq!(&received, &metadata);
        for (key, _) in &texts {
            let sent: Vec<_> = texts.iter().filter(|(other, _)| other == key).collect();
            let values: Vec<_> = received.get_all(key).collect();
            prop_assert!(values.iter().eq(sent.iter().map(|(_, value)| value)));
        }
        for (key, _) in &bytes {
            let sent: Vec<_> = bytes.iter().filter(|(other, _)| other == key).collect();
            let values: Vec<_> = received.get_all_bin(key).collect();
            prop_assert!(values.iter().eq(sent.iter().map(|(_, value)| value)));
        }
    }
}

#[test]
fn a_message_that_takes_long_to_restore_comes_after_some_asks_and_what_is_behind_it_after_it() {
    let large = vec![7; 1 << 20];
    let mut reader = Reader::request(
        Expect::Many,
        large.len(),
        Compressors::default().find("gzip").cloned(),
    );
    reader.data([frame_of(&gzip(&large)), frame(b"small")].concat().into());
    reader.fail(Status::cancelled("meanwhile"));
    let mut asks = 0;
    let message = loop {
        match reader.next() {
            Some(Event::Message(message)) => break message,
            Some(event) => panic!("{event:?}"),
            None => assert!(reader.has_work(), "nothing comes any more"),
        }
        asks += 1;
    };
    assert!((8..40).contains(&asks), "{asks}");
    assert!(message.compressed && message.payload.into_bytes() == large);
    assert!(!reader.has_work());
    let (messages, end) = collect(&mut reader);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].payload.clone().into_bytes(), "small");
    assert_eq!(end.unwrap().status.unwrap_err().code(), Code::CANCELLED);
}

#[test]
fn a_message_that_turns_out_too_large_or_damaged_on_the_way_ends_the_call() {
    let large = gzip(&vec![7; 1 << 20]);
    let mut damaged = large.clone();
    let last = damaged.len() - 5;
    damaged[last] ^= 1;
    for (wire, limit, code) in [
        (&large, (1 << 20) - 1, Code::RESOURCE_EXHAUSTED),
        (&damaged, 1 << 20, Code::INTERNAL),
    ] {
        let encoding = Compressors::default().find("gzip").cloned();
        let mut reader = Reader::request(Expect::One, limit, encoding);
        reader.data(frame_of(wire).into());
        reader.eof();
        let end = loop {
            match reader.next() {
                Some(Event::End(end)) => break end,
                Some(event) => panic!("{event:?}"),
                None => assert!(reader.has_work(), "nothing comes any more"),
            }
        };
        assert_eq!(end.status.unwrap_err().code(), code);
        assert!(reader.next().is_none() && !reader.has_work());
    }
}

/// Restores nothing after its first `steps` steps, and never says so.
#[derive(Debug)]
struct Stuck {
    steps: usize,
}

impl Compressor for Stuck {
    fn name(&self) -> &str {
        "x-stuck"
    }

    fn compress(&self, _: &mut dyn Buf, _: &mut BytesMut) -> Result<(), CompressionError> {
        Err(CompressionError::Failed)
    }

    fn decompress(
        &self,
        _: &mut dyn Buf,
        _: &mut BytesMut,
        _: usize,
    ) -> Result<(), CompressionError> {
        Err(CompressionError::Failed)
    }

    fn decompressor(&self, _: usize) -> Option<Box<dyn Decompressor>> {
        Some(Box::new(Self { steps: self.steps }))
    }
}

impl Decompressor for Stuck {
    fn step(
        &mut self,
        input: &mut dyn Buf,
        output: &mut BytesMut,
    ) -> Result<bool, CompressionError> {
        match self.steps {
            0 => return Ok(false),
            at if at % 2 == 0 => input.advance(1),
            _ => output.put_u8(0),
        }
        self.steps -= 1;
        Ok(false)
    }
}

#[test]
fn a_message_whose_encoding_gets_no_further_ends_its_call() {
    for steps in [0, 1, 2, 5] {
        let encoding: Arc<dyn Compressor> = Arc::new(Stuck { steps });
        let mut reader = Reader::request(Expect::One, LIMIT, Some(encoding));
        reader.data(Bytes::from(frame_of(b"four")));
        reader.eof();
        let asked = (0..20).find_map(|at| Some((at, reader.next()?)));
        let Some((at, Event::End(end))) = asked else {
            panic!("{steps}: {asked:?}")
        };
        assert_eq!(at, steps);
        let status = end.status.unwrap_err();
        assert_eq!(
            status.to_string(),
            "INTERNAL: a message in x-stuck cannot be decompressed: the compressor failed"
        );
    }
}
