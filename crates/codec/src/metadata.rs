//! Metadata: the key-value pairs of a head or of trailers.

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Base64 as `-bin` values need it.
// PROTOCOL-HTTP2.md, "Requests": implementations MUST accept padded and un-padded values and should
// emit un-padded values.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The metadata of a call: the key-value pairs that an application adds to a request or a response.
///
/// Keys are case-insensitive: methods accept upper case, which becomes lower case. A key can have several
/// values. The values of a key that ends in `-bin` are bytes; those of any other key are printable ASCII text.
/// A value from a peer that breaks these rules, such as text outside of ASCII, is kept unchanged, and can be
/// sent back.
///
/// Metadata is stored in a `http::HeaderMap`, together with the headers of HTTP and gRPC, such as
/// `content-type` and `grpc-status`. These headers are reserved: the methods for keys neither return nor set
/// them. The exceptions are `user-agent`, `grpc-retry-pushback-ms`, `grpc-trace-bin` and `grpc-tags-bin`;
/// `grpc-previous-rpc-attempts`, the number of earlier attempts of a call, can be read. Metadata can have up
/// to 24,576 different keys, the limit of `http::HeaderMap`.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::Metadata;
///
/// let mut metadata = Metadata::new();
/// metadata.insert("trace-id", "abc")?;
/// metadata.insert_bin("trace-bin", [0, 159, 146, 150])?;
/// assert_eq!(metadata.get("trace-id"), Some("abc"));
/// assert_eq!(metadata.get_bin("trace-bin").unwrap()[..], [0, 159, 146, 150]);
/// assert!(metadata.insert("grpc-status", "0").is_err());
/// # Ok::<(), trunkline_codec::MetadataError>(())
/// ```
#[derive(Clone, Default)]
pub struct Metadata {
    headers: HeaderMap,
    origin: Origin,
}

/// The source of the headers: those of a peer can contain keys of the protocol.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
enum Origin {
    /// Every key was checked on its way in.
    #[default]
    Own,
    /// The headers are a peer's: its keys are checked on their way out.
    Peer,
}

impl Metadata {
    /// Creates empty metadata, without allocating.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates metadata from the headers or trailers of a peer, without copying them. Reserved headers are
    /// not removed; only [`as_headers`](Self::as_headers) and [`into_headers`](Self::into_headers) return
    /// them.
    #[inline]
    pub fn from_headers(headers: HeaderMap) -> Self {
        Self {
            headers,
            origin: Origin::Peer,
        }
    }

