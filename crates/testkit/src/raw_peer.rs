//! One end of an HTTP/2 connection that sends what it is told and notes what it gets.

use std::collections::HashMap;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fields::Fields;
use crate::frame::{Frame, PAYLOAD_MAX, flag, kind, setting};
use crate::message::messages;
use crate::within;

/// RFC 9113, section 3.4: what a client sends before its first frame.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// RFC 9113, section 6.9.2.
const DEFAULT_WINDOW: i64 = 65_535;
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// A peer. It knows the frames and no rules: states, windows and limits are broken with it as easily
/// as kept.
///
/// It acknowledges SETTINGS and PING, unless told not to, and gives the other end all the window
/// there is.
pub struct RawPeer<IO> {
    io: IO,
    read: BytesMut,
    hpack: loona_hpack::Decoder<'static>,
    /// A header block whose CONTINUATION frames are still to come.
    block: Option<Frame>,
    streams: HashMap<u32, Received>,
    /// Streams that the other end has opened and nobody has asked for.
    opened: Vec<u32>,
    next_stream: u32,
    settings: Vec<(u16, u32)>,
    has_settings: bool,
    settings_acks: usize,
    settings_sent: usize,
    pings: Vec<Bytes>,
    ping_acks: Vec<Bytes>,
    goaway: Option<GoAway>,
    is_closed: bool,
    acknowledges: bool,
    /// Bytes of DATA sent, by stream; those of the connection under 0.
    sent: HashMap<u32, i64>,
    window_updates: HashMap<u32, i64>,
}

/// What has come on a stream.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// The first header block, interim responses aside.
    pub head: Option<Fields>,
    /// The payloads of all DATA frames.
    pub data: BytesMut,
    /// The second header block.
    pub trailers: Option<Fields>,
    /// END_STREAM has come.
    pub is_ended: bool,
    /// The error code of RST_STREAM.
    pub reset: Option<u32>,
    /// DATA frames, and how many of them were empty.
    pub data_frames: usize,
    /// DATA frames with nothing in them that do not end the stream.
    pub empty_frames: usize,
}

/// What GOAWAY said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoAway {
    /// The last stream that the other end has taken.
    pub last_stream: u32,
    /// The error code.
    pub error: u32,
    /// The debug data.
    pub text: String,
}

/// How a call ended, as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A complete response: the HTTP status, and the `grpc-status`.
    Answered(u16, i32),
    /// A complete response without a `grpc-status`.
    Http(u16),
    /// RST_STREAM with this error code.
    Reset(u32),
    /// GOAWAY with this error code, or 0 and then the end, before a complete response.
    GoneAway(u32),
    /// The connection was closed without a word.
    Closed,
}

impl Received {
    /// The payloads of the messages.
    ///
    /// # Panics
    ///
    /// When there is part of a message.
    pub fn messages(&self) -> Vec<Bytes> {
        messages(self.data.clone().freeze())
    }

    /// Where the `grpc-status` is.
    fn end(&self) -> Option<&Fields> {
        self.trailers.as_ref().or(self.head.as_ref())
    }

    /// How often `name` is in head and trailers together.
    pub fn count(&self, name: &str) -> usize {
        let blocks = self.head.iter().chain(&self.trailers);
        blocks.map(|fields| fields.all(name).count()).sum()
    }

    /// The `grpc-message` as it was sent.
    pub fn grpc_message(&self) -> String {
        let end = self.end().and_then(|fields| fields.text("grpc-message"));
        end.unwrap_or_default()
    }

    fn answer(&self) -> Option<Outcome> {
        if !self.is_ended {
            return None;
        }
        let http = self.head.as_ref()?.text(":status")?.parse().ok()?;
        let grpc = self.end().and_then(|fields| fields.text("grpc-status"));
        Some(match grpc.and_then(|code| code.parse().ok()) {
            Some(code) => Outcome::Answered(http, code),
            None => Outcome::Http(http),
        })
    }
}

impl RawPeer<TcpStream> {
    /// A client of the server at `address`.
    ///
    /// # Panics
    ///
    /// When nothing listens there, or what does speaks no HTTP/2.
    pub async fn connect(address: &str) -> Self {
        Self::client(Self::dial(address).await, &[]).await
    }

