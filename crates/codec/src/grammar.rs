//! The grammar of a call: a head, messages, and an end.
//!
//! [`Reader`] takes the frames of one HTTP/2 stream and returns the call's [`Event`]s:
//! `[Head] Message* End`. A breach of the grammar becomes an [`End`] with a status.
//!
//! ```text
//!             head                     data*                   trailers / eof
//!  response:  Start ------> Open (or Held, see below) ------> Ended ------> Done
//!  request:                 Open -----------------------------> Ended ------> Done
//! ```
//!
//! `Held`: the head has a `grpc-status`. If the stream ends there, it was all: a Trailers-Only
//! response. If data or trailers follow, it was a head after all, and its status does not count.
//!
//! ```
//! use bytes::Bytes;
//! use trunkline_codec::{Event, Expect, Reader};
//!
//! let mut reader = Reader::request(Expect::One, 4 * 1024 * 1024, None);
//! reader.data(Bytes::from_static(b"\0\0\0\0\x05he"));
//! assert!(reader.next().is_none());
//! reader.data(Bytes::from_static(b"llo"));
//! reader.eof();
//! let Some(Event::Message(message)) = reader.next() else { panic!("the message is complete") };
//! assert_eq!(message.payload.into_bytes(), "hello");
//! let Some(Event::End(end)) = reader.next() else { panic!("so is the request") };
//! assert!(end.status.is_ok());
//! ```

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderMap, StatusCode};

use crate::compression::{self, CompressionError, Compressor, Decompressor};
use crate::compressors::Compressors;
use crate::frame::{self, Decoder, Frame, FrameError, Payload};
use crate::head::{self, ResponseHead};
use crate::metadata::Metadata;
use crate::status::Status;

/// The number of messages that a stream must have.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Exactly one, if the call ends well.
    One,
    /// Any number.
    Many,
}

/// An event of a call, as a [`Reader`] returns it.
#[derive(Debug)]
pub enum Event {
    /// The head of a response. A response that failed immediately has none, and requests have none.
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
    /// True if it was compressed on the wire.
    pub compressed: bool,
}

/// The end of a stream of messages.
#[derive(Debug)]
pub struct End {
    /// `Ok` if it ended well, otherwise the reason.
    pub status: Result<(), Status>,
    /// The trailers; empty if the stream ended without any.
    pub trailers: Metadata,
}

/// Reads one direction of a call. See the [module](self) for the states.
///
/// The inputs are only stored; [`next`](Self::next) decodes, one message at a time,
/// so that a slow reader holds bytes as they came off the wire. A message that takes long to decompress
/// takes several calls: see [`has_work`](Self::has_work). Messages that have arrived in full
/// are returned before the end, regardless of its status. Inputs after the end are ignored.
#[derive(Debug)]
pub struct Reader {
    direction: Direction,
    expect: Expect,
    state: State,
    decoder: Decoder,
    /// The compressor of compressed messages.
    compressor: Option<Arc<dyn Compressor>>,
    /// The message that is being decompressed, which precedes all others.
    decompression: Option<Box<Decompression>>,
    /// The size of the last compressed message before it was decompressed, in bytes.
    compressed_size: usize,
    /// True if any bytes of messages have arrived.
    has_data: bool,
    /// True if a message was returned.
    has_message: bool,
}

/// A compressed message of which a part has been decompressed.
#[derive(Debug)]
struct Decompression {
    input: Payload,
    output: BytesMut,
    by: Box<dyn Decompressor>,
}

#[derive(Debug)]
enum Direction {
    Request,
    Response(Compressors),
}

#[derive(Debug)]
enum State {
    /// Nothing has been received; responses only.
    Start,
    /// The head has arrived with a `grpc-status`, and nothing has followed it.
    Held(HeaderMap),
    /// The head has arrived and was not returned.
    Head(HeaderMap),
    /// Messages can arrive.
    Open,
    /// The end is known; the head, if it was not returned, and waiting messages are returned first.
    Ended {
        head: Option<HeaderMap>,
        end: End,
        cause: Cause,
    },
    /// The end was returned.
    Done,
}

/// The cause of the end.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Cause {
    /// The peer ended its stream. Should it go on all the same, that is an error.
    Stream,
    /// The call failed, and whatever else the peer sends no longer matters.
    Failure,
}

