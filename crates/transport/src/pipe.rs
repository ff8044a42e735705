//! A bounded pipe of encoded messages: a writer on one side, a body on the other.
//!
//! It is bounded in bytes, never in messages, and gathers what is written into large chunks.

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

/// Messages of this size and more are passed on as they are; smaller ones are gathered.
const SHARE_FROM: usize = 8 * 1024;

/// The bytes that are written for one unit of the budget of the writer's task. To ask for each message
/// would cost a small one a tenth of what it takes to send.
const STEP: usize = 2 * 1024;

#[derive(Default)]
struct PipeState {
    chunks: VecDeque<Bytes>,
    /// What is gathered behind `chunks`.
    tail: BytesMut,
    len: usize,
    /// Up to which `len` the writer need not look whether it has to wait. It goes down with `len`: what the
    /// reader takes is no room before the writer has looked.
    until: usize,
    end: Option<PipeEnd>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    failure: Option<Waker>,
    /// The waker that hears of a large message while the reader does not ask.
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

/// The writing end. Dropping it without `finish` fails the body: an end that was not said is not
/// taken for one.
pub struct PipeWriter(Arc<PipeShared>);

/// The reading end, which a [`Body`](crate::Body) holds. Dropping it fails the writer.
pub struct PipeReader(Arc<PipeShared>);

/// Hears when a pipe fails, whether its reader asks or not.
pub struct PipeFailure(Arc<PipeShared>);

/// A pipe that holds `size` bytes, and one message more, before the writer has to wait.
pub fn pipe(size: usize) -> (PipeWriter, PipeReader) {
    let shared = Arc::new(PipeShared {
        state: Mutex::default(),
        size,
    });
    (PipeWriter(shared.clone()), PipeReader(shared))
}

/// The reader of a pipe is gone: the call has ended at the other side.
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

    /// A reader that is as fast as its writer would never let it wait, and the writer's thread go.
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

    /// Lets `append` write behind the tail. If it panics, what it has written is taken back.
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
    /// Ready when the pipe has room, or when its reader is gone. A pipe that always has lets the other
    /// tasks of its thread run now and then.
    pub fn poll_ready(&self, cx: &Context<'_>) -> Poll<Result<(), ReaderGone>> {
        lock(&self.0.state).poll_room(self.0.size, cx)
    }

    /// Whether the reader is gone.
    pub fn is_closed(&self) -> bool {
        lock(&self.0.state).reader_gone
    }

    /// Ready when the reader is gone.
    pub fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.0.state);
        if state.reader_gone {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Puts `bytes` into the pipe, whether it has room or not: wait with
    /// [`poll_ready`](Self::poll_ready) before. What is written after the reader has gone, or
    /// after the end, is dropped.
    pub fn write(&mut self, bytes: Bytes) {
        self.write_pieces(bytes.into());
    }

    /// As [`write`](Self::write), all pieces at once: whoever ends the call meanwhile finds all of a
    /// message here, or nothing.
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

    /// Lets `append` put bytes behind those that wait, where they need no buffer of their own, once
    /// the pipe has room; fails when its reader is gone. `append` must only append.
    // As a function of its own it costs a streamed message 57 instructions, a tenth of all.
    #[inline(always)]
    pub fn poll_write_with(
        &mut self,
        cx: &Context<'_>,
        append: impl FnOnce(&mut BytesMut),
    ) -> Poll<Result<(), ReaderGone>> {
        // Under the lock: what was confirmed before stays where the reader finds it.
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

    /// Ends the body, with trailers if there are any.
    pub fn finish(&self, trailers: Option<HeaderMap>) {
        let reader = lock(&self.0.state).end(trailers.map_or(PipeEnd::Eof, PipeEnd::Trailers));
        wake(reader);
    }

    /// Fails the body: what it belongs to is reset.
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

/// The status for a caller that has dropped its sender, and reads on.
fn dropped() -> Status {
    Status::cancelled(
        "the call was cancelled, because its Sender was dropped before `finish`: call `finish` when there are no more messages",
    )
}

impl PipeFailure {
    /// Ready when the pipe has failed, with what the reader of the responses is to be told; a pipe that
    /// ends well leaves it pending.
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
    /// Hears of a failure before the reader comes to it.
    pub(crate) fn failure(&self) -> PipeFailure {
        PipeFailure(self.0.clone())
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        lock(&self.0.state).len
    }

    /// Bytes that wait; `waker` hears when a message makes them more than the pipe is meant for.
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

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that wait. Nobody hears of more until the next [`register`](Self::register) or
    /// [`take_or_register`](Self::take_or_register).
    pub fn deregister(&self) -> usize {
        let mut state = lock(&self.0.state);
        state.reader = None;
        state.len
    }

    /// Whether something waits; if not, `waker` hears of it.
    pub fn register(&self, waker: &Waker) -> bool {
        lock(&self.0.state).register(waker)
    }

    /// The next chunk that waits, without waiting for one and without asking for the end, and
    /// whether there is another; if not, `waker` hears of it.
    pub fn take_or_register(&mut self, waker: &Waker) -> (Option<Bytes>, bool) {
        let (chunk, has_more, writer) = {
            let mut state = lock(&self.0.state);
            let chunk = state.pop();
            (chunk, state.register(waker), state.writer.take())
        };
        wake(writer);
        (chunk, has_more)
    }

    /// The next chunk that waits.
    pub fn take(&mut self) -> Option<Bytes> {
        let (chunk, writer) = {
            let mut state = lock(&self.0.state);
            (state.pop(), state.writer.take())
        };
        wake(writer);
        chunk
    }

    /// Everything that waits, if it is one chunk.
    pub fn take_all(&mut self) -> Option<Bytes> {
        let is_one = {
            let state = lock(&self.0.state);
            state.chunks.len() + usize::from(!state.tail.is_empty()) == 1
        };
        if is_one { self.take() } else { None }
    }

    pub(crate) fn poll_frame(
        &self,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (frame, writer) = {
            let mut state = lock(&self.0.state);
            if let Some(chunk) = state.pop() {
                (Some(Ok(Frame::data(chunk))), state.writer.take())
            } else {
                // What the end says, it says once.
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

impl fmt::Debug for PipeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeFailure").finish_non_exhaustive()
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
        let watch = reader.failure();
        assert!(now(|cx| watch.poll_failed(cx)).is_pending());
        drop(writer);
        assert!(now(|cx| watch.poll_failed(cx)).is_ready());
        let (writer, reader) = pipe(10);
        let watch = reader.failure();
        writer.finish(None);
        drop(writer);
        assert!(now(|cx| watch.poll_failed(cx)).is_pending());
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
