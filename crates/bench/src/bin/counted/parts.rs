//! The parts that a script can play: the client of each kind of call, and a server.

use trunkline_bench::frames::{self, FRAME_MAX, Header};
use trunkline_testkit::{PREFACE, flag, kind, setting};

use crate::script::{Part, ends_stream};

/// A client with a fixed number of calls in flight.
#[derive(Debug)]
pub(crate) struct Client {
    /// The header block of the first call, and of all later ones.
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
    /// `message` stands behind its prefix.
    pub(crate) fn new(path: &str, message: &[u8], in_flight: usize, calls: usize) -> Self {
        Self {
            head: frames::indexed_request(path, "127.0.0.1:50051").into(),
            request: message.chunks(FRAME_MAX).map(<[u8]>::to_vec).collect(),
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

    fn begin(&mut self, out: &mut Vec<u8>) {
        let stream = 2 * self.begun as u32 + 1;
        put_head(out, stream, &self.head[usize::from(self.begun > 0)], 0);
        for left in (0..self.messages).rev() {
            for (i, payload) in self.request.iter().enumerate() {
                let is_last = left == 0 && i + 1 == self.request.len();
                let flags = if is_last { flag::END_STREAM } else { 0 };
                frames::put(out, kind::DATA, flags, stream, payload);
            }
        }
        self.begun += 1;
    }
}

impl Part for Client {
    const PREFACE_LEN: usize = 0;

    fn open(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFACE);
        put_settings(out);
    }

    fn frame(&mut self, header: Header, out: &mut Vec<u8>) {
        if self.begun == 0 && opens_window(header) {
            for _ in 0..self.in_flight.min(self.calls) {
                self.begin(out);
            }
        }
        if ends_stream(header) {
            self.ended += 1;
            if self.begun < self.calls {
                self.begin(out);
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
    /// `message` stands behind its prefix.
    pub(crate) fn new(path: &str, message: &[u8], calls: usize, messages: usize) -> Self {
        let client = Client::new(path, message, calls, calls);
        Self {
            client,
            left: vec![messages - 1; calls],
        }
    }
}

impl Part for PingPong {
    const PREFACE_LEN: usize = 0;

    fn open(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFACE);
        put_settings(out);
    }

    fn frame(&mut self, header: Header, out: &mut Vec<u8>) {
        if self.client.begun == 0 && opens_window(header) {
            self.client.begun = self.left.len();
            for call in 0..self.left.len() {
                let stream = 2 * call as u32 + 1;
                put_head(out, stream, &self.client.head[usize::from(call > 0)], 0);
                frames::put(out, kind::DATA, 0, stream, &self.client.request[0]);
            }
        }
        if header.kind == kind::HEADERS && ends_stream(header) {
            self.client.ended += 1;
        }
        if header.kind == kind::DATA {
            let left = &mut self.left[(header.stream as usize - 1) / 2];
            if *left == usize::MAX {
                return;
            }
            if *left == 0 {
                *left = usize::MAX;
                frames::put(out, kind::DATA, flag::END_STREAM, header.stream, &[]);
            } else {
                *left -= 1;
                frames::put(out, kind::DATA, 0, header.stream, &self.client.request[0]);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.client.is_over()
    }
}

/// A server that answers each call when its request has come.
#[derive(Debug)]
pub(crate) struct Server {
    /// The header block of the first call, and of all later ones.
    head: [Vec<u8>; 2],
    trailers: [Vec<u8>; 2],
    /// Already cut into the payloads of DATA frames.
    reply: Vec<Vec<u8>>,
    answered: usize,
}

impl Server {
    /// `messages` stand behind their prefixes.
    pub(crate) fn new(messages: &[u8]) -> Self {
        let [head, trailers] = frames::indexed_response(None);
        Self {
            head: head.into(),
            trailers: trailers.into(),
            reply: messages.chunks(FRAME_MAX).map(<[u8]>::to_vec).collect(),
            answered: 0,
        }
    }

    /// Reports its load with each call: the value of the trailer.
    pub(crate) fn reports(mut self, load: &str) -> Self {
        let [head, trailers] = frames::indexed_response(Some(load));
        (self.head, self.trailers) = (head.into(), trailers.into());
        self
    }
}

impl Part for Server {
    const PREFACE_LEN: usize = PREFACE.len();

    fn open(&mut self, out: &mut Vec<u8>) {
        put_settings(out);
    }

    fn frame(&mut self, header: Header, out: &mut Vec<u8>) {
        if ends_stream(header) {
            let known = usize::from(self.answered > 0);
            put_head(out, header.stream, &self.head[known], 0);
            for payload in &self.reply {
                frames::put(out, kind::DATA, 0, header.stream, payload);
            }
            let trailers = &self.trailers[known];
            put_head(out, header.stream, trailers, flag::END_STREAM);
            self.answered += 1;
        }
    }

    fn is_over(&self) -> bool {
        false
    }
}

/// Whether the server says how much more than the 64 KiB of RFC 9113 a connection may send. Before it
/// has, and has said the same of streams in its settings, a large message is beyond the window.
fn opens_window(header: Header) -> bool {
    header.kind == kind::WINDOW_UPDATE && header.stream == 0
}

/// Appends SETTINGS, and more window for the connection than any script uses up.
fn put_settings(out: &mut Vec<u8>) {
    const WINDOW: u32 = 1 << 30;
    let settings = [
        (setting::INITIAL_WINDOW_SIZE, WINDOW),
        (setting::MAX_CONCURRENT_STREAMS, 100),
    ];
    frames::put_settings(out, &settings);
    frames::put_window_update(out, 0, WINDOW);
}

/// Appends HEADERS; `flags` beside END_HEADERS.
fn put_head(out: &mut Vec<u8>, stream: u32, block: &[u8], flags: u8) {
    frames::put(out, kind::HEADERS, flag::END_HEADERS | flags, stream, block);
}