// Way of a unary call, client 9: returns the one message of a response that has arrived in full.
/// Returns the message of a complete response of one uncompressed message of up to `max_size` bytes and
/// a good end, as most are. Returns `None` for any other, which a [`Reader`] reads.
#[inline]
pub fn only_message(
    head: &Parts,
    data: &Bytes,
    trailers: &HeaderMap,
    max_size: usize,
    compressors: &Compressors,
) -> Option<Bytes> {
    let message = frame::only_message(data, max_size)?;
    head::parse_response(head.status, &head.headers, compressors).ok()?;
    matches!(Status::from_trailers(trailers), Some(Ok(()))).then_some(message)
}

impl Reader {
    /// Creates a reader of a response, with the largest message in bytes and the compressors that were
    /// announced to the server.
    #[inline]
    pub fn response(expect: Expect, max_message_size: usize, compressors: Compressors) -> Self {
        Self {
            direction: Direction::Response(compressors),
            expect,
            state: State::Start,
            decoder: Decoder::new(max_message_size),
            compressor: None,
            decompression: None,
            compressed_size: 0,
            has_data: false,
            has_message: false,
        }
    }

    /// Creates a reader of a request whose head [`parse_request`](crate::head::parse_request) has read,
    /// with the largest message in bytes and the compressor that the head names.
    #[inline]
    pub fn request(
        expect: Expect,
        max_message_size: usize,
        compressor: Option<Arc<dyn Compressor>>,
    ) -> Self {
        Self {
            direction: Direction::Request,
            expect,
            state: State::Open,
            decoder: Decoder::new(max_message_size),
            compressor,
            decompression: None,
            compressed_size: 0,
            has_data: false,
            has_message: false,
        }
    }

    /// Takes the head of a response. Informational heads (1xx) are ignored.
    pub fn head(&mut self, status: StatusCode, headers: HeaderMap) {
        match (&self.state, &self.direction) {
            (State::Start, _) if status.is_informational() => {}
            (State::Start, Direction::Response(compressors)) => {
                match head::parse_response(status, &headers, compressors) {
                    Ok(ResponseHead {
                        compressor,
                        has_status,
                    }) => {
                        self.compressor = compressor;
                        self.state = match has_status {
                            true => State::Held(headers),
                            false => State::Head(headers),
                        };
                    }
                    Err(status) => {
                        let trailers = Metadata::from_headers(headers);
                        self.end(Err(status), trailers, Cause::Failure);
                    }
                }
            }
            _ => self.forbid("the stream has a second head"),
        }
    }

    /// Takes the next bytes of messages. An empty chunk has no effect.
    #[inline]
    pub fn data(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        match &mut self.state {
            State::Open | State::Head(_) => {}
            State::Held(head) => self.state = State::Head(std::mem::take(head)),
            State::Start => return self.forbid("data came before the head of the response"),
            State::Ended { .. } => return self.forbid("data came after the end of the stream"),
            State::Done => return,
        }
        self.has_data = true;
        self.decoder.push(chunk);
    }

    /// Takes the trailers, which are also the end of the stream.
    pub fn trailers(&mut self, trailers: HeaderMap) {
        match (&mut self.state, &self.direction) {
            // Request trailers have no meaning in gRPC; those that a proxy may add do no harm.
            (State::Open, Direction::Request) => self.eof(),
            (State::Open | State::Head(_), _) => self.end_by(trailers),
            (State::Held(head), _) => {
                self.state = State::Head(std::mem::take(head));
                self.end_by(trailers);
            }
            (State::Start, _) => self.forbid("trailers came before the head of the response"),
            (State::Ended { .. }, _) => self.forbid("trailers came after the end of the stream"),
            (State::Done, _) => {}
        }
    }

    /// Takes the peer's reset, with its HTTP/2 error code. It changes nothing after the stream's end.
    pub fn reset(&mut self, reason: u32) {
        // PROTOCOL-HTTP2.md, "Early Server Closure": a server that ends a call early sends its
        // trailers and then resets the stream.
        if !self.is_ended() {
            self.end(
                Err(Status::from_reset(reason)),
                Metadata::new(),
                Cause::Failure,
            );
        }
    }

    /// Takes a failure from outside the stream, such as a deadline that has passed or a connection that
    /// was lost. After the stream's end it changes nothing.
    pub fn fail(&mut self, status: Status) {
        if !self.is_ended() {
            self.end(Err(status), Metadata::new(), Cause::Failure);
        }
    }

