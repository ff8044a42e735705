//! What every encoding does, whichever it is.

use bytes::{Buf, Bytes, BytesMut};
use trunkline_codec::{CompressionError, Compressor, Decoder, Payload, frame};

/// The encodings that are built in: each at its default level, its fastest and its smallest.
fn encodings() -> Vec<[Box<dyn Compressor>; 3]> {
    vec![
        #[cfg(feature = "gzip")]
        [
            Box::new(trunkline_codec::Gzip::default()),
            Box::new(trunkline_codec::Gzip::with_level(1)),
            Box::new(trunkline_codec::Gzip::with_level(9)),
        ],
        #[cfg(feature = "deflate")]
        [
            Box::new(trunkline_codec::Deflate::default()),
            Box::new(trunkline_codec::Deflate::with_level(1)),
            Box::new(trunkline_codec::Deflate::with_level(9)),
        ],
        #[cfg(feature = "zstd")]
        [
            Box::new(trunkline_codec::Zstd::default()),
            Box::new(trunkline_codec::Zstd::with_level(1)),
            Box::new(trunkline_codec::Zstd::with_level(19)),
        ],
    ]
}

/// Each encoding at its default level.
fn defaults() -> impl Iterator<Item = Box<dyn Compressor>> {
    encodings().into_iter().map(|[default, _, _]| default)
}

fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

fn text() -> Vec<u8> {
    (0..4_000_u32)
        .flat_map(|number| (number * number % 251).to_string().into_bytes())
        .collect()
}

/// `bytes` as a payload in pieces of `size` bytes.
fn in_pieces(bytes: &[u8], size: usize) -> Payload {
    let mut decoder = Decoder::new(usize::MAX);
    let len = u32::try_from(bytes.len()).unwrap();
    decoder.push(Bytes::copy_from_slice(&frame::prefix(false, len)));
    bytes
        .chunks(size)
        .for_each(|piece| decoder.push(Bytes::copy_from_slice(piece)));
    decoder.next().unwrap().unwrap().payload
}

fn compressed(encoding: &dyn Compressor, bytes: &[u8]) -> BytesMut {
    let mut output = BytesMut::new();
    encoding.compress(&mut &bytes[..], &mut output).unwrap();
    output
}

fn restored(
    encoding: &dyn Compressor,
    bytes: &[u8],
    max_size: usize,
) -> Result<BytesMut, CompressionError> {
    let mut output = BytesMut::new();
    encoding
        .decompress(&mut &bytes[..], &mut output, max_size)
        .map(|()| output)
}

#[test]
fn messages_of_any_size_and_in_any_pieces_come_back() {
    for encoding in defaults() {
        for size in [0, 1, 511, 512, 16_383, 16_384, 16_385, 70_000, 300_000] {
            for bytes in [noise(size), vec![7; size]] {
                for piece in [1_024, 50_000, usize::MAX] {
                    let mut wire = BytesMut::new();
                    let mut input = in_pieces(&bytes, piece);
                    encoding.compress(&mut input, &mut wire).unwrap();
                    assert_eq!(input.remaining(), 0);
                    let mut output = BytesMut::from(&b"before "[..]);
                    let mut input = in_pieces(&wire, piece);
                    encoding
                        .decompress(&mut input, &mut output, size)
                        .unwrap_or_else(|error| panic!("{encoding:?}: {size}: {error}"));
                    assert_eq!(output[..7], b"before "[..]);
                    assert!(output[7..] == bytes, "{encoding:?}: {size} in {piece}");
                }
            }
        }
    }
}

#[test]
fn a_compressor_that_is_used_again_starts_from_nothing() {
    let text = text();
    for encoding in defaults() {
        let first = compressed(&*encoding, &text);
        for _ in 0..3 {
            assert_eq!(compressed(&*encoding, &text), first, "{encoding:?}");
        }
    }
}

