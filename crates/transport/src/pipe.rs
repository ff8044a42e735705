//! A bounded pipe of encoded messages: a writer on one side, a body on the other.
//!
//! It is bounded in bytes, not in messages, and gathers small messages into large chunks.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use trunkline_codec::{Payload, Status};

use crate::coop::poll_coop;
use crate::sync::lock;

/// The size from which messages are passed on without a copy. Smaller ones are gathered.
const SHARE_FROM: usize = 8 * 1024;

/// The bytes written for one unit of the task's tokio budget. Taking a unit for each message would add a
/// tenth to the cost of a small message.
const STEP: usize = 2 * 1024;

#[derive(Default)]
struct PipeState {
    chunks: VecDeque<Bytes>,
    /// Gathered small messages that follow `chunks`. Messages are also encoded directly into it.
    tail: BytesMut,
    len: usize,
    /// The `len` up to which the writer need not check for room. Decreases with `len`, so that room from
    /// the reader counts only after the next check.
    until: usize,
    end: Option<PipeEnd>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    failure: Option<Waker>,
    /// The waker for a message that exceeds the size of the pipe while the reader is not polled.
    filled: Option<Waker>,
    reader_gone: bool,
    has_failed: bool,
}

enum PipeEnd {
    Eof,
    Trailers(HeaderMap),
    Failed(Status),
}

struct PipeShared {
    state: Mutex<PipeState>,
    size: usize,
}

/// The writing end of a pipe. Dropping it without `finish` fails the body with CANCELLED.
pub struct PipeWriter(Arc<PipeShared>);

/// The reading end of a pipe, held by a [`Body`](crate::Body). Dropping it fails the writer.
pub struct PipeReader(Arc<PipeShared>);

/// A handle that observes a pipe without reading from it or writing to it.
pub struct PipeWatch(Arc<PipeShared>);

/// Creates a pipe that holds `size` bytes, plus the rest of one message, before the writer must wait.
pub fn pipe(size: usize) -> (PipeWriter, PipeReader) {
    let shared = Arc::new(PipeShared {
        state: Mutex::default(),
        size,
    });
    (PipeWriter(shared.clone()), PipeReader(shared))
}

/// The error of a pipe whose reader was dropped: the call has ended at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderGone;

impl PipeState {
    fn push(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        if bytes.len() < SHARE_FROM {
            return self.tail.extend_from_slice(&bytes);
        }
        let tail = self.tail.split().freeze();
        if !tail.is_empty() {
            self.chunks.push_back(tail);
        }
        self.chunks.push_back(bytes);
    }

    fn pop(&mut self) -> Option<Bytes> {
        let chunk = match self.chunks.pop_front() {
            Some(chunk) => chunk,
            None if self.tail.is_empty() => return None,
            None => self.tail.split().freeze(),
        };
        self.len -= chunk.len();
        self.until = self.until.saturating_sub(chunk.len());
        Some(chunk)
    }

    fn is_closed(&self) -> bool {
        self.reader_gone || self.end.is_some()
    }

    fn poll_room(&mut self, size: usize, cx: &Context<'_>) -> Poll<Result<(), ReaderGone>> {
        if self.reader_gone {
            return Poll::Ready(Err(ReaderGone));
        }
        match self.len < self.until {
            true => Poll::Ready(Ok(())),
            false => self.poll_more_room(size, cx),
        }
    }

    /// Takes a unit of the task's budget: with a reader as fast as the writer, the writer would otherwise
    /// never yield its thread.
    #[cold]
    fn poll_more_room(&mut self, size: usize, cx: &Context<'_>) -> Poll<Result<(), ReaderGone>> {
        if self.len >= size {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        ready!(poll_coop(cx));
        self.until = size.min(self.len.saturating_add(STEP));
        Poll::Ready(Ok(()))
    }

    /// Calls `append` with the tail. If it panics, its output is removed.
    #[inline(always)]
    fn append(&mut self, append: impl FnOnce(&mut BytesMut)) {
        struct Appending<'a> {
            tail: &'a mut BytesMut,
            keep: usize,
        }
        impl Drop for Appending<'_> {
            fn drop(&mut self) {
                self.tail.truncate(self.keep);
            }
        }
        let keep = self.tail.len();
        let mut appending = Appending {
            tail: &mut self.tail,
            keep,
        };
        append(appending.tail);
        appending.keep = appending.tail.len();
        drop(appending);
        self.len += self.tail.len() - keep;
    }

    fn register(&mut self, waker: &Waker) -> bool {
        if self.len > 0 {
            return true;
        }
        match &mut self.reader {
            Some(reader) => reader.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        false
    }

    fn end(&mut self, end: PipeEnd) -> Option<Waker> {
        self.end.get_or_insert(end);
        self.reader.take()
    }
}

