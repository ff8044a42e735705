//! The compressors that one side supports, and the choice between those of two peers.

use std::fmt;
use std::sync::{Arc, LazyLock};

use http::HeaderValue;

use crate::compression::Compressor;
#[cfg(feature = "deflate")]
use crate::deflate::Deflate;
#[cfg(feature = "gzip")]
use crate::gzip::Gzip;

/// The compressors that a server or a channel supports, in order of preference. Clones are cheap.
///
/// Servers and channels create their own lists, which their builders change with `compressor`, `compress` and
/// `no_compression`. Only code that writes or reads the headers of gRPC itself, such as a proxy or a test,
/// needs this type.
///
/// ```
/// # mod trunkline { pub use trunkline_codec as codec; }
/// use trunkline::codec::Compressors;
///
/// assert_eq!(Compressors::none().accept_header(), "identity");
/// # #[cfg(all(feature = "gzip", feature = "deflate"))]
/// assert_eq!(Compressors::default().accept_header(), "identity,gzip,deflate");
/// ```
#[derive(Clone)]
pub struct Compressors(Arc<Known>);

struct Known {
    list: Vec<(HeaderValue, Arc<dyn Compressor>)>,
    accept: HeaderValue,
}

impl Compressors {
    /// Returns an empty list: messages are sent and accepted uncompressed only.
    pub fn none() -> Self {
        static NONE: LazyLock<Compressors> = LazyLock::new(|| Compressors::of(Vec::new()));
        NONE.clone()
    }

    /// Adds a compressor at the end, or at the position of one of the same name, which it replaces.
    ///
    /// # Panics
    ///
    /// Panics if the name is `identity`, or has characters other than lower-case letters, digits, `-`, `_`
    /// and `.`.
    #[must_use]
    pub fn with(self, compressor: impl Compressor + 'static) -> Self {
        let name = compressor.name();
        assert!(
            is_name(name),
            "{name:?} is not a valid name for a compressor"
        );
        let value =
            name_header(name).expect("the characters of a name are those of a header value");
        let mut list = self.0.list.clone();
        let place = list.iter().position(|(_, known)| known.name() == name);
        let added: (_, Arc<dyn Compressor>) = (value, Arc::new(compressor));
        match place {
            Some(at) => list[at] = added,
            None => list.push(added),
        }
        Self::of(list)
    }

    /// Moves the compressor of this name to the front. Has no effect if the list does not contain it.
    #[must_use]
    pub fn prefer(self, name: &str) -> Self {
        let mut list = self.0.list.clone();
        // Stable: the others keep their order.
        list.sort_by_key(|(_, known)| known.name() != name);
        Self::of(list)
    }

    /// Returns the compressor of this name, or `None` if the list does not contain it.
    pub fn find(&self, name: &str) -> Option<&Arc<dyn Compressor>> {
        self.0
            .list
            .iter()
            .map(|(_, compressor)| compressor)
            .find(|compressor| compressor.name() == name)
    }

    /// Returns the first compressor that is in `accept`, the value of a peer's `grpc-accept-encoding`
    /// header; `None` if no compressor is.
    pub fn choose(&self, accept: &HeaderValue) -> Option<&Arc<dyn Compressor>> {
        let accepts = |name: &str| {
            let mut accepted = accept
                .as_bytes()
                .split(|byte| *byte == b',')
                .map(<[u8]>::trim_ascii);
            accepted.any(|other| other == name.as_bytes())
        };
        self.iter().find(|compressor| accepts(compressor.name()))
    }

    /// Returns the value of the `grpc-accept-encoding` header, such as `identity,gzip`.
    #[inline]
    pub fn accept_header(&self) -> HeaderValue {
        self.0.accept.clone()
    }

    /// Returns the compressors, the preferred one first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Compressor>> {
        self.0.list.iter().map(|(_, compressor)| compressor)
    }

    /// Returns true if the list is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.list.is_empty()
    }

    /// The value of the `grpc-encoding` header for `encoding`, which may also be one that is not in
    /// the list.
    pub(crate) fn header_of(&self, compressor: &dyn Compressor) -> Option<HeaderValue> {
        let name = compressor.name();
        match self.0.list.iter().find(|(value, _)| value == name) {
            Some((value, _)) => Some(value.clone()),
            None => name_header(name),
        }
    }

    fn of(list: Vec<(HeaderValue, Arc<dyn Compressor>)>) -> Self {
        let mut accept = String::from("identity");
        for (_, compressor) in &list {
            accept.push(',');
            accept.push_str(compressor.name());
        }
        let accept = match accept.as_str() {
            "identity" => HeaderValue::from_static("identity"),
            "identity,gzip,deflate" => HeaderValue::from_static("identity,gzip,deflate"),
            _ => HeaderValue::try_from(accept)
                .expect("the characters of names are those of a header value"),
        };
        Self(Arc::new(Known { list, accept }))
    }
}

