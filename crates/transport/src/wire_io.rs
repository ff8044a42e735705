//! The socket under h2: gathers writes, reads in large steps, follows frame headers.
//!
//! h2 flushes after every DATA frame of a kilobyte or more and reads 8 KiB at a time. Here the
//! first becomes one write for each turn of the connection's task, the second one read of up to
//! 64 KiB through a buffer that the thread owns, so that an idle connection holds none.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker, ready};

use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::frame_guard::{self, FrameGuard, Role};
use crate::header_lists::HeaderLists;
use crate::limits::Http2Limits;
use crate::sync::lock;

/// Heads of calls that h2 is given before those that it has are accepted: it keeps them, also when
/// they are reset. A read may bring some more.
const HEADS_AHEAD: u64 = 512;

/// The header of a frame, and some bytes behind it.
const READ_MIN: usize = 64;

/// The bytes of the answer to a frame: RFC 9113, section 6.4.
const RST_STREAM_LEN: u64 = 13;

thread_local! {
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static WRITE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The two ends of one wire: h2 holds one, the connection's task the other.
#[derive(Debug)]
pub(crate) struct WireIo<IO>(Arc<Mutex<Wire<IO>>>);

/// A wire of which HTTP/2 wants nothing any more. Whoever polls it is woken, as with any other stream.
#[derive(Debug)]
pub(crate) struct ClosingIo<IO>(pub(crate) WireIo<IO>);

/// A socket, what was read from it and not yet asked for, what was written and not yet sent.
#[derive(Debug)]
pub(crate) struct Wire<IO> {
    io: IO,
    /// The waker of the connection's task, which h2 is not given: see `ConnectionShared`.
    task: Waker,
    /// The thread's buffer, while there is something in it that h2 has not asked for yet.
    read: Vec<u8>,
    read_at: usize,
    read_end: usize,
    written: Vec<u8>,
    written_at: usize,
    /// The socket has been given bytes that it may hold back.
    unflushed: bool,
    read_size: usize,
    write_size: usize,
    /// Bytes that the socket has taken.
    gone: u64,
    /// Frames that had come, and bytes that had gone, when the socket stopped to take all there was.
    stuck: Option<(u64, u64)>,
    stuck_frames_max: u64,
    /// Heads after which nothing more is read until calls have been accepted.
    heads_max: u64,
    /// Nothing is read until the peer takes what waits for it.
    is_held: bool,
    is_server: bool,
    /// What the peer sends.
    guard: FrameGuard,
    /// What this end sends.
    sent: FrameGuard,
    /// What the GOAWAY that ends the connection is to say.
    goaway_debug_data: &'static str,
    /// The socket has been told that nothing more comes.
    is_shut: bool,
    header_lists: Arc<HeaderLists>,
    header_bytes_per_turn: u64,
    /// As `heads_max`, in bytes: those of few heads may be many.
    header_bytes_max: u64,
}

/// The traffic of a connection since it was opened.
///
/// ```
/// # mod trunkline { pub use trunkline_transport as observe; }
/// use trunkline::observe::ConnectionStats;
///
/// fn print(stats: &ConnectionStats) {
///     println!("{} bytes received, {} bytes sent", stats.bytes_in, stats.bytes_out);
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// The bytes received.
    pub bytes_in: u64,
    /// The bytes sent, including those that still wait to be written to the socket.
    pub bytes_out: u64,
    /// The HTTP/2 frames received.
    pub frames_in: u64,
    /// The HTTP/2 frames sent.
    pub frames_out: u64,
}

/// Whoever has the counters of a wire, whatever its socket is. It does not hold the socket.
pub(crate) trait WireCounters: Send + Sync {
    /// None when the connection is over.
    fn stats(&self) -> Option<ConnectionStats>;
}

impl<IO: Send> WireCounters for Weak<Mutex<Wire<IO>>> {
    fn stats(&self) -> Option<ConnectionStats> {
        self.upgrade().map(|wire| lock(&wire).stats())
    }
}

impl<IO> WireIo<IO> {
    pub(crate) fn counted(&self) -> Weak<Mutex<Wire<IO>>> {
        Arc::downgrade(&self.0)
    }

    pub(crate) fn wire(&self) -> MutexGuard<'_, Wire<IO>> {
        lock(&self.0)
    }
}

