//! A peer that is written down: it lies where the socket would, in the same task, and costs a few
//! hundred instructions a call. Nothing depends on a clock, a scheduler or another process.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use trunkline_bench::frames::{self, HEADER_LEN, Header};
use trunkline_testkit::{flag, kind};

/// The script gives the connection's window back when this much of it is used.
const WINDOW_STEP: usize = 1 << 20;

/// What a script has seen of the program under measurement.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Reads that gave bytes, and writes: what would be system calls on a socket.
    pub(crate) reads: AtomicU64,
    pub(crate) writes: AtomicU64,
    /// Streams that the program under measurement has ended, and bytes of DATA that it has sent.
    pub(crate) ended: AtomicU64,
    pub(crate) data: AtomicU64,
}

/// What a script does: it answers frames with frames.
pub(crate) trait Part: Send {
    /// The number of bytes that come before the first frame.
    const PREFACE_LEN: usize;
    /// Says what is said before anything has come.
    fn open(&mut self, out: &mut Vec<u8>);
    /// A frame has come.
    fn frame(&mut self, header: Header, out: &mut Vec<u8>);
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
    /// What waits to be read by the program under measurement, and how far it was.
    out: Vec<u8>,
    read_at: usize,
    reader: Option<Waker>,
    /// Bytes of the preface that are still to come.
    preface: usize,
    /// What has come of a frame that has not come in full.
    partial: Vec<u8>,
    /// Bytes of a DATA frame that are still to come: they are not kept.
    skip: usize,
    data_window: usize,
}

impl<P: Part> Script<P> {
    /// Scripts may share what they have seen.
    pub(crate) fn new(mut part: P, seen: Arc<Seen>) -> Self {
        let mut out = Vec::new();
        part.open(&mut out);
        let state = State {
            part,
            seen,
            out,
            read_at: 0,
            reader: None,
            preface: P::PREFACE_LEN,
            partial: Vec::new(),
            skip: 0,
            data_window: 0,
        };
        Self(Arc::new(Mutex::new(state)))
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
            } else if self.partial.is_empty()
                && let Some(header) = Header::read(bytes)
                && let Some((frame, rest)) = bytes.split_at_checked(kept_len(header))
            {
                bytes = rest;
                self.on_frame(header, &frame[HEADER_LEN..]);
            } else {
                self.partial.push(bytes[0]);
                bytes = &bytes[1..];
                if let Some(header) = Header::read(&self.partial)
                    && self.partial.len() == kept_len(header)
                {
                    let frame = std::mem::take(&mut self.partial);
                    self.on_frame(header, &frame[HEADER_LEN..]);
                }
            }
        }
    }

    fn on_frame(&mut self, header: Header, payload: &[u8]) {
        match header.kind {
            kind::DATA => {
                self.skip = header.len;
                self.seen
                    .data
                    .fetch_add(header.len as u64, Ordering::Relaxed);
                self.return_window(header.len);
            }
            kind::SETTINGS if !header.has(flag::ACK) => {
                frames::put(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]);
            }
            kind::PING if !header.has(flag::ACK) => {
                frames::put(&mut self.out, kind::PING, flag::ACK, 0, payload);
            }
            kind::RST_STREAM | kind::GOAWAY => {
                panic!("the program under measurement sent {header:?} {payload:?}")
            }
            _ => {}
        }
        if ends_stream(header) {
            self.seen.ended.fetch_add(1, Ordering::Relaxed);
        }
        self.part.frame(header, &mut self.out);
        if (self.read_at < self.out.len() || self.part.is_over())
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }

    /// Streams have a gigabyte of window each, and the connection gets back what it used.
    fn return_window(&mut self, len: usize) {
        self.data_window += len;
        if self.data_window >= WINDOW_STEP {
            frames::put_window_update(&mut self.out, 0, self.data_window as u32);
            self.data_window = 0;
        }
    }
}

/// Bytes of a frame that are looked at: the payload of DATA is not.
fn kept_len(header: Header) -> usize {
    match header.kind {
        kind::DATA => HEADER_LEN,
        _ => HEADER_LEN + header.len,
    }
}

/// Whether the program under measurement says that it sends nothing more on a stream.
pub(crate) fn ends_stream(header: Header) -> bool {
    matches!(header.kind, kind::DATA | kind::HEADERS) && header.has(flag::END_STREAM)
}

impl<P: Part + Unpin> AsyncRead for Script<P> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().expect("no poll panics");
        let rest = &state.out[state.read_at..];
        let n = rest.len().min(buf.remaining());
        if n > 0 {
            buf.put_slice(&rest[..n]);
            state.read_at += n;
            if state.read_at == state.out.len() {
                state.out.clear();
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