    /// Sets `key` to one text value and removes its other values. White space at the start and the end of
    /// the value is removed.
    ///
    /// # Errors
    ///
    /// [`MetadataError`] if the key is invalid, reserved, or ends in `-bin`, if the value is not
    /// printable ASCII, or if the metadata has 24,576 keys already.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<(), MetadataError> {
        let (name, value) = (text_key(key)?, text_value(key, value)?);
        self.set(name, value)
    }

    /// Adds a text value to the values of `key`.
    ///
    /// # Errors
    ///
    /// As for [`insert`](Self::insert).
    pub fn append(&mut self, key: &str, value: &str) -> Result<(), MetadataError> {
        let (name, value) = (text_key(key)?, text_value(key, value)?);
        self.add(name, value)
    }

    /// Sets `key`, which must end in `-bin`, to one binary value and removes its other values.
    ///
    /// # Errors
    ///
    /// [`MetadataError`] if the key is invalid, reserved, or does not end in `-bin`, or if the metadata has
    /// 24,576 keys already.
    pub fn insert_bin(&mut self, key: &str, value: impl AsRef<[u8]>) -> Result<(), MetadataError> {
        let name = bin_key(key)?;
        self.set(name, encode_bin(value.as_ref()))
    }

    /// Adds a binary value to the values of `key`, which must end in `-bin`.
    ///
    /// # Errors
    ///
    /// As for [`insert_bin`](Self::insert_bin).
    pub fn append_bin(&mut self, key: &str, value: impl AsRef<[u8]>) -> Result<(), MetadataError> {
        let name = bin_key(key)?;
        self.add(name, encode_bin(value.as_ref()))
    }

    /// Returns the first value of `key`, or `None` if it has no value or the first is not printable ASCII.
    ///
    /// For a key that ends in `-bin`, this is the value in base64; [`get_bin`](Self::get_bin) decodes it.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.value(key)?.to_str().ok()
    }

    /// Returns all values of `key` that are printable ASCII, in order.
    pub fn get_all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.values(key).filter_map(|value| value.to_str().ok())
    }

    /// Decodes the first value of `key`, which must end in `-bin`. Returns `None` if it has no value or the
    /// first is not valid base64.
    pub fn get_bin(&self, key: &str) -> Option<Bytes> {
        if !is_bin(key) {
            return None;
        }
        first_bin(self.value(key)?)
    }

    /// Decodes all values of `key`, which must end in `-bin`, in order. Skips those that are not valid base64.
    pub fn get_all_bin(&self, key: &str) -> impl Iterator<Item = Bytes> {
        let values = is_bin(key).then(|| self.values(key));
        values
            .into_iter()
            .flatten()
            .flat_map(split_bin)
            .filter_map(decode_bin)
    }

    /// Adds all pairs of `other`, such as the metadata of a request that a handler sends back. `user-agent`
    /// replaces an earlier one. Reserved headers in `other` are not added, nor are pairs once there are
    /// 24,576 keys.
    ///
    /// ```
    /// # use trunkline_codec as trunkline;
    /// use trunkline::Metadata;
    ///
    /// let mut received = Metadata::new();
    /// received.insert("trace-id", "abc")?;
    /// let mut sent = Metadata::new();
    /// sent.insert("trace-id", "def")?;
    /// sent.extend(received);
    /// assert!(sent.get_all("trace-id").eq(["def", "abc"]));
    /// # Ok::<(), trunkline_codec::MetadataError>(())
    /// ```
    pub fn extend(&mut self, other: Self) {
        other.merge_into(&mut self.headers);
    }

    /// Removes all values of `key`, and returns true if it had any.
    pub fn remove(&mut self, key: &str) -> bool {
        self.value(key).is_some() && self.headers.remove(key).is_some()
    }

    /// Returns true if `key` has a value.
    pub fn contains_key(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Returns an iterator over all keys and values, of type `&str` and `&HeaderValue`. A key with several
    /// values appears once for each of them. The values of keys that end in `-bin` are in base64.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            headers: self.headers.iter(),
            origin: self.origin,
        }
    }

    /// Returns the number of pairs.
    pub fn len(&self) -> usize {
        match self.origin {
            Origin::Own => self.headers.len(),
            Origin::Peer => self.iter().count(),
        }
    }

    /// Returns true if the metadata has no pairs.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Returns the map that stores the metadata. If it came from a peer, it includes reserved headers.
    #[inline]
    pub fn as_headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the map that stores the metadata. If it came from a peer, it includes reserved headers, which
    /// [`merge_into`](Self::merge_into) leaves out.
    #[inline]
    pub fn into_headers(self) -> HeaderMap {
        self.headers
    }

    /// Adds the pairs to `headers`, to be sent. `user-agent` replaces an earlier one. Reserved headers from a
    /// peer are not added, nor are pairs once `headers` has 24,576 keys.
    pub fn merge_into(self, headers: &mut HeaderMap) {
        if self.headers.is_empty() {
            return;
        }
        if self.origin == Origin::Own && headers.is_empty() {
            *headers = self.headers;
            return;
        }
        let origin = self.origin;
        let mut last: Option<HeaderName> = None;
        for (name, value) in self.headers {
            // A header map yields the name with the first of its values only.
            let is_first = name.is_some();
            last = name.or(last);
            let Some(name) = &last else { continue };
            if origin == Origin::Peer && is_never_set(name.as_str()) {
                continue;
            }
            let _fits = match is_first && *name == header::USER_AGENT {
                true => headers.try_insert(name, value).is_ok(),
                false => headers.try_append(name, value).is_ok(),
            };
        }
    }

    fn set(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), MetadataError> {
        match self.headers.try_insert(&name, value) {
            Ok(_) => Ok(()),
            Err(_) => Err(MetadataError::Full {
                key: name.as_str().into(),
            }),
        }
    }

    fn add(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), MetadataError> {
        match self.headers.try_append(&name, value) {
            Ok(_) => Ok(()),
            Err(_) => Err(MetadataError::Full {
                key: name.as_str().into(),
            }),
        }
    }

    fn value(&self, key: &str) -> Option<&HeaderValue> {
        let value = self.headers.get(key)?;
        self.shows_key(key).then_some(value)
    }

    fn values(&self, key: &str) -> impl Iterator<Item = &HeaderValue> {
        let shown = self.shows_key(key);
        self.headers.get_all(key).into_iter().filter(move |_| shown)
    }

    /// Returns true if the field of this key, in any case, is shown as metadata.
    fn shows_key(&self, key: &str) -> bool {
        match self.origin {
            Origin::Own => true,
            Origin::Peer if key.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                !is_reserved(&key.to_ascii_lowercase())
            }
            Origin::Peer => !is_reserved(key),
        }
    }
}

