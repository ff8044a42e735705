//! The parts that a script can play: the client of each kind of call, and a server.

use crate::script::hpack::{self, Field};
use crate::script::{DATA, END_HEADERS, END_STREAM, HEADERS, Header, Outbox, Part};

/// How many bytes before the first frame a client sends: RFC 9113, section 3.4.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_MAX: usize = 16 * 1024;

/// A client with a fixed number of calls in flight.
#[derive(Debug)]
pub(crate) struct Client {
    head: [Vec<u8>; 2],
    /// One request message with its prefix, already cut into the payloads of DATA frames.
    request: Vec<Vec<u8>>,
    /// How often it is sent on one call before the requests end.
    messages: usize,
    in_flight: usize,
    calls: usize,
    begun: usize,
    ended: usize,
}

impl Client {
    pub(crate) fn new(path: &str, message: &[u8], in_flight: usize, calls: usize) -> Self {
        // :method POST and :scheme http, by their places in the static table.
        let head = hpack::blocks(
            &[0x83, 0x86],
            &[
                Field::Known(4, path),
                Field::Known(1, "127.0.0.1:50051"),
                Field::New("te", "trailers"),
                Field::Known(31, "application/grpc"),
                Field::Known(58, "grpc-go/1.83.0"),
            ],
            0,
        );
        Self {
            head,
            request: framed(message)
                .chunks(FRAME_MAX)
                .map(<[u8]>::to_vec)
                .collect(),
            messages: 1,
            in_flight,
            calls,
            begun: 0,
            ended: 0,
        }
    }

    pub(crate) fn messages(mut self, messages: usize) -> Self {
        self.messages = messages;
        self
    }

    pub(crate) fn open(&mut self) -> Outbox {
        let mut outbox = Outbox(PREFACE.to_vec());
        outbox.open();
        for _ in 0..self.in_flight.min(self.calls) {
            self.begin(&mut outbox);
        }
        outbox
    }

    fn begin(&mut self, outbox: &mut Outbox) {
        let stream = 2 * self.begun as u32 + 1;
        outbox.frame(
            HEADERS,
            END_HEADERS,
            stream,
            &self.head[usize::from(self.begun > 0)],
        );
        for left in (0..self.messages).rev() {
            for (i, payload) in self.request.iter().enumerate() {
                let is_last = left == 0 && i + 1 == self.request.len();
                outbox.frame(DATA, u8::from(is_last), stream, payload);
            }
        }
        self.begun += 1;
    }
}

impl Part for Client {
    fn frame(&mut self, header: Header, _: &[u8], outbox: &mut Outbox) {
        if matches!(header.kind, DATA | HEADERS) && header.flags & END_STREAM != 0 {
            self.ended += 1;
            if self.begun < self.calls {
                self.begin(outbox);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.ended == self.calls
    }
}

/// A client that sends a message when it has the reply to the one before, on each of its calls.
#[derive(Debug)]
pub(crate) struct PingPong {
    client: Client,
    /// Messages that are still to be sent, on each call.
    left: Vec<usize>,
}

impl PingPong {
    pub(crate) fn new(path: &str, message: &[u8], calls: usize, messages: usize) -> Self {
        let client = Client::new(path, message, calls, calls);
        Self {
            client,
            left: vec![messages - 1; calls],
        }
    }

    pub(crate) fn open(&self) -> Outbox {
        let mut outbox = Outbox(PREFACE.to_vec());
        outbox.open();
        for call in 0..self.left.len() {
            let stream = 2 * call as u32 + 1;
            let head = &self.client.head[usize::from(call > 0)];
            outbox.frame(HEADERS, END_HEADERS, stream, head);
            outbox.frame(DATA, 0, stream, &self.client.request[0]);
        }
        outbox
    }
}

impl Part for PingPong {
    fn frame(&mut self, header: Header, _: &[u8], outbox: &mut Outbox) {
        if header.kind == HEADERS && header.flags & END_STREAM != 0 {
            self.client.ended += 1;
        }
        if header.kind == DATA {
            let left = &mut self.left[(header.stream as usize - 1) / 2];
            if *left == usize::MAX {
                return;
            }
            if *left == 0 {
                *left = usize::MAX;
                outbox.frame(DATA, END_STREAM, header.stream, &[]);
            } else {
                *left -= 1;
                outbox.frame(DATA, 0, header.stream, &self.client.request[0]);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.client.ended == self.client.calls
    }
}

/// A server that answers each call when its request has come.
#[derive(Debug)]
pub(crate) struct Server {
    head: [Vec<u8>; 2],
    trailers: [Vec<u8>; 2],
    reply: Vec<u8>,
    answered: usize,
}

impl Server {
    pub(crate) fn new(message: &[u8]) -> Self {
        Self {
            // :status 200, by its place in the static table.
            head: hpack::blocks(&[0x88], &[Field::Known(31, "application/grpc")], 1),
            trailers: hpack::blocks(&[], &[Field::New("grpc-status", "0")], 0),
            reply: framed(message),
            answered: 0,
        }
    }

    pub(crate) fn open(&self) -> Outbox {
        let mut outbox = Outbox::default();
        outbox.open();
        outbox
    }
}

impl Part for Server {
    fn frame(&mut self, header: Header, _: &[u8], outbox: &mut Outbox) {
        if matches!(header.kind, DATA | HEADERS) && header.flags & END_STREAM != 0 {
            let known = usize::from(self.answered > 0);
            outbox.frame(HEADERS, END_HEADERS, header.stream, &self.head[known]);
            outbox.frame(DATA, 0, header.stream, &self.reply);
            outbox.frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                header.stream,
                &self.trailers[known],
            );
            self.answered += 1;
        }
    }

    fn is_over(&self) -> bool {
        false
    }
}

/// A message behind its prefix.
fn framed(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).expect("a message of a benchmark");
    let mut framed = vec![0];
    framed.extend_from_slice(&len.to_be_bytes());
    framed.extend_from_slice(message);
    framed
}
