//! What servers say in HEADERS: read in full once, and compared from then on.

use loona_hpack::Decoder;

/// Reads the header blocks of one connection's responses.
///
/// HPACK has state, so a block that changes it is always decoded. Most do not: once such a block
/// was found right, the same bytes are right again, for as long as the state stays what it is.
pub(crate) struct Heads {
    decoder: Decoder<'static>,
    good_head: Vec<u8>,
    good_trailers: Vec<u8>,
}

impl Heads {
    /// Of a new connection.
    pub(crate) fn new() -> Self {
        Self {
            decoder: Decoder::new(),
            good_head: Vec::new(),
            good_trailers: Vec::new(),
        }
    }

    /// Takes the head of a response.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn head(&mut self, block: &[u8]) -> Result<(), String> {
        if block == self.good_head {
            return Ok(());
        }
        let fields = self.decode(block)?;
        if fields.text(":status") != Some("200") {
            return Err(format!("a head of {fields}"));
        }
        if !fields
            .text("content-type")
            .is_some_and(|it| it.starts_with("application/grpc"))
        {
            return Err(format!("not gRPC: a head of {fields}"));
        }
        if changes_nothing(block) {
            block.clone_into(&mut self.good_head);
        }
        Ok(())
    }

    /// Takes the trailers of a response, or a response that is nothing but trailers.
    ///
    /// # Errors
    ///
    /// What is wrong with them, such as a status that is not 0.
    pub(crate) fn trailers(&mut self, block: &[u8]) -> Result<(), String> {
        if block == self.good_trailers {
            return Ok(());
        }
        let fields = self.decode(block)?;
        if fields.text("grpc-status") != Some("0") {
            return Err(format!("trailers of {fields}"));
        }
        if changes_nothing(block) {
            block.clone_into(&mut self.good_trailers);
        }
        Ok(())
    }

    fn decode(&mut self, block: &[u8]) -> Result<Fields, String> {
        if !changes_nothing(block) {
            // What an index meant before, it need not mean now.
            self.good_head.clear();
            self.good_trailers.clear();
        }
        let fields = self.decoder.decode(block);
        fields
            .map(Fields)
            .map_err(|error| format!("a header block that cannot be read: {error:?}"))
    }
}

/// The fields of a block.
struct Fields(Vec<(Vec<u8>, Vec<u8>)>);

impl Fields {
    fn text(&self, name: &str) -> Option<&str> {
        let field = self.0.iter().find(|(other, _)| other == name.as_bytes())?;
        std::str::from_utf8(&field.1).ok()
    }
}

impl std::fmt::Display for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            let gap = if at == 0 { "" } else { ", " };
            let (name, value) = (
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(value),
            );
            write!(f, "{gap}{name}: {value}")?;
        }
        Ok(())
    }
}

/// Whether a block leaves the decoder's table as it is: RFC 7541, section 6. What cannot be read is
/// said to change it.
fn changes_nothing(block: &[u8]) -> bool {
    walk(block).unwrap_or(false)
}

fn walk(mut block: &[u8]) -> Option<bool> {
    while let Some(first) = block.first() {
        match first {
            0x80.. => integer(&mut block, 7)?,
            // With incremental indexing, or a new size of the table.
            0x20..=0x7f => return Some(false),
            _ => {
                if integer(&mut block, 4)? == 0 {
                    skip_string(&mut block)?;
                }
                skip_string(&mut block)?;
                0
            }
        };
    }
    Some(true)
}

fn skip_string(block: &mut &[u8]) -> Option<()> {
    let len = integer(block, 7)?;
    *block = block.get(len..)?;
    Some(())
}

/// RFC 7541, section 5.1.
fn integer(block: &mut &[u8], prefix_bits: u32) -> Option<usize> {
    let (first, mut rest) = block.split_first()?;
    let prefix_max = (1 << prefix_bits) - 1;
    let mut value = usize::from(*first) & prefix_max;
    if value == prefix_max {
        for shift in (0..28).step_by(7) {
            let (next, after) = rest.split_first()?;
            rest = after;
            value += usize::from(next & 0x7f) << shift;
            if next & 0x80 == 0 {
                *block = rest;
                return Some(value);
            }
        }
        return None;
    }
    *block = rest;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_testkit::Fields as Written;

    #[test]
    fn only_indexing_and_a_new_table_size_change_the_table() {
        let long = Written::new().and("x", vec![b'v'; 300]).encode();
        for (block, expected) in [
            (&[][..], true),
            (&[0x88], true),
            (&[0x80 | 62, 0x80 | 63], true),
            (&[0xff, 0x05], true),
            (&[0x40, 1, b'a', 1, b'b'], false),
            (&[0x88, 0x5f, 1, b'b'], false),
            (&[0x20], false),
            (&[0x00, 1, b'a', 1, b'b'], true),
            (&[0x10, 1, b'a', 1, b'b', 0x88], true),
            (&[0x0f, 0x10, 1, b'b'], true),
            (&[0x00, 1, b'a', 9, b'b'], false),
            (&[0xff, 0x80, 0x80, 0x80, 0x80, 0x80], false),
            (&long, true),
        ] {
            assert_eq!(changes_nothing(block), expected, "{block:x?}");
        }
    }

    #[test]
    fn a_right_block_is_taken_again_and_a_wrong_one_is_told_in_words() {
        let mut heads = Heads::new();
        for _ in 0..2 {
            heads.head(&Written::response().encode()).expect("right");
            heads
                .trailers(&Written::trailers("0").encode())
                .expect("right");
        }
        let said = heads.trailers(&Written::trailers("13").and("grpc-message", "why").encode());
        assert_eq!(
            said,
            Err("trailers of grpc-status: 13, grpc-message: why".to_owned())
        );
        let html = Written::new()
            .and(":status", "200")
            .and("content-type", "text/html");
        assert!(heads.head(&html.encode()).is_err());
        let missing = Written::new().and(":status", "404");
        assert_eq!(
            heads.head(&missing.encode()),
            Err("a head of :status: 404".to_owned())
        );
    }

    #[test]
    fn bytes_that_were_right_are_read_anew_after_the_table_has_changed() {
        let mut heads = Heads::new();
        // grpc-status: 0 goes into the table, and 62 names it.
        let mut block = vec![0x40, 11];
        block.extend_from_slice(b"grpc-status\x010");
        heads.trailers(&block).expect("right");
        heads.trailers(&[0x80 | 62]).expect("right");
        // grpc-status: 5 is 62 now.
        let mut block = vec![0x40, 11];
        block.extend_from_slice(b"grpc-status\x015");
        assert!(heads.trailers(&block).is_err());
        assert!(heads.trailers(&[0x80 | 62]).is_err());
        heads.trailers(&[0x80 | 63]).expect("right");
    }
}
