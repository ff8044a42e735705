//! Every state of the grammar with every input, held against `grammar.txt`.
//!
//! A change of behaviour shows as a difference in that file. `TRUNKLINE_BLESS=1 cargo test` writes
//! it anew.
#![allow(missing_docs, reason = "a test")]
#![cfg(feature = "gzip")]

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use trunkline_codec::{Compressors, Event, Expect, Reader, Status, grammar};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/grammar.txt");
const STORED: &str = include_str!("grammar.txt");

/// The largest message, in bytes.
const LIMIT: usize = 8;

#[derive(Copy, Clone)]
enum Input {
    Head(u16, Pairs),
    Data(&'static [u8]),
    Trailers(Pairs),
    Reset(u32),
    Fail,
    Eof,
    /// Takes all events that there are; only to come into a state.
    Take,
}

type Pairs = &'static [(&'static str, &'static str)];

const GRPC: (&str, &str) = ("content-type", "application/grpc");
const HEAD: Input = Input::Head(200, &[GRPC]);
const HELD_OK: Input = Input::Head(200, &[GRPC, ("grpc-status", "0")]);
const HELD_ERROR: Input = Input::Head(200, &[GRPC, ("grpc-status", "5")]);
const MESSAGE: Input = Input::Data(b"\0\0\0\0\x03abc");
const HALF: Input = Input::Data(b"\0\0\0\0\x03a");

const INPUTS: [(&str, Input); 28] = [
    ("head", HEAD),
    ("head with status 0", HELD_OK),
    ("head with status 5", HELD_ERROR),
    (
        "head of gzip",
        Input::Head(200, &[GRPC, ("grpc-encoding", "gzip")]),
    ),
    (
        "head of br",
        Input::Head(200, &[GRPC, ("grpc-encoding", "br")]),
    ),
    (
        "head of json",
        Input::Head(200, &[("content-type", "application/grpc+json")]),
    ),
    (
        "head of br with status 5",
        Input::Head(200, &[GRPC, ("grpc-encoding", "br"), ("grpc-status", "5")]),
    ),
    (
        "head of br with status 0",
        Input::Head(200, &[GRPC, ("grpc-encoding", "br"), ("grpc-status", "0")]),
    ),
    (
        "head of html",
        Input::Head(200, &[("content-type", "text/html")]),
    ),
    ("head 103", Input::Head(103, &[])),
    (
        "head 503",
        Input::Head(503, &[("content-type", "text/html")]),
    ),
    (
        "head 503 with status 5",
        Input::Head(503, &[GRPC, ("grpc-status", "5")]),
    ),
    (
        "head 503 with status 0",
        Input::Head(503, &[GRPC, ("grpc-status", "0")]),
    ),
    ("message", MESSAGE),
    ("two messages", Input::Data(b"\0\0\0\0\x01a\0\0\0\0\0")),
    ("half a message", HALF),
    ("rest of a message", Input::Data(b"bc")),
    ("too large a message", Input::Data(b"\0\0\0\0\x09")),
    ("compressed message", Input::Data(b"\x01\0\0\0\x03abc")),
    ("bad flag", Input::Data(b"\x02\0\0\0\0")),
    ("empty data", Input::Data(b"")),
    ("trailers 0", Input::Trailers(&[("grpc-status", "0")])),
    (
        "trailers 5",
        Input::Trailers(&[("grpc-status", "5"), ("grpc-message", "no")]),
    ),
    ("trailers without status", Input::Trailers(&[("a", "1")])),
    ("reset NO_ERROR", Input::Reset(0)),
    ("reset CANCEL", Input::Reset(8)),
    ("failure", Input::Fail),
    ("eof", Input::Eof),
];

const RESPONSES: [(&str, &[Input]); 14] = [
    ("start", &[]),
    ("head waits", &[HEAD]),
    ("head taken", &[HEAD, Input::Take]),
    ("held, status 0", &[HELD_OK, Input::Take]),
    ("held, status 5", &[HELD_ERROR, Input::Take]),
    ("half a message", &[HEAD, HALF, Input::Take]),
    ("message waits", &[HEAD, MESSAGE]),
    ("message taken", &[HEAD, MESSAGE, Input::Take]),
    ("held, message", &[HELD_OK, MESSAGE, Input::Take]),
    (
        "trailers wait",
        &[HEAD, MESSAGE, Input::Trailers(&[("grpc-status", "0")])],
    ),
    ("reset waits", &[HEAD, MESSAGE, Input::Reset(8)]),
    ("failure waits", &[HEAD, MESSAGE, Input::Fail]),
    (
        "refusal waits",
        &[Input::Head(503, &[("content-type", "text/html")])],
    ),
    ("done", &[HELD_OK, Input::Eof, Input::Take]),
];

const REQUESTS: [(&str, &[Input]); 7] = [
    ("start", &[]),
    ("half a message", &[HALF, Input::Take]),
    ("message waits", &[MESSAGE]),
    ("message taken", &[MESSAGE, Input::Take]),
    ("eof waits", &[MESSAGE, Input::Eof]),
    ("failure waits", &[MESSAGE, Input::Fail]),
    ("done", &[Input::Eof, Input::Take]),
];

fn headers(pairs: Pairs) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    pairs.iter().map(pair).collect()
}

fn put(reader: &mut Reader, input: Input, below: usize) {
    match input {
        Input::Head(status, pairs) => {
            reader.head(StatusCode::from_u16(status).unwrap(), headers(pairs));
        }
        Input::Data(bytes) => reader.data(Bytes::from_static(bytes)),
        Input::Trailers(pairs) => reader.trailers(headers(pairs)),
        Input::Reset(reason) => reader.reset(reason),
        Input::Fail => reader.fail(Status::deadline_exceeded("too late")),
        Input::Eof => reader.eof(),
        Input::Take => drop(events(reader, below)),
    }
}