impl PipeWriter {
    /// Ready when the pipe has room. Yields to other tasks from time to time if the pipe always has room.
    ///
    /// # Errors
    ///
    /// [`ReaderGone`] if the reader was dropped.
    pub fn poll_ready(&self, cx: &Context<'_>) -> Poll<Result<(), ReaderGone>> {
        lock(&self.0.state).poll_room(self.0.size, cx)
    }

    /// Returns whether the reader was dropped.
    pub fn is_closed(&self) -> bool {
        lock(&self.0.state).reader_gone
    }

    /// Ready when the reader was dropped.
    pub fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.0.state);
        if state.reader_gone {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Writes `bytes`, regardless of room: wait with [`poll_ready`](Self::poll_ready) before. Bytes written
    /// after the end, or after the reader was dropped, are discarded.
    pub fn write(&mut self, bytes: Bytes) {
        self.write_pieces(bytes.into());
    }

    /// Writes all pieces of a message atomically, like [`write`](Self::write): if the call ends meanwhile,
    /// the pipe contains the whole message or nothing of it.
    pub fn write_pieces(&mut self, mut pieces: Payload) {
        let (reader, filled) = {
            let mut state = lock(&self.0.state);
            if state.is_closed() {
                return;
            }
            while !pieces.is_empty() {
                state.push(pieces.pop());
            }
            let filled = match state.len > self.0.size {
                true => state.filled.take(),
                false => None,
            };
            (state.reader.take(), filled)
        };
        wake(reader);
        wake(filled);
    }

    /// Calls `append` with the pipe's buffer once the pipe has room. `append` must only append.
    ///
    /// # Errors
    ///
    /// [`ReaderGone`] if the reader was dropped.
    // Without inlining, a streamed message costs 57 more instructions, a tenth of its total.
    #[inline(always)]
    pub fn poll_write_with(
        &mut self,
        cx: &Context<'_>,
        append: impl FnOnce(&mut BytesMut),
    ) -> Poll<Result<(), ReaderGone>> {
        // Under the lock, so that the reader finds the messages of earlier, completed writes.
        let reader = {
            let mut state = lock(&self.0.state);
            ready!(state.poll_room(self.0.size, cx))?;
            if state.end.is_some() {
                return Poll::Ready(Ok(()));
            }
            state.append(append);
            state.reader.take()
        };
        wake(reader);
        Poll::Ready(Ok(()))
    }

    /// Returns a handle that observes the pipe even after the writer was dropped.
    pub fn watch(&self) -> PipeWatch {
        PipeWatch(self.0.clone())
    }

    /// Ends the body, with optional trailers.
    pub fn finish(&self, trailers: Option<HeaderMap>) {
        let reader = lock(&self.0.state).end(trailers.map_or(PipeEnd::Eof, PipeEnd::Trailers));
        wake(reader);
    }

    /// Fails the body, which resets its stream.
    pub fn fail(&self, status: Status) {
        let (reader, failure) = {
            let mut state = lock(&self.0.state);
            state.has_failed |= state.end.is_none();
            (state.end(PipeEnd::Failed(status)), state.failure.take())
        };
        wake(reader);
        wake(failure);
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.fail(dropped());
    }
}

/// Returns the status for a caller that drops its sender and continues to read.
fn dropped() -> Status {
    Status::cancelled(
        "the call was cancelled, because its Sender was dropped before `finish`: call `finish` when there are no more messages",
    )
}

impl PipeWatch {
    /// Returns whether no bytes are buffered.
    pub fn is_empty(&self) -> bool {
        lock(&self.0.state).len == 0
    }