impl<'a> IntoIterator for &'a Metadata {
    type Item = (&'a str, &'a HeaderValue);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The pairs of [`Metadata`], as [`Metadata::iter`] returns them.
///
/// ```
/// # use trunkline_codec as trunkline;
/// use trunkline::Metadata;
///
/// let mut metadata = Metadata::new();
/// metadata.insert("trace-id", "abc")?;
/// for (key, value) in metadata.iter() {
///     println!("{key}: {value:?}");
/// }
/// # Ok::<(), trunkline::MetadataError>(())
/// ```
#[derive(Debug)]
pub struct Iter<'a> {
    headers: header::Iter<'a, HeaderValue>,
    origin: Origin,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a HeaderValue);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.headers
            .by_ref()
            .map(|(name, value)| (name.as_str(), value))
            .find(|(name, _)| self.origin == Origin::Own || !is_reserved(name))
    }
}

/// Compares the pairs, regardless of the order of the keys.
impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        let has_all = |one: &Self, other: &Self| {
            one.iter().all(|(key, _)| {
                one.headers
                    .get_all(key)
                    .iter()
                    .eq(other.headers.get_all(key).iter())
            })
        };
        self.len() == other.len() && has_all(self, other)
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The error returned for an invalid key or value of [`Metadata`].
///
/// It contains the key, but not the value, which may be a secret.
///
/// ```
/// # mod trunkline { pub use trunkline_codec::Metadata; pub use trunkline_codec as codec; }
/// use trunkline::Metadata;
/// use trunkline::codec::MetadataError;
///
/// let error = Metadata::new().insert("grpc-status", "0").unwrap_err();
/// assert!(matches!(error, MetadataError::Reserved { .. }));
/// assert_eq!(error.to_string(), r#"metadata key "grpc-status" is reserved for the protocol"#);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetadataError {
    /// The key is that of a header of gRPC or HTTP.
    Reserved {
        /// The key.
        key: Box<str>,
    },
    /// The key is empty, or contains characters other than digits, ASCII letters, `_`, `-` and `.`
    Key {
        /// The key.
        key: Box<str>,
    },
    /// The value of a text key has a character that is not printable ASCII.
    Value {
        /// The key.
        key: Box<str>,
    },
    /// A text value was given for a key that ends in `-bin`.
    Binary {
        /// The key.
        key: Box<str>,
    },
    /// Bytes were given for a key that does not end in `-bin`.
    Text {
        /// The key.
        key: Box<str>,
    },
    /// The metadata has 24,576 different keys already.
    Full {
        /// The key.
        key: Box<str>,
    },
}

