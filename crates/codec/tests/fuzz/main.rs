//! The fuzz entry points, with bytes from a seed.
#![allow(missing_docs, reason = "a test")]

mod entry_points;

use entry_points as fuzz;

/// How many inputs each entry point is given.
const INPUTS: u32 = 3_000;

/// A small generator of numbers, always the same for the same seed (xorshift).
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// Up to 400 bytes out of `alphabet`, or any bytes if it is empty.
    fn bytes(&mut self, alphabet: &[u8]) -> Vec<u8> {
        let len = self.next() % [4, 16, 400][(self.next() % 3) as usize];
        let mut byte = || match alphabet {
            [] => self.next() as u8,
            _ => alphabet[self.next() as usize % alphabet.len()],
        };
        (0..len).map(|_| byte()).collect()
    }
}

fn run(entry: fn(&[u8]), alphabet: &[u8]) {
    let mut random = Random(0x9e37_79b9);
    for _ in 0..INPUTS {
        let any = random.bytes(&[]);
        entry(&any);
        let likely = random.bytes(alphabet);
        entry(&likely);
    }
}

#[test]
fn messages_do_not_depend_on_chunks() {
    run(fuzz::message_reader, &[0, 0, 0, 0, 1, 1, 2, 9, 30, 255]);
}

#[test]
fn a_call_has_one_end_at_most() {
    run(
        fuzz::call,
        &[0, 0, 0, 1, 3, 5, 8, 8, 9, 14, 14, 15, 37, 48, 67],
    );
}

#[test]
fn metadata_survives_an_echo() {
    run(fuzz::metadata, b"0123\x04\x14\x22\x6a\x9a\xa9AQgw=,\xff");
}

#[test]
fn a_head_is_read_or_refused() {
    run(
        fuzz::request_head,
        &[1, 2, 3, 4, 0x23, 0x23, 0x23, 0x34, 0x56, 0xd6, 0x18, 0x35],
    );
}

#[test]
fn timeouts_never_shrink() {
    run(fuzz::timeout, b"0123456789HMSmun");
}

#[test]
fn messages_of_statuses_come_back() {
    run(fuzz::percent, b"%% aZ09cC3\xc3\xa9\x7f\n");
}

#[test]
fn paths_are_exact() {
    run(fuzz::path, b"//aB.?%");
}

#[test]
fn restoring_is_bounded() {
    run(
        fuzz::decompress,
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xff],
    );
    run(fuzz::decompress, &[0x78, 0x9c]);
    run(fuzz::decompress, &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58]);
}