/// Contains gzip and deflate, in this order, each if the feature of its name is enabled.
///
/// zstd is not part of the default, because any crate in the build can enable the feature `zstd`, and that
/// should not change the wire format of others. Add it [`with`](Compressors::with).
impl Default for Compressors {
    fn default() -> Self {
        static BUILT_IN: LazyLock<Compressors> = LazyLock::new(|| {
            let compressors = Compressors::none();
            #[cfg(feature = "gzip")]
            let compressors = compressors.with(Gzip::default());
            #[cfg(feature = "deflate")]
            let compressors = compressors.with(Deflate::default());
            compressors
        });
        BUILT_IN.clone()
    }
}

impl fmt::Debug for Compressors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
    };
    !matches!(name, "" | "identity") && name.bytes().all(fits)
}

fn name_header(name: &str) -> Option<HeaderValue> {
    match name {
        "gzip" => Some(HeaderValue::from_static("gzip")),
        _ => HeaderValue::from_str(name).ok(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, BufMut, BytesMut};

    use super::*;
    use crate::compression::CompressionError;

    /// A compressor that has only a name.
    #[derive(Debug)]
    struct Named(&'static str);

    impl Compressor for Named {
        fn name(&self) -> &str {
            self.0
        }

        fn compress(
            &self,
            input: &mut dyn Buf,
            output: &mut BytesMut,
        ) -> Result<(), CompressionError> {
            output.put(input);
            Ok(())
        }

        fn decompress(
            &self,
            input: &mut dyn Buf,
            output: &mut BytesMut,
            _max_size: usize,
        ) -> Result<(), CompressionError> {
            output.put(input);
            Ok(())
        }
    }

    #[test]
    fn compressors_are_found_by_name_and_announced_in_order() {
        let compressors = Compressors::none().with(Named("zstd")).with(Named("x-own"));
        assert_eq!(compressors.accept_header(), "identity,zstd,x-own");
        assert_eq!(compressors.find("x-own").unwrap().name(), "x-own");
        for name in ["gzip", "identity", "", "ZSTD", "zstd "] {
            assert!(compressors.find(name).is_none(), "{name:?}");
        }
        assert_eq!(compressors.header_of(&Named("zstd")).unwrap(), "zstd");
        assert_eq!(compressors.header_of(&Named("other")).unwrap(), "other");
        assert!(compressors.header_of(&Named("no\nheader")).is_none());
        assert!(Compressors::none().is_empty() && !compressors.is_empty());
        assert_eq!(
            format!("{compressors:?}"),
            r#"[Named("zstd"), Named("x-own")]"#
        );
    }

    #[test]
    fn a_compressor_replaces_an_older_one_of_the_same_name() {
        let compressors = Compressors::none()
            .with(Named("a"))
            .with(Named("b"))
            .with(Named("a"));
        assert_eq!(compressors.accept_header(), "identity,a,b");
    }

    #[test]
    fn the_preferred_compressor_comes_first_and_the_others_keep_their_order() {
        let compressors = || {
            Compressors::none()
                .with(Named("a"))
                .with(Named("b"))
                .with(Named("c"))
        };
        for (name, accept) in [
            ("a", "identity,a,b,c"),
            ("c", "identity,c,a,b"),
            ("d", "identity,a,b,c"),
        ] {
            assert_eq!(compressors().prefer(name).accept_header(), accept);
        }
    }

    #[test]
    fn ours_are_chosen_in_our_order_from_what_the_peer_accepts() {
        let compressors = Compressors::none().with(Named("zstd")).with(Named("gzip"));
        let table: [(&[u8], Option<&str>); 10] = [
            (b"gzip", Some("gzip")),
            (b"identity,deflate,gzip", Some("gzip")),
            (b"gzip, zstd", Some("zstd")),
            (b" gzip\t,", Some("gzip")),
            (b",,gzip", Some("gzip")),
            (b"", None),
            (b"identity", None),
            (b"GZIP", None),
            (b"gzipx,xgzip", None),
            (b"\xff", None),
        ];
        for (accept, expected) in table {
            let accept = HeaderValue::from_bytes(accept).unwrap();
            let chosen = compressors
                .choose(&accept)
                .map(|compressor| compressor.name());
            assert_eq!(chosen, expected, "{accept:?}");
        }
    }

    #[test]
    fn names_are_lower_case_tokens() {
        for name in ["gzip", "x-my_own.2"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "identity", "GZIP", "a,b", "a b", "\u{e9}"] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