impl fmt::Display for MetadataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved { key } => {
                write!(f, "metadata key {key:?} is reserved for the protocol")
            }
            Self::Key { key } => write!(
                f,
                "metadata key {key:?} can contain only the characters 0-9 a-z _ - ."
            ),
            Self::Value { key } => write!(
                f,
                "the value of metadata key {key:?} is not printable ASCII"
            ),
            Self::Binary { key } => write!(
                f,
                "metadata key {key:?} ends in -bin and takes bytes, not text"
            ),
            Self::Text { key } => write!(
                f,
                "metadata key {key:?} takes bytes only if it ends in -bin"
            ),
            Self::Full { key } => write!(
                f,
                "cannot add metadata key {key:?}: there are too many keys"
            ),
        }
    }
}

impl std::error::Error for MetadataError {}

/// Returns true if applications cannot set a key in lower case: one that is reserved, or that only clients set, for each
/// attempt (gRFC A6, "Exposed Retry Metadata").
fn is_never_set(key: &str) -> bool {
    is_reserved(key) || key == "grpc-previous-rpc-attempts"
}

/// Returns true if a key in lower case belongs to the protocol, to HTTP, or to the connection.
pub(crate) fn is_reserved(key: &str) -> bool {
    // PROTOCOL-HTTP2.md, "Requests": names starting with "grpc-" are reserved, whether they have a
    // use yet or not. Those let through are set by applications and tracing in every
    // implementation: gRFC A6, gRFC A45 and the census headers.
    if let Some(rest) = key.strip_prefix("grpc-") {
        return !matches!(
            rest,
            "previous-rpc-attempts" | "retry-pushback-ms" | "trace-bin" | "tags-bin"
        );
    }
    // RFC 9113, 8.2.2: headers that concern the connection are malformed in HTTP/2.
    matches!(
        key,
        "te" | "content-type"
            | "content-length"
            | "host"
            | "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
            | "trailer"
    ) || key.starts_with(':')
}

fn is_bin(key: &str) -> bool {
    key.len() >= 4 && key.as_bytes()[key.len() - 4..].eq_ignore_ascii_case(b"-bin")
}

fn text_key(key: &str) -> Result<HeaderName, MetadataError> {
    match is_bin(key) {
        true => Err(MetadataError::Binary { key: key.into() }),
        false => checked_key(key),
    }
}

fn bin_key(key: &str) -> Result<HeaderName, MetadataError> {
    match is_bin(key) {
        true => checked_key(key),
        false => Err(MetadataError::Text { key: key.into() }),
    }
}

fn checked_key(key: &str) -> Result<HeaderName, MetadataError> {
    if key.starts_with(':') {
        return Err(MetadataError::Reserved { key: key.into() });
    }
    // PROTOCOL-HTTP2.md, "Requests": Header-Name is 1*( 0-9 a-z _ - . ). Upper case is folded, as
    // in all of HTTP/2.
    let fits = key
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    match HeaderName::from_bytes(key.as_bytes()) {
        Ok(name) if fits && is_never_set(name.as_str()) => {
            Err(MetadataError::Reserved { key: key.into() })
        }
        Ok(name) if fits => Ok(name),
        _ => Err(MetadataError::Key { key: key.into() }),
    }
}

fn text_value(key: &str, value: &str) -> Result<HeaderValue, MetadataError> {
    // PROTOCOL-HTTP2.md, "Requests": ASCII-Value is %x20-%x7E; white space at its ends may be
    // stripped. RFC 9113, 8.2.1: it has to be, for a field value with spaces at an end is
    // malformed.
    let value = value.trim_matches(' ');
    let fits = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    match HeaderValue::from_str(value) {
        Ok(value) if fits => Ok(value),
        _ => Err(MetadataError::Value { key: key.into() }),
    }
}

/// Encodes bytes as the value of a field whose name ends in `-bin`.
pub fn encode_bin(value: &[u8]) -> HeaderValue {
    HeaderValue::try_from(BASE64.encode(value)).expect("base64 is printable ASCII")
}