#[test]
fn a_compressor_is_used_again_for_its_own_level_and_encoding_only() {
    let text = text();
    let all = || encodings().into_iter().flatten();
    let each = || -> Vec<BytesMut> { all().map(|it| compressed(&*it, &text)).collect() };
    let first = each();
    assert_eq!(each(), first);
    for (encoding, wire) in all().zip(&first) {
        assert_eq!(restored(&*encoding, wire, text.len()).unwrap(), text);
    }
    for levels in first.chunks(3) {
        let [_, fast, small] = levels else {
            panic!("three levels each")
        };
        assert!(small.len() < fast.len(), "{} {}", small.len(), fast.len());
    }
}

#[test]
fn a_message_that_is_cut_or_has_more_behind_it_is_corrupt() {
    for encoding in defaults() {
        let wire = compressed(&*encoding, b"some text, some text, some text");
        for end in 0..wire.len() {
            assert_eq!(
                restored(&*encoding, &wire[..end], 100),
                Err(CompressionError::Corrupt),
                "{encoding:?} cut at {end}"
            );
        }
        for bad in [&[&wire[..], &[0]].concat()[..], b"by no means compressed"] {
            let result = restored(&*encoding, bad, 100);
            assert_eq!(result, Err(CompressionError::Corrupt), "{encoding:?}");
        }
    }
}

#[test]
fn a_message_whose_checksum_or_size_is_a_lie_is_corrupt() {
    // zstd has neither unless it is asked for them.
    for encoding in defaults().filter(|it| it.name() != "zstd") {
        let wire = compressed(&*encoding, b"some text, some text, some text");
        for back in 1..=4 {
            let mut wire = wire.clone();
            let at = wire.len() - back;
            wire[at] ^= 0x41;
            assert_eq!(
                restored(&*encoding, &wire, 100),
                Err(CompressionError::Corrupt),
                "{encoding:?} {back}"
            );
        }
    }
}

#[test]
fn a_bomb_is_cut_off_at_the_limit_and_costs_no_more_than_that() {
    for encoding in defaults() {
        let wire = compressed(&*encoding, &vec![0; 16 * 1024 * 1024]);
        let limit = 100_000;
        let mut output = BytesMut::new();
        let result = encoding.decompress(&mut &wire[..], &mut output, limit);
        assert_eq!(result, Err(CompressionError::TooLarge), "{encoding:?}");
        // The contract allows 64 KiB more; one byte is enough to know.
        assert_eq!(output.len(), limit + 1, "{encoding:?}");
        assert!(output.capacity() <= 2 * limit + 64 * 1024, "{encoding:?}");
    }
}

#[test]
fn the_limit_is_exact() {
    for encoding in defaults() {
        let restored = |wire: &[u8], limit| restored(&*encoding, wire, limit);
        for wire in [&[7; 20_000][..], &noise(20_000)] {
            let wire = compressed(&*encoding, wire);
            assert_eq!(restored(&wire, 19_999), Err(CompressionError::TooLarge));
            assert_eq!(restored(&wire, 20_000).unwrap().len(), 20_000);
            assert_eq!(restored(&wire, 20_001).unwrap().len(), 20_000);
        }
        let (none, one) = (compressed(&*encoding, b""), compressed(&*encoding, b"x"));
        assert_eq!(restored(&none, 0).unwrap().len(), 0);
        assert_eq!(restored(&one, 0), Err(CompressionError::TooLarge));
        assert_eq!(restored(&one, usize::MAX).unwrap(), b"x"[..]);
    }
}

/// Bits as deflate has them (RFC 1951, 3.1.1): the lowest of a byte first.
#[cfg(feature = "gzip")]
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: usize,
}

#[cfg(feature = "gzip")]
impl Bits {
    fn put(&mut self, value: u32, bits: usize) {
        for bit in 0..bits {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.last_mut().expect("a byte");
            *last |= u8::try_from(value >> bit & 1).expect("a bit") << (self.used % 8);
            self.used += 1;
        }
    }

    /// A block that holds nothing, of fixed codes.
    fn fixed(&mut self) {
        self.put(0b010, 3);
        self.put(0, 7);
    }

