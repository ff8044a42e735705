//! Follows the 9-byte frame headers of one direction of a connection, without copying.
//!
//! h2 answers control frames itself and does not show them. What a policy needs to know about
//! them is counted here.

const HEADER_LEN: usize = 9;
/// RFC 9113, section 3.4: what a client sends before its first frame.
const PREFACE_LEN: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// The prefix of a message: PROTOCOL-HTTP2.md, "Requests".
const SHORT: usize = 5;

/// RFC 9113, section 7.
const NO_ERROR: u8 = 0;
const PROTOCOL_ERROR: u8 = 1;
const REFUSED_STREAM: u8 = 7;
const CANCEL: u8 = 8;
const ENHANCE_YOUR_CALM: u8 = 11;

const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
/// RFC 9113, section 6.5.2.
const MAX_HEADER_LIST_SIZE: u16 = 6;
/// RFC 9113, section 6.5.1.
const SETTING_LEN: usize = 6;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// RFC 9110, section 9.3, and RFC 5789. A connection of HTTP/2 begins with "PRI ".
const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
];

/// Which end's bytes are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its bytes begin with the preface.
    Client,
    Server,
}

impl Role {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What a peer protocol, judged by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerProtocol {
    /// Nothing has come in yet.
    Unknown,
    Http2,
    /// A response, or a request, of HTTP/1.
    Http1,
    Tls,
}

/// Counters over the frames of one direction.
#[derive(Debug)]
pub(crate) struct FrameGuard {
    header: [u8; HEADER_LEN],
    /// Bytes of the header seen so far.
    have: usize,
    /// Bytes to pass over before the next header.
    skip: usize,
    first: [u8; 5],
    first_len: usize,
    bytes: u64,
    frames: u64,
    /// Frames that carry calls: HEADERS, CONTINUATION, DATA that is not short.
    carrying: u64,
    /// DATA frames that have no room for a message, and do not end a stream.
    short: u64,
    /// PING frames that want an answer.
    pings: u64,
    /// The type of the last frame.
    last: u8,
    /// HEADERS frames: no peer can open more streams than that.
    heads: u64,
    /// Streams that HEADERS frames have begun, and the newest of them.
    begun: u64,
    newest: u32,
    /// RST_STREAM frames that say that the peer has done something wrong.
    error_resets: u64,
    /// Those of them that say that it has broken the protocol.
    protocol_resets: u64,
    /// Those that say that there are too many streams.
    refused_resets: u64,
    settings: u64,
    goaways: u64,
    in_settings: bool,
    /// The part that has come of the setting that is being read.
    setting: [u8; SETTING_LEN],
    setting_have: usize,
    header_list_size: Option<u32>,
    block: HeaderBlock,
    /// Where the DATA frames of the last bytes end that carry nothing, as `bytes` counts.
    empty: Vec<u64>,
    /// Its stream, its size so far, and whether it ends the stream.
    block_is: SuspectBlock,
    /// Bytes of header blocks.
    head_bytes: u64,
    /// The bytes from which on a header block is noted.
    suspect_block: usize,
    suspects: Vec<SuspectBlock>,
    /// SETTINGS, or a header block that is noted, have come since this was last asked for.
    has_news: bool,
}

/// A header block that is too large.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SuspectBlock {
    pub(crate) stream: u32,
    /// Bytes of it on the wire.
    pub(crate) size: usize,
    pub(crate) ends_stream: bool,
}

/// Where the bytes are in a header block, which may be several frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeaderBlock {
    Outside,
    /// More frames of it are to come.
    Open,
    /// In its last frame.
    Last,
}

impl FrameGuard {
    pub(crate) fn new(sender: Role) -> Self {
        let skip = match sender {
            Role::Client => PREFACE_LEN,
            Role::Server => 0,
        };
        Self {
            header: [0; HEADER_LEN],
            have: 0,
            skip,
            first: [0; 5],
            first_len: 0,
            bytes: 0,
            frames: 0,
            carrying: 0,
            short: 0,
            pings: 0,
            last: DATA,
            heads: 0,
            begun: 0,
            newest: 0,
            error_resets: 0,
            protocol_resets: 0,
            refused_resets: 0,
            settings: 0,
            goaways: 0,
            in_settings: false,
            setting: [0; SETTING_LEN],
            setting_have: 0,
            header_list_size: None,
            block: HeaderBlock::Outside,
            empty: Vec::new(),
            block_is: SuspectBlock::default(),
            head_bytes: 0,
            suspect_block: usize::MAX,
            suspects: Vec::new(),
            has_news: false,
        }
    }

