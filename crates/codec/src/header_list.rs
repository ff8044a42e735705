//! Header lists: their size, the limit of a peer, and the end of a call that exceeds it.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Uri};

use crate::code::Code;
use crate::header_names::{
    APPLICATION_GRPC, GRPC_ACCEPT_ENCODING, GRPC_MESSAGE, GRPC_STATUS, GRPC_STATUS_DETAILS,
};
use crate::percent;
use crate::status::{MAX_STATUS_MESSAGE_SIZE, Status};

/// The size of `:status`, with which the head of a response begins.
pub const STATUS_SIZE: usize = field_size(":status".len(), "200".len());

/// The number of characters of a peer's message that are repeated in one of ours.
const REPEATED: usize = 200;

// RFC 9113, 6.5.2, SETTINGS_MAX_HEADER_LIST_SIZE: 32 bytes of overhead for each field.
pub(crate) const fn field_size(name: usize, value: usize) -> usize {
    name + value + 32
}

/// Returns the size of these fields, as HTTP/2 counts it.
#[inline]
pub fn size(fields: &HeaderMap) -> usize {
    fields
        .iter()
        .map(|(name, value)| field_size(name.as_str().len(), value.len()))
        .sum()
}

/// Returns the size of the pseudo-headers of a request.
#[inline]
pub fn pseudo_size(method: &Method, uri: &Uri) -> usize {
    let authority = uri
        .authority()
        .map_or(0, |authority| authority.as_str().len());
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    field_size(":method".len(), method.as_str().len())
        + field_size(":scheme".len(), uri.scheme_str().map_or(0, str::len))
        + field_size(":authority".len(), authority)
        + field_size(":path".len(), path)
}

/// The size of the header lists that a peer accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The smallest size that is not sent, in bytes. h2, and with it hyper and tonic, refuses a list
    /// exactly as large as announced.
    pub limit: u32,
    /// The source of that size.
    pub source: Source,
}

/// The source of the limit for header lists that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// SETTINGS_MAX_HEADER_LIST_SIZE of the peer.
    Peer,
    /// `Http2Limits::max_send_header_list_size`: the peer's SETTINGS name no limit.
    Ours,
    /// The peer has not sent its SETTINGS.
    Early,
}

/// A part of a response that is too large to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A head that messages follow.
    Head,
    /// A head that is the end as well.
    TrailersOnly,
    /// Trailers.
    Trailers,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Head => "response headers",
            Self::TrailersOnly | Self::Trailers => "trailers",
        }
    }
}

impl Room {
    /// Returns the status of a call whose `what` has `size` bytes and does not fit.
    pub fn exceeded(self, what: &str, size: usize) -> Status {
        Status::resource_exhausted(format!("{}: send less metadata", self.excess(what, size)))
    }

    fn excess(self, what: &str, size: usize) -> String {
        let limit = self.limit;
        let source = match self.source {
            Source::Peer => "that their receiver announced (SETTINGS_MAX_HEADER_LIST_SIZE)",
            Source::Ours => "in max_send_header_list_size, as their receiver announced no limit",
            Source::Early => "that applies until their receiver has sent its SETTINGS",
        };
        format!("{size} bytes of {what} exceed the limit of {limit} {source}")
    }

    /// Returns the fields to send instead of `size` bytes of `what` that do not fit: code and message of
    /// `end`, and a note of the fields left out.
    ///
    /// Details go first, then all metadata, then the end of the message. A call that was OK becomes
    /// RESOURCE_EXHAUSTED, so that nothing is lost silently.
    pub fn shorten(self, what: What, size_before: usize, mut end: HeaderMap) -> HeaderMap {
        let code = end.remove(GRPC_STATUS);
        let message = end.remove(GRPC_MESSAGE);
        let has_details = end.remove(GRPC_STATUS_DETAILS).is_some();
        let content_type = end.remove(header::CONTENT_TYPE);
        end.remove(GRPC_ACCEPT_ENCODING);
        let mut short = HeaderMap::new();
        let mut room = (self.limit as usize).saturating_sub(1);
        if what != What::Trailers {
            room = room.saturating_sub(STATUS_SIZE);
            short.insert(
                header::CONTENT_TYPE,
                content_type.unwrap_or(APPLICATION_GRPC),
            );
        }
        let Some(code) = code.filter(|code| Code::from_header(code.as_bytes()) != Code::OK) else {
            let status = self.exceeded(what.name(), size_before);
            short.insert(GRPC_STATUS, status.code().to_header());
            insert_message(&mut short, status.message(), "", room);
            return short;
        };
        short.insert(GRPC_STATUS, code);
        let message = message.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        let message = percent::decode(message);
        let excess = self.excess(what.name(), size_before);
        let note = |left_out: &str| format!(" (left out: {left_out}; {excess})");
        if has_details && !end.is_empty() && what != What::Head {
            let mut with_metadata = short.clone();
            insert_message(&mut with_metadata, &message, &note("the details"), room);
            append_all(&mut with_metadata, &end);
            if size(&with_metadata) <= room {
                return with_metadata;
            }
        }
        let left_out = match (has_details, end.is_empty()) {
            (true, true) if what != What::Head => "the details",
            (true, _) => "the details and the metadata",
            (false, true) if what != What::Head => "the end of the message",
            (false, _) => "the metadata",
        };
        insert_message(&mut short, &message, &note(left_out), room);
        short
    }
}