/// Returns the first of the values in a field whose name ends in `-bin`, decoded; `None` if it is not base64.
pub fn first_bin(value: &HeaderValue) -> Option<Bytes> {
    decode_bin(split_bin(value).next()?)
}

/// The parts of a `-bin` value, still in base64.
// PROTOCOL-HTTP2.md, "Requests": implementations must split Binary-Headers on "," before decoding.
pub(crate) fn split_bin(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
}

pub(crate) fn decode_bin(part: &[u8]) -> Option<Bytes> {
    BASE64.decode(part).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_peer(pairs: &[(&str, &[u8])]) -> Metadata {
        let mut headers = HeaderMap::new();
        for (key, value) in pairs {
            let name = HeaderName::from_bytes(key.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        Metadata::from_headers(headers)
    }

    fn pairs(metadata: &Metadata) -> Vec<(String, String)> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        metadata
            .iter()
            .map(|(key, value)| (key.to_owned(), text(value)))
            .collect()
    }

    #[test]
    fn text_and_bytes_come_back_as_they_were_put_in() {
        let mut metadata = Metadata::new();
        metadata.insert("a", "0").unwrap();
        metadata.insert("A", " 1 ").unwrap();
        metadata.append("a", "2, 3").unwrap();
        metadata.insert("empty", "").unwrap();
        metadata.insert_bin("b-bin", "0").unwrap();
        metadata.insert_bin("B-Bin", [0xab, 0xab, 0xab]).unwrap();
        metadata.append_bin("b-bin", [0]).unwrap();
        metadata.append_bin("b-bin", []).unwrap();
        assert_eq!(metadata.get("a"), Some("1"));
        assert_eq!(metadata.get_all("A").collect::<Vec<_>>(), ["1", "2, 3"]);
        assert_eq!(metadata.get("empty"), Some(""));
        assert_eq!(metadata.get("none"), None);
        assert_eq!(metadata.get_bin("b-bin").unwrap()[..], [0xab, 0xab, 0xab]);
        let all: Vec<_> = metadata
            .get_all_bin("B-BIN")
            .map(|value| value.to_vec())
            .collect();
        assert_eq!(all, [vec![0xab, 0xab, 0xab], vec![0], vec![]]);
        assert_eq!(metadata.get("b-bin"), Some("q6ur"));
        assert_eq!(
            metadata.get_all("b-bin").nth(1),
            Some("AA"),
            "sent without padding"
        );
        assert_eq!((metadata.len(), metadata.is_empty()), (6, false));
        assert!(metadata.remove("A") && !metadata.remove("a"));
        assert_eq!(metadata.len(), 4);
    }

    #[test]
    fn metadata_of_a_peer_is_echoed_without_the_fields_of_the_protocol() {
        let received = of_peer(&[
            ("grpc-status", b"0"),
            ("a", b"1"),
            ("a", b"\xff"),
            ("user-agent", b"theirs"),
        ]);
        let mut sent = Metadata::new();
        sent.insert("a", "0").unwrap();
        sent.insert("user-agent", "ours").unwrap();
        sent.extend(received);
        let expected = [
            ("a", "0"),
            ("a", "1"),
            ("a", "\u{fffd}"),
            ("user-agent", "theirs"),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(pairs(&sent), expected);
        assert_eq!((&sent).into_iter().count(), sent.len());
        let mut empty = Metadata::new();
        empty.extend(of_peer(&[("grpc-status", b"0")]));
        assert!(empty.is_empty() && empty.into_headers().is_empty());
    }

    #[test]
    fn keys_and_values_that_cannot_be_sent_are_refused_with_the_key() {
        type Check = fn(&MetadataError) -> bool;
        let reserved: Check = |error| matches!(error, MetadataError::Reserved { .. });
        let key: Check = |error| matches!(error, MetadataError::Key { .. });
        let value: Check = |error| matches!(error, MetadataError::Value { .. });
        let binary: Check = |error| matches!(error, MetadataError::Binary { .. });
        let table: [(&str, &str, Check); 32] = [
            ("grpc-previous-rpc-attempts", "1", reserved),
            ("grpc-status", "0", reserved),
            ("Grpc-Status", "0", reserved),
            ("grpc-message", "x", reserved),
            ("grpc-timeout", "1S", reserved),
            ("grpc-encoding", "gzip", reserved),
            ("grpc-accept-encoding", "gzip", reserved),
            ("grpc-anything", "x", reserved),
            ("grpc-", "x", reserved),
            (":path", "/", reserved),
            (":", "", reserved),
            ("te", "trailers", reserved),
            ("content-type", "x", reserved),
            ("content-length", "1", reserved),
            ("host", "x", reserved),
            ("connection", "close", reserved),
            ("keep-alive", "x", reserved),
            ("proxy-connection", "x", reserved),
            ("transfer-encoding", "chunked", reserved),
            ("upgrade", "h2c", reserved),
            ("http2-settings", "x", reserved),
            ("trailer", "x", reserved),
            ("", "x", key),
            ("a b", "x", key),
            ("a!", "x", key),
            ("\u{e9}", "x", key),
            ("a\0", "x", key),
            ("a", "\u{e9}", value),
            ("a", "x\ny", value),
            ("a", "\tx", value),
            ("a", "\u{7f}", value),
            ("a-bin", "x", binary),
        ];
        let mut metadata = Metadata::new();
        for (name, text, is_expected) in table {
            for result in [metadata.insert(name, text), metadata.append(name, text)] {
                let error = result.unwrap_err();
                assert!(is_expected(&error), "{name:?} {text:?}: {error:?}");
                assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
            }
        }
        let text = metadata.insert_bin("a", "x").unwrap_err();
        assert!(matches!(text, MetadataError::Text { .. }));
        let reserved = metadata
            .append_bin("grpc-status-details-bin", "x")
            .unwrap_err();
        assert!(matches!(reserved, MetadataError::Reserved { .. }));
        assert!(metadata.is_empty());
    }

    #[test]
    fn what_applications_and_tracing_set_is_not_reserved() {
        let mut metadata = Metadata::new();
        for key in [
            "user-agent",
            "authorization",
            "grpc-retry-pushback-ms",
            "x.y_z-1",
            "te2",
        ] {
            metadata.insert(key, "x").unwrap();
        }
        for key in ["grpc-trace-bin", "grpc-tags-bin", "-bin"] {
            metadata.insert_bin(key, "x").unwrap();
        }
        assert_eq!(metadata.len(), 8);
    }

    #[test]
    fn a_full_map_refuses_a_key_and_does_not_panic() {
        let mut metadata = Metadata::new();
        let refused = (0..40_000).find_map(|at| metadata.append(&format!("k{at}"), "").err());
        assert!(matches!(refused, Some(MetadataError::Full { .. })));
        let mut headers = metadata.into_headers();
        let mut more = Metadata::new();
        more.insert("one-more", "x").unwrap();
        more.merge_into(&mut headers);
        assert!(!headers.contains_key("one-more"));
    }

    #[test]
    fn the_protocol_is_hidden_in_what_came_from_a_peer() {
        let metadata = of_peer(&[
            ("content-type", b"application/grpc"),
            ("a", b"1"),
            ("grpc-status", b"0"),
            ("te", b"trailers"),
            ("user-agent", b"x"),
            ("a", b"2"),
            ("grpc-status-details-bin", b"AA"),
            ("grpc-previous-rpc-attempts", b"1"),
        ]);
        let shown = [
            ("a", "1"),
            ("a", "2"),
            ("user-agent", "x"),
            ("grpc-previous-rpc-attempts", "1"),
        ];
        assert_eq!(
            pairs(&metadata),
            shown.map(|(key, value)| (key.into(), value.into()))
        );
        assert_eq!(metadata.len(), 4);
        for key in ["content-type", "Content-Type", "GRPC-STATUS", "te"] {
            assert_eq!(metadata.get(key), None, "{key}");
            assert_eq!(metadata.get_all(key).count(), 0, "{key}");
            assert!(!metadata.contains_key(key));
        }
        assert_eq!(metadata.get_bin("grpc-status-details-bin"), None);
        assert_eq!(metadata.get_all_bin("grpc-status-details-bin").count(), 0);
        assert_eq!(metadata.as_headers().len(), 8);
        let empty = of_peer(&[("grpc-status", b"0")]);
        assert_eq!((empty.len(), empty.is_empty()), (0, true));
    }

    #[test]
    fn what_came_from_a_peer_can_be_echoed_and_takes_no_protocol_along() {
        let received = of_peer(&[
            ("grpc-status", b"5"),
            ("grpc-previous-rpc-attempts", b"1"),
            ("raw", b"caf\xe9 \xff"),
            ("broken-bin", b"!!"),
            ("user-agent", b"theirs"),
            ("a", b"1"),
            ("a", b"2"),
        ]);
        assert_eq!(received.get("raw"), None, "not visible ASCII");
        assert_eq!(received.get_all("raw").count(), 0);
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_static("0"));
        headers.insert("user-agent", HeaderValue::from_static("ours"));
        received.merge_into(&mut headers);
        assert!(!headers.contains_key("grpc-previous-rpc-attempts"));
        assert_eq!(headers["raw"].as_bytes(), b"caf\xe9 \xff");
        assert_eq!(headers["broken-bin"], "!!");
        assert_eq!(
            headers.get_all("grpc-status").iter().collect::<Vec<_>>(),
            ["0"]
        );
        assert_eq!(
            headers.get_all("user-agent").iter().collect::<Vec<_>>(),
            ["theirs"]
        );
        assert_eq!(headers.get_all("a").iter().collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn bytes_are_read_padded_or_not_and_joined_or_not() {
        type Row<'a> = (&'a [u8], Option<&'a [u8]>, &'a [&'a [u8]]);
        let table: [Row<'_>; 11] = [
            (b"", Some(b""), &[b""]),
            (b"q6ur", Some(b"\xab\xab\xab"), &[b"\xab\xab\xab"]),
            (b"AA", Some(b"\0"), &[b"\0"]),
            (b"AA==", Some(b"\0"), &[b"\0"]),
            (b"AB", Some(b"\0"), &[b"\0"]),
            (b"AA,/+8=", Some(b"\0"), &[b"\0", b"\xff\xef"]),
            (b"AA== , q6ur", Some(b"\0"), &[b"\0", b"\xab\xab\xab"]),
            (b"!!", None, &[]),
            (b"A", None, &[]),
            (b"_-8", None, &[]),
            (b"!!,AA", None, &[b"\0"]),
        ];
        for (value, first, all) in table {
            let metadata = of_peer(&[("k-bin", value)]);
            let name = String::from_utf8_lossy(value);
            assert_eq!(metadata.get_bin("k-bin").as_deref(), first, "{name}");
            assert_eq!(
                metadata.get_all_bin("k-bin").collect::<Vec<_>>(),
                all,
                "{name}"
            );
        }
        let text = of_peer(&[("k", b"AA")]);
        assert_eq!(text.get_bin("k"), None);
        assert_eq!(text.get_all_bin("k").count(), 0);
    }

    #[test]
    fn equality_is_by_pairs_and_debug_shows_them() {
        let mut own = Metadata::new();
        own.insert("b", "2").unwrap();
        own.insert("a", "1").unwrap();
        let mut received = of_peer(&[("a", b"1"), ("grpc-status", b"0"), ("b", b"2")]);
        assert_eq!(own, received);
        assert_eq!(format!("{own:?}"), r#"{"b": "2", "a": "1"}"#);
        received.insert("b", "3").unwrap();
        assert_ne!(own, received);
    }
}
