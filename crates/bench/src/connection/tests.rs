use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;

use bytes::BytesMut;
use trunkline_testkit::{Fields, Frame, error, kind, setting};

use super::receive::{STREAM_STEP, due};
use super::*;
use crate::frames::FRAME_MAX;
use crate::messages::{Reply, prefixed};
use crate::plan::{Plan, Tally};
use crate::workloads::Workload;

/// A connection, and the server's end of it in the hands of the test.
struct Ends {
    connection: Connection,
    server: TcpStream,
    seen: BytesMut,
    tally: Tally,
}

impl Ends {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let connection = Connection::open(address).expect("it connects");
        let (server, _) = listener.accept().expect("somebody connects");
        let mut ends = Self {
            connection,
            server,
            seen: BytesMut::new(),
            tally: Tally::new(),
        };
        ends.connection.flush().expect("the greeting fits");
        let mut preface = [0; 24];
        ends.server
            .read_exact(&mut preface)
            .expect("a preface comes");
        ends
    }

    /// Sends frames and lets the connection take them all.
    fn send(&mut self, frames: &[Frame]) -> Result<(), String> {
        let mut bytes = BytesMut::new();
        for frame in frames {
            frame.write_to(&mut bytes);
        }
        // The last frame is answered, so that its answer tells that all were taken.
        Frame::ping(7).write_to(&mut bytes);
        self.server
            .write_all(&bytes)
            .expect("the server's end is open");
        while !self.connection.output[self.connection.output_at..].ends_with(&7_u64.to_be_bytes()) {
            self.connection.read(|| 5, &mut self.tally)?;
        }
        self.connection.flush()
    }

    /// The frames that the connection has sent, up to the next answer to a PING.
    fn received(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            while let Some(frame) = Frame::read_from(&mut self.seen) {
                if frame.kind == kind::PING {
                    return frames;
                }
                frames.push(frame);
            }
            let mut chunk = [0; 4096];
            let len = self
                .server
                .read(&mut chunk)
                .expect("the client's end is open");
            assert!(len > 0, "the client has closed");
            self.seen.extend_from_slice(&chunk[..len]);
        }
    }
}

fn unary() -> Plan {
    let workload = Workload::named("unary 1x1").expect("there is one");
    workload.plan("127.0.0.1:1")
}

fn reply(payload: Vec<u8>) -> Vec<u8> {
    prefixed(&Reply {
        payload,
        requests: 0,
    })
}

fn head(stream: u32) -> Frame {
    Frame::headers(stream, &Fields::response())
}

fn trailers(stream: u32) -> Frame {
    Frame::headers(stream, &Fields::trailers("0")).ending()
}

fn data_len(frames: &[Frame], stream: u32) -> usize {
    let data = frames.iter().filter(|it| it.kind == kind::DATA);
    data.filter(|it| it.stream == stream)
        .map(|it| it.payload.len())
        .sum()
}

#[test]
fn no_more_is_sent_than_the_windows_of_stream_and_connection_allow() {
    let mut ends = Ends::new();
    ends.send(&[Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 10)])])
        .expect("right");
    ends.received();
    let mut plan = unary();
    plan.message = vec![0; 100_000];
    ends.connection.start(&Rc::new(plan), 0);
    let mut sent = 0;
    for (frames, expected) in [
        (vec![], 10),
        (vec![Frame::window_update(1, 1)], 11),
        (
            vec![Frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 20)])],
            21,
        ),
        (vec![Frame::window_update(1, 200_000)], 65_535),
        (vec![Frame::window_update(0, 5)], 65_540),
        (vec![Frame::window_update(0, 100_000)], 100_000),
    ] {
        ends.send(&frames).expect("right");
        let received = ends.received();
        assert!(received.iter().all(|it| it.payload.len() <= FRAME_MAX));
        sent += data_len(&received, 1);
        assert_eq!(sent, expected);
        let is_end = received.iter().any(Frame::is_end_stream);
        assert_eq!(is_end, sent == 100_000);
    }
}

