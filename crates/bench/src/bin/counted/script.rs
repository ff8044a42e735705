//! A peer that is written down: it lies where the socket would, in the same task, and costs a few
//! hundred instructions a call. Nothing depends on a clock, a scheduler or another process.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a script has seen of the program under measurement.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Reads that gave bytes, and writes: what would be system calls on a socket.
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    /// Streams that the program under measurement has ended.
    pub(crate) ended: AtomicU64,
}

/// The header of a frame: RFC 9113, section 4.1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) len: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// Frames that wait to be read by the program under measurement.
#[derive(Debug, Default)]
pub(crate) struct Outbox(pub(crate) Vec<u8>);

impl Outbox {
    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
        let [d, e, f, g] = stream.to_be_bytes();
        self.0
            .extend_from_slice(&[a, b, c, kind, flags, d, e, f, g]);
        self.0.extend_from_slice(payload);
    }

    /// Settings, and more window for the connection than any script uses up.
    pub(crate) fn open(&mut self) {
        const INITIAL_WINDOW_SIZE: u8 = 4;
        let [a, b, c, d] = (1u32 << 30).to_be_bytes();
        let max_concurrent_streams = [0, 3, 0, 0, 0, 100];
        let mut settings = vec![0, INITIAL_WINDOW_SIZE, a, b, c, d];
        settings.extend_from_slice(&max_concurrent_streams);
        self.frame(SETTINGS, 0, 0, &settings);
        self.frame(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes());
    }
}

/// What a script does: it answers frames with frames.
pub(crate) trait Part: Send {
    /// A frame has come, `payload` of it in one piece if it is no DATA.
    fn frame(&mut self, header: Header, payload: &[u8], outbox: &mut Outbox);
    /// The program under measurement has nothing more to read: is the script at its end?
    fn is_over(&self) -> bool;
}

/// The script as a socket.
#[derive(Debug)]
pub(crate) struct Script<P>(Arc<Mutex<State<P>>>);

#[derive(Debug)]
struct State<P> {
    part: P,
    seen: Arc<Seen>,
    outbox: Outbox,
    read_at: usize,
    reader: Option<Waker>,
    /// Bytes of the preface that are still to come.
    preface: usize,
    /// What has come of a frame that has not come in full.
    partial: VecDeque<u8>,
    header: Option<Header>,
    /// Bytes of a DATA frame that are still to come: they are not kept.
    skip: usize,
    data_window: usize,
}

impl<P: Part> Script<P> {
    /// `preface` is the number of bytes that come before the first frame.
    pub(crate) fn new(part: P, outbox: Outbox, preface: usize) -> (Self, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        let state = State {
            part,
            seen: seen.clone(),
            outbox,
            read_at: 0,
            reader: None,
            preface,
            partial: VecDeque::new(),
            header: None,
            skip: 0,
            data_window: 0,
        };
        (Self(Arc::new(Mutex::new(state))), seen)
    }
}

