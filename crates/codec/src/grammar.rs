//! The grammar of a call: a head, messages, and an end.
//!
//! [`Reader`] is fed with what HTTP/2 delivers for one stream and gives the call's [`Event`]s: `[Head] Message* End`.
//! Whatever the grammar forbids becomes one [`End`] with a status, and after the end there is nothing more.
//!
//! ```text
//!             head                     data*                   trailers / eof
//!  response:  Start ------> Open (or Held, see below) ------> Ended ------> Done
//!  request:                 Open -----------------------------> Ended ------> Done
//! ```
//!
//! `Held`: the head has a `grpc-status`. If the stream ends there, it was all: a Trailers-Only response. If data or
//! trailers follow, it was a head after all, and its status does not count.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use crate::encoding::{Encoding, EncodingError, Encodings};
use crate::frame::{Decoder, Frame, Payload};
use crate::head::{self, ContentType, MessageEncoding};
use crate::metadata::Metadata;
use crate::status::Status;

/// How many messages a stream must have.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Exactly one, if the call ends well.
    One,
    /// Any number.
    Many,
}

/// What a [`Reader`] gives.
#[derive(Debug)]
pub enum Event {
    /// The head of a response. A response that failed at once has none, and requests have none.
    Head(Metadata),
    /// The next message.
    Message(Message),
    /// The end, once, and nothing after it.
    End(End),
}

/// A message, no longer compressed.
#[derive(Clone, Debug)]
pub struct Message {
    /// The bytes of the message.
    pub payload: Payload,
    /// Whether it was compressed on the wire.
    pub compressed: bool,
}

/// How a stream of messages ended.
#[derive(Debug)]
pub struct End {
    /// Whether it ended well, and if not, why.
    pub status: Result<(), Status>,
    /// The trailers; empty when the stream ended without any.
    pub trailers: Metadata,
}

/// Reads one direction of a call. See the [module](self) for the states.
///
/// The inputs only store what they are given; [`next`](Self::next) decodes, one message at a time, so that a slow reader
/// holds bytes as they came off the wire. Messages that have arrived in full come out before the end, whatever the end
/// is. Inputs after the end are ignored.
#[derive(Debug)]
pub struct Reader {
    direction: Direction,
    expect: Expect,
    state: State,
    decoder: Decoder,
    /// What compressed messages are compressed with.
    encoding: Option<Arc<dyn Encoding>>,
    messages: Messages,
}

#[derive(Debug)]
enum Direction {
    Request,
    Response(Encodings),
}

/// How many messages have come out, as far as it matters.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Messages {
    None,
    Some,
}

#[derive(Debug)]
enum State {
    /// Nothing has come yet; responses only.
    Start,
    /// The head has come and has not been given out.
    Head(HeaderMap),
    /// The head has come with a `grpc-status` and nothing has followed it.
    Held(HeaderMap),
    /// Messages may come.
    Open,
    /// The end is known. The head is one that has not been given out, for the messages that wait come after it.
    Ended { head: Option<HeaderMap>, end: End },
    /// The end was given out.
    Done,
}

impl Reader {
    /// A reader of a response, with the largest message in bytes and the encodings that were announced to the server.
    #[inline]
    pub fn response(expect: Expect, max_message_size: usize, encodings: Encodings) -> Self {
        Self::new(Direction::Response(encodings), State::Start, expect, max_message_size, None)
    }

    /// A reader of a request whose head was read by [`head::parse_request`], with the largest message in bytes and the
    /// encoding that the head names.
    #[inline]
    pub fn request(expect: Expect, max_message_size: usize, encoding: Option<Arc<dyn Encoding>>) -> Self {
        Self::new(Direction::Request, State::Open, expect, max_message_size, encoding)
    }

    fn new(
        direction: Direction,
        state: State,
        expect: Expect,
        max_message_size: usize,
        encoding: Option<Arc<dyn Encoding>>,
    ) -> Self {
        let decoder = Decoder::new(max_message_size);
        Self { direction, expect, state, decoder, encoding, messages: Messages::None }
    }

    /// Takes the head of a response. Informational heads (1xx) are ignored.
    pub fn head(&mut self, status: StatusCode, headers: HeaderMap) {
        match (&self.state, &self.direction) {
            (State::Start, Direction::Response(_)) if status.is_informational() => {}
            (State::Start, Direction::Response(encodings)) => {
                self.state = match read_head(status, &headers, encodings) {
                    Ok(Head::Open(encoding)) => {
                        self.encoding = encoding;
                        State::Head(headers)
                    }
                    Ok(Head::Held(encoding)) => {
                        self.encoding = encoding;
                        State::Held(headers)
                    }
                    Err(status) => {
                        State::Ended { head: None, end: End { status: Err(status), trailers: Metadata::from_headers(headers) } }
                    }
                };
            }
            _ => self.end_with(Status::internal("the stream has a second head")),
        }
    }

