//! The four methods, as what is left of a call when its connection's task polls it again.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::message::{self, Message, Pieces, Reader};

/// Messages of a stream leave in frames of about this size.
const GATHER: usize = 16 * 1024;
/// Window is given back in steps of this size: h2 takes its lock for each.
const RELEASE_STEP: usize = 32 * 1024;

/// Any end but the good one: the call is dropped, and h2 resets it.
pub(crate) struct Broken;

impl From<h2::Error> for Broken {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

/// The heads that every reply has, built once.
pub(crate) struct Heads {
    head: HeaderMap,
    trailers: HeaderMap,
}

impl Heads {
    pub(crate) fn new() -> Self {
        let mut head = HeaderMap::with_capacity(1);
        head.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let mut trailers = HeaderMap::with_capacity(1);
        let status = HeaderName::from_static("grpc-status");
        trailers.insert(status, HeaderValue::from_static("0"));
        Self { head, trailers }
    }

    fn response(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.headers_mut() = self.head.clone();
        response
    }

    fn trailers(&self) -> HeaderMap {
        self.trailers.clone()
    }

    /// A unary reply, whole. h2 cuts it up as the peer gives window, so that nothing is left to poll.
    pub(crate) fn reply(
        &self,
        respond: &mut SendResponse<Pieces>,
        reply: Pieces,
    ) -> Result<(), Broken> {
        let mut send = respond.send_response(self.response(), false)?;
        send.send_data(reply, false)?;
        send.send_trailers(self.trailers())?;
        Ok(())
    }
}

/// The messages that arrive for a call.
pub(crate) struct Requests {
    stream: RecvStream,
    reader: Reader,
    unreleased: usize,
    /// Of a call that has one request, which waits for the end of them.
    only: Option<Pieces>,
}

impl Requests {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            reader: Reader::default(),
            unreleased: 0,
            only: None,
        }
    }

    pub(crate) fn push(&mut self, data: Bytes) {
        self.unreleased += data.len();
        self.reader.push(data);
    }

    /// None at their end.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Pieces>, Broken>> {
        loop {
            if let Some(message) = self.reader.next() {
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(self.stream.poll_data(cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(data) => self.push(data?),
            }
            if self.unreleased >= RELEASE_STEP && !self.stream.is_end_stream() {
                let flow = self.stream.flow_control();
                flow.release_capacity(self.unreleased)?;
                self.unreleased = 0;
            }
        }
    }

    /// What ends replies, seen from the client.
    pub(crate) fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<HeaderMap, Broken>> {
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.ok_or(Broken))
    }
}

/// The replies of a streaming call, gathered.
pub(crate) struct Replies {
    stream: SendStream<Pieces>,
    gathered: Vec<u8>,
    /// Since h2 was last asked whether it has room.
    unasked: usize,
}

impl Replies {
    fn new(respond: &mut SendResponse<Pieces>, heads: &Heads) -> Result<Self, Broken> {
        Ok(Self {
            stream: respond.send_response(heads.response(), false)?,
            gathered: Vec::new(),
            unasked: 0,
        })
    }

    fn push(&mut self, payload: Pieces) -> Result<(), Broken> {
        if let Err(payload) = message::gather(&mut self.gathered, payload) {
            self.send()?;
            let large = message::encode(payload, 0);
            self.unasked += large.remaining();
            self.stream.send_data(large, false)?;
        } else if self.gathered.len() >= GATHER {
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Broken> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.unasked += self.gathered.len();
        let gathered = Bytes::from(std::mem::take(&mut self.gathered));
        self.stream.send_data(Pieces::One(gathered), false)?;
        Ok(())
    }

    /// Pending while h2 holds as much of this stream as it may.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.unasked < RELEASE_STEP {
            return Poll::Ready(Ok(()));
        }
        self.stream.reserve_capacity(1);
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(room) => room?,
                None => return Poll::Ready(Err(Broken)),
            };
        }
        self.unasked = 0;
        Poll::Ready(Ok(()))
    }
}

