//! The percent-encoding of `grpc-message`.

use std::borrow::Cow;

use http::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS};

/// The characters that are encoded, in addition to every byte above 0x7e.
// PROTOCOL-HTTP2.md, "Responses": Percent-Byte-Unencoded is %x20-%x24 / %x26-%x7E.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Encodes `message` for the `grpc-message` header, in at most `max_size` bytes: what does not fit
/// is left out, whole characters at a time.
///
/// The second value is how much of `message` went in.
pub fn encode(message: &str, max_size: usize) -> (HeaderValue, &str) {
    let sent = cut(message, max_size);
    let value = match is_plain(sent) {
        true => HeaderValue::from_str(sent),
        false => HeaderValue::try_from(encode_all(sent)),
    };
    (
        value.expect("percent-encoded text is printable ASCII"),
        sent,
    )
}

/// Decodes the value of a `grpc-message` header.
///
/// Never fails: broken escapes stay as they are, and what is not UTF-8 becomes the replacement
/// character.
///
/// ```
/// assert_eq!(trunkline_codec::percent::decode(b"caf%C3%A9, 100%"), "caf\u{e9}, 100%");
/// ```
// PROTOCOL-HTTP2.md, "Responses": when decoding invalid values, implementations MUST NOT error or
// throw away the message.
pub fn decode(value: &[u8]) -> Cow<'_, str> {
    percent_encoding::percent_decode(value).decode_utf8_lossy()
}

/// The longest start of `message` that takes at most `max_size` bytes once encoded.
fn cut(message: &str, max_size: usize) -> &str {
    // No byte takes more than three, so that most messages need no count.
    if message.len() <= max_size / 3 {
        return message;
    }
    let mut size = 0;
    for (at, character) in message.char_indices() {
        size += encoded_size(character);
        if size > max_size {
            return &message[..at];
        }
    }
    message
}

/// The size of `character` once encoded. A space is counted as if it stood at an end.
fn encoded_size(character: char) -> usize {
    match character {
        '!'..='$' | '&'..='~' => 1,
        _ => 3 * character.len_utf8(),
    }
}

fn is_plain(message: &str) -> bool {
    let bytes = message.as_bytes();
    let ends_in_space = bytes.first() == Some(&b' ') || bytes.last() == Some(&b' ');
    !ends_in_space
        && bytes
            .iter()
            .all(|byte| matches!(byte, b' '..=b'$' | b'&'..=b'~'))
}

fn encode_all(message: &str) -> String {
    let inner = message.trim_matches(' ');
    let leading = message.len() - message.trim_start_matches(' ').len();
    let trailing = message.len() - leading - inner.len();
    // RFC 9113, 8.2.1: a field value must not start or end with a space, and a peer may treat one
    // that does as malformed.
    let mut encoded = "%20".repeat(leading);
    encoded.extend(percent_encoding::utf8_percent_encode(inner, ENCODED));
    encoded.push_str(&"%20".repeat(trailing));
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(message: &str) -> String {
        let (value, sent) = encode(message, usize::MAX);
        assert_eq!(sent, message);
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn messages_encode_and_come_back() {
        let table = [
            ("", ""),
            ("no such feature", "no such feature"),
            (
                "~ !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}",
                "~ !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}",
            ),
            ("100%", "100%25"),
            (" ends in spaces  ", "%20ends in spaces%20%20"),
            ("   ", "%20%20%20"),
            ("\u{7f}\0", "%7F%00"),
            (
                "\t\ntest with whitespace\r\nand Unicode BMP \u{263a} and non-BMP \u{1f608}\t\n",
                "%09%0Atest with whitespace%0D%0Aand Unicode BMP %E2%98%BA and non-BMP %F0%9F%98%88%09%0A",
            ),
        ];
        for (message, expected) in table {
            assert_eq!(encoded(message), expected);
            assert_eq!(decode(expected.as_bytes()), message);
        }
    }

    #[test]
    fn broken_values_decode_to_something() {
        let table: [(&[u8], &str); 8] = [
            (b"%", "%"),
            (b"%4", "%4"),
            (b"%zz%41", "%zzA"),
            (b"%c3%a9", "\u{e9}"),
            (b"%C3", "\u{fffd}"),
            (b"%FF%FEx", "\u{fffd}\u{fffd}x"),
            (b"\xff raw", "\u{fffd} raw"),
            (b"%%25", "%%"),
        ];
        for (value, expected) in table {
            assert_eq!(decode(value), expected);
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let table = [
            ("abcdef", 5, "abcde"),
            ("abcdef", 6, "abcdef"),
            ("abcdef", 7, "abcdef"),
            ("ab\u{e9}f", 7, "ab"),
            ("ab\u{e9}f", 8, "ab\u{e9}"),
            ("ab\u{e9}f", 9, "ab\u{e9}f"),
            ("abc", 0, ""),
        ];
        for (message, max_size, expected) in table {
            let (value, sent) = encode(message, max_size);
            assert_eq!(sent, expected, "{message} in {max_size}");
            assert!(value.len() <= max_size);
        }
    }
}