    /// The same, noting header blocks from `bytes` on.
    pub(crate) fn suspecting(self, bytes: usize) -> Self {
        Self {
            suspect_block: bytes,
            ..self
        }
    }

    /// Follows `bytes`, which may begin and end anywhere in a frame.
    pub(crate) fn follow(&mut self, mut bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.empty.clear();
        if self.first_len < self.first.len() {
            let n = bytes.len().min(self.first.len() - self.first_len);
            self.first[self.first_len..self.first_len + n].copy_from_slice(&bytes[..n]);
            self.first_len += n;
        }
        loop {
            if self.in_settings {
                self.read_settings(&bytes[..self.skip.min(bytes.len())]);
            }
            if self.skip > bytes.len() {
                self.skip -= bytes.len();
                return;
            }
            bytes = &bytes[self.skip..];
            self.skip = 0;
            self.payload_seen();
            if self.have == 0 {
                bytes = self.pass(bytes);
            }
            if bytes.is_empty() {
                return;
            }
            if self.have == 0
                && let Some((header, rest)) = bytes.split_first_chunk()
            {
                bytes = rest;
                self.frame(*header, bytes);
                continue;
            }
            let n = bytes.len().min(HEADER_LEN - self.have);
            self.header[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            if self.have == HEADER_LEN {
                self.have = 0;
                self.frame(self.header, bytes);
            }
        }
    }

    /// Passes over what most bytes are, frames of calls that are there in full: they leave nothing to
    /// remember. Gives what is behind them.
    fn pass<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        let (mut frames, mut heads, mut head_bytes) = (0, 0, 0);
        while let Some((header, payload)) = bytes.split_first_chunk() {
            let length = length_of(header);
            let Some(rest) = payload.get(length..) else {
                break;
            };
            let [_, _, _, kind, flags, stream @ ..] = *header;
            match kind {
                DATA if length >= SHORT || flags & END_STREAM != 0 => {}
                HEADERS if flags & END_HEADERS != 0 => {
                    heads += 1;
                    head_bytes += length as u64;
                    self.begin(stream_of(stream));
                }
                _ => break,
            }
            bytes = rest;
            frames += 1;
        }
        if frames > 0 {
            self.last = DATA;
            self.frames += frames;
            self.carrying += frames;
            self.heads += heads;
            self.head_bytes += head_bytes;
        }
        bytes
    }

    /// RFC 9113, section 5.1.1: a stream that is begun has a higher number than all before.
    #[inline]
    fn begin(&mut self, stream: u32) {
        if stream > self.newest {
            self.newest = stream;
            self.begun += 1;
        }
    }

    /// `rest` is what has come behind the header.
    fn frame(&mut self, header: [u8; HEADER_LEN], rest: &[u8]) {
        let [_, _, _, kind, flags, stream @ ..] = header;
        self.skip = length_of(&header);
        self.frames += 1;
        self.last = kind;
        match kind {
            DATA if self.skip < SHORT && flags & END_STREAM == 0 => {
                self.short += 1;
                if self.is_empty(header) {
                    self.empty.push(self.bytes - rest.len() as u64);
                }
            }
            DATA => self.carrying += 1,
            HEADERS | PUSH_PROMISE | CONTINUATION => {
                self.carrying += 1;
                self.heads += u64::from(kind == HEADERS);
                self.head_bytes += self.skip as u64;
                if kind == HEADERS {
                    self.begin(stream_of(stream));
                }
                if kind != CONTINUATION {
                    self.block_is = SuspectBlock {
                        stream: stream_of(stream),
                        size: 0,
                        ends_stream: flags & END_STREAM != 0,
                    };
                }
                self.block_is.size += self.skip;
                self.block = match flags & END_HEADERS {
                    0 => HeaderBlock::Open,
                    _ => HeaderBlock::Last,
                };
            }
            RST_STREAM => {
                self.error_resets += u64::from(is_error(rest));
                self.protocol_resets += u64::from(rest.starts_with(&[0, 0, 0, PROTOCOL_ERROR]));
                self.refused_resets += u64::from(rest.starts_with(&[0, 0, 0, REFUSED_STREAM]));
            }
            SETTINGS => {
                self.in_settings = true;
                self.setting_have = 0;
            }
            PING => self.pings += u64::from(flags & ACK == 0),
            GOAWAY => self.goaways += 1,
            _ => {}
        }
    }

