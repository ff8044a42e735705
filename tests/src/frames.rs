//! What tshark makes of a capture, as a list of HTTP/2 frames with their headers and messages.

use std::collections::VecDeque;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// The end of the connection that sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that opened the connection.
    Client,
    /// The end at the captured port.
    Server,
}

/// The type of a frame (RFC 9113, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// DATA.
    Data,
    /// HEADERS.
    Headers,
    /// PRIORITY.
    Priority,
    /// RST_STREAM.
    RstStream,
    /// SETTINGS.
    Settings,
    /// PUSH_PROMISE.
    PushPromise,
    /// PING.
    Ping,
    /// GOAWAY.
    Goaway,
    /// WINDOW_UPDATE.
    WindowUpdate,
    /// CONTINUATION.
    Continuation,
    /// Any other number.
    Unknown(u8),
}

/// One HTTP/2 frame of a capture.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The number of the packet that completes it, as tshark counts.
    pub packet: u32,
    /// Which of the capture's TCP connections it travels on, from 0.
    pub connection: u32,
    /// Who sent it.
    pub from: Side,
    /// The stream, 0 for the connection.
    pub stream: u32,
    /// Its type.
    pub kind: Kind,
    /// The length of its payload, in bytes.
    pub length: u32,
    /// Whether END_STREAM is set.
    pub end_stream: bool,
    /// Whether ACK is set, on SETTINGS and PING.
    pub ack: bool,
    /// Pseudo-headers, headers or trailers, in order. A block that continues in other frames is listed with the last.
    pub headers: Vec<(String, String)>,
    /// What else the frame says, under tshark's names without `http2.`: `rst_stream.error`, `settings.max_frame_size`.
    pub fields: Vec<(String, String)>,
    /// The gRPC messages that this frame completes.
    pub messages: Vec<Message>,
}

/// One gRPC message of a capture.
#[derive(Clone, Debug)]
pub struct Message {
    /// The compressed flag of its prefix.
    pub compressed: bool,
    /// Its length on the wire, in bytes.
    pub length: u32,
    /// Its type, such as `grpc.testing.SimpleRequest`; empty when tshark does not know it.
    pub name: String,
    /// Its fields and those of its sub-messages, such as `grpc.testing.EchoStatus.code`, with their values. Bytes are in
    /// hexadecimal, with colons.
    pub fields: Vec<(String, String)>,
}

impl Frame {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        first(&self.headers, name)
    }

    /// The first other field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        first(&self.fields, name)
    }
}

impl Message {
    /// The first field of this full name.
    pub fn field(&self, name: &str) -> Option<&str> {
        first(&self.fields, name)
    }
}

/// One line, and one more for each message.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.from == Side::Client {
            "C>S"
        } else {
            "S>C"
        };
        write!(
            f,
            "{:>5} {side}/{} #{} {}",
            self.packet, self.connection, self.stream, self.kind
        )?;
        if self.end_stream {
            f.write_str("+END_STREAM")?;
        }
        if self.ack {
            f.write_str("+ACK")?;
        }
        write!(f, " length={}", self.length)?;
        for (name, value) in &self.fields {
            write!(f, " {name}={value}")?;
        }
        for (name, value) in &self.headers {
            write!(f, " [{name}: {value}]")?;
        }
        for message in &self.messages {
            let compressed = if message.compressed {
                " compressed"
            } else {
                ""
            };
            write!(
                f,
                "\n        {}{compressed} length={}",
                message.name, message.length
            )?;
            for (name, value) in &message.fields {
                // Long enough to recognise a payload by.
                write!(f, " {name}={:.48}", value)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "DATA",
            Self::Headers => "HEADERS",
            Self::Priority => "PRIORITY",
            Self::RstStream => "RST_STREAM",
            Self::Settings => "SETTINGS",
            Self::PushPromise => "PUSH_PROMISE",
            Self::Ping => "PING",
            Self::Goaway => "GOAWAY",
            Self::WindowUpdate => "WINDOW_UPDATE",
            Self::Continuation => "CONTINUATION",
            Self::Unknown(number) => return write!(f, "UNKNOWN({number})"),
        })
    }
}

/// The frames in tshark's JSON, given the server's port.
///
/// # Errors
///
/// When the text is not JSON.
pub(crate) fn parse(json: &str, port: u16) -> Result<Vec<Frame>, serde_json::Error> {
    let document: Tree = serde_json::from_str(json)?;
    let mut frames = Vec::new();
    for packet in document.items() {
        let Some(layers) = packet
            .child("_source")
            .and_then(|source| source.child("layers"))
        else {
            continue;
        };
        let number = |layer, field| layers.child(layer).map_or(0, |layer| layer.number(field));
        let packet = number("frame", "frame.number");
        let connection = number("tcp", "tcp.stream");
        let from = if number("tcp", "tcp.dstport") == u32::from(port) {
            Side::Client
        } else {
            Side::Server
        };
        for (name, layer) in layers.children() {
            match name.as_str() {
                "http2" => {
                    let streams = layer
                        .children()
                        .iter()
                        .filter(|(name, _)| name == "http2.stream");
                    frames.extend(
                        streams.filter_map(|(_, tree)| frame(tree, packet, connection, from)),
                    );
                }
                // A message follows the frame that completes it.
                "grpc" => {
                    let message = Message {
                        compressed: layer.number("grpc.compressed_flag") == 1,
                        length: layer.number("grpc.message_length"),
                        name: String::new(),
                        fields: Vec::new(),
                    };
                    frames
                        .last_mut()
                        .into_iter()
                        .for_each(|frame: &mut Frame| frame.messages.push(message.clone()));
                }
                "protobuf" => {
                    let last = frames
                        .last_mut()
                        .and_then(|frame: &mut Frame| frame.messages.last_mut());
                    if let Some(message) = last {
                        message.name = layer.leaf("protobuf.message.name").to_owned();
                        message.fields = leaves(layer, "pbf.");
                    }
                }
                _ => {}
            }
        }
    }
    Ok(frames)
}