impl<P: Part> State<P> {
    fn take(&mut self, mut bytes: &[u8]) {
        let n = self.preface.min(bytes.len());
        self.preface -= n;
        bytes = &bytes[n..];
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                self.skip -= n;
                bytes = &bytes[n..];
                continue;
            }
            let header = match self.header {
                Some(header) => header,
                None => {
                    if self.partial.is_empty() && bytes.len() >= 9 {
                        self.header = Some(parse(&bytes[..9]));
                        bytes = &bytes[9..];
                    } else {
                        self.partial.push_back(bytes[0]);
                        bytes = &bytes[1..];
                        if self.partial.len() == 9 {
                            self.header = Some(parse(self.partial.make_contiguous()));
                            self.partial.clear();
                        }
                    }
                    match self.header {
                        Some(header) => header,
                        None => continue,
                    }
                }
            };
            if header.kind == DATA {
                self.header = None;
                self.skip = header.len;
                self.on_data(header);
            } else if self.partial.is_empty() && bytes.len() >= header.len {
                self.header = None;
                self.on_frame(header, &bytes[..header.len]);
                bytes = &bytes[header.len..];
            } else {
                let n = (header.len - self.partial.len()).min(bytes.len());
                self.partial.extend(&bytes[..n]);
                bytes = &bytes[n..];
                if self.partial.len() == header.len {
                    self.header = None;
                    let payload: Vec<u8> = self.partial.drain(..).collect();
                    self.on_frame(header, &payload);
                }
            }
        }
    }

    fn on_data(&mut self, header: Header) {
        // Streams have a gigabyte of window each, and the connection gets back what it used.
        self.data_window += header.len;
        if self.data_window >= 1 << 20 {
            let [a, b, c, d] = (self.data_window as u32).to_be_bytes();
            self.outbox.frame(WINDOW_UPDATE, 0, 0, &[a, b, c, d]);
            self.data_window = 0;
        }
        self.on_frame(header, &[]);
    }

    fn on_frame(&mut self, header: Header, payload: &[u8]) {
        match header.kind {
            SETTINGS if header.flags & ACK == 0 => self.outbox.frame(SETTINGS, ACK, 0, &[]),
            PING if header.flags & ACK == 0 => self.outbox.frame(PING, ACK, 0, payload),
            RST_STREAM | GOAWAY => {
                panic!("the program under measurement sent {header:?} {payload:?}")
            }
            _ => {}
        }
        if matches!(header.kind, DATA | HEADERS) && header.flags & END_STREAM != 0 {
            self.seen.ended.fetch_add(1, Ordering::Relaxed);
        }
        self.part.frame(header, payload, &mut self.outbox);
        if (self.read_at < self.outbox.0.len() || self.part.is_over())
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }
}

fn parse(bytes: &[u8]) -> Header {
    Header {
        len: usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]),
        kind: bytes[3],
        flags: bytes[4],
        stream: u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]),
    }
}

impl<P: Part + Unpin> AsyncRead for Script<P> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().expect("no poll panics");
        let rest = &state.outbox.0[state.read_at..];
        let n = rest.len().min(buf.remaining());
        if n > 0 {
            buf.put_slice(&rest[..n]);
            state.read_at += n;
            if state.read_at == state.outbox.0.len() {
                state.outbox.0.clear();
                state.read_at = 0;
            }
            state.seen.reads.fetch_add(1, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        if state.part.is_over() {
            return Poll::Ready(Ok(()));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<P: Part + Unpin> AsyncWrite for Script<P> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock().expect("no poll panics");
        state.seen.writes.fetch_add(1, Ordering::Relaxed);
        state.take(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// HPACK blocks (RFC 7541) as clients and servers write them: the first puts its fields into the
/// peer's table, the later ones name them by their place.
pub(crate) mod hpack {
    /// A field that goes into the table: the place of its name in the static table, or its name.
    pub(crate) enum Field<'a> {
        Known(u8, &'a str),
        New(&'a str, &'a str),
    }

    /// `fixed` is fully indexed fields; gives the first block and those that follow.
    pub(crate) fn blocks(fixed: &[u8], fields: &[Field<'_>], in_table: usize) -> [Vec<u8>; 2] {
        let (mut first, mut later) = (fixed.to_vec(), fixed.to_vec());
        for (i, field) in fields.iter().enumerate() {
            match field {
                Field::Known(name, value) => {
                    first.push(0x40 | name);
                    string(&mut first, value);
                }
                Field::New(name, value) => {
                    first.push(0x40);
                    string(&mut first, name);
                    string(&mut first, value);
                }
            }
            let place = 62 + in_table + fields.len() - 1 - i;
            later.push(0x80 | u8::try_from(place).expect("a small table"));
        }
        [first, later]
    }

    fn string(out: &mut Vec<u8>, text: &str) {
        out.push(u8::try_from(text.len()).expect("short names and values"));
        out.extend_from_slice(text.as_bytes());
    }
}