    /// A DATA frame without payload, padding and END_STREAM means nothing, and may come at any time but
    /// inside a header block.
    fn is_empty(&self, [.., flags, a, b, c, d]: [u8; HEADER_LEN]) -> bool {
        self.skip == 0
            && flags & PADDED == 0
            && [a, b, c, d] != [0; 4]
            && self.block == HeaderBlock::Outside
    }

    /// The bytes of a header that is not complete, if it may be that of an empty DATA frame.
    #[inline]
    pub(crate) fn held(&self) -> &[u8] {
        if self.have == 0 {
            return &[];
        }
        let partial = &self.header[..self.have];
        match partial.iter().take(4).all(|it| *it == 0) {
            true => partial,
            false => &[],
        }
    }

    /// Takes what means nothing out of the bytes that were followed last, with what was held before
    /// them; returns how many are left.
    #[inline]
    pub(crate) fn cut_empty(&self, bytes: &mut [u8]) -> usize {
        match self.empty.is_empty() {
            true => bytes.len(),
            false => self.cut_some(bytes),
        }
    }

    #[cold]
    fn cut_some(&self, bytes: &mut [u8]) -> usize {
        let begin = self.bytes - (bytes.len() + self.held().len()) as u64;
        let ends = self.empty.iter().map(|end| (end - begin) as usize);
        let (mut to, mut from) = (0, 0);
        for end in ends.chain([bytes.len() + HEADER_LEN]) {
            let kept = from..end - HEADER_LEN;
            from = end;
            let len = kept.len();
            bytes.copy_within(kept, to);
            to += len;
        }
        to
    }

    /// The last byte of a frame has come.
    fn payload_seen(&mut self) {
        if std::mem::take(&mut self.in_settings) {
            self.settings += 1;
            self.has_news = true;
        }
        if self.block == HeaderBlock::Last {
            self.block = HeaderBlock::Outside;
            if self.block_is.size >= self.suspect_block {
                self.suspects.push(self.block_is);
                self.has_news = true;
            }
        }
    }

    fn read_settings(&mut self, payload: &[u8]) {
        for byte in payload {
            self.setting[self.setting_have] = *byte;
            self.setting_have += 1;
            if self.setting_have == SETTING_LEN {
                self.setting_have = 0;
                let [a, b, value @ ..] = self.setting;
                if u16::from_be_bytes([a, b]) == MAX_HEADER_LIST_SIZE {
                    self.header_list_size = Some(u32::from_be_bytes(value));
                }
            }
        }
    }

    /// True if there is anything to take by the two functions below.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// The last SETTINGS_MAX_HEADER_LIST_SIZE, if one has come since it was last asked for.
    pub(crate) fn take_header_list_size(&mut self) -> Option<u32> {
        self.header_list_size.take()
    }

    /// The large header blocks that have come since this was last asked for.
    pub(crate) fn take_suspects(&mut self) -> Vec<SuspectBlock> {
        std::mem::take(&mut self.suspects)
    }

    /// Bytes of header blocks seen.
    pub(crate) fn head_bytes(&self) -> u64 {
        self.head_bytes
    }

    /// RST_STREAM frames with any other code than NO_ERROR, CANCEL, and ENHANCE_YOUR_CALM. Asked of what h2 writes, which
    /// writes such a frame in one piece.
    pub(crate) fn error_resets(&self) -> u64 {
        self.error_resets
    }