/// All events that there are, in words; messages below so many bytes are read where they lie.
fn events(reader: &mut Reader, below: usize) -> Vec<String> {
    let words = |event| match event {
        Event::Head(_) => String::from("head"),
        Event::Message(message) => format!("message of {}", message.payload.len()),
        Event::End(end) => match end.status {
            Ok(()) => String::from("end OK"),
            Err(status) => format!("end {status}"),
        },
    };
    let next = || {
        let small = reader.read_small(below, |message| Some(message.len()));
        let small = small.map(|len| format!("message of {len}"));
        small.or_else(|| reader.next().map(words))
    };
    std::iter::from_fn(next).collect()
}

fn line(mut reader: Reader, script: &[Input], input: Input, below: usize) -> String {
    let script = script.iter().chain([&input]);
    script.for_each(|step| put(&mut reader, *step, below));
    let events = events(&mut reader, below);
    let ends = events
        .iter()
        .filter(|event| event.starts_with("end"))
        .count();
    assert!(
        ends == 0 || (ends == 1 && events.last().unwrap().starts_with("end")),
        "{events:?}"
    );
    if ends == 1 {
        assert_eq!(reader.buffered(), 0);
        for (name, input) in INPUTS {
            put(&mut reader, input, below);
            assert!(
                reader.next().is_none(),
                "{name} gives an event after the end"
            );
            assert_eq!(reader.buffered(), 0, "{name} is kept after the end");
        }
    }
    match events.is_empty() {
        true => String::from("-"),
        false => events.join(", "),
    }
}

fn table(below: usize) -> String {
    let mut table = String::new();
    for expect in [Expect::One, Expect::Many] {
        let response = || Reader::response(expect, LIMIT, Compressors::default());
        for (state, script) in RESPONSES {
            writeln!(table, "response of {expect:?}, {state}").unwrap();
            for (name, input) in INPUTS {
                let line = line(response(), script, input, below);
                writeln!(table, "    {name}: {line}").unwrap();
            }
        }
        let request = || Reader::request(expect, LIMIT, None);
        for (state, script) in REQUESTS {
            writeln!(table, "request of {expect:?}, {state}").unwrap();
            for (name, input) in INPUTS {
                let line = line(request(), script, input, below);
                writeln!(table, "    {name}: {line}").unwrap();
            }
        }
    }
    table
}

#[test]
fn every_state_with_every_input_is_as_stored() {
    let table = table(0);
    if std::env::var_os("TRUNKLINE_BLESS").is_some() {
        std::fs::write(TABLE, &table).unwrap();
        return;
    }
    let differs = table
        .lines()
        .zip(STORED.lines())
        .position(|(now, stored)| now != stored);
    if let Some(at) = differs {
        let line = |text: &str| text.lines().nth(at).unwrap_or_default().to_owned();
        let state = table
            .lines()
            .take(at + 1)
            .filter(|line| !line.starts_with(' '))
            .last();
        panic!(
            "{}\n  now:    {}\n  stored: {}",
            state.unwrap_or_default(),
            line(&table),
            line(STORED)
        );
    }
    assert_eq!(table.lines().count(), STORED.lines().count());
}

#[test]
fn messages_that_are_read_where_they_lie_change_no_event() {
    for below in [1, LIMIT, usize::MAX] {
        assert!(table(below) == table(0), "below {below}");
    }
}

/// The one message of a response to one request, by the states.
fn by_the_states(head: (u16, Pairs), data: &'static [u8], trailers: Pairs) -> Option<Bytes> {
    let mut reader = Reader::response(Expect::One, LIMIT, Compressors::default());
    put(&mut reader, Input::Head(head.0, head.1), 0);
    put(&mut reader, Input::Data(data), 0);
    put(&mut reader, Input::Trailers(trailers), 0);
    let (Some(Event::Head(_)), Some(Event::Message(message)), Some(Event::End(end))) =
        (reader.next(), reader.next(), reader.next())
    else {
        return None;
    };
    (end.status.is_ok() && !message.compressed).then(|| message.payload.into_bytes())
}

#[test]
fn a_response_that_is_read_at_once_is_read_as_by_the_states() {
    let heads = INPUTS.into_iter().filter_map(|(name, input)| match input {
        Input::Head(status, pairs) => Some((name, (status, pairs))),
        _ => None,
    });
    let datas = INPUTS.into_iter().filter_map(|(name, input)| match input {
        Input::Data(data) => Some((name, data)),
        _ => None,
    });
    let more: [(&str, Pairs); 2] = [
        ("no trailers", &[]),
        (
            "two",
            &[("grpc-status", "0"), ("a", "1"), ("grpc-status", "0")],
        ),
    ];
    let trailers = INPUTS.into_iter().filter_map(|(name, input)| match input {
        Input::Trailers(pairs) => Some((name, pairs)),
        _ => None,
    });
    let trailers: Vec<_> = trailers.chain(more).collect();
    let mut read = 0;
    for (head_name, head) in heads {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = StatusCode::from_u16(head.0).unwrap();
        parts.headers = headers(head.1);
        for (data_name, data) in datas.clone() {
            for (end_name, end) in &trailers {
                let (body, encodings) = (Bytes::from_static(data), Compressors::default());
                let at_once =
                    grammar::only_message(&parts, &body, &headers(end), LIMIT, &encodings);
                let case = format!("{head_name}, {data_name}, {end_name}");
                let expected = by_the_states(head, data, end);
                assert_eq!(at_once, expected, "{case}");
                read += usize::from(at_once.is_some());
            }
        }
    }
    assert!(read > 0);
}
