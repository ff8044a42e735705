//! The body type of requests and responses, at both ends and in all layers.

use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use trunkline_codec::{Payload, Status};

use crate::incoming::{IncomingBody, ReceivedBody};
use crate::pipe::{PipeReader, PipeWatch};
use crate::sync::lock;

/// The body of a request or a response: its bytes, followed by trailers.
///
/// Implements the trait `Body` of the crate `http_body`, so any tower layer can read and wrap it. Dropping a
/// body that is received from a peer before its end resets the stream.
///
/// ```
/// # mod trunkline { pub use trunkline_transport as tower; pub use bytes; }
/// use trunkline::bytes::Bytes;
/// use trunkline::tower::Body;
///
/// let body = Body::full(Bytes::from_static(b"hello"), None);
/// assert_eq!(body.full_size(), Some(5));
/// assert_eq!(Body::empty().full_size(), Some(0));
/// ```
pub struct Body(Kind);

enum Kind {
    Full {
        data: Bytes,
        trailers: Option<HeaderMap>,
    },
    /// Known in full, in several pieces, such as large messages. Boxed because bodies are moved often, and
    /// few have several pieces.
    Pieces(Box<Pieces>),
    IncomingBody(IncomingBody),
    Pipe(PipeReader),
    /// The mutex makes the body `Sync`, which allows references to it across an `.await`. Polling does not
    /// lock it.
    Boxed(Mutex<Pin<Box<dyn http_body::Body<Data = Bytes, Error = Status> + Send>>>),
    /// In a mutex for the same reason.
    Source(Mutex<Pin<Box<dyn BodySource>>>),
}

/// A body that reports whether more data is ready.
pub trait BodySource: http_body::Body<Data = Bytes, Error = Status> + Send {
    /// Returns whether the last poll returned all data that is ready, and registered its waker. Another
    /// poll is then unnecessary.
    fn is_waiting(&self) -> bool;

    /// Returns the number of buffered bytes. Wakes `waker` if they grow considerably between polls.
    fn buffered(&self, waker: &Waker) -> usize;
}

struct Pieces {
    data: Payload,
    trailers: Option<HeaderMap>,
}

impl Pieces {
    // Outlined to keep the path of small messages short.
    #[cold]
    fn next(&mut self) -> Option<Frame<Bytes>> {
        match self.data.is_empty() {
            true => self.trailers.take().map(Frame::trailers),
            false => Some(Frame::data(self.data.pop())),
        }
    }
}

impl Body {
    /// Creates a body without data or trailers.
    pub fn empty() -> Self {
        Self::full(Bytes::new(), None)
    }

    /// Creates a complete body from all its data and its trailers.
    #[inline]
    pub fn full(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self(Kind::Full { data, trailers })
    }

    /// Creates a complete body from data in one or more pieces, such as a large message, and its trailers.
    #[inline]
    pub fn pieces(data: Payload, trailers: Option<HeaderMap>) -> Self {
        match data.is_in_pieces() {
            false => Self::full(data.into_bytes(), trailers),
            true => Self(Kind::Pieces(Box::new(Pieces { data, trailers }))),
        }
    }

    /// Creates a body from the reading end of a [`pipe`](crate::pipe()).
    #[doc(hidden)]
    pub fn pipe(reader: PipeReader) -> Self {
        Self(Kind::Pipe(reader))
    }

    /// Wraps a body of another type. If it fails, its error becomes the status of the call.
    pub fn new(body: impl http_body::Body<Data = Bytes, Error = Status> + Send + 'static) -> Self {
        Self(Kind::Boxed(Mutex::new(Box::pin(body))))
    }

    /// Creates a body that produces its data while it is sent.
    #[doc(hidden)]
    pub fn from_source(source: impl BodySource + 'static) -> Self {
        Self(Kind::Source(Mutex::new(Box::pin(source))))
    }

    /// Calls [`BodySource::is_waiting`]; `false` for other bodies.
    pub(crate) fn is_waiting(&mut self) -> bool {
        match &mut self.0 {
            Kind::Source(source) => {
                let source = source.get_mut().unwrap_or_else(PoisonError::into_inner);
                source.is_waiting()
            }
            _ => false,
        }
    }

    /// Returns the number of buffered bytes, and wakes `waker` if they grow considerably. Returns 0 for bodies
    /// that do not report them.
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

    /// Returns the data of a complete body if it is in one piece. Returns `None` for other bodies, such as
    /// one that is still being received.
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

    /// Returns the size of a complete body in bytes. Returns `None` for other bodies.
    pub fn full_size(&self) -> Option<usize> {
        match &self.0 {
            Kind::Full { data, .. } => Some(data.len()),
            Kind::Pieces(pieces) => Some(pieces.data.len()),
            Kind::IncomingBody(_) | Kind::Pipe(_) | Kind::Boxed(_) | Kind::Source(_) => None,
        }
    }

    /// Takes the data and trailers of a complete body, which is empty afterwards. Returns `None` for other
    /// bodies.
    pub fn take_full(&mut self) -> Option<(Payload, Option<HeaderMap>)> {
        match &mut self.0 {
            Kind::Full { data, trailers } => Some((std::mem::take(data).into(), trailers.take())),
            Kind::Pieces(pieces) => {
                Some((std::mem::take(&mut pieces.data), pieces.trailers.take()))
            }
            Kind::IncomingBody(_) | Kind::Pipe(_) | Kind::Boxed(_) | Kind::Source(_) => None,
        }
    }

    /// Clones a complete body without copying its bytes. Returns `None` for other bodies.
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

    /// Returns a handle that observes the [`pipe`](crate::pipe()) that fills the body, if there is one.
    #[doc(hidden)]
    pub fn watch(&self) -> Option<PipeWatch> {
        match &self.0 {
            Kind::Pipe(reader) => Some(reader.watch()),
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