    /// Takes the next bytes of messages. An empty chunk says nothing.
    #[inline]
    pub fn data(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        match &mut self.state {
            State::Open | State::Head(_) => {}
            State::Held(head) => self.state = State::Head(std::mem::take(head)),
            State::Start => return self.end_with(Status::internal("data came before the head of the response")),
            State::Ended { .. } => return self.end_with(Status::internal("data came after the end of the stream")),
            State::Done => return,
        }
        self.decoder.push(chunk);
    }

    /// Takes the trailers, which are also the end of the stream.
    pub fn trailers(&mut self, trailers: HeaderMap) {
        if matches!(self.direction, Direction::Request) {
            // Request trailers have no meaning in gRPC; a proxy that adds some does no harm.
            return self.eof();
        }
        match &mut self.state {
            State::Head(_) | State::Held(_) | State::Open => self.end_by_trailers(trailers),
            State::Start => self.end_with(Status::internal("trailers came before the head of the response")),
            State::Ended { .. } => self.end_with(Status::internal("the stream has trailers twice")),
            State::Done => {}
        }
    }

    /// Takes the reset of the stream by the peer, with its HTTP/2 error code.
    pub fn reset(&mut self, reason: u32) {
        self.end_unless_ended(Status::from_reset(reason));
    }

    /// Takes a failure that is no part of the stream, such as a deadline that has passed or a connection that is lost.
    pub fn fail(&mut self, status: Status) {
        self.end_unless_ended(status);
    }

    /// Takes the end of the stream: END_STREAM, on whichever frame it came.
    pub fn eof(&mut self) {
        let request = matches!(self.direction, Direction::Request);
        match &mut self.state {
            State::Open if request => self.end(Ok(()), Metadata::new()),
            State::Held(head) => {
                let head = std::mem::take(head);
                self.end_by_trailers_only(head);
            }
            // The head came alone and had no status, which makes it trailers without one.
            State::Head(head) if self.decoder.buffered() == 0 && self.messages == Messages::None => {
                let head = std::mem::take(head);
                self.end_by_trailers_only(head);
            }
            State::Head(_) | State::Open => {
                self.end_unless_ended(Status::internal("the response ended without trailers"));
            }
            State::Start => self.end_unless_ended(Status::internal("the response ended without a head")),
            State::Ended { .. } | State::Done => {}
        }
    }

    /// The next event; `None` until there is more input, and always after the end.
    #[inline]
    #[allow(clippy::should_implement_trait, reason = "None is not the end here")]
    pub fn next(&mut self) -> Option<Event> {
        match &mut self.state {
            State::Open => self.next_message(),
            State::Head(head) => {
                let head = std::mem::take(head);
                self.state = State::Open;
                Some(Event::Head(Metadata::from_headers(head)))
            }
            State::Ended { head, .. } => match head.take() {
                Some(head) => Some(Event::Head(Metadata::from_headers(head))),
                None => self.next_message().or_else(|| self.finish()),
            },
            State::Start | State::Held(_) | State::Done => None,
        }
    }

    /// How many bytes wait to be decoded.
    #[inline]
    pub fn buffered(&self) -> usize {
        self.decoder.buffered()
    }