    /// RST_STREAM frames with the code PROTOCOL_ERROR, of which the same is true.
    pub(crate) fn protocol_resets(&self) -> u64 {
        self.protocol_resets
    }

    /// RST_STREAM frames with the code REFUSED_STREAM, of which the same is true.
    pub(crate) fn refused_resets(&self) -> u64 {
        self.refused_resets
    }

    /// Streams that HEADERS frames have begun: without trailers.
    pub(crate) fn begun(&self) -> u64 {
        self.begun
    }

    /// HEADERS frames seen.
    pub(crate) fn heads(&self) -> u64 {
        self.heads
    }

    /// SETTINGS frames seen in full.
    pub(crate) fn settings(&self) -> u64 {
        self.settings
    }

    /// GOAWAY frames seen.
    pub(crate) fn goaways(&self) -> u64 {
        self.goaways
    }

    /// The header block that has begun and whose last byte has not come, by its number.
    pub(crate) fn header_block(&self) -> Option<u64> {
        (self.block != HeaderBlock::Outside).then_some(self.heads)
    }

    /// Bytes seen.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Frames of which the header has been seen in full.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// Frames that carry calls: HEADERS, CONTINUATION, DATA that is not short.
    pub(crate) fn carrying(&self) -> u64 {
        self.carrying
    }

    /// DATA frames that have no room for a message, and do not end a stream.
    pub(crate) fn short(&self) -> u64 {
        self.short
    }

    /// PING frames that want an answer.
    pub(crate) fn pings(&self) -> u64 {
        self.pings
    }

    /// True if what was seen ends with the end of a frame.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.have == 0
    }

    /// True if what was seen ends with a GOAWAY frame.
    pub(crate) fn ends_with_goaway(&self) -> bool {
        self.last == GOAWAY && self.is_between_frames()
    }

    pub(crate) fn peer_protocol(&self) -> PeerProtocol {
        match &self.first[..self.first_len] {
            [] => PeerProtocol::Unknown,
            b"HTTP/" => PeerProtocol::Http1,
            // RFC 8446, section 5.1: an alert or a handshake record of TLS 1.x.
            [0x15 | 0x16, 0x03, ..] => PeerProtocol::Tls,
            first
                if METHODS
                    .iter()
                    .any(|it| it.iter().zip(first).all(|(a, b)| a == b)) =>
            {
                PeerProtocol::Http1
            }
            _ => PeerProtocol::Http2,
        }
    }
}

/// RFC 9113, section 4.1: how long the payload is. Read as one number with the type behind it.
#[inline]
fn length_of([a, b, c, kind, ..]: &[u8; HEADER_LEN]) -> usize {
    (u32::from_be_bytes([*a, *b, *c, *kind]) >> 8) as usize
}

/// RFC 9113, section 4.1: the first bit is reserved.
#[inline]
fn stream_of(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes) & (u32::MAX >> 1)
}

/// RFC 9113, section 6.4: the code is all that RST_STREAM holds. h2 says ENHANCE_YOUR_CALM in GOAWAY alone:
/// in a reset it is ours, for a response that is given up.
fn is_error(payload: &[u8]) -> bool {
    !matches!(
        payload,
        [0, 0, 0, NO_ERROR | CANCEL | ENHANCE_YOUR_CALM, ..]
    )
}

