//! The one body type: what requests and responses carry, on both sides of every seam.

use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use trunkline_codec::{Payload, Status};

use crate::incoming::{IncomingBody, ReceivedBody};
use crate::pipe::{PipeFailure, PipeReader};
use crate::sync::lock;

/// The bytes and the trailers of one direction of a call.
///
/// It implements [`http_body::Body`], so that any tower layer can read and wrap it. Dropping a
/// body that has not ended resets the stream it comes from.
pub struct Body(Kind);

enum Kind {
    Full {
        data: Bytes,
        trailers: Option<HeaderMap>,
    },
    /// Known in full as well, in two pieces or more: large messages are. In a box, because a body
    /// is moved several times, and most are the one above.
    Pieces(Box<Pieces>),
    IncomingBody(IncomingBody),
    Pipe(PipeReader),
    /// In a mutex that is only locked to ask, never to poll: it makes the body `Sync`, so that
    /// users may hold references to what has one across an `.await`.
    Boxed(Mutex<Pin<Box<dyn http_body::Body<Data = Bytes, Error = Status> + Send>>>),
    /// In a mutex as well, for the same reason.
    Source(Mutex<Pin<Box<dyn BodySource>>>),
}

/// A body that knows, when it gives something, whether there is more at once.
pub trait BodySource: http_body::Body<Data = Bytes, Error = Status> + Send {
    /// Whether what the last poll gave was all for now, and the waker that it was given hears of
    /// more: there is no need to ask again.
    fn is_waiting(&self) -> bool;

    /// Returns how many bytes wait in memory to be sent. `waker` hears if that becomes much more while
    /// nobody asks.
    fn buffered(&self, waker: &Waker) -> usize;
}

struct Pieces {
    data: Payload,
    trailers: Option<HeaderMap>,
}

impl Pieces {
    // Apart from what small messages take, which is inlined.
    #[cold]
    fn next(&mut self) -> Option<Frame<Bytes>> {
        match self.data.is_empty() {
            true => self.trailers.take().map(Frame::trailers),
            false => Some(Frame::data(self.data.pop())),
        }
    }
}

impl Body {
    /// A body with nothing in it.
    pub fn empty() -> Self {
        Self::full(Bytes::new(), None)
    }

    /// A body that is known in full. It is sent without a task.
    #[inline]
    pub fn full(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self(Kind::Full { data, trailers })
    }

    /// As [`full`](Self::full), with data that may be in pieces, each of which is a frame of its own.
    #[inline]
    pub fn pieces(data: Payload, trailers: Option<HeaderMap>) -> Self {
        match data.is_in_pieces() {
            false => Self::full(data.into_bytes(), trailers),
            true => Self(Kind::Pieces(Box::new(Pieces { data, trailers }))),
        }
    }

    /// What is written to the other end of a [`pipe`](crate::pipe()).
    pub fn pipe(reader: PipeReader) -> Self {
        Self(Kind::Pipe(reader))
    }

    /// Any other body. Its error becomes the status with which the call ends.
    pub fn new(body: impl http_body::Body<Data = Bytes, Error = Status> + Send + 'static) -> Self {
        Self(Kind::Boxed(Mutex::new(Box::pin(body))))
    }

    /// A body that is made while it is sent.
    pub fn from_source(source: impl BodySource + 'static) -> Self {
        Self(Kind::Source(Mutex::new(Box::pin(source))))
    }

    /// See [`BodySource::is_waiting`].
    pub(crate) fn is_waiting(&mut self) -> bool {
        match &mut self.0 {
            Kind::Source(source) => {
                let source = source.get_mut().unwrap_or_else(PoisonError::into_inner);
                source.is_waiting()
            }
            _ => false,
        }
    }

    /// Returns how many bytes it holds in memory, and `waker` hears if that becomes much more: as far as it
    /// is known.
    pub(crate) fn buffered(&mut self, waker: &Waker) -> usize {
        match &mut self.0 {
            Kind::Pipe(reader) => reader.buffered(waker),
            Kind::Source(source) => {
                let source = source.get_mut().unwrap_or_else(PoisonError::into_inner);
                source.buffered(waker)
            }
            Kind::IncomingBody(_) | Kind::Boxed(_) => 0,
            Kind::Full { .. } | Kind::Pieces(_) => self.full_size().unwrap_or(0),
        }
    }

    /// The data of a body that is known in full and in one piece; none if it is in several, or if
    /// part of it is still to come.
    pub fn full_data(&self) -> Option<&Bytes> {
        match &self.0 {
            Kind::Full { data, .. } => Some(data),
            Kind::Pieces(_)
            | Kind::IncomingBody(_)
            | Kind::Pipe(_)
            | Kind::Boxed(_)
            | Kind::Source(_) => None,
        }
    }

    /// How many bytes a body has that is known in full; none if part of it is still to come.
    pub fn full_size(&self) -> Option<usize> {
        match &self.0 {
            Kind::Full { data, .. } => Some(data.len()),
            Kind::Pieces(pieces) => Some(pieces.data.len()),
            Kind::IncomingBody(_) | Kind::Pipe(_) | Kind::Boxed(_) | Kind::Source(_) => None,
        }
    }

    /// Takes data and trailers out of a body that is known in full; none if part of it is still to
    /// come.
    pub fn take_full(&mut self) -> Option<(Payload, Option<HeaderMap>)> {
        match &mut self.0 {
            Kind::Full { data, trailers } => Some((std::mem::take(data).into(), trailers.take())),
            Kind::Pieces(pieces) => {
                Some((std::mem::take(&mut pieces.data), pieces.trailers.take()))
            }
            Kind::IncomingBody(_) | Kind::Pipe(_) | Kind::Boxed(_) | Kind::Source(_) => None,
        }
    }