    /// Whether the end was given out.
    #[inline]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn next_message(&mut self) -> Option<Event> {
        if self.expect == Expect::One && self.messages == Messages::Some && !self.decoder.is_at_boundary() {
            // Not waiting for the rest of it keeps a peer from making us hold it.
            return Some(self.give_up(Status::unimplemented("there is more than the one message that the method has")));
        }
        let frame = match self.decoder.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => return None,
            Err(error) => return Some(self.give_up(error.into())),
        };
        self.messages = Messages::Some;
        match self.restore(frame) {
            Ok(message) => Some(Event::Message(message)),
            Err(status) => Some(self.give_up(status)),
        }
    }

    #[inline]
    fn restore(&self, frame: Frame) -> Result<Message, Status> {
        match frame.compressed {
            false => Ok(Message { payload: frame.payload, compressed: false }),
            true => self.decompress(frame.payload),
        }
    }

    fn decompress(&self, mut payload: Payload) -> Result<Message, Status> {
        // PROTOCOL-HTTP2.md, "Requests": if Message-Encoding is omitted then the Compressed-Flag must be 0.
        let Some(encoding) = &self.encoding else {
            return Err(Status::internal("a message is compressed, and grpc-encoding names no encoding"));
        };
        let (limit, mut output) = (self.decoder.max_size(), BytesMut::new());
        let name = encoding.name();
        let result = match encoding.decompress(&mut payload, &mut output, limit) {
            // An encoding of a user's own may not have looked.
            Ok(()) if output.len() > limit => Err(EncodingError::TooLarge),
            result => result,
        };
        match result {
            Ok(()) => Ok(Message { payload: Payload::from(output.freeze()), compressed: true }),
            Err(EncodingError::TooLarge) => Err(Status::resource_exhausted(format!(
                "a message in {name} is larger than the limit of {limit} bytes once restored (max_recv_message_size)"
            ))),
            Err(error) => Err(Status::internal(format!("a message in {name} cannot be restored: {error}"))),
        }
    }

    /// The end, when all messages are out.
    fn finish(&mut self) -> Option<Event> {
        let State::Ended { mut end, .. } = std::mem::replace(&mut self.state, State::Done) else {
            return None;
        };
        if end.status.is_ok() {
            end.status = self.check_messages();
        }
        self.decoder.clear();
        Some(Event::End(end))
    }

    /// Whether the messages are those of a stream that ended well.
    fn check_messages(&self) -> Result<(), Status> {
        self.decoder.finish()?;
        match (self.expect, self.messages) {
            // statuscodes.md: a cardinality violation is UNIMPLEMENTED.
            (Expect::One, Messages::None) => Err(Status::unimplemented("the one message that the method has is missing")),
            _ => Ok(()),
        }
    }

    /// Ends at once, whatever waits.
    fn give_up(&mut self, status: Status) -> Event {
        let trailers = match std::mem::replace(&mut self.state, State::Done) {
            State::Ended { end, .. } => end.trailers,
            _ => Metadata::new(),
        };
        self.decoder.clear();
        Event::End(End { status: Err(status), trailers })
    }

    /// Ends with a status of trailers.
    fn end_by_trailers(&mut self, trailers: HeaderMap) {
        let status = Status::from_trailers(&trailers).unwrap_or_else(|| {
            Err(Status::unknown("the trailers have no grpc-status").of_peer(&trailers))
        });
        self.end(status, Metadata::from_headers(trailers));
    }

    fn end_by_trailers_only(&mut self, head: HeaderMap) {
        self.state = State::Open;
        self.end_by_trailers(head);
    }

    fn end_unless_ended(&mut self, status: Status) {
        if !matches!(self.state, State::Ended { .. } | State::Done) {
            self.end(Err(status), Metadata::new());
        }
    }

    /// Ends with a status that also replaces the end that is known, if it has not been given out.
    fn end_with(&mut self, status: Status) {
        if !matches!(self.state, State::Done) {
            self.end(Err(status), Metadata::new());
        }
    }

    fn end(&mut self, status: Result<(), Status>, trailers: Metadata) {
        let head = match &mut self.state {
            State::Head(head) => Some(std::mem::take(head)),
            State::Held(head) if status.is_ok() || !trailers.is_empty() => Some(std::mem::take(head)),
            State::Ended { head, .. } => head.take(),
            _ => None,
        };
        self.state = State::Ended { head, end: End { status, trailers } };
    }
}

enum Head {
    Open(Option<Arc<dyn Encoding>>),
    Held(Option<Arc<dyn Encoding>>),
}

fn read_head(status: StatusCode, headers: &HeaderMap, encodings: &Encodings) -> Result<Head, Status> {
    let own = Status::from_trailers(headers);
    let content_type = head::content_type(headers);
    if status != StatusCode::OK || content_type == ContentType::Other {
        // http-grpc-status-mapping.md: the mapping is for responses without a grpc-status. One that says OK does not fit.
        return Err(match own {
            Some(Err(own)) => own,
            _ if status == StatusCode::OK => Status::unknown("the content-type of the response is not application/grpc").of_peer(headers),
            _ => Status::from_http_status(status).of_peer(headers),
        });
    }
    if content_type == ContentType::OtherCodec && own.is_none() {
        return Err(Status::internal("the content-type of the response names a codec that was not asked for").of_peer(headers));
    }
    let encoding = match head::message_encoding(headers, encodings) {
        MessageEncoding::Identity => None,
        MessageEncoding::Known(encoding) => Some(encoding.clone()),
        // compression.md, "Compression Method Asymmetry": INTERNAL at a client.
        MessageEncoding::Unknown(_) if own.is_some() => None,
        MessageEncoding::Unknown(name) => {
            return Err(Status::internal(format!("the response has grpc-encoding {name:?}, which is not known here")).of_peer(headers));
        }
    };
    Ok(match own {
        Some(_) => Head::Held(encoding),
        None => Head::Open(encoding),
    })
}