/// `None` for what is no frame: the client's preface.
fn frame(tree: &Tree, packet: u32, connection: u32, from: Side) -> Option<Frame> {
    let kind = match tree.leaf("http2.type").parse().ok()? {
        0 => Kind::Data,
        1 => Kind::Headers,
        2 => Kind::Priority,
        3 => Kind::RstStream,
        4 => Kind::Settings,
        5 => Kind::PushPromise,
        6 => Kind::Ping,
        7 => Kind::Goaway,
        8 => Kind::WindowUpdate,
        9 => Kind::Continuation,
        number => Kind::Unknown(number),
    };
    let flags = tree.child("http2.flags_tree");
    let is_set = |flag| flags.is_some_and(|flags| flags.leaf(flag) == "1");
    let headers = tree
        .children()
        .iter()
        .filter(|(name, _)| name == "http2.header");
    let fields = [
        "http2.rst_stream.",
        "http2.goaway.",
        "http2.ping",
        "http2.pong",
        "http2.window_update.window",
        "http2.settings.",
    ];
    Some(Frame {
        packet,
        connection,
        from,
        stream: tree.number("http2.streamid"),
        kind,
        length: tree.number("http2.length"),
        end_stream: is_set("http2.flags.end_stream"),
        ack: is_set("http2.flags.ack.settings") || is_set("http2.flags.ack.ping"),
        headers: headers
            .map(|(_, header)| {
                (
                    header.leaf("http2.header.name").to_owned(),
                    header.leaf("http2.header.value").to_owned(),
                )
            })
            .collect(),
        fields: fields
            .iter()
            .flat_map(|prefix| leaves(tree, prefix))
            .filter(|(name, _)| name != "http2.settings.id")
            .map(|(name, value)| (name.trim_start_matches("http2.").to_owned(), value))
            .collect(),
        messages: Vec::new(),
    })
}

/// All texts below `tree` whose name begins with `prefix`, in order; `pbf.` is not part of a field's name.
fn leaves(tree: &Tree, prefix: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut next: VecDeque<_> = tree.children().iter().collect();
    while let Some((name, tree)) = next.pop_front() {
        match tree {
            Tree::Text(text) if name.starts_with(prefix) => {
                found.push((name.trim_start_matches("pbf.").to_owned(), text.clone()));
            }
            Tree::Text(_) => {}
            Tree::List(_) | Tree::Map(_) => tree
                .children()
                .iter()
                .rev()
                .for_each(|child| next.push_front(child)),
        }
    }
    found
}

fn first<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs
        .iter()
        .find(|(found, _)| found == name)
        .map(|(_, value)| value.as_str())
}

/// JSON with its order and its repeated keys: tshark writes one key per header, frame and message, all of the same name.
enum Tree {
    Text(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Tree {
    fn items(&self) -> &[Self] {
        if let Self::List(items) = self {
            items
        } else {
            &[]
        }
    }

    fn children(&self) -> &[(String, Self)] {
        if let Self::Map(children) = self {
            children
        } else {
            &[]
        }
    }

    fn child(&self, name: &str) -> Option<&Self> {
        self.children()
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, child)| child)
    }

    fn leaf(&self, name: &str) -> &str {
        if let Some(Self::Text(text)) = self.child(name) {
            text
        } else {
            ""
        }
    }

    fn number(&self, name: &str) -> u32 {
        self.leaf(name).parse().unwrap_or(0)
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what tshark writes: texts, lists and maps")
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    // `null` stands for what tshark leaves out.
    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Text(String::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut children = Vec::new();
        while let Some(child) = map.next_entry()? {
            children.push(child);
        }
        Ok(Tree::Map(children))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_keep_their_order_headers_and_messages() {
        let json = r#"[{"_source": {"layers": {
            "frame": {"frame.number": "7"},
            "tcp": {"tcp.stream": "1", "tcp.dstport": "50051"},
            "http2": {"http2.stream": {"http2.magic": "PRI"}, "http2.stream": {"http2.type": "1", "http2.streamid": "3",
                "http2.length": "20", "http2.flags_tree": {"http2.flags.end_stream": "0"},
                "http2.header": {"http2.header.name": "te", "http2.header.value": "trailers"},
                "http2.header": {"http2.header.name": "x", "http2.header.value": ""}}},
            "http2": {"http2.stream": {"http2.type": "0", "http2.streamid": "3", "http2.length": "12",
                "http2.flags_tree": {"http2.flags.end_stream": "1"}}},
            "grpc": {"grpc.compressed_flag": "0", "grpc.message_length": "7"},
            "protobuf": {"protobuf.message.name": "a.B", "pbf.a.B.c": "1", "pbf.a.B.d_tree": {"pbf.a.D.e": "text"}},
            "http2": {"http2.stream": {"http2.type": "3", "http2.streamid": "1", "http2.length": "4",
                "http2.rst_stream.error": "8"}}
        }}}]"#;
        let listing: Vec<_> = parse(json, 50051)
            .unwrap()
            .iter()
            .map(Frame::to_string)
            .collect();
        assert_eq!(
            listing,
            [
                "    7 C>S/1 #3 HEADERS length=20 [te: trailers] [x: ]",
                "    7 C>S/1 #3 DATA+END_STREAM length=12\n        a.B length=7 a.B.c=1 a.D.e=text",
                "    7 C>S/1 #1 RST_STREAM length=4 rst_stream.error=8",
            ]
        );
        assert!(parse("{", 1).is_err());
    }
}