    /// A block that holds nothing, and has tables to be made (RFC 1951, 3.2.7): codes of 1 to 15 bits
    /// for 15 literals and the end of the block, and one code for distances.
    fn dynamic(&mut self) {
        self.put(0b100, 3);
        // 257 literals, 1 distance, and the lengths of all 19 length codes: 4 bits for those from 1
        // to 15 and for 18; the end of the block has a code of one bit.
        for (value, bits) in [(0, 5), (0, 5), (15, 4)] {
            self.put(value, bits);
        }
        for code in [
            16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
        ] {
            self.put(if matches!(code, 1..=15 | 18) { 4 } else { 0 }, 3);
        }
        // The 16 codes of 4 bits are in the order of their symbols: 1 to 15 are 0 to 14, and 18 is 15.
        (2..=15).for_each(|length| self.length(length));
        self.length(15);
        // No more literals, up to the end of the block: 241 of 256.
        self.zeros(138);
        self.zeros(103);
        self.length(1);
        self.length(1);
        // The end of the block.
        self.put(0, 1);
    }

    fn zeros(&mut self, count: u32) {
        self.length(18);
        self.put(count - 11, 7);
    }

    fn length(&mut self, symbol: u32) {
        let code = if symbol == 18 { 15 } else { symbol - 1 };
        (0..4).for_each(|bit| self.put(code >> (3 - bit) & 1, 1));
    }

    /// As gzip, with a last block that holds nothing.
    fn gzip(mut self) -> Vec<u8> {
        self.put(0b011, 3);
        self.put(0, 7);
        let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        [&head[..], &self.bytes, &[0; 8]].concat()
    }
}

/// Messages that cost much to restore for what they are, in gzip.
#[cfg(feature = "gzip")]
fn costly(size: usize) -> Vec<(&'static str, Vec<u8>)> {
    let blocks = |block: fn(&mut Bits)| {
        let mut bits = Bits::default();
        while bits.bytes.len() < size {
            block(&mut bits);
        }
        bits.gzip()
    };
    vec![
        ("fixed blocks", blocks(Bits::fixed)),
        ("dynamic blocks", blocks(Bits::dynamic)),
        ("members", Bits::default().gzip().repeat(1_000)),
        (
            "zeros",
            compressed(&trunkline_codec::Gzip::default(), &vec![0; size]).to_vec(),
        ),
        (
            "noise",
            compressed(&trunkline_codec::Gzip::default(), &noise(size)).to_vec(),
        ),
    ]
}

/// Restores a message step by step, each of which is bounded; returns how many steps it took.
fn in_steps(encoding: &dyn Compressor, bytes: &[u8], max_size: usize) -> (BytesMut, usize) {
    let mut restoring = encoding.decompressor(max_size).expect("it goes in steps");
    let (mut input, mut output, mut steps) = (bytes, BytesMut::new(), 1);
    loop {
        let before = (input.len(), output.len());
        let is_whole = restoring.step(&mut input, &mut output).expect("it is good");
        let (taken, made) = (before.0 - input.len(), output.len() - before.1);
        assert!(taken <= 8 * 1024 && made <= 128 * 1024, "{taken} {made}");
        if is_whole {
            return (output, steps);
        }
        steps += 1;
    }
}

#[test]
fn a_message_is_restored_in_bounded_steps_and_a_small_one_in_one() {
    for encoding in defaults() {
        for (plain, least, most) in [
            (Vec::new(), 1, 1),
            (text(), 1, 1),
            (noise(4 * 1024), 1, 2),
            (vec![0; 1 << 20], 8, 40),
            (noise(1 << 20), 128, 600),
        ] {
            let wire = compressed(&*encoding, &plain);
            let (restored, steps) = in_steps(&*encoding, &wire, plain.len());
            assert!(restored == plain, "{encoding:?}");
            assert!(
                (least..=most).contains(&steps),
                "{encoding:?} {} {steps}",
                plain.len()
            );
        }
    }
}

#[cfg(feature = "gzip")]
#[test]
fn a_message_that_is_made_to_cost_much_is_restored_in_bounded_steps() {
    let gzip = trunkline_codec::Gzip::default();
    for (name, wire) in costly(256 * 1024) {
        let all = restored(&gzip, &wire, 1 << 20).expect(name);
        let (restored, steps) = in_steps(&gzip, &wire, 1 << 20);
        assert_eq!(all, restored, "{name}");
        assert!(steps >= 4, "{name}: {steps}");
    }
}