/// A call that could not be finished where it was accepted.
pub(crate) enum Call {
    Unary(SendResponse<Pieces>, Requests),
    ServerStream(SendResponse<Pieces>, Requests),
    Sending(Replies, Pieces, u64),
    ClientStream(SendResponse<Pieces>, Requests, Option<Pieces>, u64),
    Bidi(Replies, Requests),
}

/// What becomes of a call that has been polled.
pub(crate) enum Next {
    Done,
    /// A unary call that has all it needs for its reply.
    Answer(Message),
}

impl Call {
    pub(crate) fn new(
        path: &str,
        mut respond: SendResponse<Pieces>,
        requests: Requests,
        heads: &Heads,
    ) -> Result<Self, Broken> {
        Ok(match path {
            "/trunkline.bench.Bench/ServerStream" => Self::ServerStream(respond, requests),
            "/trunkline.bench.Bench/ClientStream" => Self::ClientStream(respond, requests, None, 0),
            "/trunkline.bench.Bench/Bidi" => {
                Self::Bidi(Replies::new(&mut respond, heads)?, requests)
            }
            _ => Self::Unary(respond, requests),
        })
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        heads: &Heads,
    ) -> Poll<Result<Next, Broken>> {
        loop {
            match self {
                Self::Unary(_, requests) => {
                    let request = ready!(poll_only(requests, cx))?;
                    return Poll::Ready(Ok(Next::Answer(request)));
                }
                Self::ServerStream(respond, requests) => {
                    let request = ready!(poll_only(requests, cx))?;
                    let replies = Replies::new(respond, heads)?;
                    *self = Self::Sending(replies, request.payload, request.count);
                }
                Self::Sending(replies, payload, left) => {
                    ready!(poll_sending(replies, payload, left, cx))?;
                    replies.stream.send_trailers(heads.trailers())?;
                    return Poll::Ready(Ok(Next::Done));
                }
                Self::ClientStream(respond, requests, last, count) => {
                    while let Some(message) = ready!(requests.poll_next(cx))? {
                        *last = Some(message::decode(message).ok_or(Broken)?.payload);
                        *count += 1;
                    }
                    let last = last.take().unwrap_or(Pieces::One(Bytes::new()));
                    heads.reply(respond, message::encode(last, *count))?;
                    return Poll::Ready(Ok(Next::Done));
                }
                Self::Bidi(replies, requests) => {
                    ready!(poll_bidi(replies, requests, cx))?;
                    replies.stream.send_trailers(heads.trailers())?;
                    return Poll::Ready(Ok(Next::Done));
                }
            }
        }
    }
}

/// The request of a call that has one, when the client has ended its side.
fn poll_only(requests: &mut Requests, cx: &mut Context<'_>) -> Poll<Result<Message, Broken>> {
    while let Some(message) = ready!(requests.poll_next(cx))? {
        requests.only = Some(message);
    }
    let message = requests.only.take().and_then(message::decode);
    Poll::Ready(message.ok_or(Broken))
}

fn poll_sending(
    replies: &mut Replies,
    payload: &Pieces,
    left: &mut u64,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Broken>> {
    while *left > 0 {
        ready!(replies.poll_room(cx))?;
        match payload {
            Pieces::One(payload) if payload.len() < GATHER => {
                replies.gathered.reserve_exact(GATHER);
                while *left > 0 && replies.gathered.len() + payload.len() < GATHER {
                    message::gather_small(&mut replies.gathered, payload);
                    *left -= 1;
                }
                replies.send()?;
            }
            large => {
                replies.push(large.share())?;
                *left -= 1;
            }
        }
    }
    Poll::Ready(Ok(()))
}

fn poll_bidi(
    replies: &mut Replies,
    requests: &mut Requests,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Broken>> {
    loop {
        ready!(replies.poll_room(cx))?;
        let Poll::Ready(request) = requests.poll_next(cx)? else {
            replies.send()?;
            return Poll::Pending;
        };
        let Some(request) = request else {
            replies.send()?;
            return Poll::Ready(Ok(()));
        };
        replies.push(message::decode(request).ok_or(Broken)?.payload)?;
    }
}
