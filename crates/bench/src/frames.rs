//! HTTP/2 frames, written and read by hand: into and out of flat buffers, with nothing allocated for
//! a frame.

use trunkline_testkit::{PREFACE, flag, kind, setting};

/// RFC 9113, section 4.1.
pub const HEADER_LEN: usize = 9;

/// RFC 9113, section 4.2: the largest payload of a frame, which we leave at its default.
pub const FRAME_MAX: usize = 16 * 1024;

/// What a stream may send us before we return window.
pub const STREAM_WINDOW: u32 = 1 << 20;

/// What a connection may send us before we return window.
pub const CONNECTION_WINDOW: u32 = 16 << 20;

/// RFC 9113, section 6.9.2: what windows are before anyone says otherwise.
pub const DEFAULT_WINDOW: u32 = 65_535;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes that follow.
    pub len: usize,
    /// One of [`kind`].
    pub kind: u8,
    /// Of [`flag`].
    pub flags: u8,
    /// The stream, 0 for the connection.
    pub stream: u32,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` until it is there.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, s0, s1, s2, s3, ..] = bytes else {
            return None;
        };
        Some(Self {
            len: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
        })
    }

    /// Appends the header.
    pub fn write(self, out: &mut Vec<u8>) {
        let [_, a, b, c] = (self.len as u32).to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        out.extend_from_slice(&[a, b, c, self.kind, self.flags, s0, s1, s2, s3]);
    }

    /// Whether all of `flags` are set.
    pub fn has(self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// Appends a frame.
pub fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let len = payload.len();
    Header {
        len,
        kind,
        flags,
        stream,
    }
    .write(out);
    out.extend_from_slice(payload);
}

/// Appends what a client says first: the preface, its settings, and its connection window.
pub fn put_greeting(out: &mut Vec<u8>) {
    out.extend_from_slice(PREFACE);
    let settings = [
        (setting::ENABLE_PUSH, 0),
        (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW),
    ];
    put_settings(out, &settings);
    put_window_update(out, 0, CONNECTION_WINDOW - DEFAULT_WINDOW);
}

/// Appends SETTINGS.
pub fn put_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let mut payload = Vec::new();
    for (id, value) in settings {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    put(out, kind::SETTINGS, 0, 0, &payload);
}

/// Appends WINDOW_UPDATE.
pub fn put_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    put(
        out,
        kind::WINDOW_UPDATE,
        0,
        stream,
        &increment.to_be_bytes(),
    );
}

/// The header blocks of a request: of the first on a connection, which fills the table of RFC 7541,
/// section 2.3.2, and of all later ones, which only point into it.
pub fn indexed_request(path: &str, authority: &str) -> (Vec<u8>, Vec<u8>) {
    // The static table, RFC 7541, appendix A: 1 :authority, 3 :method POST, 4 :path, 6 :scheme
    // http, 31 content-type, 58 user-agent. "te" is not in it.
    let mut first = vec![0x80 | 3, 0x80 | 6];
    for (name, value) in [(4, path), (1, authority)] {
        first.push(0x40 | name);
        put_string(&mut first, value);
    }
    first.push(0x40);
    put_string(&mut first, "te");
    put_string(&mut first, "trailers");
    for (name, value) in [(31, "application/grpc"), (58, "trunkline-bench/1")] {
        first.push(0x40 | name);
        put_string(&mut first, value);
    }
    // The newest entry of the table is 62: user-agent.
    let mut later = vec![0x80 | 3, 0x80 | 6];
    later.extend([66, 65, 64, 63, 62].map(|index| 0x80 | index));
    (first, later)
}

/// The header block of a request beside those of [`indexed_request`], on the same connection: its
/// path is written out and not put into the table.
pub fn literal_request(path: &str) -> Vec<u8> {
    let mut block = vec![0x80 | 3, 0x80 | 6, 4];
    put_string(&mut block, path);
    block.extend([65, 64, 63, 62].map(|index| 0x80 | index));
    block
}

/// The header blocks of a response: of the head, and of the trailers of a call that went well, with a load
/// report if there is one. Of the first on a connection, and of all later ones, as with [`indexed_request`].
pub fn indexed_response(load: Option<&str>) -> [(Vec<u8>, Vec<u8>); 2] {
    // The static table: 8 :status 200, 31 content-type.
    let mut head = vec![0x80 | 8, 0x40 | 31];
    put_string(&mut head, "application/grpc");
    let mut trailers = Vec::new();
    let mut later_trailers = Vec::new();
    if let Some(load) = load {
        trailers.push(0x40);
        put_string(&mut trailers, "endpoint-load-metrics-bin");
        put_string(&mut trailers, load);
        // Not indexed, as a report is seldom the same twice. Its name is entry 63: 15 and, as a second byte, 48.
        later_trailers.extend([0x0f, 63 - 15]);
        put_string(&mut later_trailers, load);
    }
    trailers.push(0x40);
    put_string(&mut trailers, "grpc-status");
    put_string(&mut trailers, "0");
    // The first head is decoded before the first trailers: grpc-status is the newest entry, and
    // content-type the oldest.
    later_trailers.push(0x80 | 62);
    let content_type = 63 + u8::from(load.is_some());
    [
        (head, vec![0x80 | 8, 0x80 | content_type]),
        (trailers, later_trailers),
    ]
}

/// RFC 7541, section 5.2, without the Huffman code. What we write is shorter than 127 bytes.
fn put_string(block: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() < 127);
    block.push(text.len() as u8);
    block.extend_from_slice(text.as_bytes());
}

/// Takes padding and priority off the payload of DATA or HEADERS: RFC 9113, sections 6.1 and 6.2.
pub fn unpadded(header: Header, mut payload: &[u8]) -> Option<&[u8]> {
    const PRIORITY: u8 = 0x20;
    let mut padding = 0;
    if header.has(flag::PADDED) {
        let (len, rest) = payload.split_first()?;
        (padding, payload) = (usize::from(*len), rest);
    }
    if header.kind == kind::HEADERS && header.has(PRIORITY) {
        payload = payload.get(5..)?;
    }
    payload.get(..payload.len().checked_sub(padding)?)
}

/// Four bytes as a number, at `at`; 0 if they are not there.
pub fn number(payload: &[u8], at: usize) -> u32 {
    let bytes = payload.get(at..at + 4).and_then(|it| it.try_into().ok());
    u32::from_be_bytes(bytes.unwrap_or_default())
}

/// The name of an error code: RFC 9113, section 7.
pub fn error_name(code: u32) -> String {
    let name = match code {
        0 => "NO_ERROR",
        1 => "PROTOCOL_ERROR",
        2 => "INTERNAL_ERROR",
        3 => "FLOW_CONTROL_ERROR",
        5 => "STREAM_CLOSED",
        6 => "FRAME_SIZE_ERROR",
        7 => "REFUSED_STREAM",
        8 => "CANCEL",
        9 => "COMPRESSION_ERROR",
        11 => "ENHANCE_YOUR_CALM",
        _ => return format!("error {code}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_testkit::Frame;

    #[test]
    fn a_frame_is_what_the_tests_own_writer_writes() {
        for (kind, flags, stream, len) in [
            (kind::DATA, flag::END_STREAM, 1, 0),
            (kind::HEADERS, flag::END_HEADERS, 0x7fff_ffff, 7),
            (kind::PING, flag::ACK, 0, 8),
            (kind::DATA, 0, 65_537, FRAME_MAX),
        ] {
            let payload = vec![7; len];
            let mut out = Vec::new();
            put(&mut out, kind, flags, stream, &payload);
            let mut theirs = bytes::BytesMut::new();
            Frame::new(kind, flags, stream, payload).write_to(&mut theirs);
            assert_eq!(out, theirs);
            let read = Header::read(&out).expect("nine bytes are there");
            assert_eq!(
                (read.len, read.kind, read.flags, read.stream),
                (len, kind, flags, stream)
            );
            assert_eq!(Header::read(&out[..HEADER_LEN - 1]), None);
        }
    }

    #[test]
    fn a_foreign_decoder_reads_the_same_request_from_both_blocks() {
        let mut decoder = loona_hpack::Decoder::new();
        let (first, later) = indexed_request("/a.B/C", "127.0.0.1:1");
        let fields = decoder.decode(&first).expect("the first block is right");
        assert_eq!(fields.len(), 7);
        assert_eq!(fields[2], (b":path".to_vec(), b"/a.B/C".to_vec()));
        assert_eq!(fields[4], (b"te".to_vec(), b"trailers".to_vec()));
        assert_eq!(
            decoder.decode(&later).expect("the later block is right"),
            fields
        );
        assert!(later.len() <= 10);
        let mut other = decoder
            .decode(&literal_request("/a.B/D"))
            .expect("the literal block is right");
        assert_eq!(other[2].1, b"/a.B/D");
        other[2].1 = b"/a.B/C".to_vec();
        assert_eq!(other, fields);
        assert_eq!(
            decoder.decode(&later).expect("the table is as it was"),
            fields
        );
    }

    #[test]
    fn a_foreign_decoder_reads_the_same_response_from_all_blocks() {
        let field = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let head = [
            field(":status", "200"),
            field("content-type", "application/grpc"),
        ];
        let ended = field("grpc-status", "0");
        let loaded = field("endpoint-load-metrics-bin", "AAAA");
        for (load, trailers) in [
            (None, vec![ended.clone()]),
            (Some("AAAA"), vec![loaded, ended]),
        ] {
            let mut decoder = loona_hpack::Decoder::new();
            let [heads, ends] = indexed_response(load);
            for (block, expected) in [
                (heads.0, &head[..]),
                (ends.0, &trailers),
                (heads.1.clone(), &head),
                // Two calls may be answered before either ends.
                (heads.1, &head),
                (ends.1.clone(), &trailers),
                (ends.1, &trailers),
            ] {
                let fields = decoder.decode(&block).expect("the block is right");
                assert_eq!(fields, expected);
            }
        }
    }

    #[test]
    fn padding_and_priority_are_taken_off_and_too_much_padding_is_refused() {
        let header = |kind, flags| Header {
            len: 0,
            kind,
            flags,
            stream: 1,
        };
        let padded = header(kind::DATA, flag::PADDED);
        assert_eq!(unpadded(padded, &[2, 9, 0, 0]), Some(&[9][..]));
        assert_eq!(unpadded(padded, &[3, 9, 0, 0]), Some(&[][..]));
        assert_eq!(unpadded(padded, &[4, 9, 0, 0]), None);
        assert_eq!(unpadded(padded, &[]), None);
        let priority = header(kind::HEADERS, 0x20);
        assert_eq!(unpadded(priority, &[0, 0, 0, 0, 1, 7]), Some(&[7][..]));
        assert_eq!(unpadded(priority, &[0, 0, 0]), None);
    }
}