    /// A connection to `address` on which nothing has been said.
    ///
    /// # Panics
    ///
    /// When nothing listens there.
    pub async fn dial(address: &str) -> TcpStream {
        let stream = TcpStream::connect(address).await;
        let stream = stream.expect("a server listens there");
        stream.set_nodelay(true).expect("a socket that is open");
        stream
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> RawPeer<IO> {
    /// A client: sends preface and SETTINGS, with `settings` besides its own, and waits for the
    /// server's.
    ///
    /// # Panics
    ///
    /// When the server has none.
    pub async fn client(io: IO, settings: &[(u16, u32)]) -> Self {
        let mut peer = Self::silent(io);
        peer.write_bytes(PREFACE).await;
        peer.greet(settings).await;
        peer
    }

    /// A server: waits for the preface and the client's SETTINGS, and sends its own.
    ///
    /// # Panics
    ///
    /// When something else comes.
    pub async fn server(io: IO, settings: &[(u16, u32)]) -> Self {
        let mut peer = Self::silent(io);
        peer.next_stream = 2;
        within("the preface", async {
            while peer.read.len() < PREFACE.len() {
                let read = peer.io.read_buf(&mut peer.read).await;
                assert!(read.is_ok_and(|n| n > 0), "closed before the preface");
            }
        })
        .await;
        assert_eq!(peer.read[..PREFACE.len()], PREFACE[..], "the preface");
        peer.read.advance(PREFACE.len());
        peer.greet(settings).await;
        peer
    }

    /// A peer that says nothing of its own accord, and acknowledges nothing before it is told to.
    pub fn silent(io: IO) -> Self {
        Self {
            io,
            read: BytesMut::new(),
            hpack: loona_hpack::Decoder::new(),
            block: None,
            streams: HashMap::new(),
            opened: Vec::new(),
            next_stream: 1,
            settings: Vec::new(),
            has_settings: false,
            settings_acks: 0,
            settings_sent: 0,
            pings: Vec::new(),
            ping_acks: Vec::new(),
            goaway: None,
            is_closed: false,
            acknowledges: false,
            sent: HashMap::new(),
            window_updates: HashMap::new(),
        }
    }

    async fn greet(&mut self, settings: &[(u16, u32)]) {
        let mut all = vec![(setting::INITIAL_WINDOW_SIZE, WINDOW_MAX)];
        all.extend_from_slice(settings);
        self.acknowledges = true;
        self.write(&[
            Frame::settings(&all),
            Frame::window_update(0, WINDOW_MAX - DEFAULT_WINDOW as u32),
        ])
        .await;
        self.until("SETTINGS", |peer| peer.has_settings).await;
        assert!(self.has_settings, "closed before SETTINGS");
    }

    /// Whether SETTINGS and PING are acknowledged from now on.
    pub fn stop_acknowledging(&mut self) {
        self.acknowledges = false;
    }

    /// Sends frames, in one write. What the other end no longer takes is lost: what it has said
    /// instead can be read.
    pub async fn write(&mut self, frames: &[Frame]) {
        let mut bytes = BytesMut::new();
        for frame in frames {
            let asks = frame.kind == kind::SETTINGS && frame.flags & flag::ACK == 0;
            self.settings_sent += usize::from(asks);
            if frame.kind == kind::DATA {
                let len = frame.payload.len() as i64;
                *self.sent.entry(0).or_default() += len;
                *self.sent.entry(frame.stream).or_default() += len;
            }
            frame.write_to(&mut bytes);
        }
        self.write_bytes(&bytes).await;
    }

    /// Sends bytes as they are.
    pub async fn write_bytes(&mut self, bytes: &[u8]) {
        let written = within("a write", self.io.write_all(bytes)).await;
        if written.is_ok() {
            let _ = self.io.flush().await;
        }
    }

    /// Ends what this peer sends: FIN on a socket.
    pub async fn shut_down(&mut self) {
        let _ = self.io.shutdown().await;
    }

    /// The id for the next stream that this peer opens.
    pub fn next_stream(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        stream
    }

    /// Sends a complete request on a new stream: head, and `body` with END_STREAM.
    pub async fn call(&mut self, head: &Fields, body: impl Into<Bytes>) -> u32 {
        let stream = self.next_stream();
        self.write(&[
            Frame::headers(stream, head),
            Frame::data(stream, body).ending(),
        ])
        .await;
        stream
    }

    /// Sends `bytes` on a stream, as the windows allow.
    pub async fn send(&mut self, stream: u32, mut bytes: Bytes) {
        while !bytes.is_empty() {
            self.until("window", |peer| peer.window(stream) > 0).await;
            if self.is_closed || self.stream(stream).reset.is_some() {
                return;
            }
            let window = usize::try_from(self.window(stream)).unwrap_or_default();
            let chunk = bytes.split_to(bytes.len().min(window).min(PAYLOAD_MAX));
            self.write(&[Frame::data(stream, chunk)]).await;
        }
    }

    /// Bytes of DATA that the other end would still take on a stream.
    pub fn window(&self, stream: u32) -> i64 {
        let initial = self.setting(setting::INITIAL_WINDOW_SIZE);
        let initial = initial.map_or(DEFAULT_WINDOW, i64::from);
        let left = |id: u32, initial: i64| {
            let update = self.window_updates.get(&id).unwrap_or(&0);
            initial + update - self.sent.get(&id).unwrap_or(&0)
        };
        left(stream, initial).min(left(0, DEFAULT_WINDOW))
    }

    /// The sum of the WINDOW_UPDATE frames for a stream; for the connection: 0.
    pub fn window_updates(&self, stream: u32) -> i64 {
        self.window_updates.get(&stream).copied().unwrap_or(0)
    }

    /// What has come on a stream.
    pub fn stream(&self, stream: u32) -> Received {
        self.streams.get(&stream).cloned().unwrap_or_default()
    }

    /// What has come on a stream, if anything.
    pub(crate) fn received(&self, stream: u32) -> Option<&Received> {
        self.streams.get(&stream)
    }

    /// How many streams have been reset by the other end, with any code.
    pub fn resets(&self) -> usize {
        let streams = self.streams.values();
        streams.filter(|stream| stream.reset.is_some()).count()
    }

    /// The last value of a setting of the other end.
    pub fn setting(&self, id: u16) -> Option<u32> {
        let mut pairs = self.settings.iter().rev();
        pairs
            .find(|(other, _)| *other == id)
            .map(|(_, value)| *value)
    }

    /// SETTINGS of ours that were acknowledged.
    pub fn settings_acks(&self) -> usize {
        self.settings_acks
    }

    /// The PING frames of the other end.
    pub fn pings(&self) -> &[Bytes] {
        &self.pings
    }

    /// The answers to PING frames of ours.
    pub fn ping_acks(&self) -> &[Bytes] {
        &self.ping_acks
    }

    /// The last GOAWAY.
    pub fn goaway(&self) -> Option<&GoAway> {
        self.goaway.as_ref()
    }

    /// Whether the other end has closed the connection.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Waits for a condition on what has come; returns early if the connection is closed.
    ///
    /// # Panics
    ///
    /// When neither comes.
    pub async fn until(&mut self, what: &str, is_done: impl Fn(&Self) -> bool) {
        within(what, async {
            while !is_done(self) && !self.is_closed {
                self.read_frame().await;
            }
        })
        .await;
    }

    /// Waits until the connection is closed.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub async fn until_closed(&mut self) {
        self.until("the end of the connection", |_| false).await;
    }

    /// Waits until everything sent so far has been read: the acknowledgement of SETTINGS comes back
    /// behind it (a server may find that PING comes too often). False if the connection is closed.
    pub async fn settle(&mut self) -> bool {
        self.write(&[Frame::settings(&[])]).await;
        self.until("an acknowledgement", |peer| {
            peer.settings_acks >= peer.settings_sent
        })
        .await;
        !self.is_closed
    }

    /// The next stream that the other end opens; waits for its head.
    ///
    /// # Panics
    ///
    /// When it opens none.
    pub async fn next_request(&mut self) -> u32 {
        within("a request", self.try_next_request())
            .await
            .expect("a request before the end of the connection")
    }

    /// As [`next_request`](Self::next_request), but waits for as long as it takes; `None` when the
    /// connection is closed.
    pub async fn try_next_request(&mut self) -> Option<u32> {
        while self.opened.is_empty() && !self.is_closed {
            self.read_frame().await;
        }
        match self.opened.is_empty() {
            true => None,
            false => Some(self.opened.remove(0)),
        }
    }

    /// Streams that the other end has opened and that were not asked for.
    pub fn waiting_requests(&self) -> usize {
        self.opened.len()
    }

    /// Waits for END_STREAM of the other end, or RST_STREAM.
    ///
    /// # Panics
    ///
    /// When neither comes.
    pub async fn until_end(&mut self, stream: u32) {
        self.until("the end of a stream", |peer| {
            let received = peer.streams.get(&stream);
            received.is_some_and(|it| it.is_ended || it.reset.is_some())
        })
        .await;
    }

    /// As [`next_request`](Self::next_request), and waits for its end.
    pub async fn next_full_request(&mut self) -> u32 {
        let stream = self.next_request().await;
        self.until_end(stream).await;
        stream
    }

    /// Waits for how a call of ours ends.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        self.until("the end of a call", |peer| {
            let received = peer.streams.get(&stream);
            received.is_some_and(|it| it.is_ended || it.reset.is_some())
                || peer.goaway.as_ref().is_some_and(|goaway| goaway.error != 0)
        })
        .await;
        let received = self.stream(stream);
        if let Some(outcome) = received.answer() {
            return outcome;
        }
        match (received.reset, &self.goaway) {
            (Some(error), _) => Outcome::Reset(error),
            (None, Some(goaway)) => Outcome::GoneAway(goaway.error),
            (None, None) => Outcome::Closed,
        }
    }

    /// Waits for the next frame, or for the end of the connection.
    pub(crate) async fn read_frame(&mut self) {
        loop {
            if let Some(frame) = Frame::read_from(&mut self.read) {
                return self.take(frame).await;
            }
            match self.io.read_buf(&mut self.read).await {
                Ok(0) | Err(_) => {
                    self.is_closed = true;
                    return;
                }
                Ok(_) => {}
            }
        }
    }

    async fn take(&mut self, frame: Frame) {
        match frame.kind {
            kind::SETTINGS if frame.is_ack() => self.settings_acks += 1,
            kind::SETTINGS => {
                self.take_settings(frame.payload);
                if self.acknowledges {
                    self.write(&[Frame::settings_ack()]).await;
                }
            }
            kind::PING if frame.is_ack() => self.ping_acks.push(frame.payload),
            kind::PING => {
                self.pings.push(frame.payload.clone());
                if self.acknowledges {
                    let ack = Frame::new(kind::PING, flag::ACK, 0, frame.payload);
                    self.write(&[ack]).await;
                }
            }
            kind::GOAWAY => self.goaway = Some(parse_goaway(frame.payload)),
            kind::WINDOW_UPDATE => {
                let increment = (&frame.payload[..]).get_u32();
                *self.window_updates.entry(frame.stream).or_default() += i64::from(increment);
            }
            kind::RST_STREAM => {
                let error = (&frame.payload[..]).get_u32();
                self.streams.entry(frame.stream).or_default().reset = Some(error);
            }
            kind::DATA => {
                let is_end = frame.is_end_stream();
                let stream = self.streams.entry(frame.stream).or_default();
                stream.data_frames += 1;
                stream.empty_frames += usize::from(frame.payload.is_empty() && !is_end);
                stream.data.extend_from_slice(&frame.payload);
                stream.is_ended |= is_end;
            }
            kind::HEADERS | kind::CONTINUATION => self.take_block(frame),
            _ => {}
        }
    }

    fn take_settings(&mut self, mut payload: Bytes) {
        self.has_settings = true;
        while payload.remaining() >= 6 {
            self.settings.push((payload.get_u16(), payload.get_u32()));
        }
    }

    fn take_block(&mut self, frame: Frame) {
        let is_complete = frame.flags & flag::END_HEADERS != 0;
        let block = match self.block.take() {
            None => frame,
            Some(mut block) => {
                block.payload = [block.payload, frame.payload].concat().into();
                block
            }
        };
        if !is_complete {
            self.block = Some(block);
            return;
        }
        let decoded = self.hpack.decode(&block.payload);
        let fields = Fields::from(decoded.expect("a header block that decodes"));
        if !self.streams.contains_key(&block.stream) {
            self.opened.push(block.stream);
        }
        let stream = self.streams.entry(block.stream).or_default();
        stream.is_ended |= block.is_end_stream();
        let is_interim = fields
            .text(":status")
            .is_some_and(|status| status.starts_with('1'));
        match (&stream.head, is_interim) {
            (_, true) => {}
            (None, false) => stream.head = Some(fields),
            (Some(_), false) => stream.trailers = Some(fields),
        }
    }
}

impl<IO> std::fmt::Debug for RawPeer<IO> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawPeer")
            .field("streams", &self.streams)
            .field("goaway", &self.goaway)
            .field("is_closed", &self.is_closed)
            .finish_non_exhaustive()
    }
}

fn parse_goaway(mut payload: Bytes) -> GoAway {
    GoAway {
        last_stream: payload.get_u32(),
        error: payload.get_u32(),
        text: String::from_utf8_lossy(&payload).into_owned(),
    }
}