    /// The same body again, of one that is known in full. Its bytes are shared.
    #[inline]
    pub fn try_clone(&self) -> Option<Self> {
        match &self.0 {
            Kind::Full { data, trailers } => Some(Self::full(data.clone(), trailers.clone())),
            Kind::Pieces(pieces) => {
                Some(Self::pieces(pieces.data.clone(), pieces.trailers.clone()))
            }
            Kind::IncomingBody(_) | Kind::Pipe(_) | Kind::Boxed(_) | Kind::Source(_) => None,
        }
    }

    /// Hears when the body fails, if it is one that a writer of this process fills.
    pub fn failure(&self) -> Option<PipeFailure> {
        match &self.0 {
            Kind::Pipe(reader) => Some(reader.failure()),
            Kind::Full { .. }
            | Kind::Pieces(_)
            | Kind::IncomingBody(_)
            | Kind::Boxed(_)
            | Kind::Source(_) => None,
        }
    }

    pub(crate) fn arrived(arrived: ReceivedBody) -> Self {
        match arrived {
            ReceivedBody::Full { data, trailers } => Self::full(data, trailers),
            ReceivedBody::Open(incoming) => Self(Kind::IncomingBody(incoming)),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Kind::Full { .. } => "full",
            Kind::Pieces(_) => "pieces",
            Kind::IncomingBody(_) => "incoming",
            Kind::Pipe(_) => "pipe",
            Kind::Boxed(_) => "boxed",
            Kind::Source(_) => "source",
        };
        f.debug_tuple("Body").field(&kind).finish()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut self.0 {
            Kind::Full { data, trailers } => Poll::Ready(if data.is_empty() {
                trailers.take().map(|map| Ok(Frame::trailers(map)))
            } else {
                Some(Ok(Frame::data(std::mem::take(data))))
            }),
            Kind::Pieces(pieces) => Poll::Ready(pieces.next().map(Ok)),
            Kind::IncomingBody(incoming) => incoming.poll_frame(cx),
            Kind::Pipe(reader) => reader.poll_frame(cx),
            Kind::Boxed(body) => {
                let body = body.get_mut().unwrap_or_else(PoisonError::into_inner);
                body.as_mut().poll_frame(cx)
            }
            Kind::Source(source) => {
                let source = source.get_mut().unwrap_or_else(PoisonError::into_inner);
                source.as_mut().poll_frame(cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full { data, trailers } => data.is_empty() && trailers.is_none(),
            Kind::Pieces(pieces) => pieces.data.is_empty() && pieces.trailers.is_none(),
            Kind::IncomingBody(incoming) => incoming.is_end(),
            Kind::Pipe(reader) => reader.is_end(),
            Kind::Boxed(body) => lock(body).is_end_stream(),
            Kind::Source(source) => lock(source).is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full { data, .. } => SizeHint::with_exact(data.len() as u64),
            Kind::Pieces(pieces) => SizeHint::with_exact(pieces.data.len() as u64),
            Kind::IncomingBody(_) | Kind::Pipe(_) => SizeHint::default(),
            Kind::Boxed(body) => lock(body).size_hint(),
            Kind::Source(source) => lock(source).size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body as _;

    fn next(body: &mut Body) -> Option<Frame<Bytes>> {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(body).poll_frame(&mut cx) {
            Poll::Ready(frame) => frame.map(|frame| frame.expect("nothing fails here")),
            Poll::Pending => panic!("a body that is known in full has nothing to wait for"),
        }
    }

    fn pieces(sizes: &[usize]) -> Payload {
        let mut payload = Payload::default();
        for size in sizes {
            payload.push(Bytes::from(vec![7; *size]));
        }
        payload
    }

    #[test]
    fn each_piece_is_a_frame_without_a_copy_and_trailers_come_behind_them() {
        for sizes in [&[][..], &[10], &[10, 20], &[1, 2, 3]] {
            for trailers in [None, Some(HeaderMap::new())] {
                let data = pieces(sizes);
                let starts: Vec<_> = data.pieces().map(|piece| piece.as_ptr()).collect();
                let size: usize = sizes.iter().sum();
                let mut body = Body::pieces(data, trailers.clone());
                assert_eq!(body.full_size(), Some(size));
                assert_eq!(body.full_data().is_some(), sizes.len() < 2);
                for start in starts {
                    assert!(!body.is_end_stream());
                    let frame = next(&mut body).expect("a piece is left");
                    assert_eq!(frame.into_data().expect("data").as_ptr(), start);
                }
                assert_eq!(body.size_hint().exact(), Some(0));
                assert_eq!(body.is_end_stream(), trailers.is_none());
                let last = next(&mut body).map(|frame| frame.is_trailers());
                assert_eq!(last, trailers.map(|_| true));
                assert!(next(&mut body).is_none() && body.is_end_stream());
            }
        }
    }

    #[test]
    fn what_is_known_in_full_can_be_taken_out_and_a_pipe_cannot() {
        for sizes in [&[10][..], &[10, 20]] {
            let mut body = Body::pieces(pieces(sizes), Some(HeaderMap::new()));
            let (data, trailers) = body.take_full().expect("it is known in full");
            assert_eq!(data.pieces().map(Bytes::len).collect::<Vec<_>>(), sizes);
            assert!(trailers.is_some() && body.is_end_stream());
        }
        let mut body = Body::pipe(crate::pipe(10).1);
        assert!(body.take_full().is_none() && body.full_size().is_none());
    }

    #[test]
    fn a_body_of_one_piece_is_no_larger_for_those_of_several() {
        let full = size_of::<(Bytes, Option<HeaderMap>)>();
        assert!(size_of::<Body>() <= full + size_of::<usize>());
    }
}