    /// Takes the end of the stream: END_STREAM, on whichever frame it came. After trailers, which
    /// imply it, it changes nothing.
    pub fn eof(&mut self) {
        let status = match (&mut self.state, &self.direction) {
            (State::Open, Direction::Request) => Ok(()),
            // PROTOCOL-HTTP2.md, "Responses": Trailers-Only is one block of headers.
            (State::Held(head), _) => {
                let head = std::mem::take(head);
                return self.end_by_trailers_only(head);
            }
            (State::Head(_) | State::Open, _) if !self.has_data => {
                Err(Status::unknown("the response has no grpc-status"))
            }
            (State::Head(_) | State::Open, _) => {
                Err(Status::internal("the response ended without trailers"))
            }
            (State::Start, _) => Err(Status::internal("the response ended without a head")),
            (State::Ended { .. } | State::Done, _) => return,
        };
        self.end(status, Metadata::new(), Cause::Stream);
    }

    /// Returns the next event; `None` until there is more input, or [`has_work`](Self::has_work), and
    /// always after the end.
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "None is not the end of an iterator here"
    )]
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
                None => match self.next_message() {
                    None if self.has_work() => None,
                    None => self.finish(),
                    event => event,
                },
            },
            State::Start | State::Held(_) | State::Done => None,
        }
    }

    /// Takes the next message by reading it where it lies, among others in one chunk, which costs
    /// less than to share the chunk with it. `None`, and nothing taken, if the next event is anything
    /// else, if the message is compressed or has `below` bytes or more, or if `read` returns `None`:
    /// then [`next`](Self::next) has it.
    #[inline]
    pub fn read_small<T>(
        &mut self,
        below: usize,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let is_next = match &self.state {
            State::Open | State::Ended { head: None, .. } => true,
            State::Start | State::Held(_) | State::Head(_) | State::Ended { .. } | State::Done => {
                false
            }
        };
        if !is_next || self.has_work() || (self.expect == Expect::One && self.has_message) {
            return None;
        }
        let read = self.decoder.read_in_front(below, read)?;
        self.has_message = true;
        Some(read)
    }

    /// Returns true if [`next`](Self::next) has more to do without more input: it decompresses a large
    /// message in steps, between which the reader's thread can do other work.
    #[inline]
    pub fn has_work(&self) -> bool {
        self.decompression.is_some()
    }

    /// Returns the largest message that is accepted, in bytes.
    #[inline]
    pub fn max_message_size(&self) -> usize {
        self.decoder.max_size()
    }

    /// The size, in bytes and without its prefix, at which the last compressed message came.
    pub fn compressed_size(&self) -> usize {
        self.compressed_size
    }

    /// Returns the number of received bytes that wait to be decoded.
    #[inline]
    pub fn buffered(&self) -> usize {
        self.decoder.buffered()
    }

    fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended { .. } | State::Done)
    }

    #[inline]
    fn next_message(&mut self) -> Option<Event> {
        // Most polls of a stream find nothing.
        match self.decoder.is_at_boundary() && !self.has_work() {
            true => None,
            false => self.take_message(),
        }
    }

    fn take_message(&mut self) -> Option<Event> {
        if let Some(decompression) = self.decompression.take() {
            return self.decompress_further(decompression);
        }
        if self.expect == Expect::One && self.has_message {
            // Not waiting for the rest of it keeps a peer from making us hold it.
            return Some(self.give_up(Status::unimplemented("more than one message was sent")));
        }
        // Almost every message takes this way, which moves it once.
        if let Some((compressed, message)) = self.decoder.next_in_front() {
            self.has_message = true;
            return match compressed {
                false => Some(Event::Message(Message {
                    payload: message.into(),
                    compressed,
                })),
                true => self.decompress(Frame {
                    compressed,
                    payload: message.into(),
                }),
            };
        }
        self.next_message_anywhere()
    }

    fn next_message_anywhere(&mut self) -> Option<Event> {
        match self.decoder.next_anywhere() {
            Ok(Some(frame)) => {
                self.has_message = true;
                self.decompress(frame)
            }
            Ok(None) => None,
            Err(FrameError::TooLarge { size, .. }) => {
                let status = self.too_large(&format!("of {size} bytes is larger than"));
                Some(self.give_up(status))
            }
            Err(error) => Some(self.give_up(error.into())),
        }
    }

    /// Whose limit it is, for people: both ends have one of that name.
    #[cold]
    fn too_large(&self, what: &str) -> Status {
        let limit = self.decoder.max_size();
        Status::resource_exhausted(match self.direction {
            Direction::Request => format!(
                "a request message {what} the limit of {limit} bytes: raise max_recv_message_size of the server, or send smaller messages"
            ),
            Direction::Response(_) => format!(
                "a response message {what} the limit of {limit} bytes: raise max_recv_message_size of the channel, or have the server send smaller messages"
            ),
        })
    }

    /// Returns the message, unless it takes more than one step to decompress it.
    fn decompress(&mut self, frame: Frame) -> Option<Event> {
        if !frame.compressed {
            return Some(Event::Message(Message {
                payload: frame.payload,
                compressed: false,
            }));
        }
        // PROTOCOL-HTTP2.md, "Requests": if the Message-Encoding header is omitted then the
        // Compressed-Flag must be 0.
        let Some(compressor) = &self.compressor else {
            let message = "a message is compressed, but the head does not name a compression in grpc-encoding";
            return Some(self.give_up(Status::internal(message)));
        };
        self.compressed_size = frame.payload.len();
        // Many compressors write no bytes for no bytes, as that of zstd in Go does; few decompressors
        // take that for what it is.
        if frame.payload.is_empty() {
            return Some(Event::Message(Message {
                payload: frame.payload,
                compressed: true,
            }));
        }
        let (limit, mut output, mut input) =
            (self.decoder.max_size(), BytesMut::new(), frame.payload);
        let decompressed = match compressor.decompressor(limit) {
            None => compressor.decompress(&mut input, &mut output, limit),
            Some(by) => {
                let decompression = Decompression { input, output, by };
                return self.decompress_further(Box::new(decompression));
            }
        };
        Some(self.decompressed(decompressed, output))
    }

    /// Goes one step further with a message that is being decompressed.
    fn decompress_further(&mut self, mut decompression: Box<Decompression>) -> Option<Event> {
        let Decompression { input, output, by } = &mut *decompression;
        let outcome = match compression::step_further(&mut **by, input, output) {
            Ok(false) if output.len() <= self.decoder.max_size() => {
                self.decompression = Some(decompression);
                return None;
            }
            outcome => outcome.map(drop),
        };
        let output = std::mem::take(output);
        Some(self.decompressed(outcome, output))
    }

    fn decompressed(&mut self, outcome: Result<(), CompressionError>, output: BytesMut) -> Event {
        let error = match outcome {
            // A custom compressor may not have checked it.
            Ok(()) if output.len() > self.decoder.max_size() => CompressionError::TooLarge,
            Ok(()) => {
                return Event::Message(Message {
                    payload: output.freeze().into(),
                    compressed: true,
                });
            }
            Err(error) => error,
        };
        let name = self.compressor.as_ref().map_or("", |it| it.name());
        let status = match error {
            CompressionError::TooLarge => {
                self.too_large(&format!("in {name} inflates to more than"))
            }
            CompressionError::TooCostly => Status::resource_exhausted(format!(
                "a message in {name} cannot be decompressed: {error}"
            )),
            error => Status::internal(format!(
                "a message in {name} cannot be decompressed: {error}"
            )),
        };
        self.give_up(status)
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

    /// Returns true if the messages are those of a stream that ended well.
    fn check_messages(&self) -> Result<(), Status> {
        self.decoder.finish()?;
        match self.expect {
            // statuscodes.md: a cardinality violation is UNIMPLEMENTED.
            Expect::One if !self.has_message => Err(Status::unimplemented("no message was sent")),
            Expect::One | Expect::Many => Ok(()),
        }
    }

    /// Ends immediately, and drops waiting messages.
    #[cold]
    fn give_up(&mut self, status: Status) -> Event {
        let trailers = match std::mem::replace(&mut self.state, State::Done) {
            State::Ended { end, .. } => end.trailers,
            _ => Metadata::new(),
        };
        self.decoder.clear();
        Event::End(End {
            status: Err(status),
            trailers,
        })
    }

    /// Ends with an error of the peer's, unless the call has failed already.
    #[cold]
    fn forbid(&mut self, message: &str) {
        match self.state {
            State::Done
            | State::Ended {
                cause: Cause::Failure,
                ..
            } => return,
            _ => {}
        }
        let error = Err(Status::internal(message));
        self.end(error, Metadata::new(), Cause::Failure);
    }

    fn end_by(&mut self, trailers: HeaderMap) {
        let status = Status::from_trailers(&trailers);
        let status = status.unwrap_or_else(|| {
            Err(Status::unknown("the trailers have no grpc-status").of_peer(&trailers))
        });
        self.end(status, Metadata::from_headers(trailers), Cause::Stream);
    }

    fn end_by_trailers_only(&mut self, head: HeaderMap) {
        self.state = State::Open;
        self.end_by(head);
    }

    fn end(&mut self, status: Result<(), Status>, trailers: Metadata, cause: Cause) {
        let head = match &mut self.state {
            State::Head(head) => Some(std::mem::take(head)),
            State::Ended { head, .. } => head.take(),
            State::Start | State::Held(_) | State::Open | State::Done => None,
        };
        self.state = State::Ended {
            head,
            end: End { status, trailers },
            cause,
        };
    }
}