#[test]
fn window_is_returned_in_steps_unless_the_call_is_not_to_be_read() {
    for (returns_window, expected) in [(true, 1), (false, 0)] {
        let mut ends = Ends::new();
        let plan = Rc::new(Plan {
            returns_window,
            ..unary()
        });
        ends.send(&[Frame::settings(&[])]).expect("right");
        ends.connection.start(&plan, 0);
        let data = Frame::data(1, vec![0; FRAME_MAX]);
        let below = STREAM_STEP as usize / FRAME_MAX - 1;
        ends.send(&[&[head(1)][..], &vec![data.clone(); below]].concat())
            .expect("right");
        let updates = |frames: Vec<Frame>| {
            let updates = frames.into_iter();
            updates
                .filter(|it| it.kind == kind::WINDOW_UPDATE && it.stream == 1)
                .count()
        };
        ends.received();
        assert_eq!(updates(ends.received()), 0);
        ends.send(&[data]).expect("right");
        assert_eq!(updates(ends.received()), expected);
    }
}

#[test]
fn the_window_of_all_bytes_is_due_once_they_are_a_step() {
    for (len, expected, left) in [(9, None, 19), (10, Some(20), 0), (11, Some(21), 0)] {
        let mut unreturned = 10;
        assert_eq!(due(&mut unreturned, len, 20), expected);
        assert_eq!(unreturned, left);
    }
}

#[test]
fn a_response_that_is_not_whole_and_right_fails_the_visit() {
    let good = reply(unary().payload);
    let data = |bytes: &[u8]| Frame::data(1, bytes.to_vec());
    let other = reply(vec![9; 16]);
    for (frames, expected) in [
        (vec![head(1), data(&good), trailers(1)], None),
        (
            vec![head(1), data(&good[..9]), data(&good[9..]), trailers(1)],
            None,
        ),
        (vec![head(1), trailers(1)], Some("0 replies")),
        (
            vec![head(1), data(&good[..9]), trailers(1)],
            Some("a message that says"),
        ),
        (
            vec![head(1), data(&other), trailers(1)],
            Some("another payload"),
        ),
        (
            vec![head(1), data(&good).ending()],
            Some("without trailers"),
        ),
        (vec![data(&good)], Some("DATA before a head")),
        (vec![trailers(1)], Some("status 0 without")),
        (
            vec![Frame::headers(1, &Fields::trailers("5")).ending()],
            Some("grpc-status: 5"),
        ),
        (vec![head(3)], Some("not open")),
        (
            vec![Frame::rst_stream(1, error::CANCEL)],
            Some("RST_STREAM CANCEL"),
        ),
        (
            vec![Frame::goaway(1, error::ENHANCE_YOUR_CALM, "why")],
            Some("GOAWAY ENHANCE_YOUR_CALM why"),
        ),
    ] {
        let mut ends = Ends::new();
        ends.connection.start(&Rc::new(unary().as_check()), 0);
        let done = ends.send(&frames);
        match (done, expected) {
            (Ok(()), None) => assert_eq!(ends.connection.reply_len(), good.len() as u64),
            (Err(why), Some(part)) => assert!(why.contains(part), "{why}"),
            (done, _) => panic!("{done:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn later_responses_are_held_against_the_length_of_the_first() {
    let good = reply(unary().payload);
    for (len, is_right) in [
        (good.len(), true),
        (good.len() - 1, false),
        (good.len() + 1, false),
    ] {
        let mut ends = Ends::new();
        let response = |stream, len| {
            let mut bytes = good.clone();
            bytes.resize(len, 0);
            [head(stream), Frame::data(stream, bytes), trailers(stream)]
        };
        ends.connection.start(&Rc::new(unary().as_check()), 0);
        ends.send(&response(1, good.len())).expect("right");
        ends.connection.start(&Rc::new(unary()), 2);
        assert_eq!(ends.connection.open_timed_calls(), 1);
        assert_eq!(ends.send(&response(3, len)).is_ok(), is_right, "{len}");
        assert_eq!(ends.tally.operations, u64::from(is_right));
        assert_eq!(ends.tally.latencies.max(), if is_right { 3 } else { 0 });
    }
}