    /// Ready when the pipe has failed, with the status for the reader of the responses. Stays pending if the
    /// pipe ends without failure.
    pub fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<Status> {
        let mut state = lock(&self.0.state);
        if state.has_failed {
            return Poll::Ready(match &state.end {
                Some(PipeEnd::Failed(status)) => status.clone(),
                // The reader has taken it.
                _ => dropped(),
            });
        }
        state.failure = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl PipeReader {
    /// Returns a handle that reports a failure before the reader reaches it.
    pub(crate) fn watch(&self) -> PipeWatch {
        PipeWatch(self.0.clone())
    }

    /// Returns the number of buffered bytes.
    pub fn len(&self) -> usize {
        lock(&self.0.state).len
    }

    /// Returns the number of buffered bytes. Wakes `waker` when a message exceeds the size of the pipe.
    pub fn buffered(&self, waker: &Waker) -> usize {
        let mut state = lock(&self.0.state);
        if state.len <= self.0.size {
            match &mut state.filled {
                Some(filled) => filled.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
        state.len
    }

    /// Returns whether no bytes are buffered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes the reader's waker, until the next [`register`](Self::register) or
    /// [`take_or_register`](Self::take_or_register). Returns the number of buffered bytes.
    pub fn deregister(&self) -> usize {
        let mut state = lock(&self.0.state);
        state.reader = None;
        state.len
    }

    /// Returns whether bytes are buffered. If not, `waker` is woken when some arrive.
    pub fn register(&self, waker: &Waker) -> bool {
        lock(&self.0.state).register(waker)
    }

    /// Takes the next chunk, if any, without checking for the end. Returns it and whether another one is
    /// buffered. If not, `waker` is woken when bytes arrive.
    pub fn take_or_register(&mut self, waker: &Waker) -> (Option<Bytes>, bool) {
        let (chunk, has_more, writer) = {
            let mut state = lock(&self.0.state);
            let chunk = state.pop();
            (chunk, state.register(waker), state.writer.take())
        };
        wake(writer);
        (chunk, has_more)
    }

    /// Takes the next chunk, if any.
    pub fn take(&mut self) -> Option<Bytes> {
        let (chunk, writer) = {
            let mut state = lock(&self.0.state);
            (state.pop(), state.writer.take())
        };
        wake(writer);
        chunk
    }

    /// Takes all buffered bytes if they are one chunk.
    pub fn take_all(&mut self) -> Option<Bytes> {
        let is_one = {
            let state = lock(&self.0.state);
            state.chunks.len() + usize::from(!state.tail.is_empty()) == 1
        };
        if is_one { self.take() } else { None }
    }

    // Inlined into `Body::poll_frame`, it would add 11 instructions to each frame of any other body.
    #[inline(never)]
    pub(crate) fn poll_frame(
        &self,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (frame, writer) = {
            let mut state = lock(&self.0.state);
            if let Some(chunk) = state.pop() {
                (Some(Ok(Frame::data(chunk))), state.writer.take())
            } else {
                // Trailers and errors are returned once.
                match state.end.replace(PipeEnd::Eof) {
                    None => {
                        state.end = None;
                        state.reader = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                    Some(PipeEnd::Eof) => (None, None),
                    Some(PipeEnd::Trailers(map)) => (Some(Ok(Frame::trailers(map))), None),
                    Some(PipeEnd::Failed(status)) => (Some(Err(status)), None),
                }
            }
        };
        wake(writer);
        Poll::Ready(frame)
    }

    pub(crate) fn is_end(&self) -> bool {
        let state = lock(&self.0.state);
        state.len == 0 && matches!(state.end, Some(PipeEnd::Eof))
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let writer = {
            let mut state = lock(&self.0.state);
            state.reader_gone = true;
            state.chunks.clear();
            state.tail = BytesMut::new();
            state.len = 0;
            state.writer.take()
        };
        wake(writer);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl fmt::Debug for PipeWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeWriter").finish_non_exhaustive()
    }
}

impl fmt::Debug for PipeWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeWatch").finish_non_exhaustive()
    }
}

impl fmt::Debug for PipeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeReader").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use trunkline_codec::Code;

    fn now<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        poll(&mut Context::from_waker(Waker::noop()))
    }

    fn data(reader: &PipeReader) -> Bytes {
        match now(|cx| reader.poll_frame(cx)) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().expect("a data frame"),
            other => panic!("no data: {other:?}"),
        }
    }

    #[test]
    fn small_messages_leave_together_and_large_ones_as_they_are() {
        let (mut writer, reader) = pipe(1 << 20);
        for i in 0..10u8 {
            writer.write(Bytes::from(vec![i; 10]));
        }
        let large = Bytes::from(vec![9; SHARE_FROM]);
        writer.write(large.clone());
        assert_eq!(data(&reader).len(), 100);
        assert_eq!(data(&reader).as_ptr(), large.as_ptr());
    }

