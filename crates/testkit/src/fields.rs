//! Header blocks: any bytes as names and values, in any order.

use bytes::{BufMut, Bytes, BytesMut};

/// The fields of a header block, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(Bytes, Bytes)>);

impl Fields {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// The head of a good call.
    pub fn call(path: &str) -> Self {
        Self::new()
            .and(":method", "POST")
            .and(":scheme", "http")
            .and(":path", path)
            .and(":authority", "localhost")
            .and("te", "trailers")
            .and("content-type", "application/grpc")
    }

    /// The head of a good response.
    pub fn response() -> Self {
        Self::new()
            .and(":status", "200")
            .and("content-type", "application/grpc")
    }

    /// The trailers of a response.
    pub fn trailers(status: &str) -> Self {
        Self::new().and("grpc-status", status)
    }

    /// Adds a field at the end.
    #[must_use]
    pub fn and(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.0.push((copy(name), copy(value)));
        self
    }

    /// Adds a field at the front.
    #[must_use]
    pub fn first(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.0.insert(0, (copy(name), copy(value)));
        self
    }

    /// Takes a field out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.retain(|(other, _)| other != name);
        self
    }

    /// Replaces the value of a field, where it stands.
    ///
    /// # Panics
    ///
    /// When there is none of that name.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let field = self.0.iter_mut().find(|(other, _)| other == name);
        field.expect("the field to replace is there").1 = copy(value);
        self
    }

    /// The values of a field.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Bytes> {
        let named = self.0.iter().filter(move |(other, _)| other == name);
        named.map(|(_, value)| value)
    }

    /// The first value of a field as text; what is none is patched.
    pub fn text(&self, name: &str) -> Option<String> {
        let value = self.all(name).next()?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// The size of the list as RFC 9113, section 6.5.2 counts it.
    pub fn list_size(&self) -> usize {
        self.iter()
            .map(|(name, value)| name.len() + value.len() + 32)
            .sum()
    }

    /// The block on the wire: each field a literal without indexing, with a new name, and no
    /// Huffman code (RFC 7541, section 6.2.2).
    pub fn encode(&self) -> Bytes {
        let mut block = BytesMut::new();
        for (name, value) in self.iter() {
            block.put_u8(0);
            put_string(&mut block, name);
            put_string(&mut block, value);
        }
        block.freeze()
    }
}

impl From<Vec<(Vec<u8>, Vec<u8>)>> for Fields {
    fn from(fields: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let fields = fields.into_iter();
        Self(
            fields
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

fn copy(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

/// RFC 7541, sections 5.1 and 5.2.
fn put_string(block: &mut BytesMut, bytes: &[u8]) {
    const PREFIX_MAX: usize = 127;
    if bytes.len() < PREFIX_MAX {
        block.put_u8(bytes.len() as u8);
    } else {
        block.put_u8(PREFIX_MAX as u8);
        let mut rest = bytes.len() - PREFIX_MAX;
        while rest >= 128 {
            block.put_u8((rest % 128) as u8 | 0x80);
            rest /= 128;
        }
        block.put_u8(rest as u8);
    }
    block.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_decoder_reads_the_fields_as_they_were_written() {
        for len in [0, 1, 126, 127, 128, 254, 255, 256, 20_000] {
            let fields = Fields::call("/a.B/C").and("x", vec![b'v'; len]);
            let decoded = loona_hpack::Decoder::new()
                .decode(&fields.encode())
                .expect("the block is right");
            assert_eq!(Fields::from(decoded), fields, "{len}");
        }
    }

    #[test]
    fn fields_are_replaced_where_they_stand_and_taken_out() {
        let fields = Fields::call("/a").with(":path", "/b").without("te");
        assert_eq!(fields.text(":path").as_deref(), Some("/b"));
        assert_eq!(fields.iter().nth(2).expect("third").0, ":path");
        assert_eq!(fields.all("te").count(), 0);
    }
}
