//! The socket under h2: one read of up to 64 KiB for many of h2's, one write for all that h2 and its
//! calls had to say in a turn of the connection's task.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

const READ_MAX: usize = 64 * 1024;
const WRITE_MAX: usize = 256 * 1024;

thread_local! {
    /// Shared by the connections of a thread, so that an idle one holds no buffer.
    static READ: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static WRITE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(crate) struct Wire {
    tcp: TcpStream,
    /// h2 is given no waker worth the name: it is polled by this task only, which knows when to.
    task: Waker,
    read: Vec<u8>,
    read_at: usize,
    read_end: usize,
    /// The last read took all there was: another would be a system call for nothing.
    drained: bool,
    /// The socket will wake the task when there is more to read.
    registered: bool,
    written: Vec<u8>,
    written_at: usize,
    /// h2 had more to write than the buffer takes.
    full: bool,
}

/// h2 holds one end, the connection's task the other.
#[derive(Clone)]
pub(crate) struct WireIo(Arc<Mutex<Wire>>);

impl WireIo {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(Wire {
            tcp,
            task: Waker::noop().clone(),
            read: Vec::new(),
            read_at: 0,
            read_end: 0,
            drained: false,
            registered: false,
            written: Vec::new(),
            written_at: 0,
            full: false,
        })))
    }

    pub(crate) fn wire(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire {
    pub(crate) fn begin_turn(&mut self, task: &Waker) {
        if !self.task.will_wake(task) {
            self.task = task.clone();
        }
        self.drained = false;
        self.registered = false;
    }

    /// Sends what was written. Ready with true if h2 has to be polled again: it had more to write,
    /// or there is more to read.
    pub(crate) fn end_turn(&mut self) -> io::Result<bool> {
        let sent = self.poll_send()?.is_ready();
        if sent && std::mem::take(&mut self.full) {
            return Ok(true);
        }
        if self.read_at < self.read_end {
            // h2 takes no more before it can write.
            return Ok(sent);
        }
        if self.read.capacity() > 0 {
            READ.set(std::mem::take(&mut self.read));
        }
        if self.registered {
            return Ok(false);
        }
        let mut cx = Context::from_waker(&self.task);
        self.registered = self.tcp.poll_read_ready(&mut cx)?.is_pending();
        self.drained = self.registered;
        Ok(!self.registered)
    }

    fn poll_send(&mut self) -> Poll<io::Result<()>> {
        if self.written.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut cx = Context::from_waker(&self.task);
        while self.written_at < self.written.len() {
            let rest = &self.written[self.written_at..];
            match ready!(Pin::new(&mut self.tcp).poll_write(&mut cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written_at += n,
            }
        }
        self.written_at = 0;
        self.written.clear();
        WRITE.set(std::mem::take(&mut self.written));
        Poll::Ready(Ok(()))
    }

    fn fill(&mut self) -> Poll<io::Result<()>> {
        if self.drained {
            return Poll::Pending;
        }
        if self.read.capacity() == 0 {
            self.read = READ.take();
            self.read.resize(READ_MAX, 0);
        }
        let mut buf = ReadBuf::new(&mut self.read);
        let mut cx = Context::from_waker(&self.task);
        let poll = Pin::new(&mut self.tcp).poll_read(&mut cx, &mut buf);
        self.registered = poll.is_pending();
        self.drained = poll.is_pending();
        ready!(poll)?;
        self.read_at = 0;
        self.read_end = buf.filled().len();
        // Nothing at all is the end, which is to be seen as often as it is asked for.
        self.drained = (1..READ_MAX).contains(&self.read_end);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for WireIo {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &mut *self.wire();
        if wire.read_at == wire.read_end {
            ready!(wire.fill())?;
        }
        let n = into.remaining().min(wire.read_end - wire.read_at);
        into.put_slice(&wire.read[wire.read_at..wire.read_at + n]);
        wire.read_at += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WireIo {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wire = &mut *self.wire();
        if wire.written.len() >= WRITE_MAX {
            let sent = wire.poll_send();
            wire.full = sent.is_pending();
            ready!(sent)?;
        }
        if wire.written.capacity() == 0 {
            wire.written = WRITE.take();
        }
        wire.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// Does nothing: the connection's task sends at the end of its turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.wire();
        ready!(wire.poll_send())?;
        let mut cx = Context::from_waker(&wire.task);
        Pin::new(&mut wire.tcp).poll_shutdown(&mut cx)
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}