    #[test]
    fn pieces_are_written_together_in_their_order_and_large_ones_as_they_are() {
        let (mut writer, reader) = pipe(1 << 20);
        writer.write(Bytes::from_static(b"before "));
        let mut pieces = Payload::default();
        let large = Bytes::from(vec![9; SHARE_FROM]);
        for piece in [Bytes::from_static(b"prefix"), large.clone(), "end".into()] {
            pieces.push(piece);
        }
        writer.write_pieces(pieces);
        assert_eq!(reader.len(), 7 + 6 + SHARE_FROM + 3);
        assert_eq!(data(&reader), "before prefix");
        assert_eq!(data(&reader).as_ptr(), large.as_ptr());
        assert_eq!(data(&reader), "end");
        assert!(reader.is_empty());
        drop(reader);
        writer.write_pieces(large.into());
    }

    #[test]
    fn the_writer_waits_at_the_size_and_not_below() {
        let (mut writer, reader) = pipe(10);
        writer.write(Bytes::from_static(&[0; 9]));
        assert_eq!(now(|cx| writer.poll_ready(cx)), Poll::Ready(Ok(())));
        writer.write(Bytes::from_static(&[0; 1]));
        assert_eq!(now(|cx| writer.poll_ready(cx)), Poll::Pending);
        data(&reader);
        assert_eq!(now(|cx| writer.poll_ready(cx)), Poll::Ready(Ok(())));
    }

    #[test]
    fn what_is_in_the_pipe_stays_there_while_more_is_written_and_if_that_panics() {
        let (mut writer, reader) = pipe(10);
        writer.write(Bytes::from_static(b"confirmed"));
        let panics = std::panic::AssertUnwindSafe(|| {
            now(|cx| {
                writer.poll_write_with(cx, |tail| {
                    tail.extend_from_slice(b"half");
                    panic!("an encoding that panics");
                })
            })
        });
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(reader.len(), 9);
        assert_eq!(data(&reader), "confirmed");
    }

    #[test]
    fn a_writer_dropped_without_an_end_fails_the_body_after_its_data() {
        let (mut writer, reader) = pipe(10);
        writer.write(Bytes::from_static(b"x"));
        drop(writer);
        assert_eq!(data(&reader), "x");
        let Poll::Ready(Some(Err(status))) = now(|cx| reader.poll_frame(cx)) else {
            panic!("no failure")
        };
        assert_eq!(status.code(), Code::CANCELLED);
        assert!(matches!(now(|cx| reader.poll_frame(cx)), Poll::Ready(None)));
    }

    #[test]
    fn a_watch_hears_of_a_failure_that_nobody_reads_and_of_no_end() {
        let (writer, reader) = pipe(10);
        let watch = reader.watch();
        assert!(now(|cx| watch.poll_failed(cx)).is_pending());
        drop(writer);
        assert!(now(|cx| watch.poll_failed(cx)).is_ready());
        let (writer, reader) = pipe(10);
        let watch = reader.watch();
        writer.finish(None);
        drop(writer);
        assert!(now(|cx| watch.poll_failed(cx)).is_pending());
    }

    #[test]
    fn a_watch_of_a_dropped_writer_knows_of_unread_bytes() {
        let (mut writer, reader) = pipe(10);
        let watch = writer.watch();
        assert!(watch.is_empty());
        writer.write(Bytes::from_static(b"x"));
        drop(writer);
        assert!(!watch.is_empty());
        assert!(now(|cx| reader.poll_frame(cx)).is_ready());
        assert!(watch.is_empty());
    }

    #[test]
    fn a_finished_writer_may_be_dropped() {
        let (writer, reader) = pipe(10);
        writer.finish(None);
        drop(writer);
        assert!(matches!(now(|cx| reader.poll_frame(cx)), Poll::Ready(None)));
        assert!(reader.is_end());
    }

    #[tokio::test]
    async fn a_writer_that_waits_hears_that_its_reader_is_gone() {
        let (mut writer, reader) = pipe(1);
        writer.write(Bytes::from_static(b"x"));
        let waiting = tokio::spawn(async move { poll_fn(|cx| writer.poll_ready(cx)).await });
        tokio::task::yield_now().await;
        drop(reader);
        assert_eq!(waiting.await.unwrap(), Err(ReaderGone));
    }
}