/// Puts `size` into SETTINGS_MAX_HEADER_LIST_SIZE, if `bytes` begin with a SETTINGS frame that has it.
pub(crate) fn set_header_list_size(bytes: &mut [u8], size: u32) {
    let Some((header @ [_, _, _, SETTINGS, ..], payload)) =
        bytes.split_first_chunk_mut::<HEADER_LEN>()
    else {
        return;
    };
    let length = length_of(header);
    for setting in payload
        .chunks_exact_mut(SETTING_LEN)
        .take(length / SETTING_LEN)
    {
        if setting[..2] == MAX_HEADER_LIST_SIZE.to_be_bytes() {
            setting[2..].copy_from_slice(&size.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = payload.len();
        let mut out = vec![
            (len >> 16) as u8,
            (len >> 8) as u8,
            len as u8,
            kind,
            flags,
            0,
            0,
            0,
            1,
        ];
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn frames_are_counted_however_the_bytes_are_split() {
        let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        wire.extend(frame(SETTINGS, 0, &[0; 12]));
        wire.extend(frame(HEADERS, END_HEADERS, &[7; 300]));
        // A payload that looks like a frame must not be read as one.
        wire.extend(frame(0, 0, &frame(RST_STREAM, 0, &[0; 4])));
        wire.extend(frame(RST_STREAM, 0, &[0; 4]));
        wire.extend(frame(HEADERS, 0, b"x"));
        let last = frame(CONTINUATION, END_HEADERS, b"yz");
        for step in 1..=wire.len() {
            let mut guard = FrameGuard::new(Role::Client);
            for chunk in wire.chunks(step) {
                guard.follow(chunk);
            }
            assert_eq!(guard.settings(), 1, "step {step}");
            assert_eq!(guard.header_block(), Some(2), "step {step}");
            assert_eq!(guard.carrying(), 3, "step {step}");
            assert_eq!(guard.bytes(), wire.len() as u64);
            let (byte, rest) = last.split_last().unwrap();
            guard.follow(rest);
            assert!(guard.header_block().is_some(), "step {step}");
            guard.follow(&[*byte]);
            assert!(guard.header_block().is_none(), "step {step}");
            guard.follow(&frame(HEADERS, END_HEADERS, b""));
        }
    }

    #[test]
    fn data_that_carries_nothing_is_cut_out_however_the_bytes_are_split() {
        let empty = frame(DATA, 0, b"");
        let frames = [
            empty.clone(),
            frame(HEADERS, END_HEADERS, b"x"),
            empty.clone(),
            empty.clone(),
            // Not these: they end something, count against the window, or break a header block.
            frame(DATA, END_STREAM, b""),
            frame(DATA, PADDED, &[0]),
            frame(DATA, 0, &empty),
            frame(HEADERS, 0, b"x"),
            empty.clone(),
            frame(CONTINUATION, END_HEADERS, b"y"),
            frame(PING, 0, &[0; 8]),
            empty.clone(),
        ];
        let kept: Vec<u8> = [1, 4, 5, 6, 7, 8, 9, 10]
            .into_iter()
            .flat_map(|at: usize| frames[at].clone())
            .collect();
        let wire = frames.concat();
        for step in 1..=wire.len() {
            let mut guard = FrameGuard::new(Role::Server);
            let mut out = Vec::new();
            for chunk in wire.chunks(step) {
                let mut bytes = [guard.held(), chunk].concat();
                guard.follow(chunk);
                let whole = bytes.len() - guard.held().len();
                let len = guard.cut_empty(&mut bytes[..whole]);
                out.extend_from_slice(&bytes[..len]);
            }
            assert_eq!(out, kept, "step {step}");
            assert_eq!((guard.frames(), guard.carrying()), (12, 5), "step {step}");
        }
    }

    #[test]
    fn the_size_of_header_lists_is_read_from_settings_however_they_are_split() {
        let size = |value: u8| [0, 6, 0, 0, value, 7];
        let mut wire = frame(SETTINGS, 0, &[&[0, 4, 0, 6, 0, 0], &size(1)[..]].concat());
        wire.extend(frame(SETTINGS, 0, &[0, 1, 0, 6, 0, 6]));
        wire.extend(frame(SETTINGS, ACK, b""));
        wire.extend(frame(SETTINGS, 0, &[size(2), size(3)].concat()));
        // No SETTINGS.
        wire.extend(frame(PING, 0, &[&size(4)[..], &[0, 0]].concat()));
        for step in 1..=wire.len() {
            let mut guard = FrameGuard::new(Role::Server);
            let mut seen = Vec::new();
            for chunk in wire.chunks(step) {
                guard.follow(chunk);
                seen.extend(guard.take_header_list_size());
            }
            assert_eq!(seen.last(), Some(&0x0307), "step {step}");
            assert_eq!(guard.settings(), 4);
            if step == 1 {
                assert_eq!(seen, [0x0107, 0x0207, 0x0307]);
            }
        }
    }

    #[test]
    fn large_header_blocks_are_noted_with_their_streams_however_they_are_split() {
        let mut wire = frame(HEADERS, END_HEADERS, &[7; 99]);
        wire.extend(frame(HEADERS, END_HEADERS, &[7; 100]));
        wire.extend(frame(HEADERS, END_STREAM, &[7; 40]));
        wire.extend(frame(CONTINUATION, 0, &[7; 40]));
        wire.extend(frame(CONTINUATION, END_HEADERS, &[7; 40]));
        for step in 1..=wire.len() {
            let mut guard = FrameGuard::new(Role::Server).suspecting(120);
            for chunk in wire.chunks(step) {
                guard.follow(chunk);
            }
            // One that is seen in full at once is one frame, which is not large.
            let suspect = SuspectBlock {
                stream: 1,
                size: 120,
                ends_stream: true,
            };
            assert_eq!(guard.take_suspects(), [suspect], "step {step}");
            assert_eq!(guard.head_bytes(), 319, "step {step}");
            assert!(guard.take_suspects().is_empty());
        }
    }

    #[test]
    fn a_ping_that_wants_an_answer_is_told_from_one_that_is_an_answer() {
        let mut guard = FrameGuard::new(Role::Server);
        guard.follow(&frame(PING, 0, &[0; 8]));
        guard.follow(&frame(PING, ACK, &[0; 8]));
        assert_eq!((guard.pings(), guard.frames(), guard.carrying()), (1, 2, 0));
        let goaway = frame(GOAWAY, 0, &[0; 8]);
        guard.follow(&goaway[..goaway.len() - 1]);
        assert!(!guard.ends_with_goaway());
        guard.follow(&[0]);
        assert!(guard.ends_with_goaway());
    }

    #[test]
    fn streams_that_are_begun_are_told_from_trailers_in_frames_that_are_whole_or_cut() {
        let head = |stream: u32, flags| {
            let frame = frame(HEADERS, flags, b"x");
            [&frame[..5], &stream.to_be_bytes(), &frame[9..]].concat()
        };
        let bytes = [
            head(1, END_HEADERS),
            head(1, END_HEADERS | END_STREAM),
            head(5, END_HEADERS),
            head(3, END_HEADERS),
            head(7, 0),
        ]
        .concat();
        for size in 1..=bytes.len() {
            let mut guard = FrameGuard::new(Role::Server);
            bytes.chunks(size).for_each(|piece| guard.follow(piece));
            assert_eq!((guard.heads(), guard.begun()), (5, 3), "{size}");
        }
    }

    #[test]
    fn resets_that_blame_the_peer_are_told_from_those_that_do_not() {
        let mut guard = FrameGuard::new(Role::Server);
        for (code, errors) in [(0, 0), (8, 0), (1, 1), (5, 2), (7, 3), (11, 3)] {
            guard.follow(&frame(RST_STREAM, 0, &[0, 0, 0, code]));
            assert_eq!(guard.error_resets(), errors, "{code}");
            assert_eq!(guard.protocol_resets(), u64::from(errors > 0), "{code}");
            assert_eq!(guard.refused_resets(), u64::from(errors > 2), "{code}");
        }
    }

    #[test]
    fn the_first_bytes_tell_what_a_peer_speaks() {
        for (bytes, protocol) in [
            (&b""[..], PeerProtocol::Unknown),
            (b"HTTP/1.1 400 Bad Request", PeerProtocol::Http1),
            (b"GET / HTTP/1.1", PeerProtocol::Http1),
            (b"P", PeerProtocol::Http1),
            (b"PRI * HTTP/2.0", PeerProtocol::Http2),
            (b"PROPFIND / HTTP/1.1", PeerProtocol::Http2),
            (&[0x15, 0x03, 0x01, 0, 2], PeerProtocol::Tls),
            (&[0, 0, 18, 4, 0, 0, 0, 0, 0], PeerProtocol::Http2),
        ] {
            let mut guard = FrameGuard::new(Role::Server);
            for byte in bytes {
                guard.follow(&[*byte]);
            }
            assert_eq!(guard.peer_protocol(), protocol, "{bytes:?}");
        }
    }
}