/// Adds `grpc-message`, as much of it as fits after the other fields in `room` bytes. A note that
/// would take more than half of that is left out.
fn insert_message(fields: &mut HeaderMap, message: &str, note: &str, room: usize) {
    let taken = size(fields) + field_size(GRPC_MESSAGE.as_str().len(), 0);
    let room = room.saturating_sub(taken).min(MAX_STATUS_MESSAGE_SIZE);
    let note = if note.len() <= room / 2 { note } else { "" };
    let (encoded, sent) = percent::encode(message, room - note.len());
    if sent.is_empty() && note.is_empty() {
        return;
    }
    let value = [encoded.as_bytes(), note.as_bytes()].concat();
    if let Ok(value) = HeaderValue::try_from(value) {
        fields.insert(GRPC_MESSAGE, value);
    }
}

fn append_all(fields: &mut HeaderMap, more: &HeaderMap) {
    for (name, value) in more {
        let _fits = fields.try_append(name, value.clone()).is_ok();
    }
}

/// Returns the status of a call whose peer has sent at least `size` bytes of `what`, above `limit`. The
/// status that the peer sent in `fields` is repeated.
pub fn refused(what: &str, size: usize, limit: u32, fields: &HeaderMap) -> Status {
    let mut message = format!(
        "{size} bytes of {what} are more than the limit of {limit}: send less metadata, or raise Http2Limits::max_header_list_size_hard on this side"
    );
    if let Some(Err(status)) = Status::from_trailers(fields) {
        let status = status.to_string();
        message.push_str("; the peer ended the call with ");
        message.extend(status.chars().take(REPEATED));
    }
    Status::resource_exhausted(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let value = HeaderValue::try_from(*value).unwrap();
            (HeaderName::from_static(name), value)
        });
        pairs.collect()
    }

    fn room(limit: u32) -> Room {
        Room {
            limit,
            source: Source::Peer,
        }
    }

    fn shortened(limit: u32, end: &HeaderMap, is_head: bool) -> HeaderMap {
        let start = if is_head { STATUS_SIZE } else { 0 };
        let before = start + size(end);
        let what = if is_head {
            What::TrailersOnly
        } else {
            What::Trailers
        };
        let short = room(limit).shorten(what, before, end.clone());
        let after = start + size(&short);
        assert!(
            after < limit as usize || short.len() <= 2,
            "{after} bytes in {limit}: {short:?}"
        );
        short
    }

    #[test]
    fn details_go_first_then_metadata_then_the_end_of_the_message() {
        let details = "d".repeat(5_000);
        let custom = "c".repeat(3_000);
        let end = fields(&[
            ("grpc-status", "5"),
            ("grpc-message", "caf%C3%A9"),
            ("grpc-status-details-bin", &details),
            ("k", &custom),
        ]);
        for (limit, has_custom, says) in [
            (4_000, true, Some("left out: the details;")),
            (
                2_000,
                false,
                Some("left out: the details and the metadata;"),
            ),
            (300, false, None),
            (100, false, None),
            (0, false, None),
        ] {
            for is_head in [false, true] {
                let short = shortened(limit, &end, is_head);
                assert_eq!(short["grpc-status"], "5");
                assert_eq!(short.contains_key("k"), has_custom);
                assert!(!short.contains_key("grpc-status-details-bin"));
                assert_eq!(short.contains_key("content-type"), is_head);
                let message = short
                    .get("grpc-message")
                    .map_or("", |it| it.to_str().unwrap());
                match says {
                    Some(says) => {
                        assert!(message.starts_with("caf%C3%A9 ("), "{message}");
                        assert!(message.contains(says), "{message}");
                    }
                    None => assert!("caf%C3%A9".starts_with(message), "{message}"),
                }
            }
        }
    }

    #[test]
    fn a_message_is_cut_between_characters_and_keeps_its_note() {
        let message = "%C3%A9".repeat(2_000);
        let end = fields(&[("grpc-status", "5"), ("grpc-message", &message)]);
        for limit in 600..620 {
            let short = shortened(limit, &end, false);
            let text = percent::decode(short["grpc-message"].as_bytes()).into_owned();
            let (message, note) = text
                .split_once(" (left out: the end of the message;")
                .unwrap();
            assert!(message.len() > 50 && message.chars().all(|it| it == '\u{e9}'));
            assert!(note.contains(&limit.to_string()), "{note}");
        }
    }

    #[test]
    fn what_was_ok_is_not_ok_without_its_trailers() {
        let custom = "c".repeat(3_000);
        for end in [
            fields(&[("grpc-status", "0"), ("k", &custom)]),
            fields(&[("k", &custom)]),
        ] {
            let short = shortened(1_000, &end, false);
            assert_eq!(short["grpc-status"], "8");
            let message = short["grpc-message"].to_str().unwrap();
            assert!(message.contains(&size(&end).to_string()), "{message}");
        }
    }

    #[test]
    fn what_a_peer_said_is_repeated_in_a_refusal() {
        let long = "m".repeat(9_000);
        let end = fields(&[("grpc-status", "5"), ("grpc-message", &long)]);
        let status = refused("trailers", 40_000, 32_768, &end);
        assert_eq!(status.code(), Code::RESOURCE_EXHAUSTED);
        assert!(!status.is_from_peer());
        let text = status.message();
        for says in ["40000", "32768", "NOT_FOUND: mmm"] {
            assert!(text.contains(says), "{text}");
        }
        assert!(text.len() < 400, "{}", text.len());
        let ok = refused("trailers", 40_000, 32_768, &fields(&[("grpc-status", "0")]));
        assert!(
            ok.message()
                .ends_with("Http2Limits::max_header_list_size_hard on this side")
        );
    }
}