impl<IO> Clone for WireIo<IO> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> WireIo<IO> {
    pub(crate) fn new(io: IO, peer: Role, limits: &Http2Limits) -> Self {
        let header_lists = Arc::new(HeaderLists::new(limits, peer));
        Self(Arc::new(Mutex::new(Wire {
            io,
            task: Waker::noop().clone(),
            read: Vec::new(),
            read_at: 0,
            read_end: 0,
            written: Vec::new(),
            written_at: 0,
            unflushed: false,
            read_size: limits.read_buffer_size.max(READ_MIN),
            write_size: limits.write_buffer_size,
            gone: 0,
            stuck: None,
            stuck_frames_max: limits.max_unanswered_frames,
            heads_max: HEADS_AHEAD,
            is_held: false,
            is_server: peer == Role::Client,
            guard: FrameGuard::new(peer).suspecting(header_lists.suspect_block()),
            sent: FrameGuard::new(peer.other()),
            goaway_debug_data: "",
            is_shut: false,
            header_lists,
            header_bytes_per_turn: limits.header_bytes_per_turn as u64,
            header_bytes_max: limits.header_bytes_per_turn as u64,
        })))
    }
}

impl<IO> Wire<IO> {
    pub(crate) fn stats(&self) -> ConnectionStats {
        ConnectionStats {
            bytes_in: self.guard.bytes(),
            bytes_out: self.sent.bytes(),
            frames_in: self.guard.frames(),
            frames_out: self.sent.frames(),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    pub(crate) fn guard(&self) -> &FrameGuard {
        &self.guard
    }

    pub(crate) fn header_lists(&self) -> Arc<HeaderLists> {
        self.header_lists.clone()
    }

    /// What this end has sent.
    pub(crate) fn sent(&self) -> &FrameGuard {
        &self.sent
    }

    /// h2's GOAWAY says nothing but a code, and clients go by the text: gRFC A8, "Server
    /// Enforcement". It is put into that GOAWAY which is the last thing that h2 sends.
    pub(crate) fn set_goaway_debug_data(&mut self, text: &'static str) {
        self.goaway_debug_data = text;
    }

    fn add_goaway_debug_data(&mut self) {
        let text = std::mem::take(&mut self.goaway_debug_data);
        // RFC 9113, section 6.8: a frame header, and 8 bytes before the text.
        let Some(at) = self.written.len().checked_sub(9 + 8) else {
            return;
        };
        if at >= self.written_at
            && self.sent.ends_with_goaway()
            && let [0, 0, length @ 8, ..] = &mut self.written[at..]
        {
            *length += text.len() as u8;
            self.written.extend_from_slice(text.as_bytes());
        }
    }

    /// Says GOAWAY in place of h2, whose clients cannot be told to. It goes out as much as the socket
    /// takes it now, and nothing may follow it.
    pub(crate) fn write_goaway(&mut self, reason: Reason, text: &str) {
        if !self.sent.is_between_frames() {
            return;
        }
        // RFC 9113, section 6.8: no stream of the server's was taken, because there are none.
        let length = (8 + text.len()) as u32;
        self.written.extend_from_slice(&length.to_be_bytes()[1..]);
        self.written
            .extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.written
            .extend_from_slice(&u32::from(reason).to_be_bytes());
        self.written.extend_from_slice(text.as_bytes());
        let _ = self.poll_send();
    }

    /// Puts `bytes` in the place of everything that was written and not sent.
    pub(crate) fn replace_output(&mut self, bytes: &[u8]) {
        self.written.clear();
        self.written_at = 0;
        self.written.extend_from_slice(bytes);
    }

    /// A turn of the connection's task begins. `is_caught_up` says that h2 has no call that has not been
    /// accepted.
    pub(crate) fn begin_turn(&mut self, waker: &Waker, is_caught_up: bool) {
        self.set_task(waker);
        if is_caught_up {
            self.heads_max = self.guard.heads() + HEADS_AHEAD;
            self.header_bytes_max = self.guard.head_bytes() + self.header_bytes_per_turn;
        }
    }

    /// Drops what was read and not asked for: a wire that is kept holds no buffer for it.
    pub(crate) fn drop_read(&mut self) {
        (self.read_at, self.read_end) = (0, 0);
        self.read = Vec::new();
    }

    /// Tells the wire whom to wake when the socket is ready.
    pub(crate) fn set_task(&mut self, waker: &Waker) {
        if !self.task.will_wake(waker) {
            self.task = waker.clone();
        }
    }

    /// Sends what was written since the last time, as far as the socket takes it. Pending means
    /// that the socket is full; the task is woken when it has room.
    pub(crate) fn poll_send(&mut self) -> Poll<io::Result<()>> {
        if self.written.is_empty() && !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let gone = self.gone;
        let sent = self.poll_send_written();
        match sent {
            Poll::Pending if self.stuck.is_none() => {
                self.stuck = Some((self.guard.frames(), self.gone));
            }
            Poll::Pending => {}
            Poll::Ready(_) => self.stuck = None,
        }
        if self.is_held && (self.gone > gone || sent.is_ready()) {
            self.is_held = false;
            self.task.wake_by_ref();
        }
        sent
    }

    fn poll_send_written(&mut self) -> Poll<io::Result<()>> {
        let mut cx = Context::from_waker(&self.task);
        while self.written_at < self.written.len() {
            let rest = &self.written[self.written_at..];
            let io = &mut self.io;
            match ready!(unbudgeted(&mut cx, |cx| Pin::new(&mut *io).poll_write(cx, rest)))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => {
                    self.written_at += n;
                    self.gone += n as u64;
                }
            }
            self.unflushed = true;
        }
        self.written_at = 0;
        self.written.clear();
        let buffer = std::mem::take(&mut self.written);
        WRITE.with(|cached| {
            if let Ok(mut cached) = cached.try_borrow_mut()
                && buffer.capacity() > 0
            {
                *cached = buffer;
            }
        });
        let io = &mut self.io;
        ready!(unbudgeted(&mut cx, |cx| Pin::new(&mut *io).poll_flush(cx)))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read_at == self.read_end {
            return self.poll_read_socket(into);
        }
        let n = into.remaining().min(self.read_end - self.read_at);
        into.put_slice(&self.read[self.read_at..self.read_at + n]);
        self.read_at += n;
        if self.read_at == self.read_end {
            READ.set(std::mem::take(&mut self.read));
        }
        Poll::Ready(Ok(()))
    }

    /// True if nothing may be read, so that what h2 keeps for a peer stays bounded.
    fn hold(&mut self) -> bool {
        // RUSTSEC-2024-0003: a peer that takes no answers is asked nothing more either. It may have gone
        // on for a while without reading, so that two ends do not wait for each other.
        let is_unanswered = self.stuck.is_some_and(|(frames, gone)| {
            let answered = (self.gone - gone) / RST_STREAM_LEN;
            self.guard.frames() - frames > self.stuck_frames_max.saturating_add(answered)
        });
        if is_unanswered {
            self.is_held = true;
        } else if self.is_server && self.guard.heads() >= self.heads_max
            || self.guard.head_bytes() > self.header_bytes_max
        {
            // The next turn accepts, and reads on.
            self.task.wake_by_ref();
            return true;
        }
        is_unanswered
    }

    fn poll_read_socket(&mut self, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.hold() {
            return Poll::Pending;
        }
        READ.with_borrow_mut(|scratch| {
            if scratch.len() < self.read_size {
                scratch.resize(self.read_size, 0);
            }
            let len = ready!(self.poll_frames(&mut scratch[..self.read_size]))?;
            let bytes = &scratch[..len];
            let now = len.min(into.remaining());
            into.put_slice(&bytes[..now]);
            if now < len {
                // The thread gets it back when h2 has asked for the rest.
                (self.read_at, self.read_end) = (now, len);
                self.read = std::mem::take(scratch);
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Puts what the socket has into `scratch`, but for DATA frames that carry nothing: some proxies send
    /// one for each response, and h2 takes a hundred in the life of a connection. Bytes that may be the
    /// beginning of one are held until its header is complete.
    #[inline]
    fn poll_frames(&mut self, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let before = self.guard.held().len();
            if before > 0 {
                scratch[..before].copy_from_slice(self.guard.held());
            }
            let mut cx = Context::from_waker(&self.task);
            let mut buf = ReadBuf::new(&mut scratch[before..]);
            ready!(Pin::new(&mut self.io).poll_read(&mut cx, &mut buf))?;
            let end = before + buf.filled().len();
            if end == before {
                return Poll::Ready(Ok(0));
            }
            self.guard.follow(&scratch[before..end]);
            self.header_lists.note(&mut self.guard);
            let whole = end - self.guard.held().len();
            let len = self.guard.cut_empty(&mut scratch[..whole]);
            if len > 0 {
                return Poll::Ready(Ok(len));
            }
        }
    }

    fn poll_write(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // A peer that allows frames of 16 MiB must not make the buffer as large.
        let bytes = &bytes[..bytes.len().min(self.write_size.max(1))];
        if self.written.len() - self.written_at >= self.write_size {
            ready!(self.poll_send())?;
        }
        if self.written.capacity() == 0 {
            self.written = WRITE
                .with(|cached| {
                    cached
                        .try_borrow_mut()
                        .map(|mut it| std::mem::take(&mut *it))
                })
                .unwrap_or_default();
        }
        // A peer that always leaves something unread must not make the buffer grow.
        if self.written_at >= self.written.len().div_ceil(2) {
            self.written.drain(..self.written_at);
            self.written_at = 0;
        }
        let is_beginning = self.sent.settings() == 0;
        self.sent.follow(bytes);
        self.written.extend_from_slice(bytes);
        if is_beginning {
            let at = self.written.len() - bytes.len();
            let announced = self.header_lists.announced();
            frame_guard::set_header_list_size(&mut self.written[at..], announced);
        }
        Poll::Ready(Ok(bytes.len()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for WireIo<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.wire().poll_read(buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WireIo<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wire().poll_write(buf)
    }

    /// Does nothing: the connection's task sends when h2 has said all it has to say.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire();
        if !wire.goaway_debug_data.is_empty() {
            wire.add_goaway_debug_data();
        }
        ready!(wire.poll_send())?;
        if wire.is_shut {
            return Poll::Ready(Ok(()));
        }
        let task = wire.task.clone();
        ready!(Pin::new(&mut wire.io).poll_shutdown(&mut Context::from_waker(&task)))?;
        wire.is_shut = true;
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}

/// Reads past what follows frames, and counts nothing.
impl<IO: AsyncRead + Unpin> AsyncRead for ClosingIo<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.wire().io).poll_read(cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClosingIo<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.wire().set_task(cx.waker());
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// tokio lets a task do so much at a time. A handler that is polled in the connection's task may use
/// all of it up; what the connection has to say must go out all the same.
fn unbudgeted<T>(cx: &mut Context<'_>, poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    pin!(tokio::task::unconstrained(poll_fn(poll))).poll(cx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn wire(
        limits: &Http2Limits,
        capacity: usize,
    ) -> (WireIo<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(capacity);
        (WireIo::new(ours, Role::Client, limits), theirs)
    }

    #[tokio::test]
    async fn a_frame_larger_than_the_buffer_is_taken_in_parts() {
        let limits = Http2Limits {
            write_buffer_size: 1000,
            ..Http2Limits::for_server()
        };
        let (mut io, _peer) = wire(&limits, 1 << 20);
        let bytes = vec![7; 1 << 16];
        assert_eq!(io.write(&bytes).await.unwrap(), 1000);
        assert_eq!(io.wire().written.len(), 1000);
        assert_eq!(io.write(&bytes).await.unwrap(), 1000);
        assert!(io.wire().written.len() <= 1000);
    }

    #[tokio::test]
    async fn writes_wait_until_the_task_sends() {
        let (mut io, mut peer) = wire(&Http2Limits::for_server(), 1024);
        io.write_all(b"one").await.unwrap();
        io.flush().await.unwrap();
        io.write_all(b"two").await.unwrap();
        let mut buf = [0; 16];
        let unread = tokio::time::timeout(std::time::Duration::ZERO, peer.read(&mut buf)).await;
        assert!(unread.is_err(), "nothing is sent before the task says so");
        assert!(io.wire().poll_send().is_ready());
        assert_eq!(peer.read(&mut buf).await.unwrap(), 6);
        assert_eq!(&buf[..6], b"onetwo");
    }

    #[tokio::test]
    async fn a_full_socket_pushes_back_at_the_write_buffer_size() {
        let limits = Http2Limits {
            write_buffer_size: 100,
            ..Http2Limits::for_server()
        };
        let (mut io, _peer) = wire(&limits, 10);
        let mut taken = 0;
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(n) = Pin::new(&mut io).poll_write(&mut cx, &[0; 30]) {
            taken += n.unwrap();
            assert!(taken < 1000, "the wire never pushed back");
        }
        assert_eq!(
            taken, 120,
            "the write that crosses 100 is the last one taken"
        );
    }

    #[tokio::test]
    async fn the_first_settings_announce_the_limit_and_not_what_h2_decodes() {
        let decoded = Http2Limits::for_server().decoded_header_list_size();
        let (mut io, mut peer) = wire(&Http2Limits::for_server(), 1024);
        let settings = |size: u32| {
            let mut frame = vec![0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 6, 0, 6];
            frame.extend(size.to_be_bytes());
            frame
        };
        for (written, sent) in [
            (settings(decoded), Some(settings(32_768))),
            (settings(decoded), None),
        ] {
            io.write_all(&written).await.unwrap();
            assert!(io.wire().poll_send().is_ready());
            let mut came = vec![0; written.len()];
            peer.read_exact(&mut came).await.unwrap();
            assert_eq!(came, sent.unwrap_or(written));
        }
    }

    #[tokio::test]
    async fn heads_are_read_no_faster_than_their_calls_begin() {
        let limits = Http2Limits {
            header_bytes_per_turn: 50,
            ..Http2Limits::for_server()
        };
        let (mut io, mut peer) = wire(&limits, 1024);
        let mut head = vec![0, 0, 60, 1, 4, 0, 0, 0, 1];
        head.extend([0; 60]);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        peer.write_all(&[&preface[..], &head].concat())
            .await
            .unwrap();
        io.read_exact(&mut vec![0; preface.len() + head.len()])
            .await
            .unwrap();
        peer.write_all(&head).await.unwrap();
        let mut next = vec![0; head.len()];
        let early = tokio::time::timeout(std::time::Duration::ZERO, io.read(&mut next)).await;
        assert!(early.is_err(), "the call of the first head has not begun");
        io.wire().begin_turn(Waker::noop(), true);
        io.read_exact(&mut next).await.unwrap();
        assert_eq!(next, head);
    }

    #[tokio::test]
    async fn what_is_not_asked_for_is_kept_for_the_next_read() {
        let (mut io, mut peer) = wire(&Http2Limits::for_server(), 1024);
        peer.write_all(b"hello world").await.unwrap();
        let mut buf = [0; 4];
        io.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"hell");
        let mut rest = [0; 7];
        io.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"o world");
    }

    #[tokio::test]
    async fn a_goaway_that_is_the_last_says_why_and_no_other_does() {
        const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 11];
        const DATA: [u8; 12] = [0, 0, 3, 0, 0, 0, 0, 0, 1, 1, 2, 3];
        for (frames, says) in [
            (&[&DATA[..], &GOAWAY][..], "too_many_pings"),
            (&[&GOAWAY, &DATA], ""),
            (&[&DATA], ""),
        ] {
            let (mut io, mut peer) = wire(&Http2Limits::for_server(), 1024);
            for frame in frames {
                io.write_all(frame).await.unwrap();
            }
            io.wire().set_goaway_debug_data("too_many_pings");
            io.shutdown().await.unwrap();
            drop(io);
            let mut sent = frames.concat();
            if !says.is_empty() {
                sent[DATA.len() + 2] += says.len() as u8;
                sent.extend_from_slice(says.as_bytes());
            }
            let mut came = Vec::new();
            peer.read_to_end(&mut came).await.unwrap();
            assert_eq!(came, sent);
        }
    }

    #[tokio::test]
    async fn what_passes_is_counted_and_a_wire_that_is_gone_counts_no_more() {
        let (mut io, mut peer) = wire(&Http2Limits::for_server(), 1024);
        let counted = io.counted();
        let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        io.write_all(&ping).await.unwrap();
        io.write_all(&ping).await.unwrap();
        peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        peer.write_all(&ping).await.unwrap();
        io.read_exact(&mut [0; 24 + 17]).await.unwrap();
        let stats = counted.stats().expect("the wire is there");
        assert_eq!((stats.bytes_in, stats.frames_in), (24 + 17, 1));
        assert_eq!((stats.bytes_out, stats.frames_out), (34, 2));
        drop(io);
        assert_eq!(counted.stats(), None);
    }
}
